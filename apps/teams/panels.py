"""The teams room's navigation, and what it adds to the pages of a team and of a person."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from apps.accounts.choices import UserKind
from apps.accounts.models import User
from apps.core.permissions import may
from apps.teams import review_selectors, selectors
from apps.teams.models import Team
from portal.panels import nav, panel

nav("Units", "teams:unit-list", icon="building", order=20, permission="teams.unit.view", group="Work")
nav("Roles", "teams:grant-list", icon="shield-lock", order=35, permission="teams.grant.view", group="Governance")
nav(
    "Group roles",
    "teams:mapping-list",
    icon="users-group",
    order=36,
    permission="teams.mapping.view",
    group="Governance",
)
nav(
    "Access reviews",
    "teams:review-list",
    icon="list-check",
    order=36,
    permission="teams.review.view",
    group="Governance",
)

nav(
    "Service accounts",
    "teams:service-list",
    icon="key",
    order=37,
    permission="teams.service.view",
    group="Governance",
)

#: The team's page shows this many people; the rest stand on their own page.
SHOWN = 8


@panel(page="team", order=90, permission="teams.team.view")
def people(request: HttpRequest, team: Team) -> dict[str, Any]:
    """Show who belongs to the team."""
    found = selectors.people_of(team)
    return {
        "template": "teams/panels/people.html",
        "team": team,
        "people": found[:SHOWN],
        "more": max(0, len(found) - SHOWN),
        "may_manage": may(request.user, "teams.member.manage", team),
    }


@panel(page="person", order=10, permission="teams.grant.view")
def roles(request: HttpRequest, person: User) -> dict[str, Any]:
    """Show a person's roles and teams."""
    may_manage = may(request.user, "teams.grant.manage") and person.pk != request.user.pk
    return {
        "template": "teams/panels/roles.html",
        "person": person,
        "grants": selectors.grants_of(person),
        "coming": selectors.grants_to_come(person),
        "memberships": selectors.memberships_of(person),
        "may_manage": may_manage,
        # The action takes no others.
        "may_give": may_manage and person.is_active and person.kind == UserKind.PERSON,
    }


@panel(page="home", order=11, permission="teams.review.answer")
def access_review(request: HttpRequest, obj: Any) -> dict[str, Any] | None:
    """Show what an access review asks the person."""
    waiting = review_selectors.waiting_for(request.user)
    if waiting is None:
        return None
    review, count = waiting
    return {"template": "teams/panels/review_home.html", "review": review, "count": count}
