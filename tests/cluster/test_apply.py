"""Server-side apply: what we own, who else changed it, what a dry run leaves."""

from __future__ import annotations

import pytest

from apps.clusters import errors
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.provisioning import ownership
from tests.cluster.fixtures import limit_range, namespace, quota, role_binding
from tests.cluster.helpers import as_another, bare

pytestmark = pytest.mark.cluster


@pytest.mark.requirement("provisioning-3.1")
def test_apply_creates_and_a_second_apply_is_a_no_op(api: KubernetesClient, space: str) -> None:
    """201, then 200 with the same resource version; we own exactly what we stated."""
    assert api.apply(namespace(space)).status == 201
    first, second = api.apply(limit_range(space)), api.apply(limit_range(space))
    assert (first.status, second.status) == (201, 200)
    assert first.object["metadata"]["resourceVersion"] == second.object["metadata"]["resourceVersion"]
    api.apply(quota(space, 8))
    live = api.get("ResourceQuota", "gpu-quota", space)
    assert ownership.holds_anything(live)
    assert not ownership.held_beyond(live, quota(space, 8))
    assert ownership.held_beyond(live, bare(quota(space, 8), pods="50"))


@pytest.mark.requirement("provisioning-3.1")
def test_a_dropped_field_that_only_we_held_is_pruned(api: KubernetesClient, space: str) -> None:
    """Server-side apply removes what its only owner no longer states."""
    api.apply(namespace(space))
    api.apply(quota(space, 8, **{"requests.memory": "1Gi"}))
    api.apply(quota(space, 8))
    assert "requests.memory" not in api.get("ResourceQuota", "gpu-quota", space)["spec"]["hard"]


@pytest.mark.requirement("clusters-2.3", "provisioning-2.4")
def test_a_conflict_names_manager_and_field_and_force_takes_over(api: KubernetesClient, space: str) -> None:
    """In a dry run, too."""
    api.apply(namespace(space))
    api.apply(quota(space, 8))
    as_another(api, bare(quota(space, 8), **{"requests.nvidia.com/gpu": "99"}), "kubectl-edit")
    for dry_run in (True, False):
        with pytest.raises(errors.ConflictError) as caught:
            api.apply(quota(space, 8), dry_run=dry_run)
        assert [cause["manager"] for cause in caught.value.causes] == ["kubectl-edit"]
        assert "requests.nvidia.com/gpu" in caught.value.causes[0]["field"]
    live = api.get("ResourceQuota", "gpu-quota", space)
    owner = ownership.foreign_owner(live, ("spec", "hard", "requests.nvidia.com/gpu"))
    assert owner is not None
    assert owner.manager == "kubectl-edit"
    assert owner.at is not None
    api.apply(quota(space, 8), force=True)
    assert api.get("ResourceQuota", "gpu-quota", space)["spec"]["hard"]["requests.nvidia.com/gpu"] == "8"


@pytest.mark.requirement("provisioning-2.1")
def test_a_dry_run_changes_nothing(api: KubernetesClient, space: str) -> None:
    """Neither creates nor updates."""
    assert api.apply(namespace(space), dry_run=True).status == 201
    with pytest.raises(errors.NotFound):
        api.get("Namespace", space)
    api.apply(namespace(space))
    api.apply(quota(space, 8))
    answered = api.apply(quota(space, 12), dry_run=True)
    assert answered.object["spec"]["hard"]["requests.nvidia.com/gpu"] == "12"
    assert api.get("ResourceQuota", "gpu-quota", space)["spec"]["hard"]["requests.nvidia.com/gpu"] == "8"


@pytest.mark.requirement("provisioning-2.3")
def test_a_namespace_that_does_not_exist_is_not_found(api: KubernetesClient, space: str) -> None:
    """In a dry run, too: that is why new workspaces are planned as rendered."""
    for dry_run in (True, False):
        with pytest.raises(errors.NotFound):
            api.apply(quota(space, 8), dry_run=dry_run)


@pytest.mark.requirement("clusters-2.3")
def test_what_does_not_fit_the_schema_is_invalid(api: KubernetesClient, space: str) -> None:
    """An unknown field and a malformed quantity in an apply, an unknown field in a create, a changed roleRef."""
    api.apply(namespace(space))
    misspelt = quota(space, 8)
    misspelt["spec"]["hrd"] = {}
    with pytest.raises(errors.InvalidObject):
        api.apply(misspelt)
    with pytest.raises(errors.InvalidObject):
        api.apply(quota(space, 8, **{"requests.memory": "lots"}))
    with pytest.raises(errors.InvalidObject):
        api.create(misspelt, dry_run=True)
    api.apply(role_binding(space))
    other = role_binding(space)
    other["roleRef"]["name"] = "view"
    with pytest.raises(errors.InvalidObject):
        api.apply(other, force=True)
