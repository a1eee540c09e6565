"""Fragments that open pages ask for every few seconds: cheap where nothing changed (304, 204)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotModified
from django.urls import reverse
from django.utils.cache import patch_vary_headers

from apps.core.permissions import may
from apps.core.views import ObjectMixin
from apps.quotas import live, selectors
from apps.quotas.choices import OPEN_STATUSES, RequestStatus
from apps.quotas.live_rows import quota_rows
from apps.quotas.live_standing import Standing
from apps.quotas.models import QuotaRequest, Workspace
from apps.teams.models import Team


def table_context(workspaces: Sequence[Workspace], *, may_use: bool, show_workspace: bool) -> dict[str, Any]:
    """Return what `quotas/live_table.html` draws. Three queries."""
    rows = quota_rows(workspaces)
    return {
        "rows": rows,
        "all_best_effort": selectors.all_best_effort(rows),
        "away": live.away(workspace.cluster for workspace in workspaces),
        "may_use": may_use,
        "show_workspace": show_workspace,
    }


class _Live(ObjectMixin):
    """A fragment of figures with an ETag by observation: the browser asks again and mostly hears 304."""

    template_name = "quotas/live_table.html"

    def workspaces(self) -> Sequence[Workspace]:
        """Return what the figures are of, loaded with marks."""
        raise AttributeError(f"{type(self).__qualname__} says no workspaces")

    def context(self, workspaces: Sequence[Workspace]) -> Mapping[str, Any]:
        """Return the fragment's figures."""
        raise AttributeError(f"{type(self).__qualname__} says no figures")

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Answer 304 where nothing changed, else the fragment."""
        workspaces = self.workspaces()
        etag = live.etag_of(request.user.pk or 0, workspaces)
        response: HttpResponse
        if request.headers.get("If-None-Match") == etag:
            response = HttpResponseNotModified()
        else:
            response = self.page(**self.context(workspaces))
        response["ETag"] = etag
        # Kept by the browser, but asked about every time: after a sign-out it asks as nobody and gets nothing.
        response["Cache-Control"] = "private, no-cache"
        patch_vary_headers(response, ["Cookie"])
        return response


class WorkspaceLive(_Live):
    """What a workspace holds and uses, now."""

    permission = "quotas.workspace.view"
    url_kwarg = "workspace_uid"
    object: Workspace

    @staticmethod
    def queryset() -> Any:
        """Workspaces with marks."""
        return live.with_marks(Workspace.objects.select_related("team__unit", "cluster"))

    def workspaces(self) -> Sequence[Workspace]:
        """The one."""
        return [self.object]

    def context(self, workspaces: Sequence[Workspace]) -> Mapping[str, Any]:
        """Its table."""
        may_use = may(self.request.user, "quotas.workspace.use", self.object)
        return table_context(workspaces, may_use=may_use, show_workspace=False)


class TeamLive(_Live):
    """What a team's workspaces hold and use, now."""

    permission = "quotas.quota.view"
    url_kwarg = "team_slug"
    lookup = "slug"
    queryset = Team.objects.select_related("unit")
    object: Team

    def workspaces(self) -> Sequence[Workspace]:
        """Those of the team that are in use."""
        rows = Workspace.objects.filter(team=self.object, archived_at__isnull=True).select_related("team", "cluster")
        return list(live.with_marks(rows).order_by("pk"))

    def context(self, workspaces: Sequence[Workspace]) -> Mapping[str, Any]:
        """Their table."""
        may_use = may(self.request.user, "quotas.workspace.use", self.object)
        return table_context(workspaces, may_use=may_use, show_workspace=True)


def watched(request: QuotaRequest) -> str:
    """Return where a request's page looks whether anything changed; "" for one on which nothing can change."""
    moving = (*OPEN_STATUSES, RequestStatus.SCHEDULED, RequestStatus.ACTIVE)
    if request.status not in moving:
        return ""
    standing = _standing(request)
    if request.status == RequestStatus.ACTIVE and standing in ("", Standing.IN_FORCE):
        return ""
    url = reverse("quotas:request-live", kwargs={"request_uid": request.uid})
    return f"{url}?mark={live.request_mark(request, standing)}"


def _standing(request: QuotaRequest) -> str:
    if request.status != RequestStatus.ACTIVE:
        return ""
    rows = (row for row in quota_rows([request.workspace]) if row.flavour.pk == request.flavour_id)
    return next((row.standing for row in rows), "")


class RequestLive(ObjectMixin):
    """Whether a request's page is out of date: 204 where it is not, else the page is told to load again."""

    queryset = QuotaRequest.objects.select_related("workspace__team__unit", "workspace__cluster", "approval", "plan")
    permission = "quotas.request.view"
    url_kwarg = "request_uid"
    object: QuotaRequest

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Compare the mark that the page was drawn with."""
        response = HttpResponse(status=204)
        if request.GET.get("mark") != live.request_mark(self.object, _standing(self.object)):
            response["HX-Refresh"] = "true"
        return response


__all__ = ["RequestLive", "TeamLive", "WorkspaceLive", "table_context", "watched"]
