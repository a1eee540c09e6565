"""Making units and teams, membership, roles: who may, what is refused, what is recorded."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from apps.accounts.models import User
from apps.audit.models import AuditEvent
from apps.audit.selectors import events_for
from apps.core import clock
from apps.core.actor import Actor, Channel
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.models import OutboxMessage
from apps.core.permissions import may
from apps.teams import actions, scope
from apps.teams.choices import SCOPES, Role
from apps.teams.models import Membership, RoleGrant, Team, Unit
from tests.factories import Company, forget_scopes, grant, make_user

pytestmark = pytest.mark.django_db
SYSTEM = Actor.system("tests", Channel.COMMAND)


@pytest.mark.requirement("teams-2.1")
def test_unit_knows_its_way_to_the_top(company: Company) -> None:
    admin = Actor.of(company.admin)
    unit = actions.create_unit("  Cards   and more ", "cards", company.unit.pk, "CC-1", actor=admin)
    assert (unit.name, unit.path) == ("Cards and more", [company.root.pk, company.unit.pk, unit.pk])
    top = actions.create_unit("Second Group", "second-group", actor=admin)
    assert top.path == [top.pk]
    event = events_for(unit.uid).get()
    assert event.data["changes"] == {"slug": "cards", "parent_uid": str(company.unit.uid), "cost_centre": "CC-1"}


@pytest.mark.requirement("teams-2.2")
@pytest.mark.parametrize("slug", ["", "Finance", "1team", "-x", "x-", "a b", "a_b", "ümlaut", "new", "a" * 41, "a\n"])
def test_team_slug_that_no_namespace_could_begin_with_is_refused(company: Company, slug: str) -> None:
    with pytest.raises(Invalid) as refused:
        actions.create_team("A team", slug, company.unit.pk, "CC", actor=Actor.of(company.admin))
    assert list(refused.value.errors) == ["slug"]
    assert Team.objects.count() == 3


@pytest.mark.requirement("teams-2.2")
@pytest.mark.parametrize("slug", ["a", "a1", "fraud-2", "a" * 40])
def test_team_slug_that_fits_is_taken(company: Company, slug: str) -> None:
    team = actions.create_team("A team", slug, company.unit.pk, "CC", actor=Actor.of(company.admin))
    assert (team.slug, team.colour) == (slug, 3)


@pytest.mark.requirement("teams-2.2")
def test_every_wrong_field_is_named_at_once(company: Company) -> None:
    with pytest.raises(Invalid) as refused:
        actions.create_team(" ", "finance", company.unit.pk, "", actor=Actor.of(company.admin))
    assert set(refused.value.errors) == {"name", "slug", "cost_centre"}
    with pytest.raises(Invalid, match="already"):
        actions.create_unit("Again", "retail-bank", actor=Actor.of(company.admin))


@pytest.mark.requirement("teams-2.3")
@pytest.mark.parametrize("who", ["lead_finance", "vp", "compliance", "finance", "auditor"])
def test_only_platform_admins_make_units_teams_and_roles(company: Company, who: str) -> None:
    actor = Actor.of(company[who])
    calls: list[Any] = [
        lambda: actions.create_unit("X", "x", actor=actor),
        lambda: actions.create_team("X", "x", company.unit.pk, "CC", actor=actor),
        lambda: actions.grant_role(company.member_finance.pk, Role.AUDITOR, actor=actor, reason="r"),
        lambda: actions.revoke_role(RoleGrant.objects.filter(role=Role.AUDITOR).get().pk, actor=actor, reason="r"),
    ]
    before = (Unit.objects.count(), Team.objects.count(), RoleGrant.objects.in_force().count())
    for call in calls:
        with pytest.raises(NotAllowed):
            call()
    assert (Unit.objects.count(), Team.objects.count(), RoleGrant.objects.in_force().count()) == before


@pytest.mark.requirement("teams-3.1")
def test_lead_adds_and_takes_off_members_of_the_own_team_only(company: Company, frozen_clock: datetime) -> None:
    lead, person = Actor.of(company.lead_finance), make_user()
    membership = actions.add_member(company.finance_team.pk, person.pk, actor=lead)
    assert (membership.valid.lower, membership.valid.upper) == (frozen_clock, None)
    assert may(person, "quotas.workspace.use", company.finance_team)
    with pytest.raises(Invalid, match="already"):
        actions.add_member(company.finance_team.pk, person.pk, actor=lead)
    with pytest.raises(NotAllowed):
        actions.add_member(company.marketing_team.pk, person.pk, actor=lead)
    clock.advance(timedelta(days=1))
    ended = actions.remove_member(company.finance_team.pk, person.pk, actor=lead)
    assert ended.valid.upper == frozen_clock + timedelta(days=1)
    forget_scopes(person)
    assert not may(person, "quotas.workspace.use", company.finance_team)
    with pytest.raises(Conflict):
        actions.remove_member(company.finance_team.pk, person.pk, actor=lead)
    actions.add_member(company.finance_team.pk, person.pk, actor=lead)
    assert Membership.objects.filter(user=person).count() == 2
    names = [event.action for event in events_for(company.finance_team.uid)]
    assert sorted(names) == ["teams.member.added", "teams.member.added", "teams.member.removed"]
    assert OutboxMessage.objects.filter(event="teams.member.added", recipient_ids=[person.pk]).count() == 2


@pytest.mark.requirement("teams-3.1")
def test_member_taken_off_in_the_same_instant_leaves_a_trace(company: Company, frozen_clock: datetime) -> None:
    person = make_user()
    actions.add_member(company.finance_team.pk, person.pk, actor=SYSTEM)
    actions.remove_member(company.finance_team.pk, person.pk, actor=SYSTEM)
    row = Membership.objects.get(user=person)
    assert row.valid.lower == frozen_clock
    assert not row.valid.isempty
    clock.advance(timedelta(microseconds=1))
    assert person.pk not in scope.members(company.finance_team.pk)


@pytest.mark.requirement("teams-3.2")
def test_nobody_changes_their_own_membership(company: Company) -> None:
    lead = Actor.of(company.lead_finance)
    with pytest.raises(NotAllowed) as refused:
        actions.remove_member(company.finance_team.pk, company.lead_finance.pk, actor=lead)
    assert refused.value.rule == "not_oneself"
    with pytest.raises(NotAllowed):
        actions.add_member(company.finance_team.pk, company.admin.pk, actor=Actor.of(company.admin))


@pytest.mark.requirement("teams-4.1")
def test_nobody_gives_themselves_a_role_nor_through_a_delegate(company: Company) -> None:
    own = Actor.of(company.admin)
    deputy = make_user()
    grant(deputy, Role.PLATFORM_ADMIN)
    delegated = Actor(user_id=deputy.pk, channel=Channel.WEB, request_id="r", on_behalf_of=company.admin.pk)
    for actor in (own, delegated):
        with pytest.raises(NotAllowed) as refused:
            actions.grant_role(company.admin.pk, Role.AUDITOR, actor=actor, reason="to look")
        assert refused.value.rule == "not_oneself"
    assert not RoleGrant.objects.filter(user=company.admin, role=Role.AUDITOR).exists()


@pytest.mark.requirement("teams-4.2")
@pytest.mark.parametrize("role", [role for role in Role.values if role != Role.MEMBER])
@pytest.mark.parametrize("where", ["installation", "unit", "team"])
def test_role_is_given_only_where_it_makes_sense(company: Company, role: str, where: str) -> None:
    person = make_user()
    places = {"unit": {"unit_id": company.unit.pk}, "team": {"team_id": company.finance_team.pk}, "installation": {}}
    if where in SCOPES[role]:
        given = actions.grant_role(person.pk, role, actor=Actor.of(company.admin), reason="r", **places[where])
        assert (given.unit_id, given.team_id) == (places[where].get("unit_id"), places[where].get("team_id"))
    else:
        with pytest.raises(Invalid) as refused:
            actions.grant_role(person.pk, role, actor=Actor.of(company.admin), reason="r", **places[where])
        assert "scope" in refused.value.errors


@pytest.mark.requirement("teams-4.2")
def test_wrong_input_to_a_role_is_named_beside_its_field(company: Company, frozen_clock: datetime) -> None:
    admin, person = Actor.of(company.admin), make_user()
    gone = make_user(is_active=False)

    def errors(**given: Any) -> set[str]:
        values = {"user_id": person.pk, "role": Role.AUDITOR, "reason": "r", **given}
        with pytest.raises(Invalid) as refused:
            actions.grant_role(actor=admin, **values)
        return set(refused.value.errors)

    assert errors(reason=" ") == {"reason"}
    assert errors(role="boss") == {"role"}
    assert errors(role=Role.MEMBER, team_id=company.finance_team.pk) == {"role"}
    assert errors(user_id=gone.pk) == {"user"}
    assert errors(user_id=0) == {"user"}
    assert errors(expires_at=frozen_clock) == {"expires_at"}
    assert errors(unit_id=company.unit.pk, team_id=company.finance_team.pk) == {"scope"}
    with pytest.raises(NotVisible):
        actions.grant_role(person.pk, Role.TEAM_LEAD, team_id=987654, actor=admin, reason="r")


@pytest.mark.requirement("teams-4.3")
def test_role_given_twice_is_refused_but_an_expired_one_makes_room(company: Company, frozen_clock: datetime) -> None:
    admin, person = Actor.of(company.admin), make_user()
    until = frozen_clock + timedelta(days=1)
    actions.grant_role(person.pk, Role.AUDITOR, actor=admin, reason="review", expires_at=until)
    with pytest.raises(Invalid, match="already"):
        actions.grant_role(person.pk, Role.AUDITOR, actor=admin, reason="again")
    clock.advance(timedelta(days=2))
    actions.grant_role(person.pk, Role.AUDITOR, actor=admin, reason="again")
    assert RoleGrant.objects.in_force().filter(user=person).count() == 1


@pytest.mark.requirement("teams-4.4")
def test_revoked_role_is_gone_at_once_and_recorded_with_its_reason(company: Company) -> None:
    given = RoleGrant.objects.get(user=company.auditor)
    admin = Actor.of(company.admin)
    with pytest.raises(Invalid):
        actions.revoke_role(given.pk, actor=admin)
    actions.revoke_role(given.pk, actor=admin, reason="left the department")
    assert not may(User.objects.get(pk=company.auditor.pk), "audit.event.view")
    with pytest.raises(Conflict):
        actions.revoke_role(given.pk, actor=admin, reason="again")
    event = AuditEvent.objects.get(action="teams.role.revoked")
    assert event.data["changes"]["user_uid"] == str(company.auditor.uid)
    assert "left the department" not in event.canonical_text


@pytest.mark.requirement("teams-4.5")
def test_last_platform_admin_stays(company: Company) -> None:
    only = RoleGrant.objects.get(role=Role.PLATFORM_ADMIN)
    with pytest.raises(Conflict, match="last platform admin"):
        actions.revoke_role(only.pk, actor=SYSTEM)
    second = grant(make_user(), Role.PLATFORM_ADMIN)
    grant(make_user(is_active=False), Role.PLATFORM_ADMIN)
    actions.revoke_role(only.pk, actor=SYSTEM)
    with pytest.raises(Conflict):
        actions.revoke_role(second.pk, actor=SYSTEM)
