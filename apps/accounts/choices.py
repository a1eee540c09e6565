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


class ResetStatus(models.TextChoices):
    """Where a proposal to remove somebody's second factors stands; a waiting one lapses by its time."""

    WAITING = "waiting", "Waits for a second person"
    DONE = "done", "Done"
    REFUSED = "refused", "Refused"
    WITHDRAWN = "withdrawn", "Withdrawn"
    LAPSED = "lapsed", "Lapsed"
