"""The API base: problems, pages, versions, description."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from django.test import Client

from tests.factories import Company, client_for, make_team

pytestmark = pytest.mark.urls("tests.ui.urls")
PROBLEM = "application/problem+json"


def _post(client: Client, url: str, body: Any = None, **headers: str) -> Any:
    return client.post(url, json.dumps(body or {}), content_type="application/json", **headers)


def _problem(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.content
    assert response["Content-Type"] == PROBLEM
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["title"]
    assert body["code"]
    assert body["request_id"]
    return body


@pytest.mark.requirement("shell-5.1")
def test_every_refusal_is_a_problem(company: Company) -> None:
    lead = client_for(company.lead_finance)
    url = f"/api/v1/sample-teams/{company.finance_team.uid}"
    assert _problem(Client().get("/api/v1/sample-teams"), 401)["code"] == "not_signed_in"
    assert _problem(lead.get(f"/api/v1/sample-teams/{uuid.uuid4()}"), 404)["instance"].startswith("/api/v1/")
    _problem(lead.get(f"/api/v1/sample-teams/{company.marketing_team.uid}"), 404)
    forbidden = _problem(_post(client_for(company.member_finance), f"{url}/rename", {"name": "x"}), 403)
    assert forbidden["rule"] == "teams.member.manage"
    _problem(lead.delete(url), 405)
    _problem(lead.get(url, HTTP_ACCEPT="text/csv"), 406)
    _problem(lead.post(f"{url}/rename", "name=x", content_type="application/x-www-form-urlencoded"), 415)
    conflict = _problem(_post(lead, f"{url}/rename", {"name": "stale"}), 409)
    assert conflict["current"] == {"version": 7}


@pytest.mark.requirement("shell-5.1")
def test_bad_input_names_its_fields(company: Company) -> None:
    lead = client_for(company.lead_finance)
    url = f"/api/v1/sample-teams/{company.finance_team.uid}/rename"
    assert _problem(_post(lead, url, {"name": "too long"}), 400)["errors"] == {
        "name": ["Ensure this field has no more than 5 characters."]
    }
    assert _problem(_post(lead, url, {"name": "bad"}), 400)["errors"] == {"name": ["Not this one."]}
    malformed = lead.post(url, "{", content_type="application/json")
    assert "JSON" in _problem(malformed, 400)["detail"]


@pytest.mark.requirement("shell-5.1", "shell-3.4")
def test_a_crash_is_a_problem_without_the_inside(company: Company) -> None:
    lead = client_for(company.lead_finance)
    response = _post(lead, f"/api/v1/sample-teams/{company.finance_team.uid}/rename", {"name": "crash"})
    body = _problem(response, 500)
    assert "inner secret" not in json.dumps(body)


@pytest.mark.requirement("shell-5.2")
def test_collections_page_by_cursor_and_stay_stable(company: Company) -> None:
    for number in range(60):
        make_team("Many", company.unit, slug=f"many-{number:03}")
    client = client_for(company.admin)
    first = client.get("/api/v1/sample-teams?page_size=25").json()
    seen = [row["uid"] for row in first["results"]]
    make_team("Newcomer", company.unit, slug="newcomer")
    url = first["next"]
    while url:
        page = client.get(url).json()
        seen += [row["uid"] for row in page["results"]]
        url = page["next"]
    assert len(seen) == len(set(seen)) == 63
    assert len(client.get("/api/v1/sample-teams?page_size=9999").json()["results"]) == 64
    _problem(client.get("/api/v1/sample-teams?cursor=garbage"), 404)


@pytest.mark.requirement("shell-5.3")
def test_a_version_is_an_etag_and_an_older_one_is_refused(company: Company) -> None:
    lead = client_for(company.lead_finance)
    url = f"/api/v1/sample-teams/{company.finance_team.uid}"
    assert lead.get(url)["ETag"] == '"1"'
    assert _post(lead, f"{url}/rename", {"name": "ok"}, HTTP_IF_MATCH='"1"').status_code == 200
    stale = _problem(_post(lead, f"{url}/rename", {"name": "ok"}, HTTP_IF_MATCH='"9"'), 412)
    assert stale["current"]["version"] == 1
    _problem(_post(lead, f"{url}/rename", {"name": "ok"}, HTTP_IF_MATCH="nonsense"), 400)
    assert _post(lead, f"{url}/rename", {"name": "ok"}, HTTP_IF_MATCH="*").status_code == 200


@pytest.mark.requirement("shell-1.2", "shell-5.2")
def test_collections_hold_only_what_the_caller_may_see(company: Company) -> None:
    rows = client_for(company.lead_finance).get("/api/v1/sample-teams").json()["results"]
    assert [row["slug"] for row in rows] == ["finance"]


@pytest.mark.requirement("shell-5.4")
def test_the_description_comes_from_our_own_host_without_inline_scripts(company: Company) -> None:
    client = client_for(company.lead_finance)
    schema = client.get("/api/v1/schema/?format=json").json()
    assert schema["openapi"].startswith("3.1")
    assert "/api/v1/notifications" in schema["paths"]
    docs = client.get("/api/v1/docs/")
    page = docs.content.decode()
    assert "script-src 'self'" in docs["Content-Security-Policy"]
    assert "http://" not in page.replace("http://testserver", "")
    assert "https://" not in page
    assert "<script>" not in page
    assert client.get("/api/v1/docs/?script=").status_code == 200
    assert Client().get("/api/v1/docs/").status_code == 302
    _problem(Client().get("/api/v1/schema/"), 401)


def test_the_root_names_every_collection(company: Company) -> None:
    body = client_for(company.lead_finance).get("/api/v1/").json()
    assert body["notification"].endswith("/api/v1/notifications")
    assert body["schema"].endswith("/api/v1/schema/")
