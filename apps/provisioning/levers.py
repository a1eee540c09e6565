"""How one workload is stopped and started again: one field, under a field manager of its own. Network only, no rows.

Nothing here deletes anything. What is sent names the object's uid, so that nothing is ever created by it (server-side
apply would), and the resourceVersion that was read, so that nobody's change in between is overwritten unseen.

Levers (reference kubernetes.md C1, C2; KEDA, "Pausing autoscaling"): Kueue Workload `spec.active: false`; Job
`spec.suspend: true`; Deployment `spec.replicas: 0`, or where a ScaledObject of KEDA scales it, that one's pause at 0
(a HorizontalPodAutoscaler needs none: it rests by itself while replicas are 0); InferenceService the annotation
`serving.kserve.io/stop`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from apps.clusters import kinds
from apps.clusters.clients.kubernetes import Answer, Listing
from apps.clusters.errors import NotFound, StaleRead

#: The field manager of every stop: what it holds can be told from what was declared, and given back.
MANAGER = "gpu-commons-idle"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
#: Kinds that an order may name.
STOPPABLE = ("Workload", "Job", "Deployment", "InferenceService")
#: How often an object that changes while we look is read again within one attempt.
_READS = 4
#: Controllers whose Jobs stay suspended once they are.
_LET_BE = frozenset({"CronJob"})

JSON = dict[str, Any]
_Path = tuple[str, ...]

_LEVERS: dict[str, tuple[_Path, Any]] = {
    "Workload": (("spec", "active"), False),
    "Job": (("spec", "suspend"), True),
    "Deployment": (("spec", "replicas"), 0),
    "InferenceService": (("metadata", "annotations", "serving.kserve.io/stop"), "true"),
    "ScaledObject": (("metadata", "annotations", "autoscaling.keda.sh/paused-replicas"), "0"),
}
#: What the server fills in where nobody sets the field.
_DEFAULTS: dict[str, Any] = {"Workload": True, "Job": False, "Deployment": 1}


class Client(Protocol):
    """What is needed of `clusters.clients.kubernetes.KubernetesClient`."""

    def get(self, kind: str, name: str, namespace: str = "") -> JSON: ...

    def list(self, kind: str, namespace: str = "") -> Listing: ...

    def apply(self, manifest: Mapping[str, Any], *, force: bool = False, manager: str = "") -> Answer: ...

    def disown(self, obj: Mapping[str, Any], manager: str) -> Answer: ...


class Present:
    """A client that finds nothing of kinds which are known not to be installed on its cluster.

    An API server asks for permission before it says that it does not know a kind: where the portal has no rights on
    what is not there, a list would be 403 instead of 404.
    """

    def __init__(self, client: Client, absent: Collection[str]) -> None:
        self._client, self._absent = client, frozenset(absent)

    def get(self, kind: str, name: str, namespace: str = "") -> JSON:
        """Return one object. Raises NotFound."""
        return self._client.get(kind, name, namespace)

    def list(self, kind: str, namespace: str = "") -> Listing:
        """Return all objects of a kind; none of an absent one."""
        return Listing([], "") if kind in self._absent else self._client.list(kind, namespace)

    def apply(self, manifest: Mapping[str, Any], *, force: bool = False, manager: str = "") -> Answer:
        """Apply as `manager`."""
        return self._client.apply(manifest, force=force, manager=manager)

    def disown(self, obj: Mapping[str, Any], manager: str) -> Answer:
        """Let go of what `manager` holds."""
        return self._client.disown(obj, manager)


class Refusal(Exception):
    """This workload cannot be stopped, for a reason that is meant to be read."""


class Ended(Exception):
    """There is nothing (left) to stop, or to start again; the text says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """The object whose field is set, as found: `before` is what an order remembers of it."""

    kind: str
    namespace: str
    name: str
    uid: str
    resource_version: str = field(compare=False)
    replicas: int | None = None
    obj: JSON = field(default_factory=dict, compare=False, repr=False)

    @property
    def before(self) -> JSON:
        """What undoing needs to know."""
        found: JSON = {"kind": self.kind, "name": self.name, "uid": self.uid}
        if self.replicas is not None:
            found["replicas"] = self.replicas
        return found


def prepare(client: Client, kind: str, namespace: str, name: str, before: Mapping[str, Any]) -> Target:
    """Find the object to set the field of. `before` is what the order holds: what an earlier attempt remembered, and
    the names of priority classes to be left alone (`spare_priorities`).

    Raises Refusal, Ended (gone, finished, or its owner has stopped it) and the client's errors.
    """
    if "kind" in before:
        target = _target(_read(client, str(before["kind"]), namespace, str(before["name"]), str(before["uid"])))
        if is_stopped(target.obj) and is_ours(target.obj):
            return _remembering(target, before)
        if is_stopped(target.obj):
            raise Ended("Its owner had stopped it.")
        return target
    if kind not in STOPPABLE:
        raise Refusal(
            f"The portal cannot stop a {kind} without deleting it, and it deletes nothing. "
            f"It can stop: {', '.join(STOPPABLE)}."
        )
    found = _read(client, kind, namespace, name)
    if (priority := priority_of(found)) in before.get("spare_priorities", ()):
        raise Refusal(f"It runs at priority {priority}, which the approved policy leaves alone.")
    obj = _resolve(client, found)
    if is_stopped(obj):
        raise Ended("Its owner had stopped it.")
    return _target(obj)


def pull(client: Client, target: Target) -> None:
    """Set the field. Raises StaleRead where the object moved on since `prepare`, Refusal where the value does not stay.

    Pulling twice changes nothing.
    """
    if is_stopped(target.obj) and is_ours(target.obj):
        return
    path, value = _LEVERS[target.kind]
    body = _body(target)
    _set(body, path, value)
    answer = client.apply(body, force=True, manager=MANAGER)
    if not is_stopped(answer.object):
        raise Refusal(
            f"The cluster took the request to set {'.'.join(path)} of {target.kind} {target.name}, but an admission "
            "webhook or controller there set it back at once."
        )


def release(client: Client, namespace: str, before: Mapping[str, Any]) -> str:
    """Start it again and give the field back; returns a note where that is not all there is to say.

    A Deployment gets its replicas back; elsewhere the field goes and with it our hold on it. Where the owner has set
    the field meanwhile, only our hold is given up. Raises Ended where the object is gone, and the client's errors.
    """
    for _ in range(_READS):
        target = _target(_read(client, str(before["kind"]), namespace, str(before["name"]), str(before["uid"])))
        try:
            return _released(client, target, before)
        except StaleRead:
            continue
    raise StaleRead("the object keeps changing")


def _released(client: Client, target: Target, before: Mapping[str, Any]) -> str:
    if not is_stopped(target.obj):
        # Started, and the field is ours: a try before this one set it and came no further. An owner who starts it takes
        # the field over.
        ours = is_ours(target.obj)
        if _holds(target.obj):
            client.disown(target.obj, MANAGER)
        return "" if ours else "Its owner had started it already."
    if not is_ours(target.obj):
        return "Its owner has stopped it, so it stays stopped."
    path, _ = _LEVERS[target.kind]
    body = _body(target)
    if target.kind == "Deployment":
        # Letting go of `replicas` would leave the server's default of 1: set first, then let go of what is set.
        _set(body, path, int(before.get("replicas", 1)))
        _let_go(client, client.apply(body, force=True, manager=MANAGER).object)
        return ""
    answer = client.apply(body, manager=MANAGER)
    return "Its owner has stopped it, too, so it stays stopped." if is_stopped(answer.object) else ""


def _let_go(client: Client, obj: JSON) -> None:
    """Give up our hold; its controller may write its status between the two calls, and that is no owner's start."""
    meta = obj["metadata"]
    for _ in range(_READS):
        try:
            client.disown(obj, MANAGER)
            return
        except StaleRead:
            obj = _read(client, str(obj["kind"]), meta["namespace"], meta["name"], meta["uid"])
    raise StaleRead("the object keeps changing")


def look(client: Client, namespace: str, before: Mapping[str, Any]) -> bool:
    """Whether it still is stopped. Raises Ended where it is gone."""
    obj = _read(client, str(before["kind"]), namespace, str(before["name"]), str(before["uid"]))
    return is_stopped(obj)


def is_stopped(obj: Mapping[str, Any]) -> bool:
    """Whether the field that stops this object is set, whoever set it."""
    kind = str(obj.get("kind"))
    path, value = _LEVERS[kind]
    live: Any = obj
    for part in path:
        live = live.get(part) if isinstance(live, Mapping) else None
    return bool((_DEFAULTS.get(kind) if live is None else live) == value)


def is_ours(obj: Mapping[str, Any]) -> bool:
    """Whether the portal holds the field that stops this object (`metadata.managedFields`)."""
    path, _ = _LEVERS[str(obj.get("kind"))]
    for one in obj.get("metadata", {}).get("managedFields") or []:
        if (one.get("manager"), one.get("operation")) != (MANAGER, "Apply"):
            continue
        node: Any = one.get("fieldsV1") or {}
        for part in path:
            node = node.get(f"f:{part}") if isinstance(node, Mapping) else None
        if node is not None:
            return True
    return False


def priority_of(obj: Mapping[str, Any]) -> str:
    """Return the name of the priority class of a workload's pods, or of its place in a queue; "" without one."""
    spec = obj.get("spec") or {}
    pod = (spec.get("template") or {}).get("spec") or spec.get("predictor") or {}
    label = (obj["metadata"].get("labels") or {}).get("kueue.x-k8s.io/priority-class", "")
    return str(pod.get("priorityClassName") or (spec.get("priorityClassRef") or {}).get("name") or label)


def controller(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the owner reference of the controller of an object, {} where none controls it."""
    for owner in obj.get("metadata", {}).get("ownerReferences") or []:
        if owner.get("controller"):
            return dict(owner)
    return {}


def _resolve(client: Client, obj: JSON) -> JSON:
    """Return the object that governs a workload: who starts it again must be the one that is stopped."""
    kind, meta = obj["kind"], obj["metadata"]
    owner = controller(obj)
    if kind == "Job":
        _refuse_ended(obj)
        if (found := _workload_of(client, meta)) is not None:
            return found
        if owner and owner.get("kind") not in _LET_BE:
            raise Refusal(_controlled(obj, owner))
    elif kind == "Deployment":
        if owner.get("kind") == "InferenceService":
            return _read(client, "InferenceService", meta["namespace"], str(owner["name"]))
        if owner:
            raise Refusal(_controlled(obj, owner))
        if (scaler := _scaler_of(client, meta)) is not None:
            return scaler
    elif kind == "Workload":
        _refuse_ended(obj)
        if any(one.get("kind") == "Pod" for one in meta.get("ownerReferences") or []):
            raise Refusal("Kueue stops a bare pod by deleting it, and the portal deletes nothing.")
    return obj


def _refuse_ended(obj: Mapping[str, Any]) -> None:
    for condition in (obj.get("status") or {}).get("conditions") or []:
        if condition.get("type") in ("Complete", "Failed", "Finished") and condition.get("status") == "True":
            raise Ended("It had ended by itself.")


def _controlled(obj: Mapping[str, Any], owner: Mapping[str, Any]) -> str:
    what = f"{obj['kind']} {obj['metadata']['name']}"
    return f"{what} belongs to {owner.get('kind')} {owner.get('name')}, which would start it again. Stop it there."


def _workload_of(client: Client, meta: Mapping[str, Any]) -> JSON | None:
    """Return Kueue's Workload of a Job in a queue: Kueue itself would start a Job again that it has admitted."""
    if QUEUE_LABEL not in (meta.get("labels") or {}):
        return None
    for item in _maybe(client, "Workload", meta["namespace"]):
        if any(owner.get("uid") == meta["uid"] for owner in item["metadata"].get("ownerReferences") or []):
            return item
    return None


def _scaler_of(client: Client, meta: Mapping[str, Any]) -> JSON | None:
    for item in _maybe(client, "ScaledObject", meta["namespace"]):
        ref = (item.get("spec") or {}).get("scaleTargetRef") or {}
        if ref.get("name") == meta["name"] and ref.get("kind", "Deployment") == "Deployment":
            return item
    return None


def _maybe(client: Client, kind: str, namespace: str) -> list[JSON]:
    """Return the objects of a kind that the cluster may not know."""
    try:
        return list(client.list(kind, namespace).items)
    except NotFound:
        return []


def _read(client: Client, kind: str, namespace: str, name: str, uid: str = "") -> JSON:
    try:
        obj = client.get(kind, name, namespace)
    except NotFound as error:
        raise Ended("It is no longer on the cluster.") from error
    obj.setdefault("kind", kind)
    obj.setdefault("apiVersion", kinds.KINDS[kind].api_version)
    if uid and obj["metadata"].get("uid") != uid:
        raise Ended("It is no longer on the cluster; another one has its name.")
    if obj["metadata"].get("deletionTimestamp"):
        raise Ended("It is being deleted.")
    return obj


def _target(obj: JSON) -> Target:
    meta = obj["metadata"]
    replicas = None
    if obj["kind"] == "Deployment":
        replicas = int((obj.get("spec") or {}).get("replicas", _DEFAULTS["Deployment"]))
    return Target(
        obj["kind"], meta.get("namespace", ""), meta["name"], meta["uid"], meta["resourceVersion"], replicas, obj
    )


def _remembering(target: Target, before: Mapping[str, Any]) -> Target:
    """The call of an earlier attempt got through: what it remembered is what undoing restores, not the zero it set."""
    replicas = int(before["replicas"]) if "replicas" in before else None
    return Target(target.kind, target.namespace, target.name, target.uid, target.resource_version, replicas, target.obj)


def _body(target: Target) -> JSON:
    meta: JSON = {"name": target.name, "namespace": target.namespace, "uid": target.uid}
    meta["resourceVersion"] = target.resource_version
    return {"apiVersion": kinds.KINDS[target.kind].api_version, "kind": target.kind, "metadata": meta}


def _set(body: JSON, path: _Path, value: Any) -> None:
    for part in path[:-1]:
        body = body.setdefault(part, {})
    body[path[-1]] = value


def _holds(obj: Mapping[str, Any]) -> bool:
    managers = obj.get("metadata", {}).get("managedFields") or []
    return any((one.get("manager"), one.get("operation")) == (MANAGER, "Apply") for one in managers)
