"""Celery tasks of the insights room: thin."""

from __future__ import annotations

from datetime import timedelta

from celery import shared_task

from apps.core import clock, leases
from apps.core.sweeps import sweep
from apps.insights import findings, idle, workloads

#: Held for most of a day after each look, so that the hourly sweep looks once a day, whoever restarts when.
_LOOK = "insights.look"
_LOOK_SECONDS = 23 * 3600.0
_REMEMBER = "insights.remember"


def look() -> int:
    """Look for findings now, unless that was done within the day."""
    token = leases.claim(_LOOK, seconds=_LOOK_SECONDS)
    if token is None:
        return 0
    try:
        return findings.find_all()
    except Exception:
        leases.release(_LOOK, token)
        raise


@shared_task(name="insights.look_again", ignore_result=True, expires=600)
def look_again() -> None:
    """Look for findings because somebody asked; reports propose from the workloads of the month, so those, too."""
    findings.find_all()
    workloads.remember_all(clock.now())


@sweep("insights.find_findings", every=timedelta(hours=1))
def find_findings() -> int:
    """Look for findings once a day; returns how many moved."""
    return look()


@sweep("insights.wake_snoozed", every=timedelta(minutes=15))
def wake_snoozed() -> int:
    """Open findings whose snooze is over."""
    return findings.wake_snoozed(clock.now())


@sweep("insights.find_idle", every=timedelta(minutes=5))
def find_idle() -> int:
    """Notice idle workloads, stop what nobody answered for, count what was saved."""
    return idle.find_all()


@sweep("insights.remember_workloads", every=timedelta(hours=1))
def remember_workloads() -> int:
    """Keep workloads by month for reports, once a day; returns how many cluster-months were written."""
    token = leases.claim(_REMEMBER, seconds=_LOOK_SECONDS)
    if token is None:
        return 0
    try:
        return workloads.remember_all(clock.now())
    except Exception:
        leases.release(_REMEMBER, token)
        raise
