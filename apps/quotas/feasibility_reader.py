"""Feasibility of a draft or a stored request, from rows to a sentence. Reads only: about ten queries, no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

from apps.clusters.capacity_view import flavour_capacity
from apps.clusters.choices import KueueMode, PoolKind
from apps.clusters.models import Flavour, Node, Pool
from apps.core import clock
from apps.core.formats import datetime_utc
from apps.quotas import book, cluster_side, waitlist
from apps.quotas.assess import Draft, most_added_at, number
from apps.quotas.choices import LendMode
from apps.quotas.feasibility import Ask, Borrowable, Found, Ground, LimitKind, Verdict, Window, fits, judge
from apps.quotas.ledger import Holding, gpus, in_force
from apps.quotas.models import Quota, QuotaRequest, Workspace
from apps.quotas.records import windows_left

#: Figures of use that are older do not count as idle.
FRESH = timedelta(minutes=3)
_HEADLINES = {
    Verdict.FITS_NOW: "Fits now",
    Verdict.FITS_BY_BORROWING: "Fits if part of it is borrowed",
    Verdict.IN_LINE: "Fits, after those in line",
    Verdict.FITS_FROM: "Fits later",
    Verdict.NEVER: "Never fits like this",
}
_TONES = {Verdict.FITS_NOW: "positive", Verdict.NEVER: "critical"}


@dataclass(frozen=True, slots=True)
class Offer:
    """Another way to have it: less, later, or shorter. Times None: as asked for."""

    text: str
    guaranteed: int
    valid_from: datetime | None = None
    valid_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Feasibility:
    """Whether a draft fits, in words. `limit`: what stands in the way, with numbers and the instant; "": nothing."""

    verdict: Verdict
    limit_kind: LimitKind
    limit: str
    fits_from: datetime | None
    most_now: int
    guaranteed_now: int
    borrowed_now: int
    ahead: int
    warning: str = ""
    offers: Sequence[Offer] = field(default_factory=tuple)

    @property
    def headline(self) -> str:
        """The verdict in a few words."""
        if self.verdict == Verdict.FITS_FROM and self.fits_from is not None:
            return f"Fits from {datetime_utc(self.fits_from)}"
        return _HEADLINES[self.verdict]

    @property
    def tone(self) -> str:
        """Its place on the status scale."""
        return _TONES.get(self.verdict, "caution")

    def plain(self) -> dict[str, Any]:
        """Return it for the API."""
        return {
            "verdict": self.verdict.value,
            "headline": self.headline,
            "limit_kind": self.limit_kind.value,
            "limit": self.limit,
            "fits_from": self.fits_from,
            "largest_now": self.most_now,
            "guaranteed_now": self.guaranteed_now,
            "borrowed_now": self.borrowed_now,
            "requests_ahead": self.ahead,
            "warning": self.warning,
            "offers": [
                {
                    "text": offer.text,
                    "guaranteed": offer.guaranteed,
                    "valid_from": offer.valid_from,
                    "valid_until": offer.valid_until,
                }
                for offer in self.offers
            ],
        }


def refused(kind: LimitKind, message: str) -> Feasibility:
    """Return the feasibility of something that a rule forbids whatever the room."""
    return Feasibility(Verdict.NEVER, kind, message, None, 0, 0, 0, 0)


def idle_with_others(pool: Pool, flavours: Sequence[Flavour], workspace_id: int, at: datetime) -> Borrowable | None:
    """Return what other workspaces of a pool hold, do not use just now and lend; None where nothing can be borrowed.

    What others borrow already is gone. Use that was not seen lately counts as full use. Three queries.
    """
    if not (book.takes_back(pool) or pool.best_effort):
        return None
    rows = list(
        Quota.objects.filter(workspace__cluster_id=pool.cluster_id, flavour__in=[one.pk for one in flavours])
        .in_force(at)
        .exclude(workspace_id=workspace_id)
        .select_related("workspace", "flavour")
    )
    seen = cluster_side.usage({row.workspace_id: row.workspace for row in rows}.values())
    left = {pk: dict(usage.used) for pk, usage in seen.items()}
    idle = held = beyond = Fraction(0)
    for row in sorted(rows, key=lambda one: one.pk):
        share = gpus(1, row.flavour.numerator, row.flavour.denominator)
        held += row.guaranteed * share
        usage = seen.get(row.workspace_id, cluster_side.UNSEEN)
        if usage.at is None or at - usage.at > FRESH:
            continue
        # Flavours of one resource name share what is counted: it fills one row after the other.
        counted = left[row.workspace_id]
        used = min(row.guaranteed, counted.get(row.flavour.resource_name, 0))
        counted[row.flavour.resource_name] = counted.get(row.flavour.resource_name, 0) - used
        lendable = row.guaranteed - row.serving
        if row.lend_mode == LendMode.LIMITED:
            lendable = min(lendable, row.lend_limit)
        elif row.lend_mode == LendMode.NONE:
            lendable = 0
        idle += max(0, min(row.guaranteed - used, lendable)) * share
    names = {row.flavour.resource_name: gpus(1, row.flavour.numerator, row.flavour.denominator) for row in rows}
    for counted in left.values():
        beyond += sum((units * names.get(name, Fraction(0)) for name, units in counted.items()), Fraction(0))
    return Borrowable(max(Fraction(0), idle - beyond), held)


def units_on_nodes(pool: Pool, flavour: Flavour) -> int | None:
    """Return how many units of a flavour the nodes carry, times the pool's factor; None where that cannot be told.

    An elastic pool may be empty at rest, and where no node of the model was ever observed nothing is known. One query.
    """
    if pool.kind == PoolKind.ELASTIC:
        return None
    nodes = list(Node.objects.filter(cluster_id=pool.cluster_id, gpu_model=pool.gpu_model))
    if not nodes:
        return None
    return int(flavour_capacity(flavour, nodes).built * Fraction(pool.commit_factor))


def adds(units: int, own: Sequence[Holding], windows: Sequence[Window]) -> bool:
    """Whether so many units are more than what is held at any instant of the windows: then they stand in line."""
    held = in_force(own, most_added_at(units, own, windows))
    return units > (held.guaranteed if held is not None else 0)


def of_draft(draft: Draft, at: datetime | None = None, *, stored: QuotaRequest | None = None) -> Feasibility:
    """Return the feasibility of a checked draft. `stored`: the request that it is, which keeps its place in line."""
    now = (at or clock.now()).replace(microsecond=0)
    windows = tuple(draft.windows_from(max(draft.valid_from, now)) if stored is None else windows_left(stored, now))
    if not windows:
        return refused(LimitKind.RULE, "All of the time that it asks for has passed.")
    return of_terms(
        draft.workspace,
        draft.flavour,
        draft.pool,
        draft.guaranteed,
        windows,
        now,
        place=draft.place,
        stored=stored,
    )


def of_terms(
    workspace: Workspace,
    flavour: Flavour,
    pool: Pool,
    units: int,
    windows: Sequence[Window],
    at: datetime,
    *,
    place: datetime | None = None,
    stored: QuotaRequest | None = None,
) -> Feasibility:
    """Return whether `units` of a flavour would fit for a workspace in all windows, were they approved at `at`.

    `place`: the place among renewals of one that passes the line (`Renews.precedence`, as for the grant). Raises
    ValueError without a window.
    """
    view = book.load(pool, windows[0][0])
    share = gpus(1, flavour.numerator, flavour.denominator)
    own = view.own(workspace.pk, flavour.pk)
    ground = Ground(view.capacity, view.others(workspace.pk, flavour.pk, asked_at=place), book.steps(own, flavour))
    ask = Ask(units, share, tuple(windows))
    # The same question as `QuotaRequestSubject.queue` and `.spans` answer for the grant.
    if stored is not None and stored.approval is not None:
        lined = stored.approval.queue != ""
    else:
        lined = adds(units, own, windows)
    line = waitlist.before(pool, windows, at, but=stored) if lined and place is None else []
    elastic = None
    if pool.kind == PoolKind.ELASTIC and pool.max_gpus is not None:
        elastic = Fraction(pool.max_gpus) * Fraction(pool.commit_factor)
    idle = None
    carried = units_on_nodes(pool, flavour)
    if windows[0][0] <= at and not fits(ground, ask):
        idle = idle_with_others(pool, list(view.flavours.values()), workspace.pk, at)
    found = judge(
        ground,
        ask,
        ahead=len(line),
        borrowable=idle,
        elastic_max=elastic,
        units_on_nodes=carried,
    )
    return Feasibility(
        verdict=found.verdict,
        limit_kind=found.limit,
        limit=f"The nodes of {pool} carry {carried or 0:,} of {flavour} in all, {ask.units:,} are asked for."
        if found.limit == LimitKind.FLAVOUR_UNITS
        else _limit(found, ask, pool, line, elastic),
        fits_from=found.fits_from if found.verdict in (Verdict.FITS_FROM, Verdict.FITS_BY_BORROWING) else None,
        most_now=found.most_now,
        guaranteed_now=found.guaranteed,
        borrowed_now=found.borrowed,
        ahead=len(line),
        warning=_warning(found, idle, pool),
        offers=_offers(found, ask),
    )


def _limit(found: Found, ask: Ask, pool: Pool, line: Sequence[Fraction], elastic: Fraction | None) -> str:
    """Return what of the pool stands in the way as a sentence with numbers and the instant."""
    when = datetime_utc(found.tightest_at)
    asked = f"{number(ask.gpus)} {'is' if ask.gpus == 1 else 'are'} asked for"
    match found.limit:
        case LimitKind.PROMISES:
            return (
                f"On {when}, {number(found.promised_at_tightest)} of the {number(found.capacity_at_tightest)} GPUs "
                f"that {pool} hands out are promised to others: this workspace could hold "
                f"{number(max(Fraction(0), found.reach_at_tightest))}, {asked}."
            )
        case LimitKind.CAPACITY:
            return (
                f"On {when}, {pool} hands out {number(found.capacity_at_tightest)} GPUs in all{_factor(pool)}, {asked}."
            )
        case LimitKind.ELASTIC:
            return f"{pool} grows to at most {number(elastic or Fraction(0))} GPUs, {asked}."
        case LimitKind.LINE:
            many = f"{len(line):,} approved request{'s' if len(line) != 1 else ''}"
            return (
                f"There is room, but {many} for {number(sum(line, Fraction(0)))} GPUs already wait in line for this "
                "pool and are served first."
            )
    return ""


def _factor(pool: Pool) -> str:
    return f" (its factor of {pool.commit_factor.normalize():f} included)" if pool.commit_factor != 1 else ""


def _warning(found: Found, idle: Borrowable | None, pool: Pool) -> str:
    if found.verdict != Verdict.FITS_BY_BORROWING or idle is None:
        return ""
    back = (
        f"What is borrowed can be taken back at any time, and work that runs on it is stopped then.{_jobs_alone(pool)}"
        if book.takes_back(pool)
        else "Nothing on this cluster takes it back or keeps it for anybody: it is there for whoever comes first."
    )
    return (
        "As asked for, guaranteed as a whole, it waits for capacity. Ask for "
        f"{found.guaranteed:,} guaranteed and to borrow up to {found.borrowed:,}: of the {number(idle.held)} GPUs that "
        f"others hold in this pool, {number(idle.idle)} idle just now, as a sum over all of them. {back}"
    )


def _jobs_alone(pool: Pool) -> str:
    """Say what of borrowed GPUs is not taken back where Kueue manages jobs alone; "" elsewhere."""
    if pool.cluster.kueue_mode != KueueMode.JOBS:
        return ""
    return " Kueue does so with jobs in its queues alone here: borrow for jobs, and keep other pods within your own."


def _offers(found: Found, ask: Ask) -> tuple[Offer, ...]:
    if found.verdict in (Verdict.FITS_NOW, Verdict.IN_LINE):
        return ()
    offers: list[Offer] = []
    if 0 < found.most_now < ask.units:
        offers.append(Offer(f"{found.most_now:,} fit now, over the whole time.", found.most_now))
    if found.limit == LimitKind.FLAVOUR_UNITS:
        return tuple(offers)
    start, end = ask.windows[0][0], ask.windows[-1][1]
    if found.starts_by is not None and found.starts_by != start:
        until = f" until {datetime_utc(end)}" if end is not None else ""
        kept = " in every window that is left" if ask.recurring else ""
        offers.append(
            Offer(
                f"All {ask.units:,} fit{kept} if it begins on {datetime_utc(found.starts_by)}{until}.",
                ask.units,
                found.starts_by,
                end,
            )
        )
    if found.ends_by is not None and found.ends_by != end:
        offers.append(
            Offer(
                f"All {ask.units:,} fit now if it ends by {datetime_utc(found.ends_by)}.",
                ask.units,
                None,
                found.ends_by,
            )
        )
    if not ask.recurring and found.fits_from is not None and end is not None and found.fits_from != found.starts_by:
        moved = found.fits_from + (end - start)
        offers.append(
            Offer(
                f"All {ask.units:,} fit for as long as asked from {datetime_utc(found.fits_from)} until "
                f"{datetime_utc(moved)}.",
                ask.units,
                found.fits_from,
                moved,
            )
        )
    return tuple(offers)


__all__ = [
    "FRESH",
    "Feasibility",
    "Offer",
    "adds",
    "idle_with_others",
    "of_draft",
    "of_terms",
    "refused",
    "units_on_nodes",
]
