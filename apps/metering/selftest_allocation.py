"""Self-test of an allocation API (OpenCost, Kubecost): `ask` reads answers row by row, `check` judges them (pure)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Any, TypeVar

from apps.clusters.clients.allocation import AllocationClient
from apps.clusters.errors import ClusterError, ServerError
from apps.core import clock
from apps.metering.choices import SourceKind
from apps.metering.selftest import (
    FAILED,
    OK,
    WARNING,
    Finding,
    Knowledge,
    Outcome,
    Progress,
    counted,
    listed,
    unanswered,
)
from apps.metering.source_exclusive import WHY
from apps.metering.source_stream import BadAnswer, Rows, checked
from apps.metering.sources.allocation import DEFAULT_RESOLUTION_SECONDS, AllocationAdapter
from apps.metering.sources.kubecost import KubecostAdapter

HOUR = timedelta(hours=1)
#: Seconds to connect, seconds without a byte.
TIMEOUT = (3.0, 60.0)
_SUMS = ("__idle__", "__unallocated__", "__unmounted__", "__shared__", "__external__")
_MIG_LABELS = ("nvidia_com_mig_strategy", "label_nvidia_com_mig_strategy", "nvidia.com/mig.strategy")


@dataclass(slots=True)
class Sets:
    """What an answer of allocations holds, counted while it is read."""

    sets: int = 0
    rows: int = 0
    idle: int = 0
    gpu_rows: int = 0
    shared: list[str] = field(default_factory=list)
    clusters: Counter[str] = field(default_factory=Counter)
    without_details: int = 0
    without_minutes: int = 0
    #: Whole tenths of minutes of rows that do not fill their hour: their divisor is the resolution.
    minutes: set[int] = field(default_factory=set)
    #: Lengths of the sets' own windows, in hours.
    lengths: set[float] = field(default_factory=set)

    def take(self, key: str, row: Any) -> None:
        """Count one row."""
        if any(mark in key for mark in _SUMS):
            self.idle += "__idle__" in key
            return
        if not isinstance(row, dict):
            return
        self.rows += 1
        properties = row.get("properties") or {}
        self.clusters[str(properties.get("cluster") or "")] += 1
        window = row.get("window")
        if isinstance(window, dict) and (length := _hours(window)) is not None:
            self.lengths.add(length)
        minutes = row.get("minutes")
        if not isinstance(minutes, int | float):
            self.without_minutes += 1
        elif 0 < minutes < 60 and len(self.minutes) < 5000:
            self.minutes.add(round(minutes * 10))
        if row.get("gpuCount") or row.get("gpuHours"):
            self.gpu_rows += 1
            details = row.get("gpuAllocation")
            if not isinstance(details, dict) or "gpuUsageAverage" not in details:
                self.without_details += 1
            if isinstance(details, dict) and details.get("isGPUShared"):
                self.shared.append(key)


@dataclass(slots=True)
class Nodes:
    """What an answer of assets holds."""

    gpu_nodes: list[str] = field(default_factory=list)
    mig_nodes: list[str] = field(default_factory=list)
    others: int = 0

    def take(self, key: str, asset: Any) -> None:
        """Count one asset."""
        if not isinstance(asset, dict) or str(asset.get("type", "Node")).lower() != "node":
            self.others += 1
            return
        properties, labels = asset.get("properties") or {}, asset.get("labels") or {}
        if asset.get("gpuCount") or asset.get("GPUHours"):
            self.gpu_nodes.append(str(properties.get("name") or key))
            if any(labels.get(name) in ("single", "mixed") for name in _MIG_LABELS):
                self.mig_nodes.append(str(properties.get("name") or key))


Counted = TypeVar("Counted", Sets, Nodes)


@dataclass(slots=True)
class Answers:
    """What a server said of the newest whole hours, of 48 hours ago, and of its nodes; errors by question."""

    kind: str
    hours: int = 2
    recent: Sets | None = None
    old: Sets | None = None
    nodes: Nodes | None = None
    old_nodes: Nodes | None = None
    errors: dict[str, ClusterError] = field(default_factory=dict)
    only: frozenset[str] = frozenset()
    resolution_seconds: int = 0
    requests: int = 0


def run(
    url: str,
    *,
    token: str,
    kind: str,
    options: Mapping[str, Any],
    at: datetime,
    known: Knowledge,
    tell: Callable[[int, int, str], None],
) -> Outcome:
    """Test the server at `url` as of `at`. Raises AddressRefused, Unreachable for the address itself."""
    adapter = KubecostAdapter if kind == SourceKind.KUBECOST else AllocationAdapter
    client = AllocationClient(
        url,
        token=token,
        path=str(options.get("path") or adapter.path),
        assets_path=str(options.get("assets_path", "")),
        timeout=(TIMEOUT[0], float(options.get("test_seconds", TIMEOUT[1]))),
    )
    given = {str(name): str(value) for name, value in (options.get("parameters") or {}).items()}
    answers = Answers(
        kind=kind,
        hours=1 if kind == SourceKind.KUBECOST else 2,
        only=frozenset(options.get("clusters") or ()),
        resolution_seconds=int(options.get("resolution_seconds", 0)),
    )
    try:
        ask(client, answers, clock.hour_floor(at), {**adapter.parameters, **given}, Progress(4, tell))
    finally:
        client.close()
    return Outcome(check(answers, known), answers.requests)


def ask(client: AllocationClient, answers: Answers, last: datetime, parameters: dict[str, str], told: Progress) -> None:
    """Ask for the hours before `last`, for its nodes, and for one hour two days ago."""
    begin, past = last - answers.hours * HOUR, last - 48 * HOUR
    recent = _read(client, answers, "allocation", "recent", begin, last, parameters, Sets())
    told.step("The newest hours")
    if recent is None:
        return
    answers.recent = recent
    answers.nodes = _read(client, answers, "assets", "nodes", begin, last, {}, Nodes())
    told.step("Nodes")
    answers.old = _read(client, answers, "allocation", "old", past, past + HOUR, parameters, Sets())
    told.step("An hour two days ago")
    answers.old_nodes = _read(client, answers, "assets", "old_nodes", past, past + HOUR, {}, Nodes())
    told.step("Nodes two days ago")


def _read(
    client: AllocationClient,
    answers: Answers,
    what: str,
    key: str,
    start: datetime,
    end: datetime,
    parameters: Mapping[str, str],
    into: Counted,
) -> Counted | None:
    """Count the rows of one answer; None where there is none, with the error kept under `key`."""
    answers.requests += 1
    try:
        with client.pieces(what, start, end, **parameters) as (_, pieces):
            rows = Rows(pieces)
            for _, name, row in checked(rows):
                into.take(name, row)
            if isinstance(into, Sets):
                into.sets = rows.sets
    except ClusterError as error:
        answers.errors[key] = error
        return None
    except BadAnswer as error:
        answers.errors[key] = ServerError(str(error))
        return None
    return into


def check(answers: Answers, known: Knowledge) -> list[Finding]:
    """Judge answers; the first contact alone where it failed."""
    if error := answers.errors.get("recent"):
        return [unanswered("reachable", error, "allocations of the newest hours"), *_shared(answers, known)]
    recent = answers.recent or Sets()
    found = [Finding("reachable", OK, f"It answered with {counted(recent.rows, 'row')}.")]
    for rule in (_schema, _steps, _remembers, _resolution, _idle, _one_cluster, _nodes, _shared, _currency):
        found.extend(rule(answers, known))
    return found


def _schema(answers: Answers, known: Knowledge) -> Iterator[Finding]:
    recent = answers.recent or Sets()
    if recent.rows and recent.without_minutes == recent.rows:
        todo = "Upgrade OpenCost or Kubecost, or check that no `aggregate` is set among the parameters."
        yield Finding("schema", FAILED, "Rows have no `minutes`: no quantity can be made of them.", todo)
    elif recent.gpu_rows and recent.without_details == recent.gpu_rows:
        detail = "The older schema, without `gpuAllocation`: what was allocated is known, what was used is not."
        yield Finding("schema", WARNING, detail, "Upgrade to a release with gpuAllocation to see use.")
    elif not recent.gpu_rows:
        yield Finding("schema", OK, "No row holds a GPU in these hours: the schema shows with the first one.")
    else:
        yield Finding("schema", OK, "Rows carry count, minutes and use of GPUs.")


def _steps(answers: Answers, known: Knowledge) -> Iterator[Finding]:
    recent = answers.recent or Sets()
    evidence = f"{recent.sets} sets for {answers.hours} hours; windows of {sorted(recent.lengths) or 'unknown'} hours"
    odd = sorted(length for length in recent.lengths if abs(length - 1) > 0.001)
    if recent.sets > answers.hours or odd:
        todo = (
            "Let it keep hourly sets (Kubecost: etlHourlyStoreDurationHours), and leave `accumulate` and `step` alone."
        )
        detail = f"It answers with {counted(recent.sets, 'set')} for {counted(answers.hours, 'hour')}"
        detail += f", of {odd[0]:g} hours each." if odd else "."
        yield Finding("steps", FAILED, detail, todo, evidence)
    else:
        yield Finding("steps", OK, "One set for each hour.", "", evidence)


def _remembers(answers: Answers, known: Knowledge) -> Iterator[Finding]:
    for key in ("old", "old_nodes"):
        if error := answers.errors.get(key):
            yield unanswered("retention", error, "one hour, 48 hours ago")
            return
    old, nodes = answers.old or Sets(), answers.old_nodes or Nodes()
    todo = "Let it keep hourly data for a week (Kubecost: etlHourlyStoreDurationHours=168), or Prometheus for 40 days."
    if any(abs(length - 1) > 0.001 for length in old.lengths):
        detail = "Of 48 hours ago it has daily sets only: late data cannot be read again."
        yield Finding("retention", FAILED, detail, todo)
    elif not old.rows and not nodes.gpu_nodes:
        detail = "It knows nothing of 48 hours ago: it is young, or forgets before late data is read again."
        yield Finding("retention", WARNING, detail, todo)
    else:
        yield Finding("retention", OK, "It still knows the hour 48 hours ago.")


def _resolution(answers: Answers, known: Knowledge) -> Iterator[Finding]:
    recent = answers.recent or Sets()
    told = answers.resolution_seconds
    seen = reduce(math.gcd, recent.minutes, 0) * 6 if recent.minutes else 0
    seconds = told or max(seen, 0) or DEFAULT_RESOLUTION_SECONDS
    seconds = min(seconds, 3600)
    source = "as set with the source" if told else "from its rows" if seen else "its default: no row tells"
    percent = min(100, round(seconds / 36))
    short = "−100 %" if seconds >= 300 else f"−{round(seconds / 3)} %"
    detail = (
        f"{seconds / 60:g} min ({source}): each edge of a pod may be off by that much; a pod of one hour loses up to"
    )
    detail += f" {percent} %, one of five minutes {short}."
    if seconds > 60:
        todo = "Set the resolution to 1 min (OpenCost: resolution=1m among the parameters), or use Prometheus."
        yield Finding("resolution", WARNING, detail, todo)
    else:
        yield Finding("resolution", OK, detail)


def _idle(answers: Answers, known: Knowledge) -> Iterator[Finding]:
    recent = answers.recent or Sets()
    if recent.idle:
        yield Finding("idle_rows", OK, f"{counted(recent.idle, 'row')} of idle capacity come along and are left out.")
    else:
        yield Finding("idle_rows", OK, "None come along: idle capacity is worked out from the nodes.")


def _one_cluster(answers: Answers, known: Knowledge) -> Iterator[Finding]:
    names = sorted(name for name in (answers.recent or Sets()).clusters if name)
    taken = [name for name in names if not answers.only or name in answers.only]
    if len(taken) > 1:
        todo = "Register the source again and name the cluster it stands for."
        yield Finding("one_cluster", FAILED, f"It holds {len(taken)} clusters: {listed(taken)}.", todo)
    elif names and not taken:
        detail = f"It knows {listed(names)}, but not {listed(sorted(answers.only))}: nothing would be metered."
        yield Finding("one_cluster", FAILED, detail, "Register the source again with the name that the API uses.")
    else:
        yield Finding("one_cluster", OK, f"Rows of {taken[0]} only." if taken else "Rows of one cluster only.")


def _nodes(answers: Answers, known: Knowledge) -> Iterator[Finding]:
    if error := answers.errors.get("nodes"):
        yield unanswered("nodes", error, "assets of the newest hours")
        return
    nodes = set((answers.nodes or Nodes()).gpu_nodes)
    if not nodes:
        detail = (
            "No node with GPUs among its assets: capacity is taken from the pools instead, and empty hours count as"
        )
        yield Finding("nodes", WARNING, f"{detail} missing.", "Check that the nodes' GPUs show under /assets.")
    elif known.nodes and not nodes & known.nodes:
        detail = f"None of its {len(nodes)} nodes is in this cluster's inventory: {listed(sorted(nodes))}."
        yield Finding("nodes", FAILED, detail, "Check the address: this looks like another cluster's API.")
    else:
        yield Finding("nodes", OK, f"{counted(len(nodes), 'node')} with GPUs.")


def _shared(answers: Answers, known: Knowledge) -> Iterator[Finding]:
    reasons = list(known.shared)
    rows = [key for sets in (answers.recent, answers.old) if sets is not None for key in sets.shared]
    if rows:
        reasons.append(f"the API tells shared GPUs of {listed(sorted(set(rows)))}")
    if answers.nodes is not None and answers.nodes.mig_nodes:
        reasons.append(f"MIG is on at {listed(sorted(answers.nodes.mig_nodes))}")
    if reasons:
        yield Finding("shared_gpus", FAILED, f"{'; '.join(reasons)}.", WHY)
    else:
        yield Finding("shared_gpus", OK, "No flavour, no node and no row tells a shared GPU.")


def _currency(answers: Answers, known: Knowledge) -> Iterator[Finding]:
    detail = "Ours: its dollars (floating point, five decimals) are a cross-check and never billed."
    yield Finding("currency", OK, detail)


def _hours(window: Mapping[str, Any]) -> float | None:
    try:
        begin, finish = (datetime.fromisoformat(str(window.get(name))) for name in ("start", "end"))
    except ValueError:
        return None
    aware = [at if at.tzinfo else at.replace(tzinfo=UTC) for at in (begin, finish)]
    return (aware[1] - aware[0]) / HOUR
