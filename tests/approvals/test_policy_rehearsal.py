"""Rules rehearsed on past requests before they are published; the editor's examples."""

from __future__ import annotations

import json
from typing import Any

import pytest

from apps.approvals import deciders, engine, policy_help, rehearsal
from apps.approvals.models import PolicyVersion
from tests.approvals.conftest import ONE_STAGE
from tests.factories import client_for

pytestmark = pytest.mark.django_db
OWNER: dict[str, Any] = ONE_STAGE["stages"][0]
COMPLIANCE: dict[str, Any] = {
    "name": "Compliance", "role": "compliance", "scope": "installation",
    "when": [["request.environment", "eq", "production"]],
}  # fmt: skip
SMALL: dict[str, Any] = {"name": "Small", "when": [["request.gpus", "le", 2]]}


def rules(body: dict[str, Any]) -> engine.PolicyRules:
    return engine.parse_text(json.dumps(body), roles=deciders.deciding_roles())[1]


@pytest.mark.requirement("compliance-inbox-6.2")
def test_every_line_compares_what_was_asked_with_what_would_be(office, company):
    add = office.subject.add
    office.submit(add(text="small", facts={"request.gpus": 1, "request.environment": "staging"}))
    office.submit(add(text="large in production", facts={"request.gpus": 9, "request.environment": "production"}))
    office.submit(add(text="unknown"))
    body = {"automatic": [SMALL], "stages": [{**OWNER, "quorum": 2}, COMPLIANCE]}
    found = rehearsal.rehearse(rules(body), "tests.thing", company.admin)
    lines = {line.request.title: line for line in found.lines}
    assert (found.differing, found.emergencies) == (3, 0)
    small = lines["small"]
    assert (small.now_rule, [one.mark for one in small.then]) == ("Small", ["removed"])
    large = lines["large in production"]
    assert [(one.name, one.quorum, one.mark) for one in large.then] == [("Unit owner", 1, "changed")]
    assert [(one.name, one.quorum, one.mark) for one in large.now] == [
        ("Unit owner", 2, "changed"), ("Compliance", 1, "added"),
    ]  # fmt: skip
    assert [one.name for one in lines["unknown"].now] == ["Unit owner"]
    assert len(lines["unknown"].missing) == 2


@pytest.mark.requirement("compliance-inbox-6.2")
def test_the_same_rules_differ_nowhere_also_where_a_stage_was_sent_a_level_up(office, company):
    office.submit()
    office.submit(by=company.vp)
    found = rehearsal.rehearse(rules(ONE_STAGE), "tests.thing", company.admin)
    assert [line.differs for line in found.lines] == [False, False]


@pytest.mark.requirement("compliance-inbox-6.2")
def test_emergencies_are_left_out_and_fifty_is_enough(office, company, query_limit):
    office.publish(
        {**ONE_STAGE, "emergency": {"role": "compliance", "hours": 4, "review_hours": 72, "review_role": "compliance"}}
    )
    office.submit(team=company.marketing_team, by=company.lead_marketing)
    office.submit(kind="emergency", reason="The model in production answers nothing.")
    with query_limit(6):
        found = rehearsal.rehearse(rules(ONE_STAGE), "tests.thing", company.compliance)
    assert (len(found.lines), found.emergencies) == (1, 1)


@pytest.mark.requirement("compliance-inbox-6.2")
def test_the_newest_are_taken_after_emergencies_are_left_out(office, company, monkeypatch):
    monkeypatch.setattr(rehearsal, "REQUESTS", 2)
    office.publish(
        {**ONE_STAGE, "emergency": {"role": "compliance", "hours": 4, "review_hours": 72, "review_role": "compliance"}}
    )
    office.submit(kind="emergency", reason="Before all of these: it counts no more.")
    for number in range(2):
        office.submit(office.subject.add(text=f"normal {number}"))
        office.submit(kind="emergency", reason="The model in production answers nothing.")
    found = rehearsal.rehearse(rules(ONE_STAGE), "tests.thing", company.compliance)
    assert [line.request.title for line in found.lines] == ["normal 1", "normal 0"]
    assert found.emergencies == 2


@pytest.mark.requirement("compliance-inbox-6.2")
def test_on_the_page_only_what_the_reader_sees_is_rehearsed_and_nothing_is_stored(office, company):
    office.submit(office.subject.add(text="20 GPUs for finance"))
    office.submit(
        office.subject.add(text="Secret of marketing"), team=company.marketing_team, by=company.lead_marketing
    )
    body = json.dumps({"stages": [{**OWNER, "quorum": 2}]})
    sent = {"subject_type": "tests.thing", "body": body}

    def tried(person: Any, **changes: str) -> str:
        answer = client_for(person).post("/approvals/policy-rehearsal/", {**sent, **changes})
        assert answer.status_code == 200
        return answer.content.decode()

    text = tried(company.admin)
    assert "2 of 2 would have been asked differently" in text
    assert "Unit owner: 1 × Unit owner (VP)" in text
    assert "Unit owner: 2 × Unit owner (VP)" in text
    own = tried(company.lead_finance)
    assert "20 GPUs for finance" in own
    assert "Secret of marketing" not in own
    assert "Line 1" in tried(company.admin, body='{"stages": 3}')
    assert "Write rules" in tried(company.admin, body=" ")
    assert PolicyVersion.objects.count() == 1


@pytest.mark.requirement("compliance-inbox-6.3")
@pytest.mark.parametrize("example", policy_help.EXAMPLES, ids=lambda one: one.title)
def test_every_example_of_the_editor_is_a_policy(example):
    """A help text that the reader refuses would be worse than none."""
    body, read = engine.parse_text(example.text, roles=deciders.deciding_roles(), reviewers=deciders.reviewing_roles())
    assert read.stages
    assert body


@pytest.mark.requirement("compliance-inbox-6.3")
def test_the_editor_shows_help_and_the_policy_reads_as_sentences(office, company):
    office.publish(
        {**ONE_STAGE, "reauthenticate_minutes": 10, "terms": [{"name": "max_traffic", "value": 50}],
         "emergency": {"role": "compliance", "hours": 4, "review_hours": 72, "review_role": "compliance"}}
    )  # fmt: skip
    text = client_for(company.admin).get("/approvals/policies/things/publish/").content.decode()
    for example in policy_help.EXAMPLES:
        assert example.title in text
    assert "policy-rehearsal" in text
    read = client_for(company.member_finance).get("/approvals/policies/things/").content.decode()
    assert "needs the password again, at most 10 minutes before" in read
    assert "Max_traffic: 50" in read
    assert "An emergency:" in read
