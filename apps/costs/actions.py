"""Set budgets; price what is due."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

from django.conf import settings
from django.db import transaction

from apps.core.actor import Actor
from apps.costs import budget_actions, pricing
from apps.costs.models import Budget
from apps.metering import billing
from apps.metering.models import HourStatus
from apps.metering.ports import Written
from apps.metering.writer import lock_cluster

#: Hours priced per round of the sweep.
BATCH = 5000


def ledger_currency() -> str:
    """Return the currency that this installation's ledger is kept in."""
    return str(settings.COMMONS_CURRENCY)


@transaction.atomic
def set_budget(
    team_id: int,
    amount: Decimal,
    month_from: date,
    *,
    actor: Actor,
    currency: str = "",
    expected_version: int | None = None,
) -> Budget:
    """Set what a team may spend in money a month, from `month_from` (any day of it) until its next budget begins.

    A limit in GPU-hours and the actions at the steps stay as they are (`budget_actions.set_limits` sets all of them).
    Raises NotVisible for an unknown team, NotAllowed without `costs.budget.set` for it, Invalid for a negative amount,
    one with too many decimals, a foreign currency or a month that is over, Conflict where `expected_version` is given
    and the month's budget moved on.
    """
    in_force = Budget.objects.filter(team_id=team_id, month_from__lte=month_from).order_by("-month_from").first()
    return budget_actions.set_limits(
        team_id=team_id,
        amount=amount,
        gpu_hours=in_force.gpu_hours if in_force is not None else None,
        month_from=month_from,
        actor=actor,
        currency=currency,
        expected_version=expected_version,
    )


def price_due(limit: int = BATCH) -> int:
    """Price hours whose charges do not stand on the present facts and rates; returns how many were priced."""
    priced = 0
    for cluster_id in sorted(pricing.due_hours(limit)):
        with transaction.atomic():
            lock_cluster(cluster_id)
            # Looked up again under the lock: an ingest may have priced them meanwhile.
            statuses = pricing.due_hours(limit).get(cluster_id, [])
            price_statuses(cluster_id, statuses)
            priced += len(statuses)
    return priced


def price_statuses(cluster_id: int, statuses: list[HourStatus]) -> None:
    """Price the given hours of a cluster, in the caller's transaction."""
    if statuses:
        hours = [status.hour for status in statuses]
        pricing.price_hours(
            Written(cluster_id, hours, sorted({billing.day_of(hour) for hour in hours}), [s.revision for s in statuses])
        )
