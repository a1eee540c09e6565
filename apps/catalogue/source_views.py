"""Pages of a draft's sources: add one, take one away."""

from __future__ import annotations

from typing import Any

from apps.catalogue import selectors, version_actions
from apps.catalogue.forms import NoteForm, SourceForm
from apps.catalogue.models import ModelVersion, VersionSource
from apps.catalogue.version_action_views import VersionAction
from apps.catalogue.version_actions import SourceInput
from apps.catalogue.version_views import version_url
from apps.core.errors import Invalid, NotVisible


def inputs_of(version: ModelVersion, *, but: int = 0) -> list[SourceInput]:
    """Return the sources of a draft as `set_sources` takes them."""
    return [
        SourceInput(
            row.kind, row.name, row.source_version_id, row.revision, row.uri,
            "" if row.source_version_id else row.digest, tuple(row.data_classes),
        )
        for row in version.sources.exclude(pk=but).order_by("pk")
    ]  # fmt: skip


class SourceAdd(VersionAction):
    """Add what a draft was made from."""

    title = "Add a source"
    form_class = SourceForm
    submit_label = "Add"
    intro = (
        "What went in decides what comes out: data classes are inherited from every source and cannot be lower here."
    )

    def check_state(self) -> None:
        """Drafts only."""
        self.must_be_draft()

    def perform(self, form: Any) -> str:
        """Write the list with one more."""
        data = form.cleaned_data
        parent = None
        if data["source_version"]:
            parent = selectors.find_version(self.request.user, data["source_version"])
            if parent is None:
                raise Invalid({"source_version": "There is no such version here, or you may not see it."})
        added = SourceInput(
            data["kind"], data["name"], parent.pk if parent else None, data["revision"], data["uri"],
            data["digest"].lower(), tuple(data["data_classes"]),
        )  # fmt: skip
        try:
            version_actions.set_sources(
                self.object.pk, [*inputs_of(self.object), added], actor=self.actor,
                expected_version=self.expected_version,
            )  # fmt: skip
        except Invalid as invalid:
            place = "source_version" if parent else "name"
            raise Invalid(
                {place if name == "sources" else name: texts for name, texts in invalid.errors.items()}
            ) from invalid
        self.success_message = "Added."
        return version_url(self.object)


class SourceRemove(VersionAction):
    """Take a source away from a draft."""

    title = "Remove source"
    form_class = NoteForm
    submit_label = "Remove"
    danger = True
    source: VersionSource

    def prepare(self) -> None:
        """Load version and source."""
        rows = VersionSource.objects.visible_to(self.request.user).filter(uid=self.kwargs["source_uid"])
        found = rows.select_related("model_version__model__team").first()
        if found is None:
            raise NotVisible
        self.source, self.object = found, found.model_version

    def check_state(self) -> None:
        """Drafts only."""
        self.must_be_draft()

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Say which one."""
        return super().get_context(
            **{"intro": f"“{self.source.name}” goes, and what is inherited through it alone.", **extra}
        )

    def perform(self, form: Any) -> str:
        """Write the list with one less."""
        version_actions.set_sources(
            self.object.pk, inputs_of(self.object, but=self.source.pk), actor=self.actor,
            expected_version=self.expected_version,
        )  # fmt: skip
        self.success_message = "Removed."
        return version_url(self.object)
