"""Steps of a cluster check about what is there: nodes, Kueue, KServe, KEDA and the rest."""

from __future__ import annotations

from collections.abc import Iterator

from apps.clusters.capabilities import KUEUE_VERSION, Capabilities
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.clusters.errors import Forbidden
from apps.clusters.inventory import NodeFacts, read_node
from apps.clusters.steps import FAILED, OK, SKIPPED, WARNING, Step, labels, sentence, step, yes


def nodes_step(client: KubernetesClient) -> tuple[list[NodeFacts] | None, Step]:
    """Return the nodes (None where they may not be listed) and the step about them. Raises ClusterError."""
    try:
        nodes = [read_node(node) for node in client.list("Node").items]
    except Forbidden as error:
        return None, step("nodes", FAILED, sentence(error.message), "Let the portal list nodes.")
    found: dict[str, int] = {}
    for node in nodes:
        if node.physical_gpus:
            model = node.gpu_model or "unknown model"
            found[model] = found.get(model, 0) + node.physical_gpus
    if not found:
        return nodes, step(
            "nodes", WARNING, f"{len(nodes)} nodes, none with a GPU that can be counted.",
            "GPUs are counted by the labels of GPU feature discovery (nvidia.com/gpu.product, gpu.count): install"
            " NVIDIA's GPU operator, or set the labels.",
        )  # fmt: skip
    items = [f"{count} × {model}" for model, count in sorted(found.items())]
    troubled = [f"{node.name}: {node.problem}" for node in nodes if getattr(node, "problem", "")]
    if troubled:
        return nodes, step(
            "nodes", WARNING, f"{len(nodes)} nodes; some contradict themselves.", "Correct their labels.",
            items + troubled[:10],
        )  # fmt: skip
    return nodes, step("nodes", OK, f"{len(nodes)} nodes with {sum(found.values())} GPUs.", items=items)


def kueue_step(found: Capabilities, *, used: bool) -> Step:
    """Return the step about Kueue; `used`: the portal uses it there, so that its absence fails."""
    kueue = found.kueue
    if not kueue.installed:
        outcome = FAILED if used else WARNING
        detail = found.reasons.get("kueue", "Not found." if not used else "Not found, though the portal uses it here.")
        return step(
            "kueue",
            outcome,
            detail,
            "Install Kueue 0.16 or newer to let teams borrow: without it nothing takes a borrowed GPU back.",
        )
    if not kueue.usable:
        detail = f"It serves {', '.join(kueue.api_versions)}; the portal needs {KUEUE_VERSION}."
        return step("kueue", FAILED if used else WARNING, detail, "Upgrade Kueue to 0.16 or newer.")
    items = [
        f"Pods of services queue: {yes(kueue.pod_integration)}",
        f"Fair sharing: {yes(kueue.fair_sharing)}",
        f"Namespaces are managed with: {labels(kueue.managed_labels)}",
        f"Positions in queues: {yes(kueue.visibility)}",
        f"Topology: {yes(kueue.topology)}",
    ]
    why = next((text for key, text in found.reasons.items() if key.startswith("kueue.")), "")
    if why:
        advice = "Let the portal read it (see what it needs there), or say yourself how Kueue is to be used."
        return step("kueue", WARNING, f"{', '.join(kueue.api_versions)}. {why}", advice, items)
    return step("kueue", OK, f"{', '.join(kueue.api_versions)}.", items=items)


def kserve_step(found: Capabilities) -> Step:
    """Return the step about KServe."""
    kserve = found.kserve
    if not kserve.installed:
        return optional("kserve", "", found.reasons.get("kserve", "Not found: no models are served there."))
    detail = f"{', '.join(kserve.api_versions)}."
    if kserve.mode is None:
        why = found.reasons.get("kserve.mode", "Its default mode is not set.")
        return step("kserve", WARNING, f"{detail} {why}", "Let the portal read KServe's settings.")
    items = [
        f"Version: {kserve.version or 'not known'}",
        f"Default mode: {kserve.mode}",
        f"Gateway API: {yes(kserve.gateway_api)}",
        f"Models are verified as they load: {yes(kserve.verifying)}",
    ]
    return step("kserve", OK, detail, items=items)


def optional(key: str, found: str, absent: str) -> Step:
    """Return the step about something that need not be there."""
    return step(key, OK if found else SKIPPED, found or absent)


def installed_steps(found: Capabilities, *, kueue_used: bool) -> Iterator[Step]:
    """Return the steps about what is installed."""
    yield kueue_step(found, used=kueue_used)
    yield kserve_step(found)
    keda = f"Found, {', '.join(found.keda.api_versions)}." if found.keda.installed else ""
    yield optional("keda", keda, "Not found: released models scale by hand there.")
    yield optional("metrics", "metrics.k8s.io is served." if found.metrics else "", "metrics.k8s.io is not served.")
    policies = "ValidatingAdmissionPolicy is served." if found.admission_policies else ""
    absent = "Not served (Kubernetes 1.30 or newer): the guard is not offered there."
    yield optional("guard", policies, found.reasons.get("admission_policies", absent))
