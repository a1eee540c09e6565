"""The world of the sweep: the sample company, a foreign tenant, and what each room's `build(world)` adds."""

from __future__ import annotations

import importlib
import pkgutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from datetime import timedelta
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from django.contrib.sessions.backends.base import SessionBase
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from apps.accounts import sessions
from apps.accounts.actions import create_token
from apps.accounts.models import SignInSession
from apps.core import clock
from apps.core.actor import Actor
from apps.core.checks import ROOM_ORDER
from apps.teams.service_actions import create_service_token
from portal import context, errors, navigation
from tests.factories import client_for, grant, make_company, make_member, make_team, make_user
from tests.sweep import routes
from tests.sweep.types import ALL, NARROW, PERSONAS, READERS, TOKENS, Route

#: Who sees everything of every tenant by their role.
SEES_ALL = frozenset({"compliance", "finance", "admin", "auditor"})


def named_routes() -> list[str]:
    """Return the full name of every route, pages and API. Raises AssertionError for one without a name."""
    return sorted(set(_walk(get_resolver().url_patterns, "")))


def _walk(patterns: Iterable[Any], namespace: str) -> Iterator[str]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            inner = f"{namespace}{pattern.namespace}:" if pattern.namespace else namespace
            yield from _walk(pattern.url_patterns, inner)
        elif isinstance(pattern, URLPattern):
            assert pattern.name, f"a route without a name: {pattern.pattern}"
            yield f"{namespace}{pattern.name}"


def modules() -> list[ModuleType]:
    """Return the route files of the rooms, in the order of the house; a large room has several (costs_periods …)."""
    names = [module.name for module in pkgutil.iter_modules(routes.__path__)]
    place = {room: index for index, room in enumerate(ROOM_ORDER)}
    names.sort(key=lambda name: (place.get(name.partition("_")[0], -1), name))
    return [importlib.import_module(f"tests.sweep.routes.{name}") for name in names]


def declared() -> dict[str, Route]:
    """Return every declared route; a key `name#POST` declares a further request to the same route.

    Raises AssertionError for a route that two rooms declare.
    """
    found: dict[str, Route] = {}
    for module in modules():
        for name, route in module.ROUTES.items():
            assert name not in found, f"{name} is declared twice, the second time in {module.__name__}"
            found[name] = route
    return found


def build() -> SimpleNamespace:
    """Make the world: personas, a foreign tenant, then what each room contributes, in the order of the house.

    `world.keep_secret(text, …, sees={…})` states who may ever read these texts; everybody who sees all tenants may.
    """
    company = make_company()
    world = SimpleNamespace(**vars(company), company=company, secrets=defaultdict(list))
    world.expired = make_user("expired@example.com", display_name="Former lead")
    grant(world.expired, "team_lead", team=company.finance_team, expires_at=clock.now() - timedelta(days=1))
    world.deactivated = make_user("deactivated@example.com", display_name="Former admin")
    grant(world.deactivated, "platform_admin")
    world.foreign_team = make_team("Quagga research", company.other_unit, cost_centre="CC-QUAGGA")
    world.foreign_lead = make_user("lead-quagga@example.com", display_name="Quagga research team lead")
    grant(world.foreign_lead, "team_lead", team=world.foreign_team)
    make_member(world.foreign_lead, world.foreign_team)
    world.auditor_other = make_user("auditor-other@example.com")
    grant(world.auditor_other, "auditor", unit=company.other_unit)
    world.people = {name: getattr(world, name) for name in (*PERSONAS, *READERS) if name != "anonymous"}

    def keep_secret(*texts: object, sees: Iterable[str] = ()) -> None:
        # Who reads like whom: a team's program like its members, an auditor of a unit like its owner.
        like = {"service": "member_finance", "auditor_other": "vp_other"}
        for name in ALL:
            if name not in SEES_ALL and name not in sees and like.get(name) not in sees:
                world.secrets[name].extend(str(text) for text in texts)

    world.keep_secret = keep_secret
    keep_secret(
        world.foreign_team.uid, world.foreign_team.name, "CC-QUAGGA", world.foreign_lead.email, sees={"vp_other"}
    )
    keep_secret(
        company.finance_team.uid, company.finance_team.cost_centre, sees={"member_finance", "lead_finance", "vp"}
    )
    keep_secret(company.marketing_team.uid, company.marketing_team.cost_centre, sees={"lead_marketing", "vp"})
    for module in modules():
        contribute: Callable[[SimpleNamespace], None] | None = getattr(module, "build", None)
        if contribute is not None:
            contribute(world)
    return world


def clients(world: SimpleNamespace) -> dict[str, Client]:
    """Return a client per persona. The deactivated one signed in while active: the open session must be dead now."""
    found = {name: client_for(person) for name, person in world.people.items()}
    world.deactivated.is_active = False
    world.deactivated.save(update_fields=["is_active"])
    found["anonymous"] = Client()
    for name, secret in zip(TOKENS, _tokens(world), strict=True):
        found[name] = Client(headers={"authorization": f"Bearer {secret}"})
    for client in found.values():
        client.raise_request_exception = False
    return found


def remember(monkeypatch: pytest.MonkeyPatch, *, compared: str = "") -> None:
    """Find out once what no request of the sweep can change: who signed in where, what the shell counts for them, and
    how a refusal in the same words looks.

    Whatever a request wrote is rolled back, so all are at every one of thousands of requests as they were at the
    first; asking anew would be a third of the sweep. Refusals of the person with the address `compared` are drawn
    every time: they are held against each other.
    """
    counted: dict[Any, dict[str, int]] = {}
    opened: dict[Any, SignInSession | None] = {}
    count, open_session = navigation.counts_for, sessions.session_of

    def counts_for(request: HttpRequest) -> dict[str, int]:
        if request.user.pk not in counted:
            counted[request.user.pk] = count(request)
        return counted[request.user.pk]

    def session_of(store: SessionBase) -> SignInSession | None:
        if store.session_key not in opened:
            opened[store.session_key] = open_session(store)
        # Rows of its own for each request, before anything is noted on them.
        return deepcopy(opened[store.session_key])

    drawn: dict[Any, str] = {}
    draw = errors.draw

    def refusal(request: Any, status: int, **words: Any) -> HttpResponse:
        # A page of nothing but the shell and these words, apart from the address.
        person = getattr(request, "user", None)
        if status >= 500 or not getattr(person, "pk", None) or person.email == compared:
            return draw(request, status, **words)
        key = (person.pk, status, request.method, repr(sorted(words.items())))
        if key not in drawn:
            drawn[key] = draw(request, status, **words).content.decode().replace(request.path, "")
        return HttpResponse(drawn[key], status=status, headers={"Cache-Control": "no-store"})

    for module in (navigation, context):
        monkeypatch.setattr(module, "counts_for", counts_for)
    monkeypatch.setattr(sessions, "session_of", session_of)
    monkeypatch.setattr(errors, "draw", refusal)


def _tokens(world: SimpleNamespace) -> tuple[str, str]:
    """Return the secrets of the tokens of `TOKENS`, in that order."""
    until = clock.now() + timedelta(days=30)
    admin, lead = Actor.of(world.admin), Actor.of(world.lead_finance)
    narrow = create_token(world.admin.pk, "Narrow", until, False, actor=admin, permissions=[NARROW])[1]
    program = create_service_token(world.service_account.pk, "Sweep", until, False, actor=lead)[1]
    return narrow, program


def leaks(text: str, secrets: Iterable[str], own: Iterable[str]) -> list[str]:
    """Return the secrets that a response shows, apart from what the request itself brought along (`own`)."""
    for echo in sorted({part for part in own if part}, key=len, reverse=True):
        text = text.replace(echo, "")
    return sorted({secret for secret in secrets if secret and secret in text})
