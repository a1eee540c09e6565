"""Where every regulated model ran in a month, by what was metered: pure. Unknown is named, never taken for nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from apps.core.canonical import canonical_bytes
from apps.deployments.placement import Place, Rule, judge

HOUR = timedelta(hours=1)
VERSION = 1
#: What a statement says beside its lines; a recomputation that differs in nothing else is no new revision.
_ENVELOPE = ("made_at", "revision", "replaces", "corrections", "basis")


@dataclass(frozen=True, slots=True)
class DatedRule:
    """A placement rule with the time it was in force."""

    rule: Rule
    start: datetime
    end: datetime | None

    def holds_at(self, hour: datetime) -> bool:
        """Whether it was in force in any part of an hour."""
        return self.start < hour + HOUR and (self.end is None or self.end > hour)


@dataclass(slots=True)
class Ran:
    """One release on one cluster in one workspace: hours in which it was to serve, and what was metered of it."""

    release: Mapping[str, Any]
    place: Place
    workspace: Mapping[str, Any]
    classes: tuple[str, ...]
    #: Hours that any serving interval touches.
    serving: set[datetime] = field(default_factory=set)
    #: hour → GPU-milliseconds.
    metered: dict[datetime, int] = field(default_factory=dict)
    #: Of these, hours that were told of after their period had been closed.
    late: set[datetime] = field(default_factory=set)


def hours_of(start: datetime, end: datetime) -> Iterable[datetime]:
    """Yield the hours that [start, end) touches."""
    hour = start.replace(minute=0, second=0, microsecond=0)
    while hour < end:
        yield hour
        hour += HOUR


def line(ran: Ran, rules: Sequence[DatedRule], complete: set[datetime]) -> dict[str, Any]:
    """Return one line. `complete`: the hours of this cluster whose facts stand."""
    metered = {hour for hour, _ in ran.metered.items()}
    there = ran.serving | metered
    judged = []
    for dated in rules if there else ():
        for found in judge(ran.classes, [dated.rule], ran.place, min(there).date()).lines:
            hours = [hour for hour in there if dated.holds_at(hour)]
            if not hours:
                continue
            judged.append(
                {
                    "rule": dated.rule.uid, "text": dated.rule.text, "citation": dated.rule.citation,
                    "data_class": dated.rule.data_class, "valid_from": dated.start, "valid_until": dated.end,
                    "held": found.ok, "why": found.why, "hours": len(hours),
                }
            )  # fmt: skip
    return {
        **ran.release,
        **ran.workspace,
        "cluster": ran.place.cluster,
        "location": ran.place.location,
        "jurisdiction": ran.place.jurisdiction,
        "data_classes": sorted(ran.classes),
        "hours_serving": len(ran.serving),
        "hours_metered": len(metered),
        "hours_without_gpu_use": len((ran.serving & complete) - metered),
        "hours_unknown": len(ran.serving - complete - metered),
        "hours_outside_rollout": len(metered - ran.serving),
        **({"hours_late": len(ran.late)} if ran.late else {}),
        # More than 2^53 would not survive JSON: text, as all large integers.
        "gpu_ms": str(sum(ran.metered.values())),
        "first_hour": min(there, default=None),
        "last_hour": max(there, default=None),
        "rules": sorted(judged, key=lambda one: (one["data_class"], one["rule"])),
        "violations": sum(not one["held"] for one in judged) + bool(metered - ran.serving),
    }


def body_of(
    month: str,
    zone: str,
    lines: Sequence[Mapping[str, Any]],
    *,
    made_at: datetime,
    revision: int,
    replaces: str = "",
    corrections: Sequence[Mapping[str, Any]] = (),
) -> bytes:
    """Return a statement's RFC 8785 bytes."""
    ordered = sorted(lines, key=lambda one: (one["cluster"], one["namespace"], one["model"], one["release"]))
    return canonical_bytes(
        {
            "v": VERSION,
            "statement": "placement of regulated models",
            "month": month,
            "zone": zone,
            "made_at": made_at,
            "revision": revision,
            "replaces": replaces,
            "basis": "Hours and GPU-milliseconds from metered facts by release; serving hours from the rollout log;"
            " locations as the clusters stated them when each hour began.",
            "corrections": list(corrections),
            "lines": ordered,
            "totals": {
                "lines": len(ordered),
                "violations": sum(one["violations"] for one in ordered),
                "hours_unknown": sum(one["hours_unknown"] for one in ordered),
                "gpu_ms": str(sum(int(one["gpu_ms"]) for one in ordered)),
            },
        }
    )


def content(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a statement says, without when and as which revision it was made."""
    return {key: value for key, value in body.items() if key not in _ENVELOPE}
