"""Pages of copies of uploaded files: put a version into a store, watch it, cancel it."""

from __future__ import annotations

from typing import Any

from django import forms
from django.urls import reverse

from apps.catalogue import copies
from apps.catalogue.evidence_views import version_crumbs
from apps.catalogue.forms import NoteForm
from apps.catalogue.models import ModelStore, ModelVersion, StoredCopy
from apps.core import clock
from apps.core.errors import Conflict
from apps.core.forms import CommonsForm
from apps.core.views import ActionView, Crumb

_VERSIONS = ModelVersion.objects.select_related("model__team__unit")


class CopyForm(CommonsForm):
    """Which store."""

    store: forms.ModelChoiceField[ModelStore] = forms.ModelChoiceField(
        queryset=ModelStore.objects.none(), empty_label=None,
        help_text="Of those that a platform admin has opened for the portal's copies.",
    )  # fmt: skip

    def __init__(self, *args: Any, model_version: ModelVersion, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["store"].queryset = copies.targets(model_version)  # type: ignore[attr-defined]  # a model field


class VersionStore(ActionView):
    """Put an approved version's files where clusters load them."""

    title = "Put into a model store"
    intro = (
        "The portal writes exactly the approved files below the manifest's digest, reads every byte back, and only then"
        " lets releases load them from there."
    )
    queryset = _VERSIONS
    permission = copies.SUBMIT
    url_kwarg = "version_uid"
    form_class = CopyForm
    submit_label = "Put them there"
    success_message = "A worker takes it up within seconds. Follow it here."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the version."""
        return version_crumbs(self.object)

    def check_state(self) -> None:
        """Only approved bytes leave the portal, and only to a store that is opened for them."""
        if why := copies.why_not(self.object, clock.now()):
            raise Conflict(why)
        if not copies.targets(self.object).exists():
            raise Conflict(
                "No store takes the portal's copies yet: a platform admin ticks “Takes copies of uploaded files” on an"
                " S3-compatible store with a bucket."
            )

    def get_form_kwargs(self) -> dict[str, Any]:
        """The choices depend on the owning team."""
        return {"model_version": self.object}

    def perform(self, form: Any) -> str:
        """Start it."""
        copies.start(self.object.pk, form.cleaned_data["store"].pk, actor=self.actor)
        return reverse("catalogue:version-detail", kwargs={"version_uid": self.object.uid})


class CopyCancel(ActionView):
    """Stop a copy that is under way."""

    title = "Cancel the copy"
    intro = "What lies in the store already stays there and is not loaded by anything."
    queryset = StoredCopy.objects.select_related("model_version__model__team__unit", "store")
    permission = copies.SUBMIT
    url_kwarg = "copy_uid"
    form_class = NoteForm
    submit_label = "Cancel it"
    danger = True
    success_message = "Cancelled."

    def scope_object(self) -> Any:
        """Ask permissions for the version."""
        return self.object.model_version

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the version."""
        return version_crumbs(self.object.model_version)

    def check_state(self) -> None:
        """Only what is under way."""
        if self.object.status not in copies.OPEN:
            raise Conflict("It has ended already.")

    def perform(self, form: Any) -> str:
        """Cancel it."""
        copies.cancel(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        return reverse("catalogue:version-detail", kwargs={"version_uid": self.object.model_version.uid})
