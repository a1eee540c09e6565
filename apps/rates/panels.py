"""The rates room in the navigation, and prices that wait for a second person on the home page."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.urls import reverse

from apps.rates import selectors
from apps.rates.actions import APPROVE
from apps.rates.querysets import ProposalQuerySet
from portal.panels import nav, panel

PANEL_ROWS = 10


def _waiting(request: HttpRequest) -> ProposalQuerySet:
    return selectors.waiting_proposals(request.user)


nav("Rate cards", "rates:card-list", icon="receipt", order=40, group="Money", badge=_waiting)


@panel(page="home", order=11, permission=APPROVE)
def for_you_to_decide(request: HttpRequest, obj: Any) -> dict[str, Any] | None:
    """Proposed prices that this person may publish, oldest first; nothing where none wait."""
    rows = list(selectors.waiting_proposals(request.user)[: PANEL_ROWS + 1])
    if not rows:
        return None
    return {
        "template": "rates/panels/for_you_to_decide.html",
        "rows": rows[:PANEL_ROWS],
        "more": len(rows) > PANEL_ROWS,
        "all_url": f"{reverse('rates:proposal-list')}?status=proposed",
    }
