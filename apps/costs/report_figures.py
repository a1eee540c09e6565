"""What a month report is read from: one statement over the monthly sums, one for the lines whose change is shown."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

from django.db import connection

from apps.core.errors import NotVisible
from apps.core.money import CurrencyMismatch
from apps.costs.choices import HELD, PAID, UNALLOCATED, ChargeKind
from apps.costs.explaining import Item, ItemKey
from apps.metering import billing
from apps.teams import scope
from apps.teams.models import Unit

#: What a team is charged for: GPU time and resources.
OWN = [str(kind) for kind in PAID]
_HELD = {str(kind) for kind in HELD}
Pair = tuple[dict[ItemKey, Item], dict[ItemKey, Item]]


@dataclass(frozen=True, slots=True)
class Reach:
    """The rows of a report: of `units` (and `teams`), or of everything."""

    everything: bool
    units: list[int]
    teams: list[int]

    @property
    def condition(self) -> str:
        """The rows in SQL, by the team and unit on the row `m`."""
        if self.everything:
            return "true"
        if self.teams:
            return "coalesce(m.unit_id = ANY(%(units)s) OR m.team_id = ANY(%(teams)s), false)"
        return "coalesce(m.unit_id = ANY(%(units)s), false)"


def reach_of(unit: Unit | None, user: Any) -> Reach:
    """Return the rows of a report of `unit` and below, or (None) of all that the person sees. Raises NotVisible."""
    found = scope.of(user)
    if unit is None:
        return Reach(*found.reach_of_rows("costs.charge.view"))
    if not found.holds("costs.charge.view", unit):
        raise NotVisible
    return Reach(False, [one.pk for one in found.units_with("costs.charge.view") if unit.pk in one.path], [])


@dataclass(slots=True)
class TeamRow:
    """A team's two months, added up by the database; products are Σ quantity × hourly price, unrounded."""

    team_id: int | None
    currency: str
    priced_ms: int
    unpriced_ms: int
    gpu_ms: int
    unpriced_gpu_ms: int
    product: Decimal
    resource_priced_ms: int
    resource_unpriced_ms: int
    resource_product: Decimal
    allocated_gpu_ms: int
    used_gpu_ms: int
    measured_gpu_ms: int
    idle_gpu_ms: int
    spare_priced_ms: int
    spare_unpriced_ms: int
    spare_gpu_ms: int
    spare_unpriced_gpu_ms: int
    spare_product: Decimal
    past_priced_ms: int
    past_unpriced_ms: int
    past_gpu_ms: int
    past_product: Decimal
    uid: uuid.UUID | None
    slug: str
    name: str
    colour: int
    unit_name: str

    @property
    def charged(self) -> bool:
        """Whether the team was charged for anything in the month."""
        return bool(self.priced_ms or self.unpriced_ms or self.gpu_ms)

    @property
    def charged_before(self) -> bool:
        """Whether the team was charged for anything in the month before."""
        return bool(self.past_priced_ms or self.past_unpriced_ms or self.past_gpu_ms)

    @property
    def spared(self) -> bool:
        """Whether anything was reserved for the team and not used."""
        return bool(self.spare_priced_ms or self.spare_unpriced_ms or self.spare_gpu_ms)


@dataclass(slots=True)
class Figures:
    """Both months: rows of teams, what the whole is made of, unallocated capacity of no owner seen, clusters."""

    teams: list[TeamRow] = field(default_factory=list)
    whole: Pair = field(default_factory=lambda: ({}, {}))
    #: (kind, of an owner outside the scope, currency, quantity, GPU time, product)
    spare: list[tuple[str, bool, str, int, int, Decimal]] = field(default_factory=list)
    clusters: set[int] = field(default_factory=set)


def _sums(names: str, condition: str) -> str:
    """Return the named columns added up over the rows of `condition`: quantities as integers, products as they are."""
    return ", ".join(
        f"coalesce(sum(m.{name}) FILTER (WHERE {condition}), 0)" + ("" if name.endswith("product") else "::bigint")
        for name in names.split()
    )


_NOW = _sums(
    "priced_ms unpriced_ms gpu_ms unpriced_gpu_ms product resource_priced_ms resource_unpriced_ms resource_product"
    " allocated_gpu_ms used_gpu_ms measured_gpu_ms idle_gpu_ms",
    "m.month = %(month)s",
)
# Pool aggregates are open to everyone with a quota in the pool (design invariant 10), and to nobody else.
_SPARE = _sums(
    "spare_priced_ms spare_unpriced_ms spare_gpu_ms spare_unpriced_gpu_ms spare_product",
    "m.month = %(month)s AND (%(everything)s OR m.cluster_id = ANY((SELECT ids FROM present)::bigint[]))",
)
_PAST = _sums("priced_ms unpriced_ms gpu_ms product", "m.month = %(before)s")


def _statement(reach: Reach) -> str:
    # What of a unit is seen by its teams alone stands in no sum of units.
    source = "costs_monthtotal" if reach.teams and not reach.everything else "costs_unitmonth"
    mine = reach.condition
    return f"""
WITH whole AS MATERIALIZED (
  SELECT m.month, m.kind, {mine} AS mine, m.cluster_id,
    CASE WHEN m.kind = ANY(%(unallocated)s) THEN NULL ELSE m.flavour_id END AS flavour_id, m.capacity_type,
    m.service_class, m.currency, sum(m.quantity_ms) AS quantity_ms, sum(m.gpu_ms) AS gpu_ms, sum(m.product) AS product
  FROM {source} m WHERE m.month IN (%(month)s, %(before)s)
    AND (m.kind = ANY(%(own)s) AND {mine} OR m.kind = ANY(%(unallocated)s) AND m.month = %(month)s)
  GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
), present AS MATERIALIZED (
  SELECT array_agg(DISTINCT cluster_id) AS ids FROM whole WHERE month = %(month)s AND kind = ANY(%(own)s)
), teams AS (
  SELECT true AS is_row, m.team_id, CASE WHEN min(nullif(m.currency, '')) < max(m.currency) THEN 'mixed'
    ELSE max(m.currency) END, {_NOW}, {_SPARE}, {_PAST}
  FROM costs_teammonth m WHERE m.month IN (%(month)s, %(before)s) AND {mine} GROUP BY m.team_id
)
SELECT CASE WHEN row_number() OVER () = 1 THEN (SELECT json_agg(whole)::text FROM whole) END, teams.*, t.uid,
  coalesce(t.slug, ''), coalesce(t.name, ''), coalesce(t.colour, 0), coalesce(u.name, '')
FROM (SELECT) AS once LEFT JOIN teams ON true LEFT JOIN teams_team t ON t.id = teams.team_id
LEFT JOIN teams_unit u ON u.id = t.unit_id ORDER BY teams.team_id
"""  # noqa: S608 (constants of this module)


def _parameters(reach: Reach, month: date) -> dict[str, Any]:
    return {
        "month": month,
        "before": billing.previous(month),
        "own": OWN,
        "unallocated": [str(kind) for kind in UNALLOCATED],
        "everything": reach.everything,
        "units": reach.units,
        "teams": reach.teams,
    }


def read(reach: Reach, month: date, currency: str) -> Figures:
    """Return both months' sums (one query). Raises CurrencyMismatch where one of them is in another currency."""
    with connection.cursor() as cursor:
        cursor.execute(_statement(reach), _parameters(reach, month))
        rows = cursor.fetchall()
    found = Figures()
    whole = None
    for text, is_row, *columns in rows:
        whole = text or whole
        if is_row:
            row = TeamRow(*columns)
            if row.currency not in ("", currency):
                raise CurrencyMismatch(f"{row.currency} and {currency} cannot be mixed")
            found.teams.append(row)
    _whole(found, json.loads(whole, parse_float=Decimal) if whole else [], month, reach)
    return found


def _whole(found: Figures, rows: list[dict[str, Any]], month: date, reach: Reach) -> None:
    """Sort the sums of everything: what is charged for, and capacity that nobody had allocated."""
    own = [row for row in rows if row["kind"] in OWN]
    spare = [row for row in rows if row["kind"] not in OWN]
    for row in own:
        current = row["month"] == month.isoformat()
        if current:
            found.clusters.add(row["cluster_id"])
        if row["currency"]:
            _add(found.whole[current], row)
    for row in spare:
        reserved = row["kind"] == ChargeKind.RESERVED_UNUSED
        if (reserved and row["mine"]) or not (reach.everything or row["cluster_id"] in found.clusters):
            continue  # Reserved for owners in scope: stands in their rows.
        found.spare.append(
            (row["kind"], reserved, row["currency"], row["quantity_ms"], row["gpu_ms"], Decimal(row["product"]))
        )


def _add(items: dict[ItemKey, Item], row: dict[str, Any]) -> None:
    # GPUs of different flavours are compared by physical GPU time; each other resource by its own quantity.
    held = row["kind"] in _HELD
    key = (row["cluster_id"], row["flavour_id"], row["capacity_type"], row["service_class"])
    item = items.setdefault(("gpu" if held else row["kind"], key), Item())
    item.add(int(row["gpu_ms"] if held else row["quantity_ms"]), Decimal(row["product"]))


_ITEMS = """
SELECT m.team_id, m.month = %(month)s AS current, m.kind, m.cluster_id, m.flavour_id, m.capacity_type,
  m.service_class, sum(m.quantity_ms) AS quantity_ms, sum(m.gpu_ms) AS gpu_ms, sum(m.product)::text AS product
FROM costs_monthtotal m WHERE m.month IN (%(month)s, %(before)s) AND m.kind = ANY(%(own)s) AND m.currency <> ''
"""
_BY = " GROUP BY 1, 2, 3, 4, 5, 6, 7"


@dataclass(frozen=True, slots=True)
class ItemReader:
    """Reads what the costs of teams (None: of nobody known) are made of in a month and the one before.

    By a statement of its own, or as a value within another one, for pages that count theirs.
    """

    reach: Reach
    month: date

    def __call__(self, team_ids: Collection[int | None]) -> dict[int | None, Pair]:
        """Return the items of these teams: one query."""
        value, parameters = self.value(team_ids)
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT ({value})::text", parameters)
            return self.parse(team_ids, json.loads(cursor.fetchone()[0] or "[]"))

    def value(self, team_ids: Collection[int | None]) -> tuple[str, dict[str, Any]]:
        """Return a scalar subquery (JSON, for `parse`) and its parameters."""
        owners = "m.team_id = ANY(%(wanted)s)" + (" OR m.team_id IS NULL" if None in team_ids else "")
        select = f"SELECT json_agg(i) FROM ({_ITEMS} AND {self.reach.condition} AND ({owners}) {_BY}) i"  # noqa: S608 (constants of this module)
        return select, {
            **_parameters(self.reach, self.month),
            "wanted": [pk for pk in team_ids if pk is not None],
        }

    def parse(self, team_ids: Collection[int | None], rows: list[dict[str, Any]]) -> dict[int | None, Pair]:
        """Sort what the subquery returned by team."""
        found: dict[int | None, Pair] = {pk: ({}, {}) for pk in team_ids}
        for row in rows:
            _add(found[row["team_id"]][row["current"]], row)
        return found
