"""Fixed choices of the accounts room."""

from __future__ import annotations

from django.db import models


class UserKind(models.TextChoices):
    """Whether somebody or something signs in."""

    PERSON = "person", "Person"
    SERVICE = "service", "Service account"


class SignInMethod(models.TextChoices):
    """How a session was opened."""

    PASSWORD = "password", "Password"
    OPENID = "openid", "Identity provider"


class FactorKind(models.TextChoices):
    """What a second factor is."""

    TOTP = "totp", "Authenticator app"
    WEBAUTHN = "webauthn", "Security key or passkey"
    RECOVERY = "recovery", "Recovery codes"
