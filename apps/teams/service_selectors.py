"""What pages, API, approvals and messages read about accounts of programs."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Exists, OuterRef
from django.urls import reverse

from apps.accounts.choices import UserKind
from apps.accounts.models import ApiToken, User
from apps.core import clock
from apps.core.models import OutboxMessage
from apps.teams import scope
from apps.teams.choices import Role
from apps.teams.models import RoleGrant, ServiceAccount
from apps.teams.service_events import TOKEN_ENDS_SOON

MANAGE = "teams.service.manage"


@dataclass(frozen=True, slots=True)
class Key:
    """One token of an account as its page shows it."""

    token: ApiToken
    maker: str
    #: The maker may no longer keep this account: the secret is known outside. Rotate it.
    maker_left: bool
    replaced: bool


def role_names(accounts: Collection[ServiceAccount]) -> dict[int, str]:
    """Return account id → its role in words (one query)."""
    held = RoleGrant.objects.in_force().filter(user__in=[one.user_id for one in accounts]).order_by("pk")
    by_user = {user_id: str(Role(role).label) for user_id, role in held.values_list("user_id", "role")}
    return {one.pk: by_user.get(one.user_id, "No role") for one in accounts}


def keys_of(account: ServiceAccount) -> list[Key]:
    """Return the account's tokens in force, the newest first, with who made each."""
    tokens = list(
        ApiToken.objects.usable()
        .filter(user=account.user)
        .select_related("made_by")
        .annotate(is_replaced=Exists(ApiToken.objects.filter(replaces=OuterRef("pk"))))
        .order_by("-created_at", "-pk")
    )
    keeping = set(managers(account))
    return [
        Key(
            token,
            token.made_by.display_name if token.made_by is not None else "the portal",
            token.made_by_id is not None and token.made_by_id not in keeping,
            bool(getattr(token, "is_replaced", False)),
        )
        for token in tokens
    ]


def managers(account: ServiceAccount) -> list[int]:
    """Return the ids of everybody who may manage an account now."""
    return scope.holders(MANAGE, team_id=account.team_id)


def keepers_of(account: ServiceAccount) -> list[int]:
    """Return the ids of those who hear what concerns an account: its team's leads, or the platform admins."""
    if account.team_id is not None and (leads := scope.holders_of_role(Role.TEAM_LEAD, team_id=account.team_id)):
        return leads
    return scope.holders_of_role(Role.PLATFORM_ADMIN)


def people_behind(user_ids: Iterable[int]) -> set[int]:
    """Return who made the service accounts among these users, or ever made one of their tokens (two queries)."""
    found = ServiceAccount.objects.filter(user_id__in=set(user_ids))
    services: list[tuple[int, int | None]] = list(found.values_list("user_id", "made_by_id"))
    if not services:
        return set()
    of_them = ApiToken.objects.filter(user_id__in=[one for one, _ in services], made_by__isnull=False)
    makers = {maker for _, maker in services if maker is not None}
    # Any: the stubs take the key of a maker for one that is never there.
    of_tokens: Any = of_them.values_list("made_by_id", flat=True)
    return makers | set(of_tokens)


def without_services(user_ids: Iterable[int]) -> list[int]:
    """Return who really reads a message to these users: people as they are, for a service account its keepers."""
    wanted = set(user_ids)
    services = set(User.objects.filter(pk__in=wanted, kind=UserKind.SERVICE).values_list("pk", flat=True))
    if not services:
        return sorted(wanted)
    found = wanted - services
    for account in ServiceAccount.objects.filter(user_id__in=services):
        found |= set(keepers_of(account))
    return sorted(found)


def token_marks(days: Collection[int]) -> list[tuple[ApiToken, ServiceAccount]]:
    """Return the tokens that end within so many days and whose keepers were not told at that mark yet."""
    at = clock.now()
    found: dict[int, ApiToken] = {}
    tokens = ApiToken.objects.usable().filter(user__kind=UserKind.SERVICE).select_related("user__service_account")
    tokens = tokens.exclude(Exists(ApiToken.objects.filter(replaces=OuterRef("pk"))))
    for mark in sorted(days):
        told = OutboxMessage.objects.filter(
            event=TOKEN_ENDS_SOON.name, subject_uid=OuterRef("uid"), created_at__gt=OuterRef("expires_at")
            - timedelta(days=mark),
        )  # fmt: skip
        due = tokens.filter(expires_at__lte=at + timedelta(days=mark)).exclude(Exists(told))
        found.update((token.pk, token) for token in due.order_by("pk")[:200])
        # Whoever is told at the nearer mark is not told at the farther one as well.
        tokens = tokens.filter(expires_at__gt=at + timedelta(days=mark))
    return [(token, token.user.service_account) for token in found.values()]


def may_carry(user: Any, account: ServiceAccount, names: Iterable[str]) -> list[str]:
    """Return which of these permissions `user` holds where the account belongs, and so may hand to its tokens."""
    held = scope.of(user)
    if account.team is None:
        return [name for name in sorted(names) if held.everywhere(name)]
    return [name for name in sorted(names) if held.holds(name, account.team)]


def account_path(account: ServiceAccount) -> str:
    """Return the path of an account's page."""
    return reverse("teams:service-detail", kwargs={"account_uid": account.uid})
