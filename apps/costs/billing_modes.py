"""Showback or chargeback per unit, from a month on, inherited below; the platform's side of the journal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from django.db import transaction
from django.db.models import F

from apps import audit
from apps.core import outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotVisible
from apps.costs import adjusting_events as events
from apps.costs.choices import BillingMode, PeriodStatus
from apps.costs.models import JournalAccount, Period, UnitBilling
from apps.costs.seconding import person
from apps.teams import scope
from apps.teams.choices import Role
from apps.teams.models import Unit

MANAGE = "costs.period.manage"
#: Purposes of the platform's accounts, and what is posted there; all but the first fall back to the first.
PURPOSES = {
    "recovery": "Recovered cost: what chargeback units pay",
    "correction": "Corrections of closed months",
    "credit": "Credits given",
}
_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._/-]*")


@dataclass(frozen=True, slots=True)
class Mode:
    """How a unit is billed in a month. `unit_id` None: nobody set anything on the way up, so it is showback."""

    mode: str
    account: str
    unit_id: int | None = None
    month_from: date | None = None

    @property
    def charged(self) -> bool:
        """Whether statements of the unit are posted."""
        return self.mode == BillingMode.CHARGEBACK


SHOWBACK = Mode(BillingMode.SHOWBACK, "")


class Modes:
    """Every unit's mode in one month, in one query."""

    def __init__(self, month: date) -> None:
        self._own: dict[int, Mode] = {}
        rows = UnitBilling.objects.filter(month_from__lte=month.replace(day=1)).order_by("month_from")
        for row in rows:
            self._own[row.unit_id] = Mode(row.mode, row.account, row.unit_id, row.month_from)

    def of(self, unit_path: Sequence[int]) -> Mode:
        """Return the mode of a unit by its path (root first): its own, else that of the nearest unit above it."""
        return next((self._own[pk] for pk in reversed(unit_path) if pk in self._own), SHOWBACK)


def mode_of(unit: Unit, month: date) -> Mode:
    """Return how a unit is billed in a month."""
    return Modes(month).of(unit.path)


def _checked_code(text: str, field: str, longest: int = 50) -> str:
    found = text.strip()
    if found and (len(found) > longest or not _CODE.fullmatch(found)):
        raise Invalid({field: f"Letters, digits, blanks and . _ / - only, at most {longest} characters."})
    return found


@transaction.atomic
def set_mode(unit_id: int, month_from: date, mode: str, *, actor: Actor, account: str = "") -> UnitBilling:
    """Set how a unit, and every unit below without a mode of its own, is billed from a month on.

    Raises NotVisible, NotAllowed without `costs.period.manage` for the unit, Invalid for an unknown mode, an account
    that is missing for chargeback, or a month that is closing or closed, or before one that is.
    """
    unit = Unit.objects.select_for_update(of=("self",)).filter(pk=unit_id, archived_at__isnull=True).first()
    if unit is None:
        raise NotVisible
    user = person(actor, MANAGE, unit, "How a unit is billed is set by finance.")
    month = month_from.replace(day=1)
    errors: dict[str, str] = {}
    if mode not in BillingMode.values:
        errors["mode"] = "Choose showback or chargeback."
    code = _checked_code(account, "account")
    if mode == BillingMode.CHARGEBACK and not code:
        errors["account"] = "Chargeback is posted to an expense account: give its number."
    # Months are closed in their order: one that is closing or closed bars every month before it as well.
    barred = Period.objects.filter(month__gte=month).exclude(status=PeriodStatus.OPEN).order_by("-month").first()
    if barred is not None:
        status = PeriodStatus(barred.status).label.lower()
        errors["month_from"] = f"{barred.month:%B %Y} is {status}: choose a later month."
    if errors:
        raise Invalid(errors)
    row, made = UnitBilling.objects.get_or_create(
        unit=unit, month_from=month, defaults={"mode": mode, "account": code, "set_by": user}
    )
    if not made:
        if (row.mode, row.account) == (mode, code):
            return row
        row.mode, row.account, row.set_by = mode, code, user
        row.save(update_fields=["mode", "account", "set_by"])
    payload = events.BillingModeSet(unit.name, f"{month:%Y-%m}", BillingMode(mode).name.lower(), code)
    audit.record(events.BILLING_MODE_SET, payload, actor=actor, subject_type="teams.unit", subject_uid=unit.uid)
    recipients = [pk for one in unit.path for pk in scope.holders_of_role(Role.UNIT_OWNER, unit_id=one)]
    if recipients:
        outbox.publish(events.BILLING_MODE_SET, payload, recipients=recipients, subject_uid=unit.uid)
    return row


@transaction.atomic
def set_account(
    purpose: str, account: str, cost_centre: str, *, actor: Actor, expected_version: int | None = None
) -> JournalAccount:
    """Set where the platform's side of the journal is posted. Raises NotAllowed, Invalid, Conflict."""
    person(actor, MANAGE, None, "The accounts of the journal are set by finance.")
    if purpose not in PURPOSES:
        raise NotVisible
    code, centre = _checked_code(account, "account"), _checked_code(cost_centre, "cost_centre")
    if not code:
        raise Invalid({"account": "Give the number of the account in the general ledger."})
    row = JournalAccount.objects.select_for_update().filter(purpose=purpose).first()
    if expected_version is not None and (row.version if row else 0) != expected_version:
        raise Conflict("Somebody changed this account meanwhile.", current={"account": row.account if row else ""})
    before = f"{row.account} {row.cost_centre}".strip() if row else ""
    if row is None:
        row = JournalAccount.objects.create(purpose=purpose, account=code, cost_centre=centre)
    elif (row.account, row.cost_centre) == (code, centre):
        return row
    else:
        JournalAccount.objects.filter(pk=row.pk).update(account=code, cost_centre=centre, version=F("version") + 1)
        row.refresh_from_db()
    audit.record(
        events.ACCOUNT_SET, events.AccountSet(purpose, code, centre, before), actor=actor,
        subject_type="costs.journal_account", subject_uid=row.uid,
    )  # fmt: skip
    return row
