"""The report on paper: one template for print and PDF, files made by a worker (claim → render → record).

WeasyPrint is imported where it is used: it takes seconds, and needs Pango, which a plain machine lacks; then the row
says so and the print page stands in.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.staticfiles import finders
from django.db import transaction
from django.db.models import Q
from django.template.loader import render_to_string

from apps.accounts.models import User
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import NotAllowed, NotVisible
from apps.core.money import Money
from apps.core.sweeps import nudge
from apps.insights.report_models import FileStatus, ReportFile
from apps.metering import billing
from apps.notifications import attachments
from apps.reports import selectors
from apps.reports.folding import fold
from apps.teams import scope
from apps.teams.models import Unit

#: After this time without a word from its worker a file is made by another.
CLAIM = timedelta(minutes=5)
ATTEMPTS = 3
#: A file of a month that may still move is made anew after this time.
FRESH = timedelta(hours=1)
#: The printed bars, in units of the drawing: where they begin, how long the longest is, room before its amount.
_BEGIN, _FULL, _GAP = Decimal(62), Decimal(155), Decimal(2)


class NoPrinter(RuntimeError):
    """WeasyPrint or one of its libraries is not installed."""


def print_context(unit: Unit, month: date, user: Any, *, platform: bool = True) -> dict[str, Any]:
    """Return what the printed report shows: the page's own figures. Raises NotVisible outside the person's scope."""
    report = selectors.monthly_report(unit, month, user)
    extras = selectors.report_extras(unit, report, fold(report), user)
    shown = fold(report)
    return {
        "report": report,
        "shown": shown,
        "extras": extras,
        "explained": selectors.explained(report, shown),
        "platform": platform,
        "bars": _bars([(line.name, line.amount) for line in shown.lines[:12]]),
        "so_far_hint": selectors.so_far_hint(extras),
        "made_at": clock.now(),
        "organisation": settings.COMMONS_ORGANISATION,
        "demo": settings.COMMONS_DEMO,
        "base_url": settings.COMMONS_BASE_URL,
        **selectors.report_context(unit, month, report, user),
    }


@dataclass(frozen=True, slots=True)
class Bar:
    """A printed bar: whose, how much, how long, and where its amount is written."""

    name: str
    amount: Money
    width: str
    end: str


def _bars(amounts: list[tuple[str, Money | None]]) -> list[Bar]:
    """Return bars drawn to the largest amount."""
    known = [(name, amount) for name, amount in amounts if amount is not None and amount.amount > 0]
    most = max((amount.amount for _, amount in known), default=Decimal(1))
    widths = [amount.amount / most * _FULL for _, amount in known]
    return [
        Bar(name, amount, f"{width:.1f}", f"{_BEGIN + width + _GAP:.1f}")
        for (name, amount), width in zip(known, widths, strict=True)
    ]


def make_pdf(unit: Unit, month: date, user: Any, *, platform: bool = True) -> bytes:
    """Return the report as tagged PDF (PDF/UA-1). Raises NoPrinter where WeasyPrint cannot be loaded, NotVisible."""
    context = print_context(unit, month, user, platform=platform)
    try:
        import weasyprint
    except (ImportError, OSError) as error:
        raise NoPrinter(f"WeasyPrint cannot be loaded here: {error}") from error
    style = finders.find("css/report-print.css")
    if not isinstance(style, str):
        raise NoPrinter("the style sheet of the printed report is not installed")
    html = render_to_string("reports/print.html", {**context, "pdf": True})
    sheet = weasyprint.CSS(string=Path(style).read_text(encoding="utf-8"))
    document = weasyprint.HTML(string=html, url_fetcher=_no_fetch)
    return bytes(document.write_pdf(stylesheets=[sheet], pdf_variant="pdf/ua-1", uncompressed_pdf=False))


def _no_fetch(url: str, *_: Any, **__: Any) -> dict[str, Any]:
    """Refuse every fetch: the report holds everything it shows."""
    raise ValueError(f"a report loads nothing from elsewhere: {url[:100]}")


@transaction.atomic
def request_file(unit: Unit, month: date, *, actor: Actor, platform: bool = True) -> ReportFile:
    """Queue the PDF of a report, anew where it may have moved since. Raises NotVisible, NotAllowed."""
    user = User.objects.filter(pk=actor.user_id, is_active=True).first() if actor.user_id is not None else None
    if user is None:
        raise NotAllowed("Only a person can ask for a report.")
    if not scope.of(user).holds("reports.monthly.view", unit):
        raise NotVisible
    return queue(unit, month, user, platform=platform)


def queue(unit: Unit, month: date, user: User, *, platform: bool = True) -> ReportFile:
    """Queue a PDF in the caller's transaction; one that is under way, or fresh, stays as it is."""
    now = clock.now()
    row, made = ReportFile.objects.select_for_update().get_or_create(
        unit=unit, month=month, platform=platform, defaults={"requested_by": user, "requested_at": now}
    )
    busy = row.status in (FileStatus.QUEUED, FileStatus.RUNNING)
    fresh = row.status == FileStatus.DONE and row.made_at is not None and row.made_at > now - FRESH
    if not made and not busy and not fresh:
        row.status, row.requested_by, row.requested_at = FileStatus.QUEUED, user, now
        row.attempts, row.error, row.claimed_until = 0, "", None
        row.bump("status", "requested_by", "requested_at", "attempts", "error", "claimed_until")
    from apps.reports.tasks import make_files  # which imports this module

    nudge(make_files)
    return row


def make_due(limit: int = 20) -> int:
    """Make every file that waits; returns how many moved on."""
    moved = 0
    while moved < limit and (row := _claim()) is not None:
        moved += 1
        try:
            if row.requested_by is None:
                raise NotVisible
            body, error = make_pdf(row.unit, row.month, row.requested_by, platform=row.platform), ""
        except NoPrinter as missing:
            body, error = b"", str(missing)
        except NotVisible:
            body, error = b"", "Who asked for it may not read this report any more."
        except Exception:
            _put_back(row)  # for the next sweep, rather than after the claim's time; the error goes to the log
            raise
        _record(row, body, error)
    return moved


def _claim() -> ReportFile | None:
    with transaction.atomic():
        now = clock.now()
        waiting = Q(status=FileStatus.QUEUED) | Q(status=FileStatus.RUNNING, claimed_until__lt=now)
        rows = ReportFile.objects.select_for_update(skip_locked=True, of=("self",)).filter(waiting)
        row = rows.select_related("unit", "requested_by").defer("body").order_by("requested_at", "pk").first()
        if row is None:
            return None
        row.attempts += 1
        if row.attempts > ATTEMPTS:
            row.status = FileStatus.FAILED
            row.error = "Three tries to make it failed; a worker's log says why. Ask for it again."
            row.bump("status", "error", "attempts")
            return None
        row.status, row.claimed_until = FileStatus.RUNNING, now + CLAIM
        row.bump("status", "claimed_until", "attempts")
        return row


def _put_back(claimed: ReportFile) -> None:
    with transaction.atomic():
        row = ReportFile.objects.select_for_update().filter(pk=claimed.pk, version=claimed.version).first()
        if row is not None:
            row.status, row.claimed_until = FileStatus.QUEUED, None
            row.bump("status", "claimed_until")


def _record(claimed: ReportFile, body: bytes, error: str) -> None:
    with transaction.atomic():
        row = ReportFile.objects.select_for_update().filter(pk=claimed.pk, version=claimed.version).first()
        if row is None:
            return  # another worker has taken it over meanwhile
        row.claimed_until = None
        if error:
            row.status, row.error = FileStatus.FAILED, error[:2000]
            row.bump("status", "error", "claimed_until")
            return
        row.status, row.error, row.body, row.size = FileStatus.DONE, "", body, len(body)
        row.sha256, row.made_at = hashlib.sha256(body).hexdigest(), clock.now()
        row.bump("status", "error", "body", "size", "sha256", "made_at", "claimed_until")


def for_mail(uid: uuid.UUID, user: Any) -> attachments.File:
    """Return a report's PDF for a mail to `user`, where it stands and whether they may (still) read it."""
    row = ReportFile.objects.visible_to(user).select_related("unit").filter(uid=uid).first()
    if row is None:
        return attachments.Missing("you may not read this report any more.")
    if row.status == FileStatus.FAILED:
        return attachments.Missing("it could not be made.")
    if row.status != FileStatus.DONE or row.body is None:
        return attachments.Pending()
    return attachments.Ready(name_of(row.unit, row.month), "application/pdf", bytes(row.body))


def name_of(unit: Unit, month: date) -> str:
    """Return the name of a report's file."""
    return f"{unit.slug}-{month:%Y-%m}.pdf"


def is_running(month: date) -> bool:
    """Whether the month may still move."""
    return month >= billing.month_of(clock.now())
