"""Enforcement of one workspace: what is decided, what lives, which entries the cluster is told, and what is overdue.

A decision comes into force in two parts. The list of usable grants is declared at once (kind `enforcement`, one object
per workspace). The label of the namespace, by which the cluster's policies choose what they judge, and the roles of the
team come with the cluster's next approved baseline, as the guard's do.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import transaction

from apps import audit
from apps.catalogue import grants as version_grants
from apps.catalogue import locations
from apps.catalogue import manifest as manifests
from apps.catalogue.choices import REGULATED
from apps.clusters import capabilities
from apps.clusters.access import require
from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.actor import Actor
from apps.core.canonical import digest_of
from apps.core.errors import Conflict, Invalid, NotVisible
from apps.core.row_security import lifted
from apps.deployments import admission, enforcement_entries, grants, verifying
from apps.deployments import enforcement_events as events
from apps.deployments.admission import Entry
from apps.deployments.choices import ON_CLUSTER, EnforcementMode
from apps.deployments.models import Enforcement, Release
from apps.provisioning import actions as provisioning
from apps.provisioning.choices import DeclarationKind
from apps.provisioning.models import Declaration, DeclaredObject
from apps.quotas import baseline
from apps.quotas.models import Workspace

SET = "deployments.enforcement.set"
MIN_REASON = 5


@dataclass(frozen=True, slots=True)
class Standing:
    """How enforcement stands in a workspace. `live`: by the label that was applied to its namespace."""

    decided: EnforcementMode
    live: EnforcementMode
    missing: str | None
    regulated: bool
    declaration: Declaration | None

    @property
    def pending(self) -> bool:
        """Whether the cluster does not do yet what is decided."""
        return self.decided != self.live


def standing(workspace: Workspace) -> Standing:
    """Return how enforcement stands in a workspace."""
    row = Enforcement.objects.filter(workspace=workspace).first()
    declaration = Declaration.objects.filter(
        cluster_id=workspace.cluster_id, kind=DeclarationKind.ENFORCEMENT, owner_uid=workspace.uid
    ).first()
    return Standing(
        EnforcementMode(row.mode) if row is not None else EnforcementMode.OFF,
        live_modes([workspace])[workspace.pk],
        capabilities.missing(workspace.cluster, "enforcement"),
        is_regulated(workspace),
        declaration,
    )


def is_regulated(workspace: Workspace) -> bool:
    """Whether data of a regulated class may be processed there."""
    return bool(REGULATED & set(workspace.data_classes))


def live_modes(workspaces: Sequence[Workspace]) -> dict[int, EnforcementMode]:
    """Return the mode that each workspace's namespace was applied with, by primary key; one query."""
    by_key = {(one.cluster_id, one.namespace): one.pk for one in workspaces}
    found = dict.fromkeys((one.pk for one in workspaces), EnforcementMode.OFF)
    rows = DeclaredObject.objects.filter(
        kind="Namespace", name__in={one.namespace for one in workspaces},
        cluster_id__in={one.cluster_id for one in workspaces},
    )  # fmt: skip
    for cluster_id, name, body in rows.values_list("cluster_id", "name", "applied_body"):
        applied = json.loads(bytes(body)) if body else {}
        label = ((applied.get("metadata") or {}).get("labels") or {}).get(admission.LABEL, "")
        if label in EnforcementMode.values and (cluster_id, name) in by_key:
            found[by_key[cluster_id, name]] = EnforcementMode(label)
    return found


def decided_modes(workspace_ids: Sequence[int]) -> dict[int, str]:
    """Return the modes that namespaces carry as a label, for the quotas room: "" where it is off."""
    rows = Enforcement.objects.filter(workspace_id__in=workspace_ids).exclude(mode=EnforcementMode.OFF)
    return dict(rows.values_list("workspace_id", "mode"))


def contribution(cluster: Cluster) -> Sequence[dict[str, Any]]:
    """Return what a cluster's baseline holds for enforcement; nothing where nobody decided for it, or it cannot.

    Raises Invalid where the verifying container is set without a digest.
    """
    found: list[dict[str, Any]] = []
    labels = baseline.labels()
    decided = Enforcement.objects.filter(workspace__cluster=cluster).exclude(mode=EnforcementMode.OFF)
    if capabilities.missing(cluster, "enforcement") is None and decided.exists():
        found += admission.policies(labels)
    try:
        image = verifying.image()
    except ValueError as error:
        raise Invalid({"": f"The verifying storage container cannot be declared: {error}"}) from error
    if image and capabilities.missing(cluster, "serving") is None:
        found.append(verifying.storage_container(image, labels))
    return found


@transaction.atomic
def set_mode(
    workspace_id: int,
    mode: str,
    reason: str,
    *,
    actor: Actor,
    confirmed: bool = False,
    expected_version: int | None = None,
) -> Enforcement:
    """Decide what the cluster does in a workspace with models that no usable grant covers.

    Audit comes first: refusing needs `confirmed`, as does taking it back. Raises NotVisible, NotAllowed, Invalid (no
    such mode, no reason, not offered there, not confirmed), Conflict (decided like this already, a stale form).
    """
    workspace = Workspace.objects.select_related("team__unit", "cluster").filter(pk=workspace_id).first()
    if workspace is None:
        raise NotVisible
    Enforcement.objects.get_or_create(workspace=workspace)
    row = Enforcement.objects.locked(
        Enforcement.objects.values_list("pk", flat=True).get(workspace=workspace), expected_version=expected_version
    )
    require(actor, SET, row)
    if mode not in EnforcementMode.values:
        raise Invalid({"mode": "Choose off, audit or deny."})
    if len(reason.strip()) < MIN_REASON:
        raise Invalid({"reason": "Say in a few words why: it is kept in the audit trail."})
    if row.mode == mode:
        raise Conflict(f"It is decided as “{EnforcementMode(mode).label}” already.")
    if workspace.archived_at is not None:
        raise Conflict("The workspace is archived.")
    if mode != EnforcementMode.OFF and (why := capabilities.missing(workspace.cluster, "enforcement")):
        raise Invalid({"mode": why})
    if mode == EnforcementMode.DENY and row.mode != EnforcementMode.AUDIT:
        raise Invalid({"mode": "Begin with audit: it notes what would be refused, and refuses nothing."})
    if EnforcementMode.DENY in (mode, row.mode) and not confirmed:
        raise Invalid({"confirmed": "Confirm that you have read what this refuses, or no longer refuses."})
    before, row.mode = row.mode, EnforcementMode(mode)
    row.changed_by_id, row.reason = actor.user_id, reason.strip()[:500]
    row.bump("mode", "changed_by", "reason")
    audit.record(
        events.ENFORCEMENT_DECIDED,
        events.EnforcementDecided(
            workspace.uid, workspace.namespace, workspace.cluster.slug, str(before), str(row.mode)
        ),
        actor=actor,
        subject_type="quotas.workspace",
        subject_uid=workspace.uid,
        team_uid=workspace.team.uid,
        reason=reason.strip(),
    )
    refresh(workspace.pk, actor=actor)
    return Enforcement.objects.get(pk=row.pk)


@transaction.atomic
def refresh(workspace_id: int, *, actor: Actor) -> bool:
    """Declare the usable grants of a workspace as they are now; whether anything was declared. Off: nothing is.

    An entry whose grant ended is left out, so the cluster no longer takes it, whatever its clock says. What serves on
    without one is listed apart, so that a node may fail: its pods are replaced, and nothing begins.
    """
    row = Enforcement.objects.select_related("workspace__team", "workspace__cluster").filter(
        workspace_id=workspace_id
    ).first()  # fmt: skip
    if row is None or row.mode == EnforcementMode.OFF:
        return False
    row = Enforcement.objects.locked(row.pk)
    workspace = row.workspace
    now = clock.now()
    found = usable(workspace, now)
    found += serving_on(workspace, {entry.manifest for entry in found})
    manifest = admission.approved_models(
        workspace.namespace, _labels(workspace), row.mode, found, platform_images(workspace.cluster)
    )
    body_digest = digest_of(manifest)
    ends = [entry.expires for entry in found if entry.expires is not None and not entry.release]
    if body_digest == row.entries_digest:
        return False
    row.entries = [*manifest["spec"]["entries"], *({**one, "serving": True} for one in manifest["spec"]["serving"])]
    row.entries_digest = body_digest
    row.declared_at, row.next_expiry_at = now, min(ends, default=None)
    row.bump("entries", "entries_digest", "declared_at", "next_expiry_at")
    provisioning.declare(
        workspace.cluster_id, DeclarationKind.ENFORCEMENT, workspace.uid,
        f"Approved models of {workspace.namespace}", workspace.team_id, [manifest], grant_uid=None, actor=actor,
    )  # fmt: skip
    audit.record(
        events.ENTRIES_DECLARED,
        events.EntriesDeclared(workspace.uid, workspace.namespace, workspace.cluster.slug, len(found), body_digest),
        actor=actor,
        subject_type="quotas.workspace",
        subject_uid=workspace.uid,
        team_uid=workspace.team.uid,
        after_digest=body_digest,
    )
    return True


def _labels(workspace: Workspace) -> Mapping[str, str]:
    return {
        "gpu-commons/managed": "true",
        "gpu-commons/workspace": str(workspace.uid),
        "gpu-commons/team": workspace.team.slug,
    }


@lifted("what a workspace may load is all that was approved for it, whoever's model it is")
def usable(workspace: Workspace, at: datetime) -> list[Entry]:
    """Return the entries of all grants that are usable in a workspace at `at`, emergencies among them."""
    verified = verifying.verifies(workspace.cluster)
    found: list[Entry] = []
    granted = version_grants.usable_entries(workspace.uid, workspace.cluster.slug, str(workspace.environment), at)
    versions = _versions({one.version_uid for one in granted})
    for one in granted:
        found.append(
            enforcement_entries.entry(
                versions[one.version_uid], grant=str(one.grant_uid), version=str(one.version_uid),
                not_before=one.not_before, expires=one.expires_at, max_traffic=one.max_traffic, bound=one.bound,
                verified=verified,
            )
        )  # fmt: skip
    for grant, release in grants.emergency_entries(workspace.uid, at):
        manifest = locations.manifest_of(release.model_version)
        found.append(
            enforcement_entries.entry(
                manifest, grant=str(grant.uid), version=str(release.model_version.uid), not_before=grant.not_before,
                expires=grant.expires_at, bound=verifying.bound(workspace.cluster, manifest), verified=verified,
            )
        )  # fmt: skip
    return found


def serving_on(workspace: Workspace, covered: Collection[str]) -> list[Entry]:
    """Return an entry for each release on the cluster whose version no usable grant covers any more.

    `covered`: manifest digests of the usable grants.
    """
    rows = Release.objects.filter(
        endpoint__workspace=workspace, endpoint__removed_at__isnull=True, status__in=ON_CLUSTER
    ).exclude(version_digest__in=covered)
    verified = verifying.verifies(workspace.cluster)
    found = []
    for release in rows.select_related("model_version").order_by("pk"):
        manifest = locations.manifest_of(release.model_version)
        own = grants.release_grant(release)
        found.append(
            enforcement_entries.entry(
                manifest, grant=str(own.uid) if own is not None else "", version=str(release.model_version.uid),
                not_before=release.created_at, expires=None, bound=verifying.bound(workspace.cluster, manifest),
                verified=verified, release=str(release.uid),
            )
        )  # fmt: skip
    return found


def _versions(uids: set[uuid.UUID]) -> dict[uuid.UUID, manifests.Manifest]:
    return locations.manifests_of(uids)


def platform_images(cluster: Cluster) -> list[str]:
    """Return the images that the platform itself puts into pods there, exactly as pods name them."""
    own = [image] if (image := settings.COMMONS_VERIFIER_IMAGE.strip()) else []
    return sorted({*capabilities.of(cluster).kserve.images, *settings.COMMONS_PLATFORM_IMAGES, *own})
