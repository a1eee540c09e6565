"""Defaults and validation of Kueue's kinds, as its definitions (0.19, `v1beta2`) and its webhooks word them.

Schema and CEL rules answer 422 Invalid, the webhooks' rules 403 Forbidden (checked on an API server with the real
definitions; the webhooks by reading their source).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

from apps.demo.cluster.errors import UNCHECKED, ApiError, Obj, invalid
from apps.demo.cluster.kinds import (
    ADMISSION_CHECK,
    CLUSTER_QUEUE,
    COHORT,
    LOCAL_QUEUE,
    RESOURCE_FLAVOR,
    TOPOLOGY,
    WORKLOAD,
    WORKLOAD_PRIORITY,
    Kind,
)
from apps.demo.cluster.quantity import parse

Problem = tuple[str, str, str]

_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
_QUANTITY = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_STOP = ("None", "Hold", "HoldAndDrain")


def defaults(kind: Kind, obj: Obj) -> None:
    """Fill in what the schemas default, in place."""
    if kind is CLUSTER_QUEUE:
        spec = obj.setdefault("spec", {})
        spec.setdefault("queueingStrategy", "BestEffortFIFO")
        spec.setdefault("stopPolicy", "None")
        fungibility = spec.setdefault("flavorFungibility", {})
        fungibility.setdefault("whenCanBorrow", "MayStopSearch")
        fungibility.setdefault("whenCanPreempt", "TryNextFlavor")
        preemption = spec.setdefault("preemption", {})
        preemption.setdefault("borrowWithinCohort", {}).setdefault("policy", "Never")
        preemption.setdefault("reclaimWithinCohort", "Never")
        preemption.setdefault("withinClusterQueue", "Never")
    elif kind is LOCAL_QUEUE and isinstance(obj.get("spec"), dict):
        obj["spec"].setdefault("stopPolicy", "None")
    elif kind is WORKLOAD and isinstance(obj.get("spec"), dict):
        obj["spec"].setdefault("active", True)
        for pod_set in obj["spec"].get("podSets") or []:
            pod_set.setdefault("name", "main")
            pod_set.setdefault("count", 1)
    if kind in (CLUSTER_QUEUE, COHORT, LOCAL_QUEUE) and isinstance((obj.get("spec") or {}).get("fairSharing"), dict):
        obj["spec"]["fairSharing"].setdefault("weight", 1)


def validate(kind: Kind, obj: Obj, old: Obj | None) -> None:
    """Raise 422 for what the schema or its CEL rules refuse, 403 for what a webhook refuses."""
    name = obj["metadata"].get("name", "")
    schema = list(_SCHEMA[kind](obj)) if kind in _SCHEMA else []
    if schema:
        raise invalid(kind.kind, kind.group, name, [*schema, UNCHECKED])
    rules = list(_CEL[kind](obj, old)) if kind in _CEL else []
    if rules:
        raise invalid(kind.kind, kind.group, name, rules)
    webhook = list(_webhook(kind, obj))
    if webhook:
        text = webhook[0] if len(webhook) == 1 else "[" + ", ".join(webhook) + "]"
        hook = f"v{kind.kind.lower()}.kb.io"
        raise ApiError(403, "Forbidden", f'admission webhook "{hook}" denied the request: {text}')


# ---- schema


def _required(field: str) -> Problem:
    return ("FieldValueRequired", field, "Required value")


def _pattern(value: Any, field: str, pattern: str) -> Iterator[Problem]:
    if isinstance(value, str) and not re.match(pattern, value):
        text = f"Invalid value: \"{value}\": {field} in body should match '{pattern}'"
        yield ("FieldValueInvalid", field, text)


def _one_of(value: Any, field: str, choices: tuple[str, ...]) -> Iterator[Problem]:
    if value is not None and value not in choices:
        listed = ", ".join(f'"{each}"' for each in choices)
        yield ("FieldValueNotSupported", field, f'Unsupported value: "{value}": supported values: {listed}')


def _at_most(value: Any, field: str, most: int) -> Iterator[Problem]:
    if value is not None and len(value) > most:
        yield ("FieldValueTooMany", field, f"Too many: {len(value)}: must have at most {most} items")


def _at_least_one(value: Any, field: str) -> Iterator[Problem]:
    if value is None:
        yield _required(field)
    elif not value:
        yield ("FieldValueInvalid", field, f"Invalid value: 0: {field} in body should have at least 1 items")


def _groups(groups: Any, base: str) -> Iterator[Problem]:
    yield from _at_most(groups, base, 16)
    for index, group in enumerate(groups or []):
        here = f"{base}[{index}]"
        for part in ("coveredResources", "flavors"):
            yield from _at_least_one(group.get(part), f"{here}.{part}")
            yield from _at_most(group.get(part), f"{here}.{part}", 64)
        names: set[str] = set()
        for number, flavor in enumerate(group.get("flavors") or []):
            place = f"{here}.flavors[{number}]"
            if not flavor.get("name"):
                yield _required(f"{place}.name")
            elif flavor["name"] in names:
                text = f'Duplicate value: {{"name":"{flavor["name"]}"}}'
                yield ("FieldValueDuplicate", place, text)
            names.add(flavor.get("name", ""))
            yield from _pattern(flavor.get("name"), f"{place}.name", _SUBDOMAIN)
            yield from _at_least_one(flavor.get("resources"), f"{place}.resources")
            for row, resource in enumerate(flavor.get("resources") or []):
                spot = f"{place}.resources[{row}]"
                if "nominalQuota" not in resource:
                    yield _required(f"{spot}.nominalQuota")
                if not resource.get("name"):
                    yield _required(f"{spot}.name")
                for limit in ("nominalQuota", "borrowingLimit", "lendingLimit"):
                    yield from _pattern(resource.get(limit), f"{spot}.{limit}", _QUANTITY)


def _cluster_queue(obj: Obj) -> Iterator[Problem]:
    spec = obj.get("spec") or {}
    yield from _pattern(spec.get("cohortName"), "spec.cohortName", _SUBDOMAIN)
    yield from _one_of(spec.get("queueingStrategy"), "spec.queueingStrategy", ("StrictFIFO", "BestEffortFIFO"))
    yield from _one_of(spec.get("stopPolicy"), "spec.stopPolicy", _STOP)
    preemption, fungibility = spec.get("preemption") or {}, spec.get("flavorFungibility") or {}
    within = ("Never", "LowerPriority", "LowerOrNewerEqualPriority")
    yield from _one_of(
        preemption.get("reclaimWithinCohort"), "spec.preemption.reclaimWithinCohort", ("Never", "LowerPriority", "Any")
    )
    yield from _one_of(preemption.get("withinClusterQueue"), "spec.preemption.withinClusterQueue", within)
    yield from _one_of(
        (preemption.get("borrowWithinCohort") or {}).get("policy"),
        "spec.preemption.borrowWithinCohort.policy",
        ("Never", "LowerPriority"),
    )
    for name in ("whenCanBorrow", "whenCanPreempt"):
        yield from _one_of(fungibility.get(name), f"spec.flavorFungibility.{name}", ("MayStopSearch", "TryNextFlavor"))
    if "admissionChecksStrategy" in spec:
        checks = spec["admissionChecksStrategy"].get("admissionChecks")
        yield from _at_least_one(checks, "spec.admissionChecksStrategy.admissionChecks")
    yield from _groups(spec.get("resourceGroups"), "spec.resourceGroups")


def _cohort(obj: Obj) -> Iterator[Problem]:
    spec = obj.get("spec") or {}
    yield from _pattern(spec.get("parentName"), "spec.parentName", _SUBDOMAIN)
    yield from _groups(spec.get("resourceGroups"), "spec.resourceGroups")


def _local_queue(obj: Obj) -> Iterator[Problem]:
    spec = obj.get("spec") or {}
    yield from _pattern(spec.get("clusterQueue"), "spec.clusterQueue", _SUBDOMAIN)
    yield from _one_of(spec.get("stopPolicy"), "spec.stopPolicy", _STOP)


def _flavor(obj: Obj) -> Iterator[Problem]:
    spec = obj.get("spec") or {}
    for name in ("nodeLabels", "nodeTaints", "tolerations"):
        yield from _at_most(spec.get(name), f"spec.{name}", 8)
    yield from _pattern(spec.get("topologyName"), "spec.topologyName", _SUBDOMAIN)


def _topology(obj: Obj) -> Iterator[Problem]:
    levels = (obj.get("spec") or {}).get("levels")
    yield from _at_least_one(levels, "spec.levels")
    yield from _at_most(levels, "spec.levels", 16)


def _priority_class(obj: Obj) -> Iterator[Problem]:
    if "value" not in obj:
        yield _required("value")


def _admission_check(obj: Obj) -> Iterator[Problem]:
    if not (obj.get("spec") or {}).get("controllerName"):
        yield _required("spec.controllerName")


def _workload(obj: Obj) -> Iterator[Problem]:
    pod_sets = (obj.get("spec") or {}).get("podSets")
    if pod_sets is not None:
        yield from _at_least_one(pod_sets, "spec.podSets")
    for index, pod_set in enumerate(pod_sets or []):
        if "template" not in pod_set:
            yield _required(f"spec.podSets[{index}].template")


# ---- CEL


def _rule(field: str, message: str) -> Problem:
    return ("FieldValueInvalid", field, f"Invalid value: {message}")


def _sizes(groups: Any) -> Iterator[Problem]:
    for index, group in enumerate(groups or []):
        if any(len(each["resources"]) != len(group["coveredResources"]) for each in group["flavors"]):
            yield _rule(
                f"spec.resourceGroups[{index}]",
                "flavors must have the same number of resources as the coveredResources",
            )


def _limits(groups: Any, limit: str) -> bool:
    return any(limit in each for group in groups or [] for flavor in group["flavors"] for each in flavor["resources"])


def _cel_cluster_queue(obj: Obj, old: Obj | None) -> Iterator[Problem]:
    spec = obj.get("spec") or {}
    yield from _sizes(spec.get("resourceGroups"))
    preemption = spec["preemption"]
    if preemption["reclaimWithinCohort"] == "Never" and preemption["borrowWithinCohort"]["policy"] != "Never":
        yield _rule("spec.preemption", "reclaimWithinCohort=Never and borrowWithinCohort.Policy!=Never")
    fungibility = spec["flavorFungibility"]
    both = all(fungibility[name] == "TryNextFlavor" for name in ("whenCanBorrow", "whenCanPreempt"))
    if "preference" in fungibility and not both:
        yield _rule(
            "spec.flavorFungibility",
            "preference can only be set when both whenCanBorrow and whenCanPreempt are TryNextFlavor",
        )
    if "cohortName" not in spec and _limits(spec.get("resourceGroups"), "borrowingLimit"):
        yield _rule("spec", "borrowingLimit must be nil when cohort is empty")


def _cel_cohort(obj: Obj, old: Obj | None) -> Iterator[Problem]:
    yield from _sizes((obj.get("spec") or {}).get("resourceGroups"))


def _cel_local_queue(obj: Obj, old: Obj | None) -> Iterator[Problem]:
    before, after = ((each or {}).get("spec") or {} for each in (old, obj))
    if old is not None and "clusterQueue" in before and before["clusterQueue"] != after.get("clusterQueue"):
        yield _rule("spec.clusterQueue", f'"{after.get("clusterQueue", "")}": field is immutable')


def _cel_topology(obj: Obj, old: Obj | None) -> Iterator[Problem]:
    levels = obj["spec"]["levels"]
    if old is not None and old["spec"]["levels"] != levels:
        yield _rule("spec.levels", "field is immutable")
    names = [each.get("nodeLabel", "") for each in levels]
    if len(set(names)) != len(names):
        yield _rule("spec.levels", "must be unique")
    if "kubernetes.io/hostname" in names[:-1]:
        text = "the kubernetes.io/hostname label can only be used at the lowest level of topology"
        yield _rule("spec.levels", text)


def _cel_flavor(obj: Obj, old: Obj | None) -> Iterator[Problem]:
    spec, before = obj.get("spec") or {}, ((old or {}).get("spec") or {})
    if any(each.get("effect") not in _EFFECTS for each in spec.get("nodeTaints") or []):
        yield _rule("spec.nodeTaints", "supported taint effect values: 'NoSchedule', 'PreferNoSchedule', 'NoExecute'")
    for each in spec.get("tolerations") or []:
        if not each.get("key") and each.get("operator") != "Exists":
            text = "operator must be Exists when 'key' is empty, which means 'match all values and all keys'"
            yield _rule("spec.tolerations", text)
        if each.get("operator") == "Exists" and each.get("value"):
            yield _rule("spec.tolerations", "a value must be empty when 'operator' is 'Exists'")
        if "tolerationSeconds" in each and each.get("effect") != "NoExecute":
            yield _rule("spec.tolerations", "effect must be 'NoExecute' when 'tolerationSeconds' is set")
    if "topologyName" in spec and not spec.get("nodeLabels"):
        missing = "" if "nodeLabels" in spec else '"object": no such key: nodeLabels evaluating rule: '
        yield _rule("spec", f"{missing}at least one nodeLabel is required when topology is set")
    if "topologyName" in before:
        for name in ("nodeLabels", "tolerations", "topologyName"):
            if spec.get(name) != before.get(name):
                verb = "is" if name == "topologyName" else "are"
                yield _rule("spec", f"{name} {verb} immutable when topologyName is set")


def _cel_workload(obj: Obj, old: Obj | None) -> Iterator[Problem]:
    spec, before = obj.get("spec") or {}, ((old or {}).get("spec") or {})
    if "priorityClassRef" in spec and "priority" not in spec:
        yield _rule("spec", "priority should not be nil when priorityClassRef is set")
    reserved = all(has_condition(each or {}, "QuotaReserved") for each in (old, obj))
    if reserved and spec.get("queueName") != before.get("queueName"):
        yield _rule("", "queueName is immutable while workload quota reserved")


def has_condition(obj: Obj, kind: str) -> bool:
    """Whether a condition of this type is True."""
    conditions = (obj.get("status") or {}).get("conditions") or []
    return any(each.get("type") == kind and each.get("status") == "True" for each in conditions)


# ---- webhooks


def _webhook(kind: Kind, obj: Obj) -> Iterator[str]:
    spec = obj.get("spec") or {}
    if kind not in (CLUSTER_QUEUE, COHORT):
        return
    has_parent = bool(spec.get("cohortName" if kind is CLUSTER_QUEUE else "parentName"))
    weight = (spec.get("fairSharing") or {}).get("weight")
    if weight is not None and parse(weight) < 0:
        yield f'spec.fairSharing: Invalid value: "{weight}": must be greater than or equal to 0'
    elif weight is not None and 0 < parse(weight) <= Decimal("1e-9"):
        yield f'spec.fairSharing: Invalid value: "{weight}": When not 0, weight must be > 10e-9'
    resources: set[str] = set()
    flavors: set[str] = set()
    for index, group in enumerate(spec.get("resourceGroups") or []):
        base = f"spec.resourceGroups[{index}]"
        for number, name in enumerate(group["coveredResources"]):
            if name in resources:
                yield f'{base}.coveredResources[{number}]: Duplicate value: "{name}"'
            resources.add(name)
        for number, flavor in enumerate(group["flavors"]):
            here = f"{base}.flavors[{number}]"
            for row, each in enumerate(flavor["resources"]):
                spot, wanted = f"{here}.resources[{row}]", group["coveredResources"][row]
                if each["name"] != wanted:
                    text = "must match the name in coveredResources"
                    yield f'{spot}.name: Invalid value: "{each["name"]}": {text}'
                yield from _amounts(each, spot, has_parent, of_queue=kind is CLUSTER_QUEUE)
            if flavor["name"] in flavors:
                yield f'{here}.name: Duplicate value: "{flavor["name"]}"'
            flavors.add(flavor["name"])
    for index, check in enumerate((spec.get("admissionChecksStrategy") or {}).get("admissionChecks") or []):
        for number, name in enumerate(check.get("onFlavors") or []):
            if name not in flavors:
                listed = ", ".join(f'"{each}"' for each in sorted(flavors))
                place = f"spec.admissionChecksStrategy.admissionChecks[{index}].onFlavors[{number}]"
                yield f'{place}: Unsupported value: "{name}": supported values: {listed}'


def _amounts(each: Obj, spot: str, has_parent: bool, *, of_queue: bool) -> Iterator[str]:
    for limit in ("nominalQuota", "borrowingLimit", "lendingLimit"):
        if limit in each and parse(each[limit]) < 0:
            yield f'{spot}.{limit}: Invalid value: "{each[limit]}": must be greater than or equal to 0'
    parent = "cohort" if of_queue else "parent"
    for limit in ("borrowingLimit", "lendingLimit"):
        if limit in each and not has_parent:
            yield f'{spot}.{limit}: Invalid value: "{each[limit]}": must be nil when {parent} is empty'
    if of_queue and "lendingLimit" in each and parse(each["lendingLimit"]) > parse(each["nominalQuota"]):
        text = "must be less than or equal to the nominalQuota"
        yield f'{spot}.lendingLimit: Invalid value: "{each["lendingLimit"]}": {text}'


_SCHEMA: dict[Kind, Callable[[Obj], Iterator[Problem]]] = {
    CLUSTER_QUEUE: _cluster_queue,
    COHORT: _cohort,
    LOCAL_QUEUE: _local_queue,
    RESOURCE_FLAVOR: _flavor,
    TOPOLOGY: _topology,
    WORKLOAD_PRIORITY: _priority_class,
    ADMISSION_CHECK: _admission_check,
    WORKLOAD: _workload,
}
_CEL: dict[Kind, Callable[[Obj, Obj | None], Iterator[Problem]]] = {
    CLUSTER_QUEUE: _cel_cluster_queue,
    COHORT: _cel_cohort,
    LOCAL_QUEUE: _cel_local_queue,
    RESOURCE_FLAVOR: _cel_flavor,
    TOPOLOGY: _cel_topology,
    WORKLOAD: _cel_workload,
}
