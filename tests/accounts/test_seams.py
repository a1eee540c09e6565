"""Where sign-in, directories, merging and erasure meet: what one of them does must hold for the others."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.sessions.backends.db import SessionStore

from apps.accounts import actions, erasing, merging, openid_people, second_step, sign_in
from apps.accounts.backends import PasswordBackend
from apps.accounts.choices import FactorKind
from apps.accounts.models import ExternalIdentity, SecondFactor, SignInSession, User
from apps.accounts.openid_claims import Person
from apps.accounts.openid_refusals import Refused
from apps.approvals import delegating
from apps.audit import keeping
from apps.audit.models import AuditEvent
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.core.models import OutboxMessage
from apps.notifications import delivery
from apps.notifications.models import Notification, SentMail
from apps.teams import importing
from apps.teams.choices import Role
from apps.teams.models import RoleGrant
from tests.accounts.test_scim import Directory
from tests.approvals.conftest import Office, office, things  # noqa: F401 (fixtures)
from tests.factories import PASSWORD, Company, grant, make_user

pytestmark = pytest.mark.django_db


def _app(user: User) -> None:
    SecondFactor.objects.create(user=user, kind=FactorKind.TOTP, name="App", confirmed_at=clock.now())


@pytest.mark.requirement("scim-1.2")
def test_a_directory_takes_no_account_that_has_a_second_factor_here() -> None:
    directory = Directory(links_by_mail=True)
    admin = make_user("ada@example.com")
    grant(admin, Role.PLATFORM_ADMIN)
    _app(admin)
    answer = directory("POST", "Users", {"userName": "ada@example.com", "externalId": "7"})
    assert (answer.status_code, admin.identities.count()) == (409, 0)
    SecondFactor.objects.update(removed_at=clock.now())
    assert directory("POST", "Users", {"userName": "ada@example.com", "externalId": "7"}).status_code == 201


@pytest.mark.requirement("scim-1.2")
def test_whose_account_a_directory_takes_is_told_and_a_password_somebody_else_knows_is_gone(company: Company) -> None:
    directory = Directory(links_by_mail=True)
    user, initial = actions.create_user("ada@example.com", "Ada", actor=Actor.of(company.admin))
    directory.user("ada")
    user.refresh_from_db()
    assert not user.check_password(initial)
    assert not user.must_change_password
    told = OutboxMessage.objects.get(event="accounts.identity.linked")
    assert told.recipient_ids == [user.pk]


@pytest.mark.parametrize("what", ["password", "off", "no_password"])
@pytest.mark.requirement("accounts-1.1")
def test_what_changes_while_a_password_is_checked_counts(
    company: Company, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    user = make_user("lead@example.com", password=PASSWORD)
    really = second_step.needed

    def meanwhile(found: User) -> bool:
        if what == "password":
            actions.reset_password(user.pk, actor=Actor.of(company.admin))
        elif what == "off":
            actions.deactivate_user(user.pk, "Left", actor=Actor.of(company.admin))
        else:
            User.objects.filter(pk=user.pk).update(may_use_password=False)
        return really(found)

    monkeypatch.setattr(second_step, "needed", meanwhile)
    with pytest.raises(Invalid):
        sign_in.sign_in("lead@example.com", PASSWORD, SessionStore(), address="192.0.2.1")
    assert not SignInSession.objects.filter(user=user, closed_at__isnull=True).exists()


def test_erasing_takes_accounts_that_were_merged_over_several_steps(company: Company) -> None:
    first, second, last = (make_user(f"{word}.quagga@example.com") for word in ("first", "second", "last"))
    admin = Actor.of(company.admin)
    merging.merge(first.pk, second.pk, "One person", actor=admin)
    merging.merge(second.pk, last.pk, "One person", actor=admin)
    erasing.erase_user(last.pk, last.email, "Request 17", actor=admin)
    assert not User.objects.filter(email__contains="quagga").exists()


def test_a_hold_on_a_merged_account_keeps_the_person(company: Company) -> None:
    old, stays = make_user("old@example.com"), make_user("stays@example.com")
    merging.merge(old.pk, stays.pk, "One person", actor=Actor.of(company.admin))
    keeping.place_hold("Case 12", person_uid=old.uid, actor=Actor.of(company.compliance))
    with pytest.raises(Conflict, match="legal hold"):
        erasing.erase_user(stays.pk, stays.email, "Request 17", actor=Actor.of(company.admin))


@pytest.mark.requirement("people-and-units-4.1")
def test_no_merge_leaves_a_role_that_the_person_gave_themselves(company: Company) -> None:
    one, two, stays = make_user("one@example.com"), make_user("two@example.com"), make_user("stays@example.com")
    grant(one, Role.PLATFORM_ADMIN)
    for user, role in ((two, Role.AUDITOR), (stays, Role.COMPLIANCE)):
        given = grant(user, role)
        RoleGrant.objects.filter(pk=given.pk).update(granted_by=one)
    for old in (one, two):
        merging.merge(old.pk, stays.pk, "One person", actor=Actor.of(company.admin))
    held = set(RoleGrant.objects.in_force().filter(user=stays).values_list("role", flat=True))
    assert held == {Role.PLATFORM_ADMIN}


def test_a_file_of_people_hashes_no_passwords_that_nobody_would_see(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    monkeypatch.setattr(actions, "initial_password", lambda: hashed.append("one") or "never-shown-1234")
    text = "email,display_name\n" + "".join(f"p{n}@example.com,Person {n}\n" for n in range(5))
    seen = importing.preview("people", text, actor=Actor.of(company.admin))
    importing.import_file("people", text, seen.digest, actor=Actor.of(company.admin))
    made = User.objects.filter(email__regex=r"^p\d@")
    assert not hashed
    assert made.count() == 5
    assert not any(user.has_usable_password() or user.must_change_password for user in made)
    reset, initial = actions.reset_password(made[0].pk, actor=Actor.of(company.admin))
    assert reset.check_password(initial)


def test_a_hash_that_is_renewed_at_sign_in_has_its_event(settings: Any) -> None:
    settings.PASSWORD_HASHERS = [*settings.PASSWORD_HASHERS, "django.contrib.auth.hashers.PBKDF2PasswordHasher"]
    user = make_user("lead@example.com")
    old = PBKDF2PasswordHasher().encode(PASSWORD, "saltsaltsaltsaltsaltsa", iterations=1)
    User.objects.filter(pk=user.pk).update(password=old)
    sign_in.sign_in("lead@example.com", PASSWORD, SessionStore(), address="192.0.2.1")
    user.refresh_from_db()
    assert user.password != old
    assert AuditEvent.objects.filter(action="accounts.password.rehashed", object_id=user.uid).count() == 1
    User.objects.filter(pk=user.pk).update(password=old)
    assert PasswordBackend().authenticate(None, user.email, PASSWORD) == user
    user.refresh_from_db()
    assert user.password == old, "without an event nothing is written"


def test_names_in_messages_about_other_things_go_with_the_person(company: Company) -> None:
    person = make_user("quagga@example.com", display_name="Quagga <Erasable>")
    delegating.create(
        company.compliance.pk, person.pk, "compliance", actor=Actor.of(company.compliance),
        end=clock.now() + timedelta(days=3), reason="Away",
    )  # fmt: skip
    delegating.create(
        company.compliance.pk, person.pk, "compliance", actor=Actor.of(company.admin),
        end=clock.now() + timedelta(days=3), reason="Away, too",
    )  # fmt: skip
    delivery.spread_due()
    told = Notification.objects.filter(user=company.compliance)
    assert [one for one in told if "Quagga" in one.title + one.body]
    erasing.erase_user(person.pk, person.email, "Request 17", actor=Actor.of(company.admin))
    assert not [one for one in OutboxMessage.objects.all() if "Quagga" in str(one.payload)]
    assert not [one for one in told.all() if "Quagga" in one.title + one.body]
    for mail in SentMail.objects.all():
        assert "Quagga" not in mail.subject + mail.body_text + mail.body_html


def test_a_directory_cannot_switch_an_account_on_that_was_merged_away(company: Company) -> None:
    directory = Directory()
    resource = directory.user("ada")
    user = User.objects.get(email="ada@example.com")
    directory.off(resource["id"])
    stays = make_user("stays@example.com")
    ExternalIdentity.objects.create(provider=directory.provider, subject="other", user=stays)
    merging.merge(user.pk, stays.pk, "One person", actor=Actor.of(company.admin))
    assert directory.on(resource["id"]).status_code < 500
    user.refresh_from_db()
    assert not user.is_active


@pytest.mark.requirement("people-and-units-4.2")
def test_who_was_spoken_for_fills_no_second_seat_with_the_account_that_stays(office: Office, company: Company) -> None:  # noqa: F811 (the fixture)
    office.publish({"stages": [{"name": "Both", "role": "unit_owner", "scope": "unit", "quorum": 2}]})
    stays, stand_in, request = make_user("vp2@example.com"), make_user("standin@example.com"), office.submit()
    grant(stays, Role.UNIT_OWNER, unit=company.unit)
    delegating.create(
        company.vp.pk, stand_in.pk, Role.UNIT_OWNER, actor=Actor.of(company.vp), end=clock.now() + timedelta(days=3),
        reason="Away",
    )  # fmt: skip
    office.decide(request, stand_in, on_behalf_of=company.vp.pk)
    merging.merge(company.vp.pk, stays.pk, "One person", actor=Actor.of(company.admin))
    with pytest.raises(NotAllowed, match="One person fills one seat"):
        office.decide(request, stays)


@pytest.mark.requirement("openid-sign-in-2.5")
def test_an_account_that_is_switched_off_while_its_provider_answers_stays_shut(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = Directory()
    user = make_user("ada@example.com")
    ExternalIdentity.objects.create(provider=directory.provider, subject="7", user=user)
    really = openid_people._current

    def meanwhile(identity: ExternalIdentity) -> User:
        found = really(identity)
        actions.deactivate_user(user.pk, "Left", actor=Actor.of(company.admin))
        return found

    monkeypatch.setattr(openid_people, "_current", meanwhile)
    with pytest.raises(Refused):
        openid_people.account_of(directory.provider, Person("7", user.email, True, "", "", None, False, None, ""))
