"""Tables for people, JSON and CSV for programs."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

#: Spreadsheets run a cell that begins so; a quote in front makes it text.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def show(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], *, as_json: bool) -> None:
    """Print rows: as JSON whole, else as a table of `columns` (key → heading)."""
    if as_json:
        click.echo(json.dumps(list(rows), indent=2))
        return
    if not rows:
        click.echo("Nothing here.", err=True)
        return
    cells = [[_text(row.get(key)) for key in columns] for row in rows]
    headings = list(columns.values())
    widths = [max(len(line[at]) for line in [headings, *cells]) for at in range(len(headings))]
    for line in [headings, *cells]:
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def one(row: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one row, a field a line."""
    if as_json:
        click.echo(json.dumps(row, indent=2))
        return
    width = max(len(key) for key in row)
    for key, value in row.items():
        click.echo(f"{key.ljust(width)}  {_text(value)}")


def as_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write rows as CSV; cells that a spreadsheet would run are defused, numbers stay numbers."""
    writer = csv.writer(sys.stdout)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_safe(_text(row.get(key))) for key in columns])


def _safe(text: str) -> str:
    if text.startswith(_FORMULA):
        try:
            float(text)
        except ValueError:
            return "'" + text
    return text


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return f"{value['amount']} {value['currency']}" if {"amount", "currency"} <= value.keys() else json.dumps(value)
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value)
    return str(value)
