"""The API: deciding for somebody, comments, delegations, reviews, lost standard changes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from apps.accounts.actions import create_token
from apps.approvals import delegating, standing
from apps.approvals.models import Decision, EmergencyReview, StandardLoss
from apps.core import clock, formats
from apps.core.actor import Actor
from apps.teams.choices import Role
from tests.approvals.conftest import ONE_STAGE
from tests.factories import client_for, grant, make_user

pytestmark = pytest.mark.django_db
API = "/api/v1"
JSON = "application/json"


def post(client: Any, path: str, **data: Any) -> Any:
    return client.post(f"{API}/{path}", data, content_type=JSON)


@pytest.mark.requirement("compliance-inbox-7.1")
def test_deciding_on_behalf_of_a_giver(office, company):
    person = make_user()
    delegating.create(
        company.vp.pk, person.pk, "unit_owner", actor=Actor.of(company.vp), end=clock.now() + timedelta(days=1),
        reason="Leave.",
    )  # fmt: skip
    request = office.submit()
    client, path = client_for(person), f"approval-requests/{request.uid}/decide"
    said = {"verdict": "approve", "reason": "Planned.", "subject_digest": request.subject_digest}
    assert post(client, path, **said).status_code == 403
    unknown = post(client, path, **said, on_behalf_of=str(request.uid))
    assert (unknown.status_code, list(unknown.json()["errors"])) == (400, ["on_behalf_of"])
    assert post(client, path, **said, on_behalf_of=str(company.admin.uid)).status_code == 403
    done = post(client, path, **said, on_behalf_of=str(company.vp.uid), stage=0)
    assert (done.status_code, done.json()["status"]) == (200, "approved")
    assert done.json()["decisions"][0]["on_behalf_of"] == str(company.vp.uid)


@pytest.mark.requirement("compliance-inbox-7.1", "compliance-inbox-3.2")
def test_a_policy_that_wants_the_password_takes_no_token(office, company, frozen_clock):
    office.publish({**ONE_STAGE, "reauthenticate_minutes": 10})
    request = office.submit()
    said = {"verdict": "approve", "reason": "Planned.", "subject_digest": request.subject_digest}
    path = f"approval-requests/{request.uid}/decide"
    until = clock.now() + timedelta(days=1)
    secret = create_token(company.vp.pk, "CI", until, False, actor=Actor.of(company.vp))[1]
    machine = Client(headers={"Authorization": f"Bearer {secret}"})
    refused = post(machine, path, **said)
    assert (refused.status_code, refused.json()["rule"]) == (403, "reauthenticate")
    browser = client_for(company.vp)
    clock.advance(timedelta(minutes=11))
    assert post(browser, path, **said).json()["rule"] == "reauthenticate"
    assert not Decision.objects.exists()
    assert post(client_for(company.vp), path, **said).status_code == 200


@pytest.mark.requirement("compliance-inbox-7.2")
def test_comments(office, company, query_limit):
    request = office.submit()
    client = client_for(company.vp)
    made = post(client, "approval-comments", request=str(request.uid), body="Why twenty?")
    assert (made.status_code, made.json()["subject_digest"]) == (201, request.subject_digest)
    bad = post(client, "approval-comments", request=str(request.uid), body="Why?", anchor="control:NONE")
    assert (bad.status_code, list(bad.json()["errors"])) == (400, ["anchor"])
    uid = made.json()["uid"]
    with query_limit(15):
        listed = client.get(f"{API}/approval-comments?request={request.uid}&open=true")
    assert [one["uid"] for one in listed.json()["results"]] == [uid]
    assert client_for(company.vp_other).get(f"{API}/approval-comments/{uid}").status_code == 404
    assert post(client_for(company.lead_finance), f"approval-comments/{uid}/resolve").status_code == 403
    done = post(client, f"approval-comments/{uid}/resolve")
    assert (done.status_code, done.json()["resolved_by"]) == (200, str(company.vp.uid))
    assert post(client, f"approval-comments/{uid}/resolve").status_code == 409


@pytest.mark.requirement("compliance-inbox-7.2")
def test_delegations(company, query_limit):
    client = client_for(company.vp)
    said = {
        "delegate": str(company.lead_marketing.uid), "role": "unit_owner", "reason": "Leave.",
        "end": formats.rfc3339(clock.now() + timedelta(days=2)),
    }  # fmt: skip
    wrong = post(client, "approval-delegations", **{**said, "role": "finance"})
    assert (wrong.status_code, list(wrong.json()["errors"])) == (400, ["role"])
    other = post(client, "approval-delegations", **said, giver=str(company.compliance.uid))
    assert other.status_code == 403
    assert post(client_for(company.lead_finance), "approval-delegations", **said).status_code == 403
    made = post(client, "approval-delegations", **said)
    assert (made.status_code, made.json()["state"]) == (201, "in_force")
    uid = made.json()["uid"]
    with query_limit(15):
        listed = client.get(f"{API}/approval-delegations?in_force=true").json()["results"]
    assert [one["uid"] for one in listed] == [uid]
    assert client_for(company.lead_finance).get(f"{API}/approval-delegations/{uid}").status_code == 404
    assert post(client_for(company.auditor), f"approval-delegations/{uid}/revoke").status_code == 403
    assert post(client, f"approval-delegations/{uid}/revoke").json()["state"] == "revoked"


@pytest.mark.requirement("compliance-inbox-7.2")
def test_reviews_and_lost_standard_changes(office, company, query_limit):
    office.publish(
        {**ONE_STAGE,
         "automatic": [{"name": "Known", "standard": True, "when": [["request.gpus", "le", 2]]}],
         "emergency": {"role": "compliance", "hours": 4, "review_hours": 72, "review_role": "compliance"}}
    )  # fmt: skip
    known = office.submit(office.subject.add(facts={"request.gpus": 1}))
    standing.report_failure(known.uid, "Rolled back.")
    request = office.submit(kind="emergency", reason="The model in production answers nothing.")
    office.decide(request, company.compliance)
    review, loss = EmergencyReview.objects.get(), StandardLoss.objects.get()
    second = make_user()
    grant(second, Role.COMPLIANCE)
    client = client_for(second)
    for collection, row in (("emergency-reviews?open=true", review), ("standard-losses?in_force=true", loss)):
        with query_limit(15):
            listed = client.get(f"{API}/{collection}").json()["results"]
        assert [one["uid"] for one in listed] == [str(row.uid)]
    found = {"outcome": "justified", "findings": "The index was lost; nothing else would have helped."}
    own = post(client_for(company.compliance), f"emergency-reviews/{review.uid}/close", **found)
    assert own.status_code == 403
    assert "took part" in own.json()["detail"].lower()
    closed = post(client, f"emergency-reviews/{review.uid}/close", **found)
    assert (closed.status_code, closed.json()["outcome"]) == (200, "justified")
    assert post(client, f"standard-losses/{loss.uid}/restore", reason="no").status_code == 400
    restored = post(client, f"standard-losses/{loss.uid}/restore", reason="The test now covers it.")
    assert restored.json()["restored_by"] == str(second.uid)
