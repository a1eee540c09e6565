"""The one way to a Kubernetes API server: raw JSON, a fixed kind table, explicit time-outs, own error classes.

Wire facts: reference kubernetes.md C4, C5 and F. Nothing here retries on its own account except one repetition of a
safe call whose kept-alive connection the server had already closed.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from apps.clusters import crypto, kinds
from apps.clusters.clients.calling import JSON, Answer, Caller, milliseconds_since
from apps.clusters.clients.watching import WatchEvent, WatchStream
from apps.clusters.errors import Gone, Unauthorised

if TYPE_CHECKING:
    from apps.clusters.models import Cluster

__all__ = ["Answer", "KubernetesClient", "Listing", "Page", "WatchEvent"]

#: How often an expired continue token may restart one listing.
LIST_RESTARTS = 3


@dataclass(frozen=True, slots=True)
class Listing:
    """A complete list: its items and the resource version to watch from."""

    items: list[JSON]
    resource_version: str
    ms: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list. `restarted`: forget the pages before; `last`: the list is complete with it."""

    items: list[JSON]
    resource_version: str
    restarted: bool = False
    last: bool = False


class KubernetesClient(Caller):
    """Calls one cluster. Share it between threads; make it after a fork (`for_cluster` sees to both)."""

    _clients: dict[tuple[int, int], tuple[str, KubernetesClient]] = {}
    _clients_lock = threading.Lock()

    @classmethod
    def for_cluster(cls, cluster: Cluster) -> Self:
        """Return this process's client for a cluster; a fork or replaced credentials make a new one.

        Raises Unauthorised where the stored credentials cannot be opened, AddressRefused or Unreachable for the
        address.
        """
        material = b"\0".join(
            [cluster.api_url.encode(), cluster.ca_certificate.encode(), bytes(cluster.credentials or b"")]
        )
        fingerprint = hashlib.sha256(material).hexdigest()
        key = (os.getpid(), cluster.pk)
        with cls._clients_lock:
            held = cls._clients.get(key)
            if held is not None and held[0] == fingerprint:
                return held[1]  # type: ignore[return-value]  # the table holds what this very class made
        try:
            token = crypto.decrypt(cluster.credentials)
        except crypto.CannotDecrypt as error:
            raise Unauthorised(str(error)) from error
        client = cls(cluster.api_url, token=token, ca_pem=cluster.ca_certificate)
        with cls._clients_lock:
            # A parent's entries are dropped without closing: their sockets are shared with the parent.
            for other in [k for k in cls._clients if k[0] != os.getpid()]:
                del cls._clients[other]
            replaced = cls._clients.get(key)
            cls._clients[key] = (fingerprint, client)
        if replaced is not None:
            replaced[1].close()
        return client

    @classmethod
    def forget_all(cls) -> None:
        """Close and forget every client of this process."""
        with cls._clients_lock:
            held = [client for (pid, _), (_, client) in cls._clients.items() if pid == os.getpid()]
            cls._clients.clear()
        for client in held:
            client.close()

    def close(self) -> None:
        """Close idle connections; calls under way finish, and later ones connect anew."""
        closed, self._pool = self._pool, self._new_pool()
        closed.close()

    # -- verbs ------------------------------------------------------------------------------------------------------

    def version(self) -> JSON:
        """Return `/version` (gitVersion, major, minor)."""
        return self.hello().object

    def hello(self) -> Answer:
        """Return the whole answer of `/version`: with the server's clock and how long it took."""
        return self._call("GET", "/version")

    def groups(self) -> JSON:
        """Return `/apis`: the API groups and versions this cluster serves."""
        return self._call("GET", "/apis").object

    def resources(self, group: str, version: str) -> JSON:
        """Return `/apis/<group>/<version>`: the resources of one API group. Raises NotFound where it is not served."""
        return self._call("GET", "/apis/{group}/{version}", {"group": group, "version": version}).object

    def get(self, kind: str, name: str, namespace: str = "") -> JSON:
        """Return one object. Raises NotFound."""
        return self._call("GET", *self._one(kind, name, namespace)).object

    def get_path(self, path: str, params: Mapping[str, str], *, query: Sequence[tuple[str, str]] = ()) -> JSON:
        """Return what lies at a path outside the kind table; `params` fill its `{name}` parts, quoted.

        For subresources and aggregated APIs. Raises NotFound where nobody serves it.
        """
        return self._call("GET", path, dict(params), query=[*query]).object

    def list(
        self, kind: str, namespace: str = "", *, label_selector: str = "", field_selector: str = "", limit: int = 500
    ) -> Listing:
        """Return all objects of a kind, page by page; an expired continue token starts the listing again.

        Raises Gone where it expired `LIST_RESTARTS` times over.
        """
        started = time.monotonic()
        items: list[JSON] = []
        version = ""
        for page in self.pages(
            kind, namespace, label_selector=label_selector, field_selector=field_selector, limit=limit
        ):
            if page.restarted:
                items.clear()
            items.extend(page.items)
            version = page.resource_version
        return Listing(items, version, milliseconds_since(started))

    def pages(
        self, kind: str, namespace: str = "", *, label_selector: str = "", field_selector: str = "", limit: int = 500
    ) -> Iterator[Page]:
        """Yield all objects of a kind page by page, so that nobody has to hold them all.

        An expired continue token starts the listing again, with a page that says so. Raises Gone where it expired
        `LIST_RESTARTS` times over.
        """
        entry = kinds.KINDS[kind]
        path = entry.collection if not namespace else entry.in_namespace
        params = {"namespace": kinds.check_namespace(entry, namespace)} if namespace else {}
        base = [("limit", str(limit))]
        if label_selector:
            base.append(("labelSelector", label_selector))
        if field_selector:
            base.append(("fieldSelector", field_selector))
        attempt, token, restarted = 0, "", False
        while True:
            try:
                page = self._call("GET", path, params, query=[*base, ("continue", token)] if token else base).object
            except Gone:
                attempt, token, restarted = attempt + 1, "", True
                if attempt > LIST_RESTARTS:
                    raise
                continue
            items: list[JSON] = page.get("items") or []
            for item in items:  # a list's items go without their type
                item.setdefault("kind", entry.kind)
                item.setdefault("apiVersion", entry.api_version)
            meta = page.get("metadata") or {}
            token = meta.get("continue") or ""
            yield Page(items, str(meta.get("resourceVersion", "")), restarted=restarted, last=not token)
            restarted = False
            if not token:
                return

    def apply(
        self,
        manifest: Mapping[str, Any] | bytes,
        *,
        dry_run: bool = False,
        force: bool = False,
        target: Any = None,
        manager: str = kinds.FIELD_MANAGER,
    ) -> Answer:
        """Server-side apply as field manager `gpu-commons` (or `manager`), with strict field validation.

        `manifest` may be stored bytes, which are sent as they are. Raises ConflictError with its causes where another
        manager holds a field and `force` is not set, and NotFound where the namespace does not exist.
        """
        parsed = target or (json.loads(manifest) if isinstance(manifest, bytes) else manifest)
        entry = kinds.of(parsed)
        meta = parsed.get("metadata") or {}
        path, params = self._one(entry.kind, meta.get("name", ""), meta.get("namespace", ""))
        query = [("fieldManager", manager), ("force", "true" if force else "false")]
        query.append(("fieldValidation", "Strict"))
        if dry_run:
            query.append(("dryRun", "All"))
        body = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
        return self._call("PATCH", path, params, query=query, body=body, content_type="application/apply-patch+yaml")

    def disown(self, obj: Mapping[str, Any], manager: str) -> Answer:
        """Let go of every field that `manager` holds by apply, leaving its values; `obj` is the object as just read.

        A merge patch of `metadata.managedFields` at the resourceVersion that was read; the list is emptied by `[{}]`
        (Kubernetes, "Clearing managedFields"). Raises StaleRead where the object has moved on.
        """
        entry = kinds.of(obj)
        meta = obj["metadata"]
        fields = meta.get("managedFields") or []
        left = [one for one in fields if (one.get("manager"), one.get("operation")) != (manager, "Apply")]
        patch = {"metadata": {"resourceVersion": meta["resourceVersion"], "managedFields": left or [{}]}}
        path, params = self._one(entry.kind, meta["name"], meta.get("namespace", ""))
        query = [("fieldManager", manager)]
        return self._call("PATCH", path, params, query=query, body=patch, content_type="application/merge-patch+json")

    def create(self, manifest: Mapping[str, Any], *, dry_run: bool = False) -> Answer:
        """Create an object (or ask what would become of it). Raises ConflictError where it exists."""
        entry = kinds.of(manifest)
        meta = manifest.get("metadata") or {}
        params = {"namespace": kinds.check_namespace(entry, meta.get("namespace", ""))} if entry.namespaced else {}
        if meta.get("name"):
            kinds.check_name(entry, meta["name"])
        query = [("fieldManager", kinds.FIELD_MANAGER), ("fieldValidation", "Strict")]
        if dry_run:
            query.append(("dryRun", "All"))
        body = dict(manifest)
        return self._call("POST", entry.in_namespace, params, query=query, body=body, content_type="application/json")

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
        """Delete an object, only if it is still the one with `uid` at `resource_version` (where given)."""
        conditions = {key: value for key, value in (("uid", uid), ("resourceVersion", resource_version)) if value}
        options: JSON = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if conditions:
            options["preconditions"] = conditions
        query = [("dryRun", "All")] if dry_run else []
        path, params = self._one(kind, name, namespace)
        return self._call("DELETE", path, params, query=query, body=options, content_type="application/json")

    def watch(
        self, kind: str, resource_version: str, *, label_selector: str = "", seconds: float = 300.0
    ) -> WatchStream:
        """Open a watch from `resource_version` that the server ends after `seconds`; iterate it for events.

        Raises Gone (at once, or while iterating) where that version has expired.
        """
        entry = kinds.KINDS[kind]
        query = [
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", resource_version),
            ("timeoutSeconds", str(max(1, int(seconds)))),
        ]
        if label_selector:
            query.append(("labelSelector", label_selector))
        # A bookmark comes about once a minute, so a silent connection is a dead one.
        response = self._open("GET", entry.collection, {}, query, None, "", timeout=(self._timeout[0], 90.0))
        if response.status != 200:
            try:
                raise self._refusal(response)
            finally:
                response.release_conn()
        return WatchStream(response)

    # -- the call path ----------------------------------------------------------------------------------------------

    def _one(self, kind: str, name: str, namespace: str) -> tuple[str, dict[str, str]]:
        entry = kinds.KINDS[kind]
        params = {"name": kinds.check_name(entry, name)}
        if entry.namespaced:
            params["namespace"] = kinds.check_namespace(entry, namespace)
        else:
            kinds.check_namespace(entry, namespace)
        return f"{entry.in_namespace}/{{name}}", params
