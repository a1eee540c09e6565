"""Routes of what follows a closed month: corrections, credits, disputes, opening again, billing modes, files."""

from __future__ import annotations

import gzip
from datetime import date, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from apps.clusters.models import Cluster
from apps.core import clock
from apps.costs.models import Correction, Credit, Dispute, Period, ReopenRequest, StatementFile, UnitBilling
from apps.costs.period_calendar import ensure_period
from tests.sweep.routes.costs_periods import _ALL, _FINANCE, _OWN
from tests.sweep.routes.metering import FACTS
from tests.sweep.types import Route

_TEAM = {"lead_finance", "vp"}
_WHY = {"reason": "The maintenance took longer than announced."}


def build(world: SimpleNamespace) -> None:
    """One of each of the Finance team, proposed by others and by finance itself; files that are ready and failed."""
    company, team = world.company, world.company.finance_team
    world.correction = Correction.objects.create(
        period=world.running, corrects=world.closed, cluster=Cluster.objects.earliest("pk"), kind="allocated",
        hour=world.closed.start + timedelta(hours=3), hour_revision=2, team_id=team.pk, unit_id=company.unit.pk,
        unit_path=company.unit.path, cost_centre=team.cost_centre, team_name=team.name, quantity_ms=3_600_000,
        gpu_ms=3_600_000, reason="Arrived late",
    )  # fmt: skip
    credit = {"team": team, "statement": world.statement, "currency": "USD", "reason": _WHY["reason"]}
    world.credit = Credit.objects.create(amount=Decimal("1.00"), proposed_by=company.vp, **credit)
    world.own_credit = Credit.objects.create(amount=Decimal("2.00"), proposed_by=company.finance, **credit)
    world.dispute = Dispute.objects.create(
        statement=world.statement, team=team, unit=company.unit, text="Billed twice", opened_by=company.lead_finance
    )
    earlier = ensure_period(date(2019, 12, 1))
    Period.objects.filter(pk=earlier.pk).update(status="closing")
    Period.objects.filter(pk=earlier.pk).update(status="closed", closed_at=clock.now())
    make = ReopenRequest.objects.create
    world.reopening = make(period=world.closed, requested_by=company.vp, **_WHY)
    world.own_reopening = make(period=earlier, requested_by=company.finance, **_WHY)
    world.unit_billing = UnitBilling.objects.create(unit=company.unit, month_from=date(2020, 1, 1), mode="showback")
    body = gzip.compress(b"Month\r\n2020-01\r\n", mtime=0)
    file = {"period": world.closed, "statement": world.statement, "kind": "csv", "name": "statement.csv"}
    world.file = StatementFile.objects.create(status="done", body=body, size=16, sha256="0" * 64, **file)
    world.failed_file = StatementFile.objects.create(status="failed", error="Try again", **file)


def _of(name: str, kwarg: str) -> Any:
    return lambda world: {kwarg: getattr(world, name).uid}


def _statement(world: Any) -> dict[str, Any]:
    return {"statement_uid": world.statement.uid}


def _closed(world: Any) -> dict[str, Any]:
    return {"month": "2020-01"}


def _unit(world: Any) -> dict[str, Any]:
    return {"unit_slug": world.company.unit.slug}


def _purpose(world: Any) -> dict[str, Any]:
    return {"purpose": "recovery"}


def _both(name: str, allowed: set[str], kwargs: Any, data: dict[str, Any] | None = None) -> dict[str, Route]:
    """The page that asks, and what it posts."""
    return {
        name: Route(allowed=allowed, kwargs=kwargs),
        f"{name}#POST": Route(allowed=allowed, kwargs=kwargs, method="POST", data=lambda world: data or {}),
    }


_CREDIT, _DISPUTE = _of("credit", "credit_uid"), _of("dispute", "dispute_uid")
_REOPEN, _FILE = _of("reopening", "reopen_uid"), _of("file", "file_uid")
ROUTES: dict[str, Route] = {
    "costs:correction-list": Route(allowed=FACTS),
    "costs:correction-detail": Route(allowed=_OWN, kwargs=_of("correction", "correction_uid")),
    "costs:credit-list": Route(allowed=FACTS),
    "costs:credit-detail": Route(allowed=_OWN, kwargs=_CREDIT),
    **_both("costs:credit-propose", _FINANCE, _statement, {"amount": "1.00", **_WHY}),
    **_both("costs:credit-approve", _FINANCE, _CREDIT),
    **_both("costs:credit-reject", _FINANCE, _CREDIT, _WHY),
    **_both("costs:credit-withdraw", _FINANCE, _of("own_credit", "credit_uid")),
    "costs:dispute-list": Route(allowed=FACTS),
    "costs:dispute-detail": Route(allowed=_OWN, kwargs=_DISPUTE),
    **_both("costs:dispute-open", _TEAM, _statement, {"text": "These hours were billed twice."}),
    **_both("costs:dispute-comment", {*_TEAM, "finance"}, _DISPUTE, {"text": "Which hours?"}),
    **_both("costs:dispute-settle", _FINANCE, _DISPUTE, {"accepted": "no", "outcome": "The hours are right."}),
    **_both("costs:dispute-withdraw", _TEAM, _DISPUTE),
    "costs:reopen-list": Route(allowed=FACTS),
    "costs:reopen-detail": Route(allowed=_ALL, kwargs=_REOPEN),
    **_both("costs:reopen-ask", _FINANCE, _closed, _WHY),
    **_both("costs:reopen-approve", _FINANCE, _REOPEN, _WHY),
    **_both("costs:reopen-reject", _FINANCE, _REOPEN, _WHY),
    **_both("costs:reopen-withdraw", _FINANCE, _of("own_reopening", "reopen_uid")),
    "costs:billing-mode-list": Route(allowed=FACTS),
    "costs:billing-mode-units": Route(allowed=_FINANCE),
    **_both("costs:billing-mode-set", _FINANCE, _unit, {"month_from": "2099-01", "mode": "showback"}),
    "costs:journal-account-list": Route(allowed=_FINANCE),
    **_both("costs:journal-account-set", _FINANCE, _purpose, {"account": "800100"}),
    "costs:journal": Route(allowed=_FINANCE, kwargs=_closed),
    "costs:file-list": Route(allowed=FACTS, kwargs=_closed),
    **_both("costs:file-ask", _ALL, _closed, {"kind": "xlsx"}),
    "costs:file-detail": Route(allowed=_OWN, kwargs=_FILE),
    "costs:file-take": Route(allowed=_OWN, kwargs=_FILE),
    **_both("costs:file-retry", _OWN, _of("failed_file", "file_uid")),
    **_both("costs:statement-file", _OWN, _statement, {"kind": "xlsx"}),
    "costs:statement-print": Route(allowed=_OWN, kwargs=_statement),
}
