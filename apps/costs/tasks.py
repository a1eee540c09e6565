"""Celery tasks of the costs room: thin."""

from __future__ import annotations

from datetime import timedelta

from apps.core.sweeps import sweep
from apps.costs import actions


@sweep("costs.price_due", every=timedelta(minutes=1))
def price_due() -> int:
    """Price hours whose charges do not stand on the present facts and rates; returns how many."""
    return actions.price_due()
