"""Pages of disputes: list, evidence with comments, open, comment, settle, withdraw."""

from __future__ import annotations

from typing import Any

import django_filters
import django_tables2 as tables
from django import forms
from django.conf import settings
from django.urls import reverse

from apps.core.errors import Conflict
from apps.core.filters import CommonsFilterSet
from apps.core.forms import AmountField, CommonsForm
from apps.core.permissions import may
from apps.core.tables import AgeColumn, CommonsTable, StatusColumn, UidLinkColumn
from apps.core.views import ActionView, Crumb, DetailView, ListView
from apps.costs import disputes, files_rows
from apps.costs.adjusting_events import DISPUTES_EXPORTED
from apps.costs.choices import DisputeStatus
from apps.costs.models import Dispute, Statement
from apps.teams import scope

TONES = {"open": "caution", "accepted": "positive", "rejected": "critical", "withdrawn": "neutral"}
_WIDE = {"cell": {"class": "d-none d-md-table-cell"}}


class OpenForm(CommonsForm):
    """What is objected to, and why."""

    line_ordinal = forms.TypedChoiceField(
        label="What", required=False, coerce=int, empty_value=None, help_text="The whole statement, or one line of it."
    )
    text = forms.CharField(
        label="Objection",
        max_length=disputes.LONGEST,
        widget=forms.Textarea(attrs={"rows": 4}),
        help_text="Say what is wrong and what you know about it: finance reads it.",
    )

    def __init__(self, *args: Any, statement: Statement, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        lines = statement.lines.order_by("ordinal").values_list("ordinal", "description", "amount")[:500]
        what: Any = self.fields["line_ordinal"]
        what.choices = [
            ("", "The whole statement"),
            *((ordinal, f"Line {ordinal}: {text} ({amount} {statement.currency})") for ordinal, text, amount in lines),
        ]


class CommentForm(CommonsForm):
    """A comment."""

    text = forms.CharField(label="Comment", max_length=disputes.LONGEST, widget=forms.Textarea(attrs={"rows": 3}))


class SettleForm(CommonsForm):
    """How a dispute ends."""

    accepted = forms.TypedChoiceField(
        label="Outcome",
        choices=[("yes", "Accepted"), ("no", "Rejected")],
        coerce=lambda value: value == "yes",
        widget=forms.RadioSelect,
    )
    outcome = forms.CharField(
        label="Reason",
        max_length=disputes.LONGEST,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="The team reads it.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["amount"] = AmountField(
            currency=settings.COMMONS_CURRENCY,
            label="Credit",
            required=False,
            help_text="Only where it is accepted: proposed as a credit, which a second person approves.",
        )
        self.order_fields(["accepted", "amount", "outcome"])


class DisputeTable(CommonsTable):
    """Disputes: of which statement, whose, where it stands."""

    statement = UidLinkColumn(
        "costs:dispute-detail", kwarg="dispute_uid", accessor="statement__number", verbose_name="Statement"
    )
    owner = tables.Column(empty_values=(), orderable=False)
    line_ordinal = tables.Column(verbose_name="Line", default="all", attrs=_WIDE)
    status = StatusColumn(tones=TONES)
    opened_by = tables.Column(attrs=_WIDE)
    created_at = AgeColumn(verbose_name="Opened")

    class Meta(CommonsTable.Meta):
        model = Dispute
        fields = ("statement", "owner", "line_ordinal", "status", "opened_by", "created_at")
        order_by = ("-created_at",)
        caption = "Disputes"

    def render_owner(self, record: Any) -> str:
        """Name whose statement it is."""
        return files_rows.owner_of(record.statement)

    value_owner = render_owner


class DisputeFilter(CommonsFilterSet):
    """Filter disputes."""

    status = django_filters.ChoiceFilter(choices=DisputeStatus.choices, label="Status")
    statement = django_filters.CharFilter(
        field_name="statement__number", lookup_expr="iexact", label="Statement", max_length=40
    )

    class Meta:
        model = Dispute
        fields = ["status"]


def _all() -> Any:
    return Dispute.objects.select_related("statement__period", "team", "unit", "opened_by", "settled_by", "credit")


class DisputeList(ListView):
    """Disputes in scope."""

    title = "Disputes"
    intro = "Objections to statements. An open one keeps the next month from closing until it is settled or waived."
    permission = "costs.statement.view"
    queryset = staticmethod(_all)
    table_class = DisputeTable
    filterset_class = DisputeFilter
    export_event = DISPUTES_EXPORTED
    empty_title = "No disputes"
    empty_text = "A team's leads or the unit's owner object from their statement."
    empty_icon = "message"


def dispute_url(dispute: Dispute) -> str:
    """Return the address of a dispute."""
    return reverse("costs:dispute-detail", kwargs={"dispute_uid": dispute.uid})


class DisputeDetail(DetailView):
    """One dispute: objection, line, comments, outcome."""

    permission = "costs.statement.view"
    queryset = staticmethod(_all)
    template_name = "costs/dispute_detail.html"
    url_kwarg = "dispute_uid"
    object: Dispute

    def get_title(self) -> str:
        """Name the statement."""
        return f"Dispute of {self.object.statement}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [Crumb("Disputes", reverse("costs:dispute-list"))]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the line, the comments and what the person may do."""
        row, user = self.object, self.request.user
        is_open = row.status == DisputeStatus.OPEN
        finance, owner = may(user, disputes.DECIDE, row), may(user, disputes.OPEN, row)
        own = user.pk == row.opened_by_id or (row.team_id is not None and user.pk in scope.members(row.team_id))
        return super().get_context(
            dispute=row,
            tones=TONES,
            line=disputes.line_of(row),
            comments=list(row.comments.select_related("author").order_by("created_at", "pk")[:500]),
            is_open=is_open,
            may_comment=is_open and (finance or owner),
            may_settle=is_open and finance and not own,
            may_withdraw=is_open and owner,
            **extra,
        )


class DisputeOpen(ActionView):
    """Object to a statement."""

    permission = disputes.OPEN
    queryset = Statement.objects.select_related("team", "unit", "period")
    url_kwarg = "statement_uid"
    form_class = OpenForm
    submit_label = "Object"
    success_message = "The dispute is open; finance is told."
    intro = "Finance settles it. What is given back becomes a credit in the open month; the statement itself stays."

    def get_title(self) -> str:
        """Name the statement."""
        return f"Object to statement {self.object}"

    def check_state(self) -> None:
        """Only statements in force are disputed."""
        if self.object.superseded_at is not None:
            raise Conflict("This statement was superseded: look at the newer one.", current={})

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the disputes."""
        return [Crumb("Disputes", reverse("costs:dispute-list"))]

    def get_form_kwargs(self) -> dict[str, Any]:
        """The form lists the lines."""
        return {"statement": self.object}

    def get_initial(self) -> dict[str, Any]:
        """A link from a line names it."""
        return {"line_ordinal": self.request.GET.get("line", "")}

    def perform(self, form: Any) -> str:
        """Open it."""
        data = form.cleaned_data
        return dispute_url(
            disputes.open_dispute(
                self.object.pk, data["text"], actor=self.actor, line_ordinal=data["line_ordinal"] or None
            )
        )


class _Step(ActionView):
    permission = "costs.statement.view"
    queryset = staticmethod(_all)
    url_kwarg = "dispute_uid"
    object: Dispute

    def check_state(self) -> None:
        """Only an open dispute goes on."""
        if self.object.status != DisputeStatus.OPEN:
            raise Conflict(
                f"This dispute is {self.object.get_status_display().lower()}: nothing is left to do.",
                current={"status": self.object.status},
            )

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the dispute."""
        crumb = Crumb(str(self.object.statement), dispute_url(self.object))
        return [Crumb("Disputes", reverse("costs:dispute-list")), crumb]


class DisputeComment(_Step):
    """Comment on a dispute."""

    title = "Comment"
    form_class = CommentForm
    submit_label = "Send"
    success_message = "The other side is told."

    def check_permission(self) -> None:
        """Both sides comment."""
        if not may(self.request.user, disputes.DECIDE, self.object):
            self.permission = disputes.OPEN
        super().check_permission()

    def perform(self, form: Any) -> str:
        """Add it."""
        disputes.comment(self.object.pk, form.cleaned_data["text"], actor=self.actor)
        return dispute_url(self.object)


class DisputeSettle(_Step):
    """Settle a dispute."""

    title = "Settle the dispute"
    permission = disputes.DECIDE
    form_class = SettleForm
    submit_label = "Settle"
    success_message = "The dispute is settled; the team is told."
    intro = "The outcome stays with the statement. A credit is proposed by you, so that somebody else approves it."

    def perform(self, form: Any) -> str:
        """Settle it."""
        data = form.cleaned_data
        disputes.settle_dispute(
            self.object.pk,
            accepted=data["accepted"],
            outcome=data["outcome"],
            amount=data["amount"],
            actor=self.actor,
            expected_version=self.expected_version,
        )
        return dispute_url(self.object)


class DisputeWithdraw(_Step):
    """Withdraw a dispute."""

    title = "Withdraw this dispute?"
    permission = disputes.OPEN
    form_class = CommonsForm
    submit_label = "Withdraw"
    success_message = "The dispute is withdrawn."

    def perform(self, form: Any) -> str:
        """Withdraw it."""
        disputes.withdraw_dispute(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        return dispute_url(self.object)
