"""Publishing rate cards. A published price never changes but for an earlier end in the future (design invariant 9)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps import audit
from apps.clusters.models import Cluster, Flavour
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.money import Money
from apps.core.permissions import may
from apps.rates import events
from apps.rates.models import Rate, RateCard

MANAGE = "rates.card.manage"
IMPORT = "rates.card.import"
#: Digits the amount column keeps before and after the point.
_WHOLE_DIGITS, _PLACES = 12, 8


def _require(actor: Actor, permission: str) -> None:
    """Raise NotAllowed unless the actor holds the permission for the installation or is the portal itself."""
    if actor.user_id is None:
        return
    from apps.accounts.models import User

    user = User.objects.filter(pk=actor.user_id).first()
    if not may(user, permission, None):
        raise NotAllowed("Publishing rate cards is for finance.", rule=permission)


def _checked_prices(cluster: Cluster, prices: Mapping[int, Decimal]) -> dict[Flavour, Decimal]:
    """Return flavour → price. Raises Invalid per flavour (field `price_<flavour id>`) or for the card as a whole."""
    offered = {flavour.pk: flavour for flavour in Flavour.objects.filter(pools__cluster=cluster).distinct()}
    errors: dict[str, str] = {}
    checked: dict[Flavour, Decimal] = {}
    for flavour_id, amount in prices.items():
        field = f"price_{flavour_id}"
        exponent = amount.as_tuple().exponent
        if flavour_id not in offered:
            errors[field] = f"{cluster} does not offer this flavour."
        elif not isinstance(exponent, int):
            errors[field] = "Enter a number."
        elif amount < 0:
            errors[field] = "A price cannot be negative."
        elif -exponent > _PLACES:
            errors[field] = f"At most {_PLACES} decimal places."
        elif amount >= 10**_WHOLE_DIGITS:
            errors[field] = "This price is too large."
        else:
            checked[offered[flavour_id]] = amount
    if not prices:
        errors[""] = "Enter a price for at least one flavour."
    if errors:
        raise Invalid(errors)
    return checked


def _checked_times(
    valid_from: datetime, valid_until: datetime | None, *, imported: bool
) -> tuple[datetime, datetime | None]:
    """Return the times cut to whole seconds. Raises Invalid for a start in the past or an end before the start."""
    starts = valid_from.replace(microsecond=0)
    until = valid_until.replace(microsecond=0) if valid_until else None
    if until is not None and until <= starts:
        raise Invalid({"valid_until": "The end must lie after the start."})
    if not imported and starts < clock.now().replace(microsecond=0):
        raise Invalid(
            {"valid_from": "The start lies in the past: a price that was in force never changes. Choose now or later."}
        )
    return starts, until


def _superseded(rates: list[Rate], flavour: Flavour, at: datetime, *, imported: bool) -> Rate | None:
    """Return the price in force at `at` that has to end there. Raises Invalid where that is not allowed."""
    for rate in rates:
        lower, upper = rate.valid.lower, rate.valid.upper
        if upper is not None and upper <= at:
            continue
        if lower == at:
            raise Invalid(
                {"valid_from": f"{flavour} already has a price from then on ({rate.card}). Choose another time."}
            )
        if lower is None or lower < at:
            if imported:
                raise Invalid(
                    {"valid_from": f"{flavour} has a published price at this time: an import only fills gaps."}
                )
            return rate
    return None


@transaction.atomic
def publish_card(
    name: str,
    cluster_id: int,
    prices: Mapping[int, Decimal],
    currency: str,
    valid_from: datetime,
    *,
    actor: Actor,
    valid_until: datetime | None = None,
    note: str = "",
    imported: bool = False,
) -> RateCard:
    """Publish prices (flavour id → price of one unit for one hour) from `valid_from` on.

    Each price runs until `valid_until`, or the next price already published, or without end; the one in force at the
    start ends there. `imported=True` brings in history: it may start in the past, needs its own permission, and never
    ends a published price. Raises Invalid, NotAllowed, NotVisible, Conflict (another card was published meanwhile).
    """
    _require(actor, IMPORT if imported else MANAGE)
    # Publishing takes turns per cluster; NO KEY leaves rows that refer to the cluster alone.
    cluster = Cluster.objects.select_for_update(no_key=True).filter(pk=cluster_id).first()
    if cluster is None:
        raise NotVisible
    if not name.strip():
        raise Invalid({"name": "Give the rate card a name."})
    if currency != settings.COMMONS_CURRENCY:
        raise Invalid(
            {"currency": f"The ledger is kept in {settings.COMMONS_CURRENCY}; prices in {currency} cannot be mixed in."}
        )
    starts, until = _checked_times(valid_from, valid_until, imported=imported)
    checked = _checked_prices(cluster, prices)
    card = RateCard.objects.create(name=name.strip(), cluster=cluster, note=note.strip(), created_by_id=actor.user_id)
    existing = Rate.objects.filter(cluster=cluster, flavour__in=checked).select_related("card").order_by("valid", "pk")
    by_flavour: dict[int | None, list[Rate]] = {}
    for rate in existing:
        by_flavour.setdefault(rate.flavour_id, []).append(rate)
    superseded: list[str] = []
    try:
        for flavour, amount in checked.items():
            rates = by_flavour.get(flavour.pk, [])
            earlier = _superseded(rates, flavour, starts, imported=imported)
            if earlier is not None:
                earlier.valid = DateTimeTZRange(earlier.valid.lower, starts, "[)")
                earlier.save(update_fields=["valid"])
                superseded.append(str(earlier.uid))
            following = [
                rate.valid.lower for rate in rates if rate.valid.lower is not None and rate.valid.lower > starts
            ]
            end = min([*following, *([until] if until else [])], default=None)
            with transaction.atomic():
                Rate.objects.create(
                    card=card,
                    cluster=cluster,
                    flavour=flavour,
                    currency=currency,
                    amount=amount,
                    valid=DateTimeTZRange(starts, end, "[)"),
                )
    except IntegrityError as error:
        raise Conflict(
            "Another price for the same time was published meanwhile. Look at the rate cards again."
        ) from error
    audit.record(
        events.CARD_PUBLISHED,
        events.CardPublished(
            card_uid=card.uid,
            cluster_uid=cluster.uid,
            valid_from=starts,
            currency=currency,
            prices={flavour.slug: str(Money(amount, currency).amount) for flavour, amount in checked.items()},
            superseded=superseded,
            imported=imported,
        ),
        actor=actor,
        subject_type="rates.card",
        subject_uid=card.uid,
    )
    return card
