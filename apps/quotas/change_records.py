"""How a change request is written down: what it changes, its exact bytes, its plans, its events."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from apps.approvals.ports import Change
from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.canonical import canonical_bytes, digest
from apps.core.errors import Invalid
from apps.provisioning import actions as provisioning
from apps.provisioning.choices import DeclarationKind, PlanStatus
from apps.provisioning.models import DeclaredObject, Plan
from apps.quotas import change_diff, change_events
from apps.quotas.change_diff import FieldChange, Side
from apps.quotas.changes import ChangeHandler, FollowsQuotas, Proposed, Staged, handler_of
from apps.quotas.choices import OPEN_STATUSES
from apps.quotas.manifests import Manifest
from apps.quotas.models import ChangeRequest, Workspace

#: So many declarations are planned or made in one transaction where a change touches many.
PORTION = 25


@dataclass(frozen=True)
class Frozen:
    """A change as it would be submitted now: settings, changed declarations, lines for people, digest leaves."""

    settings: list[dict[str, str]]
    proposed: list[Proposed]
    lines: list[dict[str, Any]]
    leaves: list[dict[str, str]]
    removes: list[str]
    objects_changed: int

    @property
    def is_empty(self) -> bool:
        """Whether neither a setting nor an object would change."""
        return not self.leaves and not any(line["before"] != line["after"] for line in self.settings)

    def as_json(self) -> dict[str, Any]:
        """Return what is stored with the request."""
        return {
            "settings": self.settings,
            "objects": self.lines,
            "leaves": self.leaves,
            "removes": self.removes,
            "objects_changed": self.objects_changed,
            "declarations": [{"kind": item.declaration_kind, "owner_uid": str(item.owner_uid), "title": item.title}
                             for item in self.proposed],
            "outdated": False,
        }  # fmt: skip


def declared_before(cluster_id: int, proposed: Sequence[Proposed]) -> dict[tuple[str, uuid.UUID], list[Manifest]]:
    """Return the stored objects of many declarations by kind and owner, in one query."""
    rows = (
        DeclaredObject.objects.filter(
            cluster_id=cluster_id,
            removal="",
            declaration__owner_uid__in=[item.owner_uid for item in proposed],
            declaration__kind__in={str(item.declaration_kind) for item in proposed},
        )
        .order_by("declaration_id", "ordinal", "id")
        .values_list("declaration__kind", "declaration__owner_uid", "body")
    )
    found: dict[tuple[str, uuid.UUID], list[Manifest]] = {}
    for kind, owner, body in rows:
        found.setdefault((kind, owner), []).append(json.loads(bytes(body)))
    return found


def _namespace(proposed: Proposed) -> str:
    """Return the namespace of a workspace's objects, "" for a declaration that is no workspace's."""
    if proposed.declaration_kind != DeclarationKind.WORKSPACE:
        return ""
    return next((str(m["metadata"]["name"]) for m in proposed.manifests if m["kind"] == "Namespace"), "")


def freeze(
    handler: ChangeHandler,
    cluster: Cluster,
    workspace: Workspace | None,
    values: dict[str, Any],
    at: datetime,
    *,
    owners: Collection[uuid.UUID] | None = None,
) -> Frozen:
    """Return what a change would change now; `owners`: in the declarations of these only, of a kind that is Staged.

    Raises Invalid where an object would break a rule of the cluster's.
    """
    from apps.quotas import kueue_rules

    if owners is not None and isinstance(handler, Staged):
        everything = handler.propose_for(cluster, owners, values, at)
    else:
        everything = handler.propose(cluster, workspace, values, at)
    before = declared_before(cluster.pk, everything)
    proposed: list[Proposed] = []
    sides: list[Side] = []
    changes: dict[uuid.UUID, list[FieldChange]] = {}
    for item in everything:
        held = before.get((str(item.declaration_kind), item.owner_uid), [])
        side = Side(str(item.declaration_kind), item.owner_uid, _namespace(item), held, item.manifests)
        if isinstance(handler, FollowsQuotas):
            side = replace(side, before=change_diff.by_quota(held), after=change_diff.by_quota(item.manifests))
        found = change_diff.changes_of(side)
        if not found:
            continue
        problems = kueue_rules.check(item.manifests)
        if problems:
            raise Invalid({"": [f"{item.title}: {problem}" for problem in problems[:10]]})
        proposed.append(item)
        sides.append(side)
        changes[item.owner_uid] = found
    every = [change for side in sides for change in changes[side.owner]]
    settings = [_settings_line(change) for change in handler.settings_diff(cluster, workspace, values)]
    return Frozen(
        settings=settings,
        proposed=proposed,
        lines=change_diff.grouped(sides, changes),
        leaves=change_diff.leaves(cluster.slug, every),
        removes=[change.path for change in every if change.operation == "remove"],
        objects_changed=len({(side.owner, change.path) for side in sides for change in changes[side.owner]}),
    )


def _settings_line(change: Change) -> dict[str, str]:
    return {key: str(value) for key, value in asdict(change).items()}


def objects_bytes(proposed: Sequence[Proposed]) -> bytes:
    """Return the RFC 8785 list of everything that would be declared."""
    return canonical_bytes(
        [
            {
                "declaration_kind": str(item.declaration_kind),
                "owner_uid": str(item.owner_uid),
                "title": item.title,
                "manifests": item.manifests,
            }
            for item in proposed
        ]
    )


def canonical(change: ChangeRequest) -> bytes:
    """Return the bytes that people approve: the request, its values, the settings and the leaves (invariant 3)."""
    return canonical_bytes(
        {
            "subject": "quotas.change",
            "request": {
                "request_uid": str(change.uid),
                "cluster": change.cluster.slug,
                "workspace_uid": str(change.workspace.uid) if change.workspace is not None else None,
                "kind": str(change.kind),
            },
            "values": change.values,
            "settings": change.change["settings"],
            "leaves": change.change["leaves"],
        }
    )


def digest_of_change(change: ChangeRequest) -> str:
    """Return the SHA-256 of a change's canonical bytes."""
    return digest(canonical(change))


def event_of(change: ChangeRequest, detail: str = "") -> change_events.ChangeEvent:
    """Return the payload of an event about a change."""
    return change_events.ChangeEvent(
        change_uid=change.uid,
        cluster=change.cluster.slug,
        workspace_uid=change.workspace.uid if change.workspace is not None else None,
        kind=str(change.kind),
        what=change.title,
        objects_changed=int(change.change.get("objects_changed", 0)),
        removes_objects=len(change.change.get("removes", [])),
        detail=detail,
    )


def plan_change(change: ChangeRequest, proposed: Sequence[Proposed]) -> None:
    """Ask for the dry run of every declaration that changes; the first plan (the cluster's own before all) is linked.

    A declaration's plan is made for exactly its bytes, which is what lets `declare` remove what the plan names.
    """
    ordered = sorted(proposed, key=lambda item: item.declaration_kind != DeclarationKind.BASELINE)
    if isinstance(handler_of(change.kind), Staged):
        ordered = ordered[:PORTION]  # the sweep quotas.replan_changes asks for the rest
    made = [
        provisioning.request_plan(
            change.cluster_id, item.declaration_kind, item.owner_uid, change.uid, item.team_id, item.manifests
        )
        for item in ordered
    ]
    first = made[0] if made else None
    if change.plan_id != (first.pk if first is not None else None):
        change.plan = first
        change.save(update_fields=["plan"])


def plans_of(change: ChangeRequest) -> list[Plan]:
    """Return the newest plan of every declaration of a change, in the order in which they were asked for."""
    newest: dict[tuple[str, uuid.UUID], Plan] = {}
    for plan in Plan.objects.filter(subject_uid=change.uid, cluster_id=change.cluster_id).order_by("pk"):
        newest[(str(plan.declaration_kind), plan.owner_uid)] = plan
    wanted = {(str(item["kind"]), uuid.UUID(item["owner_uid"])) for item in change.change.get("declarations", [])}
    return [plan for key, plan in newest.items() if key in wanted]


def replan(change: ChangeRequest) -> None:
    """Make an open change's plans anew: something landed where it lands; note where it no longer is what was asked."""
    try:
        frozen = freeze(handler_of(change.kind), change.cluster, change.workspace, change.values, clock.now())
    except Invalid:
        frozen = None
    outdated = frozen is None or frozen.leaves != change.change["leaves"]
    if outdated != bool(change.change.get("outdated")):
        change.change = change.change | {"outdated": outdated}
        change.save(update_fields=["change"])
    if frozen is not None and not outdated:
        plan_change(change, frozen.proposed)


def replan_open(workspace: Workspace, *, but: ChangeRequest | None = None) -> None:
    """Something landed on a workspace: its open changes are planned anew (design §5).

    A change of the whole cluster may touch a thousand workspaces: the sweep `quotas.replan_changes` looks after those.
    """
    rows = ChangeRequest.objects.filter(workspace=workspace, status__in=OPEN_STATUSES)
    if but is not None:
        rows = rows.exclude(pk=but.pk)
    for change in rows.select_related("cluster", "workspace__team__unit").order_by("pk"):
        replan(change)


def unready(plans: Sequence[Plan]) -> list[Plan]:
    """Return the plans that the cluster has not answered yet."""
    return [plan for plan in plans if plan.status != PlanStatus.READY]
