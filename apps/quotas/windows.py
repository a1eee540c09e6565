"""A recurring request in words: what repeats, which window is next, how many are left."""

from __future__ import annotations

from dataclasses import dataclass

from apps.core import clock
from apps.core.formats import datetime_utc
from apps.quotas import recurrence
from apps.quotas.choices import RequestStatus
from apps.quotas.models import QuotaRequest

_HELD = (RequestStatus.SCHEDULED, RequestStatus.APPLYING, RequestStatus.ACTIVE)


@dataclass(frozen=True, slots=True)
class Windows:
    """A repetition for people. `state`: what it does now, in a sentence; empty while nothing is granted."""

    words: str
    count: int
    hours_per_month: int
    state: str


def of(request: QuotaRequest) -> Windows | None:
    """Return a request's repetition in words; None: it has none."""
    found = recurrence.parse(request.recurrence)
    if found is None or request.valid_until is None:
        return None
    now = clock.now()
    count = len(recurrence.windows(found, request.valid_from, request.valid_until))
    state = ""
    if request.status in _HELD:
        window = recurrence.next_window(found, max(now, request.valid_from), request.valid_until)
        if window is None:
            state = "Over: its last window has ended."
        elif window[0] <= now:
            state = f"In its window now, until {datetime_utc(window[1])}."
        else:
            state = f"Between windows. The next one begins {datetime_utc(window[0])}."
    return Windows(recurrence.words(found), count, found.hours_per_month, state)


__all__ = ["Windows", "of"]
