"""Entries in the navigation, and *For you to decide* on the home page."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.urls import reverse

from apps.approvals import notices, selectors
from apps.approvals.querysets import ApprovalRequestQuerySet
from apps.core.permissions import may
from portal.panels import nav, panel

PANEL_ROWS = 10


def _waiting(request: HttpRequest) -> ApprovalRequestQuerySet | None:
    """The requests that wait for this person."""
    return selectors.waiting_for(request.user) if may(request.user, "approvals.request.decide") else None


nav("Approvals", "approvals:request-list", icon="clipboard-check", order=20, group="Work", badge=_waiting)
nav("Policies", "approvals:policy-list", icon="scale", order=10, group="Governance")


@panel(page="home", order=10, permission="approvals.request.decide")
def for_you_to_decide(request: HttpRequest, obj: Any) -> dict[str, Any] | None:
    """What waits for the person, oldest first, with cost and age."""
    rows = list(selectors.waiting_rows(request.user)[: PANEL_ROWS + 1])
    return {
        "template": "approvals/panels/for_you_to_decide.html",
        "rows": [{"request": row, "cost": notices.signed_cost(row)} for row in rows[:PANEL_ROWS]],
        "more": len(rows) > PANEL_ROWS,
        "all_url": f"{reverse('approvals:request-list')}?waiting=me",
    }
