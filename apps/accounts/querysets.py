"""Who sees persons, sessions and tokens."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

from django.conf import settings
from django.db.models import Q

from apps.accounts.choices import ResetStatus
from apps.core import clock
from apps.core.permissions import reach
from apps.core.querysets import ScopedQuerySet

if TYPE_CHECKING:
    from apps.accounts.models import (
        ApiToken,
        DirectoryGroup,
        ExternalIdentity,
        FactorReset,
        IdentityProvider,
        SecondFactor,
        SignInSession,
        User,
    )


class UserQuerySet(ScopedQuerySet["User"]):
    """Persons: administrators and auditors see all, everybody else themselves."""

    def visible_to(self, user: Any) -> Self:
        """Return the persons whose account page `user` may open."""
        if reach(user, "accounts.user.view").everywhere:
            return self.all()
        return self.filter(pk=user.pk) if user.pk else self.none()

    def active(self) -> Self:
        """Return the persons who can sign in."""
        return self.filter(is_active=True)


class SignInSessionQuerySet(ScopedQuerySet["SignInSession"]):
    """Sessions: everybody their own; whoever keeps sessions for the installation, all."""

    def visible_to(self, user: Any) -> Self:
        """Return the person's own sessions, or all of them."""
        if reach(user, "accounts.session.manage").everywhere:
            return self.all()
        return self.of(user)

    def of(self, user: Any) -> Self:
        """Return the sessions of one person."""
        return self.filter(user_id=user.pk) if user.pk else self.none()

    def open(self) -> Self:
        """Return the sessions in force now, of active persons: neither closed nor too old nor idle for too long."""
        at = clock.now()
        used_after = at - timedelta(seconds=settings.COMMONS_SESSION_IDLE_SECONDS)
        in_use = Q(last_seen_at__gt=used_after) | Q(last_seen_at__isnull=True, opened_at__gt=used_after)
        return self.filter(in_use, closed_at__isnull=True, expires_at__gt=at, user__is_active=True)


class ApiTokenQuerySet(ScopedQuerySet["ApiToken"]):
    """Tokens: everybody their own."""

    def visible_to(self, user: Any) -> Self:
        """Return the person's own tokens."""
        return self.filter(user_id=user.pk) if user.pk else self.none()

    def usable(self) -> Self:
        """Return the tokens that open the API now: neither revoked nor expired, of active persons."""
        return self.filter(revoked_at__isnull=True, expires_at__gt=clock.now(), user__is_active=True)


class IdentityProviderQuerySet(ScopedQuerySet["IdentityProvider"]):
    """Identity providers: whoever may view them for the installation."""

    def visible_to(self, user: Any) -> Self:
        """Return all providers to administrators and auditors, none to others (the sign-in page names enabled ones)."""
        return self.all() if reach(user, "accounts.provider.view").everywhere else self.none()

    def offered(self) -> Self:
        """Return the providers at which people can sign in now."""
        return self.filter(enabled=True, archived_at__isnull=True)


class ExternalIdentityQuerySet(ScopedQuerySet["ExternalIdentity"]):
    """Connections of people with providers: whoever may view providers."""

    def visible_to(self, user: Any) -> Self:
        """Return all connections to administrators and auditors."""
        return self.all() if reach(user, "accounts.provider.view").everywhere else self.none()


class DirectoryGroupQuerySet(ScopedQuerySet["DirectoryGroup"]):
    """Groups of directories: with their provider."""

    def visible_to(self, user: Any) -> Self:
        """Return all groups to those who may view providers."""
        return self.all() if reach(user, "accounts.provider.view").everywhere else self.none()


class FactorQuerySet(ScopedQuerySet["SecondFactor"]):
    """Second factors: everybody their own."""

    def visible_to(self, user: Any) -> Self:
        """Return the person's own factors."""
        return self.filter(user_id=user.pk) if user.pk else self.none()

    def in_use(self) -> Self:
        """Return the factors that count at sign-in: confirmed and not removed."""
        return self.filter(confirmed_at__isnull=False, removed_at__isnull=True)


class FactorResetQuerySet(ScopedQuerySet["FactorReset"]):
    """Proposals to remove somebody's second factors: those who could agree to them."""

    def visible_to(self, user: Any) -> Self:
        """Return all proposals to those who may confirm them, none to others."""
        return self.all() if reach(user, "accounts.factor.confirm").everywhere else self.none()

    def waiting(self) -> Self:
        """Return those on which somebody can still decide."""
        return self.filter(status=ResetStatus.WAITING, expires_at__gt=clock.now())
