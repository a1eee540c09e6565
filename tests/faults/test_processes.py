"""Real processes, broken one at a time: a round trip, Redis gone and hung, PostgreSQL restarted, a worker killed."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from apps.approvals.models import ApprovalRequest
from apps.audit.models import AuditEvent
from apps.audit.verification import verify_trail
from apps.core import clock
from apps.core.models import Lease
from apps.demo import seed
from apps.metering import actions as metering
from apps.metering.choices import SourceKind
from apps.metering.models import HourStatus
from apps.metering.tasks import ingest_due
from apps.notifications.models import SentMail
from apps.provisioning.choices import RunOutcome
from apps.provisioning.models import ApplyRun, DeclaredObject
from apps.quotas import actions as quotas
from apps.quotas.choices import RequestStatus
from apps.quotas.models import QuotaRequest
from tests.acceptance.world import until
from tests.faults.installation import Answer, Site, installed

pytestmark = [pytest.mark.broker, pytest.mark.cluster]
#: Seconds that work in other processes is waited for at most: the machine may be busy with other tests.
PATIENCE = 120.0


@pytest.fixture(scope="module")
def running(django_db_setup: None, django_db_blocker: Any) -> Iterator[Site]:
    """One installation for all tests of this file; its folder is one that an unprivileged server can enter."""
    folder = Path(tempfile.mkdtemp(prefix="gpu-commons-faults-"))
    if os.geteuid() == 0:
        folder.chmod(0o755)
    try:
        with django_db_blocker.unblock(), installed(folder / "site") as site:
            yield site
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def site(running: Site, django_db_blocker: Any) -> Iterator[Site]:
    """The installation with everything in order."""
    running.cluster.faults.clear()
    with django_db_blocker.unblock():
        yield running
    running.cluster.faults.clear()


def status_of(request: QuotaRequest) -> str:
    request.refresh_from_db()
    return str(request.status)


def submit(site: Site, team: str, guaranteed: int, **changes: Any) -> tuple[QuotaRequest, Answer]:
    """As the team's lead, on the page."""
    form = site.world.form(team, guaranteed=guaranteed, **changes)
    answer = site.browser(f"{team}-lead").ask("/quotas/requests/new/", form)
    assert answer.status == 303, answer.body[-2000:]
    return QuotaRequest.objects.filter(workspace__team__slug=team).latest("pk"), answer


def approve(site: Site, request: QuotaRequest) -> Answer:
    """As the unit's owner, on the page."""
    approval = ApprovalRequest.objects.get(pk=request.approval_id)
    answer = site.browser("vp").ask(
        f"/approvals/requests/{approval.uid}/decide/",
        {
            "digest": approval.subject_digest, "version": approval.version, "verdict": "approve", "confirmed": "on",
            "reason": "Within the plan.",
        },
    )  # fmt: skip
    assert answer.status == 303, answer.body[-2000:]
    return answer


def active(site: Site, request: QuotaRequest) -> None:
    until(lambda: status_of(request) == RequestStatus.ACTIVE, PATIENCE, f"applied; worker: {site.log('worker')}")


def usual(site: Site, key: str, *paths: str) -> float:
    """How long the slowest of these pages takes with everything in order, at the load that the machine has now."""
    browser = site.browser(key)
    return max(browser.ask(path).seconds for path in paths)


def held_up(answers: list[Answer], usual_seconds: float) -> list[float]:
    """The answers that took two seconds more than a few usual pages; an action does as much as several pages do."""
    return [answer.seconds for answer in answers if answer.seconds > 2 + 4 * usual_seconds]


@pytest.mark.requirement("resilience-1.2", "resilience-1.1")
def test_worker_and_beat_bring_a_request_home(site: Site) -> None:
    """Nobody but web, worker and beat: planned, applied, mailed, metered and priced, within a minute."""
    request, _ = submit(site, "finance", 8)
    until(lambda: QuotaRequest.objects.get(pk=request.pk).plan.status == "ready", PATIENCE, site.log("worker"))  # type: ignore[union-attr]  # a plan was requested
    approve(site, request)
    began = time.monotonic()
    active(site, request)
    assert time.monotonic() - began < 60
    assert site.world.hard("finance") == "8"
    source = metering.register_source(
        site.world.cluster.pk, SourceKind.ALLOCATION, "", site.cluster.allocation_url,
        clock.now() - timedelta(hours=4), actor=seed.SEEDER,
    )  # fmt: skip
    ingest_due.delay()
    until(lambda: HourStatus.objects.filter(source=source, revision__gt=0).count() >= 2, PATIENCE, site.log("worker"))
    until(
        lambda: SentMail.objects.filter(status="sent", user=site.world.user("vp")).exists(), PATIENCE, site.log("beat")
    )
    assert list((site.folder / "mail").iterdir())
    assert verify_trail().findings_total == 0


@pytest.mark.requirement("resilience-2.1", "resilience-2.2")
def test_without_redis_people_work_on_and_the_sweeps_do_the_rest(site: Site) -> None:
    """Stopped, then back without a single message: what was asked and decided meanwhile is applied all the same."""
    paths = ("/", "/teams/marketing/", "/quotas/requests/new/")
    usually = usual(site, "marketing-lead", *paths)
    site.redis.stop()
    ready = site.ready()
    assert (ready.status, '"degraded"' in ready.body) == (200, True)
    request, answer = submit(site, "marketing", 6)
    answers = [answer, approve(site, request)]
    for path in (*paths, f"/quotas/requests/{request.uid}/"):
        page = site.browser("marketing-lead").ask(path)
        assert page.status == 200, path
        answers.append(page)
    assert held_up(answers, usually) == []
    assert status_of(request) == RequestStatus.APPLYING
    site.redis.start()
    active(site, request)
    assert site.world.hard("marketing") == "6"
    until(lambda: '"ready"' in site.ready().body, PATIENCE)


@pytest.mark.requirement("resilience-2.1")
def test_a_redis_that_hangs_holds_nobody_up(site: Site) -> None:
    """It takes connections and says nothing: harder than one that is gone."""
    assert site.redis.process is not None
    usually = usual(site, "marketing-lead", "/", "/quotas/requests/new/")
    os.kill(site.redis.process.pid, signal.SIGSTOP)
    try:
        request, answer = submit(site, "marketing", 10)
        answers = [answer, approve(site, request), site.browser("vp").ask("/")]
    finally:
        os.kill(site.redis.process.pid, signal.SIGCONT)
    assert held_up(answers, usually) == []
    active(site, request)
    assert site.world.hard("marketing") == "10"


@pytest.mark.requirement("resilience-2.3")
def test_postgres_restarted_under_everything(site: Site) -> None:
    """503 with a time to try again while it is away, then as before: no process was restarted for it."""
    lead = site.browser("research-lead")
    assert lead.ask("/teams/research/").status == 200
    pids = {name: process.pid for name, process in site.processes.items()}
    form = site.world.form("research", guaranteed=2)
    site.postgres.stop()
    away = lead.ask("/teams/research/")
    assert (away.status, away.headers.get("Retry-After")) == (503, "5")
    assert "does not answer" in away.body
    posted = lead.ask("/quotas/requests/new/", form)
    assert posted.status == 503
    api = lead.ask("/api/v1/quota-requests")
    assert (api.status, api.headers["Content-Type"]) == (503, "application/problem+json")
    assert site.ready().status == 503
    assert lead.ask("/health").status == 200
    site.postgres.start()
    connection.close()  # this process's own; the portal's mend themselves
    again = lead.ask("/teams/research/")
    assert again.status == 200
    assert not QuotaRequest.objects.filter(workspace__team__slug="research").exists()
    request, _ = submit(site, "research", 2)
    active(site, request)
    assert site.world.hard("research") == "2"
    assert pids == {name: process.pid for name, process in site.processes.items()}
    assert all(site.running(name) for name in pids)


@pytest.mark.requirement("resilience-4.1")
def test_a_worker_killed_between_two_objects(site: Site) -> None:
    """SIGKILL with the quota written and its role binding not: the next worker finds it, ends it, and says so."""
    cluster = site.world.cluster
    place = quotas.create_workspace(
        site.world.workspace("finance").team_id, cluster.pk, "staging", ["internal"], actor=seed.SEEDER
    )
    site.cluster.faults.set("slow", delay_ms=20_000, match="rolebindings", methods=["PATCH"])
    request, _ = submit(site, "finance", 12, workspace=place.pk)
    runs = ApplyRun.objects.filter(declaration__owner_uid=place.uid)
    approve(site, request)

    def found(kind: str) -> list[str]:
        return [item["metadata"]["name"] for item in site.world.live.list(kind, namespace=place.namespace).items]

    until(lambda: found("ResourceQuota"), PATIENCE, site.log("worker"))
    site.kill("worker")
    assert found("RoleBinding") == []
    site.cluster.faults.clear()
    died = runs.get()
    assert died.outcome == RunOutcome.RUNNING
    site.start("worker")
    lease = Lease.objects.get(holder=died.lease_token)
    assert (lease.expires_at - died.started_at).total_seconds() < 60
    assert status_of(request) == RequestStatus.APPLYING
    # Let the dead worker's half minute pass.
    Lease.objects.filter(pk=lease.pk).update(expires_at=clock.now())
    active(site, request)
    died.refresh_from_db()
    assert died.outcome == RunOutcome.ABANDONED
    declared = DeclaredObject.objects.filter(declaration=died.declaration)
    for kind in ("ResourceQuota", "LimitRange", "NetworkPolicy", "RoleBinding"):
        assert sorted(found(kind)) == sorted(declared.filter(kind=kind).values_list("name", flat=True)), kind
    told = AuditEvent.objects.filter(object_id=died.declaration.uid).order_by("occurred_at")
    assert [event.action.rpartition(".")[2] for event in told] == ["declared", "abandoned", "applied"]
    assert verify_trail().findings_total == 0
