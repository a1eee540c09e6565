"""What pages, panels and approvers read of a change request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apps.approvals.models import Decision, Stage
from apps.core.formats import datetime_utc
from apps.provisioning.choices import DeclarationStatus, PlanStatus
from apps.provisioning.models import Plan
from apps.provisioning.selectors import drift_context
from apps.quotas import change_granting, change_subject
from apps.quotas.change_records import plans_of
from apps.quotas.choices import OPEN_STATUSES, RequestStatus
from apps.quotas.models import ChangeRequest
from apps.quotas.selectors import PlanRow, created_yaml, plan_rows
from apps.quotas.timeline import Entry

#: So many lines of a change, and of what the cluster says, stand on the page; the export and the API have all.
SHOWN = 200
_KINDS = {"create": "added", "add": "added", "remove": "removed", "drop": "removed", "retain": "removed"}


def settings_rows(change: ChangeRequest) -> list[PlanRow]:
    """Return the settings that change, for `components/diff.html`."""
    rows = []
    for line in change.change["settings"]:
        if line["before"] == line["after"]:
            continue
        kind = "added" if not line["before"] else "removed" if not line["after"] else "changed"
        name = f"{line['object']}: {line['path']}" if line["path"] else line["object"]
        note = f" ({line['note']})" if line["note"] else ""
        rows.append(PlanRow(name, line["before"] or None, (line["after"] + note) or None, kind))
    return rows


def object_rows(change: ChangeRequest) -> list[PlanRow]:
    """Return the declared objects and fields that change; equal changes of many workspaces are one row."""
    rows = []
    for line in change.change["objects"][:SHOWN]:
        where = change_subject.where_words(line) if change.workspace_id is None else ""
        name = f"{line['object']}{' ' + line['path'] if line['path'] else ''}{' (' + where + ')' if where else ''}"
        kind = _KINDS.get(line["operation"], "changed")
        before = line["before"] or ("removed" if line["operation"] == "remove" else None)
        after = line["after"] or {"create": "created", "retain": "left on the cluster"}.get(line["operation"])
        rows.append(PlanRow(name, before, after, kind))
    return rows


def evidence(change: ChangeRequest) -> dict[str, Any]:
    """Return what approver and requester see: settings, objects, and what the cluster itself says to each plan."""
    plans = plans_of(change)
    ready = [plan for plan in plans if plan.status == PlanStatus.READY]
    total = len(change.change.get("declarations", [])) if change.is_open else len(plans)
    single = plans[0] if total == len(plans) == 1 else None
    said = [row for plan in ready for row in _rows(plan, single is None)]
    entries = [entry for plan in ready for entry in plan.entries]
    return {
        "change_request": change,
        "settings_rows": settings_rows(change),
        "object_rows": object_rows(change),
        "objects_left_out": max(0, len(change.change["objects"]) - SHOWN),
        "blockers": change_subject.plan_blockers(change) if change.is_open else [],
        "outdated": change_granting.MOVED if change.is_open and change.change.get("outdated") else "",
        **drift_context(plans),
        "plans_total": total,
        "plans_ready": len(ready),
        "plans_waiting": change.is_open and len(ready) < total,
        "plan_errors": sorted({plan.last_error for plan in plans if plan.last_error and plan.closed_at is None})[:5],
        "plans": plans,
        "plan_made_at": max((plan.made_at for plan in ready if plan.made_at), default=None),
        "plan_rows": said[:SHOWN],
        "plan_rows_left_out": max(0, len(said) - SHOWN),
        "plan_created": created_yaml(single),
        "plan_warnings": _distinct(text for entry in entries for text in entry.get("warnings", [])),
        "plan_conflicts": _distinct(
            f"{conflict['manager']}: {conflict['field']}" for entry in entries for conflict in entry["conflicts"]
        ),
        "plan_taken_over": _distinct(
            f"{held['manager']}: {held['field']}" for entry in entries for held in entry.get("taken_over", [])
        ),
        "plan_unchecked": _distinct(entry["kind"] for entry in entries if not entry.get("server_checked", True)),
    }


def _rows(plan: Plan, named: bool) -> list[PlanRow]:
    rows = plan_rows(plan)
    if not named:
        return rows
    space = next((entry["namespace"] for entry in plan.entries if entry["namespace"]), "")
    return [PlanRow(f"{space}: {row.path}" if space else row.path, row.before, row.after, row.kind) for row in rows]


def _distinct(items: Any, limit: int = 20) -> list[str]:
    found = list(dict.fromkeys(items))
    return found if len(found) <= limit else [*found[:limit], f"and {len(found) - limit:,} more"]


def timeline_of(change: ChangeRequest) -> list[Entry]:
    """Return the steps of a change in order of time, what is still ahead at the end. About five queries."""
    entries = [Entry("Requested", change.created_at, str(change.requester), change.reason, "info")]
    plan = change.plan
    if plan is not None and plan.status == PlanStatus.READY:
        entries.append(Entry("Planned", plan.made_at, text="The cluster's dry run stands beside it.", tone="positive"))
    elif plan is not None and change.is_open:
        entries.append(Entry("Plan", None, text="The cluster is asked what would change.", pending=True))
    if change.approval is not None:
        entries += _decisions(change)
    entries += _outcome(change)
    past = sorted((e for e in entries if e.at is not None), key=lambda e: e.at or change.created_at)
    return past + [e for e in entries if e.at is None]


def _decisions(change: ChangeRequest) -> list[Entry]:
    approval = change.approval
    found = []
    decisions = Decision.objects.filter(request=approval).select_related("actor", "on_behalf_of", "stage")
    for decision in decisions.order_by("decided_at", "pk"):
        approved = decision.verdict == "approve"
        who = f"{decision.actor}" + (f" on behalf of {decision.on_behalf_of}" if decision.on_behalf_of else "")
        title = f"{'Approved' if approved else 'Rejected'}: {decision.stage.name}"
        tone = "positive" if approved else "critical"
        found.append(Entry(title, decision.decided_at, who, decision.reason, tone))
    if approval is not None and approval.automatic:
        text = f"Rule “{approval.automatic_rule}”: nobody needed to be asked."
        found.append(Entry("Approved by policy", approval.submitted_at, str(approval.policy_version), text, "positive"))
    if change.status == RequestStatus.IN_REVIEW:
        for stage in Stage.objects.filter(request=approval, completed_at__isnull=True).order_by("ordinal"):
            due = f"Due {datetime_utc(stage.due_at)}." if stage.due_at else ""
            found.append(Entry(f"Decision: {stage.name}", None, text=due, pending=True))
    return found


def _outcome(change: ChangeRequest) -> list[Entry]:
    approval = change.approval
    conclusion = approval.conclusion if approval is not None else ""
    ended = approval.concluded_at if approval is not None and approval.concluded_at else change.updated_at
    status = RequestStatus(change.status)
    if status in (RequestStatus.WITHDRAWN, RequestStatus.LAPSED):
        return [Entry(status.label, ended, text=conclusion, tone="neutral")]
    if status == RequestStatus.REJECTED:
        return []  # the rejecting decision, with its reason, is the last entry already
    if status == RequestStatus.WAITING:
        return [Entry("Cannot be granted yet", None, text=conclusion, tone="caution", pending=True)]
    if status == RequestStatus.IN_REVIEW:
        return [Entry("Applied on the cluster", None, pending=True)]
    found = [Entry("Granted", change.granted_at, tone="positive")]
    if status == RequestStatus.ACTIVE:
        text = "" if change.generations else "It changes settings of the portal; nothing had to be applied."
        return [*found, Entry("Applied on the cluster", change.applied_at, text=text, tone="positive")]
    return [*found, _applying(change)]


def _applying(change: ChangeRequest) -> Entry:
    behind = change_granting.missing_declarations(change)
    stopped = [row for row in behind if row.status == DeclarationStatus.STOPPED]
    failing = [row for row in behind if row.last_error]
    pending = len(change.change.get("pending", []))
    total = len(change.generations) + pending
    text = f"{total - pending - len(behind):,} of {total:,} are on the cluster."
    first = next(iter([*stopped, *failing]), None)
    if first is not None:
        text += f" {first.title}: {first.last_error}"
    text += " A platform admin has to look at it." if stopped else " It completes by itself."
    tone = "critical" if stopped else "caution" if failing else "info"
    return Entry("Applying", None, text=text, tone=tone, pending=True)


def open_changes(workspace_id: int | None, cluster_id: int) -> Sequence[ChangeRequest]:
    """Return the changes that are open or on their way for a workspace, or for a cluster itself, newest first."""
    statuses = [*OPEN_STATUSES, RequestStatus.APPLYING]
    rows = ChangeRequest.objects.filter(cluster_id=cluster_id, status__in=statuses)
    rows = rows.filter(workspace_id=workspace_id) if workspace_id else rows.filter(workspace__isnull=True)
    return list(rows.select_related("requester").order_by("-created_at", "-pk")[:20])
