"""Figures of what is served, made up: requests arrive at a steady pace, shared as traffic is, and are counted by pod.

Each endpoint gets `requests-per-second` of its annotation (default 4), more by day than by night; a pod handles
`CAPACITY` a second, and what comes beyond waits. Counters are kept in memory for an hour in steps of a few seconds:
after a restart earlier figures are unknown, as they are where a Prometheus was down.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from apps.demo.cluster.errors import Obj
from apps.demo.cluster.faults import Faults
from apps.demo.cluster.kinds import HTTP_ROUTE, INFERENCE_SERVICE, POD
from apps.demo.cluster.serving import loading, routes
from apps.demo.cluster.serving.rendering import NAME_LABEL, REQUESTS, REVISION_LABEL, setting
from apps.demo.cluster.store import Change, Store

STEP_SECONDS = 5.0
KEPT_SECONDS = 3600.0
CAPACITY = 3.0
"""Requests a second that one pod handles without a queue."""
_REQUESTS_PER_SECOND = 4.0
_ERRORS = 0.001
#: Upper bounds of latency in seconds: vLLM's own, a subset.
BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
_SPREAD = 0.5
#: Median seconds of a whole request, and to the first token, by dialect.
_MEDIANS = {"vllm": (0.9, 0.18), "triton": (0.02, 0.0), "kserve": (0.06, 0.0), "knative": (0.06, 0.0)}


@dataclass(frozen=True)
class Point:
    """A pod's counters at a time: sums since it was ready; `queue` is of that moment."""

    at: float
    requests: float
    errors: float
    latency: tuple[float, ...]
    first: tuple[float, ...]
    queue: float


@dataclass
class Track:
    """What is known of one pod."""

    labels: dict[str, str]
    dialect: str
    points: list[Point] = field(default_factory=list)

    def at(self, moment: float) -> Point | None:
        """The newest point not after `moment`, none older than five minutes (as Prometheus looks back)."""
        index = bisect_right(self.points, moment, key=lambda point: point.at)
        if not index or moment - self.points[index - 1].at > 300:
            return None
        return self.points[index - 1]

    def within(self, start: float, end: float) -> list[Point]:
        """The points of [start, end]; and the one before, or nothing is known of what lies between."""
        first = max(0, bisect_right(self.points, start, key=lambda point: point.at) - 1)
        return self.points[first : bisect_right(self.points, end, key=lambda point: point.at)]


class Recorder:
    """Control-loop part that counts; `tracks` is what queries read."""

    def __init__(self, store: Store, faults: Faults, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._faults = faults
        self._clock = clock
        self._lock = threading.Lock()
        self._tracks: dict[str, Track] = {}
        self._last: float | None = None

    def observe(self, change: Change) -> None:
        """Nothing: pods are looked at in steps."""

    def work(self) -> float:
        """Count what came since the last step."""
        self.count()
        return 1.0 if self._tracks or self._store.entries(INFERENCE_SERVICE) else float("inf")

    def tracks(self) -> list[Track]:
        """Every pod's figures, counted up to now."""
        self.count(force=True)
        with self._lock:
            return list(self._tracks.values())

    def count(self, *, force: bool = False) -> None:
        """Bring counters up to now, at most once a step unless forced."""
        with self._lock:
            now = self._clock().timestamp()
            if self._last is not None and (now <= self._last or (not force and now - self._last < STEP_SECONDS)):
                return
            seconds = 0.0 if self._last is None else now - self._last
            self._last = now
            seen = set()
            for pod, rate in self._rates(now):
                uid = pod["metadata"]["uid"]
                seen.add(uid)
                if self._faults.serving("serving-silent", loading.subject_of(pod)) is None:
                    self._advance(uid, pod, rate, now, seconds)
            for uid, track in list(self._tracks.items()):
                track.points = [point for point in track.points if now - point.at <= KEPT_SECONDS]
                if not track.points and uid not in seen:
                    del self._tracks[uid]

    def _rates(self, now: float) -> Iterator[tuple[Obj, float]]:
        """Ready pods with the requests a second that reach each."""
        shares = self._shares()
        targets: dict[tuple[str, str, str], list[Obj]] = {}
        for entry in self._store.entries(POD):
            labels = entry.obj["metadata"].get("labels") or {}
            if NAME_LABEL in labels and labels.get("component") == "predictor" and loading.is_ready(entry.obj):
                revision = str(labels.get(REVISION_LABEL, ""))
                targets.setdefault((entry.namespace, labels[NAME_LABEL], revision), []).append(entry.obj)
        hour = now / 3600 % 24
        by_day = 1.0 - 0.4 * math.cos(2 * math.pi * (hour - 2) / 24)
        for key, pods in targets.items():
            for pod in pods:
                yield pod, shares.get(key, 0.0) * by_day / len(pods)

    def _shares(self) -> dict[tuple[str, str, str], float]:
        """(namespace, InferenceService, revision) → requests a second on average."""
        routed: dict[tuple[str, str], float] = {}
        bases: dict[tuple[str, str], float] = {}
        for route in self._store.entries(HTTP_ROUTE):
            found = {key: share for key, share in routes.weights(route.obj).items() if key[1].endswith("-predictor")}
            names = [(space, name.removesuffix("-predictor")) for space, name in found]
            known = [self._store.get(INFERENCE_SERVICE, *name) for name in names]
            base = max((setting(each.obj, REQUESTS, _REQUESTS_PER_SECOND) for each in known if each), default=0.0)
            for name, share in zip(names, found.values(), strict=True):
                routed[name], bases[name] = share, base
        out: dict[tuple[str, str, str], float] = {}
        for entry in self._store.entries(INFERENCE_SERVICE):
            name = (entry.namespace, entry.name)
            rate = bases.get(name, setting(entry.obj, REQUESTS, _REQUESTS_PER_SECOND)) * routed.get(name, 1.0)
            component = ((entry.obj.get("status") or {}).get("components") or {}).get("predictor") or {}
            if component.get("traffic"):
                for each in component["traffic"]:
                    out[(*name, str(each["revisionName"]))] = rate * int(each["percent"]) / 100
            else:
                out[(*name, "")] = rate
        return out

    def _advance(self, uid: str, pod: Obj, rate: float, now: float, seconds: float) -> None:
        subject = loading.subject_of(pod)
        track = self._tracks.get(uid)
        if track is None:
            dialect = dialect_of(pod)
            meta = pod["metadata"]
            labels = {"namespace": meta["namespace"], "pod": meta["name"], "container": "kserve-container"}
            track = self._tracks[uid] = Track(labels, dialect)
            track.points.append(Point(now, 0.0, 0.0, (0.0,) * (len(BOUNDS) + 1), (0.0,) * (len(BOUNDS) + 1), 0.0))
            return
        last = track.points[-1]
        failing = self._faults.serving("serving-errors", subject)
        slow = self._faults.serving("serving-slow", subject)
        over = max(0.0, rate - CAPACITY)
        count = rate * seconds
        whole, first = _MEDIANS[track.dialect]
        extra = (slow.delay if slow is not None else 0.0) + over / CAPACITY * whole
        track.points.append(
            Point(
                now,
                last.requests + count,
                last.errors + count * (failing.ratio if failing is not None else _ERRORS),
                _spread(last.latency, count, whole, extra),
                _spread(last.first, count, first, extra) if first else last.first,
                over * 10 + (rate * extra if slow is not None else 0.0),
            )
        )


def _spread(before: tuple[float, ...], count: float, median: float, extra: float) -> tuple[float, ...]:
    """Add `count` requests to cumulative buckets: log-normal around the median, moved by `extra` seconds."""
    shares = []
    for bound in BOUNDS:
        left = bound - extra
        shares.append(0.5 * (1 + math.erf(math.log(left / median) / (_SPREAD * math.sqrt(2)))) if left > 0 else 0.0)
    return tuple(was + count * share for was, share in zip(before, [*shares, 1.0], strict=True))


def dialect_of(pod: Obj) -> str:
    """Whose metric names the pod speaks: by its image, and Knative's queue-proxy where there is one."""
    image = str(((pod.get("spec") or {}).get("containers") or [{}])[0].get("image", "")).lower()
    if "vllm" in image or "huggingface" in image:
        return "vllm"
    if "triton" in image:
        return "triton"
    return "knative" if REVISION_LABEL in (pod["metadata"].get("labels") or {}) else "kserve"
