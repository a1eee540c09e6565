"""The whole life of an idle workload, on an injected clock, with a real Deployment and a real Job."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from apps.audit.models import AuditEvent
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.models import OutboxMessage
from apps.core.testing import settle
from apps.demo.cluster import SimulatedCluster
from apps.insights import idle, idle_actions, selectors
from apps.insights.choices import IdleStatus
from apps.insights.idle_use import HourUse, idle_run, known_as
from apps.insights.models import IdleCase
from apps.provisioning.choices import StopStatus
from apps.provisioning.stop_worker import LOOK_EVERY
from apps.quotas.idle_policy import IdlePolicy
from apps.quotas.models import Workspace
from tests.cluster.fixtures import client_of, fresh_namespace, namespace, register
from tests.factories import Company
from tests.insights.conftest import HOUR, ingest
from tests.metering.world import World, hold, make_world, utc
from tests.provisioning.test_stopping import deployment, job, managers, owner_applies

pytestmark = pytest.mark.django_db
#: Four idle hours, an hour's notice.
POLICY = IdlePolicy(enabled=True, threshold_percent=5, idle_minutes=240, notice_minutes=60).plain()
T0 = utc(2026, 11, 18, 0)
WHY = "The evaluation resumes after lunch."
ONLY = ("provisioning.run_stop_orders",)


# -- judging, pure --------------------------------------------------------------------------------------------------


def hour(i: int, used: int | None, allocated: int = 1000) -> HourUse:
    """The i-th hour of a workload."""
    return HourUse(T0 + i * HOUR, allocated, allocated, used, 1)


@pytest.mark.requirement("insights-3.4")
def test_only_a_row_of_known_idle_hours_up_to_the_last_counts() -> None:
    """Unknown use, a gap, or any use breaks it; exactly at the threshold is use."""
    latest = T0 + 3 * HOUR
    quiet = [hour(i, 0) for i in range(4)]
    assert len(idle_run(quiet, latest, 5)) == 4
    assert len(idle_run([hour(0, 0), hour(1, None), hour(2, 0), hour(3, 0)], latest, 5)) == 2
    assert len(idle_run([hour(0, 0), hour(2, 0), hour(3, 0)], latest, 5)) == 2
    assert len(idle_run([*quiet[:3], hour(3, 50)], latest, 5)) == 0
    assert len(idle_run([*quiet[:3], hour(3, 49)], latest, 5)) == 4
    assert len(idle_run(quiet[:3], latest, 5)) == 0
    assert len(idle_run(quiet, latest, 5, since=T0 + 2 * HOUR)) == 2
    assert idle_run([], None, 5) == []


def test_a_workload_is_what_a_person_would_stop() -> None:
    """Sources name the ReplicaSet, or spell kinds in small letters."""
    assert known_as("ReplicaSet", "serve-5d8f9c7b6") == ("Deployment", "serve")
    assert known_as("deployment", "serve") == ("Deployment", "serve")
    assert known_as("", "bare") == ("Pod", "bare")
    assert known_as("RayCluster", "r") == ("RayCluster", "r")


# -- the life of a case ---------------------------------------------------------------------------------------------


@dataclass
class Place:
    """A workspace whose namespace really exists on the simulated cluster, with metered hours that a test writes."""

    world: World
    workspace: Workspace
    live: KubernetesClient

    def metered(self, until: datetime, **used: float | None) -> None:
        """Meter from the beginning until then: each workload holds 2 GPUs and uses so much of them."""
        kinds = {"train": "Job", "serve": "ReplicaSet", "web": "Deployment"}
        holdings = []
        for name, share in used.items():
            shown = "serve-5d8f9c7b6" if name == "serve" else name
            holdings.append(
                hold(shown, self.workspace.namespace, T0, until, 2, used=share, kind=kinds[name], pod=f"{name}-0")
            )
        ingest(self.world, holdings, T0, until)

    def case(self, name: str = "serve") -> IdleCase:
        """The newest case of a workload."""
        found = IdleCase.objects.filter(workspace=self.workspace, workload_name=name).order_by("-pk").first()
        assert found is not None
        return found


def at(hours: float) -> Any:
    """Freeze the clock so long after midnight."""
    return clock.frozen(T0 + timedelta(hours=hours))


@pytest.fixture
def place(company: Company, simulated: SimulatedCluster) -> Iterator[Place]:
    """Finance's development workspace, with an approved policy, on a registered simulated cluster."""
    with at(0):
        live = client_of(simulated)
        world = make_world(company.teams.values())
        real = register(simulated)
        for name in ("api_url", "ca_certificate", "credentials"):
            setattr(world.cluster, name, getattr(real, name))
        Cluster.objects.filter(pk=real.pk).delete()
        world.cluster.save()
        name = fresh_namespace("idle")
        live.create(namespace(name))
        workspace = world.workspaces["finance"]
        workspace.namespace, workspace.environment, workspace.idle_policy = name, "development", POLICY
        workspace.save()
        yield Place(world, workspace, live)


@pytest.mark.requirement("insights-3.5", "insights-3.6", "insights-3.7", "insights-3.8", "insights-3.9")
def test_noticed_kept_idle_again_stopped_and_started(place: Place, company: Company) -> None:
    """Every step with its row, its message, its field on the cluster, and the GPU time saved to the millisecond."""
    owner_applies(place.live, deployment(place.workspace.namespace, replicas=2))
    lead = Actor.of(company.lead_finance)
    with at(4.2):
        place.metered(T0 + 4 * HOUR, serve=0.0)
        assert idle.find_all() == 1
        case = place.case()
        assert (case.status, case.gpus, case.idle_since) == (IdleStatus.NOTICED, 2, T0)
        assert case.stop_at == clock.now() + HOUR
        told = OutboxMessage.objects.get(event="insights.idle.noticed")
        assert told.recipient_ids == [company.lead_finance.pk]
        assert idle.find_all() == 0
        idle_actions.keep(case.pk, clock.now() + 2 * HOUR, WHY, actor=lead, expected_version=case.version)
    with at(5.5):  # past the first deadline: kept is kept
        place.metered(T0 + 5 * HOUR, serve=0.0)
        assert idle.find_all() == 0
    with at(6.3):  # the time is over and it still does nothing: asked again, with a new deadline
        place.metered(T0 + 6 * HOUR, serve=0.0)
        assert idle.find_all() == 1
        case.refresh_from_db()
        assert (case.status, case.stop_at) == (IdleStatus.NOTICED, clock.now() + HOUR)
        assert OutboxMessage.objects.filter(event="insights.idle.noticed").count() == 2
    with at(7.4):
        place.metered(T0 + 7 * HOUR, serve=0.0)
        assert idle.find_all() == 1
        case.refresh_from_db()
        assert case.status == IdleStatus.STOPPING
        settle(only=ONLY)
        case.refresh_from_db()
        assert case.status == IdleStatus.STOPPED
        scaled = place.live.get("Deployment", "serve", place.workspace.namespace)
        assert scaled["spec"]["replicas"] == 0
        assert "gpu-commons-idle" in managers(scaled)
        stopped_at = case.stopped_at
        assert stopped_at is not None
    with at(10.4):
        assert idle.find_all() == 1  # three hours of two GPUs
        case.refresh_from_db()
        assert case.saved_gpu_ms == 3 * 2 * 3_600_000
        assert idle.find_all() == 0
        saved = selectors.saved_by([case])
        assert (saved.amount, saved.unpriced_ms) == (saved.amount, 0)
        assert saved.amount is not None
        assert saved.amount.amount == Decimal("23.10")  # 6 GPU-hours at 3.85
    with at(11.0):
        idle_actions.start_again(case.pk, actor=lead)
        settle(only=ONLY)
        case.refresh_from_db()
        assert (case.status, case.ended_at) == (IdleStatus.RESUMED, clock.now())
        assert case.saved_gpu_ms == 2 * ((clock.now() - stopped_at) // timedelta(milliseconds=1))
        back = place.live.get("Deployment", "serve", place.workspace.namespace)
        assert back["spec"]["replicas"] == 2
        assert "gpu-commons-idle" not in managers(back)
    trail = AuditEvent.objects.filter(action__startswith="insights.idle").order_by("occurred_at", "action")
    assert [name.rpartition(".")[2] for name in trail.values_list("action", flat=True)] == [
        "kept", "noticed", "noticed", "stopped", "stopping", "resumed",
    ]  # fmt: skip


@pytest.mark.requirement("insights-3.7")
def test_a_job_is_stopped_at_its_owners_word_and_by_nobody_elses(place: Place, company: Company) -> None:
    """At once; strangers and members cannot, and not twice."""
    owner_applies(place.live, job(place.workspace.namespace, gpus=2))
    with at(4.2):
        place.metered(T0 + 4 * HOUR, train=0.001)
        idle.find_all()
        case = place.case("train")
        for name, error in (("member_finance", NotAllowed), ("lead_marketing", NotVisible), ("auditor", NotAllowed)):
            with pytest.raises(error):
                idle_actions.stop_now(case.pk, actor=Actor.of(company[name]))
        idle_actions.stop_now(case.pk, actor=Actor.of(company.lead_finance), expected_version=case.version)
        with pytest.raises(Conflict):
            idle_actions.stop_now(case.pk, actor=Actor.of(company.lead_finance))
        settle(only=ONLY)
        case.refresh_from_db()
        assert case.status == IdleStatus.STOPPED
        assert place.live.get("Job", "train", place.workspace.namespace)["spec"]["suspend"] is True
        place.live.delete("Job", "train", place.workspace.namespace)
    with clock.frozen(T0 + timedelta(hours=4.2) + 3 * LOOK_EVERY):
        settle(only=ONLY)  # gone: what was saved is counted until now, and no longer
        case.refresh_from_db()
        assert case.status == IdleStatus.ENDED
        assert case.saved_gpu_ms == 2 * (3 * LOOK_EVERY // timedelta(milliseconds=1))


@pytest.mark.requirement("insights-3.4", "insights-3.7")
def test_nothing_is_stopped_on_what_is_not_known(place: Place) -> None:
    """Busy again or ended closes the case; unknown use, or hours that stopped coming, stop nothing."""
    with at(4.2):
        place.metered(T0 + 4 * HOUR, serve=0.0, train=0.0, web=None)
        assert idle.find_all() == 2  # of `web` nobody knows
        assert not IdleCase.objects.filter(workload_name="web").exists()
    with at(12):
        assert idle.find_all() == 0  # the last metered hour ended long ago
        assert place.case().status == IdleStatus.NOTICED
    with at(5.3):
        ingest(
            place.world,
            [
                hold("serve-5d8f9c7b6", place.workspace.namespace, T0, T0 + 5 * HOUR, 2, used=None, kind="ReplicaSet"),
                hold("train", place.workspace.namespace, T0, T0 + 5 * HOUR, 2, used=0.8, kind="Job"),
            ],
            T0 + 4 * HOUR,
            T0 + 5 * HOUR,
        )
        assert idle.find_all() == 1
        assert (place.case("train").status, place.case("train").answer) == (IdleStatus.ENDED, "It is busy again.")
        assert (place.case().status, place.case().stop_order) == (IdleStatus.NOTICED, None)
    with at(6.2):
        ingest(place.world, [], T0 + 5 * HOUR, T0 + 6 * HOUR)
        assert idle.find_all() == 1
        assert (place.case().status, place.case().answer) == (IdleStatus.ENDED, "It has ended.")


@pytest.mark.requirement("insights-3.3")
def test_a_policy_that_goes_takes_its_cases_along(place: Place) -> None:
    """Nothing is noticed or stopped without the approved policy of that moment."""
    with at(4.2):
        place.metered(T0 + 4 * HOUR, serve=0.0)
        assert idle.find_all() == 1
        Workspace.objects.filter(pk=place.workspace.pk).update(idle_policy={})
        assert idle.find_all() == 1
        assert place.case().status == IdleStatus.ENDED
        assert idle.find_all() == 0
        Workspace.objects.filter(pk=place.workspace.pk).update(idle_policy={**POLICY, "idle_minutes": 600})
        assert idle.find_all() == 0  # four hours are too few for this one


@pytest.mark.requirement("insights-3.2")
def test_what_serves_in_production_is_left_alone(place: Place) -> None:
    """The Job beside it is not."""
    Workspace.objects.filter(pk=place.workspace.pk).update(environment="production")
    with at(4.2):
        place.metered(T0 + 4 * HOUR, serve=0.0, train=0.0)
        assert idle.find_all() == 1
    assert place.case("train").workload_kind == "Job"


@pytest.mark.requirement("insights-3.2")
def test_a_spared_priority_is_seen_before_anything_is_stopped(place: Place) -> None:
    """The refusal says so, and the owner is not asked the same again the next hour."""
    manifest = job(place.workspace.namespace, gpus=2)
    manifest["metadata"]["labels"] = {"kueue.x-k8s.io/priority-class": "gpu-commons-production"}
    owner_applies(place.live, manifest)
    with at(4.2):
        place.metered(T0 + 4 * HOUR, train=0.0)
        idle.find_all()
    with at(5.3):
        place.metered(T0 + 5 * HOUR, train=0.0)
        idle.find_all()
        settle(only=ONLY)
        case = place.case("train")
        assert case.status == IdleStatus.ENDED
        assert "gpu-commons-production" in case.answer
        assert case.stop_order is not None
        assert case.stop_order.status == StopStatus.REFUSED
        assert idle.find_all() == 0
    assert not place.live.get("Job", "train", place.workspace.namespace)["spec"].get("suspend")


@pytest.mark.requirement("insights-1.2", "insights-3.5")
def test_what_cannot_be_stopped_is_said_from_the_start(place: Place) -> None:
    """Its owner is asked to stop it; the portal tries nothing that it cannot do, and does not ask every hour."""
    holdings = [hold("db", place.workspace.namespace, T0, T0 + 9 * HOUR, 2, used=0.0, kind="StatefulSet")]
    with at(4.2):
        ingest(place.world, holdings, T0, T0 + 4 * HOUR)
        assert idle.find_all() == 1
        told = OutboxMessage.objects.get(event="insights.idle.noticed")
        assert "please stop it yourself" in told.payload["detail"]
    with at(5.3):
        ingest(place.world, holdings, T0 + 4 * HOUR, T0 + 5 * HOUR)
        idle.find_all()
        settle(only=ONLY)
        assert place.case("db").status == IdleStatus.ENDED
        assert "deletes nothing" in place.case("db").answer
        assert idle.find_all() == 0


@pytest.mark.requirement("insights-3.8")
def test_after_a_start_only_new_idleness_counts(place: Place, company: Company) -> None:
    """The hours before it was started again are not held against it."""
    owner_applies(place.live, deployment(place.workspace.namespace, replicas=2))
    lead = Actor.of(company.lead_finance)
    with at(4.2):
        place.metered(T0 + 4 * HOUR, serve=0.0)
        idle.find_all()
        case = place.case()
        idle_actions.stop_now(case.pk, actor=lead)
        settle(only=ONLY)
        idle_actions.start_again(case.pk, actor=lead)
        settle(only=ONLY)
        case.refresh_from_db()
        assert case.status == IdleStatus.RESUMED
        assert idle.find_all() == 0
    with at(7.2):
        place.metered(T0 + 7 * HOUR, serve=0.0)
        assert idle.find_all() == 0
    with at(9.3):
        place.metered(T0 + 9 * HOUR, serve=0.0)
        assert idle.find_all() == 1
    assert place.case().pk != case.pk


@pytest.mark.requirement("insights-3.9")
def test_saved_time_is_counted_for_thirty_days_at_most(place: Place, company: Company) -> None:
    """Hour by hour or at once, the same; and never for ever."""
    case = IdleCase.objects.create(
        workspace=place.workspace, team=company.finance_team, workload_kind="Job", workload_name="old", gpus=3,
        flavour=place.world.flavour, idle_since=T0, noticed_at=T0, stop_at=T0, status=IdleStatus.STOPPED,
        stopped_at=T0, counted_until=T0, policy=POLICY,
    )  # fmt: skip
    for hours in (1.5, 2.7, 100, 800, 1200):
        with at(hours):
            idle.count_saved(clock.now())
    case.refresh_from_db()
    assert case.saved_gpu_ms == 3 * 30 * 24 * 3_600_000
    assert case.counted_until == T0 + timedelta(days=30)


@pytest.mark.requirement("insights-3.6")
def test_keeping_needs_a_reason_and_an_end(place: Place, company: Company) -> None:
    """Both are said at their field."""
    with at(4.2):
        place.metered(T0 + 4 * HOUR, serve=0.0)
        idle.find_all()
        case, lead = place.case(), Actor.of(company.lead_finance)
        for until, reason, field in (
            (clock.now(), WHY, "until"),
            (clock.now() + timedelta(days=15), WHY, "until"),
            (clock.now() + HOUR, "no", "reason"),
        ):
            with pytest.raises(Invalid) as caught:
                idle_actions.keep(case.pk, until, reason, actor=lead)
            assert list(caught.value.errors) == [field]


@pytest.mark.requirement("insights-3.7")
def test_an_order_that_came_first_is_left_to_its_cause(place: Place) -> None:
    """A namespace that is being drained stops its workloads on that account."""
    from apps.provisioning import stopping

    with at(4.2):
        place.metered(T0 + 4 * HOUR, serve=0.0)
        idle.find_all()
        stopping.order_stop(
            place.world.cluster.pk, "Deployment", place.workspace.namespace, "serve", team_id=None, cause="drain",
            cause_uid=uuid.uuid4(),
        )  # fmt: skip
    with at(5.3):
        place.metered(T0 + 5 * HOUR, serve=0.0)
        idle.find_all()
        assert (place.case().status, place.case().answer) == (IdleStatus.ENDED, "It is being stopped already.")
