"""Quota requests as a subject of approval: what is approved, by whom not, and which facts policies may ask about."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

from django.urls import reverse

from apps.approvals.ports import MONTHLY_COST, Change, FactContext, FactValue, Leaf, Span, describe_fact, read_fact
from apps.clusters.choices import DeviceClass
from apps.core import clock
from apps.core.errors import NotVisible
from apps.core.formats import datetime_utc
from apps.provisioning.choices import PlanStatus
from apps.quotas import book, granting, kueue_state, recurrence, renewal
from apps.quotas.assess import Draft, guaranteed_word
from apps.quotas.change import canonical
from apps.quotas.choices import BorrowMode
from apps.quotas.ledger import Room
from apps.quotas.models import QuotaRequest
from apps.quotas.records import (
    asked_of,
    auto_approved,
    borrow_words,
    describe,
    lend_words,
    made_anew,
    overtaken,
    windows_left,
)
from apps.teams import scope

if TYPE_CHECKING:
    from apps.approvals.models import Grant

SUBJECT_TYPE = "quotas.request"
#: What was approved by policy counts for so long (design §6).
COUNT_DAYS = 30
YES, NO = "yes", "no"


def describe_facts() -> None:
    """Say what the facts of quota requests mean; the policy pages show it."""
    for name, label, meaning, unit in (
        ("monthly_cost_change", "Monthly cost change", "What the change adds to the team's cost in a month.", "money"),
        ("delta_gpus", "GPUs added", "Guaranteed GPUs after the change minus before, in whole devices.", "GPUs"),
        ("delta_cores", "Cores added", "Guaranteed cores of a CPU class after the change minus before.", "cores"),
        ("guaranteed", "Guaranteed", "Units of the flavour guaranteed after the change.", ""),
        ("borrow_mode", "Borrowing", "none, limited or unlimited.", ""),
        ("borrow_limit", "Borrow limit", "Units that may be borrowed after the change.", ""),
        ("environment", "Environment", "development, staging or production.", ""),
        ("fits_now", "Fits", "yes where the pool has room over the whole time, else no.", ""),
        (
            "within_budget",
            "Within budget",
            "yes where the cost change is at most what is left, and no budget is exhausted.",
            "",
        ),
        ("auto_approved_30d_gpus", "Approved by policy in 30 days", "GPUs so added for the team in the pool.", "GPUs"),
        ("auto_approved_30d_cost", "Approved by policy in 30 days", "Monthly cost so added.", "money"),
    ):
        describe_fact(name, label=label, meaning=meaning, unit=unit)


def facts_of(
    draft: Draft,
    *,
    delta_gpus: Fraction,
    cost: Decimal | None,
    fits: bool,
    at: datetime,
    but: uuid.UUID,
) -> dict[str, FactValue]:
    """Return the facts of a draft or a stored request (`but`: its uid); what is unknown is left out."""
    workspace = draft.workspace
    flavours = [flavour.pk for flavour in draft.pool.flavours.all()]
    counted_gpus, counted_cost = auto_approved(
        workspace.team_id, workspace.cluster_id, flavours, at - timedelta(days=COUNT_DAYS), but=but
    )
    # Cores are no GPUs: rules about GPUs find no such fact in a request for a CPU class, and are false there.
    counted = "delta_cores" if draft.flavour.device_class == DeviceClass.CPU else "delta_gpus"
    facts: dict[str, FactValue] = {
        counted: _exact(delta_gpus),
        "guaranteed": draft.guaranteed,
        "borrow_mode": str(draft.borrow_mode),
        "borrow_limit": draft.borrow_limit,
        "environment": str(workspace.environment),
        "fits_now": YES if fits else NO,
        "auto_approved_30d_gpus": _exact(counted_gpus),
        "auto_approved_30d_cost": counted_cost,
    }
    if cost is not None:
        facts[MONTHLY_COST] = cost
        facts["monthly_cost_change"] = cost
    asked = FactContext(SUBJECT_TYPE, but, workspace.team_id, workspace.team.unit_id, at)
    if (cost is None or cost >= 0) and read_fact("team.budget_exhausted", asked) == YES:
        facts["within_budget"] = NO
    elif cost is not None:
        left = read_fact("team.budget_remaining", asked)
        if isinstance(left, int | Decimal):
            facts["within_budget"] = YES if cost <= left else NO
    return facts


def _exact(value: Fraction) -> int | Decimal:
    """Return a count of GPUs as a fact: an integer where it is whole, else in thousandths, rounded up."""
    if value.denominator == 1:
        return value.numerator
    milli = -(-value.numerator * 1000 // value.denominator)
    return Decimal(milli) / 1000


def load(uid: uuid.UUID) -> QuotaRequest:
    """Return a request with what its descriptions need. Raises NotVisible where it is gone."""
    request = (
        QuotaRequest.objects.select_related(
            "workspace__team__unit", "workspace__cluster", "flavour", "plan", "requester"
        )
        .filter(uid=uid)
        .first()
    )
    if request is None:
        raise NotVisible
    return request


def draft_of(request: QuotaRequest) -> Draft | None:
    """Return a stored request as a draft; None where its cluster no longer offers the flavour."""
    pool = book.pool_of(request.workspace.cluster_id, request.flavour_id)
    if pool is None:
        return None
    return Draft(
        request.workspace,
        request.flavour,
        pool,
        request.guaranteed,
        request.borrow_mode,
        request.borrow_limit,
        request.valid_from,
        request.valid_until,
        recurrence=recurrence.parse(request.recurrence),
        lend_mode=request.lend_mode,
        lend_limit=request.lend_limit,
        serving=request.serving,
        renews=renewal.read(request.change),
    )


def room_left(request: QuotaRequest, draft: Draft, at: datetime) -> Room | None:
    """Return the room for a stored request were it granted at `at`; None where all of its time has passed."""
    windows = windows_left(request, at)
    if not windows:
        return None
    view = book.load(draft.pool, windows[0][0])
    place = renewal.place_of(request, at)
    return view.room_in(draft.workspace.pk, draft.flavour, draft.guaranteed, windows, asked_at=place)


def _extra_changes(request: QuotaRequest, cluster: str, held: str, when: str) -> list[Change]:
    """Return what is lent and kept for serving, where either side says something about it."""
    before = request.change["before"]
    lends = (before.get("lend_mode", "all"), before.get("lend_limit", 0))
    found = []
    if lends != (request.lend_mode, request.lend_limit):
        was, then = lend_words(*lends), lend_words(request.lend_mode, request.lend_limit)
        found.append(Change(cluster, held, "lend", was, then, when))
    if before.get("serving", 0) != request.serving:
        was, then = f"{before.get('serving', 0):,}", f"{request.serving:,}"
        found.append(Change(cluster, held, "kept for serving", was, then, when))
    return found


def _queue_blockers(request: QuotaRequest) -> list[str]:
    """Return why Kueue cannot take the quota now, or that the workspace came under Kueue after it was asked for."""
    workspace = request.workspace
    queued = kueue_state.queued(workspace)
    if queued != bool(request.change.get("queue")):
        word = "came into Kueue" if queued else "left Kueue"
        return [
            f"{workspace.namespace} {word} after this was requested: correct it, so that its queue is approved, too."
        ]
    borrows = request.borrow_mode != BorrowMode.NONE
    return kueue_state.blockers(workspace, request.flavour, borrows=borrows, creates=made_anew(workspace))


class QuotaRequestSubject:
    """Registered with the approvals room when the quotas room loads."""

    subject_type = SUBJECT_TYPE
    team_is_side = True
    label = "Quota request"

    def canonical(self, uid: uuid.UUID) -> bytes:
        """Return the exact bytes: the request as its columns stand now, the estimate, the leaves."""
        request = load(uid)
        return canonical(asked_of(request), request.estimate, request.change)

    def leaves(self, uid: uuid.UUID) -> Sequence[Leaf]:
        """Return one leaf per cluster and field path, dated switch-overs included."""
        return [Leaf(leaf["cluster"], leaf["path"], leaf["digest"]) for leaf in load(uid).change["leaves"]]

    def title(self, uid: uuid.UUID) -> str:
        """Return the request in one line."""
        return f"Quota: {describe(load(uid))}"

    def diff(self, uid: uuid.UUID) -> Sequence[Change]:
        """Return what is held before, from the start on, and at the end."""
        request = load(uid)
        cluster = request.workspace.cluster.slug
        held = f"{request.flavour} in {request.workspace.namespace}"
        before, at_end = request.change["before"], request.change["at_end"]
        pool = book.pool_of(request.workspace.cluster_id, request.flavour_id)
        word = guaranteed_word(pool)
        repeats = recurrence.parse(request.recurrence)
        when = f"from {datetime_utc(request.valid_from)}"
        if repeats is not None and request.valid_until is not None:
            when = f"{recurrence.words(repeats)}, {when} until {datetime_utc(request.valid_until)}"
        lines = [
            Change(cluster, held, word, f"{before['guaranteed']:,}", f"{request.guaranteed:,}", when),
            Change(
                cluster,
                held,
                "borrow",
                borrow_words(before["borrow_mode"], before["borrow_limit"]),
                borrow_words(request.borrow_mode, request.borrow_limit),
                when,
            ),
            *_extra_changes(request, cluster, held, when),
        ]
        if request.is_renewal:
            stands = "what another request is granted meanwhile stands"
            lines.append(Change(cluster, held, "beside it", "", stands, "and this fills in the rest of its time"))
        if at_end is not None and request.valid_until is not None:
            after = f"{at_end['guaranteed']:,}, {borrow_words(at_end['borrow_mode'], at_end['borrow_limit'])}"
            ends = f"at the end, {datetime_utc(request.valid_until)}, what is below shows again"
            if repeats is not None:
                ends = "at the end of every window what is below shows again"
            mine = f"{request.guaranteed:,}, {borrow_words(request.borrow_mode, request.borrow_limit)}"
            lines.append(Change(cluster, held, f"{word} and borrow", mine, after, ends))
        if request.change["creates_workspace"]:
            paths = [leaf["path"] for leaf in request.change["leaves"] if "#" not in leaf["path"]]
            done, why = "created", "the workspace's first quota"
            if request.workspace.archived_at is not None:
                done, why = "restored", "granting it restores the archived workspace"
            lines += [Change(cluster, path, "", "", done, why) for path in paths]
        return lines

    def requester_side(self, uid: uuid.UUID) -> set[int]:
        """Return the requester and everybody who will use it as a member of the receiving team."""
        request = load(uid)
        return {request.requester_id} | scope.members(request.workspace.team_id)

    def facts(self, uid: uuid.UUID) -> Mapping[str, FactValue]:
        """Return the facts; the cost is the frozen estimate's, whether it fits is as of now."""
        request = load(uid)
        draft = draft_of(request)
        if draft is None:
            return {}
        at = clock.now()
        room = room_left(request, draft, at)
        fits = room is not None and room.fits
        amount = request.estimate.get("amount")
        return facts_of(
            draft,
            delta_gpus=Fraction(
                int(request.estimate["delta_units"]) * draft.flavour.numerator, draft.flavour.denominator
            ),
            cost=Decimal(amount) if amount is not None else None,
            fits=fits,
            at=at,
            but=request.uid,
        )

    def blockers(self, uid: uuid.UUID, at: datetime) -> Sequence[str]:
        """Return why nobody may approve it now: its time has passed, the flavour is gone, the plan shows a conflict."""
        request = load(uid)
        found: list[str] = []
        if overtaken(request, at):
            found.append(granting.OVERTAKEN)
        elif not windows_left(request, at):
            found.append("The end of the requested time has passed.")
        if book.pool_of(request.workspace.cluster_id, request.flavour_id) is None:
            found.append(f"{request.workspace.cluster} no longer offers {request.flavour}.")
        found += _queue_blockers(request)
        plan = request.plan
        if plan is not None and plan.status == PlanStatus.READY:
            fought = sorted({c["manager"] for entry in plan.entries for c in entry.get("conflicts", [])})
            if fought:
                found.append(
                    f"Somebody else manages fields that it sets: {', '.join(fought)}. Let a platform admin undo that"
                    " on the cluster, or apply again what was approved; then the cluster is asked anew."
                )
        return found

    def url(self, uid: uuid.UUID) -> str:
        """Return the request's page."""
        return reverse("quotas:request-detail", kwargs={"request_uid": uid})

    def summary_template(self, uid: uuid.UUID) -> str:
        """Return the template that shows cost, room, change and plan to the approver."""
        return "quotas/approval_summary.html"

    def summary_context(self, uid: uuid.UUID) -> Mapping[str, object]:
        """Return what that template needs."""
        from apps.quotas.selectors import request_evidence

        return request_evidence(load(uid))

    def queue(self, uid: uuid.UUID) -> str:
        """Return the pool's line, or none for a change that takes nothing more from the pool."""
        request = load(uid)
        if int(request.estimate.get("delta_units") or 0) <= 0:
            return ""
        pool = book.pool_of(request.workspace.cluster_id, request.flavour_id)
        return f"pool:{pool.uid}" if pool is not None else ""

    def spans(self, uid: uuid.UUID, at: datetime) -> Sequence[Span]:
        """Return when it could take GPUs of the pool: whoever wants them at another time need not stand behind it.

        A renewal that asks for no more than what is held for it takes nothing that anybody before it could use.
        """
        from apps.quotas.waitlist import spans_of

        request = load(uid)
        return [] if renewal.place_of(request, at) is not None else spans_of(request, at)

    def on_granted(self, uid: uuid.UUID, grant: Grant) -> None:
        """Lay the quota over and declare the objects; raises CannotTake where the pool is full."""
        granting.on_granted(uid, grant)

    def on_concluded(self, uid: uuid.UUID, status: str, reason: str) -> None:
        """Take note of an end without a grant, or of waiting."""
        granting.on_concluded(uid, status, reason)
