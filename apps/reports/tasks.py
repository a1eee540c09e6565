"""Celery tasks of the reports room: thin."""

from __future__ import annotations

from datetime import timedelta

from apps.core.sweeps import sweep
from apps.reports import files, sending


@sweep("reports.make_files", every=timedelta(minutes=1))
def make_files() -> int:
    """Make the PDFs that were asked for; returns how many moved on."""
    return files.make_due()


@sweep("reports.send_monthly", every=timedelta(minutes=15))
def send_monthly() -> int:
    """Mail the monthly reports that are due; returns to how many units."""
    return sending.send_due()
