"""What an owner is billed in a month, as budgets count it: charges, corrections of closed months, approved credits.

That is what the owner's statement of the month calls its amount without shares of common cost, unrounded. Common cost
(unsold capacity, unused reservations, platform overhead) is no line of a budget: who bears it is the distribution
policy's word, and how much depends on everybody's use of the whole month. A correction counts in the month that it is
billed in, whichever closed month it is about; so does a credit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any, Final

from django.conf import settings
from django.db.models import BigIntegerField, CharField, F, Q, QuerySet, Sum, Value
from django.db.models.functions import Cast, Coalesce

from apps.core.money import MILLISECONDS_PER_HOUR, Money
from apps.costs.choices import HELD, PAID, ChargeKind, Keeper, Verdict
from apps.costs.distribution import DEFAULT, Owner
from apps.costs.models import Budget, Correction, Credit, DayCharge
from apps.costs.statement_rows import policy_for
from apps.costs.tally import Tally, amount_of
from apps.metering import billing
from apps.teams.models import Team, Unit

#: Whose budget it is: ("team" | "unit", id).
Whose = tuple[str, int]

CHARGES: Final = "charges"
CORRECTIONS: Final = "corrections"
CREDITS: Final = "credits"
#: Corrections of reservations: on the owner's statement only where the month's policy sends them there.
_RESERVED: Final = "reserved"
PARTS: Final = (CHARGES, CORRECTIONS, CREDITS)


def ledger() -> str:
    """Return the ledger's currency."""
    return str(settings.COMMONS_CURRENCY)


@dataclass(slots=True)
class Billed:
    """What is billed to one owner in a month, by part; `total` is all of it."""

    parts: dict[str, Tally] = field(default_factory=dict)

    def add(self, part: str, quantity_ms: int, gpu_ms: int, hourly: Decimal | None, code: str | None) -> None:
        """Add a quantity of a part at an hourly price. Raises CurrencyMismatch."""
        tally = self.parts.setdefault(part, Tally(ledger()))
        if hourly is None:
            # A correction is signed: what is unknown of it must not hide what is unknown of a charge.
            quantity_ms = abs(quantity_ms)
        tally.add(quantity_ms, gpu_ms, hourly, code)

    def give(self, amount: Decimal, code: str) -> None:
        """Add a credit: money without a quantity. Raises CurrencyMismatch."""
        tally = self.parts.setdefault(CREDITS, Tally(ledger()))
        tally.add_product(0, 0, -amount * MILLISECONDS_PER_HOUR, code)

    def of(self, part: str) -> Tally:
        """Return a part; an empty one where nothing is billed of it."""
        return self.parts.get(part) or Tally(ledger())

    @property
    def total(self) -> Tally:
        """Return everything added up."""
        found = Tally(ledger())
        for tally in self.parts.values():
            found.product += tally.product
            found.priced_ms += tally.priced_ms
            found.unpriced_ms += tally.unpriced_ms
            found.gpu_ms += tally.gpu_ms
            found.unpriced_gpu_ms += tally.unpriced_gpu_ms
        return found

    @property
    def adjusted(self) -> Money:
        """What corrections and credits come to, exact; the priced part of it."""
        return amount_of(self.of(CORRECTIONS).product + self.of(CREDITS).product, ledger())


def owner_of(budget: Budget) -> Whose:
    """Return whose budget it is."""
    return ("team", budget.team_id) if budget.team_id is not None else ("unit", budget.unit_id or 0)


class Asked:
    """The owners in question: teams, units, and which of these lie at or above a unit (a statement, with units)."""

    def __init__(self, teams: Iterable[int] = (), units: Iterable[int] = ()) -> None:
        self.teams = set(teams)
        wanted = set(units)
        self.above: dict[int, list[Whose]] = {}
        if wanted:
            for pk, path in Unit.objects.filter(path__overlap=sorted(wanted)).values_list("pk", "path"):
                self.above[pk] = [("unit", unit) for unit in path if unit in wanted]

    @classmethod
    def about(cls, budgets: Sequence[Budget]) -> Asked:
        """Return the owners of budgets."""
        return cls(
            (b.team_id for b in budgets if b.team_id is not None), (b.unit_id for b in budgets if b.unit_id is not None)
        )

    @property
    def rows(self) -> Q:
        """Rows with a team and a unit on them that the budgets are about."""
        return Q(team_id__in=sorted(self.teams)) | Q(unit_id__in=sorted(self.above), team_id__isnull=False)

    def owners(self, team_id: int | None, unit_id: int | None) -> list[Whose]:
        """Return whose budgets a row of a team and unit counts for."""
        own: list[Whose] = [("team", team_id)] if team_id in self.teams and team_id is not None else []
        return [*own, *self.above.get(unit_id or 0, [])]


def charged(asked: Asked, first: date, end: date) -> QuerySet[DayCharge]:
    """Return the daily charges of [first, end) that budgets are about."""
    return DayCharge.objects.filter(asked.rows, day__gte=first, day__lt=end, kind__in=PAID)


def billed(asked: Asked, month: date) -> dict[Whose, Billed]:
    """Return what is billed to owners in a month, in one statement.

    A few more where there are credits and units are asked about, or where reservations were corrected.
    """
    first = month.replace(day=1)
    found: dict[Whose, Billed] = {}
    credits: list[tuple[int, int, Decimal, str]] = []
    rows = (
        _summed(charged(asked, first, billing.following(first)), CHARGES)
        .union(
            _summed(corrections(asked, first).exclude(kind=ChargeKind.RESERVED_UNUSED), CORRECTIONS),
            _summed(corrections(asked, first).filter(kind=ChargeKind.RESERVED_UNUSED), _RESERVED),
            _credits(asked, first),
            all=True,
        )
        .order_by("part", "team_id", "unit_id", "hourly", "code")
    )
    keeps: bool | None = None
    for row in rows:
        if row["part"] == CREDITS:
            credits.append((row["team_id"], row["unit_id"], row["hourly"], row["code"]))
            continue
        if row["part"] == _RESERVED:
            keeps = _platform_keeps(first) if keeps is None else keeps
            if keeps:
                continue
        part = CORRECTIONS if row["part"] == _RESERVED else row["part"]
        for owner in asked.owners(row["team_id"], row["unit_id"]):
            found.setdefault(owner, Billed()).add(part, row["quantity"], row["gpus"], row["hourly"], row["code"])
    places = _places({team for team, _, _, _ in credits}, first) if credits and asked.above else {}
    for team_id, unit_id, amount, code in credits:
        for owner in asked.owners(team_id, places.get(team_id, unit_id)):
            found.setdefault(owner, Billed()).give(amount, code)
    return found


def corrections(asked: Asked, month: date) -> QuerySet[Correction]:
    """Return the corrections billed in a month that budgets are about (whichever month they correct)."""
    return Correction.objects.filter(asked.rows, period__month=month.replace(day=1))


def credits_of(budget: Budget, month: date, limit: int = 100) -> list[Credit]:
    """Return the credits that a budget counts in a month, latest first."""
    asked = Asked.about([budget])
    rows = Credit.objects.filter(_given(asked), period__month=month.replace(day=1), status=Verdict.APPROVED)
    found = list(rows.select_related("team", "statement").order_by("-decided_at", "-pk"))
    places = _places({row.team_id for row in found}, month.replace(day=1)) if found and asked.above else {}
    return [row for row in found if asked.owners(row.team_id, places.get(row.team_id, row.team.unit_id))][:limit]


def _summed(rows: QuerySet[Any], part: str) -> Any:
    # GPU-hours of a budget are those that were held: neither resources nor what a reservation left unused.
    gpus = Sum("gpu_ms", filter=Q(kind__in=HELD))
    return (
        rows.order_by()
        .values("team_id", "unit_id", hourly=F("rate__amount"), code=F("rate__currency"))
        .annotate(part=Value(part, CharField()), quantity=_whole(Sum("quantity_ms")), gpus=_whole(gpus))
        .values("part", "team_id", "unit_id", "hourly", "code", "quantity", "gpus")
    )


def _whole(of: Any) -> Any:
    return Coalesce(Cast(of, BigIntegerField()), Value(0), output_field=BigIntegerField())


def _given(asked: Asked) -> Q:
    """Credits that may concern the budgets: of a unit all, since the statement decides where one lands."""
    return Q() if asked.above else Q(team_id__in=sorted(asked.teams))


def _credits(asked: Asked, month: date) -> Any:
    rows = Credit.objects.filter(_given(asked), period__month=month, status=Verdict.APPROVED)
    nothing = Value(0, BigIntegerField())
    return (
        rows.order_by()
        .annotate(part=Value(CREDITS, CharField()), quantity=nothing, gpus=nothing)
        .annotate(unit_id=F("team__unit_id"), hourly=F("amount"), code=F("currency"))
        .values("part", "team_id", "unit_id", "hourly", "code", "quantity", "gpus")
    )


def _platform_keeps(month: date) -> bool:
    """Whether what a reservation left unused is none of its owner's under the policy of a month."""
    policy = policy_for(month)
    rules: Mapping[str, str] = policy.rules if policy is not None else DEFAULT
    return rules.get("reserved_unused") != Keeper.OWNERS


def _places(team_ids: Iterable[int], month: date) -> dict[int, int]:
    """Return the unit of the statement on which each team's credits are billed (`statement_rows` says the same).

    The team as it is now where it has a statement of that unit and cost centre, else its first one of the month; teams
    without any rows are left out: theirs is the statement of their unit now.
    """
    ids = sorted(team_ids)
    period = month, billing.following(month)
    charged = DayCharge.objects.filter(team_id__in=ids, day__gte=period[0], day__lt=period[1])
    corrected = Correction.objects.filter(team_id__in=ids, period__month=month)
    if _platform_keeps(month):
        corrected = corrected.exclude(kind=ChargeKind.RESERVED_UNUSED)
    columns = ("team_id", "unit_id", "cost_centre")
    rows = charged.order_by().values_list(*columns).union(corrected.order_by().values_list(*columns))
    owners = {Owner(team, unit or 0, centre) for team, unit, centre in rows}
    found: dict[int, int] = {}
    for team in Team.objects.filter(pk__in=ids):
        own = [one for one in owners if one.team_id == team.pk]
        if own and Owner(team.pk, team.unit_id, team.cost_centre) not in owners:
            found[team.pk] = min(own).unit_id
    return found
