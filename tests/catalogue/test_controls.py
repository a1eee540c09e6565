"""Results, kinds and controls without a database; an oracle of its own says what a control's status has to be."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.catalogue import controls, evidence_kinds, regimes_data
from apps.catalogue import evidence_results as results
from apps.catalogue.controls import AnswerFact, CheckResult, ControlFact, EvidenceFact, ExceptionFact
from apps.core.errors import Invalid

AT = datetime(2026, 11, 22, 12, tzinfo=UTC)
D1, D2 = "1" * 64, "2" * 64


def _result(**values: Any) -> results.Result:
    return results.read_result({"metric": "auroc", "value": "0.9", **values}, "Row 1")


@pytest.mark.requirement("evidence-2.1")
@pytest.mark.parametrize(
    ("values", "passed"),
    [
        ({}, None),
        ({"comparison": "ge", "threshold": "0.9"}, True),
        ({"comparison": "ge", "threshold": "0.9", "low": "0.89"}, False),
        ({"comparison": "ge", "threshold": "0.9", "low": "0.9", "high": "0.95"}, True),
        ({"comparison": "at most", "threshold": "0.9", "high": "0.91"}, False),
        ({"comparison": "<=", "threshold": "0.9", "low": "0.1"}, True),
    ],
)
def test_the_bound_that_counts_decides(values: dict[str, str], passed: bool | None) -> None:
    assert _result(**values).passed is passed


@pytest.mark.requirement("evidence-2.1")
@given(
    st.lists(
        st.tuples(st.decimals(0, 1, places=3), st.decimals(0, 1, places=3), st.booleans(), st.booleans()), min_size=1,
        max_size=6,
    )
)  # fmt: skip
def test_a_verdict_passes_only_where_every_threshold_is_met(rows: list[tuple[Decimal, Decimal, bool, bool]]) -> None:
    made = [
        _result(
            metric=f"m{i}",
            value=str(value),
            **({"comparison": "ge" if up else "le", "threshold": str(limit)} if set_ else {}),
        )
        for i, (value, limit, up, set_) in enumerate(rows)
    ]
    bad = any(set_ and (value < limit if up else value > limit) for value, limit, up, set_ in rows)
    expected = "fail" if bad else "pass" if any(set_ for *_, set_ in rows) else "info"
    assert results.verdict(made).word == expected


@pytest.mark.requirement("evidence-2.1")
def test_gaps_between_slices_and_small_slices_fail() -> None:
    slices = [
        _result(slice="under 30", value="0.80", samples="900"), _result(slice="over 65", value="0.90", samples="40"),
    ]  # fmt: skip
    gap = results.Gap("auroc", Decimal("0.05"))
    assert results.verdict(slices, [gap]).word == "fail"
    assert results.verdict(slices, [results.Gap("auroc", Decimal("0.1"))]).word == "pass"
    assert results.verdict(slices, [results.Gap("auroc", Decimal("0.1"))], min_samples=50).word == "fail"
    assert results.verdict(slices[:1], [gap]).word == "fail"


@pytest.mark.requirement("evidence-2.1")
def test_a_table_is_read_and_written() -> None:
    text = "metric\tvalue\tci_low\toperator\tlimit\tgroup\nauroc\t0.930\t0.91\t>=\t0.9\tage ≥ 65\nf1\t0.8\t\t\t\t"
    rows = results.parse_table(text)
    assert rows[0].low == Decimal("0.91")
    assert rows[0].slice == "age ≥ 65"
    assert rows[1].passed is None
    assert results.parse_table(results.as_table(rows)) == rows
    assert results.parse_table("auroc, 0.9") == [results.Result("auroc", Decimal("0.9"))]


@pytest.mark.requirement("evidence-2.1")
@pytest.mark.parametrize(
    "row",
    [
        {"metric": ""}, {"value": ""}, {"value": "much"}, {"value": "NaN"}, {"value": 0.9}, {"value": "1e30"},
        {"low": "0.95"}, {"high": "0.1"}, {"threshold": "1"}, {"comparison": "ge"}, {"comparison": "about"},
        {"samples": "0"}, {"samples": "-1"}, {"samples": True}, {"metric": "m" * 101},
    ],
)  # fmt: skip
def test_a_row_that_makes_no_sense_is_refused(row: dict[str, Any]) -> None:
    with pytest.raises(results.BadResults):
        results.read_result({"metric": "auroc", "value": "0.9", **row}, "Row 1")


@pytest.mark.requirement("evidence-2.1")
@pytest.mark.parametrize(
    ("kind", "raw", "has_file", "word"),
    [
        ("image_scan", {"tool": "scanner 1", "image": "i@sha256:x", "critical": 0, "high": 0}, False, "pass"),
        ("image_scan", {"tool": "scanner 1", "image": "i@sha256:x", "critical": 1, "high": 0}, False, "fail"),
        (
            "image_scan",
            {"tool": "s", "image": "i@sha256:x", "critical": 0, "high": 2, "allowed_high": 2},
            False,
            "pass",
        ),
        ("model_scan", {"tool": "scanner 1", "findings": 0}, False, "pass"),
        ("model_scan", {"tool": "scanner 1", "findings": 3}, False, "fail"),
        ("dpia", {"conclusion": "acceptable"}, True, "pass"),
        ("dpia", {"conclusion": "not_acceptable"}, True, "fail"),
        ("security_review", {}, True, "info"),
    ],
)
def test_each_kind_says_what_follows_from_it(kind: str, raw: dict[str, Any], has_file: bool, word: str) -> None:
    assert evidence_kinds.judge(kind, raw, [], has_file=has_file, images=["i@sha256:x"]).verdict == word


@pytest.mark.requirement("evidence-2.1")
@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        ("image_scan", {"tool": "s", "image": "other", "critical": 0, "high": 0}),
        ("image_scan", {"tool": "s", "image": "i@sha256:x", "critical": 0}),
        ("model_scan", {"tool": "s", "findings": "-1"}),
        ("model_scan", {"tool": "s", "findings": 0, "surprise": 1}),
        ("dpia", {"summary": "short"}),
        ("transfer_basis", {"summary": "x" * 40, "basis": "hope"}),
        ("evaluation", {}),
        ("unheard_of", {}),
    ],
)
def test_a_kind_that_lacks_what_it_needs_is_refused(kind: str, raw: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        evidence_kinds.judge(kind, raw, [], has_file=False, images=["i@sha256:x"])


_KINDS = ["evaluation", "dpia", "security_review"]
_evidence = st.builds(
    EvidenceFact,
    uid=st.uuids().map(str),
    kind=st.sampled_from(_KINDS),
    subject_digest=st.sampled_from([D1, D1, D2]),
    verdict=st.sampled_from(["pass", "pass", "fail", "info"]),
    produced_at=st.integers(-500, 3).map(lambda d: AT + timedelta(days=d)),
    valid_until=st.one_of(st.none(), st.integers(-3, 300).map(lambda d: AT + timedelta(days=d))),
    withdrawn=st.sampled_from([False, False, False, True]),
    controls=st.sampled_from([(), (), ("c",), ("other",)]),
    scan=st.sampled_from(["", "", "clean", "pending", "infected"]),
    title=st.just("t"),
)
_control = st.builds(
    ControlFact,
    code=st.just("c"),
    regime=st.just("r"),
    title=st.just("T"),
    citation=st.just("§1"),
    kind=st.sampled_from(["required", "addressable", "advisory", "computed"]),
    when=st.sampled_from(
        [(), (("data_class", "in", ["health"]),), (("regulated", "eq", "no"),), (("gone", "ne", "x"),)]
    ),
    evidence_kinds=st.lists(st.sampled_from(_KINDS), min_size=1, max_size=2, unique=True).map(tuple),
    computed=st.sampled_from(["", "", "", "good", "bad", "nobody"]),
    max_age_days=st.sampled_from([None, 30, 400]),
    applies_from=st.sampled_from([None, date(2026, 11, 22), date(2026, 11, 23)]),
    applies_until=st.sampled_from([None, None, date(2026, 11, 22), date(2026, 12, 1)]),
)
_answers = st.lists(
    st.builds(
        AnswerFact, control=st.sampled_from(["c", "x"]), subject_digest=st.sampled_from([D1, D1, D2]),
        answer=st.sampled_from(["implemented", "equivalent", "not_reasonable"]), order=st.integers(1, 99),
    ),
    max_size=3, unique_by=lambda one: one.order,
)  # fmt: skip
_waivers = st.lists(
    st.builds(
        ExceptionFact, control=st.sampled_from(["c", "x"]), subject_digest=st.sampled_from([D1, D2]),
        expires_at=st.integers(-1, 1).map(lambda d: AT + timedelta(days=d)),
    ),
    max_size=2,
)  # fmt: skip
_FACTS: dict[str, controls.FactValue] = {"data_class": ["health", "internal"], "regulated": "yes"}
_CHECKS = {"good": CheckResult("satisfied", "yes"), "bad": CheckResult("failed", "no")}


def _oracle(c: ControlFact, evidence: list[EvidenceFact], answers: Any, waivers: Any) -> str:
    """What the status has to be, said once more and otherwise."""
    wants_health = c.when in ((), (("data_class", "in", ["health"]),))
    early = c.applies_from == date(2026, 11, 23)
    over = c.applies_until == date(2026, 11, 22)
    if not wants_health or early or over:
        return "not_applicable"

    def base() -> str:
        if c.computed:
            return {"good": "satisfied", "bad": "failed", "nobody": "missing"}[c.computed]
        if c.kind == "addressable":
            given = sorted((a.order, a.subject_digest, a.answer) for a in answers if a.control == "c")
            if not given:
                return "missing"
            if given[-1][1] != D1:
                return "stale"
            if given[-1][2] == "not_reasonable":
                return "satisfied"
        fitting = []
        for e in evidence:
            if e.kind in c.evidence_kinds and "other" not in e.controls and not e.withdrawn and e.produced_at <= AT:
                fitting.append(e)
        here = [e for e in fitting if e.subject_digest == D1]
        if not here:
            return "stale" if fitting else "missing"
        alive = []
        for e in here:
            too_old = c.max_age_days is not None and AT - e.produced_at >= timedelta(days=c.max_age_days)
            if not too_old and not (e.valid_until is not None and e.valid_until <= AT):
                alive.append(e)
        if not alive:
            return "expired"
        words = []
        for kind in _KINDS:
            of_kind = [e for e in alive if e.kind == kind]
            last = [e for e in of_kind if not any(o.produced_at > e.produced_at for o in of_kind)]
            for e in last:
                if e.verdict == "fail" or e.scan == "infected":
                    words.append("failed")
                elif e.scan == "pending" or (kind == "evaluation" and e.verdict != "pass"):
                    words.append("missing")
                else:
                    words.append("satisfied")
        return next(w for w in ("failed", "satisfied", "missing") if w in words)

    found = base()
    covered = any(w.control == "c" and w.subject_digest == D1 and w.expires_at > AT for w in waivers)
    return "waived" if found != "satisfied" and covered else found


@pytest.mark.requirement("evidence-3.1", "evidence-3.2")
@given(_control, st.lists(_evidence, max_size=6, unique_by=lambda one: one.uid), _answers, _waivers, st.randoms())
@settings(max_examples=250)
def test_a_control_stands_as_the_oracle_says_in_whatever_order(
    control: ControlFact, evidence: list[EvidenceFact], answers: Any, waivers: Any, shuffler: random.Random
) -> None:
    def ask() -> controls.ControlState:
        return controls.statuses([control], evidence, answers, waivers, _FACTS, D1, AT, checks=_CHECKS.get)[0]

    first = ask()
    assert first.status == _oracle(control, evidence, answers, waivers)
    for rows in (evidence, answers, waivers):
        shuffler.shuffle(rows)
    assert ask() == first
    assert first.blocks == (
        control.kind != "advisory" and first.status not in ("satisfied", "waived", "not_applicable")
    )
    # A version without a digest has nothing that evidence could be about.
    draft = controls.statuses([control], evidence, answers, waivers, _FACTS, "", AT, checks=_CHECKS.get)[0]
    assert control.computed or draft.status != "satisfied"


@pytest.mark.requirement("evidence-3.2")
def test_a_control_is_satisfied_exactly_until_it_says() -> None:
    control = ControlFact("c", "r", "T", "§", "required", evidence_kinds=("dpia",), max_age_days=10)
    piece = EvidenceFact("u", "dpia", D1, "info", AT - timedelta(days=3))
    state = controls.statuses([control], [piece], [], [], {}, D1, AT)[0]
    assert state.status == "satisfied"
    assert state.valid_until == AT + timedelta(days=7)
    for at, expected in ((state.valid_until - timedelta(seconds=1), "satisfied"), (state.valid_until, "expired")):
        assert controls.statuses([control], [piece], [], [], {}, D1, at)[0].status == expected


@pytest.mark.requirement("evidence-3.2")
def test_one_piece_satisfies_every_control_it_fits() -> None:
    made = [ControlFact(code, "r", code, "§", "required", evidence_kinds=("security_review",)) for code in "abc"]
    piece = EvidenceFact("u", "security_review", D1, "pass", AT)
    assert {one.status for one in controls.statuses(made, [piece], [], [], {}, D1, AT)} == {"satisfied"}


def _shipped(code: str) -> regimes_data.RegimeData:
    return next(one for one in regimes_data.shipped() if one.code == code)


@pytest.mark.requirement("evidence-3.3")
def test_164_312_is_whole() -> None:
    rows = {
        columns["citation"].removeprefix("45 CFR 164.312"): columns for columns in _shipped("hipaa").controls.values()
    }
    assert sorted(rows) == sorted(
        ["(a)(1)", "(a)(2)(i)", "(a)(2)(ii)", "(a)(2)(iii)", "(a)(2)(iv)", "(b)", "(c)(1)", "(c)(2)", "(d)", "(e)(1)",
         "(e)(2)(i)", "(e)(2)(ii)"]
    )  # fmt: skip
    addressable = {cite for cite, columns in rows.items() if columns["kind"] == "addressable"}
    assert addressable == {"(a)(2)(iii)", "(a)(2)(iv)", "(c)(2)", "(e)(2)(i)", "(e)(2)(ii)"}
    assert rows["(b)"]["kind"] == rows["(d)"]["kind"] == "required"


def _act(at: datetime, **facts: str) -> set[str]:
    rows = [
        ControlFact(
            code, "eu-ai-act", c["title"], c["citation"], c["kind"], when=tuple(c["when"]),
            applies_from=c["applies_from"], evidence_kinds=tuple(c["evidence_kinds"]),
        )
        for code, c in _shipped("eu-ai-act").controls.items()
    ]  # fmt: skip
    given_ = {
        "environment": "production",
        "risk_tier": "high",
        "act_annex": "annex_iii",
        "act_role": "provider",
        **facts,
    }
    return {row.code for row in rows if not controls.why_not_applicable(row, given_, at)}


@pytest.mark.requirement("evidence-3.3")
def test_the_ai_act_applies_by_tier_role_annex_and_moved_dates() -> None:
    before, after = datetime(2027, 12, 1, 23, tzinfo=UTC), datetime(2027, 12, 2, tzinfo=UTC)
    assert "ai-act-9-iii" not in _act(before)
    assert "ai-act-9-iii" in _act(after)
    assert "ai-act-9-i" not in _act(after, act_annex="annex_i")
    assert "ai-act-9-i" in _act(datetime(2028, 8, 2, tzinfo=UTC), act_annex="annex_i")
    deployer = _act(after, act_role="deployer")
    assert {"ai-act-26-2-iii", "ai-act-26-6-iii"} <= deployer
    assert "ai-act-9-iii" not in deployer
    assert "ai-act-50" in _act(AT, risk_tier="transparency")
    assert "ai-act-50" not in _act(AT, risk_tier="minimal")
    assert not _shipped("eu-ai-act").controls["ai-act-9-iii"]["confirmed"]


@pytest.mark.requirement("evidence-3.3")
def test_every_shipped_control_names_a_check_or_evidence_that_exists() -> None:
    from apps.catalogue.ports import checks

    for regime in regimes_data.shipped():
        assert regime.columns["source"]
        assert regime.columns["as_of"]
        for code, columns in regime.controls.items():
            assert columns["computed"] in ("", *checks()), code
            assert all([columns["citation"], columns["text"]]), code
    assert "policy choice" in _shipped("sox").columns["note"].lower()


@pytest.mark.requirement("evidence-3.3")
@pytest.mark.parametrize(
    "change",
    [{"kind": "ticked"}, {"evidence_kinds": []}, {"when": [["a", "like", "b"]]}, {"applies_from": "soon"}, {"tick": 1},
     {"kind": "computed"}, {"max_age_days": 0}],
)  # fmt: skip
def test_a_control_that_makes_no_sense_is_not_loaded(change: dict[str, Any]) -> None:
    base = {"code": "x", "citation": "§", "title": "T", "text": "t", "kind": "required", "evidence_kinds": ["dpia"]}
    with pytest.raises(regimes_data.BadRegime):
        regimes_data.control(base | change, "x.json")
