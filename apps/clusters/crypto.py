"""The credentials of clusters at rest: `apps.core.crypto` under the name that rooms above clusters know it by."""

from __future__ import annotations

from apps.core.crypto import CannotDecrypt, decrypt, encrypt, is_newest, rotate

__all__ = ["CannotDecrypt", "decrypt", "encrypt", "is_newest", "rotate"]
