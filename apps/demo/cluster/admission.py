"""Admission: LimitRange defaults and bounds, priority classes, namespace lifecycle, ResourceQuota.

Sentences are those of the real plug-ins, because people search for them and the portal reads them.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from apps.demo.cluster.apply import clone
from apps.demo.cluster.defaults import qos_class
from apps.demo.cluster.errors import Obj, forbidden, not_found
from apps.demo.cluster.kinds import LIMIT_RANGE, NAMESPACE, POD, PRIORITY_CLASS, QUOTA, Kind
from apps.demo.cluster.quantity import parse
from apps.demo.cluster.store import Store
from apps.demo.cluster.usage import (
    VALIDATED,
    Amounts,
    matches_scopes,
    object_usage,
    pod_resources,
    shown,
    tracked,
    used_in,
)
from apps.demo.cluster.validation import is_extended


def namespace_open(store: Store, kind: Kind, namespace: str, name: str) -> None:
    """New objects need a namespace that exists (404) and is not being deleted (403)."""
    found = store.get(NAMESPACE, "", namespace)
    if found is None:
        raise not_found("namespaces", "", namespace)
    if found.obj["metadata"].get("deletionTimestamp"):
        raise forbidden(
            kind.plural,
            kind.group,
            name,
            f"unable to create new content in namespace {namespace} because it is being terminated",
            [
                {
                    "reason": "NamespaceTerminating",
                    "message": f"namespace {namespace} is being terminated",
                    "field": "metadata.namespace",
                }
            ],
        )


def mutate_pod(store: Store, pod: Obj) -> None:
    """Priority and LimitRange defaults, in place."""
    _priority(store, pod)
    namespace = pod["metadata"].get("namespace", "")
    for _, item in _limits(store, namespace, "Container"):
        _limit_defaults(pod, item)
    pod["status"]["qosClass"] = qos_class(pod["spec"])


def with_limit_defaults(store: Store, namespace: str, pod_spec: Obj) -> Obj:
    """A pod's spec as it will be once created in a namespace: with the defaults of its LimitRanges."""
    items = [item for _, item in _limits(store, namespace, "Container")]
    if not items:
        return pod_spec
    pod: Obj = {"metadata": {}, "spec": clone(pod_spec)}
    for item in items:
        _limit_defaults(pod, item)
    found: Obj = pod["spec"]
    return found


def _priority(store: Store, pod: Obj) -> None:
    spec = pod["spec"]
    wanted = spec.get("priorityClassName", "")
    classes = {entry.name: entry.obj for entry in store.entries(PRIORITY_CLASS)}
    if not wanted:
        wanted = next((name for name, each in classes.items() if each.get("globalDefault")), "")
        if not wanted:
            spec["priority"], spec["preemptionPolicy"] = 0, "PreemptLowerPriority"
            return
        spec["priorityClassName"] = wanted
    if wanted not in classes:
        name = pod["metadata"].get("name", "")
        raise forbidden("pods", "", name, f"no PriorityClass with name {wanted} was found")
    spec["priority"] = classes[wanted].get("value", 0)
    spec["preemptionPolicy"] = classes[wanted].get("preemptionPolicy", "PreemptLowerPriority")


def _limits(store: Store, namespace: str, kind: str) -> Iterator[tuple[str, Obj]]:
    for entry in store.entries(LIMIT_RANGE, namespace):
        for item in (entry.obj.get("spec") or {}).get("limits") or []:
            if item.get("type") == kind:
                yield entry.name, item


def _limit_defaults(pod: Obj, item: Obj) -> None:
    notes = []
    for container in [*(pod["spec"].get("containers") or []), *(pod["spec"].get("initContainers") or [])]:
        resources = container.setdefault("resources", {})
        for part, source in (("limits", "default"), ("requests", "defaultRequest")):
            added = []
            for name, amount in (item.get(source) or {}).items():
                if name not in resources.setdefault(part, {}):
                    resources[part][name] = amount
                    added.append(name)
            if added:
                notes.append(f"{', '.join(sorted(added))} {part[:-1]} for container {container.get('name')}")
            if not resources[part]:
                del resources[part]
    if notes:
        annotations = pod["metadata"].setdefault("annotations", {})
        annotations["kubernetes.io/limit-ranger"] = "LimitRanger plugin set: " + "; ".join(notes)


def check_limits(store: Store, pod: Obj) -> None:
    """Refuse (403) a pod outside the bounds of a LimitRange."""
    namespace, name = pod["metadata"].get("namespace", ""), pod["metadata"].get("name", "")
    errors: list[str] = []
    for _, item in _limits(store, namespace, "Container"):
        for container in pod["spec"].get("containers") or []:
            resources = container.get("resources") or {}
            errors += _bounds(item, "Container", resources.get("requests") or {}, resources.get("limits") or {})
    for _, item in _limits(store, namespace, "Pod"):
        requests = {key: str(value) for key, value in pod_resources(pod["spec"], "requests").items()}
        limits = {key: str(value) for key, value in pod_resources(pod["spec"], "limits").items()}
        errors += _bounds(item, "Pod", requests, limits)
    if errors:
        raise forbidden("pods", "", name, errors[0] if len(errors) == 1 else "[" + ", ".join(errors) + "]")


def _bounds(item: Obj, kind: str, requests: Obj, limits: Obj) -> Iterator[str]:
    for name, bound in sorted((item.get("min") or {}).items()):
        if name not in requests:
            yield f"minimum {name} usage per {kind} is {bound}.  No request is specified"
        elif parse(requests[name]) < parse(bound):
            yield f"minimum {name} usage per {kind} is {bound}, but request is {requests[name]}"
    for name, bound in sorted((item.get("max") or {}).items()):
        if name not in limits:
            yield f"maximum {name} usage per {kind} is {bound}.  No limit is specified"
        elif parse(limits[name]) > parse(bound):
            yield f"maximum {name} usage per {kind} is {bound}, but limit is {limits[name]}"
        elif name in requests and parse(requests[name]) > parse(bound):
            yield f"maximum {name} usage per {kind} is {bound}, but request is {requests[name]}"


def limit_range_defaults(obj: Obj) -> None:
    """`SetDefaults_LimitRangeItem`: container defaults follow from max and min.

    Mind the consequence: `max: {nvidia.com/gpu: 8}` without a `default` gives *every* container eight GPUs.
    """
    for item in (obj.get("spec") or {}).get("limits") or []:
        if item.get("type") != "Container":
            continue
        default, request = dict(item.get("default") or {}), dict(item.get("defaultRequest") or {})
        for name, amount in (item.get("max") or {}).items():
            default.setdefault(name, amount)
        for source in (default, item.get("min") or {}):
            for name, amount in source.items():
                request.setdefault(name, amount)
        if default:
            item["default"] = default
        if request:
            item["defaultRequest"] = request


def charge_quotas(store: Store, kind: Kind, obj: Obj) -> None:
    """ResourceQuota admission of a new object: refuse with 403, or add it to every quota's `status.used`.

    Runs inside the transaction that stores the object, so two requests never both take the last place.
    """
    namespace, name = obj["metadata"].get("namespace", ""), obj["metadata"].get("name", "")
    delta = object_usage(kind, obj)
    charged: list[tuple[Obj, Amounts]] = []
    for entry in store.entries(QUOTA, namespace):
        quota = entry.obj
        keys = tracked(quota) & set(delta) if kind is not POD else tracked(quota)
        if not keys or not matches_scopes(quota, kind, obj):
            continue
        if kind is POD:
            _must_specify(quota, obj, keys)
        wanted = {key: delta[key] for key in keys if delta.get(key)}
        if not wanted:
            continue
        hard = quota["spec"]["hard"]
        used = used_in(store, namespace, quota)
        over = {key for key, amount in wanted.items() if used[key] + amount > parse(hard[key])}
        if over:
            asked = _pretty(shown(hard, {key: wanted[key] for key in over}))
            taken = _pretty(shown(hard, {key: used[key] for key in over}))
            limit = _pretty({key: hard[key] for key in over})
            why = f"exceeded quota: {entry.name}, requested: {asked}, used: {taken}, limited: {limit}"
            raise forbidden(kind.plural, kind.group, name, why)
        charged.append((quota, {key: used[key] + wanted.get(key, Decimal(0)) for key in used}))
    for quota, used in charged:
        fresh = clone(quota)
        hard = quota["spec"]["hard"]
        fresh["status"] = {"hard": dict(sorted(hard.items())), "used": shown(hard, used)}
        if fresh["status"] != quota.get("status"):
            store.put(QUOTA, fresh)


def _must_specify(quota: Obj, pod: Obj, keys: set[str]) -> None:
    missing: dict[str, set[str]] = {}
    for container in [*(pod["spec"].get("containers") or []), *(pod["spec"].get("initContainers") or [])]:
        resources = container.get("resources") or {}
        stated = set(resources.get("requests") or {})
        stated |= {f"requests.{name}" for name in resources.get("requests") or {}}
        stated |= {f"limits.{name}" for name in resources.get("limits") or {}}
        for key in keys & VALIDATED - stated:
            missing.setdefault(key, set()).add(container.get("name", ""))
    if missing:
        listed = "; ".join(f"{key} for: {','.join(sorted(missing[key]))}" for key in sorted(missing))
        why = f"failed quota: {quota['metadata']['name']}: must specify {listed}"
        raise forbidden("pods", "", pod["metadata"].get("name", ""), why)


def _pretty(amounts: Obj) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(amounts.items()))


def gpu_total(pod: Obj) -> dict[str, int]:
    """Extended resources a pod holds, in whole pieces."""
    return {name: int(n) for name, n in pod_resources(pod.get("spec") or {}, "requests").items() if is_extended(name)}
