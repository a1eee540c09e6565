"""The page on which a workspace's limits beside GPUs are asked for."""

from __future__ import annotations

from typing import Any

from django import forms

from apps.core.errors import Conflict
from apps.core.forms import WholeNumberField
from apps.quotas import limits
from apps.quotas.choices import ChangeKind
from apps.quotas.expiry_views import ReasonForm, WorkspaceChange
from apps.quotas.limits import LIMITS


class LimitsForm(ReasonForm):
    """A field per limit."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        made: dict[str, forms.Field] = {
            limit.name: WholeNumberField(label=limit.label, unit=limit.unit, min_value=0, max_value=limit.most)
            for limit in LIMITS
        }
        self.fields = {**made, **self.fields}

    def values(self) -> dict[str, int]:
        """Return the limits that are asked for."""
        return {limit.name: self.cleaned_data[limit.name] for limit in LIMITS}


class WorkspaceLimits(WorkspaceChange):
    """Ask for other limits of a workspace."""

    kind = ChangeKind.LIMITS
    form_class = LimitsForm
    submit_label = "Request these limits"
    intro = "GPUs are asked for by quota requests; these are the limits beside them. Nothing changes before approval."
    summary_template = "quotas/limits_in_use.html"
    success_message = "Requested. The limits are in force once they are approved."

    def get_title(self) -> str:
        """Whose limits."""
        return f"Limits of {self.object.namespace}"

    def check_state(self) -> None:
        """An archived workspace has its limits in the archive."""
        if self.object.archived_at is not None:
            raise Conflict("The workspace is archived: restore it first.", current={"version": self.object.version})

    def get_initial(self) -> dict[str, Any]:
        """Begin with what is in force."""
        return dict(limits.current(self.object))

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add what is in use, and what lowering below it would mean."""
        form = self._form
        asked = form.values() if form is not None and form.is_bound and form.is_valid() else {}
        return super().get_context(
            in_use=limits.in_use(self.object), warnings=limits.warnings(self.object, asked), **extra
        )

    def values(self, form: Any) -> dict[str, Any]:
        """Return the limits."""
        return dict(form.values())

    def get_success_message(self) -> str:
        """Say, too, where a limit goes below what is in use: that is legal."""
        low = limits.warnings(self.object, self._form.values())
        return " ".join([self.success_message, *low])
