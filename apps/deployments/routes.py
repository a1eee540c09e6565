"""Sharing traffic between two releases in KServe's Standard mode: an HTTPRoute of ours over two InferenceServices.

Facts: gateway.networking.k8s.io/v1 (weights are shares of their sum; a backend of weight 0 gets nothing); KServe 0.20.0
makes of each predictor a Service `<name>-predictor` with port 80, and calls the host `<name>-<namespace>.<domain>`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Manifest = dict[str, Any]
API = "gateway.networking.k8s.io/v1"
PORT = 80
#: KServe v1's path of explanations; KServe's own routes match it by the same expression.
_EXPLAIN = r"^/v1/models/[\w-]+:explain$"


def host(name: str, namespace: str, domain: str) -> str:
    """Return the name under which clients reach an endpoint. Raises ValueError where it is longer than DNS takes."""
    label = f"{name}-{namespace}"
    if len(label) > 63:
        raise ValueError(f"{label} is longer than the 63 characters of a host name: choose a shorter name")
    return f"{label}.{domain}"


def route(
    meta: Manifest, *, hostname: str, gateway: str, backends: Sequence[tuple[str, int]], explainers: Sequence[str] = ()
) -> Manifest:
    """Return the HTTPRoute that gives each of `backends` (InferenceService, weight) its share.

    `explainers`: those of the InferenceServices that have one. `gateway`: "namespace/name".
    """
    namespace, _, name = gateway.partition("/")
    explaining = [(service, weight) for service, weight in backends if service in explainers]
    rules = [_rule({"type": "PathPrefix", "value": "/"}, backends, "predictor")]
    if explaining:
        rules.insert(0, _rule({"type": "RegularExpression", "value": _EXPLAIN}, explaining, "explainer"))
    return {
        "apiVersion": API,
        "kind": "HTTPRoute",
        "metadata": meta,
        "spec": {
            "hostnames": [hostname],
            "parentRefs": [
                {"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": namespace, "name": name}
            ],
            "rules": rules,
        },
    }


def _rule(path: Manifest, backends: Sequence[tuple[str, int]], component: str) -> Manifest:
    return {
        "matches": [{"path": path}],
        "backendRefs": [
            {"group": "", "kind": "Service", "name": f"{service}-{component}", "port": PORT, "weight": weight}
            for service, weight in backends
        ],
    }
