"""Approval requests and policies through the API: what the pages show, and the same actions."""

from __future__ import annotations

from typing import Any

import django_filters
from django_filters.rest_framework import FilterSet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts.models import User
from apps.approvals import actions, depth_api, engine, notices, policy_api, proving, selectors, wording
from apps.approvals.choices import RequestStatus, Verdict
from apps.approvals.models import ApprovalRequest, Decision, Policy, PolicyVersion, Stage
from apps.approvals.policy_api import PublishingMixin, WaitingMixin
from apps.core.api import CommonsViewSet
from apps.core.errors import Invalid, NotAllowed
from apps.core.permissions import may


class MoneySerializer(serializers.Serializer[Any]):
    """An amount with its currency."""

    amount = serializers.CharField()
    currency = serializers.CharField()


class StageSerializer(serializers.ModelSerializer[Stage]):
    """A stage of a request."""

    unit = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)

    class Meta:
        model = Stage
        fields = [
            "ordinal", "name", "role", "unit", "quorum", "rule", "opened_at", "due_at", "completed_at", "group",
            "wait_hours", "escalate_hours", "escalation_role", "escalated_at", "fallback_role",
        ]  # fmt: skip


class DecisionSerializer(serializers.ModelSerializer[Decision]):
    """One person's verdict."""

    actor = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    on_behalf_of = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    stage = serializers.SlugRelatedField[Any](slug_field="ordinal", read_only=True)

    class Meta:
        model = Decision
        fields = [
            "uid", "stage", "actor", "on_behalf_of", "verdict", "reason", "held", "subject_digest", "policy_digest",
            "checklist_digest", "decided_at",
        ]  # fmt: skip


class RequestSerializer(serializers.ModelSerializer[ApprovalRequest]):
    """A request as lists show it."""

    team = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True, allow_null=True)
    unit = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    requester = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    policy = serializers.CharField(source="policy_version.policy.slug", read_only=True)
    policy_version = serializers.IntegerField(source="policy_version.number", read_only=True)
    policy_digest = serializers.CharField(source="policy_version.digest", read_only=True)
    monthly_cost_change = serializers.SerializerMethodField()

    class Meta:
        model = ApprovalRequest
        fields = [
            "uid", "title", "status", "subject_type", "subject_uid", "subject_digest", "team", "unit", "requester",
            "policy", "policy_version", "policy_digest", "automatic", "automatic_rule", "monthly_cost_change",
            "kind", "reason", "current_stage", "submitted_at", "due_at", "concluded_at", "conclusion", "version",
        ]  # fmt: skip

    @extend_schema(responses=MoneySerializer)
    def get_monthly_cost_change(self, request: ApprovalRequest) -> dict[str, str] | None:
        """The change as of submission, or null where it is unknown."""
        amount = notices.monthly_cost(request)
        return None if amount is None else {"amount": str(amount.quantized().amount), "currency": amount.currency}


class RequestDetailSerializer(RequestSerializer):
    """A request with its stages, decisions and facts."""

    stages = StageSerializer(many=True, read_only=True)
    decisions = DecisionSerializer(many=True, read_only=True)
    facts = serializers.SerializerMethodField()

    class Meta(RequestSerializer.Meta):
        fields = [*RequestSerializer.Meta.fields, "leaves", "stages", "decisions", "facts"]

    def get_facts(self, request: ApprovalRequest) -> list[dict[str, str]]:
        """The facts the rules looked at, with what they mean."""
        return wording.facts_table(engine.load_facts(request.facts))


class DecideInput(serializers.Serializer[Any]):
    """A decision on exactly the bytes of `subject_digest`.

    `on_behalf_of` is the uid of somebody who delegated their role to the caller; `stage` the ordinal of the open stage
    that is meant, where several are. A policy that wants the password again takes decisions on the page, or from the
    browser session in which it was given; never by token.
    """

    verdict = serializers.ChoiceField(choices=Verdict.choices)
    reason = serializers.CharField(max_length=actions.REASON_LIMIT, allow_blank=True)
    subject_digest = serializers.CharField(max_length=64)
    on_behalf_of = serializers.UUIDField(required=False, allow_null=True)
    stage = serializers.IntegerField(required=False, allow_null=True, min_value=0)


class WithdrawalInput(serializers.Serializer[Any]):
    """A reason."""

    reason = serializers.CharField(max_length=actions.REASON_LIMIT, allow_blank=True)


class RequestApiFilter(FilterSet):
    """Filters of the collection."""

    status = django_filters.ChoiceFilter(choices=RequestStatus.choices)
    team = django_filters.CharFilter(field_name="team__slug")
    subject_type = django_filters.CharFilter()
    subject_uid = django_filters.UUIDFilter()
    waiting_for_me = django_filters.BooleanFilter(method="by_waiting")

    class Meta:
        model = ApprovalRequest
        fields: tuple[str, ...] = ()

    def by_waiting(self, queryset: Any, name: str, value: bool) -> Any:
        """Keep (or leave out) what the caller can decide now."""
        waiting = selectors.waiting_for(self.request.user).order_by().values("pk")
        return queryset.filter(pk__in=waiting) if value else queryset.exclude(pk__in=waiting)


class ApprovalRequestViewSet(WaitingMixin, CommonsViewSet):
    """Approval requests, newest first; decide and withdraw are the actions of the pages."""

    queryset = ApprovalRequest.objects.select_related("team", "unit", "requester", "policy_version__policy")
    serializer_class = RequestSerializer
    filterset_class = RequestApiFilter
    permissions = {"retry": "approvals.request.decide"}

    def get_queryset(self) -> Any:
        """Bring along what one request shows."""
        found = super().get_queryset()
        if not self.detail:
            return found
        return found.prefetch_related("stages__unit", "decisions__actor", "decisions__on_behalf_of", "decisions__stage")

    def get_serializer_class(self) -> Any:
        """Show more of one request than of many."""
        return RequestDetailSerializer if self.detail else RequestSerializer

    def _again(self, request: ApprovalRequest) -> Response:
        return self.answer(self.get_queryset().get(pk=request.pk))

    @extend_schema(request=DecideInput, responses=RequestDetailSerializer)
    @action(detail=True, methods=["post"])
    def decide(self, request: Request, uid: str | None = None) -> Response:
        """Approve or reject."""
        row = self.get_object()
        seen = selectors.sight(row)
        if seen.open_stage is None and not may(request.user, "approvals.request.decide", row):
            raise NotAllowed(rule="approvals.request.decide")
        selectors.refuse_unless_may_decide(seen, request.user)
        data = self.read_input(DecideInput)
        giver = data.get("on_behalf_of")
        giver_id = User.objects.filter(uid=giver).values_list("pk", flat=True).first() if giver else None
        if giver and giver_id is None:
            raise Invalid({"on_behalf_of": "Nobody of this uid lets you speak for them."})
        actions.decide(
            row.pk,
            data["verdict"],
            data["reason"],
            actor=self.actor,
            expected_digest=data["subject_digest"],
            expected_version=self.expected_version,
            on_behalf_of=giver_id,
            stage=data.get("stage"),
            # A token proves a machine, not a person: only the browser's session says when the password was given.
            auth=proving.auth_of(request._request) if request.auth is None else {"method": "token"},
        )
        return self._again(row)

    @extend_schema(request=WithdrawalInput, responses=RequestDetailSerializer)
    @action(detail=True, methods=["post"])
    def withdraw(self, request: Request, uid: str | None = None) -> Response:
        """Take the request back."""
        row = self.get_object()
        if not actions.may_withdraw(request.user, row):
            raise NotAllowed(actions.WITHDRAW_RULE, rule="requester or lead")
        data = self.read_input(WithdrawalInput)
        actions.withdraw(row.pk, data["reason"], actor=self.actor, expected_version=self.expected_version)
        return self._again(row)


class PolicyVersionSerializer(serializers.ModelSerializer[PolicyVersion]):
    """A published version."""

    class Meta:
        model = PolicyVersion
        fields = ["uid", "number", "digest", "published_at", "body"]


class PolicySerializer(serializers.ModelSerializer[Policy]):
    """A policy with its versions."""

    versions = PolicyVersionSerializer(many=True, read_only=True)

    class Meta:
        model = Policy
        fields = ["uid", "slug", "name", "subject_type", "version", "versions"]


class PolicyViewSet(PublishingMixin, CommonsViewSet):
    """Policies and their published versions."""

    permissions = PublishingMixin.admin_permissions

    queryset = Policy.objects.prefetch_related("versions")
    serializer_class = PolicySerializer


routes = [
    ("approval-requests", ApprovalRequestViewSet, "approval-request"),
    ("policies", PolicyViewSet, "policy"),
    *depth_api.routes,
    *policy_api.routes,
]
