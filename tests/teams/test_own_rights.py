"""Nobody raises their own rights: whatever one person does, in any order, gives that person nothing they lacked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from apps.accounts import actions as accounts
from apps.accounts import merging, ports
from apps.accounts.models import ApiToken, ExternalIdentity, IdentityProvider, User
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import CommonsError
from apps.teams import actions, changes, importing, mapping_actions, people_tasks, reviews, scope, service_actions
from apps.teams.changes import Wish
from apps.teams.choices import ALL_PERMISSIONS, Role
from apps.teams.mapping_actions import Draft
from apps.teams.models import AccessReview, Membership, RoleGrant, ServiceAccount, Team, Unit
from tests.factories import Company, forget_scopes, grant, make_company, make_unit, make_user

pytestmark = pytest.mark.django_db

#: Who tries: each with what they begin with besides their own role.
STARTS = ("admin", "admin_and_owner", "compliance", "vp", "lead_finance", "member_finance")
GROUP = "gpu-everybody"
_small = st.integers(0, 11)
_roles = st.sampled_from(list(Role.values))


class OneAgainstAll(RuleBasedStateMachine):
    """One person uses every door there is, on others and on themselves; a colleague does nothing wrong."""

    company: Company
    attacker: User

    def __init__(self) -> None:
        super().__init__()
        self._transaction = transaction.atomic()
        self._transaction.__enter__()
        self._frozen = clock.frozen(clock.now())
        self._frozen.__enter__()

    def teardown(self) -> None:
        """Undo everything."""
        self._frozen.__exit__(None, None, None)
        transaction.set_rollback(True)
        self._transaction.__exit__(None, None, None)

    @initialize(start=st.sampled_from(STARTS))
    def begin(self, start: str) -> None:
        """Make the company, a directory in whose group the attacker is, and write down what the attacker may."""
        self.company = make_company()
        self.deep = make_unit("Cards", self.company.unit)
        self.attacker = self.company[start.partition("_and_")[0]]
        if start == "admin_and_owner":
            grant(self.attacker, Role.UNIT_OWNER, unit=self.company.other_unit)
        grant(make_user("second-admin@example.com"), Role.PLATFORM_ADMIN)
        self.provider = IdentityProvider.objects.create(
            name="Staff", slug="staff", issuer="https://staff.example.com", client_id="portal"
        )
        for number, user in enumerate((self.attacker, self.company.member_finance)):
            if not user.identities.exists():
                ExternalIdentity.objects.create(
                    user=user, provider=self.provider, subject=f"s{number}", token_groups=[GROUP]
                )
        self.units = list(Unit.objects.order_by("pk"))
        self.teams = list(Team.objects.order_by("pk"))
        self.people = list(User.objects.get_queryset().order_by("pk"))
        self.before = self.rights(self.attacker)

    # -- what the attacker holds

    def rights(self, user: User) -> set[tuple[str, str]]:
        """Return every permission a person holds, by place: anywhere, everywhere, each unit and team of the start."""
        scopes = scope.resolve(user.pk)
        if not User.objects.filter(pk=user.pk, is_active=True).exists():
            return set()
        units_now = Unit.objects.filter(pk__in=[one.pk for one in self.units])
        places = [(f"unit {pk}", set(path), 0) for pk, path in units_now.values_list("pk", "path")]
        teams_now = Team.objects.filter(pk__in=[one.pk for one in self.teams])
        places += [(f"team {pk}", set(path), pk) for pk, path in teams_now.values_list("pk", "unit__path")]
        found = set()
        for permission in ALL_PERMISSIONS:
            everywhere, units, teams = scopes._reach(permission)
            if everywhere:
                found.add((permission, "everywhere"))
            found |= {(permission, name) for name, path, team in places if everywhere or team in teams or units & path}
        return found

    @contextmanager
    def tries(self) -> Iterator[Actor]:
        """Let the attacker try something; refused attempts leave nothing behind."""
        forget_scopes(self.attacker)
        try:
            with transaction.atomic():
                yield Actor.of(self.attacker)
        except CommonsError:
            return

    def person(self, number: int) -> User:
        """Return somebody; 0 is the attacker."""
        return self.people[number % len(self.people)] if number else self.attacker

    def place(self, number: int) -> dict[str, Any]:
        """Return somewhere; 0 is the installation."""
        found = [{}, *({"unit_id": one.pk} for one in self.units), *({"team_id": one.pk} for one in self.teams)]
        return found[number % len(found)]

    # -- the doors

    @rule(whom=_small, role=_roles, where=_small, later=st.booleans())
    def give_role(self, whom: int, role: str, where: int, later: bool) -> None:
        with self.tries() as actor:
            start = clock.now() + timedelta(hours=1) if later else None
            actions.grant_role(
                self.person(whom).pk, role, reason="try", starts_at=start, actor=actor, **self.place(where)
            )

    @rule(which=_small, days=st.integers(1, 9))
    def extend(self, which: int, days: int) -> None:
        found = list(RoleGrant.objects.order_by("pk"))
        with self.tries() as actor:
            chosen = found[which % len(found)].pk
            actions.extend_role(chosen, expires_at=clock.now() + timedelta(days=days), reason="try", actor=actor)

    @rule(whom=_small, team=_small)
    def add_to_team(self, whom: int, team: int) -> None:
        with self.tries() as actor:
            actions.add_member(self.teams[team % len(self.teams)].pk, self.person(whom).pk, actor=actor)

    @rule(role=_roles, where=_small)
    def map_group(self, role: str, where: int) -> None:
        with self.tries() as actor:
            draft = Draft(self.provider.pk, GROUP, role, **self.place(where))
            mapping_actions.create_mapping(draft, reason="try", actor=actor)
        for user in (self.attacker, self.company.member_finance):
            ports.groups_changed(user.pk, actor=Actor.system("tests"))

    @rule(team=_small, unit=_small)
    def move_team(self, team: int, unit: int) -> None:
        with self.tries() as actor:
            goal = self.units[unit % len(self.units)]
            changes.change_team(self.teams[team % len(self.teams)].pk, Wish(unit_id=goal.pk), "try", actor=actor)

    @rule(unit=_small, below=_small, later=st.booleans())
    def move_unit(self, unit: int, below: int, later: bool) -> None:
        with self.tries() as actor:
            moved, goal = self.units[unit % len(self.units)], self.units[below % len(self.units)]
            at = clock.now() + timedelta(hours=1) if later else None
            changes.change_unit(moved.pk, Wish(unit_id=goal.pk), "try", effective_at=at, actor=actor)

    @rule(whom=_small, role=_roles, where=_small)
    def import_role(self, whom: int, role: str, where: int) -> None:
        place = self.place(where)
        unit = next((one.slug for one in self.units if one.pk == place.get("unit_id")), "")
        team = next((one.slug for one in self.teams if one.pk == place.get("team_id")), "")
        text = f"email,role,unit,team,reason\n{self.person(whom).email},{role},{unit},{team},try\n"
        with self.tries() as actor:
            seen = importing.preview("roles", text, actor=actor)
            importing.import_file("roles", text, seen.digest, actor=actor)

    @rule(team=_small, unit=_small)
    def import_team(self, team: int, unit: int) -> None:
        moved, goal = self.teams[team % len(self.teams)], self.units[unit % len(self.units)]
        text = f"slug,name,unit,cost_centre\n{moved.slug},{moved.name},{goal.slug},CC-1\n"
        with self.tries() as actor:
            seen = importing.preview("teams", text, actor=actor)
            importing.import_file("teams", text, seen.digest, actor=actor)

    @rule(one=_small, other=_small)
    def merge(self, one: int, other: int) -> None:
        with self.tries() as actor:
            merging.merge(self.person(one).pk, self.person(other).pk, "try", actor=actor)

    @rule(whom=_small, off=st.booleans())
    def switch(self, whom: int, off: bool) -> None:
        change = accounts.deactivate_user if off else accounts.reactivate_user
        with self.tries() as actor:
            change(self.person(whom).pk, "try", actor=actor)

    @rule()
    def start_review(self) -> None:
        with self.tries() as actor:
            reviews.start_review("Try", clock.now() + timedelta(days=2), actor=actor)

    @rule(which=_small, keep=st.booleans())
    def answer(self, which: int, keep: bool) -> None:
        review = AccessReview.objects.filter(status="open").first()
        if review is None:
            return
        items = list(review.items.order_by("pk"))
        with self.tries() as actor:
            said = "keep" if keep else "remove"
            reviews.answer_items(review.pk, [items[which % len(items)].uid], said, reason="try", actor=actor)

    @rule(role=_roles, where=_small)
    def make_program(self, role: str, where: int) -> None:
        with self.tries() as actor:
            team = self.place(where).get("team_id")
            made = service_actions.create_service_account("bot", "tries what it can", role, team_id=team, actor=actor)
            service_actions.create_service_token(made.pk, "key", clock.now() + timedelta(days=30), False, actor=actor)

    @rule(hours=st.sampled_from([2, 24, 72]))
    def time_passes(self, hours: int) -> None:
        clock.advance(timedelta(hours=hours))
        people_tasks.planned_changes()
        people_tasks.access_reviews()

    # -- the property

    @invariant()
    def holds_nothing_new(self) -> None:
        """The attacker, with every account merged with theirs, holds nothing they lacked at the start."""
        if not hasattr(self, "before"):
            return
        for pk in merging.accounts_of(self.attacker.pk):
            more = self.rights(User.objects.get(pk=pk)) - self.before
            assert not more, f"{self.attacker.display_name} gained {sorted(more)[:5]}"

    @invariant()
    def programs_hold_no_more_than_their_maker(self) -> None:
        """What a token of a program made by the attacker opens, the attacker could open at the start."""
        if not hasattr(self, "before"):
            return
        for made in ServiceAccount.objects.filter(made_by=self.attacker).select_related("user"):
            opens = self.rights(made.user)
            for token in ApiToken.objects.usable().filter(user=made.user):
                held = {one for one in opens if not token.limited or one[0] in token.permissions}
                assert not held - self.before, sorted(held - self.before)[:5]

    @invariant()
    def somebody_administers(self) -> None:
        """Whatever happens, there is a platform admin."""
        if hasattr(self, "before"):
            admins = RoleGrant.objects.filter(role=Role.PLATFORM_ADMIN, revoked_at__isnull=True)
            assert admins.exists()


@pytest.mark.requirement("people-and-units-6.1")
def test_no_sequence_of_ones_own_doings_raises_ones_own_rights(db: None) -> None:
    run_state_machine_as_test(
        OneAgainstAll,
        settings=settings(
            max_examples=6, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )  # fmt: skip


@pytest.mark.requirement("people-and-units-6.1")
def test_the_property_catches_a_portal_that_forgets_to_ask(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "_not_oneself", lambda *args: None)
    with transaction.atomic():
        company = make_company()
        machine = OneAgainstAll.__new__(OneAgainstAll)
        machine.company, machine.attacker = company, company.admin
        machine.units, machine.teams = list(Unit.objects.all()), list(Team.objects.all())
        machine.before = machine.rights(company.admin)
        actions.grant_role(company.admin.pk, Role.AUDITOR, reason="try", actor=Actor.of(company.admin))
        assert ("audit.event.view", "everywhere") in machine.rights(company.admin) - machine.before
        with pytest.raises(AssertionError, match="gained"):
            machine.holds_nothing_new()
        assert Membership.objects.exists()
