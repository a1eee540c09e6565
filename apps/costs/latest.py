"""What a team ran in the latest metered hours."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from apps.metering.models import HourFact
from apps.teams.models import Team


@dataclass(frozen=True, slots=True)
class RunningLine:
    """What a team ran in the latest metered hours."""

    workload_name: str
    workload_kind: str
    namespace: str
    flavour_name: str
    last_hour: datetime
    units: int


def running_workloads(team: Team, user: Any, *, since: datetime) -> list[RunningLine]:
    """Return the workloads with facts since `since`, latest and largest first; units as held at the end of the hour."""
    facts = HourFact.objects.visible_to(user).filter(team_id=team.pk, hour__gte=since)
    found: dict[tuple[str, str, str], RunningLine] = {}
    columns = ("workload_name", "workload_kind", "namespace", "flavour_name", "hour", "spans")
    for name, kind, namespace, flavour, hour, spans in facts.order_by("-hour", "uid").values_list(*columns)[:2000]:
        key = (name, namespace, flavour)
        units = spans[-1] if spans else 0
        known = found.get(key)
        if known is None:
            found[key] = RunningLine(name, kind, namespace, flavour, hour, units)
        elif known.last_hour == hour:
            found[key] = RunningLine(name, kind, namespace, flavour, hour, known.units + units)
    return sorted(found.values(), key=lambda line: (-line.last_hour.timestamp(), -line.units, line.workload_name))


__all__ = ["RunningLine", "running_workloads"]
