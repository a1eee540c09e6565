"""Who may sign in with a password kept here, and which passwords are taken."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError

from apps.accounts.choices import UserKind
from apps.accounts.models import User
from apps.core import clock
from apps.core.permissions import may

#: Parts of a name or an address that are shorter say nothing about the person.
_PART_MIN = 4
ADMIN_PERMISSION = "accounts.user.manage"
_TO_CHANGE = "Choose a password that does not hold your name or your e-mail address."


def refused_because(user: User) -> str:
    """Return why this person may not sign in with a password here, for the audit trail; "" where they may.

    `COMMONS_LOCAL_SIGN_IN`: all, admins (who may manage accounts), anything else: nobody.
    """
    if not user.is_active:
        return "wrong"
    if user.kind != UserKind.PERSON or not user.may_use_password:
        return "no_password"
    rule = settings.COMMONS_LOCAL_SIGN_IN
    if rule == "all" or (rule == "admins" and may(user, ADMIN_PERMISSION)):
        return ""
    return "provider_only"


def too_old(user: User) -> bool:
    """Whether the installation wants this password changed because of its age."""
    days = settings.COMMONS_PASSWORD_MAX_AGE_DAYS
    if days <= 0:
        return False
    return clock.now() - (user.password_changed_at or user.created_at) > timedelta(days=days)


class NotAboutThePerson:
    """A password validator: nothing that whoever knows the person would try first."""

    def validate(self, password: str, user: Any = None) -> None:
        """Raise ValidationError for a password that holds a part of the person's name or address."""
        if not isinstance(user, User):
            return
        plain = _letters(password)
        account, _, domain = user.email.lower().partition("@")
        words = {account, domain.partition(".")[0], *re.split(r"[\W_]+", account), *user.display_name.lower().split()}
        held = {_letters(word) for word in words}
        # What remains beside such a word may be long enough to stand by itself.
        for word in held:
            if len(word) >= _PART_MIN and word in plain and len(plain) - len(word) < 8:
                raise ValidationError(_TO_CHANGE, code="password_about_person")

    def get_help_text(self) -> str:
        """Return the rule."""
        return _TO_CHANGE


def _letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.lower())
