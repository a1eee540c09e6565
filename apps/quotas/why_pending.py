"""Why does it not start? Messages of quota, scheduler and kubelet in plain words. Pure: text in, explanation out.

Wire formats: messages of Kubernetes 1.29 … 1.37 (ResourceQuota admission, kube-scheduler's FitError, kubelet events).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from apps.provisioning.queue_reading import without_others
from apps.quotas import waiting_reasons

_QUOTA = re.compile(
    r"exceeded quota: (?P<quota>[^,]+), requested: (?P<asked>.*?), used: (?P<used>.*?), limited: (?P<limit>[^\n]*)"
)
_UNAVAILABLE = re.compile(
    r"(?P<ready>\d+)/(?P<all>\d+) nodes are available(?:: (?P<reasons>.*?))?\.?(?: preemption:.*)?$", re.S
)
_REASON = re.compile(r"^(?P<count>\d+) (?P<text>.+)$")
_FAILED_QUOTA = re.compile(r"failed quota: (?P<quota>[^:]+): must specify (?P<what>[^\n]*)")
_POD_SECURITY = re.compile(r'violates PodSecurity "(?P<level>[^"]+)": (?P<what>[^\n]*)')
_PVC_MISSING = re.compile(r'persistentvolumeclaim "(?P<name>[^"]+)" not found')
_PRIORITY = re.compile(r"no PriorityClass with name (?P<name>\S+) was found")
_IMAGE = re.compile(r"(ErrImagePull|ImagePullBackOff|Failed to pull image|Back-off pulling image|InvalidImageName)")
_LIMIT_RANGE = re.compile(r"(?:maximum|minimum) (?P<what>\S+) usage per (?P<kind>\w+) is (?P<limit>\S+)")


@dataclass(frozen=True, slots=True)
class Explanation:
    """What holds something up, in a sentence, and what to do about it. `kind` sorts it; `message` is the original."""

    kind: str
    summary: str
    advice: str
    message: str


def _pairs(text: str) -> dict[str, str]:
    found = {}
    for part in text.split(","):
        key, _, value = part.strip().partition("=")
        if value:
            found[key] = value.strip()
    return found


def _resource(key: str) -> str:
    """Return a quota key as people say it."""
    name = key.removeprefix("requests.").removeprefix("limits.")
    if "/" in name and not key.startswith("count/"):
        return f"{name}"
    return {"pods": "pods", "cpu": "CPU cores", "memory": "memory", "storage": "storage"}.get(name, key)


def _quota(message: str) -> Explanation | None:
    match = _QUOTA.search(message)
    if match is None:
        return None
    asked, used, limits = _pairs(match["asked"]), _pairs(match["used"]), _pairs(match["limit"])
    lines, kind = [], "quota"
    for key, value in asked.items():
        has, limit = used.get(key, "?"), limits.get(key, "?")
        lines.append(f"it asks for {value} {_resource(key)}, {has} of {limit} are in use")
        if limit.isdecimal() and value.isdecimal() and int(value) > int(limit):
            kind = "quota_never"
    summary = "The workspace's quota is full: " + "; ".join(lines) + "."
    if kind == "quota_never":
        summary = "This can never start here: " + "; ".join(lines) + ", which is less than it asks for."
        return Explanation(kind, summary, "Ask for less, or request more quota.", message)
    advice = "It starts by itself once something of the workspace ends. To run both at once, request more quota."
    return Explanation(kind, summary, advice, message)


_NODE_REASONS: Sequence[tuple[re.Pattern[str], str, str]] = (
    (
        re.compile(r"Insufficient (?P<what>\S+/\S+)"),
        "no free {what} left",
        "The quota allows it, but no GPU is free on the nodes just now. It starts once one is given back; "
        "a workload that borrows GPUs may hold it.",
    ),
    (
        re.compile(r"Insufficient (?P<what>\S+)"),
        "too little free {what}",
        "GPUs may be free, but not the {what} beside them. Ask for less {what} per GPU.",
    ),
    (
        re.compile(r"untolerated taint \{(?P<what>[^}]*)\}|had taint \{(?P<what2>[^}]*)\}"),
        "reserved by a taint ({what}) that the workload does not tolerate",
        "Add the toleration of your flavour: the ready-made manifests have it.",
    ),
    (
        re.compile(
            r"didn't match Pod's node affinity/selector|didn't match node selector|didn't match Pod's node affinity"
        ),
        "of another kind than the node selector asks for",
        "Use the node selector of your flavour: the ready-made manifests have it.",
    ),
    (
        re.compile(r"were unschedulable"),
        "closed for new work by the platform admins",
        "Nothing to do: they come back after maintenance.",
    ),
    (
        re.compile(r"volume node affinity conflict"),
        "away from where the volume is",
        "The volume lives in another zone than the free GPUs. Use a volume in their zone.",
    ),
    (re.compile(r"Too many pods"), "full of pods", "Nothing to do: it starts once a pod ends."),
    (
        re.compile(r"didn't match pod (?:anti-)?affinity rules|didn't satisfy existing pods anti-affinity"),
        "ruled out by pod (anti-)affinity",
        "Relax the affinity rules of the workload.",
    ),
    (
        re.compile(r"had (?P<what>disk|memory|pid) pressure|not ready|unreachable"),
        "not healthy",
        "The platform admins see these nodes as unhealthy; it starts elsewhere once there is room.",
    ),
)


def _scheduler(message: str) -> Explanation | None:
    if "unbound immediate PersistentVolumeClaims" in message:
        return Explanation(
            "volume",
            "A volume that it uses is not ready yet.",
            "Look at the PersistentVolumeClaim: its storage class may not exist, or the storage quota is full.",
            message,
        )
    match = _UNAVAILABLE.search(message)
    if match is None:
        return None
    total = int(match["all"])
    if total == 0:
        return Explanation(
            "nodes", "The cluster has no nodes to offer just now.", "The platform admins have to act.", message
        )
    words, advice = [], []
    for part in (match["reasons"] or "").split(", "):
        counted = _REASON.match(part.strip().rstrip("."))
        if counted is None:
            continue
        for pattern, text, what_to_do in _NODE_REASONS:
            hit = pattern.search(counted["text"])
            if hit:
                what = next((value for value in hit.groupdict().values() if value), "")
                words.append(f"{counted['count']} {text.format(what=what)}")
                advice.append(what_to_do.format(what=what))
                break
        else:
            words.append(f"{counted['count']}: {counted['text']}")
    summary = f"None of the {total} nodes can take it now"
    summary += f": {', '.join(words)}." if words else "."
    # What helps most is about the nodes of the right kind: a shortage there beats a mismatch elsewhere.
    best = next((text for text in advice if "no GPU is free" in text or "GPUs may be free" in text), "")
    return Explanation(
        "nodes", summary, best or (advice[0] if advice else "Wait, or ask the platform admins."), message
    )


def _queue(message: str) -> Explanation | None:
    found = waiting_reasons.explain(message)
    return None if found is None else Explanation(found.kind, found.summary, found.advice, message)


def explain(message: str) -> Explanation:
    """Return what a message of quota, queue, scheduler or kubelet means. An unknown one is shown as it is."""
    text = message.strip()
    for reader in (_quota, _queue, _scheduler):
        if (found := reader(text)) is not None:
            return found
    if match := _FAILED_QUOTA.search(text):
        return Explanation(
            "unstated",
            f"It does not say how much it needs of {match['what']}, which the quota counts.",
            "State requests and limits for every container: the ready-made manifests do.",
            text,
        )
    if match := _POD_SECURITY.search(text):
        return Explanation(
            "security",
            f"Its pods ask for more rights than this workspace allows ({match['level']}): {match['what']}.",
            "Set the security context as in the ready-made manifests.",
            text,
        )
    if match := _LIMIT_RANGE.search(text):
        return Explanation(
            "limit",
            f"One {match['kind'].lower()} may use at most {match['limit']} {match['what']} here.",
            "Ask for less.",
            text,
        )
    if match := _PVC_MISSING.search(text):
        return Explanation(
            "volume",
            f"The volume claim “{match['name']}” does not exist.",
            "Create it first, or correct its name.",
            text,
        )
    if match := _PRIORITY.search(text):
        return Explanation(
            "priority",
            f"The priority class “{match['name']}” does not exist here.",
            "Leave it out or correct its name.",
            text,
        )
    if _IMAGE.search(text):
        return Explanation(
            "image",
            "The container image cannot be pulled.",
            "Check the image's name and tag, and that this workspace has the registry's pull secret.",
            text,
        )
    return Explanation("other", text or "No message yet.", "", text)


@dataclass(frozen=True, slots=True)
class Held:
    """A workload that does not start, with the explanations of its newest messages."""

    kind: str
    name: str
    since: str
    explanations: list[Explanation]

    @property
    def since_at(self) -> datetime | None:
        """When it was made; None where the cluster gave no readable time."""
        try:
            return datetime.fromisoformat(self.since)
        except ValueError:
            return None


def _newest_first(events: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    def when(event: Mapping[str, Any]) -> str:
        return str(
            (event.get("series") or {}).get("lastObservedTime")
            or event.get("lastTimestamp")
            or event.get("eventTime")
            or (event.get("metadata") or {}).get("creationTimestamp")
            or ""
        )

    return sorted(events, key=when, reverse=True)


def _messages(events: Sequence[Mapping[str, Any]], kind: str, name: str) -> list[str]:
    mine = [
        without_others(str(event.get("message", "")))
        for event in _newest_first(events)
        if (event.get("involvedObject") or {}).get("kind") == kind
        and (event.get("involvedObject") or {}).get("name") == name
        and event.get("type") != "Normal"
    ]
    return list(dict.fromkeys(mine))[:3]


def _explained(messages: Iterable[str]) -> list[Explanation]:
    found: dict[str, Explanation] = {}
    for message in messages:
        explanation = explain(message)
        found.setdefault(explanation.summary, explanation)
    return list(found.values())


def _pod_messages(pod: Mapping[str, Any]) -> list[str]:
    status = pod.get("status") or {}
    found = [
        str(condition["message"])
        for condition in status.get("conditions") or []
        if condition.get("status") == "False" and condition.get("message")
    ]
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            found.append(f"{waiting.get('reason')}: {waiting.get('message', '')}".strip(": "))
    return found


def _in_queue(workloads: Iterable[Mapping[str, Any]]) -> list[Held]:
    """Return Kueue's workloads that were not admitted, by what they were made for (a Job, say)."""
    found = []
    for workload in workloads:
        met = {one.get("type"): one for one in (workload.get("status") or {}).get("conditions") or []}
        reserved, evicted = met.get("QuotaReserved") or {}, met.get("Evicted") or {}
        if reserved.get("status") == "True" or (met.get("Finished") or {}).get("status") == "True":
            continue
        meta = workload["metadata"]
        owner: Mapping[str, Any] = next(iter(meta.get("ownerReferences") or []), {})
        said = without_others(str(reserved.get("message") or ""))
        reasons = [waiting_reasons.why(str(reserved.get("reason") or "PendingEvaluation"), said)]
        if (workload.get("spec") or {}).get("active") is False:
            reasons = [waiting_reasons.why("Deactivated", "")]
        elif evicted.get("status") == "True":
            reasons.append(waiting_reasons.why(str(evicted.get("reason") or ""), ""))
        found.append(
            Held(
                str(owner.get("kind") or "Workload"),
                str(owner.get("name") or meta["name"]),
                str(meta.get("creationTimestamp", "")),
                [Explanation(one.kind, one.summary, one.advice, said) for one in reasons],
            )
        )
    return found


def held_up(
    pods: Sequence[Mapping[str, Any]],
    jobs: Sequence[Mapping[str, Any]],
    deployments: Sequence[Mapping[str, Any]],
    events: Sequence[Mapping[str, Any]],
    workloads: Sequence[Mapping[str, Any]] = (),
) -> list[Held]:
    """Return what does not start in a namespace, and why: what waits in its queue, pending pods, jobs and deployments
    that lack pods."""
    found: list[Held] = _in_queue(workloads)
    for pod in pods:
        if (pod.get("status") or {}).get("phase") != "Pending":
            continue
        meta = pod["metadata"]
        reasons = _explained([*_pod_messages(pod), *_messages(events, "Pod", meta["name"])])
        found.append(Held("Pod", meta["name"], str(meta.get("creationTimestamp", "")), reasons))
    for job in jobs:
        status, meta = job.get("status") or {}, job["metadata"]
        done = any(
            c.get("type") in ("Complete", "Failed") and c.get("status") == "True"
            for c in status.get("conditions") or []
        )
        reasons = _explained(_messages(events, "Job", meta["name"]))
        if not done and not status.get("active") and reasons:
            found.append(Held("Job", meta["name"], str(meta.get("creationTimestamp", "")), reasons))
    for deployment in deployments:
        meta, status = deployment["metadata"], deployment.get("status") or {}
        wanted = (deployment.get("spec") or {}).get("replicas", 1)
        messages = [
            str(condition.get("message", ""))
            for condition in status.get("conditions") or []
            if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True"
        ]
        messages += [
            message
            for event in events
            if (name := str((event.get("involvedObject") or {}).get("name", ""))).startswith(f"{meta['name']}-")
            and (event.get("involvedObject") or {}).get("kind") == "ReplicaSet"
            for message in _messages(events, "ReplicaSet", name)
        ]
        reasons = _explained(messages)
        if wanted and int(status.get("replicas") or 0) < int(wanted) and reasons:
            found.append(Held("Deployment", meta["name"], str(meta.get("creationTimestamp", "")), reasons))
    return found
