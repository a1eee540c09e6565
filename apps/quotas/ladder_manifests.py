"""What the expiry ladder and workspace limits change in a workspace's stored objects. Pure.

Every function returns the objects it got, changed in named fields; none ever leaves an object out, so no declaration on
the ladder removes anything (design invariant 5). A RoleBinding's role cannot be changed on a cluster, so an archived
workspace has a binding of its own for looking, and the others name nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from apps.core.copies import copied
from apps.quotas.choices import Rung
from apps.quotas.manifests import LABEL, QUOTA_NAME, Manifest, quantity

ARCHIVED_LABEL = f"{LABEL}/archived"
VIEWERS = f"{LABEL}-archived"
#: What an archived workspace may have none of; storage and volume claims stay as they are.
_STOPPED_KEYS = ("pods", "count/jobs.batch", "count/deployments.apps", "requests.cpu", "requests.memory")
_STOP_POLICY = {Rung.STOPPED_ADMITTING: "Hold", Rung.DRAINED: "HoldAndDrain", Rung.ARCHIVED: "HoldAndDrain"}


def _is_quota(manifest: Manifest) -> bool:
    return bool(manifest["kind"] == "ResourceQuota" and manifest["metadata"]["name"] == QUOTA_NAME)


def _key(manifest: Manifest) -> tuple[str, str, str]:
    meta = manifest["metadata"]
    return manifest["kind"], meta.get("namespace", ""), meta["name"]


def at_rung(manifests: Sequence[Manifest], rung: str, *, holds: bool) -> list[Manifest]:
    """Return the objects with Kueue's queues stopped as the rung has it; where something is held they admit.

    Facts: `spec.stopPolicy` None | Hold | HoldAndDrain of kueue.x-k8s.io/v1beta2 ClusterQueue (reference C1).
    """
    result = copied(list(manifests))
    policy = "None" if holds else _STOP_POLICY.get(Rung(rung), "None")
    for manifest in result:
        if manifest["kind"] == "ClusterQueue" and manifest["spec"].get("stopPolicy", "None") != policy:
            manifest["spec"]["stopPolicy"] = policy
    return result


def archived(manifests: Sequence[Manifest]) -> list[Manifest]:
    """Return a workspace's objects as an archive: labelled, nothing may start, everybody who had a role may look."""
    result = at_rung(manifests, Rung.ARCHIVED, holds=False)
    subjects: list[dict[str, Any]] = []
    for manifest in result:
        meta = manifest["metadata"]
        if manifest["kind"] == "Namespace":
            meta.setdefault("labels", {})[ARCHIVED_LABEL] = "true"
        elif _is_quota(manifest):
            hard = manifest["spec"]["hard"]
            gpus = [key for key in hard if key.startswith("requests.") and "/" in key]
            hard.update(dict.fromkeys([*gpus, *(key for key in _STOPPED_KEYS if key in hard)], "0"))
        elif manifest["kind"] == "RoleBinding" and meta["name"] != VIEWERS:
            subjects += [subject for subject in manifest.get("subjects") or [] if subject not in subjects]
            manifest["subjects"] = []
    known = next((m for m in result if m["kind"] == "RoleBinding" and m["metadata"]["name"] == VIEWERS), None)
    if known is not None:
        known["subjects"] = subjects or known.get("subjects") or []
    elif subjects:
        result.append(_viewers(result, subjects))
    return result


def _viewers(manifests: Sequence[Manifest], subjects: list[dict[str, Any]]) -> Manifest:
    model = next(manifest for manifest in manifests if manifest["kind"] == "RoleBinding")
    return {
        "apiVersion": model["apiVersion"],
        "kind": "RoleBinding",
        "metadata": {**copied(model["metadata"]), "name": VIEWERS},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": subjects,
    }


def restored(stored: Sequence[Manifest], fresh: Sequence[Manifest]) -> list[Manifest]:
    """Return a workspace's objects as rendered anew, plus whatever was declared besides: nothing is left out."""
    result = copied(list(fresh))
    known = {_key(manifest) for manifest in result}
    for manifest in stored:
        if _key(manifest) in known:
            continue
        kept = copied(manifest)
        if kept["kind"] == "RoleBinding" and kept["metadata"]["name"] == VIEWERS:
            kept["subjects"] = []
        result.append(kept)
    return result


def with_annotation(manifests: Sequence[Manifest], name: str, value: str | None) -> list[Manifest]:
    """Return the objects with an annotation of the Namespace set, or taken away (None)."""
    result = copied(list(manifests))
    for manifest in result:
        if manifest["kind"] != "Namespace":
            continue
        annotations = dict(manifest["metadata"].get("annotations") or {})
        annotations.pop(name, None)
        if value is not None:
            annotations[name] = value
        manifest["metadata"].pop("annotations", None)
        if annotations:
            manifest["metadata"]["annotations"] = dict(sorted(annotations.items()))
    return result


def limit_keys(values: Mapping[str, int], cpu: int) -> dict[str, str]:
    """Return the ResourceQuota keys of a workspace's limits; `cpu`: cores with those of CPU classes on top."""
    return {
        "requests.cpu": str(cpu),
        "requests.memory": quantity(values["memory_gib"]),
        "requests.storage": quantity(values["storage_gib"]),
        "persistentvolumeclaims": str(values["volume_claims"]),
        "pods": str(values["pods"]),
        "count/jobs.batch": str(values["jobs"]),
        "count/deployments.apps": str(values["deployments"]),
    }


def with_hard(manifests: Sequence[Manifest], hard: Mapping[str, str]) -> list[Manifest]:
    """Return the objects with these keys of the workspace's quota set. Raises ValueError where there is no quota."""
    result = copied(list(manifests))
    for manifest in result:
        if _is_quota(manifest):
            manifest["spec"]["hard"].update(hard)
            return result
    raise ValueError("there is no workspace quota among these objects")


__all__ = [
    "ARCHIVED_LABEL",
    "VIEWERS",
    "archived",
    "at_rung",
    "limit_keys",
    "restored",
    "with_annotation",
    "with_hard",
]
