"""What a log of rollouts says was served at its end: steps in, shares out. Pure (P15)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from apps.deployments.choices import StepKind

#: Of two steps in one instant, which comes first: taking a canary off precedes stopping, starting precedes going live.
RANK: Mapping[str, int] = {
    StepKind.STARTED: 0, StepKind.ROLLED_BACK: 0, StepKind.FAILED: 0, StepKind.CANARY: 1, StepKind.PROMOTED: 2,
    StepKind.STOPPED: 3, StepKind.STARTED_AGAIN: 4, StepKind.REMOVED: 5,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Logged:
    """One step: of which release, the share after it, and which release was declared with it."""

    kind: str
    release: str
    traffic: int
    declared: str = ""


def replay(steps: Iterable[Logged]) -> dict[str, int]:
    """Return release → share of the traffic, per cent, after all steps in order; empty: nothing serves."""
    current = candidate = ""
    traffic = 0
    serving = False
    for step in steps:
        kind = step.kind
        if kind == StepKind.STARTED and step.traffic == 0 and current:
            candidate, traffic = step.release, 0
        elif kind in (StepKind.STARTED, StepKind.PROMOTED, StepKind.STARTED_AGAIN, StepKind.SCALED_BACK):
            current, candidate, traffic, serving = step.release, "", 0, True
        elif kind == StepKind.CANARY:
            candidate, traffic = step.release, step.traffic
        elif kind in (StepKind.ROLLED_BACK, StepKind.FAILED):
            if step.release != candidate and step.declared and step.declared != step.release:
                current, serving = step.declared, True
            candidate, traffic = "", 0
        elif kind in (StepKind.STOPPED, StepKind.REMOVED):
            candidate, traffic, serving = "", 0, False
    if not serving or not current:
        return {}
    return {current: 100 - traffic, candidate: traffic} if candidate else {current: 100}
