"""Legal holds and retention through the API: the actions of the pages, and nothing that the pages refuse."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from apps.audit import keeping
from apps.audit.models import AuditEvent, Hold
from apps.core import clock
from tests.audit.test_keeping import folder, old
from tests.factories import Company, client_for

__all__ = ["folder", "old"]
pytestmark = pytest.mark.django_db


def _post(client: Client, path: str, **body: Any) -> Any:
    return client.post(f"/api/v1/{path}", json.dumps(body), content_type="application/json")


@pytest.mark.requirement("audit-keeping-2.8")
def test_a_hold_is_placed_and_released(company: Company, frozen_clock: object) -> None:
    compliance, auditor = client_for(company.compliance), client_for(company.auditor)
    assert _post(auditor, "legal-holds", matter="Case 7").status_code == 403
    nobody = str(uuid.uuid4())
    assert _post(compliance, "legal-holds", matter="x", person_uid=nobody).status_code == 400
    refused = _post(compliance, "legal-holds", matter="Case of somebody@example.com")
    assert (refused.status_code, list(refused.json()["errors"])) == (400, ["matter"])
    made = _post(compliance, "legal-holds", matter="Case 7", person_uid=str(company.lead_finance.uid), reason="court")
    assert made.status_code == 201, made.content
    uid = made.json()["uid"]
    assert (made.json()["in_force"], made.json()["person_uid"]) == (True, str(company.lead_finance.uid))
    assert [one.uid for one in keeping.holds_on_person(company.lead_finance.uid)] == [Hold.objects.get().uid]
    assert [one["uid"] for one in auditor.get("/api/v1/legal-holds").json()["results"]] == [uid]
    assert AuditEvent.objects.filter(action="audit.trail.viewed", actor_id=str(company.auditor.uid)).count() == 1
    assert client_for(company.lead_finance).get(f"/api/v1/legal-holds/{uid}").status_code == 404
    assert _post(compliance, f"legal-holds/{uid}/release", reason=" ").status_code == 400
    released = _post(compliance, f"legal-holds/{uid}/release", reason="settled")
    assert (released.status_code, released.json()["in_force"]) == (200, False)
    assert _post(compliance, f"legal-holds/{uid}/release", reason="settled").status_code == 409


@pytest.mark.requirement("audit-keeping-2.8")
def test_two_persons_purge_a_month(company: Company, old: list[AuditEvent]) -> None:
    admin, compliance = client_for(company.admin), client_for(company.compliance)
    months = admin.get("/api/v1/retention-proposals/months").json()
    assert {"month": "2005-03-01", "obstacle": ""} in months["months"]
    assert months["floor_months"] == keeping.floor_months()
    assert _post(compliance, "retention-proposals", month="2005-03-14", reason="old").status_code == 403
    recent = f"{clock.now() - timedelta(days=40):%Y-%m-%d}"
    assert _post(admin, "retention-proposals", month=recent, reason="old").status_code == 400
    made = _post(admin, "retention-proposals", month="2005-03-14", reason="older than ten years")
    assert (made.status_code, made.json()["month"]) == (201, "2005-03-01")
    path = f"retention-proposals/{made.json()['uid']}"
    assert _post(admin, f"{path}/approve", reason="mine").status_code == 403
    approved = _post(compliance, f"{path}/approve", reason="seen")
    assert (approved.status_code, approved.json()["status"]) == (200, "approved")
    assert _post(compliance, f"{path}/reject", reason="late").status_code == 409
    assert _post(admin, f"{path}/withdraw", reason="not now").json()["status"] == "withdrawn"
