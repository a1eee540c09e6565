"""The history tab of detail pages."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.db import transaction

from apps.audit import actions
from apps.audit.history import Line, _changes, lines, title_of
from apps.audit.models import AuditEvent
from apps.core.actor import Actor, Channel
from apps.core.testing import assert_queries
from tests.audit.helpers import TRIED, Tried
from tests.factories import Company, client_for

pytestmark = pytest.mark.django_db


def _about(company: Company, row: Any, who: str, number: int = 7, team: uuid.UUID | None = None) -> AuditEvent:
    with transaction.atomic():
        return actions.record(
            TRIED,
            Tried(number, person="Secret person"),
            actor=Actor.of(company[who]),
            subject_type="tests.thing",
            subject_uid=row.uid,
            team_uid=team,
            reason="words of somebody",
        )


@pytest.mark.requirement("audit-keeping-1.1")
def test_whoever_opens_a_page_finds_its_history_beside_it(company: Company) -> None:
    team = company.finance_team
    _about(company, team, "lead_finance", 4711, team.uid)
    client = client_for(company.lead_finance)
    url = f"/teams/{team.slug}/"
    assert f'href="{url}?history"' in client.get(url).content.decode()
    text = client.get(url, {"history": ""}).content.decode()
    assert "Thing tried" in text
    assert "4711" in text
    assert str(company.lead_finance.display_name) in text
    assert "words of somebody" not in text
    assert "Secret person" not in text


@pytest.mark.requirement("audit-keeping-1.2")
def test_the_tab_has_the_pages_own_checks(company: Company) -> None:
    url = f"/teams/{company.finance_team.slug}/?history"
    for who in ("lead_marketing", "vp_other"):
        assert client_for(company[who]).get(url).status_code == 404
    person = f"/people/{company.vp.uid}/?history"
    assert client_for(company.lead_finance).get(person).status_code == 404
    assert client_for(company.admin).get(person).status_code == 200


@pytest.mark.requirement("audit-keeping-1.3")
def test_of_a_row_that_many_see_foreign_teams_stay_out(company: Company) -> None:
    """Of a pool or a model, say: only events of the own teams and of nobody's, and those without names."""
    shared = type("Shared", (), {"uid": uuid.uuid4()})()
    _about(company, shared, "lead_marketing", 1, company.marketing_team.uid)
    _about(company, shared, "admin", 2)
    _about(company, shared, "lead_finance", 3, company.finance_team.uid)
    seen = lines(company.lead_finance, shared)
    assert [(line.who, line.changes) for line in seen] == [
        (company.lead_finance.display_name, [("number", "3")]),
        ("", []),
    ]
    assert [line.who for line in lines(company.auditor, shared)] == [
        company[name].display_name for name in ("lead_finance", "admin", "lead_marketing")
    ]
    assert all(line.readable for line in lines(company.auditor, shared))


@pytest.mark.requirement("audit-keeping-1.3")
def test_who_read_what_is_for_auditors(company: Company) -> None:
    team = company.finance_team
    with transaction.atomic():
        actions.record_refusal(
            actor=Actor.of(company.vp_other), method="POST", path="/x/", subject_type="teams.team", subject_uid=team.uid
        )
    assert lines(company.lead_finance, team) == []
    assert [line.title for line in lines(company.auditor, team)] == ["Access refused"]


@pytest.mark.requirement("audit-keeping-1.4")
def test_reading_a_history_is_recorded_and_costs_little(company: Company) -> None:
    team = company.finance_team
    for number in range(60):
        _about(company, team, "lead_finance", number, team.uid)
    client = client_for(company.lead_finance)
    url = f"/teams/{team.slug}/"
    with assert_queries(20):
        first = client.get(url, {"history": ""})
    assert "page=2" in first.content.decode()
    second = client.get(url, {"history": "", "page": "2"}).content.decode()
    assert second.count("Thing tried") == 10
    assert client.get(url, {"history": "", "page": "9"}).status_code == 404
    assert client.get(url, {"history": "", "page": "x"}).status_code == 400
    read = AuditEvent.objects.filter(action="audit.trail.viewed", actor_id=str(company.lead_finance.uid))
    assert {event.data["changes"]["path"] for event in read} == {url}
    assert not read.filter(object_id=team.uid).exists(), "a history is not about being read"


def test_names_of_events_become_words() -> None:
    assert title_of("quotas.request.approved") == "Request approved"
    assert title_of("approvals.break_glass.used") == "Break glass used"


def test_codes_become_words_and_names_stay() -> None:
    said = {"role": "platform_admin", "status": "waiting_for_capacity", "kinds": ["totp"], "slug": "fraud-team", "n": 3}
    event = type("Event", (), {"data": {"changes": said}})()
    assert dict(_changes(event)) == {
        "role": "Platform admin", "status": "Waiting for capacity", "kinds": "Authenticator app", "slug": "fraud-team",
        "n": "3",
    }  # fmt: skip
    assert all(Line(AuditEvent(channel=one), None, "", "", [], False).door != one for one in Channel)  # type: ignore[arg-type]  # only the door is read
