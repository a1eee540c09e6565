"""Workloads and what they stand for: a Job or a Pod, its requests, its conditions, starting and stopping it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from apps.demo.cluster.admission import with_limit_defaults
from apps.demo.cluster.apply import clone
from apps.demo.cluster.errors import Obj
from apps.demo.cluster.kinds import JOB, POD, PRIORITY_CLASS, WORKLOAD_PRIORITY
from apps.demo.cluster.kueue.options import GATE, PRIORITY_LABEL, QUEUE_LABEL
from apps.demo.cluster.kueue.quota import Key
from apps.demo.cluster.kueue.rules import has_condition
from apps.demo.cluster.quantity import parse, render
from apps.demo.cluster.scheduler import matches_term, tolerates
from apps.demo.cluster.store import Entry, Store
from apps.demo.cluster.usage import is_terminal, pod_resources


@dataclass
class Unit:
    """A Workload during one round: `obj` is changed, `entry` is what is stored."""

    entry: Entry
    obj: Obj
    owner: Entry | None
    queue: str = ""
    """Name of the ClusterQueue, empty where its LocalQueue does not exist."""
    events: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def uid(self) -> str:
        """The Workload's own uid."""
        return str(self.obj["metadata"]["uid"])

    def true(self, kind: str) -> bool:
        """Whether a condition is True."""
        return has_condition(self.obj, kind)

    @property
    def live(self) -> bool:
        """Holds quota, also while it is being evicted."""
        return self.true("QuotaReserved")

    @property
    def usage(self) -> dict[Key, int]:
        """What it holds, in thousandths, by flavour and resource."""
        out: dict[Key, int] = {}
        admission = (self.obj.get("status") or {}).get("admission") or {}
        for part in admission.get("podSetAssignments") or []:
            for resource, flavor in (part.get("flavors") or {}).items():
                amount = thousandths((part.get("resourceUsage") or {}).get(resource, "0"))
                out[(flavor, resource)] = out.get((flavor, resource), 0) + amount
        return out

    def set(self, kind: str, truth: bool, reason: str, message: str, now: str) -> bool:
        """Set a condition. Returns whether anything is new; the time moves only with the status."""
        conditions = self.obj.setdefault("status", {}).setdefault("conditions", [])
        return put_condition(conditions, kind, truth, reason, message, now, self.obj["metadata"].get("generation", 1))


def put_condition(
    conditions: list[Obj], kind: str, truth: bool, reason: str, message: str, now: str, generation: int = 0
) -> bool:
    """Set one condition of a list in place. Returns whether anything is new."""
    status = "True" if truth else "False"
    known = next((each for each in conditions if each["type"] == kind), None)
    fresh: Obj = {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now}
    if generation:
        fresh["observedGeneration"] = generation
    if known is None:
        conditions.append(fresh)
        return True
    if known["status"] == status:
        fresh["lastTransitionTime"] = known["lastTransitionTime"]
    if fresh == known:
        return False
    known.clear()
    known.update(fresh)
    return True


def thousandths(amount: Any) -> int:
    """A quantity in whole thousandths of its unit, rounded up."""
    scaled = parse(amount) * 1000
    return int(scaled) if scaled == scaled.to_integral_value() else int(scaled) + 1


def quantity(resource: str, amount: int) -> str:
    """Thousandths as the quantity that Kueue shows."""
    return render(Decimal(amount) / 1000, "binary" if "memory" in resource or "storage" in resource else "decimal")


def pod_template(owner: Entry) -> tuple[Obj, int]:
    """Template and number of pods of a Job or Pod."""
    if owner.kind is JOB:
        template = clone(owner.obj["spec"]["template"])
        return template, int(owner.obj["spec"].get("parallelism", 1))
    spec = {name: value for name, value in clone(owner.obj["spec"]).items() if name != "nodeName"}
    spec["schedulingGates"] = [each for each in spec.get("schedulingGates") or [] if each.get("name") != GATE]
    if not spec["schedulingGates"]:
        del spec["schedulingGates"]
    meta = {name: clone(owner.obj["metadata"].get(name) or {}) for name in ("labels", "annotations")}
    return {"metadata": {name: value for name, value in meta.items() if value}, "spec": spec}, 1


def workload_name(owner: Entry) -> str:
    """`job-<name>-<hash>`, at most 63 characters, the same for the same owner."""
    uid, group = owner.obj["metadata"]["uid"], owner.kind.group
    text = "\n".join((owner.kind.kind, group, owner.name, uid))
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:5]
    return f"{owner.kind.kind.lower()}-{owner.name}"[:57] + f"-{digest}"


def new_workload(store: Store, owner: Entry) -> Obj:
    """The Workload object of a Job or Pod."""
    meta = owner.obj["metadata"]
    template, count = pod_template(owner)
    spec: Obj = {
        "active": True,
        "podSets": [{"name": "main", "count": count, "template": template}],
        "queueName": (meta.get("labels") or {}).get(QUEUE_LABEL, ""),
        **priority_of(store, meta.get("labels") or {}, template),
    }
    reference = {
        "apiVersion": owner.kind.api_version,
        "kind": owner.kind.kind,
        "name": owner.name,
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    labels = {"kueue.x-k8s.io/job-uid": meta["uid"]}
    names = {"name": workload_name(owner), "namespace": owner.namespace}
    return {"metadata": {**names, "labels": labels, "ownerReferences": [reference]}, "spec": spec}


def priority_of(store: Store, labels: Obj, template: Obj) -> Obj:
    """Priority of a workload: by its own class, else by the pods' class, else by the cluster's default class."""
    named = labels.get(PRIORITY_LABEL)
    found = store.get(WORKLOAD_PRIORITY, "", named) if named else None
    if found is not None:
        reference = {"group": WORKLOAD_PRIORITY.group, "kind": WORKLOAD_PRIORITY.kind, "name": found.name}
        return {"priority": int(found.obj.get("value", 0)), "priorityClassRef": reference}
    classes = {entry.name: entry for entry in store.entries(PRIORITY_CLASS)}
    wanted = (template.get("spec") or {}).get("priorityClassName", "")
    chosen = classes.get(wanted) or next((each for each in classes.values() if each.obj.get("globalDefault")), None)
    if chosen is None:
        return {"priority": 0}
    reference = {"group": PRIORITY_CLASS.group, "kind": PRIORITY_CLASS.kind, "name": chosen.name}
    return {"priority": int(chosen.obj.get("value", 0)), "priorityClassRef": reference}


def requests(workload: Obj, store: Store | None = None) -> dict[str, int]:
    """What all pod sets ask for together, in thousandths; `pods` is their number.

    With a `store` defaults of LimitRanges count, which the workload itself does not show.
    """
    total: dict[str, int] = {"pods": 0}
    namespace = str((workload.get("metadata") or {}).get("namespace", ""))
    for pod_set in workload["spec"].get("podSets") or []:
        count = int(pod_set.get("count", 1))
        total["pods"] += count * 1000
        spec = (pod_set.get("template") or {}).get("spec") or {}
        spec = spec if store is None else with_limit_defaults(store, namespace, spec)
        for name, amount in pod_resources(spec, "requests").items():
            total[name] = total.get(name, 0) + int(amount * 1000) * count
    return total


def unsuitable(workload: Obj, flavors: dict[str, Obj], *, placed: bool = False) -> list[tuple[str, str]]:
    """Flavours whose nodes the pods do not tolerate or do not select, each with Kueue's sentence.

    A flavour with a topology takes only pods that ask for a placement, unless all of the queue's flavours have one
    (`placed`).
    """
    out = []
    for name, flavor in flavors.items():
        spec = flavor.get("spec") or {}
        labels, keys = spec.get("nodeLabels") or {}, set(spec.get("nodeLabels") or {})
        for pod_set in workload["spec"].get("podSets") or []:
            pod = (pod_set.get("template") or {}).get("spec") or {}
            if spec.get("topologyName") and not placed and not _asks_for_placement(pod_set):
                out.append((name, f'Flavor "{name}" supports only TopologyAwareScheduling'))
                break
            tolerations = [*(pod.get("tolerations") or []), *(spec.get("tolerations") or [])]
            hard = [t for t in spec.get("nodeTaints") or [] if t.get("effect") in ("NoSchedule", "NoExecute")]
            taint = next((each for each in hard if not tolerates(tolerations, each)), None)
            if taint is not None:
                text = f"{{{taint.get('key')} {taint.get('value', '')} {taint.get('effect')} <nil>}}"
                out.append((name, f"untolerated taint {text} in flavor {name}"))
                break
            if not _selects(pod, labels, keys):
                out.append((name, f"flavor {name} doesn't match node affinity"))
                break
    return out


def _asks_for_placement(pod_set: Obj) -> bool:
    notes = ((pod_set.get("template") or {}).get("metadata") or {}).get("annotations") or {}
    return any(name.startswith("kueue.x-k8s.io/podset-") and name.endswith("-topology") for name in notes)


def _selects(pod: Obj, labels: Obj, keys: set[str]) -> bool:
    """Selector and required affinity, as far as they speak of the flavour's own labels."""
    selector = pod.get("nodeSelector") or {}
    if any(labels[key] != value for key, value in selector.items() if key in keys):
        return False
    affinity = ((pod.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    ) or {}
    terms = []
    for term in affinity.get("nodeSelectorTerms") or []:
        own = [each for each in term.get("matchExpressions") or [] if each.get("key") in keys]
        if not own:
            return True
        terms.append(own)
    return not terms or any(all(matches_term(each, labels) for each in own) for own in terms)


def is_over(owner: Entry) -> str:
    """How a Job or Pod ended: `Succeeded`, `Failed` or empty."""
    status = owner.obj.get("status") or {}
    if owner.kind is POD:
        return str(status.get("phase")) if is_terminal(owner.obj) else ""
    for each in status.get("conditions") or []:
        if each["type"] in ("Complete", "Failed") and each["status"] == "True":
            return "Succeeded" if each["type"] == "Complete" else "Failed"
    return ""


def has_pods(owner: Entry | None) -> bool:
    """Whether pods of an evicted owner are still there."""
    if owner is None:
        return False
    return owner.kind is POD or bool((owner.obj.get("status") or {}).get("active"))


def started(owner: Entry, flavors: list[Obj]) -> Obj | None:
    """The Job resumed, or the Pod without its gate, on the nodes of its flavours. None where it runs already."""
    obj: Obj = clone(owner.obj)
    spec = obj["spec"]
    if owner.kind is JOB:
        if not spec.get("suspend"):
            return None
        spec["suspend"] = False
        (obj.get("status") or {}).pop("startTime", None)
        pod = spec["template"]["spec"]
    else:
        gates = spec.get("schedulingGates") or []
        if not any(each.get("name") == GATE for each in gates):
            return None
        spec["schedulingGates"] = [each for each in gates if each.get("name") != GATE]
        if not spec["schedulingGates"]:
            del spec["schedulingGates"]
        pod = spec
    labels: Obj = {}
    for flavor in flavors:
        labels |= (flavor.get("spec") or {}).get("nodeLabels") or {}
        for toleration in (flavor.get("spec") or {}).get("tolerations") or []:
            if toleration not in pod.setdefault("tolerations", []):
                pod["tolerations"].append(clone(toleration))
    if labels:
        pod["nodeSelector"] = {**(pod.get("nodeSelector") or {}), **labels}
    return obj


def stopped(owner: Entry, workload: Obj) -> Obj | None:
    """The Job suspended, its pod template as it was before admission. None where nothing is to do."""
    if owner.kind is not JOB or owner.obj["spec"].get("suspend"):
        return None
    obj: Obj = clone(owner.obj)
    obj["spec"]["suspend"] = True
    (obj.get("status") or {}).pop("startTime", None)
    template = workload["spec"]["podSets"][0].get("template") or {}
    pod, before = obj["spec"]["template"]["spec"], template.get("spec") or {}
    for name in ("nodeSelector", "tolerations"):
        if name in before:
            pod[name] = clone(before[name])
        else:
            pod.pop(name, None)
    return obj


def born(entry: Entry) -> float:
    """Seconds since the epoch of an object's creation."""
    return datetime.fromisoformat(entry.obj["metadata"]["creationTimestamp"]).timestamp()
