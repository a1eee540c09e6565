"""Every state that a release can be in, rendered once, when it is requested: these bytes are what is approved.

A rollout never renders again. It declares the stored objects of the next state, compared with the approved leaves, so a
later version of the portal cannot put anything on a cluster that nobody approved.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings

from apps.clusters import capabilities
from apps.clusters.choices import KueueMode
from apps.clusters.kinds import MANAGED_LABEL
from apps.clusters.models import Cluster, Flavour
from apps.core import clock
from apps.core.canonical import digest_of
from apps.core.errors import Conflict, Invalid
from apps.deployments import manifests, metric_sources, reading
from apps.deployments.choices import CanaryMode
from apps.deployments.models import Release
from apps.deployments.spec import Spec
from apps.provisioning.manifests import check
from apps.provisioning.ordering import Key
from apps.quotas.change import object_path
from apps.quotas.models import Workspace

Manifest = dict[str, Any]
LIVE, STOPPED, SMALLEST = "live", "stopped", "smallest"
#: The name of Kueue's queue in every workspace (quotas room).
_QUEUE = "default"


def canary_state(traffic: int) -> str:
    """Return the name of the state in which a candidate takes so many per cent."""
    return f"canary-{traffic}"


def side_of(release: Release) -> manifests.Side:
    """Return a stored release as it is rendered."""
    return side(
        release.uid, release.number, reading.manifest_of(release.model_version), reading.spec_of(release),
        release.flavour,
    )  # fmt: skip


def side(release_uid: uuid.UUID, number: int, manifest: Any, spec: Spec, flavour: Flavour) -> manifests.Side:
    """Return a release as it is rendered."""
    return manifests.Side(str(release_uid), number, manifest, spec, manifests.FlavourSpec.of(flavour))


def metrics_url(cluster: Cluster) -> str:
    """Return the address of the cluster's Prometheus, as its metering source tells it; "": none is known."""
    found = metric_sources.prometheus_of(cluster, clock.now())
    return found.url if found is not None else ""


def states(
    *,
    name: str,
    endpoint_uid: uuid.UUID,
    workspace: Workspace,
    mode: CanaryMode,
    new: manifests.Side,
    current: manifests.Side | None,
    canary: bool,
) -> dict[str, list[Manifest]]:
    """Return the objects of every state of a release, by the state's name. Raises Invalid for what cannot be rendered.

    "live" (all traffic), "stopped", "smallest" (scaled back), and with a canary "canary-0" and one for each rung.
    """
    asked = manifests.RenderInput(
        name=name,
        namespace=workspace.namespace,
        endpoint_uid=str(endpoint_uid),
        workspace_uid=str(workspace.uid),
        environment=str(workspace.environment),
        capabilities=capabilities.of(workspace.cluster),
        mode=mode,
        current=new,
        queue=_QUEUE if workspace.cluster.kueue_mode == KueueMode.PODS else "",
        logger_url=settings.COMMONS_PREDICTION_SINK_URL,
        metrics_url=metrics_url(workspace.cluster),
        labels={
            MANAGED_LABEL: "true",
            "gpu-commons/team": workspace.team.slug,
        },
    )
    least = max(1, new.spec.min_replicas)
    smallest = dataclasses.replace(new, spec=_fixed(new.spec, least))
    wanted: dict[str, manifests.RenderInput] = {
        LIVE: asked,
        STOPPED: dataclasses.replace(asked, stopped=True),
        SMALLEST: dataclasses.replace(asked, current=smallest),
    }
    if canary and current is not None:
        for traffic in (0, *(rung.traffic for rung in new.spec.ladder)):
            wanted[canary_state(traffic)] = dataclasses.replace(asked, current=current, candidate=new, traffic=traffic)
    try:
        return {state: manifests.render(one) for state, one in wanted.items()}
    except manifests.Unfit as unfit:
        text = str(unfit)
        raise Invalid({"": f"{text[:1].upper()}{text[1:]}."}) from unfit


def _fixed(spec: Spec, replicas: int) -> Spec:
    """Return a spec at so many replicas for good."""
    return dataclasses.replace(
        spec, min_replicas=replicas, max_replicas=replicas, tier="hot", autoscaling=None, schedule=()
    )


def leaves(cluster: str, found: Mapping[str, Sequence[Manifest]]) -> list[dict[str, str]]:
    """Return one leaf per object and state: its path on the cluster, the state, the digest of its bytes."""
    return [
        {"cluster": cluster, "path": f"{object_path(manifest)}@{state}", "digest": digest_of(manifest)}
        for state in sorted(found)
        for manifest in found[state]
    ]


def approved(release: Release, state: str) -> list[Manifest]:
    """Return the stored objects of a release's state, each compared with its approved leaf.

    Raises Conflict where the state was never approved, or an object's bytes are not those that were.
    """
    stored = release.change.get("states", {}).get(state)
    if stored is None:
        raise Conflict(f"Release {release.number} was not approved as “{state}”: request the change.")
    known = {leaf["path"]: leaf["digest"] for leaf in release.change["leaves"]}
    expected = {path for path in known if path.endswith(f"@{state}")}
    found = leaves("", {state: stored})
    if {leaf["path"] for leaf in found} != expected or any(known[leaf["path"]] != leaf["digest"] for leaf in found):
        raise Conflict(f"The stored objects of release {release.number} are not those that were approved.")
    return list(stored)


def keys(found: Sequence[Manifest]) -> set[Key]:
    """Return the objects' keys."""
    return {check(manifest) for manifest in found}
