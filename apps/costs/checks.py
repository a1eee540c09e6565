"""System checks of the ledger: a currency whose minor unit the books cannot hold would be rounded without a word."""

from __future__ import annotations

import re
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from apps.core.money import minor_units

#: Decimal places of every stored amount of a statement, bill and credit.
PLACES = 2


@register()
def the_books_can_hold_the_currency(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """The ledger's currency is an ISO 4217 code with at most two decimal places."""
    code = str(settings.COMMONS_CURRENCY)
    if not re.fullmatch(r"[A-Z]{3}", code):
        return [Error(f"COMMONS_CURRENCY is an ISO 4217 code such as USD, not {code!r}", id="costs.E001")]
    if minor_units(code) > PLACES:
        return [
            Error(
                f"COMMONS_CURRENCY {code} has {minor_units(code)} decimal places; statements keep {PLACES}: lines"
                " would not add up to their totals",
                hint="Keep the ledger in a currency with two decimal places or none.",
                id="costs.E002",
            )
        ]
    return []
