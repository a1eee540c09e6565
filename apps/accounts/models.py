"""People who sign in, their sessions, API tokens, and the book of sign-in attempts."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

from django.contrib.auth import hashers
from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Lower, Now

from apps.accounts.choices import SignInMethod, UserKind
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
    kind = models.CharField(max_length=10, choices=UserKind.choices, default=UserKind.PERSON)
    may_use_password = models.BooleanField(
        default=True, help_text="Off: signs in at an identity provider only, whatever password is stored."
    )
    password_changed_at = models.DateTimeField(null=True)
    #: Who last set a password for this person and so knew it, and when; stays after the person chose their own.
    password_set_by = models.ForeignKey("self", models.PROTECT, null=True, related_name="+")
    password_set_at = models.DateTimeField(null=True)
    deactivated_at = models.DateTimeField(null=True)
    merged_into = models.ForeignKey("self", models.PROTECT, null=True, related_name="merged_from")
    erased_at = models.DateTimeField(null=True, help_text="Name and address were removed for good.")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    objects = UserManager()

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar = ["display_name"]

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(Lower("email"), name="user_email_ci")]

    def __str__(self) -> str:
        return self.display_name

    def check_password(self, raw_password: str | None) -> bool:
        """Whether this is the password. Writes nothing: `sign_in` stores an outdated hash anew, and records it."""
        return hashers.check_password(raw_password, self.password)


class SignInSession(Row):
    """One signed-in browser of one person: closed by signing out, from the profile page, or by deactivation."""

    user = models.ForeignKey(User, models.CASCADE, related_name="sessions")
    device = models.CharField(max_length=60, blank=True, help_text="Browser and system, to tell sessions apart.")
    opened_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True)
    last_seen_at = models.DateTimeField(null=True, help_text="To the minute; an idle session ends by itself.")
    method = models.CharField(max_length=10, choices=SignInMethod.choices, default=SignInMethod.PASSWORD)
    provider = models.ForeignKey("accounts.IdentityProvider", models.PROTECT, null=True, related_name="sessions")
    #: `sid` and ID token of the provider, for signing out there and from there. The token is encrypted at rest.
    provider_session = models.CharField(max_length=255, blank=True)
    id_token = models.BinaryField(default=b"")
    second_factor = models.BooleanField(default=False, help_text="A second factor was given, here or at the provider.")
    #: When the person last proved who they are: sign-in, password again, or the provider's `auth_time`.
    proved_at = models.DateTimeField(null=True)
    network = models.CharField(max_length=20, blank=True, help_text="Class of the address it was opened from.")

    objects = SignInSessionQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["user", "-opened_at"], name="session_user"),
            models.Index(
                fields=["provider", "provider_session"],
                name="session_at_provider",
                condition=models.Q(closed_at__isnull=True, provider__isnull=False),
            ),
        ]


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
    #: Permissions it is limited to where `limited`: what its owner may do *and* what stands here.
    limited = models.BooleanField(default=False)
    permissions: ArrayField[list[str], list[str]] = ArrayField(
        models.CharField(max_length=60), default=list, blank=True
    )
    replaces = models.ForeignKey("self", models.SET_NULL, null=True, related_name="replaced_by")
    last_used_network = models.CharField(max_length=20, blank=True)
    #: Who saw the secret, where that is not the owner: the token of a program's account.
    made_by = models.ForeignKey(User, models.PROTECT, null=True, related_name="+")

    objects = ApiTokenQuerySet.as_manager()


from apps.accounts.identity_models import (  # noqa: E402  (they refer to the rows above)
    DirectoryGroup,
    DirectoryMembership,
    EarlierPassword,
    ExternalIdentity,
    FactorReset,
    IdentityProvider,
    Impersonation,
    ScimToken,
    SecondFactor,
)

__all__ = [
    "ApiToken",
    "DirectoryGroup",
    "DirectoryMembership",
    "EarlierPassword",
    "ExternalIdentity",
    "FactorReset",
    "IdentityProvider",
    "Impersonation",
    "ScimToken",
    "SecondFactor",
    "SignInAttempt",
    "SignInSession",
    "User",
    "UserManager",
]
