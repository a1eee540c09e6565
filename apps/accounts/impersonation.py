"""Seeing the portal as somebody else does: for support only, read-only, for some minutes, every page on record.

The rights are the person's, the name in the audit trail is the real one (`Actor.of` reads who is behind).
"""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

from django.contrib.sessions.backends.base import SessionBase
from django.db import transaction
from django.db.models import F

from apps import audit
from apps.accounts import impersonation_events as events
from apps.accounts import ports
from apps.accounts.choices import UserKind
from apps.accounts.models import Impersonation, SignInSession, User
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.permissions import INSTALLATION, may

PERMISSION = "accounts.user.impersonate"
LASTS = timedelta(minutes=30)
REASON_LENGTH = 10
REASON_LIMIT = 500
#: Keys in the session store: the row's uid, and the fragments already written down (a page asks for them again).
KEY = "impersonation"
SEEN = "impersonation_fragments"
_FRAGMENTS_KEPT = 100


def bar(real: User, person: User) -> str:
    """Return why `real` may not see the portal as `person`, "" where they may."""
    if not may(real, PERMISSION, INSTALLATION):
        return "Only platform admins see the portal as somebody else."
    if real.pk == person.pk:
        return "You see the portal as yourself already."
    if person.kind != UserKind.PERSON:
        return "This is the account of a program: it sees no pages."
    if not person.is_active:
        return "This account is switched off: it sees nothing."
    return ports.impersonation_bar(person)


@transaction.atomic
def start(person_id: int, reason: str, *, session_id: int, store: SessionBase, actor: Actor) -> Impersonation:
    """Begin in this session, read-only, for 30 minutes; the person is told.

    Raises NotVisible, NotAllowed naming why not, Invalid without a reason, Conflict where one is under way in the
    session.
    """
    session = SignInSession.objects.open().select_for_update(of=("self",)).filter(pk=session_id).first()
    if session is None or session.user_id != actor.user_id or actor.on_behalf_of is not None:
        raise NotAllowed("Sign in to the portal yourself first.", rule=PERMISSION)
    real = User.objects.get(pk=session.user_id)
    person = User.objects.filter(pk=person_id).first()
    if person is None:
        raise NotVisible
    if why := bar(real, person):
        raise NotAllowed(why, rule="impersonation")
    reason = reason.strip()
    if len(reason) < REASON_LENGTH:
        raise Invalid({"reason": f"Say in at least {REASON_LENGTH} characters what you are helping with."})
    if len(reason) > REASON_LIMIT:
        raise Invalid({"reason": f"Use at most {REASON_LIMIT} characters."})
    if (under_way := Impersonation.objects.filter(session=session, ended_at__isnull=True).first()) is not None:
        if under_way.expires_at > clock.now():
            raise Conflict("You see the portal as somebody else already. End that first.")
        _end(under_way, "expired")
    at = clock.now()
    row = Impersonation.objects.create(
        session=session, person=person, reason=reason, started_at=at, expires_at=at + LASTS
    )
    said = events.ImpersonationStarted(person_uid=person.uid, expires_at=row.expires_at, by_name=real.display_name)
    _tell(events.STARTED, said, row, person, actor, reason)
    store[KEY] = str(row.uid)
    store.pop(SEEN, None)
    return row


@transaction.atomic
def end(session_id: int, *, store: SessionBase, cause: str = "ended") -> Impersonation | None:
    """End what is under way in a session; None where nothing is. Again is harmless."""
    row = (
        Impersonation.objects.select_for_update(of=("self",), no_key=True)
        .filter(session_id=session_id, ended_at__isnull=True)
        .first()
    )
    store.pop(KEY, None)
    store.pop(SEEN, None)
    return _end(row, cause) if row is not None else None


def under_way(store: SessionBase, session: SignInSession) -> Impersonation | None:
    """Return what is under way in this browser, with its person; ends it where its time or a right is over."""
    try:
        uid = uuid.UUID(str(store.get(KEY, "")))
    except ValueError:
        return None
    found = Impersonation.objects.select_related("person").filter(uid=uid, session_id=session.pk, ended_at=None).first()
    if found is None:
        store.pop(KEY, None)
        return None
    cause = "expired" if found.expires_at <= clock.now() else "refused" if bar(session.user, found.person) else ""
    if cause:
        end(session.pk, store=store, cause=cause)
        return None
    return found


def note_page(
    row: Impersonation,
    real: User,
    *,
    store: SessionBase,
    route: str,
    path: str,
    query: str,
    status: int,
    fragment: bool,
) -> None:
    """Write down that a page was seen; a fragment that a page fetches again and again counts once."""
    if fragment:
        known: list[str] = store.get(SEEN, [])
        mark = f"{path}?{query}"
        if mark in known:
            return
        store[SEEN] = [*known, mark][-_FRAGMENTS_KEPT:]
    with transaction.atomic():
        Impersonation.objects.filter(pk=row.pk).update(pages_seen=F("pages_seen") + 1)
        said = events.PageSeen(
            person_uid=row.person.uid, route=route, path=path[:500], status=status, query=query[:500]
        )
        audit.record(
            events.PAGE_SEEN, said, actor=_actor(real, row), subject_type="accounts.impersonation", subject_uid=row.uid
        )


def end_due() -> int:
    """End those whose time is over or whose session is closed; returns how many."""
    open_ones = Impersonation.objects.filter(ended_at__isnull=True)
    due = open_ones.filter(expires_at__lte=clock.now()) | open_ones.exclude(
        session__in=SignInSession.objects.open().values("pk")
    )
    count = 0
    for pk in list(due.values_list("pk", flat=True)[:500]):
        with transaction.atomic():
            row = (
                Impersonation.objects.select_for_update(of=("self",), no_key=True)
                .filter(pk=pk, ended_at__isnull=True)
                .first()
            )
            if row is not None:
                _end(row, "expired" if row.expires_at <= clock.now() else "signed_out")
                count += 1
    return count


def _end(row: Impersonation, cause: str) -> Impersonation:
    row.ended_at = clock.now()
    row.save(update_fields=["ended_at"])
    said = events.ImpersonationEnded(person_uid=row.person.uid, cause=cause, pages_seen=row.pages_seen)
    _tell(events.ENDED, said, row, row.person, _actor(row.session.user, row))
    return row


def _actor(real: User, row: Impersonation) -> Actor:
    person = row.person
    person._commons_behind = real  # type: ignore[attr-defined]  # read by Actor.of
    return Actor.of(person)


def _tell(event: Any, said: Any, row: Impersonation, person: User, actor: Actor, reason: str = "") -> None:
    audit.record(
        event, said, actor=actor, subject_type="accounts.impersonation", subject_uid=row.uid, reason=reason
    )  # fmt: skip
    outbox.publish(event, said, recipients=[person.pk], subject_uid=row.uid)


__all__ = ["KEY", "LASTS", "PERMISSION", "bar", "end", "end_due", "note_page", "start", "under_way"]
