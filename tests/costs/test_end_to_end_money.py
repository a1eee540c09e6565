"""Money from a source to a closed month and beyond, in small random worlds with everything in them.

Two clusters, whole GPUs and MIG slices, quotas, gaps, prices that change inside an hour, CPU with a price, a namespace
nobody owns, a service class, any distribution policy, any billing zone: read in any order, closed, told something else
late, credited, closed again, opened again, closed again. After each step the books have to agree with each other, and
at the end all bills together with what a world would bill that had known everything from the beginning.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from apps.audit import partitions
from apps.clusters.models import Flavour, Pool, PoolCapacity
from apps.core import clock
from apps.core.actor import Actor
from apps.core.testing import settle
from apps.costs import credits, period_books, periods, reopening
from apps.costs.choices import OwnerKind, PeriodStatus
from apps.costs.distribution import RULES
from apps.costs.models import Charge, Correction, DistributionPolicy, Period, Statement
from apps.costs.statement_digests import digest_from_rows
from apps.metering import actions as metering
from apps.metering import billing
from apps.metering.engine import HOUR_MS
from apps.metering.models import CapacityLine, HourFact, ResourceFact, Source, WorkspaceClass
from apps.metering.sources.base import Reading, ResourceHold, ms
from apps.rates.models import Rate
from tests.factories import grant, make_user
from tests.metering.world import FakeAdapter, guarantee, hold, make_world

HOUR = timedelta(hours=1)
H100 = "NVIDIA-H100-80GB-HBM3"
MIG = "nvidia.com/mig-1g.10gb"
#: Hours before and after the month's end that are metered.
AROUND = 4
WHY = "Agreed in the monthly finance meeting"
SYSTEM = Actor.system("test")
CENT = Decimal("0.01")
#: Books that never change once their month is closed: table, column of time.
FROZEN = {
    "metering_hourfact": "hour", "metering_capacityline": "hour", "metering_resourcefact": "hour",
    "costs_charge": "hour", "costs_daycharge": "day", "metering_dayusage": "day",
}  # fmt: skip


class Cluster:
    """One cluster of a random world, and what its source tells: at first, and in the end."""

    def __init__(self, rng: random.Random, company: Any, slug: str, turn: datetime) -> None:
        self.rng, self.turn = rng, turn
        start, end = turn - AROUND * HOUR, turn + AROUND * HOUR
        self.start, self.end = start, end
        self.world = make_world(company.teams.values(), gpus=rng.randint(2, 6), slug=slug, since=start, rate="")
        Source.objects.filter(pk=self.world.source.pk).update(valid=DateTimeTZRange(start, end, "[)"))
        world = self.world
        mig = Flavour.objects.create(
            name="H100 1g", slug=f"h100-1g-{slug}", gpu_model=H100, resource_name=MIG, sharing="mig", numerator=1,
            denominator=7,
        )  # fmt: skip
        whole = Flavour.objects.create(name="H100", slug=f"h100-{slug}", gpu_model=H100)
        pool = Pool.objects.create(cluster=world.cluster, gpu_model=H100)
        pool.flavours.add(mig, whole)
        PoolCapacity.objects.create(pool=pool, committable_gpus=2, valid=DateTimeTZRange(start, None, "[)"))
        for flavour in (world.flavour, mig, whole):
            self._prices(flavour=flavour)
        self._prices(resource="cpu")
        for team in rng.sample(["finance", "marketing", "research"], rng.randint(0, 2)):
            guarantee(world, team, 1, start)
        if rng.random() < 0.7:
            WorkspaceClass.objects.create(
                workspace=world.workspaces["finance"], service_class="compliance",
                valid=DateTimeTZRange(start + rng.randint(0, 2 * AROUND) * HOUR, None, "[)"),
            )  # fmt: skip
        self.first, self.last = self._readings()

    def _price(self) -> Decimal:
        return Decimal(self.rng.randint(1, 9_999_999)).scaleb(-self.rng.choice((2, 4, 6)))

    def _prices(self, flavour: Flavour | None = None, resource: str = "") -> None:
        """One price, or two that meet at any second; of each, one for a service class."""
        cut = self.start + timedelta(seconds=self.rng.randrange(int((self.end - self.start).total_seconds())))
        spans = [(self.start, None)] if self.rng.random() < 0.3 else [(self.start, cut), (cut, None)]
        for low, high in spans:
            if high is not None and low == high:
                continue
            values = {
                "card": self.world.card, "cluster": self.world.cluster, "flavour": flavour, "resource": resource,
                "currency": "USD", "valid": DateTimeTZRange(low, high, "[)"),
                # Published before it is in force, whatever the database's own clock says.
                "created_at": self.start,
            }  # fmt: skip
            base = Rate.objects.create(amount=self._price(), **values)
            factor = Decimal("1.25")
            Rate.objects.create(
                amount=base.amount * factor, base=base, factor=factor, service_class="compliance", **values
            )

    def _hold(self, number: int) -> Any:
        rng = self.rng
        space = rng.choice(["finance-prod", "marketing-prod", "research-prod", "nobodys"])
        low = self.start + timedelta(seconds=rng.randrange(2 * AROUND * 3600))
        high = min(self.end, low + timedelta(seconds=rng.randint(1, 4 * 3600)))
        extra: dict[str, Any] = {}
        if rng.random() < 0.4:
            extra = {"resource": "nvidia_com_mig_1g_10gb", "gpu_model": H100}
        return hold(f"work-{number}", space, low, high, rng.randint(1, 3), used=rng.choice([None, 0.3]), **extra)

    def _cpu(self, number: int) -> list[ResourceHold]:
        space = self.rng.choice(["finance-prod", "marketing-prod", "nobodys"])
        hours = self.rng.sample(range(2 * AROUND), self.rng.randint(1, 2 * AROUND))
        return [
            ResourceHold(ms(self.start) + hour * HOUR_MS, "cpu", f"cpu-{number}", space, f"cpu-{number}",
                         self.rng.randint(1, 9 * HOUR_MS))
            for hour in hours
        ]  # fmt: skip

    def _readings(self) -> tuple[FakeAdapter, FakeAdapter]:
        """What the source tells at first, with hours missing; and in the end: some of it gone, some of it new."""
        rng = self.rng
        held = [self._hold(number) for number in range(rng.randint(0, 5))]
        cpu = [self._cpu(number) for number in range(rng.randint(0, 2))]
        later = [one for one in held if rng.random() < 0.7] + [self._hold(n) for n in range(10, 10 + rng.randint(0, 3))]
        cpu_later = [one for one in cpu if rng.random() < 0.7] + [self._cpu(9)]
        hours = [self.start + n * HOUR for n in range(2 * AROUND)]
        absent = set(rng.sample(hours, rng.randint(0, 2)))
        return _Adapter(held, cpu, absent), _Adapter(later, cpu_later, set())

    def read(self, adapter: FakeAdapter, *, twice: bool = True) -> None:
        """Read all hours, in pieces, in any order, some of them twice."""
        edges = sorted({0, 2 * AROUND, *(self.rng.randint(0, 2 * AROUND) for _ in range(2))})
        pieces = list(itertools.pairwise(edges))
        if twice:
            pieces += self.rng.sample(pieces, 1)
        self.rng.shuffle(pieces)
        for low, high in pieces:
            metering.ingest_hours(
                self.world.source.pk, self.start + low * HOUR, self.start + high * HOUR, actor=SYSTEM, adapter=adapter
            )


class _Adapter(FakeAdapter):
    """Holdings, and CPU beside them."""

    def __init__(self, held: list[Any], cpu: list[list[ResourceHold]], absent: set[datetime]) -> None:
        super().__init__(held, absent=absent)
        self.cpu = [one for rows in cpu for one in rows]

    def read(self, start: datetime, end: datetime) -> Reading:
        reading = super().read(start, end)
        reading.resources = [one for one in self.cpu if ms(start) <= one.hour < ms(end)]
        return reading


class Scenario:
    """A random world and what happens in it."""

    def __init__(self, seed: int, company: Any, zone: str) -> None:
        self.rng, self.company = random.Random(seed), company
        self.first = date(2026, 9, 1)
        self.turn = billing.month_bounds(self.first)[1]
        self.clusters = [Cluster(self.rng, company, slug, self.turn) for slug in ("one", "two")]
        number = DistributionPolicy.objects.latest("number").number + 1
        DistributionPolicy.objects.create(
            number=number, name="Any", month_from=self.first, status="approved",
            rules={name: str(self.rng.choice(keepers)) for name, keepers in RULES.items()},
        )  # fmt: skip

    def close(self, month: Any, at: datetime) -> Period:
        """Close a month, waiving the hours that nobody ever told of; check what has to hold of it."""
        finance = Actor.of(self.company.finance)
        with clock.frozen(at):
            settle(only=("costs.price", "costs.make_periods"))
            period = periods.ensure_period(month)
            if period.status == PeriodStatus.OPEN:
                periods.start_closing(period.pk, actor=finance)
            periods.waive(period.pk, "hours", reason=WHY, actor=finance)
            periods.close(period.pk, actor=finance)
            settle(only=("costs.freeze",))
            period.refresh_from_db()
            assert period.status == PeriodStatus.CLOSED, period.freeze_error
        self.check(period)
        return period

    def check(self, period: Period) -> None:
        """The books of a closed month agree: lines, statements, bill, charges, facts, capacity."""
        for compare in (period_books.capacity, period_books.charged, period_books.daily, period_books.stale):
            assert compare(period).count == 0, (compare.__name__, compare(period).differences)
        standing = Statement.objects.filter(period=period, superseded_at__isnull=True)
        total = Decimal(0)
        for row in standing:
            assert row.amount == sum((line.amount for line in row.lines.all()), Decimal(0))
            assert row.digest == digest_from_rows(row)
            if row.owner_kind in (OwnerKind.TEAM, OwnerKind.PLATFORM):
                total += row.amount
                for line in row.lines.all():
                    assert line.exact is not None, "everything has a price here"
                    assert abs(line.exact - line.amount) < CENT
        assert total == period.bill
        teams = [row for row in standing if row.owner_kind == OwnerKind.TEAM]
        for unit in (row for row in standing if row.owner_kind == OwnerKind.UNIT):
            assert unit.amount == sum((t.amount for t in teams if unit.unit_id in t.unit_path), Decimal(0))


def conserve() -> None:
    """Invariant 6, worked out anew in Python: per cluster, model and hour all lines are physical; charges are those."""
    physical: dict[Any, int] = {}
    lines: dict[Any, int] = {}
    for line in CapacityLine.objects.all():
        key = (line.cluster_id, line.hour, line.gpu_model)
        book = physical if line.kind == "physical" else lines
        book[key] = book.get(key, 0) + line.gpu_ms
    assert {key: value for key, value in lines.items() if value} == {k: v for k, v in physical.items() if v}
    charged: dict[Any, int] = {}
    for charge in Charge.objects.exclude(kind="cpu"):
        key = (charge.cluster_id, charge.hour)
        charged[key] = charged.get(key, 0) + charge.gpu_ms
    metered: dict[Any, int] = {}
    for fact in HourFact.objects.all():
        key = (fact.cluster_id, fact.hour)
        metered[key] = metered.get(key, 0) + fact.allocated_gpu_ms
    for line in CapacityLine.objects.filter(kind__in=["reserved_unused", "unsold", "stranded", "maintenance"]):
        key = (line.cluster_id, line.hour)
        metered[key] = metered.get(key, 0) + line.gpu_ms
    assert {k: v for k, v in charged.items() if v} == {k: v for k, v in metered.items() if v}
    cpu = sum(charge.quantity_ms for charge in Charge.objects.filter(kind="cpu"))
    assert cpu == sum(fact.quantity_ms for fact in ResourceFact.objects.filter(resource="cpu"))


def books(start: datetime, end: datetime) -> dict[str, str]:
    """A hash over every row of a month, of each frozen table, and of all statements with their lines."""
    found = {}
    bounds: dict[str, Any] = {
        "hour": (start, end), "day": (billing.day_of(start), billing.day_of(end - HOUR) + timedelta(days=1)),
    }  # fmt: skip
    with connection.cursor() as cursor:
        for table, column in FROZEN.items():
            cursor.execute(
                f"SELECT md5(coalesce(string_agg(x::text, '|' ORDER BY x::text), '')) FROM {table} x"  # noqa: S608 (own names)
                f" WHERE {column} >= %s AND {column} < %s",
                bounds[column],
            )
            found[table] = cursor.fetchone()[0]
    return found


def papers(period: Period) -> list[Any]:
    """Every statement of a month and every line of it."""
    rows = Statement.objects.filter(period=period).order_by("pk")
    return [(values, list(Statement.objects.get(pk=values["id"]).lines.order_by("ordinal").values()))
            for values in rows.values()]  # fmt: skip


def contents() -> list[Any]:
    """Facts, lines and charges without what tells one reading from another."""
    leave_out = {"revision", "source_id", "proof_id", "id"}
    found = []
    for model in (HourFact, CapacityLine, ResourceFact, Charge):
        rows = [{k: v for k, v in row.items() if k not in leave_out} for row in model.objects.values()]
        found.append(sorted(rows, key=repr))
    return found


@contextmanager
def undone() -> Iterator[None]:
    """Everything inside is rolled back."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)
    # As every test does at its end: months of the trail that were made inside are gone again.
    partitions._known.clear()
    partitions._made.clear()


def bills() -> Decimal:
    """Everything that was ever billed, by months as they stand."""
    return sum((row.bill for row in Period.objects.exclude(bill=None)), Decimal(0))


@pytest.mark.requirement("periods-3.1", "adjustments-1.1")
@settings(
    max_examples=4, deadline=None, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(st.integers(0, 2**32), st.sampled_from(["+00:00", "+05:00", "-07:00"]))
def test_money_from_the_source_to_the_last_closed_month(company: Any, settings: Any, seed: int, zone: str) -> None:
    settings.COMMONS_BILLING_TIMEZONE = zone
    with undone():
        run(seed, company, zone)


def run(seed: int, company: Any, zone: str) -> None:
    second = make_user(f"second-{seed}@example.com")
    grant(second, "finance")
    start = billing.month_bounds(date(2026, 9, 1))[1]
    with clock.frozen(start + timedelta(days=1, hours=9)):
        world = Scenario(seed, company, zone)
        september, october = world.first, billing.following(world.first)
        november = billing.following(october)
        truth = whole_truth(world, [september, october])
        for cluster in world.clusters:
            cluster.read(cluster.first)
        conserve()
        once = contents()
        for cluster in reversed(world.clusters):
            cluster.read(cluster.first)
        assert contents() == once, "read again in another order, everything stands as it stood"

    closed = world.close(september, start + timedelta(days=1, hours=10))
    kept, sheets = books(closed.start, closed.end), papers(closed)

    with clock.frozen(start + timedelta(days=2)):
        for cluster in world.clusters:
            cluster.read(cluster.last)
        corrected = list(Correction.objects.order_by("pk").values())
        for cluster in world.clusters:
            cluster.read(cluster.last)
        assert list(Correction.objects.order_by("pk").values()) == corrected, "told again, nothing is corrected twice"
        settle(only=("costs.price",))
        richest = Statement.objects.filter(owner_kind="team", amount__gt=1).order_by("-amount", "pk").first()
        if richest is not None:
            credit = credits.propose_credit(richest.pk, Decimal("0.37"), WHY, actor=Actor.of(company.finance))
            credits.approve_credit(credit.pk, actor=Actor.of(second))
    assert (books(closed.start, closed.end), papers(closed)) == (kept, sheets)

    later = world.close(october, billing.month_bounds(october)[1] + timedelta(hours=5))
    assert (books(closed.start, closed.end), papers(closed)) == (kept, sheets)
    assert abs(bills() - truth) <= CENT, "with what is corrected, the bills are what really was"

    kept_later, sheets_later = books(later.start, later.end), papers(later)
    with clock.frozen(later.end + timedelta(hours=9)):
        request = reopening.request_reopening(closed.pk, WHY, actor=Actor.of(company.finance))
        reopening.approve_reopening(request.pk, WHY, actor=Actor.of(second))
        for cluster in world.clusters:
            cluster.read(cluster.last)
        settle(only=("costs.price",))
        conserve()
    again = world.close(september, later.end + timedelta(hours=10))
    assert again.reopened == 1
    assert papers(closed)[: len(sheets)] == [
        ({**values, "superseded_at": later.end + timedelta(hours=9)}, lines) for values, lines in sheets
    ]
    world.close(november, billing.month_bounds(november)[1] + timedelta(hours=5))
    assert (books(later.start, later.end), papers(later)) == (kept_later, sheets_later)
    assert abs(bills() - truth) <= 2 * CENT, "opened again and closed again, no cent is billed twice or lost"


def whole_truth(world: Scenario, months: list[Any]) -> Decimal:
    """What the months would bill, exactly, had everything been known from the beginning: nothing of it stays."""
    with undone():
        for cluster in world.clusters:
            cluster.read(cluster.last, twice=False)
        settle(only=("costs.price",))
        exact = Decimal(0)
        prices = {rate.pk: rate.amount for rate in Rate.objects.all()}
        for charge in Charge.objects.all():
            assert charge.rate_id is not None
            exact += charge.quantity_ms * prices[charge.rate_id]
    return exact / HOUR_MS
