"""What pages show of a pool: its aggregates, flavours, calendar and chart. Read once, shown to tenants and admins."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from django.db.models import prefetch_related_objects
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from apps.clusters import pool_inventory
from apps.clusters.models import Pool
from apps.core import charts, clock
from apps.core.templatetags.commons import moment
from apps.quotas import pool_calendar, pool_layout, pools
from apps.quotas.assess import number
from apps.quotas.pool_calendar import CalendarStep, PoolTime


def time_of(pool: Pool) -> PoolTime:
    """Return a pool's time from now on, read once for all panels that show this very instance of a pool."""
    held: PoolTime | None = pool.__dict__.get("_time_read")
    if held is None:
        prefetch_related_objects([pool], "flavours")
        held = pool.__dict__["_time_read"] = pool_calendar.read(pool)
    return held


def forget_time(pool: Pool) -> None:
    """Let go of what `time_of` read, after the last panel that shows it: it refers back to the pool, and such circles
    of thousands of objects are left to the garbage collector."""
    pool.__dict__.pop("_time_read", None)


def pool_context(pool: Pool) -> dict[str, Any]:
    """Return what a page shows of a pool. About ten queries, whatever its size."""
    time = time_of(pool)
    row = pools.pool_rows(pools=[pool], totals={pool.pk: time.there.at(clock.now())})[0]
    calendar, daily = time.table()
    breaches = time.breaches()
    return {
        "pool": pool,
        "row": row,
        "shown": row.shown(),
        "flavours": pool_layout.flavour_promises(pool, time, pool_inventory.of_page(pool)),
        "calendar": calendar,
        "calendar_rows": _rows(calendar),
        "daily": daily,
        "figure": _figure(pool, calendar),
        "breaches": breaches,
        "breach_since": breaches[0][0] if breaches else None,
        "breach_most": number(max((count for _, count in breaches), default=Fraction(0))),
        "outlasting": pool_layout.outlasting(pool, time),
    }


def _rows(calendar: Sequence[CalendarStep]) -> SafeString:
    """Return the calendar as rows of a table: a loop of template tags took longer than reading the pool."""
    shown = [step.shown() for step in calendar]
    return format_html_join(
        "",
        '<tr><td class="text-nowrap">{}</td><td class="text-nowrap">{}</td><td class="figure">{}</td>'
        '<td class="figure">{}</td><td class="figure">{}</td><td class="figure">{}</td></tr>',
        (
            (moment(one.start), moment(one.end), told["committable"], told["promised"], told["requested"], told["free"])
            for one, told in zip(calendar, shown, strict=True)
        ),
    )


def _figure(pool: Pool, calendar: Sequence[CalendarStep]) -> charts.Figure:
    points = [step.start for step in calendar] + [calendar[-1].end] if calendar else []

    def series(name: str, values: list[Fraction], colour: str) -> charts.Series:
        floats = [float(value) for value in values]
        return charts.Series(name, [*floats, *floats[-1:]], colour)

    drawn = [
        series("Committable", [step.committable for step in calendar], "other"),
        series("Promised", [step.promised for step in calendar], "accent"),
        series("Promised and requested", [step.promised + step.requested for step in calendar], "caution"),
    ]
    if pool.observed_gpus is not None and not pool.elastic and calendar:
        drawn.append(series("Physical, as observed", [Fraction(pool.observed_gpus)] * len(calendar), "info"))
    return charts.lines(
        points, drawn, unit=pool.unit, title=f"{pool}: the next {pool_calendar.CALENDAR_DAYS} days", step=True
    )


__all__ = ["forget_time", "pool_context", "time_of"]
