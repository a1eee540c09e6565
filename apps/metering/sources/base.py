"""What a source adapter gives: holdings and nodes of a window, which hours it covers, and the proof. No ORM."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from apps.metering.engine import Holding, Span


class SourceError(Exception):
    """A source could not be read; `retry_after` in seconds where the source asked for a pause."""

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class SourceRefused(SourceError):
    """A source answered with something that must not be billed from (shared GPUs from an allocation API, say)."""


@dataclass(frozen=True, slots=True)
class NodeReading:
    """A node's GPUs of one model: `spans` physical, `closed` unschedulable, `broken` present but not usable.

    `stranded` is the number of physical GPUs × 1/denominator parts that the MIG layout cannot sell, as (numerator,
    denominator) of a device.
    """

    node: str
    gpu_model: str
    spans: tuple[Span, ...]
    closed: tuple[Span, ...] = ()
    broken: tuple[Span, ...] = ()
    stranded: tuple[int, int] = (0, 1)
    #: The resource whose units `spans` count, where the node does not say how many of them make a device; "": devices.
    resource: str = ""


@dataclass(slots=True)
class ResourceHold:
    """CPU, memory, storage or egress of one workload in one hour. Not frozen: that makes four times as many costly.

    Quantities are milliseconds × units (cores, GiB); a GiB of egress counts as 3,600,000. `quantity_ms` is what is
    charged for. `kind` … `purpose` as in `Holding`.
    """

    hour: int
    resource: str
    key: str
    namespace: str
    name: str
    quantity_ms: int
    kind: str = ""
    node: str = ""
    capacity_type: str = ""
    requested_ms: int | None = None
    used_ms: int | None = None
    coverage_permille: int = 1000
    flags: tuple[str, ...] = ()
    project: str = ""
    purpose: str = ""


@dataclass(frozen=True, slots=True)
class HourCover:
    """How much of an hour the source could tell; `complete` False keeps the hour open for another reading."""

    coverage_permille: int
    complete: bool = True
    flags: tuple[str, ...] = ()
    reason: str = ""


class Proof:
    """Collects what was asked and answered; hashes and compresses as it goes, so that memory stays flat."""

    def __init__(self) -> None:
        self.exchanges: list[dict[str, Any]] = []
        self._compressor = zlib.compressobj(6)
        self._parts: list[bytes] = []
        self.size = 0

    def add(self, purpose: str, url: str, query: str, parameters: Mapping[str, str], body: bytes) -> None:
        """Record one exchange with the bytes of its response."""
        feed = self.stream(purpose, url, query, parameters)
        feed.take(body)
        feed.close()

    def stream(self, purpose: str, url: str, query: str, parameters: Mapping[str, str]) -> Feed:
        """Begin one exchange whose response arrives in pieces; one at a time, closed before the next begins."""
        exchange: dict[str, Any] = {"purpose": purpose, "url": url, "query": query, "parameters": dict(parameters)}
        return Feed(self, exchange)

    def compress(self, piece: bytes) -> None:
        """Add bytes to the body (through `add` and `stream` only)."""
        self._parts.append(self._compressor.compress(piece))
        self.size += len(piece)

    def body(self) -> bytes:
        """Return the compressed bodies; the proof takes no more exchanges afterwards."""
        self._parts = [b"".join(self._parts) + self._compressor.flush()]
        return self._parts[0]


class Feed:
    """The response of one exchange, piece by piece."""

    def __init__(self, proof: Proof, exchange: dict[str, Any]) -> None:
        self._proof = proof
        self._exchange = exchange
        self._digest = hashlib.sha256()
        self._offset = proof.size

    def take(self, piece: bytes) -> None:
        """Hash and compress one piece."""
        self._digest.update(piece)
        self._proof.compress(piece)

    def close(self) -> None:
        """Record the exchange."""
        size = self._proof.size - self._offset
        self._proof.exchanges.append(
            {**self._exchange, "sha256": self._digest.hexdigest(), "bytes": size, "offset": self._offset}
        )


#: Objects that only describe the one they stand in: a series' labels, an allocation's properties.
_DESCRIPTIONS = re.compile(rb'"(?:metric|properties|labels)"\s*:\s*$')
#: Places of a name that are looked at before giving up: a set of an hour names a pod in keys, too.
_PLACES = 200
_OPENS, _CLOSES = b"{}"


def about(response: bytes, name: str, *, beside: str = "", size: int = 2000) -> str:
    """Return what a response says of `name` and of nothing else; "": nothing that can be cut out.

    The response holds readings of other workloads, which whoever may read this one's may not read: cut out is the
    smallest JSON object that names it in a text of its own, with the object that this one describes. `beside`: what
    has to be named in it as well, as pods and workloads of other namespaces bear the same names.
    """
    word, other, at = json.dumps(name).encode(), json.dumps(beside).encode() if beside else b"", -1
    for _ in range(_PLACES):
        at = response.find(word, at + 1)
        if at < 0:
            break
        if response[at + len(word) : at + len(word) + 20].lstrip()[:1] == b":":
            continue  # The name is a key: what stands around it speaks of others, too.
        begin = _opening(response, at)
        while begin >= 0 and _DESCRIPTIONS.search(response[max(0, begin - 40) : begin]):
            begin = _opening(response, begin)
        if begin >= 0:
            cut = response[begin : _closing(response, begin)]
            if other not in cut:
                continue
            more = " …" if len(cut) > size else ""
            return cut[:size].decode("utf-8", "replace") + more
    return ""


def _opening(text: bytes, at: int) -> int:
    """Return where the object around a place begins; -1 outside of any."""
    depth = 0
    for place in range(at - 1, -1, -1):
        if text[place] == _CLOSES:
            depth += 1
        elif text[place] == _OPENS:
            if not depth:
                return place
            depth -= 1
    return -1


def _closing(text: bytes, begin: int) -> int:
    """Return the end of the object that begins there."""
    depth = 0
    for place in range(begin, len(text)):
        if text[place] == _OPENS:
            depth += 1
        elif text[place] == _CLOSES:
            depth -= 1
            if not depth:
                return place + 1
    return len(text)


@dataclass(slots=True)
class Reading:
    """What one window of a source says. Hours missing from `hours` are unknown."""

    holdings: list[Holding] = field(default_factory=list)
    nodes: list[NodeReading] = field(default_factory=list)
    resources: list[ResourceHold] = field(default_factory=list)
    hours: dict[int, HourCover] = field(default_factory=dict)
    proof: Proof = field(default_factory=Proof)


class SourceAdapter(Protocol):
    """Reads whole hours. Implementations do HTTP (or read stored intervals) and interpret; the engine does the sums."""

    @property
    def max_window(self) -> timedelta:
        """The longest window of the next `read`."""
        ...

    def read(self, start: datetime, end: datetime) -> Reading:
        """Read the hours of [start, end). Raises SourceError."""
        ...

    def close(self) -> None:
        """Close connections."""
        ...


def ms(at: datetime) -> int:
    """Return `at` as milliseconds since the epoch, exactly."""
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def at_ms(value: int) -> datetime:
    """Return milliseconds since the epoch as a time in UTC."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=value)


#: Extended resources that count as GPUs: NVIDIA with MIG (a prefix) and HAMi's cores, AMD, Intel's two drivers. Intel
#: nodes advertise parts of the same devices beside them (…_monitoring, millicores, memory.max, tiles): no GPUs.
DEFAULT_RESOURCES = (
    "nvidia_com_gpu", "nvidia_com_gpucores", "nvidia_com_mig_", "amd_com_gpu", "gpu_intel_com_i915", "gpu_intel_com_xe",
)  # fmt: skip


def gpu_resources(options: Mapping[str, Any]) -> Sequence[str]:
    """Return the resource-name prefixes that count as GPUs, in kube-state-metrics spelling."""
    return options.get("gpu_resources") or list(DEFAULT_RESOURCES)
