"""Pages of running statements: of months that are not closed, as of the time they were last made."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponseBase
from django.urls import reverse

from apps.core.errors import Conflict, NotVisible
from apps.core.lists import PER_PAGE
from apps.core.middleware import after_read
from apps.core.sweeps import nudge
from apps.core.views import Crumb
from apps.costs import running
from apps.costs.choices import OwnerKind, PeriodStatus
from apps.costs.models import RunningStatement
from apps.costs.period_views import _PeriodMixin, period_url
from apps.costs.statement_views import LineTable, links_of
from apps.metering import billing


class _Running(_PeriodMixin):
    """Base of the pages of provisional statements."""

    def scope_object(self) -> Any:
        """Whoever reads some statement sees those of their own, here as there."""
        return None

    def rows(self) -> Any:
        """Return the running statements in scope. Raises Conflict where the month is closed."""
        if self.object.status == PeriodStatus.CLOSED:
            raise Conflict("This month is closed: its statements stand.", current={"status": "closed"})
        return RunningStatement.objects.visible_to(self.request.user).filter(period=self.object)

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the month."""
        return [*super().breadcrumbs(), Crumb(f"{self.object.month:%B %Y}", period_url(self.object))]


class RunningList(_Running):
    """Running statements of a month that is not closed."""

    template_name = "costs/statement_running_list.html"
    htmx_template = "costs/statement_running_list.html#list"

    def get_title(self) -> str:
        """Return the title."""
        return f"Running statements of {self.object.month:%B %Y}"

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Show a page of them; where none were made yet, have them made."""
        rows = running.in_order(self.rows())
        made_at = running.made_at(self.object.month)
        if made_at is None:
            from apps.costs import tasks

            after_read(request, lambda: nudge(tasks.make_running))
        page = self.paged(Paginator(rows, PER_PAGE).page)
        groups = [
            (OwnerKind(kind).label, list(found))
            for kind, found in groupby(page.object_list, lambda row: row.owner_kind)
        ]
        return self.page(
            period=self.object, zone=billing.zone_name(), groups=groups, pages=page, made_at=made_at,
            minutes=int(running.FRESH.total_seconds()) // 60,
        )  # fmt: skip


class RunningDetail(_Running):
    """One running statement."""

    template_name = "costs/statement_running.html"
    htmx_template = "costs/statement_running.html#list"
    row: RunningStatement

    def prepare(self) -> None:
        """Load the month and the statement. Raises NotVisible, whether it is missing or foreign."""
        super().prepare()
        found = self.rows().filter(number=self.kwargs["number"]).select_related("period").first()
        if found is None:
            raise NotVisible
        self.row = found

    def get_title(self) -> str:
        """Return whose it is."""
        return f"{self.row.owner_name}: {self.object.month:%B %Y}, running"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the running statements."""
        url = reverse("costs:running-list", kwargs={"month": self.kwargs["month"]})
        return [*super().breadcrumbs(), Crumb("Running statements", url)]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add statement and lines."""
        row = self.row
        lines = running.lines_of(row)
        table = LineTable(data=lines, statement=row, links=links_of(lines), orderable=False)
        table.request = self.request
        self.paged(lambda page: table.paginate(page=page, per_page=PER_PAGE))
        return super().get_context(
            statement=row,
            period=self.object,
            zone=billing.zone_name(),
            table=table,
            common=row.total - row.own,
            **extra,
        )


__all__ = ["RunningDetail", "RunningList"]
