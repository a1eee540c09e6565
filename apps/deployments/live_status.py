"""What a cluster's objects say of an endpoint, condensed: pure. Facts: KServe 0.20, KEDA 2.20, Gateway API v1.

A status that speaks of an earlier specification (`observedGeneration` behind `generation`) is no news about this one:
it is kept as *pending*, or a canary would be taken for loaded because the release before it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apps.deployments.choices import LoadState

Object = Mapping[str, Any]
SERVICE, SCALER, ROUTE = "InferenceService", "ScaledObject", "HTTPRoute"
KINDS = frozenset({SERVICE, SCALER, ROUTE})
ENDPOINT_LABEL, RELEASE_LABEL = "gpu-commons/endpoint", "gpu-commons/release"
#: Texts from a cluster are kept to this length.
LONGEST = 500


@dataclass(frozen=True, slots=True)
class Share:
    """One line of traffic: a revision or service, and its per cent."""

    name: str
    percent: int


def condense(obj: Object) -> dict[str, Any]:
    """Return what pages and the guard need of one object (JSON). Raises KeyError for a kind outside KINDS."""
    return {SERVICE: _service, SCALER: _scaler, ROUTE: _route}[str(obj.get("kind"))](obj)


def labels_of(obj: Object) -> dict[str, str]:
    """Return an object's labels."""
    return {str(key): str(text) for key, text in ((obj.get("metadata") or {}).get("labels") or {}).items()}


def conditions(obj: Object) -> dict[str, dict[str, str]]:
    """Return conditions by type, with status, reason, message and since."""
    found = {}
    for each in (obj.get("status") or {}).get("conditions") or []:
        if isinstance(each, Mapping) and each.get("type"):
            found[str(each["type"])] = {
                "status": _text(each.get("status")),
                "reason": _text(each.get("reason")),
                "message": _text(each.get("message")),
                "since": _text(each.get("lastTransitionTime")),
            }
    return found


def _text(value: Any) -> str:
    return str(value or "")[:LONGEST]


def current(obj: Object) -> bool:
    """Whether the status speaks of the specification that stands."""
    generation = (obj.get("metadata") or {}).get("generation")
    observed = (obj.get("status") or {}).get("observedGeneration")
    if not isinstance(generation, int) or not isinstance(observed, int):
        return bool(obj.get("status"))
    return observed >= generation


def _service(obj: Object) -> dict[str, Any]:
    status, rows = obj.get("status") or {}, conditions(obj)
    model = status.get("modelStatus") or {}
    states = model.get("states") or {}
    component = (status.get("components") or {}).get("predictor") or {}
    failure = model.get("lastFailureInfo") or {}
    trouble = next(
        (row for name, row in sorted(rows.items()) if name != "Ready" and row["status"] == "False" and row["message"]),
        None,
    )
    return {
        "kind": SERVICE,
        "release": labels_of(obj).get(RELEASE_LABEL, ""),
        "current": current(obj),
        "mode": _text(status.get("deploymentMode")),
        "ready": rows.get("Ready", {}).get("status") == "True",
        "stopped": rows.get("Stopped", {}).get("status") == "True",
        "trouble": trouble["message"] if trouble is not None else "",
        "transition": _text(model.get("transitionStatus")),
        "active": _text(states.get("activeModelState")),
        "target": _text(states.get("targetModelState")),
        "failure": {key: _text(failure.get(key)) for key in ("reason", "message", "time")} if failure else {},
        "copies": _count((model.get("copies") or {}).get("totalCopies")),
        "url": _text(status.get("url")),
        "latest": _text(component.get("latestCreatedRevision")),
        "rolled_out": _text(component.get("latestRolledoutRevision")),
        "traffic": [
            {"name": _text(each.get("revisionName")), "percent": _count(each.get("percent")) or 0}
            for each in component.get("traffic") or []
            if isinstance(each, Mapping)
        ],
    }


def _scaler(obj: Object) -> dict[str, Any]:
    rows = conditions(obj)
    truths = {name.lower(): row["status"] == "True" for name, row in rows.items()}
    said = next((row["message"] for name, row in rows.items() if name in ("Ready", "Fallback") and row["message"]), "")
    return {
        "kind": SCALER,
        "current": True,
        "ready": truths.get("ready", False),
        "active": truths.get("active", False),
        "fallback": truths.get("fallback", False),
        "paused": truths.get("paused", False),
        "trouble": said if truths.get("fallback") or not truths.get("ready", True) else "",
    }


def _route(obj: Object) -> dict[str, Any]:
    spec = obj.get("spec") or {}
    rules = spec.get("rules") or [{}]
    backends = rules[-1].get("backendRefs") or []
    total = sum(int(each.get("weight", 1)) for each in backends)
    parents = (obj.get("status") or {}).get("parents") or []
    rows = [conditions({"status": parent}) for parent in parents]
    trouble = next(
        (f"{name}: {row['message'] or row['reason']}" for each in rows for name, row in sorted(each.items())
         if row["status"] == "False"),
        "",
    )  # fmt: skip
    accepted = bool(rows) and all(each.get("Accepted", {}).get("status") == "True" for each in rows)
    return {
        "kind": ROUTE,
        "current": True,
        "ready": accepted and not trouble,
        "trouble": trouble,
        "host": _text(next(iter(spec.get("hostnames") or []), "")),
        "traffic": [
            {
                "name": _text(each.get("name")),
                "percent": round(int(each.get("weight", 1)) * 100 / total) if total else 0,
            }
            for each in backends
        ],
    }


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def load_state(service: Mapping[str, Any]) -> LoadState:
    """Return the state of the release that a condensed InferenceService is about: the one it bears the label of."""
    if not service.get("current"):
        return LoadState.PENDING
    if service["stopped"]:
        return LoadState.STOPPED
    if service["transition"] in ("BlockedByFailedLoad", "InvalidSpec") or service["target"] == "FailedToLoad":
        return LoadState.FAILED
    if service["transition"] == "UpToDate" and service["target"] in ("Loaded", "Standby"):
        return LoadState.LOADED if service["ready"] else LoadState.PENDING
    return LoadState.LOADING if service["target"] == "Loading" else LoadState.PENDING


def earlier_state(service: Mapping[str, Any]) -> LoadState:
    """Return the state of the release before it on the same InferenceService: Knative keeps its revision serving."""
    if service.get("stopped"):
        return LoadState.STOPPED
    held = {each["name"] for each in service.get("traffic") or [] if each["percent"]}
    return LoadState.LOADED if held - {service.get("latest")} else LoadState.UNKNOWN


def shares(objects: Sequence[Mapping[str, Any]]) -> list[Share]:
    """Return how traffic is split, as the cluster says: the route's weights, else Knative's revisions."""
    for kind in (ROUTE, SERVICE):
        for each in objects:
            if each.get("kind") == kind and each.get("traffic"):
                return [Share(row["name"], row["percent"]) for row in each["traffic"]]
    return []


def address(objects: Sequence[Mapping[str, Any]]) -> str:
    """Return the address that clients call: the accepted route's host, else what KServe says."""
    for each in objects:
        if each.get("kind") == ROUTE:
            return f"http://{each['host']}" if each.get("host") and each.get("ready") else ""
    return next((str(each["url"]) for each in objects if each.get("kind") == SERVICE and each.get("url")), "")


def copies(objects: Sequence[Mapping[str, Any]]) -> int | None:
    """Return ready replicas over all services; None where one does not tell."""
    counts = [each.get("copies") for each in objects if each.get("kind") == SERVICE]
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None
