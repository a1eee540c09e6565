"""Imported intervals as a source: the stored rows of one import source, read for a window."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from apps.core.canonical import canonical_bytes
from apps.metering.engine import HOUR_MS, IMPORTED, Holding, Span, Use
from apps.metering.models import UsageInterval
from apps.metering.sources.base import HourCover, Reading, ms

USED_SOURCE = "imported"


class _Throughout(Mapping[int, Use]):
    """The same use in every hour."""

    def __init__(self, use: Use) -> None:
        self._use = use

    def __getitem__(self, hour: int) -> Use:
        return self._use

    def __iter__(self) -> Iterator[int]:
        return iter((0,))

    def __len__(self) -> int:
        return 1

    def get(self, hour: int, default: object = None) -> Use:
        return self._use


class IntervalAdapter:
    """Reads the intervals that overlap a window; covered are the hours that the imported files speak of."""

    max_window = timedelta(days=7)
    requests = 0

    def __init__(self, source_id: int, windows: Sequence[Sequence[int]]) -> None:
        self._source_id = source_id
        self._windows = windows
        self._uses: dict[int, _Throughout] = {}

    def close(self) -> None:
        """Nothing to close."""

    def read(self, start: datetime, end: datetime) -> Reading:
        """Read the hours of [start, end) from the stored intervals."""
        reading = Reading()
        first, last = ms(start), ms(end)
        rows = UsageInterval.objects.filter(source_id=self._source_id, start_ms__lt=last, end_ms__gt=first)
        digest = hashlib.sha256()
        count = 0
        columns = ("key", "workload", "namespace", "units", "flavour", "start_ms", "end_ms", "used_permille")
        for row in rows.order_by("start_ms", "key").values_list(*columns).iterator(chunk_size=20_000):
            key, workload, namespace, units, flavour, begin, finish, used = row
            digest.update(repr(row).encode())
            count += 1
            reading.holdings.append(
                Holding(
                    key=key,
                    namespace=namespace,
                    name=workload,
                    kind="job",
                    resource="",
                    flavour=flavour,
                    spans=(Span(max(begin, first), min(finish, last), units),),
                    flags=_FLAGS,
                    used=None if used is None else self._use(used),
                )
            )
        for low, high in self._windows:
            reading.hours |= dict.fromkeys(range(max(first, low), min(last, high), HOUR_MS), HourCover(1000))
        summary = canonical_bytes({"intervals": count, "sha256": digest.hexdigest(), "start_ms": first, "end_ms": last})
        reading.proof.add(
            "intervals", "", "imported intervals of the window", {"start_ms": str(first), "end_ms": str(last)}, summary
        )
        return reading

    def _use(self, permille: int) -> _Throughout:
        if permille not in self._uses:
            self._uses[permille] = _Throughout(Use(permille * 1000, 1000, USED_SOURCE))
        return self._uses[permille]


_FLAGS = frozenset({IMPORTED})
