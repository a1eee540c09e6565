"""How KServe is installed: its configuration, runtimes, storage container and gateway."""

from __future__ import annotations

import json
from dataclasses import dataclass

from apps.demo.cluster.errors import Obj
from apps.demo.cluster.kinds import CLUSTER_RUNTIME, CONFIG_MAP, GATEWAY, NAMESPACE, STORAGE_CONTAINER, Kind

STANDARD, KNATIVE = "Standard", "Knative"
VERSION = "v0.20.0-simulated"
DOMAIN = "example.com"
GATEWAY_NAME = ("kserve", "kserve-ingress-gateway")
_RUNTIMES = {
    "kserve-huggingfaceserver": ("huggingface", "kserve/huggingfaceserver"),
    "kserve-tritonserver": ("triton", "kserve/tritonserver"),
    "kserve-sklearnserver": ("sklearn", "kserve/sklearnserver"),
    "kserve-xgbserver": ("xgboost", "kserve/xgbserver"),
    "kserve-lgbserver": ("lightgbm", "kserve/lgbserver"),
    "kserve-vllmserver": ("vllm", "kserve/vllmserver"),
}
_FORMATS = ("s3://", "gs://", "hf://", "https://", "http://", "hdfs://", "webhdfs://")


@dataclass(frozen=True)
class KServeOptions:
    """The installation: default deployment mode, and whether there is a Gateway API to route by."""

    mode: str = STANDARD
    gateway: bool = False

    def objects(self) -> list[tuple[Kind, Obj]]:
        """What an installation brings."""
        namespace, name = GATEWAY_NAME
        initializer = {"image": f"kserve/storage-initializer:{VERSION}"}
        data = {
            "deploy": json.dumps({"defaultDeploymentMode": self.mode}),
            "ingress": json.dumps(
                {
                    "enableGatewayApi": self.gateway,
                    "ingressDomain": DOMAIN,
                    "kserveIngressGateway": f"{namespace}/{name}",
                    "localGatewayService": "knative-local-gateway.istio-system.svc.cluster.local",
                }
            ),
            "storageInitializer": json.dumps(initializer),
            "agent": json.dumps({"image": f"kserve/agent:{VERSION}"}),
            "logger": json.dumps({"image": f"kserve/agent:{VERSION}"}),
        }
        meta = {"name": "inferenceservice-config", "namespace": "kserve"}
        out: list[tuple[Kind, Obj]] = [
            (NAMESPACE, {"metadata": {"name": "kserve"}}),
            (CONFIG_MAP, {"metadata": meta, "data": data}),
            (STORAGE_CONTAINER, _default_container(initializer["image"])),
        ]
        for runtime, (model_format, image) in _RUNTIMES.items():
            spec = {
                "supportedModelFormats": [{"name": model_format, "autoSelect": True}],
                "containers": [{"name": "kserve-container", "image": f"{image}:{VERSION}"}],
            }
            out.append((CLUSTER_RUNTIME, {"metadata": {"name": runtime}, "spec": spec}))
        if self.gateway:
            listeners = [
                {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}
            ]
            spec = {"gatewayClassName": "simulated", "listeners": listeners}
            out.append((GATEWAY, {"metadata": {"name": name, "namespace": namespace}, "spec": spec}))
        return out


def _default_container(image: str) -> Obj:
    resources = {"requests": {"cpu": "100m", "memory": "100Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
    container = {"name": "storage-initializer", "image": image, "resources": resources}
    formats = [{"prefix": prefix} for prefix in _FORMATS]
    return {"metadata": {"name": "default"}, "spec": {"container": container, "supportedUriFormats": formats}}
