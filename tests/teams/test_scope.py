"""The scope resolver: what counts, where, and when it stops counting."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.accounts.models import User
from apps.core import clock
from apps.core.permissions import may, reach
from apps.teams import scope
from apps.teams.choices import ALL_PERMISSIONS, PERMISSIONS, SCOPES, Role, roles_with
from apps.teams.models import RoleGrant, Team, Unit
from tests.factories import Company, forget_scopes, grant, make_member, make_team, make_unit, make_user

pytestmark = pytest.mark.django_db


@pytest.mark.requirement("teams-1.1")
def test_expired_role_counts_for_nothing_without_any_scheduler(company: Company, frozen_clock: datetime) -> None:
    person = make_user()
    grant(person, Role.TEAM_LEAD, team=company.finance_team, expires_at=frozen_clock + timedelta(hours=1))
    assert may(person, "quotas.request.create", company.finance_team)
    clock.advance(timedelta(minutes=59, seconds=59))
    assert may(person, "quotas.request.create", company.finance_team)
    clock.advance(timedelta(seconds=1))
    assert not may(person, "quotas.request.create", company.finance_team)
    assert not Team.objects.visible_to(person).exists()
    assert person.pk not in scope.holders("quotas.request.create", team_id=company.finance_team.pk)


@pytest.mark.requirement("teams-1.1")
def test_revoked_role_counts_for_nothing(company: Company, frozen_clock: datetime) -> None:
    person = make_user()
    given_role = grant(person, Role.AUDITOR)
    assert may(person, "audit.event.view")
    RoleGrant.objects.filter(pk=given_role.pk).update(revoked_at=clock.now())
    forget_scopes(person)
    assert not may(person, "audit.event.view")


@pytest.mark.requirement("teams-1.2")
def test_unit_role_reaches_the_whole_subtree_and_nothing_beside_it(company: Company) -> None:
    deep = make_unit("Cards", make_unit("Payments", company.unit))
    below, beside = make_team("Fraud", deep), make_team("Elsewhere", company.other_unit)
    assert may(company.vp, "reports.monthly.view", below)
    assert may(company.vp, "reports.monthly.view", deep)
    assert not may(company.vp, "reports.monthly.view", beside)
    assert not may(company.vp, "reports.monthly.view", company.root), "a unit role does not reach upwards"
    assert set(Team.objects.visible_to(company.vp)) == {*company.teams.values(), below}
    assert set(Team.objects.visible_to(company.vp_other)) == {beside}


@pytest.mark.requirement("teams-1.2")
def test_team_role_reaches_no_sibling(company: Company) -> None:
    assert set(Team.objects.visible_to(company.lead_finance)) == {company.finance_team}
    assert not may(company.lead_finance, "teams.team.view", company.marketing_team)
    assert not Unit.objects.visible_to(company.lead_finance).exists()


@pytest.mark.requirement("teams-1.3")
def test_deactivated_person_holds_nothing(company: Company) -> None:
    User.objects.filter(pk=company.admin.pk).update(is_active=False)
    gone = User.objects.get(pk=company.admin.pk)
    assert not any(may(gone, permission) for permission in ALL_PERMISSIONS)
    assert not Team.objects.visible_to(gone).exists()
    assert gone.pk not in scope.holders("teams.grant.manage")
    assert reach(gone, "teams.grant.view").everywhere is False


@pytest.mark.requirement("teams-1.3")
def test_superuser_flag_grants_nothing() -> None:
    person = make_user(is_superuser=True)
    assert not any(may(person, permission) for permission in ALL_PERMISSIONS)


@pytest.mark.requirement("teams-1.4")
def test_membership_counts_from_its_first_to_its_last_moment(company: Company, frozen_clock: datetime) -> None:
    person = make_user()
    make_member(
        person, company.finance_team, since=frozen_clock + timedelta(hours=1), until=frozen_clock + timedelta(hours=2)
    )
    seen = []
    for _ in range(4):
        seen.append(
            (
                may(person, "quotas.workspace.use", company.finance_team),
                person.pk in scope.members(company.finance_team.pk),
            )
        )
        clock.advance(timedelta(hours=1))
    assert seen == [(False, False), (True, True), (False, False), (False, False)]


@pytest.mark.requirement("teams-1.5")
def test_unknown_permission_is_a_mistake_not_a_no(company: Company) -> None:
    with pytest.raises(KeyError):
        may(company.admin, "quotas.request.creat")


@pytest.mark.requirement("teams-1.5")
def test_every_role_has_permissions_and_places() -> None:
    assert set(PERMISSIONS) == set(SCOPES) == set(Role.values)
    assert all(roles_with(permission) for permission in ALL_PERMISSIONS)
    assert "audit.event.view" not in PERMISSIONS[Role.PLATFORM_ADMIN], "admins do not read what is written about them"


@pytest.mark.requirement("teams-1.6")
def test_scope_costs_one_query_a_request(company: Company, django_assert_num_queries: object) -> None:
    forget_scopes(company.vp)
    with django_assert_num_queries(1):  # type: ignore[operator]  # pytest-django's fixture has no public type
        for _ in range(5):
            scope.of(company.vp).anywhere("reports.monthly.view")
            scope.of(company.vp).everywhere("teams.team.view")


@st.composite
def _worlds(draw: st.DrawFn) -> tuple[list[int | None], list[int], list[tuple[int, str, str, int, int]]]:
    parents: list[int | None] = [None]
    for index in range(1, draw(st.integers(2, 6))):
        parents.append(draw(st.one_of(st.none(), st.integers(0, index - 1))))
    teams = draw(st.lists(st.integers(0, len(parents) - 1), min_size=1, max_size=4))
    roles = [role for role in Role.values if role != Role.MEMBER]
    grants = draw(
        st.lists(
            st.tuples(
                st.integers(0, 2),
                st.sampled_from(roles),
                st.sampled_from(["installation", "unit", "team"]),
                st.integers(0, 5),
                st.sampled_from([-2, -1, 1, 2]),
            ),
            max_size=6,
        )
    )
    return parents, teams, grants


@pytest.mark.requirement("teams-1.2")
@settings(
    max_examples=15, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
@given(world=_worlds())
def test_resolver_agrees_with_a_walk_up_the_tree(db: None, world: object) -> None:
    """Oracle: a permission is held for a team iff a living grant of a role with it lies on the way to the top."""
    from django.db import transaction

    parents, team_units, grants = world  # type: ignore[misc]  # drawn above
    with transaction.atomic():
        units: list[Unit] = []
        for index, parent in enumerate(parents):
            units.append(make_unit(f"u{index}", units[parent] if parent is not None else None))
        teams = [make_team(f"t{index}", units[unit]) for index, unit in enumerate(team_units)]
        people = [make_user(f"p{index}@example.com") for index in range(3)]
        now = clock.now()
        living: set[tuple[int, str, str, int]] = set()
        for who, role, kind, where, hours in grants:
            place = where % (len(teams) if kind == "team" else len(units))
            try:
                with transaction.atomic():
                    grant(
                        people[who], role,
                        unit=units[place] if kind == "unit" else None,
                        team=teams[place] if kind == "team" else None,
                        expires_at=now + timedelta(hours=hours),
                    )  # fmt: skip
            except Exception as error:
                if "grant_once" not in str(error):
                    raise
                continue
            if hours > 0:
                living.add((who, role, kind, place if kind != "installation" else 0))

        def ancestors(index: int | None) -> set[int]:
            found = set()
            while index is not None:
                found.add(index)
                index = parents[index]
            return found

        for permission in ("teams.team.view", "approvals.request.decide", "teams.grant.manage", "costs.budget.set"):
            roles = roles_with(permission)
            for who, person in enumerate(people):
                forget_scopes(person)
                expected = set()
                for index, unit in enumerate(team_units):
                    way = {("installation", 0), ("team", index)} | {("unit", above) for above in ancestors(unit)}
                    if any((kind, place) in way for w, role, kind, place in living if w == who and role in roles):
                        expected.add(teams[index])
                assert {team for team in teams if may(person, permission, team)} == expected
                if permission == "teams.team.view":
                    assert set(Team.objects.visible_to(person)) == expected
                    uids = (
                        {team.uid for team in teams}
                        if reach(person, permission).everywhere
                        else reach(person, permission).team_uids
                    )
                    assert uids == {team.uid for team in expected}
                for team in teams:
                    assert (person.pk in scope.holders(permission, team_id=team.pk)) == (team in expected)
        transaction.set_rollback(True)
