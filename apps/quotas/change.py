"""The exact change that an approval covers: canonical bytes and one digest leaf per cluster and field path. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from apps.core.canonical import canonical_bytes, digest_of
from apps.core.events import plain
from apps.quotas.ledger import Holding
from apps.quotas.manifests import QUOTA_NAME, Manifest, without_gpus


@dataclass(frozen=True, slots=True)
class Asked:
    """What a quota request asks for, in the words of the outside world (uids and slugs, no keys)."""

    request_uid: str
    workspace_uid: str
    cluster: str
    namespace: str
    flavour: str
    resource: str
    guaranteed: int
    borrow_mode: str
    borrow_limit: int
    valid_from: datetime
    valid_until: datetime | None
    recurrence: dict[str, Any] | None = None
    lend_mode: str = "all"
    lend_limit: int = 0
    serving: int = 0

    @property
    def extras(self) -> dict[str, Any]:
        """What came later than the first requests: only what is not the default, so that their bytes stay the same."""
        found: dict[str, Any] = {}
        if self.recurrence is not None:
            found["recurrence"] = self.recurrence
        if (self.lend_mode, self.lend_limit) != ("all", 0):
            found |= {"lend_mode": self.lend_mode, "lend_limit": self.lend_limit}
        if self.serving:
            found["serving"] = self.serving
        return found

    def plain(self) -> dict[str, Any]:
        """Return the request as plain data for the canonical bytes."""
        data: dict[str, Any] = plain(self)
        for name in ("recurrence", "lend_mode", "lend_limit", "serving"):
            del data[name]
        return data | self.extras


def held(holding: Holding | None) -> dict[str, Any]:
    """Return a holding as plain data; nothing held is zero."""
    if holding is None:
        return {"guaranteed": 0, "borrow_mode": "none", "borrow_limit": 0}
    found: dict[str, Any] = {
        "guaranteed": holding.guaranteed,
        "borrow_mode": holding.borrow_mode,
        "borrow_limit": holding.borrow_limit,
    }
    if (holding.lend_mode, holding.lend_limit) != ("all", 0):
        found |= {"lend_mode": holding.lend_mode, "lend_limit": holding.lend_limit}
    if holding.serving:
        found["serving"] = holding.serving
    return found


def quota_path(asked: Asked) -> str:
    """Return the JSON pointer of the limit that the request moves, prefixed by its object."""
    key = f"requests.{asked.resource}".replace("~", "~0").replace("/", "~1")
    return f"v1/ResourceQuota/{asked.namespace}/{QUOTA_NAME}#/spec/hard/{key}"


def object_path(manifest: Manifest) -> str:
    """Return `apiVersion/kind/namespace/name` of an object."""
    meta = manifest["metadata"]
    return f"{manifest['apiVersion']}/{manifest['kind']}/{meta.get('namespace', '')}/{meta['name']}"


def creation_leaves(cluster: str, manifests: Sequence[Manifest]) -> list[dict[str, str]]:
    """Return a leaf per object that a new workspace brings, its GPU limits left out (they have leaves of their own)."""
    return [
        {"cluster": cluster, "path": object_path(manifest), "digest": digest_of(without_gpus(manifest))}
        for manifest in manifests
    ]


def queue_path(asked: Asked) -> str:
    """Return where the quota stands in the workspace's ClusterQueue: the entry of its flavour in the one list."""
    return f"kueue.x-k8s.io/v1beta2/ClusterQueue//{asked.namespace}#/spec/resourceGroups/{asked.flavour}"


def quota_leaves(asked: Asked, *, queued: bool = False) -> list[dict[str, str]]:
    """Return the leaves of the limit itself: what it becomes at the start and, with an end, the fall-back then.

    A recurring quota has one leaf: the repetition and its span, from which every switch-over follows. `queued`: Kueue
    runs the workspace, and its ClusterQueue moves with the ResourceQuota.
    """
    found = _leaves_at(asked, quota_path(asked))
    return [*found, *_leaves_at(asked, queue_path(asked))] if queued else found


def _leaves_at(asked: Asked, path: str) -> list[dict[str, str]]:
    value = {
        "flavour": asked.flavour,
        "guaranteed": asked.guaranteed,
        "borrow_mode": asked.borrow_mode,
        "borrow_limit": asked.borrow_limit,
    } | asked.extras
    starts = plain(asked.valid_from)
    if asked.recurrence is not None:
        span = {"not_before": starts, "reverts_at": plain(asked.valid_until)}
        return [
            {"cluster": asked.cluster, "path": f"{path}@{starts}/weekly", "digest": digest_of(value | span)},
        ]
    leaves = [
        {"cluster": asked.cluster, "path": f"{path}@{starts}", "digest": digest_of(value | {"not_before": starts})}
    ]
    if asked.valid_until is not None:
        ends = plain(asked.valid_until)
        leaves.append(
            {
                "cluster": asked.cluster,
                "path": f"{path}@{ends}",
                "digest": digest_of({"flavour": asked.flavour, "reverts": True, "not_before": ends}),
            }
        )
    return leaves


def canonical(asked: Asked, estimate: dict[str, Any], change: dict[str, Any]) -> bytes:
    """Return the bytes that people approve: request, paths it sets, estimate and its rates (invariant 3)."""
    return canonical_bytes(
        {"subject": "quotas.request", "request": asked.plain(), "estimate": estimate, "change": change}
    )
