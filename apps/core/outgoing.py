"""Calls to addresses that people entered, for rooms below the one that owns the guard against forged requests.

The clusters room fills the hook when it starts (`apps.clusters.outgoing`). While it is open nothing is called: no
guard, no call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


class CallRefused(Exception):
    """The portal does not call this address; the text says why."""


class CallFailed(Exception):
    """No answer: refused, timed out, name or certificate failure, connection cut."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the other side answered: status and the beginning of its words; `get` and `exchange` keep the whole body."""

    status: int
    excerpt: str = ""
    body: bytes = b""
    content_type: str = ""


class AddressCheck(Protocol):
    """Raises CallRefused for an address that is not called; asks no name server."""

    def __call__(self, url: str) -> None: ...


class Poster(Protocol):
    """Posts `body` to `url`: checked address, no redirect, bounded answer, never inside a transaction.

    Raises CallRefused and CallFailed.
    """

    def __call__(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer: ...


class Caller(Protocol):
    """Sends a request and reads the whole answer: checked address, no redirect, bounded in bytes and in seconds,
    never inside a transaction.

    Raises CallRefused and CallFailed.
    """

    def __call__(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> Answer: ...


_check: AddressCheck | None = None
_post: Poster | None = None
_call: Caller | None = None


def install(*, check: AddressCheck, post: Poster, call: Caller) -> None:
    """Fill the hook."""
    global _check, _post, _call
    _check, _post, _call = check, post, call


def check_address(url: str) -> None:
    """Raise CallRefused where the portal would not call `url`, as far as that can be told without a name server."""
    if _check is None:
        raise CallRefused("no guard of outgoing calls is installed")
    _check(url)


def post(url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
    """Post `body` to `url`. Raises CallRefused, also while the hook is open (fail closed), and CallFailed."""
    if _post is None:
        raise CallRefused("no guard of outgoing calls is installed")
    return _post(url, body, headers)


def get(url: str, headers: Mapping[str, str]) -> Answer:
    """Fetch `url` with its whole body. Raises CallRefused (also while the hook is open: fail closed) and CallFailed."""
    if _call is None:
        raise CallRefused("no guard of outgoing calls is installed")
    return _call("GET", url, None, headers)


def exchange(url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
    """Post `body` to `url` and return the whole answer. Raises as `get` does."""
    if _call is None:
        raise CallRefused("no guard of outgoing calls is installed")
    return _call("POST", url, body, headers)
