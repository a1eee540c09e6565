"""Passwords that a person had before: their hashes are kept so that none of them is taken again."""

from __future__ import annotations

from django.contrib.auth import hashers

from apps.accounts.models import EarlierPassword, User
from apps.core import clock

#: So many earlier passwords are refused, the present one among them.
KEPT = 5


def was_used(user: User, password: str) -> bool:
    """Whether this is one of the person's last passwords (each try costs a hash: at most five)."""
    earlier = EarlierPassword.objects.filter(user=user).order_by("-pk").values_list("password", flat=True)
    return any(hashers.check_password(password, encoded) for encoded in [user.password, *earlier[: KEPT - 1]])


def keep(user: User) -> None:
    """Keep the hash that is about to be replaced, and forget those that count no more; under the person's lock."""
    if not user.has_usable_password():
        return
    EarlierPassword.objects.create(user=user, password=user.password, at=clock.now())
    counting = EarlierPassword.objects.filter(user=user).order_by("-pk").values("pk")[: KEPT - 1]
    EarlierPassword.objects.filter(user=user).exclude(pk__in=list(counting.values_list("pk", flat=True))).delete()


__all__ = ["KEPT", "keep", "was_used"]
