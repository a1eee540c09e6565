"""Legal holds and the retention of the trail through the API: the same actions as on the pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from django.contrib.auth import get_user_model
from django.db.models import Exists, OuterRef
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.audit import keeping
from apps.audit.keeping_models import HoldRelease
from apps.audit.models import Hold, RetentionProposal
from apps.audit.querysets import HoldQuerySet, RetentionProposalQuerySet
from apps.audit.reads import note_read
from apps.core.api import CommonsViewSet, CursorPagination
from apps.core.errors import Invalid, NotAllowed
from apps.core.permissions import INSTALLATION, may

VIEW = "audit.hold.view"


class HoldSerializer(serializers.Serializer[Hold]):
    """A legal hold; null matches everything."""

    uid = serializers.UUIDField()
    matter = serializers.CharField()
    placed_at = serializers.DateTimeField()
    person_uid = serializers.SerializerMethodField()
    object_uid = serializers.UUIDField(source="object_id", allow_null=True)
    since = serializers.DateTimeField(allow_null=True)
    until = serializers.DateTimeField(allow_null=True)
    in_force = serializers.BooleanField()

    @extend_schema(responses=serializers.UUIDField(allow_null=True))
    def get_person_uid(self, hold: Hold) -> str | None:
        """Return the person whose doings are kept, null for anybody's."""
        return hold.actor_id or None


class HoldInput(serializers.Serializer[Any]):
    """What is to be kept; what is left out matches everything."""

    matter = serializers.CharField(max_length=200)
    person_uid = serializers.UUIDField(required=False, allow_null=True, default=None)
    object_uid = serializers.UUIDField(required=False, allow_null=True, default=None)
    since = serializers.DateTimeField(required=False, allow_null=True, default=None)
    until = serializers.DateTimeField(required=False, allow_null=True, default=None)
    reason = serializers.CharField(max_length=1000, required=False, allow_blank=True, default="")


class KeepingReasonInput(serializers.Serializer[Any]):
    """Why, for the audit trail."""

    reason = serializers.CharField(max_length=1000)


class HoldPagination(CursorPagination):
    """Newest first."""

    ordering = ("-placed_at", "-uid")


class _Installation(CommonsViewSet):
    """The trail is everybody's: a permission for one unit does not count here."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Ask for the permission for the whole installation. Raises NotAllowed."""
        super().initial(request, *args, **kwargs)
        if not self.detail and (needs := self._permission()) and not may(request.user, needs, INSTALLATION):
            raise NotAllowed(rule=needs)


class HoldViewSet(_Installation):
    """Legal holds, released ones too: what they match is neither purged nor erased."""

    queryset = Hold.objects.all()
    serializer_class = HoldSerializer
    pagination_class = HoldPagination
    permission = VIEW
    permissions: ClassVar[Mapping[str, str]] = {"create": keeping.HOLD, "release": keeping.HOLD}

    def get_base_queryset(self) -> HoldQuerySet:
        """Return all holds with whether they are in force."""
        released = HoldRelease.objects.filter(hold_uid=OuterRef("uid"))
        return Hold.objects.annotate(in_force=~Exists(released))

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List holds and note that they were read."""
        response = super().list(request, *args, **kwargs)
        note_read(request._request, self.actor)
        return response

    @extend_schema(request=HoldInput, responses={201: HoldSerializer})
    def create(self, request: Request, **kwargs: Any) -> Response:
        """Place a hold."""
        given = self.read_input(HoldInput)
        persons: Any = get_user_model()
        if given["person_uid"] is not None and not persons.objects.filter(uid=given["person_uid"]).exists():
            raise Invalid({"person_uid": "Nobody has an account with this uid."})
        return self.made(keeping.place_hold(given.pop("matter"), **given, actor=self.actor))

    @extend_schema(request=KeepingReasonInput, responses=HoldSerializer)
    @action(detail=True, methods=["post"])
    def release(self, request: Request, **kwargs: Any) -> Response:
        """Release it: what it kept may be purged by two persons' decision, and whom it names may be erased."""
        row, given = self.get_object(), self.read_input(KeepingReasonInput)
        keeping.release_hold(row.uid, given["reason"], actor=self.actor)
        return self.answer(self.get_base_queryset().get(pk=row.pk))


class RetentionProposalSerializer(serializers.ModelSerializer[RetentionProposal]):
    """That somebody wants a month's events removed; `problem`: why the purge was refused at the last try."""

    class Meta:
        model = RetentionProposal
        fields = (
            "uid", "month", "status", "events", "proposed_by", "decided_by", "decided_at", "purged_at", "problem",
            "version",
        )  # fmt: skip
        read_only_fields = fields


class RetentionMonthSerializer(serializers.Serializer[keeping.Month]):
    """A month that is old enough to be purged; `obstacle`: what keeps it all the same, or ""."""

    month = serializers.DateField()
    obstacle = serializers.CharField(allow_blank=True)


class RetentionMonthsSerializer(serializers.Serializer[Any]):
    """For how many months events are kept at least, and the months that are older."""

    floor_months = serializers.IntegerField()
    months = RetentionMonthSerializer(many=True)


class ProposalInput(serializers.Serializer[Any]):
    """Which month, by any of its days, and why."""

    month = serializers.DateField()
    reason = serializers.CharField(max_length=1000)


class RetentionProposalViewSet(_Installation):
    """Proposals to purge a month: a second person decides, then the portal does it within the hour."""

    queryset = RetentionProposal.objects.all()
    serializer_class = RetentionProposalSerializer
    permission = VIEW
    permissions: ClassVar[Mapping[str, str]] = {
        "create": keeping.PROPOSE,
        "withdraw": keeping.PROPOSE,
        "approve": keeping.APPROVE,
        "reject": keeping.APPROVE,
    }

    def get_base_queryset(self) -> RetentionProposalQuerySet:
        """Return all proposals."""
        return RetentionProposal.objects.all()

    @extend_schema(responses=RetentionMonthsSerializer, filters=False)
    @action(detail=False, methods=["get"], pagination_class=None, filter_backends=[])
    def months(self, request: Request, **kwargs: Any) -> Response:
        """Say how long events are kept, and which months are older."""
        found = {"floor_months": keeping.floor_months(), "months": keeping.months_of_age()}
        return Response(RetentionMonthsSerializer(found).data)

    @extend_schema(request=ProposalInput, responses={201: RetentionProposalSerializer})
    def create(self, request: Request, **kwargs: Any) -> Response:
        """Propose to remove a month's events for good."""
        given = self.read_input(ProposalInput)
        return self.made(keeping.propose_purge(given["month"], given["reason"], actor=self.actor))

    @extend_schema(request=KeepingReasonInput, responses=RetentionProposalSerializer)
    @action(detail=True, methods=["post"])
    def approve(self, request: Request, **kwargs: Any) -> Response:
        """Approve as the second person."""
        return self.perform(keeping.approve_purge, KeepingReasonInput)

    @extend_schema(request=KeepingReasonInput, responses=RetentionProposalSerializer)
    @action(detail=True, methods=["post"])
    def reject(self, request: Request, **kwargs: Any) -> Response:
        """Reject it: the month stays."""
        return self.perform(keeping.reject_purge, KeepingReasonInput)

    @extend_schema(request=KeepingReasonInput, responses=RetentionProposalSerializer)
    @action(detail=True, methods=["post"])
    def withdraw(self, request: Request, **kwargs: Any) -> Response:
        """Withdraw it: the month stays."""
        return self.perform(keeping.withdraw_purge, KeepingReasonInput)


routes = [
    ("legal-holds", HoldViewSet, "legal-hold"),
    ("retention-proposals", RetentionProposalViewSet, "retention-proposal"),
]
