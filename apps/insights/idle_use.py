"""Which workloads are idle, judged by metered hours. Pure but for one query; unknown use is never idle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db import connection

from apps.insights.hoarding import HOUR, HOUR_MS
from apps.metering.choices import METERED
from apps.metering.models import HourStatus

#: Below this share of samples (per mille) the use of an hour is not known well enough to stop anything.
MIN_COVERAGE_PERMILLE = 900
#: The last metered hour may have ended so long ago; beyond that nobody knows what a workload does now.
FRESH = timedelta(hours=4)
#: As sources spell the kinds of owners (kube-state-metrics `created_by_kind`, OpenCost `controllerKind`).
_KINDS = {
    "job": "Job", "deployment": "Deployment", "replicaset": "Deployment", "statefulset": "StatefulSet",
    "daemonset": "DaemonSet", "inferenceservice": "InferenceService", "workload": "Workload", "pod": "Pod", "": "Pod",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Workload:
    """A workload of a workspace, by the kind and name that the cluster knows it by."""

    workspace_id: int
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class HourUse:
    """What a workload held and used in an hour; `used_gpu_ms` None: not known."""

    hour: datetime
    allocated_gpu_ms: int
    unit_ms: int
    used_gpu_ms: int | None
    flavour_id: int | None

    def below(self, percent: int) -> bool:
        """Whether it is known that less than `percent` of what was held was used."""
        return self.used_gpu_ms is not None and self.used_gpu_ms * 100 < self.allocated_gpu_ms * percent


@dataclass(slots=True)
class Judged:
    """A cluster as the last metered hour shows it: by workload its hours in order. `latest` None: nothing is known."""

    latest: datetime | None = None
    hours: dict[Workload, list[HourUse]] = field(default_factory=dict)

    def present(self, workload: Workload) -> HourUse | None:
        """Return the workload's last metered hour, None where it held nothing then."""
        hours = self.hours.get(workload)
        return hours[-1] if hours and hours[-1].hour == self.latest else None

    def idle_run(self, workload: Workload, percent: int, since: datetime | None = None) -> list[HourUse]:
        """Return the hours on end, up to the last metered one, in which it was idle; none before `since`."""
        return idle_run(self.hours.get(workload, []), self.latest, percent, since)


def idle_run(
    hours: Sequence[HourUse], latest: datetime | None, percent: int, since: datetime | None = None
) -> list[HourUse]:
    """Return the longest row of idle hours without a gap that ends with `latest`. Pure."""
    run: list[HourUse] = []
    expected = latest
    for one in reversed(hours):
        if one.hour != expected or not one.below(percent) or (since is not None and one.hour < since):
            break
        run.append(one)
        expected = one.hour - HOUR
    return run[::-1]


def known_as(kind: str, name: str) -> tuple[str, str]:
    """Return kind and name of what a person would stop: the Deployment behind a ReplicaSet, not the ReplicaSet."""
    found = _KINDS.get(kind.lower(), kind)
    if kind.lower() == "replicaset" and "-" in name:
        name = name.rpartition("-")[0]
    return found, name


def judge(cluster_id: int, workspaces: Iterable[int], at: datetime, hours: int) -> Judged:
    """Read what workloads of some workspaces held and used in the `hours` that end with the last metered one."""
    latest = (
        HourStatus.objects.filter(cluster_id=cluster_id, state__in=METERED, hour__lt=at, hour__gte=at - FRESH - HOUR)
        .order_by("-hour")
        .values_list("hour", flat=True)
        .first()
    )
    if latest is None or latest + HOUR < at - FRESH:
        return Judged()
    found = Judged(latest=latest)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT workspace_id, workload_kind, workload_name, hour, sum(allocated_gpu_ms), sum(allocated_unit_ms),
              CASE WHEN bool_or(used_gpu_ms IS NULL OR coverage_permille < %(coverage)s) THEN NULL
                ELSE sum(used_gpu_ms) END, max(flavour_id)
            FROM metering_hourfact
            WHERE cluster_id = %(cluster)s AND hour >= %(start)s AND hour <= %(latest)s
              AND workspace_id = ANY(%(workspaces)s) AND allocated_gpu_ms > 0
            GROUP BY 1, 2, 3, 4 ORDER BY 4
            """,
            {
                "cluster": cluster_id,
                "start": latest - (hours - 1) * HOUR,
                "latest": latest,
                "workspaces": sorted(workspaces),
                "coverage": MIN_COVERAGE_PERMILLE,
            },
        )
        merged: dict[tuple[Workload, datetime], HourUse] = {}
        for workspace, kind, name, hour, gpu_ms, unit_ms, used, flavour in cursor.fetchall():
            workload = Workload(workspace, *known_as(kind or "", name))
            one = HourUse(hour, int(gpu_ms), int(unit_ms), None if used is None else int(used), flavour)
            merged[workload, hour] = _both(merged.get((workload, hour)), one)
    for (workload, _), use in merged.items():
        found.hours.setdefault(workload, []).append(use)
    return found


def _both(first: HourUse | None, second: HourUse) -> HourUse:
    """Two ReplicaSets of one Deployment in an hour are one workload."""
    if first is None:
        return second
    used = None
    if first.used_gpu_ms is not None and second.used_gpu_ms is not None:
        used = first.used_gpu_ms + second.used_gpu_ms
    return HourUse(
        first.hour, first.allocated_gpu_ms + second.allocated_gpu_ms, first.unit_ms + second.unit_ms, used,
        second.flavour_id or first.flavour_id,
    )  # fmt: skip


def units_of(use: HourUse) -> int:
    """Return the whole units held in an hour, rounded up."""
    return -(-use.unit_ms // HOUR_MS)


def evidence_of(run: Sequence[HourUse], percent: int) -> Mapping[str, object]:
    """Return what a case keeps of the hours it stands on (the last 48)."""
    return {
        "threshold_percent": percent,
        "hours": [
            {"hour": use.hour.isoformat(), "allocated_gpu_ms": use.allocated_gpu_ms, "used_gpu_ms": use.used_gpu_ms}
            for use in run[-48:]
        ],
    }
