"""Pages of findings: list, evidence, give back, snooze, dismiss."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, cast

from django.urls import reverse

from apps.accounts.models import User
from apps.core import clock, formats
from apps.core.errors import Conflict, Invalid, NotVisible
from apps.core.permissions import may
from apps.core.sweeps import nudge
from apps.core.views import ActionView, CreateView, Crumb, DetailView, ListView
from apps.insights import actions, findings, selectors, tasks
from apps.insights.choices import FindingKind, FindingStatus
from apps.insights.events import FINDINGS_EXPORTED
from apps.insights.forms import DismissForm, GiveBackForm, SnoozeForm
from apps.insights.models import Finding
from apps.insights.selectors import Number
from apps.insights.tables import FINDING_TONES, FindingFilter, FindingTable
from apps.quotas import actions as quota_actions
from apps.quotas import selectors as quota_selectors


def _all() -> Any:
    return Finding.objects.select_related(
        "team__unit", "workspace__team", "cluster", "flavour", "request", "decided_by"
    )


def finding_url(finding: Finding) -> str:
    """Return the address of a finding."""
    return reverse("insights:finding-detail", kwargs={"finding_uid": finding.uid})


def list_crumb() -> Crumb:
    """Return the way back to the list."""
    return Crumb("Findings", reverse("insights:finding-list"))


class FindingList(ListView):
    """The findings a person may see."""

    title = "Findings"
    intro = "What could be saved, and what is unusual: with evidence, price and a proposal; looked for once a day."
    permission = "insights.finding.view"
    queryset = Finding.objects.select_related("team", "cluster")
    table_class = FindingTable
    filterset_class = FindingFilter
    export_event = FINDINGS_EXPORTED
    empty_title = "No findings"
    empty_text = (
        "Nothing lay idle or was larger than it needs to be when the metered hours were last looked at, once a day."
    )
    empty_icon = "search"

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Offer idle workloads, and another look to those who run the platform."""
        found = [("Idle workloads", reverse("insights:idle-list")), ("By workload", reverse("insights:workload-list"))]
        if may(self.request.user, "clusters.cluster.manage"):
            found.insert(0, ("Look again now", reverse("insights:look")))
        return found


class Look(CreateView):
    """Look for findings now instead of with the next day."""

    title = "Look for findings now"
    intro = (
        "The last four weeks of every cluster are read again, and the workloads that reports show. Findings that are "
        "no longer so close by themselves."
    )
    permission = "clusters.cluster.manage"
    queryset = Finding.objects.all()
    submit_label = "Look now"
    success_message = "A worker looks now; the list fills within a minute."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [list_crumb()]

    def scope_object(self) -> Any:
        """Looking is for those who run the platform, not a team."""
        return None

    def perform(self, form: Any) -> str:
        """Ask a worker."""
        nudge(tasks.look_again)
        return reverse("insights:finding-list")


class FindingDetail(DetailView):
    """One finding: the evidence, where each number comes from, and what to do."""

    permission = "insights.finding.view"
    queryset = staticmethod(_all)
    url_kwarg = "finding_uid"
    object: Finding

    def get_template(self) -> str:
        """Capacity and quota are told differently."""
        if self.object.kind == FindingKind.CAPACITY_LOST:
            return "insights/capacity_lost.html"
        hoard = self.object.kind == FindingKind.HOARDED_QUOTA
        return "insights/finding_detail.html" if hoard else "insights/money_finding.html"

    template_name = "insights/finding_detail.html"

    def scope_object(self) -> Any:
        """The platform's own findings hang on no team: `visible_to` has decided who sees them."""
        return self.object if self.object.team_id is not None else None

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [list_crumb()]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add evidence, proposal and what the person may do."""
        finding, user = self.object, self.request.user
        days = selectors.evidence_days(finding)
        is_open = finding.status in findings.OPEN
        may_decide = is_open and may(user, actions.DECIDE, finding)
        workspace = finding.workspace
        return super().get_context(
            finding=finding,
            tones=FINDING_TONES,
            days=days,
            figure=selectors.evidence_figure(finding, days) if days else None,
            numbers=numbers_of(finding),
            cost=selectors.cost_of(finding),
            monthly=selectors.monthly_of(finding),
            overlap=selectors.overlap_of(finding, user),
            lost_steps=[
                {**step, "at": datetime.fromisoformat(step["at"])} for step in finding.evidence.get("steps", [])
            ],
            is_open=is_open,
            may_decide=may_decide,
            may_give_back=may_decide and workspace is not None and may(user, "quotas.request.create", workspace),
            blocking=selectors.open_request(finding) if is_open else None,
            pool_url=_pool_url(finding),
            workloads=selectors.evidence_workloads(finding),
            effects=selectors.evidence_effects(finding),
            unusual=selectors.evidence_hours(finding),
            action=selectors.action_of(finding) if may_decide else None,
            realised=selectors.realised_of(finding),
            day_url=_day_url(finding),
            **extra,
        )


def _day_url(finding: Finding) -> str:
    day = finding.evidence.get("day")
    if finding.team is None or not day:
        return ""
    return reverse("costs:team-day", kwargs={"team_slug": finding.team.slug, "day": day})


def _pool_url(finding: Finding) -> str:
    uid = finding.evidence.get("pool")
    return reverse("quotas:pool-detail", kwargs={"pool_uid": uid}) if uid else ""


def numbers_of(finding: Finding) -> list[Number]:
    """Return the evidence number by number, each with the page where it can be checked."""
    seen = finding.evidence
    if finding.kind != FindingKind.HOARDED_QUOTA or finding.workspace is None or finding.team is None:
        return []
    place = reverse("quotas:workspace-detail", kwargs={"workspace_uid": finding.workspace.uid})
    days = selectors.evidence_days(finding)
    peak_day = max(days, key=lambda day: day.peak) if days else None
    last_month = f"{finding.window.upper:%Y-%m}"
    costs = reverse("costs:team-month", kwargs={"team_slug": finding.team.slug, "month": last_month})
    free = seen.get("free_gpu_ms")
    return [
        Number("Guaranteed now", formats.number(seen["guaranteed"]), "units", place),
        Number(
            "Most in use at once", formats.number(seen["peak"]), "units", peak_day.url if peak_day else "",
            f"on {formats.day(peak_day.day)}" if peak_day else "",
        ),
        Number("In use at most in 95 % of the hours", formats.number(seen["p95"]), "units", costs),
        Number("Days with any use", f"{seen['days_used']} of {len(seen['days'])}", "", costs),
        Number("Guaranteed but unused", formats.gpu_hours(seen["unused_gpu_ms"]), "GPU-hours", costs),
        Number(
            "Of it physically free", formats.gpu_hours(free), "GPU-hours" if free is not None else "", costs,
            "" if free is not None else "the window is not priced yet",
        ),
        Number("Hours metered", f"{seen['hours_metered']} of {seen['hours_expected']}", "", costs),
        Number(
            "Others waiting for this GPU model", formats.number(seen["waiting_requests"]), "requests",
            reverse("quotas:pool-list"), "of other teams or this one; nobody is named",
        ),
    ]  # fmt: skip


class _Decide(ActionView):
    """Base of what is decided about a finding."""

    queryset = staticmethod(_all)
    permission = actions.DECIDE
    url_kwarg = "finding_uid"
    object: Finding

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the finding."""
        return [list_crumb(), Crumb("Finding", finding_url(self.object))]

    def check_state(self) -> None:
        """Only what is open can be decided."""
        if self.object.status not in findings.OPEN:
            raise Conflict(
                f"This finding is {FindingStatus(self.object.status).label.lower()}: nothing is left to decide.",
                current={"status": self.object.status, "version": self.object.version},
            )


class Snooze(_Decide):
    """Leave a finding alone until a date."""

    title = "Snooze"
    intro = "It stays out of the way until then, and comes back if it is still so."
    form_class = SnoozeForm
    submit_label = "Snooze"
    success_message = "Snoozed."

    def get_initial(self) -> dict[str, Any]:
        """Two weeks."""
        return {"until": clock.now() + timedelta(days=14)}

    def perform(self, form: Any) -> str:
        """Snooze it."""
        data = form.cleaned_data
        actions.snooze(
            self.object.pk, data["until"], data["reason"], actor=self.actor, expected_version=self.expected_version
        )
        return finding_url(self.object)


class Dismiss(_Decide):
    """Say that a finding is none."""

    title = "Dismiss"
    intro = "It is closed. It comes back after 90 days, or once it has grown by a quarter."
    form_class = DismissForm
    submit_label = "Dismiss it"
    success_message = "Dismissed."

    def perform(self, form: Any) -> str:
        """Dismiss it."""
        actions.dismiss(
            self.object.pk, form.cleaned_data["reason"], actor=self.actor, expected_version=self.expected_version
        )
        return finding_url(self.object)


class GiveBack(_Decide):
    """Ask once, showing exactly what changes and who has to approve it; then request the lower number."""

    title = "Give it back"
    permission = "quotas.request.create"
    template_name = "insights/give_back.html"
    form_class = GiveBackForm
    submit_label = "Give it back"
    success_message = "Requested. The page says what it still takes."

    def prepare(self) -> None:
        """Load the finding. Raises NotVisible for one that is about no quota."""
        super().prepare()
        if self.object.kind != FindingKind.HOARDED_QUOTA:
            raise NotVisible

    def check_state(self) -> None:
        """Open, still held, still more than proposed, and no other request in the way."""
        super().check_state()
        if (other := selectors.open_request(self.object)) is not None:
            raise Conflict(
                "A request for this workspace and flavour is open. Correct or withdraw that one first.",
                current={"request": str(other.uid)},
            )
        self._terms()

    def _terms(self) -> tuple[Any, dict[str, Any]]:
        quota = actions.held_now(self.object)
        if quota is None:
            raise Conflict("The workspace holds this quota no longer.", current={"status": self.object.status})
        return quota, actions.terms_of(self.object, quota)

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add what changes, what it saves and who has to approve."""
        user = cast("User", self.request.user)
        shown: dict[str, Any] = {}
        if not extra.get("blocked"):
            try:
                quota, terms = self._terms()
                draft = quota_actions.checked_draft(
                    quota.workspace_id, quota.flavour_id, terms["guaranteed"], terms["borrow_mode"],
                    terms["borrow_limit"], terms["valid_from"], terms["valid_until"], user=user,
                    extras=terms["extras"],
                )  # fmt: skip
                shown = {
                    "quota": quota, "keep": terms["guaranteed"], "back": quota.guaranteed - terms["guaranteed"],
                    "change": quota_selectors.estimate_change(draft, user),
                }  # fmt: skip
            except (Invalid, Conflict) as error:
                shown = {"problems": [str(error)]}
        return super().get_context(finding=self.object, **shown, **extra)

    def perform(self, form: Any) -> str:
        """Request the lower number."""
        request = actions.give_back(
            self.object.pk,
            actor=self.actor,
            expected_version=self.expected_version,
            reason=form.cleaned_data.get("reason", ""),
        )
        return reverse("quotas:request-detail", kwargs={"request_uid": request.uid})


__all__ = ["Dismiss", "FindingDetail", "FindingList", "GiveBack", "Look", "Snooze"]
