"""The page that switches a cluster's guard, and what the cluster's page says about it."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponseBase
from django.urls import reverse

from apps.clusters.choices import GuardMode
from apps.clusters.models import Cluster
from apps.core.forms import CommonsForm
from apps.core.permissions import may
from apps.core.views import ActionView, Crumb
from apps.quotas import guard
from apps.quotas.kueue_state import baseline_on_page
from portal.panels import panel


class GuardForm(CommonsForm):
    """What the guard is to do, and why."""

    mode = forms.ChoiceField(choices=GuardMode.choices, label="The guard")
    confirmed = forms.BooleanField(
        required=False,
        label="Deny at once",
        help_text="Without a day of audit first: nobody else may have to change these objects.",
    )
    reason = forms.CharField(
        max_length=500, widget=forms.Textarea(attrs={"rows": 2}), help_text="Kept in the audit trail."
    )


class ClusterGuard(ActionView):
    """Decide what the guard does."""

    title = "Guard"
    queryset = Cluster.objects.all()
    permission = guard.MANAGE
    form_class = GuardForm
    submit_label = "Decide"
    intro = (
        "An admission policy on the cluster notes or refuses what others do to objects that the portal owns. "
        "It is part of the cluster's baseline: it comes into force once the baseline is requested and approved."
    )
    success_message = "It is decided. Request the baseline to bring it onto the cluster."
    summary_template = "quotas/guard_summary.html"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the cluster."""
        return [Crumb(str(self.object), reverse("clusters:cluster-detail", kwargs={"slug": self.object.slug}))]

    def get_initial(self) -> dict[str, Any]:
        """Start from what is decided."""
        return {"mode": self.object.guard_mode}

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add how it stands."""
        return super().get_context(guard=guard.state_of(self.object) if self.object is not None else None, **extra)

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Decide, and go on to the baseline."""
        data = form.cleaned_data
        guard.set_guard_mode(
            self.object.pk, data["mode"], data["reason"], actor=self.actor, confirmed=data["confirmed"],
            expected_version=self.expected_version,
        )  # fmt: skip
        return reverse("quotas:baseline", kwargs={"cluster_uid": self.object.uid})


@panel(page="cluster", order=35, permission="clusters.cluster.view")
def cluster_guard(request: HttpRequest, cluster: Cluster) -> dict[str, Any] | None:
    """How the guard stands."""
    return {
        "template": "quotas/panels/guard.html",
        "cluster": cluster,
        "guard": guard.state_of(cluster, baseline_on_page(cluster)),
        "may_manage": may(request.user, guard.MANAGE, cluster),
    }
