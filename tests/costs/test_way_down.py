"""The way down: CPU, memory, storage and egress to the fact; unallocated capacity to the lines of an hour."""

from __future__ import annotations

import csv
import io
import re
import uuid
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from random import Random
from typing import Any
from urllib.parse import urljoin

import pytest
from django.urls import reverse

from apps.audit.models import AuditEvent
from apps.core import clock
from apps.core.actor import Actor
from apps.core.money import MILLISECONDS_PER_HOUR
from apps.core.testing import assert_queries
from apps.costs import capacity_money, periods, resource_drill, running, selectors, spare_drill
from apps.costs.choices import RESOURCES, UNALLOCATED
from apps.costs.models import Budget, Charge, DayCharge, Period, RunningMonth, RunningStatement, StatementLine
from apps.costs.report_figures import reach_of
from apps.costs.reporting import month_report
from apps.costs.resource_drill import Workload
from apps.costs.spare_drill import EVERYTHING, FOREIGN, Choice
from apps.costs.statement_rows import preview
from apps.costs.statement_views import behind, links_of
from apps.costs.tally import total_of
from apps.metering import actions, capacity_hour
from apps.metering.models import CapacityLine, HourStatus, ResourceFact
from apps.metering.sources.base import ResourceHold, about, ms
from apps.rates.models import Rate
from tests.factories import client_for
from tests.metering.world import MODEL, SINCE, FakeAdapter, World, add_rate, guarantee, hold, make_world, utc

HOUR = timedelta(hours=1)
NOW = utc(2026, 11, 18, 9)
DAY = utc(2026, 11, 10)
MONTH = DAY.date().replace(day=1)


def price(world: World, resource: str, amount: str) -> Rate:
    """Add a price of a resource, as an old card would have."""
    return Rate.objects.create(
        card=world.card, cluster=world.cluster, flavour=None, resource=resource, amount=Decimal(amount),
        currency="USD", valid=(SINCE, None),
    )  # fmt: skip


def used(hour: int, resource: str, namespace: str, name: str, quantity_ms: int, pod: str = "", **extra: Any) -> Any:
    """What a pod had of a resource in an hour of the day."""
    return ResourceHold(ms(DAY + hour * HOUR), resource, pod or f"uid-{name}", namespace, name, quantity_ms, **extra)


def read(world: World, hours: int, holdings: list[Any], resources: list[Any], start: Any = DAY) -> None:
    """Meter and price."""
    adapter = FakeAdapter(holdings, resources=resources)
    actions.ingest_hours(world.source.pk, start, start + hours * HOUR, actor=Actor.system("test"), adapter=adapter)


@pytest.fixture
def world(company: Any) -> Iterator[World]:
    """Two days on one cluster: three teams, prices that leave odd cents, reservations that are not all used."""
    with clock.frozen(NOW):
        made = make_world(company.teams.values(), gpus=10, rate="3.851")
        for resource, amount in (("cpu", "0.0317"), ("memory", "0.0043"), ("egress", "0.0871")):
            price(made, resource, amount)
        guarantee(made, "finance", 3)
        guarantee(made, "marketing", 4)
        holdings = [
            hold("fraud-model", "finance-prod", DAY, DAY + 30 * HOUR, 2, used=0.5),
            hold("ad-ranking", "marketing-prod", DAY + 3 * HOUR, DAY + 9 * HOUR, 1),
        ]
        resources = [
            used(hour, resource, "finance-prod", "fraud-model", 3_600_000 * 7 // 3 + hour, pod=f"pod-{pod}", node="n1",
                 requested_ms=3_600_000, used_ms=None)
            for hour in range(30) for resource in ("cpu", "memory") for pod in range(2)
        ]  # fmt: skip
        resources += [used(4, "egress", "finance-prod", "fraud-model", 123_457, pod="pod-0")]
        resources += [used(4, "storage", "finance-prod", "data", 3_600_000_000)]  # without a price: no cost
        resources += [used(4, "cpu", "marketing-prod", "ad-ranking", 5_000_001)]
        read(made, 48, holdings, resources)
        yield made


def get(user: Any, name: str, query: str = "", **kwargs: Any) -> Any:
    return client_for(user).get(reverse(name, kwargs=kwargs) + query)


def text(response: Any) -> str:
    assert response.status_code == 200, response.status_code
    return " ".join(response.content.decode().split())


def exported(response: Any) -> list[dict[str, str]]:
    assert response.status_code == 200, response.status_code
    return list(csv.DictReader(io.StringIO(b"".join(response.streaming_content).decode("utf-8-sig"))))


_QUERY = "?cluster=dc1&namespace=finance-prod&name=fraud-model"


# ---------------------------------------------------------------- CPU, memory, storage, egress


@pytest.mark.requirement("drill-down-1.1", "drill-down-1.2", "drill-down-1.5")
def test_resources_open_by_hour_and_fact_down_to_rate_and_query(world: World, company: Any) -> None:
    lead = company.lead_finance
    day = {"team_slug": "finance", "day": "2026-11-10"}
    where = reverse("costs:resource-day", kwargs=day)
    page = text(get(lead, "costs:team-month", team_slug="finance", month="2026-11"))
    assert "Other resources in it" in page
    assert f"{where}?cluster=dc1&amp;namespace=finance-prod&amp;name=fraud-model" in text(
        get(lead, "costs:team-day", **day)
    )
    page = text(get(lead, "costs:resource-day", _QUERY, **day))
    assert page.count("core-hours") + page.count("GiB-hours") == 48  # and an hour of egress, in GiB
    # Two pods in an hour: the line opens the single facts, each fact its page.
    single = f"{_QUERY}&resource=cpu&hour=2026-11-10T04"
    facts = ResourceFact.objects.filter(resource="cpu", workload_name="fraud-model", hour=DAY + 4 * HOUR)
    page = text(get(lead, "costs:resource-day", single, **day))
    assert facts.count() == 2
    addresses = [
        reverse("costs:resource-fact", kwargs={"hour": "2026-11-10T04", "fact_uid": fact.uid}) for fact in facts
    ]
    assert all(address in page for address in addresses)
    page = text(client_for(lead).get(addresses[0]))
    assert "8,400,004 milliseconds × units" in page
    assert "unknown: nothing was measured" in page
    assert "0.0317" in page
    assert "/rates/cards/" in page
    assert "SHA-256" in page
    assert "http://source.example" in page
    # 8,400,004 × 0.0317 ÷ 3,600,000
    exact = (Decimal(8_400_004) * Decimal("0.0317") / MILLISECONDS_PER_HOUR).quantize(Decimal("1e-12"))
    assert f"{exact.normalize()} USD" in page
    assert "fraud-model: other resources" in page  # the way back
    [egress] = ResourceFact.objects.filter(resource="egress")
    assert reverse("costs:resource-fact", kwargs={"hour": "2026-11-10T04", "fact_uid": egress.uid}) in text(
        get(lead, "costs:resource-day", _QUERY, **day)
    ).replace("&amp;", "&")


@pytest.mark.requirement("drill-down-1.3")
def test_what_is_not_there_or_foreign_is_not_found(world: World, company: Any) -> None:
    day = {"team_slug": "finance", "day": "2026-11-10"}
    fact = ResourceFact.objects.filter(workload_name="fraud-model").earliest("hour", "uid")
    address: dict[str, Any] = {"hour": f"{fact.hour:%Y-%m-%dT%H}", "fact_uid": fact.uid}
    for user in (company.lead_marketing, company.vp_other):
        assert get(user, "costs:resource-fact", **address).status_code == 404
        assert get(user, "costs:resource-day", _QUERY, **day).status_code == 404
    lead = company.lead_finance
    assert get(lead, "costs:resource-fact", **address).status_code == 200
    for wrong in ({"hour": "2026-11-10T05"}, {"hour": "yesterday"}, {"fact_uid": uuid.uuid4()}):
        assert get(lead, "costs:resource-fact", **{**address, **wrong}).status_code == 404, wrong
    assert get(lead, "costs:resource-day", "?cluster=dc1", **day).status_code == 400
    for query in (
        "?cluster=dc1&namespace=finance-prod&name=data",  # has no price: nothing is charged
        "?cluster=dc1&namespace=marketing-prod&name=ad-ranking",
        f"{_QUERY}&resource=storage&hour=2026-11-10T04",
        f"{_QUERY}&resource=cpu&hour=2026-11-12T04",
        f"{_QUERY}&page=9",
    ):
        assert get(lead, "costs:resource-day", query, **day).status_code == 404, query
    assert get(lead, "costs:resource-day", f"{_QUERY}&resource=gpu&hour=2026-11-10T04", **day).status_code == 400
    # A fact of a resource that the cluster has no price for is there, and says so.
    data = ResourceFact.objects.filter(resource="storage").get()
    page = text(get(lead, "costs:resource-fact", hour=f"{data.hour:%Y-%m-%dT%H}", fact_uid=data.uid))
    assert "Not charged for" in page


@pytest.mark.requirement("drill-down-1.4", "drill-down-3.2")
def test_every_page_is_a_file_within_its_ceiling(world: World, company: Any) -> None:
    lead = company.lead_finance
    day = {"team_slug": "finance", "day": "2026-11-10"}
    fact = ResourceFact.objects.filter(resource="cpu", hour=DAY + 4 * HOUR, namespace="finance-prod").earliest("uid")
    pages: list[tuple[str, str, dict[str, Any], int]] = [
        ("costs:resource-day", _QUERY, day, 49),
        ("costs:resource-day", f"{_QUERY}&resource=cpu&hour=2026-11-10T04", day, 2),
        ("costs:resource-fact", "", {"hour": "2026-11-10T04", "fact_uid": fact.uid}, 2),
        ("costs:unallocated-month", "", {"month": "2026-11"}, 5),
        ("costs:unallocated-day", "", {"day": "2026-11-10"}, 3),
        ("costs:unallocated-hours", f"?cluster=dc1&model={MODEL}&kind=unsold", {"day": "2026-11-10"}, 24),
        ("costs:capacity-hour", f"?model={MODEL}", {"cluster_slug": "dc1", "hour": "2026-11-10T04"}, 6),
    ]
    for name, query, address, rows in pages:
        with assert_queries(20):
            text(get(lead, name, query, **address))
        found = exported(get(lead, name, f"{query}&export=csv" if query else "?export=csv", **address))
        assert len(found) == rows, (name, found)
        assert get(lead, name, f"{query}&export=pdf" if query else "?export=pdf", **address).status_code == 400
    assert AuditEvent.objects.filter(action="costs.drilldown.exported").count() == len(pages)
    [charge, source] = exported(
        get(lead, "costs:resource-fact", "?export=csv", hour="2026-11-10T04", fact_uid=fact.uid)
    )
    product = Decimal(charge["quantity_ms"]) * Decimal(charge["rate"]) / MILLISECONDS_PER_HOUR
    assert Decimal(charge["cost_exact"]) == product.quantize(Decimal("1e-12"))
    assert len(source["sha256"]) == 64


def _down(world: World, team: Any, user: Any) -> int:
    """Compare every level below a team's month with the one above; returns how many facts were reached."""
    facts = 0
    days = selectors.team_month_days(team, MONTH, user)
    for line in days:
        rows = selectors.day_workloads(team, line.day, user, total=line.amount)
        assert total_of(row.amount for row in rows) == line.amount
        for row in rows:
            key: dict[str, Any] = {
                "workload_name": row.workload_name, "cluster_id": row.cluster_id, "namespace": row.namespace,
            }  # fmt: skip
            figure = selectors.workload_figure(team, line.day, user, resources=row.resources, **key)
            assert figure == row.amount
            if not row.resources:
                hours = selectors.workload_hours(team, line.day, user, total=figure, **key)
                assert total_of(one.amount for one in hours) == row.amount
                continue
            workload = Workload(row.cluster_id, row.namespace, row.workload_name)
            lines = resource_drill.resource_hours(team, line.day, user, workload, total=figure)
            assert total_of(one.amount for one in lines) == row.amount
            for one in lines:
                found = resource_drill.resource_facts(team, one.hour, one.resource, user, workload, total=one.amount)
                assert (len(found), total_of(each.amount for each in found)) == (one.facts, one.amount)
                for each in found:
                    detail = resource_drill.resource_detail(each.hour, each.fact_uid, user)
                    exact = total_of(charge.exact for charge in detail.charges)
                    assert exact is not None
                    assert each.amount is not None
                    # What the levels show is the exact cost rounded up or down, never another figure.
                    assert abs(exact.amount - each.amount.amount) < Decimal("0.01")
                    facts += 1
    return facts


@pytest.mark.requirement("drill-down-3.1", "costs-2.3")
@pytest.mark.parametrize("seed", range(3))
def test_every_level_is_the_sum_of_the_one_below_in_random_worlds(company: Any, seed: int) -> None:
    random = Random(seed)
    with clock.frozen(NOW):
        world = make_world(company.teams.values(), gpus=random.randint(4, 12), rate=f"{random.uniform(0.1, 9):.6f}")
        for resource in RESOURCES:
            if random.random() < 0.8:
                price(world, resource, f"{random.uniform(0.0001, 2):.6f}")
        if random.random() < 0.5:  # a price that changes within an hour
            changed = DAY + timedelta(hours=5, minutes=random.randint(1, 59))
            Rate.objects.filter(resource="", card=world.card).update(valid=(SINCE, changed))
            add_rate(world.card, world.flavour, f"{random.uniform(0.1, 9):.6f}", changed)
        for slug in random.sample(sorted(world.workspaces), 2):
            guarantee(world, slug, random.randint(1, 3))
        holdings, resources = [], []
        for slug in (*sorted(world.workspaces), "nobody"):
            for number in range(1 if slug == "nobody" else 2):
                start = DAY + timedelta(minutes=random.randint(0, 300))
                end = start + timedelta(minutes=random.randint(1, 200))
                holdings.append(hold(f"{slug}-{number}", f"{slug}-prod", start, end, random.randint(1, 2)))
                for hour in range(start.hour, start.hour + 2):
                    for what in random.sample([str(kind) for kind in RESOURCES], 2):
                        for pod in range(random.randint(1, 3)):
                            amount = random.randint(1, 10 ** random.randint(1, 9))
                            resources.append(
                                used(hour, what, f"{slug}-prod", f"{slug}-{number}", amount, pod=f"{number}-{pod}")
                            )
        read(world, 9, holdings, resources)
        facts = sum(_down(world, team, company.finance) for team in company.teams.values())
        priced = Charge.objects.filter(kind__in=RESOURCES, team_id__isnull=False, rate_id__isnull=False)
        assert facts == priced.values("fact_uid").distinct().count()
        for user, unit in ((company.finance, None), (company.vp, company.unit), (company.lead_finance, None)):
            _spare_down(world, user, unit, random)


# ---------------------------------------------------------------- unallocated capacity


def _spare_down(world: World, user: Any, unit: Any, random: Random) -> None:
    """Compare every level below a report's unallocated capacity with the one above, for all and for every line."""
    reach = reach_of(unit, user)
    report = month_report(unit, MONTH, user)
    whole = spare_drill.spare_month(reach, MONTH)
    said = [(line.kind, line.address, line.label, line.gpu_ms, line.amount) for line in report.unallocated]
    assert [(one.key.kind, one.key.owner, one.key.label, one.gpu_ms, one.amount) for one in whole.lines] == said
    assert whole.total == report.unallocated_total
    chosen = random.sample([Choice(line.kind, line.address) for line in report.unallocated], 1)
    for choice in (EVERYTHING, Choice(random.choice(UNALLOCATED)), *chosen):
        found = spare_drill.spare_month(reach, MONTH, choice)
        assert total_of(day.amount for day in found.days) == found.total
        for day in found.days:
            above, lines = spare_drill.spare_day(reach, day.at, choice)
            assert above == day
            assert total_of(line.amount for line in lines) == day.amount
            assert sum(line.gpu_ms for line in lines) == day.gpu_ms
            for line in lines:
                assert line.cluster is not None
                key = Choice(line.key.kind, line.key.owner)
                same, hours = spare_drill.spare_hours(reach, day.at, key, line.cluster, line.gpu_model, within=choice)
                assert same == line
                assert total_of(one.amount for one in hours) == line.amount
                assert sum(one.gpu_ms for one in hours) == line.gpu_ms
                for one in random.sample(hours, 1):
                    view = capacity_money.hour_view(line.cluster, line.gpu_model, one.at, user)
                    assert view.hour.physical == view.hour.total
                    assert sum(x.gpu_ms for x in view.lines if x.kind != "physical") == view.hour.physical
                    assert view.hour.follows


@pytest.mark.requirement("drill-down-2.1", "drill-down-2.2", "drill-down-2.3")
def test_unallocated_opens_down_to_the_lines_of_an_hour(world: World, company: Any) -> None:
    vp = client_for(company.vp)
    path = "/reports/monthly/retail-bank/2026-11/"
    for pattern in (
        r'href="(/costs/unallocated/2026-11/\?unit=retail-bank&amp;kind=unsold)"',
        r'href="(/costs/unallocated/2026-11-10/[^"]*)"',
        r'href="(/costs/unallocated/2026-11-10/hours/[^"]*kind=unsold[^"]*)"',
        r'href="(/costs/capacity/dc1/2026-11-10T04/[^"]*)"',
    ):
        found = re.search(pattern, text(vp.get(path)))
        assert found, (path, pattern)
        path = found[1].replace("&amp;", "&")
    page = text(vp.get(path))
    # 10 GPUs: 2 + 1 held, 1 of 3 and 3 of 4 guaranteed unused, 3 unsold.
    assert "36,000,000 GPU-milliseconds on the lines = 36,000,000 GPU-milliseconds" in page
    lines = {"Allocated to teams": 3, "Finance, production": 1, "Marketing, production": 3, "Unsold": 3}
    for line, gpu_ms in lines.items():
        assert re.search(rf"{line}</th><td class=\"figure\">{gpu_ms * 3_600_000:,}</td>", page), line
    assert "10,800,000 × 3.851" in page
    assert "11.553 USD" in page
    assert "equal to physical" in page
    assert "SHA-256" in page
    assert "Unallocated in November 2026" in page  # the way back
    assert '"pod": "train-0"' not in page  # answers speak of others, too


@pytest.mark.requirement("drill-down-2.4")
def test_other_owners_stand_under_one_name(world: World, company: Any) -> None:
    guarantee(world, "research", 1, DAY)
    read(world, 48, [hold("fraud-model", "finance-prod", DAY, DAY + 30 * HOUR, 2)], [])
    lead = company.lead_finance
    where = {"cluster_slug": "dc1", "hour": "2026-11-10T04"}
    page = text(get(lead, "costs:capacity-hour", f"?model={MODEL}", **where))
    assert "Finance, production" in page
    assert "Other owners" in page
    for foreign in ("Marketing", "Research"):
        assert foreign not in page
    # 4 and 1 guaranteed, nothing of it held.
    assert re.search(r"Other owners</th><td class=\"figure\">18,000,000</td><td class=\"figure\">0</td>", page)
    # What each of the others has left unused is not told, on the page or in its file: one charge by rate.
    assert "18,000,000 × 3.851" in page
    assert "14,400,000 × 3.851" not in page
    file = exported(get(lead, "costs:capacity-hour", f"?model={MODEL}&export=csv", **where))
    assert [row["quantity_ms"] for row in file if row["line"].endswith("Other owners")] == ["18000000"]
    physical = r"the sum of the others</td><td class=\"figure\">([^<]*)</td>"
    assert re.findall(physical, page) == [""]  # what is told is not the sum of all
    assert (
        "USD" in re.findall(physical, text(get(company.finance, "costs:capacity-hour", f"?model={MODEL}", **where)))[0]
    )
    assert "of other teams, too" in page  # what the allocated time of others costs is theirs
    month = text(get(lead, "costs:unallocated-month", month="2026-11"))
    assert "Other owners" in month
    assert "Marketing" not in month
    # Finance sees every owner by name.
    page = text(get(company.finance, "costs:capacity-hour", f"?model={MODEL}", **where))
    assert "Marketing, production" in page
    # Who has nothing on the cluster in the month, sees nothing of it.
    assert get(company.vp_other, "costs:capacity-hour", f"?model={MODEL}", **where).status_code == 404
    assert "Nothing was left unallocated" in text(get(company.vp_other, "costs:unallocated-month", month="2026-11"))
    hidden = get(company.vp_other, "costs:unallocated-month", "?unit=retail-bank", month="2026-11")
    assert hidden.status_code == 404
    asked = f"?cluster=dc1&model={MODEL}&kind=unsold"
    assert get(company.vp_other, "costs:unallocated-hours", asked, day="2026-11-10").status_code == 404
    assert get(lead, "costs:unallocated-month", "?kind=lost", month="2026-11").status_code == 400
    assert get(lead, "costs:unallocated-hours", "?kind=unsold", day="2026-11-10").status_code == 400
    assert get(lead, "costs:unallocated-hours", f"{asked}&within=x", day="2026-11-10").status_code == 400
    reserved = f"?cluster=dc1&model={MODEL}&kind=reserved_unused"
    assert get(lead, "costs:unallocated-hours", f"{reserved}&owner=marketing", day="2026-11-10").status_code == 404
    assert get(lead, "costs:unallocated-hours", f"{reserved}&owner={FOREIGN}", day="2026-11-10").status_code == 200


@pytest.mark.requirement("drill-down-2.5")
def test_hours_without_lines_are_unknown_and_unpriced_ones_say_so(world: World, company: Any) -> None:
    lead = company.lead_finance
    page = text(get(lead, "costs:capacity-hour", f"?model={MODEL}", cluster_slug="dc1", hour="2026-11-16T04"))
    assert "unknown, not zero" in page
    assert get(lead, "costs:capacity-hour", cluster_slug="nowhere", hour="2026-11-10T04").status_code == 404
    assert get(lead, "costs:capacity-hour", cluster_slug="dc1", hour="2026-11-10").status_code == 404
    for year in ("0001", "9999"):  # calendars end there: there is no month, day or hour beside it
        for hour in (f"{year}-01-01T00", f"{year}-12-31T23"):
            where = {"cluster_slug": "dc1", "hour": hour}
            assert get(company.finance, "costs:capacity-hour", f"?model={MODEL}", **where).status_code == 404
            assert get(company.finance, "costs:unallocated-day", day=hour[:10]).status_code == 404
            assert get(company.finance, "costs:unallocated-month", month=hour[:7]).status_code == 404
            assert get(lead, "costs:resource-day", _QUERY, team_slug="finance", day=hour[:10]).status_code == 404
    assert "Nothing was left unallocated" in text(get(lead, "costs:unallocated-day", day="2026-11-16"))
    Charge.objects.filter(kind="unsold").update(rate_id=None)
    DayCharge.objects.filter(kind="unsold").update(rate=None)
    assert "unknown" in text(get(lead, "costs:unallocated-month", "?kind=unsold", month="2026-11"))
    page = text(get(lead, "costs:capacity-hour", f"?model={MODEL}", cluster_slug="dc1", hour="2026-11-10T04"))
    assert "no rate was in force" in page


@pytest.mark.requirement("drill-down-2.6")
def test_an_hour_names_the_reading_that_its_lines_came_from(world: World, company: Any) -> None:
    hour = DAY + 40 * HOUR  # nothing is held: no fact names a proof
    status = HourStatus.objects.get(cluster_id=world.cluster.pk, hour=hour)
    found = capacity_hour.capacity_hour(world.cluster.pk, MODEL, hour)
    first = capacity_hour.proof_of_hour(found, [])
    assert first is not None
    assert first.proof.pk == status.proof_id
    read(world, 1, [], [], start=hour)  # the same again: nothing new is kept
    status.refresh_from_db()
    assert status.proof_id == first.proof.pk
    read(world, 1, [hold("late", "finance-prod", hour, hour + HOUR, 1)], [], start=hour)
    again = capacity_hour.proof_of_hour(capacity_hour.capacity_hour(world.cluster.pk, MODEL, hour), [])
    assert again is not None
    assert again.proof.pk != first.proof.pk
    # Hours written before hours named their proof have that of their facts.
    HourStatus.objects.filter(hour=hour).update(proof_id=None)
    same = capacity_hour.proof_of_hour(capacity_hour.capacity_hour(world.cluster.pk, MODEL, hour), [])
    assert same is not None
    assert same.proof.pk == again.proof.pk


@pytest.mark.requirement("drill-down-2.3")
def test_a_quota_that_was_changed_afterwards_is_said(world: World, company: Any) -> None:
    guarantee(world, "research", 2, DAY)
    where = {"cluster_slug": "dc1", "hour": "2026-11-10T04"}
    page = text(get(company.finance, "costs:capacity-hour", f"?model={MODEL}", **where))
    assert "Quotas of this hour were changed afterwards" in page
    assert CapacityLine.objects.filter(hour=DAY + 4 * HOUR, kind="unsold").get().gpu_ms == 3 * 3_600_000


# ---------------------------------------------------------------- proofs say nothing of others


@pytest.mark.requirement("drill-down-1.6")
@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (
            b'{"data":{"result":[{"metric":{"pod":"ours","ns":"a"},"values":[[1,"2"]]},'
            b'{"metric":{"pod":"theirs"},"values":[[1,"9"]]}]}}',
            '{"metric":{"pod":"ours","ns":"a"},"values":[[1,"2"]]}',
        ),
        (
            b'{"data":[{"c/ours":{"name":"c/ours","properties":{"pod":"ours"},"gpuCost":1},"c/theirs":{"gpuCost":2}}]}',
            '{"name":"c/ours","properties":{"pod":"ours"},"gpuCost":1}',
        ),
        (b'{"ours":{"gpuCost":1},"theirs":{"gpuCost":2}}', ""),
        (b'{"pod":"ours-2"}', ""),
        (b'["ours","theirs"]', ""),
        (b"", ""),
    ],
)
def test_an_excerpt_speaks_of_one_workload_alone(response: bytes, expected: str) -> None:
    assert about(response, "ours") == expected
    assert "theirs" not in about(response, "ours")


@pytest.mark.requirement("drill-down-1.6")
def test_an_excerpt_is_not_of_a_namesake_in_another_namespace() -> None:
    both = (
        b'{"result":[{"metric":{"namespace":"theirs","pod":"train-0"},"value":[1,"9"]},'
        b'{"metric":{"namespace":"ours","pod":"train-0"},"value":[1,"2"]}]}'
    )
    assert about(both, "train-0", beside="ours") == '{"metric":{"namespace":"ours","pod":"train-0"},"value":[1,"2"]}'
    assert about(both, "train-0", beside="elsewhere") == ""


# ---------------------------------------------------------------- every total by links alone


_FOUND = (
    r'href="(/costs/facts/[0-9a-f-]{36}/|/costs/facts/\d{4}-\d{2}-\d{2}T\d{2}/[0-9a-f-]{36}/|/costs/capacity/[^"]+)"'
)


def walk(user: Any, path: str, *patterns: str) -> str:
    """Follow links, each the first that fits; returns the text of the last page. Fails where there is none."""
    client = client_for(user)
    for pattern in (*patterns, _FOUND):
        page = text(client.get(path, follow=True))
        found = re.search(pattern, page)
        assert found, (path, pattern)
        path = urljoin(path, found[1].replace("&amp;", "&"))
    return text(client.get(path))


@pytest.mark.requirement("drill-down-4.1")
def test_from_charges_of_every_kind_to_a_query(world: World, company: Any) -> None:
    for kind in ("allocated", "cpu", "memory", "egress", "unsold", "reserved_unused"):
        page = walk(company.finance, f"/costs/charges/?month=2026-11&kind={kind}")
        assert "SHA-256" in page, kind
        assert "http://source.example" in page, kind
    # What a rate and a cluster are chosen by is what a statement's line adds up.
    rate = Rate.objects.get(resource="cpu")
    rows = exported(get(company.finance, "costs:charge-list", f"?month=2026-11&rate={rate.uid}&cluster=dc1&export=csv"))
    assert {row["Kind"] for row in rows} == {"CPU"}
    assert len(rows) == Charge.objects.filter(kind="cpu").count()
    none = exported(get(company.finance, "costs:charge-list", "?month=2026-11&cluster=nowhere&export=csv"))
    assert none == []


def _statements(month: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Freeze and, beside it, keep as running what the month's statements are; by owner."""
    periods.make_periods()
    period = Period.objects.get(month=month)
    sheets = preview(period).sheets
    RunningMonth.objects.get_or_create(period=period, defaults={"made_at": clock.now()})
    RunningStatement.objects.bulk_create(running.rows(sheets, clock.now()))
    Period.objects.filter(pk=period.pk).update(status="closing")  # in no other state are statements written
    for sheet in sheets:
        sheet.statement.save()
        for line in sheet.lines:
            line.statement = sheet.statement
        StatementLine.objects.bulk_create(sheet.lines)
    named = {sheet.statement.owner_name: sheet.statement for sheet in sheets}
    return named, {row.owner_name: row for row in RunningStatement.objects.all()}


@pytest.mark.requirement("drill-down-4.1")
def test_from_every_kind_of_total_to_a_query(world: World, company: Any) -> None:
    frozen, kept = _statements(MONTH)
    unit, vp, finance = "Retail Bank", company.vp, company.finance
    team_line = r'href="(/costs/charges/\?[^"]*kind=allocated[^"]*team=Finance[^"]*)"'
    spare_line = r'href="(/costs/charges/\?[^"]*kind=unsold[^"]*)"'
    day = r'href="(/costs/teams/finance/2026-11-10/)"'
    workload = r'href="(/costs/teams/finance/2026-11-10/workload/[^"]+)"'
    resources = r'href="(/costs/teams/finance/2026-11-10/resources/[^"]+)"'
    month = r'href="(/costs/teams/finance/2026-11/)"'
    statement = r'href="(/costs/statements/[0-9a-f-]{36}/)">[^<]*Finance'
    team_running = r'href="(/costs/periods/2026-11/running/[^"/]+/)">[^<]*Finance'
    budgets = [
        Budget.objects.create(month_from=MONTH, amount=Decimal(1000), currency="USD", **owner)
        for owner in ({"team": company.finance_team}, {"unit": company.unit})
    ]
    running_of = {name: f"/costs/periods/2026-11/running/{row.number}/" for name, row in kept.items()}
    ways: list[tuple[Any, str, tuple[str, ...]]] = [
        (vp, "/reports/monthly/retail-bank/2026-11/", (month, day, resources)),
        (company.lead_finance, "/costs/teams/finance/2026-11/", (day, workload)),
        (vp, f"/costs/statements/{frozen[unit].uid}/", (statement, team_line)),
        (finance, f"/costs/statements/{frozen['Platform'].uid}/", (spare_line,)),
        (vp, running_of[unit], (team_running, team_line)),
        (finance, running_of["Platform"], (spare_line,)),
        (vp, f"/costs/budgets/{budgets[0].uid}/", (month, day, resources)),
        (vp, f"/costs/budgets/{budgets[1].uid}/", (r'href="(/costs/charges/\?[^"]*)"',)),
        (finance, "/usage/capacity/?since=2026-11-10&until=2026-11-10", (r'href="(\?[^"]*grain=hour[^"]*)"',)),
    ]  # fmt: skip
    for user, path, patterns in ways:
        page = walk(user, path, *patterns)
        assert "SHA-256" in page, path
        assert "http://source.example" in page, path


@pytest.mark.requirement("drill-down-4.1")
def test_a_statements_line_opens_the_charges_that_it_adds_up(world: World, company: Any) -> None:
    frozen, _ = _statements(MONTH)
    compared = 0
    for statement in (frozen["Finance"], frozen["Platform"]):
        lines = list(StatementLine.objects.filter(statement=statement, sort="charge"))
        links = links_of(lines)
        for line in lines:
            rows = exported(client_for(company.finance).get(f"{behind(statement, line, links)}&export=csv"))
            found = sum(Decimal(row["Cost, exact"]) for row in rows)
            assert line.exact is not None
            assert abs(found - line.exact) <= len(rows) * Decimal("0.000001"), line.description
            compared += 1
    assert compared == 5  # GPU time, CPU, memory, egress; unsold
