"""Which canary goes with which cluster: every cell of mode × KServe's version × autoscaler."""

from __future__ import annotations

import dataclasses

import pytest

from apps.clusters.capabilities import Capabilities, Keda
from apps.deployments import canary_matrix, manifests
from apps.deployments.canary_matrix import FIXED, KEDA
from apps.deployments.choices import CanaryMode
from tests.deployments.samples import KNATIVE, PLAIN, STANDARD, WARM, asked, rendered, side

VERSIONS = ("v0.14.1", "v0.15.2", "v0.16.0", "v0.20.0", "")


def on(found: Capabilities, version: str = "v0.20.0", *, keda: bool = True, mode: str | None = None) -> Capabilities:
    """A cluster with another KServe."""
    kserve = dataclasses.replace(found.kserve, version=version, mode=mode or found.kserve.mode)
    return dataclasses.replace(found, kserve=kserve, keda=Keda(keda, ("v1alpha1",) if keda else ()))


@pytest.mark.requirement("enforcement-1.3")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("cluster", "autoscaler", "expected", "words"),
    [
        (STANDARD, FIXED, CanaryMode.ROUTE, "HTTPRoute"),
        (STANDARD, KEDA, CanaryMode.ROUTE, "HTTPRoute"),
        (PLAIN, FIXED, CanaryMode.NONE, "Gateway API"),
        (PLAIN, KEDA, CanaryMode.NONE, "Gateway API"),
        (KNATIVE, FIXED, CanaryMode.KNATIVE, "canaryTrafficPercent"),
        (KNATIVE, KEDA, CanaryMode.NONE, "Gateway API"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_cell(cluster: Capabilities, autoscaler: str, expected: CanaryMode, words: str, version: str) -> None:
    """The mode, with a sentence; KServe's own spec.canary in no version."""
    for mode in {cluster.kserve.mode, {"Standard": "RawDeployment", "Knative": "Serverless"}[str(cluster.kserve.mode)]}:
        found, why = canary_matrix.mode_for(on(cluster, version, mode=mode), autoscaler)
        assert found == expected
        assert words in why
        assert found != CanaryMode.STANDARD


@pytest.mark.requirement("enforcement-1.3")
def test_what_cannot_be_served_at_all_says_why() -> None:
    """No KServe, an API that is too old, no KEDA for what scales."""
    nothing = Capabilities(kserve=dataclasses.replace(STANDARD.kserve, installed=False))
    assert canary_matrix.mode_for(nothing) == (None, "KServe was not found on this cluster.")
    old = dataclasses.replace(STANDARD, kserve=dataclasses.replace(STANDARD.kserve, api_versions=("v1alpha2",)))
    assert canary_matrix.mode_for(old)[0] is None
    mode, why = canary_matrix.mode_for(on(STANDARD, keda=False), KEDA)
    assert mode is None
    assert "KEDA was not found" in why
    with pytest.raises(ValueError, match="unknown autoscaler"):
        canary_matrix.mode_for(STANDARD, "magic")


@pytest.mark.requirement("enforcement-1.3")
def test_a_gateway_that_is_not_known_means_no_canary() -> None:
    """The Gateway API may be served without KServe using it."""
    for change in ({"gateway_api": False}, {"gateway": ""}, {"ingress_domain": ""}):
        kserve = dataclasses.replace(STANDARD.kserve, **change)
        mode, why = canary_matrix.mode_for(dataclasses.replace(STANDARD, kserve=kserve))
        assert mode == CanaryMode.NONE
        assert "enableGatewayApi" in why


@pytest.mark.requirement("enforcement-1.2")
@pytest.mark.parametrize(
    ("version", "standard", "knative"),
    [("v0.15.2", "RawDeployment", "Serverless"), ("v0.16.0", "Standard", "Knative"), ("", "Standard", "Knative")],
)
def test_the_deployment_mode_is_always_set_in_the_versions_words(version: str, standard: str, knative: str) -> None:
    """From 0.16 on the webhook rewrites the old words, which would drift for ever."""
    for mode in (CanaryMode.ROUTE, CanaryMode.NONE):
        assert canary_matrix.deployment_mode(on(STANDARD, version), mode) == standard
    assert canary_matrix.deployment_mode(on(KNATIVE, version), CanaryMode.KNATIVE) == knative


@pytest.mark.requirement("enforcement-1.4")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mode": CanaryMode.NONE, "candidate": side(2), "traffic": 10, "capabilities": PLAIN}, "ignored silently"),
        ({"mode": CanaryMode.STANDARD, "candidate": side(2), "traffic": 10}, "by weight"),
        ({"mode": CanaryMode.ROUTE, "capabilities": PLAIN}, "HTTPRoute v1"),
        ({"mode": CanaryMode.KNATIVE}, "no longer uses"),
        ({"mode": CanaryMode.KNATIVE, "capabilities": KNATIVE, "current": side(1, spec=WARM)}, "KEDA"),
        ({"mode": CanaryMode.ROUTE, "capabilities": on(STANDARD, keda=False), "current": side(1, spec=WARM)}, "KEDA"),
        ({"candidate": side(1), "traffic": 10}, "its own canary"),
        ({"traffic": 10}, "belongs to a canary"),
        ({"candidate": side(2), "traffic": 101}, "0 to 100"),
        ({"current": None}, "without a release"),
    ],
)
def test_what_the_cluster_would_ignore_is_refused(changes: dict[str, object], words: str) -> None:
    """With an explanation; nothing is rendered."""
    with pytest.raises(manifests.Unfit, match=words):
        rendered(**changes)


@pytest.mark.requirement("enforcement-1.4")
def test_no_field_is_rendered_that_the_mode_ignores() -> None:
    """canaryTrafficPercent for Knative alone, spec.canary never, scale settings of Knative never."""
    for found in (asked(candidate=side(2), traffic=10), asked(mode=CanaryMode.NONE, capabilities=PLAIN)):
        for manifest in manifests.render(found):
            if manifest["kind"] == "InferenceService":
                assert "canaryTrafficPercent" not in manifest["spec"]["predictor"]
                assert "canary" not in manifest["spec"]
                assert not {"scaleMetric", "scaleTarget", "containerConcurrency"} & set(manifest["spec"]["predictor"])
