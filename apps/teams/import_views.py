"""The page that imports people, units, teams, memberships and roles from a CSV file, with a preview before."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import HttpResponseBase
from django.urls import reverse

from apps.accounts.step_up import StepUpMixin
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.core.forms import CommonsForm
from apps.core.permissions import INSTALLATION, may
from apps.core.views import CreateView, Crumb
from apps.teams import importing
from apps.teams.import_reader import COLUMNS, MAX_BYTES, Unreadable, decoded


class ImportForm(CommonsForm):
    """A file, then the same file with the digest of what its preview showed."""

    kind = forms.ChoiceField(label="What the file holds", choices=[])
    file = forms.FileField(label="CSV file", required=False, help_text="UTF-8, with a header line; at most 1,000 rows.")
    content = forms.CharField(required=False, widget=forms.HiddenInput, strip=False, max_length=MAX_BYTES)
    digest = forms.CharField(required=False, widget=forms.HiddenInput, max_length=64)

    def __init__(self, *args: Any, kinds: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["kind"].choices = [(kind, kind.capitalize()) for kind in kinds]  # type: ignore[attr-defined]  # a choice field

    def clean(self) -> dict[str, Any]:
        """Take the text of the file, or the text that was previewed."""
        data: dict[str, Any] = super().clean() or {}
        upload = data.get("file")
        if upload is not None:
            if upload.size > MAX_BYTES:
                self.add_error("file", f"The file is larger than {MAX_BYTES // 1024} KiB: split it.")
                return data
            try:
                data["content"], data["digest"] = decoded(upload.read()), ""
            except Unreadable as problem:
                self.add_error("file", str(problem))
        elif not data.get("content"):
            self.add_error("file", "Choose a file.")
        return data


class Import(StepUpMixin, CreateView):
    """Takes a file, shows what it would do, and does it when that is confirmed."""

    title = "Import from a file"
    intro = "People, units, teams, memberships or roles, one a line. First you see what every row would do."
    scope_free = "every row goes through the action that asks for itself"
    form_class = ImportForm
    template_name = "teams/import.html"
    submit_label = "Show what it would do"

    def kinds(self) -> list[str]:
        """Return what the person may import."""
        user = self.request.user
        return [kind for kind, needs in importing.PERMISSIONS.items() if may(user, needs, INSTALLATION)]

    def check_permission(self) -> None:
        """Whoever may import anything opens the page."""
        if not self.kinds():
            raise NotAllowed(rule="teams.unit.manage")

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back."""
        return [Crumb("Units", reverse("teams:unit-list"))]

    def get_form_kwargs(self) -> dict[str, Any]:
        """Offer what may be imported."""
        return {"kinds": self.kinds()}

    def get_initial(self) -> dict[str, Any]:
        """Take the kind from the address."""
        return {"kind": self.request.GET.get("kind", "people")}

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the columns of each kind."""
        columns = [(kind, *COLUMNS[kind]) for kind in self.kinds()]
        return super().get_context(**{"columns": columns, **extra})

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Show the preview, or do what it showed."""
        data = form.cleaned_data
        kind, text, digest = data["kind"], data["content"], data["digest"]
        if not digest:
            return self._preview(kind, text)
        try:
            done = importing.import_file(kind, text, digest, actor=self.actor)
        except (Conflict, Invalid) as refusal:
            return self._preview(kind, text, note=refusal.message, status=409)
        self.success_message = f"Imported: {done.moves} made or changed, {done.count(importing.SAME)} unchanged."
        return reverse("accounts:user-list") if kind == "people" else reverse("teams:unit-list")

    def _preview(self, kind: str, text: str, *, note: str = "", status: int = 200) -> HttpResponseBase:
        found = importing.preview(kind, text, actor=self.actor)
        again = ImportForm(
            initial={"kind": kind, "content": text, "digest": found.digest}, kinds=self.kinds()
        )  # fmt: skip
        return self.page(status=status, preview=found, confirm=again, note=note, kind=kind)
