"""Routes of cross-checks and bills: figures of whole clusters, for those who read statements everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from apps.core import clock
from apps.costs.models import Bill, BillLine, CrossCheck
from apps.metering import billing
from tests.sweep.types import Route

_READ = {"compliance", "finance", "admin", "auditor"}
_FINANCE = {"finance"}


def build(world: SimpleNamespace) -> None:
    """A comparison with an open difference, and a bill."""
    cluster = world.metered.cluster
    day = billing.day_of(clock.now()) - timedelta(days=40)
    world.cross_check = CrossCheck.objects.create(
        cluster=cluster, day=day, kind="allocation", ours=Decimal("71717.17"), theirs=Decimal("61616.16"),
        currency="USD", state="open", causes=[{"code": "price", "amount": "100.00"}], detail={"remainder": "10001.01"},
        checked_at=clock.now(),
    )  # fmt: skip
    world.bill = Bill.objects.create(
        cluster=cluster, month=day.replace(day=1), vendor="Sweep Colocation", filename="sweep.csv", sha256="0" * 64,
        amount=Decimal("81818.18"), currency="USD",
    )  # fmt: skip
    BillLine.objects.create(bill=world.bill, ordinal=1, description="Rack", amount=Decimal("81818.18"))
    world.keep_secret("71,717.17", "71717.17", "61,616.16", "81,818.18", "81818.18", "Sweep Colocation", sees=set())


def _check(world: Any) -> Mapping[str, Any]:
    return {"check_uid": world.cross_check.uid}


def _bill(world: Any) -> Mapping[str, Any]:
    return {"bill_uid": world.bill.uid}


def _cluster(world: Any) -> Mapping[str, Any]:
    return {"cluster_slug": world.metered.cluster.slug}


ROUTES: dict[str, Route] = {
    "costs:cross-check-list": Route(allowed=_READ),
    "costs:cross-check-detail": Route(allowed=_READ, kwargs=_check),
    "costs:cross-check-explain": Route(allowed=_FINANCE, kwargs=_check),
    "costs:cross-check-explain#POST": Route(allowed=_FINANCE, kwargs=_check, method="POST"),
    "costs:check-setting-list": Route(allowed=_READ),
    "costs:check-setting-edit": Route(allowed=_FINANCE, kwargs=_cluster),
    "costs:check-setting-edit#POST": Route(allowed=_FINANCE, kwargs=_cluster, method="POST"),
    "costs:bill-list": Route(allowed=_READ),
    "costs:bill-import": Route(allowed=_FINANCE),
    "costs:bill-import#POST": Route(allowed=_FINANCE, method="POST"),
    "costs:bill-detail": Route(allowed=_READ, kwargs=_bill),
    "costs:bill-withdraw": Route(allowed=_FINANCE, kwargs=_bill),
    "costs:bill-withdraw#POST": Route(allowed=_FINANCE, kwargs=_bill, method="POST"),
}
