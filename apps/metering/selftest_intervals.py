"""Self-test of imported intervals: a source of record without gaps. Reads rows, calls nobody."""

from __future__ import annotations

from apps.core import clock
from apps.metering.engine import HOUR_MS, Span, merge
from apps.metering.models import Source, UsageInterval
from apps.metering.selftest import FAILED, OK, Finding, counted, listed
from apps.metering.sources.base import at_ms, ms


def gaps(windows: list[tuple[int, int]], first: int, last: int) -> list[tuple[int, int]]:
    """Return the parts of [first, last) that no window covers, in milliseconds."""
    found = []
    at = first
    for span in merge([Span(low, high, 1) for low, high in windows if high > low]):
        if span.start > at:
            found.append((at, min(span.start, last)))
        at = max(at, span.end)
        if at >= last:
            break
    if at < last:
        found.append((at, last))
    return [(low, high) for low, high in found if high > low]


def check_intervals(source: Source) -> list[Finding]:
    """Judge an import source: rows are there, and every hour of its time lies in some file."""
    rows = UsageInterval.objects.filter(source=source).count()
    windows = [(int(low), int(high)) for low, high in source.options.get("windows") or []]
    now = clock.hour_floor(clock.now())
    lower, upper = source.valid.lower, source.valid.upper or now
    missing = gaps(windows, ms(lower), ms(min(upper, now))) if lower is not None and lower < now else []
    todo = "Import what ran in these hours, even if it is little; or end the source and let another one follow."
    if not rows:
        found = [Finding("intervals", FAILED, "No interval is imported.", "Import a file under this source's name.")]
    else:
        found = [Finding("intervals", OK, f"{counted(rows, 'interval')} imported.")]
    if missing:
        names = [f"{at_ms(low):%Y-%m-%d %H:%M} to {at_ms(high):%Y-%m-%d %H:%M} UTC" for low, high in missing]
        hours = sum(high - low for low, high in missing) // HOUR_MS
        detail = f"No file speaks of {counted(hours, 'hour')}: {listed(names)}."
        found.append(Finding("gaps", FAILED, detail, todo, f"{len(windows)} windows of files"))
    else:
        found.append(Finding("gaps", OK, "Every hour of its time lies in some file."))
    return found
