"""Accounts of programs, and tokens that carry some rights only."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import get_resolver

from apps.accounts import actions as accounts
from apps.accounts.api_auth import needed_by, view_name
from apps.accounts.limited_views import CLOSED_VIEWS, LIMITED_VIEWS
from apps.accounts.models import ApiToken, User
from apps.audit.models import AuditEvent
from apps.core import clock, limits, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.models import OutboxMessage
from apps.core.permissions import may
from apps.notifications import delivery
from apps.notifications.models import Notification, SentMail
from apps.teams import actions, scope, service_actions, service_events, service_rules, service_selectors
from apps.teams.choices import ALL_PERMISSIONS, Role
from apps.teams.models import RoleGrant, ServiceAccount, Team
from tests.factories import Company, client_for, grant, make_user

WEEK = timedelta(days=7)


def _bearer(secret: str) -> Client:
    return Client(headers={"authorization": f"Bearer {secret}"})


def _post(client: Client, path: str, data: Any) -> Any:
    return client.post(path, json.dumps(data, default=str), content_type="application/json")


def _token(user: User, *permissions: str, read_only: bool = False) -> str:
    limit = list(permissions) or None
    until = clock.now() + WEEK
    return accounts.create_token(user.pk, "pipeline", until, read_only, actor=Actor.of(user), permissions=limit)[1]


def _account(company: Company, role: str = "team_lead", name: str = "Nightly training") -> ServiceAccount:
    return service_actions.create_service_account(
        name,
        "Submits the nightly training",
        role,
        team_id=company.finance_team.pk,
        actor=Actor.of(company.lead_finance),
    )


def _key(account: ServiceAccount, maker: User, *permissions: str, days: int = 60) -> tuple[ApiToken, str]:
    return service_actions.create_service_token(
        account.pk,
        "Key one",
        clock.now() + timedelta(days=days),
        False,
        actor=Actor.of(maker),
        permissions=list(permissions) or None,
    )


# -- limited tokens


@pytest.mark.django_db
@pytest.mark.requirement("service-accounts-1.1")
def test_a_limited_token_sees_and_does_what_it_carries_and_nothing_else(company: Company) -> None:
    client = _bearer(_token(company.admin, "teams.team.view"))
    assert client.get("/api/v1/teams").json()["results"]
    for path in ("/api/v1/units", "/api/v1/clusters", "/api/v1/quotas", f"/api/v1/units/{company.unit.uid}"):
        assert client.get(path).status_code in (403, 404), path
    unit = {"name": "Cards", "slug": "cards"}
    refused = _post(client, "/api/v1/units", unit)
    assert (refused.status_code, refused.json()["rule"]) == (403, "teams.unit.manage")
    assert _post(_bearer(_token(company.admin, "teams.unit.manage")), "/api/v1/units", unit).status_code == 201
    # A permission its owner does not hold is not lent by the token.
    assert _post(_bearer(_token(company.vp, "teams.unit.manage")), "/api/v1/units", unit).status_code == 403


@pytest.mark.django_db
@pytest.mark.requirement("service-accounts-1.1", "service-accounts-1.5")
def test_the_action_meets_the_limit_too_and_it_ends_with_the_request(company: Company) -> None:
    limits.narrow(company.admin.pk, ["teams.team.view"])
    try:
        with pytest.raises(NotAllowed):
            actions.create_unit("Cards", "cards", actor=Actor.of(company.admin))
        assert not may(User.objects.get(pk=company.admin.pk), "teams.unit.manage")
        assert may(company.auditor, "teams.unit.view"), "nobody else's rights are narrowed"
    finally:
        limits.forget()
    actions.create_unit("Cards", "cards", actor=Actor.of(company.admin))
    assert _bearer(_token(company.admin, "teams.team.view")).get("/api/v1/units").status_code == 403
    assert limits.limit_of(company.admin.pk) is None, "lifted when the request is over"


@pytest.mark.django_db
@pytest.mark.requirement("service-accounts-1.2", "service-accounts-1.3")
def test_what_asks_who_somebody_is_is_closed_to_limited_tokens(company: Company) -> None:
    client = _bearer(_token(company.lead_finance, "teams.team.view"))
    assert client.get("/api/v1/me").status_code == 200
    for path in ("/api/v1/api-tokens", "/api/v1/notifications", "/api/v1/approval-requests"):
        assert client.get(path).status_code == 403, path
    wider = {"name": "wider", "expires_at": clock.now() + WEEK, "read_only": False}
    refused = _post(client, "/api/v1/api-tokens", wider)
    assert (refused.status_code, refused.json()["rule"]) == (403, "limited_token")
    assert ApiToken.objects.filter(user=company.lead_finance).count() == 1
    limits.narrow(company.lead_finance.pk, ["teams.team.view"])
    try:
        with pytest.raises(NotAllowed):
            _token(company.lead_finance)
    finally:
        limits.forget()


def _api_views() -> dict[str, tuple[Any, set[str]]]:
    """Every view of the API by full name, with its actions."""
    found: dict[str, tuple[Any, set[str]]] = {}

    def walk(patterns: Any) -> None:
        for one in patterns:
            if hasattr(one, "url_patterns"):
                walk(one.url_patterns)
            elif (kind := getattr(one.callback, "cls", None)) is not None:
                acts = set(getattr(one.callback, "actions", {}).values()) or {"call"}
                found.setdefault(view_name(kind), (kind, set()))[1].update(acts)

    walk(get_resolver().url_patterns)
    return found


@pytest.mark.requirement("service-accounts-1.2")
def test_every_view_without_a_permission_says_what_a_limited_token_needs_or_is_closed_on_purpose() -> None:
    views = _api_views()
    assert {name for name in {*LIMITED_VIEWS, *CLOSED_VIEWS} if name not in views} == set(), "no such view"
    named = {needed for table in LIMITED_VIEWS.values() for needed in table.values() if needed}
    assert named <= ALL_PERMISSIONS
    silent = []
    for name, (kind, acts) in views.items():
        for act in acts:
            view = kind()
            view.action = act
            if needed_by(view) is None and name not in CLOSED_VIEWS:
                silent.append(f"{name}.{act}")
    assert not silent, f"name what it takes in accounts.limited_views, or close it there: {sorted(silent)}"


@pytest.mark.django_db
@pytest.mark.requirement("service-accounts-1.4")
@pytest.mark.parametrize("wanted", [["teams.nothing.view"], []])
def test_unknown_permissions_and_none_make_no_token(company: Company, wanted: list[str]) -> None:
    body = {"name": "x", "expires_at": clock.now() + WEEK, "permissions": wanted}
    client = _bearer(_token(company.lead_finance))
    answer = _post(client, "/api/v1/api-tokens", body)
    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == ["permissions"]
    assert ApiToken.objects.filter(user=company.lead_finance).count() == 1


@pytest.mark.django_db
@pytest.mark.requirement("service-accounts-1.1")
def test_the_page_makes_a_limited_token_of_rights_one_holds(company: Company) -> None:
    client = client_for(company.lead_finance)
    page = client.get("/account/tokens/new/").content.decode()
    assert "quotas.request.create" in page
    assert "teams.unit.manage" not in page
    form = {"name": "ci", "expires_at": (clock.now() + WEEK).strftime("%Y-%m-%dT%H:%M"), "access": "write"}
    assert client.post("/account/tokens/new/", {**form, "permissions": ["quotas.request.create"]}).status_code == 200
    token = ApiToken.objects.get(user=company.lead_finance)
    assert (token.limited, token.permissions) == (True, ["quotas.request.create"])
    assert "limited to 1 right" in client.get("/account/").content.decode()


# -- service accounts


@pytest.mark.django_db
@pytest.mark.requirement("service-accounts-2.1", "service-accounts-2.11")
def test_a_lead_makes_an_account_that_never_signs_in(company: Company) -> None:
    client = client_for(company.lead_finance)
    form = {"team": "finance", "name": "Nightly training", "purpose": "Submits the nightly training", "role": "member"}
    answer = client.post("/service-accounts/new/", form)
    account = ServiceAccount.objects.get()
    assert answer["Location"] == f"/service-accounts/{account.uid}/"
    user = account.user
    assert (user.kind, user.has_usable_password(), user.may_use_password) == ("service", False, False)
    assert user.email.endswith("@service.invalid")
    with pytest.raises(NotAllowed):
        accounts.reset_password(user.pk, actor=Actor.of(company.admin))
    page = client.get(f"/service-accounts/{account.uid}/").content.decode()
    assert "Nightly training" in page
    assert "No token in force" in page
    event = AuditEvent.objects.get(action="teams.service.created")
    assert "Nightly" not in event.canonical_text
    assert event.team_uid == company.finance_team.uid


@pytest.mark.django_db
@pytest.mark.requirement("service-accounts-2.2", "service-accounts-2.3")
def test_whatever_it_is_given_only_team_roles_without_judgement_count(company: Company) -> None:
    account = _account(company)
    for role in ("unit_owner", "platform_admin", "compliance", "auditor"):
        with pytest.raises(Invalid):
            service_actions.set_service_role(account.pk, role, "wrong", actor=Actor.of(company.lead_finance))
    with pytest.raises(Invalid):
        actions.grant_role(account.user.pk, "platform_admin", reason="x", actor=Actor.of(company.admin))
    with pytest.raises(Invalid):
        actions.add_member(company.marketing_team.pk, account.user.pk, actor=Actor.of(company.admin))
    # Rows written past every action count for nothing either.
    grant(account.user, Role.PLATFORM_ADMIN)
    grant(account.user, Role.UNIT_OWNER, unit=company.unit)
    held = scope.of(User.objects.get(pk=account.user.pk))
    assert held.roles() == {"team_lead"}
    assert held.holds("quotas.request.create", company.finance_team)
    assert not held.holds("quotas.request.create", company.marketing_team)
    assert [name for name in sorted(service_rules.FOR_PEOPLE) if held.anywhere(name)] == []


@pytest.mark.requirement("service-accounts-2.3")
def test_what_is_for_people_exists_and_holds_every_decision() -> None:
    assert service_rules.FOR_PEOPLE <= ALL_PERMISSIONS
    deciding = {name for name in ALL_PERMISSIONS if name.endswith((".decide", ".approve", ".impersonate", ".answer"))}
    programs = set().union(
        *(service_rules.permissions_of(role) for role in (*service_rules.TEAM_ROLES, *service_rules.PLATFORM_ROLES))
    )
    assert not deciding & programs


@pytest.mark.django_db
@pytest.mark.requirement("service-accounts-2.4")
def test_nobody_hands_a_program_more_than_they_hold(company: Company) -> None:
    account = _account(company)
    with pytest.raises(Invalid) as refused:
        _key(account, company.admin)
    assert "do not hold" in refused.value.errors["permissions"][0]
    with pytest.raises(Invalid):
        _key(account, company.admin, "quotas.request.create")
    _, secret = _key(account, company.admin, "teams.team.view")
    assert _bearer(secret).get("/api/v1/teams").json()["results"][0]["slug"] == "finance"
    platform = service_actions.create_service_account(
        "Exporter", "Reads figures for the warehouse", "auditor", team_id=None, actor=Actor.of(company.admin)
    )
    with pytest.raises(Invalid, match="audit"):
        _key(platform, company.admin)
    _, secret = _key(platform, company.admin, "teams.team.view")
    assert len(_bearer(secret).get("/api/v1/teams").json()["results"]) == Team.objects.count()
    # Neither does a new role widen a token that its maker could not have made.
    member = _account(company, "member", "Reader")
    _key(member, company.lead_finance)
    with pytest.raises(Invalid):
        service_actions.set_service_role(member.pk, "team_lead", "more", actor=Actor.of(company.admin))


@pytest.mark.django_db
@pytest.mark.requirement("service-accounts-2.5", "service-accounts-2.6")
def test_a_rotated_token_overlaps_and_the_page_says_what_auditors_ask(company: Company) -> None:
    account = _account(company)
    old, first = _key(account, company.lead_finance, "teams.team.view")
    assert _bearer(first).get("/api/v1/teams").status_code == 200
    client = client_for(company.lead_finance)
    base = f"/service-accounts/{account.uid}/"
    assert client.post(f"{base}tokens/{old.uid}/rotate/", {"overlap_days": 15}).status_code == 400
    answer = client.post(f"{base}tokens/{old.uid}/rotate/", {"overlap_days": 2})
    second = answer.context["secret"]
    new = ApiToken.objects.get(replaces=old)
    assert (new.limited, new.permissions, new.read_only) == (True, ["teams.team.view"], False)
    assert _bearer(second).get("/api/v1/teams").status_code == 200
    with clock.frozen(clock.now() + timedelta(days=1)):
        assert _bearer(first).get("/api/v1/teams").status_code == 200
    with clock.frozen(clock.now() + timedelta(days=2, minutes=1)):
        assert _bearer(first).get("/api/v1/teams").status_code == 401
        assert _bearer(second).get("/api/v1/teams").status_code == 200
    assert client.post(f"{base}tokens/{old.uid}/rotate/", {"overlap_days": 2}).status_code == 409
    page = client.get(base).content.decode()
    for text in ("Lead finance", "from a loopback address", "teams.team.view", "was rotated"):
        assert text in page, text
    company.lead_finance.role_grants.update(revoked_at=clock.now())
    assert "no longer keeps it" in client_for(company.admin).get(base).content.decode()


@pytest.mark.django_db
@pytest.mark.requirement("service-accounts-2.7")
@pytest.mark.parametrize("how", ["ended", "switched off", "team archived", "revoked"])
def test_tokens_of_an_ended_account_open_nothing(company: Company, how: str) -> None:
    account = _account(company)
    token, secret = _key(account, company.lead_finance)
    lead = Actor.of(company.lead_finance)
    if how == "ended":
        service_actions.end_service_account(account.pk, "replaced", actor=lead)
        with pytest.raises(Conflict):
            _key(account, company.lead_finance)
    elif how == "switched off":
        accounts.deactivate_user(account.user.pk, "leaked", actor=Actor.of(company.admin))
    elif how == "team archived":
        Team.objects.filter(pk=company.finance_team.pk).update(archived_at=clock.now())
    else:
        service_actions.revoke_service_token(token.pk, actor=lead)
    assert _bearer(secret).get("/api/v1/teams").status_code in ({401} if how != "team archived" else {403})


@pytest.mark.django_db
@pytest.mark.requirement("service-accounts-2.9", "service-accounts-2.10")
def test_messages_go_to_the_keepers_and_nobody_waits_for_a_program(company: Company) -> None:
    account = _account(company)
    said = service_events.ServiceTokenChanged(account.uid, account.uid, True, clock.now(), False)
    outbox.publish(service_events.TOKEN_ENDS_SOON, said, recipients=[account.user.pk, company.vp.pk])
    delivery.spread_due()
    assert set(Notification.objects.values_list("user_id", flat=True)) == {company.lead_finance.pk, company.vp.pk}
    assert not SentMail.objects.filter(address__endswith=".invalid").exists()
    assert account.user.pk not in scope.holders("quotas.request.create", team_id=company.finance_team.pk)
    assert account.user.pk not in scope.holders_of_role("team_lead", team_id=company.finance_team.pk)


@pytest.mark.django_db
@pytest.mark.requirement("service-accounts-2.6")
def test_keepers_hear_once_at_each_mark_that_a_token_ends(company: Company) -> None:
    account = _account(company)
    token, _ = _key(account, company.lead_finance, days=20)
    made = clock.now()
    told = []
    for day in (1, 7, 8, 16, 18, 19):
        with clock.frozen(made + timedelta(days=day)):
            told.append(service_actions.tell_of_ending_tokens())
            # The outbox dates messages by the database's clock, which does not move in tests.
            OutboxMessage.objects.filter(subject_uid=token.uid, created_at__lte=made + timedelta(hours=1)).update(
                created_at=clock.now()
            )
            told.append(service_actions.tell_of_ending_tokens())
    assert told == [0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0]
    service_actions.rotate_service_token(token.pk, 14, actor=Actor.of(company.lead_finance))
    OutboxMessage.objects.filter(subject_uid=token.uid).delete()
    with clock.frozen(made + timedelta(days=5)):
        assert service_actions.tell_of_ending_tokens() == 0, "it was rotated: nothing to do"


@pytest.mark.django_db
@pytest.mark.requirement("service-accounts-2.8")
def test_who_made_the_account_or_a_token_stands_behind_it_for_good(company: Company) -> None:
    account = _account(company)
    other = make_user("second-admin@example.com")
    grant(other, Role.PLATFORM_ADMIN)
    token, _ = _key(account, other, "teams.team.view")
    service_actions.revoke_service_token(token.pk, actor=Actor.of(other))
    assert service_selectors.people_behind([account.user.pk]) == {company.lead_finance.pk, other.pk}
    assert service_selectors.people_behind([company.lead_finance.pk]) == set()


@pytest.mark.django_db
@pytest.mark.requirement("service-accounts-2.12")
def test_another_team_hears_nothing_of_it(company: Company) -> None:
    account = _account(company)
    token, _ = _key(account, company.lead_finance)
    stranger = client_for(company.lead_marketing)
    assert stranger.get(f"/service-accounts/{account.uid}/").status_code == 404
    assert "Nightly" not in stranger.get("/service-accounts/").content.decode()
    for act in (
        lambda who: _key(account, who),
        lambda who: service_actions.revoke_service_token(token.pk, actor=Actor.of(who)),
        lambda who: service_actions.end_service_account(account.pk, "x", actor=Actor.of(who)),
    ):
        with pytest.raises(NotVisible):
            act(company.lead_marketing)
        with pytest.raises(NotAllowed):
            act(company.vp)
    assert not RoleGrant.objects.filter(user=account.user, revoked_at__isnull=False).exists()


@pytest.mark.django_db
@pytest.mark.requirement("service-accounts-2.1", "service-accounts-2.5")
def test_the_same_through_the_api(company: Company) -> None:
    client = _bearer(_token(company.lead_finance))
    body = {
        "name": "CI",
        "purpose": "Submits from the pipeline",
        "role": "member",
        "team_uid": company.finance_team.uid,
    }
    made = _post(client, "/api/v1/service-accounts", body)
    assert made.status_code == 201, made.content
    path = f"/api/v1/service-accounts/{made.json()['uid']}"
    token = _post(client, f"{path}/make-token", {"name": "k", "expires_at": clock.now() + WEEK}).json()
    again = _post(client, f"{path}/rotate", {"token_uid": token["uid"], "overlap_days": 0})
    assert again.status_code == 201
    assert _bearer(token["secret"]).get("/api/v1/me").status_code == 401
    assert _bearer(again.json()["secret"]).get("/api/v1/me").json()["display_name"] == "CI"
    assert [one["name"] for one in client.get(f"{path}/tokens").json()] == ["k"]
    assert _post(client, f"{path}/role", {"role": "team_lead", "reason": "submits"}).status_code == 200
    assert _post(client, f"{path}/end", {"reason": "over"}).json()["in_use"] is False
