"""How a release is written down: its words, its events, its frozen change, its canonical bytes."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from apps.approvals.ports import Change
from apps.catalogue.models import ModelVersion
from apps.clusters.models import Flavour
from apps.core.canonical import canonical_bytes
from apps.deployments import events, reading, rendering
from apps.deployments.choices import ReleaseKind, Tier
from apps.deployments.drafting import Assessment
from apps.deployments.models import Endpoint, Release
from apps.deployments.spec import Spec
from apps.provisioning import diff
from apps.quotas.change import object_path
from apps.quotas.recurrence import DAY_NAMES


def describe(release: Release) -> str:
    """Return a release in one line."""
    endpoint = release.endpoint
    spec = reading.spec_of(release)
    size = f"{spec.max_replicas} × {spec.units_per_replica} {release.flavour}"
    verb = {ReleaseKind.CHANGE: "Change", ReleaseKind.ROLL_BACK: "Go back to"}.get(ReleaseKind(release.kind), "Deploy")
    return f"{verb} {release.model_version} on {endpoint.name} in {endpoint.workspace.namespace}: {size}"


def event_of(release: Release, detail: str = "") -> events.ReleaseEvent:
    """Return the payload of an event about a release."""
    workspace = release.endpoint.workspace
    return events.ReleaseEvent(
        release_uid=release.uid,
        endpoint_uid=release.endpoint.uid,
        workspace_uid=workspace.uid,
        cluster=workspace.cluster.slug,
        version_digest=release.version_digest,
        what=describe(release),
        number=release.number,
        detail=detail,
    )


def before_of(endpoint: Endpoint) -> dict[str, Any] | None:
    """Return the release that is live now as it is frozen with the one that follows; None: none is."""
    current = endpoint.current
    if current is None:
        return None
    return {
        "release": str(current.uid),
        "number": current.number,
        "version": str(current.model_version.uid),
        "label": str(current.model_version),
        "digest": current.version_digest,
        "flavour": current.flavour.slug,
        "spec": current.spec,
        "stopped": endpoint.stopped_at is not None,
    }


def change_of(assessment: Assessment, endpoint: Endpoint, release_uid: uuid.UUID, number: int) -> dict[str, Any]:
    """Return the frozen change: before, every state's objects with their leaves, placement, room, mode, terms.

    Raises Invalid for what cannot be rendered.
    """
    draft = assessment.draft
    current = endpoint.current if assessment.canary else None
    if assessment.mode is None:
        raise RuntimeError("a draft with problems is not frozen")
    states = rendering.states(
        name=draft.name,
        endpoint_uid=endpoint.uid,
        workspace=draft.workspace,
        mode=assessment.mode,
        new=rendering.side(release_uid, number, assessment.manifest, draft.spec, draft.flavour),
        current=rendering.side_of(current) if current is not None else None,
        canary=assessment.canary,
    )
    return {
        "before": before_of(endpoint),
        "leaves": rendering.leaves(draft.workspace.cluster.slug, states),
        "states": states,
        "placement": assessment.placement.plain(),
        "feasibility": assessment.fit.plain(),
        "mode": str(assessment.mode),
        "mode_reason": assessment.mode_reason,
        "canary": assessment.canary,
        "terms": dict(sorted(assessment.terms.items())),
        "name_bound": assessment.name_bound,
        "emergency": draft.emergency,
        "start_seconds": assessment.start_seconds,
    }


def canonical(release: Release) -> bytes:
    """Return the bytes that people approve (invariant 3).

    The version by its manifest's digest, the wish, the estimate and its rates, and every object by its leaf: the stored
    objects themselves are compared with the leaves whenever they are used.
    """
    endpoint = release.endpoint
    workspace = endpoint.workspace
    return canonical_bytes(
        {
            "subject": "deployments.release",
            "release": {
                "uid": release.uid,
                "number": release.number,
                "kind": str(release.kind),
                "endpoint": endpoint.uid,
                "name": endpoint.name,
                "workspace": workspace.uid,
                "cluster": workspace.cluster.slug,
                "namespace": workspace.namespace,
                "environment": str(workspace.environment),
                "manifest": release.version_digest,
                "flavour": release.flavour.slug,
                "tier": str(release.tier),
                "spec": release.spec,
            },
            "estimate": release.estimate,
            "change": {key: value for key, value in release.change.items() if key != "states"},
        }
    )


def spec_lines(version: ModelVersion | str, flavour: Flavour | str, spec: Spec) -> dict[str, str]:
    """Return a release's wish line by line, in words, so that two can be laid beside each other."""
    scaling = spec.autoscaling
    guard = spec.guard
    watched = [
        f"errors above {guard.error_rate * 100:f} %".replace(".0 %", " %") if guard.error_rate is not None else "",
        f"p95 above {guard.latency_p95_ms:,} ms" if guard.latency_p95_ms is not None else "",
    ]
    return {
        "version": str(version),
        "flavour": str(flavour),
        "replicas": f"{spec.min_replicas:,} to {spec.max_replicas:,}",
        "units a replica": f"{spec.units_per_replica:,}",
        "CPU a replica": f"{spec.cpu:,} cores",
        "memory a replica": f"{spec.memory_gib:,} GiB",
        "tier": str(Tier(spec.tier).label),
        "scales by": "nothing" if scaling is None else f"{scaling.metric}, {scaling.threshold:,} a replica",
        "query": scaling.query if scaling is not None else "",
        "up and down": f"{scaling.up_seconds} s and {scaling.down_seconds} s" if scaling is not None else "",
        "windows": "; ".join(window_words(spec, index) for index in range(len(spec.schedule))),
        "canary ladder": ", ".join(f"{rung.traffic} % for {rung.hours} h" for rung in spec.ladder) or "none",
        "rolls back on": " or ".join(word for word in watched if word) or "a failed load only",
        "prediction records": "on" if spec.logger else "off",
        "explainer": "on" if spec.explainer else "off",
        "when its approval ends": spec.expiry_action.replace("_", " "),
    }


def window_words(spec: Spec, index: int) -> str:
    """Return one window of a schedule in words."""
    window = spec.schedule[index]
    days = ", ".join(DAY_NAMES[day][:3] for day in window.days)
    return f"{days} {window.start} UTC for {window.minutes} min: {window.replicas} replicas"


def diff_of(release: Release) -> list[Change]:
    """Return the exact change: the wish line by line against what is live, then every object that changes."""
    cluster = release.endpoint.workspace.cluster.slug
    before = release.change.get("before")
    after = spec_lines(release.model_version, release.flavour, reading.spec_of(release))
    was: Mapping[str, str] = {}
    if before is not None:
        flavour = Flavour.objects.filter(slug=before["flavour"]).first()
        was = spec_lines(before["label"], flavour or before["flavour"], Spec.from_json(before["spec"]))
    name = f"Endpoint {release.endpoint.name}"
    found = [
        Change(cluster, name, key, was.get(key, ""), value, "")
        for key, value in after.items()
        if was.get(key, "") != value and (value or was.get(key))
    ]
    return [*found, *_object_lines(release, cluster)]


def _object_lines(release: Release, cluster: str) -> list[Change]:
    live: Sequence[Mapping[str, Any]] = release.change["states"].get(rendering.LIVE, [])
    old: Sequence[Mapping[str, Any]] = []
    before = release.change.get("before")
    if before is not None:
        earlier = Release.objects.filter(uid=before["release"]).first()
        old = earlier.change.get("states", {}).get(rendering.LIVE, []) if earlier is not None else []
    was = {object_path(dict(one)): one for one in old}
    then = {object_path(dict(one)): one for one in live}
    found = []
    for path in sorted(was.keys() | then.keys()):
        if path not in was:
            found.append(Change(cluster, path, "", "", "created", ""))
        elif path not in then:
            found.append(Change(cluster, path, "", "removed", "", "once it takes all traffic"))
        else:
            found += [
                Change(
                    cluster, path, diff.render_path(one.path), diff.show(one.before) or "", diff.show(one.after) or ""
                )
                for one in diff.changes(was[path], then[path])
            ]
    return found
