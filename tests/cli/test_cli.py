"""The command line, end to end against the portal's API."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import stat
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from apps.accounts.actions import create_token
from apps.accounts.models import User
from apps.core import clock
from apps.core.actor import Actor
from apps.deployments.models import Release
from apps.quotas.models import QuotaRequest
from tests.deployments.world import make_world as make_serving
from tests.quotas.conftest import REASON, World, make_world

Run = Callable[..., Any]
URL = "http://localhost"


@pytest.fixture
def world(company: Any) -> World:
    return make_world(company)


def token(user: User, *, read_only: bool = False) -> str:
    return create_token(user.pk, "cli", clock.now() + timedelta(days=1), read_only, actor=Actor.of(user))[1]


@pytest.fixture
def as_person(monkeypatch: pytest.MonkeyPatch) -> Callable[[User], None]:
    def sign_in(user: User) -> None:
        monkeypatch.setenv("COMMONS_URL", URL)
        monkeypatch.setenv("COMMONS_TOKEN", token(user))

    return sign_in


def request_uid(result: Any) -> str:
    return str(json.loads(result.stdout)["uid"])


@pytest.mark.requirement("cli-1.1")
def test_login_keeps_the_token_where_only_its_owner_reads(world: World, commons: Run, tmp_path: Path) -> None:
    nobody = commons("whoami")
    assert nobody.exit_code == 3
    assert "commons login" in nobody.stderr
    secret = token(world["lead_finance"])
    done = commons("login", "--url", URL + "/", given=secret + "\n")
    assert done.exit_code == 0, done.output
    assert secret not in done.output
    file = tmp_path / "gpu-commons" / "config.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert world["lead_finance"].email in commons("whoami").output
    assert commons("login", "--url", "http://portal.example.com", given=secret + "\n").exit_code == 2
    wrong = commons("login", "--url", URL, given="gpuc_wrong\n")
    assert wrong.exit_code == 3
    assert json.loads(file.read_text())["token"] == secret, "a wrong token replaces nothing"
    assert commons("logout").exit_code == 0
    assert not file.exists()
    file.write_text("{")
    assert "damaged" in commons("whoami").stderr


@pytest.mark.requirement("cli-2.1", "cli-2.2")
def test_quota_is_requested_approved_and_listed(world: World, commons: Run, as_person: Any) -> None:
    as_person(world["lead_finance"])
    namespace = world.workspaces["finance"].namespace
    asked = commons(
        "quota",
        "request",
        namespace,
        "--flavour",
        world.flavour.slug,
        "--guaranteed",
        "8",
        "--reason",
        REASON,
        "--json",
    )
    assert asked.exit_code == 0, asked.output
    uid = request_uid(asked)
    assert json.loads(asked.stdout)["monthly_cost_change"]["amount"] == "22484.00"
    assert commons("approve").stderr.startswith("Nothing"), "nobody decides on what they requested"
    as_person(world["vp"])
    waiting = commons("approve")
    approval = QuotaRequest.objects.get(uid=uid).approval
    assert approval is not None
    assert str(approval.uid) in waiting.output
    assert commons("approve", str(approval.uid)).exit_code == 2, "a reason is needed"
    refused = commons("approve", str(approval.uid), "--reason", "Within the plan.", given="n\n")
    assert refused.exit_code == 1
    done = commons("approve", str(approval.uid), "--reason", "Within the plan.", "--yes", "--json")
    assert json.loads(done.stdout)["status"] == "approved", done.output
    as_person(world["lead_finance"])
    listed = commons("quota", "list", "--json")
    rows = json.loads(listed.stdout)
    assert [(row["namespace"], row["guaranteed"]) for row in rows] == [(namespace, 8)]
    assert namespace in commons("quota", "list", "--workspace", namespace).output


@pytest.mark.requirement("cli-2.3")
def test_watching_ends_with_the_verdict(world: World, commons: Run, as_person: Any) -> None:
    as_person(world["lead_finance"])
    uid = request_uid(
        commons(
            "quota", "request", str(world.workspaces["finance"].uid), "--flavour", world.flavour.slug, "--guaranteed",
            "8", "--reason", REASON, "--json",
        )
    )  # fmt: skip
    approval = QuotaRequest.objects.get(uid=uid).approval
    assert approval is not None
    as_person(world["vp"])
    assert commons("reject", str(approval.uid), "--reason", "Not in this quarter.", "--yes").exit_code == 0
    as_person(world["lead_finance"])
    watched = commons("quota", "watch", uid)
    assert watched.exit_code == 5
    assert "rejected" in watched.stderr


@pytest.mark.requirement("cli-1.2")
def test_a_lost_answer_does_nothing_twice(world: World, commons: Run, as_person: Any, wire: Any) -> None:
    as_person(world["lead_finance"])
    uid = str(world.workspaces["finance"].uid)
    arguments = ("quota", "request", uid, "--flavour", world.flavour.slug, "--guaranteed", "8", "--reason", REASON)
    before = commons("quota", "list")
    assert before.exit_code == 0
    posts: list[str] = []
    original = type(wire).send

    def lossy(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        if request.method == "POST":
            posts.append(request.headers["Idempotency-Key"])
            self.lose = int(len(posts) == 1)
        return original(self, request, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(wire), "send", lossy)
        done = commons(*arguments)
    assert done.exit_code == 0, done.output
    assert len(posts) == 2
    assert len(set(posts)) == 1
    assert QuotaRequest.objects.count() == 1


@pytest.mark.requirement("cli-1.3")
def test_refusals_are_sentences_with_exit_codes(world: World, commons: Run, as_person: Any, wire: Any) -> None:
    as_person(world["lead_finance"])
    flavour = world.flavour.slug
    foreign = commons("quota", "request", "nobody-knows", "--flavour", flavour, "--guaranteed", "1", "--reason", REASON)
    assert (foreign.exit_code, "no workspace" in foreign.stderr) == (1, True)
    other = str(world.workspaces["marketing"].uid)
    assert commons("quota", "request", other, "--flavour", flavour, "--guaranteed", "1", "--reason", "x").exit_code == 1
    own = world.workspaces["finance"].namespace
    wrong = commons("quota", "request", own, "--flavour", "no-such", "--guaranteed", "1", "--reason", REASON)
    assert (wrong.exit_code, "flavour: There is no such flavour." in wrong.stderr) == (1, True)
    assert commons("quota", "request", own, "--flavour", flavour).exit_code == 2
    wire.failures = [requests.ConnectionError("refused")] * 4
    away = commons("quota", "list")
    assert (away.exit_code, "cannot be reached" in away.stderr) == (4, True)
    wire.failures = [503, 429]
    assert commons("quota", "list").exit_code == 0, "a busy moment passes"


@pytest.mark.requirement("cli-3.1")
def test_costs_of_a_month_as_csv(commons: Run, as_person: Any, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    as_person(world["lead_finance"])
    none = commons("cost", "report", "2026-09")
    assert (none.exit_code, "not closed yet" in none.stderr) == (1, True)
    assert commons("cost", "report", "September").exit_code == 2
    row = {
        "number": "2026-09-1", "owner_kind": "team", "team_name": "=cmd|x", "unit_name": "", "cost_centre": "CC-1",
        "gpu_ms": 36_000_000, "amount": "-38.50", "currency": "USD",
    }  # fmt: skip
    monkeypatch.setattr("gpu_commons_cli.client.Portal.every", lambda self, path, **params: iter([row]))
    written = list(csv.DictReader(io.StringIO(commons("cost", "report", "2026-09", "--csv").stdout)))
    assert written == [
        {
            "number": "2026-09-1", "owner_kind": "team", "owner": "'=cmd|x", "cost_centre": "CC-1",
            "gpu_hours": "10.000", "amount": "-38.50", "currency": "USD",
        }
    ]  # fmt: skip


@pytest.mark.requirement("cli-3.1")
def test_a_units_month_line_by_line(commons: Run, as_person: Any, world: World) -> None:
    as_person(world["vp"])
    shown = commons("cost", "month", "retail-bank", "2026-09", "--json")
    assert shown.exit_code == 0, shown.output
    lines = json.loads(shown.stdout)
    assert {"total", "unallocated_total"} <= {line["line"] for line in lines}
    written = list(csv.DictReader(io.StringIO(commons("cost", "month", "retail-bank", "2026-09", "--csv").stdout)))
    assert [row["line"] for row in written] == [line["line"] for line in lines]
    assert commons("cost", "month", "retail-bank", "September").exit_code == 2
    foreign = commons("cost", "month", "other-unit", "2026-09")
    assert foreign.exit_code == 1


@pytest.mark.requirement("cli-1.5")
def test_the_shell_completes_commands(commons: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for shell in ("bash", "zsh", "fish"):
        printed = commons("completion", shell)
        assert printed.exit_code == 0, printed.output
        assert "_COMMONS_COMPLETE" in printed.stdout
    monkeypatch.setenv("_COMMONS_COMPLETE", "zsh_complete")
    monkeypatch.setenv("COMP_WORDS", "commons quota ")
    monkeypatch.setenv("COMP_CWORD", "2")
    from gpu_commons_cli.main import commons as group

    with pytest.raises(SystemExit), contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())) as said:
        group(prog_name="commons", args=[])
    said.flush()
    assert {"list", "request", "watch"} <= set(said.buffer.getvalue().decode().split())


@pytest.mark.requirement("cli-2.4")
def test_the_kubeconfig_is_the_persons_own(world: World, commons: Run, as_person: Any) -> None:
    as_person(world["lead_finance"])
    given = commons("kubeconfig", world.workspaces["finance"].namespace)
    assert given.exit_code == 0, given.output
    config = yaml.safe_load(given.stdout)
    assert config["users"][0]["name"] == world["lead_finance"].email
    assert config["contexts"][0]["context"]["namespace"] == world.workspaces["finance"].namespace
    as_person(world["lead_marketing"])
    assert commons("kubeconfig", world.workspaces["finance"].namespace).exit_code == 1


@pytest.mark.requirement("cli-1.4")
def test_it_needs_nothing_of_the_portal() -> None:
    folder = Path(__file__).resolve().parents[2] / "cli" / "gpu_commons_cli"
    for file in folder.glob("*.py"):
        for line in file.read_text().splitlines():
            if line.startswith(("import ", "from ")):
                assert line.split()[1].split(".")[0] not in ("django", "apps", "portal", "launcher"), (file, line)


@pytest.mark.requirement("cli-4.1")
def test_a_release_is_asked_for_watched_promoted_and_taken_back(
    company: Any, commons: Run, as_person: Any, frozen_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_serving(company)
    as_person(company.lead_finance)
    place = str(world.workspaces["development"].uid)
    wish = ("--workspace", place, "--flavour", world.flavour.slug, "--reason", REASON, "--json")
    first = commons("deploy", "start", "fraud", "--version", str(world.version.uid), *wish)
    assert first.exit_code == 0, first.output
    released = Release.objects.get(uid=request_uid(first))
    world.load(released)
    assert json.loads(commons("deploy", "watch", str(released.uid), "--json").stdout)["status"] == "live"
    second = world.next_version()
    asked = commons(
        "deploy", "start", "fraud", "--version", str(second.uid), "--canary", "10:1", "--canary", "50:1", *wish
    )
    assert asked.exit_code == 0, asked.output
    canary = world.load(Release.objects.get(uid=request_uid(asked)))
    assert canary.status == "canary"
    assert "10 %" in commons("deploy", "list").output
    promoted = commons("deploy", "promote", "fraud", "--reason", "Better on every slice.", "--json")
    assert promoted.exit_code == 0, promoted.output
    back = commons("deploy", "roll-back", "fraud", "--reason", "Slower than before.", "--json")
    assert back.exit_code == 0, back.output
    assert commons("deploy", "promote", "nobody").exit_code == 1
    assert commons("deploy", "start", "fraud", "--version", str(second.uid), "--canary", "ten", *wish).exit_code == 2
    as_person(company.lead_marketing)
    assert "fraud" not in commons("deploy", "list").output
