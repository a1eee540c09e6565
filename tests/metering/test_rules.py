"""The table of resources: what a unit is of a GPU, from the current hour on, and in which order it counts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse

from apps.audit.models import AuditEvent
from apps.clusters.models import Flavour
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.metering import actions, context, engine, rules, selectors
from apps.metering.engine import HOUR_MS, Holding, Share, Span
from apps.metering.models import HourFact, HourStatus, ResourceRule
from apps.metering.sources.base import NodeReading, ms
from tests.factories import client_for
from tests.metering.world import MODEL, FakeAdapter, World, hold, utc

HOUR = timedelta(hours=1)
NOW = utc(2026, 11, 18, 9, 30)
THIS = utc(2026, 11, 18, 9)
START = utc(2026, 11, 18, 4)
SYSTEM = Actor.system("test")
ODD = "example.com/half"


@pytest.fixture(autouse=True)
def _now() -> Iterator[None]:
    with clock.frozen(NOW):
        yield


def holding(resource: str, *, model: str = MODEL, replicas: int = 1) -> Holding:
    name = engine.sanitised(resource)
    return Holding("k", "ns", "n", "Job", name, (Span(0, 1, 1),), gpu_model=model, replicas=replicas)


def share(world: World, resource: str, at: Any = THIS, **extra: Any) -> Share:
    books = context.load(world.cluster.pk, at, at + HOUR)
    return books.share_of(holding(resource, **extra), ms(at))


@pytest.mark.requirement("metering-facts-4.1")
def test_flavour_then_rule_then_name(world: World) -> None:
    rules.set_rule(ODD, 1, 2, actor=SYSTEM)
    rules.set_rule("nvidia.com/gpu", 1, 5, actor=SYSTEM)
    assert share(world, ODD) == Share(1, 2)
    assert share(world, "nvidia.com/gpu") == Share(1, 1)  # the pool's flavour says so
    assert share(world, "nvidia.com/gpu", model="Other-GPU") == Share(1, 5)
    assert share(world, "nvidia.com/mig-3g.99gb", model="Other-GPU") == Share(3, 7)
    rules.set_rule(ODD, 1, 4, gpu_model=MODEL, actor=SYSTEM)
    assert share(world, ODD) == Share(1, 4)  # the model's rule before every model's
    assert share(world, ODD, model="Other-GPU") == Share(1, 2)


@pytest.mark.requirement("metering-facts-4.1")
def test_the_first_table(db: Any) -> None:
    shares = {rule.resource: (rule.numerator, rule.denominator) for rule in ResourceRule.objects.all()}
    if not shares:
        pytest.skip("an earlier test of this process flushed the table that migrations seed")
    assert shares["nvidia.com/gpu"] == shares["amd.com/gpu"] == shares["gpu.intel.com/i915"] == (1, 1)
    assert shares["gpu.intel.com/xe"] == (1, 1)
    assert shares["nvidia.com/mig-3g.40gb"] == (3, 7)
    assert shares["nvidia.com/mig-2g.12gb"] == (2, 4)
    assert shares["nvidia.com/gpucores"] == (1, 100)
    for resource, pair in shares.items():
        if "mig-" in resource:
            model = "NVIDIA-A30" if pair[1] == 4 else "NVIDIA-H100"
            found = engine.default_share(resource, model)
            assert (found.numerator, found.denominator) == pair


@pytest.mark.requirement("metering-facts-4.2")
def test_a_change_counts_from_its_hour_on_and_never_back(world: World, company: Any) -> None:
    admin = Actor.of(company.admin)
    first = rules.set_rule(ODD, 1, 2, actor=admin)
    assert first.valid.lower == THIS
    with pytest.raises(Invalid) as past:
        rules.set_rule(ODD, 1, 3, actor=admin, valid_from=THIS - HOUR)
    assert "never back" in str(past.value.errors["valid_from"])
    later = rules.set_rule(ODD, 1, 3, actor=admin, valid_from=THIS + 5 * HOUR)
    between = rules.set_rule(ODD, 1, 4, actor=admin, valid_from=THIS + 2 * HOUR)
    assert between.valid.upper == later.valid.lower
    for hours, parts in ((0, 2), (1, 2), (2, 4), (4, 4), (5, 3), (50, 3)):
        assert share(world, ODD, THIS + hours * HOUR) == Share(1, parts)
    with pytest.raises(Invalid):
        rules.set_rule(ODD, 1, 7, actor=admin, valid_from=THIS + 5 * HOUR)
    rules.end_rule(later.pk, actor=admin, expected_version=later.version)
    assert share(world, ODD, THIS + 50 * HOUR) == Share(1, 1)
    with pytest.raises(Conflict):
        rules.end_rule(later.pk, actor=admin, expected_version=later.version - 1)
    assert AuditEvent.objects.filter(action="metering.rule.set").count() >= 4


@pytest.mark.requirement("metering-facts-4.2")
def test_only_platform_admins_and_only_shares_of_one_device(company: Any) -> None:
    for person in (company.lead_finance, company.finance, company.auditor, company.vp):
        with pytest.raises(NotAllowed):
            rules.set_rule(ODD, 1, 2, actor=Actor.of(person))
    for resource, top, bottom, field in (
        ("nvidia", 1, 1, "resource"),
        (ODD, 3, 2, "numerator"),
        (ODD, 0, 2, "numerator"),
        (ODD, 1, 0, "denominator"),
        (ODD, 1, 10_001, "denominator"),
    ):
        with pytest.raises(Invalid) as refused:
            rules.set_rule(resource, top, bottom, actor=Actor.of(company.admin))
        assert field in refused.value.errors


def meter(world: World, holdings: list[Holding], nodes: list[NodeReading]) -> None:
    actions.ingest_hours(world.source.pk, START, START + HOUR, actor=SYSTEM, adapter=FakeAdapter(holdings, nodes))


def node(gpus: int, **extra: Any) -> NodeReading:
    values = {"gpu_model": MODEL, **extra}
    return NodeReading("n1", spans=(Span(ms(START), ms(START + HOUR), gpus),), **values)


@pytest.mark.requirement("metering-facts-4.3")
def test_a_replica_is_its_share_and_empty_ones_are_unsold(world: World) -> None:
    # Eight devices in four parts each, told by the node; six parts are held.
    held = [
        hold(f"p{i}", "finance-prod", START, START + HOUR, 1, node="n1", replicas=4, gpu_model=f"{MODEL}-SHARED")
        for i in range(6)
    ]
    meter(world, held, [node(8, gpu_model=f"{MODEL}-SHARED")])
    lines = selectors.capacity_lines(world.cluster.pk, MODEL, START, START + HOUR)
    assert lines["attributed"] == 6 * HOUR_MS // 4
    assert lines["unsold"] == 8 * HOUR_MS - 6 * HOUR_MS // 4
    assert lines["physical"] == 8 * HOUR_MS
    fact = HourFact.objects.all()[0]
    # The pool's flavour is of whole devices: it does not describe a part of one, and has no price for it.
    assert (fact.flavour_id, "shared" in fact.flags, "no_flavour" in fact.flags) == (None, True, True)


@pytest.mark.requirement("metering-facts-4.3")
def test_a_flavour_of_the_part_goes_before_the_node(world: World) -> None:
    quarter = Flavour.objects.create(
        name="A100 quarter", slug="a100-quarter", gpu_model=MODEL, sharing="time_sliced", numerator=1, denominator=4
    )
    world.pool.flavours.add(quarter)
    held = [hold("p", "finance-prod", START, START + HOUR, 1, node="n1", replicas=4)]
    meter(world, held, [node(8)])
    fact = HourFact.objects.get()
    assert (fact.flavour_id, fact.allocated_gpu_ms, fact.allocated_unit_ms) == (quarter.pk, HOUR_MS // 4, HOUR_MS)


@pytest.mark.requirement("metering-facts-4.3")
def test_where_only_shared_flavours_are_offered_a_nodes_units_are_their_parts(world: World) -> None:
    world.flavour.numerator, world.flavour.denominator = 1, 4
    world.flavour.save()
    held = [hold("p", "finance-prod", START, START + HOUR, 3, node="n1")]
    meter(world, held, [node(32, resource="nvidia_com_gpu")])
    lines = selectors.capacity_lines(world.cluster.pk, MODEL, START, START + HOUR)
    assert lines["physical"] == 8 * HOUR_MS
    assert lines["attributed"] == 3 * HOUR_MS // 4
    assert HourStatus.objects.get().flags == []


@pytest.mark.requirement("metering-facts-4.2")
def test_pages_of_rules(world: World, company: Any) -> None:
    admin, lead = client_for(company.admin), client_for(company.lead_finance)
    form = {"resource": ODD, "gpu_model": "", "numerator": 1, "denominator": 2, "valid_from": "2026-11-18T09:00"}
    done = admin.post(reverse("metering:rule-create"), form)
    assert done.status_code == 303, done.content
    rule = ResourceRule.objects.get(resource=ODD)
    page = admin.get(reverse("metering:rule-list"), {"search": "half"}).content.decode()
    assert "1/2 of a GPU" in page
    assert reverse("metering:rule-end", args=[rule.uid]) in page
    shown = lead.get(reverse("metering:rule-list"), {"search": "half"}).content.decode()
    assert "1/2 of a GPU" in shown
    assert reverse("metering:rule-end", args=[rule.uid]) not in shown
    assert admin.post(reverse("metering:rule-create"), {**form, "valid_from": "2026-11-18T08:00"}).status_code == 400
    assert f'value="{ODD}"' in admin.get(reverse("metering:rule-create"), {"like": str(rule.uid)}).content.decode()
    assert lead.post(reverse("metering:rule-end", args=[rule.uid]), {}).status_code == 403
    csv = admin.get(reverse("metering:rule-list"), {"export": "csv", "search": "half"})
    assert b"1/2" in csv.getvalue() if hasattr(csv, "getvalue") else b"1/2" in b"".join(csv.streaming_content)
    ended = admin.post(
        reverse("metering:rule-end", args=[rule.uid]), {"valid_from": "2026-11-18T10:00", "version": rule.version}
    )
    assert ended.status_code == 303
    rule.refresh_from_db()
    assert rule.valid.upper == THIS + HOUR
