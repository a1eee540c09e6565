"""Comments on a request: anchored to a control, a piece of evidence or a part of the change, and to its bytes."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from apps.accounts.models import User
from apps.approvals import deciders, delegating, notices, ports
from apps.approvals.comment_events import COMMENT_MADE, COMMENT_RESOLVED, CommentEvent
from apps.approvals.models import ApprovalRequest, Comment, Decision, Stage
from apps.approvals.querysets import OPEN_STATUSES
from apps.audit import actions as audit
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.events import EventType
from apps.core.permissions import may

BODY_LIMIT = 4000
COMMENT_RULE = "Comments are for those who may decide it and for the requester's side."
RESOLVE_RULE = "Only its author, or somebody who may decide the request, resolves a comment."
#: So many corrections back, comments are shown with the request that corrects them.
EARLIER = 3


def anchors(request: ApprovalRequest) -> list[tuple[str, str]]:
    """Return what a comment can be anchored to, with words for it: the whole, parts of the change, the subject's own.

    A subject that has controls or evidence names them (`ports.Anchored`).
    """
    found = [("", "The whole request")]
    subject = ports.get_subject(request.subject_type)
    if isinstance(subject, ports.Anchored):
        found += list(subject.anchors(request.subject_uid))
    for path in sorted({f"{leaf['cluster']}: {leaf['path']}" for leaf in request.leaves}):
        if len(anchor := f"leaf:{path}") <= Comment._meta.get_field("anchor").max_length:  # type: ignore[operator]  # a CharField has one
            found.append((anchor, f"Change: {path}"))
    return found


def anchor_label(anchor: str) -> str:
    """Return an anchor in words, without asking the subject."""
    kind, _, rest = anchor.partition(":")
    return {"control": f"Control {rest}", "leaf": f"Change: {rest}", "evidence": "Evidence"}.get(kind, "")


def may_comment(user: Any, request: ApprovalRequest) -> bool:
    """Whether a person who sees the request may comment: who may decide (for somebody, too), the requester's side."""
    return _decides(user, request) or user.pk in deciders.excluded(request)


def may_resolve(user: Any, comment: Comment) -> bool:
    """Whether a person may resolve a comment: its author, or who may decide the request."""
    return user.pk == comment.author_id or _decides(user, comment.request)


def _decides(user: Any, request: ApprovalRequest) -> bool:
    if may(user, "approvals.request.decide", request):
        return True
    return any(
        Stage.objects.filter(voice.stages(), voice.within("request__unit"), request=request).exists()
        for voice in delegating.voices_for(user)
    )


@transaction.atomic
def comment(request_uid: uuid.UUID, anchor: str, body: str, *, actor: Actor) -> Comment:
    """Comment on a request as its bytes are now.

    Raises Invalid (body, anchor), NotVisible, NotAllowed for who only reads, Conflict once the request has ended.
    """
    user = _person(actor)
    found = ApprovalRequest.objects.visible_to(user).filter(uid=request_uid).first()
    if found is None:
        raise NotVisible
    request = ApprovalRequest.objects.locked(found.pk)
    if not may_comment(user, request):
        raise NotAllowed(COMMENT_RULE, rule="comment")
    if request.status not in OPEN_STATUSES:
        raise Conflict("This request has ended: comments belong to open ones.", current={"status": request.status})
    body = body.strip()
    errors = {}
    if not body:
        errors["body"] = "Write what you want to say."
    elif len(body) > BODY_LIMIT:
        errors["body"] = f"Keep the comment below {BODY_LIMIT:,} characters."
    if anchor not in {name for name, _ in anchors(request)}:
        errors["anchor"] = "Choose what the comment is about."
    if errors:
        raise Invalid(errors)
    row = Comment.objects.create(
        request=request, author=user, anchor=anchor, body=body, subject_digest=request.subject_digest
    )
    told = {request.requester_id, *Decision.objects.filter(request=request).values_list("actor_id", flat=True)}
    told |= set(Comment.objects.filter(request=request).values_list("author_id", flat=True))
    _tell(COMMENT_MADE, row, actor, told - {user.pk})
    return row


@transaction.atomic
def resolve(comment_uid: uuid.UUID, *, actor: Actor, expected_version: int | None = None) -> Comment:
    """Mark a comment as dealt with. Raises NotVisible, NotAllowed, Conflict where it is resolved or moved on."""
    user = _person(actor)
    found = Comment.objects.visible_to(user).filter(uid=comment_uid).first()
    if found is None:
        raise NotVisible
    row = Comment.objects.locked(found.pk, expected_version=expected_version)
    if not may_resolve(user, row):
        raise NotAllowed(RESOLVE_RULE, rule="resolve")
    if row.resolved_at is not None:
        raise Conflict("This comment is resolved already.", current={"version": row.version})
    row.resolved_at, row.resolved_by = clock.now(), user
    row.bump("resolved_at", "resolved_by")
    _tell(COMMENT_RESOLVED, row, actor, {row.author_id} - {user.pk})
    return row


def _person(actor: Actor) -> User:
    user = notices.person(actor)
    if user is None:
        raise NotVisible
    return user


def _tell(event: EventType, row: Comment, actor: Actor, people: set[int]) -> None:
    request = row.request
    said = CommentEvent(
        comment_uid=str(row.uid),
        request_uid=str(request.uid),
        anchor=row.anchor,
        subject_digest=row.subject_digest,
        path=f"{notices.path_of(request)}#comments",
        title=request.title,
        note=row.body,
    )
    audit.record(
        event,
        said,
        actor=actor,
        subject_type="approvals.request",
        subject_uid=request.uid,
        team_uid=request.team.uid if request.team is not None else None,
        after_digest=row.subject_digest,
        reason=row.body,
    )
    if people:
        outbox.publish(event, said, recipients=people, subject_uid=request.uid)


@dataclass(frozen=True, slots=True)
class Remark:
    """A comment as the request page shows it."""

    row: Comment
    label: str
    #: Whether it was made on other bytes than those to be decided now.
    other_bytes: bool
    #: Whether it belongs to a request that this one corrects.
    earlier: bool
    may_resolve: bool


def remarks(request: ApprovalRequest, user: Any) -> Sequence[Remark]:
    """Return the comments on a request and on those it corrects, open ones first, each with its anchor in words."""
    chain, earlier = [request.pk], request.supersedes
    while earlier is not None and len(chain) <= EARLIER:
        chain.append(earlier.pk)
        earlier = earlier.supersedes
    rows = list(
        Comment.objects.visible_to(user)
        .filter(request_id__in=chain)
        .select_related("author", "resolved_by", "request")
        .order_by("created_at", "pk")
    )
    decides = bool(rows) and _decides(user, request)
    labels = dict(anchors(request)) if any(row.anchor for row in rows) else {}
    found = [
        Remark(
            row,
            labels.get(row.anchor, anchor_label(row.anchor)) if row.anchor else "",
            row.subject_digest != request.subject_digest,
            row.request_id != request.pk,
            row.resolved_at is None and (decides or row.author_id == user.pk),
        )
        for row in rows
    ]
    return sorted(found, key=lambda one: one.row.resolved_at is not None)
