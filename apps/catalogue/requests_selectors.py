"""What pages, the API and approvers see of a request for a version."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from django.urls import reverse

from apps.approvals.choices import RequestStatus
from apps.approvals.models import ApprovalRequest, Decision, Grant
from apps.approvals.ports import Change
from apps.catalogue import controls_state, subject_diff
from apps.catalogue import requests as asks
from apps.catalogue.choices import AskStatus, ControlStatus
from apps.catalogue.controls_checks import RELEASES_POLICY
from apps.catalogue.models import Evidence, ModelRequest, Regime
from apps.core import clock
from apps.quotas.models import Workspace

__all__ = ["RELEASES_POLICY", "evidence_of", "grant_of", "places_of", "timeline_of"]


def places_of(scope: Mapping[str, Any]) -> list[Workspace]:
    """Return the workspaces of a scope."""
    uids = [uuid.UUID(one) for one in scope["workspaces"]]
    return list(Workspace.objects.filter(uid__in=uids).select_related("cluster", "team").order_by("namespace", "pk"))


def grant_of(row: ModelRequest) -> Grant | None:
    """Return the grant that a request led to."""
    return Grant.objects.filter(request=row.approval_id).first() if row.approval_id is not None else None


def evidence_of(row: ModelRequest) -> dict[str, Any]:
    """Return checklist, evidence, differences and scope, for the request's page and for approvers."""
    version = row.model_version
    standing = controls_state.standing(version, row.scope)
    submitted = {one["code"]: one["status"] for one in row.checklist}
    names = dict(Regime.objects.values_list("code", "name"))
    pieces = Evidence.objects.filter(subject_digest=version.digest, withdrawn_at__isnull=True)
    titles = {str(one.uid): one for one in pieces.select_related("blob", "produced_by", "producer").order_by("pk")}
    groups: dict[str, dict[str, Any]] = {}
    for state in standing.applying:
        group = groups.setdefault(state.regime, {"name": names.get(state.regime, state.regime), "rows": [], "open": 0})
        group["rows"].append(
            {
                "state": state, "label": str(ControlStatus(state.status).label), "tone": TONES[state.status],
                "evidence": [
                    {
                        "title": titles[uid].title,
                        "url": reverse("catalogue:evidence-detail", kwargs={"evidence_uid": uid}),
                    }
                    for uid in state.evidence if uid in titles
                ],
                "was": submitted.get(state.code, ""), "blocks": state.blocks,
            }
        )  # fmt: skip
        group["open"] += 1 if state.blocks else 0
    return {
        "model_request": row,
        "groups": list(groups.values()),
        "open_count": len(standing.open),
        "applying": len(standing.applying),
        "places": places_of(row.scope),
        "pieces": list(titles.values()),
        **comparisons_of(row),
    }


def comparisons_of(row: ModelRequest) -> dict[str, Any]:
    """Return what a request is laid against, base by base, each with its lines."""
    bases = subject_diff.bases_of(row)
    return {
        "bases": bases,
        "comparisons": [
            {
                "base": base,
                "rows": [
                    {
                        "path": _line(one),
                        "before": one.before or None, "after": one.after or None,
                        "kind": "added" if not one.before else "removed" if not one.after else "changed",
                    }
                    for one in subject_diff.changes_against(row, base)
                    if one.before != one.after
                ],
            }
            for base in bases.all
        ],
    }  # fmt: skip


def _line(one: Change) -> str:
    """Return what a line is about; of objects on a cluster also whose they are."""
    return f"{one.object}: {one.path}".removesuffix(": ") + (f" ({one.note})" if one.cluster else "")


TONES = {
    "satisfied": "positive", "missing": "critical", "expired": "critical", "stale": "caution", "failed": "critical",
    "waived": "caution", "not_applicable": "neutral",
}  # fmt: skip
_ENDS = {
    AskStatus.REJECTED: ("Rejected", "critical"), AskStatus.WITHDRAWN: ("Withdrawn", "neutral"),
    AskStatus.LAPSED: ("Lapsed", "caution"), AskStatus.SUPERSEDED: ("Superseded by a correction", "neutral"),
}  # fmt: skip


def status_words(row: ModelRequest) -> str:
    """Return where a request stands in words: decided ones may still wait until they can come into force."""
    if row.status == AskStatus.IN_REVIEW and row.approval is not None and row.approval.status == RequestStatus.WAITING:
        return "Decided, not in force yet"
    return str(row.get_status_display())


def timeline_of(row: ModelRequest) -> list[dict[str, Any]]:
    """Return the request's way, in order of time, with what is still to come."""
    found: list[dict[str, Any]] = [
        {"title": "Asked for", "at": row.created_at, "by": str(row.requester), "text": row.reason, "tone": "info"}
    ]
    approval: ApprovalRequest | None = row.approval
    decisions = list(Decision.objects.filter(request=row.approval_id).select_related("actor", "stage"))
    found += [
        {
            "title": f"{'Approved' if one.verdict == 'approve' else 'Rejected'}: {one.stage.name}",
            "at": one.decided_at,
            "by": str(one.actor), "text": one.reason, "tone": "positive" if one.verdict == "approve" else "critical",
        }
        for one in decisions
    ]  # fmt: skip
    if row.status in _ENDS and approval is not None:
        title, tone = _ENDS[AskStatus(row.status)]
        if row.status != AskStatus.REJECTED:
            found.append({"title": title, "at": approval.concluded_at, "text": approval.conclusion, "tone": tone})
    held = grant_of(row)
    if held is not None:
        found.append({"title": "Usable from", "at": held.not_before, "tone": "positive"})
        if held.revoked_at is not None:
            found.append({"title": "Revoked", "at": held.revoked_at, "text": held.revoked_reason, "tone": "critical"})
        elif held.expires_at is not None:
            ended = clock.now() >= held.expires_at
            found.append({"title": "Expired" if ended else "Ends", "at": held.expires_at, "tone": "caution",
                          "pending": not ended})  # fmt: skip
    elif row.status == AskStatus.IN_REVIEW:
        decided = approval is not None and approval.status == RequestStatus.WAITING
        if decided and approval is not None:
            found.append(
                {"title": "In force once nothing stands against it", "text": approval.conclusion, "pending": True,
                 "tone": "caution"}
            )  # fmt: skip
        else:
            found.append({"title": "Decision", "pending": True, "tone": "neutral"})
    return found


def submitted_scope(row: ModelRequest) -> str:
    """Return a scope in one line."""
    return ", ".join(asks.environments_of(row.scope)) + f", up to {row.scope['max_traffic']} % of the traffic"
