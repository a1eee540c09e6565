"""The status of every control, computed and never ticked: pure.

A control applies where its regime's and its own conditions hold and its dates include the moment. What decides it then:
a named check of the portal, or the documented answer to an addressable control, or evidence of one of its kinds that is
bound to exactly the digest asked about. Of several pieces of one kind for the same bytes the newest valid one speaks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeAlias

from apps.catalogue.choices import Answer, ControlKind, ControlStatus, EvidenceKind
from apps.catalogue.classification import ordered

#: Text, or several texts (data classes, environments): then any of them may meet a condition.
FactValue: TypeAlias = "str | int | Sequence[str]"
Condition: TypeAlias = "Sequence[Any]"
OPERATORS = ("eq", "ne", "in", "not_in")
#: Kinds that only count with a verdict of their own: results without any threshold show nothing.
JUDGED = frozenset(
    {EvidenceKind.EVALUATION.value, EvidenceKind.BIAS.value, EvidenceKind.IMAGE_SCAN.value,
     EvidenceKind.MODEL_SCAN.value}
)  # fmt: skip
BLOCKING = frozenset({ControlKind.REQUIRED.value, ControlKind.ADDRESSABLE.value, ControlKind.COMPUTED.value})
CLOSED = frozenset({ControlStatus.SATISFIED.value, ControlStatus.WAIVED.value, ControlStatus.NOT_APPLICABLE.value})


@dataclass(frozen=True, slots=True)
class ControlFact:
    """A control as it is in force, with its regime's conditions and whether the model's owner asked for the regime."""

    code: str
    regime: str
    title: str
    citation: str
    kind: str
    regime_when: tuple[Condition, ...] = ()
    when: tuple[Condition, ...] = ()
    evidence_kinds: tuple[str, ...] = ()
    computed: str = ""
    max_age_days: int | None = None
    applies_from: date | None = None
    applies_until: date | None = None
    confirmed: bool = True
    revision: int = 1


@dataclass(frozen=True, slots=True)
class EvidenceFact:
    """What counts of a piece of evidence."""

    uid: str
    kind: str
    subject_digest: str
    verdict: str
    produced_at: datetime
    valid_until: datetime | None = None
    withdrawn: bool = False
    controls: tuple[str, ...] = ()
    #: "" (no file), or what the scanner said of it (ScanStatus).
    scan: str = ""
    title: str = ""
    #: Why it counts no more although nobody withdrew it (a signature whose key was stolen), or "".
    void: str = ""


@dataclass(frozen=True, slots=True)
class AnswerFact:
    """The documented answer to an addressable control; `order` rises with time."""

    control: str
    answer: str
    subject_digest: str
    order: int


@dataclass(frozen=True, slots=True)
class ExceptionFact:
    """An approved exception for a control."""

    control: str
    subject_digest: str
    expires_at: datetime
    uid: str = ""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a named check of the portal says."""

    status: str
    why: str
    todo: str = ""
    valid_until: datetime | None = None


#: Looks a named check up; None: nobody registered it (then the control is missing, and says so).
Checks: TypeAlias = Callable[[str], "CheckResult | None"]


@dataclass(frozen=True, slots=True)
class ControlState:
    """Where one control stands for one version and scope at one moment."""

    code: str
    status: str
    why: str
    evidence: tuple[str, ...] = ()
    valid_until: datetime | None = None
    regime: str = ""
    title: str = ""
    citation: str = ""
    kind: str = ""
    todo: str = ""
    confirmed: bool = True
    revision: int = 1

    @property
    def blocks(self) -> bool:
        """Whether nobody may approve while it stands like this."""
        return self.kind in BLOCKING and self.status not in CLOSED

    def plain(self) -> dict[str, Any]:
        """Return what a request freezes of it."""
        return {
            "code": self.code, "revision": self.revision, "regime": self.regime, "kind": self.kind,
            "status": self.status, "why": self.why, "evidence": list(self.evidence), "valid_until": self.valid_until,
        }  # fmt: skip


def holds(condition: Condition, facts: Mapping[str, FactValue]) -> bool:
    """Whether a condition `[fact, operator, value]` holds; a missing fact makes it false, whatever the operator."""
    name, operator, wanted = condition
    if name not in facts:
        return False
    held = _texts(facts[name])
    wants = {str(one) for one in wanted} if isinstance(wanted, list | tuple) else {str(wanted)}
    if operator in ("eq", "in"):
        return bool(held & wants)
    if operator in ("ne", "not_in"):
        return not held & wants
    raise ValueError(f"unknown operator {operator!r} in the condition on {name}")


#: From the least to the gravest.
ENVIRONMENTS = ("development", "staging", "production")


def gravest(facts: Mapping[str, FactValue]) -> dict[str, int | Decimal | str]:
    """Return facts as policies compare them: one value each; of data classes and environments the gravest."""
    found: dict[str, int | Decimal | str] = {
        name: value for name, value in facts.items() if isinstance(value, str | int)
    }
    classes, environments = _texts(facts.get("data_class", ())), _texts(facts.get("environment", ()))
    if classes:
        found["data_class"] = ordered(classes)[0]
    if named := [one for one in ENVIRONMENTS if one in environments]:
        found["environment"] = named[-1]
    return found


def _texts(value: FactValue) -> set[str]:
    return {str(value)} if isinstance(value, str | int) else {str(one) for one in value}


def check_conditions(conditions: object) -> list[str]:
    """Return what is wrong with conditions as data."""
    if not isinstance(conditions, list):
        return ["Conditions are a list of [fact, operator, value]."]
    problems = []
    for number, condition in enumerate(conditions, start=1):
        fine = (
            isinstance(condition, list)
            and len(condition) == 3
            and isinstance(condition[0], str)
            and condition[1] in OPERATORS
            and (
                isinstance(condition[2], str | int)
                or (isinstance(condition[2], list) and all(isinstance(one, str | int) for one in condition[2]))
            )
        )
        if not fine:
            problems.append(f"Condition {number} is not [fact, operator, value] with {', '.join(OPERATORS)}.")
    return problems


def why_not_applicable(control: ControlFact, facts: Mapping[str, FactValue], at: datetime) -> str:
    """Return why a control does not apply at a moment, or ""."""
    day = at.date()
    if control.applies_from is not None and day < control.applies_from:
        return f"It applies from {control.applies_from:%Y-%m-%d} on."
    if control.applies_until is not None and day >= control.applies_until:
        return f"It applied until {control.applies_until:%Y-%m-%d}."
    added = control.regime in _texts(facts.get("extra_regimes", ()))
    if not added:
        for condition in control.regime_when:
            if not holds(condition, facts):
                return f"The regime asks for {words(condition)}."
    for condition in control.when:
        if not holds(condition, facts):
            return f"It asks for {words(condition)}."
    return ""


def words(condition: Condition) -> str:
    """Return a condition in words."""
    name, operator, wanted = condition
    many = isinstance(wanted, list | tuple)
    text = " or ".join(str(one).replace("_", " ") for one in (wanted if many else [wanted]))
    label = str(name).replace("_", " ")
    return f"{label} {'other than ' if operator in ('ne', 'not_in') else ''}{text}"


def statuses(
    controls: Iterable[ControlFact],
    evidence: Iterable[EvidenceFact],
    answers: Iterable[AnswerFact],
    exceptions: Iterable[ExceptionFact],
    facts: Mapping[str, FactValue],
    digest: str,
    at: datetime,
    *,
    checks: Checks = lambda name: None,
) -> list[ControlState]:
    """Return the state of every control for the bytes of `digest` at `at`, in the order given."""
    pieces, given, waivers = list(evidence), list(answers), list(exceptions)
    found = []
    for control in controls:
        why_not = why_not_applicable(control, facts, at)
        if why_not:
            found.append(_state(control, CheckResult(ControlStatus.NOT_APPLICABLE.value, why_not)))
            continue
        state = _judged(control, pieces, given, digest, at, checks)
        if state.status not in CLOSED and (waiver := _waiver(control, waivers, digest, at)) is not None:
            why = f"An exception is in force until {waiver.expires_at:%Y-%m-%d}. Without it: {state.why}"
            state = _state(control, CheckResult(ControlStatus.WAIVED.value, why, valid_until=waiver.expires_at))
        found.append(state)
    return found


def _state(control: ControlFact, result: CheckResult, evidence: Sequence[str] = ()) -> ControlState:
    return ControlState(
        control.code, result.status, result.why, tuple(evidence), result.valid_until, control.regime, control.title,
        control.citation, control.kind, result.todo, control.confirmed, control.revision,
    )  # fmt: skip


def _waiver(
    control: ControlFact, exceptions: Sequence[ExceptionFact], digest: str, at: datetime
) -> ExceptionFact | None:
    mine = [
        one for one in exceptions
        if one.control == control.code and one.subject_digest == digest and digest and at < one.expires_at
    ]  # fmt: skip
    return max(mine, key=lambda one: (one.expires_at, one.uid), default=None)


def _judged(
    control: ControlFact,
    evidence: Sequence[EvidenceFact],
    answers: Sequence[AnswerFact],
    digest: str,
    at: datetime,
    checks: Checks,
) -> ControlState:
    if control.computed:
        result = checks(control.computed)
        if result is None:
            result = CheckResult(
                ControlStatus.MISSING.value, f"No part of the portal answers “{control.computed}” yet.",
                "A platform admin has to look at the installation.",
            )  # fmt: skip
        return _state(control, result)
    if control.kind == ControlKind.ADDRESSABLE:
        refusal = _unanswered(control, answers, digest)
        if refusal is not None:
            return _state(control, refusal)
        newest = _newest_answer(control, answers)
        if newest is not None and newest.answer == Answer.NOT_REASONABLE.value:
            return _state(
                control, CheckResult(ControlStatus.SATISFIED.value, "Documented why it is not reasonable here.")
            )
        if not control.evidence_kinds:
            return _state(control, CheckResult(ControlStatus.SATISFIED.value, "The decision is documented."))
    return _by_evidence(control, evidence, digest, at)


def _newest_answer(control: ControlFact, answers: Sequence[AnswerFact]) -> AnswerFact | None:
    mine = [one for one in answers if one.control == control.code]
    return max(mine, key=lambda one: one.order, default=None)


def _unanswered(control: ControlFact, answers: Sequence[AnswerFact], digest: str) -> CheckResult | None:
    newest = _newest_answer(control, answers)
    todo = "Answer it: implemented, an equivalent measure, or why it is not reasonable here."
    if newest is None:
        return CheckResult(ControlStatus.MISSING.value, "It is addressable, and nobody has answered it yet.", todo)
    if not digest or newest.subject_digest != digest:
        return CheckResult(ControlStatus.STALE.value, "The answer was given for other bytes.", todo)
    return None


def ends(piece: EvidenceFact, max_age_days: int | None) -> datetime | None:
    """Return when a piece stops counting for a control: its own end, or the control's maximum age; None: never."""
    aged = piece.produced_at + timedelta(days=max_age_days) if max_age_days is not None else None
    known = [end for end in (piece.valid_until, aged) if end is not None]
    return min(known, default=None)


def offered(control: ControlFact, piece: EvidenceFact) -> bool:
    """Whether a piece counts for a control at all: of one of its kinds, and offered for it or for whatever it fits."""
    return piece.kind in control.evidence_kinds and (not piece.controls or control.code in piece.controls)


def _by_evidence(control: ControlFact, evidence: Sequence[EvidenceFact], digest: str, at: datetime) -> ControlState:
    kinds = " or ".join(_label(kind) for kind in control.evidence_kinds) or "evidence"
    todo = f"Add {kinds} for this version."
    mine = [one for one in evidence if offered(control, one) and not one.withdrawn and one.produced_at <= at]
    void = [one for one in mine if one.void and digest and one.subject_digest == digest]
    mine = [one for one in mine if not one.void]
    bound = [one for one in mine if digest and one.subject_digest == digest]
    if not bound and void:
        why = f"“{void[0].title}” counts no more: {void[0].void}."
        return _state(control, CheckResult(ControlStatus.MISSING.value, why, todo), _uids(void))
    if not bound:
        if mine:
            why = f"There is {_label(min(one.kind for one in mine))}, but for other bytes than this version's."
            return _state(control, CheckResult(ControlStatus.STALE.value, why, todo), _uids(mine))
        return _state(control, CheckResult(ControlStatus.MISSING.value, f"There is no {kinds} yet.", todo))
    valid = [one for one in bound if (end := ends(one, control.max_age_days)) is None or at < end]
    if not valid:
        last = max(end for one in bound if (end := ends(one, control.max_age_days)) is not None)
        why = f"What there was counted until {last:%Y-%m-%d}."
        return _state(control, CheckResult(ControlStatus.EXPIRED.value, why, todo), _uids(bound))
    speaking = _speaking(valid)
    failed = [one for one in speaking if one.verdict == "fail" or one.scan == "infected"]
    if failed:
        bad = failed[0]
        why = "The scanner found malware in its file." if bad.scan == "infected" else f"“{bad.title}” says no."
        fix = "Fix what it found, seal a version, and add new evidence."
        return _state(control, CheckResult(ControlStatus.FAILED.value, why, fix), _uids(failed))
    good = [one for one in speaking if _shows(one)]
    if not good:
        first = speaking[0]
        waits = first.scan == "pending"
        why = "Its file has not been scanned yet." if waits else f"“{first.title}” gives no verdict: set thresholds."
        return _state(control, CheckResult(ControlStatus.MISSING.value, why, todo), _uids(speaking))
    until = [ends(one, control.max_age_days) for one in good]
    longest = None if any(end is None for end in until) else max(end for end in until if end is not None)
    result = CheckResult(ControlStatus.SATISFIED.value, _satisfied(good), valid_until=longest)
    return _state(control, result, _uids(good))


def _shows(piece: EvidenceFact) -> bool:
    return piece.scan != "pending" and (piece.verdict == "pass" or piece.kind not in JUDGED)


def _satisfied(good: Sequence[EvidenceFact]) -> str:
    names = [f"“{one.title}”" for one in good if one.title]
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return f"Shown by {', '.join(names[:2])}{more}." if names else "Shown by evidence."


def _speaking(valid: Sequence[EvidenceFact]) -> list[EvidenceFact]:
    """Return per kind what was produced last; of what was produced at the same moment, all."""
    newest: dict[str, datetime] = {}
    for one in valid:
        newest[one.kind] = max(newest.get(one.kind, one.produced_at), one.produced_at)
    found = [one for one in valid if one.produced_at == newest[one.kind]]
    return sorted(found, key=lambda one: (one.kind, one.uid))


def _uids(pieces: Iterable[EvidenceFact]) -> list[str]:
    return sorted({one.uid for one in pieces})


def _label(kind: str) -> str:
    label = str(EvidenceKind(kind).label)
    return label if label.startswith("DPIA") else label[:1].lower() + label[1:]


def open_controls(states: Iterable[ControlState]) -> list[ControlState]:
    """Return the states that keep an approval from being given."""
    return [state for state in states if state.blocks]


def blocker_lines(states: Iterable[ControlState]) -> list[str]:
    """Return why nobody may approve, one line per open control."""
    return [f"{state.title} ({state.citation}): {state.why}" for state in open_controls(states)]
