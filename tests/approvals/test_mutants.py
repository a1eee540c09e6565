"""Faults seeded into the room itself, through its actions on the database: the walks must find every one of them."""

from __future__ import annotations
import __future__

import ast
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.db import DatabaseError

from apps.approvals import actions, choices, deciders, delegating, emergencies, engine, granting, recertifying
from apps.approvals.models import PolicyVersion
from tests.approvals.test_properties import walk
from tests.approvals.world import Violation
from tests.factories import Company

STEPS = 80

pytestmark = [pytest.mark.django_db, pytest.mark.requirement("approval-engine-7.1")]


@dataclass(frozen=True)
class Fault:
    """A fault in a function of a module: `old` stands in its source exactly once."""

    name: str
    module: ModuleType
    old: str
    new: str

    def seed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put the faulty function in the place of the honest one, in the module's own namespace."""
        path = Path(str(self.module.__file__))
        source = path.read_text()
        assert source.count(self.old) == 1, f"{self.name}: the text has moved on, seed the fault anew"
        pairs = zip(ast.parse(source).body, ast.parse(source.replace(self.old, self.new)).body, strict=True)
        changed = [new for honest, new in pairs if ast.dump(honest) != ast.dump(new)]
        assert len(changed) == 1, f"{self.name}: changes {len(changed)} functions"
        function = changed[0]
        assert isinstance(function, ast.FunctionDef)
        monkeypatch.setattr(self.module, function.name, getattr(self.module, function.name))
        code = compile(
            ast.Module([function], []), str(path), "exec", __future__.annotations.compiler_flag, dont_inherit=True
        )
        exec(code, self.module.__dict__)  # noqa: S102 (our own source)


FAULTS = [
    Fault("self-approval", engine, "def _barred(case: Case, word: Word) -> str:\n", "def _barred(case: Case, word: Word) -> str:\n    return ''\n"),  # noqa: E501 (one fault a line)
    Fault("only the giver of a delegation is tested", engine, "    if shut := word.persons & case.excluded:\n", "    if shut := {word.seat} & case.excluded:\n"),  # noqa: E501 (one fault a line)
    Fault("evidence producers may decide", deciders, "        found.update(dict.fromkeys(subject.evidence_producers(subject_uid), PRODUCER_RULE))\n", "        found.update({})\n"),  # noqa: E501 (one fault a line)
    Fault("authors may decide", deciders, "    found.update(dict.fromkeys(subject.authors(subject_uid), AUTHOR_RULE))\n", ""),  # noqa: E501 (one fault a line)
    Fault("the side as of submission is forgotten", deciders, "    found = dict.fromkeys(request.requester_side, SIDE_RULE)\n", "    found = dict[int, str]()\n"),  # noqa: E501 (one fault a line)
    Fault("digest ignored", granting, "    return digest(ports.get_subject(request.subject_type).canonical(request.subject_uid))\n", "    return request.subject_digest\n"),  # noqa: E501 (one fault a line)
    Fault("live policy edit: validity", granting, "rules_of(request.policy_version)\n    asked", "rules_of(request.policy_version.policy.versions.order_by('-number')[0])\n    asked"),  # noqa: E501 (one fault a line)
    Fault("expiry of requests left to a sweep", engine, "    return min((end for end in ends if end is not None), default=None)\n\n\ndef _after", "    return None\n\n\ndef _after"),  # noqa: E501 (one fault a line)
    Fault("expiry of grants left to a sweep", engine, "(grant.expires_at is not None and at >= grant.expires_at)", "False"),  # noqa: E501 (one fault a line)
    Fault("revocation ignored", engine, "return grant.revoked_at is None or at < grant.revoked_at", "return True"),
    Fault("quorum by decisions, not people", engine, "    return sum(1 for at, verdict, _ in seats.values()", "    return sum(2 for at, verdict, _ in seats.values()"),  # noqa: E501 (one fault a line)
    Fault("one person in two stages", engine, "        if seat != word.seat and persons & word.persons:\n", "        if seat != word.seat and persons & word.persons and taken == word.stage:\n"),  # noqa: E501 (one fault a line)
    Fault("escalation ignores exclusion", engine, "    state = evaluate(case, at)\n    if state.standing is not", "    state = evaluate(case, at)\n    if any(escalated(case, state, i, at) for i in state.open):\n        case = replace(case, excluded=frozenset())\n    if state.standing is not"),  # noqa: E501 (one fault a line)
    Fault("escalation at once", engine, "    return since is not None and at >= since\n", "    return since is not None\n"),  # noqa: E501 (one fault a line)
    Fault("fallback always open", engine, "        if len(panel.own - case.excluded - {case.requester} - taken) < spec.quorum:\n", "        if True:\n"),  # noqa: E501 (one fault a line)
    Fault("wait ignored", engine, "    if word.verdict == APPROVE and until is not None and word.at < until:\n", "    if False:\n"),  # noqa: E501 (one fault a line)
    Fault("stages of a group one after another", engine, "            found[-1].append(i)\n", "            found.append([i])\n"),  # noqa: E501 (one fault a line)
    Fault("emergency by one person", actions, "        return engine.Outcome(None, (rules.emergency.stage(),))\n", "        return engine.Outcome(type('Rule', (), {'name': 'urgent', 'standard': False}), ())\n"),  # noqa: E501 (one fault a line)
    Fault("emergency by anybody", actions, "        if not may(asking, emergencies.REQUEST_PERMISSION, request):\n", "        if False:\n"),  # noqa: E501 (one fault a line)
    Fault("emergency through the usual stages", actions, "    if kind == RequestKind.EMERGENCY and rules.emergency is not None:\n", "    if False:\n"),  # noqa: E501 (one fault a line)
    Fault("emergency without an end", granting, "hours=urgent.hours if urgent is not None else None", "hours=None"),
    Fault("emergency without a review", granting, "    if request.kind == RequestKind.EMERGENCY:\n        emergencies.open_review", "    if False:\n        emergencies.open_review"),  # noqa: E501 (one fault a line)
    Fault("review does not block", emergencies, "    if found is not None:\n        raise Conflict(", "    if False:\n        raise Conflict("),  # noqa: E501 (one fault a line)
    Fault("review by who took part", emergencies, "    if user_id in parties(request):\n", "    if False:\n"),
    Fault("chained delegation", delegating, "    own = RoleGrant.objects.in_force().filter(user_id=user_id, role=role, team__isnull=True)\n", "    if Delegation.objects.in_force(clock.now()).filter(delegate_id=user_id, role=role).exists():\n        return True\n    own = RoleGrant.objects.in_force().filter(user_id=user_id, role=role, team__isnull=True)\n"),  # noqa: E501 (one fault a line)
    Fault("anybody delegates for anybody", delegating, "    if person is not None and person.pk != giver_id and not may(", "    if False and not may("),  # noqa: E501 (one fault a line)
    Fault("delegates do not see what they decide", delegating, "    made = Standins(tuple(_voices(scopes.user_id, given)), fallback", "    made = Standins((), fallback"),  # noqa: E501 (one fault a line)
    Fault("approved in spite of the checklist", granting, "    found = [str(line) for line in subject.blockers(request.subject_uid, at)]\n", "    found = list[str]()\n"),  # noqa: E501 (one fault a line)
    Fault("the end of a grant told again and again", recertifying, '    grant.save(update_fields=["end_handled_at", "noticed_days"])\n', ""),  # noqa: E501 (one fault a line)
    Fault("revoked, and the room not told", granting, "    ports.tell_ended(grant)\n", ""),
    Fault("anybody revokes", granting, "        if not may_revoke(user.pk, request):\n", "        if False:\n"),
    Fault("a corrected request stays open", actions, '    granting.conclude(earlier, "supersede", "Corrected by a later request.")\n', ""),  # noqa: E501 (one fault a line)
]  # fmt: skip


def live_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judge decisions under the newest version."""
    honest = deciders.case_of

    def live(request: Any, stages: Any, decisions: Any, side: Any) -> engine.Case:
        request.policy_version = PolicyVersion.objects.filter(policy__slug="deep").order_by("-number")[0]
        return honest(request, stages, decisions, side)

    monkeypatch.setattr(deciders, "case_of", live)


def delegate_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the person who spoke, remember only for whom."""
    monkeypatch.setattr(engine.Word, "persons", property(lambda word: frozenset({word.seat})))


def terminal_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an approved request be withdrawn."""
    table = choices.REQUEST_TRANSITIONS._table
    monkeypatch.setitem(table["approved"], "withdraw", "withdrawn")


def revoked_delegations_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the dates of a delegation only."""
    from apps.approvals.querysets import DelegationQuerySet

    monkeypatch.setattr(DelegationQuerySet, "in_force", lambda self, at: self.filter(valid__contains=at))


def room_hears_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Expired grants end without a word."""
    monkeypatch.setattr(recertifying, "ending", lambda at: [])


PATCHES: list[Callable[[pytest.MonkeyPatch], None]] = [
    live_policy, delegate_counted_twice, terminal_left, revoked_delegations_count, room_hears_nothing,
]  # fmt: skip


def found(company: Company, walks: int) -> int | None:
    """Return the first walk that finds a seeded fault."""
    for seed in range(walks):
        try:
            walk(company, seed, STEPS)
        except (Violation, DatabaseError):
            return seed
    return None


def must_be_found(company: Company, seed_it: Callable[[pytest.MonkeyPatch], None], walks: int = 80) -> None:
    """A walk finds the fault, and the very same walk finds nothing without it."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        seed_it(monkeypatch)
        seed = found(company, walks)
    assert seed is not None, "this fault would go unnoticed"
    walk(company, seed, STEPS)


@pytest.mark.full
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_seeded_fault_is_found(company: Company, fault: Fault) -> None:
    must_be_found(company, fault.seed)


@pytest.mark.full
@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.__name__)
def test_a_patched_fault_is_found(company: Company, patch: Callable[[pytest.MonkeyPatch], None]) -> None:
    must_be_found(company, patch)


@pytest.mark.parametrize("name", ["review does not block", "emergency by one person"])
def test_two_of_the_faults_are_found_in_every_run(company: Company, name: str) -> None:
    """The rest runs in the full suite; here only that seeding and finding work."""
    must_be_found(company, next(one for one in FAULTS if one.name == name).seed, 20)


def test_every_fault_can_still_be_seeded() -> None:
    for fault in FAULTS:
        with pytest.MonkeyPatch.context() as monkeypatch:
            honest = dict(fault.module.__dict__)
            fault.seed(monkeypatch)
        assert all(fault.module.__dict__[key] is value for key, value in honest.items()), fault.name
