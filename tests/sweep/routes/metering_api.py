"""Keeping sources, waivers, resource rules and claims through the API."""

from __future__ import annotations

from apps.metering.models import CapacityLine
from tests.sweep.routes.metering import ROUTES as PAGES
from tests.sweep.twins import post, twin
from tests.sweep.types import Route

ROUTES: dict[str, Route] = {
    "api:usage-source-list#POST": post(PAGES["metering:source-create"]),
    "api:usage-source-change": post(PAGES["metering:source-change"], kwargs=lambda world: {"uid": _source(world)}),
    "api:usage-source-end": post(PAGES["metering:source-end"], kwargs=lambda world: {"uid": _source(world)}),
    "api:usage-source-retry": post(PAGES["metering:source-retry"], kwargs=lambda world: {"uid": _source(world)}),
    "api:usage-source-test": post(PAGES["metering:source-test"], kwargs=lambda world: {"uid": _source(world)}),
    "api:usage-source-waive": post(PAGES["metering:source-waive"], kwargs=lambda world: {"uid": _source(world)}),
    "api:source-waiver-list": twin(PAGES["metering:source-list"]),
    "api:source-waiver-detail": twin(PAGES["metering:source-detail"], "source_waiver"),
    "api:source-waiver-revoke": post(PAGES["metering:waiver-revoke"], "source_waiver"),
    "api:resource-rule-list": twin(PAGES["metering:rule-list"]),
    "api:resource-rule-list#POST": post(PAGES["metering:rule-create"]),
    "api:resource-rule-detail": twin(PAGES["metering:rule-list"], "rule"),
    "api:resource-rule-end": post(PAGES["metering:rule-end"], "rule"),
    "api:namespace-claim-list": twin(PAGES["metering:claim-list"]),
    "api:namespace-claim-list#POST": post(PAGES["metering:claim-create"]),
    "api:namespace-claim-detail": twin(
        PAGES["metering:claim-end"], "claim",
        allowed={"member_finance", "lead_finance", "vp", "compliance", "finance", "admin", "auditor"},
    ),
    "api:namespace-claim-end": post(PAGES["metering:claim-end"], "claim"),
    "api:namespace-claim-withdraw": post(PAGES["metering:claim-withdraw"], "claim"),
    "api:capacity-line-list": twin(PAGES["metering:capacity-list"]),
    "api:capacity-line-detail": twin(
        PAGES["metering:capacity-list"], kwargs=lambda world: {"uid": CapacityLine.objects.latest("hour").uid}
    ),
}  # fmt: skip


def _source(world: object) -> object:
    return world.source_check.source.uid  # type: ignore[attr-defined]  # the sweep's world is a namespace
