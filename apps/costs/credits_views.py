"""Pages of credits: list, evidence, propose, approve, reject, withdraw."""

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
from apps.core.tables import AgeColumn, CommonsTable, MoneyColumn, StatusColumn, UidLinkColumn
from apps.core.views import ActionView, Crumb, DetailView, ListView
from apps.costs import credits
from apps.costs.adjusting_events import CREDITS_EXPORTED
from apps.costs.choices import OwnerKind, Verdict
from apps.costs.models import Credit, Statement
from apps.teams.models import Team

TONES = {"proposed": "info", "approved": "positive", "rejected": "critical", "withdrawn": "neutral"}
_WIDE = {"cell": {"class": "d-none d-md-table-cell"}}


class ReasonForm(CommonsForm):
    """A decision with its reason."""

    reason = forms.CharField(
        label="Reason", max_length=500, widget=forms.Textarea(attrs={"rows": 2}), help_text="Others read it."
    )


class OptionalReasonForm(CommonsForm):
    """A decision that may say why."""

    reason = forms.CharField(label="Remark", max_length=500, required=False, widget=forms.Textarea(attrs={"rows": 2}))


def _payers(statement: Statement, user: Any) -> Any:
    """Return the teams that could pay for a credit on a statement."""
    found = Team.objects.visible_to(user).filter(archived_at__isnull=True).order_by("name")
    return found if statement.team is None else found.exclude(pk=statement.team.pk)


class CreditForm(ReasonForm):
    """What is given back, and who pays for it."""

    payer = forms.ModelChoiceField(
        queryset=Team.objects.none(),
        required=False,
        label="Paid by another team",
        empty_label="Nobody: the platform bears it",
        help_text="The other team's statement rises by as much; both are approved as one.",
    )

    def __init__(self, *args: Any, statement: Statement, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["amount"] = AmountField(
            currency=settings.COMMONS_CURRENCY,
            label="Amount",
            help_text=f"The statement still holds {credits.left_on(statement)}.",
        )
        payer: Any = self.fields["payer"]
        payer.queryset = _payers(statement, user)
        self.order_fields(["amount", "payer", "reason"])


class CreditTable(CommonsTable):
    """Credits: whose, how much, where it stands."""

    team = UidLinkColumn("costs:credit-detail", kwarg="credit_uid", accessor="team__name", verbose_name="Team")
    amount = MoneyColumn()
    status = StatusColumn(tones=TONES)
    statement = tables.Column(accessor="statement__number", verbose_name="Statement", attrs=_WIDE)
    period = tables.Column(accessor="period__month", verbose_name="Billed in", attrs=_WIDE)
    reason = tables.Column(attrs=_WIDE)
    created_at = AgeColumn(verbose_name="Proposed", attrs=_WIDE)

    class Meta(CommonsTable.Meta):
        model = Credit
        fields = ("team", "amount", "status", "statement", "period", "reason", "created_at")
        order_by = ("-created_at",)
        caption = "Credits"

    def render_period(self, value: Any) -> str:
        """Write the month."""
        return f"{value:%Y-%m}"


class CreditFilter(CommonsFilterSet):
    """Filter credits."""

    status = django_filters.ChoiceFilter(choices=Verdict.choices, label="Status")
    team = django_filters.CharFilter(field_name="team__name", lookup_expr="iexact", label="Team", max_length=200)

    class Meta:
        model = Credit
        fields = ["status"]


def _all() -> Any:
    return Credit.objects.select_related("team__unit", "statement__period", "period", "proposed_by", "decided_by")


class CreditList(ListView):
    """Credits in scope."""

    title = "Credits"
    intro = "Money given back on a statement: proposed by finance, approved by a second person, billed when open."
    permission = "costs.statement.view"
    queryset = staticmethod(_all)
    table_class = CreditTable
    filterset_class = CreditFilter
    export_event = CREDITS_EXPORTED
    empty_title = "No credits"
    empty_text = "Finance proposes them from a team's statement."
    empty_icon = "receipt"


class CreditDetail(DetailView):
    """One credit with its pair and what can be done about it."""

    permission = "costs.statement.view"
    queryset = staticmethod(_all)
    template_name = "costs/credit_detail.html"
    url_kwarg = "credit_uid"
    object: Credit

    def get_title(self) -> str:
        """Name the team."""
        return f"Credit for {self.object.team}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [Crumb("Credits", reverse("costs:credit-list"))]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the pair, as far as it is visible, and who may decide."""
        row, user = self.object, self.request.user
        is_open = row.status == Verdict.PROPOSED
        pair: list[Credit] = []
        if row.pair is not None:
            others = Credit.objects.visible_to(user).filter(pair=row.pair).exclude(pk=row.pk)
            pair = list(others.select_related("team"))
        own = row.proposed_by_id == user.pk
        return super().get_context(
            credit=row,
            tones=TONES,
            pair=pair,
            is_pair=row.pair is not None,
            may_decide=is_open and not own and user.pk in credits.approvers(credits.rows_of(row)[0]),
            may_withdraw=is_open and own,
            waits_for_other=is_open and own,
            **extra,
        )


class CreditPropose(ActionView):
    """Propose a credit on a team's statement."""

    permission = credits.CREATE
    queryset = Statement.objects.select_related("team", "unit", "period")
    url_kwarg = "statement_uid"
    form_class = CreditForm
    submit_label = "Propose the credit"
    success_message = "The credit is proposed; a second person decides."
    intro = "A second person of finance approves it; it is then billed in the open month."

    def get_title(self) -> str:
        """Name the statement."""
        return f"Credit on statement {self.object}"

    def check_state(self) -> None:
        """Only team statements in force are credited."""
        if self.object.owner_kind != OwnerKind.TEAM or self.object.superseded_at is not None:
            raise Conflict("Credits are given on the newest statements of teams.", current={})

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the credits."""
        return [Crumb("Credits", reverse("costs:credit-list"))]

    def get_form_kwargs(self) -> dict[str, Any]:
        """The form says what is left."""
        return {"statement": self.object, "user": self.request.user}

    def perform(self, form: Any) -> str:
        """Propose it."""
        data = form.cleaned_data
        payer = data["payer"]
        credit = credits.propose_credit(
            self.object.pk,
            data["amount"],
            data["reason"],
            actor=self.actor,
            payer_id=payer.pk if payer is not None else None,
        )
        return credit_url(credit)


def credit_url(credit: Credit) -> str:
    """Return the address of a credit."""
    return reverse("costs:credit-detail", kwargs={"credit_uid": credit.uid})


class _Decide(ActionView):
    permission = credits.APPROVE
    queryset = staticmethod(_all)
    url_kwarg = "credit_uid"
    form_class: type[CommonsForm] = ReasonForm
    summary_template = "costs/credit_summary.html"
    object: Credit

    def check_state(self) -> None:
        """Only what is proposed can be decided."""
        if self.object.status != Verdict.PROPOSED:
            raise Conflict(
                f"This credit is {self.object.get_status_display().lower()}: nothing is left to decide.",
                current={"status": self.object.status},
            )

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the credit."""
        return [Crumb("Credits", reverse("costs:credit-list")), Crumb(str(self.object.team), credit_url(self.object))]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the credit."""
        return super().get_context(credit=self.object, tones=TONES, **extra)


class CreditApprove(_Decide):
    """Approve a credit."""

    title = "Approve this credit?"
    form_class = OptionalReasonForm
    submit_label = "Approve"
    intro = "It is billed in the open month; the team's leads are told."
    success_message = "The credit is approved."

    def perform(self, form: Any) -> str:
        """Approve it."""
        credits.approve_credit(
            self.object.pk, actor=self.actor, reason=form.cleaned_data["reason"], expected_version=self.expected_version
        )
        return credit_url(self.object)


class CreditReject(_Decide):
    """Reject a credit."""

    title = "Reject this credit?"
    submit_label = "Reject"
    danger = True
    success_message = "The credit is rejected."

    def perform(self, form: Any) -> str:
        """Reject it."""
        credits.reject_credit(
            self.object.pk, form.cleaned_data["reason"], actor=self.actor, expected_version=self.expected_version
        )
        return credit_url(self.object)


class CreditWithdraw(_Decide):
    """Withdraw one's own proposal."""

    title = "Withdraw this credit?"
    permission = credits.CREATE
    form_class = CommonsForm
    submit_label = "Withdraw"
    danger = True
    success_message = "The credit is withdrawn."

    def perform(self, form: Any) -> str:
        """Withdraw it."""
        credits.withdraw_credit(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        return credit_url(self.object)
