"""The objects of an endpoint: golden files, strict schemas, and what each part of a release turns into."""

from __future__ import annotations

import copy
import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from apps.catalogue.manifest import Manifest
from apps.deployments import enforcement_entries, keda, manifests
from apps.deployments.choices import CanaryMode
from apps.provisioning.manifests import render as declarable
from apps.quotas.manifests import WorkspaceSpec, workspace_manifests
from tests.deployments.crds import compact_errors, crd_errors
from tests.deployments.samples import (
    COLD,
    CPU,
    ENDPOINT,
    HOT,
    IMAGE,
    KNATIVE,
    PLAIN,
    STANDARD,
    WARM,
    adapted_manifest,
    asked,
    oci_manifest,
    rendered,
    served_manifest,
    side,
)

GOLDEN = Path(__file__).parent / "golden"
EXPLAINED = served_manifest(
    explainer={"image": IMAGE, "storage_uri": "oci://registry.example.com/x@sha256:" + "f" * 64},
    arguments=("--batch=8",), environment={"LOG_LEVEL": "info"},
)  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "route": {},
    "route-canary": {
        "current": side(1, oci_manifest()), "candidate": side(2, EXPLAINED, dataclasses.replace(HOT, explainer=True)),
        "traffic": 10, "queue": "default",
    },
    "route-warm": {"current": side(3, spec=dataclasses.replace(WARM, logger=True))},
    "route-cold": {"current": side(4, spec=COLD), "environment": "staging"},
    "knative-canary": {
        "mode": CanaryMode.KNATIVE, "capabilities": KNATIVE, "candidate": side(2, oci_manifest()), "traffic": 25,
    },
    "none-cpu": {
        "mode": CanaryMode.NONE, "capabilities": PLAIN, "environment": "development",
        "current": side(1, served_manifest(format="", runtime="", scheme="pvc", location="pvc://models/fraud"),
                        flavour=CPU),
    },
    "adapters": {"current": side(1, adapted_manifest())},
    "stopped": {"current": side(3, spec=WARM), "stopped": True},
}  # fmt: skip


@pytest.mark.requirement("enforcement-1.1")
@pytest.mark.parametrize("name", list(CASES))
def test_golden(name: str, request: pytest.FixtureRequest) -> None:
    """Byte for byte what stands in the golden file; a change is seen in review."""
    text = yaml.safe_dump_all(rendered(**CASES[name]), sort_keys=True, width=110)
    file = GOLDEN / f"endpoint-{name}.yaml"
    if not file.exists():
        file.write_text(text)
        pytest.fail(f"{file.name} was written: look at it and commit it")
    assert text == file.read_text()


@pytest.mark.requirement("enforcement-1.1")
@pytest.mark.parametrize("name", list(CASES))
def test_strictly_valid(name: str) -> None:
    """Our compact rules for KServe, KEDA and the Gateway API, the official schemas for what is Kubernetes' own."""
    for manifest in rendered(**CASES[name]):
        if manifest["kind"] == "NetworkPolicy":
            for version in ("1.29", "1.37"):
                kubernetes_validate.validate(manifest, version, strict=True)
        else:
            assert compact_errors(manifest) == []
    assert len(declarable(rendered(**CASES[name]))) == len(rendered(**CASES[name]))


@pytest.mark.requirement("enforcement-1.1")
@pytest.mark.parametrize("name", list(CASES))
def test_valid_against_the_real_definitions(name: str) -> None:
    """The CRDs of KServe 0.20.0 and KEDA 2.20.2, closed against unknown fields."""
    for manifest in rendered(**CASES[name]):
        if manifest["kind"] in ("InferenceService", "ScaledObject"):
            assert crd_errors(manifest) == []
            broken = copy.deepcopy(manifest)
            broken["spec"]["notAField"] = 1
            assert crd_errors(broken)


def _of(kind: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    return next(one for one in found if one["kind"] == kind)


@pytest.mark.requirement("enforcement-1.5")
def test_pods_carry_what_metering_and_the_scheduler_need() -> None:
    """The release's label, the flavour's nodes and resource, the environment's priority, the queue if there is one."""
    predictor = _of("InferenceService", rendered(queue="default"))["spec"]["predictor"]
    assert predictor["labels"]["gpu-commons/release"] == side().release_uid
    assert predictor["labels"]["kueue.x-k8s.io/queue-name"] == "default"
    assert predictor["priorityClassName"] == "gpu-commons-production"
    assert predictor["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    assert predictor["model"]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "kueue.x-k8s.io/queue-name" not in _of("InferenceService", rendered())["spec"]["predictor"]["labels"]


@pytest.mark.requirement("enforcement-1.6")
def test_pods_fit_the_restricted_level() -> None:
    """What a restricted namespace asks of pod and container, predictor and explainer alike."""
    service = _of("InferenceService", rendered(current=side(1, EXPLAINED, dataclasses.replace(HOT, explainer=True))))
    for part in ("predictor", "explainer"):
        spec = service["spec"][part]
        assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        for container in [spec["model"]] if "model" in spec else spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.requirement("enforcement-1.7")
def test_replicas_follow_the_queue_fast_up_and_slow_down() -> None:
    """No result is an error, not 0; the fallback keeps what runs; windows are minimum sizes by cron."""
    found = rendered(current=side(3, spec=WARM))
    scaled = _of("ScaledObject", found)
    service = _of("InferenceService", found)
    assert service["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "external"
    assert scaled["spec"]["scaleTargetRef"]["name"] == f"{service['metadata']['name']}-predictor"
    query, window = scaled["spec"]["triggers"]
    assert query["metadata"]["ignoreNullValues"] == "false"
    assert "fraud-r3-predictor" in query["metadata"]["query"]
    assert scaled["spec"]["fallback"]["behavior"] == "currentReplicasIfHigher"
    behaviour = scaled["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behaviour["scaleUp"]["stabilizationWindowSeconds"] == 0
    assert behaviour["scaleDown"]["stabilizationWindowSeconds"] == 300
    # Monday to Friday from 18:00 for twelve hours: cron counts from Sunday, and the end lies on the day after.
    assert (window["metadata"]["start"], window["metadata"]["end"]) == ("0 18 * * 1,2,3,4,5", "0 6 * * 2,3,4,5,6")
    assert window["metadata"]["desiredReplicas"] == "4"


@pytest.mark.requirement("enforcement-1.7")
def test_cold_has_no_replica_and_hot_no_autoscaler() -> None:
    """Cold begins at 0; a fixed number needs no ScaledObject and says so to KServe."""
    cold = rendered(current=side(4, spec=COLD))
    assert _of("ScaledObject", cold)["spec"]["minReplicaCount"] == 0
    assert _of("InferenceService", cold)["spec"]["predictor"]["minReplicas"] == 0
    hot = rendered()
    assert not [one for one in hot if one["kind"] == "ScaledObject"]
    assert _of("InferenceService", hot)["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "none"
    with pytest.raises(manifests.Unfit, match="no Prometheus"):
        rendered(current=side(3, spec=WARM), metrics_url="")


@pytest.mark.requirement("enforcement-1.7")
def test_a_stopped_endpoint_keeps_its_objects_at_rest() -> None:
    """KServe takes the workloads away, and nothing scales them up again."""
    found = rendered(**CASES["stopped"])
    assert _of("InferenceService", found)["metadata"]["annotations"]["serving.kserve.io/stop"] == "true"
    assert _of("ScaledObject", found)["metadata"]["annotations"] == {keda.PAUSED_AT: "0"}


@pytest.mark.requirement("enforcement-1.8")
def test_traffic_is_shared_by_weight_between_two_services() -> None:
    """The route keeps its name and host while releases come and go; nobody goes past it."""
    route = _of("HTTPRoute", rendered(candidate=side(2), traffic=10))
    assert [(b["name"], b["weight"]) for b in route["spec"]["rules"][-1]["backendRefs"]] == [
        ("fraud-r1-predictor", 90), ("fraud-r2-predictor", 10),
    ]  # fmt: skip
    assert route["spec"]["hostnames"] == ["fraud-finance-production.models.example.com"]
    alone = _of("HTTPRoute", rendered(current=side(2)))
    assert [(b["name"], b["weight"]) for b in alone["spec"]["rules"][-1]["backendRefs"]] == [
        ("fraud-r2-predictor", 100)
    ]
    for one in rendered(candidate=side(2), traffic=10):
        if one["kind"] == "InferenceService":
            assert one["metadata"]["labels"]["networking.kserve.io/visibility"] == "cluster-local"


@pytest.mark.requirement("enforcement-1.9")
def test_bytes_are_named_by_digest() -> None:
    """OCI in the location; elsewhere by an annotation, through the verifying container where the cluster has it."""
    oci = _of("InferenceService", rendered(current=side(1, oci_manifest())))["spec"]["predictor"]
    assert oci["model"]["storageUri"] == "oci://registry.example.com/models/fraud@sha256:" + "d" * 64
    plain = _of("InferenceService", rendered())["spec"]["predictor"]
    assert plain["model"]["storageUri"] == "s3://models/fraud/1.4.0"
    assert plain["annotations"][manifests.FILES_DIGEST] == manifests.files_digest(served_manifest())
    having = dataclasses.replace(STANDARD, kserve=dataclasses.replace(STANDARD.kserve, verifying=True))
    checked = _of("InferenceService", rendered(capabilities=having))["spec"]["predictor"]
    assert checked["model"]["storageUri"] == "gpu-commons+s3://models/fraud/1.4.0"


@pytest.mark.requirement("stored-copies-3.1")
def test_uploaded_files_are_loaded_from_the_newest_copy_and_every_copy_is_admitted() -> None:
    """Through the verifying container where the cluster has it; without a copy there is nothing to load."""
    copies = ("s3://models/sha256/" + "c" * 64, "s3://old/sha256/" + "c" * 64)
    version = served_manifest(scheme="upload", location="", stored=copies)
    plain = _of("InferenceService", rendered(current=side(1, version)))["spec"]["predictor"]
    assert plain["model"]["storageUri"] == copies[0]
    assert plain["annotations"][manifests.FILES_DIGEST] == manifests.files_digest(version)
    having = dataclasses.replace(STANDARD, kserve=dataclasses.replace(STANDARD.kserve, verifying=True))
    checked = _of("InferenceService", rendered(capabilities=having, current=side(1, version)))["spec"]["predictor"]
    assert checked["model"]["storageUri"] == f"gpu-commons+{copies[0]}"
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for verified, prefix in ((False, ""), (True, "gpu-commons+")):
        entry = enforcement_entries.entry(
            version, grant=ENDPOINT, version="1.4.0", not_before=start, expires=None, verified=verified
        )
        assert set(entry.uris) == {f"{prefix}{one}" for one in copies}
    with pytest.raises(manifests.Unfit, match="model store on the version's page"):
        rendered(current=side(1, dataclasses.replace(version, stored=())))


@pytest.mark.requirement("enforcement-1.9")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": "registry.example.com/serving:1"}, "by its digest"),
        ({"scheme": "upload", "location": ""}, "uploaded"),
        ({"format": "", "image": ""}, "neither a model format nor an image"),
        ({"environment": {"A B": "x"}}, "environment variable"),
    ],
)
def test_a_version_that_cannot_be_served_is_refused(changes: dict[str, Any], words: str) -> None:
    """Before anything is planned, with what to do."""
    with pytest.raises(manifests.Unfit, match=words):
        rendered(current=side(1, served_manifest(**changes)))


@pytest.mark.requirement("enforcement-1.9")
def test_what_a_release_wants_and_the_cluster_lacks_is_refused() -> None:
    """No sink for records, no image of an explainer, adapters on a KServe that would leave them out, a bad name."""
    with pytest.raises(manifests.Unfit, match="no sink"):
        rendered(current=side(1, spec=dataclasses.replace(HOT, logger=True)), logger_url="")
    with pytest.raises(manifests.Unfit, match="no image of one"):
        rendered(current=side(1, spec=dataclasses.replace(HOT, explainer=True)))
    old = dataclasses.replace(STANDARD, kserve=dataclasses.replace(STANDARD.kserve, version="v0.15.2"))
    with pytest.raises(manifests.Unfit, match="left out"):
        rendered(current=side(1, adapted_manifest()), capabilities=old)
    with pytest.raises(manifests.Unfit, match="no name"):
        rendered(name="9lives")
    assert asked().name == "fraud"


# ---- the way out: what an approved image could still fetch at run time


def _lets_out(policies: list[dict[str, Any]], labels: dict[str, str]) -> set[tuple[str, int]]:
    """Return (where to, port) that NetworkPolicies leave open to a pod, worked out as Kubernetes defines it.

    ("anywhere", 0) stands for a pod that no policy of egress selects: it may call everything.
    """
    mine = [
        one["spec"] for one in policies
        if all(labels.get(k) == v for k, v in one["spec"]["podSelector"].get("matchLabels", {}).items())
        and "Egress" in one["spec"]["policyTypes"]
    ]  # fmt: skip
    if not mine:
        return {("anywhere", 0)}
    found = set()
    for rule in (rule for one in mine for rule in one.get("egress", [])):
        for port in rule.get("ports", [{"port": 0}]):
            for peer in rule.get("to", [{"anywhere": {}}]):
                away = "namespaceSelector" in peer or "ipBlock" in peer
                where = "dns" if peer.get("podSelector") else "outside" if away else "inside"
                found.add(("anywhere" if "anywhere" in peer else where, int(port["port"])))
    return found


@pytest.mark.requirement("release-review-5.1")
@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (oci_manifest(), set()),
        (oci_manifest(scheme="pvc", location="pvc://models/fraud", revision=""), set()),
        (served_manifest(), {("anywhere", 443)}),
        (served_manifest(scheme="hf", location="hf://example/fraud", revision="b" * 40), {("anywhere", 443)}),
    ],
    ids=["oci", "pvc", "s3", "hf"],
)
def test_what_an_image_fetches_at_run_time_finds_no_way_out_of_a_regulated_workspace(
    version: Manifest, expected: set[tuple[str, int]]
) -> None:
    """Admission sees no downloader in a shell line: the namespace's default-deny has to hold, beside our own policy."""
    made = rendered(current=side(manifest=version))
    service = _of("InferenceService", made)["spec"]["predictor"]
    workspace = WorkspaceSpec(
        namespace="finance-production", workspace_uid="00000000-0000-4000-8000-000000000001", team_slug="finance",
        environment="production", group_prefix="gpu-commons:", cpu_cores=256, memory_gib=2048, storage_gib=10240,
        pods=200, gpus={"nvidia.com/gpu": 30}, enforcement="deny",
    )  # fmt: skip
    policies = [one for one in [*workspace_manifests(workspace), *made] if one["kind"] == "NetworkPolicy"]
    assert len(policies) == 2
    # Nothing but pods of its own namespace and the cluster's DNS, and where files come over the network, https.
    found = _lets_out(policies, service["labels"])
    assert found == {("inside", 0), ("dns", 53)} | expected
    # A pod beside the endpoint gets nothing of what the endpoint's own policy opens.
    assert _lets_out(policies, {}) == {("inside", 0), ("dns", 53)}
