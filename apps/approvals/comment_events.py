"""What the approvals room tells people about comments on requests. Whose words: the note, which audit can forget."""

from __future__ import annotations

from dataclasses import dataclass

from apps.core.events import declare, private


@dataclass(frozen=True, slots=True)
class CommentEvent:
    """A comment on a request: at what it is anchored ("" for the whole), and on which bytes it was made."""

    comment_uid: str
    request_uid: str
    anchor: str
    subject_digest: str
    path: str
    title: str = private()
    note: str = private(default="")


COMMENT_MADE = declare(
    "approvals.comment.made",
    CommentEvent,
    audience="the requester, who decided, and who commented before",
    headline=lambda p: f"Comment on: {p.title}",
    body=lambda p: p.note,
    path=lambda p: p.path,
)
COMMENT_RESOLVED = declare(
    "approvals.comment.resolved",
    CommentEvent,
    audience="who made the comment",
    headline=lambda p: f"Comment resolved on: {p.title}",
    body=lambda p: p.note,
    path=lambda p: p.path,
)
