"""Publishing policies, trying again what waits, and grants through the API."""

from __future__ import annotations

from typing import Any, ClassVar

import django_filters
from django_filters.rest_framework import FilterSet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.approvals import actions, granting, policies
from apps.approvals.models import ApprovalRequest, Grant, Policy
from apps.core.api import CommonsViewSet
from apps.core.errors import NotAllowed

PUBLISH = "approvals.policy.publish"


class PublishBody(serializers.Serializer[Any]):
    """A policy's next version. Its body is described in the portal's help on policies."""

    slug = serializers.SlugField(max_length=60)
    name = serializers.CharField(max_length=200)
    subject_type = serializers.CharField(max_length=60)
    body = serializers.DictField()


class PublishingMixin(CommonsViewSet):
    """Publishing, added to the policies' viewset."""

    admin_permissions: ClassVar[dict[str, str]] = {"create": PUBLISH}

    @extend_schema(request=PublishBody)
    def create(self, request: Request) -> Response:
        """Publish a policy's next version (its first, where the slug is new). Open requests keep theirs."""
        data = self.read_input(PublishBody)
        version = policies.publish_policy(**data, actor=self.actor, expected_version=self.expected_version)
        return self.answer(Policy.objects.prefetch_related("versions").get(pk=version.policy_id), status=201)


class WaitingMixin(CommonsViewSet):
    """What waits for capacity, added to the requests' viewset."""

    @extend_schema(request=None)
    @action(detail=True, methods=["post"])
    def retry(self, request: Request, uid: str) -> Response:
        """Try now to grant a request that waits for capacity; it may go on waiting."""
        return self.perform(actions.retry_waiting)


class ApprovalGrantSerializer(serializers.ModelSerializer[Grant]):
    """What an approval came to: usable from `not_before` until `expires_at`, unless it was revoked."""

    request = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    subject_type = serializers.CharField(source="request.subject_type", read_only=True)
    subject_uid = serializers.UUIDField(source="request.subject_uid", read_only=True)

    class Meta:
        model = Grant
        fields = [
            "uid", "request", "subject_type", "subject_uid", "subject_digest", "scope", "kind", "not_before",
            "expires_at", "revoked_at", "revoked_reason", "created_at",
        ]  # fmt: skip


class RevocationBody(serializers.Serializer[Any]):
    """Why it is taken back."""

    reason = serializers.CharField(max_length=granting.REVOCATION_REASON_LIMIT)


class GrantApiFilter(FilterSet):
    """Filters of the collection."""

    request = django_filters.UUIDFilter(field_name="request__uid")
    subject_type = django_filters.CharFilter(field_name="request__subject_type")
    subject_uid = django_filters.UUIDFilter(field_name="request__subject_uid")
    team = django_filters.CharFilter(field_name="request__team__slug")
    revoked = django_filters.BooleanFilter(field_name="revoked_at", lookup_expr="isnull", exclude=True)

    class Meta:
        model = Grant
        fields: tuple[str, ...] = ()


class GrantViewSet(CommonsViewSet):
    """Grants of the approval requests in scope."""

    queryset = Grant.objects.select_related("request__team", "request__unit")
    serializer_class = ApprovalGrantSerializer
    filterset_class = GrantApiFilter

    @extend_schema(request=RevocationBody, responses=ApprovalGrantSerializer)
    @action(detail=True, methods=["post"])
    def revoke(self, request: Request, uid: str) -> Response:
        """Take an approval back before its end: compliance, or a platform admin."""
        row: Grant = self.get_object()
        asked: ApprovalRequest = row.request
        if not granting.may_revoke(int(request.user.pk or 0), asked):
            raise NotAllowed("Only compliance and platform admins revoke an approval.", rule="compliance or admin")
        granting.revoke(row.uid, self.read_input(RevocationBody)["reason"], actor=self.actor)
        return self.answer(self.get_queryset().get(pk=row.pk))


routes: list[tuple[str, Any, str]] = [("grants", GrantViewSet, "grant")]
