"""Billing months: what other modules and rooms call (`from apps.costs import periods`)."""

from __future__ import annotations

from apps.costs.period_calendar import ensure_period, frozen_hours, open_period_for, period_of

__all__ = ["ensure_period", "frozen_hours", "open_period_for", "period_of"]
