"""Erasing a person leaves no name and an intact trail."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction

from apps.accounts import actions, erasing
from apps.accounts.models import ApiToken, SignInSession, User
from apps.audit import keeping
from apps.audit.models import AuditEvent, AuditNote
from apps.audit.verification import Outcome, verify_trail
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.notifications.models import SentMail
from tests.audit.helpers import seal
from tests.audit.test_attacks import as_superuser
from tests.factories import Company, client_for, make_user

pytestmark = pytest.mark.django_db
ADDRESS, NAME = "quagga.person@example.com", "Quagga Erasable"


@pytest.fixture
def person(company: Company) -> User:
    admin = Actor.of(company.admin)
    user, _ = actions.create_user(ADDRESS, NAME, actor=admin)
    actions.create_token(user.pk, "quagga laptop", clock.now() + timedelta(days=9), True, actor=Actor.of(user))
    client_for(user)
    return user


def _erase(company: Company, person: User) -> erasing.Erased:
    return erasing.erase_user(person.pk, ADDRESS, "Request 17", actor=Actor.of(company.admin))


def _texts() -> list[str]:
    return [bytes(body).decode() for body in AuditNote.objects.values_list("body", flat=True)]


@pytest.mark.requirement("audit-keeping-4.1", "audit-keeping-4.2")
def test_name_and_address_go_and_the_trail_verifies(company: Company, person: User) -> None:
    SentMail.objects.create(
        user=person, message_uid=person.uid, event="x", address=ADDRESS, subject="x", body_text=NAME, body_html=NAME,
        header_id="x",
    )  # fmt: skip
    before = AuditEvent.objects.filter(object_id=person.uid).count()
    assert any(ADDRESS in text and NAME in text for text in _texts())
    done = _erase(company, person)
    seal()
    assert done.notes >= 2, "that of the making of the account and that of the token"
    person.refresh_from_db()
    assert person.email.endswith("@erased.invalid")
    assert "Quagga" not in person.display_name
    assert (person.is_active, person.has_usable_password()) == (False, False)
    assert not SentMail.objects.filter(user=person).exists()
    assert not ApiToken.objects.usable().filter(user=person).exists()
    assert set(ApiToken.objects.filter(user=person).values_list("name", flat=True)) == {"Erased"}
    assert not SignInSession.objects.filter(user=person, closed_at__isnull=True).exists()
    assert not any("quagga" in text.lower() for text in _texts())
    assert AuditEvent.objects.filter(object_id=person.uid).count() > before, "the events stay, and this one is added"
    report = verify_trail()
    assert (report.outcome, report.findings) == (Outcome.INTACT, [])


@pytest.mark.requirement("audit-keeping-4.5")
def test_only_the_notes_named_by_the_erasure_may_be_missing(company: Company, person: User) -> None:
    _erase(company, person)
    seal()
    other = AuditNote.objects.exclude(event_uid__in=[]).first()
    assert other is not None
    with as_superuser() as cursor:
        cursor.execute("DELETE FROM audit.note WHERE event_id = %s", [other.event_uid])
        assert {finding.kind for finding in verify_trail().findings} == {"note"}


@pytest.mark.requirement("audit-keeping-4.3")
def test_who_may_erase_whom(company: Company, person: User) -> None:
    for who in ("compliance", "auditor", "vp", "lead_finance"):
        with pytest.raises(NotAllowed):
            erasing.erase_user(person.pk, ADDRESS, "x", actor=Actor.of(company[who]))
    admin = Actor.of(company.admin)
    with pytest.raises(NotAllowed):
        erasing.erase_user(person.pk, ADDRESS, "x", actor=Actor.system("anything"))
    with pytest.raises(Conflict, match="themselves"):
        erasing.erase_user(company.admin.pk, company.admin.email, "x", actor=admin)
    with pytest.raises(Invalid) as refused:
        erasing.erase_user(person.pk, "other@example.com", " ", actor=admin)
    assert set(refused.value.errors) == {"confirmation", "reason"}
    _erase(company, person)
    person.refresh_from_db()
    with pytest.raises(Conflict, match="erased already"):
        erasing.erase_user(person.pk, person.email, "x", actor=admin)
    with pytest.raises(Conflict, match="erased for good"):
        actions.reactivate_user(person.pk, "back", actor=admin)


@pytest.mark.requirement("audit-keeping-4.3")
def test_the_last_administrator_stays(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasing, "holders_of", lambda permission: [company.vp.pk])
    assert "last person" in erasing.obstacle(company.vp, company.admin.pk)
    monkeypatch.setattr(erasing, "holders_of", lambda permission: [company.vp.pk, company.admin.pk])
    assert erasing.obstacle(company.vp, company.admin.pk) == ""


@pytest.mark.requirement("audit-keeping-4.3")
def test_a_legal_hold_keeps_a_person(company: Company, person: User) -> None:
    compliance = Actor.of(company.compliance)
    hold = keeping.place_hold("Case 3", actor=compliance, person_uid=person.uid)
    with pytest.raises(Conflict, match="Case 3"):
        _erase(company, person)
    # Not even past the action: the database asks again, and wants the event that says who erases.
    for uid in (person.uid, company.vp.uid):
        with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT audit.erase_notes(%s, ARRAY['\"x@example.com\"'], '{}')", [uid])
    seal()
    keeping.release_hold(hold.uid, "settled", actor=compliance)
    other = keeping.place_hold("Case 4", actor=compliance, object_uid=ApiToken.objects.get(user=person).uid)
    _erase(company, person)
    seal()
    assert sum("quagga" in text.lower() for text in _texts()) == 1, f"{other} keeps the note of the token"
    assert verify_trail().outcome is Outcome.INTACT


@pytest.mark.requirement("audit-keeping-4.1")
def test_merged_accounts_go_with_the_person(company: Company, person: User) -> None:
    old, _ = actions.create_user("quagga.old@example.com", "Quagga Old", actor=Actor.of(company.admin))
    User.objects.filter(pk=old.pk).update(merged_into=person)
    old.refresh_from_db()
    assert "merged" in erasing.obstacle(old, company.admin.pk)
    _erase(company, person)
    old.refresh_from_db()
    assert old.erased_at is not None
    assert not any("quagga" in text.lower() for text in _texts())


@pytest.mark.requirement("audit-keeping-4.4")
def test_the_page_says_what_goes_and_stays(company: Company, person: User) -> None:
    client = client_for(company.admin)
    SignInSession.objects.filter(user=company.admin).update(proved_at=clock.now())
    assert "Erase for good" in client.get(f"/people/{person.uid}/").content.decode()
    url = f"/people/{person.uid}/erase/"
    text = client.get(url).content.decode()
    assert "What goes" in text
    assert "Article 17(3)" in text
    refused = client.post(url, {"confirmation": "x@example.com", "reason": "Request 17"})
    assert refused.status_code == 400
    assert "Type the e-mail address" in refused.content.decode()
    answer: Any = client.post(url, {"confirmation": ADDRESS.upper(), "reason": "Request 17"})
    assert answer.status_code == 303
    page = client.get(f"/people/{person.uid}/").content.decode()
    assert "removed for good" in page
    assert "Quagga" not in page
    program = make_user("program@example.com", kind="service")
    assert "Erase for good" not in client.get(f"/people/{program.uid}/").content.decode()
    for gone in ("Merge", "New initial password", "Switch on again", "Give a role", "can sign in"):
        assert gone not in page, "nothing is offered that would be refused"
    assert client.get(url).status_code == 409
