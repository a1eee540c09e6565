"""Sweeps over access reviews and ending roles (found through `tasks.py`)."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings

from apps.core import clock
from apps.core.sweeps import sweep
from apps.teams import changes, expiring, reviews


@sweep("teams.access_reviews", every=timedelta(minutes=10))
def access_reviews() -> int:
    """Begin the quarter's review, send reminders, and let lapse what nobody confirmed."""
    at = clock.now()
    done = reviews.begin_quarter(at) if settings.COMMONS_ACCESS_REVIEWS == "quarterly" else 0
    return done + sum(reviews.attend(pk, at) for pk in reviews.open_reviews())


@sweep("teams.planned_changes", every=timedelta(minutes=1))
def planned_changes() -> int:
    """Carry out the changes of units and teams whose time has come."""
    return sum(changes.carry_out(pk) for pk in changes.due(clock.now()))


@sweep("teams.ending_roles", every=timedelta(minutes=30))
def ending_roles() -> int:
    """Tell people of their roles that end soon."""
    at = clock.now()
    return sum(expiring.notify(pk, at) for pk in expiring.ending_soon(at))
