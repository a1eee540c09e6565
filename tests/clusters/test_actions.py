"""Registering, credentials, health, probe, pools and capacity, with the database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from apps.audit.models import AuditEvent
from apps.clusters import actions, crypto, errors, health, probing, selectors
from apps.clusters.choices import Health
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.clusters.models import Cluster, Flavour, Node, PoolCapacity
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.core.models import OutboxMessage
from apps.core.testing import settle
from apps.demo.cluster import SimulatedCluster
from tests.cluster.fixtures import client_of, fresh_namespace, register
from tests.factories import Company

pytestmark = pytest.mark.django_db
SYSTEM = Actor.system("tests")
TOKEN = "a-very-secret-token"


def _register(**kwargs: Any) -> Cluster:
    given = {"name": "Lab", "api_url": "https://192.0.2.1:6443", "token": TOKEN, "actor": SYSTEM, **kwargs}
    return actions.register_cluster(**given)


def _events(name: str) -> list[Any]:
    return list(AuditEvent.objects.filter(action=name).order_by("pk"))


# -- registering --------------------------------------------------------------------------------------------------


@pytest.mark.requirement("clusters-1.1")
def test_a_token_is_kept_encrypted_and_told_nowhere(company: Company) -> None:
    """Neither in the row nor in the audit trail; the newest key opens it."""
    cluster = _register(actor=Actor.of(company.admin))
    assert TOKEN.encode() not in bytes(cluster.credentials)
    assert crypto.decrypt(cluster.credentials) == TOKEN
    told = " ".join(str(vars(event)) for event in _events("clusters.cluster.registered"))
    assert "Lab" in told
    assert TOKEN not in told


@pytest.mark.requirement("clusters-1.1", "clusters-1.2", "clusters-1.3")
@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"token": ""}, "token"),
        ({"token": "two words"}, "token"),
        ({"name": " "}, "name"),
        ({"slug": "Not a slug"}, "slug"),
        ({"api_url": "http://169.254.169.254"}, "api_url"),
        ({"api_url": "api.example.com"}, "api_url"),
        ({"ca_certificate": "hello"}, "ca_certificate"),
        ({"kubeconfig": "kind: Pod", "api_url": "", "token": ""}, "kubeconfig"),
        ({"kubeconfig": "kind: Config"}, "kubeconfig"),
    ],
)
def test_what_is_wrong_is_said_next_to_its_field(given: dict[str, Any], field: str) -> None:
    """And nothing is written."""
    with pytest.raises(Invalid) as caught:
        _register(**given)
    assert list(caught.value.errors) == [field]
    assert not Cluster.objects.exists()


def test_a_slug_is_taken_once() -> None:
    """With a message, not an error page."""
    _register()
    with pytest.raises(Invalid) as caught:
        _register()
    assert "slug" in caught.value.errors


@pytest.mark.requirement("clusters-4.5")
@pytest.mark.parametrize("role", ["lead_finance", "vp", "finance", "auditor", "compliance"])
def test_only_platform_admins_change_clusters(company: Company, role: str) -> None:
    """Every action asks."""
    actor, cluster = Actor.of(company[role]), _register()
    for act in (
        lambda: _register(name="Other", actor=actor),
        lambda: actions.replace_credentials(cluster.pk, actor=actor, token="x"),
        lambda: actions.pause(cluster.pk, "why", actor=actor),
        lambda: actions.resume(cluster.pk, actor=actor),
        lambda: _flavour(actor=actor),
        lambda: actions.create_pool(cluster.pk, "A100", actor=actor, flavour_ids=[]),
    ):
        with pytest.raises(NotAllowed):
            act()


@pytest.mark.requirement("clusters-1.4")
def test_replaced_credentials_are_used_from_the_next_call_on(simulated: SimulatedCluster) -> None:
    """The client of this process is made anew; the breaker closes."""
    cluster = register(simulated)
    first = KubernetesClient.for_cluster(cluster)
    assert KubernetesClient.for_cluster(Cluster.objects.get(pk=cluster.pk)) is first
    actions.replace_credentials(cluster.pk, actor=SYSTEM, token="wrong")
    cluster.refresh_from_db()
    second = KubernetesClient.for_cluster(cluster)
    assert second is not first
    with pytest.raises(errors.Unauthorised):
        second.list("Node")
    health.record_contact(cluster.pk, False, errors.Unauthorised("no"))
    cluster.refresh_from_db()
    assert (cluster.health, selectors.callable_now(cluster)) == (Health.REFUSED, False)
    actions.replace_credentials(cluster.pk, actor=SYSTEM, kubeconfig=simulated.kubeconfig())
    cluster.refresh_from_db()
    assert selectors.callable_now(cluster)
    assert KubernetesClient.for_cluster(cluster).list("Node").items


@pytest.mark.requirement("clusters-1.4")
def test_keys_are_rotated(settings: Any) -> None:
    """A new first key encrypts, the old one still opens; without it nothing can be opened and that is said."""
    from cryptography.fernet import Fernet

    cluster, old = _register(), list(settings.COMMONS_CREDENTIALS_KEYS)
    new = Fernet.generate_key().decode()
    settings.COMMONS_CREDENTIALS_KEYS = [new, *old]
    assert actions.rotate_keys(actor=SYSTEM) == (1, 1)
    assert actions.rotate_keys(actor=SYSTEM) == (0, 1)
    settings.COMMONS_CREDENTIALS_KEYS = [new]
    cluster.refresh_from_db()
    assert crypto.decrypt(cluster.credentials) == TOKEN
    settings.COMMONS_CREDENTIALS_KEYS = old
    with pytest.raises(errors.Unauthorised):
        KubernetesClient.for_cluster(cluster)


@pytest.mark.requirement("clusters-1.5")
def test_a_paused_cluster_is_not_called(simulated: SimulatedCluster) -> None:
    """Until it is resumed; with a reason that everybody reads."""
    cluster = register(simulated)
    with pytest.raises(Invalid):
        actions.pause(cluster.pk, "  ", actor=SYSTEM)
    paused = actions.pause(cluster.pk, "Rack is being moved", actor=SYSTEM, expected_version=1)
    assert (selectors.shown_health(paused), selectors.callable_now(paused)) == ("paused", False)
    assert probing.probe_due() == 0
    with pytest.raises(Conflict):
        actions.pause(cluster.pk, "again", actor=SYSTEM)
    with pytest.raises(Conflict):
        actions.resume(cluster.pk, actor=SYSTEM, expected_version=1)
    actions.resume(cluster.pk, actor=SYSTEM)
    assert probing.probe_due() == 1
    assert len(_events("clusters.cluster.paused")) == len(_events("clusters.cluster.resumed")) == 1


# -- health -------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("clusters-3.1", "clusters-3.2", "clusters-3.4")
def test_a_dead_cluster_is_shown_so_and_left_alone_until_it_is_due(
    simulated: SimulatedCluster, company: Company, frozen_clock: datetime
) -> None:
    """With since and why, told once; back again told once, too."""
    cluster = register(simulated)
    settle(only=("clusters.",))
    cluster.refresh_from_db()
    assert selectors.shown_health(cluster) == Health.HEALTHY
    simulated.faults.set("down")
    clock.advance(timedelta(seconds=31))
    assert settle(only=("clusters.",)) == 1
    cluster.refresh_from_db()
    down_at = clock.now()
    assert selectors.shown_health(cluster) == Health.UNREACHABLE
    assert cluster.unreachable_since == down_at
    assert "broke" in cluster.last_error
    clock.advance(timedelta(hours=1))
    assert settle(only=("clusters.",)) == 1
    cluster.refresh_from_db()
    assert cluster.unreachable_since == down_at
    assert cluster.consecutive_failures == 2
    assert len(_events("clusters.cluster.unreachable")) == 1
    assert OutboxMessage.objects.filter(
        event="clusters.cluster.unreachable", recipient_ids__contains=[company.admin.pk]
    ).exists()
    simulated.faults.clear()
    clock.advance(timedelta(minutes=1))
    settle(only=("clusters.",))
    cluster.refresh_from_db()
    assert (cluster.health, cluster.consecutive_failures, cluster.unreachable_since) == (Health.HEALTHY, 0, None)
    assert len(_events("clusters.cluster.recovered")) == 1


@pytest.mark.requirement("clusters-3.2")
@given(failures=st.integers(1, 1000), spread=st.floats(0, 0.999))
def test_pauses_grow_to_a_minute(failures: int, spread: float) -> None:
    """Never longer, never nothing."""
    pause = health.pause_seconds(failures, spread=spread)
    assert 0.75 <= pause <= 60
    assert health.pause_seconds(failures + 1, spread=spread) >= pause


@pytest.mark.requirement("clusters-3.1")
def test_health_goes_stale() -> None:
    """Three minutes without contact are no health, whatever the last one said."""
    seen = datetime(2026, 11, 18, 9, tzinfo=UTC)
    cluster = Cluster(health=Health.HEALTHY, last_seen_at=seen)
    assert selectors.shown_health(cluster, at=seen + timedelta(minutes=3)) == "healthy"
    assert selectors.shown_health(cluster, at=seen + timedelta(minutes=3, seconds=1)) == "stale"
    assert selectors.shown_health(Cluster(health=Health.HEALTHY), at=seen) == "stale"


def test_throttling_is_rest_and_no_illness(frozen_clock: datetime) -> None:
    """A 429 keeps callers away for as long as asked."""
    cluster = _register()
    health.record_contact(cluster.pk, True)
    health.record_throttle(cluster.pk, 7)
    cluster.refresh_from_db()
    assert (cluster.health, selectors.callable_now(cluster)) == (Health.HEALTHY, False)
    health.record_contact(cluster.pk, True)
    cluster.refresh_from_db()
    assert not selectors.callable_now(cluster)
    clock.advance(timedelta(seconds=8))
    assert selectors.callable_now(cluster)


@pytest.mark.requirement("clusters-3.3")
def test_a_probe_reads_version_and_nodes(simulated: SimulatedCluster, frozen_clock: datetime) -> None:
    """Nodes that are gone are forgotten; pools learn what is physically there."""
    cluster = register(simulated)
    Node.objects.create(
        cluster=cluster, name="gone", physical_gpus=99, gpu_model="X", observed_at=clock.now() - timedelta(days=1)
    )
    settle(only=("clusters.",))
    cluster.refresh_from_db()
    assert cluster.kubernetes_version.startswith("v1.")
    nodes = {node.name: node for node in cluster.nodes.all()}
    assert "gone" not in nodes
    assert len(nodes) == len(client_of(simulated).list("Node").items)
    carrying = next(node for node in nodes.values() if node.physical_gpus)
    flavour = _flavour(gpu_model=carrying.gpu_model)
    pool = actions.create_pool(cluster.pk, carrying.gpu_model, actor=SYSTEM, flavour_ids=[flavour.pk])
    expected = sum(n.physical_gpus for n in nodes.values() if n.gpu_model == carrying.gpu_model)
    assert (pool.observed_gpus, pool.observed_at) == (expected, clock.now())
    assert settle(only=("clusters.",)) == 0  # not due again yet


# -- flavours, pools, capacity ------------------------------------------------------------------------------------


def _flavour(**kwargs: Any) -> Flavour:
    given = {"name": "A100", "slug": fresh_namespace("f"), "gpu_model": "A100", "actor": SYSTEM, **kwargs}
    return actions.create_flavour(**given)


@pytest.mark.requirement("clusters-4.1")
@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"name": ""}, "name"),
        ({"slug": "A b"}, "slug"),
        ({"gpu_model": " "}, "gpu_model"),
        ({"resource_name": "gpu"}, "resource_name"),
        ({"resource_name": "requests.nvidia.com/gpu"}, "resource_name"),
        ({"sharing": "half"}, "sharing"),
        ({"numerator": 1, "denominator": 7}, "numerator"),
        ({"sharing": "mig", "numerator": 8, "denominator": 7}, "numerator"),
        ({"sharing": "mig", "numerator": 0, "denominator": 7}, "numerator"),
        ({"memory_mib": -1}, "memory_mib"),
        ({"node_labels": {"bad key!": "x"}}, "node_labels"),
        ({"tolerations": [{"key": "a", "evil": 1}]}, "tolerations"),
        ({"tolerations": [{"key": "a", "operator": "Sometimes"}]}, "tolerations"),
    ],
)
def test_a_flavour_is_checked_field_by_field(given: dict[str, Any], field: str) -> None:
    """With what to do."""
    with pytest.raises(Invalid) as caught:
        _flavour(**given)
    assert list(caught.value.errors) == [field]


@pytest.mark.requirement("clusters-4.1")
def test_a_mig_flavour_holds_a_share() -> None:
    """One seventh of a device, say."""
    made = _flavour(sharing="mig", numerator=1, denominator=7, resource_name="nvidia.com/mig-1g.5gb")
    assert (made.numerator, made.denominator) == (1, 7)
    with pytest.raises(Invalid):
        _flavour(slug=made.slug)


@pytest.mark.requirement("clusters-4.2")
def test_a_pool_is_one_per_cluster_and_model() -> None:
    """With flavours of that model."""
    cluster, flavour, other = _register(), _flavour(), _flavour(gpu_model="H100")
    pool = actions.create_pool(cluster.pk, "A100", actor=SYSTEM, flavour_ids=[flavour.pk])
    assert [f.pk for f in pool.flavours.all()] == [flavour.pk]
    for flavours, field in (
        ([flavour.pk], "gpu_model"),
        ([], "flavours"),
        ([other.pk], "flavours"),
        ([10**9], "flavours"),
    ):
        with pytest.raises(Invalid) as caught:
            actions.create_pool(cluster.pk, "A100", actor=SYSTEM, flavour_ids=flavours)
        assert field in caught.value.errors


@pytest.mark.requirement("clusters-4.3")
def test_committable_is_dated_and_lower_is_taken(frozen_clock: datetime) -> None:
    """From a date to the next step; with an end, what was before resumes."""
    pool = actions.create_pool(_register().pk, "A100", actor=SYSTEM, flavour_ids=[_flavour().pk])
    now, day = frozen_clock, timedelta(days=1)
    actions.set_committable(pool.pk, 50, now, actor=SYSTEM)
    actions.set_committable(pool.pk, 64, now + 30 * day, actor=SYSTEM)
    actions.set_committable(pool.pk, 40, now + day, actor=SYSTEM)  # capacity lost: taken, until the planned step
    actions.set_committable(pool.pk, 82, now + 7 * day, valid_until=now + 9 * day, actor=SYSTEM, reason="burst")
    steps = selectors.capacity_steps(pool.pk, now - day, now + 40 * day)
    assert [(start, gpus) for start, _, gpus in steps] == [
        (now - day, 0), (now, 50), (now + day, 40), (now + 7 * day, 82), (now + 9 * day, 40), (now + 30 * day, 64),
    ]  # fmt: skip
    assert steps[-1][1] == now + 40 * day
    assert selectors.capacity_steps(pool.pk, now, None)[-1][1] is None
    assert selectors.committable_at(pool.pk) == 50
    assert selectors.committable_at(pool.pk, now - day) == 0
    for bad, field in (((-1, now), "gpus"), ((1, now - day), "valid_from")):
        with pytest.raises(Invalid) as caught:
            actions.set_committable(pool.pk, *bad, actor=SYSTEM)
        assert field in caught.value.errors
    with pytest.raises(Invalid):
        actions.set_committable(pool.pk, 1, now, valid_until=now, actor=SYSTEM)
    with pytest.raises(Conflict):
        actions.set_committable(pool.pk, 1, now, actor=SYSTEM, expected_version=1)
    assert len(_events("clusters.pool.capacity_set")) == 4


class CapacityProperties(TestCase):
    """Any sequence of dated steps gives the step function that a plain list of days gives."""

    @pytest.mark.requirement("clusters-4.3")
    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(
            st.tuples(st.integers(0, 9), st.integers(0, 80), st.none() | st.integers(1, 5)), min_size=1, max_size=6
        )
    )
    def test_steps_are_what_days_say(self, sets: list[tuple[int, int, int | None]]) -> None:
        """Replay on an array of twenty days."""
        start = datetime(2026, 11, 18, tzinfo=UTC)
        cluster = _register(slug=fresh_namespace("c"))
        pool = actions.create_pool(cluster.pk, "A100", actor=SYSTEM, flavour_ids=[_flavour().pk])
        days: list[int] = [0] * 20
        begins: set[int] = set()
        with clock.frozen(start):
            for day, gpus, length in sets:
                until = start + timedelta(days=day + length) if length else None
                actions.set_committable(pool.pk, gpus, start + timedelta(days=day), valid_until=until, actor=SYSTEM)
                end = day + length if length else min((b for b in begins if b > day), default=20)
                before = days[end] if end < 20 else None
                days[day:end] = [gpus] * (end - day)
                begins = {b for b in begins if not day <= b < end} | {day}
                if (
                    length
                    and PoolCapacity.objects.filter(pool=pool, valid__startswith=start + timedelta(days=end)).exists()
                ):
                    begins.add(end)
                assert before is None or days[end] == before
        for index, expected in enumerate(days):
            assert selectors.committable_at(pool.pk, start + timedelta(days=index, hours=1)) == expected
