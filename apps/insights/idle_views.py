"""Pages of idle workloads: list, one case with its owner's answer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.urls import reverse

from apps.core import clock
from apps.core.errors import Conflict
from apps.core.permissions import may
from apps.core.views import ActionView, Crumb, DetailView, ListView
from apps.insights import idle, idle_actions, selectors
from apps.insights.actions import DECIDE
from apps.insights.choices import IdleStatus
from apps.insights.events import IDLE_EXPORTED
from apps.insights.forms import KeepForm
from apps.insights.models import IdleCase
from apps.insights.tables import IDLE_TONES, IdleCaseFilter, IdleCaseTable

#: How saved time is counted, in the words of every page that shows it.
SAVED_RULE = (
    "Counted from the moment it was stopped until it is started again or gone, at most 30 days: nobody can know when "
    "it would have ended by itself."
)


def _all() -> Any:
    return IdleCase.objects.select_related("team__unit", "workspace__cluster", "flavour", "stop_order", "answered_by")


def case_url(case: IdleCase) -> str:
    """Return the address of a case."""
    return reverse("insights:idle-detail", kwargs={"case_uid": case.uid})


def list_crumb() -> Crumb:
    """Return the way back to the list."""
    return Crumb("Idle workloads", reverse("insights:idle-list"))


class IdleList(ListView):
    """The idle workloads of the teams in scope."""

    title = "Idle workloads"
    intro = "What held GPUs and did nothing, by the approved idle policy of its workspace, and what became of it."
    permission = "insights.finding.view"
    queryset = IdleCase.objects.select_related("team", "workspace__cluster", "flavour")
    table_class = IdleCaseTable
    filterset_class = IdleCaseFilter
    export_event = IDLE_EXPORTED
    empty_title = "Nothing is idle"
    empty_text = "Workloads are only looked at where the workspace has an approved idle policy."
    empty_icon = "hourglass"


class IdleDetail(DetailView):
    """One idle workload: since when, how that is known, what happens next."""

    permission = "insights.finding.view"
    queryset = staticmethod(_all)
    url_kwarg = "case_uid"
    template_name = "insights/idle_detail.html"
    object: IdleCase

    def get_title(self) -> str:
        """The workload."""
        return f"{self.object.workload_kind} {self.object.workload_name}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [list_crumb()]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the hours, the policy, what was saved and what the person may do."""
        case = self.object
        may_decide = may(self.request.user, DECIDE, case)
        return super().get_context(
            case=case,
            tones=IDLE_TONES,
            hours=selectors.hours_of(case),
            policy=idle.words(case.policy),
            saved=selectors.saved_by([case]),
            saved_rule=SAVED_RULE,
            cannot_stop=idle.cannot_stop(case),
            may_answer=may_decide and case.status in idle.ASKED,
            may_start=may_decide and case.status in (IdleStatus.STOPPING, IdleStatus.STOPPED),
            starting=case.stop_order is not None and case.stop_order.status == "undoing",
            **extra,
        )


class _Answer(ActionView):
    """Base of an answer."""

    queryset = staticmethod(_all)
    permission = DECIDE
    url_kwarg = "case_uid"
    object: IdleCase
    takes: tuple[IdleStatus, ...] = idle.ASKED

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the case."""
        return [list_crumb(), Crumb(self.object.workload_name, case_url(self.object))]

    def check_state(self) -> None:
        """Only where it waits for this answer."""
        if self.object.status not in self.takes:
            raise Conflict(
                f"This is {IdleStatus(self.object.status).label.lower()}: it waits for no such answer.",
                current={"status": self.object.status, "version": self.object.version},
            )


class Keep(_Answer):
    """Keep it for a while."""

    title = "Keep it"
    intro = "It runs on. Idle still at that time, the leads are asked again; busy again, the case closes by itself."
    form_class = KeepForm
    submit_label = "Keep it"
    success_message = "Kept."

    def get_initial(self) -> dict[str, Any]:
        """A day."""
        return {"until": clock.now() + timedelta(days=1)}

    def perform(self, form: Any) -> str:
        """Keep it."""
        data = form.cleaned_data
        idle_actions.keep(
            self.object.pk, data["until"], data["reason"], actor=self.actor, expected_version=self.expected_version
        )
        return case_url(self.object)


class StopNow(_Answer):
    """Stop it without waiting."""

    title = "Stop it now"
    intro = "Its GPUs are given back within a minute. Nothing is deleted: it can be started again as it was."
    submit_label = "Stop it now"
    danger = True
    success_message = "It is being stopped."

    def perform(self, form: Any) -> str:
        """Stop it."""
        idle_actions.stop_now(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        return case_url(self.object)


class StartAgain(_Answer):
    """Start a stopped workload again."""

    title = "Start it again"
    intro = "It is started as it was before; whether there is room for it at once is for the cluster to say."
    submit_label = "Start it again"
    success_message = "It is being started again."
    takes = (IdleStatus.STOPPING, IdleStatus.STOPPED)

    def perform(self, form: Any) -> str:
        """Start it."""
        idle_actions.start_again(self.object.pk, actor=self.actor)
        return case_url(self.object)


__all__ = ["IdleDetail", "IdleList", "Keep", "StartAgain", "StopNow"]
