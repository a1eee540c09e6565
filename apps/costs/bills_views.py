"""Pages of invoices: the list, import with a preview, one with its days, withdrawal."""

from __future__ import annotations

from typing import Any

import django_filters
import django_tables2 as tables
from django import forms
from django.http import HttpResponseBase
from django.urls import reverse

from apps.clusters.models import Cluster
from apps.core.errors import Conflict, Invalid
from apps.core.filters import CommonsFilterSet
from apps.core.forms import CommonsForm
from apps.core.money import Money
from apps.core.tables import CommonsTable, MoneyColumn, TimeColumn, UidLinkColumn
from apps.core.views import ActionView, CreateView, Crumb, DetailView, ListView
from apps.costs import bills, bills_file
from apps.costs.choices import CheckKind
from apps.costs.cross_check_views import ForFinance, ForReaders, may_manage, signed
from apps.costs.models import Bill, CrossCheck
from apps.costs.tables import MonthFilter
from apps.metering import billing

#: Lines shown of a file before it is taken, and of a bill.
SHOWN = 200


class BillTable(CommonsTable):
    """Invoices, newest month first."""

    month = UidLinkColumn("costs:bill-detail", kwarg="bill_uid")
    cluster = tables.Column()
    vendor = tables.Column()
    amount = MoneyColumn()
    filename = tables.Column(verbose_name="File", attrs={"cell": {"class": "d-none d-lg-table-cell"}})
    imported_by = tables.Column(attrs={"cell": {"class": "d-none d-md-table-cell"}})
    created_at = TimeColumn(verbose_name="Imported at", attrs={"cell": {"class": "d-none d-md-table-cell"}})
    withdrawn_at = TimeColumn(verbose_name="Withdrawn at")

    class Meta(CommonsTable.Meta):
        model = Bill
        fields = ("month", "cluster", "vendor", "amount", "filename", "imported_by", "created_at", "withdrawn_at")
        order_by = ("-month", "cluster")
        caption = "Bills"

    def render_month(self, value: Any, record: Bill, column: UidLinkColumn) -> Any:
        """Write the month."""
        return column.render(f"{record.month:%Y-%m}", record)

    def value_month(self, record: Bill) -> str:
        """Export the month."""
        return f"{record.month:%Y-%m}"


class BillFilter(CommonsFilterSet):
    """Filter by cluster and month."""

    cluster = django_filters.ModelChoiceFilter(
        queryset=Cluster.objects.order_by("name", "pk"), to_field_name="slug", label="Cluster"
    )
    month = MonthFilter(label="Month (yyyy-mm)", method="by_month")
    withdrawn = django_filters.BooleanFilter(
        field_name="withdrawn_at", lookup_expr="isnull", exclude=True, label="Withdrawn"
    )

    class Meta:
        model = Bill
        fields = ["cluster"]

    def by_month(self, queryset: Any, name: str, value: str) -> Any:
        """Keep a month."""
        return queryset.filter(month=billing.parse_month(value))


class BillList(ForReaders, ListView):
    """Invoices as imported."""

    title = "Bills"
    queryset = Bill.objects.select_related("cluster", "imported_by")
    table_class = BillTable
    filterset_class = BillFilter
    intro = "Real invoices of clusters. Each month's are compared by day with our own bill of the cluster."
    empty_title = "No bills yet"
    empty_text = "Finance imports the lines of an invoice as CSV."
    empty_icon = "receipt"

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Lead to the import."""
        return [("Import a bill", reverse("costs:bill-import"))] if may_manage(self.request.user) else []


class BillForm(CommonsForm):
    """Upload the lines of an invoice."""

    cluster = forms.ModelChoiceField(queryset=Cluster.objects.none(), label="Cluster", to_field_name="slug")
    month = forms.CharField(max_length=7, label="Month", widget=forms.TextInput(attrs={"type": "month"}))
    vendor = forms.CharField(max_length=200, label="From", help_text="Who sent the invoice.")
    file = forms.FileField(
        label="CSV file",
        required=False,
        error_messages={"required": "Choose a file."},
        help_text="A header line, then one line of the invoice each.",
    )
    # What was previewed is what is taken: the text goes through the page, and is read and checked anew.
    text = forms.CharField(required=False, strip=False, widget=forms.HiddenInput)
    filename = forms.CharField(required=False, max_length=200, widget=forms.HiddenInput)
    confirmed = forms.CharField(required=False, max_length=64, widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["cluster"]
        if isinstance(field, forms.ModelChoiceField):
            field.queryset = Cluster.objects.order_by("name", "pk")
        if self.data.get("text"):
            # The second time the lines come along with the page.
            self.fields["file"].help_text = "Empty: the lines shown above. Another file is shown anew first."
        else:
            self.fields["file"].required = True

    def clean_month(self) -> Any:
        """Read the month."""
        try:
            return billing.parse_month(self.cleaned_data["month"])
        except ValueError as error:
            raise forms.ValidationError("Enter a month, such as 2026-11.") from error

    def clean_file(self) -> Any:
        """Refuse what is too large before it is read."""
        file = self.cleaned_data["file"]
        if file is not None and file.size > bills_file.MAX_BYTES:
            raise forms.ValidationError(
                f"The file is larger than {bills_file.MAX_BYTES // 1024:,} KiB: import it in parts."
            )
        return file


class BillImport(ForFinance, CreateView):
    """Upload the lines of an invoice, look at them, take all of them."""

    title = "Import a bill"
    queryset = Bill.objects.all()
    form_class = BillForm
    template_name = "costs/bill_import.html"
    submit_label = "Preview"
    intro = "Nothing is taken before you have seen the lines, and either all of them are taken or none."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the bills."""
        return [Crumb("Bills", reverse("costs:bill-list"))]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the description of the columns."""
        columns = [
            (name, ", ".join(aliases), name in bills_file.REQUIRED) for name, aliases in bills_file.COLUMNS.items()
        ]
        return super().get_context(**{"columns": columns, "currency": bills.ledger(), **extra})

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Show what the file holds; the second time, with the same bytes, take it."""
        data = form.cleaned_data
        if data["file"] is not None:
            content, name = data["file"].read(), str(data["file"].name)
        else:
            # Browsers send a text field's line ends as CRLF: the preview made them so, too.
            content, name = data["text"].encode(), data["filename"]
        if not content:
            raise Invalid({"file": "Choose a file."})
        try:
            parsed = bills_file.parse(content, data["month"], bills.ledger())
        except bills_file.Unusable as error:
            raise Invalid({"file": str(error)}) from error
        if data["confirmed"] and data["file"] is None and data["confirmed"] == parsed.sha256:
            bill = bills.import_bill(
                data["cluster"].pk, data["month"], parsed, vendor=data["vendor"], filename=name, actor=self.actor
            )
            self.success_message = f"{len(parsed.lines):,} lines taken."
            return bill_url(bill)
        self.success_message = ""
        text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n")
        sent = form.data.copy()
        again = bills_file.parse(text.encode(), data["month"], bills.ledger())
        sent["text"], sent["filename"], sent["confirmed"] = text, name, again.sha256
        self._form = self.form_class(sent, initial=form.initial)
        return self.page(
            preview=again,
            preview_lines=[(line, Money(line.amount, bills.ledger())) for line in again.lines[:SHOWN]],
            more=max(0, len(again.lines) - SHOWN),
            total=Money(again.total, bills.ledger()).quantized(),
            submit_label="Preview" if again.errors else f"Import {len(again.lines):,} lines",
        )


def bill_url(bill: Bill) -> str:
    """Return the page of a bill."""
    return reverse("costs:bill-detail", kwargs={"bill_uid": bill.uid})


class BillDetail(ForReaders, DetailView):
    """An invoice: its lines, and its month by day beside ours."""

    queryset = Bill.objects.select_related("cluster", "imported_by")
    template_name = "costs/bill_detail.html"

    def get_title(self) -> str:
        """Name cluster and month."""
        return f"{self.object.vendor}, {self.object.month:%B %Y}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the bills."""
        return [Crumb("Bills", reverse("costs:bill-list"))]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add lines, days and the month's variance."""
        bill = self.object
        rows = list(bill.lines.order_by("ordinal")[: SHOWN + 1])
        checks = CrossCheck.objects.visible_to(self.request.user).filter(
            cluster=bill.cluster, kind=CheckKind.BILL, day__gte=bill.month, day__lt=billing.following(bill.month)
        )
        variance = bills.variance(bill.month).get(bill.cluster_id)
        days = [
            (
                row,
                None if row.ours is None else Money(row.ours, row.currency).quantized(),
                None if row.theirs is None else Money(row.theirs, row.currency).quantized(),
                signed(None if row.ours is None or row.theirs is None else row.ours - row.theirs, row.currency),
            )
            for row in checks.order_by("day")
        ]
        return super().get_context(
            amount=Money(bill.amount, bill.currency),
            lines=[(line, Money(line.amount, bill.currency)) for line in rows[:SHOWN]],
            more=bill.lines.count() - SHOWN if len(rows) > SHOWN else 0,
            days=days,
            variance=variance,
            variance_text=signed(variance.amount if variance is not None else None, bill.currency),
            zone=billing.zone_name(),
            may_withdraw=bill.withdrawn_at is None and may_manage(self.request.user),
            **extra,
        )


class WithdrawForm(CommonsForm):
    """Why a bill is taken back."""

    reason = forms.CharField(label="Reason", max_length=500, widget=forms.Textarea(attrs={"rows": 2}))


class BillWithdraw(ForFinance, ActionView):
    """Take a bill out of every comparison."""

    queryset = Bill.objects.select_related("cluster")
    form_class = WithdrawForm
    submit_label = "Withdraw the bill"
    danger = True
    intro = "Its rows stay, and no comparison counts them any more. The same file can then be imported again."
    success_message = "The bill is withdrawn."

    def get_title(self) -> str:
        """Name the bill."""
        return f"Withdraw {self.object.vendor}, {self.object.month:%B %Y}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the bill."""
        return [Crumb("Bills", reverse("costs:bill-list")), Crumb(str(self.object.vendor), bill_url(self.object))]

    def check_state(self) -> None:
        """Raise Conflict where it is withdrawn already."""
        if self.object.withdrawn_at is not None:
            raise Conflict("This bill is withdrawn already.")

    def perform(self, form: Any) -> str:
        """Withdraw it."""
        bill = bills.withdraw(
            self.object.pk, form.cleaned_data["reason"], actor=self.actor, expected_version=self.expected_version
        )
        return bill_url(bill)
