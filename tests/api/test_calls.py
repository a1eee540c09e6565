"""Versions, queued work and pages, on rows of the sweep's kinds."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse

from apps.clusters import actions
from apps.clusters.models import MaintenanceWindow
from apps.core import clock
from apps.core.actor import Actor
from tests.api.support import bearer


@pytest.fixture
def cluster(company: Any) -> Any:
    return actions.register_cluster(
        "API atlas", actor=Actor.system("tests"), api_url="https://atlas.example.com", token="t", simulated=True
    )


def _call(client: Any, person: Any, method: str, url: str, body: Any = None, **headers: str) -> Any:
    return client.generic(
        method, url, b"" if body is None else body, content_type="application/json",
        headers={**bearer(person), **headers},
    )  # fmt: skip


@pytest.mark.requirement("api-2.1")
def test_a_stale_version_is_refused_and_says_which_is_there(company: Any, client: Any, cluster: Any) -> None:
    url = reverse("api:cluster-detail", kwargs={"uid": cluster.uid})
    read = _call(client, company.admin, "GET", url)
    stale = read["ETag"]
    changed = _call(client, company.admin, "PATCH", url, b'{"region": "eu-1"}', **{"If-Match": stale})
    assert (changed.status_code, changed.json()["region"]) == (200, "eu-1")
    assert changed["ETag"] != stale
    refused = _call(client, company.admin, "PATCH", url, b'{"region": "eu-2"}', **{"If-Match": stale})
    assert refused.status_code == 412
    assert refused.json()["current"]["version"] == changed.json()["version"]
    cluster.refresh_from_db()
    assert cluster.region == "eu-1"
    # Without a version it acts on whatever is there.
    assert _call(client, company.admin, "PATCH", url, b'{"region": "eu-3"}').status_code == 200
    assert _call(client, company.admin, "PATCH", url, b"{}", **{"If-Match": "3"}).status_code == 400


@pytest.mark.requirement("api-2.2")
def test_queued_work_says_where_to_look(company: Any, client: Any, cluster: Any) -> None:
    queued = _call(client, company.admin, "POST", reverse("api:cluster-check", kwargs={"uid": cluster.uid}))
    assert queued.status_code == 202
    assert int(queued["Retry-After"]) > 0
    look = _call(client, company.admin, "GET", queued["Location"])
    assert (look.status_code, look.json()["uid"]) == (200, str(cluster.uid))
    assert look.json()["last_check"]["outcome"] is None


@pytest.mark.requirement("api-2.4")
def test_collections_come_in_pages_by_cursor(company: Any, client: Any, cluster: Any) -> None:
    start = clock.now() + timedelta(days=1)
    for day in range(5):
        MaintenanceWindow.objects.create(
            cluster=cluster,
            reason=f"Window {day}",
            valid=(start + timedelta(days=day), start + timedelta(days=day + 1)),
        )
    url = reverse("api:maintenance-window-list") + "?page_size=2"
    seen: list[str] = []
    while url:
        page = _call(client, company.admin, "GET", url).json()
        assert len(page["results"]) <= 2
        seen += [row["reason"] for row in page["results"]]
        url = page["next"]
    assert seen == [f"Window {day}" for day in (4, 3, 2, 1, 0)]


@pytest.mark.requirement("api-4.1")
def test_a_call_that_is_not_described_breaks_the_contract() -> None:
    from tests.api import contract

    contract.check_request("GET", "http://localhost/api/v1/quotas?flavour__slug=a100", None)
    with pytest.raises(AssertionError, match="takes no colour"):
        contract.check_request("GET", "http://localhost/api/v1/quotas?colour=red", None)
    with pytest.raises(AssertionError, match="not in the description"):
        contract.check_request("POST", "http://localhost/api/v1/quota-wishes", b"{}")
