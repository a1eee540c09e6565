"""What objects weigh against a ResourceQuota (pods.go and the object-count evaluator of the real controller)."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from apps.demo.cluster.errors import Obj
from apps.demo.cluster.kinds import BY_PATH, CLAIM, KINDS, POD, Kind
from apps.demo.cluster.quantity import form_of, parse, render
from apps.demo.cluster.store import Store
from apps.demo.cluster.validation import is_extended

Amounts = dict[str, Decimal]

_COMPUTE = ("cpu", "memory", "ephemeral-storage")
VALIDATED = {"cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"}
"""Quota keys that oblige every container to state the resource."""


def pod_resources(spec: Obj, part: str) -> Amounts:
    """Requests or limits of a pod: containers summed, at least the largest init container, plus overhead."""
    total: Amounts = {}
    for container in spec.get("containers") or []:
        for name, amount in ((container.get("resources") or {}).get(part) or {}).items():
            total[name] = total.get(name, Decimal(0)) + parse(amount)
    for container in spec.get("initContainers") or []:
        for name, amount in ((container.get("resources") or {}).get(part) or {}).items():
            total[name] = max(total.get(name, Decimal(0)), parse(amount))
    for name, amount in (spec.get("overhead") or {}).items():
        if part == "requests" or name in total:
            total[name] = total.get(name, Decimal(0)) + parse(amount)
    return total


def is_terminal(pod: Obj) -> bool:
    """Succeeded and failed pods hold nothing any more."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def pod_usage(pod: Obj) -> Amounts:
    """Quota keys of one pod. Of extended resources only `requests.<name>` exists."""
    used: Amounts = {"count/pods": Decimal(1)}
    if is_terminal(pod):
        return used
    used["pods"] = Decimal(1)
    spec = pod.get("spec") or {}
    for name, amount in pod_resources(spec, "requests").items():
        if name in _COMPUTE or name.startswith("hugepages-"):
            used[name] = used[f"requests.{name}"] = amount
        elif is_extended(name):
            used[f"requests.{name}"] = amount
    for name, amount in pod_resources(spec, "limits").items():
        if name in _COMPUTE:
            used[f"limits.{name}"] = amount
    return used


def object_usage(kind: Kind, obj: Obj) -> Amounts:
    """Quota keys of one object of any kind."""
    if kind is POD:
        return pod_usage(obj)
    used = {f"count/{kind.group_resource}": Decimal(1)}
    if not kind.group:
        used[kind.plural] = Decimal(1)
    if kind is CLAIM:
        used |= _claim_usage(obj.get("spec") or {})
    return used


def _claim_usage(spec: Obj) -> Amounts:
    size = parse(((spec.get("resources") or {}).get("requests") or {}).get("storage", "0"))
    used = {"requests.storage": size}
    if spec.get("storageClassName"):
        prefix = f"{spec['storageClassName']}.storageclass.storage.k8s.io/"
        used |= {f"{prefix}requests.storage": size, f"{prefix}persistentvolumeclaims": Decimal(1)}
    return used


def tracked(quota: Obj) -> set[str]:
    """Keys of `spec.hard` that the controller evaluates; others (`nvidia.com/gpu`) are stored and never enforced."""
    return {key for key in ((quota.get("spec") or {}).get("hard") or {}) if _is_tracked(key)}


_ELSEWHERE = {
    "replicationcontrollers",
    "requests.storage",
    "secrets",
    "services.loadbalancers",
    "services.nodeports",
}
"""Keys a real controller tracks that are not the plural of a kind served here."""


def _is_tracked(key: str) -> bool:
    if key.startswith("count/"):
        return bool(key[len("count/") :])
    if key in _ELSEWHERE or ".storageclass.storage.k8s.io/" in key:
        return True
    if key in ("pods", *_COMPUTE) or key.startswith("hugepages-"):
        return True
    if key.startswith("requests."):
        name = key[len("requests.") :]
        return name in _COMPUTE or is_extended(name) or name.startswith("hugepages-")
    if key.startswith("limits."):
        return key[len("limits.") :] in _COMPUTE
    return ("", "v1", key) in BY_PATH


def matches_scopes(quota: Obj, kind: Kind, obj: Obj) -> bool:
    """Whether a quota's scopes select the object. Scoped quotas select pods only."""
    spec = quota.get("spec") or {}
    selectors: list[Obj] = [{"scopeName": scope, "operator": "Exists"} for scope in spec.get("scopes") or []]
    selectors += (spec.get("scopeSelector") or {}).get("matchExpressions") or []
    if not selectors:
        return True
    return kind is POD and all(_scope(each, obj) for each in selectors)


def _scope(selector: Obj, pod: Obj) -> bool:
    spec, name = pod.get("spec") or {}, selector.get("scopeName")
    best_effort = (pod.get("status") or {}).get("qosClass") == "BestEffort"
    if name == "Terminating":
        return spec.get("activeDeadlineSeconds") is not None
    if name == "NotTerminating":
        return spec.get("activeDeadlineSeconds") is None
    if name == "BestEffort":
        return best_effort
    if name == "NotBestEffort":
        return not best_effort
    if name != "PriorityClass":
        return False
    value, operator = spec.get("priorityClassName", ""), selector.get("operator")
    if operator == "In":
        return value in (selector.get("values") or [])
    if operator == "NotIn":
        return value not in (selector.get("values") or [])
    return bool(value) if operator == "Exists" else not value


def used_in(store: Store, namespace: str, quota: Obj, kinds: Iterable[Kind] | None = None) -> Amounts:
    """Current use of everything a quota tracks, counted from the stored objects."""
    keys = tracked(quota)
    total: Amounts = {key: Decimal(0) for key in keys}
    for kind in kinds or _kinds_of(keys):
        for entry in store.entries(kind, namespace):
            if matches_scopes(quota, kind, entry.obj):
                for key, amount in object_usage(kind, entry.obj).items():
                    if key in total:
                        total[key] += amount
    return total


def _kinds_of(keys: set[str]) -> list[Kind]:
    counted = {key[len("count/") :] if key.startswith("count/") else key for key in keys}
    out = [kind for kind in KINDS if kind.namespaced and kind is not POD and kind.group_resource in counted]
    if CLAIM not in out and any("storage" in key for key in counted):
        out.append(CLAIM)
    return [*out, POD]


def shown(hard: Obj, amounts: Amounts) -> Obj:
    """Amounts as quantities, in the notation the quota's own limit is written in (`32Gi` beside `2Ti`)."""
    return {key: render(amount, _form(key, str(hard.get(key, "0")))) for key, amount in sorted(amounts.items())}


def _form(key: str, limit: str) -> str:
    return "binary" if "memory" in key or "storage" in key else form_of(limit)
