"""Cluster credentials at rest: Fernet under keys from the environment, newest first (`COMMONS_CREDENTIALS_KEY`)."""

from __future__ import annotations

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured


class CannotDecrypt(Exception):
    """None of the keys in force opens the stored credentials."""


def _key(text: str) -> Fernet:
    try:
        return Fernet(text.strip().encode())
    except (ValueError, TypeError) as error:
        raise ImproperlyConfigured(
            "COMMONS_CREDENTIALS_KEY holds a malformed key: each is 32 random bytes in URL-safe base64"
        ) from error


def _keys() -> MultiFernet:
    keys = [_key(text) for text in settings.COMMONS_CREDENTIALS_KEYS if text.strip()]
    if not keys:
        raise ImproperlyConfigured("COMMONS_CREDENTIALS_KEY holds no key")
    return MultiFernet(keys)


def encrypt(secret: str) -> bytes:
    """Return `secret` encrypted under the newest key (empty stays empty)."""
    return _keys().encrypt(secret.encode()) if secret else b""


def decrypt(stored: bytes | memoryview) -> str:
    """Return the secret. Raises CannotDecrypt where no key in force opens it."""
    data = bytes(stored)
    if not data:
        return ""
    try:
        return _keys().decrypt(data).decode()
    except InvalidToken as error:
        raise CannotDecrypt("the stored credentials cannot be opened with the keys in force") from error


def rotate(stored: bytes | memoryview) -> bytes:
    """Return the same secret encrypted under the newest key. Raises CannotDecrypt as `decrypt` does."""
    data = bytes(stored)
    if not data:
        return b""
    try:
        return _keys().rotate(data)
    except InvalidToken as error:
        raise CannotDecrypt("the stored credentials cannot be opened with the keys in force") from error


def is_newest(stored: bytes | memoryview) -> bool:
    """Whether the newest key alone opens what is stored (empty counts as such)."""
    data = bytes(stored)
    if not data:
        return True
    try:
        _key(settings.COMMONS_CREDENTIALS_KEYS[0]).decrypt(data)
    except (InvalidToken, IndexError):
        return False
    return True
