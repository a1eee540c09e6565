"""A cluster with pool, flavour, workspaces, rate and a source whose readings a test writes itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps.clusters.models import Cluster, Flavour, Pool, PoolCapacity
from apps.metering.engine import HOUR_MS, Holding, Span, Use
from apps.metering.models import Source
from apps.metering.sources.base import HourCover, NodeReading, Reading, ResourceHold, SourceError, ms
from apps.quotas.models import Quota, Workspace
from apps.rates.models import Rate, RateCard
from apps.teams.models import Team

MODEL = "NVIDIA-A100-SXM4-80GB"
SINCE = datetime(2025, 1, 1, tzinfo=UTC)


def utc(*parts: int) -> datetime:
    """A time in UTC."""
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc]  # year, month, day, …


@dataclass
class FakeAdapter:
    """Serves holdings as given; hours in `absent` are unknown, `error` makes reading fail."""

    holdings: list[Holding] = field(default_factory=list)
    nodes: list[NodeReading] = field(default_factory=list)
    resources: list[ResourceHold] = field(default_factory=list)
    absent: set[datetime] = field(default_factory=set)
    incomplete: dict[datetime, int] = field(default_factory=dict)
    error: str = ""
    max_window: timedelta = timedelta(days=1)
    reads: list[tuple[datetime, datetime]] = field(default_factory=list)
    requests: int = 0

    def read(self, start: datetime, end: datetime) -> Reading:
        if self.error:
            raise SourceError(self.error)
        self.reads.append((start, end))
        self.requests += 1
        reading = Reading(holdings=list(self.holdings), nodes=list(self.nodes), resources=list(self.resources))
        absent = {ms(hour) for hour in self.absent}
        for hour in range(ms(start), ms(end), HOUR_MS):
            if hour not in absent:
                reading.hours[hour] = HourCover(1000)
        for hour, coverage in self.incomplete.items():
            if ms(hour) in reading.hours:
                reading.hours[ms(hour)] = HourCover(coverage, complete=False, reason="half of the samples are missing")
        reading.proof.add("test", "http://source.example", "query", {"start": str(start)}, b'{"pod": "train-0"}')
        return reading

    def close(self) -> None:
        """Nothing to close."""


@dataclass
class World:
    """What `make_world` made."""

    cluster: Cluster
    flavour: Flavour
    pool: Pool
    card: RateCard
    rate: Rate | None
    source: Source
    workspaces: dict[str, Workspace]


def make_world(
    teams: Iterable[Team],
    *,
    gpus: int = 50,
    rate: str = "3.85",
    since: datetime = SINCE,
    slug: str = "dc1",
    kind: str = "allocation",
) -> World:
    """Make one cluster with one pool of A100, a workspace per team, a rate and a source of record."""
    cluster = Cluster.objects.create(name=slug.upper(), slug=slug, api_url="https://cluster.example")
    flavour = Flavour.objects.create(name="A100 80 GB", slug=f"a100-{slug}", gpu_model=MODEL)
    pool = Pool.objects.create(cluster=cluster, gpu_model=MODEL)
    pool.flavours.add(flavour)
    PoolCapacity.objects.create(pool=pool, committable_gpus=gpus, valid=DateTimeTZRange(since, None, "[)"))
    card = RateCard.objects.create(name="Standard", cluster=cluster)
    priced = add_rate(card, flavour, rate, since) if rate else None
    source = Source.objects.create(
        cluster=cluster,
        kind=kind,
        name="Test source",
        url="http://source.example",
        valid=DateTimeTZRange(since, None, "[)"),
    )
    workspaces = {
        team.slug: Workspace.objects.create(
            team=team, cluster=cluster, environment="production", namespace=f"{team.slug}-prod"
        )
        for team in teams
    }
    return World(cluster, flavour, pool, card, priced, source, workspaces)


def add_rate(card: RateCard, flavour: Flavour, amount: str, start: datetime, end: datetime | None = None) -> Rate:
    """Add a rate, as an import of an old rate card would."""
    return Rate.objects.create(
        card=card,
        cluster=card.cluster,
        flavour=flavour,
        amount=Decimal(amount),
        currency="USD",
        valid=DateTimeTZRange(start, end, "[)"),
    )


def guarantee(world: World, team: str, gpus: int, since: datetime = SINCE) -> Quota:
    """Give a team's workspace a guaranteed quota."""
    return Quota.objects.create(
        workspace=world.workspaces[team],
        flavour=world.flavour,
        guaranteed=gpus,
        valid=DateTimeTZRange(since, None, "[)"),
    )


def hold(
    key: str, namespace: str, start: datetime, end: datetime, gpus: int = 1, *, used: float | None = None, **extra: Any
) -> Holding:
    """Hold GPUs from start to end, used at a constant ratio (None: unknown)."""
    first, last = ms(start), ms(end)
    uses = None
    if used is not None:
        use = Use(round(used * 1_000_000), 1000, "engine_active")
        uses = dict.fromkeys(range(first - first % HOUR_MS, last, HOUR_MS), use)
    values = {"name": key.split("@", maxsplit=1)[0], "kind": "Job", "resource": "nvidia_com_gpu", "gpu_model": MODEL}
    return Holding(key=key, namespace=namespace, spans=(Span(first, last, gpus),), used=uses, **{**values, **extra})
