"""Secrets at rest: Fernet under keys from the environment, newest first (`COMMONS_CREDENTIALS_KEY`).

A room registers each column that holds such secrets (`register_secrets` in its AppConfig.ready), so that
`manage.py rotate_keys` finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import models, transaction


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


@dataclass(frozen=True, slots=True)
class SecretColumn:
    """A column of encrypted secrets: `model` as "catalogue.Registry", `label` as people call the rows."""

    model: str
    field: str
    label: str


@dataclass(frozen=True, slots=True)
class Rotated:
    """What rotating one column did: rows encrypted anew, rows in all, names of those that no key in force opens."""

    column: SecretColumn
    rotated: int
    total: int
    missing: tuple[str, ...]


_columns: dict[tuple[str, str], SecretColumn] = {}


def register_secrets(model: str, field: str, label: str) -> None:
    """Name a column that holds secrets (again is harmless)."""
    _columns[(model, field)] = SecretColumn(model, field, label)


def secret_columns() -> list[SecretColumn]:
    """Return every registered column, by model and field."""
    return [_columns[key] for key in sorted(_columns)]


def rotate_columns(done: Callable[[Rotated], None]) -> Iterator[Rotated]:
    """Encrypt every registered column under the newest key, row by row, each in a transaction of its own.

    What is under the newest key already is left alone, so that it may be interrupted and run again. `done` is called
    after each column that changed, in a transaction, to record it. Raises ImproperlyConfigured without a usable key.
    """
    for column in secret_columns():
        model = apps.get_model(column.model)
        rows = model._default_manager.exclude(**{column.field: b""}).order_by("pk")
        ids = list(rows.values_list("pk", flat=True))
        rotated, missing = 0, []
        for pk in ids:
            with transaction.atomic():
                row: Any = model._default_manager.select_for_update(of=("self",)).filter(pk=pk).first()
                if row is None or is_newest(getattr(row, column.field)):
                    continue
                try:
                    setattr(row, column.field, rotate(getattr(row, column.field)))
                except CannotDecrypt:
                    missing.append(str(row))
                    continue
                _save(row, column.field)
                rotated += 1
        result = Rotated(column, rotated, len(ids), tuple(missing))
        if rotated:
            with transaction.atomic():
                done(result)
        yield result


def _save(row: models.Model, field: str) -> None:
    # The secret is the same one: whoever has its form open may still save it, so its version does not rise.
    row.save(update_fields=[field])
