"""Workspaces, quotas and quota requests through the API."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from apps.core import clock
from apps.quotas.models import QuotaRequest
from tests.factories import client_for
from tests.quotas.conftest import REASON, World

pytestmark = pytest.mark.django_db
BASE = "/api/v1/quota-requests"


@pytest.fixture
def lead(world: World) -> Client:
    return client_for(world["lead_finance"])


def body(world: World, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "workspace": str(world.workspaces["finance"].uid),
        "flavour": world.flavour.slug,
        "guaranteed": 8,
        "reason": REASON,
    }
    return values | changes


def send(client: Client, path: str, data: dict[str, Any], **headers: str) -> Any:
    return client.post(path, data, content_type="application/json", headers=headers)


@pytest.mark.requirement("quotas-6.6")
def test_request_correct_withdraw(world: World, lead: Client) -> None:
    made = send(lead, BASE, body(world))
    assert made.status_code == 201, made.content
    first = made.json()
    assert first["status"] == "in_review"
    assert first["monthly_cost_change"]["amount"] == "22484.00"
    assert made.headers["ETag"] == f'"{first["version"]}"'
    stale = send(lead, f"{BASE}/{first['uid']}/correct", body(world, guaranteed=9), **{"If-Match": '"99"'})
    assert stale.status_code == 412
    values = {key: value for key, value in body(world, guaranteed=9).items() if key != "workspace"}
    corrected = send(lead, f"{BASE}/{first['uid']}/correct", values, **{"If-Match": made.headers["ETag"]})
    assert corrected.status_code == 201, corrected.content
    second = corrected.json()
    assert second["supersedes"] == first["uid"]
    again = send(lead, f"{BASE}/{first['uid']}/withdraw", {}, **{"If-Match": "*"})
    assert again.status_code == 409
    assert again.headers["Content-Type"].startswith("application/problem+json")
    assert again.json()["current"]["status"] == "superseded"
    for action, data in (("withdraw", {"reason": "Not needed."}), ("correct", values | {"guaranteed": 7})):
        blind = send(lead, f"{BASE}/{second['uid']}/{action}", data)
        assert blind.status_code == 428
        assert blind.headers["Content-Type"].startswith("application/problem+json")
        assert blind.json()["code"] == "precondition_required"
        assert f'now "{second["version"]}"' in blind.json()["detail"]
    assert QuotaRequest.objects.get(uid=second["uid"]).status == "in_review"
    tag = lead.get(f"{BASE}/{second['uid']}").headers["ETag"]
    done = send(lead, f"{BASE}/{second['uid']}/withdraw", {"reason": "Not needed."}, **{"If-Match": tag})
    assert done.json()["status"] == "withdrawn"


@pytest.mark.requirement("quota-time-1.1", "quota-time-1.6")
def test_a_recurring_request_through_the_api(world: World, lead: Client) -> None:
    until = (clock.now() + timedelta(days=60)).isoformat()
    weekend = {"days": [5], "start": "00:00", "minutes": 2880}
    made = send(lead, BASE, body(world, recurrence=weekend, valid_until=until))
    assert made.status_code == 201, made.content
    assert made.json()["recurrence"] == weekend
    assert made.json()["lend_mode"] == "all"
    assert "209 h" in made.json()["monthly_cost_change"]["basis"]
    endless = send(lead, BASE, body(world, workspace=str(world.workspaces["finance"].uid), recurrence=weekend))
    assert endless.status_code == 400
    assert "valid_until" in endless.json()["errors"]
    wrong = send(lead, BASE, body(world, recurrence=weekend | {"start": "25:00"}, valid_until=until))
    assert "recurrence" in wrong.json()["errors"]


@pytest.mark.requirement("quotas-6.6", "quotas-1.2")
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"guaranteed": -1}, "guaranteed"),
        ({"guaranteed": 1.5}, "guaranteed"),
        ({"guaranteed": 51}, "guaranteed"),
        ({"flavour": "no-such"}, "flavour"),
        ({"borrow_mode": "limited", "borrow_limit": 3}, "borrow_mode"),
        ({"reason": ""}, "reason"),
        ({"valid_until": "2020-01-01T00:00:00Z"}, "valid_until"),
    ],
)
def test_problems_name_their_field(world: World, lead: Client, changes: dict[str, Any], field: str) -> None:
    response = send(lead, BASE, body(world, **changes))
    assert response.status_code == 400
    assert field in response.json()["errors"]
    assert not QuotaRequest.objects.exists()


@pytest.mark.requirement("quotas-6.5", "quotas-6.6")
def test_scope(world: World, query_limit: Any) -> None:
    request = world.granted(guaranteed=8)
    foreign = client_for(world["lead_marketing"])
    assert foreign.get(f"{BASE}/{request.uid}").status_code == 404
    assert foreign.get(BASE).json()["results"] == []
    assert send(foreign, BASE, body(world)).status_code == 404
    assert send(client_for(world["auditor"]), BASE, body(world)).status_code == 403
    assert Client().get(BASE).status_code == 401
    auditor = client_for(world["auditor"])
    for path in ("quota-requests", "quotas", "workspaces", "rate-cards"):
        with query_limit(15):
            rows = auditor.get(f"/api/v1/{path}").json()["results"]
        assert rows, path
    assert auditor.get("/api/v1/quotas").json()["results"][0]["maximum"] == 8
    assert auditor.get("/api/v1/workspaces", {"team__slug": "finance"}).json()["results"][0]["namespace"] == (
        "finance-development"
    )
