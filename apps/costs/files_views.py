"""Pages of files: a month's files with progress and checks, asking for one, taking it; a statement to print."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django import forms
from django.http import FileResponse, HttpRequest
from django.http.response import HttpResponseBase
from django.urls import reverse

from apps.core import formats
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.core.forms import CommonsForm
from apps.core.middleware import after_read
from apps.core.permissions import INSTALLATION, may
from apps.core.views import ActionView, Crumb, DetailView
from apps.costs import billing_modes, files, files_making, files_pdf
from apps.costs.choices import UNDER_WAY, FileKind, FileStatus, PeriodStatus
from apps.costs.models import Period, Statement, StatementFile
from apps.costs.reopening_views import by_month
from apps.teams import scope


class KindForm(CommonsForm):
    """As what."""

    kind = forms.ChoiceField(choices=FileKind.choices, widget=forms.HiddenInput)


def list_url(period: Period) -> str:
    """Return the page of a month's files."""
    return reverse("costs:file-list", kwargs={"month": f"{period.month:%Y-%m}"})


def month_crumbs(period: Period) -> list[Crumb]:
    """Return the way back to a month."""
    month = f"{period.month:%Y-%m}"
    return [
        Crumb("Months", reverse("costs:period-list")),
        Crumb(f"{period.month:%B %Y}", reverse("costs:period-detail", kwargs={"month": month})),
    ]


class _OfMonth(DetailView):
    queryset = Period.objects.all()
    permission = files.VIEW
    object: Period

    def get_object(self) -> Any:
        """Find the month by its name in the address."""
        return by_month(self)

    def scope_object(self) -> Any:
        """Months concern the installation."""
        return None


class FileList(_OfMonth):
    """A month's files: what can be had, what is being made, what is there."""

    template_name = "costs/file_list.html"

    def get_title(self) -> str:
        """Name the month."""
        return f"Files of {self.object.month:%B %Y}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the month."""
        return month_crumbs(self.object)

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the files in scope, newest first, at most 200, and the statements with what they can be had as."""
        user, period = self.request.user, self.object
        found = list(
            StatementFile.objects.visible_to(user)
            .filter(period=period)
            .defer("body", "report")
            .select_related("statement", "requested_by")
            .order_by("-pk")[:200]
        )
        everything = scope.of(user).everywhere(files.VIEW)
        statements = Statement.objects.visible_to(user).filter(period=period, superseded_at__isnull=True)
        return super().get_context(
            period=period,
            files=found,
            is_closed=period.status == PeriodStatus.CLOSED,
            under_way=any(row.status in UNDER_WAY for row in found),
            kinds=[(kind, FileKind(kind).label) for kind in files.OF_PERIOD] if everything else [],
            statements=list(statements.order_by("owner_kind", "number")[:200]),
            statement_kinds=[(kind, FileKind(kind).label) for kind in files.OF_STATEMENT],
            may_journal=may(user, billing_modes.MANAGE, INSTALLATION),
            **extra,
        )


class FileAsk(_OfMonth, ActionView):
    """Ask for a file of a whole month."""

    form_class = KindForm
    submit_label = "Make the file"
    success_message = "The file is queued; this page shows how far it is."

    def check_permission(self) -> None:
        """Files of a whole month are for those who read all statements."""
        super().check_permission()
        if not scope.of(self.request.user).everywhere(files.VIEW):
            raise NotAllowed("Files of a whole month are for those who read all statements.", rule=files.VIEW)

    def get_title(self) -> str:
        """Name the month."""
        return f"A file of {self.object.month:%B %Y}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the files."""
        return [Crumb(f"Files of {self.object.month:%B %Y}", list_url(self.object))]

    def get_initial(self) -> dict[str, Any]:
        """As the address says."""
        return {"kind": self.request.GET.get("kind", FileKind.CSV)}

    def perform(self, form: Any) -> str:
        """Ask for it."""
        files.ask_for_file(self.object.pk, form.cleaned_data["kind"], actor=self.actor)
        return list_url(self.object)


class StatementFileAsk(ActionView):
    """Ask for a file of one statement."""

    permission = files.VIEW
    queryset = Statement.objects.select_related("period", "team", "unit")
    url_kwarg = "statement_uid"
    form_class = KindForm
    submit_label = "Make the file"
    success_message = "The file is queued; this page shows how far it is."

    def scope_object(self) -> Any:
        """The platform's statements hang on no team: `visible_to` has decided who sees them."""
        return self.object if self.object.team_id is not None or self.object.unit_id is not None else None

    def get_title(self) -> str:
        """Name the statement."""
        return f"A file of statement {self.object}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the files."""
        period = self.object.period
        return [Crumb(f"Files of {period.month:%B %Y}", list_url(period))]

    def get_initial(self) -> dict[str, Any]:
        """As the address says."""
        return {"kind": self.request.GET.get("kind", FileKind.PDF)}

    def perform(self, form: Any) -> str:
        """Ask for it."""
        files.ask_for_file(
            self.object.period_id, form.cleaned_data["kind"], actor=self.actor, statement_id=self.object.pk
        )
        return list_url(self.object.period)


class _OfFile(DetailView):
    permission = files.VIEW
    queryset = StatementFile.objects.select_related("period", "statement")
    url_kwarg = "file_uid"
    object: StatementFile

    def scope_object(self) -> Any:
        """`visible_to` has decided who sees the file: by its statement, or everything."""
        return None

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the files."""
        period = self.object.period
        return [Crumb(f"Files of {period.month:%B %Y}", list_url(period))]


class FileDetail(_OfFile):
    """What a file holds: its digest, and of FOCUS what was checked."""

    queryset = StatementFile.objects.select_related("period", "statement", "requested_by").defer("body")
    template_name = "costs/file_detail.html"

    def get_title(self) -> str:
        """The file's name."""
        return self.object.name

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the report, failures first."""
        report = self.object.report or {}
        return super().get_context(
            file=self.object,
            report=report,
            report_sum=formats.number(Decimal(report["sum"]).quantize(Decimal("0.01"))) if "sum" in report else "",
            is_focus=self.object.kind == FileKind.FOCUS,
            under_way=self.object.status in UNDER_WAY,
            **extra,
        )


class FileTake(_OfFile):
    """Download a file; who took it is recorded."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Give the file. Raises Conflict while it is not ready."""
        row = self.object
        if row.status != FileStatus.DONE:
            raise Conflict(
                f"This file is {row.get_status_display().lower()}: look at the month's files.",
                current={"status": row.status},
            )
        actor, pk = self.actor, row.pk
        after_read(request, lambda: files.record_taken(pk, actor=actor))
        response = FileResponse(
            files_making.opened(row),
            as_attachment=True,
            filename=row.name,
            content_type=files.CONTENT_TYPES.get(FileKind(row.kind), "text/csv; charset=utf-8"),
        )
        response["Content-Length"] = str(row.size)
        response["Cache-Control"] = "no-store, private"
        response["X-Content-SHA256"] = row.sha256
        return response


class FileRetry(ActionView):
    """Make a failed file again."""

    title = "Make this file again?"
    permission = files.VIEW
    queryset = StatementFile.objects.select_related("period", "statement").defer("body")
    url_kwarg = "file_uid"
    submit_label = "Try again"
    success_message = "The file is queued again."

    def scope_object(self) -> Any:
        """`visible_to` has decided who sees the file."""
        return None

    def check_state(self) -> None:
        """Only a failed file is made again."""
        if self.object.status != FileStatus.FAILED:
            raise Conflict("Only a failed file is made again.", current={"status": self.object.status})

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the files."""
        period = self.object.period
        return [Crumb(f"Files of {period.month:%B %Y}", list_url(period))]

    def perform(self, form: Any) -> str:
        """Queue it again."""
        files.retry_file(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        return list_url(self.object.period)


class StatementPrint(DetailView):
    """A statement to print from the browser: the PDF's own template."""

    permission = files.VIEW
    queryset = Statement.objects.select_related("period", "team", "unit")
    url_kwarg = "statement_uid"
    template_name = files_pdf.TEMPLATE
    object: Statement
    #: Lines a browser can print at once; beyond that there is the file.
    longest = 5000

    def scope_object(self) -> Any:
        """The platform's statements hang on no team: `visible_to` has decided who sees them."""
        return self.object if self.object.team_id is not None or self.object.unit_id is not None else None

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add what the PDF has, and the way back."""
        if self.object.line_count > self.longest:
            raise Invalid({"": f"More than {self.longest:,} lines: take the statement as CSV or XLSX."})
        context = files_pdf.context(self.object)
        return super().get_context(
            **context, screen=True, back_url=list_url(self.object.period),
            superseded=self.object.superseded_at is not None, **extra,
        )  # fmt: skip
