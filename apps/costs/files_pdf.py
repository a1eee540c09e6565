"""A statement as PDF: the print page's own template, drawn by WeasyPrint, which is loaded only here.

The same statement gives the same bytes: the document's identifier is the statement's digest, and nothing in it depends
on when it was made. Tagged as PDF/UA-1 for screen readers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

from django.conf import settings
from django.contrib.staticfiles import finders
from django.template.loader import render_to_string

from apps.costs import files_rows
from apps.costs.models import Statement

TEMPLATE = "costs/print_statement.html"
STYLE = "css/statement.css"


class Unavailable(Exception):
    """PDF files cannot be made on this machine; the text says what is missing and what to do instead."""


def context(statement: Statement) -> dict[str, Any]:
    """Return what the template sees, on screen and in the file."""
    rows = list(files_rows.rows(statement.period, statement))
    return {
        "statement": statement,
        "period": statement.period,
        "owner": files_rows.owner_of(statement),
        "organisation": settings.COMMONS_ORGANISATION,
        "rows": rows,
        "total": statement.total,
    }


def _refuse(url: str, *args: object, **kwargs: object) -> NoReturn:
    raise ValueError(f"a statement loads nothing from elsewhere: {url}")


def _style() -> Path:
    found = finders.find(STYLE)
    return settings.STATIC_ROOT / STYLE if found is None else Path(str(found))


def render(statement: Statement) -> bytes:
    """Return the statement as PDF. Raises Unavailable where the library or what it needs is missing."""
    try:
        import weasyprint
    except (ImportError, OSError) as error:
        # WeasyPrint loads Pango when it is imported, and says OSError where that is not installed.
        raise Unavailable(
            "PDF files need the library Pango (libpango-1.0, libpangoft2-1.0), which this machine does not have. Open"
            " the print page of the statement and print it from the browser instead."
        ) from error
    html = render_to_string(TEMPLATE, {**context(statement), "screen": False})
    document = weasyprint.HTML(string=html, base_url=None, url_fetcher=_refuse)
    style = weasyprint.CSS(string=_style().read_text(encoding="utf-8"), url_fetcher=_refuse)
    found = document.write_pdf(
        stylesheets=[style], identifier=statement.digest.encode(), pdf_variant="pdf/ua-1", full_fonts=False
    )
    return bytes(found)
