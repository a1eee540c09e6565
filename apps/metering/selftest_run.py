"""Carries self-tests out: claim the source, ask without a transaction, record. The sweep is the guarantee."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q

from apps import audit
from apps.clusters import crypto
from apps.clusters.choices import DeviceClass
from apps.clusters.clients.guard import no_transaction
from apps.clusters.errors import ClusterError
from apps.clusters.models import Node, Pool
from apps.core import clock, leases, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, NotVisible
from apps.core.models import Lease
from apps.core.sweeps import nudge
from apps.metering import fitness, selftest_allocation, selftest_prometheus
from apps.metering.actions import require
from apps.metering.choices import CheckVerdict, SourceKind
from apps.metering.events import SOURCE_TEST_FAILED, SOURCE_TESTED, SourceTested, SourceTestFailed
from apps.metering.models import Source, SourceCheck
from apps.metering.selftest import FAILED, Finding, Knowledge, Outcome, failed_codes, unanswered, verdict, voided
from apps.metering.selftest_intervals import check_intervals
from apps.metering.source_exclusive import ALLOCATION_KINDS, shared_gpus
from apps.metering.sources.base import gpu_resources

logger = logging.getLogger(__name__)

EVERY = timedelta(hours=6)
#: A server that gave no answer is looked for again sooner: its hours carry the flag until it is found well.
AGAIN = timedelta(minutes=15)
LEASE_SECONDS = 180.0
#: Self-tests kept for each source, and how long one sweep works before others get their turn.
KEPT = 200
SLICE_SECONDS = 240.0


@dataclass(frozen=True, slots=True)
class Moving:
    """A self-test that waits or runs: `done` of `total` questions."""

    running: bool
    done: int = 0
    total: int = 0
    what: str = ""


def _lease(source: Source) -> str:
    return f"metering.selftest.{source.pk}"


@transaction.atomic
def request_check(source_id: int, *, actor: Actor) -> Source:
    """Have a source tested now; one that waits already is left as it is. Raises NotVisible, NotAllowed."""
    from apps.metering.tasks import check_sources

    require(actor, "metering.run.retry")
    source = Source.objects.locked(source_id)
    newest = fitness.newest_checks([source.pk]).get(source.pk)
    after = newest.checked_at + timedelta(microseconds=1) if newest is not None else clock.now()
    source.check_requested_at, source.check_requested_by_id = max(clock.now(), after), actor.user_id
    source.save(update_fields=["check_requested_at", "check_requested_by"])
    nudge(check_sources)
    return source


def void_verdict(source: Source, changed: Sequence[str], *, by_id: int | None) -> SourceCheck | None:
    """Put "unknown" after the newest self-test of a source that is asked otherwise from now on; None: never tested.

    Inside the transaction that changes the source, which is locked; that change's event tells of it.
    """
    newest = fitness.newest_checks([source.pk]).get(source.pk)
    if newest is None:
        return None
    return SourceCheck.objects.create(
        source=source,
        verdict=CheckVerdict.UNKNOWN,
        findings=[voided(changed).as_json()],
        started_by_id=by_id,
        checked_at=max(clock.now(), newest.checked_at + timedelta(microseconds=1)),
    )


#: Options that change how patiently a server is asked, or what was imported, but not what is asked of whom.
_NO_QUESTION = frozenset({"timeout_seconds", "test_seconds", "windows"})


def _question(source: Source) -> tuple[str, str, dict[str, object]]:
    """Return what is asked of whom: a verdict counts for this and nothing else."""
    options = {key: value for key, value in (source.options or {}).items() if key not in _NO_QUESTION}
    return source.kind, source.url, options


def moving(source: Source, newest: SourceCheck | None = None) -> Moving | None:
    """Return how far the self-test of a source is; None where none waits or runs."""
    lease = Lease.objects.filter(name=_lease(source), expires_at__gt=clock.now()).first()
    if lease is not None:
        detail = lease.detail or {}
        return Moving(True, int(detail.get("done", 0)), int(detail.get("total", 0)), str(detail.get("what", "")))
    asked = source.check_requested_at
    if asked is not None and (newest is None or newest.checked_at < asked):
        return Moving(False)
    return None


def due_sources() -> list[Source]:
    """Return the sources to be tested now: asked for, in force and never tested, or tested too long ago."""
    now = clock.now()
    asked = Q(check_requested_at__isnull=False)
    found = list(Source.objects.filter(asked | Q(valid__contains=now)).select_related("cluster").order_by("pk"))
    checks = fitness.newest_checks(source.pk for source in found)
    return [source for source in found if _due(source, checks.get(source.pk), now)]


def _due(source: Source, newest: SourceCheck | None, now: datetime) -> bool:
    asked = source.check_requested_at
    if asked is not None and (newest is None or newest.checked_at < asked):
        return True
    in_force = now in source.valid
    if newest is None or not in_force:
        return in_force
    silent = newest.verdict == CheckVerdict.FAILED and "reachable" in failed_codes(newest.findings)
    return newest.checked_at <= now - (AGAIN if silent else EVERY)


def run_due(*, only: int | None = None) -> int:
    """Test the sources that are due; returns how many were tested. Raises inside a transaction of ours."""
    no_transaction("testing sources of usage")
    done, until = 0, time.monotonic() + SLICE_SECONDS
    for source in due_sources():
        if only is not None and source.pk != only:
            continue
        if time.monotonic() > until:
            break
        try:
            done += check_source(source.pk, actor=Actor.system("metering.check_sources")) is not None
        except Conflict:
            logger.info("another worker tests this source", extra={"source": str(source.uid)})
    return done


def check_source(source_id: int, *, actor: Actor, at: datetime | None = None) -> SourceCheck | None:
    """Test one source now and record the outcome; None while another worker tests it.

    `at`: the moment that the server is asked about (default: now, or the source's end). Whatever the source does, the
    outcome is a row. Raises NotVisible, NotAllowed, Conflict where the lease moved to another worker, or the source was
    changed, meanwhile.
    """
    require(actor, "metering.run.retry")
    source = Source.objects.select_related("cluster").filter(pk=source_id).first()
    if source is None:
        raise NotVisible
    name = _lease(source)
    token = leases.claim(name, seconds=LEASE_SECONDS)
    if token is None:
        return None
    try:
        asked_by = actor.user_id or source.check_requested_by_id
        outcome = _ask(source, _moment(source, at), _teller(name, token))
        return _record(source, outcome, name, token, actor, asked_by)
    finally:
        leases.release(name, token)


def _moment(source: Source, at: datetime | None) -> datetime:
    now = clock.now()
    if at is not None:
        return at
    upper = source.valid.upper
    return min(now, upper) if upper is not None else now


def _teller(name: str, token: uuid.UUID) -> Callable[[int, int, str], None]:
    def tell(done: int, total: int, what: str) -> None:
        """Write down how far the test is, and keep the lease."""
        leases.extend(name, token, seconds=LEASE_SECONDS)
        Lease.objects.filter(name=name, holder=token).update(detail={"done": done, "total": total, "what": what})

    return tell


def knowledge_of(source: Source) -> Knowledge:
    """Return what the portal knows of the source's cluster."""
    nodes = Node.objects.filter(cluster_id=source.cluster_id, physical_gpus__gt=0).values_list("name", flat=True)
    models = Pool.objects.filter(cluster_id=source.cluster_id, device_class=DeviceClass.GPU)
    shared = shared_gpus(source.cluster_id) if source.kind in ALLOCATION_KINDS else ()
    return Knowledge(frozenset(nodes), frozenset(models.values_list("gpu_model", flat=True)), shared)


def _ask(source: Source, at: datetime, tell: Callable[[int, int, str], None]) -> Outcome:
    """Ask whatever kind of source it is; errors of address and credentials are findings, too."""
    known = knowledge_of(source)
    if source.kind == SourceKind.CSV:
        return Outcome(check_intervals(source))
    options = source.options or {}
    try:
        token = crypto.decrypt(source.credentials)
        if source.kind == SourceKind.PROMETHEUS:
            return selftest_prometheus.run(
                source.url,
                token=token,
                resources=tuple(gpu_resources(options)),
                selector=str(options.get("cluster_filter", "")),
                at=at,
                known=known,
                tell=tell,
                seconds=float(options.get("test_seconds", selftest_prometheus.QUESTION_SECONDS)),
            )
        return selftest_allocation.run(
            source.url, token=token, kind=source.kind, options=options, at=at, known=known, tell=tell
        )
    except crypto.CannotDecrypt as error:
        todo = "Register the source again: the installation's secret key has changed since its token was stored."
        return Outcome([Finding("address", FAILED, str(error), todo)])
    except ClusterError as error:
        return Outcome([unanswered("reachable", error)])


@transaction.atomic
def _record(
    source: Source, outcome: Outcome, name: str, token: uuid.UUID, actor: Actor, asked_by: int | None
) -> SourceCheck:
    """Write a finished test; those who answer for the bill are told where it fails anew.

    Raises Conflict where the lease moved, or the source is asked otherwise since the test began: the outcome is of the
    former server, and the test that was asked for with the change is still due.
    """
    leases.require(name, token)
    locked = Source.objects.select_for_update().get(pk=source.pk)
    if _question(locked) != _question(source):
        raise Conflict("The source was changed while it was tested: it is tested again.")
    before = fitness.newest_checks([source.pk]).get(source.pk)
    # What was asked for before the test began is answered by it, however coarse the clock is.
    now = max(clock.now(), source.check_requested_at or clock.now())
    check = SourceCheck.objects.create(
        source=source,
        verdict=verdict(outcome.findings),
        findings=[finding.as_json() for finding in outcome.findings],
        requests=outcome.requests,
        started_by_id=asked_by,
        checked_at=now,
    )
    if locked.check_requested_at is not None and locked.check_requested_at <= check.checked_at:
        locked.check_requested_by_id = None
        locked.save(update_fields=["check_requested_by"])
    stale = SourceCheck.objects.filter(source=source).order_by("-checked_at", "-pk")
    SourceCheck.objects.filter(pk__in=list(stale.values_list("pk", flat=True)[KEPT:])).delete()
    failing = failed_codes(check.findings)
    payload = SourceTested(check.uid, source.uid, check.verdict, failing)
    if before is None or before.verdict != check.verdict or failed_codes(before.findings) != failing:
        audit.record(SOURCE_TESTED, payload, actor=actor, subject_type="metering.source", subject_uid=source.uid)
        if failing:
            told = SourceTestFailed(check.uid, source.uid, source.name, source.cluster.name, failing)
            outbox.publish(SOURCE_TEST_FAILED, told, recipients=_who_acts(), subject_uid=source.uid)
    return check


def _who_acts() -> list[int]:
    from apps.teams import scope

    return scope.holders("metering.import.create")
