"""Events of the reports room: only that somebody took figures out."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from apps.core.events import declare


@dataclass(frozen=True)
class ReportExported:
    """A monthly report left the portal as a file."""

    unit_uid: uuid.UUID
    unit_slug: str
    month: str
    format: str


REPORT_EXPORTED = declare("reports.monthly.exported", ReportExported, audience="nobody; the audit trail alone")
