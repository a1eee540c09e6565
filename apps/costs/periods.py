"""Billing months: what other modules and rooms call (`from apps.costs import periods`)."""

from __future__ import annotations

from apps.costs.checklist import CheckItem, checklist
from apps.costs.closing import back_to_open, close, start_closing, waive
from apps.costs.period_calendar import ensure_period, frozen_hours, make_periods, open_period_for, period_of
from apps.costs.statement_rows import Preview, preview

__all__ = [
    "CheckItem", "Preview", "back_to_open", "checklist", "close", "ensure_period", "frozen_hours", "make_periods",
    "open_period_for", "period_of", "preview", "start_closing", "waive",
]  # fmt: skip
