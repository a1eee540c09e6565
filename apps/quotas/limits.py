"""Workspace limits beside GPUs: CPU, memory, storage and object counts of its namespace, changed by change requests."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from apps.approvals.ports import Change
from apps.clusters.models import Cluster
from apps.core.errors import Invalid
from apps.provisioning import selectors
from apps.quotas import book
from apps.quotas.changes import Proposed
from apps.quotas.choices import ChangeKind
from apps.quotas.cluster_side import declared_manifests
from apps.quotas.expiry_changes import needed, proposal, where
from apps.quotas.kueue import with_node_limits
from apps.quotas.ladder_manifests import limit_keys, with_hard
from apps.quotas.manifests import quantity
from apps.quotas.models import ChangeRequest, Workspace


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit: its column, name, unit, range, and the ResourceQuota key that counts it (`gib`: in GiB there)."""

    name: str
    label: str
    unit: str
    most: int
    key: str
    gib: bool = False


LIMITS = (
    Limit("cpu_cores", "CPU", "cores", 1_000_000, "requests.cpu"),
    Limit("memory_gib", "Memory", "GiB", 10_000_000, "requests.memory", gib=True),
    Limit("storage_gib", "Storage", "GiB", 100_000_000, "requests.storage", gib=True),
    Limit("volume_claims", "Volume claims", "", 100_000, "persistentvolumeclaims"),
    Limit("pods", "Pods", "", 100_000, "pods"),
    Limit("jobs", "Jobs", "", 100_000, "count/jobs.batch"),
    Limit("deployments", "Deployments", "", 100_000, "count/deployments.apps"),
)
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class InUse:
    """One limit with what was last seen in use, in its unit, rounded up; `used` None: never seen, so unknown."""

    limit: Limit
    value: int
    used: int | None

    @property
    def over(self) -> bool:
        """Whether more is in use than the limit allows."""
        return self.used is not None and self.used > self.value


def current(workspace: Workspace) -> dict[str, int]:
    """Return a workspace's limits by column."""
    return {limit.name: getattr(workspace, limit.name) for limit in LIMITS}


def in_use(workspace: Workspace, status: selectors.QuotaStatus | None = None) -> list[InUse]:
    """Return every limit with what was last seen in use of it. Two queries, none where a page has the status."""
    status = status or selectors.quota_status(workspace.cluster_id, workspace.namespace)
    found = []
    for limit in LIMITS:
        pair = status.resources.get(limit.key)
        used = None
        if pair is not None:
            used = -(-int(pair[1]) // _GIB) if limit.gib else -int(-pair[1] // 1)
        found.append(InUse(limit, getattr(workspace, limit.name), used))
    return found


def check(values: dict[str, Any]) -> dict[str, int]:
    """Return the limits that are asked for, all of them. Raises Invalid per field."""
    known = {limit.name for limit in LIMITS}
    errors = dict.fromkeys(sorted(set(values) - known), "There is no such limit.")
    found: dict[str, int] = {}
    for limit in LIMITS:
        value = values.get(limit.name)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= limit.most:
            errors[limit.name] = f"Enter a whole number from 0 to {limit.most:,}."
        else:
            found[limit.name] = value
    if errors:
        raise Invalid(errors)
    return found


def warnings(workspace: Workspace, values: dict[str, int]) -> list[str]:
    """Say what lowering a limit below what is in use means. It is legal: nothing that runs is stopped."""
    found = []
    for one in in_use(workspace):
        wanted = values.get(one.limit.name)
        if wanted is not None and one.used is not None and one.used > wanted:
            unit = f" {one.limit.unit}" if one.limit.unit else ""
            found.append(
                f"{one.limit.label}: {one.used:,}{unit} are in use, {wanted:,}{unit} would be allowed. What is there "
                "stays; nothing new is admitted until use is below the limit."
            )
    return found


class LimitsChange:
    """CPU, memory, storage and object counts of a workspace's namespace."""

    kind = ChangeKind.LIMITS

    def check(self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any]) -> dict[str, Any]:
        """Return the limits, all of them. Raises Invalid per field."""
        found = needed(workspace)
        if found.archived_at is not None:
            raise Invalid({"": "The workspace is archived: restore it first."})
        return check(values)

    def title(self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any]) -> str:
        """Return the change in one line."""
        found = needed(workspace)
        before = current(found)
        changed = [limit.label for limit in LIMITS if before[limit.name] != values[limit.name]]
        return f"Limits of {where(found)}: {', '.join(changed) or 'none'}"

    def settings_diff(self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any]) -> list[Change]:
        """Return every limit that changes, with what is in use of it."""
        found = needed(workspace)
        lines = []
        for one in in_use(found):
            wanted = values[one.limit.name]
            if wanted == one.value:
                continue
            unit = f" {one.limit.unit}" if one.limit.unit else ""
            lines.append(
                Change(cluster.slug, found.namespace, one.limit.label, f"{one.value:,}{unit}", f"{wanted:,}{unit}", "")
            )
        return lines

    def propose(
        self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any], at: datetime
    ) -> list[Proposed]:
        """Return the workspace with these limits; its GPU limits stay as the quotas have them."""
        found = needed(workspace)
        stored = declared_manifests(found)
        if stored is None:
            return []
        meant = copy.copy(found)
        for name, value in values.items():
            setattr(meant, name, value)
        # Cores of CPU classes come on top of those that go with the workspace's GPUs.
        cpu = book.gpu_limits(meant, at).get("cpu", meant.cpu_cores)
        moved = with_node_limits(
            with_hard(stored, limit_keys(values, cpu)),
            cpu=str(meant.cpu_cores),
            memory=quantity(meant.memory_gib),
            pods=str(meant.pods),
        )
        return proposal(found, moved)

    def on_granted(self, change: ChangeRequest, at: datetime) -> None:
        """Write the limits."""
        workspace = needed(change.workspace)
        for name, value in change.values.items():
            setattr(workspace, name, value)
        workspace.bump(*change.values)


__all__ = ["LIMITS", "InUse", "Limit", "LimitsChange", "check", "current", "in_use", "warnings"]
