"""Billing months and statements through the API: closing a month step by step, its checklist, what was frozen."""

from __future__ import annotations

from typing import Any, ClassVar

import django_filters
from django_filters.rest_framework import FilterSet
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.clusters.models import Cluster
from apps.core.api import CommonsViewSet, PreconditionFailed, PreconditionRequired
from apps.core.api_fields import optional_key
from apps.core.errors import NotAllowed, NotVisible
from apps.core.permissions import INSTALLATION, may
from apps.costs import checklist, closing
from apps.costs.choices import OwnerKind, WaiverKind
from apps.costs.models import Period, Statement, StatementLine
from apps.costs.period_views import VIEW, sees_all


class PeriodSerializer(serializers.ModelSerializer[Period]):
    """A billing month. `bill` is shown to who reads the statements of the whole installation, else null."""

    month = serializers.DateField(format="%Y-%m")
    distribution = serializers.IntegerField(source="distribution.number", read_only=True, default=None, allow_null=True)
    bill = serializers.SerializerMethodField()

    class Meta:
        model = Period
        fields = [
            "uid", "month", "start", "end", "status", "currency", "bill", "distribution", "digest", "closing_at",
            "closed_at", "reopened", "version",
        ]  # fmt: skip

    @extend_schema_field({"type": "string", "format": "decimal", "nullable": True})
    def get_bill(self, period: Period) -> str | None:
        """The pool's bill."""
        user = self.context["request"].user
        return str(period.bill) if period.bill is not None and sees_all(user) else None


class _Visible(CommonsViewSet):
    """Rows whose scope is all that decides who reads them: by team and unit as frozen, not as they are today."""

    permission = "costs.statement.view"
    queryset: Any = Period.objects.none()

    def get_object(self) -> Any:
        """Return the row. Raises NotVisible, whether it is missing or foreign."""
        row = self.filter_queryset(self.get_queryset()).filter(uid=self.kwargs["uid"]).first()
        if row is None:
            raise NotVisible
        return row


class CheckItemSerializer(serializers.Serializer[Any]):
    """One line of the checklist. `waiver`: the kind that settles it, "" where nothing can."""

    code = serializers.CharField()
    title = serializers.CharField()
    state = serializers.ChoiceField(choices=[(one, one) for one in ("ok", "waived", "remark", "open")])
    detail = serializers.CharField(allow_blank=True)
    count = serializers.IntegerField()
    blocking = serializers.BooleanField()
    waiver = serializers.CharField(allow_blank=True)


class WaiveBody(serializers.Serializer[Any]):
    """What the close does not wait for, by name; without cluster, hours and subject: all of the kind."""

    kind = serializers.ChoiceField(choices=WaiverKind.choices)
    reason = serializers.CharField(max_length=500)
    cluster = serializers.SlugField(required=False, allow_null=True, default=None)
    hours_from = serializers.DateTimeField(required=False, allow_null=True, default=None)
    hours_until = serializers.DateTimeField(required=False, allow_null=True, default=None)
    subject_uid = serializers.UUIDField(required=False, allow_null=True, default=None)


class PeriodViewSet(_Visible):
    """Billing months and where they stand. Steps of closing require If-Match with the ETag that was read."""

    queryset = Period.objects.select_related("distribution")
    serializer_class = PeriodSerializer
    filterset_fields = ["status"]

    def _step(self, function: Any, given: Any = None, *, status: int = 200, **more: Any) -> Response:
        # `get_object` asks for no permission on these rows: a month belongs to nobody but the installation.
        row = self.get_object()
        if not may(self.request.user, closing.MANAGE, INSTALLATION):
            raise NotAllowed("Months are closed by finance of the whole installation.", rule=closing.MANAGE)
        expected = self.expected_version
        if not self.request.headers.get("If-Match", "").strip():
            raise PreconditionRequired(row.version)
        if expected is not None and expected != row.version:
            raise PreconditionFailed({"version": row.version, "status": row.status})
        if given is not None:
            more = {**self.read_input(given), **more}
            more["cluster_id"] = optional_key(Cluster.objects.all(), "cluster", slug=more.pop("cluster"))
        function(row.pk, actor=self.actor, expected_version=expected, **more)
        fresh = self.get_queryset().get(pk=row.pk)
        return self.accepted(fresh) if status == 202 else self.answer(fresh)

    @extend_schema(responses=CheckItemSerializer(many=True), filters=False)
    @action(detail=True, methods=["get"], pagination_class=None, filter_backends=[])
    def checklist(self, request: Request, uid: str) -> Response:
        """Say what closing the month still waits for."""
        row = self.get_object()
        if not sees_all(request.user):
            raise NotAllowed("This shows the statements of the whole installation.", rule=VIEW)
        return Response(CheckItemSerializer(checklist.checklist(row), many=True).data)

    @extend_schema(request=None, responses=PeriodSerializer)
    @action(detail=True, methods=["post"], url_path="start-closing")
    def start_closing(self, request: Request, uid: str) -> Response:
        """Begin to close it. Requires If-Match (428 without)."""
        return self._step(closing.start_closing)

    @extend_schema(request=None, responses=PeriodSerializer)
    @action(detail=True, methods=["post"], url_path="back-to-open")
    def back_to_open(self, request: Request, uid: str) -> Response:
        """Open it again while it is closing. Requires If-Match (428 without)."""
        return self._step(closing.back_to_open)

    @extend_schema(request=WaiveBody, responses=PeriodSerializer)
    @action(detail=True, methods=["post"])
    def waive(self, request: Request, uid: str) -> Response:
        """Waive something by name. Requires If-Match (428 without)."""
        return self._step(closing.waive, WaiveBody)

    @extend_schema(request=None, responses={202: PeriodSerializer})
    @action(detail=True, methods=["post"])
    def close(self, request: Request, uid: str) -> Response:
        """Close it for good; a worker freezes the statements. Requires If-Match (428 without)."""
        return self._step(closing.close, status=202)


class LineSerializer(serializers.ModelSerializer[StatementLine]):
    """One line: quantity × price = exact cost (null: no price, unknown), rounded to `amount`."""

    rate = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    amount = serializers.SerializerMethodField()

    class Meta:
        model = StatementLine
        fields = [
            "ordinal", "sort", "kind", "description", "cluster_name", "flavour_name", "gpu_model", "rate", "hourly",
            "quantity_ms", "gpu_ms", "exact", "amount", "charge_start", "charge_end", "method", "ratio_ppm",
            "reference",
        ]  # fmt: skip

    @extend_schema_field({"type": "string", "format": "decimal", "nullable": True})
    def get_amount(self, line: StatementLine) -> str | None:
        """The rounded amount; null where it is unknown."""
        return None if line.exact is None else str(line.amount)


class StatementSerializer(serializers.ModelSerializer[Statement]):
    """A frozen statement."""

    month = serializers.DateField(source="period.month", format="%Y-%m", read_only=True)
    team = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    unit = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)

    class Meta:
        model = Statement
        fields = [
            "uid", "number", "month", "owner_kind", "team", "unit", "team_name", "unit_name", "cost_centre", "mode",
            "own_amount", "amount", "currency", "gpu_ms", "used_gpu_ms", "measured_gpu_ms", "unpriced_ms",
            "coverage_permille", "line_count", "digest", "issued_at", "superseded_at",
        ]  # fmt: skip


class StatementWithLines(StatementSerializer):
    """A statement with its lines, in their order."""

    lines = serializers.SerializerMethodField()

    class Meta(StatementSerializer.Meta):
        fields = [*StatementSerializer.Meta.fields, "lines"]

    @extend_schema_field(LineSerializer(many=True))
    def get_lines(self, statement: Statement) -> Any:
        """The lines."""
        return LineSerializer(statement.lines.select_related("rate").order_by("ordinal"), many=True).data


class StatementFilter(FilterSet):
    """Filter statements."""

    month = django_filters.DateFilter(field_name="period__month", input_formats=["%Y-%m"])
    owner_kind = django_filters.ChoiceFilter(choices=OwnerKind.choices)
    team = django_filters.CharFilter(field_name="team__slug")
    unit = django_filters.CharFilter(field_name="unit__slug")
    superseded = django_filters.BooleanFilter(field_name="superseded_at", lookup_expr="isnull", exclude=True)

    class Meta:
        model = Statement
        fields: ClassVar[list[str]] = []


class StatementViewSet(_Visible):
    """Statements of the teams and units in scope, by the team and unit on the row; one of them with its lines."""

    queryset = Statement.objects.select_related("period", "team", "unit")
    serializer_class = StatementSerializer
    filterset_class = StatementFilter

    def get_serializer_class(self) -> Any:
        """Give lines with a single statement only."""
        return StatementWithLines if self.action == "retrieve" else StatementSerializer


routes = [("periods", PeriodViewSet, "period"), ("statements", StatementViewSet, "statement")]
