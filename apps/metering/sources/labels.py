"""What labels of nodes and pods say, as kube-state-metrics prints them. Pure; every form is named beside its source."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from functools import lru_cache

from apps.metering.engine import model_label

#: Labels of a node's GPU model, ours first: an admin's word, GPU feature discovery, AMD's and Intel's labellers.
MODEL = (
    "label_gpu_commons_gpu_model",
    "label_nvidia_com_gpu_product",
    "label_amd_com_gpu_product_name",
    "label_gpu_intel_com_product",
    "label_gpu_intel_com_family",
)
COUNT = ("label_nvidia_com_gpu_count",)
REPLICAS = ("label_nvidia_com_gpu_replicas",)
MIG_STRATEGY = ("label_nvidia_com_mig_strategy",)
#: Labels of how a node was bought, ours first. Some kube-state-metrics lint camelCase, some do not.
CAPACITY = (
    "label_gpu_commons_capacity_type",
    "label_karpenter_sh_capacity_type",
    "label_eks_amazonaws_com_capacity_type",
    "label_eks_amazonaws_com_capacityType",
    "label_cloud_google_com_gke_spot",
    "label_cloud_google_com_gke_preemptible",
    "label_kubernetes_azure_com_scalesetpriority",
)
NODE = (*MODEL, *COUNT, *REPLICAS, *MIG_STRATEGY, *CAPACITY)

#: Labels of a pod, ours first: what stands in `gpu-commons/…` wins over everybody else's.
PROJECT = ("label_gpu_commons_project", "label_project")
PURPOSE = ("label_gpu_commons_purpose", "label_purpose")
RELEASE = ("label_gpu_commons_release",)
POD = (*PROJECT, *PURPOSE, *RELEASE)

_CAPACITY_TYPES = {
    "on_demand": "on_demand",
    "ondemand": "on_demand",
    "regular": "on_demand",
    "reserved": "reserved",
    "capacity_block": "reserved",
    "spot": "spot",
    "preemptible": "spot",
}


def first(labels: Mapping[str, str], names: tuple[str, ...]) -> str:
    """Return the first of the labels that is there and not empty."""
    return next((labels[name] for name in names if labels.get(name)), "")


def capacity_type(labels: Mapping[str, str]) -> str:
    """Return on_demand, reserved, spot, or "" where no known label says how the node was bought."""
    for name in CAPACITY:
        value = labels.get(name, "").strip().lower()
        if not value:
            continue
        if name.startswith("label_cloud_google_com_"):
            if value == "true":
                return "spot"
            continue
        return _CAPACITY_TYPES.get(re.sub(r"[^a-z]+", "_", value), "")
    return ""


def gpu_model(labels: Mapping[str, str]) -> str:
    """Return the GPU model as the node spells it."""
    return model_label(first(labels, MODEL))


def number(labels: Mapping[str, str], names: tuple[str, ...]) -> int:
    """Return a label's whole number; 0 where there is none."""
    value = first(labels, names)
    return int(value) if value.isdigit() else 0


def release(labels: Mapping[str, str]) -> str | None:
    """Return the release's uid; None where the label is missing or no uid."""
    said = first(labels, RELEASE)
    if not said:
        return None
    try:
        return str(uuid.UUID(said))
    except ValueError:
        return None


def plain(labels: Mapping[str, str]) -> dict[str, str]:
    """Return labels of an allocation API (`gpu_commons_project`, `gpu-commons/project`) as the names used here."""
    return {_plain_name(name): str(value) for name, value in labels.items()}


@lru_cache(maxsize=10_000)
def _plain_name(name: str) -> str:
    """Return one name; a hundred thousand pods carry the same dozen."""
    return "label_" + re.sub(r"[^A-Za-z0-9]", "_", name)
