"""Noticing that a cluster's baseline would be rendered differently than it is declared. Reads, and says so once."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import transaction
from django.db.models import Count, Max

from apps import audit
from apps.clusters.models import Cluster
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.canonical import digest_of
from apps.core.errors import Invalid
from apps.provisioning.choices import DeclarationKind
from apps.provisioning.models import Declaration
from apps.quotas import change_events as events
from apps.quotas.baseline import BaselineHandler, rendered_baseline
from apps.quotas.change_records import Frozen, freeze
from apps.quotas.choices import OPEN_STATUSES, ChangeKind, RequestStatus
from apps.quotas.manifests import RENDERER_VERSION
from apps.quotas.models import BaselineState, ChangeRequest, Workspace
from apps.teams import scope

SYSTEM = Actor.system("quotas.baseline")


@dataclass(frozen=True)
class Preview:
    """What a baseline requested now would change; `problem` is why it cannot be requested."""

    frozen: Frozen | None
    problem: str = ""


def preview(cluster: Cluster) -> Preview:
    """Return what would change on the cluster. Renders every workspace: a page and a sweep use it, no list."""
    handler = BaselineHandler()
    try:
        values = handler.check(cluster, None, {})
        return Preview(freeze(handler, cluster, None, values, clock.now()))
    except Invalid as invalid:
        return Preview(None, " ".join(text for texts in invalid.errors.values() for text in texts))


def fingerprint(cluster: Cluster) -> str:
    """Return a digest over what a baseline is rendered from: equal, and nothing has to be rendered again."""
    rows = Workspace.objects.filter(cluster=cluster).order_by("pk")
    columns = ("uid", "team__slug", "team__unit__slug", "fair_weight", "environment", "archived_at", "namespace")
    declared = Declaration.objects.filter(cluster=cluster)
    counts = declared.filter(kind=DeclarationKind.WORKSPACE).aggregate(n=Count("pk"))
    own = declared.filter(kind=DeclarationKind.BASELINE).aggregate(generation=Max("generation"))
    adopted = ChangeRequest.objects.filter(cluster=cluster, workspace__isnull=False, granted_at__isnull=False)
    try:
        baseline = digest_of(rendered_baseline(cluster))
    except Invalid as invalid:
        baseline = str(invalid.errors)
    return digest_of(
        {
            "renderer": RENDERER_VERSION,
            "mode": str(cluster.kueue_mode),
            "labels": cluster.kueue_namespace_labels or {},
            "groups": cluster.group_prefix,
            "baseline": baseline,
            "generation": own["generation"],
            "declared": counts["n"],
            "granted": adopted.aggregate(at=Max("granted_at"))["at"],
            "workspaces": [list(row) for row in rows.values_list(*columns)],
        }
    )


@transaction.atomic
def look(cluster_id: int) -> bool:
    """Look at one cluster's baseline; True where it has become due since the last look. Changes nothing else."""
    cluster = Cluster.objects.get(pk=cluster_id)
    BaselineState.objects.get_or_create(cluster=cluster)
    state = BaselineState.objects.select_for_update(of=("self",)).get(cluster=cluster)
    print_now = fingerprint(cluster)
    if state.fingerprint == print_now:
        return False
    seen = preview(cluster)
    was_due = state.due_since is not None
    now = clock.now()
    empty = seen.frozen is not None and not seen.frozen.leaves
    state.fingerprint, state.checked_at, state.problem = print_now, now, seen.problem
    state.lines = len(seen.frozen.lines) if seen.frozen is not None else 0
    state.workspaces = _workspaces(seen.frozen)
    state.due_since = None if empty else state.due_since or now
    state.save()
    if empty or was_due or seen.frozen is None or open_request(cluster) is not None:
        return False
    payload = events.BaselineDue(cluster.uid, cluster.name, state.lines, state.workspaces)
    audit.record(events.BASELINE_DUE, payload, actor=SYSTEM, subject_type="clusters.cluster", subject_uid=cluster.uid)
    outbox.publish(
        events.BASELINE_DUE, payload, recipients=scope.holders("clusters.cluster.manage"), subject_uid=cluster.uid
    )
    return True


def _workspaces(frozen: Frozen | None) -> int:
    if frozen is None:
        return 0
    return sum(1 for item in frozen.proposed if item.declaration_kind == DeclarationKind.WORKSPACE)


def open_request(cluster: Cluster) -> ChangeRequest | None:
    """Return the baseline's change request that is open or on its way; None: there is none."""
    statuses = [*OPEN_STATUSES, RequestStatus.APPLYING]
    rows = ChangeRequest.objects.filter(cluster=cluster, kind=ChangeKind.BASELINE, status__in=statuses)
    return rows.select_related("requester").order_by("-pk").first()
