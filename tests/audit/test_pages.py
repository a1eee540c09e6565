"""The trail on pages and through the API."""

from __future__ import annotations

import csv
import hashlib
import io
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection, transaction

from apps.audit import actions
from apps.audit.models import AuditEvent
from apps.audit.selectors import events_for
from apps.core import clock
from apps.core.actor import Actor
from apps.core.testing import assert_queries
from apps.teams.choices import Role
from tests.audit.helpers import TRIED, Tried, seal, write
from tests.factories import Company, client_for, grant, make_user

pytestmark = pytest.mark.django_db


def _text(answer: Any) -> str:
    return str(answer.content.decode())


def _by(company: Company, who: str, **extra: Any) -> AuditEvent:
    with transaction.atomic():
        return actions.record(
            TRIED,
            Tried(1),
            actor=Actor.of(company[who]),
            subject_type=extra.pop("subject_type", "tests.thing"),
            subject_uid=extra.pop("subject_uid", uuid.uuid4()),
            **extra,
        )


@pytest.mark.requirement("audit-4.1")
@pytest.mark.parametrize("who", ["lead_finance", "vp", "admin", "finance", "compliance"])
def test_trail_is_for_auditors_only(company: Company, who: str) -> None:
    event = _by(company, "vp")
    client = client_for(company[who])
    assert client.get("/audit/").status_code == 403
    assert client.get(f"/audit/{event.uid}/").status_code == 404
    assert client.get("/api/v1/audit-events").status_code == 403
    assert client.get(f"/api/v1/audit-events/{event.uid}").status_code == 404
    refused = AuditEvent.objects.filter(action="audit.access.refused", actor_id=str(company[who].uid))
    assert {event.data["changes"]["path"] for event in refused} == {"/audit/", "/api/v1/audit-events"}


@pytest.mark.requirement("audit-4.1")
def test_units_auditor_sees_the_events_of_its_teams_only(company: Company) -> None:
    person = make_user()
    grant(person, Role.AUDITOR, unit=company.unit)
    inside = _by(company, "lead_finance", team_uid=company.finance_team.uid)
    outside, nowhere = _by(company, "vp_other", team_uid=uuid.uuid4()), _by(company, "vp")
    assert list(AuditEvent.objects.visible_to(person)) == [inside]
    client = client_for(person)
    assert client.get(f"/audit/{inside.uid}/").status_code == 200
    for event in (outside, nowhere):
        assert client.get(f"/audit/{event.uid}/").status_code == 404


@pytest.mark.requirement("audit-4.2")
def test_list_is_filtered_by_who_what_object_and_time(company: Company) -> None:
    # Audit rows outlive the tests that wrote them: what is looked for bears a mark of its own.
    mark = f"tests.m{uuid.uuid4().hex[:8]}"
    with clock.frozen(datetime(2026, 11, 3, 12, tzinfo=UTC)):
        old = _by(company, "lead_finance", subject_type=f"{mark}.thing")
    subject = uuid.uuid4()
    new = _by(company, "vp", subject_uid=subject, subject_type=f"{mark}.other")
    client = client_for(company.auditor)

    def shown(**query: str) -> set[uuid.UUID]:
        answer = client.get("/audit/", {"action": "tests.thing.tried", "object": mark, **query})
        assert answer.status_code == 200
        return {row.record.uid for row in answer.context["table"].page.object_list}

    assert shown() == {old.uid, new.uid}
    assert shown(who="lead-finance") == {old.uid}
    assert shown(who=str(company.vp.uid)) == {new.uid}
    assert shown(object=str(subject)) == {new.uid}
    assert shown(object=f"{mark}.o") == {new.uid}
    assert shown(since="2026-11-04") == {new.uid}
    assert shown(until="2026-11-03") == {old.uid}
    assert shown(request=old.request_id) == {old.uid}
    assert _text(client.get("/audit/", {"action": "no.such.action"})).count("is not one of the available choices")


@pytest.mark.requirement("audit-4.2")
def test_names_are_those_of_today_and_of_nobody_in_the_trail(company: Company) -> None:
    event = _by(company, "vp")
    company.vp.display_name = "Renamed person"
    company.vp.save()
    client = client_for(company.auditor)
    assert "Renamed person" in _text(client.get("/audit/?action=tests.thing.tried"))
    assert "Renamed" not in event.canonical_text


@pytest.mark.requirement("audit-4.3")
def test_event_page_shows_bytes_hashes_note_and_history(company: Company) -> None:
    subject = uuid.uuid4()
    first = _by(company, "vp", subject_uid=subject, reason="<b>because</b>")
    second = _by(company, "lead_finance", subject_uid=subject)
    seal()
    text = _text(client_for(company.auditor).get(f"/audit/{first.uid}/"))
    leaf = hashlib.sha256(b"\x00" + bytes(first.canonical)).hexdigest()
    assert leaf in text
    assert "&lt;b&gt;because&lt;/b&gt;" in text
    assert f"/audit/{second.uid}/" in text
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT encode(hash, 'hex'), encode(prev, 'hex') FROM audit.link WHERE event_id = %s", [first.uid]
        )
        for value in cursor.fetchone():
            assert value in text


@pytest.mark.requirement("audit-4.4")
def test_reading_and_exporting_the_trail_is_written_into_it(company: Company) -> None:
    event = _by(company, "vp")
    client = client_for(company.auditor)
    client.get("/audit/?who=secret-name@example.com")
    client.get(f"/audit/{event.uid}/")
    client.get("/api/v1/audit-events")
    own = AuditEvent.objects.filter(actor_id=str(company.auditor.uid))
    viewed = own.filter(action="audit.trail.viewed").order_by("occurred_at")
    assert [one.data["changes"]["path"] for one in viewed] == [
        "/audit/",
        f"/audit/{event.uid}/",
        "/api/v1/audit-events",
    ]
    assert "secret-name" not in viewed[0].canonical_text
    answer = client.get(f"/audit/?export=csv&action=tests.thing.tried&object={event.object_id}")
    rows = list(csv.reader(io.StringIO(b"".join(answer.streaming_content).decode("utf-8-sig"))))
    assert len(rows) == 2
    assert event.canonical_text in rows[1]
    exported = own.get(action="audit.trail.exported")
    assert (exported.data["changes"]["format"], exported.data["changes"]["rows"]) == ("csv", 1)


@pytest.mark.requirement("audit-4.4")
def test_export_needs_its_own_permission(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    from apps.teams import choices

    without = {role: held - {"audit.event.export"} for role, held in choices.PERMISSIONS.items()}
    without[Role.PLATFORM_ADMIN] |= {"audit.event.export"}
    monkeypatch.setattr(choices, "PERMISSIONS", without)
    client = client_for(company.auditor)
    assert client.get("/audit/").status_code == 200
    assert client.get("/audit/?export=csv").status_code == 403


@pytest.mark.requirement("audit-4.5")
def test_api_gives_bytes_and_proof(company: Company) -> None:
    event = write(5, reason="words")
    seal()
    client = client_for(company.auditor)
    data = client.get(f"/api/v1/audit-events/{event.uid}").json()
    assert data["proof"]["leaf"] == hashlib.sha256(b"\x00" + data["canonical"].encode()).hexdigest()
    assert data["note"] == {"reason": "words"}
    found = client.get(f"/api/v1/audit-events?action=tests.thing.tried&object={event.object_id}").json()["results"]
    assert [one["uid"] for one in found] == [str(event.uid)]
    assert client.post("/api/v1/audit-events", {}, content_type="application/json").status_code == 405
    assert client.delete(f"/api/v1/audit-events/{event.uid}").status_code == 405


@pytest.mark.requirement("audit-4.6")
def test_pages_cost_the_same_at_any_length(company: Company) -> None:
    subject = uuid.uuid4()
    for _ in range(70):
        event = _by(company, "vp", subject_uid=subject)
    client = client_for(company.auditor)
    with assert_queries(20):
        assert client.get("/audit/").status_code == 200
    with assert_queries(20):
        assert client.get(f"/audit/{event.uid}/").status_code == 200
    with assert_queries(15):
        assert client.get("/api/v1/audit-events").status_code == 200


@pytest.mark.requirement("audit-4.6")
def test_events_of_an_object_come_oldest_first(company: Company) -> None:
    subject = uuid.uuid4()
    first, second = _by(company, "vp", subject_uid=subject), _by(company, "vp", subject_uid=subject)
    assert list(events_for(subject)) == [first, second]
