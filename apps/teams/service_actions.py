"""Everything that changes accounts of programs and their tokens. Nobody hands a program more than they hold."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction

from apps import audit
from apps.accounts.actions import new_token, token_errors
from apps.accounts.choices import UserKind
from apps.accounts.models import ApiToken, User
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.permissions import may
from apps.core.scoping import must_see
from apps.teams import scope, service_rules
from apps.teams import service_events as events
from apps.teams.choices import Role
from apps.teams.models import RoleGrant, ServiceAccount, Team

MANAGE = "teams.service.manage"
PURPOSE_LENGTH = 10


@transaction.atomic
def create_service_account(name: str, purpose: str, role: str, *, team_id: int | None, actor: Actor) -> ServiceAccount:
    """Make an account of a program for a team, or (None) for the platform, with one role there.

    Raises NotAllowed, NotVisible for a team that is not the actor's to see, Invalid for a missing name or purpose and
    for a role that programs may not have there.
    """
    person = _person(actor)
    team = None
    if team_id is not None:
        team = Team.objects.filter(pk=team_id, archived_at__isnull=True).first()
        if team is None or (person is not None and not Team.objects.visible_to(person).filter(pk=team_id).exists()):
            raise NotVisible
    _require(person, team)
    name, purpose = " ".join(name.split()), purpose.strip()
    errors = _role_errors(role, team)
    if not name:
        errors["name"] = "Name the program."
    elif len(name) > 100:
        errors["name"] = "Use at most 100 characters."
    if len(purpose) < PURPOSE_LENGTH:
        errors["purpose"] = f"Say in at least {PURPOSE_LENGTH} characters what the program does here."
    elif len(purpose) > 500:
        errors["purpose"] = "Use at most 500 characters."
    if errors:
        raise Invalid(errors)
    uid = uuid.uuid4()
    # Below .invalid (RFC 2606) nobody owns an address: no mail goes there, no provider vouches for it.
    user = User(
        uid=uid,
        email=f"{uid.hex}@service.invalid",
        display_name=name,
        kind=UserKind.SERVICE,
        may_use_password=False,
    )
    user.set_unusable_password()
    user.save()
    account = ServiceAccount.objects.create(user=user, team=team, purpose=purpose, made_by_id=actor.user_id)
    _give(account, role, actor)
    must_see(person, account)
    _account_changed(events.ACCOUNT_MADE, account, role, actor, reason=purpose)
    return account


@transaction.atomic
def set_service_role(
    account_id: int, role: str, reason: str, *, actor: Actor, expected_version: int | None = None
) -> ServiceAccount:
    """Give an account another role of its team from now on.

    Raises NotVisible, NotAllowed, Invalid, Conflict where it has ended, moved on, or has the role already.
    """
    account = _account(account_id, actor, expected_version)
    errors = _role_errors(role, account.team)
    if not reason.strip():
        errors["reason"] = "Say why, for the audit trail."
    if errors:
        raise Invalid(errors)
    if role == role_of(account):
        raise Conflict("It has this role already.", current={"version": account.version})
    wanted = service_rules.permissions_of(role)
    for token in ApiToken.objects.usable().filter(user=account.user):
        _refuse_more_than_held(account, wanted & _carried(token), actor, field="role")
    RoleGrant.objects.filter(user=account.user, revoked_at__isnull=True).update(revoked_at=clock.now())
    _give(account, role, actor)
    account.bump()
    _account_changed(events.ROLE_CHANGED, account, role, actor, reason=reason.strip())
    return account


@transaction.atomic
def end_service_account(
    account_id: int, reason: str, *, actor: Actor, expected_version: int | None = None
) -> ServiceAccount:
    """End an account: its tokens and its role count for nothing from now on. What it did stays on record.

    Raises NotVisible, NotAllowed, Invalid without a reason, Conflict where it has ended or moved on.
    """
    account = _account(account_id, actor, expected_version)
    if not reason.strip():
        raise Invalid({"reason": "Say why, for the audit trail."})
    at = clock.now()
    role = role_of(account)
    RoleGrant.objects.filter(user=account.user, revoked_at__isnull=True).update(revoked_at=at)
    revoked = ApiToken.objects.filter(user=account.user, revoked_at__isnull=True).update(revoked_at=at)
    account.user.is_active, account.user.deactivated_at = False, at
    account.user.save(update_fields=["is_active", "deactivated_at"])
    account.ended_at = at
    account.bump("ended_at")
    _account_changed(events.ACCOUNT_ENDED, account, role, actor, reason=reason.strip(), revoked=revoked)
    return account


@transaction.atomic
def create_service_token(
    account_id: int,
    name: str,
    expires_at: datetime,
    read_only: bool,
    *,
    actor: Actor,
    permissions: Collection[str] | None = None,
) -> tuple[ApiToken, str]:
    """Make a token for a service account and return it with its secret, which is stored nowhere.

    Raises NotVisible, NotAllowed, Conflict where the account has ended, and Invalid: for the terms of any token, for
    permissions that its role does not have, and for those that the actor does not hold there.
    """
    account = _account(account_id, actor)
    name = name.strip()
    errors = token_errors(name, expires_at, permissions)
    possible = service_rules.permissions_of(role_of(account))
    if "permissions" not in errors and (beyond := sorted(set(permissions or ()) - possible)):
        errors["permissions"] = f"The account's role does not have these: {', '.join(beyond)[:200]}."
    if errors:
        raise Invalid(errors)
    _refuse_more_than_held(account, possible if permissions is None else frozenset(permissions), actor)
    if ApiToken.objects.usable().filter(user=account.user).count() >= service_rules.KEYS_PER_ACCOUNT:
        raise Invalid({"": f"The account has {service_rules.KEYS_PER_ACCOUNT} tokens in force. Revoke one."})
    token, secret = new_token(account.user, name, expires_at, read_only, permissions, made_by_id=actor.user_id)
    _token_changed(events.TOKEN_MADE, account, token, actor)
    return token, secret


@transaction.atomic
def rotate_service_token(
    token_id: int, overlap_days: int, *, actor: Actor, expires_at: datetime | None = None
) -> tuple[ApiToken, str]:
    """Make a new token on the terms of an old one, which ends `overlap_days` from now at the latest (0: at once).

    `expires_at` None: it lasts as long as the old one was made for. Raises NotVisible, NotAllowed, Invalid, Conflict
    where the old one is over or was rotated already.
    """
    old, account = _token(token_id, actor)
    at = clock.now()
    if old.replaced_by.exists():
        raise Conflict("This token was rotated already: rotate the one that replaced it.")
    errors = {}
    if not 0 <= overlap_days <= service_rules.OVERLAP_MAX_DAYS:
        errors["overlap_days"] = f"Choose 0 to {service_rules.OVERLAP_MAX_DAYS} days."
    until = expires_at or at + min(old.expires_at - old.created_at, timedelta(days=service_rules.KEY_MAX_DAYS))
    carried = _carried(old)
    errors |= token_errors(old.name, until, list(old.permissions) if old.limited else None)
    if errors:
        raise Invalid(errors)
    _refuse_more_than_held(account, carried & service_rules.permissions_of(role_of(account)), actor, field="")
    limit = list(old.permissions) if old.limited else None
    token, secret = new_token(
        account.user, old.name, until, old.read_only, limit, made_by_id=actor.user_id, replaces=old
    )
    if overlap_days == 0:
        old.revoked_at = at
    else:
        old.expires_at = min(old.expires_at, at + timedelta(days=overlap_days))
    old.save(update_fields=["revoked_at", "expires_at"])
    _token_changed(events.TOKEN_ROTATED, account, token, actor, old=old)
    return token, secret


@transaction.atomic
def revoke_service_token(token_id: int, *, actor: Actor) -> ApiToken:
    """Revoke a token of a service account. Raises NotVisible, NotAllowed, Conflict where it is over already."""
    token, account = _token(token_id, actor)
    token.revoked_at = clock.now()
    token.save(update_fields=["revoked_at"])
    _token_changed(events.TOKEN_REVOKED, account, token, actor)
    return token


def tell_of_ending_tokens(days: Collection[int] = (14, 3)) -> int:
    """Tell the keepers of tokens that end in so many days, once for each; returns how many messages were written."""
    from apps.teams.service_selectors import token_marks

    return sum(_tell_of(token, account) for token, account in token_marks(days))


# -- the parts


@transaction.atomic
def _tell_of(token: ApiToken, account: ServiceAccount) -> int:
    from apps.teams.service_selectors import account_path, keepers_of

    said = events.ServiceTokenChanged(
        account_uid=account.uid, token_uid=token.uid, read_only=token.read_only, expires_at=token.expires_at,
        limited=token.limited, permissions=token.permissions, name=token.name,
        account_name=account.user.display_name, path=account_path(account),
    )  # fmt: skip
    outbox.publish(events.TOKEN_ENDS_SOON, said, recipients=keepers_of(account), subject_uid=token.uid)
    return 1


def role_of(account: ServiceAccount) -> str:
    """Return the role that an account has now, "" for none."""
    held = RoleGrant.objects.in_force().filter(user=account.user, unit__isnull=True, team=account.team)
    return held.order_by("-pk").values_list("role", flat=True).first() or ""


def _person(actor: Actor) -> User | None:
    if actor.is_system:
        return None
    person = User.objects.filter(pk=actor.user_id or 0, kind=UserKind.PERSON).first()
    if person is None:
        raise NotAllowed(rule=MANAGE)
    return person


def _require(person: User | None, team: Team | None) -> None:
    if person is None:
        return
    allowed = scope.of(person).everywhere(MANAGE) if team is None else may(person, MANAGE, team)
    if not allowed:
        raise NotAllowed(rule=MANAGE)


def _account(account_id: int, actor: Actor, expected_version: int | None = None) -> ServiceAccount:
    """Return the account, locked. Raises NotVisible, NotAllowed, Conflict."""
    person = _person(actor)
    if person is not None and not ServiceAccount.objects.visible_to(person).filter(pk=account_id).exists():
        raise NotVisible
    account = ServiceAccount.objects.locked(account_id, expected_version=expected_version)
    _require(person, account.team)
    if account.ended_at is not None or not account.user.is_active:
        raise Conflict("This account has ended.", current={"version": account.version, "status": "ended"})
    return account


def _token(token_id: int, actor: Actor) -> tuple[ApiToken, ServiceAccount]:
    token = ApiToken.objects.filter(pk=token_id, user__kind=UserKind.SERVICE).select_related("user").first()
    if token is None:
        raise NotVisible
    # The account first: two who rotate the same token wait for each other there.
    account = _account(token.user.service_account.pk, actor)
    token.refresh_from_db(fields=["revoked_at", "expires_at"])
    if token.revoked_at is not None or token.expires_at <= clock.now():
        raise Conflict("This token is over already.", current={"status": "over"})
    return token, account


def _carried(token: ApiToken) -> frozenset[str]:
    """Return what a token carries at most, whatever the role of its account."""
    if token.limited:
        return frozenset(token.permissions)
    return frozenset().union(*(service_rules.permissions_of(role) for role in Role.values))


def _refuse_more_than_held(
    account: ServiceAccount, wanted: frozenset[str], actor: Actor, *, field: str = "permissions"
) -> None:
    """Refuse to hand out what the actor does not hold there: whoever sees the secret has its rights. Raises Invalid."""
    person = _person(actor)
    if person is None:
        return
    if account.team is not None:
        beyond = [name for name in sorted(wanted) if not may(person, name, account.team)]
    else:
        beyond = [name for name in sorted(wanted) if not scope.of(person).everywhere(name)]
    if beyond:
        named = ", ".join(beyond[:5]) + (f" and {len(beyond) - 5} more" if len(beyond) > 5 else "")
        raise Invalid({field: f"You do not hold this there yourself: {named}. Limit the token to what you hold."})


def _role_errors(role: str, team: Team | None) -> dict[str, str]:
    allowed = service_rules.roles_for(team)
    if role in allowed:
        return {}
    labels = " or ".join(Role(one).label.lower() for one in allowed)
    return {"role": f"A program {'of a team' if team is not None else 'of the platform'} may be {labels}."}


def _give(account: ServiceAccount, role: str, actor: Actor) -> None:
    RoleGrant.objects.create(
        user=account.user, role=role, team=account.team, granted_by_id=actor.user_id, reason="Account of a program"
    )


def _account_changed(
    event: Any, account: ServiceAccount, role: str, actor: Actor, *, reason: str, revoked: int = 0
) -> None:
    team_uid = account.team.uid if account.team is not None else None
    said = events.ServiceAccountChanged(
        user_uid=account.user.uid,
        team_uid=team_uid,
        role=role,
        tokens_revoked=revoked,
        name=account.user.display_name,
    )
    audit.record(
        event, said, actor=actor, subject_type="teams.service", subject_uid=account.uid, team_uid=team_uid,
        reason=reason,
    )  # fmt: skip


def _token_changed(
    event: Any, account: ServiceAccount, token: ApiToken, actor: Actor, *, old: ApiToken | None = None
) -> None:
    said = events.ServiceTokenChanged(
        account_uid=account.uid,
        token_uid=token.uid,
        read_only=token.read_only,
        expires_at=token.expires_at,
        limited=token.limited,
        permissions=token.permissions,
        replaces_uid=old.uid if old is not None else None,
        old_ends_at=(old.revoked_at or old.expires_at) if old is not None else None,
        name=token.name,
    )
    audit.record(
        event, said, actor=actor, subject_type="teams.service", subject_uid=account.uid,
        team_uid=account.team.uid if account.team is not None else None,
    )  # fmt: skip
