"""Renaming, moving and archiving units and teams, now or on a date. Hours before keep the owner they had."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import IntegrityError, transaction
from django.urls import reverse

from apps import audit
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.errors import Blocked, Conflict, Invalid, NotAllowed
from apps.core.events import EventType
from apps.teams import moving, people_events, scope
from apps.teams.choices import ChangeStatus, Role
from apps.teams.gates import checked_reason, person, require
from apps.teams.models import PlannedChange, Team, Unit

MANAGE = "teams.unit.manage"
#: A change may be planned so far ahead.
MAX_AHEAD = timedelta(days=366)


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to change of a unit or team; None leaves a field as it is. `to_top` takes a unit to the top."""

    name: str | None = None
    cost_centre: str | None = None
    unit_id: int | None = None
    to_top: bool = False
    archive: bool = False


@transaction.atomic
def change_team(
    team_id: int,
    wish: Wish,
    reason: str,
    *,
    actor: Actor,
    effective_at: datetime | None = None,
    expected_version: int | None = None,
) -> PlannedChange:
    """Change a team, now or at a moment to come; returns the change, done or planned.

    Raises NotAllowed (also where it would widen the actor's own rights), NotVisible, Invalid, Conflict, Blocked.
    """
    team = Team.objects.locked(team_id, expected_version=expected_version)
    return _change(team, wish, reason, effective_at, actor)


@transaction.atomic
def change_unit(
    unit_id: int,
    wish: Wish,
    reason: str,
    *,
    actor: Actor,
    effective_at: datetime | None = None,
    expected_version: int | None = None,
) -> PlannedChange:
    """Change a unit, now or at a moment to come. Raises as `change_team`."""
    moving.lock_tree()
    unit = Unit.objects.locked(unit_id, expected_version=expected_version)
    return _change(unit, wish, reason, effective_at, actor)


@transaction.atomic
def restore(subject: Team | Unit, reason: str, *, actor: Actor) -> Team | Unit:
    """Take an archived team or unit into use again; nobody belongs to it yet. Raises as `change_team`."""
    row: Team | Unit = type(subject)._default_manager.locked(subject.pk)
    manager = person(actor)
    require(manager, actor, MANAGE, row)
    reason = checked_reason(actor, reason)
    if row.archived_at is None:
        raise Conflict("This is in use already.", current={"status": "active"})
    above = row.unit if isinstance(row, Team) else row.parent
    if above is not None and above.archived_at is not None:
        raise Blocked(f"{above.name} is archived: restore it first.")
    row.archived_at = None
    row.bump("archived_at")
    _record(row, {"state": "archived"}, {"state": "active"}, clock.now(), reason, actor)
    return row


@transaction.atomic
def cancel(change_id: int, reason: str, *, actor: Actor, expected_version: int | None = None) -> PlannedChange:
    """Take back a planned change. Raises NotAllowed, NotVisible, Invalid, Conflict where it waits no more."""
    manager = person(actor)
    change = PlannedChange.objects.locked(change_id, expected_version=expected_version)
    require(manager, actor, MANAGE, change)
    reason = checked_reason(actor, reason)
    if change.status != ChangeStatus.PLANNED:
        raise Conflict("This change waits no more.", current={"status": change.status})
    change.status, change.ended_at = ChangeStatus.CANCELLED, clock.now()
    change.bump("status", "ended_at")
    _tell_planned(people_events.CHANGE_CANCELLED, change, actor, reason)
    return change


def due(at: datetime) -> list[int]:
    """Return the keys of the planned changes whose time has come, the earliest first."""
    waiting = PlannedChange.objects.filter(status=ChangeStatus.PLANNED, effective_at__lte=at)
    return list(waiting.order_by("effective_at", "pk").values_list("pk", flat=True))


@transaction.atomic
def carry_out(change_id: int) -> bool:
    """Carry out a planned change whose time has come; where it is not possible (any more), say so and to whom.

    False where there is nothing to do (any more).
    """
    change = PlannedChange.objects.select_for_update(of=("self",)).filter(pk=change_id).first()
    if change is None or change.status != ChangeStatus.PLANNED or change.effective_at > clock.now():
        return False
    actor = Actor.system("teams.planned_changes")
    if change.unit_id is not None:
        moving.lock_tree()
    subject = _subject(change, lock=True)
    try:
        with transaction.atomic():
            _check(subject, _wish(change), change.made_by_id)
            _apply(subject, change, actor)
    except (Blocked, Invalid, NotAllowed, Conflict) as refusal:
        change.status, change.ended_at = ChangeStatus.REFUSED, clock.now()
        change.problem = refusal.message[:500]
        change.bump("status", "ended_at", "problem")
        _tell_planned(people_events.CHANGE_REFUSED, change, actor, "")
    return True


def subject_path(subject: Team | Unit) -> str:
    """Return the address at which a team's people or a unit are shown."""
    if isinstance(subject, Team):
        return reverse("teams:member-list", kwargs={"team_slug": subject.slug})
    return reverse("teams:unit-detail", kwargs={"unit_slug": subject.slug})


# -- the parts


def _change(
    subject: Team | Unit, wish: Wish, reason: str, effective_at: datetime | None, actor: Actor
) -> PlannedChange:
    manager = person(actor)
    require(manager, actor, MANAGE, subject)
    if subject.archived_at is not None:
        raise Conflict("This is archived: restore it first.", current={"status": "archived"})
    at, errors = clock.now(), dict[str, str]()
    reason = checked_reason(actor, reason, errors)
    wish, problems = moving.cleaned(subject, wish)
    errors |= problems
    if effective_at is not None and not at <= effective_at <= at + MAX_AHEAD:
        errors["effective_at"] = "Choose a time within the next year, or leave it empty: at once."
    if errors:
        raise Invalid(errors)
    kind = {"team": subject} if isinstance(subject, Team) else {"unit": subject}
    if PlannedChange.objects.filter(status=ChangeStatus.PLANNED, **kind).exists():
        raise Conflict("A change of this is planned already: cancel it first.", current={"status": "planned"})
    _check(subject, wish, actor.user_id)
    change = PlannedChange(
        **kind, new_name=wish.name or "", new_cost_centre=wish.cost_centre, new_unit_id=wish.unit_id,
        to_top=wish.to_top, archive=wish.archive, effective_at=effective_at or at, reason=reason, made_by=manager,
    )  # fmt: skip
    try:
        with transaction.atomic():
            change.save(force_insert=True)
    except IntegrityError as error:
        raise Conflict("A change of this is planned already: cancel it first.") from error
    if effective_at is None or effective_at <= at:
        _apply(subject, change, actor)
    else:
        _tell_planned(people_events.CHANGE_PLANNED, change, actor, reason)
    return change


def _wish(change: PlannedChange) -> Wish:
    return Wish(change.new_name or None, change.new_cost_centre, change.new_unit_id, change.to_top, change.archive)


def _subject(change: PlannedChange, *, lock: bool = False) -> Team | Unit:
    if change.team_id is not None:
        return Team.objects.locked(change.team_id) if lock else Team.objects.get(pk=change.team_id)
    return Unit.objects.locked(change.unit_id or 0) if lock else Unit.objects.get(pk=change.unit_id or 0)


def _check(subject: Team | Unit, wish: Wish, mover_id: int | None) -> None:
    """Raise Blocked, Invalid, Conflict or NotAllowed where a wish is not possible as things stand."""
    if subject.archived_at is not None:
        raise Conflict("This is archived.", current={"status": "archived"})
    if wish.unit_id is not None or wish.to_top:
        goal = None
        if wish.unit_id is not None:
            goal = Unit.objects.filter(pk=wish.unit_id, archived_at__isnull=True).first()
            if goal is None:
                raise Invalid({"unit": "This unit is not in use."})
        moving.check_place(subject, goal)
        moving.check_own_rights(subject, goal, mover_id)
    if wish.archive and (standing := moving.objections(subject)):
        raise Blocked("This cannot be archived yet: " + " ".join(standing))


def _apply(subject: Team | Unit, change: PlannedChange, actor: Actor) -> None:
    """Write the change, remember what hours before carry, record it and tell those concerned."""
    wish, at = _wish(change), change.effective_at
    before, after = moving.fields(subject, wish)
    concerned = _concerned(subject)
    moving.remember(subject, at)
    if wish.archive:
        moving.empty(subject, actor, change.reason)
    moving.write(subject, wish, clock.now())
    change.status, change.ended_at = ChangeStatus.DONE, clock.now()
    change.bump("status", "ended_at")
    _record(subject, before, after, at, change.reason, actor, concerned | _concerned(subject))


def _concerned(subject: Team | Unit) -> set[int]:
    if isinstance(subject, Team):
        own = scope.holders_of_role(Role.TEAM_LEAD, team_id=subject.pk)
        return {*own, *scope.holders_of_role(Role.UNIT_OWNER, unit_id=subject.unit_id)}
    above = scope.holders_of_role(Role.UNIT_OWNER, unit_id=subject.parent_id) if subject.parent_id else []
    return {*scope.holders_of_role(Role.UNIT_OWNER, unit_id=subject.pk), *above}


def _record(
    subject: Team | Unit,
    before: dict[str, str],
    after: dict[str, str],
    at: datetime,
    reason: str,
    actor: Actor,
    concerned: set[int] | None = None,
) -> None:
    is_team = isinstance(subject, Team)
    event = people_events.TEAM_CHANGED if is_team else people_events.UNIT_CHANGED
    kind = "team" if is_team else "unit"
    payload = people_events.Changed(kind, subject.slug, before, after, at, subject_path(subject))
    audit.record(
        event, payload, actor=actor, subject_type=f"teams.{kind}", subject_uid=subject.uid,
        team_uid=subject.uid if is_team else None, reason=reason,
    )  # fmt: skip
    people = _concerned(subject) if concerned is None else concerned
    outbox.publish(event, payload, recipients=people, subject_uid=subject.uid)


def _tell_planned(event: EventType, change: PlannedChange, actor: Actor, reason: str) -> None:
    subject = _subject(change)
    is_team = isinstance(subject, Team)
    kind = "team" if is_team else "unit"
    _, after = moving.fields(subject, _wish(change))
    payload = people_events.Planned(
        kind, subject.slug, change.uid, change.effective_at, after, change.problem, subject_path(subject)
    )
    audit.record(
        event, payload, actor=actor, subject_type=f"teams.{kind}", subject_uid=subject.uid,
        team_uid=subject.uid if is_team else None, reason=reason,
    )  # fmt: skip
    people = _concerned(subject) | ({change.made_by_id} if change.made_by_id is not None else set())
    outbox.publish(event, payload, recipients=people, subject_uid=subject.uid)
