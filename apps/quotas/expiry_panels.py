"""What the workspace's page says about the end of its quota: where it stands, what comes next, what may be done."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.http import HttpRequest

from apps.core import clock
from apps.core.permissions import may
from apps.provisioning.actions import RETRY
from apps.provisioning.choices import StopStatus
from apps.provisioning.models import StopOrder
from apps.provisioning.selectors import quota_status
from apps.quotas import cluster_side, expiry, limits, selectors
from apps.quotas.choices import Rung
from apps.quotas.models import Workspace
from apps.quotas.tables import RUNG_TONES
from portal.panels import panel

STOPS_SHOWN = 20
#: What a refused stop leaves to its owner is asked for anew every day while it lasts.
_BY_HAND_SINCE = timedelta(days=2)
_BY_HAND_MOST = 200
_SCALED = {"StatefulSet": "statefulset", "ReplicaSet": "replicaset", "ReplicationController": "replicationcontroller"}


def _stops(request: HttpRequest, workspace: Workspace) -> list[StopOrder]:
    """Return what the portal stopped here, is about to stop, or could not stop, newest first. One query."""
    shown = (StopStatus.PENDING, StopStatus.STOPPED, StopStatus.UNDOING, StopStatus.REFUSED)
    rows = StopOrder.objects.visible_to(request.user).filter(
        cluster_id=workspace.cluster_id, namespace=workspace.namespace, status__in=shown
    )
    return list(rows.order_by("-pk")[:STOPS_SHOWN])


def by_hand(workspace: Workspace, stops: Sequence[StopOrder]) -> list[str]:
    """Return command lines with which its owner ends what the portal does not: it deletes no pod. At most one query.

    Only what was refused lately; what an unknown controller governs is left to whoever knows it.
    """
    if not any(order.status == StopStatus.REFUSED for order in stops):
        return []
    rows = StopOrder.objects.filter(
        cluster_id=workspace.cluster_id,
        namespace=workspace.namespace,
        status=StopStatus.REFUSED,
        kind__in=["Pod", *_SCALED],
        requested_at__gte=clock.now() - _BY_HAND_SINCE,
    ).order_by("kind", "name")
    named: dict[str, list[str]] = {}
    for kind, name in rows.values_list("kind", "name").distinct()[:_BY_HAND_MOST]:
        named.setdefault(kind, []).append(shlex.quote(name))
    space = shlex.quote(workspace.namespace)
    lines = [
        f"kubectl --namespace {space} scale {_SCALED[kind]} {' '.join(names)} --replicas=0"
        for kind, names in named.items()
        if kind in _SCALED
    ]
    if pods := named.get("Pod"):
        lines.append(f"kubectl --namespace {space} delete pod {' '.join(pods)} --ignore-not-found")
    return lines


@panel(page="workspace", order=5, permission="quotas.workspace.view")
def workspace_end(request: HttpRequest, workspace: Workspace) -> dict[str, Any]:
    """The expiry ladder of one workspace."""
    status = quota_status(workspace.cluster_id, workspace.namespace)
    standing = expiry.standing_of(workspace, cluster_side.usage_of(status), selectors.quotas_of(workspace))
    step = standing.next
    stops = _stops(request, workspace) if standing.facts.over or workspace.rung != Rung.NONE else []
    return {
        "template": "quotas/workspace_end.html",
        "workspace": workspace,
        "standing": standing,
        "rung": Rung(workspace.rung).label,
        "tone": RUNG_TONES[workspace.rung],
        "step": step,
        "step_label": Rung(step.rung).label if step is not None else "",
        "may_change": may(request.user, "quotas.change.create", workspace),
        "may_drain": expiry.may_drain(standing.facts),
        "limits": limits.in_use(workspace, status),
        "may_restart": may(request.user, RETRY, workspace),
        "stops": stops,
        "by_hand": by_hand(workspace, stops),
    }
