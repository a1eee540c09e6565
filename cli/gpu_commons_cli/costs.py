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


@cost.command()
@click.argument("month", metavar="YYYY-MM")
@click.option("--csv", "as_csv", is_flag=True, help="Write CSV.")
@as_json
def report(month: str, as_csv: bool, as_json: bool) -> None:
    """Show the statements of a closed month."""
    if not re.fullmatch(r"[0-9]{4}-(0[1-9]|1[0-2])", month):
        raise click.BadParameter("write the month as 2026-09", param_hint="MONTH")
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
