"""Pages that change a version: editing, sealing, discarding, retiring, hashing."""

from __future__ import annotations

from typing import Any

from apps.catalogue import hash_jobs, sealing, selectors, version_actions
from apps.catalogue.access import EDIT, MANAGE
from apps.catalogue.blobs import mib
from apps.catalogue.choices import VersionStatus
from apps.catalogue.forms import NoteForm, ReasonForm, VersionForm, version_initial
from apps.catalogue.model_views import model_url
from apps.catalogue.models import ModelVersion
from apps.catalogue.version_views import version_crumbs, version_url
from apps.core.errors import Conflict
from apps.core.views import ActionView, Crumb


class VersionAction(ActionView):
    """An action on one version."""

    queryset = ModelVersion.objects.select_related("model__team", "store", "card")
    permission = EDIT
    url_kwarg = "version_uid"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the version."""
        return version_crumbs(self.object)

    def must_be_draft(self) -> None:
        """Raise Conflict for anything but a draft."""
        if self.object.status == VersionStatus.HASHING:
            raise Conflict("Its files are being hashed. Wait until that is done, or cancel it.")
        if self.object.status != VersionStatus.DRAFT:
            raise Conflict("A sealed version never changes. Make a new one for what is different.")


class VersionEdit(VersionAction):
    """Change a draft."""

    title = "Edit draft"
    form_class = VersionForm
    submit_label = "Save"
    intro = "With another location or revision, what was hashed is void and has to be hashed again."

    def check_state(self) -> None:
        """Drafts only."""
        self.must_be_draft()

    def get_form_kwargs(self) -> dict[str, Any]:
        """Offer the stores of its kind."""
        return {"model": self.object.model, "scheme": self.object.scheme}

    def get_initial(self) -> dict[str, Any]:
        """Show what is stored."""
        return version_initial(self.object)

    def perform(self, form: Any) -> str:
        """Save."""
        version_actions.edit_version(
            self.object.pk, actor=self.actor, expected_version=self.expected_version, **form.values()
        )
        self.success_message = "Saved."
        return version_url(self.object)


class VersionSeal(VersionAction):
    """Fix a draft for ever."""

    title = "Seal this version"
    form_class = NoteForm
    submit_label = "Seal for ever"
    template_name = "catalogue/version_seal.html"
    intro = (
        "From then on nothing of it can be changed, by nobody: its files, image, arguments, sources and card make one"
        " digest, and that is what is reviewed, approved and enforced. What is wrong then needs a new version."
    )

    def check_state(self) -> None:
        """Drafts only."""
        self.must_be_draft()

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add what is missing, and the classification it will have."""
        version = self.object
        return super().get_context(
            missing=sealing.missing(version) if version else [],
            classification=selectors.shown_classification(version) if version else None,
            file_count=version.files.count() if version else 0,
            size=mib(version.total_bytes) if version else "",
            **extra,
        )

    def perform(self, form: Any) -> str:
        """Seal."""
        version = sealing.seal(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        self.success_message = f"{version} is sealed. Its digest begins with {version.digest[:12]}."
        return version_url(version)


class VersionDiscard(VersionAction):
    """Throw a draft away."""

    title = "Discard draft"
    form_class = NoteForm
    submit_label = "Discard"
    danger = True
    intro = "The draft and its list of files go. Its number is not used again; its label is free."

    def check_state(self) -> None:
        """Drafts only."""
        self.must_be_draft()

    def perform(self, form: Any) -> str:
        """Discard."""
        version_actions.discard_version(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        self.success_message = "The draft is gone."
        return model_url(self.object.model)


class VersionRetire(VersionAction):
    """Take a sealed version out of use."""

    title = "Retire version"
    permission = MANAGE
    form_class = ReasonForm
    submit_label = "Retire"
    danger = True
    intro = "It is offered for nothing new. What runs is not touched; grants stay as they are until they end."

    def check_state(self) -> None:
        """Sealed versions only."""
        if self.object.status != VersionStatus.SEALED:
            raise Conflict("Only a sealed version is retired; a draft is discarded.")

    def perform(self, form: Any) -> str:
        """Retire."""
        version_actions.retire_version(
            self.object.pk, form.cleaned_data["reason"], actor=self.actor, expected_version=self.expected_version
        )
        self.success_message = f"{self.object} is retired."
        return version_url(self.object)


class VersionReinstate(VersionAction):
    """Take a retired version back into use."""

    title = "Reinstate version"
    permission = MANAGE
    form_class = NoteForm
    submit_label = "Reinstate"
    intro = "It can be submitted and released again, as far as its grants allow."

    def check_state(self) -> None:
        """Retired versions only."""
        if self.object.status != VersionStatus.RETIRED:
            raise Conflict("This version is not retired.")

    def perform(self, form: Any) -> str:
        """Reinstate."""
        version_actions.reinstate_version(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        self.success_message = f"{self.object} is in use again."
        return version_url(self.object)


class VersionHash(VersionAction):
    """Have a draft's files hashed."""

    title = "Hash files"
    form_class = NoteForm
    submit_label = "Hash its files"
    intro = (
        "The portal reads every file where it lies and computes its SHA-256. Files that were hashed and have not"
        " changed since are not read again. You can close the page meanwhile."
    )

    def check_state(self) -> None:
        """Drafts only."""
        self.must_be_draft()

    def perform(self, form: Any) -> str:
        """Start."""
        hash_jobs.start_hashing(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        return version_url(self.object)


class VersionHashCancel(VersionAction):
    """Stop hashing."""

    title = "Cancel hashing"
    form_class = NoteForm
    submit_label = "Cancel hashing"
    danger = True
    intro = "Files that are done keep their digests: starting again goes on from there."

    def check_state(self) -> None:
        """Only while it runs."""
        if self.object.status != VersionStatus.HASHING:
            raise Conflict("Nothing is being hashed.")

    def perform(self, form: Any) -> str:
        """Cancel."""
        job = selectors.last_job(self.object)
        hash_jobs.cancel_hashing(job.pk if job else 0, actor=self.actor)
        self.success_message = "Hashing is cancelled."
        return version_url(self.object)
