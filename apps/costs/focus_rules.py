"""The rules a FOCUS 1.2 file is checked by: pure, a table, every rule under its identifier of the rule model.

Source: FOCUS 1.2 rule model (`model-1.2.json` of finopsfoundation/focus_validator 2.0.1, 621 rules). Of those the ones
are checked that can be broken by a file of ours and decided from it alone. Rules whose model is itself at fault are
named in `DEFECTS` and never counted. `focus_checker` runs them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal

Row = Mapping[str, str]
#: FOCUS 1.2, in the specification's (alphabetical) order.
FOCUS_COLUMNS = (
    "AvailabilityZone", "BilledCost", "BillingAccountId", "BillingAccountName", "BillingAccountType", "BillingCurrency",
    "BillingPeriodEnd", "BillingPeriodStart", "CapacityReservationId", "CapacityReservationStatus", "ChargeCategory",
    "ChargeClass", "ChargeDescription", "ChargeFrequency", "ChargePeriodEnd", "ChargePeriodStart",
    "CommitmentDiscountCategory", "CommitmentDiscountId", "CommitmentDiscountName", "CommitmentDiscountQuantity",
    "CommitmentDiscountStatus", "CommitmentDiscountType", "CommitmentDiscountUnit", "ConsumedQuantity", "ConsumedUnit",
    "ContractedCost", "ContractedUnitPrice", "EffectiveCost", "InvoiceId", "InvoiceIssuerName", "ListCost",
    "ListUnitPrice", "PricingCategory", "PricingCurrency", "PricingCurrencyContractedUnitPrice",
    "PricingCurrencyEffectiveCost", "PricingCurrencyListUnitPrice", "PricingQuantity", "PricingUnit", "ProviderName",
    "PublisherName", "RegionId", "RegionName", "ResourceId", "ResourceName", "ResourceType", "ServiceCategory",
    "ServiceName", "ServiceSubcategory", "SkuId", "SkuMeter", "SkuPriceDetails", "SkuPriceId", "SubAccountId",
    "SubAccountName", "SubAccountType", "Tags",
)  # fmt: skip
#: Ours, after those of the specification, with its prefix for custom columns.
OWN_COLUMNS = (
    "x_AllocatedMethodId", "x_AllocatedRatio", "x_BillingMode", "x_CapacityType", "x_ChargeKind", "x_Cluster",
    "x_CostCentre", "x_GpuModel", "x_LineNumber", "x_ServiceClass", "x_Unpriced",
)  # fmt: skip
COLUMNS = (*FOCUS_COLUMNS, *OWN_COLUMNS)

NUMBER = re.compile(r"-?\d+(\.\d+)?")
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z")
_CURRENCY = re.compile(r"[A-Z]{3}")
_FOCUS_PROPERTIES = {
    "CoreCount", "DiskMaxIops", "DiskSpace", "DiskType", "GpuCount", "InstanceSeries", "InstanceType", "MemorySize",
    "NetworkMaxIops", "NetworkMaxThroughput", "OperatingSystem", "Redundancy", "StorageClass",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: whether a row keeps it. `when` (None: always) says for which rows it counts."""

    id: str
    column: str
    text: str
    keeps: Callable[[Row], bool]
    when: Callable[[Row], bool] | None = None


def _charged(row: Row) -> bool:
    """Usage or purchase that corrects nothing: what needs price and quantity."""
    return row["ChargeCategory"] in ("Usage", "Purchase") and row["ChargeClass"] != "Correction"


def _filled(column: str) -> Callable[[Row], bool]:
    return lambda row: row[column].strip() != ""


def _empty(column: str) -> Callable[[Row], bool]:
    return lambda row: row[column] == ""


def _among(column: str, *allowed: str) -> Callable[[Row], bool]:
    found = frozenset(allowed)
    return lambda row: row[column] in found


def _matches(column: str, pattern: re.Pattern[str]) -> Callable[[Row], bool]:
    return lambda row: pattern.fullmatch(row[column]) is not None


def _not_negative(column: str) -> Callable[[Row], bool]:
    return lambda row: not row[column].startswith("-")


def _product(price: str, cost: str) -> Callable[[Row], bool]:
    def keeps(row: Row) -> bool:
        return Decimal(row[price]) * Decimal(row["PricingQuantity"]) == Decimal(row[cost])

    return keeps


def _product_when(price: str) -> Callable[[Row], bool]:
    return lambda row: row[price] != "" and row["PricingQuantity"] != "" and row["ChargeClass"] != "Correction"


def _flat_object(column: str, keys: Callable[[str], bool]) -> Callable[[Row], bool]:
    def keeps(row: Row) -> bool:
        try:
            found = json.loads(row[column])
        except ValueError:
            return False
        return isinstance(found, dict) and all(
            keys(key) and not isinstance(value, dict | list) for key, value in found.items()
        )

    return keeps


def _always(key: str) -> bool:
    return bool(key)


def _own_or_focus(key: str) -> bool:
    return key.startswith("x_") or key in _FOCUS_PROPERTIES


#: Columns that may not be null, whatever the row is.
_NOT_NULL = {
    "BilledCost": "C-003-M", "BillingAccountId": "C-001-M", "BillingCurrency": "C-004-M", "BillingPeriodEnd": "C-003-M",
    "BillingPeriodStart": "C-003-M", "ChargeCategory": "C-002-M", "ChargePeriodEnd": "C-003-M",
    "ChargePeriodStart": "C-003-M", "ContractedCost": "C-003-M", "EffectiveCost": "C-003-M",
    "InvoiceIssuerName": "C-003-M", "ListCost": "C-003-M", "PricingCurrency": "C-004-M", "ProviderName": "C-003-M",
    "PublisherName": "C-003-M", "ServiceCategory": "C-002-M", "ServiceName": "C-003-M",
    "PricingCurrencyEffectiveCost": "C-003-M", "ChargeFrequency": "C-002-M", "ServiceSubcategory": "C-002-M",
}  # fmt: skip
_NUMERIC = {
    "BilledCost": "C-002-M", "ConsumedQuantity": "C-002-M", "ContractedCost": "C-002-M",
    "ContractedUnitPrice": "C-003-M", "EffectiveCost": "C-002-M", "ListCost": "C-002-M", "ListUnitPrice": "C-002-M",
    "PricingQuantity": "C-002-M",
}  # fmt: skip
_MOMENTS = ("BillingPeriodEnd", "BillingPeriodStart", "ChargePeriodEnd", "ChargePeriodStart")
#: Filled for usage and purchases that correct nothing.
_WHEN_CHARGED = {
    "ContractedUnitPrice": "C-006-C", "ListUnitPrice": "C-005-C", "PricingCategory": "C-004-C",
    "PricingQuantity": "C-005-C", "SkuId": "C-005-C", "SkuPriceId": "C-005-C",
    "PricingCurrencyContractedUnitPrice": "C-005-C", "PricingCurrencyListUnitPrice": "C-005-C",
}  # fmt: skip
#: (column, other column) → (null together, filled together).
_TOGETHER = {
    ("ConsumedUnit", "ConsumedQuantity"): ("C-005-C", "C-006-C"),
    ("PricingUnit", "PricingQuantity"): ("C-005-C", "C-006-C"),
    ("ResourceType", "ResourceId"): ("C-004-C", "C-005-C"),
    ("SubAccountType", "SubAccountId"): ("C-004-C", "C-005-C"),
    ("BillingAccountType", "BillingAccountId"): ("C-004-C", "C-005-C"),
    ("RegionName", "RegionId"): ("C-004-C", "C-005-C"),
}
#: Mandatory columns of the dataset.
MANDATORY = {
    "BilledCost": "006", "BillingAccountId": "024", "BillingAccountName": "005", "BillingCurrency": "035",
    "BillingPeriodEnd": "010", "BillingPeriodStart": "009", "ChargeCategory": "008", "ChargeClass": "026",
    "ChargeDescription": "025", "ChargePeriodEnd": "028", "ChargePeriodStart": "037", "ContractedCost": "030",
    "EffectiveCost": "031", "InvoiceIssuerName": "023", "ListCost": "032", "PricingQuantity": "036",
    "PricingUnit": "068", "ProviderName": "038", "PublisherName": "021", "ServiceCategory": "040",
    "ServiceName": "041",
}  # fmt: skip
_SUBCATEGORIES = {
    "Containers": "Compute", "Other (Compute)": "Compute", "Block Storage": "Storage", "Other (Storage)": "Storage",
    "Network Infrastructure": "Networking", "Other (Networking)": "Networking", "Other (Other)": "Other",
    "Cost Management": "Management and Governance",
}  # fmt: skip


def _rules() -> list[Rule]:
    found = [
        Rule(f"{name}-{number}", name, f"{name} MUST NOT be null.", _filled(name)) for name, number in _NOT_NULL.items()
    ]
    found += [
        Rule(
            f"{name}-{number}", name, f"{name} MUST conform to NumericFormat requirements (here: without exponent).",
            _matches(name, NUMBER), _filled(name),
        )
        for name, number in _NUMERIC.items()
    ]  # fmt: skip
    found += [
        Rule(f"{name}-C-002-M", name, f"{name} MUST conform to DateTimeFormat requirements.", _matches(name, _MOMENT))
        for name in _MOMENTS
    ]
    found += [
        Rule(
            f"{name}-{number}", name,
            f'{name} MUST NOT be null when ChargeCategory is "Usage" or "Purchase" and ChargeClass is not'
            ' "Correction".', _filled(name), _charged,
        )
        for name, number in _WHEN_CHARGED.items()
    ]  # fmt: skip
    for (name, other), (null, filled) in _TOGETHER.items():
        found += [
            Rule(f"{name}-{null}", name, f"{name} MUST be null when {other} is null.", _empty(name), _empty(other)),
            Rule(
                f"{name}-{filled}", name, f"{name} MUST NOT be null when {other} is not null.", _filled(name),
                _filled(other),
            ),
        ]  # fmt: skip
    return [*found, *_SINGLE]


_SINGLE = [
    Rule(
        "BillingCurrency-C-003-M", "BillingCurrency", "BillingCurrency MUST conform to CurrencyFormat requirements.",
        _matches("BillingCurrency", _CURRENCY),
    ),
    Rule(
        "PricingCurrency-C-003-M", "PricingCurrency", "PricingCurrency MUST conform to CurrencyFormat requirements.",
        _matches("PricingCurrency", _CURRENCY),
    ),
    Rule(
        "ChargeCategory-C-003-M", "ChargeCategory", "ChargeCategory MUST be one of the allowed values.",
        _among("ChargeCategory", "Usage", "Purchase", "Tax", "Credit", "Adjustment"),
    ),
    Rule(
        "ChargeClass-C-005-C", "ChargeClass", 'ChargeClass MUST be "Correction" when ChargeClass is not null.',
        _among("ChargeClass", "", "Correction"),
    ),
    Rule(
        "ChargeClass-C-003-C", "ChargeClass",
        "ChargeClass MUST be null when the row corrects nothing or something within the current billing period.",
        lambda row: row["ChargePeriodEnd"] <= row["BillingPeriodStart"],
        lambda row: row["ChargeClass"] == "Correction",
    ),
    Rule(
        "ChargeClass-C-004-C", "ChargeClass",
        "ChargeClass MUST NOT be null when the row corrects a previously invoiced billing period.",
        lambda row: row["ChargePeriodStart"] >= row["BillingPeriodStart"], _empty("ChargeClass"),
    ),
    Rule(
        "ChargeFrequency-C-003-M", "ChargeFrequency", "ChargeFrequency MUST be one of the allowed values.",
        _among("ChargeFrequency", "One-Time", "Recurring", "Usage-Based"),
    ),
    Rule(
        "ChargePeriodEnd-C-004-M", "ChargePeriodEnd", "ChargePeriodEnd MUST be the exclusive end bound.",
        lambda row: row["ChargePeriodEnd"] > row["ChargePeriodStart"],
    ),
    Rule(
        "BillingPeriodStart-C-004-M", "BillingPeriodStart", "BillingPeriodStart MUST be the inclusive start bound.",
        lambda row: row["BillingPeriodStart"] < row["BillingPeriodEnd"],
    ),
    Rule(
        "BilledCost-C-005-C", "BilledCost", "BilledCost MUST be 0 where payments are received by a third party.",
        _among("BilledCost", "0"), lambda row: row["ProviderName"] != row["InvoiceIssuerName"],
    ),
    Rule(
        "EffectiveCost-C-010-C", "EffectiveCost", "EffectiveCost of such a charge MUST match BilledCost.",
        lambda row: row["EffectiveCost"] == row["BilledCost"],
        lambda row: row["ChargeCategory"] in ("Credit", "Adjustment"),
    ),
    Rule(
        "ContractedCost-C-008-C", "ContractedCost", "ContractedCost of such a charge MUST match BilledCost.",
        lambda row: row["ContractedCost"] == row["BilledCost"],
        lambda row: row["ChargeCategory"] in ("Credit", "Adjustment") and row["ContractedUnitPrice"] == "",
    ),
    Rule(
        "ListCost-C-008-C", "ListCost", "ListCost of such a charge MUST match BilledCost.",
        lambda row: row["ListCost"] == row["BilledCost"],
        lambda row: row["ChargeCategory"] in ("Credit", "Adjustment") and row["ListUnitPrice"] == "",
    ),
    Rule(
        "ContractedCost-C-009-C", "ContractedCost",
        "The product of ContractedUnitPrice and PricingQuantity MUST match the ContractedCost.",
        _product("ContractedUnitPrice", "ContractedCost"), _product_when("ContractedUnitPrice"),
    ),
    Rule(
        "ListCost-C-009-C", "ListCost", "The product of ListUnitPrice and PricingQuantity MUST match the ListCost.",
        _product("ListUnitPrice", "ListCost"), _product_when("ListUnitPrice"),
    ),
    Rule(
        "ContractedUnitPrice-C-009-C", "ContractedUnitPrice", "ContractedUnitPrice MUST be non-negative.",
        _not_negative("ContractedUnitPrice"),
    ),
    Rule(
        "ListUnitPrice-C-008-M", "ListUnitPrice", "ListUnitPrice MUST be non-negative.", _not_negative("ListUnitPrice")
    ),
    Rule(
        "ConsumedQuantity-C-004-C", "ConsumedQuantity",
        'ConsumedQuantity MUST be null when ChargeCategory is not "Usage".',
        _empty("ConsumedQuantity"), lambda row: row["ChargeCategory"] != "Usage",
    ),
    Rule(
        "PricingCategory-C-007-M", "PricingCategory", "PricingCategory MUST be one of the allowed values.",
        _among("PricingCategory", "", "Standard", "Committed", "Dynamic", "Other"),
    ),
    Rule(
        "CapacityReservationStatus-C-003-C", "CapacityReservationStatus",
        "CapacityReservationStatus MUST be null when CapacityReservationId is null.",
        _empty("CapacityReservationStatus"), _empty("CapacityReservationId"),
    ),
    Rule(
        "CapacityReservationStatus-C-004-C", "CapacityReservationStatus",
        "CapacityReservationStatus MUST NOT be null when CapacityReservationId is not null and ChargeCategory is"
        ' "Usage".',
        _filled("CapacityReservationStatus"),
        lambda row: row["CapacityReservationId"] != "" and row["ChargeCategory"] == "Usage",
    ),
    Rule(
        "CapacityReservationStatus-C-006-M", "CapacityReservationStatus",
        "CapacityReservationStatus MUST be one of the allowed values.",
        _among("CapacityReservationStatus", "", "Used", "Unused"),
    ),
    Rule(
        "CapacityReservationId-C-005-C", "CapacityReservationId",
        "CapacityReservationId MUST NOT be null when a charge represents the unused portion of a capacity reservation.",
        _filled("CapacityReservationId"), lambda row: row["x_ChargeKind"] == "reserved_unused",
    ),
    Rule(
        "CapacityReservationStatus-C-007-C", "CapacityReservationStatus",
        'CapacityReservationStatus MUST be "Unused" when the charge represents the unused portion.',
        _among("CapacityReservationStatus", "Unused"), lambda row: row["x_ChargeKind"] == "reserved_unused",
    ),
    Rule(
        "CommitmentDiscountStatus-C-003-C", "CommitmentDiscountStatus",
        "CommitmentDiscountStatus MUST be null when CommitmentDiscountId is null.",
        _empty("CommitmentDiscountStatus"), _empty("CommitmentDiscountId"),
    ),
    Rule(
        "ServiceSubcategory-C-004-M", "ServiceSubcategory",
        "ServiceSubcategory MUST have one and only one parent ServiceCategory.",
        lambda row: _SUBCATEGORIES.get(row["ServiceSubcategory"]) == row["ServiceCategory"],
    ),
    Rule(
        "SkuMeter-C-004-C", "SkuMeter", "SkuMeter MUST be null when SkuId is null.", _empty("SkuMeter"),
        _empty("SkuId"),
    ),
    Rule(
        "SkuPriceDetails-C-004-C", "SkuPriceDetails", "SkuPriceDetails MUST be null when SkuPriceId is null.",
        _empty("SkuPriceDetails"), _empty("SkuPriceId"),
    ),
    Rule(
        "SkuPriceDetails-C-017-C", "SkuPriceDetails",
        'Keys of SkuPriceDetails MUST begin with "x_" unless FOCUS defines them; flat key-values.',
        _flat_object("SkuPriceDetails", _own_or_focus), _filled("SkuPriceDetails"),
    ),
    Rule(
        "Tags-C-001-M", "Tags", "Tags MUST conform to KeyValueFormat requirements.", _flat_object("Tags", _always),
        _filled("Tags"),
    ),
]  # fmt: skip
RULES = _rules()


@dataclass(frozen=True, slots=True)
class Defect:
    """A rule of the model that contradicts itself or the specification; `breaks`: what it would call a failure."""

    id: str
    text: str
    breaks: Callable[[Row], bool] | None = None


DEFECTS = (
    Defect(
        "InvoiceId-C-004-C",
        "The model has no condition: it wants InvoiceId null on every row, InvoiceId-C-005-C wants it filled on every"
        " row. No file can keep both; here it is filled, as the specification asks for invoiced charges.",
        _filled("InvoiceId"),
    ),
    Defect(
        "ResourceType-C-005-C",
        "The model's condition has a misspelt key, so that any row without a ResourceId fails: it is filled on every"
        " row here.",
        _empty("ResourceId"),
    ),
    Defect(
        "ConsumedQuantity-C-006-C",
        "The model's condition is inverted and needs the column CommitmentDiscountStatus: the column is written, empty,"
        " and ConsumedQuantity is filled for usage as the specification says.",
        lambda row: row["ConsumedQuantity"] == "" and _charged(row),
    ),
    Defect(
        "CapacityReservationStatus-C-003-C, -C-004-C",
        "The model's conditions have no check function at their root, so that the validator asks every row for a status"
        " and every row for none. Here the status is filled exactly where CapacityReservationId is, as the text of the"
        " rules says.",
        lambda row: True,
    ),
    Defect(
        "CommitmentDiscountStatus-C-003-C, -C-004-C",
        "The model wants the status filled where CommitmentDiscountId is null, against its own text. There are no"
        " commitment discounts in a pool: both are empty.",
        _empty("CommitmentDiscountStatus"),
    ),
    Defect(
        "PricingCurrency-C-004-M",
        "The model requires PricingCurrency and the columns beside it although the specification makes them"
        " conditional: they are written, equal to the billing currency.",
        _empty("PricingCurrency"),
    ),
)
