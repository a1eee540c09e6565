"""Figures for `static/js/charts.js`: plain Plotly dicts without a colour in them.

A trace names its colour as `meta.colour` (a team's index into the fixed palette, or a name of the status scale such as
"other" or "caution"); the page's theme resolves it, so one figure serves light and dark. Values are floats for drawing
only: the table beside each chart holds the exact ones. Every function is pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from apps.core.money import MILLISECONDS_PER_HOUR, Money

Figure = dict[str, Any]
Value = int | float | Decimal | Money | None

#: More series than this in one chart are summed up as "Other".
TOP = 10


@dataclass(frozen=True, slots=True)
class Series:
    """One named row of values. `colour` is a team's palette index or a name ("other", "accent", "caution" …);
    `links` are addresses that a click on each point opens (the table has the same links for the keyboard).
    """

    name: str
    values: Sequence[Value]
    colour: int | str = "other"
    links: Sequence[str] = field(default_factory=tuple)


def hours(gpu_ms: int) -> float:
    """Return GPU-milliseconds as GPU-hours, for drawing."""
    return gpu_ms / MILLISECONDS_PER_HOUR


def _drawn(value: Value) -> float | None:
    if isinstance(value, Money):
        return float(value.amount)
    return None if value is None else float(value)


def _size(series: Series) -> float:
    return sum(abs(_drawn(value) or 0.0) for value in series.values)


def top_and_other(series: Sequence[Series], *, top: int = TOP, other: str = "Other") -> list[Series]:
    """Return the `top` largest series in their given order, and the rest summed up as one more."""
    if len(series) <= top:
        return list(series)
    largest = sorted(range(len(series)), key=lambda i: (-_size(series[i]), i))[:top]
    kept = [item for i, item in enumerate(series) if i in set(largest)]
    rest = [item for i, item in enumerate(series) if i not in set(largest)]
    length = max(len(item.values) for item in rest)
    summed = [sum(_drawn(item.values[i]) or 0.0 for item in rest if i < len(item.values)) for i in range(length)]
    return [*kept, Series(f"{other} ({len(rest)})", summed, "other")]


def _label(point: date | datetime | str) -> str:
    return point if isinstance(point, str) else point.isoformat()


def _trace(series: Series, x: Sequence[str], unit: str, kind: Mapping[str, Any]) -> dict[str, Any]:
    trace: dict[str, Any] = {
        **kind,
        "name": series.name,
        "x": list(x),
        "y": [_drawn(value) for value in series.values],
        "meta": {"colour": series.colour},
        "hovertemplate": f"%{{y:,.2f}} {unit}<extra>{_plain(series.name)}</extra>",
    }
    if series.links:
        trace["customdata"] = list(series.links)
    return trace


def _plain(text: str) -> str:
    """Plotly reads a few tags and %{} in hover texts; names are data and must stay text."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("%{", "% {")


def _layout(unit: str, title: str, **more: Any) -> dict[str, Any]:
    return {
        "meta": {"title": title, "unit": unit},
        "yaxis": {"title": {"text": unit}, "rangemode": "tozero"},
        "hovermode": "x unified",
        **more,
    }


def stacked_bars(
    days: Sequence[date | datetime | str], series: Sequence[Series], *, unit: str, title: str, top: int = TOP
) -> Figure:
    """Return bars stacked by series over days; beyond `top` series the rest is "Other"."""
    x = [_label(point) for point in days]
    traces = [_trace(item, x, unit, {"type": "bar"}) for item in top_and_other(series, top=top)]
    return {"data": traces, "layout": _layout(unit, title, barmode="stack", xaxis=_axis(days))}


def lines(
    points: Sequence[date | datetime | str], series: Sequence[Series], *, unit: str, title: str, step: bool = False
) -> Figure:
    """Return lines over time; `step` draws values that hold until the next point (capacity, quota). None is a gap."""
    x = [_label(point) for point in points]
    line = {"shape": "hv"} if step else {}
    kind = {"type": "scatter", "mode": "lines", "line": line, "connectgaps": False}
    traces = [_trace(item, x, unit, kind) for item in top_and_other(series)]
    return {"data": traces, "layout": _layout(unit, title, xaxis=_axis(points))}


def horizontal_bars(labels: Sequence[str], series: Sequence[Series], *, unit: str, title: str) -> Figure:
    """Return stacked horizontal bars, one per label, the first label on top."""
    traces = []
    for item in series:
        trace = _trace(item, list(labels), unit, {"type": "bar", "orientation": "h"})
        trace["x"], trace["y"] = trace["y"], trace["x"]
        trace["hovertemplate"] = trace["hovertemplate"].replace("%{y:", "%{x:")
        traces.append(trace)
    layout = _layout(unit, title, barmode="stack")
    layout["xaxis"] = {"title": {"text": unit}, "rangemode": "tozero"}
    layout["yaxis"] = {"autorange": "reversed", "type": "category"}
    layout["hovermode"] = "closest"
    return {"data": traces, "layout": layout}


def _axis(points: Sequence[date | datetime | str]) -> dict[str, Any]:
    is_time = bool(points) and not isinstance(points[0], str)
    return {"type": "date" if is_time else "category"}


@dataclass(frozen=True, slots=True)
class Part:
    """A drawn part of a whole, in thousandths of its length."""

    label: str
    text: str
    x: str
    width: str
    css: str


def parts_of(segments: Sequence[Mapping[str, Any]], maximum: int | Decimal | None = None) -> list[Part]:
    """Lay out `[{label, value, text, colour | tone}]` along a bar of 1000 units that stands for `maximum` (or the sum).

    Values beyond the maximum are cut at the end, never drawn over it.
    """
    values = [max(Decimal(0), Decimal(segment["value"] or 0)) for segment in segments]
    whole = max(Decimal(maximum if maximum is not None else 0), Decimal(0)) or sum(values, Decimal(0))
    parts, at = [], Decimal(0)
    for segment, value in zip(segments, values, strict=True):
        width = min(value / whole * 1000, 1000 - at) if whole else Decimal(0)
        colour = segment.get("colour")
        css = f"team-colour-{int(colour) % 12}" if colour is not None else f"part-{segment.get('tone', 'accent')}"
        text = str(segment.get("text", f"{segment['value']:,}" if segment["value"] is not None else "–"))
        parts.append(Part(str(segment["label"]), text, f"{at:.2f}", f"{width:.2f}", css))
        at += width
    return parts


__all__ = ["Figure", "Part", "Series", "horizontal_bars", "hours", "lines", "parts_of", "stacked_bars", "top_and_other"]
