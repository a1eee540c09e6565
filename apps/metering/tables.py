"""Tables and filters of the metering room."""

from __future__ import annotations

from typing import Any

import django_filters
import django_tables2 as tables

from apps.clusters.models import Cluster
from apps.core.filters import CommonsFilterSet, DateFromFilter, DateUntilFilter
from apps.core.tables import AgeColumn, CommonsTable, QuantityColumn, StatusColumn, TimeColumn, UidLinkColumn
from apps.core.templatetags import commons
from apps.metering import fitness
from apps.metering.choices import RunStatus, Trigger
from apps.metering.models import IngestRun, Source

RUN_TONES = {"succeeded": "positive", "partial": "caution", "failed": "critical", "running": "info"}
HOUR_TONES = {"final": "positive", "provisional": "info", "incomplete": "caution", "missing": "critical"}


class RunTable(CommonsTable):
    """Ingest runs."""

    created_at = UidLinkColumn("metering:run-detail", kwarg="run_uid", verbose_name="Started")
    source = tables.Column(accessor="source__name", verbose_name="Source")
    cluster = tables.Column(accessor="source__cluster__name", verbose_name="Cluster")
    status = StatusColumn(tones=RUN_TONES)
    trigger = tables.Column(attrs={"cell": {"class": "d-none d-md-table-cell"}})
    window_start = TimeColumn(verbose_name="Hours from")
    window_end = TimeColumn(verbose_name="until")
    hours_written = QuantityColumn(unit=None, verbose_name="Hours written")
    hours_unchanged = QuantityColumn(unit=None, verbose_name="Unchanged")
    hours_failed = QuantityColumn(unit=None, verbose_name="Open")
    facts = QuantityColumn(unit=None, verbose_name="Facts")

    class Meta(CommonsTable.Meta):
        model = IngestRun
        fields = (
            "created_at", "cluster", "source", "status", "trigger", "window_start", "window_end", "hours_written",
            "hours_unchanged", "hours_failed", "facts",
        )  # fmt: skip
        order_by = ("-created_at",)
        caption = "Ingest runs"

    def render_created_at(self, value: Any, record: IngestRun, column: UidLinkColumn) -> Any:
        """Write the start as a link."""
        return column.render(f"{value:%Y-%m-%d %H:%M:%S} UTC", record)


class RunFilter(CommonsFilterSet):
    """Filter runs."""

    cluster = django_filters.ModelChoiceFilter(
        field_name="source__cluster", queryset=Cluster.objects.order_by("name"), to_field_name="slug", label="Cluster"
    )
    status = django_filters.ChoiceFilter(choices=RunStatus.choices, label="Status")
    trigger = django_filters.ChoiceFilter(choices=Trigger.choices, label="Started by")
    since = DateFromFilter(field_name="created_at")
    until = DateUntilFilter(field_name="created_at")

    class Meta:
        model = IngestRun
        fields = ["cluster", "status", "trigger"]


class SourceTable(CommonsTable):
    """Sources of record."""

    name = UidLinkColumn("metering:source-detail", kwarg="source_uid")
    cluster = tables.Column(accessor="cluster__name", verbose_name="Cluster")
    kind = tables.Column()
    url = tables.Column(verbose_name="Address", attrs={"cell": {"class": "d-none d-lg-table-cell"}})
    valid_from = TimeColumn(accessor="valid__lower", verbose_name="From", order_by="valid")
    valid_until = TimeColumn(accessor="valid__upper", verbose_name="Until", orderable=False)
    health = tables.Column(empty_values=(), orderable=False, verbose_name="Fit to bill from")
    tested_at = AgeColumn(empty_values=(), orderable=False, verbose_name="Tested")
    failures = QuantityColumn(unit=None, verbose_name="Failures in a row")
    retry_at = AgeColumn(verbose_name="Next try")

    class Meta(CommonsTable.Meta):
        model = Source
        fields = (
            "name", "cluster", "kind", "health", "tested_at", "url", "valid_from", "valid_until", "failures",
            "retry_at",
        )  # fmt: skip
        order_by = ("cluster", "-valid_from")
        caption = "Sources of usage"

    def _health(self, record: Source) -> fitness.Health:
        """Return how a source stands; worked out for all sources at once, when the first one is drawn."""
        if self._known is None:
            self._known = fitness.health_of(Source.objects.only("pk"))
        return self._known.get(record.pk) or fitness.Health(None)

    _known: dict[int, fitness.Health] | None = None

    def render_health(self, record: Source) -> Any:
        """Draw the source's state in one word."""
        word = self._health(record).word
        return commons.status_badge(word, fitness.WORDS[word], fitness.TONES[word])

    def value_health(self, record: Source) -> str:
        """Export the word alone."""
        return fitness.WORDS[self._health(record).word]

    def render_tested_at(self, record: Source, column: AgeColumn) -> Any:
        """Draw the age of the newest self-test."""
        check = self._health(record).check
        return column.render(check.checked_at) if check else "–"

    def value_tested_at(self, record: Source) -> Any:
        """Export the moment."""
        check = self._health(record).check
        return check.checked_at if check else None
