"""What a draft of a quota request would mean: validation, cost, room. Reads only; the form and the action share it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction

from apps.clusters.models import Flavour, Pool
from apps.core import clock
from apps.core.errors import Invalid
from apps.core.formats import datetime_utc
from apps.quotas import book
from apps.quotas.choices import BorrowMode
from apps.quotas.ledger import Holding, Room, gpus, in_force, most
from apps.quotas.models import Workspace
from apps.rates.selectors import Estimate, monthly_estimate

#: A start that lies no further back than this (a form left open) means "now"; an earlier one is a mistake.
GRACE = timedelta(days=1)
MAX_UNITS = 1_000_000
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

    @property
    def holding(self) -> Holding:
        """The draft as the ledger sees it."""
        return Holding(self.valid_from, self.valid_until, self.guaranteed, self.borrow_mode, self.borrow_limit)


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
    """Return how a pool's promise is called: where nothing takes GPUs back, none is guaranteed (design §5)."""
    return "share (best effort)" if pool is not None and pool.best_effort else "guaranteed"


def _count(value: object, name: str, errors: dict[str, str], words: str) -> int:
    """Return a whole, non-negative count; else note the message."""
    if isinstance(value, bool) or not isinstance(value, int):
        errors[name] = f"Enter a whole number of {words}."
    elif value < 0:
        errors[name] = f"The number of {words} cannot be negative; 0 gives everything back."
    elif value > MAX_UNITS:
        errors[name] = f"Enter at most {MAX_UNITS:,}."
    else:
        return value
    return 0


def _times(
    valid_from: datetime | None, valid_until: datetime | None, errors: dict[str, str]
) -> tuple[datetime, datetime | None]:
    now = clock.now().replace(microsecond=0)
    start = (valid_from or now).replace(microsecond=0)
    if start < now - GRACE:
        errors["valid_from"] = "The start lies in the past. Leave it empty to start as soon as it is granted."
    start = max(start, now)
    until = valid_until.replace(microsecond=0) if valid_until else None
    if until is not None and until <= now:
        errors["valid_until"] = "The end lies in the past. Choose a later end, or leave it empty for no end."
    elif until is not None and until <= start:
        errors["valid_until"] = "The end must lie after the start."
    return start, until


def _borrow(
    mode: str, limit: object, pool: Pool | None, may_unlimited: bool, errors: dict[str, str]
) -> tuple[str, int]:
    if mode not in BorrowMode.values:
        errors["borrow_mode"] = "Choose how far the workspace may go beyond its own GPUs."
        return BorrowMode.NONE, 0
    if mode == BorrowMode.LIMITED:
        count = _count(limit, "borrow_limit", errors, "GPUs to borrow")
        if count == 0 and "borrow_limit" not in errors:
            errors["borrow_limit"] = "Say how many GPUs may be borrowed, or choose not to borrow."
    else:
        count = 0
        if limit:
            errors["borrow_limit"] = "A limit goes only with borrowing up to a limit."
    if mode != BorrowMode.NONE and pool is not None and not pool.best_effort:
        errors["borrow_mode"] = (
            "Nothing on this cluster takes a borrowed GPU back, so borrowing would break the guarantee of others. "
            "Ask for guaranteed GPUs, or ask the platform admins to declare the pool best-effort."
        )
    if mode == BorrowMode.UNLIMITED and not may_unlimited:
        errors["borrow_mode"] = "Unlimited borrowing needs a permission that you do not hold. Choose a limit."
    return mode, count


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
) -> Draft:
    """Return the checked draft. Raises Invalid with a message at each wrong field."""
    errors: dict[str, str] = {}
    units = _count(guaranteed, "guaranteed", errors, "GPUs")
    pool = book.pool_of(workspace.cluster_id, flavour.pk)
    if workspace.archived_at is not None:
        errors["workspace"] = "This workspace is archived."
    if pool is None:
        errors["flavour"] = f"{workspace.cluster} does not offer {flavour}. Choose one of its flavours."
    mode, limit = _borrow(borrow_mode, borrow_limit, pool, may_borrow_unlimited, errors)
    start, until = _times(valid_from, valid_until, errors)
    if errors or pool is None:
        raise Invalid(errors)
    other = book.indistinguishable(workspace, flavour, start, until)
    if other is not None and (units or mode != BorrowMode.NONE):
        raise Invalid(
            {
                "flavour": f"This workspace holds {other}, which the cluster counts under the same name "
                f"({flavour.resource_name}): it could not keep the two apart. Use another workspace for {flavour}."
            }
        )
    draft = Draft(workspace, flavour, pool, units, mode, limit, start, until)
    _check_pool(draft)
    return draft


def _check_pool(draft: Draft) -> None:
    """Raise Invalid where the draft asks for more than the pool ever has, or changes nothing."""
    view = book.load(draft.pool, draft.valid_from, draft.valid_until)
    own = view.own(draft.workspace.pk, draft.flavour.pk)
    held_most = max((item.guaranteed for item in own), default=0)
    ceiling = most(view.capacity, draft.valid_from, draft.valid_until)
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
    wanted = (draft.guaranteed, draft.borrow_mode, draft.borrow_limit)
    moments = book.instants(draft.valid_from, draft.valid_until, book.steps(own, draft.flavour))
    held = [in_force(own, at) for at in moments]
    same = [(item.guaranteed, item.borrow_mode, item.borrow_limit) if item else (0, "none", 0) for item in held]
    if all(item == wanted for item in same):
        raise Invalid({"": "The workspace already holds exactly this in that time: nothing would change."})


def assess(draft: Draft) -> Assessment:
    """Return what a checked draft would cost and whether the pool has room for it over the whole time."""
    view = book.load(draft.pool, draft.valid_from)
    own = view.own(draft.workspace.pk, draft.flavour.pk)
    before = in_force(own, draft.valid_from)
    at_end = in_force(own, draft.valid_until) if draft.valid_until else None
    had = before.guaranteed if before else 0
    delta = draft.guaranteed - had
    room = view.room(draft.workspace.pk, draft.flavour, draft.guaranteed, draft.valid_from, draft.valid_until)
    cluster_id = draft.workspace.cluster_id
    estimate = monthly_estimate(cluster_id, draft.flavour.pk, delta, draft.valid_from)
    with_borrowed: Estimate | None = None
    if draft.borrow_mode == BorrowMode.LIMITED:
        most_before = had + (before.borrow_limit if before else 0)
        reach = draft.guaranteed + draft.borrow_limit - most_before
        with_borrowed = monthly_estimate(cluster_id, draft.flavour.pk, reach, draft.valid_from)
    warnings: list[str] = []
    if not room.fits:
        when = f" It would fit from {datetime_utc(room.first_fit_from)}." if room.first_fit_from else ""
        warnings.append(
            f"The pool is full: at its tightest moment ({datetime_utc(room.worst_at)}) this workspace could have "
            f"{number(max(room.free_at_worst, Fraction(0)))} GPUs. Once approved, the request waits for capacity.{when}"
        )
    if draft.valid_until is None and before is not None and before.end is not None:
        warnings.append(f"What the workspace holds now would have ended on {datetime_utc(before.end)}.")
    shared = _shared_names(draft)
    if shared:
        warnings.append(
            f"This cluster counts {shared} under the same name ({draft.flavour.resource_name}). "
            "Use the ready-made manifests: their node selector keeps work on the GPUs you were granted."
        )
    return Assessment(
        draft,
        before,
        at_end,
        delta,
        Fraction(delta * draft.flavour.numerator, draft.flavour.denominator),
        estimate,
        with_borrowed,
        room,
        warnings,
    )


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
