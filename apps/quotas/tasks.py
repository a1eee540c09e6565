"""Sweeps of the quotas room. Each row in its own transaction; nothing here decides anything."""

from __future__ import annotations

import logging
from datetime import timedelta

from django.db import OperationalError

from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.errors import Conflict, Invalid
from apps.core.sweeps import sweep
from apps.quotas import adopting, baseline_asking, baseline_look, change_granting, expiring, expiry, granting, rolling

logger = logging.getLogger(__name__)
#: A sweep plans at most so many portions of one change before others get their turn.
MOST_PORTIONS = 50


@sweep("quotas.roll_quotas", every=timedelta(seconds=30))
def roll_quotas() -> int:
    """Declare the GPU limits of workspaces in which a dated quota began or ended."""
    rolled = 0
    for workspace_id in rolling.due_to_roll(clock.now()):
        try:
            rolled += rolling.roll_workspace(workspace_id)
        except Conflict as conflict:
            # One workspace that cannot be rolled must not hold up the others; it is found again by the next sweep.
            logger.error("a dated quota could not be rolled", extra={"workspace": workspace_id, "error": str(conflict)})
        except OperationalError as error:
            logger.warning("a workspace is locked, the next sweep rolls it", extra={"error": str(error)})
    return rolled


@sweep("quotas.close_overtaken_renewals", every=timedelta(minutes=1))
def close_overtaken_renewals() -> int:
    """Withdraw renewals that are open although another granted request counts in all of their time."""
    return granting.close_overtaken()


@sweep("quotas.climb_ladder", every=timedelta(minutes=1))
def climb_ladder() -> int:
    """Move workspaces on the expiry ladder: a rung down where one is due, back to the ground where quota is held."""
    moved = 0
    for workspace_id in expiry.candidates(clock.now()):
        try:
            moved += expiry.step(workspace_id)
        except Conflict as conflict:
            # One workspace that cannot move must not hold up the others; it is found again by the next sweep.
            logger.error("a workspace could not move", extra={"workspace": workspace_id, "error": str(conflict)})
        except OperationalError as error:
            logger.warning("a workspace is locked, the next sweep moves it", extra={"error": str(error)})
    return moved


@sweep("quotas.drain_workspaces", every=timedelta(minutes=2))
def drain_workspaces() -> int:
    """Have stopped what holds GPUs in workspaces that are drained; returns how many stops were ordered."""
    return sum(expiry.drain(workspace) for workspace in expiry.to_drain())


@sweep("quotas.notify_expiring", every=timedelta(minutes=30))
def notify_expiring() -> int:
    """Tell leads 14, 3 and 1 days before a quota of theirs ends."""
    return expiring.notify_expiring()


@sweep("quotas.replan_changes", every=timedelta(minutes=1))
def replan_changes() -> int:
    """Plan open changes of whole clusters anew where something else landed on what they change."""
    made = 0
    for change_id in change_granting.changes_to_replan():
        portions = 0
        while portions < MOST_PORTIONS and change_granting.replan_moved(change_id):
            portions += 1
        made += portions
    return made


@sweep("quotas.look_at_baselines", every=timedelta(minutes=5))
def look_at_baselines() -> int:
    """Say where a cluster would be declared differently than it is: a new baseline is due. Nothing is changed."""
    ids = Cluster.objects.order_by("pk").values_list("pk", flat=True)
    return sum(baseline_look.look(cluster_id) for cluster_id in list(ids))


@sweep("quotas.request_baselines", every=timedelta(seconds=15))
def request_baselines() -> int:
    """Make the requests of large clusters' baselines that people asked for."""
    return baseline_asking.make_due()


@sweep("quotas.carry_out_changes", every=timedelta(seconds=15))
def carry_out_changes() -> int:
    """Declare, portion by portion, what granted changes of whole clusters still have to declare."""
    made = 0
    for change_id in change_granting.changes_to_carry_out():
        try:
            while portion := change_granting.carry_out(change_id):
                made += portion
        except (Conflict, Invalid) as refusal:
            logger.error("a granted change cannot be carried out", extra={"change": change_id, "error": str(refusal)})
        except OperationalError as error:
            logger.warning("a workspace is locked, the next sweep goes on", extra={"error": str(error)})
    return made


@sweep("quotas.read_namespaces", every=timedelta(seconds=15))
def read_namespaces() -> int:
    """Read namespaces that are to be adopted, and anew what open requests for that stand on."""
    return adopting.refresh_open() + adopting.run_due()
