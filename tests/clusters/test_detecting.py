"""What a cluster can do, from its API groups and the settings of what is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from apps.clusters import capabilities, detecting
from apps.clusters.capabilities import Capabilities, KServe, Kueue
from apps.clusters.choices import GuardMode, KueueMode
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.clusters.errors import ServerError, Unauthorised
from apps.clusters.inventory import NodeFacts
from apps.clusters.models import Cluster
from tests.clusters.tls_servers import Api

CONFIG = "/api/v1/namespaces/kueue-system/configmaps/kueue-manager-config"
KSERVE = "/api/v1/namespaces/kserve/configmaps/inferenceservice-config"


@pytest.fixture
def api() -> Any:
    """A server with nothing installed."""
    made = Api(None)
    yield made
    made.close()


def _find(api: Api, nodes: list[NodeFacts] | None = None) -> Capabilities:
    return detecting.detect(KubernetesClient(api.url), version="v1.36.2", nodes=nodes)


def _kueue(api: Api, **settings: Any) -> None:
    api.groups["kueue.x-k8s.io"] = ["v1beta2", "v1beta1"]
    configuration = {"apiVersion": "config.kueue.x-k8s.io/v1beta2", "kind": "Configuration", **settings}
    api.objects[CONFIG] = {"data": {"controller_manager_config.yaml": yaml.safe_dump(configuration)}}


@pytest.mark.requirement("cluster-onboarding-3.1")
def test_a_bare_cluster_has_only_what_kubernetes_brings(api: Api) -> None:
    """Not found is not the same as not known."""
    found = _find(api, [])
    assert (found.kueue.installed, found.kserve.installed, found.keda.installed) == (False, False, False)
    assert (found.metrics, found.admission_policies, found.dra) == (False, True, False)
    assert found.username == "system:serviceaccount:gpu-commons:gpu-commons"
    assert found.checked_at is not None
    assert found.reasons == {}


@pytest.mark.requirement("cluster-onboarding-3.1")
def test_kueue_is_read_with_its_modes(api: Api) -> None:
    """From the Configuration in its ConfigMap."""
    _kueue(
        api,
        integrations={"frameworks": ["batch/job", "pod", "deployment"]},
        fairSharing={"preemptionStrategies": ["LessThanOrEqualToFinalShare"]},
        managedJobsNamespaceSelector={"matchLabels": {"kueue.x-k8s.io/managed-namespace": "true"}},
        featureGates={"TopologyAwareScheduling": True},
    )
    api.groups["visibility.kueue.x-k8s.io"] = ["v1beta2"]
    kueue = _find(api).kueue
    assert kueue == Kueue(
        True, ("v1beta2", "v1beta1"), True, True, {"kueue.x-k8s.io/managed-namespace": "true"}, True, True,
        ("batch/job", "pod", "deployment"), {"TopologyAwareScheduling": True},
    )  # fmt: skip
    assert kueue.usable


@pytest.mark.requirement("cluster-onboarding-3.1")
@pytest.mark.parametrize(
    ("settings", "labels", "known"),
    [
        ({}, {}, True),
        ({"managedJobsNamespaceSelector": {"matchExpressions": [
            {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", "kueue-system"]}]}},
         {}, True),
        ({"managedJobsNamespaceSelector": {"matchExpressions": [
            {"key": "team", "operator": "In", "values": ["gpu", "x"]}, {"key": "q", "operator": "Exists"}]}},
         {"team": "gpu", "q": "true"}, True),
        ({"managedJobsNamespaceSelector": {"matchExpressions": [
            {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["only-here"]}]}}, None, False),
        ({"managedJobsNamespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "only-here"}}}, None, False),
        ({"integrations": {"podOptions": {"namespaceSelector": {"matchLabels": {"old": "way"}}}}},
         {"old": "way"}, True),
    ],
)  # fmt: skip
def test_the_labels_of_managed_namespaces(
    api: Api, settings: dict[str, Any], labels: dict[str, str] | None, known: bool
) -> None:
    """Every form of selector that a label can satisfy; else not known, with the reason."""
    _kueue(api, **settings)
    found = _find(api)
    assert found.kueue.managed_labels == labels
    assert ("kueue.managed_labels" not in found.reasons) is known


@pytest.mark.requirement("cluster-onboarding-3.1")
@pytest.mark.parametrize(
    ("version", "section", "on"),
    [("v1beta1", {"enable": True}, True), ("v1beta1", {"enable": False}, False), ("v1beta1", {}, False),
     ("v1beta2", {}, True), ("v1beta2", None, False)],
)  # fmt: skip
def test_fair_sharing_by_version_of_the_configuration(version: str, section: Any, on: bool) -> None:
    """v1beta1 has a switch, v1beta2 only the section."""
    settings = {"apiVersion": f"config.kueue.x-k8s.io/{version}", "fairSharing": section}
    assert detecting.fair_sharing(settings) is on


@pytest.mark.requirement("cluster-onboarding-3.1")
@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ((403, {"kind": "Status", "code": 403, "message": "no"}, {}), "no right to get ConfigMap kueue-manager-config"),
        ((404, {"kind": "Status", "code": 404, "message": "no"}, {}), "there is no ConfigMap kueue-manager-config"),
        ((200, {"data": {"controller_manager_config.yaml": "a: ["}}, {}), "not YAML"),
        ((200, {"data": {"other": ""}}, {}), "holds no Configuration"),
    ],
)
def test_what_may_not_be_read_is_not_known_with_the_reason(api: Api, reply: Any, says: str) -> None:
    """Kueue is there, its modes are not known."""
    api.groups["kueue.x-k8s.io"] = ["v1beta2"]
    api.answers[CONFIG] = lambda: reply
    found = _find(api)
    assert found.kueue.installed is True
    assert (found.kueue.pod_integration, found.kueue.fair_sharing, found.kueue.managed_labels) == (None, None, None)
    assert all(says in found.reasons[f"kueue.{name}"] for name in ("pod_integration", "fair_sharing", "managed_labels"))


@pytest.mark.requirement("cluster-onboarding-3.1")
def test_kserve_is_read_with_its_mode(api: Api) -> None:
    """From inferenceservice-config; unreadable settings leave the mode unknown."""
    api.groups["serving.kserve.io"] = ["v1beta1", "v1alpha1"]
    assert _find(api).kserve == KServe(True, ("v1beta1", "v1alpha1"))
    api.objects[KSERVE] = {
        "data": {"deploy": '{"defaultDeploymentMode": "Standard"}', "ingress": '{"enableGatewayApi": true}'}
    }
    assert _find(api).kserve == KServe(True, ("v1beta1", "v1alpha1"), "Standard", True, verifying=False)
    api.objects[KSERVE] = {"data": {"deploy": "{"}}
    assert "not JSON" in _find(api).reasons["kserve.mode"]


@pytest.mark.requirement("cluster-onboarding-3.1")
def test_no_right_to_look_at_the_groups_leaves_everything_unknown(api: Api) -> None:
    """With the reason; a cluster that fails as a whole raises instead."""
    api.answers["/apis"] = lambda: (403, {"kind": "Status", "code": 403, "message": "not for you"}, {})
    found = _find(api)
    assert (found.kueue.installed, found.metrics, found.dra) == (None, None, None)
    assert "not for you" in found.reasons["kueue"]
    api.answers["/apis"] = lambda: (401, {"kind": "Status", "code": 401}, {})
    with pytest.raises(Unauthorised):
        _find(api)
    api.answers["/apis"] = lambda: (200, {"kind": "Other"}, {})
    with pytest.raises(ServerError, match="no list of API groups"):
        _find(api)


@pytest.mark.requirement("cluster-onboarding-3.1")
def test_what_the_nodes_tell(api: Api) -> None:
    """Models, and MIG strategies of nodes that carry GPUs."""
    nodes = [
        NodeFacts("a", gpu_model="A100", mig_strategy="mixed"), NodeFacts("b", gpu_model="H100", mig_strategy="single"),
        NodeFacts("c", mig_strategy="single"),
    ]  # fmt: skip
    found = _find(api, nodes)
    assert (found.gpu_models, found.mig_strategies) == (("A100", "H100"), ("mixed", "single"))


ALL = Capabilities(
    kubernetes_version="v1.36.2",
    kueue=Kueue(True, ("v1beta2",), True, True, {}, True, True),
    kserve=KServe(True, ("v1beta1",)),
    keda=capabilities.Keda(True, ("v1alpha1",)),
    metrics=True,
    admission_policies=True,
    dra=True,
    http_routes=True,
    mig_strategies=("mixed",),
    gpu_models=("A100", "H100"),
)


def _cluster(found: Capabilities, mode: str = KueueMode.PODS) -> Cluster:
    from apps.core import clock

    data = capabilities.as_json(found) | {"checked_at": clock.now().isoformat()}
    return Cluster(name="C", kueue_mode=mode, guard_mode=GuardMode.OFF, capabilities=data)


@pytest.mark.requirement("cluster-onboarding-3.3")
def test_a_cluster_with_everything_offers_everything() -> None:
    """No reason anywhere."""
    assert {key: capabilities.missing(_cluster(ALL), key) for key in capabilities.FEATURES} == dict.fromkeys(
        capabilities.FEATURES
    )


@pytest.mark.requirement("cluster-onboarding-3.3")
def test_a_cluster_with_nothing_says_why_for_each() -> None:
    """In a sentence; before any check, that there was none."""
    bare = Capabilities(
        kueue=Kueue(False), kserve=KServe(False), keda=capabilities.Keda(False), metrics=False,
        admission_policies=False, dra=False, gpu_models=("A100", "H100"),
    )  # fmt: skip
    cluster = _cluster(bare, KueueMode.OFF)
    for key in capabilities.FEATURES:
        why = capabilities.missing(cluster, key)
        assert str(why).endswith("."), key
    fresh = Cluster(name="C", capabilities={}, kueue_mode=KueueMode.OFF)
    assert "not checked yet" in str(capabilities.missing(fresh, "serving"))
    with pytest.raises(KeyError):
        capabilities.missing(cluster, "no such feature")


@pytest.mark.requirement("cluster-onboarding-3.3")
@pytest.mark.parametrize(
    ("mode", "feature", "says"),
    [
        (KueueMode.OFF, "borrow", "does not use it there. Nothing would take a borrowed GPU back."),
        (KueueMode.OFF, "gpu_models_apart", "A100, H100"),
        (KueueMode.OFF, "cpu_classes", "cores"),
        (KueueMode.JOBS, "pods_queued", "for jobs only"),
        (KueueMode.JOBS, "borrow", None),
        (KueueMode.JOBS, "gpu_models_apart", None),
    ],
)
def test_what_depends_on_how_kueue_is_used(mode: str, feature: str, says: str | None) -> None:
    """The admin's decision counts, within what was found."""
    why = capabilities.missing(_cluster(ALL, mode), feature)
    assert (why is None) if says is None else (says in str(why))


@pytest.mark.requirement("cluster-onboarding-3.3")
def test_kueue_that_went_away_takes_its_features_with_it() -> None:
    """Though an admin chose it; an old one says which version it serves."""
    gone = _cluster(Capabilities(kueue=Kueue(False)))
    assert "Kueue was not found" in str(capabilities.missing(gone, "borrow"))
    old = _cluster(Capabilities(kueue=Kueue(True, ("v1beta1",))))
    assert "serves v1beta1; the portal needs v1beta2" in str(capabilities.missing(old, "kueue"))


@pytest.mark.requirement("cluster-onboarding-1.1")
@pytest.mark.parametrize("version", ["1.29", "1.33", "1.37"])
def test_what_is_generated_is_valid_in_every_supported_version(version: str) -> None:
    """Against the official schemas; and it never grants what the portal must not have."""
    import kubernetes_validate

    from apps.clusters import rbac

    for options in (rbac.Options(guard=True, lasting_token=True), rbac.Options(kueue=False, serving=False)):
        texts = [rbac.to_yaml(rbac.manifests(options)), *(file.text for file in rbac.settings_files(options))]
        objects = [manifest for text in texts for manifest in yaml.safe_load_all(text)]
        assert "&id" not in rbac.to_yaml(rbac.manifests(options))
        for manifest in objects:
            kubernetes_validate.validate(manifest, version, strict=True)
        for rule in [rule for manifest in objects for rule in manifest.get("rules", [])]:
            assert "*" not in [*rule["verbs"], *rule.get("resources", []), *rule.get("apiGroups", [])]
            assert not {"secrets", "clusterrolebindings"} & set(rule.get("resources", []))
            assert not {"escalate", "impersonate", "deletecollection"} & set(rule["verbs"])
            if {"namespaces", "persistentvolumeclaims"} & set(rule.get("resources", [])):
                assert "delete" not in rule["verbs"]
            if "bind" in rule["verbs"]:
                assert rule["resourceNames"] == ["edit", "view"]


@pytest.mark.requirement("cluster-onboarding-1.1")
def test_no_file_holds_objects_in_a_namespace_that_it_does_not_make() -> None:
    """But the files of Kueue and KServe, one for each namespace, which say so."""
    from apps.clusters import rbac

    options = rbac.Options(guard=True, lasting_token=True)
    for manifest in rbac.manifests(options):
        assert manifest["metadata"].get("namespace", "gpu-commons") == "gpu-commons"
    files = rbac.settings_files(options)
    assert [file.namespace for file in files] == ["kserve", "kueue-system"]
    for file in files:
        assert {manifest["metadata"]["namespace"] for manifest in file.objects} == {file.namespace}
        assert file.command.startswith(f"kubectl get namespace {file.namespace} && ")
    assert rbac.settings_files(rbac.Options(kueue=False, serving=False)) == []


def test_the_roles_handed_out_are_those_that_may_be_bound() -> None:
    """What workspaces bind and what the portal may bind are the same."""
    from apps.clusters.rbac import HANDED_OUT
    from apps.quotas.manifests import PROFILES

    bound = {role for profile in PROFILES.values() for role in (profile.lead_role, profile.member_role)}
    assert bound == set(HANDED_OUT)


def test_every_kind_that_is_declared_is_asked_for() -> None:
    """The golden files of workspaces and baselines hold no kind whose right was not asked for."""
    from apps.clusters import kinds
    from apps.clusters.rbac import NEEDS

    asked = {(need.group, need.resource) for need in NEEDS if "create" in need.verbs}
    golden = Path(__file__).parents[1] / "quotas"
    found = set()
    for file in golden.rglob("*.yaml"):
        for manifest in yaml.safe_load_all(file.read_text()):
            if isinstance(manifest, dict) and manifest.get("kind") in kinds.DECLARABLE:
                found.add(kinds.KINDS[manifest["kind"]])
    for kind in found:
        group = kind.api_version.rpartition("/")[0]
        assert (group, kind.plural) in asked, kind.kind
