"""The levers that stop idle workloads: under a manager of their own, by force, and let go of again."""

from __future__ import annotations

import pytest

from apps.clusters import errors
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.provisioning import ownership
from tests.cluster.conftest import await_that
from tests.cluster.fixtures import namespace
from tests.cluster.helpers import Manifest, as_another, deployment, job

pytestmark = pytest.mark.cluster

IDLE = "gpu-commons-idle"


def _lever(manifest: Manifest, **spec: object) -> Manifest:
    meta = {name: manifest["metadata"][name] for name in ("name", "namespace")}
    return {"apiVersion": manifest["apiVersion"], "kind": manifest["kind"], "metadata": meta, "spec": spec}


@pytest.mark.requirement("simulated-kueue-3.6")
def test_a_job_is_suspended_by_force(api: KubernetesClient, space: str) -> None:
    """Its creator holds the defaulted `suspend`: without force it is a conflict. The pods go."""
    api.apply(namespace(space))
    body = job(space, "work", 0)
    del body["spec"]["template"]["spec"]["tolerations"]
    api.create(body)
    await_that(lambda: (api.get("Job", "work", space).get("status") or {}).get("active") == 1)
    with pytest.raises(errors.ConflictError):
        as_another(api, _lever(body, suspend=True), IDLE, force=False)
    stopped = as_another(api, _lever(body, suspend=True), IDLE)
    assert stopped["spec"]["suspend"] is True
    owner = ownership.foreign_owner(stopped, ("spec", "suspend"))
    assert owner is not None
    assert owner.manager == IDLE
    await_that(lambda: not (api.get("Job", "work", space).get("status") or {}).get("active"))
    as_another(api, _lever(body, suspend=False), IDLE)
    await_that(lambda: (api.get("Job", "work", space).get("status") or {}).get("active") == 1)


@pytest.mark.requirement("simulated-kueue-3.6")
def test_a_deployment_is_scaled_to_nothing_and_back(api: KubernetesClient, space: str) -> None:
    """Letting the field go without a value would leave the default of one replica: undo states the old number."""
    api.apply(namespace(space))
    body = deployment(space, "serve", 2)
    api.create(body)
    with pytest.raises(errors.ConflictError):
        as_another(api, _lever(body, replicas=0), IDLE, force=False)
    assert as_another(api, _lever(body, replicas=0), IDLE)["spec"]["replicas"] == 0
    assert as_another(api, _lever(body), IDLE)["spec"]["replicas"] == 1
    assert as_another(api, _lever(body, replicas=2), IDLE)["spec"]["replicas"] == 2
