"""The baseline of a cluster: what all its workspaces stand on, and how they would be declared upon it.

A baseline reaches a cluster through one change request (`ChangeKind.BASELINE`). Other parts add objects of their own
with `contribute`. Nothing here changes anything by itself: `look` notices that a new baseline is due and says so.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any

from apps.approvals.ports import Change
from apps.clusters import capabilities
from apps.clusters.choices import KueueMode
from apps.clusters.models import Cluster, Flavour, Node
from apps.core.errors import Invalid
from apps.provisioning.choices import DeclarationKind
from apps.provisioning.models import DeclaredObject
from apps.quotas import book, enforcing, kueue_baseline, kueue_state, priorities
from apps.quotas.baseline_merge import adopted_fields, brought_over
from apps.quotas.changes import Proposed
from apps.quotas.choices import ChangeKind, Rung
from apps.quotas.kueue import ANY_NODE
from apps.quotas.kueue_baseline import CohortSpec, FlavourSpec
from apps.quotas.ladder_manifests import archived, at_rung
from apps.quotas.manifests import LABEL, RENDERER_VERSION, Manifest, workspace_manifests
from apps.quotas.models import BaselineState, ChangeRequest, Workspace
from apps.teams.models import Unit

_Contributor = Callable[[Cluster], Sequence[Manifest]]
_contributors: list[_Contributor] = []


def contribute(contributor: _Contributor) -> _Contributor:
    """Register a part's objects of a baseline: `contributor(cluster)` returns them, labelled as managed. Reads only."""
    if contributor not in _contributors:
        _contributors.append(contributor)
    return contributor


def withdraw_contribution(contributor: _Contributor) -> None:
    """Forget a contributor (tests register their own)."""
    if contributor in _contributors:
        _contributors.remove(contributor)


def labels() -> dict[str, str]:
    """Return the labels of every object of a baseline."""
    return {f"{LABEL}/managed": "true", f"{LABEL}/baseline": "true"}


def declared_baseline(cluster: Cluster) -> list[Manifest]:
    """Return the stored objects of the cluster's approved baseline; empty where none was approved."""
    rows = DeclaredObject.objects.filter(
        cluster=cluster, declaration__kind=DeclarationKind.BASELINE, declaration__owner_uid=cluster.uid, removal=""
    ).order_by("ordinal", "id")
    return [json.loads(bytes(body)) for body in rows.values_list("body", flat=True)]


def rendered_baseline(cluster: Cluster, declared: Sequence[Manifest] | None = None) -> list[Manifest]:
    """Return the baseline as it would be declared now. Raises Invalid for a flavour that Kueue could not take."""
    uses_kueue = cluster.kueue_mode != KueueMode.OFF
    found = priorities.priority_manifests(labels(), kueue=uses_kueue)
    if uses_kueue:
        try:
            found += kueue_baseline.kueue_manifests(_flavours(cluster), _cohorts(), labels())
        except ValueError as error:
            raise Invalid({"": f"{error}. Change the flavour first."}) from error
        before = declared_baseline(cluster) if declared is None else declared
        found = kueue_baseline.keep_what_is_fixed(found, before)
    for contributor in _contributors:
        found += contributor(cluster)
    return found


def _flavours(cluster: Cluster) -> list[FlavourSpec]:
    """Return every flavour that the cluster's pools offer, with what its nodes have in common."""
    places = bool(capabilities.of(cluster).kueue.topology)
    nodes = list(Node.objects.filter(cluster=cluster).order_by("pk"))
    found = []
    for flavour in Flavour.objects.filter(pools__cluster=cluster).distinct().order_by("slug"):
        own = [node for node in nodes if _carries(node, flavour)]
        found.append(
            FlavourSpec(
                flavour.slug,
                dict(flavour.node_labels or {}),
                list(flavour.tolerations or []),
                kueue_baseline.shared_taints([node.taints for node in own]),
                kueue_baseline.levels_of([node.labels for node in own]) if places else (),
            )
        )
    return found


def _carries(node: Node, flavour: Flavour) -> bool:
    """Whether a node is one of a flavour's: its model, and no label that says otherwise."""
    if node.gpu_model != flavour.gpu_model:
        return False
    wanted: dict[str, Any] = dict(flavour.node_labels or {})
    return all(node.labels.get(key, value) == value for key, value in wanted.items())


def _cohorts() -> list[CohortSpec]:
    """Return the tree of business units, parents first: every unit, so that a new workspace needs no new baseline."""
    units = Unit.objects.filter(archived_at__isnull=True).select_related("parent")
    ordered = sorted(units, key=lambda unit: (len(unit.path), unit.slug))
    return [CohortSpec(unit.slug, unit.parent.slug if unit.parent is not None else "") for unit in ordered]


def declared_workspaces(cluster: Cluster) -> list[Workspace]:
    """Return the workspaces of which something is declared on the cluster."""
    owners = DeclaredObject.objects.filter(cluster=cluster, declaration__kind=DeclarationKind.WORKSPACE, removal="")
    rows = Workspace.objects.filter(cluster=cluster, uid__in=owners.values("declaration__owner_uid"))
    return list(rows.select_related("team__unit", "cluster").order_by("pk"))


def stored_objects(cluster: Cluster, owners: Collection[uuid.UUID] | None = None) -> dict[uuid.UUID, list[Manifest]]:
    """Return the stored objects of workspaces on the cluster (of all, or of `owners`) by uid, in one query."""
    rows = DeclaredObject.objects.filter(cluster=cluster, declaration__kind=DeclarationKind.WORKSPACE, removal="")
    if owners is not None:
        rows = rows.filter(declaration__owner_uid__in=list(owners))
    found: dict[uuid.UUID, list[Manifest]] = {}
    ordered = rows.order_by("declaration_id", "ordinal", "id")
    for owner, body in ordered.values_list("declaration__owner_uid", "body"):
        found.setdefault(owner, []).append(json.loads(bytes(body)))
    return found


def proposals(cluster: Cluster, at: datetime, owners: Collection[uuid.UUID] | None = None) -> list[Proposed]:
    """Return the baseline and every workspace as they would be declared now, the cluster's own first.

    `owners`: the workspaces with these uids only.
    """
    declared = declared_baseline(cluster)
    own = rendered_baseline(cluster, declared)
    state = kueue_state.state_from(cluster, own)
    found = [Proposed(DeclarationKind.BASELINE, cluster.uid, f"Baseline of {cluster}", None, own)]
    workspaces = declared_workspaces(cluster)
    if owners is not None:
        wanted = set(owners)
        found, workspaces = [], [workspace for workspace in workspaces if workspace.uid in wanted]
    stored = stored_objects(cluster, owners)
    numbers = book.numbers_of_cluster(workspaces, at, queued=state.queues)
    adopted = adopted_fields(cluster)
    modes = enforcing.modes(workspaces)
    for workspace in workspaces:
        mine = numbers[workspace.pk]
        spec = book.spec_of(workspace, mine.limits, mine.shares, state, modes[workspace.pk])
        fresh = workspace_manifests(spec)
        before = stored.get(workspace.uid, [])
        merged = brought_over(before, fresh, adopted.get(workspace.uid, ()))
        title = f"Workspace {workspace.namespace}"
        manifests = _on_the_ladder(workspace, before, merged)
        found.append(Proposed(DeclarationKind.WORKSPACE, workspace.uid, title, workspace.team_id, manifests))
    return found


def _on_the_ladder(workspace: Workspace, before: Sequence[Manifest], fresh: Sequence[Manifest]) -> list[Manifest]:
    """Keep a workspace where it stands on the ladder at the end of quota: a queue stays held, an archive an archive."""
    if workspace.archived_at is not None:
        return archived(fresh)
    policy = next((m["spec"].get("stopPolicy", "None") for m in before if m["kind"] == "ClusterQueue"), None)
    if policy is None:
        return at_rung(fresh, workspace.rung, holds=workspace.rung == Rung.NONE)
    return [{**m, "spec": {**m["spec"], "stopPolicy": policy}} if m["kind"] == "ClusterQueue" else m for m in fresh]


class BaselineHandler:
    """The baseline of a cluster with the workspaces that would render differently upon it: one change request."""

    kind = ChangeKind.BASELINE
    #: Numbers of GPUs follow the approved quotas, whatever lands until the grant.
    follows_quotas = True

    def check(self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any]) -> dict[str, Any]:
        """Return what the baseline is rendered from. Raises Invalid where the cluster has no Kueue to be used."""
        if workspace is not None:
            raise Invalid({"": "A baseline belongs to a cluster."})
        if cluster.kueue_mode != KueueMode.OFF and (why := capabilities.missing(cluster, "kueue")):
            raise Invalid({"": why})
        return {"renderer_version": RENDERER_VERSION, "kueue_mode": str(cluster.kueue_mode)}

    def title(self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any]) -> str:
        """Return the change in one line."""
        return f"Baseline of {cluster}"

    def settings_diff(self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any]) -> list[Change]:
        """Return how Kueue is used before and after."""
        state = BaselineState.objects.filter(cluster=cluster).first()
        before = kueue_state.state_of(cluster)
        mode = KueueMode(values["kueue_mode"])
        was = "in use" if ANY_NODE in before.flavours else KueueMode.OFF.label
        version = str(state.renderer_version) if state is not None and state.renderer_version else "none"
        lines = [Change(cluster.slug, "Portal", "version of the renderer", version, str(values["renderer_version"]))]
        if (mode != KueueMode.OFF) != (ANY_NODE in before.flavours):
            lines.append(Change(cluster.slug, "Kueue", "use", str(was), str(mode.label)))
        return lines

    def propose(
        self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any], at: datetime
    ) -> list[Proposed]:
        """Return the baseline and the workspaces upon it."""
        return proposals(cluster, at)

    def propose_for(
        self, cluster: Cluster, owners: Collection[uuid.UUID], values: dict[str, Any], at: datetime
    ) -> list[Proposed]:
        """Return some of the workspaces upon it."""
        return proposals(cluster, at, owners)

    def blockers(self, change: ChangeRequest, at: datetime) -> Sequence[str]:
        """Return why it cannot be approved now: how Kueue is to be used was changed after it was requested."""
        if change.values.get("kueue_mode") != str(change.cluster.kueue_mode):
            return ["How Kueue is to be used on this cluster was changed since: withdraw this and request it anew."]
        return []

    def on_granted(self, change: ChangeRequest, at: datetime) -> None:
        """Note the version of the renderer; the next look tells whether something is due still."""
        BaselineState.objects.update_or_create(
            cluster=change.cluster,
            defaults={
                "renderer_version": int(change.values["renderer_version"]),
                "due_since": None,
                "lines": 0,
                "workspaces": 0,
                "fingerprint": "",
            },
        )


__all__ = ["BaselineHandler", "contribute", "declared_baseline", "proposals", "rendered_baseline"]
