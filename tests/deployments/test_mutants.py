"""Faults seeded into releases and rollouts, through the actions on the database: the oracle must find every one."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from django.db import DatabaseError, transaction

from apps.catalogue import grants as version_grants
from apps.core import clock
from apps.deployments import ending, granting, grants, ladder, moving, rollout
from tests.approvals.test_mutants import Fault
from tests.deployments.test_machine import Undo, settle
from tests.deployments.world import World
from tests.deployments.yard import NOW, Script, Violation, Yard

pytestmark = [pytest.mark.django_db, pytest.mark.requirement("release-review-4.2")]

LIVE = "ask0 decide load sweep"
TRIAL = f"{LIVE} ask1 decide load"
SECOND = f"{TRIAL} step wait12 step wait12 step"


@dataclass(frozen=True)
class Case:
    """A fault, and what has to happen for it to show."""

    fault: Fault
    path: str


CASES = [
    Case(Fault("P9 expiry of the version's paper left to a sweep", grants, "version_scope(workspace, traffic), at)\n\n\ndef why_not", "version_scope(workspace, traffic), at.replace(day=18, hour=9))\n\n\ndef why_not"), f"{LIVE} short1 ask1 decide load wait60 step"),  # noqa: E501 (one fault a line)
    Case(Fault("P9 the release's own paper is not asked again", grants, '    if not usable(own, live_digest(release), {"subject_uid": str(release.uid)}, at):\n', "    if False:\n"), f"{TRIAL} own step"),  # noqa: E501 (one fault a line)
    Case(Fault("P14 a step without the trail", moving, "    event = events.ROLLOUT_ROLLED_BACK if moved.kind in _LOUD else events.ROLLOUT_STEPPED\n", "    if moved.kind == StepKind.CANARY:\n        return\n    event = events.ROLLOUT_STEPPED\n"), f"{TRIAL} step"),  # noqa: E501 (one fault a line)
    Case(Fault("P9 the release's own grant is enough", grants, "    if own.kind == RequestKind.EMERGENCY:\n        return Standing", "    if True:\n        return Standing"), f"{TRIAL} take1 step"),  # noqa: E501 (one fault a line)
    Case(Fault("P9 any paper of the version will do", version_grants, "holds(row, manifest_digest, scope, at)), None)\n", "True), None)\n"), f"{TRIAL} take1 step"),  # noqa: E501 (one fault a line)
    Case(Fault("begins as approved, though what serves was stopped", granting, "    return was != (str(current.uid) if current is not None else None) or stopped != now_stopped\n", "    return False\n"), f"{LIVE} ask1 stop decide"),  # noqa: E501 (one fault a line)
    Case(Fault("P9 starts again on papers that ended", rollout, "    standing = grants.require(release, at, traffic=ladder.ALL)\n    granting.require_fit(release)\n    endpoint.stopped_at = None\n", "    standing = grants.standing(release, at, traffic=ladder.ALL)\n    endpoint.stopped_at = None\n"), f"{LIVE} stop take0 start"),  # noqa: E501 (one fault a line)
    Case(Fault("P12 rolls back to what has no papers", rollout, "    standing = grants.require(target, at, traffic=ladder.ALL)\n", "    standing = grants.standing(target, at, traffic=ladder.ALL)\n"), f"{SECOND} take0 back"),  # noqa: E501 (one fault a line)
    Case(Fault("P12 rolls back to the oldest", rollout, '        .order_by("-ended_at", "-pk")\n', '        .order_by("ended_at", "pk")\n'), f"{SECOND} ask0 decide load step wait12 step wait12 step back"),  # noqa: E501 (one fault a line)
    Case(Fault("P13 place asked at the request only", granting, "    if found := unfit_now(release):\n        raise NotAllowed(", "    if False:\n        raise NotAllowed("), f"{TRIAL} away step"),  # noqa: E501 (one fault a line)
    Case(Fault("P13 place not asked when it begins", granting, "    found = list(placed_now(release).refusals)\n", "    found = list[str]()\n"), f"{LIVE} ask1 away decide"),  # noqa: E501 (one fault a line)
    Case(Fault("P17 the ladder binds nobody", ladder, "    if held_until is not None and at < held_until:\n", "    if False:\n"), f"{TRIAL} step step"),  # noqa: E501 (one fault a line)
    Case(Fault("P17 production's hours bind nobody", rollout, "    return endpoint.workspace.environment == Environment.PRODUCTION or bool(asked)\n", "    return False\n"), f"{TRIAL} step promote"),  # noqa: E501 (one fault a line)
    Case(Fault("P17 a rung left out", ladder, "    if rung + 1 < len(ladder):\n        return Move(rung + 1, ladder[rung + 1].traffic, not_before)\n", ""), f"{TRIAL} step wait12 step"),  # noqa: E501 (one fault a line)
    Case(Fault("P17 shares that do not follow", rollout, "shares = {old.pk: ladder.ALL - wanted.traffic, release.pk: wanted.traffic}", "shares = {old.pk: wanted.traffic, release.pk: ladder.ALL - wanted.traffic}"), f"{TRIAL} step"),  # noqa: E501 (one fault a line)
    Case(Fault("takes traffic before it has loaded", rollout, "    if release.load_state != LoadState.LOADED:\n", "    if False:\n"), f"{LIVE} ask1 decide step"),  # noqa: E501 (one fault a line)
    Case(Fault("the end of a paper stops what serves", ending, '    words = "its approval ended; it goes on serving, and nothing new may begin"\n', '    words = "its approval ended"\n    rollout.stop(endpoint.pk, actor=SYSTEM, reason=found.refusal)\n'), f"{LIVE} take0"),  # noqa: E501 (one fault a line)
    Case(Fault("a held one is not held", rollout, '    put_status(release, "hold")\n    release.next_step_at = None\n', "    release.next_step_at = None\n"), f"{TRIAL} step hold"),  # noqa: E501 (one fault a line)
    Case(Fault("resumed on papers that ended", rollout, "    standing = grants.require(release, at, traffic=endpoint.traffic or 1)\n", "    standing = grants.standing(release, at, traffic=endpoint.traffic or 1)\n"), f"{TRIAL} step hold take1 resume"),  # noqa: E501 (one fault a line)
]  # fmt: skip


def play(world: World, case: Case) -> None:
    """Let happen what shows the fault, and undo it; raises Violation where the room and the oracle part ways."""
    with clock.frozen(NOW):
        try:
            with transaction.atomic():
                Script(Yard(world)).play(case.path)
                raise Undo
        except Undo:
            return
        finally:
            settle(world)


def must_be_found(world: World, case: Case) -> None:
    """It is found, and the very same order of things finds nothing without it."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        case.fault.seed(monkeypatch)
        with pytest.raises((Violation, DatabaseError)):
            play(world, case)
    play(world, case)


@pytest.mark.full
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.fault.name)
def test_a_seeded_fault_is_found(yard_world: World, case: Case) -> None:
    must_be_found(yard_world, case)


@pytest.mark.parametrize(
    "name", ["P13 place asked at the request only", "begins as approved, though what serves was stopped"]
)
def test_two_of_the_faults_are_found_in_every_run(yard_world: World, name: str) -> None:
    """The rest runs in the full suite; here only that seeding and finding work."""
    must_be_found(yard_world, next(one for one in CASES if one.fault.name == name))


def test_every_fault_can_still_be_seeded() -> None:
    for case in CASES:
        fault = case.fault
        with pytest.MonkeyPatch.context() as monkeypatch:
            honest = dict(fault.module.__dict__)
            fault.seed(monkeypatch)
        assert all(fault.module.__dict__[key] is value for key, value in honest.items()), fault.name
