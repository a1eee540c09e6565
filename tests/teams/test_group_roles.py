"""Roles that follow groups: given, taken, withheld by hand, never raised by oneself, never below one admin."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.accounts import ports
from apps.accounts.models import ExternalIdentity, IdentityProvider, User
from apps.audit.models import AuditEvent
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Blocked, Conflict, Invalid, NotAllowed, NotVisible
from apps.core.models import OutboxMessage
from apps.teams import actions, mapping_actions, mapping_selectors, scope
from apps.teams.choices import Role
from apps.teams.group_roles import due, sync_groups, sync_many
from apps.teams.mapping import MEMBER, Held, Rule, Wanted, difference, released, wanted
from apps.teams.mapping_actions import Draft
from apps.teams.models import GroupMapping, Membership, RoleGrant, Team
from tests import factories

SYSTEM = Actor.system("test")


def make_provider(slug: str = "staff", **extra: Any) -> IdentityProvider:
    return IdentityProvider.objects.create(
        name=slug.title(), slug=slug, issuer=f"https://{slug}.example.com", client_id="portal", **extra
    )


def identity(user: User, provider: IdentityProvider, groups: list[str] | None) -> ExternalIdentity:
    return ExternalIdentity.objects.create(user=user, provider=provider, subject=f"sub-{user.pk}", token_groups=groups)


def mapping(provider: IdentityProvider, group: str, role: str, **extra: Any) -> GroupMapping:
    return GroupMapping.objects.create(provider=provider, group=group, role=role, **extra)


def sign_in(row: ExternalIdentity, groups: list[str] | None) -> None:
    """Stand for a sign-in whose ID token names these groups."""
    row.token_groups = groups
    row.save()
    ports.groups_changed(row.user_id, actor=SYSTEM)


@pytest.fixture
def team(db: None) -> Team:
    return factories.make_team("Finance", factories.make_unit("Retail Bank"))


@pytest.fixture
def admin(db: None) -> User:
    person = factories.make_user("root@example.com")
    factories.grant(person, Role.PLATFORM_ADMIN)
    return person


def roles(user: User) -> set[str]:
    user = User.objects.get(pk=user.pk)
    return scope.of(user).roles()


@pytest.mark.requirement("scim-5.1")
def test_groups_of_the_last_sign_in_give_and_take_roles(team: Team) -> None:
    provider, person = make_provider(), factories.make_user()
    row = identity(person, provider, ["finance"])
    mapping(provider, "finance", Role.MEMBER, team=team)
    mapping(provider, "finance", Role.TEAM_LEAD, team=team)
    mapping(provider, "audit", Role.AUDITOR)
    ports.groups_changed(person.pk, actor=SYSTEM)
    assert roles(person) == {Role.MEMBER, Role.TEAM_LEAD}
    assert not sync_groups(person.pk, actor=SYSTEM), "doing it twice changes nothing"
    sign_in(row, ["audit", "Finance"])
    assert roles(person) == {Role.AUDITOR}, "names are compared exactly"
    sign_in(row, None)
    assert roles(person) == {Role.AUDITOR}, "unknown groups take nothing away"
    sign_in(row, [])
    assert roles(person) == set()
    told = OutboxMessage.objects.filter(recipient_ids=[person.pk]).order_by("pk").values_list("event", flat=True)
    assert list(told).count("teams.role.revoked") == 2
    assert AuditEvent.objects.filter(object_id=person.uid, action="teams.role.granted").count() == 2
    with pytest.raises(NotVisible):
        sync_groups(0, actor=SYSTEM)


@pytest.mark.requirement("scim-5.1")
def test_programs_switched_off_and_merged_accounts_gain_nothing(team: Team) -> None:
    provider = make_provider()
    mapping(provider, "finance", Role.TEAM_LEAD, team=team)
    target = factories.make_user()
    for extra in ({"kind": "service"}, {"is_active": False}, {"merged_into": target}):
        person = factories.make_user(**extra)
        identity(person, provider, ["finance"])
        sync_groups(person.pk, actor=SYSTEM)
        assert not RoleGrant.objects.filter(user=person).exists(), extra


@pytest.mark.requirement("scim-5.2")
def test_by_hand_and_by_group_are_kept_apart(team: Team, admin: User) -> None:
    provider, person = make_provider(), factories.make_user()
    factories.grant(person, Role.TEAM_LEAD, team=team)
    by_hand = factories.make_member(person, team)
    row = identity(person, provider, ["finance", "staff"])
    mapping(provider, "finance", Role.MEMBER, team=team)
    mapping(provider, "staff", Role.MEMBER, team=team)
    mapping(provider, "finance", Role.TEAM_LEAD, team=team)
    sync_groups(person.pk, actor=SYSTEM)
    assert RoleGrant.objects.in_force().filter(user=person, role=Role.TEAM_LEAD).count() == 2
    assert Membership.objects.current().filter(user=person).get() == by_hand
    actions.remove_member(team.pk, person.pk, actor=Actor.of(admin))
    sync_many(actor=SYSTEM)
    assert Membership.objects.current().get(user=person).mapping is not None, "the group gives it from then on"
    sign_in(row, ["staff"])
    sync_groups(person.pk, actor=SYSTEM)
    assert Membership.objects.current().get(user=person).mapping is not None, "the other group carries it on"
    sign_in(row, [])
    assert roles(person) == {Role.TEAM_LEAD}, "what a person gave stays"


@pytest.mark.requirement("scim-5.2")
def test_a_membership_by_group_ends_where_a_planned_one_begins(team: Team) -> None:
    provider, person = make_provider(), factories.make_user()
    begins = clock.now() + timedelta(days=30)
    factories.make_member(person, team, since=begins)
    identity(person, provider, ["finance"])
    mapping(provider, "finance", Role.MEMBER, team=team)
    sync_groups(person.pk, actor=SYSTEM)
    assert Membership.objects.current().get(user=person).valid.upper == begins
    assert not sync_groups(person.pk, actor=SYSTEM)


@pytest.mark.requirement("scim-5.3")
@pytest.mark.parametrize("role", [Role.TEAM_LEAD, Role.MEMBER])
def test_what_was_taken_by_hand_stays_away(team: Team, admin: User, role: str) -> None:
    provider, person = make_provider(), factories.make_user()
    row = identity(person, provider, ["finance"])
    rule = mapping(provider, "finance", role, team=team)
    sync_groups(person.pk, actor=SYSTEM)

    def take() -> None:
        if role == Role.MEMBER:
            actions.remove_member(team.pk, person.pk, actor=Actor.of(admin))
        else:
            given = RoleGrant.objects.in_force().get(user=person)
            actions.revoke_role(given.pk, actor=Actor.of(admin), reason="Changed work")

    take()
    assert sync_many(actor=SYSTEM) == 0
    assert roles(person) == set()
    assert [one.user for one in mapping_selectors.withheld(rule)] == [person]
    sign_in(row, [])
    sign_in(row, ["finance"])
    assert roles(person) == {role}, "left and joined again"
    take()
    with pytest.raises(NotAllowed):
        mapping_actions.restore_role(rule.pk, admin.pk, actor=Actor.of(admin), reason="mine")
    with pytest.raises(Invalid):
        mapping_actions.restore_role(rule.pk, person.pk, actor=Actor.of(admin), reason="")
    mapping_actions.restore_role(rule.pk, person.pk, actor=Actor.of(admin), reason="Back at work")
    assert roles(person) == {role}
    with pytest.raises(Conflict):
        mapping_actions.restore_role(rule.pk, person.pk, actor=Actor.of(admin), reason="again")


@pytest.mark.requirement("scim-5.4")
def test_nobody_gains_by_a_mapping_of_their_own(admin: User) -> None:
    provider = make_provider()
    other = factories.make_user()
    twin = factories.make_user(merged_into=admin, is_active=False)
    for person in (admin, other, twin):
        identity(person, provider, ["auditors"])
    rule = mapping_actions.create_mapping(
        Draft(provider.pk, "auditors", Role.AUDITOR), actor=Actor.of(admin), reason="The audit team"
    )
    assert (roles(admin), roles(other)) == ({Role.PLATFORM_ADMIN}, {Role.AUDITOR})
    rule.made_by = twin
    rule.save()
    sync_many(actor=SYSTEM)
    assert roles(admin) == {Role.PLATFORM_ADMIN}, "nor by one that an account merged into theirs made"


@pytest.mark.requirement("scim-5.5")
def test_no_group_takes_the_last_platform_admin(db: None) -> None:
    provider, person = make_provider(), factories.make_user()
    row = identity(person, provider, ["admins"])
    rule = mapping(provider, "admins", Role.PLATFORM_ADMIN)
    sync_groups(person.pk, actor=SYSTEM)
    for _ in range(2):
        sign_in(row, [])
        assert roles(person) == {Role.PLATFORM_ADMIN}
    assert OutboxMessage.objects.filter(event="teams.mapping.last_admin_kept").count() == 1
    row.token_groups = ["admins"]
    row.save()
    with pytest.raises(Blocked):
        mapping_actions.end_mapping(rule.pk, actor=SYSTEM, reason="wrong group")
    factories.grant(factories.make_user(), Role.PLATFORM_ADMIN)
    sign_in(row, [])
    assert roles(person) == set()


@pytest.mark.requirement("scim-5.6")
def test_a_preview_says_exactly_what_making_does(team: Team, admin: User) -> None:
    provider = make_provider()
    gains, off, holds = factories.make_user(), factories.make_user(is_active=False), factories.make_user()
    for person in (admin, gains, off, holds):
        identity(person, provider, ["leads"])
    identity(factories.make_user(), provider, None)
    factories.grant(holds, Role.TEAM_LEAD, team=team)
    draft = Draft(provider.pk, " leads ", Role.TEAM_LEAD, team_id=team.pk)
    found = mapping_selectors.preview(mapping_actions.checked(draft), maker_id=admin.pk)
    assert {one.user for one in found.gains} == {gains, holds}
    assert {one.user: bool(one.note) for one in found.gains} == {gains: False, holds: True}
    assert {one.user for one in found.others} == {admin, off}
    rule = mapping_actions.create_mapping(draft, actor=Actor.of(admin), reason="Leads lead")
    assert set(mapping_selectors.holders(rule)) == {gains.pk, holds.pk}
    assert due() == []
    found_end = mapping_selectors.ending(rule)
    assert ({one.user for one in found_end.loses}, {one.user for one in found_end.keeps}) == ({gains}, {holds})
    with pytest.raises(Conflict):
        mapping_actions.end_mapping(rule.pk, actor=Actor.of(admin), reason="over", expected_version=9)
    mapping_actions.end_mapping(rule.pk, actor=Actor.of(admin), reason="over")
    assert (roles(gains), roles(holds)) == (set(), {Role.TEAM_LEAD})
    with pytest.raises(Conflict):
        mapping_actions.end_mapping(rule.pk, actor=Actor.of(admin), reason="over")


@pytest.mark.requirement("scim-5.6")
def test_mappings_are_checked_before_they_are_made(team: Team, admin: User) -> None:
    provider, actor = make_provider(), Actor.of(admin)
    mapping_actions.create_mapping(Draft(provider.pk, "a", Role.AUDITOR), actor=actor, reason="r")
    for draft, field in (
        (Draft(provider.pk, "a", Role.AUDITOR), "group"),
        (Draft(provider.pk, " ", Role.AUDITOR), "group"),
        (Draft(provider.pk, "b", "emperor"), "role"),
        (Draft(provider.pk, "b", Role.AUDITOR, team_id=team.pk), "scope"),
        (Draft(provider.pk, "b", Role.MEMBER), "scope"),
        (Draft(provider.pk, "b", Role.COMPLIANCE, team_id=team.pk, unit_id=team.unit_id), "scope"),
    ):
        with pytest.raises(Invalid) as refusal:
            mapping_actions.create_mapping(draft, actor=actor, reason="r")
        assert list(refusal.value.errors) == [field]
    with pytest.raises(NotVisible):
        mapping_actions.create_mapping(Draft(0, "b", Role.AUDITOR), actor=actor, reason="r")
    with pytest.raises(NotAllowed):
        mapping_actions.create_mapping(
            Draft(provider.pk, "b", Role.AUDITOR), actor=Actor.of(factories.make_user()), reason="r"
        )


@pytest.mark.requirement("scim-5.6")
def test_the_page_shows_a_preview_and_carries_out_only_what_was_seen(team: Team, admin: User) -> None:
    provider, person = make_provider(), factories.make_user(display_name="Treasury analyst")
    row = identity(person, provider, ["leads"])
    browser = factories.client_for(admin)
    data = {"provider": "staff", "group": "leads", "role": "team_lead", "scope": "team:finance", "reason": "Leads"}
    shown = browser.post("/roles/groups/new/", data)
    assert (shown.status_code, GroupMapping.objects.count()) == (200, 0)
    page = shown.content.decode()
    assert "Treasury analyst" in page
    seen = shown.context["form"]["seen"].value()
    second = factories.make_user(display_name="Late joiner")
    identity(second, provider, ["leads"])
    moved = browser.post("/roles/groups/new/", {**data, "seen": seen})
    assert (moved.status_code, GroupMapping.objects.count()) == (200, 0), "somebody joined since: look again"
    done = browser.post("/roles/groups/new/", {**data, "seen": moved.context["form"]["seen"].value()})
    assert done.status_code == 303
    rule = GroupMapping.objects.get()
    assert (roles(person), roles(second)) == ({Role.TEAM_LEAD}, {Role.TEAM_LEAD})
    listing = browser.get("/roles/groups/").content.decode()
    assert "leads" in listing
    assert "Finance" in listing
    detail = browser.get(f"/roles/groups/{rule.uid}/").content.decode()
    assert "Treasury analyst" in detail
    assert "Treasury analyst" in browser.get(f"/roles/groups/{rule.uid}/end/").content.decode()
    assert browser.post(f"/roles/groups/{rule.uid}/end/", {"reason": "over"}).status_code == 303
    assert roles(person) == set()
    assert browser.get(f"/roles/groups/{rule.uid}/end/").status_code == 409
    assert row.pk


@pytest.mark.requirement("scim-5.6")
def test_the_api_previews_makes_and_ends(team: Team, admin: User) -> None:
    provider, person = make_provider(), factories.make_user()
    identity(person, provider, ["leads"])
    client = factories.client_for(admin)

    def call(path: str, body: dict[str, Any], **headers: str) -> Any:
        return client.post(f"/api/v1/group-mappings{path}", body, content_type="application/json", headers=headers)

    draft = {"provider_uid": str(provider.uid), "group": "leads", "role": "team_lead", "team_uid": str(team.uid)}
    assert [one["user_uid"] for one in call("/preview", draft).json()["gains"]] == [str(person.uid)]
    made = call("", {**draft, "reason": "Leads"})
    assert (made.status_code, made["ETag"]) == (201, '"1"')
    uid = made.json()["uid"]
    assert roles(person) == {Role.TEAM_LEAD}
    assert call(f"/{uid}/end", {"reason": "over"}, **{"If-Match": '"7"'}).status_code == 412
    assert call(f"/{uid}/end", {"reason": "over"}).json()["ended_at"]
    assert roles(person) == set()
    assert call("", {**draft, "team_uid": str(provider.uid), "reason": "r"}).status_code == 400


@pytest.mark.requirement("scim-5.1")
def test_the_sweep_mends_what_was_missed(team: Team) -> None:
    provider, person = make_provider(), factories.make_user()
    identity(person, provider, ["finance"])
    rule = mapping(provider, "finance", Role.TEAM_LEAD, team=team)
    assert sync_many(actor=SYSTEM) == 1
    assert sync_many(actor=SYSTEM) == 0
    team.archived_at = clock.now()
    team.save()
    assert sync_many(actor=SYSTEM) == 1
    assert roles(person) == set()
    team.archived_at = None
    team.save()
    sync_many(actor=SYSTEM)
    assert roles(person) == {Role.TEAM_LEAD}
    provider.archived_at = clock.now()
    provider.save()
    sync_many(actor=SYSTEM)
    assert roles(person) == set()
    assert rule.pk


# -- the pure engine

_GROUPS = st.dictionaries(
    st.sampled_from([1, 2]), st.one_of(st.none(), st.frozensets(st.sampled_from(["a", "b", "c"]))), max_size=2
)
_RULES = st.lists(
    st.builds(
        Rule,
        mapping_id=st.integers(1, 8),
        provider_id=st.sampled_from([1, 2]),
        group=st.sampled_from(["a", "b", "c"]),
        role=st.sampled_from([MEMBER, "team_lead", "auditor"]),
        team_id=st.sampled_from([1, 2]),
        makers=st.frozensets(st.sampled_from([7, 9]), max_size=1),
    ),
    max_size=6,
    unique_by=lambda rule: rule.mapping_id,
)
_ME = 7


def _held(rules: list[Rule], picks: list[int], by_hand: set[int]) -> list[Held]:
    """Return a standing such as the database can hold: a membership once a team."""
    found, teams = [], set()
    for number, team_id in enumerate(sorted(by_hand)):
        found.append(Held(1000 + number, MEMBER, None, team_id, None))
        teams.add(team_id)
    for number, rule in enumerate(rules):
        if number in picks and not (rule.role == MEMBER and rule.team_id in teams):
            found.append(Held(number, rule.role, rule.unit_id, rule.team_id, rule.mapping_id))
            if rule.role == MEMBER:
                teams.add(rule.team_id or 0)
    return found


def _after(held: list[Held], change: Any) -> list[Held]:
    kept = [one for one in held if one not in change.take]
    return kept + [
        Held(2000 + number, one.role, one.unit_id, one.team_id, one.mapping_id)
        for number, one in enumerate(change.give)
    ]


_STANDING = {
    "groups": _GROUPS,
    "rules": _RULES,
    "later": _RULES,
    "picks": st.lists(st.integers(0, 5)),
    "by_hand": st.sets(st.sampled_from([1, 2])),
}


@pytest.mark.requirement("scim-5.1")
@given(**_STANDING)
def test_following_is_idempotent_and_convergent(
    groups: Any, rules: list[Rule], later: list[Rule], picks: list[int], by_hand: set[int]
) -> None:
    held = _held(later, picks, by_hand)
    change = difference(groups, rules, held, user_id=_ME)
    after = _after(held, change)
    assert not difference(groups, rules, after, user_id=_ME), "once is enough"
    known = {provider for provider, names in groups.items() if names is not None}
    of = {rule.mapping_id: rule for rule in rules}
    due_now = wanted(groups, rules, user_id=_ME)
    for one in after:
        if one.mapping_id is None:
            continue
        assert one.key in due_now or (
            one.mapping_id in of
            and of[one.mapping_id].provider_id in groups
            and of[one.mapping_id].provider_id not in known
        ), "nothing is held that no group gives, unless the groups are unknown"
    for key in due_now:
        covered = any(one.role == MEMBER and one.team_id == key.team_id for one in after)
        assert any(one.key == key for one in after) or (key.role == MEMBER and covered)
    memberships = [one.team_id for one in after if one.role == MEMBER]
    assert len(memberships) == len(set(memberships)), "a membership exists once"
    assert [one for one in after if one.mapping_id is None] == [one for one in held if one.mapping_id is None]


@pytest.mark.requirement("scim-5.4")
@given(groups=_GROUPS, rules=_RULES)
def test_nothing_comes_of_ones_own_mapping(groups: Any, rules: list[Rule]) -> None:
    own = {rule.mapping_id for rule in rules if _ME in rule.makers}
    assert not own & {one.mapping_id for one in wanted(groups, rules, user_id=_ME)}


@pytest.mark.requirement("scim-5.3")
@given(groups=_GROUPS, rules=_RULES, data=st.data())
def test_what_is_withheld_is_never_given_and_settled_only_when_no_group_gives_it(
    groups: Any, rules: list[Rule], data: st.DataObject
) -> None:
    keys = [Wanted(rule.role, rule.unit_id, rule.team_id, rule.mapping_id) for rule in rules]
    withheld = set(data.draw(st.lists(st.sampled_from(keys), max_size=3))) if keys else set()
    change = difference(groups, rules, [], user_id=_ME, withheld=withheld)
    assert not withheld & set(change.give)
    settled = released(withheld, groups, rules)
    assert settled <= withheld
    assert not settled & wanted(groups, rules)
    assert not difference(groups, rules, [], user_id=_ME, gives=False).give
