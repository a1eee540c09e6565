"""The password backend behind Django's `authenticate()`; pages use `sign_in`, which also counts attempts."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.hashers import make_password
from django.http import HttpRequest

from apps.accounts.models import User


class PasswordBackend:
    """Knows persons by e-mail address and password; knows nothing of permissions."""

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **credentials: Any
    ) -> User | None:
        """Return the active person with these credentials, taking about as long for an unknown address."""
        email = username or str(credentials.get("email") or "")
        if not email or password is None:
            return None
        user = User.objects.filter(email__iexact=email).first()
        if user is None:
            make_password(password)
            return None
        return user if user.check_password(password) and user.is_active else None

    def get_user(self, user_id: int) -> User | None:
        """Return an active person by key."""
        return User.objects.active().filter(pk=user_id).first()
