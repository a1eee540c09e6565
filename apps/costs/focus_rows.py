"""The rows of a FOCUS file: pure. Mapping and its reasons: specs/focus/design.md, cost.md D.

Everything that is billed becomes a row under the statement it is billed on (InvoiceId). Metered usage is written at day
grain as unit price × quantity, both as they stand in the file; what a statement's rounding leaves is one Adjustment row
per statement, so that Σ BilledCost per InvoiceId is the statement's amount.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

from apps.core.exports import neutralise
from apps.core.money import MILLISECONDS_PER_HOUR
from apps.costs.choices import RESOURCES, ChargeKind, LineSort
from apps.costs.focus_rules import COLUMNS

#: Hours are written to a billionth: 1 ms is 0.000000278 h, so that no two quantities are written alike.
_HOUR_PLACES = Decimal(1).scaleb(-9)
_UNITS = {
    ChargeKind.CPU: "Core-Hours", ChargeKind.MEMORY: "GiB-Hours", ChargeKind.STORAGE: "GiB-Hours",
    ChargeKind.EGRESS: "GiB",
}  # fmt: skip
_SHARED_UNITS = {"mig": "MIG-Slice-Hours", "time_sliced": "GPU-Share-Hours", "mps": "GPU-Share-Hours"}
#: Name, category and subcategory: a service has exactly one of each (ServiceName-C-005, -C-008).
_COMPUTE = ("GPU Pool", "Compute", "Containers")
_SERVICES = {
    ChargeKind.STORAGE: ("GPU Pool Storage", "Storage", "Block Storage"),
    ChargeKind.EGRESS: ("GPU Pool Network", "Networking", "Network Infrastructure"),
}  # fmt: skip
_BILLING = ("GPU Pool Billing", "Management and Governance", "Cost Management")
_PRICING = {"reserved": "Committed", "spot": "Dynamic"}
#: Kinds in which nobody consumed anything.
_UNUSED = (ChargeKind.RESERVED_UNUSED, ChargeKind.UNSOLD, ChargeKind.STRANDED, ChargeKind.MAINTENANCE)


@dataclass(frozen=True, slots=True)
class Month:
    """What all rows of a file share."""

    issuer: str
    account_id: str
    currency: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Invoice:
    """The statement that a row is billed on."""

    number: str
    account_id: str
    account: str
    cost_centre: str
    mode: str
    unit: str


@dataclass(frozen=True, slots=True)
class Charge:
    """What is billed: a line of a statement, or its part of a day. `hourly` None: no price, unknown.

    `share`: how flavours divide a GPU: exclusive, mig, time_sliced, mps. `fixed`: an amount without quantity.
    """

    sort: str
    kind: str
    description: str
    number: int
    cluster: str = ""
    cluster_name: str = ""
    sku: str = ""
    sku_name: str = ""
    share: str = "exclusive"
    gpu_model: str = ""
    rate: str = ""
    hourly: Decimal | None = None
    capacity_type: str = ""
    service_class: str = ""
    method: str = ""
    ratio_ppm: int | None = None


def moment(at: datetime) -> str:
    """Write a time as the specification asks: UTC, to the second, with Z."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def number(value: Decimal) -> str:
    """Write a decimal without exponent and without zeros at its end."""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("", "-0") else text


def hours(quantity_ms: int) -> Decimal:
    """Return milliseconds as hours to nine places, half-even."""
    return (Decimal(quantity_ms) / MILLISECONDS_PER_HOUR).quantize(_HOUR_PLACES, ROUND_HALF_EVEN)


def _text(value: str) -> str:
    """Return what people named as no spreadsheet runs it."""
    return str(neutralise(value.strip()) or "")


def _json(values: Mapping[str, object]) -> str:
    return json.dumps({key: value for key, value in values.items() if value not in ("", None)}, separators=(",", ":"))


def template(month: Month, invoice: Invoice, charge: Charge) -> dict[str, str]:
    """Return everything of a row that does not depend on time and quantity."""
    row = dict.fromkeys(COLUMNS, "")
    row.update(
        BillingAccountId=month.account_id,
        BillingAccountName=_text(month.issuer),
        BillingAccountType="Internal ledger",
        BillingCurrency=month.currency,
        BillingPeriodStart=moment(month.start),
        BillingPeriodEnd=moment(month.end),
        ChargeDescription=_text(f"{invoice.account}: {charge.description}"),
        InvoiceId=invoice.number,
        InvoiceIssuerName=_text(month.issuer),
        ProviderName=_text(month.issuer),
        PublisherName=_text(month.issuer),
        PricingCurrency=month.currency,
        SubAccountId=invoice.account_id,
        SubAccountName=_text(invoice.account),
        SubAccountType="Team" if invoice.account_id != PLATFORM else "Platform",
        Tags=_json({"gpu-commons/cost-centre": invoice.cost_centre, "gpu-commons/unit": invoice.unit}),
        x_BillingMode=invoice.mode,
        x_ChargeKind=charge.kind,
        x_Cluster=charge.cluster,
        x_CostCentre=_text(invoice.cost_centre),
        x_GpuModel=charge.gpu_model,
        x_LineNumber=str(charge.number) if charge.number else "",
        x_CapacityType=charge.capacity_type,
        x_ServiceClass=charge.service_class,
        x_AllocatedMethodId=charge.method,
    )
    if charge.ratio_ppm is not None:
        row["x_AllocatedRatio"] = number(Decimal(charge.ratio_ppm) / 1_000_000)
    if charge.sort == LineSort.CORRECTION:
        row["ChargeClass"] = "Correction"
    if is_usage(charge):
        _usage(row, invoice, charge)
    else:
        row["ChargeCategory"] = "Credit" if charge.sort == LineSort.CREDIT else "Adjustment"
        row["ChargeFrequency"] = "One-Time"
        row["ServiceName"], row["ServiceCategory"], row["ServiceSubcategory"] = _BILLING
        row["ResourceId"] = f"statement/{invoice.number}"
        row["ResourceName"], row["ResourceType"] = invoice.number, "Statement"
    return row


PLATFORM = "platform"


def is_usage(charge: Charge) -> bool:
    """Whether a charge is metered: it has a kind, and something that was metered (`sku`)."""
    return bool(charge.kind and charge.sku) and charge.sort in (
        LineSort.CHARGE, LineSort.DISTRIBUTED, LineSort.CORRECTION,
    )  # fmt: skip


def _usage(row: dict[str, str], invoice: Invoice, charge: Charge) -> None:
    resource = charge.kind in RESOURCES
    service, category, subcategory = _SERVICES.get(ChargeKind(charge.kind), _COMPUTE)
    unit = _UNITS.get(ChargeKind(charge.kind)) or _SHARED_UNITS.get(charge.share, "GPU-Hours")
    row.update(
        ChargeCategory="Usage",
        ChargeFrequency="Usage-Based",
        ServiceName=service,
        ServiceCategory=category,
        ServiceSubcategory=subcategory,
        PricingCategory=_PRICING.get(charge.capacity_type, "Standard"),
        PricingUnit=unit,
        ConsumedUnit=unit if resource else "GPU-Hours",
        RegionId=charge.cluster,
        RegionName=_text(charge.cluster_name),
        ResourceId=f"{charge.cluster}/{charge.sku}",
        ResourceName=_text(charge.sku_name),
        ResourceType="Pool resource" if resource else "GPU pool",
        SkuId=f"{charge.cluster}/{charge.sku}",
        SkuMeter=_text(f"{charge.sku_name} {ChargeKind(charge.kind).label.lower()}"[:200]),
    )
    if charge.hourly is not None:
        price = number(charge.hourly)
        row.update(
            ContractedUnitPrice=price,
            ListUnitPrice=price,
            PricingCurrencyContractedUnitPrice=price,
            PricingCurrencyListUnitPrice=price,
            SkuPriceId=charge.rate,
            SkuPriceDetails=_json(
                {
                    "GpuCount": 1 if not resource and charge.share == "exclusive" else None,
                    "x_SharingMode": "" if resource else charge.share,
                    "x_GpuModel": charge.gpu_model,
                    "x_CapacityType": charge.capacity_type,
                    "x_ServiceClass": charge.service_class,
                }
            ),
        )
    else:
        row["x_Unpriced"] = "true"
    if charge.kind == ChargeKind.RESERVED_UNUSED:
        row["CapacityReservationId"] = f"{charge.cluster}/{charge.sku}/{invoice.account_id}"
        row["CapacityReservationStatus"] = "Unused"


def usage_row(
    base: Mapping[str, str], charge: Charge, start: datetime, end: datetime, quantity_ms: int, gpu_ms: int
) -> tuple[dict[str, str], Decimal]:
    """Return a metered row for a span of time, and its BilledCost: unit price × PricingQuantity, as written.

    Without a price the cost is unknown: 0 is written, with x_Unpriced, and the rules that ask for a price fail.
    """
    quantity = hours(quantity_ms)
    with localcontext() as context:
        context.prec = 60
        cost = Decimal(0) if charge.hourly is None else charge.hourly * quantity
    consumed = Decimal(0)
    if charge.kind not in _UNUSED:
        consumed = quantity if charge.kind in RESOURCES else hours(gpu_ms)
    amount = number(cost)
    row = {
        **base,
        "ChargePeriodStart": moment(start),
        "ChargePeriodEnd": moment(end),
        "PricingQuantity": number(quantity),
        "ConsumedQuantity": number(consumed),
        "BilledCost": amount,
        "EffectiveCost": amount,
        "ContractedCost": amount,
        "ListCost": amount,
        "PricingCurrencyEffectiveCost": amount,
    }
    return row, cost


def fixed_row(base: Mapping[str, str], start: datetime, end: datetime, cost: Decimal) -> dict[str, str]:
    """Return a row of an amount without a quantity: a credit, an adjustment."""
    amount = number(cost)
    return {
        **base,
        "ChargePeriodStart": moment(start),
        "ChargePeriodEnd": moment(end),
        "BilledCost": amount,
        "EffectiveCost": amount,
        "ContractedCost": amount,
        "ListCost": amount,
        "PricingCurrencyEffectiveCost": amount,
    }


def rounding_row(month: Month, invoice: Invoice, residue: Decimal) -> dict[str, str]:
    """Return the Adjustment row of what a statement's rounding leaves."""
    charge = Charge(LineSort.ROUNDING, "", "Rounding of the statement's lines to the cent", 0)
    return fixed_row(template(month, invoice, charge), month.start, month.end, residue)
