"""The page on which platform admins see what a cluster's new baseline would change, and request it."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import reverse

from apps.clusters.models import Cluster
from apps.clusters.selectors import maintenance_on_page
from apps.core.errors import Conflict
from apps.core.forms import CommonsForm
from apps.core.permissions import may
from apps.core.views import ActionView, Crumb
from apps.quotas import baseline_asking, baseline_look, changes
from apps.quotas.assess import MIN_REASON
from apps.quotas.change_selectors import SHOWN
from apps.quotas.change_subject import where_words
from apps.quotas.kueue_state import baseline_on_page
from apps.quotas.models import BaselineState
from apps.quotas.selectors import PlanRow
from portal.panels import panel


class BaselineForm(CommonsForm):
    """Why the baseline is requested."""

    reason = forms.CharField(
        label="Reason",
        widget=forms.Textarea(attrs={"rows": 3}),
        min_length=MIN_REASON,
        max_length=changes.MAX_REASON,
        help_text="Whoever decides reads it: what changes for the teams, and why now.",
    )


class BaselineRequest(ActionView):
    """Request a cluster's baseline: one change for the cluster and every workspace on it."""

    title = "Request the baseline"
    intro = (
        "One request for the cluster and every workspace on it. Nothing changes before another platform admin has "
        "approved it; numbers of GPUs stay what the approved quotas say."
    )
    queryset = Cluster.objects.all()
    permission = "quotas.change.create"
    url_kwarg = "cluster_uid"
    form_class = BaselineForm
    template_name = "quotas/change_baseline.html"
    submit_label = "Submit the request"
    success_message = "Submitted. Follow it here."
    object: Cluster

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the cluster."""
        url = reverse("clusters:cluster-detail", kwargs={"slug": self.object.slug})
        return [Crumb("Clusters", reverse("clusters:cluster-list")), Crumb(self.object.name, url)]

    def check_state(self) -> None:
        """One open request at a time."""
        found = baseline_look.open_request(self.object)
        if found is not None and found.is_open:
            raise Conflict(
                "A baseline of this cluster is requested already. Let it be decided, or withdraw it first.",
                current={"status": found.status},
            )

    def get(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Show it; a page that follows a request in the making goes on to it, or is loaded anew with the problem."""
        if request.headers.get("HX-Target") == "baseline-asked":
            cluster = self.get_object()
            if baseline_asking.asked(cluster) is None:
                made = baseline_look.open_request(cluster)
                if made is None:
                    return HttpResponse(headers={"HX-Refresh": "true"})
                url = reverse("quotas:change-detail", kwargs={"change_uid": made.uid})
                return HttpResponse(headers={"HX-Redirect": url})
        return super().get(request, *args, **kwargs)

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add what would change; of a large cluster only how much, as the last look found it."""
        cluster = self.object
        if baseline_asking.is_large(cluster):
            state = BaselineState.objects.filter(cluster=cluster).select_related("asked_by").first()
            due = state is None or state.checked_at is None or state.due_since is not None
            moving = state is not None and state.asked_at is not None
            extra.setdefault("blocked", not due or moving)
            return super().get_context(
                large=True, state=state, moving=moving, nothing=not due, rows=[], left_out=0,
                problem=state.asked_problem if state is not None else "", **extra,
            )  # fmt: skip
        seen = baseline_look.preview(self.object)
        lines = seen.frozen.lines if seen.frozen is not None else []
        nothing = seen.frozen is not None and not seen.frozen.leaves
        # No form where there is nothing to ask for: sending it could only be refused.
        extra.setdefault("blocked", nothing or bool(seen.problem))
        return super().get_context(
            problem=seen.problem,
            rows=[_row(line) for line in lines[:SHOWN]],
            left_out=max(0, len(lines) - SHOWN),
            nothing=nothing,
            **extra,
        )

    def perform(self, form: Any) -> str:
        """Submit it."""
        change = baseline_asking.request(self.object.pk, form.cleaned_data["reason"], actor=self.actor)
        if change is None:
            self.success_message = "It is being worked out. This page goes on to it."
            return reverse("quotas:baseline", kwargs={"cluster_uid": self.object.uid})
        return reverse("quotas:change-detail", kwargs={"change_uid": change.uid})


def _row(line: dict[str, Any]) -> PlanRow:
    where = where_words(line)
    name = f"{line['object']}{' ' + line['path'] if line['path'] else ''}{' (' + where + ')' if where else ''}"
    whole = {"create": ("added", None, "created"), "remove": ("removed", "removed", None),
             "retain": ("removed", None, "left on the cluster")}  # fmt: skip
    if line["operation"] in whole:
        kind, before, after = whole[line["operation"]]
        return PlanRow(name, before, after, kind)
    kind = {"add": "added", "drop": "removed"}.get(line["operation"], "changed")
    return PlanRow(name, line["before"] or None, line["after"] or None, kind)


@panel(page="cluster", order=25, permission="clusters.cluster.view")
def cluster_baseline(request: HttpRequest, cluster: Cluster) -> dict[str, Any] | None:
    """What the cluster's workspaces stand on: whether it is declared, applied, due; and where to request it."""
    from apps.provisioning import selectors as provisioning

    declaration = baseline_on_page(cluster)
    found = baseline_look.open_request(cluster)
    standing = None
    if declaration is not None:
        declaration.cluster = cluster
        standing = provisioning.standing(declaration, None, maintenance=maintenance_on_page(cluster))
    allowed = may(request.user, "quotas.change.create", cluster) and (found is None or not found.is_open)
    return {
        "template": "quotas/change_baseline_panel.html",
        "cluster": cluster,
        "state": BaselineState.objects.filter(cluster=cluster).first(),
        "declaration": declaration,
        "standing": standing,
        "open_change": found,
        "request_url": reverse("quotas:baseline", kwargs={"cluster_uid": cluster.uid}) if allowed else "",
    }
