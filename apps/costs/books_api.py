"""Distribution, billing modes, bills, cross-checks and files of closed months through the API."""

from __future__ import annotations

from typing import Any, ClassVar

import django_filters
from django.http import FileResponse, HttpResponseBase
from django_filters.rest_framework import FilterSet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.api import CommonsViewSet
from apps.core.api_fields import MonthField, ReasonBody, RemarkBody, key_of
from apps.core.errors import Conflict, NotAllowed, NotVisible
from apps.core.middleware import after_read
from apps.costs import billing_modes, bills, cross_check_actions, distribution_actions, files, files_making
from apps.costs.choices import BillingMode, CheckState, FileKind, FileStatus
from apps.costs.models import (
    Bill,
    BillLine,
    CrossCheck,
    DistributionPolicy,
    Period,
    Statement,
    StatementFile,
    UnitBilling,
)
from apps.teams import scope
from apps.teams.models import Unit

VIEW = "costs.statement.view"
BILLS = "costs.bill.manage"


class DistributionSerializer(serializers.ModelSerializer[DistributionPolicy]):
    """Who bears what nobody had allocated, by version, from a month on. `rules`: part → keeper."""

    month_from = MonthField(read_only=True)
    proposed_by = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    decided_by = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)

    class Meta:
        model = DistributionPolicy
        fields = [
            "uid", "number", "name", "month_from", "rules", "status", "proposed_by", "decided_by", "decided_at",
            "reason", "created_at", "version",
        ]  # fmt: skip


class DistributionBody(serializers.Serializer[Any]):
    """The next version."""

    name = serializers.CharField(max_length=200)
    month_from = MonthField()
    rules = serializers.DictField(child=serializers.CharField(max_length=40), help_text="Part → keeper, complete.")


class DistributionViewSet(CommonsViewSet):
    """Versions of the distribution policy: proposed by finance, published by a second person (If-Match required)."""

    queryset = DistributionPolicy.objects.select_related("proposed_by", "decided_by")
    serializer_class = DistributionSerializer
    filterset_fields = ["status"]
    permission = VIEW
    permissions: ClassVar[dict[str, str]] = {
        "retrieve": "",
        "create": distribution_actions.MANAGE, "approve": distribution_actions.APPROVE,
        "reject": distribution_actions.APPROVE, "withdraw": distribution_actions.MANAGE,
    }  # fmt: skip

    @extend_schema(request=DistributionBody, responses={201: DistributionSerializer})
    def create(self, request: Request) -> Response:
        """Propose the next version."""
        data = self.read_input(DistributionBody)
        return self.made(
            distribution_actions.propose(data["name"], data["month_from"], data["rules"], actor=self.actor)
        )

    @extend_schema(request=RemarkBody, responses=DistributionSerializer)
    @action(detail=True, methods=["post"])
    def approve(self, request: Request, uid: str) -> Response:
        """Publish a proposed version. Requires If-Match (428 without)."""
        return self.perform(distribution_actions.approve, RemarkBody, matched=True)

    @extend_schema(request=ReasonBody, responses=DistributionSerializer)
    @action(detail=True, methods=["post"])
    def reject(self, request: Request, uid: str) -> Response:
        """Reject a proposed version. Requires If-Match (428 without)."""
        return self.perform(distribution_actions.reject, ReasonBody, matched=True)

    @extend_schema(request=None, responses=DistributionSerializer)
    @action(detail=True, methods=["post"])
    def withdraw(self, request: Request, uid: str) -> Response:
        """Withdraw one's own proposal."""
        return self.perform(distribution_actions.withdraw)


class BillingModeSerializer(serializers.ModelSerializer[UnitBilling]):
    """How a unit, and every unit below without a mode of its own, is billed from a month on."""

    unit = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    month_from = MonthField(read_only=True)
    set_by = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)

    class Meta:
        model = UnitBilling
        fields = ["uid", "unit", "month_from", "mode", "account", "set_by", "created_at"]


class BillingModeBody(serializers.Serializer[Any]):
    """Showback or chargeback, from which month on, with the unit's expense account."""

    unit = serializers.SlugField()
    month_from = MonthField()
    mode = serializers.ChoiceField(choices=BillingMode.choices)
    account = serializers.CharField(max_length=50, required=False, allow_blank=True, default="")


class BillingModeViewSet(CommonsViewSet):
    """Billing modes of the units in scope."""

    queryset = UnitBilling.objects.select_related("unit", "set_by")
    serializer_class = BillingModeSerializer
    filterset_fields = ["unit__slug", "mode"]
    permission = VIEW
    permissions: ClassVar[dict[str, str]] = {"retrieve": "", "create": billing_modes.MANAGE}

    @extend_schema(request=BillingModeBody, responses={201: BillingModeSerializer})
    def create(self, request: Request) -> Response:
        """Set how a unit is billed from a month on."""
        data = self.read_input(BillingModeBody)
        unit = key_of(Unit.objects.visible_to(request.user), "unit", slug=data["unit"])
        return self.made(
            billing_modes.set_mode(unit, data["month_from"], data["mode"], actor=self.actor, account=data["account"])
        )


class StatementFileSerializer(serializers.ModelSerializer[StatementFile]):
    """A closed month or a statement as a file. While `status` is not done, `done` of `total` tells how far it is."""

    month = MonthField(source="period.month", read_only=True)
    statement = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    requested_by = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)

    class Meta:
        model = StatementFile
        fields = [
            "uid", "month", "statement", "kind", "name", "status", "done", "total", "size", "sha256", "error",
            "requested_by", "created_at", "finished_at", "version",
        ]  # fmt: skip


class StatementFileBody(serializers.Serializer[Any]):
    """A file of a whole month, or of one statement: name one of the two."""

    month = MonthField(required=False, allow_null=True, default=None)
    statement = serializers.UUIDField(required=False, allow_null=True, default=None)
    kind = serializers.ChoiceField(choices=FileKind.choices)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """One of month and statement."""
        if (attrs["month"] is None) == (attrs["statement"] is None):
            raise serializers.ValidationError({"month": "Name a month or a statement."})
        return attrs


class FileViewSet(CommonsViewSet):
    """Files of closed months and statements in scope. Making one takes time: ask, then look at it until it is done."""

    queryset = StatementFile.objects.select_related("period", "statement", "requested_by").defer("body")
    serializer_class = StatementFileSerializer
    filterset_fields = ["kind", "status", "statement__uid"]
    permission = VIEW
    permissions: ClassVar[dict[str, str]] = {"retrieve": "", "retry": "", "content": ""}

    @extend_schema(request=StatementFileBody, responses={202: StatementFileSerializer})
    def create(self, request: Request) -> Response:
        """Have a file made; one that is there or under way is given back. `Location` says how far it is."""
        data = self.read_input(StatementFileBody)
        if data["statement"] is not None:
            statement = Statement.objects.get_visible(request.user, data["statement"])
            row = files.ask_for_file(statement.period_id, data["kind"], actor=self.actor, statement_id=statement.pk)
        else:
            period = key_of(Period.objects.visible_to(request.user), "month", month=data["month"])
            row = files.ask_for_file(period, data["kind"], actor=self.actor)
        return self.accepted(self.get_base_queryset().get(pk=row.pk))

    @extend_schema(request=None, responses={202: StatementFileSerializer})
    @action(detail=True, methods=["post"])
    def retry(self, request: Request, uid: str) -> Response:
        """Make a failed file again."""
        return self.perform(files.retry_file, status=202)

    @extend_schema(responses={(200, "application/octet-stream"): OpenApiTypes.BINARY}, filters=False)
    @action(detail=True, methods=["get"], pagination_class=None, filter_backends=[])
    def content(self, request: Request, uid: str) -> HttpResponseBase:
        """Give the bytes (409 while they are not ready); who took them is recorded."""
        row = self.get_object()
        if row.status != FileStatus.DONE:
            raise Conflict("This file is not ready.", current={"status": row.status})
        actor, pk = self.actor, row.pk
        after_read(request._request, lambda: files.record_taken(pk, actor=actor))
        response = FileResponse(
            files_making.opened(row), as_attachment=True, filename=row.name, content_type="application/octet-stream"
        )
        response["Cache-Control"] = "no-store, private"
        response["X-Content-SHA256"] = row.sha256
        return response


class _ForReaders(CommonsViewSet):
    """What concerns whole clusters: for those who read every statement, changed by finance of the installation."""

    queryset: Any = Bill.objects.none()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Ask for the permission everywhere: no single row carries it."""
        super().initial(request, *args, **kwargs)
        asked = VIEW if self.action in ("list", "retrieve") else BILLS
        if not scope.of(request.user).everywhere(asked):
            raise NotVisible if self.detail else NotAllowed(rule=asked)


class BillSerializer(serializers.ModelSerializer[Bill]):
    """An invoice of a cluster's month."""

    cluster = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    month = MonthField(read_only=True)
    imported_by = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)

    class Meta:
        model = Bill
        fields = [
            "uid", "cluster", "month", "vendor", "filename", "amount", "currency", "sha256", "imported_by",
            "withdrawn_at", "created_at", "version",
        ]  # fmt: skip


class BillLineSerializer(serializers.ModelSerializer[BillLine]):
    """One line of an invoice; without a day it is spread over the month's days."""

    class Meta:
        model = BillLine
        fields = ["ordinal", "day", "description", "amount"]


class BillDetailSerializer(BillSerializer):
    """An invoice with its lines."""

    lines = BillLineSerializer(many=True, read_only=True)

    class Meta(BillSerializer.Meta):
        fields = [*BillSerializer.Meta.fields, "lines"]


class BillViewSet(_ForReaders):
    """Invoices that charges are compared with; they are imported on the page, which reads the file's columns."""

    queryset = Bill.objects.select_related("cluster", "imported_by")
    serializer_class = BillSerializer
    filterset_fields = ["cluster__slug"]

    def get_serializer_class(self) -> Any:
        """Lines with a single one only."""
        return BillDetailSerializer if self.detail else BillSerializer

    @extend_schema(request=ReasonBody, responses=BillDetailSerializer)
    @action(detail=True, methods=["post"])
    def withdraw(self, request: Request, uid: str) -> Response:
        """Take it out of every comparison; its rows stay. Requires If-Match (428 without)."""
        return self.perform(bills.withdraw, ReasonBody, matched=True)


class CrossCheckSerializer(serializers.ModelSerializer[CrossCheck]):
    """Our money of a cluster's day against another system's; null: unknown."""

    cluster = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    explained_by = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)

    class Meta:
        model = CrossCheck
        fields = [
            "uid", "cluster", "day", "kind", "ours", "theirs", "currency", "state", "causes", "note", "explanation",
            "explained_by", "checked_at", "version",
        ]  # fmt: skip


class CrossCheckApiFilter(FilterSet):
    """Filters of the collection."""

    cluster = django_filters.CharFilter(field_name="cluster__slug")
    state = django_filters.ChoiceFilter(choices=CheckState.choices)
    since = django_filters.DateFilter(field_name="day", lookup_expr="gte")
    until = django_filters.DateFilter(field_name="day", lookup_expr="lt")

    class Meta:
        model = CrossCheck
        fields: ClassVar[list[str]] = []


class CrossCheckViewSet(_ForReaders):
    """Comparisons with other systems; a difference is explained by finance (If-Match required)."""

    queryset = CrossCheck.objects.select_related("cluster", "explained_by")
    serializer_class = CrossCheckSerializer
    filterset_class = CrossCheckApiFilter

    @extend_schema(request=ReasonBody, responses=CrossCheckSerializer)
    @action(detail=True, methods=["post"])
    def explain(self, request: Request, uid: str) -> Response:
        """Say why a difference is there. Requires If-Match (428 without)."""
        return self.perform(cross_check_actions.explain, ReasonBody, matched=True)


routes: list[tuple[str, Any, str]] = [
    ("distribution-policies", DistributionViewSet, "distribution-policy"),
    ("billing-modes", BillingModeViewSet, "billing-mode"),
    ("statement-files", FileViewSet, "statement-file"),
    ("bills", BillViewSet, "bill"),
    ("cross-checks", CrossCheckViewSet, "cross-check"),
]
