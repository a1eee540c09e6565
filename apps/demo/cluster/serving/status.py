"""Status of InferenceServices from what their workloads say, and Knative's traffic. Pure.

Words and states are KServe 0.20's (`pkg/apis/serving/v1beta1/inference_service_status.go`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from apps.demo.cluster.errors import Obj


@dataclass(frozen=True)
class Workload:
    """One component's (or revision's) Deployment as the controller sees it."""

    name: str
    wanted: int
    ready: int
    refused: str = ""
    loading: bool = False
    failure: str = ""
    stale_ready: int = 0
    """Ready pods of an earlier template, which serve while the new one loads."""

    @property
    def up(self) -> bool:
        """All that is wanted is there; a workload scaled to nothing waits for its first request and counts as up."""
        return self.ready >= self.wanted and not self.refused


@dataclass(frozen=True)
class Traffic:
    """Which revision gets how much, and what was rolled out."""

    shares: tuple[tuple[str, int], ...]
    rolled_out: str
    previous: str


def split(latest: str, latest_ready: bool, percent: int | None, before: Traffic) -> Traffic:
    """Knative mode: who gets what, from `canaryTrafficPercent` and what stood before.

    Nothing moves while the latest revision is not ready. Without a percentage, or with 100, the latest takes all and
    is rolled out; else the rest stays with the last one rolled out, or where that is the latest itself (a roll-back
    after promotion), with the one before.
    """
    if not latest_ready:
        return before
    if percent is None or percent >= 100 or not before.rolled_out:
        previous = before.rolled_out if before.rolled_out not in ("", latest) else before.previous
        return Traffic(((latest, 100),), latest, previous)
    base = before.rolled_out if before.rolled_out != latest else before.previous
    if not base:
        return Traffic(((latest, 100),), latest, before.previous)
    shares = tuple((name, share) for name, share in ((latest, percent), (base, 100 - percent)) if share)
    return Traffic(shares, before.rolled_out, before.previous)


def model_status(work: Workload, now: str) -> Obj:
    """`modelStatus` of the predictor."""
    active = "Loaded" if work.ready or work.stale_ready else ""
    copies: Obj = {"failedCopies": 1 if work.failure else 0, "totalCopies": work.ready + work.stale_ready}
    status: Obj = {"copies": copies}
    if work.failure and not work.up:
        states = {"activeModelState": active or "FailedToLoad", "targetModelState": "FailedToLoad"}
        failure = {"reason": "ModelLoadFailed", "message": work.failure, "exitCode": 1, "time": now}
        return status | {
            "transitionStatus": "BlockedByFailedLoad",
            "states": states,
            "lastFailureInfo": {**failure, "modelRevisionName": work.name},
        }
    if work.up and not work.loading:
        state = "Loaded" if work.wanted else "Standby"
        return status | {
            "transitionStatus": "UpToDate",
            "states": {"activeModelState": state, "targetModelState": state},
        }
    target = "Loading" if work.loading else "Pending"
    states = {"activeModelState": active or "Pending", "targetModelState": target}
    return status | {"transitionStatus": "InProgress", "states": states}


def conditions(rows: Sequence[tuple[str, bool | None, str, str]], known: Sequence[Obj], now: str) -> list[Obj]:
    """Conditions (type, truth, reason, message), with the time each last turned; None is Unknown."""
    old = {each["type"]: each for each in known}
    out = []
    for kind, truth, reason, message in rows:
        text = {True: "True", False: "False", None: "Unknown"}[truth]
        was = old.get(kind)
        when = was["lastTransitionTime"] if was is not None and was["status"] == text else now
        row = {"type": kind, "status": text, "lastTransitionTime": when}
        if reason:
            row["reason"] = reason
        if message:
            row["message"] = message
        out.append(row)
    return sorted(out, key=lambda each: str(each["type"]))


def component_row(kind: str, work: Workload) -> tuple[str, bool | None, str, str]:
    """The condition of one component."""
    if work.up:
        return (kind, True, "", "")
    if work.refused:
        return (kind, False, "FailedCreate", work.refused)
    if work.failure:
        return (kind, False, "ModelLoadFailed", work.failure)
    text = f"{work.ready} of {work.wanted} pods are ready (simulated)"
    return (kind, False, "MinimumReplicasUnavailable", text)
