"""Erasing a person: name, address and everything that leads to them goes for good; what they did stays, under an id.

The account's row stays, because decisions, roles and events of others refer to it: its uid means nobody any more. Rooms
above register what they hold of a person (`register`); what stays there is said on the page before (`STAYS`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol

from django.db import transaction
from django.db.models import Q, TextField
from django.db.models.functions import Cast

from apps import audit
from apps.accounts import merging
from apps.accounts.choices import UserKind
from apps.accounts.erasure_events import USER_ERASED, UserErased
from apps.accounts.models import (
    ApiToken,
    EarlierPassword,
    ExternalIdentity,
    FactorReset,
    Impersonation,
    SecondFactor,
    SignInSession,
    User,
)
from apps.audit import keeping
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.events import get, without_texts
from apps.core.models import OutboxMessage
from apps.core.permissions import INSTALLATION, holders_of, may

PERMISSION = "accounts.user.erase"
#: What stands where the name stood in messages that went to others.
ERASED = "Erased person"
#: What is told before somebody erases a person: what goes, and what stays and why.
GOES = (
    "Name and e-mail address, here and wherever a page shows them",
    "Sessions, API tokens, second factors, and the identities at providers",
    "Mails and notices sent to the person, with the address they went to",
    "Notes of the audit trail that name the person; the events themselves stay and remain verifiable",
)
STAYS = (
    "Roles, memberships, requests, decisions and audit events, under an id that leads to nobody: they are records of"
    " the company, kept to meet legal duties and to defend claims (GDPR, Article 17(3)(b) and (e))",
    "Text that others wrote in reasons and comments: it is not searched for names",
    "Statements, bills and exports that were made already, and copies outside the portal, such as backups",
)


class Eraser(Protocol):
    """What a room registers: erase what it holds of a person, in the caller's transaction; returns how many rows."""

    def __call__(self, user: User) -> int: ...


_erasers: dict[str, Eraser] = {}


def register(room: str, eraser: Eraser) -> None:
    """Have a room's rows erased with the person (called by the room when it loads)."""
    _erasers[room] = eraser


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure removed."""

    user: User
    notes: int


def obstacle(user: User, actor_id: int | None) -> str:
    """Return why a person cannot be erased by somebody, in a sentence, or ""."""
    if user.erased_at is not None:
        return "This person was erased already."
    if user.kind != UserKind.PERSON:
        return "A service account is no person: switch it off instead."
    if user.pk == actor_id:
        return "Nobody erases themselves: ask another platform admin."
    if user.merged_into_id is not None:
        return "This account was merged into another one: erase that one, and this goes with it."
    for uid in User.objects.filter(pk__in=merging.accounts_of(user.pk)).values_list("uid", flat=True):
        if holds := keeping.holds_on_person(uid):
            return f"A legal hold keeps what concerns this person: {holds[0].matter}."
    admins = holders_of("accounts.user.manage")
    if user.pk in admins and len(set(admins)) == 1:
        return "This is the last person who can administer accounts: give somebody else the role first."
    return ""


@transaction.atomic
def erase_user(user_id: int, confirmation: str, reason: str, *, actor: Actor) -> Erased:
    """Erase a person for good, with the accounts that were merged into theirs.

    `confirmation` is the person's address, typed. Raises NotAllowed, NotVisible, Invalid without a reason or with
    another address, Conflict where something stands in the way (`obstacle`).
    """
    _require(actor)
    user = User.objects.select_for_update(no_key=True).filter(pk=user_id).first()
    if user is None:
        raise NotVisible
    if why := obstacle(user, actor.user_id):
        raise Conflict(why, current={"status": "erased" if user.erased_at else "kept"})
    problems: dict[str, str] = {}
    if confirmation.strip().casefold() != user.email.casefold():
        problems["confirmation"] = "Type the e-mail address of the person to be erased, to be sure it is the right one."
    if not reason.strip():
        problems["reason"] = "Say on what request or ground, without naming the person."
    if problems:
        raise Invalid(problems)
    # Over several steps, too: what was merged into an account that was merged itself goes as well.
    others = merging.accounts_of(user.pk) - {user.pk}
    merged = User.objects.select_for_update(no_key=True).filter(pk__in=others, erased_at__isnull=True).order_by("pk")
    notes = sum(_erase(one, reason.strip(), actor) for one in [*merged, user])
    return Erased(user, notes)


def _erase(user: User, reason: str, actor: Actor) -> int:
    at = clock.now()
    words = [user.email, user.display_name]
    tokens, sessions = ApiToken.objects.filter(user=user), SignInSession.objects.filter(user=user)
    identities, factors = ExternalIdentity.objects.filter(user=user), SecondFactor.objects.filter(user=user)
    words += [text for pair in identities.values_list("user_name", "subject") for text in pair if "@" in text]
    own = [uid for rows in (tokens, sessions, identities, factors) for uid in rows.values_list("uid", flat=True)]
    audit.record(
        USER_ERASED,
        UserErased(
            sessions=sessions.count(), tokens=tokens.count(), identities=identities.count(), factors=factors.count()
        ),
        actor=actor,
        subject_type="accounts.user",
        subject_uid=user.uid,
        reason=reason,
    )
    tokens.filter(revoked_at__isnull=True).update(revoked_at=at)
    tokens.update(name="Erased", last_used_network="")
    sessions.filter(closed_at__isnull=True).update(closed_at=at)
    sessions.update(device="", network="", provider_session="", id_token=b"")
    Impersonation.objects.filter(person=user).update(reason="Erased")
    identities.delete()
    factors.delete()
    EarlierPassword.objects.filter(user=user).delete()
    FactorReset.objects.filter(user=user).update(reason="Erased")
    for eraser in _erasers.values():
        eraser(user)
    _clean_outbox(user)
    user.email = f"erased-{user.uid}@erased.invalid"
    user.display_name = f"Erased person {str(user.uid)[:8]}"
    user.set_unusable_password()
    user.is_active, user.is_superuser, user.may_use_password = False, False, False
    user.deactivated_at = user.deactivated_at or at
    user.erased_at = at
    user.save(
        update_fields=[
            "email", "display_name", "password", "is_active", "is_superuser", "may_use_password", "deactivated_at",
            "erased_at",
        ]
    )  # fmt: skip
    return keeping.erase_notes(user.uid, words, own, actor=actor)


def messages_naming(user: User) -> list[OutboxMessage]:
    """Return the delivered messages about other things that name the person: name or address is all of a value."""
    named = Q()
    for word in {user.email, user.display_name}:
        named |= Q(text__contains=json.dumps(word, ensure_ascii=False))
    found = OutboxMessage.objects.filter(delivered_at__isnull=False).exclude(subject_uid=user.uid)
    return list(found.annotate(text=Cast("payload", TextField())).filter(named))


def _clean_outbox(user: User) -> None:
    """Take names and texts out of messages about the person that were delivered; what waits goes out as it is."""
    for message in OutboxMessage.objects.filter(subject_uid=user.uid, delivered_at__isnull=False):
        try:
            payload = without_texts(get(message.event), message.payload)
        except KeyError:
            # Of a kind that no version knows any more: nothing says which of its fields are personal.
            payload = {}
        OutboxMessage.objects.filter(pk=message.pk).update(payload=payload)
    for message in messages_naming(user):
        OutboxMessage.objects.filter(pk=message.pk).update(
            payload=_nameless(message.payload, {user.email, user.display_name})
        )


def _nameless(value: Any, words: set[str]) -> Any:
    if isinstance(value, dict):
        return {key: _nameless(item, words) for key, item in value.items()}
    if isinstance(value, list):
        return [_nameless(item, words) for item in value]
    return ERASED if isinstance(value, str) and value in words else value


def _require(actor: Actor) -> None:
    person = User.objects.filter(pk=actor.user_id or 0).first()
    if person is None or actor.on_behalf_of is not None or not may(person, PERMISSION, INSTALLATION):
        raise NotAllowed(rule=PERMISSION)
