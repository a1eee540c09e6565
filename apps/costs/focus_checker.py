"""Runs the rules of `focus_rules` over a file, row by row, while it is written or as it was read back. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from apps.costs.focus_rules import COLUMNS, DEFECTS, FOCUS_COLUMNS, MANDATORY, NUMBER, RULES, Row

#: Rules over all rows of a service: one category, one subcategory.
_SERVICE_RULES = (
    ("ServiceName-C-005-C", "ServiceName MUST have one and only one ServiceCategory."),
    ("ServiceName-C-008-C", "ServiceName SHOULD have one and only one ServiceSubcategory."),
)


@dataclass
class _Count:
    rows: int = 0
    failed: int = 0
    examples: list[str] = field(default_factory=list)

    def fail(self, example: str) -> None:
        self.failed += 1
        if len(self.examples) < 3:
            self.examples.append(example)


class Checker:
    """Runs all rules over the rows of one file, one by one; `report()` says what was found.

    `bill`: what Σ BilledCost must be; `invoices`: InvoiceId → its amount. None: not asked.
    """

    def __init__(self, bill: Decimal | None = None, invoices: Mapping[str, Decimal] | None = None) -> None:
        self._bill, self._invoices = bill, invoices
        self._counts = {rule.id: _Count() for rule in RULES}
        self._defects = [0] * len(DEFECTS)
        self._columns: list[str] = []
        self._sums: dict[str, Decimal] = {}
        self._parents: dict[str, str] = {}
        self._orphans = _Count()
        self._services: dict[str, tuple[str, str]] = {}
        self._split_services = (_Count(), _Count())
        self._currencies: set[str] = set()
        self._categories: dict[str, int] = {}
        self.rows = 0

    def header(self, columns: Sequence[str]) -> None:
        """Note the columns that the file has."""
        self._columns = list(columns)

    def row(self, row: Row) -> None:
        """Check one row, as it stands in the file."""
        self.rows += 1
        for rule in RULES:
            if rule.when is not None and not rule.when(row):
                continue
            count = self._counts[rule.id]
            count.rows += 1
            try:
                kept = rule.keeps(row)
            except ArithmeticError:
                kept = False  # a number that is none: its format fails by its own rule
            if not kept:
                count.fail(f"row {self.rows}: {rule.column} = {row[rule.column][:80]!r}")
        for index, defect in enumerate(DEFECTS):
            if defect.breaks is not None and defect.breaks(row):
                self._defects[index] += 1
        self._add(row)

    def _add(self, row: Row) -> None:
        if NUMBER.fullmatch(row["BilledCost"]):
            invoice = row["InvoiceId"]
            self._sums[invoice] = self._sums.get(invoice, Decimal(0)) + Decimal(row["BilledCost"])
        self._currencies.add(row["BillingCurrency"])
        self._categories[row["ChargeCategory"]] = self._categories.get(row["ChargeCategory"], 0) + 1
        if name := row["ServiceName"]:
            kept = self._services.setdefault(name, (row["ServiceCategory"], row["ServiceSubcategory"]))
            for count, first, here in zip(
                self._split_services, kept, (row["ServiceCategory"], row["ServiceSubcategory"]), strict=True
            ):
                if first != here:
                    count.fail(f"row {self.rows}: {name} is {first} and {here}")
        if price := row["SkuPriceId"]:
            parent = self._parents.setdefault(price, row["SkuId"])
            if parent != row["SkuId"]:
                self._orphans.fail(f"row {self.rows}: {price} belongs to {parent} and {row['SkuId']}")

    def report(self) -> dict[str, Any]:
        """Return what was checked and what failed, as it is stored with the file."""
        checked = [_entry(rule.id, rule.text, self._counts[rule.id].rows, self._counts[rule.id]) for rule in RULES]
        checked += self._dataset()
        failed = [entry for entry in checked if entry["failed"]]
        return {
            "model": "FOCUS 1.2",
            "rows": self.rows,
            "verdict": "failed" if failed else "passed",
            "rules": len(checked),
            "failed": len(failed),
            "sum": format(sum(self._sums.values(), Decimal(0)), "f"),
            "categories": dict(sorted(self._categories.items())),
            "checked": sorted(checked, key=lambda entry: (not entry["failed"], entry["rule"])),
            "defects": [
                {"rule": defect.id, "text": defect.text, "rows": count}
                for defect, count in zip(DEFECTS, self._defects, strict=True)
            ],
        }

    def _dataset(self) -> list[dict[str, Any]]:
        found = []
        for name, number in MANDATORY.items():
            count = _Count()
            if name not in self._columns:
                count.fail(f"the column {name} is missing")
            found.append(_entry(f"CostAndUsage-D-{number}-M", f"{name} MUST be present in a FOCUS dataset.", 1, count))
        order = _Count()
        if any(not name.startswith("x_") for name in self._columns[len(FOCUS_COLUMNS) :]):
            order.fail("a column without x_ follows those of the specification")
        found.append(_entry("x_CustomColumns", "Columns of our own begin with x_ and come last.", 1, order))
        one = _Count()
        if len(self._currencies) > 1:
            one.fail(f"several currencies: {', '.join(sorted(self._currencies))}")
        found.append(_entry("BillingCurrency-C-005-M", "BillingCurrency MUST match the invoice's currency.", 1, one))
        text = "SkuPriceId MUST have one and only one parent SkuId."
        found.append(_entry("SkuPriceId-C-008-M", text, len(self._parents), self._orphans))
        for (rule, text), count in zip(_SERVICE_RULES, self._split_services, strict=True):
            found.append(_entry(rule, text, len(self._services), count))
        if self._invoices is not None:
            invoices = _Count()
            for number in sorted(self._invoices.keys() | self._sums.keys()):
                wanted, got = self._invoices.get(number, Decimal(0)), self._sums.get(number, Decimal(0))
                if wanted != got:
                    invoices.fail(f"{number or 'no InvoiceId'}: {got:f}, the statement says {wanted:f}")
            text = "The sum of the BilledCost for a given InvoiceId MUST match the amount of that invoice."
            found.append(_entry("BilledCost-C-007-M", text, len(self._invoices), invoices))
        if self._bill is not None:
            bill, total = _Count(), sum(self._sums.values(), Decimal(0))
            if total != self._bill:
                bill.fail(f"{total:f}, the month's bill is {self._bill:f}")
            found.append(_entry("x_Bill", "The sum of BilledCost is the month's bill, to the cent.", 1, bill))
        return found


def _entry(rule: str, text: str, rows: int, count: _Count) -> dict[str, Any]:
    return {"rule": rule, "text": text, "rows": rows, "failed": count.failed, "examples": count.examples}


def check_file(
    rows: Iterable[Sequence[str]], *, bill: Decimal | None = None, invoices: Mapping[str, Decimal] | None = None
) -> dict[str, Any]:
    """Check a file as it was read back: the header first, then its rows."""
    checker = Checker(bill, invoices)
    reader = iter(rows)
    header = list(next(reader))
    checker.header(header)
    empty = dict.fromkeys(COLUMNS, "")
    for values in reader:
        checker.row({**empty, **dict(zip(header, values, strict=True))})
    return checker.report()
