"""Comments, delegations, emergency reviews and lost standard changes through the API: what the pages show and do."""

from __future__ import annotations

import uuid
from typing import Any

import django_filters
from django_filters.rest_framework import FilterSet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts.models import User
from apps.approvals import commenting, delegating, emergencies, standing
from apps.approvals.choices import ReviewOutcome
from apps.approvals.delegation_views import NOT_A_DECIDER, may_end, roles_of, state_of
from apps.approvals.models import Comment, Delegation, EmergencyReview, StandardLoss
from apps.core import clock
from apps.core.api import CommonsViewSet
from apps.core.errors import Invalid, NotAllowed
from apps.core.permissions import INSTALLATION, may
from apps.teams.models import Unit


class CommentSerializer(serializers.ModelSerializer[Comment]):
    """A comment, on the bytes of `subject_digest`."""

    request = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    author = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    resolved_by = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True, allow_null=True)

    class Meta:
        model = Comment
        fields = [
            "uid", "request", "author", "anchor", "body", "subject_digest", "created_at", "resolved_at", "resolved_by",
            "version",
        ]  # fmt: skip


class CommentInput(serializers.Serializer[Any]):
    """What is said, and about what ("" for the whole request, else "control:CODE", "leaf:…", "evidence:UID")."""

    request = serializers.UUIDField()
    anchor = serializers.CharField(max_length=200, allow_blank=True, default="")
    body = serializers.CharField(max_length=commenting.BODY_LIMIT, allow_blank=True)


class CommentFilter(FilterSet):
    """Filters of the collection."""

    request = django_filters.UUIDFilter(field_name="request__uid")
    open = django_filters.BooleanFilter(field_name="resolved_at", lookup_expr="isnull")

    class Meta:
        model = Comment
        fields: tuple[str, ...] = ()


class CommentViewSet(CommonsViewSet):
    """Comments on approval requests."""

    queryset = Comment.objects.select_related("request__team", "request__unit", "author", "resolved_by")
    serializer_class = CommentSerializer
    filterset_class = CommentFilter

    @extend_schema(request=CommentInput, responses={201: CommentSerializer})
    def create(self, request: Request) -> Response:
        """Comment on a request."""
        data = self.read_input(CommentInput)
        row = commenting.comment(data["request"], data["anchor"], data["body"], actor=self.actor)
        return self.answer(row, status=201)

    @extend_schema(request=None, responses=CommentSerializer)
    @action(detail=True, methods=["post"])
    def resolve(self, request: Request, uid: str | None = None) -> Response:
        """Mark the comment as dealt with."""
        row = self.get_object()
        if not commenting.may_resolve(request.user, row):
            raise NotAllowed(commenting.RESOLVE_RULE, rule="resolve")
        return self.answer(commenting.resolve(row.uid, actor=self.actor, expected_version=self.expected_version))


class DelegationSerializer(serializers.ModelSerializer[Delegation]):
    """That `delegate` may decide for `giver` in a role."""

    giver = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    delegate = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    unit = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True, allow_null=True)
    start = serializers.DateTimeField(source="valid.lower", read_only=True)
    end = serializers.DateTimeField(source="valid.upper", read_only=True)
    state = serializers.SerializerMethodField()

    class Meta:
        model = Delegation
        fields = [
            "uid", "giver", "delegate", "role", "unit", "start", "end", "state", "reason", "revoked_at", "version",
        ]  # fmt: skip

    def get_state(self, row: Delegation) -> str:
        """One of in_force, planned, ended, revoked."""
        return state_of(row)[0]


class DelegationInput(serializers.Serializer[Any]):
    """Who (by uid; `giver` left out: oneself) lets whom decide, in which role, until when."""

    giver = serializers.UUIDField(required=False)
    delegate = serializers.UUIDField()
    role = serializers.CharField(max_length=30)
    unit = serializers.SlugField(required=False, allow_null=True)
    start = serializers.DateTimeField(required=False, allow_null=True)
    end = serializers.DateTimeField()
    reason = serializers.CharField(max_length=delegating.REASON_LIMIT, allow_blank=True)


class DelegationApiFilter(FilterSet):
    """Filters of the collection."""

    role = django_filters.CharFilter()
    in_force = django_filters.BooleanFilter(method="by_force")

    class Meta:
        model = Delegation
        fields: tuple[str, ...] = ()

    def by_force(self, queryset: Any, name: str, value: bool) -> Any:
        """Keep (or leave out) what counts now."""
        counting = Delegation.objects.in_force(clock.now()).order_by().values("pk")
        return queryset.filter(pk__in=counting) if value else queryset.exclude(pk__in=counting)


class DelegationViewSet(CommonsViewSet):
    """Delegations: one's own; all of them to who reads every request."""

    queryset = Delegation.objects.select_related("giver", "delegate", "unit")
    serializer_class = DelegationSerializer
    filterset_class = DelegationApiFilter

    @extend_schema(request=DelegationInput, responses={201: DelegationSerializer})
    def create(self, request: Request) -> Response:
        """Name a stand-in."""
        user: Any = request.user
        if not roles_of(user) and not may(user, delegating.ADMIN_PERMISSION, INSTALLATION):
            raise NotAllowed(NOT_A_DECIDER, rule="own role")
        data = self.read_input(DelegationInput)
        unit_id = None
        if data.get("unit"):
            unit_id = Unit.objects.visible_to(user).filter(slug=data["unit"]).values_list("pk", flat=True).first()
            if unit_id is None:
                raise Invalid({"unit": "Choose a unit."})
        row = delegating.create(
            _person(data["giver"], "giver") if "giver" in data else user.pk,
            _person(data["delegate"], "delegate"),
            data["role"],
            actor=self.actor,
            start=data.get("start"),
            end=data["end"],
            unit_id=unit_id,
            reason=data["reason"],
        )
        return self.answer(row, status=201)

    @extend_schema(request=None, responses=DelegationSerializer)
    @action(detail=True, methods=["post"])
    def revoke(self, request: Request, uid: str | None = None) -> Response:
        """End it now; what was decided under it stands."""
        row = self.get_object()
        if not may_end(request.user, row):
            raise NotAllowed("Only the two people concerned, or a platform admin, can end it.", rule="own role")
        return self.answer(delegating.revoke(row.uid, actor=self.actor, expected_version=self.expected_version))


def _person(uid: uuid.UUID, field: str) -> int:
    """Return the key of an active person. Raises Invalid for the field where there is none."""
    found = User.objects.active().filter(uid=uid).values_list("pk", flat=True).first()
    if found is None:
        raise Invalid({field: "Choose an active person."})
    return int(found)


class EmergencyReviewSerializer(serializers.ModelSerializer[EmergencyReview]):
    """The review after an emergency; `outcome` "" while it is open."""

    request = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    title = serializers.CharField(source="request.title", read_only=True)
    subject_type = serializers.CharField(source="request.subject_type", read_only=True)
    team = serializers.CharField(source="request.team.slug", read_only=True, allow_null=True, default=None)
    reason = serializers.CharField(source="request.reason", read_only=True)
    closed_by = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True, allow_null=True)

    class Meta:
        model = EmergencyReview
        fields = [
            "uid", "request", "title", "subject_type", "team", "reason", "due_at", "outcome", "findings", "closed_at",
            "closed_by", "version",
        ]  # fmt: skip


class EmergencyReviewInput(serializers.Serializer[Any]):
    """What the review found."""

    outcome = serializers.ChoiceField(
        choices=[(str(one), one.label) for one in (ReviewOutcome.JUSTIFIED, ReviewOutcome.NOT_JUSTIFIED)]
    )
    findings = serializers.CharField(max_length=emergencies.FINDINGS_LIMIT, allow_blank=True)


class ReviewApiFilter(FilterSet):
    """Filters of the collection."""

    team = django_filters.CharFilter(field_name="request__team__slug")
    open = django_filters.BooleanFilter(field_name="closed_at", lookup_expr="isnull")

    class Meta:
        model = EmergencyReview
        fields: tuple[str, ...] = ()


class ReviewViewSet(CommonsViewSet):
    """Reviews after emergencies."""

    queryset = EmergencyReview.objects.select_related(
        "request__team", "request__unit", "request__policy_version__policy", "closed_by"
    )
    serializer_class = EmergencyReviewSerializer
    filterset_class = ReviewApiFilter

    @extend_schema(request=EmergencyReviewInput, responses=EmergencyReviewSerializer)
    @action(detail=True, methods=["post"])
    def close(self, request: Request, uid: str | None = None) -> Response:
        """Close the review with findings."""
        row = self.get_object()
        if not may(request.user, emergencies.CLOSE_PERMISSION, row.request):
            raise NotAllowed("Only compliance closes the review of an emergency.", rule=emergencies.CLOSE_PERMISSION)
        data = self.read_input(EmergencyReviewInput)
        return self.answer(
            emergencies.close_review(
                row.uid, data["outcome"], data["findings"], actor=self.actor, expected_version=self.expected_version
            )
        )


class LossSerializer(serializers.ModelSerializer[StandardLoss]):
    """A standard change that a team lost after a failure."""

    policy = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    team = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True, allow_null=True)
    request = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    restored_by = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True, allow_null=True)

    class Meta:
        model = StandardLoss
        fields = [
            "uid", "policy", "rule", "team", "request", "why", "lost_at", "restored_at", "restored_by",
            "restored_reason", "version",
        ]  # fmt: skip


class RestoreInput(serializers.Serializer[Any]):
    """What makes it safe again."""

    reason = serializers.CharField(max_length=standing.REASON_LIMIT, allow_blank=True)


class LossApiFilter(FilterSet):
    """Filters of the collection."""

    team = django_filters.CharFilter(field_name="team__slug")
    in_force = django_filters.BooleanFilter(field_name="restored_at", lookup_expr="isnull")

    class Meta:
        model = StandardLoss
        fields: tuple[str, ...] = ()


class LossViewSet(CommonsViewSet):
    """Standard changes that teams have lost."""

    queryset = StandardLoss.objects.select_related("policy", "team", "request__team", "request__unit", "restored_by")
    serializer_class = LossSerializer
    filterset_class = LossApiFilter

    @extend_schema(request=RestoreInput, responses=LossSerializer)
    @action(detail=True, methods=["post"])
    def restore(self, request: Request, uid: str | None = None) -> Response:
        """Give the team its standard change back."""
        row = self.get_object()
        if rule := standing.why_not_restore(request.user, row):
            raise NotAllowed(rule, rule=standing.RESTORE_PERMISSION)
        data = self.read_input(RestoreInput)
        restored = standing.restore(row.uid, data["reason"], actor=self.actor, expected_version=self.expected_version)
        return self.answer(restored)


routes = [
    ("approval-comments", CommentViewSet, "approval-comment"),
    ("approval-delegations", DelegationViewSet, "approval-delegation"),
    ("emergency-reviews", ReviewViewSet, "emergency-review"),
    ("standard-losses", LossViewSet, "standard-loss"),
]
