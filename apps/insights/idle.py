"""The life of an idle workload: noticed, its owner asked, kept or stopped, started again, saved time counted.

Everything here stands on the workspace's approved policy as it is at that moment: where the policy went or changed, a
case that waits for an answer ends. A row is changed under its own lock; the cluster is left to stop orders.
Lock order: stop order → idle case.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import F

from apps import audit
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.events import EventType
from apps.insights import events, idle_use
from apps.insights.choices import IdleStatus
from apps.insights.findings import recipients
from apps.insights.idle_use import Judged, Workload
from apps.insights.models import IdleCase
from apps.provisioning import stopping
from apps.provisioning.choices import StopCause, StopStatus
from apps.provisioning.levers import STOPPABLE
from apps.provisioning.models import StopOrder
from apps.quotas import idle_policy
from apps.quotas.idle_policy import IdlePolicy
from apps.quotas.models import Workspace
from apps.teams.models import Team

SYSTEM = Actor.system("insights.idle")
#: Waiting for an answer or for time to pass.
ASKED = (IdleStatus.NOTICED, IdleStatus.KEPT)
OPEN = (*ASKED, IdleStatus.STOPPING, IdleStatus.STOPPED)
#: Nobody can know when a stopped workload would have ended by itself: time saved is counted until it is started again
#: or gone, and never longer than this.
SAVED_AT_MOST = timedelta(days=30)
_COUNT_EVERY = timedelta(hours=1)
#: So far beyond the policy's own time the beginning of an idle time is looked for.
_MORE_HOURS = 12
#: What could not be stopped is not asked about again for so long.
_REFUSED_FOR = timedelta(days=7)


def find_all(at: datetime | None = None) -> int:
    """Notice, ask again, end and stop whatever is due; count what was saved. Returns how many cases moved."""
    at = at or clock.now()
    moved = end_without_policy(at)
    # Those with policies alike are looked at together: a long idle time of one must not make all others read as far.
    places: dict[tuple[int, int], list[Workspace]] = {}
    rows = Workspace.objects.filter(archived_at__isnull=True).exclude(idle_policy={})
    for workspace in rows.select_related("team", "cluster").order_by("pk"):
        policy = idle_policy.of(workspace.idle_policy)
        if policy.enabled:
            places.setdefault((workspace.cluster_id, policy.idle_hours), []).append(workspace)
    for (cluster_id, hours), workspaces in sorted(places.items()):
        judged = idle_use.judge(cluster_id, [workspace.pk for workspace in workspaces], at, hours + _MORE_HOURS)
        if judged.latest is None:
            continue  # nothing recent is metered: nobody knows, so nothing happens
        for workspace in workspaces:
            moved += _workspace(workspace, judged, at)
    return moved + count_saved(at)


def end_without_policy(at: datetime) -> int:
    """End the cases that wait although the policy they stand on is in force no longer."""
    moved = 0
    for case in IdleCase.objects.filter(status__in=ASKED).select_related("workspace").order_by("pk"):
        place = case.workspace
        if place.archived_at is not None or place.idle_policy != case.policy:
            moved += _end(case.pk, at, "The approved policy changed, so nothing is stopped on its account.")
    return moved


def _workspace(workspace: Workspace, judged: Judged, at: datetime) -> int:
    policy = idle_policy.of(workspace.idle_policy)
    cases = {
        Workload(workspace.pk, case.workload_kind, case.workload_name): case
        for case in IdleCase.objects.filter(workspace=workspace, status__in=OPEN)
    }
    moved = 0
    for workload, case in cases.items():
        if case.status in ASKED:
            moved += _advance(case, workload, policy, judged, at)
    for workload in sorted(judged.hours, key=lambda one: (one.kind, one.name)):
        if workload.workspace_id == workspace.pk and workload not in cases:
            moved += _notice(workspace, workload, policy, judged, at)
    return moved


def _notice(workspace: Workspace, workload: Workload, policy: IdlePolicy, judged: Judged, at: datetime) -> int:
    if policy.spares(workload.kind, workspace.environment) or judged.present(workload) is None:
        return 0
    run = judged.idle_run(workload, policy.threshold_percent)
    if len(run) < policy.idle_hours:
        return 0
    last = (
        IdleCase.objects.filter(workspace=workspace, workload_kind=workload.kind, workload_name=workload.name)
        .order_by("-pk")
        .first()
    )
    if last is not None and last.ended_at is not None:
        if last.evidence.get("refused") and last.ended_at + _REFUSED_FOR > at:
            return 0
        # What was idle before it was started again, or before an earlier case ended, counts no more.
        run = judged.idle_run(workload, policy.threshold_percent, since=last.ended_at)
        if len(run) < policy.idle_hours:
            return 0
    case = IdleCase(
        workspace=workspace,
        team_id=workspace.team_id,
        workload_kind=workload.kind,
        workload_name=workload.name,
        gpus=idle_use.units_of(run[-1]),
        flavour_id=run[-1].flavour_id,
        policy=workspace.idle_policy,
        idle_since=run[0].hour,
        evidence=dict(idle_use.evidence_of(run, policy.threshold_percent)),
        noticed_at=at,
        stop_at=at + timedelta(minutes=policy.notice_minutes),
    )
    try:
        with transaction.atomic():
            case.save(force_insert=True)
            record(events.IDLE_NOTICED, case, publish=True, detail=cannot_stop(case))
    except IntegrityError:  # another worker noticed it at the same moment
        return 0
    return 1


def _advance(case: IdleCase, workload: Workload, policy: IdlePolicy, judged: Judged, at: datetime) -> int:
    """Move a case that waits: ended or busy again, asked once more, or stopped."""
    now = judged.present(workload)
    if now is None:
        # It held nothing in the last metered hour, which began after the hours it was noticed for.
        return _end(case.pk, at, "It has ended.")
    if now.used_gpu_ms is None:
        return 0  # unknown use is never idle, and never busy
    run = judged.idle_run(workload, policy.threshold_percent)
    if not run:
        return _end(case.pk, at, "It is busy again.")
    if case.status == IdleStatus.KEPT:
        return _ask_again(case.pk, policy, at) if case.kept_until is not None and case.kept_until <= at else 0
    return _stop_unanswered(case.pk, at) if case.stop_at <= at else 0


@transaction.atomic
def _ask_again(pk: int, policy: IdlePolicy, at: datetime) -> int:
    case = IdleCase.objects.locked(pk)
    if case.status != IdleStatus.KEPT:
        return 0
    case.status, case.noticed_at, case.kept_until = IdleStatus.NOTICED, at, None
    case.stop_at = at + timedelta(minutes=policy.notice_minutes)
    case.bump("status", "noticed_at", "kept_until", "stop_at")
    record(events.IDLE_NOTICED, case, publish=True, detail=cannot_stop(case))
    return 1


@transaction.atomic
def _end(pk: int, at: datetime, why: str) -> int:
    case = IdleCase.objects.locked(pk)
    if case.status not in ASKED:
        return 0
    case.status, case.ended_at, case.answer = IdleStatus.ENDED, at, why
    case.bump("status", "ended_at", "answer")
    record(events.IDLE_ENDED, case, detail=why)
    return 1


@transaction.atomic
def _stop_unanswered(pk: int, at: datetime) -> int:
    case = IdleCase.objects.select_related("workspace").get(pk=pk)
    place = Workspace.objects.locked(case.workspace_id)  # the policy cannot change between this look and the order
    case = IdleCase.objects.locked(pk)
    if case.status != IdleStatus.NOTICED or case.stop_at > at or place.idle_policy != case.policy:
        return 0
    order_for(case, reason="Idle, and nobody answered in time.")
    return 1


def order_for(case: IdleCase, *, actor: Actor = SYSTEM, reason: str) -> StopOrder:
    """Order that a case's workload be stopped, in the caller's transaction with the case locked."""
    policy = idle_policy.of(case.policy)
    order = stopping.order_stop(
        case.workspace.cluster_id, case.workload_kind, case.workspace.namespace, case.workload_name,
        team_id=case.team_id, cause=StopCause.IDLE, cause_uid=case.uid, reason=reason, actor=actor,
        spare_priorities=policy.spared_priorities,
    )  # fmt: skip
    if order.cause_uid != case.uid:  # somebody else's order had come first: it is stopped on their account
        case.status, case.ended_at, case.answer = IdleStatus.ENDED, clock.now(), "It is being stopped already."
        case.bump("status", "ended_at", "answer")
        record(events.IDLE_ENDED, case, actor=actor, detail=case.answer)
        return order
    case.status, case.stop_order = IdleStatus.STOPPING, order
    case.bump("status", "stop_order")
    record(events.IDLE_STOPPING, case, actor=actor, detail=reason)
    return order


# -- what becomes of orders (each in the transaction that records the order, which is locked) -------------------------


def _case_of(order: StopOrder) -> IdleCase | None:
    pk = IdleCase.objects.filter(stop_order=order).values_list("pk", flat=True).first()
    return IdleCase.objects.locked(pk) if pk is not None else None


def on_stopped(order: StopOrder) -> None:
    """It is stopped: time saved counts from here on."""
    case = _case_of(order)
    if case is None or case.status != IdleStatus.STOPPING:
        return
    case.status, case.stopped_at, case.counted_until = IdleStatus.STOPPED, order.stopped_at, order.stopped_at
    case.bump("status", "stopped_at", "counted_until")
    record(events.IDLE_STOPPED, case)


def on_undone(order: StopOrder) -> None:
    """It was started again, by the portal or by its owner."""
    case = _case_of(order)
    if case is None or case.status not in (IdleStatus.STOPPING, IdleStatus.STOPPED):
        return
    at = order.undone_at or clock.now()
    _count(case, at)
    case.status, case.ended_at = IdleStatus.RESUMED, at
    case.answer = case.answer or order.last_error or "Started again."
    case.bump("status", "ended_at", "answer", "saved_gpu_ms", "counted_until")
    record(events.IDLE_RESUMED, case, detail=case.answer)


def on_ended(order: StopOrder) -> None:
    """It is gone, or the cluster refused."""
    case = _case_of(order)
    if case is None or case.status not in (IdleStatus.STOPPING, IdleStatus.STOPPED):
        return
    at = clock.now()
    _count(case, at)
    if order.status == StopStatus.REFUSED:
        case.evidence = {**case.evidence, "refused": order.last_error[:1000]}
    case.status, case.ended_at, case.answer = IdleStatus.ENDED, at, order.last_error[:300]
    case.bump("status", "ended_at", "answer", "evidence", "saved_gpu_ms", "counted_until")
    record(events.IDLE_ENDED, case, detail=case.answer)


# -- what was saved ---------------------------------------------------------------------------------------------------


def _count(case: IdleCase, until: datetime) -> bool:
    """Count the GPU time given back up to `until`; the caller holds the lock and saves."""
    if case.stopped_at is None or case.counted_until is None:
        return False
    until = min(until, case.stopped_at + SAVED_AT_MOST)
    if until <= case.counted_until:
        return False
    flavour = case.flavour
    share = Fraction(flavour.numerator, flavour.denominator) if flavour is not None else Fraction(1)
    before = (case.counted_until - case.stopped_at) // timedelta(milliseconds=1)
    after = (until - case.stopped_at) // timedelta(milliseconds=1)
    # By difference from the beginning, so that counting often rounds no oftener than counting once.
    case.saved_gpu_ms += int(after * case.gpus * share) - int(before * case.gpus * share)
    case.counted_until = until
    return True


def count_saved(at: datetime) -> int:
    """Count the time of what is stopped, hour by hour; returns how many cases moved."""
    due = IdleCase.objects.filter(
        status=IdleStatus.STOPPED,
        counted_until__lte=at - _COUNT_EVERY,
        counted_until__lt=F("stopped_at") + SAVED_AT_MOST,
    )
    moved = 0
    for pk in due.order_by("pk").values_list("pk", flat=True):
        with transaction.atomic():
            case = IdleCase.objects.locked(pk)
            if case.status == IdleStatus.STOPPED and _count(case, at):
                case.bump("saved_gpu_ms", "counted_until")
                moved += 1
    return moved


def record(
    event: EventType,
    case: IdleCase,
    *,
    actor: Actor = SYSTEM,
    publish: bool = False,
    detail: str = "",
    reason: str = "",
) -> None:
    """Audit what happened to a case and, where it asks something, tell the leads. In the caller's transaction."""
    payload = events.IdleEvent(
        str(case.uid), str(case.workspace.uid), f"{case.workload_kind} {case.workload_name}", case.status, case.gpus,
        case.idle_since, case.stop_at, case.flavour.name if case.flavour is not None else "", case.kept_until,
        case.saved_gpu_ms, detail,
    )  # fmt: skip
    team_uid = Team.objects.values_list("uid", flat=True).get(pk=case.team_id)
    audit.record(
        event, payload, actor=actor, subject_type="insights.idle", subject_uid=case.uid, team_uid=team_uid,
        reason=reason,
    )  # fmt: skip
    if publish:
        outbox.publish(event, payload, recipients=recipients(case.team_id), subject_uid=case.uid)


def cannot_stop(case: IdleCase) -> str:
    """Return why the portal will not be able to stop a workload, "" where it will."""
    if case.workload_kind in STOPPABLE:
        return ""
    return f"The portal cannot stop a {case.workload_kind} without deleting it: please stop it yourself."


def words(policy: Any) -> str:
    """Return a stored policy in a sentence."""
    return idle_policy.sentence(idle_policy.of(policy))
