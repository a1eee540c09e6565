"""A quota request's way, step by step, for `components/timeline.html`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from apps.approvals.models import ApprovalRequest, Decision, Stage
from apps.core.formats import datetime_utc
from apps.provisioning.choices import PlanStatus
from apps.quotas.choices import OPEN_STATUSES, RequestStatus
from apps.quotas.live_rows import quota_rows
from apps.quotas.live_standing import Standing
from apps.quotas.models import QuotaRequest
from apps.quotas.selectors import standing_for


@dataclass(frozen=True, slots=True)
class Entry:
    """One step; `at` None and `pending`: still ahead."""

    title: str
    at: datetime | None = None
    by: str = ""
    text: str = ""
    tone: str = "neutral"
    url: str = ""
    pending: bool = False


def of(request: QuotaRequest) -> list[Entry]:
    """Return the steps of a request in order of time, what is still ahead at the end. About five queries."""
    entries = [Entry("Submitted", request.created_at, str(request.requester), request.reason, "info")]
    entries += _plan(request)
    approval = request.approval
    if approval is not None:
        entries += _decisions(request, approval)
    entries += _outcome(request, approval)
    past = sorted(
        (entry for entry in entries if entry.at is not None), key=lambda entry: entry.at or request.created_at
    )
    return past + [entry for entry in entries if entry.at is None]


def _plan(request: QuotaRequest) -> list[Entry]:
    plan = request.plan
    if plan is None:
        return []
    if plan.status == PlanStatus.READY:
        return [
            Entry("Planned", plan.made_at, text="The cluster's dry run stands beside the request.", tone="positive")
        ]
    if request.status not in OPEN_STATUSES:
        return []
    why = f" Not yet, because: {plan.last_error}" if plan.last_error else ""
    return [Entry("Plan", None, text=f"The cluster is asked what would change.{why}", pending=True)]


def _decisions(request: QuotaRequest, approval: ApprovalRequest) -> list[Entry]:
    found = []
    decisions = Decision.objects.filter(request=approval).select_related("actor", "on_behalf_of", "stage")
    for decision in decisions.order_by("decided_at", "pk"):
        approved = decision.verdict == "approve"
        who = str(decision.actor)
        if decision.on_behalf_of is not None:
            who += f" on behalf of {decision.on_behalf_of}"
        found.append(
            Entry(
                f"{'Approved' if approved else 'Rejected'}: {decision.stage.name}",
                decision.decided_at,
                who,
                decision.reason,
                "positive" if approved else "critical",
            )
        )
    if approval.automatic:
        found.append(
            Entry(
                "Approved by policy",
                approval.submitted_at,
                str(approval.policy_version),
                f"Rule “{approval.automatic_rule}”: nobody needed to be asked.",
                "positive",
            )
        )
    if request.status == RequestStatus.IN_REVIEW:
        for stage in Stage.objects.filter(request=approval, completed_at__isnull=True).order_by("ordinal"):
            due = f"Due {datetime_utc(stage.due_at)}." if stage.due_at else ""
            found.append(Entry(f"Decision: {stage.name}", None, text=due, pending=True))
    return found


def _outcome(request: QuotaRequest, approval: ApprovalRequest | None) -> list[Entry]:
    conclusion = approval.conclusion if approval is not None else ""
    ended = approval.concluded_at if approval is not None and approval.concluded_at else request.updated_at
    closed = {
        RequestStatus.WITHDRAWN: ("Withdrawn", "neutral"),
        RequestStatus.LAPSED: ("Lapsed", "caution"),
        RequestStatus.SUPERSEDED: ("Corrected by a later request", "neutral"),
    }
    status = RequestStatus(request.status)
    if status in closed:
        title, tone = closed[status]
        return [Entry(title, ended, text=conclusion, tone=tone)]
    if status == RequestStatus.REJECTED:
        # The rejecting decision, with its reason, is the last entry already.
        return []
    if status == RequestStatus.WAITING:
        return [Entry("Waits for capacity", None, text=conclusion, tone="caution", pending=True)]
    if status == RequestStatus.IN_REVIEW:
        return [Entry("Applied on the cluster", None, pending=True)]
    found = [Entry("Granted", request.granted_at, tone="positive")]
    if status == RequestStatus.SCHEDULED:
        return [*found, Entry("Begins", None, text=datetime_utc(_begins(request)), pending=True)]
    if status == RequestStatus.ACTIVE:
        return [*found, Entry("Applied on the cluster", request.applied_at, tone="positive"), *_standing(request)]
    return [*found, _applying(request)]


def _begins(request: QuotaRequest) -> datetime:
    """Return when what was granted begins: of a repetition its first window, which may lie after its start."""
    first = request.quotas.order_by("valid").values_list("valid", flat=True).first()
    begins: datetime | None = first.lower if first is not None else None
    return begins or request.valid_from


def _standing(request: QuotaRequest) -> list[Entry]:
    """Return whether the GPUs of what is applied are there for it; nothing where its time is not now."""
    if not request.quotas.in_force().exists():
        return []
    row = next((one for one in quota_rows([request.workspace]) if one.flavour.pk == request.flavour_id), None)
    if row is None:
        return []
    if row.standing == Standing.IN_FORCE:
        return [Entry("In force", row.used_at, text="Its GPUs are there.", tone="positive")]
    title = "Promised" if row.standing == Standing.PROMISED else "Whether it is in force is not known"
    return [Entry(title, None, text=row.standing_why, tone="caution", pending=True)]


def _applying(request: QuotaRequest) -> Entry:
    standing = standing_for(request)
    if standing is None:
        return Entry("Applying", None, pending=True)
    since = f"Since {datetime_utc(standing.since)}. " if standing.since else ""
    why = f"Not yet, because: {standing.why}. " if standing.why else ""
    retry = f"Next try {datetime_utc(standing.retry_at)}. " if standing.retry_at else ""
    tone = "critical" if standing.state == "stopped" else "caution" if standing.why else "info"
    last = "A platform admin has to look at it." if standing.state == "stopped" else "It completes by itself."
    return Entry("Applying", None, text=f"{since}{why}{retry}{last}", tone=tone, pending=True)


__all__ = ["Entry", "of"]
