"""Celery tasks of the costs room: thin."""

from __future__ import annotations

from datetime import timedelta

from celery import shared_task

from apps.core.sweeps import sweep
from apps.costs import (
    actions,
    bills,
    budget_steps,
    cross_checks,
    files_making,
    freezing,
    period_calendar,
    running,
    whatif_runs,
)


@sweep("costs.price_due", every=timedelta(minutes=1))
def price_due() -> int:
    """Price hours whose charges do not stand on the present facts and rates; returns how many."""
    return actions.price_due()


@sweep("costs.fire_budget_steps", every=timedelta(minutes=5))
def fire_budget_steps() -> int:
    """Write the steps that budgets have passed, and make the requests that steps wait for; returns how many."""
    return budget_steps.fire_due() + budget_steps.file_pending()


@sweep("costs.fire_budget_forecasts", every=timedelta(hours=6))
def fire_budget_forecasts() -> int:
    """Write the forecast step of budgets that will not last the month; returns how many."""
    return budget_steps.fire_forecasts()


@sweep("costs.make_periods", every=timedelta(hours=1))
def make_periods() -> int:
    """Make the periods of months with charges and of the present month; returns how many."""
    return period_calendar.make_periods()


@sweep("costs.make_running", every=timedelta(minutes=5))
def make_running() -> int:
    """Make running statements that are older than they may be; returns of how many months."""
    return running.make_due()


@sweep("costs.freeze_due", every=timedelta(minutes=1))
def freeze_due() -> int:
    """Freeze the months whose close is confirmed; returns how many were closed or refused."""
    return freezing.freeze_due()


@sweep("costs.check_against_others", every=timedelta(hours=1))
def check_against_others() -> int:
    """Compare ended days with the dollars of the cost tools on the clusters; returns how many days."""
    return cross_checks.check_due()


@shared_task(name="costs.make_file", ignore_result=True)
def make_file(file_id: int) -> None:
    """Make one file of a closed month soon; the sweep is the guarantee."""
    files_making.make(file_id)


@sweep("costs.make_due_files", every=timedelta(minutes=1))
def make_due_files() -> int:
    """Make files that are queued, or whose worker went silent; returns how many."""
    return files_making.make_due()


@shared_task(name="costs.answer_what_if", ignore_result=True)
def answer_what_if(run_id: int) -> None:
    """Answer one long what-if soon; the sweep is the guarantee."""
    whatif_runs.answer(run_id)


@sweep("costs.answer_what_ifs", every=timedelta(minutes=1))
def answer_what_ifs() -> int:
    """Answer what-ifs that are queued or whose worker went silent, and forget old ones; returns how many."""
    return whatif_runs.answer_due()


@sweep("costs.compare_bills", every=timedelta(hours=6))
def compare_bills() -> int:
    """Compare invoices again where our side moved; returns how many months did."""
    return bills.compare_due()
