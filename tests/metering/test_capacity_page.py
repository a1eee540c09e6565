"""The pages that prove the lines, list namespaces without an owner, and take claims."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse

from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.actor import Actor
from apps.metering import actions, capacity_report, reattribution, unowned
from apps.metering.engine import HOUR_MS
from apps.metering.models import CapacityLine, HourFact, HourStatus, NamespaceOwner
from apps.quotas.models import Workspace
from apps.teams.models import Team
from tests.factories import client_for
from tests.metering.world import FakeAdapter, World, guarantee, hold, utc

HOUR = timedelta(hours=1)
START = utc(2026, 11, 16, 22)
NOW = utc(2026, 11, 18, 9)
SYSTEM = Actor.system("test")


@pytest.fixture(autouse=True)
def _now() -> Iterator[None]:
    with clock.frozen(NOW):
        yield


@pytest.fixture
def metered(world: World) -> World:
    guarantee(world, "research", 10)
    holdings = [
        hold("train", "finance-prod", START, START + 6 * HOUR, 4),
        hold("stray", "strays", START, START + 6 * HOUR, 2),
    ]
    actions.ingest_hours(world.source.pk, START, START + 6 * HOUR, actor=SYSTEM, adapter=FakeAdapter(holdings))
    return world


def body(response: Any) -> str:
    data = b"".join(response.streaming_content) if response.streaming else response.content
    return str(data.decode("utf-8-sig"))


@pytest.mark.requirement("metering-facts-6.1")
def test_lines_by_hour_and_day_equal_physical(metered: World) -> None:
    start, end = utc(2026, 11, 16), utc(2026, 11, 18)
    days = capacity_report.capacity_rows(start, end, by_hour=False)
    hours = capacity_report.capacity_rows(start, end, by_hour=True)
    assert [(str(row.at), row.hours) for row in days] == [("2026-11-17", 4), ("2026-11-16", 2)]
    assert len(hours) == 6
    for row in (*days, *hours):
        assert row.total == row.physical == 50 * HOUR_MS * row.hours
        assert row.contradictions == ""
        assert row.coverage_permille == 1000
    assert sum(row.unattributed for row in hours) == sum(row.unattributed for row in days) == 12 * HOUR_MS
    assert days[0].reserved_unused == 4 * 10 * HOUR_MS
    assert capacity_report.proof_of(days).equal


@pytest.mark.requirement("metering-facts-6.1", "metering-facts-6.5")
def test_page_says_the_sentence_and_shows_contradictions(metered: World, company: Any) -> None:
    client = client_for(company.finance)
    url = reverse("metering:capacity-list")
    page = client.get(url).content.decode()
    assert "Sum equals physical" in page
    total = 6 * 50 * HOUR_MS
    assert f"{total:,}" in page.replace("\u202f", ",").replace("\xa0", ",")
    HourStatus.objects.filter(hour=START).update(flags=["capacity_short"], coverage_permille=500)
    page = client.get(url, {"grain": "hour", "since": "2026-11-16", "until": "2026-11-17"}).content.decode()
    assert "carry a contradiction" in page
    assert "more held than the nodes have" in page
    assert "Samples present" in page
    CapacityLine.objects.filter(hour=START, kind="unsold").update(gpu_ms=1)
    page = client.get(url).content.decode()
    assert "does not equal physical" in page
    rows = list(csv.DictReader(io.StringIO(body(client.get(url, {"export": "csv"})))))
    assert {row["GPU model"] for row in rows} == {metered.pool.gpu_model}
    assert any(int(row["Difference, GPU-ms"]) for row in rows)
    assert client.get(url, {"grain": "hour", "since": "2026-01-01", "until": "2026-11-17"}).status_code == 400
    assert client.get(url, {"since": "2026-11-17", "until": "2026-11-16"}).status_code == 400
    assert client_for(company.lead_finance).get(url).status_code == 403


@pytest.mark.requirement("metering-facts-5.1")
def test_unowned_namespaces_with_hours_and_cost(metered: World) -> None:
    (row,) = unowned.unowned()
    assert (row.namespace, row.workloads, row.hours, row.gpu_ms) == ("strays", 1, 6, 12 * HOUR_MS)
    assert row.cost is not None
    assert str(row.cost.amount.quantize(row.cost.amount.__class__("0.01"))) == "46.20"  # 12 GPU-hours at 3.85
    assert (row.unpriced_gpu_ms, row.coverage_permille) == (0, 1000)


@pytest.mark.requirement("metering-facts-5.1")
def test_closed_months_are_not_listed(metered: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from apps.metering import ports

    monkeypatch.setattr(ports, "_freezes", {"test": lambda cluster, hours: {h for h in hours if h < utc(2026, 12, 1)}})
    assert unowned.unowned() == []


@pytest.mark.requirement("metering-facts-5.1", "metering-facts-5.2")
def test_one_click_from_the_list_to_the_team(metered: World, company: Any, django_assert_max_num_queries: Any) -> None:
    client = client_for(company.lead_finance)
    listing = reverse("metering:namespace-list")
    with django_assert_max_num_queries(20):
        page = client.get(listing).content.decode()
    claim = f"{reverse('metering:claim-create')}?cluster={metered.cluster.slug}&amp;namespace=strays"
    assert claim in page
    assert "46.20" in page
    assert "Claim for " + company.finance_team.name in page
    form = client.get(reverse("metering:claim-create"), {"cluster": metered.cluster.slug, "namespace": "strays"})
    text = form.content.decode()
    assert 'value="strays"' in text
    assert company.marketing_team.name not in text  # only teams to claim for
    data = {
        "cluster": metered.cluster.slug, "namespace": "strays", "team": "finance", "environment": "",
        "valid_from": "2026-11-01T00:00", "reason": "",
    }  # fmt: skip
    assert client.post(reverse("metering:claim-create"), data).status_code == 400
    foreign = {**data, "team": "marketing", "reason": "x"}
    assert client.post(reverse("metering:claim-create"), foreign).status_code == 400
    assert client.post(reverse("metering:claim-create"), {**data, "reason": "our notebooks"}).status_code == 303
    while reattribution.move_claimed():
        pass
    assert "strays" not in client.get(listing).content.decode()
    assert set(HourFact.objects.filter(namespace="strays").values_list("team_id", flat=True)) == {
        company.finance_team.pk
    }
    made = NamespaceOwner.objects.get()
    shown = client.get(reverse("metering:claim-list")).content.decode()
    assert "strays" in shown
    assert "our notebooks" in shown
    assert "strays" not in client_for(company.lead_marketing).get(reverse("metering:claim-list")).content.decode()
    back = client.post(reverse("metering:claim-withdraw", args=[made.uid]), {"version": made.version, "reason": ""})
    assert back.status_code in (303, 409)
    made.refresh_from_db()
    if not made.valid.isempty:
        again = client.post(reverse("metering:claim-withdraw", args=[made.uid]), {"version": made.version})
        assert again.status_code == 303
    while reattribution.move_claimed():
        pass
    assert "strays" in client.get(listing).content.decode()
    assert client_for(company.member_finance).get(listing).status_code == 403


def _posted(page: str, button: str) -> dict[str, str]:
    """Return what the row's own form posts, as a browser would."""
    form = next(part for part in page.split("<form")[1:] if button in part).split("</form>")[0]
    return dict(re.findall(r'name="(\w+)" value="([^"]*)"', form))


@pytest.mark.requirement("metering-facts-5.1")
def test_a_clear_owner_claims_in_one_click_and_takes_it_back(metered: World, company: Any) -> None:
    client, listing = client_for(company.lead_finance), reverse("metering:namespace-list")
    data = _posted(client.get(listing).content.decode(), "Claim for ")
    data.pop("csrfmiddlewaretoken", None)
    assert (data["namespace"], data["team"], data["valid_from"]) == ("strays", "finance", f"{START:%Y-%m-%dT%H:%M}")
    done = client.post(reverse("metering:claim-create"), data)
    assert done.status_code == 303
    shown = client.get(done.headers["Location"]).content.decode()
    made = NamespaceOwner.objects.get()
    assert reverse("metering:claim-withdraw", args=[made.uid]) in shown
    assert made.reason == "Finance takes it as its own."
    assert client.post(reverse("metering:claim-create"), data).status_code == 400  # a second click claims nothing


@pytest.mark.requirement("metering-facts-5.1")
def test_who_claims_for_many_is_offered_the_one_that_has_such_a_workspace(
    metered: World, company: Any, django_assert_num_queries: Any
) -> None:
    admin, listing = client_for(company.admin), reverse("metering:namespace-list")
    assert "Claim for " not in admin.get(listing).content.decode()
    rows, teams = unowned.unowned(), Team.objects.order_by("name", "pk")
    elsewhere = Cluster.objects.create(name="Elsewhere", slug="elsewhere", api_url="https://elsewhere.example")
    place = Workspace.objects.create(
        cluster=elsewhere, namespace="strays", team=company.marketing_team, environment="development"
    )
    with django_assert_num_queries(2):
        (row,) = unowned.with_claimants(rows, teams)
    assert (row.claimant, row.because) == (
        company.marketing_team, f"{company.marketing_team.name} has or had a workspace by this name.",
    )  # fmt: skip
    assert "Claim for " + company.marketing_team.name in admin.get(listing).content.decode()
    third = Cluster.objects.create(name="Third", slug="third", api_url="https://third.example")
    Workspace.objects.create(
        cluster=third, namespace="strays", team=company.finance_team, environment=place.environment
    )
    assert [row.claimant for row in unowned.with_claimants(rows, teams)] == [None]
