"""Keeping placement rules through the API."""

from __future__ import annotations

from tests.sweep.routes.deployments_core import ROUTES as PAGES
from tests.sweep.twins import post
from tests.sweep.types import Route

ROUTES: dict[str, Route] = {
    "api:placement-rule-list#POST": post(PAGES["deployments:rule-add"]),
    "api:placement-rule-end": post(PAGES["deployments:rule-end"], "placement_rule"),
}
