"""Routes of the rates room: everybody signed in sees what is charged, finance publishes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from apps.core import clock
from tests.quotas.conftest import make_rate
from tests.rates.factories import make_cluster, make_flavour, make_pool
from tests.sweep.types import EVERYBODY, Route


def build(world: SimpleNamespace) -> None:
    """A cluster with a pool and a price."""
    world.rates_cluster = make_cluster("sweep-atlas")
    world.rates_flavour = make_flavour("sweep-a100")
    world.rates_pool = make_pool(world.rates_cluster, world.rates_flavour, best_effort=True)
    world.rate = make_rate(world.rates_pool)


def _card(world: Any) -> Mapping[str, Any]:
    return {"card_uid": world.rate.card.uid}


def _new_card(world: Any) -> Mapping[str, Any]:
    start = (clock.now() + timedelta(days=2)).strftime("%Y-%m-%dT%H:%M")
    return {"name": "Later", "valid_from": start, f"price_{world.rates_flavour.pk}": "2.95"}


ROUTES: dict[str, Route] = {
    "rates:card-list": Route(allowed=EVERYBODY),
    "rates:card-detail": Route(allowed=EVERYBODY, kwargs=_card),
    "rates:card-create": Route(allowed={"finance"}, query="?cluster=sweep-atlas"),
    "rates:card-create#POST": Route(allowed={"finance"}, method="POST", query="?cluster=sweep-atlas", data=_new_card),
    "api:rate-card-list": Route(allowed=EVERYBODY),
    "api:rate-card-detail": Route(allowed=EVERYBODY, kwargs=lambda world: {"uid": world.rate.card.uid}),
}
