"""Kubecost as a source: hour by hour, older schema, no daily sets; refused where a GPU is shared."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from apps.clusters.choices import Sharing
from apps.clusters.models import Flavour, Node
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Invalid
from apps.metering import actions, engine
from apps.metering.choices import SourceKind
from apps.metering.models import Source
from apps.metering.source_exclusive import shared_gpus
from apps.metering.sources.base import SourceRefused, ms
from apps.metering.sources.kubecost import KubecostAdapter
from apps.metering.sources.registry import adapter_for
from tests.metering.server import serving
from tests.metering.test_allocation import HOUR, NODE, START, row
from tests.metering.world import World


def read(sets: Any, **options: Any) -> tuple[Any, list[tuple[str, dict[str, str]]], KubecostAdapter]:
    asked: list[tuple[str, dict[str, str]]] = []

    def answer(path: str, parameters: dict[str, str]) -> tuple[int, Any]:
        asked.append((path, parameters))
        return 200, {"code": 200, "data": sets if path.endswith("allocation") else {"n": NODE}}

    with serving(answer) as url:
        adapter = KubecostAdapter(url, options=options)
        try:
            return adapter.read(START, START + HOUR), asked, adapter
        finally:
            adapter.close()


@pytest.mark.requirement("metering-sources-4.3")
def test_asks_for_one_hour_without_idle_rows() -> None:
    hour = {"start": "2026-08-12T13:00:00Z", "end": "2026-08-12T14:00:00Z"}
    reading, asked, adapter = read([{"a": row(window=hour), "__idle__": row("idle")}])
    assert [path for path, _ in asked] == ["/model/allocation", "/model/assets"]
    assert asked[0][1]["idle"] == "false"
    assert asked[0][1]["accumulate"] == "false"
    assert "step" not in asked[0][1]
    assert [h.pod for h in reading.holdings] == ["train-0"]
    assert adapter.max_window == HOUR
    assert [exchange["bytes"] > 0 for exchange in reading.proof.exchanges] == [True, True]


@pytest.mark.requirement("metering-sources-4.3")
def test_older_schema_gives_quantities_and_no_use() -> None:
    old = {key: value for key, value in row().items() if key != "gpuAllocation"}
    reading, *_ = read([{"a": old}])
    facts = engine.hour_quantities(reading.holdings, {})[ms(START)]
    assert [(fact.gpu_ms, fact.used_gpu_ms) for fact in facts] == [(14_400_000, None)]


@pytest.mark.requirement("metering-sources-4.3")
def test_a_daily_set_is_refused_not_spread() -> None:
    day = {"start": "2026-08-12T00:00:00Z", "end": "2026-08-13T00:00:00Z"}
    with pytest.raises(SourceRefused, match="set of 24 hours"):
        read([{"a": row(window=day)}])
    with pytest.raises(SourceRefused, match="more than 1 sets for 1 hours"):
        read([{"a": row()}, {"b": row()}])


@pytest.mark.requirement("metering-sources-4.3")
def test_the_adapter_belongs_to_the_kind(world: World) -> None:
    Source.objects.filter(pk=world.source.pk).update(kind=SourceKind.KUBECOST, url="http://127.0.0.1:1")
    world.source.refresh_from_db()
    adapter = adapter_for(world.source)
    assert isinstance(adapter, KubecostAdapter)
    adapter.close()


def share_flavour(world: World) -> str:
    Flavour.objects.filter(pk=world.flavour.pk).update(sharing=Sharing.MIG, numerator=1, denominator=7)
    return "flavour “A100 80 GB” is mig profile"


def slice_node(world: World) -> str:
    Node.objects.create(
        cluster=world.cluster, name="n1", physical_gpus=8, capacity={"nvidia.com/mig-1g.10gb": "7"},
        observed_at=clock.now(),
    )  # fmt: skip
    return "n1 (nvidia.com/mig-1g.10gb)"


def time_slice_node(world: World) -> str:
    Node.objects.create(
        cluster=world.cluster, name="n2", physical_gpus=8, replicas=4, sharing=Sharing.TIME_SLICED,
        observed_at=clock.now(),
    )  # fmt: skip
    return "n2 (time-sliced)"


@pytest.mark.requirement("metering-sources-4.1")
@pytest.mark.parametrize("kind", [SourceKind.ALLOCATION, SourceKind.KUBECOST])
@pytest.mark.parametrize("share", [share_flavour, slice_node, time_slice_node])
def test_registration_is_refused_with_the_reason(world: World, company: Any, kind: str, share: Any) -> None:
    now, actor = clock.now(), Actor.of(company.admin)
    actions.end_source(world.source.pk, now, actor=actor)
    reason = share(world)
    with pytest.raises(Invalid) as refused:
        actions.register_source(world.cluster.pk, kind, "New", "http://cost.example", now, actor=actor)
    assert reason in refused.value.errors["kind"][0]
    assert "Prometheus" in refused.value.errors["kind"][0]
    actions.register_source(world.cluster.pk, "prometheus", "New", "http://prom.example", now, actor=actor)


@pytest.mark.requirement("metering-sources-4.1")
def test_exclusive_clusters_may_have_one_and_other_clusters_do_not_matter(world: World, company: Any) -> None:
    Node.objects.create(
        cluster=world.cluster, name="n1", physical_gpus=8, capacity={"nvidia.com/gpu": "8", "nvidia.com/mig-1g": "0"},
        observed_at=clock.now(),
    )  # fmt: skip
    assert shared_gpus(world.cluster.pk) == ()
    now, actor = clock.now() + timedelta(hours=1), Actor.of(company.admin)
    actions.end_source(world.source.pk, now, actor=actor)
    source = actions.register_source(world.cluster.pk, "kubecost", "", "http://cost.example", now, actor=actor)
    assert source.name == "Kubecost"
