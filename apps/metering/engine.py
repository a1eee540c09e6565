"""From what a source tells to exact hourly quantities. Pure: no ORM, no clock, no floats.

Units: times are milliseconds since the Unix epoch (UTC), quantities are integer milliseconds × units, ratios are
parts per million (ppm), coverage is per mille.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import gcd
from typing import NamedTuple

HOUR_MS = 3_600_000
#: Holes up to this length with the same pod uid on both sides are filled (reference cost E3).
BRIDGE_MS = 300_000

#: Quality flags of a fact. Absent flags mean: metered as observed.
BRIDGED = "bridged"
ESTIMATED = "estimated"
TIMES_ONLY = "times_only"
SHARED = "shared"
IMPORTED = "imported"
NO_FLAVOUR = "no_flavour"
NO_MODEL = "no_model"
#: Held through a resource claim; told by the exporter's samples.
CLAIMED = "resource_claim"


class Span(NamedTuple):
    """`units` of a resource held in [start, end), in milliseconds since the epoch."""

    start: int
    end: int
    units: int


@dataclass(frozen=True, slots=True)
class Use:
    """Measured use within one hour: mean share of the held units over the observed samples, and how many there were."""

    ratio_ppm: int
    coverage_permille: int
    source: str


@dataclass(frozen=True, slots=True)
class Holding:
    """One container's hold on one GPU resource, as a source tells it; spans may cross hours.

    `used` maps the start of an hour to the use measured in it; an hour that is missing there is unknown.
    """

    key: str
    namespace: str
    name: str
    kind: str
    resource: str
    spans: tuple[Span, ...]
    container: str = ""
    node: str = ""
    gpu_model: str = ""
    flavour: str = ""
    capacity_type: str = ""
    flags: frozenset[str] = frozenset()
    used: Mapping[int, Use] | None = None
    pod: str = ""
    project: str = ""
    purpose: str = ""
    release_uid: str | None = None
    #: Mean GPU memory held by hour, all devices together, in MiB; a missing hour is unknown.
    memory: Mapping[int, int] | None = None
    #: Into how many parts the node's devices are cut by time-slicing or MPS, where the node says so; 1: not.
    replicas: int = 1

    def memory_mib(self, hour: int) -> int | None:
        """Return the mean GPU memory held in `hour`, in MiB; None: unknown."""
        return self.memory.get(hour) if self.memory else None


@dataclass(frozen=True, slots=True)
class Share:
    """What one unit of a resource is of a physical device: numerator/denominator, and whether a device is shared."""

    numerator: int = 1
    denominator: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.numerator <= self.denominator:
            raise ValueError("a share is a positive fraction of at most one device")


WHOLE = Share()
#: The share of one unit of a holding's resource in an hour (start in ms).
ShareOf = Callable[[Holding, int], Share]


@dataclass(frozen=True, slots=True)
class HourQuantity:
    """One fact's quantities: `unit_ms` in units of the flavour, `gpu_ms` in physical devices."""

    hour: int
    holding: Holding
    share: Share
    spans: tuple[Span, ...]
    unit_ms: int
    gpu_ms: int
    used_gpu_ms: int | None
    used_source: str
    coverage_permille: int
    flags: tuple[str, ...]


# ---------------------------------------------------------------- resources

_MIG = re.compile(r"mig[-_](\d)g[._]")
#: Per cent of a device's compute that a HAMi container asks for, per virtual GPU.
HAMI_CORES = "nvidia_com_gpucores"
#: Compute slices of a whole device by model; everything else MIG-capable has seven (reference cost E6).
_SLICES = (("A30", 4), ("RTX-PRO-6000", 4))


def sanitised(resource: str) -> str:
    """Return a resource name as kube-state-metrics prints it: every non-alphanumeric character as `_`."""
    return re.sub(r"[^A-Za-z0-9]", "_", resource)


def model_label(name: str) -> str:
    """Return a GPU model as node labels spell it ("NVIDIA H100 80GB HBM3" → "NVIDIA-H100-80GB-HBM3")."""
    return "-".join(name.split())


def default_share(resource: str, gpu_model: str, replicas: int = 1) -> Share:
    """Return the share of a resource no flavour and no rule describes.

    MIG by compute slices from its name, HAMi's cores by the hundred, one of the node's configured replicas under
    time-slicing and MPS (empty replicas stay unsold), else a whole device.
    """
    if sanitised(resource) == HAMI_CORES:
        return Share(1, 100)
    found = _MIG.search(resource.lower())
    if not found:
        return Share(1, replicas) if replicas > 1 else WHOLE
    slices = next((count for mark, count in _SLICES if mark.lower() in gpu_model.lower()), 7)
    return Share(min(int(found.group(1)), slices), slices)


# ---------------------------------------------------------------- spans


def merge(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Return spans sorted and without overlap; where spans overlap, the larger unit count counts once (dedupe by max).

    Empty and zero-unit spans vanish; touching spans with equal units join. The result does not depend on the order.
    """
    kept = sorted(span for span in spans if span.end > span.start and span.units > 0)
    if not kept:
        return ()
    if all(a.end <= b.start for a, b in itertools.pairwise(kept)):
        pieces: list[Span] = kept
    else:
        edges = sorted({edge for span in kept for edge in (span.start, span.end)})
        pieces = []
        for start, end in itertools.pairwise(edges):
            units = max((span.units for span in kept if span.start <= start and span.end >= end), default=0)
            if units:
                pieces.append(Span(start, end, units))
    joined = [pieces[0]]
    for span in pieces[1:]:
        last = joined[-1]
        if last.end == span.start and last.units == span.units:
            joined[-1] = Span(last.start, span.end, span.units)
        else:
            joined.append(span)
    return tuple(joined)


def clip(spans: Iterable[Span], start: int, end: int) -> tuple[Span, ...]:
    """Return the parts of `spans` inside [start, end)."""
    return tuple(
        Span(max(span.start, start), min(span.end, end), span.units)
        for span in spans
        if span.end > start and span.start < end
    )


def bridge(spans: Sequence[Span], *, limit_ms: int = BRIDGE_MS, away: Sequence[Span] = ()) -> tuple[list[Span], bool]:
    """Fill holes between spans of one pod: up to `limit_ms`, or any length wholly inside a time the source was away.

    Returns the spans and whether anything was filled. GPU requests are immutable for a pod's life, so a hole with the
    same units on both sides is an observation that is missing, not a release; different units are left alone.
    """
    filled: list[Span] = []
    touched = False
    for span in merge(spans):
        last = filled[-1] if filled else None
        if last is not None and last.end < span.start and last.units == span.units:
            hole = span.start - last.end
            excused = any(gap.start <= last.end and gap.end >= span.start for gap in away)
            if hole <= limit_ms or excused:
                filled[-1] = Span(last.start, span.end, span.units)
                touched = True
                continue
        filled.append(span)
    return filled, touched


def spans_from_samples(
    samples: Sequence[tuple[int, int]],
    step_ms: int,
    *,
    started: int | None = None,
    completed: int | None = None,
    units: int = 0,
    away: Sequence[Span] = (),
    window: tuple[int, int] | None = None,
    bridge_ms: int = BRIDGE_MS,
) -> tuple[tuple[Span, ...], frozenset[str]]:
    """Return the spans of one pod from samples `(time, units)`: a sample at t stands for (t − step, t].

    `started` and `completed` are exact times where the source has them: they cut what lies outside, and reach up to
    `bridge_ms` beyond the first and last sample (a scrape later or earlier than the event). A pod seen with both
    times and `units` but in no sample (shorter than a scrape) is metered from its times. Only `window` is returned.
    """
    flags: set[str] = set()
    spans, touched = bridge([Span(t - step_ms, t, n) for t, n in samples], limit_ms=bridge_ms, away=away)
    if touched:
        flags.add(BRIDGED)
    if not spans:
        if started is None or completed is None or completed <= started or units <= 0:
            return (), frozenset()
        spans = [Span(started, completed, units)]
        flags.add(TIMES_ONLY)
    else:
        first = spans[0]
        if started is not None and 0 < first.start - started <= bridge_ms:
            spans[0] = Span(started, first.end, first.units)
        elif started is not None and window is not None and started < first.start:
            # Running since before the window, and nobody could see it at the window's beginning.
            begin = max(started, window[0])
            if any(gap.start <= begin and gap.end >= first.start for gap in away):
                spans[0] = Span(begin, first.end, first.units)
                flags.add(BRIDGED)
        last = spans[-1]
        if completed is not None and 0 < completed - last.end <= bridge_ms:
            spans[-1] = Span(last.start, completed, last.units)
        spans = list(clip(spans, started if started is not None else -(1 << 62), completed or 1 << 62))
    inside = clip(spans, *window) if window else tuple(spans)
    if inside and samples and completed is None and window and inside[-1].end < window[1]:
        flags.add(ESTIMATED)
    return inside, frozenset(flags)


def hour_of(at_ms: int) -> int:
    """Return the start of the UTC hour that `at_ms` lies in."""
    return at_ms - at_ms % HOUR_MS


def split_by_hour(spans: Iterable[Span]) -> dict[int, list[Span]]:
    """Return spans cut at the full hours, by hour; the milliseconds of the parts sum to those of the whole."""
    hours: dict[int, list[Span]] = {}
    for span in spans:
        start = span.start
        while start < span.end:
            hour = start - start % HOUR_MS
            end = min(span.end, hour + HOUR_MS)
            hours.setdefault(hour, []).append(Span(start, end, span.units))
            start = end
    return hours


def unit_ms(spans: Iterable[Span]) -> int:
    """Return Σ units × milliseconds."""
    return sum((span.end - span.start) * span.units for span in spans)


# ---------------------------------------------------------------- shares


def physical_shares(quantities: Sequence[tuple[int, Share]]) -> list[int]:
    """Return the physical milliseconds of `(unit_ms, share)` entries of one (cluster, model, hour), as integers.

    The parts sum to the whole milliseconds of the exact rational total (largest remainder), so that seven sevenths
    are one device and nothing is lost or made by rounding. The order of entries decides ties: sort
    them by a stable key.
    """
    if all(share.numerator == share.denominator for _, share in quantities):
        return [quantity for quantity, _ in quantities]
    common = 1
    for _, share in quantities:
        common = common * share.denominator // gcd(common, share.denominator)
    weights = [quantity * share.numerator * (common // share.denominator) for quantity, share in quantities]
    # Every part is rounded down, and the whole milliseconds left go to the largest remainders: a part is never off by
    # one or more, and whole devices keep exactly what they held.
    parts = [weight // common for weight in weights]
    left = sum(weights) // common - sum(parts)
    order = sorted(range(len(parts)), key=lambda i: (-(weights[i] % common), -weights[i], i))
    for index in order[:left]:
        parts[index] += 1
    return parts


def used_ms(gpu_ms: int, use: Use | None) -> int | None:
    """Return measured use in physical GPU-milliseconds: mean × observed time; None where nothing was observed.

    Never extrapolated over unobserved time: coverage says how much of the hour the figure stands on.
    """
    if use is None or use.coverage_permille <= 0:
        return None
    return gpu_ms * use.ratio_ppm * use.coverage_permille // 1_000_000_000


def hour_quantities(
    holdings: Iterable[Holding],
    share_of: Mapping[tuple[str, str], Share] | ShareOf,
    *,
    hours: tuple[int, int] | None = None,
) -> dict[int, list[HourQuantity]]:
    """Return the facts of every hour that `holdings` touch, in a stable order, whatever order they came in.

    `share_of` maps (resource, gpu_model) to the share of one unit, what it lacks is taken from the resource's name; or
    it is a function of holding and hour. Holdings with the same identity (key, container, node, resource, flavour) are
    merged by max, never summed. `hours` limits the result to hours with start in [first, last).
    """
    merged: dict[tuple[str, str, str, str, str], Holding] = {}
    for holding in holdings:
        identity = (holding.key, holding.container, holding.node, holding.resource, holding.flavour)
        known = merged.get(identity)
        merged[identity] = holding if known is None else _combine(known, holding)
    by_hour: dict[int, list[tuple[Holding, tuple[Span, ...]]]] = {}
    for identity in sorted(merged):
        holding = merged[identity]
        spans: Iterable[Span] = holding.spans if len(holding.spans) == 1 else merge(holding.spans)
        for hour, parts in split_by_hour(spans).items():
            if hours is None or hours[0] <= hour < hours[1]:
                by_hour.setdefault(hour, []).append((holding, tuple(parts)))
    return {hour: _quantities(hour, entries, share_of) for hour, entries in sorted(by_hour.items())}


def _combine(a: Holding, b: Holding) -> Holding:
    """Return two reports of the same holding as one; independent of their order."""
    first, second = sorted((a, b), key=lambda h: (h.name, h.kind, h.gpu_model, h.spans))
    used = dict(first.used or {})
    for hour, use in (second.used or {}).items():
        known = used.get(hour)
        used[hour] = use if known is None else max(known, use, key=lambda u: (u.coverage_permille, u.ratio_ppm))
    return replace(
        first,
        spans=merge((*first.spans, *second.spans)),
        flags=first.flags | second.flags,
        gpu_model=first.gpu_model or second.gpu_model,
        used=used or None,
    )


def _quantities(
    hour: int, entries: Sequence[tuple[Holding, tuple[Span, ...]]], share_of: Mapping[tuple[str, str], Share] | ShareOf
) -> list[HourQuantity]:
    shares: list[Share] = []
    for holding, _ in entries:
        if callable(share_of):
            shares.append(share_of(holding, hour))
        else:
            pair = (holding.resource, holding.gpu_model)
            shares.append(share_of.get(pair) or default_share(*pair, holding.replicas))
    units = [unit_ms(spans) for _, spans in entries]
    by_model: dict[str, list[int]] = {}
    for index, (holding, _) in enumerate(entries):
        by_model.setdefault(holding.gpu_model, []).append(index)
    gpu = [0] * len(entries)
    for indexes in by_model.values():
        for index, value in zip(indexes, physical_shares([(units[i], shares[i]) for i in indexes]), strict=True):
            gpu[index] = value
    result = []
    for index, (holding, spans) in enumerate(entries):
        use = holding.used.get(hour) if holding.used else None
        flags = holding.flags | ({SHARED} if shares[index].numerator != shares[index].denominator else set())
        result.append(
            HourQuantity(
                hour=hour,
                holding=holding,
                share=shares[index],
                spans=spans,
                unit_ms=units[index],
                gpu_ms=gpu[index],
                used_gpu_ms=used_ms(gpu[index], use),
                used_source=use.source if use else "",
                coverage_permille=use.coverage_permille if use else 0,
                flags=tuple(sorted(flags)),
            )
        )
    return result
