"""What applying objects would change, as the server itself says: GET, dry run, diff. Network only, no database."""

from __future__ import annotations

import contextvars
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from apps.clusters import kinds
from apps.clusters.clients.kubernetes import Answer
from apps.clusters.errors import ConflictError, NotFound, StaleRead
from apps.provisioning import diff, takeover
from apps.provisioning.ordering import Key, in_order, key_of

#: Dry runs in flight at once.
LANES = 5
Entry = dict[str, Any]
_IDENTITY = frozenset({("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace")})


class Client(Protocol):
    """What the planner and the applier need of a cluster (KubernetesClient, or a fake)."""

    def get(self, kind: str, name: str, namespace: str = "") -> dict[str, Any]:
        """Return one object. Raises NotFound."""

    def apply(
        self, manifest: Mapping[str, Any] | bytes, *, dry_run: bool = False, force: bool = False, target: Any = None
    ) -> Answer:
        """Server-side apply."""

    def delete(
        self,
        kind: str,
        name: str,
        namespace: str = "",
        *,
        uid: str = "",
        resource_version: str = "",
        dry_run: bool = False,
    ) -> Answer:
        """Delete an object."""


def make(
    client: Client,
    manifests: Sequence[Mapping[str, Any]],
    removed: Sequence[Mapping[str, Any]] = (),
    last: Mapping[Key, takeover.Last] | None = None,
) -> list[Entry]:
    """Return one entry per object (see models.Plan), in apply order, then what leaves the declaration.

    `last` is what the portal last applied of these objects: who else holds a field that still lives so is no conflict.

    Raises clusters.errors for what concerns the plan as a whole: no answer, no permission, an object that the server
    refuses (the error's message then names the object).
    """
    ordered = in_order(manifests)
    namespaces = {key_of(m).namespace for m in ordered} | {key_of(m).name for m in ordered if m["kind"] == "Namespace"}
    absent = {namespace for namespace in sorted(namespaces - {""}) if not _exists(client, namespace)}
    with ThreadPoolExecutor(max_workers=LANES, thread_name_prefix="plan") as pool:
        asked = [pool.submit(contextvars.copy_context().run, _entry, client, m, absent, last or {}) for m in ordered]
        gone = [pool.submit(contextvars.copy_context().run, _removal, client, m) for m in removed]
        return [future.result() for future in asked] + [e for future in gone if (e := future.result()) is not None]


def is_empty(entries: Sequence[Entry]) -> bool:
    """Whether a plan changes nothing."""
    return all(entry["operation"] in ("unchanged", "retain") and not entry["conflicts"] for entry in entries)


def plans_removal(entries: Sequence[Entry], key: Key) -> bool:
    """Whether a plan names the removal of an object."""
    return any(
        entry["operation"] == "remove" and (entry["kind"], entry["namespace"], entry["name"]) == tuple(key)
        for entry in entries
    )


def _exists(client: Client, namespace: str) -> bool:
    try:
        client.get("Namespace", namespace)
    except NotFound:
        return False
    return True


def _blank(manifest: Mapping[str, Any], operation: str, *, server_checked: bool) -> Entry:
    key = key_of(manifest)
    return {
        "api_version": str(manifest["apiVersion"]), "kind": key.kind, "namespace": key.namespace, "name": key.name,
        "operation": operation, "server_checked": server_checked, "changes": [], "conflicts": [], "taken_over": [],
        "warnings": [],
    }  # fmt: skip


def _entry(client: Client, manifest: Mapping[str, Any], absent: set[str], last: Mapping[Key, takeover.Last]) -> Entry:
    key = key_of(manifest)
    if key.namespace in absent:
        # A dry run into a namespace that does not exist answers 404 (reference F): what we render is all there is.
        entry = _blank(manifest, "create", server_checked=False)
        entry["changes"] = _told(diff.changes(None, manifest))
        return entry
    try:
        live: dict[str, Any] | None = client.get(key.kind, key.name, key.namespace)
    except NotFound:
        live = None
    entry = _blank(manifest, "update" if live else "create", server_checked=True)
    try:
        answer = _dry_run(client, manifest)
    except StaleRead:
        answer = _dry_run(client, manifest)
    except ConflictError as conflict:
        entry["taken_over"], entry["conflicts"] = takeover.split(conflict.causes, last.get(key), manifest, live)
        answer = client.apply(manifest, dry_run=True, force=True)
    found = diff.changes(live, answer.object)
    entry["changes"] = _told(found)
    entry["warnings"] = [*answer.warnings, *_rewritten(manifest, answer.object)]
    if live is not None and not found and not entry["conflicts"]:
        entry["operation"] = "unchanged"
    return entry


def _told(changes: Sequence[diff.Change]) -> list[dict[str, Any]]:
    """Return changes as stored: kind and name are the entry's own and need not be told again."""
    return [change.plain() for change in changes if change.path not in _IDENTITY]


def _dry_run(client: Client, manifest: Mapping[str, Any]) -> Answer:
    return client.apply(manifest, dry_run=True)


def _rewritten(manifest: Mapping[str, Any], answered: Mapping[str, Any]) -> list[str]:
    """What admission on the cluster would make of declared fields, as warnings."""
    return [
        f"the cluster would rewrite {c.text_path} from {diff.show(c.before)} to {diff.show(c.after)}"
        for c in diff.declared_changes(manifest, answered)
    ]


def _removal(client: Client, manifest: Mapping[str, Any]) -> Entry | None:
    key = key_of(manifest)
    try:
        live = client.get(key.kind, key.name, key.namespace)
    except NotFound:
        return None
    if key.kind in kinds.NEVER_PRUNED:
        return _blank(manifest, "retain", server_checked=True)
    entry = _blank(manifest, "remove", server_checked=True)
    entry["changes"] = _told(diff.changes(live, None))
    return entry
