"""Entries in the navigation, and *For you to decide* on the home page."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.urls import reverse

from apps.approvals import delegating, emergencies, inbox, notices, waiting
from apps.approvals.blocking import blocking_of_team
from apps.approvals.models import EmergencyReview
from apps.approvals.querysets import ApprovalRequestQuerySet
from apps.core.permissions import may
from portal.panels import nav, panel

PANEL_ROWS = 10


def _waiting(request: HttpRequest) -> ApprovalRequestQuerySet | None:
    """The requests that wait for this person."""
    return waiting.together(inbox.ways_of(request)) if may(request.user, "approvals.request.decide") else None


def _reviews(request: HttpRequest) -> Any:
    """The reviews that are to be closed, for whoever closes them."""
    if not may(request.user, emergencies.CLOSE_PERMISSION):
        return None
    return EmergencyReview.objects.visible_to(request.user).open()


nav(
    "Inbox", "approvals:inbox", icon="list-check", order=15, permission="approvals.request.decide", group="Work",
    badge=_waiting,
)  # fmt: skip
nav("Approvals", "approvals:request-list", icon="clipboard-check", order=20, group="Work")
nav("Policies", "approvals:policy-list", icon="scale", order=10, group="Governance")
nav("Delegations", "approvals:delegation-list", icon="users", order=12, group="Governance")
nav(
    "Emergency reviews", "approvals:review-list", icon="alert-triangle", order=14,
    permission="approvals.request.view", group="Governance", badge=_reviews,
)  # fmt: skip
nav(
    "Standard changes", "approvals:standard-list", icon="refresh", order=16, permission="approvals.request.view",
    group="Governance",
)  # fmt: skip


@panel(page="team", order=5, permission="approvals.request.view")
def blocking(request: HttpRequest, team: Any) -> dict[str, Any] | None:
    """What holds up the team's next request: emergencies to be reviewed, standard changes it has lost."""
    found = blocking_of_team(request.user, team)
    return {"template": "approvals/panels/blocking.html", **found} if found else None


@panel(page="home", order=10)
def for_you_to_decide(request: HttpRequest, obj: Any) -> dict[str, Any] | None:
    """What waits for the person, what is due first on top, with cost and age; also for who only stands in."""
    if not may(request.user, "approvals.request.decide") and not delegating.voices_for(request.user):
        return None
    rows = list(inbox.ordered(inbox.ways_of(request))[: PANEL_ROWS + 1])
    return {
        "template": "approvals/panels/for_you_to_decide.html",
        "rows": [{"request": row, "cost": notices.signed_cost(row)} for row in rows[:PANEL_ROWS]],
        "more": len(rows) > PANEL_ROWS,
        "all_url": reverse("approvals:inbox"),
    }
