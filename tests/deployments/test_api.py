"""Endpoints and releases through the API: the pages' own actions, versions as ETags, scope."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from apps.deployments.models import Endpoint, Release
from tests.deployments.world import SPEC, World, make_world
from tests.factories import Company, client_for

pytestmark = pytest.mark.django_db


@pytest.fixture
def world(company: Company, frozen_clock: Any) -> World:
    return make_world(company)


def post(client: Any, path: str, body: Any = None, **headers: str) -> Any:
    return client.post(f"/api/v1/{path}", json.dumps(body or {}), content_type="application/json", headers=headers)


def body(world: World, **changes: Any) -> dict[str, Any]:
    return {
        "workspace": str(world.workspaces["development"].uid), "name": "fraud",
        "model_version": str(world.version.uid), "flavour": world.flavour.slug, "spec": SPEC.to_json(),
        "reason": "Scores payments before they are settled.", **changes,
    }  # fmt: skip


@pytest.mark.requirement("releases-4.8")
def test_a_release_is_requested_and_operated(world: World) -> None:
    client = client_for(world["lead_finance"])
    made = post(client, "releases", body(world))
    assert made.status_code == 201
    assert made.json()["monthly_cost"] == {
        "change": "5621.00", "minimum": "5621.00", "maximum": "5621.00", "currency": "USD",
    }  # fmt: skip
    release = Release.objects.get()
    world.load(release)
    path = f"endpoints/{release.endpoint.uid}"
    read = client.get(f"/api/v1/{path}")
    assert read.json()["current"]["status"] == "live"
    assert post(client, f"{path}/stop", {"reason": "Nobody uses it any more."}).status_code == 428
    stopped = post(client, f"{path}/stop", {"reason": "Nobody uses it any more."}, **{"If-Match": read["ETag"]})
    assert stopped.status_code == 200
    assert stopped.json()["stopped_at"] is not None
    assert (
        post(client, f"{path}/start-again", {"reason": "It is used again."}, **{"If-Match": read["ETag"]}).status_code
        == 412
    )
    kinds = [step["kind"] for step in client.get(f"/api/v1/{path}/steps").json()]
    assert kinds == ["stopped", "promoted", "started"]


@pytest.mark.requirement("releases-4.8")
def test_refusals_are_problems_that_name_the_field(world: World) -> None:
    client = client_for(world["lead_finance"])
    wrong = post(client, "releases", body(world, spec=SPEC.to_json() | {"min_replicas": "two"}))
    assert wrong.status_code == 400
    assert "min_replicas" in wrong.json()["errors"]
    assert post(client_for(world["lead_marketing"]), "releases", body(world)).status_code in (403, 404)
    assert Endpoint.objects.count() == 0


@pytest.mark.requirement("releases-4.6")
def test_lists_are_scoped_and_stay_within_their_queries(
    world: World, query_limit: Callable[[int], AbstractContextManager[Any]]
) -> None:
    for number in range(3):
        world.live(name=f"fraud-{number}", max_replicas=1, min_replicas=1)
    client = client_for(world["lead_finance"])
    for path in ("endpoints", "releases", "placement-rules"):
        with query_limit(15):
            response = client.get(f"/api/v1/{path}")
        assert response.status_code == 200
    assert len(client.get("/api/v1/endpoints").json()["results"]) == 3
    assert client_for(world["lead_marketing"]).get("/api/v1/endpoints").json()["results"] == []
