"""Pages of workspaces and pools."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, Q
from django.urls import reverse

from apps.core.permissions import may
from apps.core.views import CreateView, Crumb, DetailView, ListView, PageView
from apps.quotas import actions, cluster_side, live_views, selectors, waitlist
from apps.quotas.choices import OPEN_STATUSES
from apps.quotas.forms import WorkspaceForm
from apps.quotas.models import Workspace
from apps.quotas.pool_pages import forget_time, pool_context, time_of
from apps.quotas.tables import WorkspaceFilter, WorkspaceTable
from portal.panels import panels_for

#: Panels of a lower order belong to what a workspace holds now (its queue) and stand right behind it.
_BESIDE_NOW = 5


class WorkspaceList(ListView):
    """The workspaces a person may see."""

    title = "Workspaces"
    intro = "A team's place on one cluster for one environment."
    table_class = WorkspaceTable
    filterset_class = WorkspaceFilter
    empty_title = "No workspaces yet"
    empty_text = "A platform admin makes a workspace for a team; then its lead can request quota for it."
    empty_icon = "terminal-2"

    @staticmethod
    def queryset() -> Any:
        """Workspaces, archived ones too, with the number of their open requests."""
        waiting = Count("requests", filter=Q(requests__status__in=OPEN_STATUSES))
        rows = Workspace.objects.select_related("team", "cluster")
        return rows.annotate(open_requests=waiting)

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Requesting and making, to those who may."""
        found = []
        if may(self.request.user, "quotas.request.create", None):
            found.append(("Request quota", reverse("quotas:request-create")))
        if may(self.request.user, "quotas.workspace.manage", None):
            found.append(("New workspace", reverse("quotas:workspace-create")))
        return found


class WorkspaceCreate(CreateView):
    """Give a team a workspace."""

    title = "New workspace"
    intro = "Its namespace is made on the cluster when its first quota is granted; until then nothing changes there."
    permission = "quotas.workspace.manage"
    queryset = Workspace.objects.all()
    form_class = WorkspaceForm
    submit_label = "Create the workspace"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [Crumb("Workspaces", reverse("quotas:workspace-list"))]

    def perform(self, form: Any) -> str:
        """Create it."""
        data = form.cleaned_data
        workspace = actions.create_workspace(
            data["team"].pk, data["cluster"].pk, data["environment"], data["data_classes"], actor=self.actor
        )
        self.success_message = f"Created: {workspace.namespace}. Its team's lead can request quota for it now."
        return reverse("quotas:workspace-detail", kwargs={"workspace_uid": workspace.uid})


class WorkspaceDetail(DetailView):
    """One workspace: what it holds now and later, what was asked, how it stands on the cluster."""

    queryset = Workspace.objects.select_related("team__unit", "cluster")
    permission = "quotas.workspace.view"
    template_name = "quotas/workspace_detail.html"

    def get_title(self) -> str:
        """The namespace is the name; two clusters may have the same."""
        return str(self.object)

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [Crumb("Workspaces", reverse("quotas:workspace-list"))]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add quotas, requests and the cluster's view."""
        workspace: Workspace = self.object
        user = self.request.user
        rows = workspace.requests.select_related("flavour", "requester").order_by("-created_at", "-pk")
        requests = list(rows[: selectors.NEWEST_SHOWN])
        may_use = may(user, "quotas.workspace.use", workspace)
        panels = panels_for("workspace", self.request, workspace)
        return super().get_context(
            **live_views.table_context([workspace], may_use=may_use, show_workspace=False),
            dated=selectors.coming_quotas(selectors.quotas_of(workspace)),
            requests=requests,
            renewals=selectors.open_renewals(workspace, requests),
            standing=cluster_side.standing_of(workspace),
            may_ask=may(user, "quotas.request.create", workspace),
            first_panels=[one for one in panels if one.order < _BESIDE_NOW],
            panels=[one for one in panels if one.order >= _BESIDE_NOW],
            **extra,
        )


class PoolList(PageView):
    """The pools a person may see, with their aggregates; no team can be told from another here."""

    title = "Pools"
    scope_free = "selectors.pool_rows takes the user: aggregates of pools that the person's teams hold or ask for"
    template_name = "quotas/pool_list.html"

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the rows."""
        rows = selectors.pool_rows(self.request.user)
        return super().get_context(rows=[(row, row.shown()) for row in rows], **extra)


class PoolDetail(DetailView):
    """One pool: aggregates now, and its calendar for the next 90 days."""

    url_kwarg = "pool_uid"
    template_name = "quotas/pool_detail.html"

    def get_queryset(self) -> Any:
        """The pools whose aggregates the person may see (invariant 10)."""
        return selectors.visible_pools(self.request.user)

    def get_base_queryset(self) -> Any:
        """Pools; `get_queryset` scopes them."""
        from apps.clusters.models import Pool

        return Pool.objects.all()

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [Crumb("Pools", reverse("quotas:pool-list"))]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add aggregates and calendar."""
        shown = pool_context(self.object)
        line = waitlist.for_pool(self.object, self.request.user, read=lambda: time_of(self.object))
        forget_time(self.object)
        return super().get_context(**shown, line=line, **extra)
