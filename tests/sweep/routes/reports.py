"""Routes of the reports room: home is everybody's, the rest by team and unit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apps.metering import billing
from tests.sweep.types import EVERYBODY, Route

_TEAM = {"member_finance", "lead_finance", "vp", "compliance", "finance", "admin", "auditor"}
_UNIT = {"vp", "compliance", "finance", "admin", "auditor"}
_READ = {"vp", "finance", "admin", "auditor"}


def _unit(world: Any) -> Mapping[str, Any]:
    return {"unit_slug": world.company.unit.slug}


def _month(world: Any) -> Mapping[str, Any]:
    return {**_unit(world), "month": f"{billing.month_of(world.fact.hour):%Y-%m}"}


ROUTES: dict[str, Route] = {
    "reports:home": Route(allowed=EVERYBODY),
    "reports:team": Route(allowed=_TEAM, kwargs=lambda world: {"team_slug": world.company.finance_team.slug}),
    "reports:unit": Route(allowed=_UNIT, kwargs=_unit),
    "reports:monthly-latest": Route(allowed=_READ | {"vp_other"}),
    "reports:monthly-unit": Route(allowed=_READ, kwargs=_unit),
    "reports:monthly": Route(allowed=_READ, kwargs=_month),
    "reports:monthly-pdf": Route(allowed=_READ, kwargs=_month),
    "reports:monthly-pdf#POST": Route(allowed=_READ, kwargs=_month, method="POST"),
    "reports:monthly-print": Route(allowed=_READ, kwargs=_month),
    "reports:monthly#csv": Route(allowed=_READ, kwargs=_month, query="?export=csv"),
}
