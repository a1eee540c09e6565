"""What pages, the API and other rooms read of quotas. Every function states its queries; none of them writes."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

from apps.accounts.models import User
from apps.approvals import selectors as approvals
from apps.clusters.models import Pool
from apps.core import clock
from apps.core.money import Money
from apps.provisioning.models import Plan
from apps.provisioning.selectors import Standing, drift_context
from apps.quotas import book, cluster_side, feasibility_reader, recurrence, renewal, waitlist
from apps.quotas.assess import Assessment, assess, guaranteed_word, number
from apps.quotas.choices import OPEN_STATUSES, RequestStatus
from apps.quotas.feasibility_reader import Feasibility
from apps.quotas.ledger import Room
from apps.quotas.live_rows import QuotaRow, quota_rows
from apps.quotas.models import Quota, QuotaRequest, Workspace
from apps.quotas.pool_layout import layout_left
from apps.quotas.pools import (
    CALENDAR_DAYS,
    CalendarStep,
    PoolRow,
    broken_promises,
    pool_calendar,
    pool_rows,
    visible_pools,
)
from apps.quotas.records import adds_later, borrow_words
from apps.quotas.use_it import to_yaml
from apps.rates.selectors import Estimate
from apps.teams.models import Team

#: So many of a workspace's requests are listed on its page.
NEWEST_SHOWN = 10


@dataclass(frozen=True, slots=True)
class DatedQuota:
    """A quota row with its state: in force, or coming. `more`: further rows just like it, up to `last_until`.

    A recurring quota is a row a window, and cuts what lies below into as many; people read each once.
    """

    quota: Quota
    state: str
    more: int
    last_until: datetime | None
    words: str

    @property
    def borrow(self) -> str:
        """How far it may borrow, in words."""
        return borrow_words(self.quota.borrow_mode, self.quota.borrow_limit)

    @property
    def ends(self) -> bool:
        """Whether it ends, so that it can be renewed."""
        return self.last_until is not None


def coming_quotas(rows: Iterable[Quota]) -> list[DatedQuota]:
    """Return the quota rows that are in force or still to come, in the given order, those that repeat folded."""
    now = clock.now()
    alike: dict[tuple[Any, ...], list[Quota]] = {}
    for row in rows:
        if row.valid.upper is None or row.valid.upper > now:
            alike.setdefault((row.flavour_id, row.request_id, book.holding(row).numbers), []).append(row)
    found = []
    for same in alike.values():
        first = same[0]
        repeats = recurrence.parse(first.request.recurrence) if first.request is not None else None
        found.append(
            DatedQuota(
                first,
                "in_force" if first.valid.lower <= now else "scheduled",
                len(same) - 1,
                same[-1].valid.upper,
                recurrence.words(repeats) if repeats is not None else "",
            )
        )
    return found


def quotas_of(workspace: Workspace) -> list[Quota]:
    """Return all quota rows of a workspace, past ones too, in order of flavour and time.

    Read once for all that shows this very instance of a workspace (a page loads one).
    """
    held: list[Quota] | None = workspace.__dict__.get("_quotas_read")
    if held is None:
        rows = Quota.objects.filter(workspace=workspace).select_related("flavour", "request")
        held = workspace.__dict__["_quotas_read"] = list(rows.order_by("flavour__name", "valid", "pk"))
    return held


def all_best_effort(rows: Sequence[QuotaRow]) -> bool:
    """Whether every row is a share by agreement, so that no heading may say *guaranteed*."""
    return bool(rows) and all(row.pool is not None and row.pool.best_effort for row in rows)


def workspaces_of(team: Team) -> list[Workspace]:
    """Return a team's workspaces that are in use."""
    rows = Workspace.objects.filter(team=team, archived_at__isnull=True).select_related("team", "cluster")
    return list(rows.order_by("pk"))


def team_quota_rows(team: Team) -> list[QuotaRow]:
    """Return what a team's workspaces hold now, with what is in use and when that was seen."""
    return quota_rows(workspaces_of(team))


def workspace_for_namespace(cluster_id: int, namespace: str) -> Workspace | None:
    """Return the workspace that a namespace on a cluster belongs to, or None where it is not ours."""
    return (
        Workspace.objects.select_related("team__unit", "cluster")
        .filter(cluster_id=cluster_id, namespace=namespace)
        .first()
    )


def room_over_time(
    pool_id: int,
    workspace_id: int,
    flavour_id: int,
    guaranteed: int,
    valid_from: datetime,
    valid_until: datetime | None,
) -> Room:
    """Tell whether a pool has room for a quota over the whole time. Raises Pool.DoesNotExist, KeyError for a flavour
    that the pool does not offer."""
    view = book.load(Pool.objects.get(pk=pool_id), valid_from)
    return view.room(workspace_id, view.flavours[flavour_id], guaranteed, valid_from, valid_until)


@dataclass(frozen=True, slots=True)
class ChangeEstimate:
    """What the request form shows beside a draft, before anything is submitted."""

    assessment: Assessment
    approval: Any
    budget_left: Money | None
    budget_after: Money | None
    facts: dict[str, Any]
    word: str
    feasibility: Feasibility

    @property
    def estimate(self) -> Estimate:
        """The monthly cost change."""
        return self.assessment.estimate

    @property
    def budget_exhausted(self) -> bool:
        """Whether a reached step of a budget asks for approval of whatever the team requests this month."""
        return self.facts.get("team.budget_exhausted") == "yes"

    @property
    def over_budget(self) -> bool:
        """Whether the change costs more than what is left of this month's budget."""
        return self.budget_after is not None and self.budget_after.amount < 0


def estimate_change(draft: Any, requester: User) -> ChangeEstimate:
    """Return what a checked draft (`actions.checked_draft`) costs, whether it fits, who would have to approve it."""
    from apps.approvals.ports import FactContext, read_fact
    from apps.quotas.subjects import SUBJECT_TYPE, facts_of

    assessment = assess(draft)
    at = clock.now()
    unwritten = uuid.uuid4()
    amount = assessment.estimate.amount
    facts = facts_of(
        draft,
        delta_gpus=assessment.delta_gpus,
        cost=amount.quantized().amount if amount is not None else None,
        fits=assessment.fits,
        at=at,
        but=unwritten,
    )
    team = draft.workspace.team
    asked = FactContext(SUBJECT_TYPE, unwritten, team.pk, team.unit_id, at)
    left = read_fact("team.budget_remaining", asked)
    exhausted = read_fact("team.budget_exhausted", asked)
    budget = Money(Decimal(left), _currency()) if isinstance(left, int | Decimal) else None
    if left is not None:
        facts["team.budget_remaining"] = left
    if exhausted is not None:
        facts["team.budget_exhausted"] = exhausted
    return ChangeEstimate(
        assessment=assessment,
        approval=_preview(draft, facts, requester),
        budget_left=budget,
        budget_after=budget - amount if budget is not None and amount is not None else None,
        facts=facts,
        word=guaranteed_word(draft.pool),
        feasibility=feasibility_reader.of_draft(draft),
    )


def _preview(draft: Any, facts: dict[str, Any], requester: User) -> Any:
    """Return who would have to approve, or None where no policy is published yet."""
    from apps.core.errors import Invalid
    from apps.quotas.actions import POLICY
    from apps.teams import scope

    team = draft.workspace.team
    side = scope.members(team.pk) | {requester.pk}
    try:
        return approvals.preview(POLICY, facts, unit_id=team.unit_id, requester_id=requester.pk, excluded=side)
    except Invalid:
        return None


def _currency() -> str:
    from django.conf import settings

    return str(settings.COMMONS_CURRENCY)


def standing_for(request: QuotaRequest) -> Standing | None:
    """Return why a granted request is not applied yet, and since when; None for one that is not being applied."""
    return cluster_side.standing_of(request.workspace) if request.status == RequestStatus.APPLYING else None


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One line of a plan, as `components/diff.html` shows it."""

    path: str
    before: str | None
    after: str | None
    kind: str


def plan_rows(plan: Plan | None) -> list[PlanRow]:
    """Return a plan's changes line by line; created and removed objects are one line each."""
    rows: list[PlanRow] = []
    for entry in plan.entries if plan is not None else []:
        name = f"{entry['kind']} {entry['name']}"
        if entry["operation"] == "create":
            rows.append(PlanRow(name, None, "created", "added"))
        elif entry["operation"] == "remove":
            rows.append(PlanRow(name, "removed", None, "removed"))
        else:
            for change in entry.get("changes", []):
                before, after = change.get("before"), change.get("after")
                kind = "added" if before is None else "removed" if after is None else "changed"
                rows.append(PlanRow(f"{name}: {change['path']}", _text(before), _text(after), kind))
    return rows


def created_yaml(plan: Plan | None) -> str:
    """Return the objects that a plan creates, whole, as YAML: "created" alone hides what would be in force."""
    new = {(e["kind"], e["name"]) for e in _entries(plan) if e["operation"] == "create"}
    if plan is None or not new:
        return ""
    manifests = json.loads(bytes(plan.manifest))
    return to_yaml(*(one for one in manifests if (one["kind"], one["metadata"]["name"]) in new))


def _entries(plan: Plan | None) -> list[dict[str, Any]]:
    return list(plan.entries) if plan is not None else []


def _text(value: Any) -> str | None:
    return None if value is None else value if isinstance(value, str) else json.dumps(value)


def request_evidence(request: QuotaRequest) -> dict[str, Any]:
    """Return what approver and requester see beside a request: frozen cost, room as of now, plan, change."""
    from apps.quotas.subjects import draft_of, room_left

    draft = draft_of(request)
    estimate = request.estimate
    amount = estimate.get("amount")
    now = clock.now()
    room, uncut = None, None
    if draft is not None and request.status in OPEN_STATUSES:
        room = room_left(request, draft, now)
        if room is not None:
            windows = draft.windows_from(max(draft.valid_from, now))
            left = layout_left(draft.pool, draft.flavour, draft.workspace.pk, windows)
            # What is cut otherwise is room in the pool, and still none of it can be had as this flavour.
            uncut = left if left is not None and left < max(room.free_at_worst, Fraction(0)) else None
    reviewed = draft is not None and request.status == RequestStatus.IN_REVIEW
    return {
        "quota_request": request,
        "adds_later": adds_later(request),
        **_held_for(request, now),
        "pool": draft.pool if draft is not None else None,
        "word": guaranteed_word(draft.pool if draft is not None else None),
        "cost": Money(Decimal(amount), estimate["currency"]) if amount is not None else None,
        "cost_basis": estimate.get("basis", ""),
        "room": room,
        "room_free": number(uncut if uncut is not None else max(room.free_at_worst, Fraction(0))) if room else "",
        "room_cut": uncut is not None,
        "feasibility": feasibility_reader.of_draft(draft, now, stored=request) if reviewed and draft else None,
        "own_place": waitlist.place_of(request, now),
        "plan": request.plan,
        **drift_context([request.plan] if request.plan is not None else []),
        "plan_rows": plan_rows(request.plan),
        "plan_created": created_yaml(request.plan),
        "plan_warnings": [text for entry in _entries(request.plan) for text in entry.get("warnings", [])],
        "plan_conflicts": [
            f"{conflict['manager']}: {conflict['field']}"
            for entry in _entries(request.plan)
            for conflict in entry.get("conflicts", [])
        ],
        "plan_taken_over": [
            f"{held['manager']}: {held['field']}"
            for entry in _entries(request.plan)
            for held in entry.get("taken_over", [])
        ],
        "plan_unchecked": [e["kind"] for e in _entries(request.plan) if not e.get("server_checked", True)],
        "before": request.change.get("before", {}),
        "at_end": request.change.get("at_end"),
        "creates_workspace": request.change.get("creates_workspace", False),
    }


def _held_for(request: QuotaRequest, at: datetime) -> dict[str, Any]:
    """Return what is held for an open request and why, and what else is open beside it. At most one query."""
    if not request.is_open:
        return {"renews_words": "", "beside": []}
    others = QuotaRequest.objects.filter(
        workspace=request.workspace_id, flavour=request.flavour_id, status__in=OPEN_STATUSES
    )
    return {
        "renews_words": renewal.held_for(request, at),
        "beside": list(others.exclude(pk=request.pk).select_related("flavour").order_by("pk")),
    }


def open_renewals(workspace: Workspace, newest: Sequence[QuotaRequest]) -> list[tuple[QuotaRequest, str]]:
    """Return a workspace's open requests for which GPUs are held, or will be, with what is held and why.

    `newest`: its `NEWEST_SHOWN` newest requests, read already; only where there may be older ones is there a query.
    """
    now = clock.now()
    rows = list(newest)
    if len(rows) >= NEWEST_SHOWN:
        older = QuotaRequest.objects.filter(workspace=workspace, status__in=OPEN_STATUSES, change__has_key="renews")
        rows += older.exclude(pk__in=[row.pk for row in rows]).select_related("flavour").order_by("pk")
    found = ((row, renewal.held_for(row, now)) for row in rows if row.is_open)
    return [(row, words) for row, words in found if words]


def open_requests(team: Team) -> list[QuotaRequest]:
    """Return a team's requests that are open or on their way, newest first."""
    statuses = [*OPEN_STATUSES, RequestStatus.SCHEDULED, RequestStatus.APPLYING]
    return list(
        QuotaRequest.objects.filter(workspace__team=team, status__in=statuses)
        .select_related("workspace__cluster", "flavour", "requester", "approval")
        .order_by("-created_at", "-pk")[:20]
    )


def holders_of_use(user: User, workspace: Workspace) -> str:
    """Return the role group that a person belongs to in a workspace's namespace: "leads", "members" or ""."""
    from apps.teams import scope

    if user.pk in scope.holders_of_role("team_lead", team_id=workspace.team_id):
        return "leads"
    return "members" if user.pk in scope.members(workspace.team_id) else ""


__all__ = [
    "CALENDAR_DAYS",
    "CalendarStep",
    "ChangeEstimate",
    "DatedQuota",
    "PlanRow",
    "PoolRow",
    "QuotaRow",
    "all_best_effort",
    "broken_promises",
    "coming_quotas",
    "estimate_change",
    "guaranteed_word",
    "holders_of_use",
    "open_requests",
    "plan_rows",
    "pool_calendar",
    "pool_rows",
    "quota_rows",
    "request_evidence",
    "room_over_time",
    "standing_for",
    "team_quota_rows",
    "visible_pools",
    "workspace_for_namespace",
    "workspaces_of",
]
