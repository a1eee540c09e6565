"""Renewals: what continues a quota that ends, and the hold that keeps its GPUs from being promised to others meanwhile.

A request that begins when a quota of the same workspace and flavour ends, submitted before that end, renews it. The
quota itself ends on time: nothing is prolonged without approval. But from 14 days before the end until 14 days after it
(or until the renewal is decided, whichever comes first) nobody else is promised the GPUs that it held, up to as many as
the renewal asks for. A hold is no promise: it counts in others' room alone, so the ledger's invariant does not need it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q

from apps.clusters.models import Flavour, Pool
from apps.core import clock
from apps.core.events import plain
from apps.quotas import recurrence
from apps.quotas.choices import OPEN_STATUSES, RequestStatus
from apps.quotas.ledger import Step, gpus
from apps.quotas.models import Quota, QuotaRequest, Workspace

#: Nobody keeps capacity from others by an undecided renewal for longer than this, on either side of the end.
HOLD_BEFORE = timedelta(days=14)
HOLD_AFTER = timedelta(days=14)
#: A start typed to the minute meets an end that has seconds.
_TO_THE_MINUTE = timedelta(minutes=1)
_GRANTED = (RequestStatus.SCHEDULED, RequestStatus.APPLYING, RequestStatus.ACTIVE)


@dataclass(frozen=True, slots=True)
class Renews:
    """What a request renews: so many units that are held until `until`; `asked_at` is its place among renewals."""

    until: datetime
    guaranteed: int
    asked_at: datetime

    def plain(self) -> dict[str, Any]:
        """Return it as it is frozen with the request's change."""
        return {"until": plain(self.until), "guaranteed": self.guaranteed, "asked_at": plain(self.asked_at)}

    def held_at(self, at: datetime) -> bool:
        """Whether the hold counts at `at`."""
        return self.until - HOLD_BEFORE <= at < self.until + HOLD_AFTER


@dataclass(frozen=True, slots=True)
class Hold:
    """GPUs that others are not promised while a renewal is open."""

    workspace_id: int
    flavour_id: int
    asked_at: datetime
    steps: tuple[Step, ...]


def read(change: Mapping[str, Any]) -> Renews | None:
    """Return what a stored request renews, from its frozen change; None: it is no renewal."""
    data = change.get("renews")
    if not data:
        return None
    return Renews(
        datetime.fromisoformat(data["until"]), int(data["guaranteed"]), datetime.fromisoformat(data["asked_at"])
    )


def _recurring(workspace: Workspace, flavour: Flavour, low: datetime, high: datetime) -> QuotaRequest | None:
    """Return the granted recurring request whose span ends in `(low, high)`."""
    return (
        QuotaRequest.objects.filter(
            workspace=workspace,
            flavour=flavour,
            recurrence__isnull=False,
            status__in=_GRANTED,
            valid_until__gt=low,
            valid_until__lt=high,
        )
        .order_by("-valid_until", "-pk")
        .first()
    )


def found(
    workspace: Workspace, flavour: Flavour, start: datetime, repetition: recurrence.Recurrence | None, at: datetime
) -> Renews | None:
    """Return what a request from `start` on would renew were it submitted at `at`; `until` is the exact end.

    Two queries. Only GPUs held in the same hours are renewed: a quota around the clock is not held for a request that
    repeats in other windows than it had.
    """
    low, high = start - _TO_THE_MINUTE, start + _TO_THE_MINUTE
    row = (
        Quota.objects.filter(workspace=workspace, flavour=flavour, valid__endswith__gt=low, valid__endswith__lt=high)
        .filter(Q(request__isnull=True) | Q(request__recurrence__isnull=True))
        .order_by("-valid")
        .first()
    )
    if row is not None and at < row.valid.upper:
        return Renews(row.valid.upper, row.guaranteed, at)
    before = _recurring(workspace, flavour, low, high)
    if before is None or before.valid_until is None or at >= before.valid_until:
        return None
    same = repetition is not None and recurrence.parse(before.recurrence) == repetition
    return Renews(before.valid_until, before.guaranteed, at) if same else None


def continued(old: Mapping[str, Any], start: datetime, at: datetime) -> Renews | None:
    """Return what a correction still renews: its place is kept while it begins where the renewed quota ended.

    After that end "as soon as it is granted" continues it just as well.
    """
    before = read(old)
    if before is None:
        return None
    return before if start <= max(before.until + _TO_THE_MINUTE, at + _TO_THE_MINUTE) else None


def windows_of(
    start: datetime, until: datetime | None, repetition: recurrence.Recurrence | None
) -> list[tuple[datetime, datetime | None]]:
    """Return the dated windows of a request: one, or those of its repetition (none where no window is left)."""
    if repetition is None or until is None:
        return [(start, until)]
    return list(recurrence.windows(repetition, start, until))


def holds(pool: Pool, flavours: Mapping[int, Flavour], at: datetime | None = None) -> list[Hold]:
    """Return what open renewals keep from others in a pool. One query."""
    now = at or clock.now()
    rows = QuotaRequest.objects.filter(
        status__in=OPEN_STATUSES,
        workspace__cluster_id=pool.cluster_id,
        flavour_id__in=flavours,
        change__has_key="renews",
    ).order_by("pk")
    made: list[Hold] = []
    for row in rows:
        renewed = read(row.change)
        if renewed is None or not renewed.held_at(now):
            continue
        flavour = flavours[row.flavour_id]
        count = gpus(min(row.guaranteed, renewed.guaranteed), flavour.numerator, flavour.denominator)
        start = max(row.valid_from, renewed.until)
        if row.valid_until is not None and row.valid_until <= start:
            continue
        spans = windows_of(start, row.valid_until, recurrence.parse(row.recurrence))
        steps = tuple(Step(low, high, count) for low, high in spans)
        made.append(Hold(row.workspace_id, row.flavour_id, renewed.asked_at, steps))
    return made


def place_of(change: Mapping[str, Any], at: datetime | None = None) -> datetime | None:
    """Return a stored renewal's place among renewals while its hold counts; None: it has no precedence."""
    renewed = read(change)
    return renewed.asked_at if renewed is not None and renewed.held_at(at or clock.now()) else None


def takes_no_more(request: QuotaRequest, at: datetime | None = None) -> bool:
    """Whether a renewal asks for no more than what is held for it: then it need not stand in the pool's line."""
    renewed = read(request.change)
    return renewed is not None and renewed.held_at(at or clock.now()) and request.guaranteed <= renewed.guaranteed


def continues(quota: Quota) -> bool:
    """Whether a granted repetition takes over when the one behind a quota's last window ends."""
    source = quota.request
    if source is None or source.valid_until is None:
        return False
    later = QuotaRequest.objects.filter(
        workspace=quota.workspace_id,
        flavour=quota.flavour_id,
        status__in=_GRANTED,
        recurrence__isnull=False,
        valid_from__lte=source.valid_until + _TO_THE_MINUTE,
        valid_until__gt=source.valid_until,
    )
    return later.exclude(pk=source.pk).exists()


def open_renewal(workspace_id: int, flavour_id: int, until: datetime) -> QuotaRequest | None:
    """Return the open or already granted request that takes over when a quota ends at `until`; None: nobody asked."""
    return (
        QuotaRequest.objects.filter(
            workspace_id=workspace_id,
            flavour_id=flavour_id,
            status__in=[*OPEN_STATUSES, RequestStatus.SCHEDULED],
            valid_from__gte=until - HOLD_BEFORE,
            valid_from__lte=until + timedelta(days=7),
        )
        .filter(Q(valid_until__isnull=True) | Q(valid_until__gt=until))
        .order_by("-pk")
        .first()
    )


__all__ = [
    "HOLD_AFTER",
    "HOLD_BEFORE",
    "Hold",
    "Renews",
    "continued",
    "continues",
    "found",
    "holds",
    "open_renewal",
    "place_of",
    "read",
    "takes_no_more",
    "windows_of",
]
