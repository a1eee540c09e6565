"""Routes of the rates room: everybody signed in sees what is charged, finance proposes, a second person publishes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from apps.core import clock
from apps.core.actor import Actor
from apps.rates import proposals
from apps.rates.capex_actions import enter_schedule
from apps.rates.publishing import PriceLine
from tests.quotas.conftest import make_rate
from tests.rates.factories import make_cluster, make_flavour, make_pool
from tests.sweep.types import EVERYBODY, Route


def build(world: SimpleNamespace) -> None:
    """A cluster with a pool and a price."""
    world.rates_cluster = make_cluster("sweep-atlas")
    world.rates_flavour = make_flavour("sweep-a100")
    world.rates_pool = make_pool(world.rates_cluster, world.rates_flavour, best_effort=True)
    world.rate = make_rate(world.rates_pool)
    world.proposal = proposals.propose_card(
        "Sweep prices",
        world.rates_cluster.pk,
        [PriceLine(None, "cpu", "", Decimal("0.0317"))],
        "USD",
        clock.now() + timedelta(days=9),
        actor=Actor.of(world.company.finance),
    )
    world.capex = enter_schedule(
        "Sweep nodes", world.rates_cluster.pk, world.rates_flavour.pk, actor=Actor.of(world.company.finance), gpus=8,
        in_service_from=date(2026, 1, 1), life_months=48, purchase=Decimal(240000), residual=Decimal(24000),
        power_watts=700, pue_permille=1350, per_kwh=Decimal("0.18"), operations_monthly=Decimal(1800),
        sellable_permille=800,
    )  # fmt: skip
    world.keep_secret("0.0317", sees=_SEE)


def _card(world: Any) -> Mapping[str, Any]:
    return {"card_uid": world.rate.card.uid}


def _new_card(world: Any) -> Mapping[str, Any]:
    start = (clock.now() + timedelta(days=2)).strftime("%Y-%m-%dT%H:%M")
    return {"name": "Later", "valid_from": start, f"price_{world.rates_flavour.pk}": "2.95"}


def _proposal(world: Any) -> Mapping[str, Any]:
    return {"proposal_uid": world.proposal.uid}


def _uid(world: Any) -> Mapping[str, Any]:
    return {"uid": world.proposal.uid}


_SEE = {"finance", "admin", "auditor"}
ROUTES: dict[str, Route] = {
    "rates:card-list": Route(allowed=EVERYBODY),
    "rates:card-detail": Route(allowed=EVERYBODY, kwargs=_card),
    "rates:card-create": Route(allowed={"finance"}, query="?cluster=sweep-atlas"),
    "rates:card-create#POST": Route(allowed={"finance"}, method="POST", query="?cluster=sweep-atlas", data=_new_card),
    "rates:proposal-list": Route(allowed=_SEE),
    "rates:proposal-detail": Route(allowed=_SEE, kwargs=_proposal),
    "rates:proposal-approve": Route(allowed={"finance"}, kwargs=_proposal),
    "rates:proposal-approve#POST": Route(
        allowed=set(), kwargs=_proposal, method="POST", note="the only finance person proposed it"
    ),
    "rates:proposal-reject": Route(allowed={"finance"}, kwargs=_proposal),
    "rates:proposal-reject#POST": Route(
        allowed={"finance"}, kwargs=_proposal, method="POST", note="without a reason it is refused as input"
    ),
    "rates:proposal-withdraw": Route(allowed={"finance"}, kwargs=_proposal),
    "rates:capex-list": Route(allowed=_SEE),
    "rates:capex-detail": Route(allowed=_SEE, kwargs=lambda world: {"capex_uid": world.capex.uid}),
    "rates:capex-create": Route(allowed={"finance"}, query="?cluster=sweep-atlas"),
    "rates:capex-create#POST": Route(allowed={"finance"}, method="POST", query="?cluster=sweep-atlas"),
    "api:rate-proposal-list": Route(allowed=_SEE),
    "api:rate-proposal-detail": Route(allowed=_SEE, kwargs=_uid),
    "api:rate-proposal-approve#POST": Route(
        allowed=set(),
        kwargs=_uid,
        method="POST",
        data=lambda world: {"digest": world.proposal.digest},
        note="the only finance person proposed it",
    ),
    "api:rate-proposal-reject#POST": Route(
        allowed=set(),
        kwargs=_uid,
        method="POST",
        data=lambda world: {"reason": "Too dear"},
        note="the only finance person proposed it",
    ),
    "api:rate-card-list": Route(allowed=EVERYBODY),
    "api:rate-card-detail": Route(allowed=EVERYBODY, kwargs=lambda world: {"uid": world.rate.card.uid}),
}
