"""What the API server does with a request on a stored kind, without HTTP: create, update, patch, apply, delete."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from apps.demo.cluster import patches, podsecurity
from apps.demo.cluster.admission import (
    charge_quotas,
    check_limits,
    limit_range_defaults,
    mutate_pod,
    namespace_open,
)
from apps.demo.cluster.apply import clone, server_side_apply
from apps.demo.cluster.auth import Rbac, User
from apps.demo.cluster.calls import Answer, Call, check_preconditions, disowned, generated_suffix, spec_of, stamp
from apps.demo.cluster.decoding import decode, decode_apply
from apps.demo.cluster.defaults import apply_defaults
from apps.demo.cluster.errors import ApiError, Obj, already_exists, bad_request, conflict, forbidden, not_found
from apps.demo.cluster.kinds import (
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    LIMIT_RANGE,
    NAMESPACE,
    NODE,
    POD,
    ROLE,
    ROLE_BINDING,
    Kind,
)
from apps.demo.cluster.ownership import Manager, track_update
from apps.demo.cluster.policies import Asked, Policies
from apps.demo.cluster.schema import type_of
from apps.demo.cluster.store import Entry, Store, Transaction, encode, new_uid
from apps.demo.cluster.validation import validate

PROTECTED = ("default", "kube-system", "kube-public", "kube-node-lease")
_PURGING = (
    "The system is ensuring all content is removed from this namespace.  Upon completion, this namespace will "
    "automatically be purged by the system."
)
_KEPT_META = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "namespace")


class Api:
    """Operations on stored objects. Every method raises `ApiError` only."""

    def __init__(self, store: Store, rbac: Rbac, clock: Callable[[], datetime]) -> None:
        self.store = store
        self.rbac = rbac
        self.clock = clock
        self.policies = Policies(store)
        self.mutators: list[Callable[[Kind, Obj], None]] = []
        """Mutating webhooks of add-ons; each may change a new object in place."""

    def now(self) -> str:
        """Time stamp in the wire form."""
        return stamp(self.clock())

    # ---- reading

    def get(self, kind: Kind, namespace: str, name: str) -> Entry:
        """Entry or 404."""
        entry = self.store.get(kind, namespace, name)
        if entry is None:
            raise not_found(kind.plural, kind.group, name)
        return entry

    # ---- writing

    def create(self, kind: Kind, namespace: str, body: Any, call: Call) -> Answer:
        """POST. 201 with the new object."""
        obj = self._decode(kind, namespace, "", body, call)
        with self._transaction(call) as result:
            result.entry = self._insert(kind, namespace, obj, call)
        return self._answer(201, result.entry, call)

    def update(self, kind: Kind, namespace: str, name: str, body: Any, call: Call) -> Answer:
        """PUT. Objects must exist."""
        obj = self._decode(kind, namespace, name, body, call)
        with self._transaction(call) as result:
            entry = self.get(kind, namespace, name)
            result.entry = self._replace(entry, obj, call)
        return self._answer(200, result.entry, call)

    def patch(self, kind: Kind, namespace: str, name: str, media: str, body: Any, call: Call) -> Answer:
        """PATCH with any of the four media types."""
        if media == "application/apply-patch+yaml":
            return self._apply(kind, namespace, name, body, call)
        with self._transaction(call) as result:
            entry = self.get(kind, namespace, name)
            base = clone(entry.obj)
            if media == "application/json-patch+json":
                patched = patches.json_patch(base, body)
            elif not isinstance(body, dict):
                raise bad_request("the patch must be a JSON object")
            elif media == "application/merge-patch+json":
                patched = patches.merge_patch(base, body)
            elif media == "application/strategic-merge-patch+json":
                patched = patches.strategic_patch(base, body, type_of(kind))
            else:
                raise ApiError(
                    415, "UnsupportedMediaType", f"the body of the request was in an unknown format: {media}"
                )
            obj = self._decode(kind, namespace, name, patched, call)
            result.entry = self._replace(entry, obj, call)
        return self._answer(200, result.entry, call)

    def delete(self, kind: Kind, namespace: str, name: str, options: Obj, call: Call) -> Answer:
        """DELETE: at once, or (namespaces, finalizers, running pods) marked for the controllers to finish."""
        with self._transaction(call) as result:
            entry = self.get(kind, namespace, name)
            check_preconditions(entry, options)
            if kind is NAMESPACE and name in PROTECTED:
                raise forbidden(kind.plural, "", name, "this namespace may not be deleted")
            self._judge(kind, "DELETE", None, entry.obj, call)
            result.entry, gone = self._mark_or_remove(entry, options)
        if not gone or call.dry_run:
            return self._answer(200, result.entry, call)
        details = {"name": name, "kind": kind.plural, "uid": entry.obj["metadata"].get("uid", "")}
        if kind.group:
            details["group"] = kind.group
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        if kind is POD:
            return Answer(200, result.entry.raw, result.entry.obj)
        return Answer(200, encode(status), status)

    def system_create(self, kind: Kind, obj: Obj, account: str = "") -> Entry:
        """Create on behalf of the cluster itself, with admission, inside the caller's transaction if any.

        `account` is the controller's service account as `namespace:name`: admission policies judge it by that.
        """
        namespace = obj["metadata"].get("namespace", "")
        user, manager = User("system:kube-controller-manager", ("system:masters",)), "kube-controller-manager"
        if account:
            space, _, manager = account.partition(":")
            groups = ("system:serviceaccounts", f"system:serviceaccounts:{space}")
            user = User(f"system:serviceaccount:{account}", groups)
        call = Call(user, manager)
        with self.store.transaction():
            return self._insert(kind, namespace, self._decode(kind, namespace, "", clone(obj), call), call)

    def end_pod(self, entry: Entry) -> None:
        """Delete a pod gracefully, as evictions do. Inside a transaction; nothing happens where it moved or is gone."""
        if self.store.get(POD, entry.namespace, entry.name) is entry:
            self._mark_or_remove(entry, {})

    # ---- parts

    def _answer(self, code: int, entry: Entry, call: Call) -> Answer:
        """The written object; after a dry run with the resourceVersion that is still in force, or none."""
        if not call.dry_run:
            return Answer(code, entry.raw, entry.obj)
        stored = self.store.get(entry.kind, entry.namespace, entry.name)
        meta = {name: value for name, value in entry.obj["metadata"].items() if name != "resourceVersion"}
        if stored is not None:
            meta["resourceVersion"] = stored.obj["metadata"]["resourceVersion"]
        obj = {**entry.obj, "metadata": meta}
        return Answer(code, encode(obj), obj)

    def _transaction(self, call: Call) -> Transaction:
        return Transaction(self.store, call.dry_run)

    def _decode(self, kind: Kind, namespace: str, name: str, body: Any, call: Call) -> Obj:
        return decode(kind, namespace, name, body, call.validation, call.warnings)

    def _insert(self, kind: Kind, namespace: str, obj: Obj, call: Call, managers: list[Manager] | None = None) -> Entry:
        meta = obj["metadata"]
        if meta.get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")
        meta.pop("managedFields", None)
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"] + generated_suffix()
        name = meta.get("name", "")
        if kind.namespaced:
            namespace_open(self.store, kind, namespace, name)
        if name and self.store.get(kind, namespace, name) is not None:
            raise already_exists(kind.plural, kind.group, name)
        obj = self._prepare_new(kind, obj)
        obj = self._finish(kind, obj, None, call)
        self._check_rbac(kind, namespace, obj, {}, call)
        self._judge(kind, "CREATE", obj, None, call)
        if managers is None:
            managers = track_update(
                None,
                obj,
                type_of(kind),
                manager=call.manager,
                api_version=kind.api_version,
                subresource="",
                now=self.now(),
            )
        obj["metadata"]["managedFields"] = [entry.wire() for entry in managers]
        if kind.namespaced:
            charge_quotas(self.store, kind, obj)
        return self.store.put(kind, obj)

    def _prepare_new(self, kind: Kind, obj: Obj) -> Obj:
        meta = obj["metadata"]
        meta["uid"], meta["creationTimestamp"] = new_uid(), self.now()
        for name in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"):
            meta.pop(name, None)
        if kind.counts_generation:
            meta["generation"] = 1
        if kind.has_status and kind is not NODE:
            obj["status"] = {}
        return obj

    def _finish(self, kind: Kind, obj: Obj, old: Obj | None, call: Call) -> Obj:
        """Defaulting, mutating admission, validation, validating admission; `obj` is private and changed in place."""
        apply_defaults(kind, obj)
        if kind is LIMIT_RANGE:
            limit_range_defaults(obj)
        if kind is POD and old is None:
            mutate_pod(self.store, obj)
        if old is None:
            for mutate in self.mutators:
                mutate(kind, obj)
        validate(kind, obj, old)
        if old is None or kind is not POD:
            podsecurity.admit(self.store, kind, obj, old, call.warnings)
        if kind is POD and old is None:
            check_limits(self.store, obj)
        return obj

    def _replace(self, entry: Entry, obj: Obj, call: Call, managers: list[Manager] | None = None) -> Entry:
        """Store `obj` over `entry` unless nothing changes; keeps what no client may set."""
        kind, old = entry.kind, entry.obj
        sent, kept = obj["metadata"], old["metadata"]
        if sent.get("resourceVersion") and sent["resourceVersion"] != kept["resourceVersion"]:
            raise conflict(kind.plural, kind.group, entry.name)
        if sent.get("uid") and sent["uid"] != kept["uid"]:
            raise conflict(
                kind.plural,
                kind.group,
                entry.name,
                f"Precondition failed: UID in precondition: {sent['uid']}, UID in object meta: {kept['uid']}",
            )
        sent["resourceVersion"] = kept["resourceVersion"]
        for name in _KEPT_META:
            sent.pop(name, None)
            if name in kept:
                sent[name] = kept[name]
        if call.subresource == "status":
            obj = {**clone(old), "status": obj.get("status") or {}}
        elif kind.has_status:
            obj["status"] = clone(old.get("status") or {})
            if not obj["status"] and "status" not in old:
                del obj["status"]
        if managers is None:
            obj = self._finish(kind, obj, old, call)
            managers = track_update(
                disowned(old, sent),
                obj,
                type_of(kind),
                manager=call.manager,
                api_version=kind.api_version,
                subresource=call.subresource,
                now=self.now(),
            )
        if kind.counts_generation and spec_of(obj) != spec_of(old):
            obj["metadata"]["generation"] = int(kept.get("generation", 1)) + 1
        obj["metadata"]["managedFields"] = [manager.wire() for manager in managers]
        if obj == old:
            return entry
        self._check_rbac(kind, entry.namespace, obj, old, call)
        self._judge(kind, "UPDATE", obj, old, call)
        stored = self.store.put(kind, obj)
        marked = obj["metadata"].get("deletionTimestamp") and not obj["metadata"].get("finalizers")
        if marked and kind not in (NAMESPACE, POD):
            return self.store.delete(stored)
        return stored

    def _judge(self, kind: Kind, operation: str, obj: Obj | None, old: Obj | None, call: Call) -> None:
        """Ask the admission policies. Raises what they deny."""
        meta = (obj or old or {})["metadata"]
        asked = Asked(
            kind,
            operation,
            meta.get("namespace", ""),
            meta.get("name", ""),
            call.user,
            obj,
            old,
            call.subresource,
            call.dry_run,
        )
        self.policies.admit(asked, call.warnings)

    def _check_rbac(self, kind: Kind, namespace: str, obj: Obj, old: Obj, call: Call) -> None:
        """Nobody grants by a role or a binding what they do not hold themselves. Raises 403."""
        if kind in (ROLE_BINDING, CLUSTER_ROLE_BINDING) and obj.get("roleRef") != old.get("roleRef"):
            self.rbac.check_grant(call.user, namespace, obj.get("roleRef") or {}, kind.plural)
        elif kind in (ROLE, CLUSTER_ROLE) and obj.get("rules") != old.get("rules"):
            self.rbac.check_rules(call.user, namespace, obj.get("rules") or [], kind.plural, obj["metadata"]["name"])

    def _apply(self, kind: Kind, namespace: str, name: str, body: Any, call: Call) -> Answer:
        config = decode_apply(kind, namespace, name, body, keep_status=call.subresource == "status")
        fresh = False
        with self._transaction(call) as result:
            entry = self.store.get(kind, namespace, name)
            if entry is None:
                if call.subresource:
                    raise not_found(kind.plural, kind.group, name)
                if config["metadata"].get("resourceVersion") or config["metadata"].get("uid"):
                    raise conflict(kind.plural, kind.group, name)
                fresh = True
                _, managers = self._merge(None, config, kind, call, finish=clone)
                result.entry = self._insert(kind, namespace, clone(config), call, managers)
            else:
                wanted = config["metadata"].pop("resourceVersion", None)
                if wanted and wanted != entry.obj["metadata"]["resourceVersion"]:
                    raise conflict(kind.plural, kind.group, name)
                old = entry.obj

                def finish(merged: Obj) -> Obj:
                    return self._finish(kind, merged, old, call)

                merged, managers = self._merge(old, config, kind, call, finish=finish)
                result.entry = self._replace(entry, merged, call, managers)
        return self._answer(201 if fresh else 200, result.entry, call)

    def _merge(
        self, live: Obj | None, config: Obj, kind: Kind, call: Call, finish: Callable[[Obj], Obj]
    ) -> tuple[Obj, list[Manager]]:
        return server_side_apply(
            live,
            config,
            type_of(kind),
            manager=call.manager,
            api_version=kind.api_version,
            subresource=call.subresource,
            force=call.force,
            now=self.now(),
            finish=finish,
        )

    def _mark_or_remove(self, entry: Entry, options: Obj) -> tuple[Entry, bool]:
        meta = entry.obj["metadata"]
        policy = options.get("propagationPolicy", "Background")
        if policy == "Orphan":
            self._orphan(meta["uid"], entry.namespace)
        grace = int(options.get("gracePeriodSeconds", 30 if entry.kind is POD else 0))
        running = entry.kind is POD and grace > 0 and (entry.obj.get("spec") or {}).get("nodeName")
        ended = (entry.obj.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        if entry.kind is NAMESPACE or meta.get("finalizers") or (running and not ended):
            if meta.get("deletionTimestamp"):
                if entry.kind is NAMESPACE:
                    raise conflict(entry.kind.plural, "", entry.name, _PURGING)
                return entry, False
            obj = clone(entry.obj)
            obj["metadata"]["deletionTimestamp"] = self.now()
            obj["metadata"]["deletionGracePeriodSeconds"] = grace
            if entry.kind is NAMESPACE:
                obj["status"] = {"phase": "Terminating"}
            return self.store.put(entry.kind, obj), False
        return self.store.delete(entry), True

    def _orphan(self, uid: str, namespace: str) -> None:
        for pod in self.store.entries(POD, namespace):
            owners = pod.obj["metadata"].get("ownerReferences") or []
            if any(owner.get("uid") == uid for owner in owners):
                obj = clone(pod.obj)
                obj["metadata"]["ownerReferences"] = [owner for owner in owners if owner.get("uid") != uid]
                self.store.put(POD, obj)
