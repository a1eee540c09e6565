"""The quotas room's one door to provisioning: what is declared, planned, applied and observed for a workspace."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from apps.core.actor import Actor
from apps.provisioning import actions, selectors
from apps.provisioning.choices import DeclarationKind
from apps.provisioning.models import Declaration, Plan
from apps.provisioning.selectors import Standing
from apps.quotas.manifests import Manifest
from apps.quotas.models import Workspace

KIND = DeclarationKind.WORKSPACE


@dataclass(frozen=True, slots=True)
class Usage:
    """A workspace's ResourceQuota as last seen: resource → units; `at` None: never seen, which is unknown, not zero."""

    hard: dict[str, int]
    used: dict[str, int]
    at: datetime | None


UNSEEN = Usage({}, {}, None)


def declaration_of(workspace: Workspace) -> Declaration | None:
    """Return what is declared for a workspace on its cluster; None: nothing yet."""
    return Declaration.objects.filter(kind=KIND, owner_uid=workspace.uid, cluster_id=workspace.cluster_id).first()


def declared_manifests(workspace: Workspace) -> list[Manifest] | None:
    """Return the stored objects of the workspace's newest generation, in order; None: nothing is declared yet."""
    declaration = declaration_of(workspace)
    if declaration is None:
        return None
    bodies = declaration.declared_objects.filter(removal="").order_by("ordinal", "id").values_list("body", flat=True)
    return [json.loads(bytes(body)) for body in bodies]


def declare(
    workspace: Workspace, manifests: list[Manifest], *, grant_uid: uuid.UUID, plan_uid: uuid.UUID | None, actor: Actor
) -> Declaration:
    """Declare a workspace's objects, in the caller's transaction."""
    return actions.declare(
        workspace.cluster_id,
        KIND,
        workspace.uid,
        f"Workspace {workspace.namespace}",
        workspace.team_id,
        manifests,
        grant_uid=grant_uid,
        plan_uid=plan_uid,
        actor=actor,
    )


def request_plan(workspace: Workspace, subject_uid: uuid.UUID, manifests: list[Manifest]) -> Plan:
    """Ask for the dry run of a workspace's objects for a subject."""
    return actions.request_plan(workspace.cluster_id, KIND, workspace.uid, subject_uid, workspace.team_id, manifests)


def close_plans(subject_uid: uuid.UUID) -> None:
    """Close a request's open plans: it is decided, they are evidence now."""
    actions.close_plans(subject_uid)


def standing_of(workspace: Workspace) -> Standing | None:
    """Return how a workspace's declaration stands, with the attempt under way; None: nothing is declared."""
    rows = Declaration.objects.filter(kind=KIND, owner_uid=workspace.uid, cluster_id=workspace.cluster_id)
    declaration = rows.annotate(running_since=selectors.running_since(), **selectors.drift_flags()).first()
    if declaration is None:
        return None
    declaration.cluster = workspace.cluster
    return selectors.standing(declaration)


def declarations_of(workspaces: Iterable[Workspace]) -> dict[uuid.UUID, Declaration]:
    """Return the declarations of many workspaces by workspace uid, in one query."""
    uids = [workspace.uid for workspace in workspaces]
    return {row.owner_uid: row for row in Declaration.objects.filter(kind=KIND, owner_uid__in=uids)}


def _units(resources: dict[str, tuple[Decimal, Decimal]], which: int) -> dict[str, int]:
    """Return `requests.<resource>` entries as whole units by resource name."""
    return {
        key.removeprefix("requests."): int(pair[which])
        for key, pair in resources.items()
        if key.startswith("requests.") and "/" in key
    }


def usage_of(status: selectors.QuotaStatus) -> Usage:
    """Return a namespace's observed quota as whole units by resource."""
    return Usage(_units(status.resources, 0), _units(status.resources, 1), status.observed_at)


def usage(workspaces: Iterable[Workspace]) -> dict[int, Usage]:
    """Return what was last observed of many workspaces' quotas, by workspace id, in two queries."""
    by_place = {(workspace.cluster_id, workspace.namespace): workspace.pk for workspace in workspaces}
    if not by_place:
        return {}
    return {by_place[place]: usage_of(status) for place, status in selectors.quota_statuses(by_place).items()}
