"""The line of a pool: who waits for GPUs in which order, what is in front of one, and when it may be one's turn.

Order: by submission. What is granted to whom under lock is the approvals room's (`granting.attempt`); this only reads.
Others stay anonymous unless the pool's names are open or the person may view pools (design invariant 10).
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

from django.db.models import F, OuterRef, Subquery
from django.db.models.functions import Coalesce

from apps.approvals.choices import RequestStatus as ApprovalStatus
from apps.approvals.models import ApprovalRequest, Decision
from apps.approvals.ports import Span, meet
from apps.clusters.models import Flavour, Pool
from apps.core import clock
from apps.core.formats import datetime_utc
from apps.core.row_security import lifted
from apps.quotas import book, pool_calendar, recurrence
from apps.quotas.assess import number
from apps.quotas.choices import RequestStatus
from apps.quotas.ledger import gpus
from apps.quotas.line_forecast import PoolLeft, Turn
from apps.quotas.line_places import ORDER, OwnPlace, Place, PoolLine
from apps.quotas.models import QuotaRequest
from apps.quotas.pool_calendar import PoolTime, profile_of
from apps.quotas.waiting import NEWEST, WaitRange, range_of
from apps.teams.models import Team

#: How far ahead dated facts are told.
_AHEAD = timedelta(days=366)
_FACTS = 5
#: Waits shorter than this were none: it was granted with the last decision.
_AT_ONCE = timedelta(seconds=2)


def line_name(pool: Pool) -> str:
    """Return what the approvals room calls the line of a pool."""
    return f"pool:{pool.uid}"


def windows_between(pattern: recurrence.Recurrence | None, start: datetime, until: datetime | None) -> tuple[Span, ...]:
    """Return the dated windows of a time, weekly ones or the whole; nothing where it is over."""
    if until is not None and until <= start:
        return ()
    if pattern is None or until is None:
        return ((start, until),)
    return tuple(recurrence.windows(pattern, start, until))


def spans_of(request: QuotaRequest, at: datetime) -> list[Span]:
    """Return when a request, granted at `at` or later, could take GPUs of its pool."""
    start = max(request.valid_from, at.replace(microsecond=0))
    return list(windows_between(recurrence.parse(request.recurrence), start, request.valid_until))


def gpus_of(request: QuotaRequest) -> Fraction:
    """Return how many whole devices a request adds to what its workspace holds."""
    return _more(request.estimate, request.flavour.numerator, request.flavour.denominator)


def _more(estimate: Mapping[str, Any], numerator: int, denominator: int) -> Fraction:
    return gpus(max(0, int(estimate.get("delta_units") or 0)), numerator, denominator)


@dataclass(slots=True)
class _Entry:
    """A waiting request with what the reckoning needs."""

    request: QuotaRequest
    since: datetime
    spans: list[Span]
    gpus: Fraction
    ahead: list[_Entry] = field(default_factory=list)
    turn: datetime | None = None
    expected: datetime | None = None


#: What of a waiting request, its workspace and its flavour the line and its pages read; more is read when asked for.
_READ = (
    "uid", "approval_id", "workspace_id", "flavour_id", "guaranteed", "valid_from", "valid_until", "recurrence",
    "estimate", "workspace__team_id", "workspace__cluster_id", "workspace__namespace", "workspace__team__name",
    "workspace__cluster__name", "flavour__name", "flavour__numerator", "flavour__denominator",
)  # fmt: skip
_DECISIONS = Decision.objects.order_by("-decided_at").values("decided_at")


@lifted("a line is the pool's: places before one's own are counted, named only where the pool is open")
def _entries(names: Iterable[str], at: datetime) -> dict[str, list[_Entry]]:
    """Return who waits in each line, in order. One query."""
    rows = (
        QuotaRequest.objects.filter(approval__queue__in=list(names), approval__status=ApprovalStatus.WAITING)
        .select_related("workspace__team", "workspace__cluster", "flavour")
        .only(*_READ)
        .annotate(
            queue=F("approval__queue"),
            since=Coalesce(
                Subquery(_DECISIONS.filter(request=OuterRef("approval_id"))[:1]), F("approval__submitted_at")
            ),
        )
        .order_by("approval__submitted_at", "approval_id")
    )
    found: dict[str, list[_Entry]] = {}
    for request in rows:
        told = vars(request)  # annotations, which mypy does not know
        line = found.setdefault(told["queue"], [])
        spans = spans_of(request, at)
        ahead = [other for other in line if meet(spans, other.spans)]
        line.append(_Entry(request, told["since"], spans, gpus_of(request), ahead))
    return found


def _reckon(view: PoolTime, line: Sequence[_Entry], at: datetime) -> None:
    """Work out whose turn is when if nothing happens but what is dated, and everybody is served in order."""
    keeps = view.kept
    shares = {pk: gpus(1, one.numerator, one.denominator) for pk, one in view.flavours.items()}
    kept = profile_of(list(itertools.chain.from_iterable(keeps.values())))
    pool = PoolLeft.of(view.there, [view.promised, kept], [*shares.values(), *(entry.gpus for entry in line)])
    for entry in line:
        turns = [other.turn for other in entry.ahead]
        flavour = view.flavours.get(entry.request.flavour_id)
        if flavour is None or not entry.spans or any(turn is None for turn in turns):
            continue
        earliest = max([at, *[turn for turn in turns if turn is not None]])
        spans = [(max(low, earliest), high) for low, high in entry.spans if high is None or high > earliest]
        if not spans:
            continue
        key = (entry.request.workspace_id, flavour.pk)
        need = entry.request.guaranteed * shares[flavour.pk]
        turn = Turn(key, need, entry.gpus, spans, view.own(*key), keeps.get(key, ()))
        start = pool.start_of(turn)
        if start is None:
            continue
        entry.expected = start
        # A later start alone is no wait: what is promised from then on may be granted at once.
        entry.turn = earliest if start == spans[0][0] else start
        pool.lay(turn, start)


def dated_facts(view: PoolTime, at: datetime) -> list[str]:
    """Return when GPUs come free by what is already dated: ends of quotas, capacity that grows. Nobody is named."""
    promised, there = view.promised, view.there
    found: list[str] = []
    limit = at + _AHEAD
    for edge in sorted({*promised.within(at, limit), *there.within(at, limit)}):
        just = edge - timedelta(microseconds=1)
        ended, grown = promised.at(just) - promised.at(edge), there.at(edge) - there.at(just)
        if ended > 0:
            found.append(f"{_gpus(ended)} on {datetime_utc(edge)}, when quota of others ends.")
        if grown > 0:
            found.append(f"{_gpus(grown)} on {datetime_utc(edge)}, when the pool grows.")
        if len(found) >= _FACTS:
            break
    return found[:_FACTS]


def _gpus(count: Fraction) -> str:
    return f"{number(count)} {'GPU comes' if count == 1 else 'GPUs come'} free"


@lifted("how long people waited in a pool is its aggregate")
def history(pool: Pool, flavours: Iterable[Flavour], like: Fraction | None = None) -> WaitRange:
    """Return how long those waited that had to wait in this pool, of about the size of `like` GPUs. One query.

    Like: between half and twice as many GPUs. A wait is from the last decision (or submission) to the grant.
    """
    rows = (
        QuotaRequest.objects.filter(
            workspace__cluster_id=pool.cluster_id,
            flavour__in=[flavour.pk for flavour in flavours],
            status__in=[RequestStatus.SCHEDULED, RequestStatus.APPLYING, RequestStatus.ACTIVE],
            granted_at__isnull=False,
            approval__queue=line_name(pool),
        )
        .annotate(
            decided_at=Subquery(_DECISIONS.filter(request=OuterRef("approval_id"))[:1]),
            submitted_at=F("approval__submitted_at"),
        )
        .order_by("-granted_at", "-pk")
    )
    columns = (
        "granted_at", "decided_at", "submitted_at", "estimate", "flavour__numerator", "flavour__denominator",
    )  # fmt: skip
    waits: list[timedelta] = []
    for granted, decided, submitted, estimate, numerator, denominator in rows.values_list(*columns)[: 50 * NEWEST]:
        waited = granted - (decided or submitted)
        if waited > _AT_ONCE and (like is None or like / 2 <= _more(estimate, numerator, denominator) <= like * 2):
            waits.append(waited)
        if len(waits) == NEWEST:
            break
    return range_of(waits)


def views_pools(pool: Pool, user: Any) -> bool:
    """Whether a person may view the pool itself, not only its aggregates: then everybody in line has a name."""
    return bool(Pool.objects.visible_to(user).filter(pk=pool.pk).exists())


def for_pool(
    pool: Pool, user: Any, at: datetime | None = None, *, read: Callable[[], PoolTime] | None = None
) -> PoolLine:
    """Return a pool's line as a person may see it. About eight queries, however long it is.

    `read`: returns the pool's time from now on where the caller has read it already.
    """
    now = at or clock.now()
    line = _entries([line_name(pool)], now).get(line_name(pool), [])
    viewer = views_pools(pool, user)
    names = viewer or pool.open_names
    if not line:
        return PoolLine(pool, 0, Fraction(0), [], names, [], range_of([]))
    rows = QuotaRequest.objects.filter(pk__in=[entry.request.pk for entry in line])
    seen = set(rows.visible_to(user).values_list("pk", flat=True))
    own = set() if viewer else seen
    view = read() if read is not None else pool_calendar.read(pool, now, requests=False)
    _reckon(view, line, now)
    mine = [entry.gpus for entry in line if entry.request.pk in own]
    return PoolLine(
        pool=pool,
        total=len(line),
        total_gpus=sum((entry.gpus for entry in line), Fraction(0)),
        places=[replace(place, may_open=place.request.pk in seen) for place in _places(line, own, names)],
        names=names,
        facts=dated_facts(view, now),
        history=history(pool, view.flavours.values(), statistics.median(mine) if mine else None),
    )


def _places(line: Sequence[_Entry], own: set[int], names: bool) -> list[Place]:
    return [
        Place(
            rank=rank,
            gpus=entry.gpus,
            since=entry.since,
            ahead=len(entry.ahead),
            gpus_ahead=sum((other.gpus for other in entry.ahead), Fraction(0)),
            expected=entry.expected,
            request=entry.request,
            mine=entry.request.pk in own,
        )
        for rank, entry in enumerate(line, start=1)
        if names or entry.request.pk in own
    ]


def place_of(request: QuotaRequest, at: datetime | None = None) -> OwnPlace | None:
    """Return the place of a waiting request; None where it does not wait in a line."""
    if request.status != RequestStatus.WAITING:
        return None
    pool = book.pool_of(request.workspace.cluster_id, request.flavour_id)
    if pool is None:
        return None
    now = at or clock.now()
    line = _entries([line_name(pool)], now).get(line_name(pool), [])
    view = pool_calendar.read(pool, now, requests=False)
    _reckon(view, line, now)
    found = next((place for place in _places(line, {request.pk}, False)), None)
    if found is None:
        return None
    return OwnPlace(found, len(line), dated_facts(view, now), history(pool, view.flavours.values(), found.gpus))


def of_team(team: Team) -> list[Place]:
    """Return the places of a team's waiting requests, in order of submission, without forecasts. Two queries."""
    waiting = ApprovalRequest.objects.filter(
        status=ApprovalStatus.WAITING, quota_request__workspace__team=team
    ).exclude(queue="")
    queues = list(waiting.values_list("queue", flat=True).distinct())
    if not queues:
        return []
    found: list[Place] = []
    for line in _entries(queues, clock.now()).values():
        own = {entry.request.pk for entry in line if entry.request.workspace.team_id == team.pk}
        found += _places(line, own, False)
    return sorted(found, key=lambda place: place.since)


def before(pool: Pool, spans: Sequence[Span], at: datetime, *, but: QuotaRequest | None = None) -> list[Fraction]:
    """Return the GPUs of each waiting request that is served before a new one (or before `but`) for a common time."""
    found: list[Fraction] = []
    for entry in _entries([line_name(pool)], at).get(line_name(pool), []):
        if but is not None and entry.request.pk == but.pk:
            break
        if but is not None and _submitted(but) < _submitted(entry.request):
            break
        if meet(spans, entry.spans):
            found.append(entry.gpus)
    return found


def _submitted(request: QuotaRequest) -> tuple[datetime, int]:
    approval = request.approval
    return (approval.submitted_at, approval.pk) if approval is not None else (request.created_at, 0)


__all__ = [
    "ORDER",
    "OwnPlace",
    "Place",
    "PoolLine",
    "before",
    "dated_facts",
    "for_pool",
    "gpus_of",
    "history",
    "line_name",
    "of_team",
    "place_of",
    "spans_of",
    "views_pools",
    "windows_between",
]
