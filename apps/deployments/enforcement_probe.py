"""What a workspace's cluster would refuse now: what runs there, held against what is approved.

Served models are asked of the cluster itself, by a dry run under another name, where its policies are in place. Pods
are judged here, by their images: the portal has no right to create pods, not even in a dry run. Network outside any
transaction; what is found becomes notes, and notes that no longer hold end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q

from apps.clusters.clients.guard import no_transaction
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.clusters.errors import ClusterError, Forbidden, InvalidObject, NotFound
from apps.core import clock
from apps.deployments import admission
from apps.deployments.choices import EnforcementMode
from apps.deployments.enforcement import live_modes, platform_images
from apps.deployments.models import Enforcement, EnforcementNote
from apps.quotas.models import Workspace

EVERY = timedelta(minutes=10)
UNCOVERED = "uncovered"
#: Names of dry runs: nothing of theirs is ever stored.
_PROBE = "gpu-commons-probe"
_SERVING = ("InferenceService", "LLMInferenceService", "TrainedModel")
_MOST_NOTES = 200


@dataclass(frozen=True, slots=True)
class Found:
    """Something that would be refused: which object, and why."""

    object: str
    detail: str


def images_of(pod: Mapping[str, Any]) -> list[str]:
    """Return the images of all containers of a pod, those that run first and those added later among them."""
    spec = pod.get("spec") or {}
    held = [*(spec.get("containers") or []), *(spec.get("initContainers") or []),
            *(spec.get("ephemeralContainers") or [])]  # fmt: skip
    return [str(one.get("image") or "") for one in held]


def uncovered_images(pod: Mapping[str, Any], approved: Iterable[str], platform: Iterable[str]) -> list[str]:
    """Return a pod's images that neither an entry nor the platform covers. `approved`: sha256:… digests."""
    digests, own = set(approved), set(platform)
    return [
        image for image in images_of(pod) if image not in own and image.rpartition("@")[2] not in digests
    ]  # fmt: skip


def probe(workspace: Workspace, client: KubernetesClient) -> list[Found]:
    """Return what would be refused in a workspace. Raises ClusterError where the cluster fails as a whole."""
    no_transaction("a cluster was asked what it would refuse")
    row = Enforcement.objects.get(workspace=workspace)
    approved = {digest for entry in row.entries for digest in entry["images"]}
    platform = platform_images(workspace.cluster)
    found: list[Found] = []
    for pod in client.list("Pod", workspace.namespace).items:
        if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            continue
        if missing := uncovered_images(pod, approved, platform):
            found.append(Found(f"Pod {pod['metadata']['name']}", f"Not approved by digest: {', '.join(missing)}"))
    if live_modes([workspace])[workspace.pk] != EnforcementMode.OFF:
        for kind in _SERVING:
            found += _asked(workspace, client, kind)
    return found


def _asked(workspace: Workspace, client: KubernetesClient, kind: str) -> list[Found]:
    try:
        listed = client.list(kind, workspace.namespace).items
    except (NotFound, Forbidden):
        return []  # the cluster does not serve the kind, or the portal may not see it: nothing of it is ours
    found = []
    for one in listed:
        name = f"{kind} {one['metadata']['name']}"
        copy = {key: value for key, value in one.items() if key != "status"} | {"metadata": _meta(one)}
        copy |= {"apiVersion": one.get("apiVersion") or "", "kind": kind}
        try:
            answer = client.create(copy, dry_run=True)
        except (Forbidden, InvalidObject) as error:
            if reason := _reason(str(error)):
                found.append(Found(name, reason))
            continue
        found += [Found(name, reason) for warning in answer.warnings if (reason := _reason(warning))]
    return found


def _meta(obj: Mapping[str, Any]) -> dict[str, Any]:
    meta = obj.get("metadata") or {}
    kept = {key: meta[key] for key in ("namespace", "annotations") if meta.get(key)}
    return kept | {"name": f"{_PROBE}-{meta.get('name', '')}"[:60].rstrip("-")}


def _reason(text: str) -> str:
    """Return which of our refusals a server's words hold; "" where it is about something else."""
    if not any(policy in text for policy in admission.POLICIES):
        return ""
    return next((message for message in admission.MESSAGES.values() if message in text), text[-400:])


def record(workspace_id: int, found: Iterable[Found], at: datetime) -> int:
    """Keep what was found as notes and end those that no longer hold; returns how many changed."""
    wanted = {one.object[:300]: one.detail[:500] for one in list(found)[:_MOST_NOTES]}
    with transaction.atomic():
        Enforcement.objects.select_for_update(no_key=True).get(workspace_id=workspace_id)
        notes = EnforcementNote.objects.filter(workspace_id=workspace_id, kind=UNCOVERED, gone_at__isnull=True)
        moved = 0
        for note in notes:
            if wanted.get(note.object) == note.detail:
                del wanted[note.object]
                continue
            note.gone_at = at
            note.save(update_fields=["gone_at"])
            moved += 1
        for name, detail in sorted(wanted.items()):
            EnforcementNote.objects.create(
                workspace_id=workspace_id, kind=UNCOVERED, object=name, detail=detail, found_at=at
            )
            moved += 1
    return moved


def probe_all() -> int:
    """Look at every workspace in which something is decided and whose cluster can be called; returns what changed."""
    now = clock.now()
    rows = (
        Workspace.objects.filter(archived_at__isnull=True, cluster__paused_at__isnull=True)
        .filter(Q(cluster__retry_at__isnull=True) | Q(cluster__retry_at__lte=now))
        .exclude(enforcement__isnull=True)
        .exclude(enforcement__mode=EnforcementMode.OFF)
        .select_related("cluster")
        .order_by("cluster_id", "pk")
    )
    moved = 0
    dead: set[int] = set()
    for workspace in rows:
        if workspace.cluster_id in dead:
            continue
        try:
            found = probe(workspace, KubernetesClient.for_cluster(workspace.cluster))
        except ClusterError:
            # Its health is recorded by the client's other callers; what was noted stays until it answers again.
            dead.add(workspace.cluster_id)
            continue
        moved += record(workspace.pk, found, now)
    return moved
