"""Policy bodies at full depth: what they may hold, every fault with its line, sentences, terms."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.approvals import actions, engine, policies, ports, selectors, wording
from apps.approvals.policy_rules import RoleAt
from apps.core.actor import Actor
from apps.core.errors import Invalid
from tests.approvals.conftest import ONE_STAGE, TWO_STAGES, Office

ROLES = ("compliance", "platform_admin", "unit_owner")
OWNER = {"name": "Unit owner", "role": "unit_owner", "scope": "unit"}
COMPLIANCE = {"name": "Compliance", "role": "compliance", "scope": "installation"}
DEEP: dict[str, Any] = {
    "automatic": [{"name": "Same model, new weights", "when": [["request.risk", "eq", "low"]], "standard": True}],
    "stages": [
        {**OWNER, "group": 1, "due_hours": 72},
        {
            **COMPLIANCE, "group": 1, "quorum": 2, "wait_hours": 12, "escalate_hours": 24, "due_hours": 96,
            "escalate_to": {"role": "platform_admin", "scope": "installation"},
            "fallback": {"role": "unit_owner", "scope": "parent_unit"},
        },
    ],
    "terms": [
        {"name": "staging_hours", "value": 24},
        {"name": "staging_hours", "value": 72, "when": [["request.risk", "eq", "high"]]},
        {"name": "expiry_action", "value": "alert_only"},
    ],
    "emergency": {
        "role": "platform_admin", "quorum": 1, "hours": 4, "review_hours": 72, "review_role": "compliance",
    },
    "separation": {"authors": True, "evidence_producers": False},
    "reauthenticate_minutes": 15,
    "validity_days": 90,
}  # fmt: skip


def faults(body: Any, **kwargs: Any) -> list[tuple[int | None, str]]:
    with pytest.raises(engine.PolicyError) as refused:
        engine.parse_text(body if isinstance(body, str) else json.dumps(body), roles=ROLES, **kwargs)
    return [(fault.line, fault.path) for fault in refused.value.faults]


@pytest.mark.requirement("approval-engine-1.1")
def test_a_deep_body_is_read_whole() -> None:
    rules = engine.parse_policy(DEEP, roles=ROLES)
    assert [(stage.group, stage.wait_hours, stage.escalate_hours) for stage in rules.stages] == [
        (1, None, None), (1, 12, 24),
    ]  # fmt: skip
    assert rules.stages[1].escalate_to == RoleAt("platform_admin", "installation")
    assert rules.stages[1].fallback == RoleAt("unit_owner", "parent_unit")
    assert rules.automatic[0].standard
    assert rules.emergency is not None
    assert (rules.emergency.hours, rules.emergency.scope) == (4, "installation")
    assert not rules.separation.evidence_producers
    assert (rules.reauthenticate_minutes, rules.validity_days) == (15, 90)
    assert rules.facts() == ["request.risk"]


@pytest.mark.requirement("approval-engine-1.1")
@pytest.mark.parametrize("body", [ONE_STAGE, TWO_STAGES])
def test_bodies_without_depth_read_as_ever_and_are_strict_about_evidence(body: dict[str, Any]) -> None:
    rules = engine.parse_policy(body, roles=ROLES)
    assert (rules.terms, rules.emergency, rules.reauthenticate_minutes) == ((), None, None)
    assert rules.separation.evidence_producers
    assert all(stage.group == 0 and stage.fallback is None for stage in rules.stages)


@pytest.mark.requirement("approval-engine-1.1")
def test_every_fault_of_the_depth_is_named_with_its_line() -> None:
    broken = """{
  "automatic": [{"name": "a", "when": [["f", "eq", 1]], "standard": "yes"}],
  "stages": [
    {"name": "A", "role": "unit_owner", "scope": "unit", "group": 2,
     "wait_hours": 24, "due_hours": 24},
    {"name": "B", "role": "unit_owner", "scope": "unit", "group": 1,
     "escalate_hours": 5},
    {"name": "C", "role": "unit_owner", "scope": "unit",
     "escalate_to": {"role": "auditor", "scope": "unit"}},
    {"name": "D", "role": "unit_owner", "scope": "unit", "group": 12, "fallback": {"role": "compliance"}}
  ],
  "terms": [
    {"name": "Staging", "value": 3},
    {"name": "x", "value": true},
    {"name": "y"}
  ],
  "emergency": {"role": "nobody", "quorum": 0, "hours": 500,
                "review_role": "unit_owner"},
  "separation": {"authors": false, "evidence_producers": "no", "others": true},
  "reauthenticate_minutes": 0
}"""
    assert set(faults(broken, reviewers=("compliance",))) == {
        (2, "automatic[0].standard"), (5, "stages[0].wait_hours"), (6, "stages[1].group"),
        (6, "stages[1].escalate_to"), (9, "stages[2].escalate_to.role"), (8, "stages[2].escalate_hours"),
        (10, "stages[3].group"), (10, "stages[3].fallback.scope"), (13, "terms[0].name"), (14, "terms[1].value"),
        (15, "terms[2].value"), (17, "emergency.role"), (17, "emergency.quorum"), (17, "emergency.hours"),
        (18, "emergency.review_role"), (17, "emergency.review_hours"), (19, "separation.authors"),
        (19, "separation.evidence_producers"), (19, "separation.others"), (20, "reauthenticate_minutes"),
    }  # fmt: skip


@pytest.mark.requirement("approval-engine-1.1")
@given(st.lists(st.integers(0, 3), min_size=1, max_size=5))
def test_groups_stand_together_and_rise(groups: list[int]) -> None:
    stages = [{**OWNER, "name": f"s{i}", "group": group} for i, group in enumerate(groups)]
    numbered = [g for i, g in enumerate(groups) if g and (i == 0 or groups[i - 1] != g)]
    orderly = numbered == sorted(set(numbered))
    if not orderly:
        assert all(path.endswith(".group") for _, path in faults({"stages": stages}))
        return
    rules = engine.parse_policy({"stages": stages}, roles=ROLES)
    specs = [engine.StageSpec(s.name, s.role, s.quorum, group=s.group) for s in rules.stages]
    assert [i for step in engine.steps(specs) for i in step] == list(range(len(groups)))


@pytest.mark.requirement("approval-engine-1.2")
def test_the_last_term_that_holds_wins_and_a_missing_fact_holds_nothing() -> None:
    rules = engine.parse_policy(DEEP, roles=ROLES)
    assert engine.terms_under(rules, {}) == {"staging_hours": 24, "expiry_action": "alert_only"}
    assert engine.terms_under(rules, {"request.risk": "high"})["staging_hours"] == 72


@pytest.mark.django_db
@pytest.mark.requirement("approval-engine-1.2")
def test_a_request_keeps_its_terms_when_the_policy_changes(office: Office) -> None:
    terms = [{"name": "max_traffic", "value": 50, "when": [["request.gpus", "ge", 5]]}]
    office.publish({**ONE_STAGE, "terms": terms})
    request = office.submit(office.subject.add(facts={"request.gpus": 5}))
    office.publish({**ONE_STAGE, "terms": [{"name": "max_traffic", "value": 10}]})
    request.refresh_from_db()
    assert ports.terms(request) == {"max_traffic": 50}
    assert ports.terms_for("things", {"request.gpus": 5}) == {"max_traffic": 10}
    assert selectors.preview("things", {}).terms == {"max_traffic": 10}
    with pytest.raises(Invalid, match="No policy is published"):
        ports.terms_for("nothing", {})


@pytest.mark.django_db
@pytest.mark.requirement("approval-engine-1.3")
def test_a_misspelt_term_is_a_fault_where_the_room_described_its_terms(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ports._terms, "tests.thing", {})
    office.publish({**ONE_STAGE, "terms": [{"name": "anything", "value": 1}]})
    ports.describe_term("tests.thing", "staging_hours", label="Hours in staging", meaning="…", unit="hours")
    with pytest.raises(Invalid, match=r"terms\[0\]\.name: is no term known here; known are staging_hours"):
        office.publish({**ONE_STAGE, "terms": [{"name": "stagin_hours", "value": 1}]})
    with pytest.raises(Invalid, match="Line 2, terms"):
        policies.read_text(
            '{"stages": ' + json.dumps(ONE_STAGE["stages"]) + ',\n"terms": [{"name": "x", "value": 1}]}', "tests.thing"
        )
    version = office.publish({**ONE_STAGE, "terms": [{"name": "staging_hours", "value": 48}]})
    rules = engine.parse_policy(version.body, roles=ROLES)
    assert "Hours in staging: 48 hours" in wording.rules_text(rules, "tests.thing")


@pytest.mark.django_db
@pytest.mark.requirement("approval-engine-1.1")
def test_a_review_role_must_be_able_to_close_a_review(office: Office) -> None:
    section = {**DEEP["emergency"], "review_role": "platform_admin"}
    with pytest.raises(Invalid, match=r"emergency\.review_role: must be one of compliance"):
        actions.publish_policy(
            "things", "Things", "tests.thing", {**ONE_STAGE, "emergency": section}, actor=Actor.of(office.company.admin)
        )


@pytest.mark.django_db
@pytest.mark.requirement("approval-engine-1.1")
def test_the_depth_reads_as_sentences() -> None:
    rules = engine.parse_policy(DEEP, roles=ROLES)
    assert wording.stage_text(rules.stages[1]) == (
        "2 different people with the role Compliance of the whole installation; at the same time as the other stages "
        "of group 1; no approval counts in the first 12 hours; after 24 hours also Platform admin of the whole "
        "installation; where too few of them are free of conflicts also Unit owner (VP) of the unit above the paying "
        "one; within 96 hours, or the request lapses"
    )
    assert "standard change" in wording.automatic_text(rules.automatic[0])
    text = "\n".join(wording.rules_text(rules))
    for words in (
        "holds for 4 hours at most", "reviews it within 72 hours", "the password again, at most 15 minutes",
        "holds for 90 days", "staging_hours: 72, when request.risk is high",
    ):  # fmt: skip
        assert words in text
    assert json.loads(wording.body_text(DEEP)) == DEEP
