"""A kind of change for tests: it moves a workspace's pods and cores, or a label of a cluster's baseline."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from apps.approvals.ports import Change
from apps.clusters.models import Cluster
from apps.core.errors import Invalid
from apps.provisioning.choices import DeclarationKind
from apps.quotas.changes import Proposed
from apps.quotas.choices import ChangeKind
from apps.quotas.cluster_side import declared_manifests
from apps.quotas.models import ChangeRequest, Workspace

CHANGE_POLICY = {
    "validity_days": 365,
    "stages": [
        {
            "name": "Unit owner",
            "role": "unit_owner",
            "scope": "unit",
            "quorum": 1,
            "unless": [["of_cluster", "eq", "yes"]],
        },
        {
            "name": "Platform",
            "role": "platform_admin",
            "scope": "installation",
            "quorum": 1,
            "when": [["of_cluster", "eq", "yes"]],
        },
    ],
}


@dataclass
class PodsHandler:
    """Sets `pods` of a workspace; `drop` names kinds of objects that leave the declaration."""

    kind: ChangeKind = ChangeKind.LIMITS
    granted: list[str] = field(default_factory=list)
    concluded: list[str] = field(default_factory=list)

    def check(self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(values.get("pods"), int):
            raise Invalid({"pods": "Enter a whole number."})
        return {"pods": values["pods"], "drop": sorted(values.get("drop", []))}

    def title(self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any]) -> str:
        return f"{values['pods']} pods in {workspace.namespace if workspace else cluster}"

    def settings_diff(self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any]) -> list[Change]:
        before = str(workspace.pods) if workspace else ""
        return [Change(cluster.slug, "Limits", "pods", before, str(values["pods"]))]

    def propose(
        self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any], at: datetime
    ) -> list[Proposed]:
        if workspace is None:
            return []
        found = []
        for manifest in copy.deepcopy(declared_manifests(workspace) or []):
            if manifest["kind"] in values["drop"]:
                continue
            if manifest["kind"] == "ResourceQuota":
                manifest["spec"]["hard"]["pods"] = str(values["pods"])
            found.append(manifest)
        if not found:
            return []
        title = f"Workspace {workspace.namespace}"
        return [Proposed(DeclarationKind.WORKSPACE, workspace.uid, title, workspace.team_id, found)]

    def on_granted(self, change: ChangeRequest, at: datetime) -> None:
        self.granted.append(change.title)
        if change.workspace is not None:
            Workspace.objects.filter(pk=change.workspace_id).update(pods=change.values["pods"])

    def on_concluded(self, change: ChangeRequest, status: str) -> None:
        self.concluded.append(status)
