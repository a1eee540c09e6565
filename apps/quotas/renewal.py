"""Renewals: what continues a quota that ends, and the hold that keeps its GPUs from being promised to others meanwhile.

A request that lasts beyond the end of a quota of the same workspace and flavour, submitted before that end, continues
it: it begins at the end, or before it. The quota itself ends on time: nothing is prolonged without approval. But from
14 days before the end until 14 days after it (or until the request is decided, whichever comes first) nobody else is
promised the GPUs that the quota held, up to as many as the request asks for. A hold is no promise: it counts in others'
room alone, so the ledger's invariant does not need it.

A *plain* renewal begins at the end and takes no more than was held. It may be open beside one other request of its
workspace and flavour, so that nothing that is pending keeps a team from renewing. The two are granted in either order
with the same result, for a plain renewal takes nothing away: where the other speaks, the other counts (`left_over`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Case, Q, When

from apps.clusters.models import Flavour, Pool
from apps.core import clock
from apps.core.events import plain
from apps.core.formats import datetime_utc
from apps.quotas import recurrence
from apps.quotas.choices import OPEN_STATUSES, RequestStatus
from apps.quotas.ledger import FOREVER, Holding, Step, beyond, gpus
from apps.quotas.models import Quota, QuotaRequest, Workspace

#: A dated window `[start, end)`; `end` None: no end.
Window = tuple[datetime, datetime | None]

#: Nobody keeps capacity from others by an undecided renewal for longer than this, on either side of the end.
HOLD_BEFORE = timedelta(days=14)
HOLD_AFTER = timedelta(days=14)
#: A start typed to the minute meets an end that has seconds.
_TO_THE_MINUTE = timedelta(minutes=1)
_GRANTED = (RequestStatus.SCHEDULED, RequestStatus.APPLYING, RequestStatus.ACTIVE)


@dataclass(frozen=True, slots=True)
class Renews:
    """What a request renews: so many units that are held until `until`; `asked_at` is its place among renewals.

    `beside`: it is a plain renewal, which gives way to what another request is granted meanwhile.
    """

    until: datetime
    guaranteed: int
    asked_at: datetime
    beside: bool = False

    def plain(self) -> dict[str, Any]:
        """Return it as it is frozen with the request's change."""
        found = {"until": plain(self.until), "guaranteed": self.guaranteed, "asked_at": plain(self.asked_at)}
        return found | ({"beside": True} if self.beside else {})

    def asked_for(self, units: int, start: datetime) -> Renews:
        """Return it for a request of so many units from `start` on: beside another only where it adds nothing."""
        return replace(self, beside=start >= self.until and units <= self.guaranteed)

    def precedence(self, units: int, at: datetime) -> datetime | None:
        """Return the place among renewals of a request for so many units; None: it stands in line like any other.

        This alone decides whether a renewal passes the pool's line, for the form as for the grant: only while its
        hold counts, and only where it asks for no more than what is held.
        """
        return self.asked_at if self.held_at(at) and units <= self.guaranteed else None

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
        datetime.fromisoformat(data["until"]),
        int(data["guaranteed"]),
        datetime.fromisoformat(data["asked_at"]),
        bool(data.get("beside")),
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


def _outlasted(workspace: Workspace, flavour: Flavour, window: Window, at: datetime) -> tuple[Quota, Renews] | None:
    """Return the quota in whose midst a request begins, and what it renews: that ends sooner and leaves less."""
    start, end = window
    rows = Quota.objects.filter(workspace=workspace, flavour=flavour)
    quota = rows.filter(valid__contains=start).select_related("request").first()
    if quota is None or quota.valid.upper is None or quota.valid.upper <= at:
        return None
    high = quota.valid.upper
    repeats = quota.request is not None and quota.request.recurrence is not None
    if repeats or not quota.guaranteed or (end is not None and end <= high):
        return None
    after = rows.filter(valid__contains=high).first()
    if after is not None and after.guaranteed >= quota.guaranteed:
        return None
    return quota, Renews(high, quota.guaranteed, at)


def found(
    workspace: Workspace,
    flavour: Flavour,
    asked: Holding,
    repetition: recurrence.Recurrence | None,
    at: datetime,
) -> tuple[Renews | None, datetime]:
    """Return what a request would renew were it submitted at `at`, and when it then begins.

    A start typed to the minute meets the very second at which the quota before ends; what asks for the numbers that
    are held until then changes nothing sooner, so it begins there, too. At most four queries. Only GPUs held in the
    same hours are renewed: a quota around the clock is not held for a request that repeats in other windows than it
    had.
    """
    renews = _at_its_end(workspace, flavour, asked.start, repetition, at)
    if renews is not None:
        return renews.asked_for(asked.guaranteed, renews.until), renews.until
    outlasted = _outlasted(workspace, flavour, (asked.start, asked.end), at) if repetition is None else None
    if outlasted is None:
        return None, asked.start
    quota, renews = outlasted
    same = asked.numbers == Holding(
        asked.start, asked.end, quota.guaranteed, quota.borrow_mode, quota.borrow_limit,
        lend_mode=quota.lend_mode, lend_limit=quota.lend_limit, serving=quota.serving,
    ).numbers  # fmt: skip
    start = renews.until if same else asked.start
    return renews.asked_for(asked.guaranteed, start), start


def _at_its_end(
    workspace: Workspace, flavour: Flavour, start: datetime, repetition: recurrence.Recurrence | None, at: datetime
) -> Renews | None:
    """Return the quota, or the repetition, at whose end a request begins."""
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


def continued(old: Mapping[str, Any], asked: Holding, at: datetime) -> Renews | None:
    """Return what a correction still renews: its place is kept while it begins where the renewed quota ended.

    After that end "as soon as it is granted" continues it just as well.
    """
    before = read(old)
    if before is None or (asked.end is not None and asked.end <= before.until):
        return None
    if asked.start > max(before.until + _TO_THE_MINUTE, at + _TO_THE_MINUTE):
        return None
    return before.asked_for(asked.guaranteed, asked.start)


def held_for(request: QuotaRequest, at: datetime) -> str:
    """Say what is held for a stored request and why; "" where nothing is, or the hold is over."""
    renews = read(request.change)
    if renews is None or not request.guaranteed or at >= renews.until + HOLD_AFTER:
        return ""
    ends = "ends" if at < renews.until else "ended"
    return f"It renews {renews.guaranteed:,} that {ends} on {datetime_utc(renews.until)}. " + words(
        renews, request.guaranteed
    )


def words(renews: Renews, units: int) -> str:
    """Say what is held for an open renewal of so many units, until when, and what goes past it."""
    kept = min(units, renews.guaranteed)
    text = (
        f"Until it is decided nobody else is promised {kept:,} of those, from {HOLD_BEFORE.days} days before that end "
        f"until {HOLD_AFTER.days} days after it, {datetime_utc(renews.until + HOLD_AFTER)}, and no longer."
    )
    if renews.beside:
        text += " It may be open beside another request: what that one is granted stands, and this fills in the rest."
    elif units > renews.guaranteed:
        text += f" What it asks for beyond the {renews.guaranteed:,} that are held waits its turn in the pool's line."
    return text


def windows_of(start: datetime, until: datetime | None, repetition: recurrence.Recurrence | None) -> list[Window]:
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


def kept(holds: Iterable[Hold], own: Callable[[int, int], Sequence[Step]]) -> dict[tuple[int, int], list[Step]]:
    """Return by workspace and flavour what holds keep from others beyond what is promised there (`own`) anyway.

    Two open requests of one workspace and flavour hold the same GPUs: the larger counts, not the sum.
    """
    by_key: dict[tuple[int, int], list[Sequence[Step]]] = {}
    for hold in holds:
        by_key.setdefault((hold.workspace_id, hold.flavour_id), []).append(hold.steps)
    return {key: beyond(series, own(*key)) for key, series in by_key.items()}


def place_of(request: QuotaRequest, at: datetime | None = None) -> datetime | None:
    """Return a stored renewal's place among renewals; None: it stands in line like any other request."""
    renewed = read(request.change)
    return renewed.precedence(request.guaranteed, at or clock.now()) if renewed is not None else None


def granted_beside(request: QuotaRequest) -> list[Window]:
    """Return when another request counts that was granted since a plain renewal was submitted. At most one query."""
    renewed = read(request.change)
    if renewed is None or not renewed.beside or request.approval is None:
        return []
    rows = Quota.objects.filter(
        workspace=request.workspace_id,
        flavour=request.flavour_id,
        request__granted_at__gt=request.approval.submitted_at,
    )
    rows = rows.exclude(request=request.pk).order_by("valid")
    return [(valid.lower, valid.upper) for valid in rows.values_list("valid", flat=True)]


def left_over(windows: Iterable[Window], taken: Sequence[Window]) -> list[Window]:
    """Return the parts of windows that lie in none of the `taken` ones, which are in order and do not overlap."""
    found: list[Window] = []
    for start, end in windows:
        low = start
        for other, until in taken:
            if other >= (end or FOREVER) or (until is not None and until <= low):
                continue
            if low < other:
                found.append((low, other))
            low = until or FOREVER
            if low >= (end or FOREVER):
                break
        if low < (end or FOREVER):
            found.append((low, end))
    return found


def kept_until(workspace: Workspace, at: datetime) -> datetime | None:
    """Return until when open renewals keep GPUs of a workspace from others; None: none does. One query."""
    rows = QuotaRequest.objects.filter(workspace=workspace, status__in=OPEN_STATUSES, change__has_key="renews")
    found = [renewed for row in rows if row.guaranteed and (renewed := read(row.change)) and renewed.held_at(at)]
    return max((renewed.until + HOLD_AFTER for renewed in found), default=None)


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
            valid_from__lte=until + timedelta(days=7),
        )
        .filter(Q(valid_until__isnull=True) | Q(valid_until__gt=until))
        # What is granted already says most, then what holds.
        .order_by(Case(When(status=RequestStatus.SCHEDULED, then=0), default=1), "-is_renewal", "-pk")
        .first()
    )


__all__ = [
    "HOLD_AFTER",
    "HOLD_BEFORE",
    "Hold",
    "Renews",
    "Window",
    "continued",
    "continues",
    "found",
    "granted_beside",
    "held_for",
    "holds",
    "kept",
    "kept_until",
    "left_over",
    "open_renewal",
    "place_of",
    "read",
    "windows_of",
    "words",
]
