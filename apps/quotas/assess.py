"""What a draft of a quota request would mean: validation, cost, room. Reads only; the form and the action share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

from apps.clusters.models import Flavour, Pool
from apps.core import clock
from apps.core.errors import Invalid
from apps.core.formats import datetime_utc
from apps.quotas import book, cluster_side, renewal, terms
from apps.quotas import recurrence as weekly
from apps.quotas.choices import BorrowMode, Environment, LendMode
from apps.quotas.ledger import Holding, Profile, Room, Step, gpus, in_force, most
from apps.quotas.models import Workspace
from apps.quotas.recurrence import Recurrence
from apps.quotas.renewal import Renews
from apps.quotas.terms import MAX_UNITS, Extras
from apps.rates.selectors import Estimate, monthly_estimate

_NOTHING = Holding(datetime.min.replace(tzinfo=UTC), None, 0)
MIN_REASON = 10


@dataclass(frozen=True, slots=True)
class Draft:
    """A checked draft of a quota request."""

    workspace: Workspace
    flavour: Flavour
    pool: Pool
    guaranteed: int
    borrow_mode: str
    borrow_limit: int
    valid_from: datetime
    valid_until: datetime | None
    recurrence: Recurrence | None = None
    lend_mode: str = LendMode.ALL
    lend_limit: int = 0
    serving: int = 0
    renews: Renews | None = None

    @property
    def holding(self) -> Holding:
        """The draft as the ledger sees it, its repetition aside."""
        return Holding(
            self.valid_from,
            self.valid_until,
            self.guaranteed,
            self.borrow_mode,
            self.borrow_limit,
            lend_mode=self.lend_mode,
            lend_limit=self.lend_limit,
            serving=self.serving,
        )

    def windows_from(self, start: datetime) -> list[tuple[datetime, datetime | None]]:
        """Return the dated windows from a start on: one, or those of the repetition (none where none is left)."""
        return renewal.windows_of(start, self.valid_until, self.recurrence)

    @property
    def windows(self) -> list[tuple[datetime, datetime | None]]:
        """The dated windows as asked for."""
        return self.windows_from(self.valid_from)

    @property
    def repeats(self) -> str:
        """The repetition in words, with the number of its windows; empty for one without."""
        if self.recurrence is None:
            return ""
        return f"{weekly.words(self.recurrence)}: {len(self.windows):,} windows"

    @property
    def place(self) -> datetime | None:
        """The place among renewals; None: it stands in line like any other request."""
        return self.renews.precedence(self.guaranteed, clock.now()) if self.renews is not None else None

    @property
    def is_renewal(self) -> bool:
        """Whether it may be open beside another request of its workspace and flavour."""
        return self.renews is not None and self.renews.beside


@dataclass(frozen=True, slots=True)
class Assessment:
    """What a draft means. `before` is what is held when it starts; `delta_*` compare with that."""

    draft: Draft
    before: Holding | None
    at_end: Holding | None
    delta_units: int
    delta_gpus: Fraction
    estimate: Estimate
    estimate_maximum: Estimate | None
    room: Room
    warnings: list[str] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        """Whether the pool has room over the whole time."""
        return self.room.fits


def number(value: Fraction) -> str:
    """Return a count of GPUs for people: whole where it is whole, else with up to three decimals."""
    if value.denominator == 1:
        return f"{value.numerator:,}"
    return f"{float(value):,.3f}".rstrip("0")


def guaranteed_word(pool: Pool | None) -> str:
    """Return how a pool's promise is called: where GPUs are lent and nothing takes them back, none is guaranteed."""
    return (
        "share (best effort)" if pool is not None and pool.best_effort and not book.takes_back(pool) else "guaranteed"
    )


def check(
    workspace: Workspace,
    flavour: Flavour,
    *,
    guaranteed: object,
    borrow_mode: str,
    borrow_limit: object,
    valid_from: datetime | None,
    valid_until: datetime | None,
    may_borrow_unlimited: bool = False,
    extras: Extras | None = None,
    corrects: Mapping[str, Any] | None = None,
) -> Draft:
    """Return the checked draft. Raises Invalid with a message at each wrong field.

    `corrects`: the frozen change of the request that this one replaces, whose place as a renewal it keeps.
    """
    more = extras or Extras()
    errors: dict[str, str] = {}
    units = terms.count(guaranteed, "guaranteed", errors, "GPUs")
    pool = book.pool_of(workspace.cluster_id, flavour.pk)
    if pool is None:
        errors["flavour"] = f"{workspace.cluster} does not offer {flavour}. Choose one of its flavours."
    mode, limit = terms.borrow(borrow_mode, borrow_limit, pool, may_borrow_unlimited, errors)
    lend_mode, lend_limit, serving = terms.lending(more, units, workspace, errors)
    start, until = terms.times(valid_from, valid_until, errors)
    repetition = terms.repetition(more.recurrence, start, until, errors)
    if errors or pool is None:
        raise Invalid(errors)
    now = clock.now()
    asked = Holding(start, until, units, mode, limit, lend_mode=lend_mode, lend_limit=lend_limit, serving=serving)
    renews, start = renewal.found(workspace, flavour, asked, repetition, now)
    if corrects is not None:
        renews = renewal.continued(corrects, replace(asked, start=start), now) or renews
    if until is not None and until <= start:
        raise Invalid({"valid_until": "The end must lie after the start."})
    other = book.indistinguishable(workspace, flavour, start, until)
    if other is not None and (units or mode != BorrowMode.NONE):
        raise Invalid(
            {
                "flavour": f"This workspace holds {other}, which the cluster counts under the same name "
                f"({flavour.resource_name}): it could not keep the two apart. Use another workspace for {flavour}."
            }
        )
    draft = Draft(
        workspace,
        flavour,
        pool,
        units,
        mode,
        limit,
        start,
        until,
        recurrence=repetition,
        lend_mode=lend_mode,
        lend_limit=lend_limit,
        serving=serving,
        renews=renews,
    )
    _check_pool(draft)
    return draft


def _check_pool(draft: Draft) -> None:
    """Raise Invalid where the draft asks for more than the pool ever has, or changes nothing."""
    view = book.load(draft.pool, draft.valid_from, draft.valid_until)
    own = view.own(draft.workspace.pk, draft.flavour.pk)
    held_most = max((item.guaranteed for item in own), default=0)
    windows = draft.windows
    ceiling = max(most(view.capacity, low, high) for low, high in windows)
    needed = gpus(draft.guaranteed, draft.flavour.numerator, draft.flavour.denominator)
    if needed > ceiling and draft.guaranteed > held_most:
        raise Invalid(
            {
                "guaranteed": f"That is more than the pool has: {draft.pool} hands out at most "
                f"{number(ceiling)} GPUs in this time."
            }
        )
    reach = gpus(draft.guaranteed + draft.borrow_limit, draft.flavour.numerator, draft.flavour.denominator)
    if draft.borrow_limit and reach > ceiling:
        raise Invalid(
            {
                "borrow_limit": f"Together that is more than the pool has: {draft.pool} hands out at most "
                f"{number(ceiling)} GPUs in this time."
            }
        )
    wanted = draft.holding.numbers
    laid = book.steps(own, draft.flavour)
    moments = [at for low, high in windows for at in book.instants(low, high, laid)]
    if all((in_force(own, at) or _NOTHING).numbers == wanted for at in moments):
        raise Invalid({"": "The workspace already holds exactly this in that time: nothing would change."})


def assess(draft: Draft) -> Assessment:
    """Return what a checked draft would cost and whether the pool has room for it over the whole time."""
    view = book.load(draft.pool, draft.valid_from)
    own = view.own(draft.workspace.pk, draft.flavour.pk)
    windows = draft.windows
    begins, ends = windows[0]
    before = in_force(own, begins)
    at_end = in_force(own, ends) if ends else None
    counted_at = most_added_at(draft.guaranteed, own, windows)
    compared = in_force(own, counted_at)
    had = compared.guaranteed if compared else 0
    delta = draft.guaranteed - had
    room = view.room_in(draft.workspace.pk, draft.flavour, draft.guaranteed, windows, asked_at=draft.place)
    estimate = _monthly(draft, delta, counted_at)
    with_borrowed: Estimate | None = None
    if draft.borrow_mode == BorrowMode.LIMITED:
        most_before = had + (compared.borrow_limit if compared else 0)
        with_borrowed = _monthly(draft, draft.guaranteed + draft.borrow_limit - most_before, counted_at)
    return Assessment(
        draft,
        before,
        at_end,
        delta,
        Fraction(delta * draft.flavour.numerator, draft.flavour.denominator),
        estimate,
        with_borrowed,
        room,
        _warnings(draft, before, room, delta if counted_at != begins else 0, counted_at),
    )


def most_added_at(units: int, own: Sequence[Holding], windows: Sequence[tuple[datetime, datetime | None]]) -> datetime:
    """Return the first instant of the windows at which `units` are most above what is held, or their start.

    Cost, rules and the pool's line go by what a request adds there: whoever asks to keep beyond its end what is held
    until then adds all of it. What adds nothing anywhere counts from its start.
    """
    held = Profile.of(Step(item.start, item.end, Fraction(item.guaranteed)) for item in own)
    moments = [at for start, end in windows for at in (start, *held.within(start, end))]
    found = min(moments, key=lambda at: (held.at(at), at))
    return found if units > held.at(found) else windows[0][0]


def _monthly(draft: Draft, units: int, at: datetime) -> Estimate:
    """Return the monthly cost of so many units: of 730 h, or of the hours that the repetition's windows have."""
    estimate = monthly_estimate(draft.workspace.cluster_id, draft.flavour.pk, units, at)
    if draft.recurrence is None:
        return estimate
    hours = draft.recurrence.hours_per_month
    amount = estimate.hourly * Decimal(units * hours) if estimate.hourly is not None else None
    return replace(estimate, amount=amount, hours_per_month=hours)


def _warnings(draft: Draft, before: Holding | None, room: Room, later: int, since: datetime) -> list[str]:
    """Return what a person should know before submitting, in sentences. `later`: units that it adds `since` only."""
    found: list[str] = []
    if not room.fits:
        when = f" It would fit from {datetime_utc(room.first_fit_from)}." if room.first_fit_from else ""
        found.append(f"The pool is full: once approved, the request waits for capacity.{when}")
    if draft.valid_until is None and before is not None and before.end is not None:
        found.append(f"What the workspace holds now would have ended on {datetime_utc(before.end)}.")
    if later > 0:
        found.append(
            f"From {datetime_utc(since)} on, when less is held, this adds {later:,}: its cost and who has to approve "
            "it go by that."
        )
    shared = _shared_names(draft)
    if shared:
        found.append(
            f"This cluster counts {shared} under the same name ({draft.flavour.resource_name}). "
            "Use the ready-made manifests: their node selector keeps work on the GPUs you were granted."
        )
    found += _layout(draft, room)
    found += _given_up(draft, before)
    if draft.borrow_mode != BorrowMode.NONE and draft.workspace.environment == Environment.PRODUCTION:
        found.append(
            "In a production workspace only batch work borrows: releases have to fit in the guaranteed GPUs, because "
            "what is borrowed can be taken back at any moment."
        )
    if draft.workspace.archived_at is not None:
        found.append("The workspace is archived. Granting this restores it: roles, labels and limits as before.")
    found += _over_use(draft)
    if draft.renews is not None and draft.guaranteed:
        ends = datetime_utc(draft.renews.until)
        found.append(f"This renews what ends on {ends}. {renewal.words(draft.renews, draft.guaranteed)}")
    return found


def _given_up(draft: Draft, before: Holding | None) -> list[str]:
    """Say where a request that asks for as much or more gives up borrowing: it sets all numbers, not one of them."""
    if before is None or before.borrow_mode == BorrowMode.NONE or draft.borrow_mode != BorrowMode.NONE:
        return []
    if not draft.guaranteed or draft.guaranteed < before.guaranteed:
        return []
    return ["What may be borrowed now is given up with this. Choose how far to borrow above to keep it."]


def _layout(draft: Draft, room: Room) -> list[str]:
    """Say where the nodes are cut into fewer units than would be promised, and that an elastic pool has to start."""
    from apps.quotas.pool_layout import layout_warning  # reads this module's words

    # Where the pool itself has no room, how it is cut is beside the point.
    warning = (
        layout_warning(
            draft.pool, draft.flavour, draft.workspace.pk, draft.guaranteed, draft.valid_from, draft.valid_until
        )
        if room.fits
        else None
    )
    starts = draft.pool.start_words
    return [
        *([warning] if warning else []),
        *([f"These come {starts}: work that asks for them waits that long for its nodes."] if starts else []),
    ]


def _over_use(draft: Draft) -> list[str]:
    """Say what it means where fewer GPUs would be held than are in use. Shrinking below use is legal."""
    usage = cluster_side.usage([draft.workspace]).get(draft.workspace.pk, cluster_side.UNSEEN)
    used = usage.used.get(draft.flavour.resource_name)
    if used is None or draft.borrow_mode == BorrowMode.UNLIMITED:
        return []
    would = draft.guaranteed + draft.borrow_limit
    if used <= would:
        return []
    return [
        f"The workspace uses {used:,} and would hold {would:,}: what runs goes on, and nothing new starts until use is "
        "below that. Its leads can then drain it on the workspace's page."
    ]


def _shared_names(draft: Draft) -> str:
    """Return the other GPU models that the cluster counts under this flavour's resource name, in words."""
    models = (
        Flavour.objects.filter(pools__cluster_id=draft.workspace.cluster_id, resource_name=draft.flavour.resource_name)
        .exclude(gpu_model=draft.flavour.gpu_model)
        .order_by("gpu_model")
        .values_list("gpu_model", flat=True)
        .distinct()
    )
    return ", ".join(models)


__all__ = [
    "MAX_UNITS",
    "MIN_REASON",
    "Assessment",
    "Draft",
    "Extras",
    "assess",
    "check",
    "guaranteed_word",
    "most_added_at",
    "number",
]
