"""Why somebody may or may not do something, from what and until when; and notices before a role ends."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from apps.accounts import actions as accounts
from apps.accounts.models import IdentityProvider, User
from apps.audit.models import AuditEvent
from apps.core import clock
from apps.core.actor import Actor
from apps.core.models import OutboxMessage
from apps.teams import actions, people_tasks
from apps.teams.choices import ALL_PERMISSIONS, Role
from apps.teams.explaining import explain
from apps.teams.models import GroupMapping, RoleGrant
from tests.factories import Company, client_for, forget_scopes, grant, make_member, make_user

pytestmark = pytest.mark.django_db
USE = "quotas.workspace.use"


@pytest.mark.requirement("people-and-units-5.1")
def test_a_yes_names_every_source_and_how_long_it_lasts(company: Company, frozen_clock: datetime) -> None:
    person, until = make_user("ana@example.com"), frozen_clock + timedelta(days=3)
    given = grant(person, Role.TEAM_LEAD, team=company.finance_team, expires_at=until)
    RoleGrant.objects.filter(pk=given.pk).update(granted_by=company.admin)
    provider = IdentityProvider.objects.create(
        name="Directory", slug="directory", issuer="https://id.example.com", client_id="x"
    )
    mapping = GroupMapping.objects.create(
        provider=provider, group="gpu-finance", role=Role.MEMBER, team=company.finance_team
    )
    joined = make_member(person, company.finance_team)
    joined.mapping = mapping
    joined.save(update_fields=["mapping"])
    answer = explain(person, USE, company.finance_team)
    assert answer.allowed
    seen = {(one.text, one.source, one.until) for one in answer.reasons}
    assert seen == {
        ("Team lead of the team Finance", "Admin", until),
        ("Member of the team Finance", "the group gpu-finance of Directory", None),
    }
    url = reverse("teams:why", kwargs={"user_uid": person.uid})
    text = client_for(company.auditor).get(url, {"permission": USE, "place": "team:finance"}).content.decode()
    assert "the group gpu-finance of Directory" in text


@pytest.mark.requirement("people-and-units-5.1")
def test_a_no_names_what_would_give_it_and_why_it_does_not_count(company: Company, frozen_clock: datetime) -> None:
    person = make_user("ana@example.com")
    day = timedelta(days=1)
    grant(person, Role.TEAM_LEAD, team=company.marketing_team)
    grant(person, Role.TEAM_LEAD, team=company.finance_team, expires_at=frozen_clock - day)
    actions.grant_role(
        person.pk, Role.TEAM_LEAD, team_id=company.research_team.pk, starts_at=frozen_clock + day, reason="r",
        actor=Actor.of(company.admin),
    )  # fmt: skip
    make_member(person, company.finance_team, since=frozen_clock - 9 * day, until=frozen_clock - day)
    answer = explain(person, USE, company.finance_team)
    assert not answer.allowed
    assert not answer.reasons
    assert {(one.text, one.but) for one in answer.misses} == {
        ("Team lead of the team Marketing", "it does not reach there"),
        ("Team lead of the team Finance", "it ended on 2026-11-17 09:00 UTC"),
        ("Team lead of the team Research", "it begins on 2026-11-19 09:00 UTC"),
        ("Member of the team Finance", "it ended on 2026-11-17 09:00 UTC"),
    }
    url = reverse("teams:why", kwargs={"user_uid": person.uid})
    own = client_for(person).get(url, {"permission": "teams.grant.manage", "place": ""}).content.decode()
    assert "No role that holds it was given" in own
    text = client_for(company.auditor).get(url, {"permission": USE, "place": "team:finance"}).content.decode()
    assert "it ended on 2026-11-17 09:00 UTC" in text


@pytest.mark.requirement("people-and-units-5.1")
def test_a_switched_off_account_and_a_program_are_told_so(company: Company) -> None:
    User.objects.filter(pk=company.admin.pk).update(is_active=False)
    gone = explain(User.objects.get(pk=company.admin.pk), "teams.grant.manage", None)
    assert (gone.allowed, gone.reasons) == (False, ())
    assert "switched off" in gone.misses[0].but
    program = make_user("program@example.com", kind="service")
    grant(program, Role.TEAM_LEAD, team=company.finance_team)
    answer = explain(program, "teams.member.manage", company.finance_team)
    assert (answer.allowed, "takes a person" in answer.misses[0].but) == (False, True)


@pytest.mark.requirement("people-and-units-5.1")
@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.full)])
def test_the_reasons_agree_with_the_resolver_for_every_permission(company: Company, step: int) -> None:
    """Every permission for every person, in one of three places in turn; in all of them where there is time."""
    people = ("vp", "lead_finance", "member_finance", "finance", "auditor", "compliance", "admin")
    places = (None, company.finance_team, company.unit)
    for first, name in enumerate(people):
        for number, permission in enumerate(sorted(ALL_PERMISSIONS), first):
            for place in places[number % step :: step]:
                answer = explain(company[name], permission, place)
                assert answer.allowed is bool(answer.reasons), (name, permission, place)


@pytest.mark.requirement("people-and-units-5.2")
def test_api_gives_the_same_answer_and_speaks_of_the_token(company: Company) -> None:
    url, lead = "/api/v1/permission-explanations", company.lead_finance
    asked: dict[str, Any] = {"permission": USE, "team_uid": str(company.finance_team.uid)}
    body = client_for(lead).get(url, asked).json()
    assert (body["allowed"], body["token_allows"]) == (True, None)
    assert {one["text"] for one in body["reasons"]} == {"Team lead of the team Finance", "Member of the team Finance"}
    forget_scopes(lead)
    until = clock.now() + timedelta(days=3)
    _, secret = accounts.create_token(
        lead.pk, "reader", until, True, permissions=["teams.team.view"], actor=Actor.of(lead)
    )
    token = {"Authorization": f"Bearer {secret}"}
    for permission, carried in ((USE, False), ("teams.team.view", True)):
        narrow = Client().get(url, {**asked, "permission": permission}, headers=token).json()
        assert (narrow["allowed"], narrow["token_allows"]) == (True, carried)
    foreign = {"permission": USE, "user_uid": str(company.vp.uid)}
    assert client_for(lead).get(url, foreign).status_code == 404
    assert client_for(lead).get(url, {"permission": "no.such.thing"}).status_code == 400
    assert client_for(company.auditor).get(url, foreign).json()["allowed"] is False
    both = {**asked, "unit_uid": str(company.unit.uid)}
    assert client_for(company.auditor).get(url, both).status_code == 400


@pytest.mark.requirement("people-and-units-2.3")
def test_the_end_of_a_role_is_told_once_a_rung(company: Company, frozen_clock: datetime) -> None:
    person = make_user("deputy@example.com")
    until = frozen_clock + timedelta(days=20)
    actions.grant_role(person.pk, Role.AUDITOR, expires_at=until, reason="r", actor=Actor.of(company.admin))
    short = make_user("short@example.com")
    actions.grant_role(
        short.pk, Role.AUDITOR, expires_at=frozen_clock + timedelta(hours=20), reason="r", actor=Actor.of(company.admin)
    )
    RoleGrant.objects.update(created_at=frozen_clock)
    seen = []
    for day in (0, 6, 6, 17, 19, 21):
        with clock.frozen(frozen_clock + timedelta(days=day)):
            people_tasks.ending_roles()
        sent = OutboxMessage.objects.filter(event="teams.role.ending").order_by("pk")
        seen.append([message.payload["days"] for message in sent])
    assert seen == [[], [14], [14], [14, 3], [14, 3, 1], [14, 3, 1]]
    told = OutboxMessage.objects.filter(event="teams.role.ending").earliest("pk")
    assert told.recipient_ids == sorted([person.pk, company.admin.pk])
    assert AuditEvent.objects.filter(action="teams.role.ending").count() == 3
