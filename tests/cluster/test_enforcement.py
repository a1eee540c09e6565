"""Enforcement: a regulated namespace takes what a usable grant covers, and refuses every way around it.

The objects are those that the portal renders; the policies those of its baseline, under names of this suite's own.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from apps.clusters import errors
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.deployments import admission
from tests.cluster.conftest import await_that, fresh
from tests.cluster.fixtures import LABELS, namespace
from tests.deployments.samples import (
    ADAPTED,
    IMAGE,
    OTHER_IMAGE,
    TOOL_IMAGE,
    at_rest,
    entry_of,
    rendered,
    served_manifest,
)

pytestmark = pytest.mark.cluster

Manifest = dict[str, Any]
Change = Callable[[Manifest], None]
_LABEL = "gpu-commons-test/enforcement"
_HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def policies(api: KubernetesClient, served: frozenset[str]) -> Iterator[str]:
    """The policies of the baseline under a name that the suite sweeps; returns the prefix of their names."""
    if not {"admissionregistration.k8s.io", "serving.kserve.io"} <= served:
        pytest.skip("KServe's definitions or admission policies are not on this cluster")
    prefix = fresh()
    there = _exists(api, "CustomResourceDefinition", admission.CRD_NAME)
    for manifest in admission.policies(LABELS):
        mine = copy.deepcopy(manifest)
        if mine["kind"] == "CustomResourceDefinition":
            if not there:
                api.apply(mine)
                await_that(lambda: _is_served(api))
            continue
        mine["metadata"]["name"] = _own(prefix, mine["metadata"]["name"])
        if mine["kind"] == "ValidatingAdmissionPolicyBinding":
            mine["spec"]["policyName"] = _own(prefix, mine["spec"]["policyName"])
            mode = mine["spec"]["matchResources"]["namespaceSelector"]["matchLabels"][admission.LABEL]
            mine["spec"]["matchResources"]["namespaceSelector"] = {"matchLabels": {_LABEL: mode}}
        api.apply(mine)
    yield prefix
    if not there:
        api.delete("CustomResourceDefinition", admission.CRD_NAME)


def _own(prefix: str, name: str) -> str:
    return name.replace("gpu-commons", prefix, 1)


def _exists(api: KubernetesClient, kind: str, name: str) -> bool:
    try:
        return bool(api.get(kind, name))
    except errors.NotFound:
        return False


def _is_served(api: KubernetesClient) -> bool:
    try:
        api.list("ApprovedModels")
    except errors.NotFound:
        return False
    return True


@pytest.fixture(scope="module")
def regulated(api: KubernetesClient, policies: str) -> str:
    """A namespace that denies, in which one version is approved; refusals are in force."""
    name = fresh()
    _space(api, name, "deny", [entry_of(served_manifest(), expires=datetime.now(UTC) + _HOUR)])
    await_that(lambda: _refusal(api, _pod(name, OTHER_IMAGE)))
    await_that(lambda: _refusal(api, _pod(name, IMAGE)) is None)  # its parameter has arrived there, too
    return name


_RELEASE = "22222222-3333-4444-8555-666666666666"


def _space(api: KubernetesClient, name: str, mode: str, entries: list[admission.Entry]) -> None:
    api.apply(namespace(name, **{_LABEL: mode}))
    api.apply(admission.approved_models(name, LABELS, mode, entries, [TOOL_IMAGE]))


def _refusal(api: KubernetesClient, manifest: Manifest) -> str | None:
    """What the server says against an object, in a dry run; None where it takes it."""
    try:
        api.create(manifest, dry_run=True)
    except errors.ClusterError as error:
        return str(error)
    return None


def _pod(space: str, image: str, **container: Any) -> Manifest:
    resources = {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "10m", "memory": "16Mi"}}
    main = {"name": "main", "image": image, "resources": resources, **container}
    meta = {"name": "p" + fresh()[-6:], "namespace": space}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [main]}}


def _service(space: str, change: Change | None = None, **kwargs: Any) -> Manifest:
    found = next(m for m in rendered(namespace=space, **kwargs) if m["kind"] == "InferenceService")
    found["metadata"]["name"] = "s" + fresh()[-6:]
    if change is not None:
        change(found["spec"])
    return found


def _llm(space: str, **model: Any) -> Manifest:
    meta = {"name": "l" + fresh()[-6:], "namespace": space}
    return {
        "apiVersion": "serving.kserve.io/v1alpha2", "kind": "LLMInferenceService", "metadata": meta,
        "spec": {"model": {"uri": served_manifest().storage_uri, "name": "fraud", **model}},
    }  # fmt: skip


def _trained(space: str, uri: str) -> Manifest:
    meta = {"name": "t" + fresh()[-6:], "namespace": space}
    model = {"storageUri": uri, "framework": "onnx", "memory": "1Gi"}
    return {
        "apiVersion": "serving.kserve.io/v1alpha1", "kind": "TrainedModel", "metadata": meta,
        "spec": {"inferenceService": "fraud", "model": model},
    }  # fmt: skip


EVIL = "s3://somewhere/else"
STORAGE, PICTURE, SETTINGS = (admission.MESSAGES[key] for key in ("storage", "image", "settings"))
VOLUME = admission.MESSAGES["volume"]


@pytest.mark.requirement("enforcement-2.1")
@pytest.mark.requirement("enforcement-2.2")
def test_what_is_approved_is_taken(api: KubernetesClient, regulated: str) -> None:
    """The InferenceService as the portal renders it, its pod as KServe makes it, and what else names the same model."""
    assert api.apply(_service(regulated)).status == 201
    first = {"name": "storage-initializer", "image": TOOL_IMAGE, "args": [served_manifest().storage_uri, "/mnt/models"]}
    pod = _pod(
        regulated, IMAGE, args=["--model=/mnt/models", "--port", "8080"], env=[{"name": "MODEL_ID", "value": ""}]
    )
    pod["spec"]["initContainers"] = [first | {"resources": pod["spec"]["containers"][0]["resources"]}]
    assert _refusal(api, pod) is None
    assert _refusal(api, _llm(regulated)) is None
    assert _refusal(api, _trained(regulated, served_manifest().storage_uri)) is None


def _predictor(**fields: Any) -> Change:
    return lambda spec: spec["predictor"].update(fields)


def _model(**fields: Any) -> Change:
    return lambda spec: spec["predictor"]["model"].update(fields)


def _without_model(**fields: Any) -> Change:
    def change(spec: Manifest) -> None:
        del spec["predictor"]["model"]
        spec["predictor"].update(fields)

    return change


def _custom(image: str, **fields: Any) -> list[Manifest]:
    return [{"name": "kserve-container", "image": image, **fields}]


def _canary(**model: Any) -> Change:
    held = {"name": "kserve-container", "modelFormat": {"name": "onnx"}, **model}
    return lambda spec: spec.update(canary=[{"trafficPercent": 10, "predictor": {"name": "v2", "model": held}}])


#: Every way to serve what nobody approved, with what the refusal says.
BYPASSES: dict[str, tuple[Callable[[str], Manifest], str]] = {
    "storageUri": (lambda ns: _service(ns, _model(storageUri=EVIL)), STORAGE),
    "storageUris": (lambda ns: _service(ns, _predictor(storageUris=[{"uri": EVIL}])), STORAGE),
    "storage.path": (lambda ns: _service(ns, _model(storage={"key": "k", "path": EVIL})), STORAGE),
    "storage without a path": (lambda ns: _service(ns, _model(storage={"key": "k"})), STORAGE),
    "another framework's key": (lambda ns: _service(ns, _without_model(sklearn={"storageUri": EVIL})), STORAGE),
    "canary entry": (lambda ns: _service(ns, _canary(storageUri=EVIL)), STORAGE),
    "transformer": (
        lambda ns: _service(ns, lambda spec: spec.update(transformer={"containers": _custom(OTHER_IMAGE)})), PICTURE,
    ),
    "explainer": (
        lambda ns: _service(ns, lambda spec: spec.update(explainer={"art": {"type": "x", "storageUri": EVIL}})),
        STORAGE,
    ),
    "worker": (
        lambda ns: _service(ns, _predictor(workerSpec={"containers": _custom(OTHER_IMAGE)})), PICTURE,
    ),
    "image of the model's container": (lambda ns: _service(ns, _model(image=OTHER_IMAGE)), PICTURE),
    "image by tag": (lambda ns: _service(ns, _model(image=IMAGE.split("@")[0] + ":latest")), PICTURE),
    "variable": (lambda ns: _service(ns, _model(env=[{"name": "HF_MODEL_ID", "value": "someone/else"}])), SETTINGS),
    "variable from a secret": (
        lambda ns: _service(
            ns, _model(env=[{"name": "MODEL_ID", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}])
        ), SETTINGS,
    ),
    "variables from a map": (lambda ns: _service(ns, _model(envFrom=[{"configMapRef": {"name": "a"}}])), SETTINGS),
    "argument": (lambda ns: _service(ns, _model(args=["--model=someone/else"])), SETTINGS),
    "argument in two words": (lambda ns: _service(ns, _model(args=["--model", "someone/else"])), SETTINGS),
    "argument given twice": (
        lambda ns: _service(ns, _model(args=["--model", "/mnt/models", "--model", "someone/else"])), SETTINGS,
    ),
    "path that leads out": (lambda ns: _service(ns, _model(args=["--model=/mnt/models/../../data"])), SETTINGS),
    "command": (lambda ns: _service(ns, _model(command=["vllm", "serve", "someone/else"])), SETTINGS),
    "line for a shell": (
        lambda ns: _service(
            ns, _without_model(containers=_custom(IMAGE, command=["sh", "-c", "vllm serve someone/else"]))
        ), SETTINGS,
    ),
    "variable with arguments": (
        lambda ns: _service(ns, _model(env=[{"name": "EXTRA", "value": "--model someone/else"}])), SETTINGS,
    ),
    "adapter as an argument": (lambda ns: _service(ns, _model(args=[f"--lora-modules=x={EVIL}"])), SETTINGS),
    "claim": (
        lambda ns: _service(
            ns, _predictor(volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "others"}}])
        ), VOLUME,
    ),
    "another storage container": (
        lambda ns: _service(ns, _predictor(storageContainerName="other")), admission.MESSAGES["container"],
    ),
    "files that nobody approved": (
        lambda ns: _service(ns, _predictor(annotations={"gpu-commons/files-digest": "0" * 64})),
        admission.MESSAGES["bytes"],
    ),
    "language model": (lambda ns: _llm(ns, uri=EVIL), STORAGE),
    "LoRA adapter": (
        lambda ns: _llm(ns, lora={"adapters": [{"name": "a", "uri": ADAPTED, "framework": "lora", "memory": "1Gi"}]}),
        STORAGE,
    ),
    "trained model": (lambda ns: _trained(ns, EVIL), STORAGE),
    "pod": (lambda ns: _pod(ns, OTHER_IMAGE), PICTURE),
    "pod by tag": (lambda ns: _pod(ns, "registry.example.com/serving:1"), PICTURE),
    "pod with another model": (lambda ns: _pod(ns, IMAGE, args=["--model", "someone/else"]), SETTINGS),
    "init container's image": (lambda ns: _with_first(ns, image=OTHER_IMAGE), PICTURE),
    "init container's model": (lambda ns: _with_first(ns, image=TOOL_IMAGE, args=[EVIL, "/mnt/models"]), SETTINGS),
    "init container's download": (
        lambda ns: _with_first(ns, image=TOOL_IMAGE, args=["https://models.example.com/x", "/mnt/models"]), STORAGE,
    ),
    "claim of a pod": (
        lambda ns: _with_volume(ns, {"name": "v", "persistentVolumeClaim": {"claimName": "others"}}), VOLUME,
    ),
}  # fmt: skip


def _with_first(space: str, **fields: Any) -> Manifest:
    pod = _pod(space, IMAGE)
    first = {**pod["spec"]["containers"][0], "name": "first", **fields}
    pod["spec"]["initContainers"] = [first]
    return pod


def _with_volume(space: str, volume: Manifest) -> Manifest:
    pod = _pod(space, IMAGE)
    pod["spec"]["volumes"] = [volume]
    return pod


@pytest.mark.requirement("enforcement-2.3")
@pytest.mark.parametrize("name", list(BYPASSES))
def test_a_way_around_is_refused(api: KubernetesClient, regulated: str, name: str) -> None:
    """With a sentence that says what is not covered."""
    make, words = BYPASSES[name]
    refusal = _refusal(api, make(regulated))
    assert refusal is not None, f"{name} was taken"
    assert words in refusal


@pytest.mark.requirement("enforcement-2.4")
def test_an_expired_grant_covers_nothing_new(api: KubernetesClient, policies: str) -> None:
    """With every worker stopped: the object still lists the entry. One that begins later covers nothing yet."""
    now = datetime.now(UTC)
    for times in (
        {"not_before": now - 2 * _HOUR, "expires": now - _HOUR},
        {"not_before": now + _HOUR, "expires": None},
    ):
        space = fresh()
        _space(api, space, "deny", [entry_of(served_manifest(), **times)])
        refusal = await_that(lambda space=space: _refusal(api, _service(space)))
        await_that(lambda space=space: PICTURE in str(_refusal(api, _pod(space, IMAGE))))
        assert refusal


@pytest.mark.requirement("enforcement-2.5")
def test_without_the_object_everything_is_refused(api: KubernetesClient, policies: str) -> None:
    """Who removes the list of what is approved opens nothing."""
    space = fresh()
    api.apply(namespace(space, **{_LABEL: "deny"}))
    assert "no params found" in await_that(lambda: _refusal(api, _pod(space, IMAGE)))
    assert _refusal(api, _service(space)) is not None


@pytest.mark.requirement("enforcement-2.6")
def test_a_deployment_runs_no_pod_of_an_unapproved_model(api: KubernetesClient, regulated: str) -> None:
    """The Deployment itself is no model; its pods are refused, and the reason stands in its conditions or events."""
    name = "d" + fresh()[-6:]
    marks = {"app": name}
    pod = _pod(regulated, OTHER_IMAGE)
    template = {"metadata": {"labels": marks}, "spec": pod["spec"]}
    api.create(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": regulated},
         "spec": {"replicas": 1, "selector": {"matchLabels": marks}, "template": template}}
    )  # fmt: skip
    await_that(lambda: any(PICTURE in text for text in _told(api, regulated, name)), seconds=40)
    pods = [one for one in api.list("Pod", namespace=regulated).items if one["metadata"]["name"].startswith(name)]
    assert pods == []


def _told(api: KubernetesClient, space: str, name: str) -> list[str]:
    conditions = (api.get("Deployment", name, space).get("status") or {}).get("conditions") or []
    events = [
        one.get("message", "")
        for one in api.list("Event", namespace=space).items
        if str((one.get("involvedObject") or {}).get("name", "")).startswith(name)
    ]
    return [str(one.get("message", "")) for one in conditions] + events


@pytest.mark.requirement("enforcement-2.7")
def test_what_serves_goes_on_after_its_grant_has_ended(api: KubernetesClient, policies: str) -> None:
    """It can be made smaller and stopped, its pods are replaced; its model cannot be changed, nothing new begins."""
    space = fresh()
    entry = entry_of(served_manifest(), expires=datetime.now(UTC) + _HOUR)
    _space(api, space, "deny", [entry])
    await_that(lambda: _refusal(api, _service(space)) is None)
    service = _service(space)
    api.apply(service)
    serving = dataclasses.replace(entry, expires=None, release=_RELEASE)
    api.apply(admission.approved_models(space, LABELS, "deny", [serving], [TOOL_IMAGE]))
    await_that(lambda: _refusal(api, _service(space)))
    mine, stray, others = _pod(space, IMAGE), _pod(space, IMAGE), _pod(space, OTHER_IMAGE)
    for pod in (mine, others):
        pod["metadata"]["labels"] = {"gpu-commons/release": _RELEASE}
    assert _refusal(api, mine) is None
    assert PICTURE in str(_refusal(api, stray))
    assert PICTURE in str(_refusal(api, others))
    smaller = copy.deepcopy(service)
    smaller["spec"]["predictor"]["minReplicas"] = 1
    smaller["metadata"]["annotations"]["serving.kserve.io/stop"] = "true"
    assert api.apply(smaller).status == 200
    smaller["spec"]["predictor"]["model"]["storageUri"] = EVIL
    with pytest.raises(errors.ClusterError, match="no usable approval"):
        api.apply(smaller)


@pytest.mark.requirement("enforcement-2.8")
def test_audit_warns_and_takes_it(api: KubernetesClient, policies: str) -> None:
    """What would be refused is said, and nothing is."""
    space = fresh()
    _space(api, space, "audit", [])
    answer = await_that(lambda: (found := api.create(_pod(space, OTHER_IMAGE), dry_run=True)).warnings and found)
    assert any(PICTURE in warning for warning in answer.warnings)


@pytest.mark.requirement("enforcement-2.9")
def test_other_namespaces_are_left_alone(api: KubernetesClient, regulated: str) -> None:
    """No label, no refusal."""
    space = fresh()
    api.apply(namespace(space))
    assert _refusal(api, _pod(space, OTHER_IMAGE)) is None
    assert _refusal(api, _service(space, _model(storageUri=EVIL))) is None


@pytest.mark.requirement("enforcement-1.1")
def test_the_rendered_objects_are_taken_as_they_are(api: KubernetesClient, regulated: str) -> None:
    """Applied twice they change nothing: no field is rewritten."""
    for manifest in at_rest(rendered(namespace=regulated)):
        if manifest["kind"] in ("HTTPRoute", "ScaledObject") and not _served(api, manifest):
            continue
        first, again = api.apply(manifest).object, api.apply(manifest).object
        assert again["spec"] == first["spec"]
        assert again["metadata"].get("generation") == first["metadata"].get("generation")


def _served(api: KubernetesClient, manifest: Manifest) -> bool:
    try:
        api.list(manifest["kind"])
    except errors.NotFound:
        return False
    return True
