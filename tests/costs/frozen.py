"""A closed month written directly: statements from daily charges, corrections and credits, without the real close.

Small on purpose: team and platform statements, one line per kind, cluster, flavour and price, rounded by largest
remainder against the exact sum of everything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from apps.clusters.models import Cluster, Flavour
from apps.core import clock
from apps.core.money import MILLISECONDS_PER_HOUR, Money, round_lines
from apps.costs.choices import ChargeKind, LineSort
from apps.costs.models import Correction, Credit, DayCharge, Period, Statement, StatementLine
from apps.metering import billing
from apps.rates.models import Rate
from apps.teams.models import Team


@dataclass
class Draft:
    """A line to be."""

    sort: str
    description: str
    exact: Decimal
    team_id: int | None = None
    values: dict[str, Any] = field(default_factory=dict)


def open_month(month: date, *, status: str = "open") -> Period:
    """Make (or return) a period."""
    start, end = billing.month_bounds(month)
    values = {"start": start, "end": end, "currency": "USD", "status": status}
    return Period.objects.get_or_create(month=month, defaults=values)[0]


def _charges(period: Period) -> list[Draft]:
    first = period.month
    days = DayCharge.objects.filter(day__gte=first, day__lt=billing.following(first))
    sums: dict[tuple[Any, ...], list[int]] = {}
    for row in days:
        own = row.team_id if row.kind not in (ChargeKind.UNSOLD, ChargeKind.STRANDED) else None
        key = (own, row.kind, row.cluster_id, row.flavour_id, row.gpu_model, row.rate_id)
        found = sums.setdefault(key, [0, 0])
        found[0] += row.quantity_ms
        found[1] += row.gpu_ms
    rates, flavours, clusters = Rate.objects.in_bulk(), Flavour.objects.in_bulk(), Cluster.objects.in_bulk()
    drafts = []
    for key in sorted(sums, key=str):
        team, kind, cluster, flavour, model, rate = key
        quantity, gpu = sums[key]
        price = rates[rate].amount if rate else None
        values = {
            "kind": kind, "cluster_id": cluster, "cluster_name": clusters[cluster].name, "flavour_id": flavour,
            "flavour_name": str(flavours[flavour]) if flavour else "", "gpu_model": model, "rate_id": rate,
            "hourly": price, "quantity_ms": quantity, "gpu_ms": gpu, "charge_start": period.start,
            "charge_end": period.end,
        }  # fmt: skip
        exact = Decimal(0) if price is None else Decimal(quantity) * price / MILLISECONDS_PER_HOUR
        drafts.append(
            Draft(LineSort.CHARGE, f"{ChargeKind(kind).label} on {values['cluster_name']}", exact, team, values)
        )
    return drafts


def _adjustments(period: Period) -> list[Draft]:
    drafts = []
    for row in Correction.objects.filter(period=period).select_related("rate").order_by("pk"):
        exact = Decimal(row.quantity_ms) * row.rate.amount / MILLISECONDS_PER_HOUR if row.rate else Decimal(0)
        values = {
            "kind": row.kind, "cluster_id": row.cluster_id, "flavour_id": row.flavour_id, "gpu_model": row.gpu_model,
            "rate_id": row.rate_id, "hourly": row.rate.amount if row.rate else None, "quantity_ms": row.quantity_ms,
            "gpu_ms": row.gpu_ms, "charge_start": row.hour, "charge_end": row.hour + timedelta(hours=1),
            "reference": row.uid,
        }  # fmt: skip
        drafts.append(Draft(LineSort.CORRECTION, row.reason, exact, row.team_id, values))
    for credit in Credit.objects.filter(period=period, status="approved").order_by("pk"):
        values = {"charge_start": period.start, "charge_end": period.end, "reference": credit.uid}
        drafts.append(Draft(LineSort.CREDIT, credit.reason, -credit.amount, credit.team_id, values))
    return drafts


def freeze(month: date, *, extra: Sequence[Draft] = (), mode: str = "showback", at: datetime | None = None) -> Period:
    """Close a month: statements of teams and platform from what is in the books, plus `extra` lines."""
    period = open_month(month)
    Period.objects.filter(pk=period.pk).update(status="closing")
    drafts = [*_charges(period), *_adjustments(period), *extra]
    rounded = round_lines([Money(draft.exact, "USD") for draft in drafts])
    by_team: dict[int | None, list[tuple[Draft, Money]]] = {}
    for draft, amount in zip(drafts, rounded, strict=True):
        by_team.setdefault(draft.team_id, []).append((draft, amount))
    issued = at or clock.now()
    teams = Team.objects.select_related("unit").in_bulk()
    earlier = Statement.objects.filter(period=period).count()
    for ordinal, team_id in enumerate(sorted(by_team, key=lambda one: one or 0), start=1 + earlier):
        own = by_team[team_id]
        team = teams[team_id] if team_id else None
        amount = sum(money.amount for _, money in own)
        shares = sum(money.amount for draft, money in own if draft.sort == LineSort.DISTRIBUTED)
        number = f"{month:%Y-%m}-{ordinal:05d}"
        statement = Statement.objects.create(
            period=period, number=number, owner_kind="team" if team else "platform", team=team,
            unit=team.unit if team else None, unit_path=team.unit.path if team else [],
            cost_centre=team.cost_centre if team else "CC-PLATFORM", team_name=team.name if team else "",
            unit_name=team.unit.name if team else "", mode=mode if team else "showback", own_amount=amount - shares,
            amount=amount, currency="USD", line_count=len(own), digest=hashlib.sha256(number.encode()).hexdigest(),
            issued_at=issued,
        )  # fmt: skip
        StatementLine.objects.bulk_create(
            StatementLine(
                statement=statement, ordinal=index, sort=draft.sort, description=draft.description,
                exact=draft.exact, amount=money.amount, **_with_times(period, draft.values),
            )
            for index, (draft, money) in enumerate(own, start=1)
        )  # fmt: skip
    bill = sum(money.amount for money in rounded)
    Period.objects.filter(pk=period.pk).update(
        status="closed", bill=bill, digest=hashlib.sha256(str(bill).encode()).hexdigest(), closed_at=issued
    )
    period.refresh_from_db()
    return period


def _with_times(period: Period, values: dict[str, Any]) -> dict[str, Any]:
    return {"charge_start": period.start, "charge_end": period.end, **values}
