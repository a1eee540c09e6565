"""Where people's identities come from, their second factors, and sessions in somebody else's name."""

from __future__ import annotations

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower

from apps.accounts.choices import FactorKind, ResetStatus
from apps.accounts.querysets import (
    DirectoryGroupQuerySet,
    ExternalIdentityQuerySet,
    FactorQuerySet,
    FactorResetQuerySet,
    IdentityProviderQuerySet,
)
from apps.core import clock
from apps.core.models import Row, VersionedRow


class IdentityProvider(VersionedRow):
    """An OpenID provider of the company: people sign in there, and its groups become roles here."""

    name = models.CharField(max_length=100)
    slug = models.SlugField(max_length=40, unique=True, help_text="Stands in the addresses that the provider calls.")
    issuer = models.URLField(max_length=300, unique=True, help_text="Exactly as the provider states it in its tokens.")
    client_id = models.CharField(max_length=300)
    client_secret = models.BinaryField(default=b"", help_text="Encrypted at rest (core.crypto).")
    extra_scopes: ArrayField[list[str], list[str]] = ArrayField(
        models.CharField(max_length=60), default=list, blank=True
    )
    groups_claim = models.CharField(max_length=60, default="groups", blank=True)
    mail_domains: ArrayField[list[str], list[str]] = ArrayField(
        models.CharField(max_length=253), default=list, blank=True, help_text="Empty: any domain that it verified."
    )
    just_in_time = models.BooleanField(default=True, help_text="Whoever signs in there gets an account here.")
    links_by_mail = models.BooleanField(
        default=False, help_text="An existing account with the same verified address belongs to the same person."
    )
    second_factor_there = models.BooleanField(
        default=False, help_text="Its `amr` or `acr` claims must show a second factor."
    )
    enabled = models.BooleanField(default=False)
    archived_at = models.DateTimeField(null=True, blank=True)
    checked_at = models.DateTimeField(null=True, blank=True)
    check_error = models.CharField(max_length=500, blank=True)
    held_since = models.DateTimeField(
        null=True, blank=True, help_text="Its directory switched off too many people at once: those wait for a person."
    )
    hold_lifted_until = models.DateTimeField(
        null=True, blank=True, help_text="Somebody let the many through: until then nothing is held back again."
    )

    objects = IdentityProviderQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name


class ExternalIdentity(Row):
    """That a subject at a provider is a person here; made at the first sign-in there, or by provisioning (SCIM)."""

    provider = models.ForeignKey(IdentityProvider, models.PROTECT, related_name="identities")
    subject = models.CharField(max_length=255, blank=True, help_text="`sub`; empty until the first sign-in.")
    external_id = models.CharField(max_length=255, blank=True, help_text="SCIM externalId.")
    user_name = models.CharField(max_length=255, blank=True, help_text="SCIM userName.")
    user = models.ForeignKey("accounts.User", models.PROTECT, related_name="identities")
    #: Groups that the last ID token named; None: it named none at all (unknown, not "in no group").
    token_groups: ArrayField[list[str] | None, list[str] | None] = ArrayField(
        models.CharField(max_length=255), null=True, blank=True
    )
    provisioned = models.BooleanField(default=False, help_text="SCIM keeps this account.")
    active = models.BooleanField(default=True, help_text="What SCIM last said.")
    inactive_since = models.DateTimeField(null=True, blank=True, help_text="When SCIM said that it is not active.")
    held_at = models.DateTimeField(
        null=True, blank=True, help_text="SCIM switched it off with too many others: not done before a person agrees."
    )
    attributes: models.JSONField = models.JSONField(default=dict, help_text="SCIM attributes kept as they came.")
    version = models.PositiveIntegerField(default=1)
    updated_at = models.DateTimeField(auto_now=True)
    last_signed_in_at = models.DateTimeField(null=True, blank=True)

    objects = ExternalIdentityQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["provider", "subject"], name="identity_subject", condition=~Q(subject="")),
            models.UniqueConstraint(fields=["provider", "user"], name="identity_once"),
            models.UniqueConstraint(
                "provider", Lower("user_name"), name="identity_user_name", condition=~Q(user_name="")
            ),
            models.UniqueConstraint(
                fields=["provider", "external_id"], name="identity_external_id", condition=~Q(external_id="")
            ),
        ]


class DirectoryGroup(VersionedRow):
    """A group of a provider's directory, as SCIM keeps it here."""

    provider = models.ForeignKey(IdentityProvider, models.PROTECT, related_name="groups")
    external_id = models.CharField(max_length=255, blank=True)
    name = models.CharField(max_length=255)

    objects = DirectoryGroupQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint("provider", Lower("name"), name="directory_group_name"),
        ]

    def __str__(self) -> str:
        return self.name


class DirectoryMembership(models.Model):
    """That a provisioned person is in a directory group now."""

    id = models.BigAutoField(primary_key=True)
    group = models.ForeignKey(DirectoryGroup, models.CASCADE, related_name="memberships")
    identity = models.ForeignKey(ExternalIdentity, models.CASCADE, related_name="directory_memberships")

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["group", "identity"], name="directory_member_once")]


class ScimToken(Row):
    """A hashed, expiring bearer token with which one provider's directory provisions accounts; opens nothing else."""

    provider = models.ForeignKey(IdentityProvider, models.CASCADE, related_name="scim_tokens")
    name = models.CharField(max_length=100)
    digest = models.BinaryField(max_length=32, unique=True, help_text="SHA-256 of the secret.")
    prefix = models.CharField(max_length=12)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True)
    last_used_at = models.DateTimeField(null=True)
    last_used_network = models.CharField(max_length=20, blank=True)
    replaces = models.ForeignKey("self", models.SET_NULL, null=True, related_name="replaced_by")
    made_by = models.ForeignKey("accounts.User", models.PROTECT, null=True, related_name="+")


class SecondFactor(Row):
    """A second factor of a person who signs in with a password here: an authenticator app, a security key, codes."""

    user = models.ForeignKey("accounts.User", models.CASCADE, related_name="second_factors")
    kind = models.CharField(max_length=20, choices=FactorKind.choices)
    name = models.CharField(max_length=100, blank=True)
    secret = models.BinaryField(default=b"", help_text="Encrypted at rest (core.crypto): the seed of the app.")
    credential_id = models.BinaryField(null=True, unique=True, max_length=1023)
    public_key = models.BinaryField(default=b"", help_text="COSE key of a security key, with its attested data.")
    sign_count = models.BigIntegerField(default=0)
    #: Last time step of the app that was accepted: a code counts once.
    last_step = models.BigIntegerField(default=0)
    #: SHA-256 of the recovery codes not used yet.
    codes: ArrayField[list[str], list[str]] = ArrayField(models.CharField(max_length=64), default=list, blank=True)
    confirmed_at = models.DateTimeField(null=True)
    removed_at = models.DateTimeField(null=True)
    last_used_at = models.DateTimeField(null=True)

    objects = FactorQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [models.Index(fields=["user"], name="factor_user")]


class FactorReset(Row):
    """That somebody's second factors are to be removed, as one administrator proposed: another one has to agree."""

    user = models.ForeignKey("accounts.User", models.PROTECT, related_name="factor_resets")
    reason = models.CharField(max_length=500)
    proposed_by = models.ForeignKey("accounts.User", models.PROTECT, related_name="+")
    proposed_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    status = models.CharField(max_length=10, choices=ResetStatus.choices, default=ResetStatus.WAITING)
    decided_by = models.ForeignKey("accounts.User", models.PROTECT, null=True, related_name="+")
    decided_at = models.DateTimeField(null=True)

    objects = FactorResetQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["user"], name="factor_reset_waiting", condition=Q(status=ResetStatus.WAITING)
            )
        ]

    @property
    def shown_status(self) -> str:
        """Where it stands now: one whose time is over has lapsed, with every scheduler stopped."""
        over = self.status == ResetStatus.WAITING and self.expires_at <= clock.now()
        return str(ResetStatus.LAPSED if over else self.status)

    @property
    def is_waiting(self) -> bool:
        """Whether somebody can still decide."""
        return self.shown_status == ResetStatus.WAITING


class EarlierPassword(models.Model):
    """The hash of a password that a person had: it is not taken again. Goes with the person, and after five others."""

    id = models.BigAutoField(primary_key=True)
    user = models.ForeignKey("accounts.User", models.CASCADE, related_name="earlier_passwords")
    password = models.CharField(max_length=128)
    at = models.DateTimeField()


class Impersonation(Row):
    """Somebody of support sees the portal as another person does: read-only, with a banner, for some minutes."""

    session = models.ForeignKey("accounts.SignInSession", models.PROTECT, related_name="impersonations")
    person = models.ForeignKey("accounts.User", models.PROTECT, related_name="+")
    reason = models.CharField(max_length=500)
    started_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    pages_seen = models.PositiveIntegerField(default=0)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["session"], name="impersonation_open", condition=Q(ended_at__isnull=True))
        ]
