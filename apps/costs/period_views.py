"""Pages of billing months: the list, one month with its checklist, waivers and preview, and the steps of closing."""

from __future__ import annotations

from typing import Any

import django_tables2 as tables
from django import forms
from django.core.paginator import EmptyPage, PageNotAnInteger
from django.db.models import Count, Q
from django.urls import reverse

from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.errors import Invalid, NotAllowed, NotVisible
from apps.core.forms import CommonsForm, UtcDateTimeField
from apps.core.money import Money
from apps.core.permissions import may
from apps.core.tables import CommonsTable, MoneyColumn, QuantityColumn, StatusColumn, TimeColumn, UidLinkColumn
from apps.core.views import ActionView, Crumb, DetailView, ListView
from apps.costs import closing, statement_rows
from apps.costs.checklist import blockers, checklist
from apps.costs.choices import FileStatus, OwnerKind, PeriodStatus, WaiverKind
from apps.costs.models import Period, Statement
from apps.costs.period_events import PERIODS_EXPORTED
from apps.metering import billing
from apps.teams import scope

VIEW = "costs.statement.view"
_TONES = {"ok": "positive", "waived": "caution", "remark": "info", "open": "critical"}


class MonthColumn(UidLinkColumn):
    """A month that leads to its page."""

    def url_of(self, record: Any) -> str:
        """Return the month's page."""
        return period_url(record)

    def render(self, value: Any, record: Any) -> Any:
        """Draw the month."""
        return super().render(f"{value:%Y-%m}", record)

    def value(self, value: Any, **_: Any) -> str:
        """Export the month."""
        return f"{value:%Y-%m}"


class PeriodTable(CommonsTable):
    """Billing months, newest first."""

    month = MonthColumn("costs:period-detail")
    status = StatusColumn()
    bill = MoneyColumn(verbose_name="Pool's bill")
    statement_count = QuantityColumn(unit=None, verbose_name="Your statements", orderable=False)
    distribution = tables.Column(verbose_name="Distribution", attrs={"cell": {"class": "d-none d-lg-table-cell"}})
    closed_at = TimeColumn(verbose_name="Closed at")
    closed_by = tables.Column(verbose_name="Closed by", attrs={"cell": {"class": "d-none d-md-table-cell"}})

    class Meta(CommonsTable.Meta):
        model = Period
        fields = ("month", "status", "bill", "statement_count", "distribution", "closed_at", "closed_by")
        order_by = ("-month",)
        caption = "Billing months"


class PeriodList(ListView):
    """Billing months and where they stand."""

    title = "Months"
    permission = VIEW
    queryset = Period.objects.select_related("distribution", "closed_by")
    table_class = PeriodTable
    export_event = PERIODS_EXPORTED
    intro = "A month is open, closing, or closed: then its statements are frozen, and nothing in it ever moves."
    empty_title = "No months yet"
    empty_text = "The first one appears within an hour of the first metered usage."
    empty_icon = "calendar"

    def get_queryset(self) -> Any:
        """Count the statements that the person may see; the pool's bill is shown to who sees everything."""
        seen = Q(statements__in=Statement.objects.visible_to(self.request.user).filter(superseded_at__isnull=True))
        return super().get_queryset().annotate(statement_count=Count("statements", filter=seen))

    def get_table_kwargs(self) -> dict[str, Any]:
        """Leave the pool's bill to those who read all statements."""
        return {} if sees_all(self.request.user) else {"exclude": ("bill", "closed_by")}


def sees_all(user: Any) -> bool:
    """Whether the person reads the statements of the whole installation."""
    return scope.of(user).everywhere(VIEW)


def period_url(period: Period, page: str = "detail") -> str:
    """Return the address of a month's page."""
    return reverse(f"costs:period-{page}", kwargs={"month": f"{period.month:%Y-%m}"})


class _PeriodMixin(DetailView):
    """Loads the period by its month."""

    permission = VIEW
    queryset = Period.objects.select_related("distribution", "closed_by", "closing_by")
    url_kwarg = "month"
    object: Period

    def get_object(self) -> Any:
        """Return the month's period. Raises NotVisible."""
        try:
            month = billing.parse_month(self.kwargs["month"])
        except ValueError as error:
            raise NotVisible("There is no such month.") from error
        row = self.get_queryset().filter(month=month).first()
        if row is None:
            raise NotVisible("Nothing was charged in this month.")
        return row

    def breadcrumbs(self) -> list[Crumb]:
        """Back to all months."""
        return [Crumb("Months", reverse("costs:period-list"))]

    def get_title(self) -> str:
        """Return the month."""
        return f"{self.object.month:%B %Y}"

    def paged(self, paginate: Any) -> Any:
        """Return the page asked for. Raises Invalid for one that is no number, NotVisible past the end."""
        try:
            return paginate(self.request.GET.get("page", 1))
        except PageNotAnInteger as error:
            raise Invalid({"page": "The page is a whole number."}) from error
        except EmptyPage as error:
            raise NotVisible("There are fewer pages than that.") from error


class PeriodDetail(_PeriodMixin):
    """One month: where it stands, its statements, and (for who reads everything) its checklist."""

    template_name = "costs/period_detail.html"

    def scope_object(self) -> Any:
        """Whoever reads some statement may know how a month stands."""
        return None

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add statements in scope, waivers, and what can be done."""
        period, user = self.object, self.request.user
        manages, everything = may(user, closing.MANAGE, period), sees_all(user)
        rows = Statement.objects.visible_to(user).filter(period=period, superseded_at__isnull=True)
        rank: dict[str, int] = {OwnerKind.PLATFORM: 0, OwnerKind.UNIT: 1, OwnerKind.TEAM: 2, OwnerKind.COST_CENTRE: 3}
        statements = sorted(
            rows.exclude(owner_kind=OwnerKind.COST_CENTRE)[:200], key=lambda row: (rank[row.owner_kind], row.number)
        )
        freezing = period.freeze_state in (FileStatus.QUEUED, FileStatus.RUNNING)
        return super().get_context(
            period=period,
            zone=billing.zone_name(),
            everything=everything,
            bill=Money(period.bill, period.currency) if period.bill is not None and everything else None,
            policy=period.distribution or statement_rows.policy_for(period.month),
            statements=statements,
            statements_url=f"{reverse('costs:statement-list')}?month={period}",
            waivers=list(period.waivers.select_related("waived_by", "cluster").order_by("pk")) if everything else [],
            kept=[item for item in period.checklist if "state" in item or "ok" in item] if everything else [],
            books=next((item["digest"] for item in period.checklist if item.get("code") == "books"), ""),
            freezing=freezing,
            failed=period.freeze_state == FileStatus.FAILED,
            can_start=manages
            and period.status == PeriodStatus.OPEN
            and clock.now() >= period.end + closing.SETTLES_AFTER,
            can_close=manages and period.status == PeriodStatus.CLOSING and not freezing,
            closes_from=period.end + closing.SETTLES_AFTER,
            manages=manages,
            **extra,
        )


class _Everything(_PeriodMixin):
    """Base of a month's pages that name everybody's rows."""

    def check_permission(self) -> None:
        """Raise NotAllowed for who reads only some statements."""
        if not sees_all(self.request.user):
            raise NotAllowed("This shows the statements of the whole installation.", rule=VIEW)

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the month."""
        return [*super().breadcrumbs(), Crumb(f"{self.object.month:%B %Y}", period_url(self.object))]


class PeriodChecklist(_Everything):
    """The checklist of a month, worked out now: over a whole month of hours it may take some seconds."""

    template_name = "costs/period_checklist.html"
    htmx_template = "costs/period_checklist_rows.html"

    def get_title(self) -> str:
        """Return the title."""
        return f"Checklist of {self.object.month:%B %Y}"

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the items."""
        items = checklist(self.object)
        closing_now = self.object.status == PeriodStatus.CLOSING
        return super().get_context(
            period=self.object,
            items=[(item, _TONES[item.state]) for item in items],
            blocking=len(blockers(items)),
            waive_url=period_url(self.object, "waive")
            if closing_now and may(self.request.user, closing.MANAGE, self.object)
            else "",
            **extra,
        )


class _Step(_PeriodMixin, ActionView):
    """A step in the life of a month: asked for, then done."""

    permission = closing.MANAGE
    template_name = "core/action.html"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the month."""
        return [*super().breadcrumbs(), Crumb(f"{self.object.month:%B %Y}", period_url(self.object))]


class PeriodStart(_Step):
    """Begin to close a month."""

    submit_label = "Start closing"
    intro = (
        "From now on this month's checklist is worked off. Facts may still arrive and be corrected until it is closed;"
        " credits and corrections go to a later month."
    )
    success_message = "The month is closing. Its checklist says what is still open."

    def get_title(self) -> str:
        """Return the title."""
        return f"Start closing {self.object.month:%B %Y}"

    def perform(self, form: Any) -> str:
        """Start."""
        return period_url(
            closing.start_closing(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        )


class PeriodBack(_Step):
    """Open a month again that is closing."""

    submit_label = "Back to open"
    intro = "The month is open again; what was waived stays written and counts when it is closed later."
    success_message = "The month is open again."

    def get_title(self) -> str:
        """Return the title."""
        return f"Open {self.object.month:%B %Y} again"

    def perform(self, form: Any) -> str:
        """Open it."""
        return period_url(
            closing.back_to_open(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        )


class WaiverForm(CommonsForm):
    """What the close shall not wait for, and why."""

    kind = forms.ChoiceField(choices=WaiverKind.choices, label="What is waived")
    cluster = forms.ModelChoiceField(
        queryset=Cluster.objects.order_by("name"), to_field_name="slug", required=False, label="Cluster",
        empty_label="All clusters", help_text="Of hours and of quantities without a price.",
    )  # fmt: skip
    hours_from = UtcDateTimeField(required=False, label="Hours from", help_text="Empty: from the month's beginning.")
    hours_until = UtcDateTimeField(required=False, label="Hours until", help_text="Empty: until the month's end.")
    subject_uid = forms.UUIDField(
        required=False, label="Only this one", help_text="Of sources and disputes, as the checklist offers it."
    )
    reason = forms.CharField(
        max_length=500, label="Reason", widget=forms.Textarea(attrs={"rows": 3}),
        help_text="Auditors read it beside your name for as long as the month is kept.",
    )  # fmt: skip


class PeriodWaive(_Step):
    """Waive something by name."""

    form_class = WaiverForm
    submit_label = "Waive"
    intro = "The month can be closed although this is open. Your name and reason are kept with the month for good."
    success_message = "Waived."

    def get_title(self) -> str:
        """Return the title."""
        return f"Waive for {self.object.month:%B %Y}"

    def get_initial(self) -> dict[str, Any]:
        """Take what the checklist offers."""
        asked = self.request.GET
        cluster = asked.get("cluster", "")
        if cluster.isdecimal():
            cluster = Cluster.objects.filter(pk=int(cluster)).values_list("slug", flat=True).first() or ""
        return {"kind": asked.get("kind", ""), "cluster": cluster, "subject_uid": asked.get("subject", "")}

    def perform(self, form: Any) -> str:
        """Waive."""
        data = form.cleaned_data
        closing.waive(
            self.object.pk,
            data["kind"],
            reason=data["reason"],
            actor=self.actor,
            cluster_id=data["cluster"].pk if data["cluster"] else None,
            hours_from=data["hours_from"],
            hours_until=data["hours_until"],
            subject_uid=data["subject_uid"],
            expected_version=self.expected_version,
        )
        return period_url(self.object)
