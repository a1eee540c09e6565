"""Pages, panels and API of the insights room: what they show, to whom, with how many queries."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from django.urls import reverse

from apps.core import clock
from apps.core.actor import Actor
from apps.core.testing import assert_queries
from apps.insights import findings, idle_actions, tasks
from apps.insights.choices import FindingKind, FindingStatus, IdleStatus
from apps.insights.models import Finding, IdleCase
from apps.insights.report_models import WorkloadMonth
from apps.provisioning.models import StopOrder
from apps.quotas.idle_policy import IdlePolicy
from tests.factories import Company, client_for
from tests.insights.conftest import END, HOUR, NOW, START, ingest
from tests.metering.world import World, guarantee, hold

WHY = "They train again in December."


@pytest.fixture
def hoarded(world: World) -> Finding:
    """Finance holds 16 and used 3 for thirty hours."""
    guarantee(world, "finance", 16)
    ingest(world, [hold("a", "finance-prod", START, START + 30 * HOUR, 3, used=0.5)])
    findings.find_all()
    return Finding.objects.get()


def many(world: World, company: Company, count: int) -> None:
    """Findings of many keys, as a year leaves behind."""
    place = world.workspaces["finance"]
    Finding.objects.bulk_create(
        Finding(
            kind=FindingKind.HOARDED_QUOTA, key=f"k{i}", team=company.finance_team, workspace=place,
            cluster=world.cluster, flavour=world.flavour, title=f"finding {i}", found_at=NOW, gpu_ms=i,
            window=DateTimeTZRange(START, END, "[)"), amount=Decimal(i), currency="USD",
            proposal={"give_back": 1, "give_back_gpus": "1", "monthly": "10", "currency": "USD", "basis": ""},
        )
        for i in range(count)
    )  # fmt: skip


def case_of(world: World, company: Company, name: str = "notebook", **extra: Any) -> IdleCase:
    """An idle workload that waits for an answer."""
    values: dict[str, Any] = {
        "workspace": world.workspaces["finance"], "team": company.finance_team, "workload_kind": "Job",
        "workload_name": name, "gpus": 2, "flavour": world.flavour, "idle_since": NOW - 5 * HOUR, "noticed_at": NOW,
        "stop_at": NOW + HOUR, "policy": IdlePolicy(enabled=True).plain(),
        "evidence": {"hours": [{"hour": START.isoformat(), "allocated_gpu_ms": 3_600_000, "used_gpu_ms": 360}]},
    }  # fmt: skip
    return IdleCase.objects.create(**(values | extra))


def text(response: Any, status: int = 200) -> str:
    """The page in one line."""
    assert response.status_code == status, response.status_code
    return " ".join(response.content.decode().split())


def url(name: str, row: Finding | IdleCase) -> str:
    """The address of a page about a row."""
    kwarg = "finding_uid" if isinstance(row, Finding) else "case_uid"
    return reverse(f"insights:{name}", kwargs={kwarg: row.uid})


@pytest.mark.requirement("insights-2.3")
def test_every_number_leads_to_where_it_can_be_checked(hoarded: Finding, company: Company) -> None:
    """Numbers, chart with its table, and the day that the peak was on."""
    page = text(client_for(company.lead_finance).get(url("finding-detail", hoarded)))
    assert "Most in use at once" in page
    assert f"/costs/teams/finance/{START.date().isoformat()}/" in page
    assert 'id="finding-table"' in page
    assert "Give 12 back" in page
    assert "20,351.10 USD" in page  # 16 × 336 h, less 90 in use: 5,286 GPU-hours at 3.85
    member = text(client_for(company.member_finance).get(url("finding-detail", hoarded)))
    assert "give-back" not in member


@pytest.mark.requirement("insights-2.5")
def test_giving_back_shows_what_changes_and_who_approves(hoarded: Finding, company: Company) -> None:
    """One page, one click; the request is linked from the finding afterwards."""
    client = client_for(company.lead_finance)
    page = text(client.get(url("finding-give-back", hoarded)))
    assert '<td class="figure">16</td><td class="figure">4</td>' in page
    assert "Small change within room" in page
    assert "Nothing is held at that time" not in page
    assert "-33,726.00 USD" in page or "−33,726.00 USD" in page
    done = client.post(url("finding-give-back", hoarded), {"version": hoarded.version})
    hoarded.refresh_from_db()
    assert hoarded.request is not None
    assert done["Location"] == reverse("quotas:request-detail", kwargs={"request_uid": hoarded.request.uid})
    assert "Given back" in text(client.get(url("finding-detail", hoarded)))
    text(client.get(url("finding-give-back", hoarded)), 409)


@pytest.mark.requirement("insights-2.6")
def test_snooze_and_dismiss_by_form(hoarded: Finding, company: Company) -> None:
    """Wrong input stands beside its field; a stale form is told so."""
    client = client_for(company.lead_finance)
    wrong = client.post(url("finding-snooze", hoarded), {"until": "2027-11-18T09:00", "reason": WHY})
    assert "within the next 90 days" in text(wrong, 400)
    stale = client.post(url("finding-dismiss", hoarded), {"reason": WHY, "version": hoarded.version + 5})
    assert stale.status_code == 409
    done = client.post(url("finding-dismiss", hoarded), {"reason": WHY, "version": hoarded.version})
    assert done.status_code == 303
    hoarded.refresh_from_db()
    assert hoarded.status == FindingStatus.DISMISSED


@pytest.mark.requirement("insights-2.9")
def test_the_list_its_filters_and_its_export(world: World, company: Company) -> None:
    """A thousand rows in a bounded number of queries; closed ones only where asked for."""
    many(world, company, 300)
    Finding.objects.filter(key="k7").update(status=FindingStatus.GONE)
    client = client_for(company.vp)
    with assert_queries(20):
        page = text(client.get(reverse("insights:finding-list")))
    assert "1–50 of 299" in page
    assert "1–1 of 1" in text(client.get(reverse("insights:finding-list") + "?status=gone"))
    with assert_queries(20):
        export = client.get(reverse("insights:finding-list") + "?export=csv")
        rows = list(csv.reader(io.StringIO(b"".join(export.streaming_content).decode("utf-8-sig"))))
    assert len(rows) == 300
    assert "finding 299" in rows[1][0]
    with assert_queries(15):
        answer = client.get("/api/v1/findings")
    assert len(answer.json()["results"]) == 50
    assert "No findings" in text(client_for(company.lead_marketing).get(reverse("insights:finding-list")))


@pytest.mark.requirement("insights-2.9")
def test_panels_sum_up(hoarded: Finding, world: World, company: Company) -> None:
    """At home, on the team's, the unit's and the workspace's pages."""
    case_of(world, company)
    lead = client_for(company.lead_finance)
    home = text(lead.get("/"))
    assert "1 finding: 12 GPUs, 33,726 USD a month unused" in home
    assert "notebook" in home
    assert "1 finding: 12 GPUs" in text(lead.get(reverse("reports:team", kwargs={"team_slug": "finance"})))
    unit = text(client_for(company.vp).get(reverse("reports:unit", kwargs={"unit_slug": company.unit.slug})))
    assert "1 finding: 12 GPUs" in unit
    place = world.workspaces["finance"]
    page = text(lead.get(reverse("quotas:workspace-detail", kwargs={"workspace_uid": place.uid})))
    assert "Idle work is left alone." in page
    assert "notebook" in page
    assert "finding" not in text(client_for(company.lead_marketing).get("/")).split("<main")[1]


@pytest.mark.requirement("insights-3.5")
def test_the_owner_answers_on_one_page(world: World, company: Company) -> None:
    """When it stops, by which policy, on which hours; then the answer."""
    case = case_of(world, company)
    client = client_for(company.lead_finance)
    with assert_queries(20):
        page = text(client.get(url("idle-detail", case)))
    assert "Without an answer it is stopped" in page
    assert "GPU use below 5 % for 4 h" in page
    assert "0.0001" in page
    assert "Stop it now" not in text(client_for(company.member_finance).get(url("idle-detail", case)))
    wrong = client.post(url("idle-keep", case), {"until": "2027-01-01T00:00", "reason": WHY})
    assert "within the next 14 days" in text(wrong, 400)
    kept = client.post(url("idle-keep", case), {"until": "2026-11-18T20:00", "reason": WHY, "version": case.version})
    assert kept.status_code == 303
    assert "Kept until" in text(client.get(url("idle-detail", case)))
    assert client.post(url("idle-stop", case)).status_code == 303
    case.refresh_from_db()
    assert case.status == IdleStatus.STOPPING
    order = StopOrder.objects.get()
    stop = text(client.get(reverse("provisioning:stop-detail", kwargs={"stop_uid": order.uid})))
    assert "Start it again" in stop
    assert client.post(url("idle-start", case)).status_code == 303
    order.refresh_from_db()
    assert order.status == "undoing"
    text(client.get(url("idle-keep", case)), 409)


@pytest.mark.requirement("insights-3.9")
def test_what_was_saved_is_shown_in_money(world: World, company: Company) -> None:
    """With the rule by which it is counted."""
    case = case_of(
        world, company, status=IdleStatus.RESUMED, stopped_at=NOW - 10 * HOUR, counted_until=NOW,
        saved_gpu_ms=20 * 3_600_000, ended_at=NOW,
    )  # fmt: skip
    page = text(client_for(company.lead_finance).get(url("idle-detail", case)))
    assert "77.00 USD" in page
    assert "at most 30 days" in page


@pytest.mark.requirement("insights-2.9")
def test_the_api_answers_and_decides(hoarded: Finding, world: World, company: Company) -> None:
    """The same actions as the pages, with If-Match."""
    case = case_of(world, company)
    client = client_for(company.lead_finance)
    shown = client.get(f"/api/v1/findings/{hoarded.uid}")
    assert shown.json()["proposal"]["give_back"] == 12
    path = f"/api/v1/findings/{hoarded.uid}/dismiss"
    body = {"reason": WHY}
    assert client.post(path, body, content_type="application/json").status_code == 428
    done = client.post(path, body, content_type="application/json", headers={"If-Match": shown["ETag"]})
    assert (done.status_code, done.json()["status"]) == (200, "dismissed")
    until = (clock.now() + timedelta(hours=3)).isoformat()
    kept = client.post(
        f"/api/v1/idle-workloads/{case.uid}/keep", {"until": until, "reason": WHY}, content_type="application/json",
        headers={"If-Match": f'"{case.version}"'},
    )  # fmt: skip
    assert (kept.status_code, kept.json()["status"]) == (200, "kept")
    for i in range(60):
        case_of(world, company, name=f"n{i}")
    with assert_queries(15):
        assert client.get("/api/v1/idle-workloads").status_code == 200
    with assert_queries(20):
        assert "of 61" in text(client.get(reverse("insights:idle-list")))


@pytest.mark.requirement("insights-2.8")
def test_lost_capacity_has_a_page_for_the_platform(world: World, company: Company) -> None:
    """With the pool, and when and by how much."""
    guarantee(world, "finance", 60)
    findings.find_all()
    found = Finding.objects.get(kind=FindingKind.CAPACITY_LOST)
    page = text(client_for(company.admin).get(url("finding-detail", found)))
    assert "10 GPUs more promised than there are, now" in page
    assert reverse("quotas:pool-detail", kwargs={"pool_uid": world.pool.uid}) in page
    assert client_for(company.lead_finance).get(url("finding-detail", found)).status_code == 404


@pytest.mark.requirement("insights-2.4")
def test_an_admin_asks_for_another_look(
    world: World, company: Company, nudges: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    """The worker is asked; nobody else may."""
    with django_capture_on_commit_callbacks(execute=True):
        assert client_for(company.admin).post(reverse("insights:look")).status_code == 303
    assert ("insights.look_again", ()) in nudges
    assert client_for(company.lead_finance).post(reverse("insights:look")).status_code == 403


def test_answers_need_their_permission(world: World, company: Company) -> None:
    """A member reads; the action itself refuses, too."""
    case = case_of(world, company)
    assert client_for(company.member_finance).post(url("idle-stop", case)).status_code == 403
    with pytest.raises(Exception, match="leads"):
        idle_actions.stop_now(case.pk, actor=Actor.of(company.member_finance))


@pytest.mark.requirement("monthly-report-2.6")
def test_workloads_are_filtered_by_named_fields(world: World, company: Company) -> None:
    shown = client_for(company.vp).get(reverse("insights:workload-list")).content.decode()
    assert "[invalid name]" not in shown
    assert 'type="month"' in shown
    assert "---------" not in shown


@pytest.mark.requirement("monthly-report-2.6")
def test_looking_now_makes_the_workloads_that_reports_show(world: World, company: Company) -> None:
    ingest(world, [hold("a", "finance-prod", START, START + 30 * HOUR, 3, used=0.5)])
    tasks.look_again()
    assert WorkloadMonth.objects.filter(workload_name="a").exists()
