"""Every named route × every persona: who gets through, who is told nothing, and that nobody reads foreign rows.

A view cannot ship without being declared in `tests/sweep/routes/<room>.py`.
"""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, quote

import pytest
from django.db import transaction
from django.test import Client
from django.urls import reverse

from portal import health
from tests.sweep import world as worlds
from tests.sweep.types import PERSONAS, Route

#: Every persona is in exactly one share; a share has some that get through to much and some that are refused much.
_SHARES = [PERSONAS[first::4] for first in range(4)]


@pytest.mark.requirement("shell-1.1")
def test_every_persona_has_one_share() -> None:
    assert sorted(persona for share in _SHARES for persona in share) == sorted(PERSONAS)


@pytest.mark.requirement("shell-1.1")
def test_every_route_is_declared_and_every_declared_route_exists() -> None:
    exist = set(worlds.named_routes())
    known = {name.partition("#")[0] for name in worlds.declared()}
    assert not exist - known, f"declare in tests/sweep/routes/: {sorted(exist - known)}"
    assert not known - exist, f"declared, but no such route: {sorted(known - exist)}"


@pytest.mark.requirement("shell-1.1", "shell-1.2", "shell-1.3")
@pytest.mark.parametrize(
    "personas",
    # Side by side, a test each: the sweep is the longest single thing there is.
    [pytest.param(some, id="+".join(some), marks=pytest.mark.xdist_group(f"sweep as {some[0]}")) for some in _SHARES],
)
def test_every_route_for_every_persona(db: None, monkeypatch: pytest.MonkeyPatch, personas: tuple[str, ...]) -> None:
    # A thousand refusals are the point here; their log lines would bury the failures.
    monkeypatch.setattr(logging.getLogger("django.request"), "disabled", True)
    # Whether a probe answers within 500 ms depends on the load of the machine (and has its own tests), not on roles.
    monkeypatch.setattr(health, "TIMEOUT_SECONDS", 30.0)
    world = worlds.build()
    clients = worlds.clients(world)
    failures: list[str] = []
    for name, route in worlds.declared().items():
        try:
            kwargs = dict(route.kwargs(world))
            url = reverse(name.partition("#")[0], kwargs=kwargs) + route.query
        except Exception as error:  # noqa: BLE001 (a broken declaration is one failure of many, not the end of the sweep)
            failures.append(f"{name}: its URL cannot be built: {type(error).__name__}: {error}")
            continue
        own = [url, quote(url), *(str(value) for value in kwargs.values()), *dict(parse_qsl(route.query[1:])).values()]
        for persona in personas:
            failures += check(world, clients[persona], name, route, persona, url, own)
    assert not failures, f"{len(failures)} failures:\n" + "\n".join(failures)


def check(
    world: SimpleNamespace, client: Client, name: str, route: Route, persona: str, url: str, own: list[str]
) -> list[str]:
    """Request one route as one persona; whatever it wrote is rolled back. Returns what is wrong, as lines."""
    where = f"{name} as {persona}"
    is_api = name.startswith("api:")
    with transaction.atomic():
        response = send(client, route, url, world, is_api=is_api)
        body = (
            b"".join(response.streaming_content).decode(errors="replace")
            if response.streaming
            else response.content.decode(errors="replace")
        )
        transaction.set_rollback(True)
    found = [f"{where}: {problem}" for problem in judge(route, persona, response, is_api=is_api)]
    headers = " ".join(f"{key}: {value}" for key, value in response.items())
    sent = [str(value) for value in route.data(world).values()]
    shown = worlds.leaks(f"{body} {headers}", world.secrets[persona], [*own, *sent])
    if shown:
        found.append(f"{where}: shows {shown} (status {response.status_code})")
    return found


def send(client: Client, route: Route, url: str, world: SimpleNamespace, *, is_api: bool) -> Any:
    """Send the request the way its users do: forms to pages, JSON to the API."""
    data = dict(route.data(world))
    if route.method == "GET":
        return client.get(url)
    if is_api:
        return client.generic(route.method, url, json.dumps(data, default=str), content_type="application/json")
    return client.post(url, data)


def judge(route: Route, persona: str, response: Any, *, is_api: bool) -> list[str]:
    """Return what is wrong with a status."""
    status = response.status_code
    if status >= 500:
        cause = response.exc_info[1] if getattr(response, "exc_info", None) else ""
        return [f"status {status} {type(cause).__name__}: {cause}"]
    if route.public:
        return [] if status in route.ok else [f"is public, but the status is {status}"]
    if persona in ("anonymous", "deactivated"):
        to_sign_in = status in (302, 303) and "/sign-in/" in response.get("Location", "")
        if to_sign_in or status == 401:
            return []
        # The bell answers 286, htmx's word for "stop asking": a poll must not take a page away.
        return (
            [f"must be 401, is {status}"] if is_api else [] if status == 286 else [f"must lead to sign-in, is {status}"]
        )
    if persona in route.allowed:
        return [] if status in route.ok else [f"is allowed, but the status is {status}"]
    return [] if status in (403, 404) else [f"must be 403 or 404, is {status}"]


@pytest.mark.requirement("shell-1.3")
@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("team CC-QUAGGA here", ["CC-QUAGGA"]),
        ("/teams/CC-QUAGGA/ is not yours", []),
        ("/teams/CC-QUAGGA/ and CC-QUAGGA", ["CC-QUAGGA"]),
        ("nothing", []),
    ],
)
def test_a_leak_is_found_and_an_echo_is_none(body: str, shown: list[str]) -> None:
    assert worlds.leaks(body, ["CC-QUAGGA"], ["/teams/CC-QUAGGA/"]) == shown
