"""The report on paper: a print page, and a PDF made by a worker."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse

from apps.core.hooks import record_export
from apps.core.middleware import after_read
from apps.core.pages import Crumb
from apps.insights.report_models import FileStatus, ReportFile
from apps.reports import events, files
from apps.reports.views import ReportPage


class PrintView(ReportPage):
    """The report as a page for printing: the same template as the PDF."""

    template_name = "reports/print.html"

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Show it."""
        platform = request.GET.get("platform") != "0"
        return self.page(**files.print_context(self.object, self.month, request.user, platform=platform))


class PdfView(ReportPage):
    """Where the PDF of a report stands: ask for it, watch it, take it."""

    template_name = "reports/pdf.html"
    http_method_names = ["get", "post", "head", "options"]

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the report."""
        return [*super().breadcrumbs(), Crumb(f"{self.month:%B %Y}", self._report())]

    @property
    def platform(self) -> bool:
        """Whether platform costs are in it."""
        return self.request.GET.get("platform") != "0"

    def _report(self) -> str:
        return reverse("reports:monthly", kwargs=self.kwargs)

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Show where the file stands, or give it (recorded in the audit trail)."""
        rows = ReportFile.objects.visible_to(request.user).filter(
            unit=self.object, month=self.month, platform=self.platform
        )
        download = "download" in request.GET
        row = (rows if download else rows.defer("body")).first()
        if download and row is not None and row.status == FileStatus.DONE and row.body is not None:
            payload = events.ReportExported(
                unit_uid=self.object.uid, unit_slug=self.object.slug, month=f"{self.month:%Y-%m}", format="pdf"
            )
            actor = self.actor
            after_read(request, lambda: record_export(events.REPORT_EXPORTED, payload, actor))
            response = HttpResponse(bytes(row.body), content_type="application/pdf")
            response["Content-Disposition"] = f'attachment; filename="{files.name_of(self.object, self.month)}"'
            response["Cache-Control"] = "no-store"
            return response
        query = "" if self.platform else "?platform=0"
        return self.page(
            row=row,
            waiting=row is not None and row.status in (FileStatus.QUEUED, FileStatus.RUNNING),
            query=query,
            report_url=self._report() + query,
            print_url=reverse("reports:monthly-print", kwargs=self.kwargs) + query,
            download_url=f"?download=1{'' if self.platform else '&platform=0'}",
            moves=files.is_running(self.month),
        )

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Ask a worker for the file."""
        files.request_file(self.object, self.month, actor=self.actor, platform=self.platform)
        response = HttpResponseRedirect(request.path + ("" if self.platform else "?platform=0"))
        response.status_code = 303
        return response
