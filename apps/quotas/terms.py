"""The terms of a quota request, one by one: what may be sent at which field, and what to do where it may not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from apps.clusters import capabilities
from apps.clusters.models import Pool
from apps.core import clock
from apps.quotas import book, recurrence
from apps.quotas.choices import BorrowMode, LendMode
from apps.quotas.models import Workspace
from apps.quotas.recurrence import Recurrence

#: A start that lies no further back than this (a form left open) means "now"; an earlier one is a mistake.
GRACE = timedelta(days=1)
MAX_UNITS = 1_000_000


@dataclass(frozen=True, slots=True)
class Extras:
    """What a request may say beyond numbers and dates, as it was sent; the defaults are those of most requests."""

    recurrence: Mapping[str, Any] | None = None
    lend_mode: str = LendMode.ALL
    lend_limit: int = 0
    serving: int = 0


def count(value: object, name: str, errors: dict[str, str], words: str) -> int:
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


def times(
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


def borrow(mode: str, limit: object, pool: Pool | None, may_unlimited: bool, errors: dict[str, str]) -> tuple[str, int]:
    if mode not in BorrowMode.values:
        errors["borrow_mode"] = "Choose how far the workspace may go beyond its own GPUs."
        return BorrowMode.NONE, 0
    if mode == BorrowMode.LIMITED:
        units = count(limit, "borrow_limit", errors, "GPUs to borrow")
        if units == 0 and "borrow_limit" not in errors:
            errors["borrow_limit"] = "Say how many GPUs may be borrowed, or choose not to borrow."
    else:
        units = 0
        if limit:
            errors["borrow_limit"] = "A limit goes only with borrowing up to a limit."
    if mode != BorrowMode.NONE and pool is not None and not (book.takes_back(pool) or pool.best_effort):
        errors["borrow_mode"] = (
            f"{capabilities.missing(pool.cluster, 'borrow') or 'Nothing here takes a borrowed GPU back.'} Borrowing "
            "would break the guarantee of others. Ask for guaranteed GPUs, or ask the platform admins to declare the "
            "pool best-effort."
        )
    if mode == BorrowMode.UNLIMITED and not may_unlimited:
        errors["borrow_mode"] = "Unlimited borrowing needs a permission that you do not hold. Choose a limit."
    return mode, units


def lending(extras: Extras, units: int, workspace: Workspace, errors: dict[str, str]) -> tuple[str, int, int]:
    """Return how much is lent, and kept for serving; else note the messages. Only Kueue lends and takes back."""
    serving = count(extras.serving, "serving", errors, "GPUs kept for serving")
    mode, limit = extras.lend_mode, 0
    if mode not in LendMode.values:
        errors["lend_mode"] = "Choose how much of its idle GPUs the workspace lends to others."
        return LendMode.ALL, 0, serving
    if mode == LendMode.LIMITED:
        limit = count(extras.lend_limit, "lend_limit", errors, "GPUs to lend")
        if limit == 0 and "lend_limit" not in errors:
            errors["lend_limit"] = "Say how many GPUs may be lent, or choose to lend nothing."
    elif extras.lend_limit:
        errors["lend_limit"] = "A limit goes only with lending up to a limit."
    if serving > units and "serving" not in errors:
        errors["serving"] = f"At most the {units:,} guaranteed GPUs can be kept for serving."
    elif limit > units - serving and "lend_limit" not in errors:
        errors["lend_limit"] = f"At most {units - serving:,} can be lent: the guaranteed GPUs less those for serving."
    why = capabilities.missing(workspace.cluster, "kueue")
    if why is not None:
        for name, used in (("lend_mode", mode != LendMode.ALL), ("serving", serving > 0)):
            if used and name not in errors:
                errors[name] = f"{why} GPUs can be lent, and kept for serving, only where Kueue hands them out."
    return mode, limit, serving


def repetition(
    sent: Mapping[str, Any] | None, start: datetime, until: datetime | None, errors: dict[str, str]
) -> Recurrence | None:
    """Return the repetition; else note the message. It is written down window by window, so it has an end."""
    try:
        found = recurrence.parse(sent)
    except recurrence.Unreadable as wrong:
        errors["recurrence"] = " ".join(wrong.errors.values())
        return None
    if found is None or "valid_until" in errors or "valid_from" in errors:
        return found
    if until is None:
        errors["valid_until"] = "A repetition needs an end. Choose one within a year; it can be renewed."
    elif until > clock.now() + timedelta(days=recurrence.MAX_DAYS_AHEAD):
        errors["valid_until"] = f"A repetition ends within {recurrence.MAX_DAYS_AHEAD} days; it can be renewed."
    else:
        many = len(recurrence.windows(found, start, until))
        if many == 0:
            errors["recurrence"] = "No window of this repetition lies between start and end."
        elif many > recurrence.MAX_WINDOWS:
            errors["recurrence"] = f"That makes {many:,} windows; at most {recurrence.MAX_WINDOWS} can be asked for."
    return found


__all__ = ["GRACE", "MAX_UNITS", "Extras", "borrow", "count", "lending", "repetition", "times"]
