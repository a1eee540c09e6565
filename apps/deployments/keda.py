"""KEDA's ScaledObject of a release: pure. Facts: keda.sh/v1alpha1 of KEDA 2.20.2 (CRD and scalers' source).

Fast up, slow down. A query without a result is an error there (`ignoreNullValues: "false"`): taken for 0 it would
shrink everything when Prometheus is away; the fallback then keeps what runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apps.deployments.choices import Tier
from apps.deployments.spec import Autoscaling, Spec, Window

Manifest = dict[str, Any]
API = "keda.sh/v1alpha1"
PAUSED_AT = "autoscaling.keda.sh/paused-replicas"
POLLING_SECONDS = 15
FAILURES_BEFORE_FALLBACK = 3
_DAY_MINUTES = 24 * 60


def scales(spec: Spec) -> bool:
    """Whether the number of replicas moves at all."""
    return spec.max_replicas > spec.min_replicas


def least(spec: Spec) -> int:
    """Return how many replicas there are at least: none of a cold release."""
    return 0 if spec.tier == Tier.COLD else max(spec.min_replicas, 1)


def scaled_object(
    spec: Spec, *, meta: Manifest, deployment: str, metrics_url: str, metrics_auth: str, stopped: bool
) -> Manifest:
    """Return the ScaledObject that moves `deployment`. `meta` has its name, namespace and labels.

    Raises ValueError where a query is to be followed and no Prometheus is known.
    """
    triggers: list[Manifest] = []
    if spec.autoscaling is not None:
        if not metrics_url:
            raise ValueError(
                "no Prometheus is known for this cluster, so replicas cannot follow a query: set the cluster's source"
                " of metrics, or use a fixed number of replicas"
            )
        triggers.append(_query(spec.autoscaling, meta["namespace"], deployment, metrics_url, metrics_auth))
    triggers += [_cron(number, window) for number, window in enumerate(spec.schedule, 1)]
    up, down = (spec.autoscaling.up_seconds, spec.autoscaling.down_seconds) if spec.autoscaling else (0, 300)
    body: Manifest = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment},
        "pollingInterval": POLLING_SECONDS,
        "cooldownPeriod": down,
        "minReplicaCount": least(spec),
        "maxReplicaCount": spec.max_replicas,
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behaviour(up, down)}},
        "triggers": triggers,
    }
    if spec.autoscaling is not None:
        body["fallback"] = {
            "failureThreshold": FAILURES_BEFORE_FALLBACK,
            "replicas": max(least(spec), 1),
            "behavior": "currentReplicasIfHigher",
        }
    if stopped:
        meta = {**meta, "annotations": {**meta.get("annotations", {}), PAUSED_AT: "0"}}
    return {"apiVersion": API, "kind": "ScaledObject", "metadata": meta, "spec": body}


def _behaviour(up: int, down: int) -> Manifest:
    return {
        "scaleUp": {
            "stabilizationWindowSeconds": up,
            "selectPolicy": "Max",
            "policies": [
                {"type": "Percent", "value": 100, "periodSeconds": 15},
                {"type": "Pods", "value": 4, "periodSeconds": 15},
            ],
        },
        "scaleDown": {
            "stabilizationWindowSeconds": down,
            "selectPolicy": "Max",
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
        },
    }


def _query(scaling: Autoscaling, namespace: str, deployment: str, url: str, auth: str) -> Manifest:
    found: Manifest = {
        "type": "prometheus",
        "name": scaling.metric.replace("_", "-"),
        "metricType": "AverageValue",
        # A map of strings: every value is quoted.
        "metadata": {
            "serverAddress": url,
            "query": placed(scaling.query, namespace, deployment),
            "threshold": str(scaling.threshold),
            "activationThreshold": "0",
            "ignoreNullValues": "false",
        },
    }
    if auth:
        found["authenticationRef"] = {"name": auth, "kind": "ClusterTriggerAuthentication"}
    return found


def placed(query: str, namespace: str, deployment: str) -> str:
    """Return a query with its place filled in: `$namespace`, and `$deployment`, which changes with each release."""
    return query.strip().replace("$namespace", namespace).replace("$deployment", deployment)


def _cron(number: int, window: Window) -> Manifest:
    """Return the cron trigger of a window; its end lies on later days where it goes over midnight.

    Cron counts weekdays from Sunday 0, a recurrence from Monday 0. KEDA takes a window for open where its next end
    comes before its next start.
    """
    begin = window.when.start
    later, end = divmod(begin + window.when.minutes, _DAY_MINUTES)
    return {
        "type": "cron",
        "name": f"window-{number}",
        "metadata": {
            "timezone": "Etc/UTC",
            "start": _at(begin, window.when.days, 0),
            "end": _at(end, window.when.days, later),
            "desiredReplicas": str(window.replicas),
        },
    }


def _at(minute: int, days: Sequence[int], later: int) -> str:
    listed = ",".join(str(day) for day in sorted((day + 1 + later) % 7 for day in days))
    return f"{minute % 60} {minute // 60} * * {listed}"
