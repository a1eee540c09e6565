"""Readings of existing namespaces as rows: asked for by a person, carried out by a worker under a lease, written step
by step. A worker that dies leaves its reading running; once its lease has run out the sweep starts it anew.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q

from apps.clusters import capabilities, health, kinds, rbac
from apps.clusters.clients.guard import no_transaction
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.clusters.errors import ClusterError, Throttled
from apps.clusters.models import Cluster
from apps.clusters.selectors import callable_now
from apps.core import clock, leases
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.permissions import may
from apps.core.sweeps import nudge
from apps.provisioning import retries
from apps.quotas import adopting_proposal, adopting_reader, change_records
from apps.quotas.changes import acting_user, request_change
from apps.quotas.choices import OPEN_STATUSES, ChangeKind, DataClass, Environment, ReadingStatus
from apps.quotas.models import ChangeRequest, NamespaceReading
from apps.teams.models import Team

logger = logging.getLogger(__name__)
MANAGE = "quotas.workspace.manage"
#: A worker that dies holds a reading up for at most so long; a living one prolongs it with every step.
LEASE_SECONDS = 60.0
#: One sweep works for so long at most before the next one gets its turn.
SLICE_SECONDS = 60.0
#: A cluster that does not answer is asked again for so long.
GIVE_UP_AFTER = timedelta(hours=24)
#: What an open request stands on is read again before it is too old to decide on.
REFRESH_AFTER = timedelta(hours=adopting_proposal.GOOD_FOR_HOURS) / 2
#: Readings without a request that are kept for each cluster.
KEPT = 20

_RESERVED = re.compile(r"^(kube-.*|openshift|openshift-.*|default)$")
#: Where the portal, Kueue and KServe themselves live.
_SYSTEM = frozenset({rbac.NAMESPACE, capabilities.KUEUE_NAMESPACE, rbac.KSERVE_NAMESPACE, "keda"})


def check_namespace(name: str) -> str:
    """Return the name of a namespace that may be adopted. Raises Invalid."""
    text = name.strip()
    try:
        kinds.check_name(kinds.KINDS["Namespace"], text)
    except ValueError as error:
        raise Invalid(
            {"namespace": "That is no namespace: lower-case letters, digits and hyphens, at most 63 characters."}
        ) from error
    if _RESERVED.match(text) or text in _SYSTEM:
        raise Invalid(
            {"namespace": f"“{text}” belongs to the cluster itself or to what runs it: it is nobody's team's."}
        )
    return text


def _allowed(actor: Actor, cluster: Cluster) -> int:
    """Return the id of a person who may adopt namespaces of a cluster. Raises NotAllowed."""
    user = acting_user(actor)
    for permission, obj in (("quotas.change.create", cluster), (MANAGE, None)):
        if not may(user, permission, obj):
            raise NotAllowed("Namespaces are adopted by platform admins.", rule=permission)
    return int(user.pk)


@transaction.atomic
def request_reading(
    cluster_id: int, namespace: str, team_id: int, environment: str, data_classes: Sequence[str], *, actor: Actor
) -> NamespaceReading:
    """Have a namespace read for a team; a worker does it. Raises NotVisible, NotAllowed, Invalid per field."""
    cluster = Cluster.objects.filter(pk=cluster_id).first()
    if cluster is None:
        raise NotVisible
    user_id = _allowed(actor, cluster)
    if cluster.archived_at is not None:
        raise Invalid({"": f"{cluster} is archived: nothing new is taken in there."})
    name = check_namespace(namespace)
    team = Team.objects.filter(pk=team_id, archived_at__isnull=True).first()
    errors: dict[str, str] = {}
    if team is None:
        errors["team"] = "Choose a team."
    if environment not in Environment.values:
        errors["environment"] = "Choose development, staging or production."
    if unknown := sorted(set(data_classes) - set(DataClass.values)):
        errors["data_classes"] = f"Unknown data class: {', '.join(unknown)}."
    if team is None or errors:
        raise Invalid(errors)
    if against := adopting_proposal.standing_against(cluster, team, environment, name):
        raise Invalid({"namespace": against})
    _refuse_second(cluster, name)
    row = NamespaceReading.objects.create(
        cluster=cluster,
        namespace=name,
        team=team,
        environment=environment,
        data_classes=sorted(set(data_classes)),
        requested_by_id=user_id,
        asked_at=clock.now(),
    )
    old = NamespaceReading.objects.filter(cluster=cluster, change__isnull=True).order_by("-pk")
    NamespaceReading.objects.filter(pk__in=list(old.values_list("pk", flat=True)[KEPT:])).delete()
    _nudge()
    return row


def _refuse_second(cluster: Cluster, namespace: str) -> None:
    rows = ChangeRequest.objects.filter(cluster=cluster, kind=ChangeKind.ADOPT_NAMESPACE, status__in=OPEN_STATUSES)
    if rows.filter(values__namespace=namespace).exists():
        raise Invalid({"namespace": "Its adoption is requested already. Let it be decided, or withdraw that request."})


@transaction.atomic
def read_again(reading_id: int, *, actor: Actor, expected_version: int | None = None) -> NamespaceReading:
    """Read a namespace once more, before its adoption is asked for. Raises NotVisible, NotAllowed, Conflict."""
    row = NamespaceReading.objects.locked(reading_id, expected_version=expected_version)
    _allowed(actor, row.cluster)
    if row.change_id is not None:
        raise Conflict(
            "Its adoption is requested: the portal reads it again by itself.", current={"version": row.version}
        )
    if row.is_moving:
        raise Conflict("It is being read already.", current={"version": row.version})
    _put_back(row)
    return row


def _put_back(row: NamespaceReading) -> None:
    row.status, row.steps, row.asked_at = ReadingStatus.PENDING, [], clock.now()
    row.attempts, row.retry_at, row.error, row.error_class = 0, None, "", ""
    row.bump("status", "steps", "asked_at", "attempts", "retry_at", "error", "error_class")
    _nudge()


def _nudge() -> None:
    from apps.quotas import tasks

    nudge(tasks.read_namespaces)


@transaction.atomic
def request_adoption(
    reading_id: int, units: Mapping[str, int], reason: str, *, actor: Actor, expected_version: int | None = None
) -> ChangeRequest:
    """Ask to adopt what was read, with so many units by flavour slug.

    Raises NotVisible, NotAllowed, Invalid per field (`gpus_<flavour>`), Conflict where it was read anew meanwhile.
    """
    row = NamespaceReading.objects.locked(reading_id, expected_version=expected_version)
    _allowed(actor, row.cluster)
    change = request_change(
        ChangeKind.ADOPT_NAMESPACE,
        cluster_id=row.cluster_id,
        values={"reading_uid": str(row.uid), "units": dict(units)},
        reason=reason,
        actor=actor,
    )
    row.change = change
    row.bump("change")
    return change


# -- the worker ------------------------------------------------------------------------------------------------------


def refresh_open() -> int:
    """Have read again what open requests stand on, before it is too old; returns how many."""
    rows = NamespaceReading.objects.filter(
        change__status__in=OPEN_STATUSES, status=ReadingStatus.DONE, read_at__lt=clock.now() - REFRESH_AFTER
    )
    count = 0
    for pk in list(rows.order_by("pk").values_list("pk", flat=True)):
        with transaction.atomic():
            row = NamespaceReading.objects.locked(pk)
            if row.status == ReadingStatus.DONE:
                _put_back(row)
                count += 1
    return count


def run_due() -> int:
    """Carry out the readings that wait, or that a dead worker left; returns how many. Raises inside a transaction."""
    no_transaction("reading namespaces")
    done, until = 0, time.monotonic() + SLICE_SECONDS
    due = NamespaceReading.objects.filter(
        Q(retry_at__isnull=True) | Q(retry_at__lte=clock.now()),
        status__in=[ReadingStatus.PENDING, ReadingStatus.RUNNING],
    )
    for row in due.select_related("cluster", "team__unit").order_by("asked_at", "pk")[:100]:
        if time.monotonic() > until:
            break
        if not callable_now(row.cluster):
            continue
        token = leases.claim(_lease(row), seconds=LEASE_SECONDS)
        if token is None:
            continue
        try:
            _run(row, token)
            done += 1
        except Conflict:
            logger.warning("another worker took a reading over", extra={"reading": str(row.uid)})
        finally:
            leases.release(_lease(row), token)
    return done


def _lease(row: NamespaceReading) -> str:
    return f"reading:{row.uid}"


def _run(row: NamespaceReading, token: uuid.UUID) -> None:
    steps: list[str] = []

    def done(key: str) -> None:
        steps.append(key)
        _write(row, token, status=ReadingStatus.RUNNING, steps=list(steps))

    _write(row, token, status=ReadingStatus.RUNNING, steps=[])
    error: ClusterError | None = None
    try:
        client = KubernetesClient.for_cluster(row.cluster)
        found = adopting_reader.read(client, row.namespace, done)
        entries = adopting_reader.dry_run(client, _wanted(row, found))
    except adopting_reader.Refused as refused:
        _write(row, token, status=ReadingStatus.FAILED, error=refused.message, error_class=refused.code)
    except ClusterError as caught:
        error = caught
        _failed(row, token, caught)
    else:
        steps.append("plan")
        now = clock.now()
        _write(
            row, token, status=ReadingStatus.DONE, steps=steps, found=found, plan=entries, read_at=now, error="",
            error_class="", attempts=0, retry_at=None,
        )  # fmt: skip
        _replan(row)
    if isinstance(error, Throttled):
        health.record_throttle(row.cluster_id, error.retry_after)
    else:
        health.record_contact(row.cluster_id, not (error is not None and error.cluster_wide), error)


def _wanted(row: NamespaceReading, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the objects whose dry run is asked for: with their values taken over, and GPUs as proposed."""
    now = clock.now()
    row.found, row.plan = found, []
    units = {one.flavour.pk: one.proposed for one in adopting_proposal.gpu_rows(row, now)[0]}
    workspace = adopting_proposal.future_workspace(row, adopting_proposal.limits_of(found))
    plain = adopting_proposal.future_manifests(workspace, units, {}, now)
    return adopting_proposal.future_manifests(workspace, units, adopting_proposal.taken_over(plain, found), now)


def _failed(row: NamespaceReading, token: uuid.UUID, error: ClusterError) -> None:
    now, attempts = clock.now(), row.attempts + 1
    gives_up = not error.retryable or now - row.asked_at > GIVE_UP_AFTER
    _write(
        row,
        token,
        status=ReadingStatus.FAILED if gives_up else ReadingStatus.PENDING,
        error=error.message[:4000],
        error_class=error.code,
        attempts=attempts,
        retry_at=None if gives_up else retries.retry_at(error, attempts, now),
    )


def _write(row: NamespaceReading, token: uuid.UUID, **values: Any) -> None:
    """Write what is known so far. Raises Conflict where the lease moved on or the row is no longer to be read."""
    with transaction.atomic():
        leases.require(_lease(row), token)
        stored = NamespaceReading.objects.select_for_update(of=("self",)).filter(pk=row.pk).first()
        if stored is None or not stored.is_moving:
            raise Conflict("This reading is done already.")
        for name, value in values.items():
            setattr(stored, name, value)
        stored.bump(*values)
    leases.extend(_lease(row), token, seconds=LEASE_SECONDS)


@transaction.atomic
def _replan(row: NamespaceReading) -> None:
    """Something was read anew: the plan of an open request is made anew, too."""
    change = (
        ChangeRequest.objects.select_for_update(of=("self",))
        .select_related("cluster", "workspace__team", "receiver__unit")
        .filter(reading__pk=row.pk, status__in=OPEN_STATUSES)
        .first()
    )
    if change is not None:
        change_records.replan(change)


__all__ = ["check_namespace", "read_again", "refresh_open", "request_adoption", "request_reading", "run_due"]
