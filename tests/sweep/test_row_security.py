"""The second wall: with `visible_to` turned off, the database still shows nobody a foreign row."""

from __future__ import annotations

import logging
from collections.abc import Collection
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, quote

import pytest
from django.urls import reverse

from apps.approvals.models import ApprovalRequest, Comment, Decision, EmergencyReview, Grant, Stage, StandardLoss
from apps.catalogue.models import (
    CardRevision,
    Evidence,
    Model,
    ModelRequest,
    ModelVersion,
    Recertification,
    StoredCopy,
    VersionException,
)
from apps.core import row_security
from apps.costs.models import Statement, StatementFile, StatementLine, WhatIfRun
from apps.deployments.models import Endpoint, Release
from apps.quotas.models import ChangeRequest, QuotaRequest
from portal import health
from tests.factories import client_for
from tests.sweep import world as worlds
from tests.sweep.test_sweep import check

#: Everything behind the second wall.
WALLED: tuple[Any, ...] = (
    ApprovalRequest, Stage, Decision, Grant, Comment, EmergencyReview, StandardLoss, QuotaRequest, ChangeRequest,
    Statement, StatementLine, StatementFile, Model, ModelVersion, CardRevision, Evidence, ModelRequest,
    VersionException, Endpoint, Release, WhatIfRun, Recertification, StoredCopy,
)  # fmt: skip
#: Rooms whose pages show nothing that lies behind the second wall.
ELSEWHERE = {
    "accounts", "audit", "clusters", "health", "metering", "notifications", "portal", "provisioning", "rates", "ready",
}  # fmt: skip


@pytest.fixture
def first_wall_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every queryset of a table behind the second wall show all it gets."""
    for model in WALLED:
        monkeypatch.setattr(model._default_manager._queryset_class, "visible_to", lambda self, user: self.all())


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("django.request"), "disabled", True)
    monkeypatch.setattr(health, "TIMEOUT_SECONDS", 30.0)
    worlds.remember(monkeypatch)


def sweep(world: SimpleNamespace, persona: str, names: Collection[str]) -> list[str]:
    """Request declared routes as one persona; return what is wrong."""
    client, routes = client_for(world.people[persona]), worlds.declared()
    client.raise_request_exception = False
    failures: list[str] = []
    for name in names:
        route = routes[name]
        kwargs = dict(route.kwargs(world))
        url = reverse(name.partition("#")[0], kwargs=kwargs) + route.query
        own = [url, quote(url), *(str(value) for value in kwargs.values()), *dict(parse_qsl(route.query[1:])).values()]
        failures += check(world, client, name, route, persona, url, own)
    return failures


@pytest.mark.requirement("row-security-1.1", "row-security-1.2")
@pytest.mark.parametrize("persona", ["lead_marketing", pytest.param("vp_other", marks=pytest.mark.full)])
def test_nothing_foreign_shows_with_the_first_wall_off(
    db: None, quiet: None, first_wall_off: None, persona: str
) -> None:
    """Both are of another tenant than everything that the sweep's world holds for the Finance team."""
    names = [name for name in worlds.declared() if name.partition(":")[0] not in ELSEWHERE]
    failures = sweep(worlds.build(), persona, names)
    assert not failures, f"{len(failures)} failures:\n" + "\n".join(failures)


@pytest.mark.requirement("row-security-1.1")
def test_the_sweep_would_tell_if_both_walls_were_off(
    db: None, quiet: None, first_wall_off: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_security, "person", lambda: None)
    names = ("quotas:request-list", "catalogue:model-list", "costs:statement-list", "api:release-list")
    failures = sweep(worlds.build(), "lead_marketing", names)
    assert {line.partition(" as ")[0] for line in failures} == set(names)
