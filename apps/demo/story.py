"""What is under way in the sample company: the leads request quota, the unit owner decides, one request waits."""

from __future__ import annotations

from apps.accounts.models import User
from apps.approvals import actions as approvals
from apps.approvals.choices import Verdict
from apps.approvals.selectors import waiting_for
from apps.core import clock
from apps.core.actor import Actor, Channel
from apps.core.errors import CommonsError
from apps.demo import company
from apps.demo.seed import SEEDER, Context
from apps.quotas import actions as quotas
from apps.quotas.choices import BorrowMode
from apps.quotas.imports import import_quota
from apps.quotas.models import Quota, QuotaRequest, Workspace


def _person(context: Context, key: str) -> User:
    return context.users.get(key) or User.objects.get(email=f"{key}@{company.MAIL_DOMAIN}")


def _actor(context: Context, key: str) -> Actor:
    return Actor.of(_person(context, key), Channel.COMMAND)


def _request(context: Context, plan: company.TeamPlan, guaranteed: int, borrow_limit: int, reason: str) -> QuotaRequest:
    workspace = Workspace.objects.get(team__slug=plan.slug, cluster=context.cluster)
    return quotas.request_quota(
        workspace.pk,
        context.flavour.pk,
        guaranteed,
        BorrowMode.LIMITED if borrow_limit else BorrowMode.NONE,
        borrow_limit,
        None,
        None,
        reason,
        actor=_actor(context, plan.lead),
    )


def _decide(context: Context, request: QuotaRequest, verdict: str, reason: str) -> None:
    """Let the unit owner decide, and where the policy asks it, the platform admin; nobody twice."""
    request.refresh_from_db()
    for key in ("vp", "admin"):
        approval = waiting_for(_person(context, key)).filter(pk=request.approval_id or 0).first()
        if approval is not None:
            approvals.decide(
                approval.pk,
                verdict,
                reason,
                actor=_actor(context, key),
                expected_digest=approval.subject_digest,
            )


def _until_now(context: Context, plan: company.TeamPlan) -> None:
    """Write down what the team held since the history was imported: metering it took its time."""
    last = Quota.objects.filter(workspace__team__slug=plan.slug, workspace__cluster=context.cluster).order_by("valid")
    before, now = last.last(), clock.now()
    if before is None or before.valid.upper is None or before.valid.upper >= now:
        return
    import_quota(
        before.workspace_id,
        before.flavour_id,
        before.guaranteed,
        before.borrow_mode,
        before.borrow_limit,
        before.valid.upper,
        now,
        "What the team held before the portal",
        actor=SEEDER,
    )


def todays_quota(context: Context) -> str:
    """Each lead requests what the team holds from now on; the unit owner, and for much the platform, approves."""
    made = 0
    for plan in company.TEAMS:
        requests = QuotaRequest.objects.filter(workspace__team__slug=plan.slug).order_by("pk")
        request = requests.first()
        if request is None:
            _until_now(context, plan)
            request = _request(
                context, plan, plan.guaranteed, plan.borrow_limit, "Carry on with the team's present share of the pool."
            )
            made += 1
        _decide(context, request, Verdict.APPROVE, "As held before, within the budget.")
    return f"{made} requests approved" if made else "as before"


def under_way(context: Context) -> str:
    """One request waits for the unit owner, one was rejected."""
    if QuotaRequest.objects.count() > len(company.TEAMS):
        return "as before"
    research = next(plan for plan in company.TEAMS if plan.slug == "research")
    marketing = next(plan for plan in company.TEAMS if plan.slug == "marketing")
    try:
        rejected = _request(
            context, marketing, marketing.guaranteed + 5, 0, "Room for more ranking experiments before the season."
        )
        _decide(
            context,
            rejected,
            Verdict.REJECT,
            "The experiments fit into what the team holds; most of it idles at night.",
        )
        _request(
            context, research, research.guaranteed + 4, research.borrow_limit, "Ablation study for the winter paper."
        )
    except CommonsError as error:
        return f"not made: {error}"
    return "one waits, one was rejected"
