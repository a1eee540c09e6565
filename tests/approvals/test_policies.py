"""Reading policies: precise complaints, exact comparisons, sentences."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.approvals import engine
from apps.approvals.policy_reader import positions
from tests.approvals.conftest import ONE_STAGE, TWO_STAGES

ROLES = ("compliance", "platform_admin", "unit_owner")


def faults(text: str) -> list[tuple[int | None, str]]:
    with pytest.raises(engine.PolicyError) as refused:
        engine.parse_text(text, roles=ROLES)
    return [(fault.line, fault.path) for fault in refused.value.faults]


BROKEN = """{
  "automatic": [
    {"name": "", "when": [["request.gpus", "less", 2]],
     "counts": {"fact": "Team", "limit": "many"}}
  ],
  "stages": [
    {"name": "Owner", "role": "owner", "scope": "team",
     "quorum": 0,
     "when": [["request.cost", "le", "cheap"], ["a"], ["x", "in", []]]}
  ],
  "valid_days": 3
}"""


@pytest.mark.requirement("approvals-1.2")
def test_every_fault_is_named_with_its_line():
    assert set(faults(BROKEN)) == {
        (11, "valid_days"), (3, "automatic[0].name"), (3, "automatic[0].when[0][1]"), (3, "automatic[0].when"),
        (4, "automatic[0].counts.fact"), (4, "automatic[0].counts.limit"), (7, "stages[0].role"),
        (7, "stages[0].scope"), (8, "stages[0].quorum"), (9, "stages[0].when[0][2]"), (9, "stages[0].when[1]"),
        (9, "stages[0].when[2][2]"),
    }  # fmt: skip


@pytest.mark.requirement("approvals-1.2")
@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('{\n "stages": [,]\n}', 2, "not valid JSON"),
        ('{\n "stages": [],\n "stages": []\n}', 2, "twice"),
        ('{"stages": [],\n "validity_days": 0.5}', 2, "as a string"),
        ('{"stages": [],\n\n "validity_days": NaN}', 3, "no number"),
        ("[]", 1, "must be an object"),
        ("[" * 100_000, None, "nested too deeply"),
        ('{"stages": [],\n "validity_days": ' + "9" * 5000 + "}", None, "too many digits"),
        ("[" * 900 + "]" * 900, None, ""),
        ('{"stages": [' + "[" * 970 + "]" * 970 + "]}", None, ""),
    ],
)
def test_text_that_is_no_policy(text, line, words):
    with pytest.raises(engine.PolicyError) as refused:
        engine.parse_text(text, roles=ROLES)
    fault = refused.value.faults[0]
    assert words in fault.message
    assert line is None or fault.line == line


@pytest.mark.requirement("approvals-1.2")
@pytest.mark.parametrize("value", ["1E+999999", 10**15, "\u0000", "\ud800", "", "x" * 201, True, None, {}])
@pytest.mark.parametrize("op", ["eq", "ge", "in"])
def test_values_that_the_database_or_a_page_could_not_hold_are_refused(value, op):
    if (value, op) in (("1E+999999", "eq"), ("1E+999999", "in")):
        return
    condition = ["request.cost", op, [value] if op == "in" else value]
    body = {"stages": [*ONE_STAGE["stages"], {**ONE_STAGE["stages"][0], "name": "b", "when": [condition]}]}
    assert faults(json.dumps(body))[0][1] == "stages[1].when[0][2]"


@pytest.mark.requirement("approvals-1.2", "approvals-2.2")
def test_a_policy_needs_a_stage_that_no_missing_fact_can_take_away():
    stage = {**ONE_STAGE["stages"][0], "when": [["request.environment", "eq", "production"]]}
    assert faults(json.dumps({"stages": [stage]})) == [(1, "stages")]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.requirement("approvals-1.2")
@given(json_values, st.sampled_from([None, 1, 4]), st.booleans())
def test_any_json_at_all_is_read_or_refused_with_reasons(value, indent, ascii_only):
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert positions(text)[""] == 1
    # No generated value is a policy: a readable one needs a stage with a role.
    with pytest.raises(engine.PolicyError) as refused:
        engine.parse_text(text, roles=ROLES)
    assert refused.value.faults
    assert all(fault.message and str(fault) for fault in refused.value.faults)


numbers = st.integers(-100, 100) | st.decimals(-100, 100, places=2)


@pytest.mark.requirement("approvals-2.1")
@given(numbers, numbers, st.sampled_from(["eq", "ne", "lt", "le", "gt", "ge"]))
def test_numbers_are_compared_exactly_whatever_their_kind(fact, wanted, op):
    written = wanted if isinstance(wanted, int) else str(wanted)
    body = {
        "stages": [{**ONE_STAGE["stages"][0]}, {**ONE_STAGE["stages"][0], "name": "b", "when": [["f", op, written]]}]
    }
    rules = engine.parse_policy(body, roles=ROLES)
    left, right = Decimal(fact), Decimal(wanted)
    truth = {
        "eq": left == right, "ne": left != right, "lt": left < right, "le": left <= right, "gt": left > right,
        "ge": left >= right,
    }[op]  # fmt: skip
    assert (len(engine.stages_for(rules, {"f": fact}).stages) == 2) == truth


@pytest.mark.requirement("approvals-2.2")
@given(st.sampled_from(["eq", "ne", "lt", "le", "gt", "ge", "in"]), st.sampled_from([3, "3", "x"]))
def test_a_missing_fact_makes_every_condition_false(op, wanted):
    if op in ("lt", "le", "gt", "ge") and wanted == "x":
        return
    value = [wanted] if op == "in" else wanted
    rule = {"name": "a", "when": [["f", op, value]]}
    rules = engine.parse_policy({"automatic": [rule], **ONE_STAGE}, roles=ROLES)
    assert engine.stages_for(rules, {"other": 3}).automatic is None


@pytest.mark.requirement("approvals-2.2")
def test_unless_keeps_the_stage_where_a_fact_is_missing():
    spared = {**ONE_STAGE["stages"][0], "name": "Compliance", "unless": [["request.environment", "eq", "development"]]}
    rules = engine.parse_policy({"stages": [*ONE_STAGE["stages"], spared]}, roles=ROLES)
    assert len(engine.stages_for(rules, {}).stages) == 2
    assert len(engine.stages_for(rules, {"request.environment": "development"}).stages) == 1


@pytest.mark.requirement("approvals-2.3")
@given(st.integers(0, 6), st.integers(-3, 6))
def test_the_limit_counts_what_was_so_approved_together_with_this_one(used, more):
    rules = engine.parse_policy(TWO_STAGES, roles=ROLES)
    facts = {"request.gpus": more, "team.budget_remaining": 0, "team.auto_approved_30d": used}
    fires = engine.stages_for(rules, facts).automatic is not None
    assert fires == (more <= 2 and used + max(more, 0) <= 4)


@pytest.mark.requirement("approvals-2.1")
@given(
    st.dictionaries(
        st.sampled_from(["a", "b.c"]), st.integers() | st.text() | st.decimals(allow_nan=False, allow_infinity=False)
    )
)
def test_facts_survive_being_stored(facts):
    stored = json.loads(json.dumps(engine.dump_facts(facts)))
    loaded = engine.load_facts(stored)
    assert loaded == facts
    assert {name: type(value) for name, value in loaded.items()} == {name: type(value) for name, value in facts.items()}


@pytest.mark.requirement("approvals-1.3")
@given(json_values)
def test_a_body_written_for_people_is_the_same_body(value):
    from apps.approvals import wording

    assert json.loads(wording.body_text(value)) == value
    text = wording.body_text(TWO_STAGES)
    assert json.loads(text) == TWO_STAGES
    assert '["request.gpus", "le", 2],' in text


@pytest.mark.requirement("approvals-1.3")
def test_rules_read_as_sentences():
    from apps.approvals import wording

    rules = engine.parse_policy(TWO_STAGES, roles=ROLES)
    assert wording.automatic_text(rules.automatic[0]).startswith(
        "approved without asking when request.gpus is at most 2 and"
    )
    assert wording.stage_text(rules.stages[1]) == (
        "one person with the role Compliance of the whole installation, when request.environment is production; "
        "within 48 hours, or the request lapses"
    )


def _pair(unless: list[list[str]], when: list[list[str]]) -> str:
    stage = {"role": "unit_owner", "scope": "unit", "quorum": 1}
    return json.dumps(
        {"stages": [{"name": "Owner", **stage, "unless": unless}, {"name": "Platform", **stage, "when": when}]}
    )


@pytest.mark.requirement("approvals-1.2")
def test_two_stages_may_share_the_work_if_somebody_is_always_asked():
    of_cluster, removes = ["of_cluster", "eq", "yes"], ["removes", "gt", 0]
    _, rules = engine.parse_text(_pair([of_cluster], [of_cluster]), roles=ROLES)
    for facts, name in (({}, "Owner"), ({"of_cluster": "no"}, "Owner"), ({"of_cluster": "yes"}, "Platform")):
        assert [stage.name for stage in engine.stages_for(rules, facts).stages] == [name]
    assert engine.parse_text(_pair([of_cluster, removes], [of_cluster]), roles=ROLES)
    for unless, when in (([of_cluster], [removes]), ([of_cluster], [of_cluster, removes]), ([of_cluster], [])):
        if when:
            assert faults(_pair(unless, when)) == [(1, "stages")]
        else:
            assert engine.parse_text(_pair(unless, when), roles=ROLES)
