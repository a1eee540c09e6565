"""The monthly report through the API: the figures of the page, exact, and its PDF made by a worker."""

from __future__ import annotations

from datetime import date
from typing import Any

from django.http import HttpResponse, HttpResponseBase
from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.core.api import ActorMixin, CommonsViewSet
from apps.core.api_fields import MonthField, key_of
from apps.core.errors import Conflict, NotAllowed, NotVisible
from apps.core.hooks import record_export
from apps.core.middleware import after_read
from apps.core.permissions import may
from apps.insights.models import ReportFile
from apps.insights.report_models import FileStatus
from apps.reports import events, export, files, months, selectors
from apps.reports.folding import fold
from apps.teams import scope
from apps.teams.models import Unit

VIEW = "reports.monthly.view"
#: What every line says of the whole report.
_LEAD = ("month", "zone", "unit")


class ReportLineSerializer(serializers.Serializer[Any]):
    """One line, as the page and its CSV have it. Null is unknown, never zero; amounts are exact."""

    line = serializers.CharField(help_text="team, total, a kind of unallocated capacity, or unallocated_total.")
    team = serializers.CharField(allow_blank=True)
    allocated_gpu_hours = serializers.DecimalField(max_digits=30, decimal_places=6, allow_null=True)
    used_gpu_hours = serializers.DecimalField(max_digits=30, decimal_places=6, allow_null=True)
    idle_gpu_hours = serializers.DecimalField(max_digits=30, decimal_places=6, allow_null=True)
    cost = serializers.CharField(allow_null=True)
    currency = serializers.CharField()
    share_percent = serializers.CharField(allow_null=True)
    previous_month_cost = serializers.CharField(allow_null=True)
    change = serializers.CharField(allow_null=True)
    without_price_gpu_hours = serializers.DecimalField(max_digits=30, decimal_places=6, allow_null=True)
    coverage_percent = serializers.CharField(allow_null=True)
    of_it_other_resources = serializers.CharField(allow_null=True)
    idle_cost = serializers.CharField(allow_null=True)
    effect_price = serializers.CharField(allow_null=True)
    effect_quantity = serializers.CharField(allow_null=True)
    effect_mix = serializers.CharField(allow_null=True)
    statement = serializers.CharField(allow_null=True)
    statement_cost = serializers.CharField(allow_null=True)
    share_of_common_cost = serializers.CharField(allow_null=True)


class ReportSerializer(serializers.Serializer[Any]):
    """A unit's month."""

    unit = serializers.SlugField()
    month = MonthField()
    zone = serializers.CharField()
    lines = ReportLineSerializer(many=True)


_WHERE = [OpenApiParameter("unit", str, required=True), OpenApiParameter("month", str, required=True)]


def _unit_and_month(request: Request, given: Any) -> tuple[Unit, date]:
    if not may(request.user, VIEW, None):
        raise NotAllowed(rule=VIEW)
    slug = given.get("unit", "")
    unit = next((one for one in scope.of(request.user).units_with("teams.unit.view") if one.slug == slug), None)
    if unit is None or not may(request.user, VIEW, unit):
        raise NotVisible
    return unit, months.parse(str(given.get("month", "")))


class MonthlyReport(ActorMixin, APIView):
    """One unit's month: what each team spent, why it changed, what was idle."""

    scope_free = "unit and month are looked up among what the caller sees"
    permission_classes = [IsAuthenticated]

    @extend_schema(parameters=_WHERE, responses=ReportSerializer, operation_id="monthly_report_retrieve")
    def get(self, request: Request) -> Response:
        """Return the figures; reading them is recorded as the export of the page is."""
        unit, month = _unit_and_month(request, request.query_params)
        report = selectors.monthly_report(unit, month, request.user)
        # A closed month's lines are what its statements say: reading what stands beside them freezes them.
        selectors.report_extras(unit, report, fold(report), request.user)
        lines = [dict(zip(export.HEADER, row, strict=True)) for row in export.rows(unit, report)]
        payload = events.ReportExported(unit_uid=unit.uid, unit_slug=unit.slug, month=f"{month:%Y-%m}", format="json")
        actor = self.actor
        after_read(request._request, lambda: record_export(events.REPORT_EXPORTED, payload, actor))
        found = {
            "unit": unit.slug,
            "month": month,
            "zone": report.zone,
            "lines": [{name: value for name, value in line.items() if name not in _LEAD} for line in lines],
        }
        return Response(ReportSerializer(found).data)


class ReportFileSerializer(serializers.ModelSerializer[ReportFile]):
    """A unit's report of a month as PDF; `status` says how far it is."""

    unit = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    month = MonthField(read_only=True)

    class Meta:
        model = ReportFile
        fields = [
            "uid", "unit", "month", "platform", "status", "size", "sha256", "error", "requested_at", "made_at",
            "version",
        ]  # fmt: skip


class ReportFileBody(serializers.Serializer[Any]):
    """Which report; `platform`: with platform costs."""

    unit = serializers.SlugField()
    month = MonthField()
    platform = serializers.BooleanField(required=False, default=True)


class ReportFileViewSet(CommonsViewSet):
    """Reports as PDF. Making one takes time: ask, then look at it until it is done."""

    queryset = ReportFile.objects.select_related("unit").defer("body")
    serializer_class = ReportFileSerializer
    filterset_fields = ["unit__slug", "status"]
    permission = VIEW

    @extend_schema(request=ReportFileBody, responses={202: ReportFileSerializer})
    def create(self, request: Request) -> Response:
        """Have the PDF made; `Location` says how far it is."""
        data = self.read_input(ReportFileBody)
        unit = Unit.objects.get(pk=key_of(Unit.objects.visible_to(request.user), "unit", slug=data["unit"]))
        row = files.request_file(unit, data["month"], actor=self.actor, platform=data["platform"])
        return self.accepted(row)

    @extend_schema(responses={(200, "application/pdf"): OpenApiTypes.BINARY}, filters=False)
    @action(detail=True, methods=["get"], pagination_class=None, filter_backends=[])
    def content(self, request: Request, uid: str) -> HttpResponseBase:
        """Give the bytes (409 while they are not ready)."""
        row = self.get_object()
        if row.status != FileStatus.DONE or row.body is None:
            raise Conflict("This report is not ready.", current={"status": row.status})
        payload = events.ReportExported(
            unit_uid=row.unit.uid, unit_slug=row.unit.slug, month=f"{row.month:%Y-%m}", format="pdf"
        )
        actor = self.actor
        after_read(request._request, lambda: record_export(events.REPORT_EXPORTED, payload, actor))
        response = HttpResponse(bytes(row.body), content_type="application/pdf")
        name = files.name_of(row.unit, row.month)
        response["Content-Disposition"] = f'attachment; filename="{name}"'
        response["Cache-Control"] = "no-store, private"
        return response


routes: list[tuple[str, Any, str]] = [("report-files", ReportFileViewSet, "report-file")]
paths: list[Any] = [path("monthly-report", MonthlyReport.as_view(), name="monthly-report")]
