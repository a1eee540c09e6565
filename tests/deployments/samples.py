"""Objects of a sample endpoint, for the tests of rendering and enforcement. No database."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from apps.catalogue import manifest as catalogue
from apps.catalogue.manifest import Adapter, File, Manifest
from apps.clusters.capabilities import Capabilities, Keda, KServe
from apps.deployments import admission, enforcement_entries, manifests
from apps.deployments.choices import CanaryMode
from apps.deployments.manifests import FlavourSpec, RenderInput, Side
from apps.deployments.spec import Autoscaling, Spec, Window

IMAGE = "registry.example.com/serving@sha256:" + "a" * 64
OTHER_IMAGE = "registry.example.com/serving@sha256:" + "b" * 64
#: What the platform puts into pods by itself; named by its tag, as KServe's settings do.
TOOL_IMAGE = "registry.example.com/storage-initializer:v0.20.0"
ADAPTED = "s3://models/adapters/tone"
WORKSPACE, ENDPOINT = "0b6f0f0e-6f52-4a53-9d43-6a8f3f1c2b10", "5d2a6f3c-7a0e-4f4f-8f57-5b8f2f6e9c11"

STANDARD = Capabilities(
    kubernetes_version="v1.36.2",
    kserve=KServe(
        True, ("v1beta1", "v1alpha1"), "Standard", True, version="v0.20.0", gateway="kserve/kserve-ingress-gateway",
        ingress_domain="models.example.com", ingress_namespaces=("kserve",), images=(TOOL_IMAGE,),
    ),
    keda=Keda(True, ("v1alpha1",)),
    admission_policies=True,
    http_routes=True,
)  # fmt: skip
PLAIN = Capabilities(
    kubernetes_version="v1.36.2",
    kserve=KServe(True, ("v1beta1",), "Standard", False, version="v0.20.0"),
    keda=Keda(True, ("v1alpha1",)),
    http_routes=False,
)
KNATIVE = Capabilities(
    kubernetes_version="v1.36.2",
    kserve=KServe(
        True, ("v1beta1",), "Knative", False, version="v0.20.0", ingress_namespaces=("istio-system",),
    ),
    keda=Keda(False),
    http_routes=False,
)  # fmt: skip
GPU = FlavourSpec(
    "h100-80gb", "nvidia.com/gpu", {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
    ({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},),
)  # fmt: skip
CPU = FlavourSpec("cpu-large", "", {"gpu-commons.example.com/class": "large"})

HOT = Spec(2, 2, 1, 8, 32)
WARM = Spec(
    1, 6, 1, 8, 32, tier="warm",
    autoscaling=Autoscaling('sum(vllm:num_requests_waiting{namespace="$namespace",pod=~"$deployment-.*"})', 20),
    schedule=(Window((0, 1, 2, 3, 4), "18:00", 720, 4),),
)  # fmt: skip
COLD = Spec(
    0, 2, 1, 8, 32, tier="cold",
    autoscaling=Autoscaling('sum(rate(envoy_cluster_upstream_rq_total{namespace="$namespace"}[1m]))', 5, "requests"),
)  # fmt: skip


def served_manifest(**changes: Any) -> Manifest:
    """A version in S3-compatible storage with two files, served by an image by digest."""
    values: dict[str, Any] = {
        "model": "f7a1b0c2-1111-4222-8333-444455556666",
        "label": "1.4.0",
        "scheme": "s3",
        "location": "s3://models/fraud/1.4.0",
        "revision": "",
        "files": (File("config.json", 512, "1" * 64), File("model.onnx", 4096, "2" * 64)),
        "image": IMAGE,
        "runtime": "kserve-tritonserver",
        "format": "onnx",
        "arguments": (),
        "environment": {},
        "explainer": {},
        "adapters": (),
        "sources": (),
        "card_number": None,
        "card_digest": "",
        "classification": ("health",),
        "digest": "c" * 64,
    }
    return Manifest(**{**values, **changes})


def oci_manifest(**changes: Any) -> Manifest:
    """A version that is an OCI artifact by digest: its location fixes its bytes."""
    oci = {"scheme": "oci", "location": "oci://registry.example.com/models/fraud", "revision": "sha256:" + "d" * 64}
    return served_manifest(**{**oci, "files": (), **changes})


def adapted_manifest(**changes: Any) -> Manifest:
    """A version with an adapter beside it."""
    return served_manifest(adapters=(Adapter("tone", ADAPTED, "e" * 64),), **changes)


def side(number: int = 1, manifest: Manifest | None = None, spec: Spec = HOT, flavour: FlavourSpec = GPU) -> Side:
    """One release; its uid tells its number."""
    return Side(f"00000000-0000-4000-8000-{number:012d}", number, manifest or served_manifest(), spec, flavour)


def asked(**changes: Any) -> RenderInput:
    """An endpoint in production with one release, on a cluster in Standard mode with the Gateway API."""
    values: dict[str, Any] = {
        "name": "fraud",
        "namespace": "finance-production",
        "endpoint_uid": ENDPOINT,
        "workspace_uid": WORKSPACE,
        "environment": "production",
        "capabilities": STANDARD,
        "mode": CanaryMode.ROUTE,
        "current": side(),
        "metrics_url": "http://prometheus.monitoring:9090",
        "logger_url": "http://records.logging:8080/records",
    }
    return RenderInput(**{**values, **changes})


def rendered(**changes: Any) -> list[dict[str, Any]]:
    """The objects of `asked`."""
    return manifests.render(asked(**changes))


def at_rest(objects: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The objects of an endpoint that is stopped: on a cluster with controllers nothing is started."""
    found = []
    for one in objects:
        if one["kind"] == "InferenceService":
            one["metadata"]["annotations"]["serving.kserve.io/stop"] = "true"
        found.append(one)
    return found


def entry_of(
    manifest: Manifest, *, not_before: datetime | None = None, expires: datetime | None = None
) -> admission.Entry:
    """The entry of a grant over a version."""
    start = not_before or datetime(2026, 1, 1, tzinfo=UTC)
    return enforcement_entries.entry(
        manifest, grant="11111111-2222-4333-8444-555555555555", version="1.4.0", not_before=start, expires=expires,
        bound=catalogue.BYTES,
    )  # fmt: skip
