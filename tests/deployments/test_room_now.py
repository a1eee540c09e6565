"""Room now beside what the quota allows: by what the cluster says is in use, and never claimed on old figures."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.partitions import ensure_month
from apps.deployments import reading, room_reading
from apps.deployments.feasibility import Held as Others
from apps.deployments.feasibility import Room as Held
from apps.deployments.feasibility import Size, fit
from apps.deployments.models import Release
from apps.deployments.room_now import Need, Seen, State, judge, need
from apps.metering.models import HourFact, HourStatus
from apps.provisioning.models import Observation
from apps.quotas import kueue_state
from apps.quotas.models import Quota
from tests.deployments.test_pages import form, text_of
from tests.deployments.world import World, make_world
from tests.factories import Company, client_for
from tests.rates.factories import make_flavour, make_pool

AT = datetime(2026, 11, 18, 9, tzinfo=UTC)
Limit = Callable[[int], AbstractContextManager[Any]]


def seen(used: int | None, allowed: int | None = 30, **values: Any) -> Seen:
    return Seen("Quota of A100", "GPUs", allowed, used, AT - timedelta(seconds=20), **values)


@pytest.mark.requirement("release-review-2.1")
@pytest.mark.parametrize(
    ("used", "state", "words"),
    [
        (30, State.WAITS, "30 of 30 GPUs are used now, seen 20 s ago. It needs 2 on top to begin: it will wait until"),
        (29, State.WAITS, "until 1 more comes free"),
        (28, State.SOME, "2 of its replicas start, more wait"),
        (26, State.ROOM, "It needs 4 on top."),
    ],
)  # fmt: skip
def test_what_is_in_use_decides_not_what_is_held(used: int, state: State, words: str) -> None:
    found = judge([seen(used)], [Need(2, 4, 1)], AT)
    assert found.state is state
    assert words in found.lines[0].words


@pytest.mark.requirement("release-review-2.1")
def test_a_canary_needs_its_own_and_a_replacement_one_replica_more() -> None:
    assert need(4, 1, 4, canary=True, least_replicas=2) == Need(2, 4, 1)
    assert need(4, 1, 4, canary=False, least_replicas=2) == Need(1, 1, 1)
    assert need(6, 1, 4, canary=False, least_replicas=2) == Need(1, 3, 1)
    assert need(2, 1, 4, canary=False, least_replicas=2) == Need(1, 1, 1)
    assert need(4, 2, 0, canary=False, least_replicas=0) == Need(2, 4, 2)


@pytest.mark.requirement("release-review-2.3")
@pytest.mark.parametrize("gap", [{"used": None}, {"used": 3, "allowed": None}, {"used": 3, "unsure": "It is away."}])
def test_nothing_is_claimed_on_figures_that_are_missing_or_old(gap: dict[str, Any]) -> None:
    found = judge([seen(**gap)], [Need(1, 1, 1)], AT)
    assert found.state is State.UNKNOWN
    assert "not known" in found.words[0]
    # What waits for sure outweighs what is not known.
    assert judge([seen(**gap), seen(30)], [Need(1, 1, 1)] * 2, AT).state is State.WAITS


@pytest.mark.requirement("release-review-2.5")
def test_gpus_that_others_still_use_are_no_room() -> None:
    found = judge([seen(26, promised="Promised: 4 GPUs are still used.", missing=4)], [Need(1, 4, 1)], AT)
    assert found.state is State.WAITS
    assert "still used" in found.words[0]
    assert judge([seen(26, promised="Promised: 1 GPU is.", missing=1)], [Need(1, 4, 1)], AT).state is State.SOME


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 12), st.integers(1, 4), st.integers(0, 8), st.booleans())
def test_room_is_claimed_only_where_all_of_it_is_free(
    allowed: int, used: int, replicas: int, one: int, current: int, canary: bool
) -> None:
    wanted = need(replicas * one, one, current * one, canary=canary, least_replicas=replicas)
    found = judge([seen(used, allowed)], [wanted], AT)
    if not wanted.most:
        return
    assert (found.state is State.ROOM) == (allowed - used >= wanted.most)
    assert (found.state is State.WAITS) == (allowed - used < wanted.start)


@pytest.mark.requirement("release-review-2.4")
def test_a_share_kept_for_serving_decides_for_production() -> None:
    wanted = Size.of("A100", 4, 1, 4, 16)
    values: dict[str, Any] = {
        "room": Held(30, 30, kept=3), "held": Others({}), "cores": 256, "memory_gib": 2048, "canary": False,
    }  # fmt: skip
    refused = fit(wanted, None, production=True, **values)
    assert not refused.ok
    assert "Share of A100 kept for serving: 3 GPUs" in refused.refusals[0]
    assert fit(wanted, None, production=False, **values).ok


# ---- on the database


@pytest.fixture
def world(company: Company, frozen_clock: Any) -> World:
    return make_world(company)


def observe(world: World, used: int, hard: int = 8, *, environment: str = "production", **values: Any) -> Observation:
    """What the cluster says of a workspace's quota."""
    name = world.flavour.resource_name
    more = {"requests.cpu": "8", "requests.memory": "32Gi"}
    status = values.pop("status", None) or {
        "hard": {f"requests.{name}": str(hard), "requests.cpu": "256", "requests.memory": "2Ti"},
        "used": {f"requests.{name}": str(used), **more},
    }  # fmt: skip
    return Observation.objects.create(
        cluster=world.cluster, kind="ResourceQuota", namespace=f"finance-{environment}",
        name=values.pop("name", "gpu-commons"), status=status, observed_at=values.pop("at", clock.now()),
    )  # fmt: skip


def fact(world: World, name: str, began: datetime, **values: Any) -> None:
    """A workload that has run since `began`, metered until 08:00."""
    workspace = world.workspaces["production"]
    ensure_month("metering_hourfact", began)
    key, hour = f"pod-{name}", began.replace(minute=0, second=0)
    while hour < AT.replace(hour=8) + timedelta(hours=1):
        start = max(0, int((began - hour).total_seconds() * 1000))
        end = values.get("end_ms", 3_600_000)
        HourFact.objects.create(
            hour=hour, uid=uuid.uuid4(), cluster_id=world.cluster.pk, namespace=workspace.namespace,
            workload_key=key, workload_name=name, workload_kind="Job", flavour_id=world.flavour.pk,
            resource=world.flavour.resource_name, spans=[start, end, 2], allocated_unit_ms=1, allocated_gpu_ms=1,
            source_id=1, team_id=workspace.team_id, unit_id=workspace.team.unit_id, workspace_id=workspace.pk,
        )  # fmt: skip
        hour += timedelta(hours=1)


@pytest.mark.django_db
@pytest.mark.requirement("release-review-2.1")
@pytest.mark.requirement("release-review-2.2")
def test_a_quota_full_of_training_is_never_called_fit(world: World, query_limit: Limit) -> None:
    HourStatus.objects.create(cluster=world.cluster, hour=AT.replace(hour=8), state="final")
    observe(world, used=8)
    fact(world, "train-a", AT.replace(hour=6))
    fact(world, "train-b", AT.replace(hour=7, minute=30))
    # It ended within the hour: it holds nothing any more.
    fact(world, "train-c", AT.replace(hour=8), end_ms=60_000)
    client = client_for(world["lead_finance"])
    url = reverse("deployments:release-estimate")
    with query_limit(60):
        shown = text_of(client.post(url, form(world, "production")))
    assert "The quota allows it, but there is no room now: it would wait" in shown
    assert (
        "8 of 8 GPUs are used now, seen just now, by 2 workloads, the newest since 2026-11-18 07:30 UTC"
        " (as metered in the hour from 2026-11-18 08:00 UTC)" in shown
    )
    assert "there is room now, and it may run there" not in shown
    # Whoever decides reads the same, whatever they may see of the team.
    release = world.ask("production", ladder=())
    assert release.approval is not None
    page = client_for(world["vp"]).get(
        reverse("approvals:request-detail", kwargs={"request_uid": release.approval.uid})
    )
    assert "There is no room now: the endpoint would wait" in text_of(page)
    Observation.objects.update(
        status={**Observation.objects.get().status, "used": {f"requests.{world.flavour.resource_name}": "2",
                "requests.cpu": "8", "requests.memory": "32Gi"}}
    )  # fmt: skip
    shown = text_of(client.post(url, form(world, "production", name="other")))
    assert "there is room now, and it may run there" in shown


@pytest.mark.django_db
@pytest.mark.requirement("release-review-2.1")
def test_full_cores_are_no_room_either(world: World) -> None:
    observe(world, used=0)
    status = Observation.objects.get().status
    status["used"]["requests.cpu"] = "255"
    Observation.objects.update(status=status)
    release = world.ask("production", ladder=())
    found = room_reading.of_release(Release.objects.get(pk=release.pk), clock.now())
    assert found.state is State.WAITS
    assert "CPU of finance-production: 255 of 256 cores" in found.words[0]


@pytest.mark.django_db
@pytest.mark.requirement("release-review-2.3")
@pytest.mark.parametrize("how", ["stale", "away", "never"])
def test_an_observer_that_is_behind_makes_it_unknown_with_its_age(world: World, how: str) -> None:
    if how != "never":
        observe(world, used=0, at=clock.now() - timedelta(minutes=12 if how == "stale" else 1))
    if how == "away":
        Cluster.objects.update(health="unreachable", unreachable_since=clock.now() - timedelta(minutes=12))
    shown = text_of(
        client_for(world["lead_finance"]).post(reverse("deployments:release-estimate"), form(world, "production"))
    )
    assert "whether there is room now is not known" in shown
    assert {"stale": "from 12 min ago", "away": "is unreachable, since 12 min ago", "never": "has not told"}[
        how
    ] in shown
    assert "there is room now, and" not in shown


@pytest.mark.django_db
@pytest.mark.requirement("release-review-2.4")
def test_the_serving_share_is_read_from_the_quota_of_production_priority(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kueue_state, "queued", lambda workspace: True)
    Cluster.objects.update(kueue_mode="jobs")
    world.workspaces["production"].cluster.refresh_from_db()
    Quota.objects.filter(workspace=world.workspaces["production"]).update(serving=2)
    observe(world, used=2)
    scoped = {f"requests.{world.flavour.resource_name}": "2"}
    observe(world, 0, name="gpu-commons-serving", status={"hard": scoped, "used": scoped, "scoped": True})
    release = world.ask("production", ladder=())
    assert release.change["feasibility"]["lines"][0]["limit"] == "Share of A100-80GB kept for serving"
    found = room_reading.of_release(Release.objects.get(pk=release.pk), clock.now())
    assert found.state is State.WAITS
    assert "Share of A100-80GB kept for serving in finance-production: 2 of 2 GPUs are used now" in found.words[0]
    # The quota of production priority counts GPUs alone: cores are held to what is guaranteed of them.
    cores = make_flavour("cpu-large", device_class="cpu", resource_name="cpu", gpu_model="cpu-large")
    make_pool(world.cluster, cores, gpus=500, device_class="cpu")
    Quota.objects.create(
        workspace=world.workspaces["production"], flavour=cores, guaranteed=64,
        valid=DateTimeTZRange(clock.now() - timedelta(days=1), None, "[)"),
    )  # fmt: skip
    room = reading.room_of(release.endpoint.workspace, cores, clock.now())
    assert (room.guaranteed, room.kept) == (64, None)


@pytest.mark.django_db
@pytest.mark.requirement("release-review-2.2")
def test_what_the_cluster_counts_together_is_not_called_one_flavours_quota(world: World) -> None:
    observe(world, used=8)
    release = world.ask("production", ladder=())
    other = make_flavour("h100", resource_name=world.flavour.resource_name, gpu_model="H100", node_labels={"gpu": "h"})
    make_pool(world.cluster, other, gpus=8)
    Quota.objects.create(
        workspace=world.workspaces["production"], flavour=other, guaranteed=4,
        valid=DateTimeTZRange(clock.now() - timedelta(days=1), None, "[)"),
    )  # fmt: skip
    found = room_reading.of_release(Release.objects.get(pk=release.pk), clock.now())
    resource = world.flavour.resource_name
    assert f"Quota of {resource} (all flavours of it) in finance-production: 8 of 8 GPUs are used" in found.words[0]


@pytest.mark.django_db
@pytest.mark.requirement("release-review-2.5")
def test_a_guarantee_that_others_still_use_is_not_room(world: World) -> None:
    world.pool.observed_gpus = 8
    world.pool.save(update_fields=["observed_gpus"])
    # Development works on 8 GPUs beyond its quota, which has shrunk to nothing.
    Quota.objects.filter(workspace=world.workspaces["development"]).update(guaranteed=0)
    Quota.objects.filter(workspace=world.workspaces["staging"]).update(guaranteed=0)
    for environment, used in (("production", 0), ("staging", 0), ("development", 8)):
        observe(world, used, environment=environment)
    release = world.ask("production", ladder=())
    found = room_reading.of_release(Release.objects.get(pk=release.pk), clock.now())
    assert found.state is State.WAITS
    assert "still used by work beyond its own quota" in re.sub(r"\s+", " ", " ".join(found.words))
