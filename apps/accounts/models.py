"""People who sign in, their sessions, API tokens, and the book of sign-in attempts."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models
from django.db.models.functions import Lower, Now

from apps.accounts.querysets import ApiTokenQuerySet, SignInSessionQuerySet, UserQuerySet
from apps.core.models import Row


class UserManager(BaseUserManager["User"]):
    """Creates persons; e-mail addresses are unique regardless of case."""

    def get_queryset(self) -> UserQuerySet:
        """Return all persons, as a queryset that knows who may see them."""
        return UserQuerySet(self.model, using=self._db)

    def visible_to(self, user: Any) -> UserQuerySet:
        """Return the persons whose account page `user` may open."""
        return self.get_queryset().visible_to(user)

    def active(self) -> UserQuerySet:
        """Return the persons who can sign in."""
        return self.get_queryset().active()

    def get_by_natural_key(self, username: str | None) -> User:
        """Return the person with this e-mail address, whatever its case."""
        return self.get(email__iexact=username)

    def create_user(self, email: str, display_name: str, password: str | None = None, **extra: Any) -> User:
        """Create a person; for tests and the demo's seed (pages go through accounts.actions)."""
        user = self.model(email=self.normalize_email(email).strip(), display_name=display_name, **extra)
        user.set_password(password)
        user.save(using=self._db)
        return user


class User(AbstractBaseUser):
    """A person. Rights come from the teams room alone; `is_superuser` grants nothing but starting break-glass."""

    id = models.BigAutoField(primary_key=True)
    uid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    email = models.EmailField(max_length=254, unique=True)
    display_name = models.CharField(max_length=200)
    is_active = models.BooleanField(default=True)
    is_superuser = models.BooleanField(default=False)
    must_change_password = models.BooleanField(
        default=False, help_text="Somebody else knows the password: it opens nothing but the page that changes it."
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    objects = UserManager()

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar = ["display_name"]

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(Lower("email"), name="user_email_ci")]

    def __str__(self) -> str:
        return self.display_name


class SignInSession(Row):
    """One signed-in browser of one person: closed by signing out, from the profile page, or by deactivation."""

    user = models.ForeignKey(User, models.CASCADE, related_name="sessions")
    device = models.CharField(max_length=60, blank=True, help_text="Browser and system, to tell sessions apart.")
    opened_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True)

    objects = SignInSessionQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [models.Index(fields=["user", "-opened_at"], name="session_user")]


class SignInAttempt(models.Model):
    """One try to sign in, by keyed digests of account and address: enough to count, not to know whose it was."""

    id = models.BigAutoField(primary_key=True)
    account_key = models.CharField(max_length=64)
    address_key = models.CharField(max_length=64)
    at = models.DateTimeField()
    succeeded = models.BooleanField(default=False)

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["address_key", "at"], name="attempt_address"),
            models.Index(fields=["at"], name="attempt_at"),
        ]


class ApiToken(Row):
    """A hashed, expiring bearer token of one person. The secret is shown once and never stored."""

    user = models.ForeignKey(User, models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=100)
    digest = models.BinaryField(max_length=32, unique=True, help_text="SHA-256 of the secret.")
    prefix = models.CharField(max_length=12, help_text="First characters, to tell tokens apart.")
    read_only = models.BooleanField(default=True)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True)
    last_used_at = models.DateTimeField(null=True)

    objects = ApiTokenQuerySet.as_manager()
