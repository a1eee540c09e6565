"""Pages of opening a closed month again: ask, look at what it touches, agree or not."""

from __future__ import annotations

from typing import Any

from django.urls import reverse

from apps.core.errors import Conflict
from apps.core.forms import CommonsForm
from apps.core.permissions import INSTALLATION, may
from apps.core.tables import AgeColumn, CommonsTable, StatusColumn, UidLinkColumn
from apps.core.views import ActionView, Crumb, DetailView, ListView
from apps.costs import reopening
from apps.costs.adjusting_events import REOPENINGS_EXPORTED
from apps.costs.choices import PeriodStatus, Verdict
from apps.costs.credits_views import TONES, ReasonForm
from apps.costs.models import Period, ReopenRequest


class ReopenTable(CommonsTable):
    """Requests to open months again."""

    period = UidLinkColumn("costs:reopen-detail", kwarg="reopen_uid", accessor="period", verbose_name="Month")
    status = StatusColumn(tones=TONES)
    created_at = AgeColumn(verbose_name="Asked")

    class Meta(CommonsTable.Meta):
        model = ReopenRequest
        fields = ("period", "status", "requested_by", "decided_by", "reason", "created_at")
        order_by = ("-created_at",)
        caption = "Requests to open months again"


def _all() -> Any:
    return ReopenRequest.objects.select_related("period", "requested_by", "decided_by")


class ReopenList(ListView):
    """Requests to open closed months again."""

    title = "Months opened again"
    intro = "A closed month is opened again only when a second person agrees; its statements are kept, superseded."
    permission = "costs.statement.view"
    queryset = staticmethod(_all)
    table_class = ReopenTable
    export_event = REOPENINGS_EXPORTED
    empty_title = "Nobody asked to open a month again"
    empty_text = "Late data becomes corrections in the open month: that needs no opening."
    empty_icon = "lock"


def reopen_url(request: ReopenRequest) -> str:
    """Return the address of a request."""
    return reverse("costs:reopen-detail", kwargs={"reopen_uid": request.uid})


class ReopenDetail(DetailView):
    """One request with what it touches."""

    permission = "costs.statement.view"
    queryset = staticmethod(_all)
    template_name = "costs/reopen_detail.html"
    url_kwarg = "reopen_uid"
    object: ReopenRequest

    def get_title(self) -> str:
        """Name the month."""
        return f"Open {self.object.period.month:%B %Y} again"

    def scope_object(self) -> Any:
        """Months concern the installation."""
        return None

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [Crumb("Months opened again", reverse("costs:reopen-list"))]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add what it touches and who may decide."""
        row, user = self.object, self.request.user
        is_open = row.status == Verdict.PROPOSED
        own = row.requested_by_id == user.pk
        return super().get_context(
            request_row=row,
            touched=reopening.consequences(row.period),
            may_decide=is_open and not own and may(user, reopening.APPROVE, INSTALLATION),
            may_withdraw=is_open and own,
            **extra,
        )


class ReopenAsk(ActionView):
    """Ask to open a closed month again."""

    permission = reopening.MANAGE
    queryset = Period.objects.all()
    url_kwarg = "month"
    form_class = ReasonForm
    submit_label = "Ask"
    danger = True
    success_message = "Asked; a second person decides."
    intro = (
        "Late data needs no opening: it becomes corrections in the open month. Opened again, a month gets new"
        " statements with new numbers; those in force are kept and marked superseded."
    )

    def get_object(self) -> Any:
        """Find the month by its name in the address."""
        return by_month(self)

    def scope_object(self) -> Any:
        """Months concern the installation."""
        return INSTALLATION

    def get_title(self) -> str:
        """Name the month."""
        return f"Open {self.object.month:%B %Y} again"

    def check_state(self) -> None:
        """Only closed months are opened again."""
        if self.object.status != PeriodStatus.CLOSED:
            raise Conflict("This month is not closed: there is nothing to open again.", current={})

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [Crumb("Months opened again", reverse("costs:reopen-list"))]

    def perform(self, form: Any) -> str:
        """Ask."""
        return reopen_url(reopening.request_reopening(self.object.pk, form.cleaned_data["reason"], actor=self.actor))


def by_month(view: Any) -> Period:
    """Return the visible period that an address names by its month. Raises NotVisible."""
    from apps.core.errors import NotVisible
    from apps.metering import billing

    try:
        month = billing.parse_month(view.kwargs["month"])
    except ValueError as error:
        raise NotVisible("There is no such month.") from error
    row = Period.objects.visible_to(view.request.user).filter(month=month).first()
    if row is None:
        raise NotVisible
    return row


class _Decide(ActionView):
    permission = reopening.APPROVE
    queryset = staticmethod(_all)
    url_kwarg = "reopen_uid"
    form_class: type[CommonsForm] = ReasonForm
    object: ReopenRequest

    def scope_object(self) -> Any:
        """Months concern the installation."""
        return INSTALLATION

    def check_state(self) -> None:
        """Only what is proposed can be decided."""
        if self.object.status != Verdict.PROPOSED:
            raise Conflict("Nothing is left to decide.", current={"status": self.object.status})

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the request."""
        return [Crumb("Months opened again", reverse("costs:reopen-list")), Crumb("Request", reopen_url(self.object))]


class ReopenApprove(_Decide):
    """Agree to open a month again."""

    title = "Open this month again?"
    submit_label = "Open it again"
    danger = True
    intro = "Its statements are superseded, the month goes back to closing, and the trail names both of you."
    success_message = "The month is closing again; its statements are superseded."

    def perform(self, form: Any) -> str:
        """Agree."""
        reopening.approve_reopening(
            self.object.pk, form.cleaned_data["reason"], actor=self.actor, expected_version=self.expected_version
        )
        return reopen_url(self.object)


class ReopenReject(_Decide):
    """Leave a month closed."""

    title = "Leave this month closed?"
    submit_label = "Leave it closed"
    success_message = "The month stays closed."

    def perform(self, form: Any) -> str:
        """Reject it."""
        reopening.reject_reopening(
            self.object.pk, form.cleaned_data["reason"], actor=self.actor, expected_version=self.expected_version
        )
        return reopen_url(self.object)


class ReopenWithdraw(_Decide):
    """Withdraw one's own request."""

    title = "Withdraw this request?"
    permission = reopening.MANAGE
    form_class = CommonsForm
    submit_label = "Withdraw"
    success_message = "The request is withdrawn."

    def perform(self, form: Any) -> str:
        """Withdraw it."""
        reopening.withdraw_reopening(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        return reopen_url(self.object)
