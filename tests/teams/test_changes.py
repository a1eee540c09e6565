"""Renaming, moving and archiving units and teams, now and on a date; hours before keep their owner."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from apps.accounts.models import User
from apps.audit.selectors import events_for
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Blocked, Conflict, Invalid, NotAllowed
from apps.core.models import OutboxMessage
from apps.core.permissions import may
from apps.metering.context import ClusterContext, Owner, former_places, owner_of_team
from apps.metering.sources.base import ms
from apps.teams import actions, changes, people_tasks, ports, scope
from apps.teams.changes import Wish
from apps.teams.choices import ChangeStatus, Role
from apps.teams.models import FormerPlace, Membership, PlannedChange, RoleGrant, Team, Unit
from tests.factories import Company, client_for, forget_scopes, grant, make_team, make_unit, make_user

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)


def move(company: Company, goal: Unit, **extra: Any) -> PlannedChange:
    return changes.change_team(
        company.finance_team.pk, Wish(unit_id=goal.pk), "reorganisation", actor=Actor.of(company.admin), **extra
    )


def owner_at(team: Team, at: datetime) -> Owner:
    """Return whose an hour is, as metering asks when it reads it only now."""
    context = ClusterContext(cluster_id=1)
    now = Team.objects.select_related("unit").get(pk=team.pk)
    context.owners = {"finance-dev": owner_of_team(now)}
    context.former = former_places(at - timedelta(days=400))
    return context.owner_of(ms(clock.hour_floor(at)), "finance-dev")


@pytest.mark.requirement("people-and-units-1.1")
def test_a_team_is_renamed_and_re_assigned_at_once_and_recorded(company: Company) -> None:
    wish = Wish(name=" Treasury ", cost_centre="CC-9")
    done = changes.change_team(company.finance_team.pk, wish, "new name", actor=Actor.of(company.admin))
    team = Team.objects.get(pk=company.finance_team.pk)
    assert (done.status, team.name, team.cost_centre, team.slug) == (ChangeStatus.DONE, "Treasury", "CC-9", "finance")
    event = events_for(team.uid).get(action="teams.team.changed")
    assert event.data["changes"]["before"] == {"name": "Finance", "cost_centre": "CC-finance"}
    assert event.data["changes"]["after"] == {"name": "Treasury", "cost_centre": "CC-9"}
    told = OutboxMessage.objects.get(event="teams.team.changed").recipient_ids
    assert told == sorted([company.lead_finance.pk, company.vp.pk])
    with pytest.raises(Invalid, match="Nothing would change"):
        changes.change_team(team.pk, wish, "again", actor=Actor.of(company.admin))
    with pytest.raises(Invalid) as refused:
        changes.change_team(team.pk, Wish(name=" ", cost_centre=" "), " ", actor=Actor.of(company.admin))
    assert set(refused.value.errors) == {"name", "cost_centre", "reason"}
    with pytest.raises(Conflict):
        changes.change_team(team.pk, Wish(name="X"), "old", expected_version=1, actor=Actor.of(company.admin))
    with pytest.raises(NotAllowed):
        changes.change_team(team.pk, Wish(name="X"), "mine", actor=Actor.of(company.vp))


@pytest.mark.requirement("people-and-units-1.1", "people-and-units-1.2")
def test_a_move_changes_who_sees_and_hours_before_keep_their_owner(company: Company, frozen_clock: datetime) -> None:
    before = owner_at(company.finance_team, frozen_clock)
    clock.advance(timedelta(minutes=30))
    move(company, company.other_unit)
    for person in (company.vp, company.vp_other):
        forget_scopes(person)
    assert may(company.vp_other, "teams.team.view", company.finance_team)
    assert not may(company.vp, "teams.team.view", company.finance_team)
    clock.advance(timedelta(days=2))
    assert owner_at(company.finance_team, frozen_clock) == before, "the hour of the change is its first owner's"
    late = owner_at(company.finance_team, frozen_clock - timedelta(days=300))
    assert (late.unit_id, late.unit_path) == (company.unit.pk, (company.root.pk, company.unit.pk))
    after = owner_at(company.finance_team, frozen_clock + HOUR)
    assert (after.unit_id, after.unit_name) == (company.other_unit.pk, "Other Unit")


@pytest.mark.requirement("people-and-units-1.2")
def test_a_change_carried_out_late_counts_from_its_moment(company: Company, frozen_clock: datetime) -> None:
    at = frozen_clock + 2 * HOUR
    move(company, company.other_unit, effective_at=at)
    clock.advance(5 * HOUR)
    assert people_tasks.planned_changes() == 1
    assert people_tasks.planned_changes() == 0
    assert owner_at(company.finance_team, at - HOUR).unit_id == company.unit.pk
    assert owner_at(company.finance_team, at).unit_id == company.other_unit.pk


@pytest.mark.requirement("people-and-units-1.2")
def test_two_changes_make_two_former_places_and_none_for_an_instant(company: Company, frozen_clock: datetime) -> None:
    admin = Actor.of(company.admin)
    changes.change_unit(company.unit.pk, Wish(name="Retail"), "brand", actor=admin)
    move(company, company.other_unit)
    clock.advance(HOUR)
    changes.change_team(company.finance_team.pk, Wish(cost_centre="CC-9"), "books", actor=admin)
    places = FormerPlace.objects.filter(team=company.finance_team).order_by("valid")
    seen = [(place.valid.lower, place.unit_name, place.cost_centre) for place in places]
    assert seen == [(None, "Retail Bank", "CC-finance"), (frozen_clock, "Other Unit", "CC-finance")]
    assert FormerPlace.objects.filter(team=company.marketing_team).count() == 1, "a unit's name is its teams', too"


@pytest.mark.requirement("people-and-units-1.3")
def test_a_unit_takes_everything_along_and_never_below_itself(company: Company) -> None:
    deep = make_unit("Fraud", make_unit("Cards", company.unit))
    admin = Actor.of(company.admin)
    with pytest.raises(Blocked, match="cannot be part of itself"):
        changes.change_unit(company.unit.pk, Wish(unit_id=deep.pk), "odd", actor=admin)
    changes.change_unit(company.unit.pk, Wish(unit_id=company.other_unit.pk), "merged", actor=admin)
    deep.refresh_from_db()
    assert deep.path[:3] == [company.root.pk, company.other_unit.pk, company.unit.pk]
    forget_scopes(company.vp_other)
    assert may(company.vp_other, "teams.unit.view", deep)
    changes.change_unit(company.unit.pk, Wish(to_top=True), "spun off", actor=admin)
    deep.refresh_from_db()
    assert deep.path[0] == company.unit.pk
    for unit in Unit.objects.all():
        assert unit.path == [*(unit.parent.path if unit.parent else []), unit.pk]


@pytest.mark.requirement("people-and-units-1.4")
def test_nobody_moves_anything_under_a_role_of_their_own(company: Company, frozen_clock: datetime) -> None:
    at = frozen_clock + HOUR
    move(company, company.other_unit, effective_at=at)
    second = make_user("second-admin@example.com")
    grant(second, Role.PLATFORM_ADMIN)
    grant(company.admin, Role.UNIT_OWNER, unit=company.root)
    grant(company.admin, Role.FINANCE, unit=company.other_unit)
    clock.advance(2 * HOUR)
    assert people_tasks.planned_changes() == 1
    planned = PlannedChange.objects.get()
    assert (planned.status, "nobody widens" in planned.problem) == (ChangeStatus.REFUSED, True)
    with pytest.raises(NotAllowed) as refused:
        move(company, company.other_unit)
    assert refused.value.rule == "not_oneself"
    changes.change_team(
        company.finance_team.pk, Wish(unit_id=company.other_unit.pk), "by another", actor=Actor.of(second)
    )


@pytest.mark.requirement("people-and-units-1.5")
def test_one_change_waits_can_be_cancelled_and_its_failure_is_told(company: Company, frozen_clock: datetime) -> None:
    admin, at = Actor.of(company.admin), frozen_clock + HOUR
    planned = move(company, company.other_unit, effective_at=at)
    assert planned.status == ChangeStatus.PLANNED
    assert Team.objects.get(pk=company.finance_team.pk).unit_id == company.unit.pk
    with pytest.raises(Conflict, match="planned already"):
        move(company, company.root)
    with pytest.raises(Invalid):
        changes.change_unit(company.unit.pk, Wish(name="X"), "past", effective_at=at - 2 * HOUR, actor=admin)
    changes.cancel(planned.pk, "not after all", actor=admin)
    with pytest.raises(Conflict):
        changes.cancel(planned.pk, "again", actor=admin)
    move(company, company.other_unit, effective_at=at)
    Unit.objects.filter(pk=company.other_unit.pk).update(archived_at=frozen_clock)
    clock.advance(2 * HOUR)
    people_tasks.planned_changes()
    assert PlannedChange.objects.latest("pk").problem == "This unit is not in use."
    refused = OutboxMessage.objects.get(event="teams.change.refused")
    assert company.admin.pk in refused.recipient_ids


@pytest.mark.requirement("people-and-units-1.6", "people-and-units-1.7")
def test_archiving_ends_rights_keeps_the_rest_and_can_be_undone(company: Company) -> None:
    admin, team = Actor.of(company.admin), company.finance_team
    changes.change_team(team.pk, Wish(archive=True), "dissolved", actor=admin)
    assert not RoleGrant.objects.in_force().filter(team=team).exists()
    assert not Membership.objects.current().filter(team=team).exists()
    assert Membership.objects.filter(team=team).count() == 2, "that they were stays on record"
    assert not scope.members(team.pk)
    restored = changes.restore(Team.objects.get(pk=team.pk), "needed again", actor=admin)
    assert restored.archived_at is None
    assert not scope.members(team.pk)
    with pytest.raises(Conflict):
        changes.restore(restored, "again", actor=admin)


@pytest.mark.requirement("people-and-units-1.6")
def test_what_is_in_use_is_not_archived_and_the_page_says_what(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = Actor.of(company.admin)
    with pytest.raises(Blocked, match="3 teams in it"):
        changes.change_unit(company.unit.pk, Wish(archive=True), "x", actor=admin)
    monkeypatch.setitem(ports._objections, "test", lambda team: [f"{team.name} holds a thing."])
    with pytest.raises(Blocked, match="Finance holds a thing"):
        changes.change_team(company.finance_team.pk, Wish(archive=True), "x", actor=admin)
    page = client_for(company.admin).get("/teams/finance/archive/")
    assert page.status_code == 409
    assert "Finance holds a thing." in page.content.decode()


@pytest.mark.requirement("people-and-units-1.6")
def test_rooms_above_say_what_is_in_use(company: Company) -> None:
    from apps.clusters.models import Cluster
    from apps.quotas.models import Workspace

    cluster = Cluster.objects.create(name="Alpha", slug="alpha")
    Workspace.objects.create(
        team=company.finance_team, cluster=cluster, environment="development", namespace="finance-dev"
    )
    assert "1 workspace in use: archive first." in ports.objections_to_archiving(company.finance_team)
    assert not ports.objections_to_archiving(company.research_team)


@pytest.mark.requirement("people-and-units-1.1", "people-and-units-1.5", "people-and-units-1.7")
def test_pages_change_plan_cancel_archive_and_restore(company: Company) -> None:
    client = client_for(company.admin)
    text = client.get("/teams/finance/change/").content.decode()
    assert 'value="Finance"' in text
    when = (clock.now() + timedelta(days=3)).strftime("%Y-%m-%dT%H:%M")
    form = {"name": "Treasury", "cost_centre": "CC-9", "unit": "other-unit", "reason": "moves"}
    assert client.post("/teams/finance/change/", {**form, "effective_at": when}).status_code == 303
    shown = client.get("/teams/finance/people/").content.decode()
    assert "called Treasury, moved to Other Unit, paid by CC-9" in shown
    planned = PlannedChange.objects.get()
    assert client.get("/teams/finance/change/").status_code == 409
    assert client.post(f"/planned-changes/{planned.uid}/cancel/", {"reason": "no"}).status_code == 303
    assert client.post("/teams/finance/change/", form).status_code == 303
    assert client.post("/teams/finance/archive/", {"reason": "gone"}).status_code == 303
    assert "Treasury" in client.get("/units/other-unit/").content.decode()
    assert client.post("/teams/finance/restore/", {"reason": "back"}).status_code == 303
    assert client.get("/units/retail-bank/change/").status_code == 200


@pytest.mark.requirement("people-and-units-7.1")
def test_api_takes_the_same_changes(company: Company) -> None:
    client = client_for(company.admin)
    url = f"/api/v1/teams/{company.finance_team.uid}/change"
    body = {"name": "Treasury", "unit_uid": str(company.other_unit.uid), "reason": "moves"}
    done = client.post(url, body, content_type="application/json")
    assert (done.status_code, done.json()["status"]) == (200, "done")
    assert Team.objects.get(pk=company.finance_team.pk).unit_id == company.other_unit.pk
    later = {"cost_centre": "CC-9", "reason": "books", "effective_at": (clock.now() + timedelta(days=1)).isoformat()}
    planned = client.post(url, later, content_type="application/json", headers={"If-Match": '"2"'}).json()
    assert planned["status"] == "planned"
    assert len(client.get("/api/v1/planned-changes?status=planned").json()["results"]) == 1
    cancelled = client.post(
        f"/api/v1/planned-changes/{planned['uid']}/cancel", {"reason": "no"}, content_type="application/json"
    )
    assert cancelled.json()["status"] == "cancelled"
    stale = client.post(url, body, content_type="application/json", headers={"If-Match": '"1"'})
    assert stale.status_code == 412
    refused = client_for(company.lead_finance).post(url, body, content_type="application/json")
    assert refused.status_code == 403


@pytest.mark.requirement("people-and-units-2.1")
def test_rights_to_come_count_from_their_first_to_their_last_moment(company: Company, frozen_clock: datetime) -> None:
    admin, person = Actor.of(company.admin), make_user("joins@example.com")
    start, end = frozen_clock + HOUR, frozen_clock + 2 * HOUR
    actions.add_member(company.finance_team.pk, person.pk, since=start, until=end, actor=admin)
    actions.grant_role(
        person.pk, Role.FINANCE, unit_id=company.unit.pk, starts_at=start, expires_at=end, reason="audit", actor=admin
    )
    with pytest.raises(Invalid, match="has this role there from"):
        actions.grant_role(person.pk, Role.FINANCE, unit_id=company.unit.pk, reason="again", actor=admin)
    with pytest.raises(Invalid, match="will be a member from"):
        actions.add_member(company.finance_team.pk, person.pk, actor=admin)
    seen = []
    for _ in range(4):
        forget_scopes(person)
        seen.append(
            (
                may(person, "quotas.workspace.use", company.finance_team),
                may(person, "costs.budget.set", company.marketing_team),
            )
        )
        clock.advance(HOUR)
    assert seen == [(False, False), (True, True), (False, False), (False, False)]
    for times in ({"since": end, "until": start}, {"since": start}):
        with pytest.raises(Invalid):
            actions.add_member(company.marketing_team.pk, person.pk, actor=admin, **times)


@pytest.mark.requirement("people-and-units-2.1")
def test_a_membership_to_come_is_shown_and_can_be_taken_back(company: Company) -> None:
    admin, person = Actor.of(company.admin), make_user("joins@example.com", display_name="New analyst")
    actions.add_member(company.finance_team.pk, person.pk, since=clock.now() + HOUR, actor=admin)
    client = client_for(company.lead_finance)
    assert "Members to come" in client.get("/teams/finance/people/").content.decode()
    assert client.post(f"/teams/finance/people/{person.uid}/remove/").status_code == 303
    assert Membership.objects.get(user=person).valid.isempty
    assert "Members to come" not in client.get("/teams/finance/people/").content.decode()


@pytest.mark.requirement("people-and-units-2.2")
def test_a_role_is_extended_by_somebody_else_only(company: Company, frozen_clock: datetime) -> None:
    admin, person = Actor.of(company.admin), make_user("deputy@example.com")
    until = frozen_clock + timedelta(days=1)
    given = actions.grant_role(person.pk, Role.AUDITOR, expires_at=until, reason="r", actor=admin)
    longer = actions.extend_role(given.pk, expires_at=until + timedelta(days=30), reason="still", actor=admin)
    assert RoleGrant.objects.in_force().filter(user=person).get() == longer
    with pytest.raises(Conflict):
        actions.extend_role(given.pk, expires_at=None, reason="again", actor=admin)
    with pytest.raises(Invalid):
        actions.extend_role(longer.pk, expires_at=frozen_clock, reason="past", actor=admin)
    own = RoleGrant.objects.get(user=company.admin)
    with pytest.raises(NotAllowed):
        actions.extend_role(own.pk, expires_at=None, reason="mine", actor=admin)
    page = client_for(company.admin).post(f"/roles/{longer.uid}/extend/", {"reason": "for good"})
    assert page.status_code == 303
    assert RoleGrant.objects.in_force().get(user=person).expires_at is None
    assert User.objects.get(pk=person.pk).is_active


@pytest.mark.requirement("people-and-units-1.6")
def test_a_new_team_in_an_archived_unit_is_refused(company: Company) -> None:
    empty = make_unit("Empty", company.root)
    changes.change_unit(empty.pk, Wish(archive=True), "unused", actor=Actor.of(company.admin))
    assert client_for(company.admin).get("/units/empty/teams/new/").status_code == 404
    assert make_team("Kept", company.unit).archived_at is None


@pytest.mark.requirement("people-and-units-1.2")
def test_claimed_and_imported_hours_keep_their_owner_too(company: Company, frozen_clock: datetime) -> None:
    now = Team.objects.select_related("unit").get(pk=company.finance_team.pk)
    hour, far = ms(frozen_clock), ms(frozen_clock + timedelta(days=9))
    clock.advance(HOUR)
    move(company, company.other_unit)
    moved = Team.objects.select_related("unit").get(pk=now.pk)
    context = ClusterContext(cluster_id=1, former=former_places(frozen_clock - HOUR))
    context.claims = {"strays": [(0, far, owner_of_team(moved))]}
    context.given = {"history": owner_of_team(moved)}
    context.recorded = {(hour, "booked"): owner_of_team(moved)}
    for namespace, unit in (("strays", company.unit), ("history", company.unit), ("booked", company.other_unit)):
        assert context.owner_of(hour, namespace).unit_id == unit.pk, namespace
    assert context.owner_of(hour + ms(frozen_clock + HOUR) - hour, "strays").unit_id == company.other_unit.pk
