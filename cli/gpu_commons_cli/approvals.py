"""Approvals: what waits for you, and your word on it."""

from __future__ import annotations

from typing import Any

import click

from gpu_commons_cli import output
from gpu_commons_cli.client import Failed
from gpu_commons_cli.shared import as_json, portal

_reason = click.option("--reason", help="Why; the requester reads it, and auditors do.")
_yes = click.option("--yes", is_flag=True, help="Do not ask again.")


@click.command()
@click.argument("uid", required=False)
@_reason
@_yes
@as_json
def approve(uid: str | None, reason: str | None, yes: bool, as_json: bool) -> None:
    """List what waits for your decision; with a UID, approve it."""
    if uid is None:
        _list(as_json)
    else:
        _decide(uid, "approve", reason, yes, as_json)


@click.command()
@click.argument("uid")
@_reason
@_yes
@as_json
def reject(uid: str, reason: str | None, yes: bool, as_json: bool) -> None:
    """Reject a request."""
    _decide(uid, "reject", reason, yes, as_json)


def _list(as_json: bool) -> None:
    rows = list(portal().every("approval-requests", waiting_for_me="true"))
    columns = {
        "uid": "REQUEST",
        "title": "WHAT",
        "team": "TEAM",
        "monthly_cost_change": "MONTHLY COST",
        "due_at": "DUE",
    }
    output.show(rows, columns, as_json=as_json)


def _decide(uid: str, verdict: str, reason: str | None, yes: bool, as_json: bool) -> None:
    server = portal()
    row, etag = server.read(f"approval-requests/{uid}")
    if not reason:
        raise Failed("Give a reason with --reason.", 2)
    if not yes:
        _describe(row)
        click.confirm(f"{verdict.capitalize()} exactly this?", abort=True, err=True)
    body = {"verdict": verdict, "reason": reason, "subject_digest": row["subject_digest"]}
    output.one(_short(server.post(f"approval-requests/{uid}/decide", body, etag=etag)), as_json=as_json)


def _describe(row: dict[str, Any]) -> None:
    click.echo(row["title"], err=True)
    for leaf in row["leaves"]:
        click.echo(f"  {leaf['cluster']}: {leaf['path']}", err=True)
    for fact in row["facts"]:
        click.echo(f"  {fact['label']}: {fact['value']}", err=True)
    click.echo(f"  digest {row['subject_digest']}", err=True)


def _short(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row.get(name) for name in ("uid", "title", "status", "conclusion", "subject_digest")}
