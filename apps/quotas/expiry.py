"""The expiry ladder at work: reads how workspaces stand, moves them rung by rung, and has drained what holds GPUs.

Lock order (design §2): workspace → declaration. What each rung does was approved with the workspace's policy; stop
admitting is what the end of every quota means. No transaction is open while a cluster is read (`drain_due`).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Exists, OuterRef, Q

from apps import audit
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, NotAllowed, NotVisible
from apps.core.formats import datetime_utc
from apps.core.permissions import may
from apps.provisioning.choices import DeclarationKind
from apps.provisioning.models import Declaration
from apps.quotas import book, cluster_side, events, ladder, renewal
from apps.quotas.choices import BorrowMode, ChangeKind, Rung
from apps.quotas.ladder import ExpiryPolicy, Facts, Step
from apps.quotas.ladder_manifests import archived, at_rung
from apps.quotas.models import ChangeRequest, Quota, Workspace
from apps.teams import scope

SYSTEM = Actor.system("quotas.expiry")
DRAIN = "quotas.change.create"
#: A drain that could not be carried out (the cluster was away, everything was started again) is asked for anew.
DRAIN_TIRES = timedelta(hours=24)
_SOMETHING = Q(guaranteed__gt=0) | ~Q(borrow_mode=BorrowMode.NONE)
_RUNG_WORDS = {
    Rung.NONE: "Its quota lets work start again. What was stopped stays stopped until its owner starts it again.",
    Rung.STOPPED_ADMITTING: "Nothing new starts there. What runs goes on.",
    Rung.DRAINED: "What holds GPUs there is being stopped; nothing is deleted, and every stop can be undone.",
    Rung.ARCHIVED: "Roles are for looking only and nothing may start. Namespace, volumes and data stay.",
}


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a workspace stands on the ladder, and what comes next by its policy."""

    policy: ExpiryPolicy
    facts: Facts
    next: Step | None

    @property
    def words(self) -> str:
        """The policy in words."""
        return ladder.sentence(self.policy)


def approved_policy(workspace: Workspace) -> ExpiryPolicy:
    """Return the policy in force: the stored one where a granted change stands behind it, else the default."""
    if not workspace.expiry_policy:
        return ExpiryPolicy()
    return ladder.of(workspace.expiry_policy) if policy_grant(workspace) is not None else ExpiryPolicy()


def policy_grant(workspace: Workspace) -> uuid.UUID | None:
    """Return the grant behind a workspace's expiry policy; None: none was ever granted."""
    change = (
        ChangeRequest.objects.filter(
            workspace=workspace, kind=ChangeKind.EXPIRY_POLICY, granted_at__isnull=False, approval__grant__isnull=False
        )
        .select_related("approval__grant")
        .order_by("-granted_at", "-pk")
        .first()
    )
    return change.approval.grant.uid if change is not None and change.approval is not None else None


def holds_something(workspace: Workspace, at: datetime) -> bool:
    """Whether some quota of a workspace is in force that lets anything run."""
    return Quota.objects.filter(_SOMETHING, workspace=workspace, valid__contains=at).exists()


def facts_of(
    workspace: Workspace,
    at: datetime,
    seen: cluster_side.Usage | None = None,
    quotas: Iterable[Quota] | None = None,
) -> Facts:
    """Return how a workspace stands. About eight queries; at most one where a page has `seen` its use and limits
    already, and all of its `quotas`."""
    if quotas is None:
        quotas = Quota.objects.filter(_SOMETHING, workspace=workspace)
    times = [row.valid for row in quotas if row.guaranteed or row.borrow_mode != BorrowMode.NONE]
    holds = any(one.lower <= at and (one.upper is None or at < one.upper) for one in times)
    coming = any(one.lower > at for one in times)
    ended = [one.upper for one in times if one.upper is not None and one.upper <= at]
    marks = [mark for mark in (workspace.rung_at, *ended) if mark is not None]
    if seen is not None:
        usage, limits = seen, seen.hard
    else:
        usage = cluster_side.usage([workspace]).get(workspace.pk, cluster_side.UNSEEN)
        limits = {name: units for name, units in book.gpu_limits(workspace, at).items() if "/" in name}
    used = sum(usage.used.get(name, 0) for name in limits) if usage.at is not None else None
    over = any(usage.used.get(name, 0) > units for name, units in limits.items())
    # While something is held nothing is stopped by itself, so nobody needs to know.
    kept = None if holds else renewal.kept_until(workspace, at)
    return Facts(workspace.rung, max(marks, default=at), holds, over, coming, used, kept)


def standing_of(
    workspace: Workspace, seen: cluster_side.Usage | None = None, quotas: Iterable[Quota] | None = None
) -> Standing:
    """Return where a workspace stands, for pages (`seen`: its use and limits as last observed; `quotas`: all of it)."""
    policy, facts = approved_policy(workspace), facts_of(workspace, clock.now(), seen, quotas)
    return Standing(policy, facts, ladder.upcoming(policy, facts))


def candidates(at: datetime) -> list[int]:
    """Return the ids of workspaces that may have to move: on a rung, holding nothing, or using more than they may.

    Four queries, however many workspaces there are.
    """
    declared = Declaration.objects.filter(kind=DeclarationKind.WORKSPACE).values("owner_uid")
    in_force = Quota.objects.filter(_SOMETHING, workspace=OuterRef("pk"), valid__contains=at)
    rows = list(
        Workspace.objects.filter(uid__in=declared)
        .annotate(holding=Exists(in_force))
        .exclude(rung=Rung.ARCHIVED, holding=False)
        .order_by("pk")
    )
    holding = {row.pk for row in rows if getattr(row, "holding", False)}
    found = [row.pk for row in rows if row.rung != Rung.NONE or row.pk not in holding]
    at_ease = [row for row in rows if row.rung == Rung.NONE and row.pk in holding]
    for pk, usage in cluster_side.usage(at_ease).items():
        if any(used > usage.hard.get(name, used) for name, used in usage.used.items()):
            found.append(pk)
    return sorted(found)


@transaction.atomic
def step(workspace_id: int) -> bool:
    """Move a workspace by at most one rung down, or back to the ground; True where it moved. Idempotent.

    Raises Conflict where nothing approved stands behind the step.
    """
    workspace = Workspace.objects.select_for_update(of=("self",)).select_related("team", "cluster").get(pk=workspace_id)
    declared = cluster_side.declared_manifests(workspace)
    if declared is None:
        return False
    at = clock.now()
    policy, facts = approved_policy(workspace), facts_of(workspace, at)
    if workspace.archived_at is not None:
        # Only a granted quota, or a granted restore, leads out of the archive; both move the row themselves.
        return False
    rung = ladder.decide(policy, facts, at)
    wanted = archived(declared) if rung == Rung.ARCHIVED else at_rung(declared, rung, holds=facts.holds)
    if rung == facts.rung and wanted == declared:
        return False
    if wanted != declared:
        _declare(workspace, wanted, rung)
    if rung != facts.rung:
        _move(workspace, rung, policy, facts, at)
    return True


def _declare(workspace: Workspace, wanted: list[dict[str, object]], rung: str) -> None:
    declaration = cluster_side.declaration_of(workspace)
    behind = policy_grant(workspace) if rung in (Rung.DRAINED, Rung.ARCHIVED) else None
    grant = behind or (declaration.grant_uid if declaration is not None else None)
    if grant is None:
        raise Conflict(f"Nothing approved stands behind the next rung of {workspace}.")
    cluster_side.declare(workspace, wanted, grant_uid=grant, plan_uid=None, actor=SYSTEM)


def _move(workspace: Workspace, rung: str, policy: ExpiryPolicy, facts: Facts, at: datetime) -> None:
    """Write the rung down and tell the team's leads what it means and what comes next."""
    workspace.rung, workspace.rung_at = rung, at
    workspace.archived_at = at if rung == Rung.ARCHIVED else None
    workspace.bump("rung", "rung_at", "archived_at")
    after = ladder.upcoming(policy, replace(facts, rung=rung, since=at))
    announce(workspace, rung, after)


def announce(workspace: Workspace, rung: str, after: Step | None, *, actor: Actor = SYSTEM) -> None:
    """Record that a workspace reached a rung, and tell its leads; in the caller's transaction."""
    then = f" Next: {Rung(after.rung).label.lower()}, on {datetime_utc(after.at)}." if after is not None else ""
    payload = events.WorkspaceRung(
        workspace_uid=workspace.uid,
        team_slug=workspace.team.slug,
        what=f"{workspace.namespace} on {workspace.cluster}",
        rung=str(rung),
        text=f"{_RUNG_WORDS[Rung(rung)]}{then}",
        next_rung=str(after.rung) if after is not None else "",
        next_at=after.at if after is not None else None,
    )
    # Between the windows of a repetition it comes and goes as was asked for: that is no news.
    between = Quota.objects.filter(
        workspace=workspace, request__recurrence__isnull=False, valid__endswith__gt=clock.now()
    ).exists()
    if not (between and rung in (Rung.NONE, Rung.STOPPED_ADMITTING)):
        leads = scope.holders_of_role("team_lead", team_id=workspace.team_id)
        outbox.publish(events.WORKSPACE_RUNG, payload, recipients=leads, subject_uid=workspace.uid)
    audit.record(
        events.WORKSPACE_RUNG,
        payload,
        actor=actor,
        subject_type="quotas.workspace",
        subject_uid=workspace.uid,
        team_uid=workspace.team.uid,
    )


@transaction.atomic
def ask_drain(workspace_id: int, reason: str, *, actor: Actor, expected_version: int | None = None) -> Workspace:
    """Have everything stopped that holds GPUs in a workspace which uses more than it may; a worker does it.

    Raises NotVisible, NotAllowed, Conflict (it uses no more than it may, or a drain is under way).
    """
    from apps.accounts.models import User

    user = User.objects.filter(pk=actor.user_id, is_active=True).first() if actor.user_id is not None else None
    if user is None or not Workspace.objects.visible_to(user).filter(pk=workspace_id).exists():
        raise NotVisible
    workspace = Workspace.objects.locked(workspace_id, expected_version=expected_version)
    if not may(user, DRAIN, workspace):
        raise NotAllowed(
            "A workspace is drained by the team's leads, the unit's owner or a platform admin.", rule=DRAIN
        )
    at = clock.now()
    facts = facts_of(workspace, at)
    if not may_drain(facts):
        raise Conflict("The workspace uses no more than it may hold: there is nothing to drain.")
    if workspace.drain_asked_at is not None:
        raise Conflict("It is being drained already.")
    workspace.drain_asked_at = at
    workspace.bump("drain_asked_at")
    payload = events.WorkspaceDrain(
        workspace.uid, workspace.team.slug, f"{workspace.namespace} on {workspace.cluster}", facts.used or 0
    )
    audit.record(
        events.WORKSPACE_DRAIN,
        payload,
        actor=actor,
        subject_type="quotas.workspace",
        subject_uid=workspace.uid,
        team_uid=workspace.team.uid,
        reason=reason,
    )
    others = [pk for pk in scope.holders_of_role("team_lead", team_id=workspace.team_id) if pk != user.pk]
    if others:
        outbox.publish(events.WORKSPACE_DRAIN, payload, recipients=others, subject_uid=workspace.uid)
    from apps.core.sweeps import nudge
    from apps.quotas import tasks

    nudge(tasks.drain_workspaces)
    return workspace


def may_drain(facts: Facts) -> bool:
    """Whether there is anything to drain: more in use than may be held."""
    return facts.over and bool(facts.used)


def to_drain() -> list[Workspace]:
    """Return the workspaces in which what holds GPUs is to be stopped: asked for, or drained by their policy."""
    asked = Q(drain_asked_at__isnull=False)
    rows = Workspace.objects.filter(asked | Q(rung=Rung.DRAINED)).select_related("team", "cluster").order_by("pk")
    seen = cluster_side.usage(rows)
    # Where nothing is known to run there is nothing to ask the cluster about; unknown is not nothing.
    return [row for row in rows if _anything(seen.get(row.pk, cluster_side.UNSEEN)) or row.drain_asked_at is not None]


def _anything(usage: cluster_side.Usage) -> bool:
    return usage.at is None or any(usage.used.values())


def drain(workspace: Workspace) -> int:
    """Order the stops of one workspace; returns how many. Reads the cluster: no transaction may be open."""
    from apps.provisioning import stopping

    made = stopping.drain_namespace(
        workspace.cluster_id, workspace.namespace, team_id=workspace.team_id, cause_uid=workspace.uid
    )
    if workspace.drain_asked_at is not None:
        _settle_drain(workspace.pk, made)
    return made


@transaction.atomic
def _settle_drain(workspace_id: int, made: int) -> None:
    """Forget that a drain was asked for once it was ordered, has become needless, or was tried for a day."""
    workspace = Workspace.objects.select_for_update(of=("self",)).select_related("team", "cluster").get(pk=workspace_id)
    if workspace.drain_asked_at is None:
        return
    at = clock.now()
    if made or at - workspace.drain_asked_at >= DRAIN_TIRES or not may_drain(facts_of(workspace, at)):
        workspace.drain_asked_at = None
        workspace.bump("drain_asked_at")


__all__ = [
    "Standing",
    "announce",
    "approved_policy",
    "ask_drain",
    "candidates",
    "drain",
    "facts_of",
    "holds_something",
    "may_drain",
    "policy_grant",
    "standing_of",
    "step",
    "to_drain",
]
