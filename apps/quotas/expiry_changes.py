"""Change requests about the expiry ladder: its policy, and archiving or restoring a workspace deliberately."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from apps.approvals.ports import Change
from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Invalid
from apps.provisioning.choices import DeclarationKind
from apps.quotas import expiry, kueue_state, ladder, ladder_manifests
from apps.quotas.changes import Proposed
from apps.quotas.choices import OPEN_STATUSES, ChangeKind, Rung
from apps.quotas.cluster_side import declared_manifests
from apps.quotas.manifests import Manifest
from apps.quotas.models import ChangeRequest, QuotaRequest, Workspace
from apps.quotas.records import rendered

SYSTEM = Actor.system("quotas.changes")


def needed(workspace: Workspace | None) -> Workspace:
    """Return the workspace of a change that is about one. Raises Invalid for a change of the cluster itself."""
    if workspace is None:
        raise Invalid({"": "This is a change of one workspace."})
    return workspace


def proposal(workspace: Workspace, manifests: list[Manifest] | None) -> list[Proposed]:
    """Return a workspace's declaration as proposed; nothing where nothing is declared yet."""
    if manifests is None:
        return []
    title = f"Workspace {workspace.namespace}"
    return [Proposed(DeclarationKind.WORKSPACE, workspace.uid, title, workspace.team_id, manifests)]


def where(workspace: Workspace) -> str:
    """Return a workspace in words."""
    return f"{workspace.namespace} on {workspace.cluster}"


class ExpiryPolicyChange:
    """How far down, and how fast, a workspace is taken once its quota has ended."""

    kind = ChangeKind.EXPIRY_POLICY

    def check(self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any]) -> dict[str, Any]:
        """Return the policy as it is stored. Raises Invalid per field."""
        found = needed(workspace)
        if found.archived_at is not None:
            raise Invalid({"": "The workspace is archived: restore it first."})
        return ladder.check(values).plain()

    def title(self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any]) -> str:
        """Return the change in one line."""
        last = ladder.of(values).last_rung
        return f"At the end of quota in {where(needed(workspace))}: {Rung(last).label.lower()}"

    def settings_diff(self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any]) -> list[Change]:
        """Return the policy in words, before and after."""
        found = needed(workspace)
        before, after = expiry.approved_policy(found), ladder.of(values)
        lines = [
            Change(
                cluster.slug,
                found.namespace,
                "when its quota has ended",
                ladder.sentence(before),
                ladder.sentence(after),
                "applies by itself, step by step, each announced",
            )
        ]
        if after.last_rung == Rung.ARCHIVED:
            note = "what archiving means"
            kept = "Roles are for looking only, nothing may start; namespace, volumes and data stay."
            lines.append(Change(cluster.slug, found.namespace, note, "", kept, "restored by a granted quota"))
        return lines

    def propose(
        self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any], at: datetime
    ) -> list[Proposed]:
        """Return the workspace with the policy on its namespace."""
        found = needed(workspace)
        stored = declared_manifests(found)
        if stored is None:
            return []
        value = ladder.annotations_of(values).get(ladder.ANNOTATION)
        return proposal(found, ladder_manifests.with_annotation(stored, ladder.ANNOTATION, value))

    def on_granted(self, change: ChangeRequest, at: datetime) -> None:
        """Put the policy into force."""
        workspace = needed(change.workspace)
        workspace.expiry_policy = change.values
        workspace.bump("expiry_policy")


class ArchiveChange:
    """Archive a workspace deliberately: it has to hold nothing and to run nothing."""

    kind = ChangeKind.ARCHIVE

    def check(self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any]) -> dict[str, Any]:
        """Take no values. Raises Invalid where something is held, comes, runs or is asked for."""
        found = needed(workspace)
        problems = self._problems(found, clock.now())
        if problems:
            raise Invalid({"": problems})
        return {}

    def _problems(self, workspace: Workspace, at: datetime) -> list[str]:
        if workspace.archived_at is not None:
            return ["The workspace is archived already."]
        problems = []
        facts = expiry.facts_of(workspace, at)
        if facts.holds or facts.coming:
            problems.append("The workspace holds quota, or will. Give it back first: request 0 GPUs.")
        if facts.used:
            problems.append(f"{facts.used:,} GPUs are in use there. Stop what runs first.")
        if QuotaRequest.objects.filter(workspace=workspace, status__in=OPEN_STATUSES).exists():
            problems.append("A quota request for it is open. Withdraw it first.")
        return problems

    def blockers(self, change: ChangeRequest, at: datetime) -> Sequence[str]:
        """Return why nobody may approve it now."""
        return self._problems(needed(change.workspace), at) if change.workspace is not None else []

    def title(self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any]) -> str:
        """Return the change in one line."""
        return f"Archive {where(needed(workspace))}"

    def settings_diff(self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any]) -> list[Change]:
        """Say what archiving means."""
        name = needed(workspace).namespace
        return [
            Change(cluster.slug, name, "state", "in use", "archived", "restored by request, or by a granted quota"),
            Change(cluster.slug, name, "roles", "as they are", "for looking only", ""),
            Change(cluster.slug, name, "namespace, volumes and data", "kept", "kept", "nothing is deleted"),
        ]

    def propose(
        self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any], at: datetime
    ) -> list[Proposed]:
        """Return the workspace's objects as an archive."""
        found = needed(workspace)
        stored = declared_manifests(found)
        return proposal(found, ladder_manifests.archived(stored) if stored is not None else None)

    def on_granted(self, change: ChangeRequest, at: datetime) -> None:
        """Mark the workspace archived and tell its leads."""
        workspace = needed(change.workspace)
        workspace.rung, workspace.rung_at, workspace.archived_at = Rung.ARCHIVED, at, at
        workspace.bump("rung", "rung_at", "archived_at")
        expiry.announce(workspace, Rung.ARCHIVED, None, actor=SYSTEM)


class RestoreChange:
    """Bring an archived workspace back: roles, labels and limits as they are rendered today."""

    kind = ChangeKind.RESTORE

    def check(self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any]) -> dict[str, Any]:
        """Take no values. Raises Invalid where it is not archived."""
        if needed(workspace).archived_at is None:
            raise Invalid({"": "The workspace is not archived."})
        return {}

    def title(self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any]) -> str:
        """Return the change in one line."""
        return f"Restore {where(needed(workspace))}"

    def settings_diff(self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any]) -> list[Change]:
        """Say what restoring means."""
        name = needed(workspace).namespace
        return [Change(cluster.slug, name, "state", "archived", "in use", "it holds no quota until one is granted")]

    def propose(
        self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any], at: datetime
    ) -> list[Proposed]:
        """Return the workspace's objects rendered anew; nothing that is declared is left out."""
        found = needed(workspace)
        return proposal(found, restored_manifests(found, at))

    def on_granted(self, change: ChangeRequest, at: datetime) -> None:
        """Take the workspace out of the archive: it stands on the first rung until it holds something again."""
        workspace = needed(change.workspace)
        workspace.rung = Rung.NONE if expiry.holds_something(workspace, at) else Rung.STOPPED_ADMITTING
        workspace.rung_at, workspace.archived_at = at, None
        workspace.bump("rung", "rung_at", "archived_at")
        facts = expiry.facts_of(workspace, at)
        expiry.announce(workspace, workspace.rung, ladder.upcoming(expiry.approved_policy(workspace), facts))


def restored_manifests(workspace: Workspace, at: datetime) -> list[Manifest] | None:
    """Return an archived workspace's objects as they are when it comes back; None: nothing was ever declared."""
    stored = declared_manifests(workspace)
    if stored is None:
        return None
    fresh = rendered(workspace, at, kueue_state.state_of(workspace.cluster))
    return ladder_manifests.at_rung(
        ladder_manifests.restored(stored, fresh), Rung.STOPPED_ADMITTING, holds=expiry.holds_something(workspace, at)
    )


__all__ = ["ArchiveChange", "ExpiryPolicyChange", "RestoreChange", "needed", "proposal", "restored_manifests", "where"]
