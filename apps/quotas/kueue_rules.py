"""What Kueue's CRDs and webhooks would refuse, checked before a form is accepted. Pure.

Source of the rules: the schemas, CEL rules and webhooks of kueue.x-k8s.io/v1beta2 (reference C1, docs/kueue.md).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from apps.clusters.quantities import parse

Manifest = Mapping[str, Any]

MOST_GROUPS, MOST_FLAVOURS, MOST_FLAVOURS_IN_ALL, MOST_RESOURCES, MOST_COMBINATIONS = 16, 64, 256, 64, 512
MOST_RESOURCES_IN_ALL = 256
MOST_OF_A_FLAVOUR = 8
MOST_LEVELS = 16
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def check(manifests: Sequence[Manifest]) -> list[str]:
    """Return what is wrong with the Kueue objects among the manifests, in sentences; empty where nothing is."""
    found: list[str] = []
    for manifest in manifests:
        rules = _RULES.get(str(manifest.get("kind")))
        if rules is None or not str(manifest.get("apiVersion", "")).startswith("kueue.x-k8s.io/"):
            continue
        name = str((manifest.get("metadata") or {}).get("name", ""))
        place = f"{manifest['kind']} {name}"
        if not _SUBDOMAIN.fullmatch(name) or len(name) > 253:
            found.append(f"{place}: this is no DNS name of at most 253 characters")
        if manifest["apiVersion"] != "kueue.x-k8s.io/v1beta2":
            found.append(f"{place}: the portal speaks v1beta2, not {manifest['apiVersion']}")
        found += [f"{place}: {problem}" for problem in rules(manifest.get("spec") or {}, manifest)]
    return found


def _number(value: Any) -> Decimal | None:
    try:
        return parse(value)
    except (ValueError, TypeError, InvalidOperation):
        return None


def _groups(spec: Mapping[str, Any], *, cohort: bool, tied: bool) -> Iterator[str]:
    """Check resourceGroups; `tied`: the object names a cohort (a parent, for a cohort)."""
    groups: Sequence[Mapping[str, Any]] = spec.get("resourceGroups") or []
    if len(groups) > MOST_GROUPS:
        yield f"{len(groups)} resource groups; Kueue takes {MOST_GROUPS}"
    covered: Counter[str] = Counter(str(name) for group in groups for name in group.get("coveredResources", []))
    flavours: Counter[str] = Counter(str(one["name"]) for group in groups for one in group.get("flavors", []))
    for name, times in sorted(covered.items()):
        if times > 1:
            yield f"the resource {name} stands in {times} places; it may stand in one group, once"
    for name, times in sorted(flavours.items()):
        if times > 1:
            yield f"the flavour {name} stands in {times} places; it may stand in one group, once"
    if len(flavours) > MOST_FLAVOURS_IN_ALL or len(covered) > MOST_RESOURCES_IN_ALL:
        yield f"Kueue takes {MOST_FLAVOURS_IN_ALL} flavours and {MOST_RESOURCES_IN_ALL} resources in all"
    for group in groups:
        yield from _group(group, cohort=cohort, tied=tied)


def _group(group: Mapping[str, Any], *, cohort: bool, tied: bool) -> Iterator[str]:
    names = [str(name) for name in group.get("coveredResources", [])]
    flavours: Sequence[Mapping[str, Any]] = group.get("flavors") or []
    if not 1 <= len(names) <= MOST_RESOURCES:
        yield f"a group covers 1 to {MOST_RESOURCES} resources, not {len(names)}"
    if not 1 <= len(flavours) <= MOST_FLAVOURS:
        yield f"a group has 1 to {MOST_FLAVOURS} flavours, not {len(flavours)}"
    if len(names) * len(flavours) > MOST_COMBINATIONS:
        yield f"a group has at most {MOST_COMBINATIONS} pairs of flavour and resource"
    for flavour in flavours:
        listed = [str(entry.get("name")) for entry in flavour.get("resources", [])]
        if listed != names:
            yield f"the flavour {flavour['name']} must list {', '.join(names)} in this order, not {', '.join(listed)}"
        for entry in flavour.get("resources", []):
            yield from _entry(str(flavour["name"]), entry, cohort=cohort, tied=tied)


def _entry(flavour: str, entry: Mapping[str, Any], *, cohort: bool, tied: bool) -> Iterator[str]:
    place = f"{flavour}, {entry.get('name')}"
    amounts: dict[str, Decimal] = {}
    for key in ("nominalQuota", "borrowingLimit", "lendingLimit"):
        if key not in entry:
            if key == "nominalQuota":
                yield f"{place}: nominalQuota is missing"
            continue
        amount = _number(entry[key])
        if amount is None or amount < 0:
            yield f"{place}: {key} must be a quantity of at least 0, not {entry[key]!r}"
        else:
            amounts[key] = amount
        if key != "nominalQuota" and not tied:
            yield f"{place}: {key} goes only with {'a parent' if cohort else 'a cohort'}"
    lent, nominal = amounts.get("lendingLimit"), amounts.get("nominalQuota")
    if not cohort and lent is not None and nominal is not None and lent > nominal:
        yield f"{place}: it cannot lend {lent} of {nominal}"


def _weight(spec: Mapping[str, Any]) -> Iterator[str]:
    if "fairSharing" not in spec or "weight" not in spec["fairSharing"]:
        return
    amount = _number(spec["fairSharing"]["weight"])
    if amount is None or amount < 0 or 0 < amount <= Decimal("1e-9"):
        yield f"a weight is 0 or above 1e-9, not {spec['fairSharing']['weight']!r}"


def _cluster_queue(spec: Mapping[str, Any], manifest: Manifest) -> Iterator[str]:
    yield from _groups(spec, cohort=False, tied=bool(spec.get("cohortName")))
    yield from _weight(spec)
    if spec.get("namespaceSelector") is None:
        yield "without a namespaceSelector no namespace may submit"
    preemption = spec.get("preemption") or {}
    borrow = (preemption.get("borrowWithinCohort") or {}).get("policy", "Never")
    if preemption.get("reclaimWithinCohort", "Never") == "Never" and borrow != "Never":
        yield "borrowWithinCohort needs reclaimWithinCohort"
    fungible = spec.get("flavorFungibility") or {}
    both = fungible.get("whenCanBorrow") == fungible.get("whenCanPreempt") == "TryNextFlavor"
    if "preference" in fungible and not both:
        yield "flavorFungibility.preference goes only with TryNextFlavor in both places"
    if spec.get("stopPolicy", "None") not in ("None", "Hold", "HoldAndDrain"):
        yield f"unknown stopPolicy {spec['stopPolicy']!r}"
    if spec.get("queueingStrategy", "BestEffortFIFO") not in ("BestEffortFIFO", "StrictFIFO"):
        yield f"unknown queueingStrategy {spec['queueingStrategy']!r}"
    flavours = {str(one["name"]) for group in spec.get("resourceGroups") or [] for one in group.get("flavors", [])}
    checks = (spec.get("admissionChecksStrategy") or {}).get("admissionChecks") or []
    for name in sorted({str(one) for check in checks for one in check.get("onFlavors") or []} - flavours):
        yield f"an admission check names the flavour {name}, which the queue does not have"


def _cohort(spec: Mapping[str, Any], manifest: Manifest) -> Iterator[str]:
    yield from _groups(spec, cohort=True, tied=bool(spec.get("parentName")))
    yield from _weight(spec)
    if spec.get("parentName") and spec["parentName"] == manifest["metadata"]["name"]:
        yield "a cohort cannot be its own parent"


def _flavour(spec: Mapping[str, Any], manifest: Manifest) -> Iterator[str]:
    for key in ("nodeLabels", "nodeTaints", "tolerations"):
        if len(spec.get(key) or ()) > MOST_OF_A_FLAVOUR:
            yield f"at most {MOST_OF_A_FLAVOUR} {key}"
    if spec.get("topologyName") and not spec.get("nodeLabels"):
        yield "a topology needs at least one node label"
    for taint in spec.get("nodeTaints") or ():
        if taint.get("effect") not in _EFFECTS:
            yield f"unknown effect of a taint: {taint.get('effect')!r}"
    for item in spec.get("tolerations") or ():
        if not item.get("key") and item.get("operator") != "Exists":
            yield "a toleration without a key tolerates everything and needs the operator Exists"
        if item.get("operator", "Equal") not in ("Equal", "Exists"):
            yield f"unknown operator of a toleration: {item['operator']!r}"
        if item.get("operator") == "Exists" and item.get("value"):
            yield "a toleration with the operator Exists has no value"
        if item.get("effect") and item["effect"] not in _EFFECTS:
            yield f"unknown effect of a toleration: {item['effect']!r}"
        if "tolerationSeconds" in item and item.get("effect") != "NoExecute":
            yield "tolerationSeconds goes only with the effect NoExecute"


def _local_queue(spec: Mapping[str, Any], manifest: Manifest) -> Iterator[str]:
    if not spec.get("clusterQueue"):
        yield "it names no ClusterQueue"


def _topology(spec: Mapping[str, Any], manifest: Manifest) -> Iterator[str]:
    levels = [str(level.get("nodeLabel")) for level in spec.get("levels") or ()]
    if not 1 <= len(levels) <= MOST_LEVELS:
        yield f"a topology has 1 to {MOST_LEVELS} levels, not {len(levels)}"
    if len(set(levels)) != len(levels):
        yield "a topology names each level once"
    if "kubernetes.io/hostname" in levels[:-1]:
        yield "kubernetes.io/hostname can only be the lowest level"


_RULES = {
    "ClusterQueue": _cluster_queue,
    "Cohort": _cohort,
    "ResourceFlavor": _flavour,
    "LocalQueue": _local_queue,
    "Topology": _topology,
}
