"""From a node's samples and labels to its physical GPUs. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from apps.metering.engine import HAMI_CORES, Share, Span, default_share, merge, spans_from_samples
from apps.metering.sources.base import NodeReading

Samples = list[tuple[int, int]]


@dataclass(slots=True)
class Node:
    """What kube-state-metrics tells of a node in an hour."""

    capacity: dict[str, Samples] = field(default_factory=dict)
    allocatable: dict[str, Samples] = field(default_factory=dict)
    closed: Samples = field(default_factory=list)
    #: Sample times of a node whose labels name a GPU, whether or not it advertises any resource for it.
    labelled: list[int] = field(default_factory=list)
    model: str = ""
    count: int = 0
    mig: str = ""
    replicas: int = 1
    capacity_type: str = ""
    #: A container on it asked for HAMi cores: its units are virtual GPUs.
    hami: bool = False

    @property
    def cut(self) -> int:
        """Into how many parts its devices are cut by time-slicing or MPS; 1: not."""
        return max(1, self.replicas)

    @property
    def unadvertised(self) -> bool:
        """Whether the node has GPUs by its labels that no resource speaks of: they are handed out through claims."""
        return not self.capacity and bool(self.labelled) and self.count > 0


def away_spans(present: set[int], step_ms: int, window: tuple[int, int]) -> tuple[Span, ...]:
    """Return the times without any answer of kube-state-metrics: holes there say nothing about pods."""
    missing = [t for t in range(window[0] + step_ms, window[1] + 1, step_ms) if t not in present]
    return merge([Span(t - step_ms, t, 1) for t in missing])


def filled(samples: Samples, step_ms: int, away: tuple[Span, ...]) -> tuple[Span, ...]:
    """Return the spans of samples, holes of the source bridged."""
    spans, _ = spans_from_samples(samples, step_ms, away=away)
    return spans


def node_readings(nodes: Mapping[str, Node], step_ms: int, away: tuple[Span, ...]) -> Iterator[NodeReading]:
    """Return the physical GPUs of every node: whole devices as reported, shares by the devices that they make up."""
    for name in sorted(nodes):
        node = nodes[name]
        if node.unadvertised:
            spans = filled([(t, node.count) for t in node.labelled], step_ms, away)
            yield NodeReading(node=name, gpu_model=node.model, spans=spans, closed=_closed(node, spans, step_ms, away))
            continue
        if reading := _advertised(name, node, step_ms, away):
            yield reading


def _advertised(name: str, node: Node, step_ms: int, away: tuple[Span, ...]) -> NodeReading | None:
    parts = {r: default_share(r, node.model) for r in node.capacity if r != HAMI_CORES}
    whole = [resource for resource, share in parts.items() if share == Share()]
    sliced = [resource for resource, share in parts.items() if share != Share()]
    spans: list[Span] = []
    broken: list[Span] = []
    for resource in whole:
        spans.extend(filled([(t, _devices(node, v)) for t, v in node.capacity[resource]], step_ms, away))
        usable = dict(node.allocatable.get(resource, ()))
        lost = [
            (t, _devices(node, v) - _devices(node, usable[t]))
            for t, v in node.capacity[resource]
            if t in usable and v > usable[t]
        ]
        broken.extend(filled(lost, step_ms, away))
    stranded = (0, 1)
    if sliced:
        # Every slice as a fraction of a device, over the common denominator of the model's slices.
        denominator = parts[sliced[0]].denominator
        held = sum(parts[r].numerator * max((v for _, v in node.capacity[r]), default=0) for r in sliced)
        free_whole = max((_devices(node, v) for r in whole for _, v in node.capacity[r]), default=0)
        devices = max(-(-held // denominator), node.count - free_whole if node.mig == "mixed" else 0)
        times = sorted({t for r in sliced for t, _ in node.capacity[r]})
        spans.extend(filled([(t, devices) for t in times], step_ms, away))
        stranded = (devices * denominator - held, denominator)
    if not spans:
        return None
    unsaid = len(whole) == 1 and not sliced and node.cut == 1 and not node.hami
    return NodeReading(
        node=name,
        gpu_model=node.model,
        spans=_stack(spans),
        closed=_closed(node, spans, step_ms, away),
        broken=tuple(broken),
        stranded=stranded,
        resource=whole[0] if unsaid else "",
    )


def _devices(node: Node, units: int) -> int:
    """Return how many physical devices a node's units of a whole-device resource are."""
    if node.hami and 0 < node.count < units:
        return node.count
    return -(-units // node.cut)


def _closed(node: Node, spans: list[Span] | tuple[Span, ...], step_ms: int, away: tuple[Span, ...]) -> tuple[Span, ...]:
    samples = [(t, sum(s.units for s in spans if s.start < t <= s.end)) for t, _ in node.closed]
    return filled(samples, step_ms, away)


def _stack(spans: list[Span]) -> tuple[Span, ...]:
    """Return overlapping spans added up (different devices of one node), unlike merge, which takes the maximum."""
    edges = sorted({edge for span in spans for edge in (span.start, span.end)})
    pieces = [
        Span(a, b, units)
        for a, b in itertools.pairwise(edges)
        if (units := sum(span.units for span in spans if span.start <= a and span.end >= b))
    ]
    return merge(pieces)
