"""Deciding on the page: for somebody else, with the password asked again; what the page tells of stages and people."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pyotp
import pytest

from apps.accounts import factors
from apps.accounts.models import SecondFactor, SignInAttempt
from apps.accounts.sign_in import ACCOUNT_LIMIT
from apps.approvals import delegating
from apps.approvals.models import ApprovalRequest, Decision
from apps.audit.models import AuditEvent
from apps.core import clock, crypto
from apps.core.actor import Actor
from apps.teams.choices import Role
from tests.factories import PASSWORD, client_for, grant, make_user

pytestmark = pytest.mark.django_db
OWNER: dict[str, Any] = {"name": "Unit owner", "role": "unit_owner", "scope": "unit", "quorum": 1}
COMPLIANCE: dict[str, Any] = {"name": "Compliance", "role": "compliance", "scope": "installation", "quorum": 1}


def path(request: ApprovalRequest, tail: str = "") -> str:
    return f"/approvals/requests/{request.uid}/{tail}"


def form(request: ApprovalRequest, **changes: str) -> dict[str, str]:
    request.refresh_from_db()
    return {
        "verdict": "approve", "reason": "Fits the plan of the unit.", "confirmed": "on",
        "digest": request.subject_digest, "version": str(request.version), **changes,
    }  # fmt: skip


@pytest.fixture
def owner(company):
    """A unit owner who can give their password."""
    person = make_user("owner@example.com", display_name="Owner with a password", password=PASSWORD)
    grant(person, Role.UNIT_OWNER, unit=company.unit)
    return person


# ---------------------------------------------------------------- on behalf of


@pytest.mark.requirement("compliance-inbox-3.1")
def test_a_stand_in_decides_in_the_givers_name(office, company):
    person = make_user(display_name="Stand-in of the VP")
    delegating.create(
        company.vp.pk, person.pk, "unit_owner", actor=Actor.of(company.vp), end=clock.now() + timedelta(days=1),
        reason="On leave.",
    )  # fmt: skip
    request = office.submit()
    client = client_for(person)
    text = client.get(path(request)).content.decode()
    assert f"for {company.vp} by delegation" in text
    assert path(request, "decide/") in text
    assert client.post(path(request, "decide/"), form(request)).status_code == 303
    decision = Decision.objects.get()
    assert (decision.actor, decision.on_behalf_of) == (person, company.vp)
    assert f"{person} for {company.vp}" in client.get(path(request)).content.decode()


@pytest.mark.requirement("compliance-inbox-3.1")
def test_whoever_could_speak_in_two_names_is_asked_in_which(office, company, owner):
    delegating.create(
        company.vp.pk, owner.pk, "unit_owner", actor=Actor.of(company.vp), end=clock.now() + timedelta(days=1),
        reason="On leave.",
    )  # fmt: skip
    office.publish({"stages": [{**OWNER, "quorum": 2}]})
    request = office.submit()
    client = client_for(owner)
    text = client.get(path(request, "decide/")).content.decode()
    assert "For myself, stage “Unit owner”" in text
    assert f"For {company.vp}, by delegation, stage “Unit owner”" in text
    unsaid = client.post(path(request, "decide/"), form(request))
    assert unsaid.status_code == 400
    assert "Choose in whose name you decide" in unsaid.content.decode()
    assert client.post(path(request, "decide/"), form(request, seat=f"{company.vp.uid}.0")).status_code == 303
    assert Decision.objects.get().on_behalf_of == company.vp
    # One person fills one seat: their own is taken as well.
    assert client.post(path(request, "decide/"), form(request, seat="self.0")).status_code in (400, 403)
    assert Decision.objects.count() == 1


@pytest.mark.requirement("compliance-inbox-3.1")
def test_a_seat_that_is_not_offered_is_refused(office, company):
    request = office.submit()
    answer = client_for(company.vp).post(path(request, "decide/"), form(request, seat=f"{company.vp_other.uid}.0"))
    assert answer.status_code == 400
    assert "no longer decide in that name" in answer.content.decode()
    assert not Decision.objects.exists()


# ---------------------------------------------------------------- the password again


@pytest.mark.requirement("compliance-inbox-3.2", "compliance-inbox-3.3")
def test_a_policy_can_ask_for_the_password_again(office, company, owner, frozen_clock):
    office.publish({"stages": [OWNER], "reauthenticate_minutes": 10})
    request = office.submit()
    client = client_for(owner)
    # Signed in just now: that is proof enough.
    assert 'name="password"' not in client.get(path(request, "decide/")).content.decode()
    clock.advance(timedelta(minutes=11))
    assert 'name="password"' in client.get(path(request, "decide/")).content.decode()
    without = client.post(path(request, "decide/"), form(request))
    assert without.status_code == 400
    assert "Give your password again" in without.content.decode()
    wrong = client.post(path(request, "decide/"), form(request, password="not the password"))
    assert wrong.status_code == 400
    assert "This is not your password" in wrong.content.decode()
    assert "not the password" not in wrong.content.decode()
    assert SignInAttempt.objects.filter(succeeded=False).count() == 1
    assert AuditEvent.objects.filter(action="accounts.session.refused").exists()
    assert not Decision.objects.exists()
    assert client.post(path(request, "decide/"), form(request, password=PASSWORD)).status_code == 303
    auth = Decision.objects.get().auth
    assert (auth["channel"], auth["method"], auth["password_at"]) == ("web", "password", clock.now().isoformat())
    assert "password given" in client.get(path(request)).content.decode()
    # For the next ten minutes nobody asks again.
    second = office.submit()
    assert 'name="password"' not in client.get(path(second, "decide/")).content.decode()


@pytest.mark.requirement("compliance-inbox-3.2")
def test_guessing_the_password_is_limited_as_at_sign_in(office, company, owner, frozen_clock):
    office.publish({"stages": [OWNER], "reauthenticate_minutes": 10})
    request = office.submit()
    client = client_for(owner)
    clock.advance(timedelta(minutes=11))
    for _ in range(ACCOUNT_LIMIT):
        client.post(path(request, "decide/"), form(request, password="wrong"))
    limited = client.post(path(request, "decide/"), form(request, password=PASSWORD))
    assert limited.status_code == 400
    assert "Too many failed attempts" in limited.content.decode()
    assert not Decision.objects.exists()


# ---------------------------------------------------------------- what the page tells


@pytest.mark.requirement("compliance-inbox-2.1")
def test_parallel_stages_waits_and_escalation_stand_on_the_page(office, company, frozen_clock):
    office.publish(
        {"stages": [
            {**OWNER, "group": 1, "wait_hours": 3, "due_hours": 48},
            {**COMPLIANCE, "group": 1, "due_hours": 96, "escalate_hours": 24,
             "escalate_to": {"role": "platform_admin", "scope": "installation"},
             "fallback": {"role": "finance", "scope": "installation"}},
            {"name": "Platform", "role": "platform_admin", "scope": "installation", "due_hours": 5},
        ]}
    )  # fmt: skip
    request = office.submit()
    text = client_for(company.compliance).get(path(request)).content.decode()
    for wanted in (
        "At the same time as the other stages of group 1",
        "Approvals count from 2026-11-18 12:00",
        "Lapses 2026-11-20 09:00",
        "From 2026-11-19 09:00 UTC also Platform admin may decide",
        "Finance steps in where too few are free of conflicts",
        "Not reached",
        "Lapses 5 hours after it opens",
        "0 of 1 approval",
    ):
        assert wanted in text, wanted
    clock.advance(timedelta(hours=25))
    assert "Escalated: also Platform admin may decide" in client_for(company.admin).get(path(request)).content.decode()


@pytest.mark.requirement("compliance-inbox-2.2")
def test_everybody_around_the_request_is_named_with_the_rule_that_excludes_them(office, company):
    person = make_user(display_name="Stand-in of the lead")
    grant(company.lead_finance, Role.COMPLIANCE)
    delegating.create(
        company.lead_finance.pk, person.pk, "compliance", actor=Actor.of(company.lead_finance),
        end=clock.now() + timedelta(days=1), reason="On leave.",
    )  # fmt: skip
    office.publish({"stages": [COMPLIANCE]})
    request = office.submit()
    text = client_for(company.auditor).get(path(request)).content.decode()
    assert "Requested this change: nobody decides on what they requested." in text
    assert f"for {company.lead_finance} by delegation" in text
    assert text.count("nobody decides on what they requested") == 2
    assert "Can decide" in text


@pytest.mark.requirement("compliance-inbox-2.3")
def test_decisions_show_on_which_bytes_rules_and_proof_they_stand(office, company):
    office.publish({"stages": [OWNER, COMPLIANCE]})
    request = office.submit()
    client_for(company.vp).post(path(request, "decide/"), form(request))
    text = client_for(company.auditor).get(path(request)).content.decode()
    for wanted in (request.subject_digest[:12], request.policy_version.digest[:12], "Decided in the portal"):
        assert wanted in text, wanted


@pytest.mark.requirement("second-factors-3.5")
def test_people_with_a_second_factor_prove_both_on_a_page_of_its_own(office, company, owner, frozen_clock):
    secret = factors.new_secret()
    office.publish({"stages": [OWNER], "reauthenticate_minutes": 10})
    request = office.submit()
    client = client_for(owner)
    SecondFactor.objects.create(
        user=owner, kind="totp", name="Phone", secret=crypto.encrypt(secret), confirmed_at=clock.now()
    )
    clock.advance(timedelta(minutes=11))
    page = client.get(path(request, "decide/")).content.decode()
    assert 'name="password"' not in page
    assert "Prove who you are in a new tab" in page
    refused = client.post(path(request, "decide/"), form(request))
    assert (refused.status_code, refused.context["form"]["reason"].value()) == (400, form(request)["reason"])
    assert not request.decisions.exists()
    code = pyotp.TOTP(secret).at(clock.now())
    assert client.post("/account/confirm/", {"password": PASSWORD, "code": code}).status_code == 303
    assert client.post(path(request, "decide/"), form(request)).status_code == 303
    assert request.decisions.get().auth["second_factor"] == "given"
