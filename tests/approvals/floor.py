"""The whole room on the database, compared with the oracle step by step: submissions, words, delegations, emergencies.

Every step goes through the actions, as pages and API do, and says beforehand whether it must be taken or refused.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction

from apps.accounts.models import User
from apps.approvals import actions, delegating, emergencies, engine, granting, selectors, tasks
from apps.approvals.models import ApprovalRequest, Delegation, EmergencyReview, Grant
from apps.core import clock
from apps.core.actor import Actor
from apps.core.canonical import digest
from apps.core.errors import CommonsError
from apps.teams.models import RoleGrant
from tests.approvals import oracle
from tests.approvals.oracle import Ask, Promise, Spoken
from tests.approvals.subjects import DeepSubject, Thing
from tests.approvals.world import Violation, check
from tests.factories import Company, forget_scopes, make_user

ROLES = OWNER, COMPLIANCE, ADMIN = "unit_owner", "compliance", "platform_admin"
EMERGENCY_HOURS, REVIEW_HOURS, VALID_DAYS = 5, 48, 40

#: Policies in turn: each with the oracle's reading of it.
SHAPES: tuple[tuple[Ask, ...], ...] = (
    (Ask(OWNER),),
    (Ask(OWNER, due=48), Ask(COMPLIANCE, due=72)),
    (Ask(OWNER, group=1), Ask(COMPLIANCE, 2, group=1, due=60)),
    (Ask(OWNER, wait=6), Ask(ADMIN)),
    (Ask(COMPLIANCE, due=90, escalate=8, escalation=ADMIN),),
    (Ask(OWNER, 2, fallback=ADMIN),),
)


def body_of(asks: tuple[Ask, ...], *, validity_days: int = VALID_DAYS) -> dict[str, Any]:
    """Write the policy down that asks this."""

    def at(role: str) -> dict[str, str]:
        return {"role": role, "scope": "unit" if role == OWNER else "installation"}

    stages = []
    for i, ask in enumerate(asks):
        stage: dict[str, Any] = {"name": f"stage {i}", **at(ask.role), "quorum": ask.quorum, "group": ask.group}
        stage |= {key: hours for key, hours in (("due_hours", ask.due), ("wait_hours", ask.wait)) if hours}
        if ask.escalate:
            stage |= {"escalate_hours": ask.escalate, "escalate_to": at(ask.escalation)}
        if ask.fallback:
            stage["fallback"] = at(ask.fallback)
        stages.append(stage)
    return {
        "stages": stages,
        "validity_days": validity_days,
        "emergency": {
            "role": ADMIN, "quorum": 1, "hours": EMERGENCY_HOURS, "review_hours": REVIEW_HOURS,
            "review_role": COMPLIANCE,
        },
    }  # fmt: skip


@dataclass
class Pass:
    """One request as the oracle remembers it."""

    pk: int
    thing: Thing
    asks: tuple[Ask, ...]
    opened: datetime
    digest: str
    policy: str
    side: frozenset[int]
    requester: int
    days: int
    emergency: bool = False
    asked_before: frozenset[int] = frozenset()
    log: list[Spoken] = field(default_factory=list)
    ended: str = ""
    promise: Promise | None = None
    review_open: bool = False

    def barred(self) -> frozenset[int]:
        """Who never decides: as of submission and as of now."""
        side = self.side | self.thing.side | self.thing.authors | self.thing.producers
        return side | self.asked_before | {self.requester}

    def book(self) -> oracle.Book:
        return oracle.Book(self.asks, self.opened, self.digest, self.policy, self.barred(), tuple(self.log))

    def party(self) -> frozenset[int]:
        """Who took part in it."""
        return self.barred() | {person for word in self.log for person in (word.actor, word.seat)}


class Floor:
    """Ten people, a policy that changes, two things at a time."""

    def __init__(self, company: Company, subject: DeepSubject) -> None:
        self.company, self.subject = company, subject
        named = ("lead_finance", "member_finance", "vp", "compliance", "admin")
        self.people: list[User] = [company[name] for name in named] + [make_user() for _ in range(5)]
        self.lead, self.member = self.people[:2]
        self.holds: dict[str, set[int]] = {
            OWNER: {company.vp.pk}, COMPLIANCE: {company.compliance.pk}, ADMIN: {company.admin.pk}
        }  # fmt: skip
        self.delegated: list[tuple[int, int, int, str, datetime, datetime]] = []
        self.passes: list[Pass] = []
        self.edits = 0
        self.published: list[tuple[tuple[Ask, ...], int]] = []
        for person, role in ((5, OWNER), (6, OWNER), (6, COMPLIANCE), (7, COMPLIANCE), (8, ADMIN)):
            self.toggle_role(self.people[person], role)
        self.publish(0)

    # ---- helpers

    def person(self, pk: int) -> User:
        return next(one for one in self.people if one.pk == pk)

    def attempt(self, what: str, expected: bool, job: Callable[[], Any]) -> Any:
        """Do it in a transaction of its own; it must be taken or refused as expected. Return what came, or None."""
        for one in self.people:
            forget_scopes(one)
        try:
            with transaction.atomic():
                made = job()
        except CommonsError as refusal:
            check(not expected, f"{what}: refused ({refusal}), the oracle would take it")
            return None
        check(expected, f"{what}: taken, the oracle refuses it")
        return made if made is not None else True

    def delegations(self) -> set[tuple[int, int, str]]:
        now = clock.now()
        return {(giver, to, role) for _, giver, to, role, start, end in self.delegated if start <= now < end}

    def open_passes(self) -> list[Pass]:
        return [one for one in self.passes if not one.ended]

    def digest(self, thing: Thing) -> str:
        return digest(self.subject.canonical(thing.uid))

    # ---- steps

    def publish(self, shape: int) -> None:
        """Publish the next version; what is open keeps its own."""
        asks, days = SHAPES[shape % len(SHAPES)], VALID_DAYS - len(self.published) % 7
        body = body_of(asks, validity_days=days)
        if self.published and self.published[-1] == (asks, days):
            return
        actions.publish_policy("deep", "Deep", "tests.deep", body, actor=Actor.system("test"))
        self.published.append((asks, days))

    def submit(self, by: User, *, emergency: bool = False, corrects: Pass | None = None) -> Pass | None:
        """Ask for a thing, normally or in an emergency, or correct an open request."""
        thing = corrects.thing if corrects else self.subject.add(text=f"thing {len(self.subject.things)}")
        if not corrects:
            thing.authors.add(self.member.pk)
        owed = any(one.review_open for one in self.passes)
        may_ask = by.pk in {self.lead.pk} | self.holds[ADMIN] if emergency else not owed
        still_open = corrects is None or not corrects.ended
        asks, days = self.published[-1]
        made = self.attempt(
            f"{'emergency' if emergency else 'normal'} submission by {by.pk}",
            may_ask and still_open,
            lambda: actions.submit(
                "tests.deep", thing.uid, actor=Actor.of(by), policy_slug="deep", team_id=self.company.finance_team.pk,
                unit_id=self.company.unit.pk, supersedes=corrects.pk if corrects else None,
                kind="emergency" if emergency else "normal", reason="The fraud model is down." if emergency else "",
            ),
        )  # fmt: skip
        if made is None:
            return None
        if corrects:
            corrects.ended = "superseded"
        if emergency:
            asks = (Ask(ADMIN, due=EMERGENCY_HOURS),)
        stored = made.policy_version
        one = Pass(
            made.pk, thing, asks, clock.now(), self.digest(thing), stored.digest,
            frozenset(thing.side | thing.authors | thing.producers), by.pk, days, emergency,
            asked_before=corrects.asked_before | {corrects.requester} if corrects else frozenset(),
        )  # fmt: skip
        self.passes.append(one)
        self.settle()
        return one

    def speak(
        self, one: Pass, actor: User, verdict: str = "approve", seat: User | None = None, stage: int | None = None
    ) -> bool:
        """Somebody decides, for themselves or for somebody."""
        now, book = clock.now(), one.book()
        spoken_for = seat if seat is not None and seat.pk != actor.pk else None
        seat_pk = (spoken_for or actor).pk
        meant = oracle.stage_meant(book, now, seat_pk, self.holds) if stage is None else stage
        same_bytes = self.digest(one.thing) == one.digest
        expected = (
            not one.ended
            and same_bytes
            and oracle.takes(
                book, now, stage=meant, actor=actor.pk, seat=seat_pk, verdict=verdict, holds=self.holds,
                delegated=self.delegations(),
            )
            and (verdict == "reject" or not one.thing.blocked)
        )  # fmt: skip
        made = self.attempt(
            f"{actor.pk} for {seat_pk} says {verdict} in stage {meant} of {one.pk}",
            expected,
            lambda: actions.decide(
                one.pk, verdict, "Looked at everything.", actor=Actor.of(actor), expected_digest=one.digest,
                on_behalf_of=spoken_for.pk if spoken_for else None, stage=stage,
            ),
        )  # fmt: skip
        if made is None:
            return False
        one.log.append(Spoken(meant, actor.pk, seat_pk, verdict, one.digest, one.policy, now))
        standing = oracle.standing(one.book(), now)
        if standing in ("approved", "rejected"):
            one.ended = standing
        if standing == "approved":
            self._promise(one, now)
        self.settle()
        return True

    def _promise(self, one: Pass, now: datetime) -> None:
        days = now + timedelta(days=one.days)
        one.promise = Promise(
            one.digest, now, min(now + timedelta(hours=EMERGENCY_HOURS), days) if one.emergency else days
        )
        one.review_open = one.emergency
        people = {person for word in one.log if word.verdict == "approve" for person in (word.actor, word.seat)}
        check(not one.emergency or len(people | {one.requester}) >= 2, "P11: an emergency by one person")

    def edit(self, one: Pass) -> None:
        """Change the bytes of what is under review."""
        self.edits += 1
        one.thing.text = f"edited {self.edits}"

    def block(self, one: Pass) -> None:
        """A mandatory item of the checklist runs out, or is answered again."""
        one.thing.blocked = [] if one.thing.blocked else ["Evidence has run out."]

    def prove(self, one: Pass, person: User) -> None:
        """Somebody who has not spoken produces evidence, or writes a part of it."""
        if person.pk not in {p for word in one.log for p in (word.actor, word.seat)}:
            (one.thing.producers if self.edits % 2 else one.thing.authors).add(person.pk)

    def toggle_role(self, person: User, role: str) -> None:
        held = self.holds[role]
        where = {"unit": self.company.unit} if role == OWNER else {}
        if person.pk in held:
            RoleGrant.objects.in_force().filter(user=person, role=role).update(revoked_at=clock.now())
        else:
            RoleGrant.objects.create(user=person, role=role, **where)
        held ^= {person.pk}

    def delegate(self, giver: User, to: User, role: str, *, by: User, hours: int = 24) -> None:
        """Somebody names who stands in."""
        now = clock.now()
        expected = (
            giver.pk != to.pk and giver.pk in self.holds[role] and (by.pk == giver.pk or by.pk in self.holds[ADMIN])
        )
        made = self.attempt(
            f"{by.pk} lets {to.pk} speak for {giver.pk} as {role}",
            expected,
            lambda: delegating.create(
                giver.pk, to.pk, role, actor=Actor.of(by), end=now + timedelta(hours=hours), reason="On leave."
            ),
        )
        if made is not None:
            self.delegated.append((made.pk, giver.pk, to.pk, role, now, now + timedelta(hours=hours)))
        self.settle()

    def end_delegation(self, index: int) -> None:
        pk, giver, to, role, start, end = self.delegated[index]
        row = Delegation.objects.get(pk=pk)
        expected = end > clock.now()
        ended = self.attempt(
            "revoking a delegation", expected, lambda: delegating.revoke(row.uid, actor=Actor.of(self.person(giver)))
        )
        if ended is not None:
            self.delegated[index] = (pk, giver, to, role, start, clock.now())

    def withdraw(self, one: Pass) -> None:
        # A lapse that no sweep has written down yet may still be withdrawn: both end it without a grant.
        if self.attempt(
            "withdrawal", not one.ended, lambda: actions.withdraw(one.pk, "Not needed.", actor=Actor.of(self.lead))
        ):
            one.ended = "withdrawn"
        self.settle()

    def revoke(self, one: Pass, by: User) -> None:
        if one.promise is None:
            return
        grant, now = Grant.objects.get(request_id=one.pk), clock.now()
        expected = by.pk in self.holds[COMPLIANCE] | self.holds[ADMIN] and not one.promise.over(now)
        if self.attempt(
            "revocation", expected, lambda: granting.revoke(grant.uid, "A flaw was found.", actor=Actor.of(by))
        ):
            one.promise.revoked = now
            one.promise.told = 1
        self.settle()

    def close_review(self, one: Pass, by: User) -> None:
        review = EmergencyReview.objects.filter(request_id=one.pk).first()
        if review is None:
            return
        expected = one.review_open and by.pk in self.holds[COMPLIANCE] and by.pk not in one.party()
        if self.attempt(
            f"{by.pk} closes the review",
            expected,
            lambda: emergencies.close_review(
                review.uid, "justified", "The cause was found and mended.", actor=Actor.of(by)
            ),
        ):
            one.review_open = False
        self.settle()

    def tick(self, hours: int, *, sweep: bool) -> None:
        """Time passes; the sweeps run, or every scheduler stands still."""
        clock.advance(timedelta(hours=hours))
        if sweep:
            tasks.lapse_overdue()
            tasks.escalate_overdue()
            tasks.attend_grants()
            tasks.remind_reviews()
            now = clock.now()
            for one in self.passes:
                if not one.ended and oracle.standing(one.book(), now) == "lapsed":
                    one.ended = "lapsed"
                if one.promise is not None and one.promise.over(now):
                    one.promise.told = 1
        self.settle()

    # ---- what holds after every step

    def settle(self) -> None:
        now = clock.now()
        rows = ApprovalRequest.objects.in_bulk([one.pk for one in self.passes])
        grants = {grant.request_id: grant for grant in Grant.objects.filter(request__subject_type="tests.deep")}
        open_reviews = set(EmergencyReview.objects.open().values_list("request_id", flat=True))
        for one in self.passes:
            expected = one.ended or "in_review"
            check(str(rows[one.pk].status) == expected, f"request {one.pk} is {rows[one.pk].status}, not {expected}")
            grant = grants.get(one.pk)
            check((grant is not None) == (one.ended == "approved"), "P16: one grant for each approval, and no other")
            if grant is not None and one.promise is not None:
                check(str(grant.kind) == ("emergency" if one.emergency else "normal"), "P11: the grant's kind")
                span = (one.promise.start, one.promise.end)
                check((grant.not_before, grant.expires_at) == span, "P6, P11: the grant's dates are others")
                good = one.promise.good(one.digest, now)
                check(engine.usable(grant, one.digest, {}, now) == good, f"P9: usable differs from {good}")
                check(not engine.usable(grant, "0" * 64, {}, now), "P9: usable for other bytes")
                told = self.subject.ended.count(grant.uid)
                check(told == one.promise.told, f"the room heard {told} times of an end, not {one.promise.told}")
            check((one.pk in open_reviews) == one.review_open, "P11: the emergency's review")
            if not one.ended:
                self._check_state(rows[one.pk], one, now)

    def _check_state(self, row: ApprovalRequest, one: Pass, now: datetime) -> None:
        """P15: the stored stages are what replaying the log gives; and so says the oracle."""
        state = selectors.sight(row).state
        standing = oracle.standing(one.book(), now)
        check(str(state.standing) == standing, f"{one.pk}: engine {state.standing}, oracle {standing}")
        if standing == "in_review":
            check(list(state.open) == oracle.open_stages(one.book()), "other stages are open")
            stored = [s.ordinal for s in row.stages.all() if s.opened_at and not s.completed_at]
            check(stored == list(state.open), "P15: the stored stages differ from the log")

    def inbox(self, person: User) -> None:
        """What waits for a person is what they could decide, for themselves or for somebody."""
        forget_scopes(person)
        listed = set(selectors.waiting_for(person).values_list("pk", flat=True))
        now, able = clock.now(), set()
        entrusted = self.delegations()
        for one in self.open_passes():
            book = one.book()
            seats = [person.pk, *(giver for giver, to, _ in entrusted if to == person.pk)]
            for seat in seats:
                fresh = not any({word.actor, word.seat} & {person.pk, seat} for word in oracle.relevant(book))
                if fresh and any(
                    oracle.takes(
                        book, now, stage=stage, actor=person.pk, seat=seat, verdict="reject", holds=self.holds,
                        delegated=entrusted,
                    )
                    for stage in oracle.open_stages(book)
                ):  # fmt: skip
                    able.add(one.pk)
        check(listed == able, f"for {person.pk} wait {listed}, the oracle says {able}")


class Moves:
    """What can happen, chosen by `rng`; who may speak does so often, else hardly anything is ever approved."""

    def __init__(self, floor: Floor, rng: random.Random) -> None:
        self.floor, self.rng = floor, rng

    def _open(self) -> Pass | None:
        """Mostly a request that is open; now and then one that has ended."""
        floor, rng = self.floor, self.rng
        some = floor.open_passes() if rng.random() < 0.95 else floor.passes
        return rng.choice(some) if some else None

    def _holder(self, role: str) -> User | None:
        held = sorted(self.floor.holds[role])
        return self.floor.person(self.rng.choice(held)) if held else None

    def _anybody(self) -> User:
        return self.rng.choice(self.floor.people)

    def ask(self) -> None:
        if len(self.floor.open_passes()) < 3:
            self.floor.submit(self.rng.choice([self.floor.lead, self.floor.lead, self.floor.member]))

    def ask_urgently(self) -> None:
        people = self.floor.people
        if len(self.floor.open_passes()) < 3:
            self.floor.submit(self.rng.choice([people[0], people[4], people[1], people[2]]), emergency=True)

    def approve_own_emergency(self) -> None:
        for one in self.floor.open_passes():
            if one.emergency:
                self.floor.speak(one, self.floor.person(one.requester))

    def correct(self) -> None:
        if one := self._open():
            self.floor.submit(self.floor.lead, corrects=one)

    def approve_by_somebody_able(self) -> None:
        if one := self._open():
            ask = one.asks[self.rng.choice(oracle.open_stages(one.book()) or [0])]
            role = self.rng.choice([role for role in (ask.role, ask.role, ask.escalation, ask.fallback) if role])
            if person := self._holder(role):
                self.floor.speak(one, person)

    def approve_by_anybody(self) -> None:
        if one := self._open():
            self.floor.speak(one, self._anybody())

    def approve_by_somebody_barred(self) -> None:
        """Who is excluded is given the role as well: that must not help."""
        if one := self._open():
            person = self.floor.person(self.rng.choice(sorted(one.barred())))
            role = one.asks[self.rng.choice(oracle.open_stages(one.book()) or [0])].role
            # What an owner of the unit asks for would go above them: who asks here stays what they are.
            asks_for_things = role == OWNER and person in (self.floor.lead, self.floor.member)
            if person.pk not in self.floor.holds[role] and not asks_for_things:
                self.floor.toggle_role(person, role)
            self.floor.speak(one, person, self.rng.choice(["approve", "approve", "reject"]))

    def reject(self) -> None:
        if one := self._open():
            self.floor.speak(one, self._anybody(), "reject")

    def approve_for_somebody(self) -> None:
        one = self._open()
        if one and self.floor.delegated:
            _, giver, to, _, _, _ = self.rng.choice(self.floor.delegated)
            self.floor.speak(one, self.floor.person(to), seat=self.floor.person(giver))

    def launder(self) -> None:
        """Who has spoken, or is excluded, tries again through or with somebody."""
        one = self._open()
        if one is None:
            return
        stage = self.rng.choice(oracle.open_stages(one.book()) or [0])
        actor, giver = self.floor.person(self.rng.choice(sorted(one.party()))), self._holder(one.asks[stage].role)
        if giver is not None and giver.pk != actor.pk:
            self.floor.delegate(giver, actor, one.asks[stage].role, by=giver)
            self.floor.speak(one, actor, seat=giver, stage=stage)

    def delegate(self) -> None:
        self.floor.delegate(*self.rng.sample(self.floor.people, 2), self.rng.choice(ROLES), by=self._anybody())

    def delegate_a_role(self) -> None:
        role = self.rng.choice(ROLES)
        if giver := self._holder(role):
            self.floor.delegate(giver, self._anybody(), role, by=giver)

    def pass_a_delegation_on(self) -> None:
        if self.floor.delegated:
            _, _, to, role, _, _ = self.rng.choice(self.floor.delegated)
            self.floor.delegate(self.floor.person(to), self._anybody(), role, by=self.floor.person(to))

    def end_delegation(self) -> None:
        if self.floor.delegated:
            self.floor.end_delegation(self.rng.randrange(len(self.floor.delegated)))

    def edit(self) -> None:
        if one := self._open():
            self.floor.edit(one)
            if person := self._holder(one.asks[0].role):
                self.floor.speak(one, person)

    def block(self) -> None:
        if one := self._open():
            self.floor.block(one)

    def prove(self) -> None:
        if one := self._open():
            self.floor.prove(one, self._anybody())

    def leave(self) -> None:
        """Everybody steps down from what they wrote and proved, and from the team: that must not help either."""
        if one := self._open():
            for group in (one.thing.authors, one.thing.producers, one.thing.side):
                group -= one.side

    def toggle_role(self) -> None:
        self.floor.toggle_role(self.rng.choice(self.floor.people[2:]), self.rng.choice(ROLES))

    def publish(self) -> None:
        self.floor.publish(self.rng.randrange(len(SHAPES)))

    def withdraw(self) -> None:
        if one := self._open():
            self.floor.withdraw(one)

    def _granted(self) -> Pass | None:
        granted = [one for one in self.floor.passes if one.promise is not None]
        return self.rng.choice(granted) if granted else None

    def revoke(self) -> None:
        if one := self._granted():
            self.floor.revoke(one, self._anybody())

    def take_back_what_was_granted(self) -> None:
        if one := self._granted():
            self.floor.withdraw(one)

    def close_review(self) -> None:
        for one in self.floor.passes:
            if one.review_open:
                by = self._holder(COMPLIANCE) if self.rng.random() < 0.7 else self._anybody()
                self.floor.close_review(one, by or self._anybody())

    def close_own_review(self) -> None:
        """Who took part in the emergency is made a reviewer: that must not help."""
        for one in self.floor.passes:
            if one.review_open:
                person = self.floor.person(self.rng.choice(sorted(one.party())))
                if person.pk not in self.floor.holds[COMPLIANCE]:
                    self.floor.toggle_role(person, COMPLIANCE)
                self.floor.close_review(one, person)

    def wait_a_little(self) -> None:
        self.floor.tick(self.rng.choice([1, 5, 9]), sweep=self.rng.random() < 0.5)

    def wait_long(self) -> None:
        self.floor.tick(self.rng.choice([30, 24 * 41]), sweep=self.rng.random() < 0.7)

    def look(self) -> None:
        self.floor.inbox(self._anybody())


#: How often each happens. Rejections, withdrawals and long waits are rare: they end things.
WEIGHTS = {
    "ask": 14, "ask_urgently": 5, "approve_own_emergency": 4, "correct": 3, "approve_by_somebody_able": 26,
    "approve_by_anybody": 6, "approve_by_somebody_barred": 6, "reject": 2, "approve_for_somebody": 8, "launder": 8,
    "delegate": 4, "delegate_a_role": 8, "pass_a_delegation_on": 2, "end_delegation": 3, "edit": 2, "block": 3,
    "prove": 3, "leave": 3, "toggle_role": 3, "publish": 3, "withdraw": 1, "revoke": 2, "take_back_what_was_granted": 1,
    "close_review": 6, "close_own_review": 3, "wait_a_little": 6, "wait_long": 2, "look": 4,
}  # fmt: skip


def roam(floor: Floor, rng: random.Random, steps: int) -> None:
    """Walk through the room at random."""
    moves = Moves(floor, rng)
    for name in rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=steps):
        getattr(moves, name)()


__all__ = ["WEIGHTS", "Floor", "Moves", "Pass", "Violation", "body_of", "roam"]
