"""Every named route × every persona: who gets through, who is told nothing, and that nobody reads foreign rows.

A view cannot ship without being declared in `tests/sweep/routes/<room>.py`.
"""

from __future__ import annotations

import json
import logging
import re
import uuid
import zlib
from contextlib import nullcontext
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, quote

import pytest
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import resolve, reverse

from apps.accounts import sessions
from apps.accounts.api_auth import needed_by
from apps.core.models import OutboxMessage
from apps.notifications import delivery
from apps.notifications.models import Notification, SentMail
from portal import health
from tests.sweep import world as worlds
from tests.sweep.implied import AS_FILE, SEARCHED, api_methods, implied
from tests.sweep.types import ALL, NARROW, PERSONAS, READERS, TOKENS, Route

#: Every persona is in exactly one share; a share has some that get through to much and some that are refused much.
_SHARES = [ALL[first::2] for first in range(2)]
#: Who reads every tenant's pages, beside platform admins; nothing there is foreign to them.
_READ_ALL = ("compliance", "finance", "auditor")
#: Whose refusals are compared with those for rows that do not exist: one outsider says it for all.
_COMPARED = "lead_marketing"
#: Who searches lists: outsiders, to whom most of what a list has is foreign.
SEARCHING = frozenset({"lead_marketing", "vp_other"})
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32}")


@pytest.mark.requirement("shell-1.1")
def test_every_persona_has_one_share() -> None:
    assert sorted(persona for share in _SHARES for persona in share) == sorted(ALL)
    assert len(set(ALL)) == len(PERSONAS) + len(TOKENS) + len(READERS)


@pytest.mark.requirement("shell-1.1")
def test_every_route_is_declared_and_every_declared_route_exists() -> None:
    exist = set(worlds.named_routes())
    known = {name.partition("#")[0] for name in worlds.declared()}
    assert not exist - known, f"declare in tests/sweep/routes/: {sorted(exist - known)}"
    assert not known - exist, f"declared, but no such route: {sorted(known - exist)}"
    asked = {(name.partition("#")[0], route.method) for name, route in worlds.declared().items()}
    assert not api_methods() - asked, f"declare each method, too: {sorted(api_methods() - asked)}"
    assert len(api_methods()) > 400


@pytest.mark.requirement("tenant-walls-1.1")
def test_lists_are_searched_too() -> None:
    searched = [name for name in implied(worlds.declared()) if name.endswith(SEARCHED)]
    assert len(searched) > 30


@pytest.mark.requirement("shell-1.1", "shell-1.2", "shell-1.3")
@pytest.mark.requirement("tenant-walls-1.1", "tenant-walls-1.2", "tenant-walls-1.3", "tenant-walls-1.4")
@pytest.mark.parametrize(
    "personas",
    # A test for each of two processes: the sweep is the longest single thing there is, and its world takes seconds.
    [pytest.param(some, id=f"{some[0]} and others") for some in _SHARES],
)
def test_every_route_for_every_persona(db: None, monkeypatch: pytest.MonkeyPatch, personas: tuple[str, ...]) -> None:
    sweep(monkeypatch, personas, every=False)


@pytest.mark.full
@pytest.mark.requirement("shell-1.1", "shell-1.2")
def test_whoever_sees_everything_opens_every_page(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the test above: each of them, not one in turn."""
    sweep(monkeypatch, _READ_ALL, every=True)


def sweep(monkeypatch: pytest.MonkeyPatch, personas: tuple[str, ...], *, every: bool) -> None:
    """Request every route as these personas, or (unless `every`) leave out what is `alike`."""
    # A thousand refusals are the point here; their log lines would bury the failures.
    monkeypatch.setattr(logging.getLogger("django.request"), "disabled", True)
    # Whether a probe answers within 500 ms depends on the load of the machine (and has its own tests), not on roles.
    monkeypatch.setattr(health, "TIMEOUT_SECONDS", 30.0)
    # That a session was used is noted once a minute; rolled back with each request, it would be noted for each anew.
    monkeypatch.setattr(sessions, "SEEN_GRAIN", timedelta(days=1))
    worlds.remember(monkeypatch, compared=f"{_COMPARED.replace('_', '-')}@example.com")
    world = worlds.build()
    assert world.people[_COMPARED].email == f"{_COMPARED.replace('_', '-')}@example.com"
    clients = worlds.clients(world)
    failures: list[str] = []
    declared = worlds.declared()
    for name, route in (declared | implied(declared)).items():
        try:
            kwargs = dict(route.kwargs(world))
            url = reverse(name.partition("#")[0], kwargs=kwargs) + route.query
        except Exception as error:  # noqa: BLE001 (a broken declaration is one failure of many, not the end of the sweep)
            failures.append(f"{name}: its URL cannot be built: {type(error).__name__}: {error}")
            continue
        # A letter that is searched for is no secret that the request brought along.
        typed = [] if name.endswith(SEARCHED) else dict(parse_qsl(route.query[1:])).values()
        own = [url, quote(url), *(str(value) for value in kwargs.values()), *typed]
        for persona in personas:
            if differs(name, route, persona) and (every or not alike(name, route, persona)):
                failures += check(world, clients[persona], name, route, persona, url, own)
    failures += told(world, personas)
    assert not failures, f"{len(failures)} failures:\n" + "\n".join(failures)


def alike(name: str, route: Route, persona: str) -> bool:
    """Whether another of those who see everything opens this page, too: `make test` opens it as one of them in turn.

    Who is refused is asked every time, and so is whoever changes something.
    """
    allowed = [one for one in _READ_ALL if one in route.allowed]
    if persona not in allowed or route.method != "GET":
        return False
    return persona != allowed[zlib.crc32(name.encode()) % len(allowed)]


def told(world: SimpleNamespace, personas: tuple[str, ...]) -> list[str]:
    """Spread what the world's making told people; returns what mails and notices show to whom it is foreign."""
    found = []
    with transaction.atomic():
        delivery.spread_due(limit=5000)
        assert Notification.objects.count() > 5
        assert not OutboxMessage.objects.filter(delivered_at__isnull=True).exists(), "some cannot be read"
        for persona in personas:
            person = world.people.get(persona)
            mails = SentMail.objects.filter(user=person).values_list("event", "subject", "body_text", "body_html")
            notices = Notification.objects.filter(user=person).values_list("event", "title", "body", "path")
            for event, *texts in [*mails, *notices] if person is not None else []:
                if shown := worlds.leaks(" ".join(texts), world.secrets[persona], []):
                    found.append(f"what tells {persona} of {event}: shows {shown}")
        transaction.set_rollback(True)
    return found


def differs(name: str, route: Route, persona: str) -> bool:
    """Whether a route can answer this persona otherwise than somebody who is asked anyway."""
    if name.endswith(AS_FILE):
        return persona not in worlds.SEES_ALL | {"anonymous", "deactivated"} | set(TOKENS)
    if name.endswith(SEARCHED):
        return persona in SEARCHING
    if persona in TOKENS:
        return name.startswith("api:")  # pages know no tokens
    if persona in READERS:
        return route.method == "GET" and not route.public  # an auditor changes nothing, whatever the unit
    return True


def check(
    world: SimpleNamespace, client: Client, name: str, route: Route, persona: str, url: str, own: list[str]
) -> list[str]:
    """Request one route as one persona; whatever it wrote is rolled back. Returns what is wrong, as lines."""
    where = f"{name} as {persona}"
    is_api = name.startswith("api:")
    compared = persona == _COMPARED and route.method == "GET" and _UUID.search(url) is not None
    with transaction.atomic():
        with CaptureQueriesContext(connection) if compared else nullcontext() as asked:
            response = send(client, route, url, world, is_api=is_api)
        body = text_of(response)
        transaction.set_rollback(True)
    found = [f"{where}: {problem}" for problem in judge(route, persona, response, is_api=is_api, url=url)]
    if compared and asked is not None and response.status_code == 404:
        found += [f"{where}: {problem}" for problem in unlike_missing(client, url, response, len(asked))]
    headers = " ".join(f"{key}: {value}" for key, value in response.items())
    sent = [str(value) for value in route.data(world).values()]
    shown = worlds.leaks(f"{body} {headers}", world.secrets[persona], [*own, *sent])
    if shown:
        found.append(f"{where}: shows {shown} (status {response.status_code})")
    return found


def text_of(response: Any) -> str:
    """Return a response's body as text."""
    body: bytes = b"".join(response.streaming_content) if response.streaming else response.content
    return body.decode(errors="replace")


def unlike_missing(client: Client, url: str, foreign: Any, statements: int) -> list[str]:
    """Return in what a refusal for a foreign row differs from one for a row that does not exist: nothing may.

    Speed is held to the number of statements, which is what a clock would show; the texts to each other without ids.
    """
    found = _differences(client, url, foreign, statements)
    if found:
        # A message of the request before, or the minute's note that the session is in use, may stand in the first one.
        with transaction.atomic():
            with CaptureQueriesContext(connection) as asked:
                again = client.get(url)
            transaction.set_rollback(True)
        found = _differences(client, url, again, len(asked))
    return found


def _differences(client: Client, url: str, foreign: Any, statements: int) -> list[str]:
    other = _UUID.sub(str(uuid.uuid4()), url)
    with transaction.atomic():
        with CaptureQueriesContext(connection) as asked:
            missing = client.get(other)
        transaction.set_rollback(True)
    if missing.status_code != 404:
        return [f"a missing row answers {missing.status_code}, a foreign one 404"]
    found = []
    if len(asked) != statements:
        found.append(f"a foreign row takes {statements} statements, a missing one {len(asked)}")
    if _shape(foreign) != _shape(missing):
        found.append("a foreign row reads differently from a missing one")
    return found


def _shape(response: Any) -> tuple[str, list[tuple[str, str]]]:
    """Return a response without what differs between any two: ids, the request's own, tokens against forgery."""
    body = _UUID.sub("·", text_of(response))
    body = re.sub(r"csrf\w*\W+[\w\W]{0,30}?[A-Za-z0-9]{64}|[A-Za-z0-9]{64}|nonce-[\w+/=-]+", "·", body)
    skipped = {"x-request-id", "content-security-policy", "set-cookie", "content-length"}
    return body, sorted((key, value) for key, value in response.items() if key.lower() not in skipped)


def send(client: Client, route: Route, url: str, world: SimpleNamespace, *, is_api: bool) -> Any:
    """Send the request the way its users do: forms to pages, JSON to the API."""
    data = dict(route.data(world))
    if route.method == "GET":
        return client.get(url)
    if is_api:
        return client.generic(route.method, url, json.dumps(data, default=str), content_type="application/json")
    return client.post(url, data)


def judge(route: Route, persona: str, response: Any, *, is_api: bool, url: str = "") -> list[str]:
    """Return what is wrong with a status."""
    status = response.status_code
    if status >= 500:
        cause = response.exc_info[1] if getattr(response, "exc_info", None) else ""
        return [f"status {status} {type(cause).__name__}: {cause}"]
    if persona in READERS:
        return []
    if persona == "token_narrow":
        open_to_it = route.public or needed_by_route(route, url) in ("", NARROW)
        return (
            [] if open_to_it or status in (403, 404) else [f"the token does not carry it, but the status is {status}"]
        )
    if persona == "service":
        # What its members may, or less: judgement and a person's own things are not for programs.
        through = "member_finance" in route.allowed or route.public
        return [] if through or status in (403, 404) else [f"no member may, but the status is {status}"]
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


def needed_by_route(route: Route, url: str) -> str | None:
    """Return the permission that a limited token must carry for a route; "" for none."""
    func: Any = resolve(url.partition("?")[0]).func
    view = func.cls()
    view.action = getattr(func, "actions", {}).get(route.method.lower(), "call")
    return needed_by(view)


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
