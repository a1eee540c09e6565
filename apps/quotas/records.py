"""How a quota request is written down: its words, events, estimate, exact change, objects and plan."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

from apps.core import clock
from apps.core.formats import datetime_utc
from apps.quotas import book, events, kueue_state, recurrence, renewal
from apps.quotas.assess import Assessment
from apps.quotas.change import Asked, creation_leaves, held, quota_leaves
from apps.quotas.choices import BorrowMode, LendMode, RequestStatus, Rung
from apps.quotas.cluster_side import close_plans, declaration_of, declared_manifests, request_plan
from apps.quotas.ladder_manifests import at_rung, restored
from apps.quotas.ledger import Holding, overlay_all
from apps.quotas.manifests import Manifest, with_quota, workspace_manifests
from apps.quotas.models import Quota, QuotaRequest, Workspace


def borrow_words(mode: str, limit: int) -> str:
    """Return a borrow setting in words."""
    if mode == BorrowMode.LIMITED:
        return f"may borrow {limit:,}"
    return "may borrow without limit" if mode == BorrowMode.UNLIMITED else "no borrowing"


def span_words(start: datetime, end: datetime | None) -> str:
    """Return a window in words."""
    return f"from {datetime_utc(start)}" + (f" until {datetime_utc(end)}" if end else ", without end")


def lend_words(mode: str, limit: int) -> str:
    """Return how much of what idles is lent, in words."""
    if mode == LendMode.LIMITED:
        return f"lends up to {limit:,}"
    return "lends nothing" if mode == LendMode.NONE else "lends all that is idle"


def held_words(holding: Holding) -> str:
    """Return what is held in words: the number, how far to borrow, and what is not usual of lending and serving."""
    parts = [f"{holding.guaranteed:,}", borrow_words(holding.borrow_mode, holding.borrow_limit)]
    if holding.lend_mode != LendMode.ALL:
        parts.append(lend_words(holding.lend_mode, holding.lend_limit))
    if holding.serving:
        parts.append(f"{holding.serving:,} kept for serving")
    return ", ".join(parts)


def describe(request: QuotaRequest) -> str:
    """Return a request in one line."""
    line = (
        f"{request.guaranteed:,} × {request.flavour} for {request.workspace.namespace} on {request.workspace.cluster}"
    )
    if request.borrow_mode != BorrowMode.NONE:
        line += f", {borrow_words(request.borrow_mode, request.borrow_limit)}"
    if repeats := recurrence.parse(request.recurrence):
        line += f", {recurrence.words(repeats)}"
    return line + (f", until {datetime_utc(request.valid_until)}" if request.valid_until else "")


def event_of(request: QuotaRequest, detail: str = "") -> events.RequestEvent:
    """Return the payload of an event about a request."""
    return events.RequestEvent(
        request_uid=request.uid,
        workspace_uid=request.workspace.uid,
        flavour=request.flavour.slug,
        what=describe(request),
        guaranteed=request.guaranteed,
        borrow_mode=str(request.borrow_mode),
        borrow_limit=request.borrow_limit,
        valid_from=request.valid_from,
        valid_until=request.valid_until,
        detail=detail,
    )


def asked_of(request: QuotaRequest) -> Asked:
    """Return what a stored request asks for, read from its columns (never from a copy)."""
    return Asked(
        request_uid=str(request.uid),
        workspace_uid=str(request.workspace.uid),
        cluster=request.workspace.cluster.slug,
        namespace=request.workspace.namespace,
        flavour=request.flavour.slug,
        resource=request.flavour.resource_name,
        guaranteed=request.guaranteed,
        borrow_mode=str(request.borrow_mode),
        borrow_limit=request.borrow_limit,
        valid_from=request.valid_from,
        valid_until=request.valid_until,
        recurrence=request.recurrence,
        lend_mode=str(request.lend_mode),
        lend_limit=request.lend_limit,
        serving=request.serving,
    )


def estimate_of(assessment: Assessment) -> dict[str, Any]:
    """Return the estimate as it is frozen with the request: decimals as strings, the rate it stands on by uid."""
    estimate, reach = assessment.estimate, assessment.estimate_maximum
    amount = estimate.amount.quantized() if estimate.amount is not None else None
    most = reach.amount if reach is not None else None
    return {
        "amount": str(amount.amount) if amount is not None else None,
        "currency": amount.currency if amount is not None else None,
        "rate_uid": str(estimate.rate_uid) if estimate.rate_uid else None,
        "hours_per_month": estimate.hours_per_month,
        "basis": estimate.basis,
        "unknown_reason": estimate.unknown_reason,
        "maximum_amount": str(most.quantized().amount) if most is not None else None,
        "delta_units": assessment.delta_units,
        "delta_gpus_milli": int(assessment.delta_gpus * 1000),
    }


def adds_later(request: QuotaRequest) -> int:
    """Return the units that a stored request adds at the most where it adds fewer at its start; 0: no more later."""
    most = int(request.estimate.get("delta_units") or 0)
    before = int((request.change.get("before") or {}).get("guaranteed", 0))
    return most if most > max(0, request.guaranteed - before) else 0


def change_of(request: QuotaRequest, assessment: Assessment) -> dict[str, Any]:
    """Return the frozen change: what is held before and shows again after, and a leaf per cluster and field path."""
    asked = asked_of(request)
    creates = made_anew(request.workspace)
    leaves: list[dict[str, str]] = []
    if creates:
        leaves += creation_leaves(asked.cluster, manifests_for(request))
    queued = kueue_state.queued(request.workspace)
    leaves += quota_leaves(asked, queued=queued)
    found: dict[str, Any] = {
        "before": held(assessment.before),
        "at_end": held(assessment.at_end) if request.valid_until is not None else None,
        "creates_workspace": creates,
        "leaves": leaves,
    }
    if queued:
        found["queue"] = request.workspace.namespace
    if assessment.draft.renews is not None:
        found["renews"] = assessment.draft.renews.plain()
    return found


def made_anew(workspace: Workspace) -> bool:
    """Whether a granted quota brings the workspace's objects whole: its first one, or one that restores it."""
    return workspace.archived_at is not None or declaration_of(workspace) is None


def manifests_at(
    workspace: Workspace,
    at: datetime,
    *,
    replaced: dict[int, list[Holding]] | None = None,
    resources: Collection[str] = (),
    anew: bool = False,
) -> list[Manifest]:
    """Return the workspace's objects as they should be at `at`.

    What is declared already stays byte for byte; only GPU limits that stand there, and those of `resources` (which an
    approval sets), follow the dated quotas. A workspace without a declaration is rendered whole, and so is an archived
    one for a quota that restores it (`anew`).
    """
    stored = declared_manifests(workspace)
    if stored is None or anew:
        fresh = rendered(workspace, at, kueue_state.state_of(workspace.cluster), replaced=replaced)
        # Its row may stand on the ladder still; what comes with a granted quota admits.
        return at_rung(restored(stored or [], fresh), Rung.NONE, holds=True)
    found = book.numbers(workspace, at, replaced=replaced, queued=kueue_state.queued(workspace))
    limits = found.limits
    known = {key for manifest in stored for key in manifest.get("spec", {}).get("hard", {})}
    wanted = {name: units for name, units in limits.items() if f"requests.{name}" in known or name in resources}
    result = with_quota(stored, wanted, found.shares, resources)
    # Where something is held the workspace admits again, in the same generation that raises its limits.
    holds = any(units for name, units in limits.items() if "/" in name)
    return at_rung(result, Rung.NONE, holds=True) if holds else result


def rendered(
    workspace: Workspace,
    at: datetime,
    state: kueue_state.State,
    *,
    replaced: dict[int, list[Holding]] | None = None,
) -> list[Manifest]:
    """Return a workspace's objects rendered whole from its rows, for a cluster whose baseline is `state`."""
    found = book.numbers(workspace, at, replaced=replaced, queued=state.queues)
    return workspace_manifests(book.spec_of(workspace, found.limits, found.shares, state))


def own_holdings(request: QuotaRequest) -> list[Holding]:
    """Return what the request's workspace holds of its flavour, over all time."""
    rows = Quota.objects.filter(workspace=request.workspace_id, flavour=request.flavour_id).order_by("valid")
    return [book.holding(row) for row in rows]


def effective_start(request: QuotaRequest, at: datetime) -> datetime:
    """Return when the request would begin if granted at `at`: never in the past."""
    return max(request.valid_from, at.replace(microsecond=0))


def windows_left(request: QuotaRequest, at: datetime) -> list[tuple[datetime, datetime | None]]:
    """Return the dated windows that a grant at `at` would lay over; empty where nothing of its time is left.

    A plain renewal leaves out what another request was granted since it was submitted.
    """
    windows = windows_ahead(request, at)
    taken = renewal.granted_beside(request) if windows else []
    return renewal.left_over(windows, taken) if taken else windows


def windows_ahead(request: QuotaRequest, at: datetime) -> list[tuple[datetime, datetime | None]]:
    """Return the dated windows of a request from `at` on; empty where all of its time has passed."""
    start = effective_start(request, at)
    if request.valid_until is not None and request.valid_until <= start:
        return []
    return renewal.windows_of(start, request.valid_until, recurrence.parse(request.recurrence))


def overtaken(request: QuotaRequest, at: datetime) -> bool:
    """Whether another request, granted meanwhile, counts in all that is left of a plain renewal's time."""
    return request.is_renewal and bool(windows_ahead(request, at)) and not windows_left(request, at)


def holdings_in(request: QuotaRequest, windows: Sequence[tuple[datetime, datetime | None]]) -> list[Holding]:
    """Return what the request asks for as holdings, one a window."""
    return [
        Holding(
            low,
            high,
            request.guaranteed,
            request.borrow_mode,
            request.borrow_limit,
            lend_mode=request.lend_mode,
            lend_limit=request.lend_limit,
            serving=request.serving,
        )
        for low, high in windows
    ]


def manifests_for(request: QuotaRequest) -> list[Manifest]:
    """Return the objects as they will be when the request's first window begins, were it granted now."""
    left = windows_left(request, clock.now()) or [(request.valid_from, request.valid_until)]
    after = overlay_all(own_holdings(request), holdings_in(request, left))
    return manifests_at(
        request.workspace,
        left[0][0],
        replaced={request.flavour_id: after},
        resources=[request.flavour.resource_name],
        anew=made_anew(request.workspace),
    )


def plan_request(request: QuotaRequest) -> None:
    """Ask for a plan of the request (the cluster's dry run) as evidence beside its approval, and remember it."""
    workspace = request.workspace
    if overtaken(request, clock.now()):
        close_plans(request.uid)
        return
    plan = request_plan(workspace, request.uid, manifests_for(request))
    if request.plan_id != plan.pk:
        request.plan = plan
        request.save(update_fields=["plan"])


def auto_approved(
    team_id: int, cluster_id: int, flavour_ids: list[int], since: datetime, *, but: uuid.UUID
) -> tuple[Fraction, Decimal]:
    """Return (GPUs, monthly cost) that policies approved for a team in a pool since a time; only what was added.

    The request `but` does not count itself. Costs are those frozen with the requests, in the ledger currency.
    """
    rows = QuotaRequest.objects.filter(
        workspace__team_id=team_id,
        workspace__cluster_id=cluster_id,
        flavour_id__in=flavour_ids,
        approval__automatic=True,
        approval__submitted_at__gte=since,
        status__in=[
            RequestStatus.WAITING,
            RequestStatus.SCHEDULED,
            RequestStatus.APPLYING,
            RequestStatus.ACTIVE,
        ],
    ).exclude(uid=but)
    gpus, cost = Fraction(0), Decimal(0)
    for estimate in rows.values_list("estimate", flat=True):
        gpus += max(Fraction(0), Fraction(int(estimate.get("delta_gpus_milli") or 0), 1000))
        cost += max(Decimal(0), Decimal(estimate.get("amount") or 0))
    return gpus, cost


__all__ = [
    "adds_later",
    "asked_of",
    "auto_approved",
    "borrow_words",
    "change_of",
    "describe",
    "effective_start",
    "estimate_of",
    "event_of",
    "held_words",
    "holdings_in",
    "lend_words",
    "made_anew",
    "manifests_at",
    "manifests_for",
    "overtaken",
    "own_holdings",
    "plan_request",
    "span_words",
    "windows_ahead",
    "windows_left",
]
