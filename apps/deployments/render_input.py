"""What an endpoint's objects are rendered from: its releases, their flavours, the cluster. Plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from apps.catalogue import manifest as catalogue
from apps.clusters.capabilities import Capabilities
from apps.clusters.choices import DeviceClass
from apps.clusters.models import Flavour
from apps.deployments.choices import CanaryMode
from apps.deployments.spec import Spec

Manifest = dict[str, Any]

LABEL = "gpu-commons"


class Unfit(ValueError):
    """What was asked for cannot be rendered for this cluster; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class FlavourSpec:
    """What a flavour says about nodes. `resource`: the extended resource of a GPU; "" for a CPU class."""

    slug: str
    resource: str = ""
    node_labels: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def of(cls, flavour: Flavour) -> FlavourSpec:
        """Return what the row says."""
        resource = "" if flavour.device_class == DeviceClass.CPU else flavour.resource_name
        return cls(flavour.slug, resource, dict(flavour.node_labels), tuple(flavour.tolerations))


@dataclass(frozen=True, slots=True)
class Side:
    """One release of an endpoint as it is rendered."""

    release_uid: str
    number: int
    manifest: catalogue.Manifest
    spec: Spec
    flavour: FlavourSpec


@dataclass(frozen=True, slots=True)
class RenderInput:
    """Everything an endpoint's objects depend on.

    `current` takes what the candidate does not; `traffic`: per cent to the candidate. `labels`: on every object, the
    managed label among them. `queue`: LocalQueue's name where Kueue queues pods there, else "". `logger_url`: the
    cluster's sink of prediction records. `metrics_url`: Prometheus as the cluster's KEDA reaches it; `metrics_auth`:
    its ClusterTriggerAuthentication, "" for none.
    """

    name: str
    namespace: str
    endpoint_uid: str
    workspace_uid: str
    environment: str
    capabilities: Capabilities
    mode: CanaryMode
    current: Side | None
    candidate: Side | None = None
    traffic: int = 0
    labels: Mapping[str, str] = field(default_factory=lambda: {f"{LABEL}/managed": "true"})
    queue: str = ""
    stopped: bool = False
    logger_url: str = ""
    metrics_url: str = ""
    metrics_auth: str = ""
