"""What a release asks for: size, scaling, schedule, ladder, guard. Pure: reading, checking, writing.

Stored as JSON in `Release.spec` and, canonically, in the bytes that are approved: whole numbers and strings only. Hours
are whole hours, times of day UTC, `error_rate` a share of 1 as a decimal string ("0.05").
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from apps.deployments.choices import ExpiryAction, Tier
from apps.quotas import recurrence
from apps.quotas.recurrence import Recurrence

MAX_REPLICAS = 500
MAX_UNITS_PER_REPLICA = 1024
MAX_CPU = 1024
MAX_MEMORY_GIB = 16_384
MAX_RUNGS = 12
MAX_HOURS = 24 * 30
MAX_WINDOWS = 20
MAX_QUERY = 2000
#: KServe gives its own resources names that begin with the endpoint's: it must stay short.
MAX_NAME = 40
_NAME = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
MAX_THRESHOLD = 1_000_000
_METRIC = re.compile(r"^[a-z][a-z0-9_]{0,39}$")


class Unreadable(ValueError):
    """A spec that has not the form of one: `errors` holds field → message."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("; ".join(errors.values()))
        self.errors = dict(errors)


@dataclass(frozen=True, slots=True)
class Autoscaling:
    """Scale on a figure of Prometheus, named `metric`: so many per replica.

    Seconds of steadiness before it grows and before it shrinks: fast up, slow down.
    """

    query: str
    threshold: int
    metric: str = "queue_depth"
    up_seconds: int = 0
    down_seconds: int = 300


@dataclass(frozen=True, slots=True)
class Window:
    """At least so many replicas in windows that come back every week: days from Monday 0, start "HH:MM" UTC."""

    days: tuple[int, ...]
    start: str
    minutes: int
    replicas: int

    @property
    def when(self) -> Recurrence:
        """The repetition. Raises recurrence.Unreadable for one that is none."""
        found = recurrence.parse({"days": list(self.days), "start": self.start, "minutes": self.minutes})
        if found is None:
            raise recurrence.Unreadable({"days": "Choose the days."})
        return found


@dataclass(frozen=True, slots=True)
class Rung:
    """A step of the canary ladder: so many per cent for at least so many hours."""

    traffic: int
    hours: int


@dataclass(frozen=True, slots=True)
class Guard:
    """What rolls a canary back by itself. None: not looked at. `error_rate` is a share of 1."""

    error_rate: Decimal | None = None
    latency_p95_ms: int | None = None
    window_minutes: int = 10


@dataclass(frozen=True, slots=True)
class Spec:
    """One release's wish. `cpu` whole cores and `memory_gib` GiB, each of one replica."""

    min_replicas: int
    max_replicas: int
    units_per_replica: int
    cpu: int
    memory_gib: int
    tier: str = str(Tier.HOT)
    autoscaling: Autoscaling | None = None
    schedule: tuple[Window, ...] = ()
    ladder: tuple[Rung, ...] = ()
    guard: Guard = field(default_factory=Guard)
    logger: bool = False
    explainer: bool = False
    expiry_action: str = str(ExpiryAction.BLOCK_NEW)

    @property
    def max_units(self) -> int:
        """Units of the flavour that it can hold at most."""
        return self.max_replicas * self.units_per_replica

    @property
    def ladder_hours(self) -> int:
        """Hours from the first share of traffic to the earliest promotion."""
        return sum(rung.hours for rung in self.ladder)

    def to_json(self) -> dict[str, Any]:
        """Return it as it is stored, sent and approved."""
        scaling = self.autoscaling
        return {
            "min_replicas": self.min_replicas,
            "max_replicas": self.max_replicas,
            "units_per_replica": self.units_per_replica,
            "cpu": self.cpu,
            "memory_gib": self.memory_gib,
            "tier": self.tier,
            "autoscaling": None
            if scaling is None
            else {
                "metric": scaling.metric,
                "query": scaling.query,
                "threshold": scaling.threshold,
                "up_seconds": scaling.up_seconds,
                "down_seconds": scaling.down_seconds,
            },
            "schedule": [
                {"days": list(w.days), "start": w.start, "minutes": w.minutes, "replicas": w.replicas}
                for w in self.schedule
            ],
            "ladder": [{"traffic": rung.traffic, "hours": rung.hours} for rung in self.ladder],
            "guard": {
                "error_rate": None if self.guard.error_rate is None else str(self.guard.error_rate),
                "latency_p95_ms": self.guard.latency_p95_ms,
                "window_minutes": self.guard.window_minutes,
            },
            "logger": self.logger,
            "explainer": self.explainer,
            "expiry_action": self.expiry_action,
        }

    @classmethod
    def from_json(cls, data: Any) -> Spec:
        """Return the spec that `to_json` wrote, or that came through the API. Raises Unreadable naming fields."""
        return _Reader(data).spec()

    def validate(self) -> dict[str, str]:
        """Return what is wrong with it by itself, field → message; empty where nothing is."""
        return {**_sizes(self), **_tier(self), **_scaling(self), **_schedule(self), **_ladder(self), **_guard(self)}


def name_problem(name: str) -> str:
    """Return why an endpoint cannot be called so, or ""."""
    if len(name) > MAX_NAME:
        return f"At most {MAX_NAME} characters."
    if not _NAME.match(name):
        return "Begin with a letter; then lower-case letters, digits and hyphens; no hyphen at the end."
    return ""


def _sizes(spec: Spec) -> dict[str, str]:
    found: dict[str, str] = {}
    if not 1 <= spec.max_replicas <= MAX_REPLICAS:
        found["max_replicas"] = f"Between 1 and {MAX_REPLICAS:,} replicas."
    if not 0 <= spec.min_replicas <= spec.max_replicas:
        found["min_replicas"] = "Between 0 and the most replicas."
    if not 1 <= spec.units_per_replica <= MAX_UNITS_PER_REPLICA:
        found["units_per_replica"] = f"Between 1 and {MAX_UNITS_PER_REPLICA:,} per replica."
    if not 1 <= spec.cpu <= MAX_CPU:
        found["cpu"] = f"Between 1 and {MAX_CPU:,} cores per replica."
    if not 1 <= spec.memory_gib <= MAX_MEMORY_GIB:
        found["memory_gib"] = f"Between 1 and {MAX_MEMORY_GIB:,} GiB per replica."
    if spec.expiry_action not in ExpiryAction.values:
        found["expiry_action"] = "Choose what happens when the approval ends."
    return found


def _tier(spec: Spec) -> dict[str, str]:
    if spec.tier not in Tier.values:
        return {"tier": "Choose hot, warm or cold."}
    if spec.tier == Tier.HOT and spec.min_replicas != spec.max_replicas:
        return {"min_replicas": "Hot keeps its full size: as many replicas at least as at most. Or choose warm."}
    if spec.tier == Tier.WARM and spec.min_replicas < 1:
        return {"min_replicas": "Warm keeps at least one replica. For none, choose cold."}
    if spec.tier == Tier.COLD and spec.min_replicas != 0:
        return {"min_replicas": "Cold keeps no replica until it is asked: 0. Or choose warm."}
    return {}


def _scaling(spec: Spec) -> dict[str, str]:
    scaling = spec.autoscaling
    found: dict[str, str] = {}
    if scaling is None:
        if spec.tier != Tier.HOT and spec.max_replicas > spec.min_replicas and not spec.schedule:
            found["query"] = "Say by which figure it grows beyond its smallest size, or give it windows."
        elif spec.tier == Tier.COLD:
            found["query"] = "Cold needs a figure that wakes it: a query for what is waiting."
        return found
    if not scaling.query.strip() or len(scaling.query) > MAX_QUERY:
        found["query"] = f"A PromQL query for one number, at most {MAX_QUERY:,} characters."
    if not 1 <= scaling.threshold <= MAX_THRESHOLD:
        found["threshold"] = f"How much of it one replica takes: 1 to {MAX_THRESHOLD:,}."
    if not _METRIC.match(scaling.metric):
        found["metric"] = "A letter first; then lower-case letters, digits and underscores."
    if not 0 <= scaling.up_seconds <= 3600:
        found["up_seconds"] = "Between 0 and 3,600 seconds."
    if not 0 <= scaling.down_seconds <= 3600:
        found["down_seconds"] = "Between 0 and 3,600 seconds."
    elif scaling.down_seconds < scaling.up_seconds:
        found["down_seconds"] = "Fast up, slow down: at least as long as before it grows."
    return found


def _schedule(spec: Spec) -> dict[str, str]:
    if len(spec.schedule) > MAX_WINDOWS:
        return {"schedule": f"At most {MAX_WINDOWS} windows."}
    for window in spec.schedule:
        try:
            recurrence.parse({"days": list(window.days), "start": window.start, "minutes": window.minutes})
        except recurrence.Unreadable as error:
            return {"schedule": str(error)}
    if spec.schedule and spec.tier == Tier.HOT:
        return {"schedule": "Hot is always at full size: windows change nothing. Choose warm or cold."}
    for window in spec.schedule:
        if not spec.min_replicas < window.replicas <= spec.max_replicas:
            return {"schedule": "A window's replicas lie above the smallest and up to the largest size."}
    return {}


def _ladder(spec: Spec) -> dict[str, str]:
    if len(spec.ladder) > MAX_RUNGS:
        return {"ladder": f"At most {MAX_RUNGS} steps."}
    before = 0
    for rung in spec.ladder:
        if not before < rung.traffic < 100:
            return {"ladder": "Each step takes more traffic than the one before, from 1 to 99 per cent."}
        if not 0 <= rung.hours <= MAX_HOURS:
            return {"ladder": f"Between 0 and {MAX_HOURS} hours a step."}
        before = rung.traffic
    return {}


def _guard(spec: Spec) -> dict[str, str]:
    guard, found = spec.guard, {}
    if guard.error_rate is not None and not Decimal(0) < guard.error_rate <= 1:
        found["error_rate"] = "Above 0 and at most 100 per cent."
    if guard.latency_p95_ms is not None and not 1 <= guard.latency_p95_ms <= 3_600_000:
        found["latency_p95_ms"] = "Between 1 and 3,600,000 milliseconds."
    if not 1 <= guard.window_minutes <= 1440:
        found["window_minutes"] = "Between 1 and 1,440 minutes."
    return found


class _Reader:
    """Reads plain data field by field and keeps every fault, so that all of them are said at once."""

    def __init__(self, data: Any) -> None:
        if not isinstance(data, Mapping):
            raise Unreadable({"spec": "An object with the release's fields."})
        self.data: Mapping[str, Any] = data
        self.errors: dict[str, str] = {}

    def spec(self) -> Spec:
        unknown = sorted(set(self.data) - set(Spec.__dataclass_fields__))
        if unknown:
            self.errors["spec"] = f"Unknown: {', '.join(map(str, unknown))}."
        spec = Spec(
            min_replicas=self.whole(self.data, "min_replicas"),
            max_replicas=self.whole(self.data, "max_replicas"),
            units_per_replica=self.whole(self.data, "units_per_replica"),
            cpu=self.whole(self.data, "cpu"),
            memory_gib=self.whole(self.data, "memory_gib"),
            tier=self.text(self.data, "tier", str(Tier.HOT)),
            autoscaling=self.autoscaling(),
            schedule=self.schedule(),
            ladder=self.ladder(),
            guard=self.guard(),
            logger=self.flag("logger"),
            explainer=self.flag("explainer"),
            expiry_action=self.text(self.data, "expiry_action", str(ExpiryAction.BLOCK_NEW)),
        )
        if self.errors:
            raise Unreadable(self.errors)
        return spec

    def whole(self, data: Mapping[str, Any], name: str, default: int | None = None) -> int:
        value = data.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool):
            self.errors[name] = "A whole number."
            return 0
        return value

    def text(self, data: Mapping[str, Any], name: str, default: str = "") -> str:
        value = data.get(name, default)
        if not isinstance(value, str):
            self.errors[name] = "A text."
            return ""
        return value

    def flag(self, name: str) -> bool:
        value = self.data.get(name, False)
        if not isinstance(value, bool):
            self.errors[name] = "true or false."
            return False
        return value

    def rows(self, name: str) -> Sequence[Mapping[str, Any]]:
        value = self.data.get(name) or []
        if not isinstance(value, list) or not all(isinstance(row, Mapping) for row in value):
            self.errors[name] = "A list of objects."
            return []
        return value

    def autoscaling(self) -> Autoscaling | None:
        value = self.data.get("autoscaling")
        if value is None:
            return None
        if not isinstance(value, Mapping):
            self.errors["autoscaling"] = "An object, or null."
            return None
        return Autoscaling(
            query=self.text(value, "query"),
            threshold=self.whole(value, "threshold"),
            metric=self.text(value, "metric", "queue_depth"),
            up_seconds=self.whole(value, "up_seconds", 0),
            down_seconds=self.whole(value, "down_seconds", 300),
        )

    def schedule(self) -> tuple[Window, ...]:
        found = []
        for row in self.rows("schedule"):
            plain = {key: value for key, value in row.items() if key != "replicas"}
            try:
                when = recurrence.parse(plain)
            except recurrence.Unreadable as error:
                self.errors["schedule"] = str(error)
                continue
            if when is None:
                self.errors["schedule"] = "A window has days, a start and minutes."
                continue
            found.append(Window(when.days, when.clock, when.minutes, self.whole(row, "replicas")))
        return tuple(found)

    def ladder(self) -> tuple[Rung, ...]:
        return tuple(Rung(self.whole(row, "traffic"), self.whole(row, "hours")) for row in self.rows("ladder"))

    def guard(self) -> Guard:
        value = self.data.get("guard") or {}
        if not isinstance(value, Mapping):
            self.errors["guard"] = "An object."
            return Guard()
        rate: Decimal | None = None
        if value.get("error_rate") is not None:
            try:
                rate = Decimal(str(value["error_rate"]))
            except InvalidOperation:
                self.errors["error_rate"] = 'A share of 1 as a decimal text, such as "0.05".'
            if rate is not None and not rate.is_finite():
                self.errors["error_rate"], rate = 'A share of 1 as a decimal text, such as "0.05".', None
        latency = value.get("latency_p95_ms")
        return Guard(
            error_rate=rate,
            latency_p95_ms=None if latency is None else self.whole(value, "latency_p95_ms"),
            window_minutes=self.whole(value, "window_minutes", 10),
        )
