"""Rows of the report's long tables as HTML: a template takes some 25 µs a cell, and a month has a thousand of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.urls import reverse
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

from apps.core import formats
from apps.core.templatetags.commons import permille, team_colour

if TYPE_CHECKING:
    from apps.costs.explaining import Effects
    from apps.costs.report_types import TeamLine
    from apps.reports.selectors import DayRow


def _figure(text: str) -> str:
    return f'<td class="figure">{escape(text)}</td>'


@dataclass(frozen=True, slots=True)
class Columns:
    """Which of the team table's columns stand: other resources; what statements say, and with it common cost."""

    resources: bool
    stated: bool
    common: bool


def team_rows(lines: Iterable[TeamLine], month: str, columns: Columns) -> SafeString:
    """Return a row a team: use, cost, share and change; its name leads to its days of the month ("2026-10")."""
    return mark_safe("".join(_team_row(line, month, columns) for line in lines))  # noqa: S308 (escaped cell by cell)


def _team_row(line: TeamLine, month: str, columns: Columns) -> str:
    name: str = escape(line.name)
    if line.slug:
        address = reverse("costs:team-month", kwargs={"team_slug": line.slug, "month": month})
        name = f'<a href="{escape(address)}">{name}</a>'
    used: str = "unknown" if line.used_gpu_ms is None else escape(formats.gpu_hours(line.used_gpu_ms))
    if line.used_gpu_ms is not None and line.coverage_permille < 1000:
        used = f'{used} <span class="text-secondary">({escape(permille(line.coverage_permille))} measured)</span>'
    found = [
        f'<tr><th scope="row"><span class="swatch {team_colour(line.colour)}" aria-hidden="true"></span>{name}</th>',
        _figure(formats.gpu_hours(line.allocated_gpu_ms)),
        f'<td class="figure">{used}</td>',
        _figure(formats.gpu_hours(line.idle_gpu_ms)),
        _figure(formats.percent(line.idle_share)),
    ]
    if columns.resources:
        unknown = line.resources_unpriced and line.resource_amount is None
        found += [
            _figure(formats.money(line.gpu_amount)),
            _figure("unknown" if unknown else formats.money(line.resource_amount)),
        ]
    found.append(_figure(formats.money(line.amount)))
    if columns.stated:
        frozen: str = escape(formats.money(line.frozen))
        if line.statement_uid is not None:
            address = reverse("costs:statement-detail", kwargs={"statement_uid": line.statement_uid})
            frozen = f'<a href="{escape(address)}">{frozen}</a>'
        found.append(f'<td class="figure">{frozen}</td>')
        if columns.common:
            found.append(_figure(formats.money(line.shared)))
    found += [
        _figure(formats.percent(line.share)),
        _figure(formats.money(line.previous)),
        _figure(formats.money(line.change, signed=True)),
        "</tr>",
    ]
    return "".join(found)


def day_rows(rows: Iterable[DayRow]) -> SafeString:
    """Return a row a day: GPU-hours of each owner, those of a team leading to its day, and their sum."""
    found = []
    for row in rows:
        cells = "".join(
            f'<td class="figure"><a href="{escape(link)}">{escape(formats.gpu_hours(value))}</a></td>'
            if link and value
            else _figure(formats.gpu_hours(value))
            for value, link in row.cells
        )
        found.append(
            f'<tr><th scope="row" class="text-nowrap">{escape(formats.day(row.day))}</th>{cells}'
            f"{_figure(formats.gpu_hours(row.total_gpu_ms))}</tr>"
        )
    return mark_safe("".join(found))  # noqa: S308 (every value is escaped above)


def effect_rows(teams: Iterable[tuple[TeamLine, Effects]]) -> SafeString:
    """Return a row a team: the month before, price, quantity and mix, the month, and the change."""
    return mark_safe(  # noqa: S308 (every value is escaped below)
        "".join(
            f'<tr><th scope="row">{escape(line.name)}</th>{_figure(formats.money(one.before))}'
            + "".join(_figure(formats.money(part, signed=True)) for part in (one.price, one.quantity, one.mix))
            + f"{_figure(formats.money(one.after))}{_figure(formats.money(one.change, signed=True))}</tr>"
            for line, one in teams
        )
    )
