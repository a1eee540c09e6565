"""What follows a closed month through the API: corrections, credits, disputes, re-openings; the pages' own actions."""

from __future__ import annotations

from typing import Any, ClassVar

import django_filters
from django_filters.rest_framework import FilterSet
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.api import CommonsViewSet
from apps.core.api_fields import MonthField, ReasonBody, RemarkBody, key_of, optional_key
from apps.core.errors import NotAllowed
from apps.core.permissions import may
from apps.costs import credits, disputes, reopening
from apps.costs.choices import DisputeStatus, Verdict
from apps.costs.corrections_views import priced
from apps.costs.models import Correction, Credit, Dispute, DisputeComment, Period, ReopenRequest, Statement
from apps.teams.models import Team

VIEW = "costs.statement.view"


class CorrectionSerializer(serializers.ModelSerializer[Correction]):
    """A signed row in an open month for a closed one. `exact` is its cost; null: no price, unknown."""

    billed_in = MonthField(source="period.month", read_only=True)
    corrects = MonthField(source="corrects.month", read_only=True)
    cluster = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    exact = serializers.SerializerMethodField()

    class Meta:
        model = Correction
        fields = [
            "uid", "billed_in", "corrects", "cluster", "hour", "kind", "team_name", "unit_name", "cost_centre",
            "gpu_model", "quantity_ms", "gpu_ms", "exact", "reason", "created_at",
        ]  # fmt: skip

    @extend_schema_field({"type": ["string", "null"], "format": "decimal"})
    def get_exact(self, row: Any) -> str | None:
        """The exact cost of the difference, to six decimals."""
        return None if row.exact is None else str(round(row.exact, 6))


class CorrectionApiFilter(FilterSet):
    """Filters of the collection."""

    cluster = django_filters.CharFilter(field_name="cluster__slug")
    billed_in = django_filters.DateFilter(field_name="period__month", input_formats=["%Y-%m"])
    corrects = django_filters.DateFilter(field_name="corrects__month", input_formats=["%Y-%m"])

    class Meta:
        model = Correction
        fields: ClassVar[list[str]] = []


class _OfRow(CommonsViewSet):
    """Rows that are seen by the team and unit on the row; further permissions are asked on the row."""

    permission = VIEW
    queryset: Any = Correction.objects.none()


class CorrectionViewSet(_OfRow):
    """Corrections of closed months, of the teams and units in scope."""

    queryset = Correction.objects.all()
    serializer_class = CorrectionSerializer
    filterset_class = CorrectionApiFilter
    permissions: ClassVar[dict[str, str]] = {"retrieve": ""}

    def get_base_queryset(self) -> Any:
        """Corrections with their price."""
        return priced()


class CreditSerializer(serializers.ModelSerializer[Credit]):
    """Money given back on a statement (negative: the paying team's side of a pair), billed in `billed_in`."""

    team = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    statement = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    billed_in = MonthField(source="period.month", read_only=True, default=None, allow_null=True)
    proposed_by = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    decided_by = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)

    class Meta:
        model = Credit
        fields = [
            "uid", "team", "statement", "amount", "currency", "reason", "status", "billed_in", "proposed_by",
            "decided_by", "decided_at", "decision_reason", "pair", "created_at", "version",
        ]  # fmt: skip


class CreditBody(serializers.Serializer[Any]):
    """Give `amount` of a team's statement back; `payer` (a team's slug): that team pays it."""

    statement = serializers.UUIDField()
    amount = serializers.DecimalField(max_digits=20, decimal_places=2)
    payer = serializers.SlugField(required=False, allow_null=True, default=None)
    reason = serializers.CharField(max_length=500)


class CreditApiFilter(FilterSet):
    """Filters of the collection."""

    status = django_filters.ChoiceFilter(choices=Verdict.choices)
    team = django_filters.CharFilter(field_name="team__slug")
    statement = django_filters.UUIDFilter(field_name="statement__uid")

    class Meta:
        model = Credit
        fields: ClassVar[list[str]] = []


class CreditViewSet(_OfRow):
    """Credits: proposed by finance, decided by a second person. Deciding requires If-Match."""

    queryset = Credit.objects.select_related("team__unit", "statement", "period", "proposed_by", "decided_by")
    serializer_class = CreditSerializer
    filterset_class = CreditApiFilter
    permissions: ClassVar[dict[str, str]] = {
        "create": credits.CREATE, "approve": credits.APPROVE, "reject": credits.APPROVE, "withdraw": credits.CREATE,
    }  # fmt: skip

    @extend_schema(request=CreditBody, responses={201: CreditSerializer})
    def create(self, request: Request) -> Response:
        """Propose a credit on a team's statement."""
        data = self.read_input(CreditBody)
        statement = Statement.objects.get_visible(request.user, data["statement"])
        payer = optional_key(Team.objects.visible_to(request.user), "payer", slug=data["payer"])
        return self.made(
            credits.propose_credit(statement.pk, data["amount"], data["reason"], actor=self.actor, payer_id=payer)
        )

    @extend_schema(request=RemarkBody, responses=CreditSerializer)
    @action(detail=True, methods=["post"])
    def approve(self, request: Request, uid: str) -> Response:
        """Approve a credit (its pair with it). Requires If-Match (428 without)."""
        return self.perform(credits.approve_credit, RemarkBody, matched=True)

    @extend_schema(request=ReasonBody, responses=CreditSerializer)
    @action(detail=True, methods=["post"])
    def reject(self, request: Request, uid: str) -> Response:
        """Reject a credit. Requires If-Match (428 without)."""
        return self.perform(credits.reject_credit, ReasonBody, matched=True)

    @extend_schema(request=None, responses=CreditSerializer)
    @action(detail=True, methods=["post"])
    def withdraw(self, request: Request, uid: str) -> Response:
        """Withdraw one's own proposal."""
        return self.perform(credits.withdraw_credit)


class DisputeSerializer(serializers.ModelSerializer[Dispute]):
    """An objection to a statement, or to one line of it."""

    statement = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    team = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    unit = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    opened_by = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    settled_by = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    credit = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)

    class Meta:
        model = Dispute
        fields = [
            "uid", "statement", "line_ordinal", "team", "unit", "text", "status", "opened_by", "settled_by",
            "settled_at", "outcome", "credit", "created_at", "version",
        ]  # fmt: skip


class DisputeCommentSerializer(serializers.ModelSerializer[DisputeComment]):
    """What one side said."""

    author = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)

    class Meta:
        model = DisputeComment
        fields = ["uid", "author", "text", "created_at"]


class DisputeDetailSerializer(DisputeSerializer):
    """A dispute with what was said."""

    comments = serializers.SerializerMethodField()

    class Meta(DisputeSerializer.Meta):
        fields = [*DisputeSerializer.Meta.fields, "comments"]

    @extend_schema_field(DisputeCommentSerializer(many=True))
    def get_comments(self, row: Dispute) -> Any:
        """The comments, oldest first."""
        said = row.comments.select_related("author").order_by("pk")
        return DisputeCommentSerializer(said, many=True).data


class DisputeBody(serializers.Serializer[Any]):
    """What is wrong with a statement, or with one line of it by its number."""

    statement = serializers.UUIDField()
    line_ordinal = serializers.IntegerField(required=False, allow_null=True, default=None, min_value=1, max_value=10**9)
    text = serializers.CharField(max_length=4000)


class CommentBody(serializers.Serializer[Any]):
    """What is said."""

    text = serializers.CharField(max_length=4000)


class SettleBody(serializers.Serializer[Any]):
    """The outcome in words; accepted with an `amount`, a credit is proposed as well."""

    accepted = serializers.BooleanField()
    outcome = serializers.CharField(max_length=4000)
    amount = serializers.DecimalField(
        max_digits=20, decimal_places=2, required=False, allow_null=True, default=None
    )  # fmt: skip


class DisputeApiFilter(FilterSet):
    """Filters of the collection."""

    status = django_filters.ChoiceFilter(choices=DisputeStatus.choices)
    team = django_filters.CharFilter(field_name="team__slug")
    statement = django_filters.UUIDFilter(field_name="statement__uid")

    class Meta:
        model = Dispute
        fields: ClassVar[list[str]] = []


class DisputeViewSet(_OfRow):
    """Disputes of statements in scope. Settling requires If-Match."""

    queryset = Dispute.objects.select_related("statement", "team__unit", "unit", "opened_by", "settled_by", "credit")
    serializer_class = DisputeSerializer
    filterset_class = DisputeApiFilter
    permissions: ClassVar[dict[str, str]] = {
        "create": disputes.OPEN, "settle": disputes.DECIDE, "withdraw": disputes.OPEN,
    }  # fmt: skip

    def get_serializer_class(self) -> Any:
        """Comments with a single one only."""
        return DisputeDetailSerializer if self.detail else DisputeSerializer

    @extend_schema(request=DisputeBody, responses={201: DisputeSerializer})
    def create(self, request: Request) -> Response:
        """Object to a statement."""
        data = self.read_input(DisputeBody)
        statement = Statement.objects.get_visible(request.user, data["statement"])
        if not may(request.user, disputes.OPEN, statement):
            raise NotAllowed(rule=disputes.OPEN)
        return self.made(
            disputes.open_dispute(statement.pk, data["text"], actor=self.actor, line_ordinal=data["line_ordinal"])
        )

    @extend_schema(request=CommentBody, responses=DisputeDetailSerializer)
    @action(detail=True, methods=["post"])
    def comment(self, request: Request, uid: str) -> Response:
        """Say something; the other side is told."""
        row = self.get_object()
        if not may(request.user, disputes.DECIDE, row) and not may(request.user, disputes.OPEN, row):
            raise NotAllowed(rule=disputes.OPEN)
        return self.perform(disputes.comment, CommentBody)

    @extend_schema(request=SettleBody, responses=DisputeDetailSerializer)
    @action(detail=True, methods=["post"])
    def settle(self, request: Request, uid: str) -> Response:
        """Settle it with an outcome. Requires If-Match (428 without)."""
        return self.perform(disputes.settle_dispute, SettleBody, matched=True)

    @extend_schema(request=None, responses=DisputeDetailSerializer)
    @action(detail=True, methods=["post"])
    def withdraw(self, request: Request, uid: str) -> Response:
        """Withdraw it."""
        return self.perform(disputes.withdraw_dispute)


class ReopeningSerializer(serializers.ModelSerializer[ReopenRequest]):
    """That a closed month be opened again: takes a second person."""

    month = MonthField(source="period.month", read_only=True)
    requested_by = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    decided_by = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)

    class Meta:
        model = ReopenRequest
        fields = [
            "uid", "month", "reason", "status", "requested_by", "decided_by", "decided_at", "decision_reason",
            "created_at", "version",
        ]  # fmt: skip


class ReopenBody(ReasonBody):
    """Which month, and why."""

    month = MonthField()


class ReopeningViewSet(_OfRow):
    """Requests to open a closed month again. Deciding requires If-Match."""

    queryset = ReopenRequest.objects.select_related("period", "requested_by", "decided_by")
    serializer_class = ReopeningSerializer
    filterset_fields = ["status"]
    permissions: ClassVar[dict[str, str]] = {
        "create": reopening.MANAGE, "approve": reopening.APPROVE, "reject": reopening.APPROVE,
        "withdraw": reopening.MANAGE,
    }  # fmt: skip

    @extend_schema(request=ReopenBody, responses={201: ReopeningSerializer})
    def create(self, request: Request) -> Response:
        """Ask to open a closed month again."""
        data = self.read_input(ReopenBody)
        period = key_of(Period.objects.visible_to(request.user), "month", month=data["month"])
        return self.made(reopening.request_reopening(period, data["reason"], actor=self.actor))

    @extend_schema(request=ReasonBody, responses=ReopeningSerializer)
    @action(detail=True, methods=["post"])
    def approve(self, request: Request, uid: str) -> Response:
        """Agree: its statements are superseded, never removed. Requires If-Match (428 without)."""
        return self.perform(reopening.approve_reopening, ReasonBody, matched=True)

    @extend_schema(request=ReasonBody, responses=ReopeningSerializer)
    @action(detail=True, methods=["post"])
    def reject(self, request: Request, uid: str) -> Response:
        """Leave the month closed. Requires If-Match (428 without)."""
        return self.perform(reopening.reject_reopening, ReasonBody, matched=True)

    @extend_schema(request=None, responses=ReopeningSerializer)
    @action(detail=True, methods=["post"])
    def withdraw(self, request: Request, uid: str) -> Response:
        """Withdraw one's own request."""
        return self.perform(reopening.withdraw_reopening)


routes: list[tuple[str, Any, str]] = [
    ("corrections", CorrectionViewSet, "correction"),
    ("credits", CreditViewSet, "credit"),
    ("disputes", DisputeViewSet, "dispute"),
    ("reopenings", ReopeningViewSet, "reopening"),
]
