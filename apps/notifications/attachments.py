"""Files that go with a mail, by reference: a room registers how a file of its own is found; workers make it, not we.

An event names the file in its payload (`core.events.declare(..., attachment=…)`); a mail about it waits for the file
for `PATIENCE` at most, then goes without it and says so. What is attached is what the recipient may read at that
moment: the room that owns the file decides.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.template.defaultfilters import filesizeformat
from django.utils.html import escape

from apps.core import clock

if TYPE_CHECKING:
    from apps.notifications.models import SentMail

#: Where the line about the attachment stands in a mail's bodies until it is handed over.
MARK = "<!--attachment-->"
#: Servers take 10 MB as a rule; base64 makes four bytes of three, and line ends are added.
LARGEST = 7 * 1024 * 1024
#: How long a mail waits for its file, and when it looks again.
PATIENCE, AGAIN = timedelta(minutes=15), timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Ready:
    """A file that is there."""

    name: str
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Pending:
    """A worker makes it still."""


@dataclass(frozen=True, slots=True)
class Missing:
    """It will not come; `reason` ends the sentence "…is not attached: "."""

    reason: str


File = Ready | Pending | Missing
Finder = Callable[[uuid.UUID, Any], File]
_finders: dict[str, Finder] = {}


def register(kind: str, find: Finder) -> None:
    """Let a room hand out files: `find(uid, user)` returns the file as `user` may read it now, without a network."""
    _finders[kind] = find


@dataclass(frozen=True, slots=True)
class Enclosed:
    """What goes with one mail: a file or none, the line that says so, and what is kept of it."""

    file: Ready | None = None
    note: str = ""
    sha256: str = ""


def of(mail: SentMail) -> Enclosed | None:
    """Return what goes with a mail; None while it should wait for its file."""
    if mail.attachment_uid is None:
        return Enclosed()
    find = _finders.get(mail.attachment_kind)
    found: File = find(mail.attachment_uid, mail.user) if find else Missing("this portal no longer keeps such files.")
    if isinstance(found, Pending):
        if clock.now() < mail.created_at + PATIENCE:
            return None
        found = Missing("it was not ready in time.")
    if isinstance(found, Ready) and len(found.body) > LARGEST:
        size = filesizeformat(len(found.body)).replace("\xa0", " ")
        found = Missing(f"with {size} it is too large for mail.")
    if isinstance(found, Missing):
        return Enclosed(
            note=f"The file that belongs here is not attached: {found.reason} The page has it, or says why."
        )
    size = filesizeformat(len(found.body)).replace("\xa0", " ")
    return Enclosed(found, f"Attached: {found.name} ({size}).", hashlib.sha256(found.body).hexdigest())


def text_with(body: str, note: str) -> str:
    """Return the text body with its line about the attachment."""
    return body.replace(MARK, note, 1)


def html_with(body: str, note: str) -> str:
    """Return the HTML body with its line about the attachment."""
    return body.replace(MARK, f"<p>{escape(note)}</p>" if note else "", 1)
