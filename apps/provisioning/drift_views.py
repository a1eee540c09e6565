"""Pages of drift: the list, and what people decide about a finding."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponseBase
from django.urls import reverse

from apps.core.errors import Conflict
from apps.core.views import ActionView, Crumb, ListView
from apps.provisioning import drift_actions
from apps.provisioning.forms import IgnoreForm, ReapplyForm
from apps.provisioning.models import Drift
from apps.provisioning.tables import DriftFilter, DriftTable


class DriftList(ListView):
    """What lives otherwise than declared."""

    title = "Drift"
    permission = "provisioning.declaration.view"
    intro = "Declared fields that somebody changed on a cluster: which, by whom, when, and what was decided about them."
    table_class = DriftTable
    filterset_class = DriftFilter
    queryset = Drift.objects.select_related("declaration", "declaration__cluster", "decided_by")
    empty_title = "No drift"
    empty_text = "Everything lives as it is declared."
    empty_icon = "git-compare"


class _Decision(ActionView):
    """One decision about one finding."""

    queryset = Drift.objects.select_related("declaration", "declaration__cluster", "ignored_by")
    permission = drift_actions.DECIDE
    summary_template = "provisioning/drift_summary.html"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the declaration."""
        return [Crumb("Drift", reverse("provisioning:drift-list")), Crumb(self.object.declaration.title, self._back())]

    def _back(self) -> str:
        uid = self.object.declaration.uid
        return reverse("provisioning:declaration-detail", kwargs={"declaration_uid": uid})

    def check_state(self) -> None:
        """Refuse one that is resolved."""
        if self.object.resolved_at is not None:
            raise Conflict("It lives as declared again: there is nothing to decide.")

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the object's findings."""
        drift: Drift | None = self.object
        rows = drift.declaration.drifts.filter(resolved_at__isnull=True) if drift is not None else Drift.objects.none()
        if drift is not None:
            rows = rows.filter(kind=drift.kind, namespace=drift.namespace, name=drift.name).order_by("field", "pk")
        return super().get_context(drift=list(rows), **extra)


class DriftReapply(_Decision):
    """Apply what was approved again, to this object alone."""

    title = "Apply what was approved again"
    form_class = ReapplyForm
    submit_label = "Apply it again now"
    danger = True
    intro = "The object gets its declared values back, and the portal takes these fields over from whoever set them."
    success_message = "What was approved is applied again now."

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Do it."""
        drift: Drift = self.object
        same = drift.declaration.drifts.filter(
            resolved_at__isnull=True, kind=drift.kind, namespace=drift.namespace, name=drift.name
        )
        drift_actions.reapply(
            list(same.order_by("pk").values_list("pk", flat=True)), form.cleaned_data["reason"], actor=self.actor
        )
        return self._back()


class DriftIgnore(_Decision):
    """Leave a finding until a date."""

    title = "Leave it until a date"
    form_class = IgnoreForm
    submit_label = "Leave it until then"
    intro = (
        "It stays as it lives. It opens again at that time, or as soon as somebody changes it once more. As long as it"
        " is left, no other change of this object can be approved: objects are applied whole."
    )
    success_message = "It is left alone until then."

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Do it."""
        data = form.cleaned_data
        drift_actions.ignore(self.object.pk, data["until"], data["reason"], actor=self.actor)
        return self._back()


class DriftReopen(_Decision):
    """Open an ignored finding again."""

    title = "Open it again"
    submit_label = "Open it again"
    success_message = "It is open again."

    def check_state(self) -> None:
        """Refuse one that is not left alone."""
        super().check_state()
        if self.object.ignored_until is None:
            raise Conflict("It is not left alone: it is open.")

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Do it."""
        drift_actions.stop_ignoring(self.object.pk, actor=self.actor)
        return self._back()
