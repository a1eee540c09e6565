"""What a budget's step asks of the quota room: that a team borrows nothing, or starts nothing new, for the month.

Requests go through the quota room's own action, in the name of a person who may make them, and are decided by people as
the published policy says. Nothing is stopped: a quota below what is used keeps what runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction

from apps.accounts.models import User
from apps.clusters.choices import DeviceClass
from apps.core.actor import Actor, Channel
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.formats import datetime_utc
from apps.core.permissions import may
from apps.costs import budget_rules as rules
from apps.costs.models import Budget
from apps.quotas import actions as quotas
from apps.quotas import expiry
from apps.quotas.choices import BorrowMode, LendMode, Rung
from apps.quotas.models import Quota, Workspace
from apps.quotas.terms import Extras
from apps.teams import scope
from apps.teams.choices import Role


@dataclass(frozen=True, slots=True)
class Wanted:
    """One request to make: what a workspace shall hold of a flavour until `until`, and for the record what it held."""

    quota: Quota
    guaranteed: int
    valid_from: datetime | None
    until: datetime
    note: str


def workspaces_of(budget: Budget) -> list[Workspace]:
    """Return the workspaces that a budget is about: the team's, or those of all teams at or below the unit."""
    rows = Workspace.objects.select_related("team__unit", "cluster").filter(archived_at__isnull=True)
    if budget.team_id is not None:
        rows = rows.filter(team_id=budget.team_id)
    else:
        rows = rows.filter(team__unit__path__contains=[budget.unit_id])
    return list(rows.order_by("team__slug", "namespace", "pk"))


def wanted_of(workspace: Workspace, action: str, at: datetime, end: datetime) -> list[Wanted]:
    """Return what there is to request for a workspace between `at` and `end` (the month's): one per flavour at most."""
    rows = Quota.objects.filter(workspace=workspace, valid__overlap=(at, end)).select_related("flavour")
    by_flavour: dict[int, list[Quota]] = {}
    for row in rows.order_by("flavour__slug", "valid"):
        if _target(row, action, workspace) is not None:
            by_flavour.setdefault(row.flavour_id, []).append(row)
    found = []
    for held in by_flavour.values():
        row, later = held[0], len(held) - 1
        bounds: Any = row.valid
        target = _target(row, action, workspace)
        if target is None:
            continue
        guaranteed, note = target
        if later:
            note += f" {later} later quota{'s' if later > 1 else ''} of this month stay as they are."
        found.append(
            Wanted(
                quota=row,
                guaranteed=guaranteed,
                valid_from=bounds.lower if bounds.lower > at else None,
                until=min(end, bounds.upper) if bounds.upper is not None else end,
                note=note.strip(),
            )
        )
    return found


def _target(row: Quota, action: str, workspace: Workspace) -> tuple[int, str] | None:
    """Return the units to be guaranteed and a remark; None where the quota is like that already."""
    borrows = row.borrow_mode != BorrowMode.NONE
    if action == rules.STOP_BORROWING:
        return (row.guaranteed, "") if borrows else None
    if row.flavour.device_class != DeviceClass.GPU:
        return None
    keep, note = row.serving, ""
    if not keep and expiry.approved_policy(workspace).last_rung != Rung.STOPPED_ADMITTING:
        # A workspace that holds nothing would be drained by its own approved policy, and nothing may be stopped here.
        keep, note = 1, "One unit stays guaranteed: with none, the workspace's approved policy would drain what runs."
    if not borrows and row.guaranteed <= keep:
        return None
    return min(keep, row.guaranteed), note


def requester_for(budget: Budget, workspace: Workspace) -> User | None:
    """Return in whose name the portal asks: who set the budget, else the nearest unit owner, else a lead of the team.

    Only a person who may request quota there comes into question; None where there is nobody.
    """
    path = list(workspace.team.unit.path)
    ids = [budget.set_by_id] if budget.set_by_id is not None else []
    for unit_id in reversed(path):
        ids += scope.holders_of_role(Role.UNIT_OWNER, unit_id=unit_id)
    ids += scope.holders_of_role(Role.TEAM_LEAD, team_id=workspace.team_id)
    people = User.objects.filter(pk__in=ids, is_active=True).in_bulk()
    for pk in ids:
        person = people.get(pk)
        if person is not None and may(person, "quotas.request.create", workspace):
            return person
    return None


def file_requests(budget: Budget, action: str, why: str, at: datetime, end: datetime) -> list[dict[str, Any]]:
    """Ask for what an action of a step needs, workspace by workspace, each in a transaction of its own.

    Returns one entry per request made, found open or refused: {workspace, flavour, request (uid or None), text}; empty
    where there is nothing to change. Asking again finds the requests that are open, and makes none twice.
    """
    found: list[dict[str, Any]] = []
    for workspace in workspaces_of(budget):
        for wanted in wanted_of(workspace, action, at, end):
            entry: dict[str, Any] = {
                "workspace": workspace.namespace,
                "cluster": workspace.cluster.slug,
                "flavour": wanted.quota.flavour.name,
                "request": None,
            }
            person = requester_for(budget, workspace)
            if person is None:
                entry["text"] = "Nobody may request quota for this workspace: it stays as it is."
            else:
                uid, text = _file(workspace, wanted, action, why, person)
                entry |= {"request": uid, "text": " ".join(part for part in (text, wanted.note) if part)}
            found.append(entry)
    return found


def _file(workspace: Workspace, wanted: Wanted, action: str, why: str, person: User) -> tuple[str | None, str]:
    """Make one request; return its uid and what became of it, or None and why it was refused."""
    row = wanted.quota
    aim = "nothing is borrowed" if action == rules.STOP_BORROWING else "no new work starts"
    reason = f"{why} Until {datetime_utc(wanted.until)} {aim}; afterwards it is as before. What runs goes on."
    limited = row.lend_mode == LendMode.LIMITED and row.lend_limit > wanted.guaranteed - row.serving
    extras = Extras(
        lend_mode=LendMode.ALL if limited else row.lend_mode,
        lend_limit=0 if limited else row.lend_limit,
        serving=min(row.serving, wanted.guaranteed),
    )
    try:
        with transaction.atomic():
            request = quotas.request_quota(
                workspace.pk,
                row.flavour_id,
                wanted.guaranteed,
                BorrowMode.NONE,
                0,
                wanted.valid_from,
                wanted.until,
                reason,
                actor=Actor.of(person, Channel.TASK),
                extras=extras,
            )
    except Conflict as conflict:
        open_one = conflict.current.get("request") if conflict.current else None
        return (str(open_one) if open_one else None), f"Not requested: {conflict}"
    except Invalid as invalid:
        words = " ".join(message for messages in invalid.errors.values() for message in messages)
        return None, f"Not requested: {words}"
    except (NotAllowed, NotVisible) as refused:
        return None, f"Not requested: {refused}"
    return str(request.uid), f"Requested in the name of {person}; people decide as the policy says."
