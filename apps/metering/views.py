"""Pages of the metering room: sources with their completeness, ingest runs, import."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from django.http import HttpResponseBase
from django.urls import reverse

from apps.core import clock
from apps.core.errors import Invalid
from apps.core.permissions import may
from apps.core.views import ActionView, CreateView, Crumb, DetailView, ListView
from apps.metering import actions, billing, imports, selectors, source_views
from apps.metering.choices import POLLED
from apps.metering.forms import EndSourceForm, ImportForm, RetryForm
from apps.metering.importing import import_intervals
from apps.metering.models import IngestRun, Source
from apps.metering.source_forms import SourceForm
from apps.metering.tables import HOUR_TONES, RUN_TONES, RunFilter, RunTable, SourceTable


def _sources() -> Crumb:
    return Crumb("Sources of usage", reverse("metering:source-list"))


def _runs() -> Crumb:
    return Crumb("Ingest runs", reverse("metering:run-list"))


class SourceList(ListView):
    """Sources of record of all clusters."""

    title = "Sources of usage"
    permission = "metering.run.view"
    queryset = Source.objects.select_related("cluster")
    table_class = SourceTable
    intro = "Where each cluster's usage is read from, and since when: one source of record per cluster and moment."
    empty_title = "No source yet"
    empty_text = "Until a source is registered or a file imported, usage is unknown (never zero)."
    empty_icon = "database"

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Offer registering and importing to those who may."""
        if may(self.request.user, "metering.import.create"):
            return [
                ("Register a source", reverse("metering:source-create")),
                ("Import a file", reverse("metering:import-create")),
            ]
        return []

    def get_empty_action(self) -> tuple[str, str] | None:
        """The same, in the empty state."""
        found = self.get_page_actions()
        return found[0] if found else None


class SourceDetail(DetailView):
    """One source: completeness calendar of a month, open hours, latest runs."""

    permission = "metering.run.view"
    queryset = Source.objects.select_related("cluster")
    template_name = "metering/source_detail.html"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [_sources()]

    def _month(self) -> date:
        text = self.request.GET.get("month", "")
        if not text:
            upper = self.object.valid.upper
            at = min(upper - timedelta(hours=1), clock.now()) if upper else clock.now()
            return billing.month_of(at)
        try:
            return billing.parse_month(text)
        except ValueError as error:
            raise Invalid({"month": str(error)}) from error

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add calendar, open hours and runs."""
        source, month = self.object, self._month()
        start, end = billing.month_bounds(month)
        days = selectors.calendar(source.cluster_id, start, end)
        return super().get_context(
            month=month,
            previous_month=f"{billing.previous(month):%Y-%m}",
            next_month=f"{billing.following(month):%Y-%m}" if billing.following(month) <= clock.now().date() else "",
            zone=billing.zone_name(),
            blanks=range(month.weekday()),
            days=days,
            completeness=selectors.completeness(source.cluster_id, start, end),
            open_hours=selectors.open_hours(source.cluster_id),
            runs=list(IngestRun.objects.filter(source=source).order_by("-created_at", "-pk")[:10]),
            run_tones=RUN_TONES,
            hour_tones=HOUR_TONES,
            may_retry=may(self.request.user, "metering.run.retry"),
            **source_views.health_context(source, self.request.user),
            may_change=may(self.request.user, "metering.import.create") and source.kind in POLLED,
            may_end=may(self.request.user, "metering.import.create") and source.valid.upper is None,
            **extra,
        )


class SourceCreate(CreateView):
    """Register a source of record."""

    title = "Register a source"
    permission = "metering.import.create"
    queryset = Source.objects.all()
    form_class = SourceForm
    submit_label = "Register"
    intro = "From its beginning on, this server is where the cluster's usage comes from."
    success_message = "The source is registered: it is tested now, and its hours are read, newest first."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [_sources()]

    def get_initial(self) -> dict[str, Any]:
        """Start at the beginning of the month."""
        return {"valid_from": billing.month_bounds(billing.month_of(clock.now()))[0]}

    def perform(self, form: Any) -> str:
        """Register it."""
        data = form.cleaned_data
        source = actions.register_source(
            data["cluster"].pk,
            data["kind"],
            data["name"],
            data["url"],
            data["valid_from"],
            actor=self.actor,
            settings=form.options(),
            token=data["token"],
        )
        return reverse("metering:source-detail", kwargs={"source_uid": source.uid})


class SourceRetry(ActionView):
    """Ask for open hours to be read again."""

    title = "Read open hours again"
    permission = "metering.run.retry"
    queryset = Source.objects.select_related("cluster")
    form_class = RetryForm
    submit_label = "Read again"
    intro = "Missing and incomplete hours of this time are read at once, whatever pause they had; complete hours stay."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the source."""
        return [_sources(), Crumb(str(self.object), self._back())]

    def _back(self) -> str:
        return reverse("metering:source-detail", kwargs={"source_uid": self.object.uid})

    def get_initial(self) -> dict[str, Any]:
        """Propose the time of the open hours."""
        found = selectors.open_hours(self.object.cluster_id)
        now = clock.hour_floor(clock.now())
        if not found:
            return {"start": now - timedelta(days=1), "end": now}
        return {"start": found[-1].hour, "end": found[0].hour + timedelta(hours=1)}

    def perform(self, form: Any) -> str:
        """Ask for them."""
        data = form.cleaned_data
        count = actions.retry_hours(self.object.pk, data["start"], data["end"], actor=self.actor)
        self.success_message = f"{count} hour{'s' if count != 1 else ''} will be read again now."
        return self._back()


class SourceEnd(ActionView):
    """End a source of record."""

    title = "End this source"
    permission = "metering.import.create"
    queryset = Source.objects.select_related("cluster")
    form_class = EndSourceForm
    submit_label = "End the source"
    danger = True
    intro = "What it told stays. From its end on the cluster's usage is unknown until another source follows."
    success_message = "The source is ended."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the source."""
        return [_sources(), Crumb(str(self.object), self._back())]

    def _back(self) -> str:
        return reverse("metering:source-detail", kwargs={"source_uid": self.object.uid})

    def get_initial(self) -> dict[str, Any]:
        """Propose the next full hour."""
        return {"at": clock.hour_floor(clock.now()) + timedelta(hours=1)}

    def perform(self, form: Any) -> str:
        """End it."""
        actions.end_source(
            self.object.pk, form.cleaned_data["at"], actor=self.actor, expected_version=self.expected_version
        )
        return self._back()


class RunList(ListView):
    """Ingest runs."""

    title = "Ingest runs"
    permission = "metering.run.view"
    queryset = IngestRun.objects.select_related("source__cluster")
    table_class = RunTable
    filterset_class = RunFilter
    intro = "Every reading of a source: which hours it brought, changed, or could not tell."
    empty_title = "Nothing was read yet"
    empty_text = "Runs appear here once a source is registered."
    empty_icon = "history"

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Lead to the sources."""
        return [("Sources of usage", reverse("metering:source-list"))]


class RunDetail(DetailView):
    """One run: what it did, its proofs, what was refused."""

    title = "Ingest run"
    permission = "metering.run.view"
    queryset = IngestRun.objects.select_related("source__cluster", "started_by")
    template_name = "metering/run_detail.html"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [_runs()]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add completeness of its hours and its proofs (without the bodies)."""
        run = self.object
        proofs = run.proofs.defer("body").order_by("window_start", "pk")[:100]
        return super().get_context(
            completeness=selectors.completeness(run.source.cluster_id, run.window_start, run.window_end),
            proofs=list(proofs),
            run_tones=RUN_TONES,
            hour_tones=HOUR_TONES,
            may_retry=may(self.request.user, "metering.run.retry"),
            **extra,
        )


class ImportCreate(CreateView):
    """Upload usage intervals."""

    title = "Import usage"
    permission = "metering.import.create"
    queryset = IngestRun.objects.all()
    form_class = ImportForm
    template_name = "metering/import.html"
    submit_label = "Import"
    intro = "Bring usage along as a file, from another scheduler say. The same file twice changes nothing."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the sources."""
        return [_sources()]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the description of the columns."""
        return super().get_context(aliases=[(name, ", ".join(a)) for name, a in imports.ALIASES.items()], **extra)

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Read the file outside any transaction, then take its good rows in one."""
        data = form.cleaned_data
        try:
            parsed = imports.parse(data["file"].chunks(), now=clock.now(), epoch=data["epoch"])
        except imports.Unusable as error:
            raise Invalid({"file": str(error)}) from error
        run = import_intervals(
            data["cluster"].pk,
            parsed,
            actor=self.actor,
            strict=data["strict"],
            source_name=data["source_name"],
            file_name=data["file"].name,
        )
        taken, refused = run.report["taken"], run.report["refused"]
        self.success_message = f"{taken} rows taken, {refused} refused. Their hours are being metered now."
        return reverse("metering:run-detail", kwargs={"run_uid": run.uid})
