"""The objects of a workspace: golden files, the official schemas, and what a change of quota leaves alone.

`COMMONS_UPDATE_GOLDEN=1` writes the golden files anew; read the diff before you keep it.
"""

from __future__ import annotations

import os
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from apps.quotas import manifests
from apps.quotas.manifests import WorkspaceSpec, gpu_hard, quantity, with_gpus, without_gpus, workspace_manifests

GOLDEN = Path(__file__).parent / "golden"


def spec(environment: str, **changes: object) -> WorkspaceSpec:
    values: dict[str, object] = {
        "namespace": f"finance-{environment}",
        "workspace_uid": "00000000-0000-4000-8000-000000000001",
        "team_slug": "finance",
        "environment": environment,
        "group_prefix": "gpu-commons:",
        "cpu_cores": 256,
        "memory_gib": 2048,
        "storage_gib": 10240,
        "pods": 200,
        "gpus": {"nvidia.com/gpu": 30, "nvidia.com/mig-1g.10gb": 0},
    }
    return WorkspaceSpec(**(values | changes))  # type: ignore[arg-type]  # a table of mixed values


@pytest.mark.requirement("quotas-3.1")
@pytest.mark.parametrize("environment", ["development", "staging", "production"])
def test_golden(environment: str) -> None:
    path = GOLDEN / f"workspace-{environment}.yaml"
    text = yaml.safe_dump_all(workspace_manifests(spec(environment)), sort_keys=False)
    if os.environ.get("COMMONS_UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.requirement("quotas-3.1")
@pytest.mark.parametrize("version", ["1.29", "1.37"])
@pytest.mark.parametrize("environment", ["development", "staging", "production"])
def test_the_official_schemas_take_every_object(environment: str, version: str) -> None:
    for manifest in workspace_manifests(spec(environment)):
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.requirement("quotas-3.2")
def test_what_is_not_held_is_limited_to_zero() -> None:
    hard = workspace_manifests(spec("development"))[2]["spec"]["hard"]
    assert hard["requests.nvidia.com/gpu"] == "30"
    assert hard["requests.nvidia.com/mig-1g.10gb"] == "0"
    # Only `requests.` of an extended resource is enforced; the bare name would be accepted and ignored.
    assert "nvidia.com/gpu" not in hard


@pytest.mark.requirement("quotas-3.1")
def test_the_limit_range_comes_before_the_quota_that_needs_it() -> None:
    kinds = [manifest["kind"] for manifest in workspace_manifests(spec("production"))]
    assert kinds == ["Namespace", "LimitRange", "ResourceQuota", "RoleBinding", "RoleBinding", "NetworkPolicy"]


@pytest.mark.requirement("quotas-3.1")
def test_members_only_look_in_production() -> None:
    roles = {
        environment: [
            m["roleRef"]["name"] for m in workspace_manifests(spec(environment)) if m["kind"] == "RoleBinding"
        ]
        for environment in manifests.PROFILES
    }
    assert roles == {"development": ["edit", "edit"], "staging": ["edit", "edit"], "production": ["edit", "view"]}


@pytest.mark.requirement("quotas-3.3")
def test_a_change_of_quota_moves_the_gpu_limits_and_nothing_else() -> None:
    stored = workspace_manifests(spec("production"))
    changed = with_gpus(stored, {"nvidia.com/gpu": 12})
    assert changed[2]["spec"]["hard"]["requests.nvidia.com/gpu"] == "12"
    assert changed[2]["spec"]["hard"]["requests.nvidia.com/mig-1g.10gb"] == "0"
    assert stored[2]["spec"]["hard"]["requests.nvidia.com/gpu"] == "30"
    assert [without_gpus(m) for m in changed] == [without_gpus(m) for m in stored]
    assert "count/jobs.batch" in without_gpus(stored[2])["spec"]["hard"]
    with pytest.raises(ValueError, match="no workspace quota"):
        with_gpus(stored[:1], {"nvidia.com/gpu": 1})


@pytest.mark.requirement("quotas-3.1")
@pytest.mark.parametrize(
    ("gib", "text"), [(0, "0"), (1, "1Gi"), (1023, "1023Gi"), (1024, "1Ti"), (1536, "1536Gi"), (1 << 20, "1Pi")]
)
def test_quantities_are_canonical(gib: int, text: str) -> None:
    assert quantity(gib) == text


@pytest.mark.requirement("quotas-3.1")
def test_nonsense_is_not_rendered() -> None:
    with pytest.raises(ValueError, match="negative"):
        gpu_hard({"nvidia.com/gpu": -1})
    with pytest.raises(ValueError, match="extended resource"):
        gpu_hard({"ephemeral-storage": 1})
    with pytest.raises(ValueError, match="namespace"):
        workspace_manifests(spec("production", namespace="Finance_Prod"))
    with pytest.raises(ValueError, match="environment"):
        workspace_manifests(spec("test"))
    with pytest.raises(ValueError, match="negative"):
        quantity(-1)
