"""Set what a team or a unit may spend in a month, and what is done on the way there."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import transaction

from apps import audit
from apps.accounts.models import User
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.money import minor_units
from apps.core.permissions import may
from apps.costs import budget_rules as rules
from apps.costs.events import BUDGET_SET, BudgetSet, month_name
from apps.costs.models import Budget
from apps.metering import billing
from apps.teams.models import Team, Unit

MAX_AMOUNT = Decimal("1e15")
MAX_GPU_HOURS = 10**12


@transaction.atomic
def set_limits(
    *,
    team_id: int | None = None,
    unit_id: int | None = None,
    amount: Decimal | None,
    gpu_hours: int | None,
    month_from: date,
    actions: Mapping[str, Any] | None = None,
    actor: Actor,
    currency: str = "",
    expected_version: int | None = None,
) -> Budget:
    """Set what a team, or a unit with everything below it, may spend a month, from `month_from` until its next budget.

    `amount` in the ledger currency and `gpu_hours`: None means no such limit, 0 that nothing may be spent. `actions`:
    step → names (`budget_rules`); None keeps what the owner's budget says for that month. Raises NotVisible, NotAllowed
    without `costs.budget.set` there, Invalid per field, Conflict where `expected_version` is given and the month's
    budget moved on (0: there was none).
    """
    owner = _locked_owner(team_id, unit_id)
    _require(actor, owner)
    month = month_from.replace(day=1)
    own = {"team": owner} if isinstance(owner, Team) else {"unit": owner}
    rows = Budget.objects.select_for_update(of=("self",)).filter(**own)
    wanted = _checked(amount, gpu_hours, month, currency, actor)
    budget = rows.filter(month_from=month).first()
    chosen = rules.checked_actions(actions) if actions is not None else _kept(rows.filter(month_from__lte=month))
    before = None if budget is None else budget.amount
    if expected_version is not None and (budget.version if budget else 0) != expected_version:
        raise Conflict(
            "Somebody set this month's budget in the meantime.",
            current={"amount": None if before is None else str(before), "month": str(month)},
        )
    if budget is None:
        budget = Budget.objects.create(
            **own, month_from=month, amount=wanted, gpu_hours=gpu_hours, currency=_ledger(), actions=chosen,
            set_by_id=actor.user_id,
        )  # fmt: skip
    elif (budget.amount, budget.gpu_hours, budget.actions) != (wanted, gpu_hours, chosen):
        budget.amount, budget.gpu_hours, budget.actions = wanted, gpu_hours, chosen
        budget.set_by_id = actor.user_id
        budget.bump("amount", "gpu_hours", "actions", "set_by_id")
    else:
        return budget
    is_team = isinstance(owner, Team)
    audit.record(
        BUDGET_SET,
        BudgetSet(
            budget_uid=budget.uid,
            team_uid=owner.uid if is_team else None,
            unit_uid=None if is_team else owner.uid,
            month_from=month_name(month),
            amount=wanted,
            gpu_hours=gpu_hours,
            currency=_ledger(),
            before=before,
            actions=[f"{step}: {', '.join(names)}" for step, names in sorted(chosen.items())],
        ),
        actor=actor,
        subject_type="costs.budget",
        subject_uid=budget.uid,
        team_uid=owner.uid if is_team else None,
    )
    return budget


def _ledger() -> str:
    return str(settings.COMMONS_CURRENCY)


def _kept(rows: Any) -> dict[str, list[str]]:
    """Return the actions of the budget that counted so far: setting a number alone changes none of them."""
    last = rows.order_by("-month_from").first()
    return dict(last.actions) if last is not None else {}


def _locked_owner(team_id: int | None, unit_id: int | None) -> Team | Unit:
    if (team_id is None) == (unit_id is None):
        raise Invalid({"": "A budget is a team's or a unit's."})
    owner: Team | Unit | None
    if team_id is not None:
        owner = Team.objects.select_for_update(of=("self",)).select_related("unit").filter(pk=team_id).first()
    else:
        owner = Unit.objects.select_for_update(of=("self",)).filter(pk=unit_id or 0).first()
    if owner is None:
        raise NotVisible
    return owner


def _require(actor: Actor, owner: Team | Unit) -> None:
    if actor.user_id is None:
        return
    user = User.objects.filter(pk=actor.user_id, is_active=True).first()
    if user is None or not may(user, "costs.budget.set", owner):
        raise NotAllowed("Budgets are set by finance or the unit's owner.", rule="costs.budget.set")


def _checked(amount: Decimal | None, gpu_hours: int | None, month: date, currency: str, actor: Actor) -> Decimal | None:
    """Return the amount. Raises Invalid with a message at each wrong field."""
    ledger = _ledger()
    errors: dict[str, str] = {}
    if amount is None and gpu_hours is None:
        errors["amount"] = "Give a limit in money, in GPU-hours, or both."
    if amount is not None:
        if not amount.is_finite() or amount < 0 or amount >= MAX_AMOUNT:
            errors["amount"] = "Give an amount of zero or more."
        elif amount != amount.quantize(Decimal(1).scaleb(-minor_units(ledger))):
            errors["amount"] = f"Amounts in {ledger} have {minor_units(ledger)} decimal places."
    if gpu_hours is not None and not 0 <= gpu_hours <= MAX_GPU_HOURS:
        errors["gpu_hours"] = f"Give a whole number of GPU-hours from 0 to {MAX_GPU_HOURS:,}."
    if (currency or ledger) != ledger:
        errors["currency"] = f"The ledger of this installation is kept in {ledger}."
    if month < billing.month_of(clock.now()) and not actor.is_system:
        errors["month_from"] = "A month that is over keeps its budget: choose this month or a later one."
    if errors:
        raise Invalid(errors)
    return amount
