"""Disputes: a team objects to a statement or a line of it, both sides comment, finance settles with an outcome."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from apps import audit
from apps.accounts.models import User
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.events import EventType
from apps.core.permissions import may
from apps.costs import adjusting_events as events
from apps.costs import credits
from apps.costs.choices import DisputeStatus, OwnerKind
from apps.costs.models import Dispute, DisputeComment, Period, Statement, StatementLine
from apps.costs.seconding import checked_text, person, someone
from apps.teams import scope
from apps.teams.choices import Role

OPEN = "costs.statement.dispute"
DECIDE = "costs.dispute.decide"
LONGEST = 4000
_OWNERS = (OwnerKind.TEAM, OwnerKind.UNIT)


@transaction.atomic
def open_dispute(statement_id: int, text: str, *, actor: Actor, line_ordinal: int | None = None) -> Dispute:
    """Object to a statement, or to one line of it by its number.

    Raises NotVisible for a statement out of scope, NotAllowed for anybody but the team's leads and the unit's owners,
    Invalid for a text that says nothing or a line that the statement has not, Conflict where the same is disputed
    already or the statement was superseded.
    """
    statement = Statement.objects.select_for_update(of=("self",)).filter(pk=statement_id).first()
    user = someone(actor)
    if statement is None or user is None or not Statement.objects.visible_to(user).filter(pk=statement_id).exists():
        raise NotVisible
    person(actor, OPEN, statement, "A statement is disputed by the team's leads or the unit's owner.")
    if statement.owner_kind not in _OWNERS:
        raise Invalid({"": "Only statements of teams and units are disputed."})
    if statement.superseded_at is not None:
        raise Conflict(
            f"Statement {statement} was superseded when its month was opened again: look at the newer one.",
            current={"superseded_at": str(statement.superseded_at)},
        )
    if (
        line_ordinal is not None
        and not StatementLine.objects.filter(statement=statement, ordinal=line_ordinal).exists()
    ):
        raise Invalid({"line_ordinal": f"Statement {statement} has no line {line_ordinal}."})
    stored = checked_text(text, field="text", longest=LONGEST)
    same = Dispute.objects.filter(statement=statement, line_ordinal=line_ordinal, status=DisputeStatus.OPEN).first()
    if same is not None:
        raise Conflict(
            "This is disputed already: add a comment there.", current={"dispute": str(same.uid), "status": same.status}
        )
    dispute = Dispute.objects.create(
        statement=statement,
        line_ordinal=line_ordinal,
        team_id=statement.team_id,
        unit_id=statement.unit_id,
        text=stored,
        opened_by=user,
    )
    _record(events.DISPUTE_OPENED, dispute, actor=actor, recipients=deciders(dispute), comment=stored)
    return dispute


def deciders(dispute: Dispute) -> list[int]:
    """Return who could settle a dispute: finance, without who opened it and the people of the disputing team."""
    excluded = {dispute.opened_by_id}
    if dispute.team_id is not None:
        excluded |= scope.members(dispute.team_id)
        found = scope.holders(DECIDE, team_id=dispute.team_id)
    else:
        excluded |= set(scope.holders_of_role(Role.UNIT_OWNER, unit_id=dispute.unit_id))
        found = scope.holders(DECIDE, unit_id=dispute.unit_id)
    return [user for user in found if user not in excluded]


def owners(dispute: Dispute) -> list[int]:
    """Return the disputing side: who opened it and the team's leads (of a unit's statement: the unit's owners)."""
    if dispute.team_id is not None:
        found = scope.holders_of_role(Role.TEAM_LEAD, team_id=dispute.team_id)
    else:
        found = scope.holders_of_role(Role.UNIT_OWNER, unit_id=dispute.unit_id)
    return sorted({*found, dispute.opened_by_id})


def _locked(dispute_id: int, actor: Actor, expected_version: int | None) -> tuple[Dispute, User]:
    user = someone(actor)
    if user is None or not Dispute.objects.visible_to(user).filter(pk=dispute_id).exists():
        raise NotVisible
    dispute = Dispute.objects.locked(dispute_id, expected_version=expected_version)
    return dispute, user


def _must_be_open(dispute: Dispute) -> None:
    if dispute.status != DisputeStatus.OPEN:
        raise Conflict(
            f"This dispute is {DisputeStatus(dispute.status).label.lower()}: nothing is left to do.",
            current={"version": dispute.version, "status": dispute.status},
        )


@transaction.atomic
def comment(dispute_id: int, text: str, *, actor: Actor) -> DisputeComment:
    """Add a comment; the other side is told. Raises NotVisible, NotAllowed, Conflict once it is settled, Invalid."""
    dispute, user = _locked(dispute_id, actor, None)
    finance, owner = may(user, DECIDE, dispute), may(user, OPEN, dispute)
    if not finance and not owner:
        raise NotAllowed("Disputes are commented on by finance, the team's leads and the unit's owner.", rule=OPEN)
    _must_be_open(dispute)
    stored = text.strip()
    if not stored or len(stored) > LONGEST:
        raise Invalid({"text": f"Write between 1 and {LONGEST:,} characters."})
    row = DisputeComment.objects.create(dispute=dispute, author=user, text=stored)
    recipients = {*owners(dispute), *deciders(dispute)} - {user.pk}
    _record(events.DISPUTE_COMMENTED, dispute, actor=actor, recipients=recipients, comment=stored)
    return row


@transaction.atomic
def settle_dispute(
    dispute_id: int,
    *,
    accepted: bool,
    outcome: str,
    actor: Actor,
    amount: Decimal | None = None,
    expected_version: int | None = None,
) -> Dispute:
    """Settle a dispute with an outcome in words; accepted with an `amount`, a credit is proposed as well.

    The credit is proposed by who settles, so that it takes another person to approve it. Raises NotVisible, NotAllowed
    for who opened it and for members of the team, Conflict, Invalid.
    """
    dispute, _ = _locked(dispute_id, actor, expected_version)
    user = person(actor, DECIDE, dispute, "Disputes are settled by finance.")
    if user.pk in owners(dispute) or (dispute.team_id is not None and user.pk in scope.members(dispute.team_id)):
        raise NotAllowed("Nobody settles a dispute of their own: somebody else of finance does.", rule=DECIDE)
    _must_be_open(dispute)
    text = checked_text(outcome, field="outcome", longest=LONGEST)
    if amount is not None and not accepted:
        raise Invalid({"amount": "A rejected dispute gives nothing back: leave the amount empty."})
    if amount is not None:
        dispute.credit = credits.propose_credit(
            credited_statement(dispute).pk, amount, f"Dispute of {dispute.statement}: {text}"[:500], actor=actor
        )
    elif accepted and dispute.team_id is not None:
        raise Invalid({"amount": "Say how much is given back: it is proposed as a credit."})
    dispute.status = DisputeStatus.ACCEPTED if accepted else DisputeStatus.REJECTED
    dispute.outcome, dispute.settled_by, dispute.settled_at = text, user, clock.now()
    dispute.bump("status", "outcome", "settled_by", "settled_at", "credit")
    _record(events.DISPUTE_SETTLED, dispute, actor=actor, recipients=owners(dispute), comment=text)
    return dispute


def credited_statement(dispute: Dispute) -> Statement:
    """Return the team statement that a credit for this dispute is given on.

    Of a unit's statement it is the one behind the disputed line. Raises Invalid where that is no team's.
    """
    statement = dispute.statement
    if statement.owner_kind == OwnerKind.TEAM:
        return statement
    line = line_of(dispute)
    found = Statement.objects.filter(uid=line.reference).first() if line is not None and line.reference else None
    if found is None or found.owner_kind != OwnerKind.TEAM:
        raise Invalid(
            {"amount": "A unit's statement is credited through its teams: settle without an amount and propose them."}
        )
    return found


def line_of(dispute: Dispute) -> StatementLine | None:
    """Return the disputed line; None: the whole statement is disputed."""
    if dispute.line_ordinal is None:
        return None
    return StatementLine.objects.filter(statement_id=dispute.statement_id, ordinal=dispute.line_ordinal).first()


@transaction.atomic
def withdraw_dispute(dispute_id: int, *, actor: Actor, expected_version: int | None = None) -> Dispute:
    """Withdraw a dispute: its opener, another lead or owner. Raises NotVisible, NotAllowed, Conflict."""
    dispute, _ = _locked(dispute_id, actor, expected_version)
    person(actor, OPEN, dispute, "A dispute is withdrawn by the team's leads or the unit's owner.")
    _must_be_open(dispute)
    dispute.status, dispute.settled_at = DisputeStatus.WITHDRAWN, clock.now()
    dispute.bump("status", "settled_at")
    _record(events.DISPUTE_WITHDRAWN, dispute, actor=actor, recipients=deciders(dispute))
    return dispute


def blocking(period: Period) -> QuerySet[Dispute]:
    """Return the open disputes that the close of `period` waits for: those of statements of earlier months in force.

    A dispute may cost money, and what it costs is billed in an open month: closing the next one while an earlier one
    is still disputed would only push it further. Each can be waived by name, to be settled in a later month.
    """
    return Dispute.objects.filter(
        status=DisputeStatus.OPEN,
        statement__period__month__lte=period.month,
        statement__superseded_at__isnull=True,
    )


def _record(
    event: EventType, dispute: Dispute, *, actor: Actor, recipients: Iterable[int] = (), comment: str = ""
) -> None:
    statement = dispute.statement
    payload = events.DisputeEvent(
        dispute=str(dispute.uid),
        statement=statement.number,
        owner=statement.team_name if statement.team_id is not None else statement.unit_name,
        line=dispute.line_ordinal,
        status=dispute.status,
        comment=comment,
    )
    team_uid: Any = statement.team.uid if statement.team is not None else None
    audit.record(event, payload, actor=actor, subject_type="costs.dispute", subject_uid=dispute.uid, team_uid=team_uid)
    outbox.publish(event, payload, recipients=recipients, subject_uid=dispute.uid)
