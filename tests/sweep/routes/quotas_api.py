"""Workspaces, change requests and pool aggregates through the API."""

from __future__ import annotations

from tests.sweep.routes.quotas import ROUTES as PAGES
from tests.sweep.twins import post, twin
from tests.sweep.types import Route

ROUTES: dict[str, Route] = {
    "api:workspace-list#POST": post(PAGES["quotas:workspace-create"]),
    "api:workspace-drain": post(PAGES["quotas:workspace-drain"], "workspace"),
    "api:change-request-list#POST": post(
        PAGES["quotas:workspace-limits"], allowed={"lead_finance", "lead_marketing", "vp", "vp_other", "admin"}
    ),
    "api:pool-figures": twin(PAGES["quotas:pool-list"]),
    "api:cluster-guard": post(PAGES["quotas:cluster-guard"], "rates_cluster"),
}
