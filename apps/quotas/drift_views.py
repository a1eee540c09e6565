"""The page that asks to adopt a drift, and what a workspace's page says about drift."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponseBase
from django.urls import reverse

from apps.core.errors import Conflict
from apps.core.forms import CommonsForm
from apps.core.views import ActionView, Crumb
from apps.provisioning import drift_actions
from apps.provisioning.models import Drift
from apps.quotas import drift_changes
from apps.quotas.models import Workspace
from portal.panels import panel


class AdoptForm(CommonsForm):
    """Why what lives there is right."""

    reason = forms.CharField(
        max_length=2000, widget=forms.Textarea(attrs={"rows": 3}), help_text="Approvers read it beside the change."
    )


class AdoptDrift(ActionView):
    """Ask to declare a field as it lives."""

    title = "Adopt what lives on the cluster"
    queryset = Drift.objects.select_related("declaration", "declaration__cluster")
    permission = drift_actions.DECIDE
    form_class = AdoptForm
    submit_label = "Request it"
    intro = "It becomes a change request: once it is approved, this value is what is declared, and the drift is over."
    summary_template = "provisioning/drift_summary.html"
    success_message = "It is requested."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the declaration."""
        uid = self.object.declaration.uid
        return [Crumb("Drift", reverse("provisioning:drift-list")),
                Crumb(self.object.declaration.title,
                      reverse("provisioning:declaration-detail", kwargs={"declaration_uid": uid}))]  # fmt: skip

    def check_state(self) -> None:
        """Refuse what is resolved and what cannot be adopted, with the reason."""
        if self.object.resolved_at is not None:
            raise Conflict("It lives as declared again: there is nothing to adopt.")
        if why := drift_changes.refusals([self.object]).get(self.object.pk):
            raise Conflict(why)

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the finding."""
        return super().get_context(drift=[self.object] if self.object is not None else [], **extra)

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Request it."""
        change = drift_changes.request_adoption([self.object.pk], form.cleaned_data["reason"], actor=self.actor)
        return drift_changes.url_of(change)


@panel(page="workspace", order=70, permission="provisioning.declaration.view")
def changed_on_the_cluster(request: HttpRequest, workspace: Workspace) -> dict[str, Any] | None:
    """What somebody else changed in a workspace's objects; nothing where all lives as declared."""
    rows = Drift.objects.visible_to(request.user).filter(
        declaration__kind="workspace", declaration__owner_uid=workspace.uid, resolved_at__isnull=True
    )
    drift = list(rows.order_by("kind", "name", "field", "pk")[:50])
    return {"template": "quotas/panels/drift.html", "drift": drift} if drift else None
