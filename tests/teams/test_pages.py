"""Pages and API of the teams room."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from apps.accounts.models import IdentityProvider
from apps.core.testing import assert_queries
from apps.teams import selectors
from apps.teams.choices import Role
from apps.teams.models import GroupMapping, Membership, RoleGrant, Team, Unit
from tests.factories import Company, client_for, grant, make_member, make_team, make_unit, make_user

pytestmark = pytest.mark.django_db


def _text(answer: Any) -> str:
    return str(answer.content.decode())


@pytest.mark.requirement("teams-5.1")
def test_tree_shows_what_the_person_may_see(company: Company) -> None:
    make_team("Hidden", company.other_unit)
    text = _text(client_for(company.vp).get("/units/"))
    assert "Retail Bank" in text
    assert "Finance" in text
    assert "Example Group" not in text
    assert "Hidden" not in text
    nodes = selectors.unit_tree(company.admin)
    assert [(node.unit.name, node.depth) for node in nodes] == [
        ("Example Group", 0),
        ("Other Unit", 1),
        ("Retail Bank", 1),
    ]
    assert [team.name for team in nodes[2].teams] == ["Finance", "Marketing", "Research"]


@pytest.mark.requirement("teams-5.1")
def test_tree_and_unit_page_cost_the_same_at_any_size(company: Company) -> None:
    client = client_for(company.admin)
    for index in range(25):
        unit = make_unit(f"Unit {index}", company.unit)
        team = make_team(f"Team {index}", unit)
        make_member(make_user(), team)
    with assert_queries(20):
        assert client.get("/units/").status_code == 200
    with assert_queries(20):
        assert client.get("/units/retail-bank/").status_code == 200


@pytest.mark.requirement("teams-5.1")
def test_foreign_unit_and_team_do_not_exist(company: Company) -> None:
    client = client_for(company.vp_other)
    for url in ("/units/retail-bank/", "/teams/finance/people/", "/units/nowhere/"):
        assert client.get(url).status_code == 404


@pytest.mark.requirement("teams-2.1")
def test_admin_makes_unit_then_team_then_adds_a_person(company: Company) -> None:
    client = client_for(company.admin)
    answer = client.post("/units/new/", {"name": "Cards", "slug": "cards", "parent": "retail-bank"})
    assert answer["Location"] == "/units/cards/"
    answer = client.post("/units/cards/teams/new/", {"name": "Fraud", "slug": "fraud", "cost_centre": "CC-9"})
    assert answer["Location"] == "/teams/fraud/people/"
    person = make_user("new-hire@example.com")
    answer = client.post("/teams/fraud/people/add/", {"user": "New-Hire@example.com"})
    assert answer.status_code == 303, _text(answer)
    assert Membership.objects.current().get(user=person).team.slug == "fraud"
    text = _text(client.get("/teams/fraud/people/"))
    assert "New hire" in text
    answer = client.post(f"/teams/fraud/people/{person.uid}/remove/")
    assert answer.status_code == 303
    assert not Membership.objects.current().filter(user=person).exists()


@pytest.mark.requirement("teams-2.2")
def test_wrong_slug_comes_back_beside_its_field_with_what_was_typed(company: Company) -> None:
    answer = client_for(company.admin).post("/units/new/", {"name": "Cards", "slug": "Bad Slug", "parent": ""})
    assert answer.status_code == 400
    text = _text(answer)
    assert "begin with a letter" in text
    assert 'value="Bad Slug"' in text
    assert not Unit.objects.filter(name="Cards").exists()


@pytest.mark.requirement("teams-3.1")
def test_unknown_address_is_refused_beside_the_field(company: Company) -> None:
    answer = client_for(company.lead_finance).post("/teams/finance/people/add/", {"user": "nobody@example.com"})
    assert answer.status_code == 400
    assert "Choose a person with an account in use." in _text(answer)


@pytest.mark.requirement("teams-4.2")
def test_role_is_given_and_revoked_on_its_pages(company: Company) -> None:
    client = client_for(company.admin)
    person = make_user("deputy@example.com")
    page = _text(client.get("/roles/new/?user=deputy@example.com"))
    assert "Retail Bank" in page
    answer = client.post(
        "/roles/new/",
        {"user": "deputy@example.com", "role": Role.UNIT_OWNER, "scope": "unit:retail-bank", "reason": "Deputy VP"},
    )
    assert answer.status_code == 303, _text(answer)
    given = RoleGrant.objects.get(user=person)
    assert (given.unit, given.granted_by) == (company.unit, company.admin)
    listed = _text(client.get("/roles/?q=deputy"))
    assert "Deputy" in listed
    assert "it is revoked" in listed, "counts until that"
    provider = IdentityProvider.objects.create(name="Example Identity", slug="example", issuer="https://id.example.com")
    mapping = GroupMapping.objects.create(provider=provider, group="vps", role=Role.UNIT_OWNER, unit=company.unit)
    RoleGrant.objects.filter(pk=given.pk).update(mapping=mapping)
    assert "the person leaves the group" in _text(client.get("/roles/?q=deputy"))
    RoleGrant.objects.filter(pk=given.pk).update(mapping=None)
    answer = client.post(f"/roles/{given.uid}/revoke/", {"reason": "Back"})
    assert answer.status_code == 303
    assert client.post(f"/roles/{given.uid}/revoke/", {"reason": "Back"}).status_code == 409


@pytest.mark.requirement("teams-4.2")
def test_auditor_sees_roles_without_buttons(company: Company) -> None:
    text = _text(client_for(company.auditor).get("/roles/"))
    assert "Platform admin" in text
    assert "Revoke" not in text


@pytest.mark.requirement("teams-6.1")
@pytest.mark.parametrize(
    ("who", "permission", "place", "allowed", "because"),
    [
        ("vp", "approvals.request.decide", "team:finance", True, "Unit owner (VP) of Retail Bank and everything below"),
        ("vp_other", "approvals.request.decide", "team:finance", False, ""),
        ("lead_finance", "quotas.request.create", "team:finance", True, "Team lead of the team Finance"),
        ("member_finance", "quotas.workspace.use", "team:finance", True, "Member of the team Finance"),
        ("compliance", "approvals.request.decide", "unit:retail-bank", True, "Compliance for the whole installation"),
    ],
)
def test_why_answers_with_the_role_it_stands_on(
    company: Company, who: str, permission: str, place: str, allowed: bool, because: str
) -> None:
    url = reverse("teams:why", kwargs={"user_uid": company[who].uid})
    text = _text(client_for(company.auditor).get(url, {"permission": permission, "place": place}))
    assert ("Yes" in text) is allowed
    assert because in text.replace("&amp;", "&")
    kind, slug = place.split(":")
    row = Team.objects.get(slug=slug) if kind == "team" else Unit.objects.get(slug=slug)
    answer = selectors.explain(company[who], permission, row)
    assert answer.allowed is allowed
    assert bool(answer.reasons) is allowed, "a yes has a reason, a no has none"


@pytest.mark.requirement("teams-6.1")
def test_why_is_open_to_oneself_and_to_nobody_else_without_the_role(company: Company) -> None:
    client = client_for(company.lead_finance)
    assert client.get(reverse("teams:why", kwargs={"user_uid": company.lead_finance.uid})).status_code == 200
    assert client.get(reverse("teams:why", kwargs={"user_uid": company.vp.uid})).status_code == 404


@pytest.mark.requirement("teams-7.1")
def test_api_lists_and_changes_within_the_callers_scope(company: Company) -> None:
    lead, admin = client_for(company.lead_finance), client_for(company.admin)
    found = lead.get("/api/v1/teams").json()["results"]
    assert [team["slug"] for team in found] == ["finance"]
    assert lead.get(f"/api/v1/teams/{company.marketing_team.uid}").status_code == 404
    people = lead.get(f"/api/v1/teams/{company.finance_team.uid}/people").json()
    assert {one["user_uid"] for one in people} == {str(company.lead_finance.uid), str(company.member_finance.uid)}
    person = make_user()
    url = f"/api/v1/teams/{company.finance_team.uid}/add-member"
    assert _json(lead, url, {"user_uid": str(person.uid)}).status_code == 204
    refused = _json(lead, url, {"user_uid": str(person.uid)})
    assert (refused.status_code, list(refused.json()["errors"])) == (400, ["user"])
    body = {"name": "Cards", "slug": "cards", "parent_uid": str(company.unit.uid)}
    assert _json(lead, "/api/v1/units", body).status_code == 403
    assert _json(admin, "/api/v1/units", body).json()["parent_uid"] == str(company.unit.uid)
    given = _json(
        admin, "/api/v1/role-grants",
        {"user_uid": str(person.uid), "role": "auditor", "reason": "review"},
    )  # fmt: skip
    assert given.status_code == 201
    assert _json(admin, f"/api/v1/role-grants/{given.json()['uid']}/revoke", {"reason": "done"}).status_code == 200
    own = lead.get("/api/v1/role-grants").json()["results"]
    assert {one["user_uid"] for one in own} == {str(company.lead_finance.uid)}


@pytest.mark.requirement("teams-7.1")
def test_api_list_costs_the_same_at_any_size(company: Company) -> None:
    client = client_for(company.admin)
    for index in range(30):
        grant(make_user(), Role.TEAM_LEAD, team=make_team(f"Team {index}", make_unit(f"Unit {index}", company.unit)))
    for url in ("/api/v1/teams", "/api/v1/units", "/api/v1/role-grants"):
        with assert_queries(15):
            assert len(client.get(url).json()["results"]) > 20


def _json(client: Client, url: str, body: dict[str, Any]) -> Any:
    return client.post(url, body, content_type="application/json")
