"""The stored form of a list of prices: plain data, as a proposal keeps and digests it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from apps.clusters.models import Flavour
from apps.rates.publishing import PriceLine


def dump_lines(lines: Iterable[PriceLine], flavours: Mapping[int, Flavour]) -> list[dict[str, Any]]:
    """Return lines as plain data, as a proposal stores and digests them: flavours by slug, decimals as text."""
    found = []
    for line in lines:
        what = {"flavour": flavours[line.flavour_id].slug} if line.flavour_id else {"resource": line.resource}
        row: dict[str, Any] = {**what, "capacity_type": line.capacity_type, "amount": _text(line.amount)}
        if line.factors:
            row["factors"] = {name: _text(factor) for name, factor in sorted(line.factors.items())}
        if line.capex:
            row["capex"] = line.capex
        found.append(row)
    return found


def load_lines(rows: Iterable[Mapping[str, Any]], flavours: Mapping[int, Flavour]) -> list[PriceLine]:
    """Return the lines of stored data. A flavour that the cluster no longer offers gets id 0, refused by the checks."""
    ids = {flavour.slug: pk for pk, flavour in flavours.items()}
    return [
        PriceLine(
            flavour_id=ids.get(str(row["flavour"]), 0) if row.get("flavour") else None,
            resource=str(row.get("resource", "")),
            capacity_type=str(row.get("capacity_type", "")),
            amount=Decimal(str(row["amount"])),
            factors={name: Decimal(str(factor)) for name, factor in row.get("factors", {}).items()},
            capex=str(row.get("capex", "")),
        )
        for row in rows
    ]


def _text(value: Decimal) -> str:
    return f"{value.normalize():f}"
