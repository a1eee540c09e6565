"""Costs: what a month was billed, as statements say it."""

from __future__ import annotations

import re

import click

from gpu_commons_cli import output
from gpu_commons_cli.client import Failed
from gpu_commons_cli.shared import as_json, portal


@click.group()
def cost() -> None:
    """Costs of your teams."""


def _month(_: click.Context, __: click.Parameter, value: str) -> str:
    """Return a month as the API takes it."""
    if not re.fullmatch(r"[0-9]{4}-(0[1-9]|1[0-2])", value):
        raise click.BadParameter("write the month as 2026-09")
    return value


@cost.command("month")
@click.argument("unit")
@click.argument("month", metavar="YYYY-MM", callback=_month)
@click.option("--csv", "as_csv", is_flag=True, help="Write CSV.")
@as_json
def month_of(unit: str, month: str, as_csv: bool, as_json: bool) -> None:
    """Show what each team of a business unit spent and left idle in a month, closed or not."""
    rows = portal().get("monthly-report", unit=unit, month=month)["lines"]
    columns = {
        "line": "LINE", "team": "TEAM", "allocated_gpu_hours": "GPU-HOURS", "idle_gpu_hours": "IDLE", "cost": "COST",
        "change": "CHANGE", "currency": "CURRENCY",
    }  # fmt: skip
    if as_csv:
        output.as_csv(rows, list(columns))
    else:
        output.show(rows, columns, as_json=as_json)


@cost.command()
@click.argument("month", metavar="YYYY-MM", callback=_month)
@click.option("--csv", "as_csv", is_flag=True, help="Write CSV.")
@as_json
def report(month: str, as_csv: bool, as_json: bool) -> None:
    """Show the statements of a closed month."""
    rows = [
        {**row, "owner": row["team_name"] or row["unit_name"], "gpu_hours": f"{row['gpu_ms'] / 3_600_000:.3f}"}
        for row in portal().every("statements", month=month, superseded="false")
    ]
    if not rows:
        raise Failed(f"There is no statement of {month} in your reach: it is not closed yet, or not yours to see.")
    columns = {
        "number": "STATEMENT", "owner_kind": "KIND", "owner": "OWNER", "cost_centre": "COST CENTRE",
        "gpu_hours": "GPU-HOURS", "amount": "AMOUNT", "currency": "CURRENCY",
    }  # fmt: skip
    if as_csv:
        output.as_csv(rows, list(columns))
    else:
        output.show(rows, columns, as_json=as_json)
