"""The generated past: deterministic GPU pods by rules in a JSON file (schema: README of this package).

Nothing here is random: the same file and the same time range always give the same pods with the same names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from apps.demo.cluster.nodes import Gpu, NodeGroup, NodeRule, Slicing

DEFAULT_FILE = Path(__file__).with_name("history.json")
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


class BadRules(ValueError):
    """The history file does not say what it must; the message names the place."""


@dataclass(frozen=True)
class Schedule:
    """When a workload runs, in UTC. `every` is month (all of it), day, or week (the first N weekdays of a month)."""

    every: str
    start: timedelta = timedelta()
    length: timedelta = timedelta()
    weekday: int = 0
    first: int = 0


@dataclass(frozen=True)
class PodRule:
    """One pod of a workload."""

    node: str
    gpus: int
    cpu: float
    memory_gib: float


@dataclass(frozen=True)
class Workload:
    """A rule: pods of one controller, with the share of their GPU time they really use."""

    name: str
    namespace: str
    kind: str
    container: str
    labels: tuple[tuple[str, str], ...]
    utilisation: float
    schedule: Schedule
    pods: tuple[PodRule, ...]
    active_from: datetime | None
    active_until: datetime | None


@dataclass(frozen=True)
class Run:
    """One pod that ran, or runs: what metering sees."""

    namespace: str
    pod: str
    node: str
    container: str
    controller: str
    controller_kind: str
    labels: tuple[tuple[str, str], ...]
    gpus: int
    cpu: float
    memory_gib: float
    utilisation: float
    start: datetime
    end: datetime | None


@dataclass(frozen=True)
class Rules:
    """The whole history file."""

    cluster: str
    start: datetime
    prices: dict[str, float] = field(hash=False)
    currency: str
    nodes: tuple[NodeRule, ...]
    gpu: Gpu
    namespaces: dict[str, dict[str, str]] = field(hash=False)
    workloads: tuple[Workload, ...]
    groups: tuple[NodeGroup, ...] = ()

    def runs(self, start: datetime, end: datetime) -> Iterator[Run]:
        """Pods of the rules that overlap `[start, end)`, whole, in a stable order."""
        start = max(start, self.start)
        month = date(start.year, start.month, 1)
        while _midnight(month) < end:
            for run in _runs_of_month(self, month):
                if run.start < end and run.end is not None and run.end > start:
                    yield run
            month = _next_month(month)

    def __hash__(self) -> int:
        return hash((self.cluster, self.start, self.nodes, self.workloads))


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _next_month(month: date) -> date:
    return date(month.year + month.month // 12, month.month % 12 + 1, 1)


@lru_cache(maxsize=256)
def _runs_of_month(rules: Rules, month: date) -> tuple[Run, ...]:
    out: list[Run] = []
    for workload in rules.workloads:
        for begin, end in _windows(workload.schedule, month):
            begin = max(begin, rules.start, workload.active_from or begin)
            end = min(end, workload.active_until or end)
            if begin < end:
                out += _pods(rules.cluster, workload, begin, end)
    return tuple(sorted(out, key=lambda run: (run.start, run.namespace, run.pod)))


def _windows(schedule: Schedule, month: date) -> Iterator[tuple[datetime, datetime]]:
    """Times a schedule runs in a month. Weekly windows count only where they lie whole within the month."""
    first, last = _midnight(month), _midnight(_next_month(month))
    if schedule.every == "month":
        yield first, last
        return
    days = [first + timedelta(days=number) for number in range((last - first).days)]
    if schedule.every == "day":
        for day in days:
            yield day + schedule.start, day + schedule.start + schedule.length
        return
    begins = [day + schedule.start for day in days if day.weekday() == schedule.weekday]
    whole = [begin for begin in begins if begin + schedule.length <= last]
    for begin in whole[: schedule.first]:
        yield begin, begin + schedule.length


def _pods(cluster: str, workload: Workload, begin: datetime, end: datetime) -> Iterator[Run]:
    stamp = begin.strftime("%Y%m%d")
    seed = f"{cluster}/{workload.namespace}/{workload.name}/{begin.isoformat()}"
    if workload.kind == "Job":
        controller = f"{workload.name}-{stamp}"
        prefix = controller
    else:
        controller = workload.name
        prefix = f"{controller}-{_word(seed, 10)}"
    for index, pod in enumerate(workload.pods):
        yield Run(
            namespace=workload.namespace,
            pod=f"{prefix}-{_word(f'{seed}/{index}', 5)}",
            node=pod.node,
            container=workload.container,
            controller=controller,
            controller_kind=workload.kind.lower(),
            labels=workload.labels,
            gpus=pod.gpus,
            cpu=pod.cpu,
            memory_gib=pod.memory_gib,
            utilisation=workload.utilisation,
            start=begin,
            end=end,
        )


def _word(seed: str, length: int) -> str:
    alphabet = "bcdfghjklmnpqrstvwxz2456789"
    digest = hashlib.sha256(seed.encode()).digest()
    return "".join(alphabet[byte % len(alphabet)] for byte in digest[:length])


# ---- reading the file


def load(path: Path | None = None) -> Rules:
    """Read a history file. Raises `BadRules` with the place of the mistake."""
    path = path or DEFAULT_FILE
    try:
        return parse(json.loads(path.read_text("utf-8")))
    except OSError as error:
        raise BadRules(f"cannot read the history file: {error}") from error
    except ValueError as error:
        raise BadRules(f"{path.name}: {error}") from error


def parse(document: Any) -> Rules:
    """Check a decoded history file. Raises `BadRules`."""
    top = _Reader(document, "")
    gpu = top.part("gpu")
    prices = top.part("prices")
    nodes = tuple(_node(each) for each in top.parts("nodes"))
    known = {node.name for node in nodes}
    if len(known) != len(nodes):
        raise BadRules("nodes: two nodes have one name")
    workloads = tuple(_workload(each, known) for each in top.parts("workloads"))
    names = {workload.namespace for workload in workloads}
    spaces = document.get("namespaces") or {}
    return Rules(
        cluster=top.text("cluster"),
        start=top.moment("historyStart"),
        prices={name: prices.number(name) for name in ("gpuHour", "cpuCoreHour", "ramGiBHour")},
        currency=prices.text("currency"),
        nodes=nodes,
        gpu=_gpu(gpu),
        namespaces={name: dict((spaces.get(name) or {}).get("labels") or {}) for name in sorted({*names, *spaces})},
        workloads=workloads,
        groups=tuple(_node_group(each) for each in (top.parts("nodeGroups") if "nodeGroups" in document else [])),
    )


def _gpu(item: _Reader) -> Gpu:
    return Gpu(
        resource=item.text("resource"),
        product=item.text("product"),
        model=item.text("model"),
        memory_mib=item.whole("memoryMiB"),
        family=item.text("family"),
        machine=item.text("machine"),
        taint=dict(item.raw.get("taint") or {}),
    )


def _node(item: _Reader, name: str = "") -> NodeRule:
    slicing = Slicing()
    if "mig" in item.raw:
        mig = item.part("mig")
        strategy = mig.text("strategy")
        profiles = tuple((profile, mig.part("profiles").whole(profile)) for profile in mig.part("profiles").raw)
        if strategy not in ("single", "mixed") or not profiles or (strategy == "single" and len(profiles) > 1):
            raise BadRules(f"{mig.place}: strategy must be mixed, or single with one profile")
        slicing = Slicing(strategy, profiles)
    elif "timeSlicing" in item.raw:
        sharing = item.part("timeSlicing")
        slicing = Slicing(replicas=sharing.whole("replicas"), renamed=bool(sharing.raw.get("rename")))
    return NodeRule(
        name or item.text("name"),
        item.whole("gpus"),
        item.whole("cpu"),
        item.whole("memoryGiB"),
        _gpu(item.part("gpu")) if "gpu" in item.raw else None,
        slicing,
        bool(item.raw.get("unschedulable")),
        tuple(sorted((str(key), str(value)) for key, value in (item.raw.get("labels") or {}).items())),
    )


def _node_group(item: _Reader) -> NodeGroup:
    least = item.whole("min") if "min" in item.raw else 0
    group = NodeGroup(
        name=item.text("name"),
        most=item.whole("max"),
        least=least,
        start_seconds=item.number("startSeconds", 120.0),
        idle_seconds=item.number("idleSeconds", 600.0),
        node=_node(item.part("node"), item.text("name")),
    )
    if group.most < group.least:
        raise BadRules(f"{item.place}.max: must not be less than min")
    return group


def _workload(item: _Reader, nodes: set[str]) -> Workload:
    pods = []
    for pod in item.parts("pods"):
        gpus, node = pod.whole("gpus"), pod.text("node")
        if node not in nodes:
            raise BadRules(f"{pod.place}.node: there is no node {node!r}")
        pods.append(PodRule(node, gpus, pod.number("cpu", 8.0 * gpus), pod.number("memoryGiB", 64.0 * gpus)))
    kind = item.text("kind")
    if kind not in ("Job", "Deployment"):
        raise BadRules(f"{item.place}.kind: must be Job or Deployment")
    utilisation = item.number("utilisation")
    if not 0 <= utilisation <= 1:
        raise BadRules(f"{item.place}.utilisation: must lie between 0 and 1")
    return Workload(
        name=item.text("name"),
        namespace=item.text("namespace"),
        kind=kind,
        container=item.text("container"),
        labels=tuple(sorted((str(k), str(v)) for k, v in (item.raw.get("labels") or {}).items())),
        utilisation=utilisation,
        schedule=_schedule(item.part("schedule")),
        pods=tuple(pods),
        active_from=item.moment("from") if "from" in item.raw else None,
        active_until=item.moment("until") if "until" in item.raw else None,
    )


def _schedule(item: _Reader) -> Schedule:
    every = item.text("every")
    if every == "month":
        return Schedule(every)
    if every not in ("day", "week"):
        raise BadRules(f"{item.place}.every: must be month, week or day")
    start, length = item.clock("start"), timedelta(minutes=item.whole("minutes"))
    if length <= timedelta():
        raise BadRules(f"{item.place}.minutes: must be more than 0")
    if every == "day":
        if start + length > timedelta(days=1):
            raise BadRules(f"{item.place}: a daily run must end on the day it starts")
        return Schedule(every, start, length)
    weekday = item.text("weekday").lower()
    if weekday not in _WEEKDAYS:
        raise BadRules(f"{item.place}.weekday: must be one of {', '.join(_WEEKDAYS)}")
    return Schedule(every, start, length, _WEEKDAYS.index(weekday), item.whole("first"))


class _Reader:
    """Typed access to a decoded JSON object, with the place in error messages."""

    def __init__(self, raw: Any, place: str) -> None:
        if not isinstance(raw, dict):
            raise BadRules(f"{place or 'the file'}: must be an object")
        self.raw = raw
        self.place = place

    def _value(self, name: str, kinds: tuple[type, ...], what: str) -> Any:
        value = self.raw.get(name)
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise BadRules(f"{self._at(name)}: must be {what}")
        return value

    def _at(self, name: str) -> str:
        return f"{self.place}.{name}" if self.place else name

    def part(self, name: str) -> _Reader:
        return _Reader(self.raw.get(name), self._at(name))

    def parts(self, name: str) -> list[_Reader]:
        rows = self._value(name, (list,), "a list")
        return [_Reader(row, f"{self._at(name)}[{index}]") for index, row in enumerate(rows)]

    def text(self, name: str) -> str:
        return str(self._value(name, (str,), "a text"))

    def whole(self, name: str) -> int:
        value = int(self._value(name, (int,), "a whole number"))
        if value < 0:
            raise BadRules(f"{self._at(name)}: must not be negative")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        if default is not None and name not in self.raw:
            return default
        return float(self._value(name, (int, float), "a number"))

    def moment(self, name: str) -> datetime:
        try:
            value = datetime.fromisoformat(self.text(name))
        except ValueError as error:
            raise BadRules(f"{self._at(name)}: must be an RFC 3339 time") from error
        if value.tzinfo is None:
            raise BadRules(f"{self._at(name)}: needs a time zone")
        return value.astimezone(UTC)

    def clock(self, name: str) -> timedelta:
        hours, _, minutes = self.text(name).partition(":")
        if not (hours.isdigit() and minutes.isdigit() and int(hours) < 24 and int(minutes) < 60):
            raise BadRules(f"{self._at(name)}: must be HH:MM")
        return timedelta(hours=int(hours), minutes=int(minutes))
