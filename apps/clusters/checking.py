"""Checks of clusters as rows: asked for, carried out by a worker under a lease, written step by step.

A worker that dies leaves its check running; once its lease has run out the sweep carries it out from the start.
"""

from __future__ import annotations

import logging
import time
import uuid
from datetime import timedelta

from django.db import transaction

from apps import audit
from apps.clusters import capabilities, crypto, events, preflight
from apps.clusters.access import require
from apps.clusters.capabilities import Capabilities
from apps.clusters.choices import CheckStatus, GuardMode, KueueMode, StepOutcome
from apps.clusters.clients.guard import no_transaction
from apps.clusters.errors import Throttled, Unauthorised
from apps.clusters.health import record_contact, record_throttle
from apps.clusters.models import Cluster, ClusterCheck
from apps.core import clock, leases, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict
from apps.core.sweeps import nudge

logger = logging.getLogger(__name__)
MANAGE = "clusters.cluster.manage"
#: A worker that dies holds a check up for at most so long; a living one prolongs it with every step.
LEASE_SECONDS = 60.0
#: Checks kept for each cluster.
KEPT = 20
#: One sweep works for so long at most before the next one gets its turn.
SLICE_SECONDS = 60.0


@transaction.atomic
def request_check(cluster_id: int, *, actor: Actor, expected_version: int | None = None) -> ClusterCheck:
    """Have a cluster checked; a check that waits already is returned as it is.

    Raises NotVisible, NotAllowed, Conflict where the cluster is paused (nothing is called there).
    """
    cluster = Cluster.objects.locked(cluster_id, expected_version=expected_version)
    require(actor, MANAGE, cluster)
    if cluster.paused_at is not None:
        raise Conflict("This cluster is paused: resume it first.", current={"reason": cluster.pause_reason})
    return queue(cluster, actor)


def queue(cluster: Cluster, actor: Actor) -> ClusterCheck:
    """Queue a check of a cluster that the caller holds locked, in the caller's transaction."""
    from apps.clusters import tasks

    waiting = ClusterCheck.objects.filter(cluster=cluster, status=CheckStatus.PENDING).first()
    check = waiting or ClusterCheck.objects.create(cluster=cluster, requested_by_id=actor.user_id)
    nudge(tasks.run_checks)
    return check


def run_due() -> int:
    """Carry out the checks that wait, or that a dead worker left; returns how many. Raises inside a transaction."""
    no_transaction("checking clusters")
    done, until = 0, time.monotonic() + SLICE_SECONDS
    open_ = ClusterCheck.objects.exclude(status=CheckStatus.DONE).filter(cluster__paused_at__isnull=True)
    for check in open_.select_related("cluster").order_by("pk")[:100]:
        if time.monotonic() > until:
            break
        token = leases.claim(_lease(check), seconds=LEASE_SECONDS)
        if token is None:
            continue
        try:
            _run(check, token)
            done += 1
        except Conflict:
            logger.warning("another worker took a check over", extra={"check": str(check.uid)})
        finally:
            leases.release(_lease(check), token)
    return done


def _lease(check: ClusterCheck) -> str:
    return f"check:{check.uid}"


def _run(check: ClusterCheck, token: uuid.UUID) -> None:
    cluster = check.cluster

    def written(result: preflight.Result) -> None:
        _write(check, token, result, CheckStatus.RUNNING)

    written(preflight.Result())
    try:
        secret = crypto.decrypt(cluster.credentials)
    except crypto.CannotDecrypt as error:
        result = preflight.cannot_begin(str(error))
    else:
        target = preflight.Target(cluster.api_url, cluster.ca_certificate, secret, parts_used(cluster))
        result = preflight.run(target, written)
    _write(check, token, result, CheckStatus.DONE)
    _conclude(cluster, result)


def parts_used(cluster: Cluster) -> frozenset[str]:
    """Return the keys of the parts (rbac.PARTS) that the portal uses on a cluster by an admin's decision."""
    used = set()
    if cluster.kueue_mode != KueueMode.OFF:
        used.add("kueue")
    if cluster.guard_mode != GuardMode.OFF:
        used.add("guard")
    return frozenset(used)


def _write(check: ClusterCheck, token: uuid.UUID, result: preflight.Result, status: str) -> None:
    """Write the steps so far. Raises Conflict where the lease moved on."""
    with transaction.atomic():
        leases.require(_lease(check), token)
        row = ClusterCheck.objects.select_for_update().filter(pk=check.pk).first()
        if row is None or row.status == CheckStatus.DONE:
            raise Conflict("This check is done already.")
        row.steps = [step.as_json() for step in result.steps]
        row.status = status
        if row.started_at is None or (status == CheckStatus.RUNNING and not result.steps):
            row.started_at = clock.now()
        row.finished_at = clock.now() if status == CheckStatus.DONE else None
        row.bump("steps", "status", "started_at", "finished_at")
        if status == CheckStatus.DONE:
            stale = ClusterCheck.objects.filter(cluster_id=row.cluster_id, status=CheckStatus.DONE)
            stale.filter(pk__in=list(stale.order_by("-pk").values_list("pk", flat=True)[KEPT:])).delete()
    leases.extend(_lease(check), token, seconds=LEASE_SECONDS)


def _conclude(cluster: Cluster, result: preflight.Result) -> None:
    """Write down at the cluster what a check found, unless its access was replaced meanwhile."""
    with transaction.atomic():
        row = Cluster.objects.select_for_update(no_key=True).filter(pk=cluster.pk).first()
        if row is None or _access(row) != _access(cluster):
            return
        row.credentials_expire_at = result.credentials_expire_at
        if result.certificate_expires_at is not None:
            row.certificate_expires_at = result.certificate_expires_at
        # The probe follows at once: it reads nodes and capacity.
        row.probed_at = None
        row.save(update_fields=["credentials_expire_at", "certificate_expires_at", "probed_at", "updated_at"])
    if result.capabilities is not None:
        remember(cluster.pk, result.capabilities)
    if isinstance(result.error, Throttled):
        record_throttle(cluster.pk, result.error.retry_after)
    elif result.error is not None and (not result.signed_in or isinstance(result.error, Unauthorised)):
        record_contact(cluster.pk, False, result.error)
    elif result.signed_in:
        record_contact(cluster.pk, True)


def _access(cluster: Cluster) -> tuple[str, str, bytes]:
    return cluster.api_url, cluster.ca_certificate, bytes(cluster.credentials)


@transaction.atomic
def remember(cluster_id: int, found: Capabilities) -> None:
    """Store what a cluster was found to be able to do; a change is audited and told to the platform admins."""
    from apps.teams import scope

    cluster = Cluster.objects.select_for_update(no_key=True).filter(pk=cluster_id).first()
    if cluster is None:
        return
    before = capabilities.of(cluster)
    if before.checked_at is not None and found.checked_at is not None and found.checked_at < before.checked_at:
        return  # a slow worker must not overwrite what a later one found
    cluster.capabilities = capabilities.as_json(found)
    cluster.kubernetes_version = found.kubernetes_version[:60]
    cluster.save(update_fields=["capabilities", "kubernetes_version", "updated_at"])
    changes = capabilities.differences(before, found) if before.checked_at is not None else []
    if changes:
        payload = events.CapabilitiesChanged(cluster.slug, cluster.name, changes)
        actor = Actor.system("clusters.checking")
        audit.record(
            events.CAPABILITIES_CHANGED, payload, actor=actor, subject_type="clusters.cluster", subject_uid=cluster.uid
        )
        outbox.publish(events.CAPABILITIES_CHANGED, payload, recipients=scope.holders(MANAGE), subject_uid=cluster.uid)


def verdict(check: ClusterCheck) -> str:
    """Return the worst outcome of a finished check's steps (failed, warning, ok), "" while it is not finished."""
    if check.status != CheckStatus.DONE:
        return ""
    outcomes = {step.get("outcome") for step in check.steps}
    order = (StepOutcome.FAILED, StepOutcome.WARNING)
    return next((str(outcome) for outcome in order if outcome in outcomes), str(StepOutcome.OK))


def refresh_due(cluster: Cluster) -> bool:
    """Whether what a cluster can do is to be looked at again by the probe."""
    checked = capabilities.of(cluster).checked_at
    return checked is None or clock.now() - checked >= REFRESH_EVERY


#: How often the probe looks again what a cluster can do.
REFRESH_EVERY = timedelta(minutes=10)

__all__ = ["queue", "refresh_due", "remember", "request_check", "run_due", "verdict"]
