"""Delegations: somebody with a role lets another person speak for them over a time. Nothing else passes with it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from django.db.models import BigIntegerField, Q, Value
from django.db.models.functions import Cast
from django.urls import reverse

from apps.accounts.choices import UserKind
from apps.accounts.models import User
from apps.approvals import deciders, events, notices
from apps.approvals.choices import RequestStatus
from apps.approvals.models import Delegation, Stage
from apps.audit import actions as audit
from apps.core import clock, formats, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.events import EventType
from apps.core.permissions import INSTALLATION, may
from apps.teams import scope
from apps.teams.models import RoleGrant, Unit

#: A longer absence is a change of office: then the role itself is given to somebody.
MAX_DAYS = 183
REASON_LIMIT = 500
#: Who appoints people to roles may also lay down who stands in for them.
ADMIN_PERMISSION = "teams.grant.manage"


@dataclass(frozen=True, slots=True)
class Voice:
    """One way in which a person may speak: as themselves, or for a giver in one role; with where the roles are held."""

    user_id: int
    giver_id: int | None = None
    installation: frozenset[str] = frozenset()
    units: Mapping[str, frozenset[int]] = field(default_factory=dict)
    #: Only requests paid at or below this unit.
    limit_path: int | None = None

    @property
    def persons(self) -> set[int]:
        """Everybody who would stand behind the word."""
        return {self.user_id} if self.giver_id is None else {self.user_id, self.giver_id}

    def stages(self, role: str = "role", unit: str = "unit") -> Q:
        """Return the condition "the stage asks a role held here, where it asks for it" over rows of `Stage`."""
        asked = Q(pk__in=[])
        for name in sorted({*self.installation, *self.units}):
            if name in self.installation:
                asked |= Q(**{role: name})
            else:
                asked |= Q(**{role: name, f"{unit}__path__overlap": sorted(self.units[name])})
        return asked

    def within(self, unit: str) -> Q:
        """Return the condition "paid at or below the unit that the delegation is limited to"."""
        return Q() if self.limit_path is None else Q(**{f"{unit}__path__contains": [self.limit_path]})


def own_voice(user: Any) -> Voice:
    """Return how a person speaks for themselves."""
    scopes = scope.of(user)
    deciding = set(deciders.deciding_roles())
    return Voice(
        user_id=scopes.user_id or 0,
        installation=frozenset(scopes.installation & deciding),
        units={role: ids for role, ids in scopes.units.items() if role in deciding},
    )


@dataclass(frozen=True, slots=True)
class Standins:
    """What a person may decide beyond their own roles: in whose name, and whether anything may fall back on them.

    `asked`: whether any open stage asks for one of their own roles where they hold it, now or once it escalates. Most
    pages are opened by people for whom nothing waits: what does is then not asked at all.
    """

    voices: tuple[Voice, ...] = ()
    fallback: bool = False
    asked: bool = False


#: What the statement of `standins_of` says in the place of a role, beside delegations.
_FALLS, _ASKED = "falls back", "asked"


def voices_for(user: Any) -> tuple[Voice, ...]:
    """Return in whose name a person may speak now."""
    return standins_of(user).voices


def standins_of(user: Any) -> Standins:
    """Return what a person may decide beyond their own roles: read once a request, as scopes are.

    One query; one more where somebody lets them speak.
    """
    scopes = scope.of(user)
    if scopes.user_id is None:
        return Standins()
    cached: tuple[Any, Standins] | None = getattr(user, "_commons_standins", None)
    if cached is not None and cached[0] is scopes:
        return cached[1]
    entrusted = Delegation.objects.in_force(clock.now()).filter(delegate_id=scopes.user_id).order_by()
    nothing = Cast(Value(None), BigIntegerField())
    open_now = Stage.objects.filter(
        request__status=RequestStatus.IN_REVIEW, opened_at__isnull=False, completed_at__isnull=True
    ).order_by()
    falling = open_now.filter(fallback_role__in=sorted(set(scopes.installation) | set(scopes.units)))
    own = own_voice(user)
    asked = open_now.filter(own.stages() | own.stages("escalation_role", "escalation_unit"))
    # Any: the stubs take the other parts' columns for those of the first, where a giver is never missing.
    rows: Any = entrusted.values_list("giver_id", "role", "unit_id").union(
        falling.values_list(nothing, Value(_FALLS), nothing)[:1],
        asked.values_list(nothing, Value(_ASKED), nothing)[:1],
        all=True,
    )
    found = list(rows)
    given = [(giver_id, role, unit_id) for giver_id, role, unit_id in found if giver_id is not None]
    marks = {role for giver_id, role, _ in found if giver_id is None}
    made = Standins(tuple(_voices(scopes.user_id, given)), fallback=_FALLS in marks, asked=_ASKED in marks)
    user._commons_standins = (scopes, made)
    return made


def _voices(user_id: int, given: list[tuple[int, str, int | None]]) -> list[Voice]:
    held: dict[tuple[int, str], set[int | None]] = {}
    if given:
        givers = RoleGrant.objects.in_force().filter(user_id__in={giver for giver, _, _ in given}, team__isnull=True)
        for giver_id, role, unit_id in givers.values_list("user_id", "role", "unit_id"):
            held.setdefault((giver_id, role), set()).add(unit_id)
    return [
        Voice(
            user_id=user_id,
            giver_id=giver_id,
            installation=frozenset({role}) if None in places else frozenset(),
            units={} if None in places else {role: frozenset(unit for unit in places if unit is not None)},
            limit_path=limit,
        )
        for giver_id, role, limit in given
        if (places := held.get((giver_id, role)))
    ]


@transaction.atomic
def create(
    giver_id: int,
    delegate_id: int,
    role: str,
    *,
    actor: Actor,
    end: datetime,
    start: datetime | None = None,
    unit_id: int | None = None,
    reason: str = "",
) -> Delegation:
    """Let `delegate_id` speak for the giver in one role, from `start` (None: now) until before `end`.

    The giver must hold the role by a grant of their own, over `unit_id` where one is named; several delegations may
    overlap, and none can be passed on. Raises NotAllowed unless the giver themself or a platform admin asks, Invalid
    (by field) for anything that cannot be.
    """
    person = _asking(actor)
    if person is not None and person.pk != giver_id and not may(person, ADMIN_PERMISSION, INSTALLATION):
        raise NotAllowed("Only the person themself, or a platform admin, can name who stands in.", rule="own role")
    at = clock.now()
    start = at if start is None else start
    giver = User.objects.filter(pk=giver_id, is_active=True).first()
    delegate = User.objects.filter(pk=delegate_id, is_active=True, kind=UserKind.PERSON).first()
    unit = Unit.objects.filter(pk=unit_id).first() if unit_id is not None else None
    errors: dict[str, str] = {}
    if giver is None:
        errors["giver"] = "Choose an active person."
    if delegate is None:
        errors["delegate"] = "Choose an active person."
    elif delegate_id == giver_id:
        errors["delegate"] = "Nobody stands in for themself: choose somebody else."
    if unit is None and unit_id is not None:
        errors["unit"] = "Choose a unit."
    if role not in deciders.deciding_roles():
        errors["role"] = "Choose a role that decides on requests."
    elif giver is not None and not holds(giver_id, role, unit):
        where = f" over {unit}" if unit is not None else ""
        errors["role"] = (
            f"The person does not hold the role {deciders.role_label(role)}{where} by a grant of their own."
        )
    if end <= at:
        errors["end"] = "Choose an end in the future."
    elif end <= start:
        errors["end"] = "The end must come after the start."
    elif end - start > timedelta(days=MAX_DAYS):
        errors["end"] = f"At most {MAX_DAYS} days; for longer, give the role itself to somebody."
    if start < at - timedelta(minutes=5):
        errors["start"] = "A delegation cannot begin in the past."
    reason = reason.strip()
    if not reason:
        errors["reason"] = "Say why: whoever reads a decision made for another wants to know."
    elif len(reason) > REASON_LIMIT:
        errors["reason"] = f"Keep the reason below {REASON_LIMIT} characters."
    if errors:
        raise Invalid(errors)
    row = Delegation.objects.create(
        giver_id=giver_id,
        delegate_id=delegate_id,
        role=role,
        unit=unit,
        valid=DateTimeTZRange(start, end, "[)"),
        reason=reason,
        created_by_id=actor.user_id if actor.user_id is not None else giver_id,
    )
    _tell(events.DELEGATION_CREATED, row, actor, reason)
    return row


@transaction.atomic
def revoke(delegation_uid: uuid.UUID, *, actor: Actor, expected_version: int | None = None) -> Delegation:
    """End a delegation now: the giver, the delegate (nobody must speak for another), or a platform admin.

    Words already spoken stand. Raises NotVisible, NotAllowed, Conflict where it has ended already or moved on.
    """
    row = Delegation.objects.filter(uid=delegation_uid).first()
    if row is None:
        raise NotVisible
    row = Delegation.objects.locked(row.pk, expected_version=expected_version)
    person = _asking(actor)
    if person is not None and person.pk not in (row.giver_id, row.delegate_id):
        if not Delegation.objects.visible_to(person).filter(pk=row.pk).exists():
            raise NotVisible
        if not may(person, ADMIN_PERMISSION, INSTALLATION):
            raise NotAllowed("Only the two people concerned, or a platform admin, can end it.", rule="own role")
    at = clock.now()
    if row.revoked_at is not None or row.valid.upper <= at:
        raise Conflict("This delegation has ended already.", current={"version": row.version})
    row.revoked_at, row.revoked_by_id = at, actor.user_id
    row.bump("revoked_at", "revoked_by")
    _tell(events.DELEGATION_REVOKED, row, actor, row.reason)
    return row


def holds(user_id: int, role: str, unit: Unit | None) -> bool:
    """Whether a person holds a role by a grant of their own: anywhere, or over one unit (there, above, everywhere)."""
    own = RoleGrant.objects.in_force().filter(user_id=user_id, role=role, team__isnull=True)
    if unit is not None:
        own = own.filter(Q(unit__isnull=True) | Q(unit_id__in=unit.path))
    return own.exists()


def _asking(actor: Actor) -> User | None:
    """Return the acting person; None for the portal itself. Raises NotVisible for somebody who is not active."""
    if actor.is_system:
        return None
    person = notices.person(actor)
    if person is None:
        raise NotVisible
    return person


def _tell(event: EventType, row: Delegation, actor: Actor, reason: str) -> None:
    said = events.DelegationChanged(
        delegation_uid=str(row.uid),
        giver_uid=str(row.giver.uid),
        delegate_uid=str(row.delegate.uid),
        role=row.role,
        unit=row.unit.slug if row.unit is not None else "",
        start=formats.datetime_utc(row.valid.lower),
        end=formats.datetime_utc(row.valid.upper),
        path=reverse("approvals:request-list"),
        giver_name=str(row.giver),
        delegate_name=str(row.delegate),
    )
    audit.record(event, said, actor=actor, subject_type="approvals.delegation", subject_uid=row.uid, reason=reason)
    told = {row.giver_id, row.delegate_id} - {actor.user_id}
    outbox.publish(event, said, recipients=told, subject_uid=row.uid)
