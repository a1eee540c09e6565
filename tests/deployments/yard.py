"""Releases on the database, move by move, compared with the oracle: what people ask, decide and do, and what sweeps do.

Of what people do the oracle says beforehand whether it must be taken or refused. What sweeps and ends of grants do is
judged by what became of it: nothing may begin, grow, return or start again that the oracle does not allow.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Q

from apps.approvals import granting as approval_grants
from apps.approvals.models import EmergencyReview, Grant
from apps.audit.models import AuditEvent
from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import CommonsError
from apps.deployments import actions, advancing, placement_rules, rollout
from apps.deployments.models import Endpoint, RolloutStep, ServingInterval
from apps.deployments.spec import Rung
from apps.provisioning.models import DeclaredObject
from tests.approvals.world import Violation
from tests.deployments import yard_oracle as oracle
from tests.deployments.world import World, make_world
from tests.deployments.yard_oracle import Book, Paper, Place, Wish
from tests.factories import Company

#: When walks begin.
NOW = datetime(2026, 11, 18, 9, tzinfo=UTC)
WHY = "The figures of this morning ask for it."
LADDER = tuple(Rung(share, hours) for share, hours in oracle.RUNGS)
YEAR, URGENT, DUE = timedelta(days=365), timedelta(hours=8), timedelta(hours=72)
ENVIRONMENTS = ("production", "development")
_TOLD = ("deployments.rollout.stepped", "deployments.rollout.rolled_back", "deployments.grant.ended")
_LIFE = {
    "in_review": "open", "waiting_for_capacity": "open", "starting": "on", "canary": "on", "held": "on", "live": "on",
    "superseded": "past",
}  # fmt: skip


def make_yard_world(company: Company) -> World:
    """Health data that the rules keep on premises, two versions of a model, both approved for a year."""
    world = make_world(company, classes=("health",))
    placement_rules.add_starting_rules(actor=Actor.system("tests"))
    world.next_version()
    return world


def check(claim: bool, words: str) -> None:
    """Raise Violation where a claim does not hold."""
    if not claim:
        raise Violation(words)


@dataclass(frozen=True)
class Sight:
    """An endpoint as the database has it."""

    current: int | None = None
    candidate: int | None = None
    traffic: int = 0
    stopped: bool = False
    statuses: Mapping[int, str] = field(default_factory=dict)
    shares: Mapping[int, int] = field(default_factory=dict)
    declared: frozenset[str] = frozenset()


class Yard:
    """One endpoint in production and one in development, two versions, one cluster that may move."""

    def __init__(self, world: World) -> None:
        self.world, at = world, clock.now()
        self.versions = list(world.model.versions.order_by("number"))
        self.grants: list[tuple[int, Paper, Grant]] = []
        papers: dict[int, list[Paper]] = {0: [], 1: []}
        for index, version in enumerate(self.versions):
            for row in Grant.objects.filter(scope__manifest=version.digest):
                papers[index].append(Paper(row.not_before, row.expires_at or at + 100 * YEAR))
                self.grants.append((index, papers[index][-1], row))
        self.book = Book(papers)
        self.places = {name: Place(name == "production") for name in ENVIRONMENTS}
        self.asked: dict[tuple[str, int], datetime] = {}
        self.leaves: dict[tuple[str, int], dict[str, frozenset[str]]] = {}
        self.turn = 0
        self.last = {name: Sight() for name in ENVIRONMENTS}
        self.base = self._written()
        self.seen: set[str] = set()
        self.acted = ""

    # ---- looking

    def endpoint(self, name: str) -> Endpoint | None:
        return Endpoint.objects.filter(workspace=self.world.workspaces[name]).select_related(
            "current", "candidate"
        ).first()  # fmt: skip

    def look(self, name: str) -> Sight:
        endpoint = self.endpoint(name)
        if endpoint is None:
            return Sight()
        rows = {row["number"]: row for row in endpoint.releases.values("number", "status")}
        for number in rows.keys() - {key for place, key in self.leaves if place == name}:
            self._learn(name, endpoint, number)
        objects = DeclaredObject.objects.filter(declaration__owner_uid=endpoint.uid, removal="")
        shares = ServingInterval.objects.filter(endpoint=endpoint, valid__endswith__isnull=True)
        return Sight(
            endpoint.current.number if endpoint.current is not None else None,
            endpoint.candidate.number if endpoint.candidate is not None else None,
            endpoint.traffic,
            endpoint.stopped_at is not None,
            {number: str(row["status"]) for number, row in rows.items()},
            dict(shares.values_list("release__number", "traffic")),
            frozenset(objects.values_list("digest", flat=True)),
        )

    def _learn(self, name: str, endpoint: Endpoint, number: int) -> None:
        """Keep which objects were approved for which state."""
        states: dict[str, set[str]] = {}
        for leaf in endpoint.releases.values_list("change__leaves", flat=True).get(number=number):
            states.setdefault(leaf["path"].rpartition("@")[2], set()).add(leaf["digest"])
        self.leaves[name, number] = {state: frozenset(found) for state, found in states.items()}

    def _written(self) -> int:
        return AuditEvent.objects.filter(action__in=_TOLD).count() - RolloutStep.objects.count()

    # ---- doing

    def attempt(
        self, name: str, who: str, expected: bool | None, act: Callable[[], Any], wish: Wish | None = None
    ) -> bool:
        """Do something; raises Violation where the oracle said otherwise, or where what became of it is not allowed."""
        before, told = self.last, ""
        self.acted = name
        try:
            act()
            done = True
        except CommonsError as error:
            done, told = False, str(error)
        after = self.last = {one: self.look(one) for one in ENVIRONMENTS}
        check(expected is None or done == expected, f"{who} in {name}: {done}, expected {expected}. {told}")
        if not done:
            check(before == after, f"{who} in {name} was refused and changed something")
            return False
        self.turn += 1
        self.seen.add(who)
        for one in ENVIRONMENTS:
            self.judge(one, after[one], who, wish if one == name else None)
        check(self._written() == self.base, f"{who}: steps and the trail differ (P14)")
        return True

    # ---- judging

    def judge(self, name: str, now: Sight, who: str, asked: Wish | None = None) -> None:
        """Take a new sight of an endpoint into the book; raises Violation where it may not have become so."""
        at, place, book = clock.now(), self.places[name], self.book
        where = f"{name}, {who}"
        before, last = replace(place), oracle.way_back(place)
        for number in sorted(now.statuses.keys() - place.wishes.keys()):
            check(asked is not None, f"{where}: a release came from nowhere")
            assert asked is not None
            place.wishes[number] = replace(asked, number=number)
            self.asked[name, number] = at
        for wish in place.wishes.values():
            life = _LIFE.get(now.statuses[wish.number], "gone")
            if wish.paper is None and life == "on":
                check(who in ("ask", "decide"), f"{where}: release {wish.number} began by itself")
                check(oracle.may_begin(book, before, wish, at), f"{where}: release {wish.number} may not begin")
                wish.paper = Paper(at, at + (URGENT if wish.urgent else YEAR))
            if life == "past" and wish.life != "past":
                wish.left = self.turn
            if now.statuses[wish.number] == "canary" and wish.held:
                check(who in ("resume", "step", "promote"), f"{where}: what was held climbs on by itself")
            wish.life, wish.held = life, now.statuses[wish.number] == "held"
            wish.unfit = wish.unfit or (wish.paper is not None and not book.stands(wish, at, 1))
        if who == "hold" and now.candidate is not None and before.traffic and name == self.acted:
            check(now.statuses[now.candidate] == "held", f"{where}: it is not held")
        if who == "roll back" and place.candidate is None and now.current != place.current:
            check(last is not None and last.number == now.current, f"{where}: not back to what served last")
        self._serves(place, now, who, where)
        self._grows(place, now, who, where)
        place.current, place.candidate = now.current, now.candidate
        place.traffic, place.stopped = now.traffic, now.stopped
        self._consistent(name, place, now, where)

    def _serves(self, place: Place, now: Sight, who: str, where: str) -> None:
        """What takes the traffic: nothing ends or returns but by the rules."""
        at, book = clock.now(), self.book
        check(now.stopped <= (place.stopped or who == "stop"), f"{where}: it was stopped silently")
        check(place.current is None or now.current is not None, f"{where}: what served is gone")
        if place.stopped and not now.stopped and now.current == place.current:
            check(oracle.may_start_again(book, place, at) and who == "start", f"{where}: it may not start again")
        if now.current == place.current or now.current is None:
            return
        wish = place.wishes[now.current]
        if now.current == place.candidate:
            hurried = place.production or who == "sweep"
            kept = oracle.ladder_over(wish, at) if hurried else True
            check(kept, f"{where}: promoted before its ladder was over")
            check(wish.loaded and book.may_serve(wish, at, 100), f"{where}: it may not take all traffic")
        else:
            check(book.may_serve(wish, at, 100), f"{where}: release {wish.number} may not serve (P9, P12, P13)")
            wish.loaded = False

    def _grows(self, place: Place, now: Sight, who: str, where: str) -> None:
        """What is on trial: its share grows rung by rung (P17), on papers that cover it."""
        if now.candidate is None:
            return
        at, book, wish = clock.now(), self.book, place.wishes[now.candidate]
        if now.candidate != place.candidate:
            check(now.traffic == 0, f"{where}: a trial begins with a share")
            return
        check(now.traffic >= place.traffic, f"{where}: a share shrank")
        if now.traffic > place.traffic:
            check(now.traffic == oracle.next_share(wish), f"{where}: {now.traffic} % is not the next rung (P17)")
            check(wish.loaded and book.may_serve(wish, at, now.traffic), f"{where}: it may not take {now.traffic} %")
            if place.production or who == "sweep":
                check(oracle.rung_over(wish, at), f"{where}: it left its rung too early (P17)")
            wish.rung, wish.since = wish.rung + 1, at

    def _consistent(self, name: str, place: Place, now: Sight, where: str) -> None:
        """Shares sum to 100, and what is declared was approved for exactly this state."""
        shares: dict[int, int] = {}
        if now.current is not None and not now.stopped:
            shares = {now.current: 100 - now.traffic}
            if now.candidate is not None:
                shares[now.candidate] = now.traffic
        check(now.shares == shares, f"{where}: shares {now.shares}, should be {shares}")
        open_now = [one for one in now.statuses.values() if one in ("in_review", "starting", "canary", "held")]
        check(len(open_now) <= 1, f"{where}: two releases are open")
        if now.current is None:
            return
        if now.stopped:
            allowed = [self.leaves[name, now.current]["stopped"]]
        elif now.candidate is not None:
            allowed = [self.leaves[name, now.candidate][f"canary-{now.traffic}"]]
        else:
            wish = place.wishes[now.current]
            states = ["live", "smallest"] if wish.scales_back and wish.unfit else ["live"]
            allowed = [self.leaves[name, now.current][state] for state in states]
        check(now.declared in allowed, f"{where}: what is declared was not approved for this")


class Moves:
    """Everything that may happen, drawn at random."""

    #: How many releases say that they are scaled back when their papers end.
    scales = 0.4

    def __init__(self, yard: Yard, rng: random.Random) -> None:
        self.yard, self.rng = yard, rng

    @property
    def place(self) -> str:
        return self.rng.choices(ENVIRONMENTS, [3, 1])[0]

    def _user(self) -> Actor:
        return self.yard.world.actor()

    def _on(self, name: str, who: str, expected: bool | None, act: Callable[..., Any], **values: Any) -> None:
        endpoint = self.yard.endpoint(name)
        if endpoint is None:
            return
        self.yard.attempt(name, who, expected, lambda: act(endpoint.pk, actor=self._user(), reason=WHY, **values))

    def warm(self) -> None:
        """A first release in production that serves, and a second one asked for: most rules begin there."""
        self._ask("production", 0, urgent=False)
        self.decide()
        self.load()
        self.sweep()
        self._ask("production", 1, urgent=False)
        self.decide()
        self.load()

    def ask(self) -> None:
        """Ask for a release of one of the versions; below production the policy may grant it at once."""
        if not self.yard.book.on_premises and self.rng.random() < 0.7:
            self.move_cluster()
        self._ask(self.place, self.rng.randrange(2), urgent=False)

    def break_glass(self) -> None:
        """Ask for an emergency release in production, and have compliance approve it."""
        yard = self.yard
        if self._ask("production", self.rng.randrange(2), urgent=True):
            self._decide("production", yard.world.company.compliance)
            # The review is somebody's work of another day; here it is done.
            EmergencyReview.objects.filter(closed_at__isnull=True).update(
                closed_at=clock.now(), outcome="justified", findings=WHY, closed_by=yard.world.company.admin
            )

    def _ask(self, name: str, version: int, *, urgent: bool) -> bool:
        yard = self.yard
        place, scales = yard.places[name], self.rng.random() < self.scales
        starting = [n for n, status in yard.last[name].statuses.items() if status == "starting"]
        busy = oracle.under_way(place, starting)
        expected = oracle.may_ask(yard.book, place, version, clock.now(), urgent=urgent, under_way=busy)
        canary = place.current is not None and not place.stopped
        wish = Wish(0, version, canary, scales, urgent, (place.current, place.stopped))
        return yard.attempt(
            name, "ask", expected,
            lambda: yard.world.ask(
                name, version=yard.versions[version], emergency=urgent, ladder=LADDER,
                expiry_action="scale_back" if scales else "block_new",
            ),
            wish,
        )  # fmt: skip

    def decide(self) -> None:
        """Let the unit's owner approve what is open; where nothing is, somebody asks first."""
        if not any(wish.life == "open" for wish in self.yard.places["production"].wishes.values()):
            self._ask("production", self.rng.randrange(2), urgent=False)
        self._decide("production", self.yard.world.company.vp)

    def _decide(self, name: str, by: Any) -> None:
        yard, place = self.yard, self.yard.places[name]
        wish = next((one for one in place.wishes.values() if one.life == "open"), None)
        endpoint = yard.endpoint(name)
        if wish is None or endpoint is None or wish.urgent != (by == yard.world.company.compliance):
            return
        release = endpoint.releases.get(number=wish.number)
        expected = oracle.may_begin(yard.book, place, wish, clock.now())
        yard.attempt(name, "decide", expected, lambda: yard.world.approve(release, by=by))

    def withdraw(self) -> None:
        """Take back what is open."""
        for name, place in self.yard.places.items():
            self._withdraw(name, [wish for wish in place.wishes.values() if wish.life == "open"])

    def _withdraw(self, name: str, wishes: list[Wish]) -> None:
        for wish in wishes:
            endpoint = self.yard.endpoint(name)
            assert endpoint is not None
            pk = endpoint.releases.get(number=wish.number).pk
            self.yard.attempt(name, "withdraw", True, lambda pk=pk: actions.withdraw_release(pk, actor=self._user()))

    def load(self) -> None:
        """The cluster says that what starts has loaded."""
        self._load("loaded")

    def break_load(self) -> None:
        """The cluster says that it failed."""
        self._load("failed")

    def _load(self, state: str) -> None:
        for name, place in self.yard.places.items():
            endpoint = self.yard.endpoint(name)
            number = place.candidate or place.current
            if endpoint is None or number is None:
                continue
            rows = endpoint.releases.filter(number=number, status__in=["starting", "canary", "held"])
            if rows.update(load_state=state):
                place.wishes[number].loaded = state == "loaded"

    def wait(self) -> None:
        """Let hours pass: within a rung, just past one, a day; what would lapse is withdrawn before."""
        self.wait_for(timedelta(hours=self.rng.choice([1, 5, 12, 13, 25])))

    def wait_long(self) -> None:
        """Let a paper run out: to the very instant at which it ends."""
        at = clock.now()
        ends = [paper.end for papers in self.yard.book.papers.values() for paper in papers if paper.good(at, 1)]
        ends += [
            wish.paper.end for place in self.yard.places.values() for wish in place.wishes.values()
            if wish.life == "on" and wish.paper is not None and wish.paper.good(at, 1)
        ]  # fmt: skip
        if ends:
            self.wait_for(self.rng.choice(sorted(ends)) - at)

    def wait_for(self, span: timedelta) -> None:
        until = clock.now() + span
        for name, place in self.yard.places.items():
            late = [
                wish for wish in place.wishes.values()
                if wish.life == "open" and self.yard.asked[name, wish.number] + DUE <= until
            ]  # fmt: skip
            self._withdraw(name, late)
        clock.advance(span)
        for place in self.yard.places.values():
            for wish in place.wishes.values():
                wish.unfit = wish.unfit or (
                    wish.paper is not None and not self.yard.book.stands(wish, clock.now(), 1)
                )  # fmt: skip

    def sweep(self) -> None:
        """Everything that the portal does by itself."""
        self.yard.attempt("production", "sweep", True, advancing.advance_due)

    def step(self) -> None:
        """The next rung."""
        name = self.place
        place = self.yard.places[name]
        expected = oracle.may_step(self.yard.book, place, clock.now(), to_the_end=False)
        self._on(name, "step", expected, rollout.step)

    def promote(self) -> None:
        """All traffic."""
        name = self.place
        place = self.yard.places[name]
        expected = oracle.may_step(self.yard.book, place, clock.now(), to_the_end=True)
        self._on(name, "promote", expected, rollout.promote)

    def hold(self) -> None:
        """Stay on the rung."""
        name = self.place
        self._on(name, "hold", oracle.may_hold(self.yard.places[name]), rollout.hold)

    def resume(self) -> None:
        """Climb on."""
        name = self.place
        expected = oracle.may_resume(self.yard.book, self.yard.places[name], clock.now())
        self._on(name, "resume", expected, rollout.resume)

    def roll_back(self) -> None:
        """Take the trial off, or return to what served before."""
        name = self.place
        expected = oracle.may_go_back(self.yard.book, self.yard.places[name], clock.now())
        self._on(name, "roll back", expected, rollout.roll_back)

    def stop(self) -> None:
        """Serve nothing."""
        name = self.place
        place = self.yard.places[name]
        self._on(name, "stop", place.current is not None and not place.stopped, rollout.stop)

    def start_again(self) -> None:
        """Serve again."""
        name = self.place
        expected = oracle.may_start_again(self.yard.book, self.yard.places[name], clock.now())
        self._on(name, "start", expected, rollout.start_again)

    def approve_version(self) -> None:
        """Give a version another paper, for long or short, mostly for all traffic."""
        self.give(self.rng.randrange(2), self.rng.choice([2, 30, 365]), self.rng.choice([100, 100, 10]))

    def give(self, index: int, days: int, most: int) -> None:
        """Give a version a paper for so many days and so much of the traffic."""
        yard, at = self.yard, clock.now()
        row = yard.world.approve_version(yard.versions[index], days=days, max_traffic=most)
        paper = Paper(at, at + timedelta(days=days), most)
        yard.book.papers[index].append(paper)
        yard.grants.append((index, paper, row))

    def take_all_back(self, version: int) -> None:
        """Compliance takes back every good paper of a version."""
        for index, paper, row in self.yard.grants:
            if index == version and paper.good(clock.now(), 1):
                self._take_back(paper, row)

    def take_back(self) -> None:
        """Compliance takes back a version's paper."""
        at = clock.now()
        good = [(paper, row) for _, paper, row in self.yard.grants if paper.good(at, 1)]
        if good:
            paper, row = self.rng.choice(good)
            self._take_back(paper, row)

    def take_release_back(self) -> None:
        """Compliance takes back a release's own paper."""
        self.take_own_back(self.place)

    def take_own_back(self, name: str) -> None:
        """Take back the paper of what is on trial there, else of what serves."""
        place = self.yard.places[name]
        number = place.candidate or place.current
        endpoint = self.yard.endpoint(name)
        paper = place.wishes[number].paper if number is not None else None
        if endpoint is not None and paper is not None and paper.good(clock.now(), 1):
            uid = endpoint.releases.get(number=number).uid
            self._take_back(paper, Grant.objects.get(Q(request__subject_uid=uid)))

    def _take_back(self, paper: Paper, row: Grant) -> None:
        paper.taken_back = clock.now()
        by = Actor.of(self.yard.world.company.compliance)
        self.yard.attempt("production", "revoke", True, lambda: approval_grants.revoke(row.uid, WHY, actor=by))

    def move_cluster(self) -> None:
        """The cluster's place is stated anew: on premises, or in a cloud elsewhere."""
        book = self.yard.book
        book.on_premises = not book.on_premises
        place = ("on_premises", "EU") if book.on_premises else ("cloud", "US")
        Cluster.objects.filter(pk=self.yard.world.cluster.pk).update(location=place[0], jurisdiction=place[1])
        for workspace in self.yard.world.workspaces.values():
            workspace.cluster.refresh_from_db()


#: How often each move is drawn.
WEIGHTS = {
    "ask": 10, "decide": 12, "load": 14, "sweep": 8, "wait": 16, "step": 14, "promote": 6, "hold": 4, "resume": 6,
    "roll_back": 6, "stop": 2, "start_again": 7, "approve_version": 4, "take_back": 2, "take_release_back": 1,
    "move_cluster": 2, "wait_long": 2, "break_load": 1, "break_glass": 2, "withdraw": 1,
}  # fmt: skip


def roam(yard: Yard, rng: random.Random, steps: int) -> None:
    """Let things happen at random."""
    moves = Moves(yard, rng)
    moves.warm()
    for name in rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=steps):
        getattr(moves, name)()


class Script(Moves):
    """Moves in production in a given order, for what must happen in every run."""

    place = "production"

    scales = 0.0

    def __init__(self, yard: Yard) -> None:
        super().__init__(yard, random.Random(0))

    def play(self, path: str) -> None:
        """Do the moves of `path`, one after the other: "ask0 decide load sweep wait12 take1 …"."""
        words = {"back": "roll_back", "start": "start_again", "away": "move_cluster"}
        for token in path.split():
            name = token.rstrip("0123456789")
            number = int(token[len(name) :] or 0)
            if name == "ask":
                self._ask("production", number, urgent=False)
            elif name == "wait":
                self.wait_for(timedelta(hours=number))
            elif name == "take":
                self.take_all_back(number)
            elif name == "short":
                self.take_all_back(number)
                self.give(number, 2, 100)
            elif name == "own":
                self.take_own_back("production")
            else:
                getattr(self, words.get(name, name))()


__all__ = ["NOW", "WEIGHTS", "Moves", "Script", "Violation", "Yard", "make_yard_world", "roam"]
