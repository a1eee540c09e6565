"""Publishing rate cards. A published price never changes but for an earlier end in the future (design invariant 9).

People propose and approve (`proposals`); `publish_card` is the step behind it, and how history is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal

from django.db import transaction

from apps.clusters.models import Cluster
from apps.core.actor import Actor
from apps.core.errors import NotAllowed, NotVisible
from apps.core.permissions import INSTALLATION, may
from apps.rates.models import RateCard
from apps.rates.publishing import PriceLine, check_lines, check_name, check_times, flavours_of, plan, write_card

MANAGE = "rates.card.manage"
APPROVE = "rates.card.approve"
IMPORT = "rates.card.import"


def require(actor: Actor, permission: str) -> None:
    """Raise NotAllowed unless the actor holds the permission for the installation or is the portal itself."""
    if actor.user_id is None:
        return
    from apps.accounts.models import User

    user = User.objects.filter(pk=actor.user_id, is_active=True).first()
    if user is None or not may(user, permission, INSTALLATION):
        raise NotAllowed("Rate cards are for finance.", rule=permission)


def locked_cluster(cluster_id: int) -> Cluster:
    """Return the cluster, locked: publishing takes turns. NO KEY leaves rows that refer to it alone.

    Raises NotVisible for none.
    """
    cluster = Cluster.objects.select_for_update(no_key=True).filter(pk=cluster_id).first()
    if cluster is None:
        raise NotVisible
    return cluster


@transaction.atomic
def publish_card(
    name: str,
    cluster_id: int,
    prices: Mapping[int, Decimal] | list[PriceLine],
    currency: str,
    valid_from: datetime,
    *,
    actor: Actor,
    valid_until: datetime | None = None,
    note: str = "",
    imported: bool = False,
) -> RateCard:
    """Publish prices from `valid_from` on: flavour id → price of one unit for one hour, or whole lines.

    Each price runs until `valid_until`, or the next price already published, or without end; the one in force at the
    start ends there. `imported=True` brings in history: it may start in the past, needs its own permission, and never
    ends a published price. Raises Invalid, NotAllowed, NotVisible, Conflict (another card was published meanwhile).
    """
    require(actor, IMPORT if imported else MANAGE)
    cluster = locked_cluster(cluster_id)
    title = check_name(name, currency)
    starts, until = check_times(valid_from, valid_until, imported=imported)
    if isinstance(prices, Mapping):
        lines = [PriceLine(flavour_id, "", "", amount) for flavour_id, amount in prices.items()]
    else:
        lines = prices
    flavours = flavours_of(cluster)
    check_lines(cluster, lines, flavours)
    changes = plan(cluster, lines, starts, until, currency=currency, flavours=flavours, imported=imported, lock=True)
    return write_card(
        cluster, title, changes, currency, starts, actor=actor, note=note, imported=imported, flavours=flavours
    )
