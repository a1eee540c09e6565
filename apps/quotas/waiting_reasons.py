"""Kueue's reasons and messages in plain words. Pure: text in, text out (reference kubernetes.md C1, Kueue 0.19)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple


class Reason(NamedTuple):
    """A reason in a sentence, and what to do about it."""

    summary: str
    advice: str


#: Reasons of QuotaReserved=False and of Evicted, as Kueue spells them. Older ones: Pending, Inadmissible.
REASONS: Mapping[str, Reason] = {
    "WaitingForQuota": Reason(
        "It waits until quota of its queue is free.",
        "It starts by itself when something of the workspace ends, or when GPUs that may be borrowed come free.",
    ),
    "ExceedsMaxQuota": Reason(
        "It asks for more than its queue can ever reach, borrowing included: it can never start like this.",
        "Ask for less, or request more quota.",
    ),
    "NoMatchingFlavor": Reason(
        "No flavour of its queue has the nodes, or the taints, that it asks for.",
        "Use the node selector and tolerations of your flavour: the ready-made manifests have them.",
    ),
    "TopologyPlacementFailed": Reason(
        "Enough GPUs are free, but not close enough together for the placement it asks for.",
        "Wait, or ask for a looser placement.",
    ),
    "WaitingForPreemptedWorkloads": Reason(
        "Its quota is being taken back from work that borrowed it; that work is stopping now.",
        "Nothing to do: it starts in a moment.",
    ),
    "WaitingForPodsReady": Reason(
        "Another workload is still starting its pods, and the cluster starts one after the other.",
        "Nothing to do: it is next once that one runs.",
    ),
    "Misconfigured": Reason(
        "Its queue is not set up: the queue it names, or what that queue needs, does not exist.",
        "Leave the queue name out or set it to “default”; if it is, the platform admins have to act.",
    ),
    "Suspended": Reason(
        "Its queue admits nothing just now: it is held, or the quota has ended.",
        "Renew the quota, or ask the platform admins why the queue is held.",
    ),
    "PendingEvaluation": Reason("The cluster has not looked at it yet.", "Nothing to do: it takes seconds."),
    "Pending": Reason("It waits in its queue.", "It starts by itself when quota is free."),
    "Inadmissible": Reason(
        "It does not fit its queue just now.", "It is tried again when something of the queue changes."
    ),
    "Preempted": Reason(
        "It was stopped, so that work with a right to these GPUs could start, and waits again.",
        "It starts again by itself; what runs on guaranteed GPUs is not stopped.",
    ),
    "PodsReadyTimeout": Reason(
        "Its pods did not become ready in time, so it was put back in line.",
        "Look at its pods' own messages: an image or a volume may be missing.",
    ),
    "AdmissionCheck": Reason("A check that the queue asks for refused it.", "See the cluster's words."),
    "ClusterQueueStopped": Reason(
        "Its queue was stopped, and it with it.", "Renew the quota, or ask the platform admins."
    ),
    "LocalQueueStopped": Reason(
        "Its queue was stopped, and it with it.", "Renew the quota, or ask the platform admins."
    ),
    "Deactivated": Reason(
        "It was switched off (by a person, a policy, or after too many attempts).", "Switch it on again to queue it."
    ),
    "NodeFailures": Reason("A node under it failed, and it was put back in line.", "It starts again by itself."),
}

_UNUSED = re.compile(
    r"insufficient unused quota for (?P<what>\S+) in flavor (?P<flavour>\S+?), (?P<more>\S+) more needed"
)
_OVER = re.compile(
    r"insufficient quota for (?P<what>\S+) in flavor (?P<flavour>\S+?), .*?current podset request "
    r"\((?P<asks>[^)]*)\) > maximum capacity \((?P<most>[^)]*)\)"
)
_UNAVAILABLE = re.compile(r"resource (?P<what>\S+) unavailable in ClusterQueue")
_ABSENT = re.compile(r"(?P<kind>LocalQueue|ClusterQueue) (?P<name>\S+) doesn't exist")
_NO_NODES = re.compile(r"flavor \S+ doesn't match node affinity|untolerated taint .* in flavor ")
_PLACED = re.compile(r"Flavor \S+ (?:supports only|does not support) TopologyAwareScheduling")
_FOREIGN = re.compile(r"[Ww]orkload namespace doesn't match ClusterQueue selector")
_PREEMPTING = re.compile(r"Pending the preemption of \d+ workload")
_INACTIVE = re.compile(r"ClusterQueue (?P<name>\S+) is inactive")


class Words(NamedTuple):
    """What a message of Kueue means. `kind` sorts it: queue, queue_never, nodes."""

    kind: str
    summary: str
    advice: str


def explain(message: str) -> Words | None:
    """Return what a message of Kueue means; None where it is no message of Kueue's that is known."""
    # The end of a longer message, and the better news.
    if _PREEMPTING.search(message):
        return Words("queue", *REASONS["WaitingForPreemptedWorkloads"])
    if over := _OVER.search(message):
        return Words(
            "queue_never",
            f"This can never start here: it asks for {over['asks']} {over['what']} of {over['flavour']}, and the queue "
            f"reaches {over['most']} at most, borrowing included.",
            "Ask for less, or request more quota.",
        )
    if unused := list(_UNUSED.finditer(message)):
        short = "; ".join(f"{one['more']} {one['what']} of {one['flavour']}" for one in unused)
        return Words(
            "queue",
            f"The queue's quota is in use: {short} more would have to be free.",
            "It starts by itself once work of the workspace ends or lent GPUs come back. To run both at once, request "
            "more quota.",
        )
    if missing := _UNAVAILABLE.search(message):
        return Words(
            "queue_never",
            f"The workspace's queue holds no {missing['what']} at all.",
            f"Leave {missing['what']} out of its requests, or request quota for it.",
        )
    if absent := _ABSENT.search(message):
        return Words("queue_never", f"The queue {absent['name']} does not exist.", REASONS["Misconfigured"].advice)
    # Without its feature gate UnadmittedWorkloadsObservability Kueue's reason is Pending: the words are all there is.
    if _PLACED.search(message):
        return Words(
            "queue_never",
            "Its flavour takes only work that asks for a placement by topology, and its queue cannot place it.",
            "The platform admins have to act: the cluster's flavours must not name a topology.",
        )
    if _NO_NODES.search(message):
        return Words("queue_never", *REASONS["NoMatchingFlavor"])
    if _FOREIGN.search(message):
        return Words("queue_never", "Its queue belongs to another workspace.", REASONS["Misconfigured"].advice)
    if _INACTIVE.search(message):
        return Words("queue", REASONS["Suspended"].summary, REASONS["Suspended"].advice)
    return None


def why(reason: str, message: str) -> Words:
    """Return why a workload waits, from the reason and message of its condition; unknown ones as they are."""
    if (found := explain(message)) is not None:
        return found
    known = REASONS.get(reason)
    if known is not None:
        kind = "queue_never" if reason in ("ExceedsMaxQuota", "NoMatchingFlavor", "Misconfigured") else "queue"
        return Words(kind, known.summary, known.advice)
    return Words("queue", message or reason or "No reason is given yet.", "")


__all__ = ["REASONS", "Reason", "Words", "explain", "why"]
