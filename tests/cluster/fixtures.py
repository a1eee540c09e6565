"""The API server of the tests, and objects as the portal declares them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from apps.clusters import kubeconfigs
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.demo.cluster import SimulatedCluster

LABELS = {"gpu-commons/managed": "true"}


@pytest.fixture(scope="session")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatedCluster]:
    """One simulated cluster for the whole run; bookmarks every half second."""
    with SimulatedCluster(tmp_path_factory.mktemp("cluster"), bookmark_seconds=0.5) as cluster:
        yield cluster


@pytest.fixture
def simulated(simulator: SimulatedCluster) -> Iterator[SimulatedCluster]:
    """The simulated cluster without any fault, before and after the test."""
    simulator.faults.clear()
    yield simulator
    simulator.faults.clear()


def client_of(cluster: SimulatedCluster, **kwargs: Any) -> KubernetesClient:
    """A client of our own with the simulated cluster's admin token."""
    access = kubeconfigs.read_kubeconfig(cluster.kubeconfig())
    return KubernetesClient(access.api_url, token=access.token, ca_pem=access.ca_certificate, **kwargs)


def fresh_namespace(prefix: str = "t") -> str:
    """A namespace name that no other test uses."""
    return f"{prefix}-{uuid.uuid4().hex[:10]}"


def namespace(name: str, **labels: str) -> dict[str, Any]:
    """A managed Namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {**LABELS, **labels}}}


def quota(ns: str, gpus: int | str, name: str = "gpu-quota", **hard: str) -> dict[str, Any]:
    """A managed ResourceQuota."""
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": name, "namespace": ns, "labels": dict(LABELS)},
        "spec": {"hard": {"requests.nvidia.com/gpu": str(gpus), "pods": "50", **hard}},
    }


def limit_range(ns: str) -> dict[str, Any]:
    """A managed LimitRange."""
    limits = [{"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "500m"}}]
    meta = {"name": "defaults", "namespace": ns, "labels": dict(LABELS)}
    return {"apiVersion": "v1", "kind": "LimitRange", "metadata": meta, "spec": {"limits": limits}}


def network_policy(ns: str) -> dict[str, Any]:
    """A managed default-deny NetworkPolicy."""
    meta = {"name": "default-deny", "namespace": ns, "labels": dict(LABELS)}
    spec = {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": {}}]}]}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}


def role_binding(ns: str, group: str = "gpu-commons:leads") -> dict[str, Any]:
    """A managed RoleBinding."""
    api = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{api}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "team-leads", "namespace": ns, "labels": dict(LABELS)},
        "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"apiGroup": api, "kind": "Group", "name": group}],
    }


def workspace(ns: str, gpus: int = 8) -> list[dict[str, Any]]:
    """What a workspace declares, in no particular order."""
    return [quota(ns, gpus), role_binding(ns), network_policy(ns), limit_range(ns), namespace(ns)]


def register(simulated: SimulatedCluster, slug: str = "", **kwargs: Any) -> Any:
    """Register a simulated cluster with the portal; returns the row."""
    from apps.clusters.actions import register_cluster
    from apps.core.actor import Actor

    slug = slug or fresh_namespace("c")
    return register_cluster(
        slug, slug=slug, kubeconfig=simulated.kubeconfig(), simulated=True, actor=Actor.system("tests"), **kwargs
    )


def declare(cluster: Any, manifests: list[dict[str, Any]], **kwargs: Any) -> Any:
    """Declare objects for a workspace of their own (or `owner_uid`), as the approval of one would."""
    from django.db import transaction

    from apps.core.actor import Actor
    from apps.provisioning import actions

    owner = kwargs.pop("owner_uid", None) or uuid.uuid4()
    with transaction.atomic():
        return actions.declare(
            cluster.pk, kwargs.pop("kind", "workspace"), owner, kwargs.pop("title", "Finance, production"),
            kwargs.pop("team_id", None), manifests, grant_uid=kwargs.pop("grant_uid", None),
            actor=Actor.system("tests"), **kwargs,
        )  # fmt: skip
