"""Events of the reports room: that somebody took figures out, and that a month's report is there."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from apps.core.events import declare


@dataclass(frozen=True)
class ReportExported:
    """A monthly report left the portal as a file."""

    unit_uid: uuid.UUID
    unit_slug: str
    month: str
    format: str


#: Kind of the file that goes with a mail (`notifications.attachments`).
REPORT_FILE = "reports.monthly"

REPORT_EXPORTED = declare("reports.monthly.exported", ReportExported, audience="nobody; the audit trail alone")


@dataclass(frozen=True)
class ReportReady:
    """A month's report, in a few lines. `idle` "": unknown."""

    unit_uid: uuid.UUID
    unit_slug: str
    month: str
    headline: str
    lines: list[str] = field(default_factory=list)
    idle: str = ""
    status: str = ""
    #: The report as PDF, made by a worker meanwhile.
    file_uid: uuid.UUID | None = None

    @property
    def path(self) -> str:
        """Where it stands."""
        return f"/reports/monthly/{self.unit_slug}/{self.month}/"

    @property
    def words(self) -> str:
        """What a mail says beside the headline."""
        found = [f"Idle GPU time: {self.idle or 'unknown'}."]
        if self.status == "not closed yet":
            found.append("The month is not closed yet: figures may still move.")
        found += [f"What to do: {line}." for line in self.lines]
        found.append("The page has every figure down to its source, and the report as PDF.")
        return "\n\n".join(found)


REPORT_READY = declare(
    "reports.monthly.ready",
    ReportReady,
    audience="the unit's owners",
    mail=True,
    headline=lambda p: p.headline,
    body=lambda p: p.words,
    path=lambda p: p.path,
    attachment=lambda p: (REPORT_FILE, p.file_uid) if p.file_uid else None,
)
