"""Proposing prices and keeping purchase schedules through the API."""

from __future__ import annotations

from tests.sweep.routes.rates import ROUTES as PAGES
from tests.sweep.twins import post, twin
from tests.sweep.types import Route

ROUTES: dict[str, Route] = {
    "api:rate-proposal-list#POST": post(PAGES["rates:card-create"]),
    "api:rate-proposal-withdraw": post(PAGES["rates:proposal-withdraw"], "proposal"),
    "api:capex-schedule-list": twin(PAGES["rates:capex-list"]),
    "api:capex-schedule-list#POST": post(PAGES["rates:capex-create"]),
    "api:capex-schedule-detail": twin(PAGES["rates:capex-detail"], "capex"),
}
