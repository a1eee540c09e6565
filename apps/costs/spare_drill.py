"""The way down from a month's unallocated capacity: lines of the report, days, lines of a day, hours of a line.

What nobody held is a figure of the pool, so who sees it is not decided by a team on the row: whoever was charged for
anything on a cluster in the month sees the cluster's sums (design invariant 10), and other owners under one name. The
same lines with the same rounding as in the month report; every level below is rounded to the one above.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import connection

from apps.clusters.models import Cluster
from apps.core.errors import NotVisible
from apps.core.money import Money
from apps.costs.choices import UNALLOCATED, ChargeKind
from apps.costs.report_figures import OWN, Reach
from apps.costs.reporting import FOREIGN, NOBODY, OTHERS
from apps.costs.tally import Tally, fitted, round_products, total_of
from apps.metering import billing
from apps.teams.models import Team


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of the unallocated capacity: of a kind ("": all), reserved by an owner ("": all; a team's slug, others)."""

    kind: str = ""
    owner: str = ""


EVERYTHING = Choice()


@dataclass(frozen=True, slots=True)
class Key:
    """One line of unallocated capacity; `owner` as addresses name it, "" where the kind has none."""

    kind: str
    owner: str = ""
    name: str = ""
    team_id: int | None = None

    @property
    def label(self) -> str:
        """The line in words, as the report writes it."""
        text = str(ChargeKind(self.kind).label)
        return f"{text}: {self.name}" if self.name else text

    def chosen(self, choice: Choice) -> bool:
        """Whether the line is among what was asked for."""
        return choice.kind in ("", self.kind) and choice.owner in ("", self.owner)


@dataclass(frozen=True, slots=True)
class SpareLine:
    """Unallocated capacity of a line, a day, an hour (`at`) or a place. `amount` None: nothing of it has a rate."""

    key: Key
    gpu_ms: int
    unpriced_gpu_ms: int
    amount: Money | None
    at: Any = None
    cluster: Cluster | None = None
    gpu_model: str = ""


def clusters_seen(reach: Reach, month: date) -> list[int] | None:
    """Return the clusters whose unallocated capacity the reach sees in a billing month; None: of all.

    Those on which the reach was charged for anything that somebody held, as in the month report.
    """
    if reach.everything:
        return None
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT m.cluster_id FROM costs_monthtotal m"  # noqa: S608 (own constants)
            f" WHERE m.month = %(month)s AND m.kind = ANY(%(own)s) AND {reach.condition}",
            {"month": month.replace(day=1), "own": OWN, "units": reach.units, "teams": reach.teams},
        )
        return sorted(row[0] for row in cursor.fetchall())


@dataclass(frozen=True, slots=True)
class _Sum:
    """What is added up; None in what it is not told apart by."""

    at: Any
    cluster_id: int
    gpu_model: str
    kind: str
    mine: bool
    team_id: int | None
    tally: Tally


def _read(
    reach: Reach, clusters: list[int] | None, table: str, window: str, values: dict[str, Any], *, choice: Choice,
    at: str = "NULL", place: bool = False, line: bool = True,
) -> list[_Sum]:  # fmt: skip
    """Return sums of what was chosen by moment (`at`), place (cluster, model) and line (kind, owner): one query."""
    mine = f"(m.kind = '{ChargeKind.RESERVED_UNUSED}' AND {reach.condition})"
    columns = [at, *(("m.cluster_id", "m.gpu_model") if place else ("NULL", "NULL"))]
    columns += ["m.kind", mine, f"CASE WHEN {mine} THEN m.team_id END"] if line else ["NULL", "NULL", "NULL"]
    owner = {
        "": "true",
        FOREIGN: f"m.kind = '{ChargeKind.RESERVED_UNUSED}' AND NOT {mine}",
        NOBODY: f"{mine} AND m.team_id IS NULL",
    }.get(choice.owner, f"{mine} AND m.team_id = (SELECT id FROM teams_team WHERE slug = %(owner)s)")  # noqa: S608 (own constants)
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT {", ".join(columns)}, coalesce(r.currency, ''), sum(m.quantity_ms)::bigint,
              sum(m.gpu_ms)::bigint, coalesce(sum(m.quantity_ms * r.amount), 0)
            FROM {table} m LEFT JOIN rates_rate r ON r.id = m.rate_id
            WHERE m.kind = ANY(%(kinds)s) AND {window} AND (%(kind)s = '' OR m.kind = %(kind)s) AND ({owner})
              AND (%(clusters)s::bigint[] IS NULL OR m.cluster_id = ANY(%(clusters)s))
            GROUP BY 1, 2, 3, 4, 5, 6, 7
            """,  # noqa: S608 (own constants)
            {"kinds": [str(kind) for kind in UNALLOCATED], "units": reach.units, "teams": reach.teams,
             "clusters": clusters, "kind": choice.kind, "owner": choice.owner, **values},
        )  # fmt: skip
        rows = cursor.fetchall()
    found: dict[tuple[Any, ...], _Sum] = {}
    for when, cluster, model, kind, owned, team, currency, quantity, gpu_ms, product in rows:
        group = (when, cluster, model, kind, owned, team)
        one = found.setdefault(group, _Sum(*group, Tally(_ledger())))
        one.tally.add_product(quantity, gpu_ms, product, currency)
    return list(found.values())


def _ledger() -> str:
    return str(settings.COMMONS_CURRENCY)


def _product(tally: Tally) -> Decimal | None:
    return None if tally.unpriced_ms and not tally.priced_ms else tally.product


def _keys(sums: Iterable[_Sum]) -> dict[tuple[str, bool, int | None], Key]:
    """Return the lines by kind, whether the owner is in scope, and the owner."""
    found = {(one.kind, one.mine, one.team_id) for one in sums}
    ids = {team_id for _, _, team_id in found if team_id is not None}
    teams = {pk: (slug, name) for pk, slug, name in Team.objects.filter(pk__in=ids).values_list("pk", "slug", "name")}
    keys = {}
    for kind, mine, team_id in found:
        if kind != ChargeKind.RESERVED_UNUSED:
            key = Key(kind)
        elif not mine:
            key = Key(kind, FOREIGN, OTHERS)
        else:
            slug, name = teams.get(team_id, ("", "")) if team_id is not None else ("", "")
            key = Key(kind, slug or NOBODY, name, team_id)
        keys[kind, mine, team_id] = key
    return keys


_RANK = {str(kind): at for at, kind in enumerate(UNALLOCATED)}


def _rank(key: Key) -> tuple[Any, ...]:
    """Return the order of the month report: what is left over in rounding goes by it."""
    foreign = key.owner == FOREIGN
    return (_RANK[key.kind], foreign, "" if foreign else key.name, key.team_id or 0)


@dataclass(slots=True)
class SpareMonth:
    """A month's unallocated capacity: its lines as the report has them, and (chosen) its days."""

    lines: list[SpareLine]
    days: list[SpareLine]

    @property
    def total(self) -> Money | None:
        """Σ of the lines that were chosen; None: nothing has a price."""
        return total_of(line.amount for line in self.lines)


_DAYS = "m.day >= %(first)s AND m.day < %(last)s"


def spare_month(reach: Reach, month: date, choice: Choice = EVERYTHING) -> SpareMonth:
    """Return the lines and days of a month's unallocated capacity that were chosen: four queries.

    The lines are rounded as in the report, with all the others; days sum to the chosen lines.
    """
    first = month.replace(day=1)
    clusters = clusters_seen(reach, first)
    values = {"first": first, "last": billing.following(first)}
    sums = _read(reach, clusters, "costs_daycharge", _DAYS, values, choice=EVERYTHING)
    keys = _keys(sums)
    by_line = {keys[one.kind, one.mine, one.team_id]: one.tally for one in sums}
    ordered = sorted(by_line, key=_rank)
    amounts = round_products([_product(by_line[key]) for key in ordered], _ledger())
    lines = [
        SpareLine(key, by_line[key].gpu_ms, by_line[key].unpriced_gpu_ms, amount)
        for key, amount in zip(ordered, amounts, strict=True)
        if key.chosen(choice)
    ]
    days = _read(reach, clusters, "costs_daycharge", _DAYS, values, choice=choice, at="m.day", line=False)
    key = Key(choice.kind, choice.owner)
    days.sort(key=lambda one: one.at)
    return SpareMonth(lines, _fitted([(key, one) for one in days], total_of(line.amount for line in lines)))


def _fitted(rows: Sequence[tuple[Key, _Sum]], total: Money | None) -> list[SpareLine]:
    amounts = fitted([one.tally.amount for _, one in rows], total)
    return [
        SpareLine(key, one.tally.gpu_ms, one.tally.unpriced_gpu_ms, amount, one.at)
        for (key, one), amount in zip(rows, amounts, strict=True)
    ]


def spare_day(reach: Reach, day: date, choice: Choice = EVERYTHING) -> tuple[SpareLine | None, list[SpareLine]]:
    """Return a billing day's figure as the month shows it, and its lines by cluster, GPU model, kind and owner."""
    above = next((line for line in spare_month(reach, day, choice).days if line.at == day), None)
    if above is None:
        return None, []
    sums = _read(
        reach, clusters_seen(reach, day), "costs_daycharge", "m.day = %(day)s", {"day": day}, choice=choice, place=True
    )
    keys = _keys(sums)
    clusters = Cluster.objects.in_bulk({one.cluster_id for one in sums})
    rows = [(keys[one.kind, one.mine, one.team_id], one) for one in sums]
    rows.sort(key=lambda row: (clusters[row[1].cluster_id].name, row[1].cluster_id, row[1].gpu_model, _rank(row[0])))
    return above, [
        replace(line, cluster=clusters[one.cluster_id], gpu_model=one.gpu_model)
        for line, (_, one) in zip(_fitted(rows, above.amount), rows, strict=True)
    ]


def spare_hours(
    reach: Reach, day: date, choice: Choice, cluster: Cluster, gpu_model: str, *, within: Choice = EVERYTHING
) -> tuple[SpareLine, list[SpareLine]]:
    """Return one line of a day as the day shows it among `within`, and its hours. Raises NotVisible without one."""
    _, lines = spare_day(reach, day, within)
    place = (cluster.pk, gpu_model, choice.kind, choice.owner)
    above = next(
        (one for one in lines
         if one.cluster is not None and (one.cluster.pk, one.gpu_model, one.key.kind, one.key.owner) == place),
        None,
    )  # fmt: skip
    if above is None:
        raise NotVisible
    start, end = billing.day_bounds(day)
    hours = _read(
        reach, [cluster.pk], "costs_charge", "m.hour >= %(start)s AND m.hour < %(end)s AND m.gpu_model = %(model)s",
        {"start": start, "end": end, "model": gpu_model}, choice=choice, at="m.hour", line=False,
    )  # fmt: skip
    hours.sort(key=lambda one: one.at)
    return above, _fitted([(above.key, one) for one in hours], above.amount)


__all__ = [
    "EVERYTHING", "FOREIGN", "NOBODY", "Choice", "Key", "SpareLine", "SpareMonth", "clusters_seen", "spare_day",
    "spare_hours", "spare_month",
]  # fmt: skip
