"""Which canary goes with which cluster and autoscaler. Pure; every row is a test (tests/deployments/test_matrix.py).

Facts (KServe source at v0.20.0 and its issues #5335, #4074, #5983): `canaryTrafficPercent` is read by the Knative
reconciler alone and silently ignored in Standard mode; `spec.canary[]` came with 0.20.0, but the code that gives it a
weighted share (`applyCanaryWeights`) is not in that tag, and 0.20.0 sends traffic to canaries that are not ready. KEDA
scales Deployments; Knative sets the replicas of its revisions itself, so the two never meet.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from apps.deployments.choices import CanaryMode

if TYPE_CHECKING:
    from apps.clusters.capabilities import Capabilities

#: What moves replicas: nothing (as many as stated, always), or KEDA by a query and by windows.
FIXED, KEDA = "", "keda"
AUTOSCALERS = (FIXED, KEDA)

#: From this version on the webhook rewrites the old words of the deployment mode; before it, only they are known.
NEW_WORDS = (0, 16)
STANDARD_UNPROVEN = (
    "KServe's own spec.canary is not used: in 0.20.0 the canary runs, but gets no share of the traffic by weight, and"
    " what came after it has not been proven on a cluster."
)


def version_of(text: str) -> tuple[int, int] | None:
    """Return major and minor of a KServe version such as "v0.20.0"; None where it names none."""
    match = re.match(r"v?(\d+)\.(\d+)", text)
    return (int(match.group(1)), int(match.group(2))) if match else None


def runs_knative(capabilities: Capabilities) -> bool:
    """Whether the cluster's KServe deploys on Knative by default, so that Knative is there."""
    return (capabilities.kserve.mode or "").lower() in ("knative", "serverless")


def deployment_mode(capabilities: Capabilities, mode: CanaryMode) -> str:
    """Return the value of the annotation `serving.kserve.io/deploymentMode`, in the words of the cluster's version.

    It is always set: Helm's default and the code's differ, and it cannot be changed afterwards.
    """
    version = version_of(capabilities.kserve.version)
    new = version is None or version >= NEW_WORDS
    if mode == CanaryMode.KNATIVE:
        return "Knative" if new else "Serverless"
    return "Standard" if new else "RawDeployment"


def refusal(capabilities: Capabilities, mode: CanaryMode, autoscaler: str, *, canary: bool) -> str | None:
    """Return why an endpoint of `mode` cannot have a release with this autoscaler, beside another if `canary`.

    None where it can. An endpoint keeps its mode: KServe refuses to change it on what exists.
    """
    found, why = mode_for(capabilities, autoscaler)
    if found is None:
        return why
    if mode == CanaryMode.KNATIVE:
        if not runs_knative(capabilities):
            return "This endpoint runs on Knative, which this cluster's KServe no longer uses: create another endpoint."
        if autoscaler != FIXED:
            return (
                "This endpoint runs on Knative, which sets the replicas of its revisions itself: KEDA cannot scale"
                " them. Ask for a fixed number, or create another endpoint."
            )
        return None
    standard, why = _standard(capabilities)
    if mode == CanaryMode.STANDARD:
        return STANDARD_UNPROVEN
    if mode == CanaryMode.ROUTE:
        return None if standard == CanaryMode.ROUTE else why
    return why if canary else None


def mode_for(capabilities: Capabilities, autoscaler: str = FIXED) -> tuple[CanaryMode | None, str]:
    """Return how two releases share traffic there, and in a sentence why.

    None: nothing can be served there as asked. CanaryMode.NONE: it can be served, a canary is refused for the reason
    given. Raises ValueError for an autoscaler that is none of AUTOSCALERS.
    """
    if autoscaler not in AUTOSCALERS:
        raise ValueError(f"unknown autoscaler: {autoscaler!r}")
    kserve = capabilities.kserve
    if not kserve.installed:
        return None, capabilities.reasons.get("kserve") or "KServe was not found on this cluster."
    if "v1beta1" not in kserve.api_versions:
        served = ", ".join(kserve.api_versions) or "nothing"
        return None, f"KServe on this cluster serves {served}; the portal needs v1beta1."
    if autoscaler == KEDA and not capabilities.keda.installed:
        return None, (
            "KEDA was not found on this cluster, so replicas follow no query and no window: ask for a fixed number."
        )
    if runs_knative(capabilities) and autoscaler == FIXED:
        return CanaryMode.KNATIVE, "Knative splits the traffic between revisions (canaryTrafficPercent)."
    return _standard(capabilities)


def _standard(capabilities: Capabilities) -> tuple[CanaryMode, str]:
    kserve = capabilities.kserve
    ignored = "canaryTrafficPercent would be ignored silently in Standard mode."
    if not capabilities.http_routes:
        why = capabilities.reasons.get("http_routes") or "the Gateway API (HTTPRoute v1) is not served here"
        return CanaryMode.NONE, f"No canary on this cluster: {why.rstrip('.')}. {ignored} {STANDARD_UNPROVEN}"
    if not kserve.gateway_api or not kserve.gateway or not kserve.ingress_domain:
        return CanaryMode.NONE, (
            "No canary on this cluster: KServe is not set to use the Gateway API (enableGatewayApi with a gateway and"
            f" a domain in inferenceservice-config), so which gateway takes the traffic is not known. {ignored}"
        )
    return CanaryMode.ROUTE, (
        f"An HTTPRoute of the portal on {kserve.gateway} shares traffic between two InferenceServices by weight."
        f" {STANDARD_UNPROVEN}"
    )
