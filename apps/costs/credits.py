"""Credits: money given back to a team, or moved between two, with a reason and a second person (cost.md E10)."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q, Sum

from apps import audit
from apps.accounts.models import User
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.events import EventType
from apps.core.money import Money, minor_units
from apps.costs import adjusting_events as events
from apps.costs.choices import OwnerKind, Verdict
from apps.costs.corrections_books import lock_open_period
from apps.costs.models import Credit, Statement
from apps.costs.seconding import checked_text, person, second_person
from apps.teams import scope
from apps.teams.models import Team

CREATE = "costs.credit.create"
APPROVE = "costs.credit.approve"
_STANDING = (Verdict.PROPOSED, Verdict.APPROVED)


def left_on(statement: Statement) -> Money:
    """Return what a statement still holds: its total less the credits proposed or approved for it.

    What was approved for the statement that it took the place of, when its month was opened again, counts as well:
    that money is billed already.
    """
    same: dict[str, Any] = {
        f"statement__{name}": getattr(statement, name) for name in ("period_id", "team_id", "unit_id", "cost_centre")
    }
    standing = Q(statement=statement, status__in=_STANDING) | Q(status=Verdict.APPROVED)
    given = Credit.objects.filter(standing, **same).aggregate(sum=Sum("amount"))["sum"]
    return Money(statement.amount - (given or Decimal(0)), statement.currency)


@transaction.atomic
def propose_credit(
    statement_id: int, amount: Decimal, reason: str, *, actor: Actor, payer_id: int | None = None
) -> Credit:
    """Propose to give `amount` of a team's statement back; with `payer_id` another team pays it (two rows, zero sum).

    Raises NotVisible for an unknown statement or paying team, NotAllowed without `costs.credit.create`, Conflict for a
    statement that was superseded, Invalid for a statement that is no team's, a missing reason, an amount that is not
    positive, has too many decimals, or is more than the statement still holds (no permission goes beyond that).
    """
    statement = Statement.objects.select_for_update(of=("self",)).select_related("team").filter(pk=statement_id).first()
    if statement is None:
        raise NotVisible
    user = person(actor, CREATE, statement, "Credits are proposed by finance.")
    if not Statement.objects.visible_to(user).filter(pk=statement_id).exists():
        raise NotVisible
    if statement.owner_kind != OwnerKind.TEAM or statement.team is None:
        raise Invalid({"": "A credit is given on a team's statement: open the team's line of this one."})
    if statement.superseded_at is not None:
        raise Conflict(
            f"Statement {statement} was superseded when its month was opened again: take the newer one.",
            current={"superseded_at": str(statement.superseded_at)},
        )
    text = checked_text(reason)
    _check_amount(amount, statement)
    payer = None
    if payer_id is not None:
        payer = Team.objects.filter(pk=payer_id, archived_at__isnull=True).first()
        if payer is None:
            raise NotVisible
        if payer.pk == statement.team_id:
            raise Invalid({"payer": "The other team pays: choose another one than the team of the statement."})
        person(actor, CREATE, payer, "Credits are proposed by the finance of both teams.")
    pair = uuid.uuid4() if payer is not None else None
    values = {"currency": statement.currency, "reason": text, "proposed_by": user, "pair": pair}
    credit = Credit.objects.create(team=statement.team, statement=statement, amount=amount, **values)
    if payer is not None:
        Credit.objects.create(team=payer, amount=-amount, **values)
    _record(events.CREDIT_PROPOSED, credit, actor=actor, reason=text, recipients=approvers(credit))
    return credit


def _check_amount(amount: Decimal, statement: Statement) -> None:
    places = minor_units(statement.currency)
    if not amount.is_finite() or amount <= 0:
        raise Invalid({"amount": "Give an amount above zero."})
    if amount != amount.quantize(Decimal(1).scaleb(-places)):
        raise Invalid({"amount": f"Amounts in {statement.currency} have {places} decimal places."})
    left = left_on(statement)
    if amount > left.amount:
        raise Invalid({"amount": f"Statement {statement} holds no more than {left}: a credit cannot exceed that."})


def approvers(credit: Credit) -> list[int]:
    """Return who could approve a credit: holders of the permission, without its proposer and the team's people."""
    excluded = scope.members(credit.team_id) | {credit.proposed_by_id}
    return [user for user in scope.holders(APPROVE, team_id=credit.team_id) if user not in excluded]


def rows_of(credit: Credit) -> Sequence[Credit]:
    """Return the rows that are decided as one: the credit, and the payer's row where another team pays."""
    if credit.pair is None:
        return [credit]
    return list(Credit.objects.filter(pair=credit.pair).select_related("team", "statement").order_by("-amount"))


def _locked(credit_id: int, expected_version: int | None) -> list[Credit]:
    found = Credit.objects.filter(pk=credit_id).values_list("pair", flat=True).first()
    rows = list(
        (Credit.objects.filter(pair=found) if found else Credit.objects.filter(pk=credit_id))
        .select_for_update(of=("self",))
        .select_related("team", "statement", "proposed_by")
        .order_by("-amount")
    )
    if not rows:
        raise NotVisible
    own = next(row for row in rows if row.pk == credit_id)
    if expected_version is not None and own.version != expected_version:
        raise Conflict(
            "Somebody changed this while you were looking at it. Here is how it stands now.",
            current={"version": own.version, "status": own.status},
        )
    return rows


def _decider(rows: Sequence[Credit], actor: Actor) -> User:
    """Return who decides. Raises NotVisible, NotAllowed."""
    receiver = rows[0]
    user = person(actor, APPROVE, receiver, "Credits are approved by finance.")
    if not Credit.objects.visible_to(user).filter(pk=receiver.pk).exists():
        raise NotVisible
    for row in rows[1:]:
        person(actor, APPROVE, row, "Money between teams is approved by the finance of both.")
    second_person(user, receiver.proposed_by_id, "A credit")
    if user.pk in scope.members(receiver.team_id):
        raise NotAllowed(
            f"You belong to {receiver.team}, which receives this credit: somebody else decides.", rule=APPROVE
        )
    return user


def _must_be_open(rows: Iterable[Credit]) -> None:
    for row in rows:
        if row.status != Verdict.PROPOSED:
            raise Conflict(
                f"This credit is {Verdict(row.status).label.lower()}: nothing is left to decide.",
                current={"status": row.status, "version": row.version},
            )


@transaction.atomic
def approve_credit(credit_id: int, *, actor: Actor, reason: str = "", expected_version: int | None = None) -> Credit:
    """Approve a credit: it is billed in the open month. With its pair, both rows are.

    Raises NotVisible, NotAllowed for the proposer, a member of the receiving team or without `costs.credit.approve`,
    Conflict where it is decided already, Invalid where the statement holds less meanwhile.
    """
    rows = _locked(credit_id, expected_version)
    user = _decider(rows, actor)
    _must_be_open(rows)
    receiver = rows[0]
    if receiver.statement is not None:
        # `left_on` counts this credit as well: below zero means that others took what it would need.
        statement = Statement.objects.select_for_update().get(pk=receiver.statement.pk)
        if statement.superseded_at is not None:
            raise Conflict(
                f"Statement {statement} was superseded when its month was opened again: reject this credit and propose"
                " it on the newer one.",
                current={"status": receiver.status},
            )
        if left_on(statement).amount < 0:
            raise Invalid({"": f"Statement {statement} no longer holds as much as this credit."})
    period = lock_open_period()
    for row in rows:
        row.status, row.period, row.decided_by = Verdict.APPROVED, period, user
        row.decided_at, row.decision_reason = clock.now(), reason.strip()[:500]
        row.bump("status", "period", "decided_by", "decided_at", "decision_reason")
    leads = scope.holders_of_role("team_lead", team_id=receiver.team_id)
    payers = [lead for row in rows[1:] for lead in scope.holders_of_role("team_lead", team_id=row.team_id)]
    recipients = [*leads, *payers, receiver.proposed_by_id]
    _record(events.CREDIT_APPROVED, receiver, actor=actor, reason=reason, recipients=recipients)
    return next(row for row in rows if row.pk == credit_id)


@transaction.atomic
def reject_credit(credit_id: int, reason: str, *, actor: Actor, expected_version: int | None = None) -> Credit:
    """Reject a credit with a reason. Raises NotVisible, NotAllowed, Conflict, Invalid."""
    rows = _locked(credit_id, expected_version)
    user = _decider(rows, actor)
    _must_be_open(rows)
    text = checked_text(reason)
    _end(rows, Verdict.REJECTED, user, text)
    _record(events.CREDIT_REJECTED, rows[0], actor=actor, reason=text, recipients=[rows[0].proposed_by_id])
    return next(row for row in rows if row.pk == credit_id)


@transaction.atomic
def withdraw_credit(credit_id: int, *, actor: Actor, expected_version: int | None = None) -> Credit:
    """Withdraw one's own proposal. Raises NotVisible, NotAllowed for anybody else, Conflict."""
    rows = _locked(credit_id, expected_version)
    user = person(actor, CREATE, rows[0], "Credits are proposed by finance.")
    if user.pk != rows[0].proposed_by_id:
        raise NotAllowed("A credit is withdrawn by who proposed it; others reject it.", rule=CREATE)
    _must_be_open(rows)
    _end(rows, Verdict.WITHDRAWN, None, "")
    _record(events.CREDIT_WITHDRAWN, rows[0], actor=actor)
    return next(row for row in rows if row.pk == credit_id)


def _end(rows: Iterable[Credit], status: Verdict, user: User | None, reason: str) -> None:
    for row in rows:
        row.status, row.decided_by, row.decided_at, row.decision_reason = status, user, clock.now(), reason
        row.bump("status", "decided_by", "decided_at", "decision_reason")


def _record(
    event: EventType, credit: Credit, *, actor: Actor, reason: str = "", recipients: Iterable[int] = ()
) -> None:
    payer = (
        Credit.objects.filter(pair=credit.pair, amount__lt=0).select_related("team").first() if credit.pair else None
    )
    payload = events.CreditEvent(
        credit=str(credit.uid),
        team=credit.team.name,
        statement=str(credit.statement or ""),
        amount=str(Money(credit.amount, credit.currency).quantized().amount),
        currency=credit.currency,
        payer=payer.team.name if payer else "",
        billed_in=f"{credit.period.month:%Y-%m}" if credit.period else "",
    )
    audit.record(
        event, payload, actor=actor, subject_type="costs.credit", subject_uid=credit.uid, team_uid=credit.team.uid,
        reason=reason,
    )  # fmt: skip
    if recipients := list(recipients):
        outbox.publish(event, payload, recipients=recipients, subject_uid=credit.uid)


def ledger_currency() -> str:
    """Return the currency that credits are given in."""
    return str(settings.COMMONS_CURRENCY)
