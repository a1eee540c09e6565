"""Entering what owned GPUs cost. A schedule is never edited: a corrected one is a new one, and prices name theirs."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

from django.conf import settings
from django.db import transaction

from apps import audit
from apps.core.actor import Actor
from apps.core.errors import Invalid
from apps.rates import capex, events
from apps.rates.actions import MANAGE, locked_cluster, require
from apps.rates.models import CapexSchedule
from apps.rates.publishing import flavours_of

#: Below this every amount fits its column.
_MOST = Decimal("1e15")


@transaction.atomic
def enter_schedule(
    name: str,
    cluster_id: int,
    flavour_id: int,
    *,
    actor: Actor,
    gpus: int,
    in_service_from: date,
    life_months: int,
    purchase: Decimal,
    residual: Decimal,
    power_watts: int,
    pue_permille: int,
    per_kwh: Decimal,
    operations_monthly: Decimal,
    sellable_permille: int,
) -> CapexSchedule:
    """Enter what GPUs of a flavour cost, in the ledger currency. Raises NotAllowed, NotVisible, Invalid by field."""
    require(actor, MANAGE)
    cluster = locked_cluster(cluster_id)
    flavours = flavours_of(cluster)
    errors: dict[str, str] = {}
    if not name.strip():
        errors["name"] = "Give the schedule a name."
    if flavour_id not in flavours:
        errors["flavour"] = f"{cluster} does not offer this flavour."
    amounts = {"purchase": purchase, "residual": residual, "per_kwh": per_kwh, "operations_monthly": operations_monthly}
    for field, amount in amounts.items():
        places = 6 if field == "per_kwh" else 2
        most = Decimal(10**6) if field == "per_kwh" else _MOST
        if not amount.is_finite() or abs(amount) >= most or amount != round(amount, places):
            errors[field] = f"Give an amount with at most {places} decimal places."
    schedule = CapexSchedule(
        name=name.strip(),
        cluster=cluster,
        flavour_id=flavour_id,
        gpus=gpus,
        in_service_from=in_service_from,
        life_months=life_months,
        purchase=purchase,
        residual=residual,
        power_watts=power_watts,
        pue_permille=pue_permille,
        per_kwh=per_kwh,
        operations_monthly=operations_monthly,
        sellable_permille=sellable_permille,
        currency=settings.COMMONS_CURRENCY,
        created_by_id=actor.user_id,
    )
    if errors := (errors or capex.problems(schedule)):
        raise Invalid(errors)
    schedule.save()
    audit.record(
        events.CAPEX_ENTERED,
        events.CapexEntered(
            schedule_uid=schedule.uid,
            cluster_uid=cluster.uid,
            flavour=flavours[flavour_id].slug,
            gpus=gpus,
            hourly=str(capex.hourly(schedule).price),
            currency=schedule.currency,
        ),
        actor=actor,
        subject_type="rates.capex",
        subject_uid=schedule.uid,
    )
    return schedule
