"""Quota: list, request, watch; and the kubeconfig to use it with."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import click

from gpu_commons_cli import output
from gpu_commons_cli.client import Failed, Portal
from gpu_commons_cli.shared import as_json, portal, workspace

_DONE = ("active", "scheduled", "expired")
_REFUSED = ("rejected", "withdrawn", "lapsed", "superseded")
#: Exit code where a watched request was refused.
REFUSED = 5


def _moment(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Return a day or moment as the API takes it."""
    if value is None:
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError as error:
        raise click.BadParameter("write 2026-12-01 or 2026-12-01T18:00+00:00") from error
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat()


@click.group()
def quota() -> None:
    """Quota of your workspaces."""


@quota.command("list")
@click.option("--workspace", "name", help="Only of this workspace (namespace or uid).")
@click.option("--cluster", help="Where the namespace is on several clusters.")
@click.option("--all", "every", is_flag=True, help="Past and coming quotas, too.")
@as_json
def list_quota(name: str | None, cluster: str | None, every: bool, as_json: bool) -> None:
    """List what your workspaces hold."""
    server = portal()
    chosen = workspace(server, name, cluster) if name else None
    names = {row["uid"]: row["namespace"] for row in ([chosen] if chosen else server.every("workspaces"))}
    rows = []
    for row in server.every("quotas", workspace__uid=chosen["uid"] if chosen else None):
        if every or _in_force(row):
            rows.append({**row, "namespace": names.get(row["workspace"], row["workspace"])})
    columns = {
        "namespace": "WORKSPACE", "flavour": "FLAVOUR", "guaranteed": "GUARANTEED", "borrow_mode": "BORROW",
        "maximum": "MAXIMUM", "valid_until": "UNTIL", "standing": "STANDING",
    }  # fmt: skip
    output.show(rows, columns, as_json=as_json)


def _in_force(row: dict[str, Any]) -> bool:
    now = datetime.now(UTC)
    starts, ends = (row[name] and datetime.fromisoformat(row[name]) for name in ("valid_from", "valid_until"))
    return bool(starts <= now and (ends is None or ends > now))


@quota.command()
@click.argument("name", metavar="WORKSPACE")
@click.option("--flavour", required=True, help="Slug of the flavour.")
@click.option("--guaranteed", type=click.IntRange(0), required=True, help="How many units afterwards.")
@click.option("--borrow", default="none", help="none, unlimited, or how many units.", show_default=True)
@click.option("--from", "start", callback=_moment, help="From when (default: at once).")
@click.option("--until", "end", callback=_moment, help="Until when (default: for good).")
@click.option("--reason", required=True, help="What it is for; approvers read it.")
@click.option("--cluster", help="Where the namespace is on several clusters.")
@click.option("--wait", is_flag=True, help="Wait until it is applied, refused or waits for a person.")
@as_json
def request(
    name: str, flavour: str, guaranteed: int, borrow: str, start: str | None, end: str | None, reason: str,
    cluster: str | None, wait: bool, as_json: bool,
) -> None:  # fmt: skip
    """Ask for quota: what the workspace shall hold of a flavour."""
    server = portal()
    limited = borrow not in ("none", "unlimited")
    if limited and not borrow.isdigit():
        raise click.BadParameter("none, unlimited or a number", param_hint="--borrow")
    made = server.post(
        "quota-requests",
        {
            "workspace": workspace(server, name, cluster)["uid"],
            "flavour": flavour,
            "guaranteed": guaranteed,
            "borrow_mode": "limited" if limited else borrow,
            "borrow_limit": int(borrow) if limited else 0,
            "valid_from": start,
            "valid_until": end,
            "reason": reason,
        },
    )
    if wait:
        made = _watched(server, made["uid"], 600.0, until_decided=True)
    output.one(_short(made), as_json=as_json)
    if made["status"] in _REFUSED:
        raise Failed(f"It was {made['status']}.", REFUSED)


@quota.command()
@click.argument("uid")
@click.option("--timeout", type=click.FloatRange(1), default=3600.0, show_default=True, help="Seconds.")
@as_json
def watch(uid: str, timeout: float, as_json: bool) -> None:
    """Follow a request until it is applied or refused."""
    found = _watched(portal(), uid, timeout, until_decided=False)
    output.one(_short(found), as_json=as_json)
    if found["status"] in _REFUSED:
        raise Failed(f"It was {found['status']}.", REFUSED)


def _watched(server: Portal, uid: str, seconds: float, *, until_decided: bool) -> dict[str, Any]:
    ends, said, pause = time.monotonic() + seconds, "", 0.5
    while True:
        row = dict(server.get(f"quota-requests/{uid}"))
        if row["status"] != said:
            said = row["status"]
            click.echo(f"{datetime.now(UTC):%H:%M:%S} UTC  {said.replace('_', ' ')}", err=True)
        if said in _DONE or said in _REFUSED or (until_decided and said in ("in_review", "waiting_for_capacity")):
            return row
        if time.monotonic() > ends:
            raise Failed(f"Still {said} after {seconds:.0f} s.")
        time.sleep(pause)
        pause = min(10.0, pause * 1.5)


def _short(row: dict[str, Any]) -> dict[str, Any]:
    names = ("uid", "status", "team", "flavour", "guaranteed", "borrow_mode", "borrow_limit", "valid_from",
             "valid_until", "monthly_cost_change", "approval")  # fmt: skip
    return {name: row[name] for name in names}


@click.command()
@click.argument("name", metavar="WORKSPACE")
@click.option("--cluster", help="Where the namespace is on several clusters.")
def kubeconfig(name: str, cluster: str | None) -> None:
    """Print your own kubeconfig for a workspace (redirect it to a file)."""
    server = portal()
    row = workspace(server, name, cluster)
    given = server.get(f"workspaces/{row['uid']}/kubeconfig")
    click.echo(given["kubeconfig"], nl=False)
    if given["to_do"]:
        click.echo(given["to_do"], err=True)
