"""Inbox, comments, delegations, emergency reviews, lost standard changes of finance, beside its open request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps.approvals.choices import RequestKind, RequestStatus
from apps.approvals.models import (
    ApprovalRequest,
    Comment,
    Delegation,
    EmergencyReview,
    Policy,
    PolicyVersion,
    StandardLoss,
)
from apps.core import clock
from tests.sweep.types import EVERYBODY, Route

_SEE = {"lead_finance", "vp", "compliance", "finance", "admin", "auditor"}
_TALK = _SEE - {"auditor"}
_DECIDERS = {"vp", "vp_other", "compliance", "finance", "admin"}
_BODY = {
    "stages": [{"name": "Unit owner", "role": "unit_owner", "scope": "unit"}],
    "emergency": {"role": "compliance", "hours": 4, "review_hours": 72, "review_role": "compliance"},
}


def _rows(world: Any) -> SimpleNamespace:
    """Make the rows when first asked: the request beside which they stand belongs to a room further up."""
    if hasattr(world, "approvals_depth"):
        return world.approvals_depth
    usual, at = world.approval_request, clock.now()
    policy = Policy.objects.create(slug="sweep-depth", name="Sweep depth", subject_type=usual.subject_type)
    version = PolicyVersion.objects.create(policy=policy, number=1, body=_BODY, digest="d" * 64, published_at=at)
    emergency = ApprovalRequest.objects.create(
        subject_type=usual.subject_type, subject_uid=usual.subject_uid, subject_digest="e" * 64,
        title="Ocelot emergency", policy_version=version, status=RequestStatus.APPROVED, requester=usual.requester,
        team=usual.team, unit=usual.unit, submitted_at=at, kind=RequestKind.EMERGENCY, reason="Ocelot reason.",
    )  # fmt: skip
    made = SimpleNamespace(
        review=EmergencyReview.objects.create(request=emergency, due_at=at + timedelta(days=3)),
        loss=StandardLoss.objects.create(
            policy=policy, rule="Ocelot rule", team=usual.team, request=emergency, why="Ocelot failure.", lost_at=at
        ),
        comment=Comment.objects.create(
            request=usual, author=usual.requester, body="Ocelot remark.", subject_digest=usual.subject_digest
        ),
        # Not in force yet: otherwise the delegate saw, and could do, what others must not.
        delegation=Delegation.objects.create(
            giver=world.vp, delegate=world.vp_other, role="unit_owner", reason="Fossa leave.", created_by=world.vp,
            valid=DateTimeTZRange(at + timedelta(days=1), at + timedelta(days=9), "[)"),
        ),
    )  # fmt: skip
    world.keep_secret("Ocelot", made.review.uid, made.loss.uid, made.comment.uid, sees={"lead_finance", "vp"})
    world.keep_secret("Okapi leave", made.delegation.uid, sees={"vp", "vp_other"})
    world.approvals_depth = made
    return made


def _of(name: str, key: str = "uid") -> Callable[[Any], Mapping[str, Any]]:
    return lambda world: {key: getattr(_rows(world), name).uid}


def _request(world: Any) -> Mapping[str, Any]:
    return {"request_uid": world.approval_request.uid}


def _both(name: str, allowed: set[str], kwargs: Callable[[Any], Mapping[str, Any]]) -> dict[str, Route]:
    """A form: the question and the answer."""
    return {
        name: Route(allowed=allowed, kwargs=kwargs),
        f"{name}#POST": Route(allowed=allowed, kwargs=kwargs, method="POST"),
    }


ROUTES: dict[str, Route] = {
    "approvals:inbox": Route(allowed=EVERYBODY),
    **_both("approvals:comment-create", _TALK, _request),
    **_both("approvals:comment-resolve", _TALK, _of("comment", "comment_uid")),
    "approvals:delegation-list": Route(allowed=EVERYBODY),
    **_both("approvals:delegation-create", _DECIDERS, lambda world: {}),
    **_both("approvals:delegation-revoke", {"vp", "vp_other", "admin"}, _of("delegation", "delegation_uid")),
    "approvals:review-list": Route(allowed=EVERYBODY),
    "approvals:review-detail": Route(allowed=_SEE, kwargs=_of("review", "review_uid")),
    **_both("approvals:review-close", {"compliance"}, _of("review", "review_uid")),
    "approvals:standard-list": Route(allowed=EVERYBODY),
    **_both("approvals:standard-restore", {"compliance", "admin"}, _of("loss", "loss_uid")),
    "approvals:integrity": Route(allowed={"compliance", "auditor"}),
    "approvals:policy-rehearsal": Route(
        allowed=EVERYBODY, method="POST",
        data=lambda world: {"subject_type": world.approval_request.subject_type,
                            "body": '{"stages": [{"name": "U", "role": "unit_owner", "scope": "unit"}]}'},
    ),
    "api:approval-comment-list": Route(allowed=EVERYBODY),
    "api:approval-comment-list#POST": Route(
        allowed=_TALK, method="POST", data=lambda world: {"request": str(world.approval_request.uid), "body": ""},
        note="an empty comment: 400 where one may comment",
    ),
    "api:approval-comment-detail": Route(allowed=_SEE, kwargs=_of("comment")),
    "api:approval-comment-resolve": Route(allowed=_TALK, kwargs=_of("comment"), method="POST"),
    "api:approval-delegation-list": Route(allowed=EVERYBODY),
    "api:approval-delegation-list#POST": Route(allowed=_DECIDERS, method="POST"),
    "api:approval-delegation-detail": Route(allowed=_DECIDERS | {"auditor"}, kwargs=_of("delegation")),
    "api:approval-delegation-revoke": Route(
        allowed={"vp", "vp_other", "admin"}, kwargs=_of("delegation"), method="POST"
    ),
    "api:emergency-review-list": Route(allowed=EVERYBODY),
    "api:emergency-review-detail": Route(allowed=_SEE, kwargs=_of("review")),
    "api:emergency-review-close": Route(allowed={"compliance"}, kwargs=_of("review"), method="POST"),
    "api:standard-loss-list": Route(allowed=EVERYBODY),
    "api:standard-loss-detail": Route(allowed=_SEE, kwargs=_of("loss")),
    "api:standard-loss-restore": Route(allowed={"compliance", "admin"}, kwargs=_of("loss"), method="POST"),
}  # fmt: skip
