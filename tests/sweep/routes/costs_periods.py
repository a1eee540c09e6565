"""Routes of billing months, statements and distribution policies."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from apps.core import clock
from apps.costs import running
from apps.costs.models import DistributionPolicy, Period, RunningStatement, Statement, StatementLine
from apps.costs.period_calendar import ensure_period
from apps.metering import billing
from tests.sweep.routes.metering import FACTS
from tests.sweep.types import Route

_ALL = {"finance", "admin", "auditor", "compliance"}
_OWN = {"member_finance", "lead_finance", "vp", *_ALL}
_FINANCE = {"finance"}


def build(world: SimpleNamespace) -> None:
    """A closed month with a statement of Finance and one of the foreign tenant, a closing one, and the running one."""
    this = billing.month_of(clock.now())
    world.running = ensure_period(this)
    world.closing = ensure_period(billing.previous(this))
    world.closed = ensure_period(date(2020, 1, 1))
    _set(world.closing, "closing")
    _set(world.closed, "closing")
    company = world.company
    world.statement = _statement(world, company.finance_team, company.unit, "T-0001", "41234.56")
    _statement(world, world.foreign_team, world.foreign_team.unit, "T-0002", "87654.32")
    world.keep_secret("41,234.56", "41234.56", sees={"member_finance", "lead_finance", "vp"})
    world.keep_secret("87,654.32", "87654.32", sees={"vp_other"})
    _set(world.closed, "closed")
    first = billing.following(this)
    make = DistributionPolicy.objects.create
    world.policy = make(number=91, name="Proposed", month_from=first, rules={}, proposed_by=company.vp)
    world.own_policy = make(number=92, name="Own", month_from=first, rules={}, proposed_by=company.finance)


def _set(period: Period, status: str) -> None:
    Period.objects.filter(pk=period.pk).update(status=status, closed_at=clock.now())
    period.refresh_from_db()


def _statement(world: SimpleNamespace, team: Any, unit: Any, number: str, amount: str) -> Statement:
    row = Statement.objects.create(
        period=world.closed, number=f"2020-01-{number}", owner_kind="team", team=team, unit=unit, unit_path=unit.path,
        cost_centre=team.cost_centre, team_name=team.name, unit_name=unit.name, own_amount=Decimal(amount),
        amount=Decimal(amount), currency="USD", digest="0" * 64, issued_at=clock.now(), line_count=1,
    )  # fmt: skip
    StatementLine.objects.create(
        statement=row, ordinal=1, sort="charge", kind="allocated", description="Allocated GPU time",
        amount=Decimal(amount), exact=Decimal(amount), charge_start=world.closed.start, charge_end=world.closed.end,
    )  # fmt: skip
    return row


def _month(name: str) -> Any:
    return lambda world: {"month": str(getattr(world, name))}


def _running(world: Any) -> Mapping[str, Any]:
    running.make_due()
    row = RunningStatement.objects.get(period=world.running, team_id=world.company.finance_team.pk)
    return {"month": str(world.running), "number": row.number}


def _running_month(world: Any) -> Mapping[str, Any]:
    return {"month": _running(world)["month"]}


def _policy(name: str = "policy") -> Any:
    return lambda world: {"policy_uid": getattr(world, name).uid}


def _statement_uid(world: Any) -> Mapping[str, Any]:
    return {"statement_uid": world.statement.uid}


def _proposal(world: Any) -> Mapping[str, Any]:
    return {
        "name": "Shared", "month_from": f"{billing.following(billing.month_of(clock.now())):%Y-%m}",
        "rule_unsold": "shared", "rule_reserved_unused": "owners", "rule_stranded": "platform",
        "rule_maintenance": "platform", "rule_unattributed": "platform", "rule_resources": "shared",
    }  # fmt: skip


_WAIVER = {"kind": "hours", "reason": "The cluster was switched off."}
ROUTES: dict[str, Route] = {
    "costs:period-list": Route(allowed=FACTS),
    "costs:period-detail": Route(allowed=FACTS, kwargs=_month("closed")),
    "costs:period-checklist": Route(allowed=_ALL, kwargs=_month("closing")),
    "costs:period-preview": Route(allowed=_ALL, kwargs=_month("running")),
    "costs:period-preview-make": Route(allowed=_FINANCE, kwargs=_month("running")),
    "costs:period-preview-make#POST": Route(allowed=_FINANCE, kwargs=_month("running"), method="POST"),
    "costs:period-start": Route(allowed=_FINANCE, kwargs=_month("running")),
    "costs:period-start#POST": Route(allowed=_FINANCE, kwargs=_month("running"), method="POST"),
    "costs:period-back": Route(allowed=_FINANCE, kwargs=_month("closing")),
    "costs:period-back#POST": Route(allowed=_FINANCE, kwargs=_month("closing"), method="POST"),
    "costs:period-waive": Route(allowed=_FINANCE, kwargs=_month("closing")),
    "costs:period-waive#POST": Route(
        allowed=_FINANCE, kwargs=_month("closing"), method="POST", data=lambda world: _WAIVER
    ),
    "costs:period-close": Route(allowed=_FINANCE, kwargs=_month("closing")),
    "costs:period-close#POST": Route(allowed=_FINANCE, kwargs=_month("closing"), method="POST"),
    "costs:running-list": Route(allowed=FACTS, kwargs=_running_month),
    "costs:running-detail": Route(allowed=_OWN, kwargs=_running),
    "costs:statement-list": Route(allowed=FACTS),
    "costs:statement-detail": Route(allowed=_OWN, kwargs=_statement_uid),
    "costs:distribution-list": Route(allowed=FACTS),
    "costs:distribution-detail": Route(allowed=FACTS, kwargs=_policy()),
    "costs:distribution-propose": Route(allowed=_FINANCE),
    "costs:distribution-propose#POST": Route(allowed=_FINANCE, method="POST", data=_proposal),
    "costs:distribution-try": Route(allowed=_FINANCE, method="POST", data=_proposal),
    "costs:distribution-approve": Route(allowed=_FINANCE, kwargs=_policy()),
    "costs:distribution-approve#POST": Route(allowed=_FINANCE, kwargs=_policy(), method="POST"),
    "costs:distribution-reject": Route(allowed=_FINANCE, kwargs=_policy()),
    "costs:distribution-reject#POST": Route(
        allowed=_FINANCE, kwargs=_policy(), method="POST", data=lambda world: {"reason": "Not this year, please."}
    ),
    "costs:distribution-withdraw": Route(allowed=_FINANCE, kwargs=_policy("own_policy")),
    "costs:distribution-withdraw#POST": Route(allowed=_FINANCE, kwargs=_policy("own_policy"), method="POST"),
    "api:period-list": Route(allowed=FACTS),
    "api:period-detail": Route(allowed=FACTS, kwargs=lambda world: {"uid": world.closed.uid}),
    "api:statement-list": Route(allowed=FACTS),
    "api:statement-detail": Route(allowed=_OWN, kwargs=lambda world: {"uid": world.statement.uid}),
}
