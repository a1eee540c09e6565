"""Set budgets; price what is due."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

from django.conf import settings
from django.db import transaction

from apps import audit
from apps.accounts.models import User
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.money import minor_units
from apps.core.permissions import may
from apps.costs import pricing
from apps.costs.events import BUDGET_SET, BudgetSet, month_name
from apps.costs.models import Budget
from apps.metering import billing
from apps.metering.models import HourStatus
from apps.metering.ports import Written
from apps.metering.writer import lock_cluster
from apps.teams.models import Team

#: Hours priced per round of the sweep.
BATCH = 5000
MAX_AMOUNT = Decimal("1e15")


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
    """Set what a team may spend a month, from `month_from` (any day of the month) until its next budget begins.

    Raises NotVisible for an unknown team, NotAllowed without `costs.budget.set` for it, Invalid for a negative amount,
    one with too many decimals, a foreign currency or a month that is over, Conflict where `expected_version` is given
    and the month's budget moved on.
    """
    team = Team.objects.select_for_update(of=("self",)).select_related("unit").filter(pk=team_id).first()
    if team is None:
        raise NotVisible
    if actor.user_id is not None:
        user = User.objects.filter(pk=actor.user_id, is_active=True).first()
        if user is None or not may(user, "costs.budget.set", team):
            raise NotAllowed("Budgets are set by finance or the unit's owner.", rule="costs.budget.set")
    ledger = settings.COMMONS_CURRENCY
    month = month_from.replace(day=1)
    errors: dict[str, str] = {}
    if not amount.is_finite() or amount < 0 or amount >= MAX_AMOUNT:
        errors["amount"] = "Give an amount of zero or more."
    elif amount != amount.quantize(Decimal(1).scaleb(-minor_units(ledger))):
        errors["amount"] = f"Amounts in {ledger} have {minor_units(ledger)} decimal places."
    if (currency or ledger) != ledger:
        errors["currency"] = f"The ledger of this installation is kept in {ledger}."
    if month < billing.month_of(clock.now()) and not actor.is_system:
        errors["month_from"] = "A month that is over keeps its budget: choose this month or a later one."
    if errors:
        raise Invalid(errors)
    budget = Budget.objects.select_for_update().filter(team=team, month_from=month).first()
    before = None if budget is None else budget.amount
    if expected_version is not None and (budget.version if budget else 0) != expected_version:
        raise Conflict(
            "Somebody set this month's budget in the meantime.",
            current={"amount": None if before is None else str(before), "month": str(month)},
        )
    if budget is None:
        budget = Budget.objects.create(
            team=team, month_from=month, amount=amount, currency=ledger, set_by_id=actor.user_id
        )
    elif budget.amount != amount:
        budget.amount, budget.set_by_id = amount, actor.user_id
        budget.bump("amount", "set_by_id")
    else:
        return budget
    audit.record(
        BUDGET_SET,
        BudgetSet(budget.uid, team.uid, month_name(month), amount, ledger, before),
        actor=actor,
        subject_type="costs.budget",
        subject_uid=budget.uid,
        team_uid=team.uid,
    )
    return budget


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
