"""What a cluster needs before any workspace can queue: flavours, topology, cohorts. A pure renderer (reference C1)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from apps.quotas.kueue import ANY_NODE, API, Manifest, cohort_name

HOSTNAME = "kubernetes.io/hostname"
#: Node labels of placement, widest first: those that cloud and network operators set (Kueue's and NVIDIA's docs).
LEVELS: tuple[tuple[str, ...], ...] = (
    ("cloud.provider.com/topology-block", "cloud.provider.com/topology-rack"),
    ("network.topology.nvidia.com/spine", "network.topology.nvidia.com/leaf"),
    ("topology.kubernetes.io/block", "topology.kubernetes.io/rack"),
    ("topology.kubernetes.io/rack",),
)
#: ResourceFlavor: at most so many nodeLabels, nodeTaints and tolerations.
MOST = 8


@dataclass(frozen=True, slots=True)
class FlavourSpec:
    """A flavour offered on the cluster. `levels`: placement labels of its nodes, widest first; empty: none known.

    They make a Topology, which the flavour does not name: with one, Kueue gives it to jobs that ask for a placement
    alone (`tas_flavorassigner.go`, checkPodSetAndFlavorMatchForTAS), and beside the flavour of cores and memory, which
    no topology fits, not even to those. Nothing would ever start in the workspace's queue.
    """

    slug: str
    node_labels: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Mapping[str, Any]] = ()
    taints: Sequence[Mapping[str, Any]] = ()
    levels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CohortSpec:
    """A business unit; `parent` "" for the top of the tree."""

    unit: str
    parent: str = ""


def levels_of(nodes: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Return the placement labels that every one of a flavour's nodes carries, the node itself last; () if none is."""
    if not nodes:
        return ()
    for family in LEVELS:
        if all(key in labels for labels in nodes for key in family):
            return (*family, HOSTNAME)
    return ()


def shared_taints(nodes: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, str]]:
    """Return the taints that all of a flavour's nodes have in common, in order of key."""
    if not nodes:
        return []
    keyed = [
        {(str(t.get("key", "")), str(t.get("value") or ""), str(t.get("effect", ""))) for t in taints}
        for taints in nodes
    ]
    common = set.intersection(*keyed)
    return [
        {"key": key, "effect": effect} | ({"value": value} if value else {})
        for key, value, effect in sorted(common)
        if effect in ("NoSchedule", "PreferNoSchedule", "NoExecute")
    ][:MOST]


def topology_name(levels: tuple[str, ...]) -> str:
    """Return the name of a topology: its levels never change once made, so other levels are another topology."""
    return f"gpu-commons-{hashlib.sha256('/'.join(levels).encode()).hexdigest()[:8]}"


def _toleration(item: Mapping[str, Any]) -> Manifest:
    return {key: item[key] for key in ("key", "operator", "value", "effect", "tolerationSeconds") if item.get(key)}


def flavour_manifest(spec: FlavourSpec, labels: Mapping[str, str]) -> Manifest:
    """Return a ResourceFlavor. Raises ValueError for more labels or tolerations than Kueue takes."""
    if len(spec.node_labels) > MOST or len(spec.tolerations) > MOST:
        raise ValueError(f"{spec.slug}: Kueue takes at most {MOST} node labels and {MOST} tolerations")
    body: Manifest = {}
    if spec.node_labels:
        body["nodeLabels"] = dict(sorted(spec.node_labels.items()))
    if spec.taints:
        body["nodeTaints"] = [dict(taint) for taint in spec.taints]
    if spec.tolerations:
        body["tolerations"] = [_toleration(item) for item in spec.tolerations]
    return {
        "apiVersion": API,
        "kind": "ResourceFlavor",
        "metadata": {"name": spec.slug, "labels": dict(labels)},
        "spec": body,
    }


def kueue_manifests(
    flavours: Sequence[FlavourSpec], cohorts: Sequence[CohortSpec], labels: Mapping[str, str]
) -> list[Manifest]:
    """Return topologies, flavours (one for any node besides) and the tree of cohorts, parents first."""
    topologies = sorted({flavour.levels for flavour in flavours if flavour.levels and flavour.node_labels})
    found: list[Manifest] = [
        {
            "apiVersion": API,
            "kind": "Topology",
            "metadata": {"name": topology_name(levels), "labels": dict(labels)},
            "spec": {"levels": [{"nodeLabel": level} for level in levels]},
        }
        for levels in topologies
    ]
    found.append(flavour_manifest(FlavourSpec(ANY_NODE), labels))
    found += [flavour_manifest(flavour, labels) for flavour in sorted(flavours, key=lambda one: one.slug)]
    for cohort in cohorts:
        spec = {"parentName": cohort_name(cohort.parent)} if cohort.parent else {}
        found.append(
            {
                "apiVersion": API,
                "kind": "Cohort",
                "metadata": {"name": cohort_name(cohort.unit), "labels": dict(labels)},
                "spec": spec,
            }
        )
    return found


def keep_what_is_fixed(rendered: Sequence[Manifest], declared: Sequence[Manifest]) -> list[Manifest]:
    """Return the rendered objects as the cluster can still take them.

    A flavour with a topology never changes its labels, tolerations or topology (validation rules of the CRD): such a
    flavour, and the topology it names, stay as declared.
    """
    fixed = {
        m["metadata"]["name"]: m for m in declared if m["kind"] == "ResourceFlavor" and m["spec"].get("topologyName")
    }
    topologies = {m["metadata"]["name"]: m for m in declared if m["kind"] == "Topology"}
    result: list[Manifest] = []
    for manifest in rendered:
        old = fixed.get(manifest["metadata"]["name"]) if manifest["kind"] == "ResourceFlavor" else None
        result.append(manifest if old is None else {**manifest, "spec": old["spec"]})
    named = {m["spec"].get("topologyName") for m in result if m["kind"] == "ResourceFlavor"}
    held = {m["metadata"]["name"] for m in result if m["kind"] == "Topology"}
    return [topologies[name] for name in sorted(named - held - {None}) if name in topologies] + result
