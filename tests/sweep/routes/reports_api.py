"""The monthly report through the API."""

from __future__ import annotations

from datetime import date
from types import SimpleNamespace

from apps.core import clock
from apps.insights.models import ReportFile
from tests.sweep.routes.reports import ROUTES as PAGES
from tests.sweep.twins import post, twin
from tests.sweep.types import Route


def build(world: SimpleNamespace) -> None:
    """A report that is made."""
    world.report_file = ReportFile.objects.create(
        unit=world.company.unit, month=date(2020, 1, 1), status="done", body=b"%PDF-1.7", size=8, sha256="0" * 64,
        requested_at=clock.now(), made_at=clock.now(),
    )  # fmt: skip


ROUTES: dict[str, Route] = {
    "api:monthly-report": twin(PAGES["reports:monthly"], query="?unit=retail-bank&month=2020-01"),
    "api:report-file-list": twin(PAGES["reports:monthly-latest"]),
    "api:report-file-list#POST": post(PAGES["reports:monthly-latest"]),
    "api:report-file-detail": twin(PAGES["reports:monthly-pdf"], "report_file"),
    "api:report-file-content": twin(PAGES["reports:monthly-pdf"], "report_file"),
}
