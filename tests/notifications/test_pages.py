"""Pages and API of notifications and mail."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.test import Client

from apps.audit.models import AuditEvent
from apps.core import clock, events
from apps.notifications.choices import MailStatus
from apps.notifications.models import MailPreference, Notification, SentMail
from tests.factories import Company, client_for
from tests.notifications.test_delivery import Asked


@pytest.fixture(autouse=True)
def _an_event_by_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_registry", dict(events._registry))
    events.declare("quotas.sample.asked", Asked, audience="approvers", mail=True)


def news(user: Any, title: str = "It is applied", path: str = "/words/") -> Notification:
    """Make one notification."""
    return Notification.objects.create(
        user=user,
        message_uid=uuid.uuid4(),
        event="quotas.sample.asked",
        title=title,
        path=path,
        happened_at=clock.now(),
    )


def mail(user: Any, status: str = MailStatus.SENT, subject: str = "Applied") -> SentMail:
    """Make one mail."""
    return SentMail.objects.create(
        user=user, message_uid=uuid.uuid4(), event="quotas.sample.asked", address=user.email, subject=subject,
        body_text="It is applied: https://portal.example.com/x", body_html="<p>x</p>", header_id="<1@example.com>",
        status=status,
    )  # fmt: skip


@pytest.mark.requirement("notifications-2.1")
def test_everybody_sees_their_own_news_and_nobody_elses(company: Company, query_limit: Any) -> None:
    news(company.lead_finance, "For the lead")
    for _ in range(3):
        news(company.admin, "For the admin")
    client = client_for(company.admin)
    with query_limit(20):
        page = client.get("/notifications/").content.decode()
    assert page.count("For the admin") >= 3
    assert "For the lead" not in page
    assert '<span class="bell-count" aria-hidden="true">3</span>' in page
    assert [row["title"] for row in client.get("/api/v1/notifications").json()["results"]] == ["For the admin"] * 3
    unread = client.get("/notifications/?read=yes").content.decode()
    assert "Nothing matches these filters" in unread


@pytest.mark.requirement("notifications-2.2")
def test_reading_is_a_post_and_harmless_twice(company: Company) -> None:
    row = news(company.lead_finance)
    client = client_for(company.lead_finance)
    client.get("/notifications/")
    client.get(f"/notifications/{row.uid}/open/")
    row.refresh_from_db()
    assert row.read_at is None
    opened = client.post(f"/notifications/{row.uid}/open/")
    assert (opened.status_code, opened["Location"]) == (303, "/words/")
    row.refresh_from_db()
    first = row.read_at
    assert first is not None
    client.post(f"/notifications/{row.uid}/read/")
    row.refresh_from_db()
    assert row.read_at == first
    assert client_for(company.admin).post(f"/notifications/{row.uid}/read/").status_code == 404


@pytest.mark.requirement("notifications-2.2")
def test_everything_is_read_at_once_through_page_and_api(company: Company) -> None:
    other = news(company.admin)
    client = client_for(company.lead_finance)
    for send in (
        lambda: client.post("/notifications/read/"),
        lambda: client.post("/api/v1/notifications/read-all", content_type="application/json"),
    ):
        news(company.lead_finance)
        news(company.lead_finance)
        assert send().status_code in (200, 303)
        assert not Notification.objects.visible_to(company.lead_finance).unread().exists()
    other.refresh_from_db()
    assert other.read_at is None
    row = news(company.lead_finance)
    answer = client.post(f"/api/v1/notifications/{row.uid}/read", content_type="application/json")
    assert answer.json()["read_at"] is not None


@pytest.mark.requirement("notifications-2.1")
def test_the_bell_stops_asking_when_the_session_ends(company: Company) -> None:
    news(company.lead_finance)
    bell = client_for(company.lead_finance).get("/notifications/bell/", HTTP_HX_REQUEST="true").content.decode()
    assert "Notifications: 1 not read" in bell
    assert Client().get("/notifications/bell/", HTTP_HX_REQUEST="true").status_code == 286


@pytest.mark.requirement("notifications-2.3")
def test_wishes_are_stored_and_audited(company: Company) -> None:
    client = client_for(company.lead_finance)
    page = client.get("/notifications/settings/").content.decode()
    assert "Quota and workspaces" in page
    groups = dict.fromkeys(_groups(page), "immediately")
    before = AuditEvent.objects.filter(action="notifications.preference.changed").count()
    response = client.post("/notifications/settings/", {**groups, "quotas": "none"})
    assert response.status_code == 303
    assert MailPreference.objects.get(user=company.lead_finance, group="quotas").wish == "none"
    assert AuditEvent.objects.filter(action="notifications.preference.changed").count() == before + 1
    refused = client.post("/notifications/settings/", {**groups, "quotas": "hourly"})
    assert refused.status_code == 400
    assert "id_quotas_error" in refused.content.decode()
    assert MailPreference.objects.get(user=company.lead_finance, group="quotas").wish == "none"


def _groups(page: str) -> list[str]:
    import re

    return re.findall(r'<select name="([a-z_]+)"', page)


@pytest.mark.requirement("notifications-2.4")
def test_people_read_the_mail_they_were_sent_and_no_other(company: Company) -> None:
    own, foreign = mail(company.lead_finance, subject="Mine"), mail(company.lead_marketing, subject="Theirs")
    client = client_for(company.lead_finance)
    page = client.get("/notifications/mail/").content.decode()
    assert "Mine" in page
    assert "Theirs" not in page
    shown = client.get(f"/notifications/mail/{own.uid}/").content.decode()
    assert '<a href="https://portal.example.com/x" rel="nofollow">' in shown
    assert client.get(f"/notifications/mail/{foreign.uid}/").status_code == 404
    assert client.get("/notifications/sent-mail/").status_code == 403
    # Those who watch over all mail still find only their own under "Mail you were sent".
    assert "Mine" not in client_for(company.admin).get("/notifications/mail/").content.decode()


@pytest.mark.requirement("notifications-2.5")
def test_a_platform_admin_sends_a_failed_mail_again(company: Company) -> None:
    row = mail(company.lead_finance, MailStatus.FAILED)
    url = f"/notifications/mail/{row.uid}/retry/"
    assert "Send again" not in client_for(company.auditor).get(f"/notifications/mail/{row.uid}/").content.decode()
    assert client_for(company.auditor).post(url).status_code == 403
    assert client_for(company.lead_finance).post(url).status_code == 403
    admin = client_for(company.admin)
    assert row.address in admin.get("/notifications/sent-mail/?status=failed").content.decode()
    assert admin.post(url).status_code == 303
    row.refresh_from_db()
    assert (row.status, row.attempts) == (MailStatus.QUEUED, 0)
    again = admin.post(url)
    assert again.status_code == 409
    api = admin.post(f"/api/v1/sent-mail/{row.uid}/retry", content_type="application/json")
    assert api.status_code == 409
