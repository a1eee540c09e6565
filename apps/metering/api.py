"""Usage and ingest runs through the API: what the pages show."""

from __future__ import annotations

from typing import Any, ClassVar

import django_filters
from django_filters.rest_framework import FilterSet
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.core.api import CommonsViewSet
from apps.core.paging import CursorPagination
from apps.metering import admin_api, fitness, source_options
from apps.metering.admin_api import SourceAdminMixin
from apps.metering.choices import RunStatus, SourceKind
from apps.metering.models import HourFact, IngestRun, Source


class FactSerializer(serializers.ModelSerializer[HourFact]):
    """One hourly fact. Quantities are integers; `used_gpu_ms` null means unknown."""

    class Meta:
        model = HourFact
        fields = [
            "uid", "hour", "team_name", "unit_name", "cost_centre", "environment", "namespace", "workload_name",
            "workload_kind", "pod", "container", "flavour_name", "gpu_model", "capacity_type", "allocated_unit_ms",
            "allocated_gpu_ms", "used_gpu_ms", "used_source", "coverage_permille", "gpu_memory_mib", "project",
            "purpose", "release_uid", "service_class", "flags", "revision",
        ]  # fmt: skip


class FactFilter(FilterSet):
    """Filter facts."""

    since = django_filters.IsoDateTimeFilter(field_name="hour", lookup_expr="gte")
    until = django_filters.IsoDateTimeFilter(field_name="hour", lookup_expr="lt")
    namespace = django_filters.CharFilter()
    workload_name = django_filters.CharFilter()
    team_name = django_filters.CharFilter()

    class Meta:
        model = HourFact
        fields: ClassVar[list[str]] = []


class HourPagination(CursorPagination):
    """Newest hours first."""

    ordering: Any = ("-hour", "uid")


class UsageViewSet(CommonsViewSet):
    """Hourly facts of the teams and units in scope, by the team and unit on the row."""

    queryset = HourFact.objects.all()
    serializer_class = FactSerializer
    filterset_class = FactFilter
    pagination_class = HourPagination
    permission = "metering.fact.view"


class RunSerializer(serializers.ModelSerializer[IngestRun]):
    """One ingest run."""

    source_uid = serializers.UUIDField(source="source.uid", read_only=True)
    cluster = serializers.CharField(source="source.cluster.slug", read_only=True)

    class Meta:
        model = IngestRun
        fields = [
            "uid", "created_at", "finished_at", "source_uid", "cluster", "trigger", "status", "window_start",
            "window_end", "hours_written", "hours_unchanged", "hours_failed", "facts", "requests", "response_bytes",
            "error",
        ]  # fmt: skip


class RunFilter(FilterSet):
    """Filter runs."""

    cluster = django_filters.CharFilter(field_name="source__cluster__slug")
    status = django_filters.ChoiceFilter(choices=RunStatus.choices)

    class Meta:
        model = IngestRun
        fields: ClassVar[list[str]] = []


class RunViewSet(CommonsViewSet):
    """Ingest runs, newest first."""

    queryset = IngestRun.objects.select_related("source__cluster")
    serializer_class = RunSerializer
    filterset_class = RunFilter
    permission = "metering.run.view"


class SourceSerializer(serializers.ModelSerializer[Source]):
    """A source of usage and how it stands; its credentials are never part of it."""

    cluster = serializers.CharField(source="cluster.slug", read_only=True)
    valid_from = serializers.SerializerMethodField()
    valid_until = serializers.SerializerMethodField()
    options = serializers.SerializerMethodField()
    health = serializers.SerializerMethodField()

    class Meta:
        model = Source
        fields = [
            "uid", "name", "cluster", "kind", "url", "options", "valid_from", "valid_until", "failures", "retry_at",
            "health", "version",
        ]  # fmt: skip

    def get_valid_from(self, source: Source) -> Any:
        """Since when it is the source of record."""
        return source.valid.lower

    def get_valid_until(self, source: Source) -> Any:
        """Until when; null: no end."""
        return source.valid.upper

    @extend_schema_field(admin_api.SourceOptions)
    def get_options(self, source: Source) -> dict[str, Any]:
        """The options of its kind; null: not set."""
        return source_options.shown(source.kind, source.options)

    def get_health(self, source: Source) -> dict[str, Any]:
        """State in one word, when it was tested, which checks fail, which of them are waived and until when."""
        found = self._known().get(source.pk) or fitness.Health(None)
        check = found.check
        return {
            "state": found.word,
            "tested_at": check.checked_at if check else None,
            "verdict": check.verdict if check else None,
            "failed": list(found.failing),
            "waived": list(found.waived),
            "waived_until": found.waived_until,
            "findings": check.findings if check else [],
        }

    def _known(self) -> dict[int, fitness.Health]:
        """Return the health of all sources of this answer, read once."""
        shared: dict[str, dict[int, fitness.Health]] = self.context["source_health"]
        if "all" not in shared:
            shared["all"] = fitness.health_of(Source.objects.only("pk"))
        return shared["all"]


class SourceFilter(FilterSet):
    """Filter sources."""

    cluster = django_filters.CharFilter(field_name="cluster__slug")
    kind = django_filters.ChoiceFilter(choices=SourceKind.choices)

    class Meta:
        model = Source
        fields: ClassVar[list[str]] = []


class SourceViewSet(SourceAdminMixin, CommonsViewSet):
    """Sources of usage with their health."""

    permissions = SourceAdminMixin.admin_permissions

    queryset = Source.objects.select_related("cluster")
    serializer_class = SourceSerializer
    filterset_class = SourceFilter
    permission = "metering.run.view"

    def get_serializer_context(self) -> dict[str, Any]:
        """Add a place for what all sources of one answer share."""
        return {**super().get_serializer_context(), "source_health": {}}


routes = [
    ("usage", UsageViewSet, "usage"),
    ("ingest-runs", RunViewSet, "ingest-run"),
    ("usage-sources", SourceViewSet, "usage-source"),
    *admin_api.routes,
]
