"""A month of usage on two clusters, read by a source that the test writes, priced, and the people who look at it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from apps.core import clock
from apps.core.actor import Actor
from apps.metering import actions
from apps.teams.models import Team
from tests import kept
from tests.factories import Company, client_for, make_company, make_team
from tests.metering.world import FakeAdapter, World, guarantee, hold, make_world, utc

#: A Wednesday in November: October is the latest month that is over.
NOW = utc(2026, 11, 18, 9)
SEPTEMBER, OCTOBER = utc(2026, 9, 1), utc(2026, 10, 1)
HOUR = timedelta(hours=1)


def read(world: World, start: datetime, hours: int, holdings: list[Any], **adapter: Any) -> None:
    """Meter and price `hours` from `start`: what the source says is `holdings`."""
    found = FakeAdapter(holdings, **adapter)
    actions.ingest_hours(world.source.pk, start, start + hours * HOUR, actor=Actor.system("test"), adapter=found)


@dataclass
class Books:
    """Two clusters with different prices; what teams ran on them in September and October 2026."""

    company: Company
    first: World
    second: World

    def report(self, user: Any, unit: str = "retail-bank", month: str = "2026-10", query: str = "") -> Any:
        """Open the monthly report."""
        return client_for(user).get(
            reverse("reports:monthly", kwargs={"unit_slug": unit, "month": month}) + query, follow=True
        )


def run_teams(books: Books, teams: list[Team]) -> None:
    """Let every team run two hours of October on both clusters, each a bit more than the one before."""
    for team in teams:
        for world in (books.first, books.second):
            if team.slug not in world.workspaces:
                world.workspaces[team.slug] = _workspace(world, team)
            guarantee(world, team.slug, 1)
    for world in (books.first, books.second):
        held = [
            hold(f"{team.slug}-job", f"{team.slug}-prod", OCTOBER, OCTOBER + 2 * HOUR, 1 + number % 3, used=0.5)
            for number, team in enumerate(teams)
        ]
        read(world, OCTOBER, 24, held)


def _workspace(world: World, team: Team) -> Any:
    from apps.quotas.models import Workspace

    return Workspace.objects.create(
        team=team, cluster=world.cluster, environment="production", namespace=f"{team.slug}-prod"
    )


def more_teams(books: Books, count: int) -> list[Team]:
    """Make further teams of the same unit."""
    return [make_team(f"Team {number:03}", books.company.unit, colour=number % 12) for number in range(count)]


def _two_clusters(company: Company) -> Books:
    first = make_world(company.teams.values(), gpus=200)
    second = make_world(company.teams.values(), gpus=200, rate="1.37", slug="dc2")
    return Books(company, first, second)


@pytest.fixture
def empty_books(company: Company) -> Iterator[Books]:
    """Two clusters on which nothing was metered yet."""
    with clock.frozen(NOW):
        yield _two_clusters(company)


def _make_books() -> Books:
    with clock.frozen(NOW):
        books = _two_clusters(make_company())
        _read_october(books)
    return books


def _read_october(books: Books) -> None:
    guarantee(books.first, "finance", 20, SEPTEMBER)
    guarantee(books.second, "marketing", 3, SEPTEMBER)
    end = utc(2026, 11, 1)
    read(
        books.first, OCTOBER, 31 * 24,
        [
            hold("fraud-model", "finance-prod", OCTOBER, OCTOBER + 31 * HOUR, 7, used=0.83),
            hold("ad-ranking", "marketing-prod", OCTOBER + 5 * HOUR, end, 1, used=0.41),
            hold("notebook", "research-prod", OCTOBER + timedelta(days=9, minutes=20), OCTOBER + timedelta(days=12), 3,
                 used=0.001),
            hold("stray", "nobody-knows", OCTOBER, OCTOBER + 2 * HOUR, 1),
        ],
    )  # fmt: skip
    read(
        books.second, SEPTEMBER + timedelta(days=29), 48,
        [hold("trial", "marketing-prod", SEPTEMBER + timedelta(days=29, hours=12), OCTOBER + 12 * HOUR, 2, used=0.6)],
    )  # fmt: skip


kept.world("books", _make_books)


@pytest.fixture
def books(db: None) -> Iterator[Books]:
    """October in full on the first cluster; one day of September on the second, read before its rate rose."""
    with clock.frozen(NOW):
        yield kept.copy("books")


def page_of(response: Any) -> str:
    """Return a page's text with single spaces."""
    assert response.status_code == 200, response.status_code
    return " ".join(response.content.decode().split())


def browser(user: Any) -> Client:
    """Return the person's browser, signed in."""
    client: Client = client_for(user)
    return client


def usd(text: str) -> Decimal:
    """Read an amount as a page writes it."""
    return Decimal(text.replace(",", "").replace("−", "-"))
