"""Keeping sources, waivers, resource rules and namespace claims through the API; capacity lines to read."""

from __future__ import annotations

from typing import Any, ClassVar

import django_filters
from django.urls import reverse
from django_filters.rest_framework import FilterSet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.clusters.models import Cluster
from apps.core.api import CommonsViewSet
from apps.core.api_fields import RemarkBody, key_of
from apps.core.errors import NotAllowed
from apps.core.paging import CursorPagination
from apps.core.permissions import INSTALLATION, may
from apps.metering import actions, claims, rules, selftest_run, source_changes, source_options, waivers
from apps.metering.choices import LineKind, SourceKind
from apps.metering.models import CapacityLine, NamespaceOwner, ResourceRule, SourceWaiver
from apps.teams.models import Team

MANAGE, RETRY = "metering.import.create", "metering.run.retry"


class SourceOptions(serializers.Serializer[Any]):
    """Options of a source; those of other kinds are refused. Left out: as it is; null or empty: taken away."""

    cluster_filter = serializers.CharField(
        required=False, allow_null=True, allow_blank=True, max_length=source_options.LONGEST_FILTER,
        help_text='Prometheus: label matchers where one server holds several clusters, such as cluster="dc1".',
    )  # fmt: skip
    gpu_resources = serializers.ListField(
        child=serializers.CharField(max_length=120), required=False, allow_null=True, max_length=50,
        help_text="Prometheus: resources that count as GPUs; none: those of NVIDIA, AMD and Intel.",
    )  # fmt: skip
    clusters = serializers.ListField(
        child=serializers.CharField(max_length=source_options.LONGEST_NAME), required=False, allow_null=True,
        max_length=source_options.MOST_NAMES,
        help_text="OpenCost, Kubecost: names that the cluster's rows carry where one server holds several.",
    )  # fmt: skip
    resolution_seconds = serializers.IntegerField(
        required=False, allow_null=True, min_value=source_options.RESOLUTION[0],
        max_value=source_options.RESOLUTION[1], help_text="OpenCost, Kubecost: how finely it looks at pods.",
    )  # fmt: skip
    timeout_seconds = serializers.IntegerField(
        required=False, allow_null=True, min_value=source_options.TIMEOUT[0], max_value=source_options.TIMEOUT[1],
        help_text="How long the server may be silent before the hour is tried again later.",
    )  # fmt: skip


class SourceBody(serializers.Serializer[Any]):
    """A source of record of a cluster from a time on. Its token is never told again."""

    cluster = serializers.SlugField()
    kind = serializers.ChoiceField(choices=SourceKind.choices)
    name = serializers.CharField(max_length=120)
    url = serializers.CharField(max_length=300, allow_blank=True)
    valid_from = serializers.DateTimeField()
    valid_until = serializers.DateTimeField(required=False, allow_null=True, default=None)
    token = serializers.CharField(required=False, allow_blank=True, default="", write_only=True)
    options = SourceOptions(required=False)


class SourceChangeBody(serializers.Serializer[Any]):
    """What is changed of it; left out: as it is. An empty token: the stored one stays."""

    name = serializers.CharField(max_length=120, required=False)
    url = serializers.CharField(max_length=300, required=False)
    token = serializers.CharField(required=False, allow_blank=True, max_length=4000, write_only=True)
    forget_token = serializers.BooleanField(required=False)
    options = SourceOptions(required=False)


class SourceEndBody(serializers.Serializer[Any]):
    """When it ends: at the hour of this time."""

    at = serializers.DateTimeField()


class HoursBody(serializers.Serializer[Any]):
    """Hours from a time until before another."""

    start = serializers.DateTimeField()
    end = serializers.DateTimeField()


class HoursSerializer(serializers.Serializer[Any]):
    """How many hours are read again."""

    hours = serializers.IntegerField()


class SourceWaiveBody(serializers.Serializer[Any]):
    """Which failed checks are waived, why, until when."""

    codes = serializers.ListField(child=serializers.CharField(max_length=40), allow_empty=False, max_length=50)
    reason = serializers.CharField(max_length=500)
    until = serializers.DateTimeField()


class SourceStateSerializer(serializers.Serializer[Any]):
    """The source, to be read at `Location` until `health` has the new test's time."""

    uid = serializers.UUIDField()
    name = serializers.CharField()
    version = serializers.IntegerField()


class SourceAdminMixin(CommonsViewSet):
    """What is done with sources, added to their viewset."""

    admin_permissions: ClassVar[dict[str, str]] = {
        "create": MANAGE, "end": MANAGE, "change": MANAGE, "retry": RETRY, "test": RETRY, "waive": waivers.WAIVE,
    }  # fmt: skip

    @extend_schema(request=SourceBody)
    def create(self, request: Request) -> Response:
        """Make an address the source of record of a cluster."""
        data = self.read_input(SourceBody)
        cluster = key_of(Cluster.objects.visible_to(request.user), "cluster", slug=data.pop("cluster"))
        settings = data.pop("options", None)
        return self.made(actions.register_source(cluster, **data, settings=settings, actor=self.actor))

    @extend_schema(request=SourceChangeBody)
    @action(detail=True, methods=["post"])
    def change(self, request: Request, uid: str) -> Response:
        """Change its name, address or options, replace or remove its token; it is tested at once.

        Requires If-Match (428 without). Another address, and options that change what is asked, end its waivers.
        """
        return self.perform(source_changes.change_source, SourceChangeBody, matched=True)

    @extend_schema(request=SourceEndBody)
    @action(detail=True, methods=["post"])
    def end(self, request: Request, uid: str) -> Response:
        """End a source, so that another one can follow."""
        return self.perform(actions.end_source, SourceEndBody)

    @extend_schema(request=HoursBody, responses={202: HoursSerializer})
    @action(detail=True, methods=["post"])
    def retry(self, request: Request, uid: str) -> Response:
        """Have the open hours of a time read again; the ingest runs say how it went."""
        row, data = self.get_object(), self.read_input(HoursBody)
        hours = actions.retry_hours(row.pk, data["start"], data["end"], actor=self.actor)
        return Response({"hours": hours}, status=202, headers={"Location": reverse("api:ingest-run-list")})

    @extend_schema(request=None, responses={202: SourceStateSerializer})
    @action(detail=True, methods=["post"])
    def test(self, request: Request, uid: str) -> Response:
        """Have it tested now; `health` says how it went."""
        row = selftest_run.request_check(self.get_object().pk, actor=self.actor)
        return self.accepted(row, serializer_class=SourceStateSerializer)

    @extend_schema(request=SourceWaiveBody)
    @action(detail=True, methods=["post"])
    def waive(self, request: Request, uid: str) -> Response:
        """Take it as good although these checks fail, by name and for a time."""
        return self.perform(waivers.waive, SourceWaiveBody)


class WaiverSerializer(serializers.ModelSerializer[SourceWaiver]):
    """Somebody's word, for a time, that a source may be billed from although these checks fail."""

    source = serializers.UUIDField(source="source.uid", read_only=True)  # type: ignore[assignment]  # declared fields leave the class
    waived_by = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    valid_from = serializers.DateTimeField(source="valid.lower", read_only=True)
    valid_until = serializers.DateTimeField(source="valid.upper", read_only=True)

    class Meta:
        model = SourceWaiver
        fields = ["uid", "source", "codes", "reason", "waived_by", "valid_from", "valid_until", "revoked_at", "version"]


class WaiverViewSet(CommonsViewSet):
    """Waivers of sources."""

    queryset = SourceWaiver.objects.select_related("source", "waived_by")
    serializer_class = WaiverSerializer
    filterset_fields = ["source__uid"]
    permission = "metering.run.view"
    permissions: ClassVar[dict[str, str]] = {"revoke": waivers.WAIVE}

    @extend_schema(request=None, responses=WaiverSerializer)
    @action(detail=True, methods=["post"])
    def revoke(self, request: Request, uid: str) -> Response:
        """End a waiver now."""
        return self.perform(waivers.revoke)


class ResourceRuleSerializer(serializers.ModelSerializer[ResourceRule]):
    """One unit of `resource` is numerator/denominator of a device. An empty GPU model: of every one."""

    valid_from = serializers.DateTimeField(source="valid.lower", read_only=True, allow_null=True)
    valid_until = serializers.DateTimeField(source="valid.upper", read_only=True, allow_null=True)

    class Meta:
        model = ResourceRule
        fields = [
            "uid", "resource", "gpu_model", "device_class", "numerator", "denominator", "note", "valid_from",
            "valid_until", "version",
        ]  # fmt: skip


class ResourceRuleBody(serializers.Serializer[Any]):
    """What a resource counts, from a full hour on (left out: this one)."""

    resource = serializers.CharField(max_length=120)
    numerator = serializers.IntegerField(min_value=1, max_value=100_000)
    denominator = serializers.IntegerField(min_value=1, max_value=100_000)
    gpu_model = serializers.CharField(max_length=120, required=False, allow_blank=True, default="")
    valid_from = serializers.DateTimeField(required=False, allow_null=True, default=None)
    note = serializers.CharField(max_length=300, required=False, allow_blank=True, default="")


class RuleEndBody(serializers.Serializer[Any]):
    """When it ends: at a full hour (left out: this one)."""

    at = serializers.DateTimeField(required=False, allow_null=True, default=None)


class ResourceRuleViewSet(CommonsViewSet):
    """What resources count, by time."""

    queryset = ResourceRule.objects.filter(valid__isempty=False)
    serializer_class = ResourceRuleSerializer
    filterset_fields = ["resource", "gpu_model"]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Changing is for who keeps the table, which is the installation's."""
        super().initial(request, *args, **kwargs)
        if self.action in ("create", "end") and not may(request.user, rules.PERMISSION, INSTALLATION):
            raise NotAllowed(rule=rules.PERMISSION)

    @extend_schema(request=ResourceRuleBody, responses={201: ResourceRuleSerializer})
    def create(self, request: Request) -> Response:
        """Count a resource so from a full hour on."""
        return self.made(rules.set_rule(**self.read_input(ResourceRuleBody), actor=self.actor))

    @extend_schema(request=RuleEndBody, responses=ResourceRuleSerializer)
    @action(detail=True, methods=["post"])
    def end(self, request: Request, uid: str) -> Response:
        """End a rule at a full hour."""
        row, data = self.get_object(), self.read_input(RuleEndBody)
        done = rules.end_rule(row.pk, **data, actor=self.actor, expected_version=self.expected_version)
        return self.answer(done)


class ClaimSerializer(serializers.ModelSerializer[NamespaceOwner]):
    """A namespace that is no workspace, a team's from an hour on."""

    cluster = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    team = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    valid_from = serializers.DateTimeField(source="valid.lower", read_only=True, allow_null=True)
    valid_until = serializers.DateTimeField(source="valid.upper", read_only=True, allow_null=True)

    class Meta:
        model = NamespaceOwner
        fields = [
            "uid", "cluster", "namespace", "team", "environment", "reason", "valid_from", "valid_until", "created_at",
            "version",
        ]  # fmt: skip


class ClaimBody(serializers.Serializer[Any]):
    """A namespace, whose it is, from which full hour on."""

    cluster = serializers.SlugField()
    namespace = serializers.CharField(max_length=63)
    team = serializers.SlugField()
    valid_from = serializers.DateTimeField()
    reason = serializers.CharField(max_length=300, required=False, allow_blank=True, default="")


class ClaimEndBody(RemarkBody):
    """At which full hour."""

    at = serializers.DateTimeField()


class ClaimViewSet(CommonsViewSet):
    """Claims of namespaces by the teams in scope."""

    queryset = NamespaceOwner.objects.filter(valid__isempty=False).select_related("cluster", "team")
    serializer_class = ClaimSerializer
    filterset_fields = ["cluster__slug", "team__slug", "namespace"]
    permission = "metering.fact.view"
    permissions: ClassVar[dict[str, str]] = dict.fromkeys(("create", "end", "withdraw"), claims.PERMISSION)

    @extend_schema(request=ClaimBody, responses={201: ClaimSerializer})
    def create(self, request: Request) -> Response:
        """Make a namespace a team's; hours of open months move to it."""
        data = self.read_input(ClaimBody)
        cluster = key_of(Cluster.objects.all(), "cluster", slug=data["cluster"])
        team = key_of(Team.objects.visible_to(request.user), "team", slug=data["team"])
        row = claims.claim_namespace(
            cluster, data["namespace"], team, data["valid_from"], actor=self.actor, reason=data["reason"]
        )
        return self.made(row)

    @extend_schema(request=ClaimEndBody, responses=ClaimSerializer)
    @action(detail=True, methods=["post"])
    def end(self, request: Request, uid: str) -> Response:
        """End a claim; open hours from then on are nobody's again."""
        row, data = self.get_object(), self.read_input(ClaimEndBody)
        return self.answer(claims.end_claim(row.pk, **data, actor=self.actor, expected_version=self.expected_version))

    @extend_schema(request=RemarkBody, responses={204: None})
    @action(detail=True, methods=["post"])
    def withdraw(self, request: Request, uid: str) -> Response:
        """Take a claim back as if it had never been made."""
        row, data = self.get_object(), self.read_input(RemarkBody)
        claims.withdraw_claim(row.pk, **data, actor=self.actor, expected_version=self.expected_version)
        return Response(status=204)


class CapacityLineSerializer(serializers.ModelSerializer[CapacityLine]):
    """One line of a cluster's GPU time of one model and hour: the lines of an hour add up to what is built in."""

    class Meta:
        model = CapacityLine
        fields = ["uid", "hour", "gpu_model", "kind", "gpu_ms", "revision"]


class CapacityLineApiFilter(FilterSet):
    """Filters of the collection."""

    since = django_filters.IsoDateTimeFilter(field_name="hour", lookup_expr="gte")
    until = django_filters.IsoDateTimeFilter(field_name="hour", lookup_expr="lt")
    kind = django_filters.ChoiceFilter(choices=LineKind.choices)
    gpu_model = django_filters.CharFilter()
    cluster = django_filters.CharFilter(method="by_cluster")

    class Meta:
        model = CapacityLine
        fields: ClassVar[list[str]] = []

    def by_cluster(self, rows: Any, name: str, value: str) -> Any:
        """Lines of a cluster by its slug."""
        return rows.filter(cluster_id__in=Cluster.objects.filter(slug=value).values("pk"))


class LinePagination(CursorPagination):
    """Newest hours first."""

    ordering: Any = ("-hour", "uid")


class CapacityLineViewSet(CommonsViewSet):
    """Where a cluster's GPU time went, by hour."""

    queryset = CapacityLine.objects.all()
    serializer_class = CapacityLineSerializer
    filterset_class = CapacityLineApiFilter
    pagination_class = LinePagination
    permission = "metering.run.view"


routes: list[tuple[str, Any, str]] = [
    ("source-waivers", WaiverViewSet, "source-waiver"),
    ("resource-rules", ResourceRuleViewSet, "resource-rule"),
    ("namespace-claims", ClaimViewSet, "namespace-claim"),
    ("capacity-lines", CapacityLineViewSet, "capacity-line"),
]
