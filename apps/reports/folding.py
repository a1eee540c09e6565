"""Long reports on a page: the largest lines one by one, the others as one; files always have every line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar

from apps.costs.choices import ChargeKind
from apps.costs.reporting import MonthReport, TeamLine, UnallocatedLine
from apps.costs.tally import total_of

#: Lines of teams, and of owners of what was reserved and not used, before the rest is folded (design §8).
SHOWN, OWNERS = 50, 10
_Line = TypeVar("_Line", TeamLine, UnallocatedLine)


@dataclass(frozen=True, slots=True)
class Folded:
    """What the page shows; `folded` counts the lines that are only in the sums."""

    lines: list[TeamLine]
    unallocated: list[UnallocatedLine]
    folded: int


def fold(report: MonthReport, *, every: bool = False) -> Folded:
    """Return the report's lines for a page; all of them where there are few, or with `every`."""
    if every:
        return Folded(report.lines, report.unallocated, 0)
    lines, teams = _largest(report.lines, SHOWN, lambda line: line.allocated_gpu_ms)
    owners = [line for line in report.unallocated if line.kind == ChargeKind.RESERVED_UNUSED]
    kept, others = _largest(owners, OWNERS, lambda line: line.gpu_ms)
    if teams:
        lines = [*lines, _together(teams)]
    rest = [line for line in report.unallocated if line.kind != ChargeKind.RESERVED_UNUSED]
    if others:
        kept = [*kept, _others(others)]
    return Folded(lines, [*kept, *rest], len(teams) + len(others))


def _largest(lines: list[_Line], count: int, size: Callable[[_Line], int]) -> tuple[list[_Line], list[_Line]]:
    """Return the largest lines in their own order, and the others; one single line is not folded away."""
    if len(lines) <= count + 1:
        return lines, []
    smallest = sorted(range(len(lines)), key=lambda at: (-size(lines[at]), at))[count:]
    folded = set(smallest)
    kept = [line for at, line in enumerate(lines) if at not in folded]
    return kept, [line for at, line in enumerate(lines) if at in folded]


def _together(lines: list[TeamLine]) -> TeamLine:
    """Add up teams. The month before is known only where it is for all of them: a change of a part would mislead."""
    allocated = sum(line.allocated_gpu_ms for line in lines)
    used = [line.used_gpu_ms for line in lines if line.used_gpu_ms is not None]
    shares = [line.share for line in lines if line.share is not None]
    covered = sum(line.coverage_permille * line.allocated_gpu_ms for line in lines)
    before = [line.previous for line in lines]
    return TeamLine(
        team_id=None,
        team_uid=None,
        slug="",
        name=f"{len(lines)} further teams",
        unit_name="",
        colour=0,
        allocated_gpu_ms=allocated,
        used_gpu_ms=sum(used) if used else None,
        idle_gpu_ms=sum(line.idle_gpu_ms for line in lines),
        coverage_permille=covered // allocated if allocated else 0,
        amount=total_of(line.amount for line in lines),
        unpriced_gpu_ms=sum(line.unpriced_gpu_ms for line in lines),
        share=sum(shares, Decimal(0)) if shares else None,
        previous=None if None in before else total_of(before),
        idle_amount=total_of(line.idle_amount for line in lines),
        resource_amount=total_of(line.resource_amount for line in lines),
        resources_unpriced=any(line.resources_unpriced for line in lines),
        frozen=total_of(line.frozen for line in lines),
        shared=total_of(line.shared for line in lines),
        together=len(lines),
    )


def _others(lines: list[UnallocatedLine]) -> UnallocatedLine:
    return UnallocatedLine(
        kind=lines[0].kind,
        owner=f"{len(lines)} further owners",
        team_id=None,
        gpu_ms=sum(line.gpu_ms for line in lines),
        amount=total_of(line.amount for line in lines),
        unpriced_gpu_ms=sum(line.unpriced_gpu_ms for line in lines),
    )
