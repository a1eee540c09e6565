"""Orders to stop a workload, and to start it again: written in the deciding transaction, carried out by `stop_worker`.

The sweep `provisioning.run_stop_orders` finds whatever is due.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from django.db import IntegrityError, transaction
from django.db.models import Q

from apps import audit
from apps.clusters import capabilities, health
from apps.clusters.clients.guard import no_transaction
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.clusters.errors import ClusterError, Throttled
from apps.clusters.models import Cluster, Flavour
from apps.clusters.selectors import may_apply_now
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, NotAllowed
from apps.core.events import EventType
from apps.core.permissions import may
from apps.core.sweeps import nudge
from apps.provisioning import draining, events, levers
from apps.provisioning.actions import RETRY, team_uid_of
from apps.provisioning.choices import StopCause, StopStatus
from apps.provisioning.models import StopOrder

logger = logging.getLogger(__name__)
ACTOR_NAME = "provisioning.stop"
#: Who may have an idle workload started again besides platform admins.
DECIDE = "insights.finding.decide"
#: So long a workload that was started again, or that could not be stopped, is not ordered for the same cause.
_LET_BE = timedelta(hours=24)
_OPEN = (StopStatus.PENDING, StopStatus.STOPPED, StopStatus.UNDOING)

_Hook = Callable[[StopOrder], None]


@dataclass(frozen=True, slots=True)
class Cause:
    """What a room above wants to know of its orders; each hook runs in the recording transaction, after the order."""

    on_stopped: _Hook | None = None
    on_undone: _Hook | None = None
    on_ended: _Hook | None = None


_causes: dict[str, Cause] = {}


def register_cause(
    cause: str, *, on_stopped: _Hook | None = None, on_undone: _Hook | None = None, on_ended: _Hook | None = None
) -> None:
    """Register hooks for one cause: stopped, started again (by us or its owner), gone or refused."""
    _causes[str(cause)] = Cause(on_stopped, on_undone, on_ended)


def cause_of(cause: str) -> Cause:
    """Return the hooks of a cause (empty where nobody registered)."""
    return _causes.get(str(cause), Cause())


# -- ordering -------------------------------------------------------------------------------------------------------


@transaction.atomic
def order_stop(
    cluster_id: int,
    kind: str,
    namespace: str,
    name: str,
    *,
    team_id: int | None,
    cause: str,
    cause_uid: uuid.UUID | None,
    reason: str = "",
    spare_priorities: Sequence[str] = (),
    actor: Actor | None = None,
) -> StopOrder:
    """Order that a workload be stopped; an open order for it is returned as it is.

    What runs at one of the `spare_priorities` (names of priority classes) is refused when the worker sees it.
    A kind that cannot be stopped without deleting it is refused with the reason when the worker comes to it.
    """
    found = StopOrder.objects.filter(
        cluster_id=cluster_id, kind=kind, namespace=namespace, name=name, status__in=_OPEN
    ).first()
    if found is not None:
        return found
    row = StopOrder(
        cluster_id=cluster_id, kind=kind, namespace=namespace, name=name, team_id=team_id, cause=StopCause(cause),
        cause_uid=cause_uid, requested_at=clock.now(),
        before={"spare_priorities": sorted(spare_priorities)} if spare_priorities else {},
    )  # fmt: skip
    try:
        with transaction.atomic():
            row.save()
    except IntegrityError:  # another worker ordered it between our look and our write
        return StopOrder.objects.get(cluster_id=cluster_id, kind=kind, namespace=namespace, name=name, status__in=_OPEN)
    tell(events.STOP_ORDERED, row, actor=actor, reason=reason)
    from apps.provisioning import tasks

    nudge(tasks.run_stops, cluster_id)
    return row


@transaction.atomic
def undo(order_id: int, *, actor: Actor, expected_version: int | None = None, reason: str = "") -> StopOrder:
    """Have a stopped workload started again. Raises NotVisible, NotAllowed, Conflict (nothing is stopped any more)."""
    row = StopOrder.objects.locked(order_id, expected_version=expected_version)
    require_undo(actor, row)
    if row.status == StopStatus.UNDOING:
        return row
    if row.status not in (StopStatus.PENDING, StopStatus.STOPPED):
        raise Conflict("This is no longer stopped by the portal.", current={"status": row.status})
    row.status, row.retry_at, row.attempts, row.last_error = StopStatus.UNDOING, None, 0, ""
    row.bump("status", "retry_at", "attempts", "last_error")
    tell(events.STOP_UNDO_ASKED, row, actor=actor, reason=reason)
    from apps.provisioning import tasks

    nudge(tasks.run_stops, row.cluster_id)
    return row


def may_undo(actor: Actor, row: StopOrder) -> bool:
    """Whether the actor may have it started again: what was idle the team's leads, what was drained admins only."""
    if actor.user_id is None:
        return True
    from apps.accounts.models import User

    user = User.objects.filter(pk=actor.user_id).first()
    return may(user, RETRY, row) or (row.cause == StopCause.IDLE and may(user, DECIDE, row))


def require_undo(actor: Actor, row: StopOrder) -> None:
    """Raise NotAllowed unless the actor may have it started again."""
    if not may_undo(actor, row):
        raise NotAllowed("Starting it again is for the team's leads and for platform admins.", rule=RETRY)


def client_of(cluster: Cluster) -> levers.Present:
    """Return a client that asks for no kind which the last check found missing. Raises the client's errors."""
    found = capabilities.of(cluster)
    installed = {
        "Workload": found.kueue.installed, "InferenceService": found.kserve.installed,
        "ScaledObject": found.keda.installed,
    }  # fmt: skip
    absent = [kind for kind, there in installed.items() if there is False]
    return levers.Present(KubernetesClient.for_cluster(cluster), absent)


def drain_namespace(cluster_id: int, namespace: str, *, team_id: int | None, cause_uid: uuid.UUID) -> int:
    """Order that everything that holds GPUs in a namespace be stopped; returns how many orders were made.

    Called by a worker: it reads the cluster (raises TransactionOpen inside a transaction). Where the cluster does not
    answer, or may not be applied to now, nothing is ordered and 0 returned: ask again later. What somebody started
    again, or what could not be stopped, is left alone for a day.
    """
    no_transaction("draining")
    cluster = Cluster.objects.filter(pk=cluster_id).first()
    if cluster is None or not may_apply_now(cluster)[0]:
        return 0
    resources = set(
        Flavour.objects.exclude(resource_name__in=("cpu", "memory")).values_list("resource_name", flat=True)
    )
    try:
        owners = draining.gpu_owners(client_of(cluster), namespace, resources)
    except ClusterError as error:
        record_contact(cluster, error)
        logger.warning(
            "a namespace could not be read for draining", extra={"cluster": cluster.slug, "error": str(error)}
        )
        return 0
    made = 0
    for owner in owners:
        mine = StopOrder.objects.filter(cluster_id=cluster_id, kind=owner.kind, namespace=namespace, name=owner.name)
        left = Q(status=StopStatus.UNDONE) | Q(status=StopStatus.REFUSED)
        if mine.filter(Q(status__in=_OPEN) | (left & Q(updated_at__gte=clock.now() - _LET_BE))).exists():
            continue
        order_stop(
            cluster_id, owner.kind, namespace, owner.name,
            team_id=team_id, cause=StopCause.DRAIN, cause_uid=cause_uid,
        )  # fmt: skip
        made += 1
    return made


def record_contact(cluster: Cluster, error: ClusterError) -> None:
    """Tell the breaker of a call that failed, where it concerns the cluster as a whole."""
    if isinstance(error, Throttled):
        health.record_throttle(cluster.pk, error.retry_after)
    elif error.cluster_wide:
        health.record_contact(cluster.pk, False, error)


def tell(event: EventType, row: StopOrder, *, actor: Actor | None = None, note: str = "", reason: str = "") -> None:
    """Audit, and where somebody has to know, tell the team's leads (platform admins where it has none)."""
    from apps.teams import scope
    from apps.teams.choices import Role

    cluster = Cluster.objects.only("slug").get(pk=row.cluster_id)
    payload = events.StopEvent(
        str(row.uid), cluster.slug, row.kind, row.namespace, row.name, row.cause, str(row.cause_uid or ""), note
    )
    audit.record(
        event,
        payload,
        actor=actor or Actor.system(ACTOR_NAME),
        subject_type="provisioning.stop",
        subject_uid=row.uid,
        team_uid=team_uid_of(row.team_id),
        reason=reason,
    )
    if event in (events.STOP_DONE, events.STOP_UNDONE, events.STOP_REFUSED):
        leads = scope.holders_of_role(Role.TEAM_LEAD, team_id=row.team_id) if row.team_id is not None else []
        outbox.publish(event, payload, recipients=leads or scope.holders(RETRY), subject_uid=row.uid)
