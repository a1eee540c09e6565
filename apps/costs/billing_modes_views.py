"""Pages of showback and chargeback, of the journal's accounts, and the journal before it is a file."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import django_tables2 as tables
from django import forms
from django.urls import reverse

from apps.core import clock
from apps.core.errors import NotVisible
from apps.core.forms import CommonsForm
from apps.core.permissions import INSTALLATION, may
from apps.core.tables import CommonsTable, StatusColumn, TimeColumn, UidLinkColumn
from apps.core.views import ActionView, Crumb, DetailView, FormMixin, ListView
from apps.costs import billing_modes, journal, journal_books
from apps.costs.adjusting_events import BILLING_MODES_EXPORTED
from apps.costs.choices import BillingMode, FileKind, PeriodStatus
from apps.costs.models import JournalAccount, Period, UnitBilling
from apps.costs.reopening_views import by_month
from apps.metering import billing
from apps.teams import scope
from apps.teams.models import Unit


class ModeForm(CommonsForm):
    """From which month on, how, and to which account."""

    month_from = forms.CharField(
        max_length=7,
        label="From month",
        widget=forms.TextInput(attrs={"type": "month"}),
        help_text="A month that is not closing or closed.",
    )
    mode = forms.ChoiceField(label="Billing", choices=BillingMode.choices, widget=forms.RadioSelect)
    account = forms.CharField(
        label="Expense account",
        required=False,
        max_length=50,
        help_text="In the general ledger; needed for chargeback. Cost centres come from the teams.",
    )

    def clean_month_from(self) -> date:
        """Read the month."""
        try:
            return billing.parse_month(self.cleaned_data["month_from"])
        except ValueError as error:
            raise forms.ValidationError("Enter a month, such as 2026-12.") from error


class AccountForm(CommonsForm):
    """Where the platform's side is posted."""

    account = forms.CharField(label="Account", max_length=50)
    cost_centre = forms.CharField(label="Cost centre", max_length=50, required=False)


class ModeTable(CommonsTable):
    """How units are billed, from a month on."""

    unit = UidLinkColumn("costs:billing-mode-set", kwarg="unit_slug", lookup="slug", target="unit")
    month_from = tables.DateColumn(verbose_name="From month", format="Y-m")
    mode = StatusColumn(tones={"showback": "neutral", "chargeback": "info"})
    account = tables.Column(verbose_name="Expense account")
    created_at = TimeColumn(verbose_name="Set at", attrs={"cell": {"class": "d-none d-md-table-cell"}})

    class Meta(CommonsTable.Meta):
        model = UnitBilling
        fields = ("unit", "month_from", "mode", "account", "set_by", "created_at")
        order_by = ("unit", "-month_from")
        caption = "Billing of units"


class ModeList(ListView):
    """How units in scope are billed."""

    title = "Showback and chargeback"
    intro = "A unit without a row of its own is billed as the unit above it; without any it is showback."
    permission = "costs.statement.view"
    queryset = UnitBilling.objects.select_related("unit", "set_by")
    table_class = ModeTable
    export_event = BILLING_MODES_EXPORTED
    empty_title = "Every unit is showback"
    empty_text = "Statements are shown, nothing is posted. Finance switches a unit from its own page."
    empty_icon = "building"

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Finance chooses a unit, and sets the accounts."""
        if not may(self.request.user, billing_modes.MANAGE):
            return []
        found = [("Set a unit's billing", reverse("costs:billing-mode-units"))]
        if may(self.request.user, billing_modes.MANAGE, INSTALLATION):
            found.append(("Accounts of the journal", reverse("costs:journal-account-list")))
        return found


class UnitTable(CommonsTable):
    """Units with how they are billed now."""

    name = UidLinkColumn("costs:billing-mode-set", kwarg="unit_slug", lookup="slug", verbose_name="Unit")
    billing = tables.Column(empty_values=(), orderable=False, verbose_name="Billed this month")
    account = tables.Column(empty_values=(), orderable=False, verbose_name="Expense account")

    class Meta(CommonsTable.Meta):
        model = Unit
        fields = ("name", "cost_centre", "billing", "account")
        order_by = ("name",)
        caption = "Units"

    def __init__(self, *args: Any, modes: billing_modes.Modes, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.modes = modes

    def render_billing(self, record: Unit) -> str:
        """Say how, and whether it is inherited."""
        mode = self.modes.of(record.path)
        inherited = "" if mode.unit_id in (None, record.pk) else " (inherited)"
        return f"{BillingMode(mode.mode).name.capitalize()}{inherited}"

    value_billing = render_billing

    def render_account(self, record: Unit) -> str:
        """The account in force."""
        return self.modes.of(record.path).account or "–"

    value_account = render_account


class ModeUnits(ListView):
    """Choose the unit whose billing is set."""

    title = "Billing of units"
    intro = "Choose a unit to set how it, and every unit below without a mode of its own, is billed."
    permission = billing_modes.MANAGE
    queryset = Unit.objects.filter(archived_at__isnull=True)
    table_class = UnitTable
    exportable = False
    empty_title = "No units"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the modes."""
        return [Crumb("Showback and chargeback", reverse("costs:billing-mode-list"))]

    def get_queryset(self) -> Any:
        """Keep the units that finance answers for."""
        return super().get_queryset().filter(scope.of(self.request.user).unit_filter(billing_modes.MANAGE))

    def get_table_kwargs(self) -> dict[str, Any]:
        """The modes of this month, once."""
        return {"modes": billing_modes.Modes(billing.month_of(clock.now()))}


class ModeSet(ActionView):
    """Set how a unit is billed."""

    permission = billing_modes.MANAGE
    queryset = Unit.objects.filter(archived_at__isnull=True)
    lookup = "slug"
    form_class = ModeForm
    submit_label = "Set the billing"
    success_message = "Set; the unit's owners are told."
    intro = "Chargeback posts the unit's statements to its expense account when their month is closed."

    def get_title(self) -> str:
        """Name the unit."""
        return f"Billing of {self.object}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the modes."""
        return [Crumb("Showback and chargeback", reverse("costs:billing-mode-list"))]

    def get_initial(self) -> dict[str, Any]:
        """Propose what holds now, from this month on."""
        month = billing.month_of(clock.now())
        mode = billing_modes.mode_of(self.object, month)
        return {"month_from": f"{month:%Y-%m}", "mode": mode.mode, "account": mode.account}

    def perform(self, form: Any) -> str:
        """Set it."""
        data = form.cleaned_data
        billing_modes.set_mode(
            self.object.pk, data["month_from"], data["mode"], actor=self.actor, account=data["account"]
        )
        return reverse("costs:billing-mode-list")


class AccountList(FormMixin):
    """The accounts of the platform's side."""

    title = "Accounts of the journal"
    permission = billing_modes.MANAGE
    scope_free = "accounts belong to the installation, not to a team"
    template_name = "costs/journal_accounts.html"
    http_method_names = ["get", "head", "options"]

    def scope_object(self) -> Any:
        """Finance of one unit sets no account of the platform."""
        return INSTALLATION

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the modes."""
        return [Crumb("Showback and chargeback", reverse("costs:billing-mode-list"))]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add one line per purpose."""
        known = {row.purpose: row for row in JournalAccount.objects.all()}
        purposes = [(purpose, text, known.get(purpose)) for purpose, text in billing_modes.PURPOSES.items()]
        return super().get_context(purposes=purposes, **extra)


class AccountSet(FormMixin):
    """Set one of the platform's accounts."""

    permission = billing_modes.MANAGE
    scope_free = "accounts belong to the installation, not to a team"
    form_class = AccountForm
    submit_label = "Set the account"
    success_message = "The account is set."
    object: JournalAccount | None

    def scope_object(self) -> Any:
        """Finance of one unit sets no account of the platform."""
        return INSTALLATION

    def prepare(self) -> None:
        """Load the account. Raises NotVisible for a purpose that there is not."""
        if self.kwargs["purpose"] not in billing_modes.PURPOSES:
            raise NotVisible
        self.object = JournalAccount.objects.filter(purpose=self.kwargs["purpose"]).first()

    def get_title(self) -> str:
        """Say what for."""
        return billing_modes.PURPOSES[self.kwargs["purpose"]]

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the accounts."""
        return [Crumb("Accounts of the journal", reverse("costs:journal-account-list"))]

    def get_initial(self) -> dict[str, Any]:
        """What is set now."""
        row = self.object
        return {"account": row.account, "cost_centre": row.cost_centre} if row else {"version": 0}

    def perform(self, form: Any) -> str:
        """Set it."""
        data = form.cleaned_data
        billing_modes.set_account(
            self.kwargs["purpose"],
            data["account"],
            data["cost_centre"],
            actor=self.actor,
            expected_version=self.expected_version,
        )
        return reverse("costs:journal-account-list")


class JournalPage(DetailView):
    """The journal of a closed month, on screen: entries, sums, or what is missing."""

    permission = billing_modes.MANAGE
    queryset = Period.objects.all()
    template_name = "costs/journal.html"
    object: Period

    def get_object(self) -> Any:
        """Find the month by its name in the address."""
        return by_month(self)

    def scope_object(self) -> Any:
        """Months concern the installation."""
        return INSTALLATION

    def get_title(self) -> str:
        """Name the month."""
        return f"Journal of {self.object.month:%B %Y}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the month's files."""
        url = reverse("costs:file-list", kwargs={"month": f"{self.object.month:%Y-%m}"})
        return [Crumb(f"Files of {self.object.month:%B %Y}", url)]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the entries, at most 500 of them, and the sums of all."""
        entries: list[journal.Entry] = []
        missing: list[str] = []
        if self.object.status == PeriodStatus.CLOSED:
            try:
                entries = journal_books.entries_of(self.object)
            except journal.Incomplete as error:
                missing = error.missing
        zero = Decimal(0)
        return super().get_context(
            period=self.object,
            is_closed=self.object.status == PeriodStatus.CLOSED,
            entries=entries[:500],
            more=max(0, len(entries) - 500),
            missing=missing,
            debit=sum((entry.debit for entry in entries), zero),
            credit=sum((entry.credit for entry in entries), zero),
            kind=FileKind.JOURNAL,
            **extra,
        )
