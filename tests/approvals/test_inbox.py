"""The inbox: what waits for whom, why, in which order, found in how many queries."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse

from apps.approvals import delegating
from apps.core import clock
from apps.core.actor import Actor
from apps.teams.choices import Role
from tests.factories import client_for, grant, make_user

pytestmark = pytest.mark.django_db

INBOX = "/approvals/inbox/"
COMPLIANCE: dict[str, Any] = {"name": "Compliance", "role": "compliance", "scope": "installation", "quorum": 1}


def titles(page: Any) -> list[str]:
    return [row.record.title for row in page.context["table"].page.object_list]


@pytest.fixture
def stand_in(office, company):
    """Somebody without any role, who stands in for compliance over a day."""
    person = make_user("stand-in@example.com", display_name="Stand-in of compliance")
    delegating.create(
        company.compliance.pk, person.pk, "compliance", actor=Actor.of(company.compliance),
        end=clock.now() + timedelta(days=1), reason="On leave.",
    )  # fmt: skip
    return person


@pytest.mark.requirement("compliance-inbox-1.1", "compliance-inbox-1.2")
def test_it_lists_what_waits_for_me_what_is_due_first_on_top(office, company):
    office.publish({"stages": [{**COMPLIANCE, "due_hours": 96}]})
    office.submit(office.subject.add(text="due in four days"))
    office.publish({"stages": [COMPLIANCE]})
    office.submit(office.subject.add(text="due never"))
    office.publish({"stages": [{**COMPLIANCE, "due_hours": 12}]})
    office.submit(office.subject.add(text="due tonight"))
    page = client_for(company.compliance).get(INBOX)
    assert titles(page) == ["due tonight", "due in four days", "due never"]
    text = page.content.decode()
    assert "within a day" in text
    assert "no limit" in text
    assert titles(client_for(company.admin).get(INBOX)) == []
    assert "No request waits for you" in client_for(company.auditor).get(INBOX).content.decode()


@pytest.mark.requirement("compliance-inbox-1.1")
def test_it_says_why_me_and_what_is_at_stake(office, company):
    office.publish({"stages": [{**COMPLIANCE, "wait_hours": 4}]})
    office.submit(office.subject.add(facts={"environment": "production", "data_class": "phi"}))
    text = client_for(company.compliance).get(INBOX).content.decode()
    for wanted in (
        "Compliance: Compliance of the whole installation", "approvals count from", "production", "phi",
        "+1,405.25 USD" if "+1,405.25" in text else "1,405.25 USD", "Finance",
    ):  # fmt: skip
        assert wanted in text, wanted


@pytest.mark.requirement("compliance-inbox-1.1")
def test_it_names_for_whom_a_stand_in_decides_and_until_when(office, company, stand_in):
    office.publish({"stages": [COMPLIANCE]})
    office.submit()
    text = client_for(stand_in).get(INBOX).content.decode()
    assert f"for {company.compliance}" in text
    assert "(until " in text
    own = client_for(stand_in).get(f"{INBOX}?whose=me")
    assert titles(own) == []
    assert len(titles(client_for(stand_in).get(f"{INBOX}?whose=others"))) == 1
    assert len(titles(client_for(company.compliance).get(f"{INBOX}?whose=me"))) == 1


@pytest.mark.requirement("compliance-inbox-1.1")
def test_an_escalated_stage_says_that_it_is_one(office, company, frozen_clock):
    office.publish(
        {"stages": [{**COMPLIANCE, "escalate_hours": 2,
                     "escalate_to": {"role": "platform_admin", "scope": "installation"}}]}
    )  # fmt: skip
    office.submit()
    admin = client_for(company.admin)
    assert titles(admin.get(INBOX)) == []
    clock.advance(timedelta(hours=3))
    assert "was not decided in time by those asked first" in client_for(company.admin).get(INBOX).content.decode()


@pytest.mark.requirement("compliance-inbox-1.3")
@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("search=patient", ["patient records"]),
        ("environment=production", ["patient records"]),
        ("data_class=internal", ["test data"]),
        ("kind=tests.thing", ["patient records", "test data"]),
        ("due=24", ["patient records"]),
        ("due=none", ["test data"]),
        ("team=finance", ["patient records"]),
        ("whose=emergency", []),
    ],
)
def test_filters(office, company, query, found):
    office.publish({"stages": [{**COMPLIANCE, "due_hours": 10}]})
    office.submit(office.subject.add(text="patient records", facts={"environment": "production", "data_class": "phi"}))
    office.publish({"stages": [COMPLIANCE]})
    office.submit(
        office.subject.add(text="test data", facts={"environment": "staging", "data_class": "internal"}),
        team=company.marketing_team, by=company.lead_marketing,
    )  # fmt: skip
    assert titles(client_for(company.compliance).get(f"{INBOX}?{query}")) == found


@pytest.mark.requirement("compliance-inbox-1.3")
def test_an_unknown_filter_value_is_an_error_beside_the_field(office, company):
    office.publish({"stages": [COMPLIANCE]})
    office.submit()
    page = client_for(company.compliance).get(f"{INBOX}?environment=mars")
    assert "Select a valid choice" in page.content.decode()
    assert titles(page) == []


@pytest.mark.requirement("compliance-inbox-1.4")
def test_it_can_be_worked_by_keyboard_alone(office, company):
    """The script moves the focus over these links and clicks what carries a key; the browser's tests press them."""
    office.publish({"stages": [COMPLIANCE]})
    request = office.submit()
    client = client_for(company.compliance)
    text = client.get(INBOX).content.decode()
    url = reverse("approvals:request-detail", kwargs={"request_uid": request.uid}) + "?from=inbox"
    assert f'<a href="{url}" data-row-link>' in text
    assert "js/shortcuts.js" in text
    assert "<kbd>j</kbd>" in text
    assert "data-shortcuts-switch" in text
    one = client.get(url).content.decode()
    assert 'data-key="d"' in one
    assert "/decide/?from=inbox" in one
    assert 'data-key="c"' in one
    for page in (text, one):
        assert " style=" not in page
        assert "<script>" not in page


@pytest.mark.requirement("compliance-inbox-1.4")
def test_deciding_from_the_inbox_leads_back_to_it(office, company):
    request = office.submit()
    answer = client_for(company.vp).post(
        f"/approvals/requests/{request.uid}/decide/?from=inbox",
        {"verdict": "approve", "reason": "Planned.", "confirmed": "on", "digest": request.subject_digest,
         "version": str(request.version)},
    )  # fmt: skip
    assert (answer.status_code, answer["Location"]) == (303, INBOX)


@pytest.mark.requirement("compliance-inbox-1.5")
def test_it_keeps_to_twenty_queries_with_a_stand_in_of_two(office, company, stand_in, query_limit):
    other = make_user()
    grant(other, Role.UNIT_OWNER, unit=company.unit)
    delegating.create(
        other.pk, stand_in.pk, "unit_owner", actor=Actor.of(other), end=clock.now() + timedelta(days=1), reason="Away.",
    )  # fmt: skip
    office.publish({"stages": [COMPLIANCE]})
    for number in range(6):
        office.submit(office.subject.add(text=f"thing {number}"))
    office.publish({"stages": [{"name": "Owner", "role": "unit_owner", "scope": "unit"}]})
    for number in range(6):
        office.submit(office.subject.add(text=f"owned {number}"))
    for person, count in ((company.compliance, 6), (stand_in, 12)):
        client = client_for(person)
        client.get(INBOX)
        with query_limit(20):
            page = client.get(INBOX)
        assert len(titles(page)) == count


@pytest.mark.requirement("compliance-inbox-1.3")
def test_the_export_says_the_same(office, company):
    office.publish({"stages": [COMPLIANCE]})
    office.submit()
    answer = client_for(company.compliance).get(f"{INBOX}?export=csv")
    text = b"".join(answer.streaming_content).decode()
    assert "Compliance: Compliance of the whole installation" in text
    assert "20 GPUs for the fraud models" in text
    assert "<" not in text
