"""What the account of a program asks for: whoever stands behind it decides nothing of it, and it decides nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from apps.approvals import actions, deciders, delegating
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Invalid, NotAllowed
from apps.teams import service_actions
from apps.teams.choices import Role
from tests.factories import Company, grant

pytestmark = pytest.mark.django_db


def _program(company: Company) -> Any:
    """A program of the Finance team that the platform admin made, with a token that the unit's owner made."""
    admin = Actor.of(company.admin)
    account = service_actions.create_service_account(
        "Nightly", "Submits the nightly training", "team_lead", team_id=company.finance_team.pk, actor=admin
    )
    grant(company.vp, Role.TEAM_LEAD, team=company.finance_team)
    service_actions.create_service_token(
        account.pk, "key", clock.now() + timedelta(days=9), False, actor=Actor.of(company.vp),
        permissions=["teams.team.view"],
    )  # fmt: skip
    # Whoever led the team for a day does so no more; the secret is still known.
    company.vp.role_grants.filter(role=Role.TEAM_LEAD).update(revoked_at=clock.now())
    return account


@pytest.mark.requirement("service-accounts-2.8")
def test_who_made_a_token_decides_nothing_that_the_program_asks(office: Any, company: Company) -> None:
    account = _program(company)
    request = office.submit(by=account.user)
    barred = deciders.barred(request)
    assert barred[company.vp.pk] == barred[company.admin.pk] == deciders.SERVICE_RULE
    with pytest.raises(NotAllowed, match="asking oneself"):
        actions.decide(
            request.pk, "approve", "Looks fine", actor=Actor.of(company.vp), expected_digest=request.subject_digest
        )
    other = office.submit()
    assert deciders.SERVICE_RULE not in deciders.barred(other).values(), "what people ask is not touched"


@pytest.mark.requirement("service-accounts-2.3", "service-accounts-2.10")
def test_a_program_fills_no_seat_and_stands_in_for_nobody(office: Any, company: Company) -> None:
    account = _program(company)
    grant(account.user, Role.UNIT_OWNER, unit=company.unit)
    assert account.user.pk not in deciders.holders("unit_owner", company.unit.pk)
    request = office.submit()
    with pytest.raises(NotAllowed):
        actions.decide(
            request.pk, "approve", "Looks fine", actor=Actor.of(account.user), expected_digest=request.subject_digest
        )
    with pytest.raises(Invalid) as refused:
        delegating.create(
            company.vp.pk, account.user.pk, "unit_owner", end=clock.now() + timedelta(days=2), reason="Leave",
            actor=Actor.of(company.vp),
        )  # fmt: skip
    assert list(refused.value.errors) == ["delegate"]
