"""Password and factors of one person are never both in one administrator's hand."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from apps.accounts import factor_resets, second_step
from apps.accounts.actions import reset_password
from apps.accounts.models import FactorReset, User
from apps.audit.models import AuditEvent
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, NotAllowed
from apps.core.models import OutboxMessage
from tests.accounts.test_second_factors import give_app
from tests.factories import Company, client_for, grant, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.requirement("second-factors-3.6")]


@pytest.fixture
def other_admin(company: Company) -> User:
    person = make_user("deputy.admin@example.com", display_name="Deputy platform admin")
    grant(person, "platform_admin")
    return person


def _reset(person: User, by: User) -> Any:
    return factor_resets.reset_factors(person.pk, "lost", actor=Actor.of(by), proved_at=clock.now())


def _propose(person: User, by: User) -> FactorReset:
    return factor_resets.propose_reset(person.pk, "lost the phone", actor=Actor.of(by), proved_at=clock.now())


def _confirm(row: FactorReset, by: User, proved_at: datetime | None = None) -> FactorReset:
    return factor_resets.confirm_reset(row.pk, actor=Actor.of(by), proved_at=proved_at or clock.now())


def test_factors_of_a_role_take_two_persons(company: Company, other_admin: User, frozen_clock: datetime) -> None:
    lead, admin = company.lead_finance, company.admin
    give_app(lead)
    with pytest.raises(NotAllowed, match="second person"):
        _reset(lead, admin)
    page = client_for(admin)
    path = f"/people/{lead.uid}/factors/reset/"
    form = page.get(path).content.decode()
    assert "Whoever has to agree reads it" in form
    assert "only auditors read it" not in form
    assert page.post(path, {"reason": "lost the phone"}).status_code == 303
    assert second_step.needed(lead), "nothing happens before somebody agrees"
    row = FactorReset.objects.get()
    assert page.post(path, {"reason": "again"}).status_code == 409
    asked = OutboxMessage.objects.get(event="accounts.factor.reset_proposed")
    assert set(asked.recipient_ids) == {company.compliance.pk, other_admin.pk}
    assert OutboxMessage.objects.get(event="accounts.factor.reset_announced").recipient_ids == [lead.pk]
    confirm = f"/people/factor-resets/{row.uid}/confirm/"
    assert page.get(confirm).status_code == 409, "not by who proposed it"
    assert page.post(confirm).status_code == 409
    with pytest.raises(NotAllowed, match="Somebody else"):
        _confirm(row, admin)
    assert client_for(company.auditor).post(confirm).status_code == 404
    with pytest.raises(NotAllowed, match="Prove"):
        _confirm(row, company.compliance, clock.now() - timedelta(hours=1))
    theirs = client_for(company.compliance)
    assert "lost the phone" in theirs.get(confirm).content.decode()
    assert theirs.get("/people/factor-resets/").status_code == 200
    assert theirs.post(confirm).status_code == 303
    assert not second_step.needed(lead)
    row.refresh_from_db()
    assert (row.status, row.decided_by) == ("done", company.compliance)
    event = AuditEvent.objects.get(action="accounts.factor.reset")
    assert event.actor_id == str(company.compliance.uid)
    with pytest.raises(Conflict, match="waits no more"):
        _confirm(row, other_admin)
    # Who took part does not set the password as well.
    with pytest.raises(NotAllowed, match="took part"):
        reset_password(lead.pk, actor=Actor.of(admin))
    assert client_for(admin).get(f"/people/{lead.uid}/password/").status_code == 409
    reset_password(lead.pk, actor=Actor.of(other_admin))
    clock.advance(factor_resets.APART + timedelta(seconds=1))
    reset_password(lead.pk, actor=Actor.of(admin))


def test_who_set_the_password_does_not_remove_the_factors_too(
    company: Company, other_admin: User, frozen_clock: datetime
) -> None:
    member, admin = company.member_finance, company.admin
    give_app(member)
    reset_password(member.pk, actor=Actor.of(admin))
    with pytest.raises(NotAllowed, match="You set this person's password"):
        _reset(member, admin)
    row = _propose(member, admin)
    page = client_for(company.compliance).get(f"/people/factor-resets/{row.uid}/confirm/").content.decode()
    assert "set this person's password, too" in page
    _reset(member, other_admin)
    row.refresh_from_db()
    assert row.status == "lapsed", "overtaken by another admin, who knows no password"
    with pytest.raises(NotAllowed, match="took part"):
        reset_password(member.pk, actor=Actor.of(other_admin))


@pytest.mark.parametrize("end", ["lapsed", "withdrawn", "refused", "proposer"])
def test_a_proposal_ends_without_effect(company: Company, other_admin: User, frozen_clock: datetime, end: str) -> None:
    lead, admin = company.lead_finance, company.admin
    give_app(lead)
    row = _propose(lead, admin)
    if end == "lapsed":
        clock.advance(factor_resets.WAITS)
        row.refresh_from_db()
        assert row.shown_status == "lapsed"
    elif end == "proposer":
        User.objects.filter(pk=admin.pk).update(is_active=False)
    else:
        person = admin if end == "withdrawn" else other_admin
        path = f"/people/factor-resets/{row.uid}/end/"
        assert client_for(person).post(path, {"reason": " "}).status_code == 400
        assert client_for(person).post(path, {"reason": "found again"}).status_code == 303
        row.refresh_from_db()
        assert (row.status, row.decided_by) == (end, person)
        told = OutboxMessage.objects.get(event="accounts.factor.reset_ended")
        assert set(told.recipient_ids) == {lead.pk, admin.pk} - {person.pk}
    with pytest.raises((Conflict, NotAllowed)):
        _confirm(row, company.compliance)
    assert second_step.needed(lead)
    if end != "proposer":
        assert _propose(lead, admin).is_waiting, "anew"


def test_the_server_is_the_way_where_nobody_else_is_left(company: Company, frozen_clock: datetime) -> None:
    give_app(company.admin)
    call_command("reset_second_factors", company.admin.email, "lost, asked in person")
    assert not second_step.needed(company.admin)
    before = company.admin.password
    with pytest.raises(CommandError, match="Say why"):
        call_command("set_initial_password", company.admin.email, " ")
    with pytest.raises(CommandError, match="no account"):
        call_command("set_initial_password", "nobody@example.com", "x")
    call_command("set_initial_password", company.admin.email, "lost, asked in person")
    company.admin.refresh_from_db()
    assert company.admin.password != before
    assert company.admin.must_change_password
    told = list(OutboxMessage.objects.filter(event="accounts.factor.reset_on_server").order_by("pk"))
    assert [set(one.recipient_ids) for one in told] == [{company.compliance.pk}] * 2
    assert AuditEvent.objects.filter(action="accounts.factor.reset_on_server").count() == 2
