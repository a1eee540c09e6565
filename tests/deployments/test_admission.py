"""What a cluster enforces, without a cluster: the type, the policies, the entries, valid in every supported version."""

from __future__ import annotations

from datetime import UTC, datetime

import jsonschema
import kubernetes_validate
import pytest

from apps.demo.cluster.cel import compiled
from apps.deployments import admission, admission_cel, enforcement_entries
from apps.provisioning.manifests import render as declarable
from tests.cluster.fixtures import LABELS
from tests.deployments.samples import (
    ADAPTED,
    IMAGE,
    TOOL_IMAGE,
    adapted_manifest,
    entry_of,
    oci_manifest,
    served_manifest,
)

AT = datetime(2026, 11, 22, 12, 0, 0, 999_999, tzinfo=UTC)


@pytest.mark.requirement("enforcement-2.1")
@pytest.mark.parametrize("version", ["1.30", "1.33", "1.37"])
def test_policies_are_valid_in_every_version_that_has_them(version: str) -> None:
    """Against the official schemas, strictly; all can be declared by a baseline."""
    found = admission.policies(LABELS)
    for manifest in found:
        kubernetes_validate.validate(manifest, version, strict=True)
    assert len(declarable(found)) == len(found)
    names = {manifest["metadata"]["name"] for manifest in found}
    assert {f"{policy}-{mode}" for policy in admission.POLICIES for mode in ("audit", "deny")} < names


@pytest.mark.requirement("enforcement-2.5")
def test_a_missing_list_denies_and_only_labelled_namespaces_are_judged() -> None:
    """Fail closed, in deny and in audit; nothing is refused where nobody decided so."""
    for manifest in admission.policies(LABELS):
        if manifest["kind"] == "ValidatingAdmissionPolicy":
            assert manifest["spec"]["failurePolicy"] == "Fail"
        if manifest["kind"] == "ValidatingAdmissionPolicyBinding":
            mode = manifest["metadata"]["name"].rpartition("-")[2]
            assert manifest["spec"]["paramRef"] == {"name": "gpu-commons", "parameterNotFoundAction": "Deny"}
            selector = manifest["spec"]["matchResources"]["namespaceSelector"]
            assert selector == {"matchLabels": {"gpu-commons/enforcement": mode}}
            assert ("Deny" in manifest["spec"]["validationActions"]) == (mode == "deny")


@pytest.mark.requirement("enforcement-2.2")
def test_an_entry_holds_everything_that_names_the_model() -> None:
    """Locations with adapters and explainer, digests of images and OCI artifacts, arguments and variables, claims."""
    manifest = adapted_manifest(arguments=("--max=8",), environment={"MODEL_ID": "example/fraud"})
    entry = entry_of(manifest)
    assert set(entry.uris) == {"s3://models/fraud/1.4.0", ADAPTED}
    assert entry.images == ("sha256:" + "a" * 64,)
    assert set(entry.values) == {"--max=8", "example/fraud"}
    assert set(entry_of(oci_manifest()).images) == {"sha256:" + "a" * 64, "sha256:" + "d" * 64}
    claimed = served_manifest(scheme="pvc", location="pvc://weights/fraud")
    assert entry_of(claimed).claims == ("weights",)
    with pytest.raises(ValueError, match="not named by its digest"):
        entry_of(served_manifest(image="registry.example.com/serving:1"))


@pytest.mark.requirement("enforcement-watch-2.4")
def test_where_bytes_are_verified_the_plain_location_is_not_approved() -> None:
    """Else a release could load without being checked."""
    entry = enforcement_entries.entry(
        served_manifest(), grant="g", version="v", not_before=AT, expires=None, verified=True
    )
    assert entry.uris == ("gpu-commons+s3://models/fraud/1.4.0",)


@pytest.mark.requirement("enforcement-2.4")
def test_the_object_fits_its_type_and_ends_are_whole_seconds() -> None:
    """Cut, never rounded up: nothing is covered a moment longer than approved."""
    found = admission.approved_models(
        "finance", LABELS, "deny", [entry_of(served_manifest(), expires=AT)], [TOOL_IMAGE]
    )
    schema = admission.crd({})["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    jsonschema.Draft202012Validator(schema).validate(found)
    assert found["spec"]["entries"][0]["expires"] == "2026-11-22T12:00:00Z"
    assert admission.moment(None) == admission.NEVER
    declarable([found])


def _judged(words: list[str], values: list[str]) -> bool:
    expression = f"[object.words].all(w, {admission_cel.words_covered()})"
    entry = {"uris": ["s3://models/fraud/1.4.0"], "values": values, "images": [IMAGE]}
    return bool(compiled(expression)({"object": {"words": words}, "variables": {"usable": [entry]}}))


@pytest.mark.requirement("enforcement-2.3")
@pytest.mark.parametrize(
    ("words", "covered"),
    [
        (["--port", "8080", "--model=/mnt/models"], True),
        (["--model", "/mnt/models/onnx", "--lora-modules", "tone=/mnt/adapters/tone"], True),
        (["python", "-m", "vllm.entrypoints.openai.api_server"], True),
        (["--model", "example/fraud"], True),
        (["s3://models/fraud/1.4.0", "/mnt/models"], True),
        (["--model", "example/other"], False),
        (["--model"], True),
        (["", "--model", "example/other"], False),
        (["--model", "--model", "example/other"], False),
        (["x\n--model\nexample/fraud", "--model", "example/other"], False),
        (["--model=/mnt/models/../secret"], False),
        (["--model=/mnt/modelsevil/x"], False),
        (["vllm", "serve", "example/other"], False),
        (["--load=S3://elsewhere/x"], False),
        (["name=hf://someone/else"], False),
        (["oci+native://registry.example.com/x"], False),
        (["--hf-repo", "example/other"], False),
        (["sh", "-c", "vllm serve example/other"], False),
        (["sh", "-c", "exec python -m server --model=example/other"], False),
        (["sh", "-c", "cd /tmp;\tvllm serve example/other"], False),
        (["sh", "-c", "exec vllm serve /mnt/models --port 80"], True),
        (["sh", "-c", "exec python -m server --port 80"], True),
    ],
)
def test_words_that_name_a_model(words: list[str], covered: bool) -> None:
    """Whatever way they are written."""
    assert _judged(words, ["example/fraud", "exec vllm serve /mnt/models --port 80"]) is covered
