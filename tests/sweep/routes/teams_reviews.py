"""Routes of access reviews: an open one, with a question about the Finance team lead and one about a foreign lead."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from apps.core import clock
from apps.core.actor import Actor
from apps.teams import reviews
from apps.teams.choices import Role
from tests.sweep.types import Route

_VIEW = {"vp", "vp_other", "compliance", "admin", "auditor"}
_ANSWER = {"vp", "vp_other", "compliance", "admin"}


def build(world: Any) -> None:
    """Begin a review."""
    world.review = reviews.start_review(
        "Before the audit", clock.now() + timedelta(days=30), actor=Actor.of(world.compliance)
    )
    world.review_item = world.review.items.get(user=world.lead_finance, role=Role.TEAM_LEAD)
    foreign = world.review.items.filter(team=world.foreign_team).first()
    world.keep_secret(world.review_item.uid, sees={"vp"})
    world.keep_secret(foreign.uid, sees={"vp_other"})


def _review(world: Any) -> Mapping[str, Any]:
    return {"review_uid": world.review.uid}


ROUTES: dict[str, Route] = {
    "teams:review-list": Route(allowed=_VIEW),
    "teams:review-start": Route(allowed={"compliance", "admin"}),
    "teams:review-start#POST": Route(allowed={"compliance", "admin"}, method="POST"),
    "teams:review-detail": Route(allowed=_VIEW, kwargs=_review),
    "teams:review-detail#export": Route(allowed=_VIEW, kwargs=_review, query="?export=csv"),
    "teams:review-answer": Route(allowed=_ANSWER, kwargs=_review),
    "teams:review-answer#POST": Route(allowed=_ANSWER, kwargs=_review, method="POST"),
    "api:access-review-list": Route(allowed=_VIEW),
    "api:access-review-list#POST": Route(allowed={"compliance", "admin"}, method="POST"),
    "api:access-review-detail": Route(allowed=_VIEW, kwargs=lambda world: {"uid": world.review.uid}),
    "api:access-review-give-answers": Route(
        allowed={"vp"},
        kwargs=lambda world: {"uid": world.review.uid},
        method="POST",
        data=lambda world: {"items": [str(world.review_item.uid)], "answer": "keep"},
    ),
    "api:review-item-list": Route(allowed=_VIEW),
    "api:review-item-detail": Route(
        allowed={"vp", "compliance", "admin", "auditor"}, kwargs=lambda world: {"uid": world.review_item.uid}
    ),
}
