"""The quotas room's one door to provisioning: what is declared, planned, applied and observed for a workspace."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q

from apps.core.actor import Actor
from apps.provisioning import actions
from apps.provisioning.choices import DeclarationKind
from apps.provisioning.models import ApplyRun, Declaration, Observation, Plan
from apps.quotas.manifests import QUOTA_NAME, Manifest
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


def last_run(declaration: Declaration) -> ApplyRun | None:
    """Return the newest apply run of a declaration."""
    return ApplyRun.objects.filter(declaration=declaration).order_by("-started_at", "-pk").first()


def declarations_of(workspaces: Iterable[Workspace]) -> dict[uuid.UUID, Declaration]:
    """Return the declarations of many workspaces by workspace uid, in one query."""
    uids = [workspace.uid for workspace in workspaces]
    return {row.owner_uid: row for row in Declaration.objects.filter(kind=KIND, owner_uid__in=uids)}


def _units(values: object, resources: Collection[str] | None = None) -> dict[str, int]:
    """Return `requests.<resource>` entries of a quota's status as whole units by resource name."""
    found: dict[str, int] = {}
    if not isinstance(values, dict):
        return found
    for key, value in values.items():
        name = str(key).removeprefix("requests.")
        if name == key or "/" not in name or (resources is not None and name not in resources):
            continue
        text = str(value)
        if text.isdecimal():
            found[name] = int(text)
    return found


def usage(workspaces: Iterable[Workspace]) -> dict[int, Usage]:
    """Return what was last observed of many workspaces' quotas, by workspace id, in one query."""
    by_place = {(workspace.cluster_id, workspace.namespace): workspace.pk for workspace in workspaces}
    if not by_place:
        return {}
    where = Q(cluster_id__in={place[0] for place in by_place}, namespace__in={place[1] for place in by_place})
    rows = Observation.objects.filter(where, kind="ResourceQuota", name=QUOTA_NAME)
    found: dict[int, Usage] = {}
    for row in rows:
        workspace_id = by_place.get((row.cluster_id, row.namespace))
        if workspace_id is None:
            continue
        if row.missing:
            found[workspace_id] = Usage({}, {}, row.observed_at)
        else:
            found[workspace_id] = Usage(_units(row.status.get("hard")), _units(row.status.get("used")), row.observed_at)
    return found
