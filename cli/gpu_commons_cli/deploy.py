"""Releases: deploy an approved version, watch its rollout, promote it or go back."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import click

from gpu_commons_cli import output
from gpu_commons_cli.client import Failed, Portal
from gpu_commons_cli.quota import REFUSED
from gpu_commons_cli.shared import as_json, is_uid, portal, workspace

_ENDED = ("live", "superseded", "rolled_back", "failed", "rejected", "withdrawn", "lapsed")
_GOOD = ("live", "superseded")
_reason = click.option("--reason", default="", help="Why; it stands in the log of the endpoint.")


@click.group()
def deploy() -> None:
    """Releases of approved model versions."""


@deploy.command("list")
@click.option("--team", help="Only of this team (slug).")
@as_json
def list_endpoints(team: str | None, as_json: bool) -> None:
    """List endpoints and what they serve."""
    rows = [_flat(row) for row in portal().every("endpoints", workspace__team__slug=team)]
    columns = {
        "name": "ENDPOINT", "team": "TEAM", "environment": "ENVIRONMENT", "cluster": "CLUSTER", "current": "CURRENT",
        "candidate": "CANARY", "traffic": "SHARE",
    }  # fmt: skip
    output.show(rows, columns, as_json=as_json)


@deploy.command()
@click.argument("endpoint")
@click.option("--workspace", "place", required=True, help="Namespace or uid.")
@click.option("--cluster", help="Where the namespace is on several clusters.")
@click.option("--version", "version", required=True, help="uid of the sealed, approved version.")
@click.option("--flavour", required=True, help="Slug of the flavour.")
@click.option("--spec", "spec", type=click.File("r"), help="The whole wish as JSON; the options below then fill gaps.")
@click.option("--replicas", type=click.IntRange(1), default=1, show_default=True)
@click.option("--units", type=click.IntRange(1), default=1, show_default=True, help="Units of the flavour per replica.")
@click.option("--cpu", type=click.IntRange(1), default=4, show_default=True, help="Cores per replica.")
@click.option("--memory-gib", type=click.IntRange(1), default=16, show_default=True, help="Of one replica.")
@click.option("--canary", multiple=True, metavar="PERCENT:HOURS", help="A rung of the ladder; once each, upwards.")
@click.option("--reason", required=True, help="What it is for; approvers read it.")
@click.option("--wait", is_flag=True, help="Wait until it is live, or refused.")
@as_json
def start(
    endpoint: str, place: str, cluster: str | None, version: str, flavour: str, spec: Any, replicas: int, units: int,
    cpu: int, memory_gib: int, canary: tuple[str, ...], reason: str, wait: bool, as_json: bool,
) -> None:  # fmt: skip
    """Ask that a version serve on an endpoint; policy decides who is asked."""
    server = portal()
    wish = {
        "min_replicas": replicas, "max_replicas": replicas, "units_per_replica": units, "cpu": cpu,
        "memory_gib": memory_gib, "ladder": [_rung(text) for text in canary],
    }  # fmt: skip
    if spec is not None:
        try:
            wish = {**wish, **json.load(spec)}
        except ValueError as error:
            raise click.BadParameter(f"no JSON: {error}", param_hint="--spec") from error
    body = {
        "workspace": workspace(server, place, cluster)["uid"], "name": endpoint, "model_version": version,
        "flavour": flavour, "spec": wish, "reason": reason,
    }  # fmt: skip
    made = server.post("releases", body)
    if wait:
        made = _watched(server, made["uid"], 86_400.0)
    output.one(_short(made), as_json=as_json)
    if made["status"] in _ENDED and made["status"] not in _GOOD:
        raise Failed(f"It was {made['status']}.", REFUSED)


@deploy.command()
@click.argument("release")
@click.option("--timeout", type=click.FloatRange(1), default=86_400.0, show_default=True, help="Seconds.")
@as_json
def watch(release: str, timeout: float, as_json: bool) -> None:
    """Follow a release until it takes all traffic, or ends."""
    found = _watched(portal(), release, timeout)
    output.one(_short(found), as_json=as_json)
    if found["status"] not in _GOOD:
        raise Failed(f"It was {found['status']}.", REFUSED)


def _action(name: str, path: str, text: str) -> click.Command:
    @deploy.command(name, help=text)
    @click.argument("endpoint")
    @_reason
    @as_json
    def run(endpoint: str, reason: str, as_json: bool) -> None:
        server = portal()
        row, etag = server.read(f"endpoints/{_endpoint(server, endpoint)}")
        done = server.post(f"endpoints/{row['uid']}/{path}", {"reason": reason}, etag=etag)
        output.one(_flat(done), as_json=as_json)

    return run


step = _action("step", "step", "Take the next rung of the canary's ladder.")
promote = _action("promote", "promote", "Give the canary all traffic.")
hold = _action("hold", "hold", "Keep the canary where it is.")
resume = _action("resume", "resume", "Let a held canary go on.")
roll_back = _action("roll-back", "roll-back", "Take the canary off, or go back to the release before.")


def _endpoint(server: Portal, name: str) -> str:
    if is_uid(name):
        return name
    found = list(server.every("endpoints", name=name))
    if not found:
        raise Failed(f"There is no endpoint {name} in your reach.")
    if len(found) > 1:
        raise Failed(f"There are several endpoints {name}: give the uid, see `commons deploy list --json`.")
    return str(found[0]["uid"])


def _rung(text: str) -> dict[str, int]:
    traffic, _, hours = text.partition(":")
    if not (traffic.isdigit() and hours.isdigit()):
        raise click.BadParameter("write 10:24 for 10 % over 24 hours", param_hint="--canary")
    return {"traffic": int(traffic), "hours": int(hours)}


def _watched(server: Portal, uid: str, seconds: float) -> dict[str, Any]:
    ends, said, pause = time.monotonic() + seconds, "", 0.5
    while True:
        row = dict(server.get(f"releases/{uid}"))
        if row["status"] != said:
            said = row["status"]
            click.echo(f"{datetime.now(UTC):%H:%M:%S} UTC  {said.replace('_', ' ')}", err=True)
        if said in _ENDED:
            return row
        if time.monotonic() > ends:
            raise Failed(f"Still {said} after {seconds:.0f} s.")
        time.sleep(pause)
        pause = min(15.0, pause * 1.5)


def _short(row: dict[str, Any]) -> dict[str, Any]:
    names = ("uid", "status", "endpoint", "number", "model_version", "flavour", "monthly_cost", "approval")
    return {name: row.get(name) for name in names}


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    sides = {side: f"release {row[side]['number']}" if row.get(side) else "" for side in ("current", "candidate")}
    return {**row, **sides, "traffic": f"{row['traffic']} %" if row.get("candidate") else ""}
