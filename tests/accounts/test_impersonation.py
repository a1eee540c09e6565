"""Support sees the portal as somebody else: read-only, for a while, on record."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from apps.accounts import impersonation
from apps.accounts.models import Impersonation, SignInSession, User
from apps.audit.models import AuditEvent
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import NotAllowed
from apps.core.models import OutboxMessage
from tests.factories import Company, client_for, grant, make_user

pytestmark = pytest.mark.django_db
WHY = "Ticket 4711: cannot find the quota request"


def _see_as(company: Company, person: User | None = None) -> Client:
    client = client_for(company.admin)
    answer = client.post(f"/people/{(person or company.member_finance).uid}/see-as/", {"reason": WHY})
    assert answer.status_code == 303, answer.content.decode()[:500]
    return client


def _events(action: str) -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(action=f"accounts.impersonation.{action}").order_by("pk"))


@pytest.mark.requirement("impersonation-1.1", "impersonation-1.6", "impersonation-1.8")
def test_pages_are_the_persons_and_events_name_the_real_one(company: Company) -> None:
    client = _see_as(company)
    page = client.get("/teams/finance/people/")
    text = page.content.decode()
    assert page.status_code == 200
    assert page.context["user"] == company.member_finance
    assert "Member finance" in text
    assert "Admin" in text
    assert "/see-as/end/" in text
    assert client.get("/people/").status_code == 403, "an admin's page is not the member's"
    assert client.get("/teams/marketing/people/").status_code == 404
    assert client_for(company.admin).get("/people/").status_code == 200, "elsewhere the admin is the admin"

    started, seen = _events("started")[0], _events("page_seen")
    for event in (started, *seen):
        assert event.actor_id == str(company.admin.uid)
        assert event.on_behalf_of == str(company.member_finance.uid) or event is started
    assert "/teams/finance/people/" in seen[0].canonical_text
    assert WHY not in started.canonical_text
    refused = AuditEvent.objects.filter(action="audit.access.refused").order_by("-pk").first()
    assert refused is not None
    assert refused.actor_id == str(company.admin.uid)
    assert refused.on_behalf_of == str(company.member_finance.uid)


@pytest.mark.requirement("impersonation-1.2", "impersonation-1.3")
@pytest.mark.parametrize("name", ["compliance", "finance", "auditor", "admin"])
def test_nobody_who_decides_or_audits_is_seen_as(company: Company, name: str) -> None:
    answer = client_for(company.admin).post(f"/people/{company[name].uid}/see-as/", {"reason": WHY})
    assert answer.status_code == 403
    assert not Impersonation.objects.exists()


@pytest.mark.requirement("impersonation-1.2", "impersonation-1.3")
def test_a_future_role_a_unit_role_break_glass_and_switched_off_bar(company: Company) -> None:
    person = company.member_finance
    assert impersonation.bar(company.admin, person) == ""
    for bar in ("later", "unit", "superuser", "off", "program"):
        person = make_user(f"{bar}@example.com")
        if bar == "later":
            given = grant(person, "auditor")
            given.starts_at = clock.now() + timedelta(days=3)
            given.save(update_fields=["starts_at"])
        elif bar == "unit":
            grant(person, "compliance", unit=company.unit)
        elif bar == "superuser":
            person.is_superuser = True
        elif bar == "off":
            person.is_active = False
        else:
            person.kind = "service"
        assert impersonation.bar(company.admin, person), bar
    assert impersonation.bar(company.auditor, company.member_finance), "only who holds the permission"


@pytest.mark.requirement("impersonation-1.4", "impersonation-1.5")
@pytest.mark.parametrize("path", ["/teams/finance/people/add/", "/notifications/read/", "/units/new/"])
def test_everything_but_reading_is_refused(company: Company, path: str) -> None:
    client = _see_as(company, company.lead_finance)
    before = AuditEvent.objects.filter(action="audit.access.refused").count()
    for send in (client.post, client.put, client.delete, client.patch):
        answer: Any = send(path, {"user": "auditor@example.com"})
        assert answer.status_code == 403
        assert "change nothing" in answer.content.decode()
    refused = AuditEvent.objects.filter(action="audit.access.refused").order_by("-pk")
    assert refused.count() == before + 4
    assert "impersonation_reads_only" in refused[0].canonical_text


@pytest.mark.requirement("impersonation-1.5")
@pytest.mark.parametrize("path", ["/account/", "/account/tokens/new/", "/api/v1/me", "/notifications/settings/"])
def test_account_tokens_and_api_stay_closed(company: Company, path: str) -> None:
    assert _see_as(company).get(path).status_code == 403


@pytest.mark.requirement("impersonation-1.7", "impersonation-1.8")
def test_the_person_is_told_at_both_ends(company: Company) -> None:
    client = _see_as(company)
    client.get("/")
    assert client.post("/see-as/end/")["Location"] == f"/people/{company.member_finance.uid}/"
    assert client.get("/people/").status_code == 200, "the admin again"
    told = OutboxMessage.objects.filter(event__startswith="accounts.impersonation.").order_by("pk")
    assert [m.event.rpartition(".")[2] for m in told] == ["started", "ended"]
    assert all(m.recipient_ids == [company.member_finance.pk] for m in told)
    ended = _events("ended")[0]
    assert ended.actor_id == str(company.admin.uid)
    assert ended.on_behalf_of == str(company.member_finance.uid)
    assert Impersonation.objects.get().pages_seen == 1
    assert client.post("/see-as/end/").status_code == 303, "again is harmless"


@pytest.mark.requirement("impersonation-1.9")
@pytest.mark.parametrize("what", ["time", "person became auditor", "admin lost the role", "person switched off"])
def test_it_ends_by_itself_at_the_next_page(company: Company, what: str) -> None:
    client = _see_as(company)
    at = clock.now()
    if what == "time":
        at += impersonation.LASTS
    elif what == "person became auditor":
        grant(company.member_finance, "auditor")
    elif what == "admin lost the role":
        company.admin.role_grants.update(revoked_at=at)
    else:
        User.objects.filter(pk=company.member_finance.pk).update(is_active=False)
    with clock.frozen(at + timedelta(seconds=1)):
        page = client.get("/words/")
    assert page.context["user"] == company.admin
    assert Impersonation.objects.get().ended_at is not None
    assert "see-as/end" not in page.content.decode()


@pytest.mark.requirement("impersonation-1.9")
def test_signing_out_and_a_closed_session_end_it(company: Company) -> None:
    client = _see_as(company)
    assert client.post("/sign-out/").status_code == 303
    assert _events("ended")[0].canonical_text.count("signed_out") == 1
    _see_as(company)
    SignInSession.objects.filter(user=company.admin).update(closed_at=clock.now())
    assert impersonation.end_due() == 1
    assert impersonation.end_due() == 0


@pytest.mark.requirement("impersonation-1.10")
def test_a_polled_fragment_counts_once_a_page_every_time(company: Company) -> None:
    client = _see_as(company)
    for _ in range(3):
        assert client.get("/teams/finance/people/", headers={"HX-Request": "true"}).status_code == 200
    assert Impersonation.objects.get().pages_seen == 1
    client.get("/teams/finance/people/")
    client.get("/teams/finance/people/")
    assert Impersonation.objects.get().pages_seen == len(_events("page_seen")) == 3


@pytest.mark.requirement("impersonation-1.1")
def test_a_mark_copied_to_another_browser_opens_nothing_and_none_starts_within_one(company: Company) -> None:
    client = _see_as(company)
    other = client_for(company.auditor)
    store = other.session
    store[impersonation.KEY] = client.session[impersonation.KEY]
    store.save()
    assert other.get("/words/").context["user"] == company.auditor
    behind = Actor(company.admin.pk, Actor.of(company.admin).channel, "x" * 8, on_behalf_of=company.vp.pk)
    with pytest.raises(NotAllowed):
        impersonation.start(
            company.vp.pk,
            WHY,
            session_id=SignInSession.objects.filter(user=company.admin)[0].pk,
            store=store,
            actor=behind,
        )
    assert client_for(company.admin).post(
        f"/people/{company.vp.uid}/see-as/", {"reason": "short"}
    ).status_code == 400  # fmt: skip
