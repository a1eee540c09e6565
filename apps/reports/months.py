"""Which calendar month (in the billing zone) a report is about, as the first day of the month."""

from __future__ import annotations

from datetime import date

from apps.core import clock
from apps.core.errors import NotVisible
from apps.metering import billing


def parse(text: str) -> date:
    """Return the first day of the month `yyyy-mm`. Raises NotVisible for anything else: there is no such report."""
    try:
        month = billing.parse_month(text)
    except ValueError as error:
        raise NotVisible from error
    if not 2000 <= month.year <= 9998:
        raise NotVisible
    return month


def this_month() -> date:
    """Return the first day of the month that is under way in the billing zone."""
    return billing.month_of(clock.now())


def latest_completed() -> date:
    """Return the first day of the latest month that is over in the billing zone."""
    return billing.previous(this_month())
