"""What of Kueue is in force on a cluster: read from what is declared there, never from what an admin wishes.

`Cluster.kueue_mode` says how Kueue is to be used; objects of workspaces follow it once the cluster's baseline has been
approved with the flavours and cohorts that they name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db.models import F

from apps.clusters.choices import KueueMode
from apps.provisioning.choices import DeclarationKind, DeclarationStatus
from apps.provisioning.models import Declaration, DeclaredObject
from apps.provisioning.selectors import drift_flags
from apps.quotas import priorities
from apps.quotas.kueue import ANY_NODE, Share, cohort_name

if TYPE_CHECKING:
    from apps.clusters.models import Cluster, Flavour
    from apps.quotas.models import Workspace


@dataclass(frozen=True, slots=True)
class State:
    """What a cluster's baseline declares. `mode` off: workspaces get no queue."""

    mode: str = KueueMode.OFF
    priorities: bool = False
    flavours: frozenset[str] = frozenset()
    cohorts: frozenset[str] = frozenset()

    @property
    def queues(self) -> bool:
        """Whether a workspace that is rendered whole gets a queue."""
        return self.mode != KueueMode.OFF and ANY_NODE in self.flavours


PLAIN = State()


def state_from(cluster: Cluster, manifests: Iterable[Mapping[str, Any]]) -> State:
    """Return what a baseline of these objects puts in force."""
    return _state(cluster, [(str(m["kind"]), str(m["metadata"]["name"])) for m in manifests])


def _state(cluster: Cluster, objects: Sequence[tuple[str, str]]) -> State:
    return State(
        mode=str(cluster.kueue_mode),
        priorities=("PriorityClass", priorities.PRODUCTION) in objects,
        flavours=frozenset(name for kind, name in objects if kind == "ResourceFlavor"),
        cohorts=frozenset(name for kind, name in objects if kind == "Cohort"),
    )


def state_of(cluster: Cluster) -> State:
    """Return what the cluster's declared baseline puts in force, in one query."""
    rows = DeclaredObject.objects.filter(
        cluster=cluster,
        declaration__kind=DeclarationKind.BASELINE,
        removal="",
        kind__in=["PriorityClass", "ResourceFlavor", "Cohort"],
    )
    return _state(cluster, list(rows.values_list("kind", "name")))


def has_queue(workspace: Workspace) -> bool:
    """Whether the workspace's declared objects hold a ClusterQueue."""
    return DeclaredObject.objects.filter(
        cluster_id=workspace.cluster_id,
        declaration__kind=DeclarationKind.WORKSPACE,
        declaration__owner_uid=workspace.uid,
        kind="ClusterQueue",
        removal="",
    ).exists()


def is_declared(workspace: Workspace) -> bool:
    """Whether anything is declared for the workspace."""
    rows = Declaration.objects.filter(kind=DeclarationKind.WORKSPACE, owner_uid=workspace.uid)
    return rows.filter(cluster_id=workspace.cluster_id, generation__gt=0).exists()


def queued(workspace: Workspace) -> bool:
    """Whether Kueue runs (or, for a workspace that is not declared yet, will run) what the workspace submits."""
    if workspace.cluster.kueue_mode == KueueMode.OFF:
        # What was put into Kueue stays there until the cluster's new baseline takes it out; it borrows no more.
        return False
    return has_queue(workspace) if is_declared(workspace) else state_of(workspace.cluster).queues


def apart(one: Flavour, other: Flavour) -> bool:
    """Whether Kueue tells two flavours with one resource name apart: by the labels of their nodes."""
    mine, theirs = dict(one.node_labels or {}), dict(other.node_labels or {})
    return any(key in theirs and theirs[key] != value for key, value in mine.items())


def baseline_of(cluster: Cluster) -> Declaration | None:
    """Return the cluster's baseline declaration; None: none was ever approved."""
    rows = Declaration.objects.filter(
        kind=DeclarationKind.BASELINE, owner_uid=cluster.uid, cluster=cluster, generation__gt=0
    )
    return rows.annotate(**drift_flags()).first()


def baseline_on_page(cluster: Cluster) -> Declaration | None:
    """Return `baseline_of`, read once for all that shows this very instance of a cluster (a page loads one)."""
    if "_baseline_read" not in cluster.__dict__:
        cluster.__dict__["_baseline_read"] = baseline_of(cluster)
    held: Declaration | None = cluster.__dict__["_baseline_read"]
    return held


def blockers(workspace: Workspace, flavour: Flavour, *, borrows: bool, creates: bool) -> list[str]:
    """Return why a quota of `flavour` cannot be put into Kueue yet; empty where nothing stands in the way.

    `creates`: the workspace's objects are brought whole by this quota; `borrows`: it may use GPUs of others.
    """
    cluster = workspace.cluster
    if cluster.kueue_mode == KueueMode.OFF:
        return []
    queue = has_queue(workspace)
    if not creates and not queue:
        if not borrows:
            return []
        return [
            f"{workspace.namespace} is not in Kueue yet, so nothing would take a borrowed GPU back. "
            f"It gets there with the next baseline of {cluster}, which platform admins request on the cluster's page."
        ]
    state = state_of(cluster)
    unit = workspace.team.unit
    lacking = [] if ANY_NODE in state.flavours else ["Kueue's flavours"]
    if not lacking and flavour.slug not in state.flavours:
        lacking.append(f"the flavour {flavour}")
    if not lacking and cohort_name(unit.slug) not in state.cohorts:
        lacking.append(f"the cohort of {unit}")
    if lacking:
        return [
            f"The baseline of {cluster} does not have {' and '.join(lacking)} yet. "
            "Platform admins request the new baseline on the cluster's page."
        ]
    if creates and _unfinished(cluster):
        return [f"The baseline of {cluster} is approved and still on its way to the cluster. It completes by itself."]
    return []


def _unfinished(cluster: Cluster) -> bool:
    rows = Declaration.objects.filter(kind=DeclarationKind.BASELINE, owner_uid=cluster.uid, cluster=cluster)
    return (
        rows.filter(generation__gt=F("observed_generation")).exists()
        or rows.exclude(status=DeclarationStatus.APPLIED).exists()
    )


def offered(shares: Sequence[Share], state: State) -> list[Share]:
    """Return the shares whose flavour the baseline has: a queue that names another one is not active."""
    return [share for share in shares if share.flavour in state.flavours]
