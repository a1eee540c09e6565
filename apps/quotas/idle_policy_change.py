"""The idle policy as a kind of change: asked for, approved, declared on the namespace, and only then in force."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from apps.approvals.ports import Change
from apps.clusters.models import Cluster
from apps.core.errors import Invalid
from apps.provisioning.choices import DeclarationKind
from apps.quotas import idle_policy, ladder_manifests, records
from apps.quotas.changes import Proposed
from apps.quotas.choices import ChangeKind
from apps.quotas.cluster_side import declared_manifests
from apps.quotas.idle_policy import IdlePolicy
from apps.quotas.models import ChangeRequest, Workspace

_LABELS = {
    "enabled": "Idle work is stopped",
    "threshold_percent": "Idle below, % of GPU use",
    "idle_minutes": "Idle for, minutes",
    "notice_minutes": "Notice, minutes",
    "production_serving": "Stop what serves in production",
    "spared_kinds": "Kinds left alone",
    "spared_priorities": "Priorities left alone",
    "action": "What is done",
}


class IdlePolicyHandler:
    """`ChangeKind.IDLE_POLICY`."""

    kind = ChangeKind.IDLE_POLICY

    def check(self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any]) -> dict[str, Any]:
        """Return the policy as it is stored. Raises Invalid per field, and for an archived workspace."""
        place = _place(workspace)
        if place.archived_at is not None:
            raise Invalid({"": "The workspace is archived: nothing runs there."})
        return idle_policy.check(values).plain()

    def title(self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any]) -> str:
        """Return the change in one line."""
        place = _place(workspace)
        if not idle_policy.of(values).enabled:
            return f"Leave idle work alone in {place.namespace} on {cluster}"
        return f"Idle policy of {place.namespace} on {cluster}"

    def settings_diff(self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any]) -> list[Change]:
        """Return every setting of the policy that changes."""
        place = _place(workspace)
        before, after = _words(idle_policy.of(place.idle_policy)), _words(idle_policy.of(values))
        return [
            Change(cluster.slug, place.namespace, _LABELS[name], before.get(name, "–"), after.get(name, "–"))
            for name in _LABELS
            if before.get(name, "–") != after.get(name, "–")
        ]

    def propose(
        self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any], at: datetime
    ) -> list[Proposed]:
        """Return the workspace's objects with the policy on its namespace; none while nothing is declared there."""
        place = _place(workspace)
        if declared_manifests(place) is None:
            return []
        manifests = ladder_manifests.with_annotation(
            records.manifests_at(place, at),
            idle_policy.ANNOTATION,
            idle_policy.annotations_of(values).get(idle_policy.ANNOTATION),
        )
        title = f"Workspace {place.namespace}"
        return [Proposed(DeclarationKind.WORKSPACE, place.uid, title, place.team_id, manifests)]

    def on_granted(self, change: ChangeRequest, at: datetime) -> None:
        """Put the policy in force."""
        place = Workspace.objects.locked(_place(change.workspace).pk)
        place.idle_policy = change.values
        place.bump("idle_policy")


def _place(workspace: Workspace | None) -> Workspace:
    if workspace is None:
        raise Invalid({"": "An idle policy is a workspace's."})
    return workspace


def _words(policy: IdlePolicy) -> dict[str, str]:
    """Return a policy's settings as people read them; a policy that does nothing has one."""
    if not policy.enabled:
        return {"enabled": "no"}
    found = {}
    for name, value in policy.plain().items():
        if isinstance(value, bool):
            found[name] = "yes" if value else "no"
        elif isinstance(value, list):
            found[name] = ", ".join(value) or "none"
        else:
            found[name] = str(value)
    return found
