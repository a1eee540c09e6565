"""The objects of an endpoint on its cluster: a pure renderer for KServe, KEDA and the Gateway API.

Facts: KServe v0.20.0 and KEDA 2.20.2 (CRDs and source), reference of the Gateway API v1. Nothing is rendered that the
cluster would ignore: what cannot be honoured raises `Unfit` with a sentence for people.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from apps.deployments import canary_matrix, keda, routes
from apps.deployments.choices import CanaryMode, Tier
from apps.quotas import priorities

if TYPE_CHECKING:
    from apps.clusters.capabilities import Capabilities

Manifest = dict[str, Any]

LABEL = "gpu-commons"
RELEASE_LABEL, ENDPOINT_LABEL, WORKSPACE_LABEL = f"{LABEL}/release", f"{LABEL}/endpoint", f"{LABEL}/workspace"
#: Annotations that the verifying storage container reads (`verifying.py`), and that the admission policy compares.
FILES_DIGEST, MANIFEST_DIGEST = f"{LABEL}/files-digest", f"{LABEL}/manifest-digest"
DEPLOYMENT_MODE = "serving.kserve.io/deploymentMode"
AUTOSCALER_CLASS = "serving.kserve.io/autoscalerClass"
STOP = "serving.kserve.io/stop"
QUEUE_LABEL, QUEUE_PRIORITY_LABEL = "kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class"
CONTAINER = "kserve-container"
#: KServe's own rule (stricter than DNS-1123): a letter first.
NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
#: So that `<name>-r<number>-predictor` and KEDA's `keda-hpa-<name>` stay within 63 characters.
NAME_LENGTH = 40
#: Which priority class an environment's pods have.
PRIORITY: Mapping[str, str] = {
    "production": priorities.PRODUCTION, "staging": priorities.BATCH, "development": priorities.DEVELOPMENT,
}  # fmt: skip
_PINNED = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}")


class Unfit(ValueError):
    """What was asked for cannot be rendered for this cluster; the message says why and what to do."""


class Served(Protocol):
    """What is read of a version's manifest (`catalogue.manifest.Manifest`)."""

    @property
    def scheme(self) -> str: ...
    @property
    def location(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def files(self) -> Sequence[Any]: ...
    @property
    def image(self) -> str: ...
    @property
    def runtime(self) -> str: ...
    @property
    def format(self) -> str: ...
    @property
    def arguments(self) -> Sequence[str]: ...
    @property
    def environment(self) -> Mapping[str, str]: ...
    @property
    def explainer(self) -> Mapping[str, Any]: ...


class Autoscaling(Protocol):
    """How a release follows demand (`spec.Autoscaling`). `metric`: one of canary_matrix.AUTOSCALERS."""

    @property
    def metric(self) -> str: ...
    @property
    def query(self) -> str: ...
    @property
    def threshold(self) -> Any: ...
    @property
    def up_seconds(self) -> int: ...
    @property
    def down_seconds(self) -> int: ...


class Window(Protocol):
    """One window of a schedule: weekdays from Monday 0, start "HH:MM" UTC, length, replicas (`spec.Window`)."""

    @property
    def days(self) -> Sequence[int]: ...
    @property
    def start(self) -> str: ...
    @property
    def minutes(self) -> int: ...
    @property
    def replicas(self) -> int: ...


class Scale(Protocol):
    """What is read of a release's spec (`deployments.spec.Spec`). `autoscaling` None: a fixed number of replicas."""

    @property
    def min_replicas(self) -> int: ...
    @property
    def max_replicas(self) -> int: ...
    @property
    def units_per_replica(self) -> int: ...
    @property
    def cpu(self) -> int: ...
    @property
    def memory_gib(self) -> int: ...
    @property
    def autoscaling(self) -> Autoscaling | None: ...
    @property
    def tier(self) -> str: ...
    @property
    def schedule(self) -> Sequence[Window]: ...
    @property
    def logger(self) -> bool: ...
    @property
    def explainer(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class FlavourSpec:
    """What a flavour says about nodes. `resource`: the extended resource; "" for a CPU class."""

    slug: str
    resource: str = ""
    node_labels: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Side:
    """One release of an endpoint as it is rendered. `digest`: of its version's manifest."""

    release_uid: str
    number: int
    digest: str
    manifest: Served
    spec: Scale
    flavour: FlavourSpec


@dataclass(frozen=True, slots=True)
class RenderInput:
    """Everything an endpoint's objects depend on.

    `current` takes what the candidate does not; `traffic`: per cent to the candidate. `queue`: LocalQueue's name where
    Kueue queues pods there, else "". `logger_url`: the cluster's sink of prediction records. `metrics_url`: Prometheus
    as the cluster's KEDA reaches it, `metrics_auth`: its ClusterTriggerAuthentication, "" for none.
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
    labels: Mapping[str, str] = field(default_factory=dict)
    queue: str = ""
    stopped: bool = False
    logger_url: str = ""
    metrics_url: str = ""
    metrics_auth: str = ""


def service_name(name: str, number: int, mode: str) -> str:
    """Return the name of a release's InferenceService: its own where a route stands before two of them."""
    return f"{name}-r{number}" if mode == CanaryMode.ROUTE else name


def deployment_name(service: str) -> str:
    """Return the name of the Deployment and of the Service that KServe makes of a predictor in Standard mode."""
    return f"{service}-predictor"


def render(asked: RenderInput) -> list[Manifest]:
    """Return the endpoint's objects in the order in which they are applied.

    Raises Unfit for what the cluster would ignore, or what no object can express.
    """
    raise Unfit("rendering is not complete yet")
