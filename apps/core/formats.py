"""How figures and times are written on pages, in mails and in charts. Pure; no template knows a format of its own."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal

from apps.core import clock
from apps.core.money import MILLISECONDS_PER_HOUR, Money

#: Written where a value is unknown; never 0.
UNKNOWN = "–"


def money(value: Money | None, *, whole: bool = False, signed: bool = False) -> str:
    """Return an amount with its currency, "22,176.00 USD"; `whole` drops the minor unit ("22,176 USD").

    `signed` puts a plus before what grew, for changes.
    """
    if value is None:
        return UNKNOWN
    if signed and value.quantized().amount > 0:
        return f"+{money(value, whole=whole)}"
    if whole:
        return f"{value.amount.quantize(Decimal(1), ROUND_HALF_EVEN):,} {value.currency}"
    return str(value)


def gpu_hours(gpu_ms: int | None, *, places: int = 2) -> str:
    """Return GPU-milliseconds as GPU-hours, "1,234.56" (half-even); the unit stands in the column or label."""
    if gpu_ms is None:
        return UNKNOWN
    hours = Decimal(gpu_ms) / MILLISECONDS_PER_HOUR
    return f"{hours.quantize(Decimal(1).scaleb(-places), ROUND_HALF_EVEN):,}"


def percent(ratio: Decimal | float | None, *, places: int = 1) -> str:
    """Return a ratio (1 = 100 %) as "31.6 %"."""
    if ratio is None:
        return UNKNOWN
    value = (Decimal(str(ratio)) * 100).quantize(Decimal(1).scaleb(-places), ROUND_HALF_EVEN)
    return f"{value:,} %"


def number(value: int | Decimal | None) -> str:
    """Return a number with thousands separators."""
    return UNKNOWN if value is None else f"{value:,}"


def duration(value: timedelta | None) -> str:
    """Return a time span in its two largest units: "2 h 5 min", "3 d 4 h", "12 s"."""
    if value is None:
        return UNKNOWN
    seconds = int(abs(value.total_seconds()))
    parts = [
        (seconds // 86400, "d"),
        (seconds % 86400 // 3600, "h"),
        (seconds % 3600 // 60, "min"),
        (seconds % 60, "s"),
    ]
    first = next((i for i, (count, _) in enumerate(parts) if count), len(parts) - 1)
    shown = [f"{count} {unit}" for count, unit in parts[first : first + 2] if count]
    # Seconds beside minutes are noise on a page.
    if first == 2:
        shown = shown[:1]
    return " ".join(shown) or "0 s"


def age(at: datetime | None, *, now: datetime | None = None) -> str:
    """Return how long ago `at` was, "3 min ago", or how far ahead, "in 3 min"; "never" for None."""
    if at is None:
        return "never"
    seconds = ((now or clock.now()) - at).total_seconds()
    size = abs(seconds)
    if size < 5:
        return "just now"
    for limit, unit_seconds, unit in ((60, 1, "s"), (3600, 60, "min"), (86400, 3600, "h"), (60 * 86400, 86400, "d")):
        if size < limit:
            text = f"{int(size // unit_seconds)} {unit}"
            break
    else:
        text = f"{int(size // (30 * 86400))} months"
    return f"{text} ago" if seconds > 0 else f"in {text}"


def datetime_utc(at: datetime | None, *, seconds: bool = False) -> str:
    """Return a moment as "2026-11-22 10:41 UTC"."""
    if at is None:
        return UNKNOWN
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC" if seconds else "%Y-%m-%d %H:%M UTC")


def rfc3339(at: datetime | None) -> str:
    """Return a moment as RFC 3339 in UTC, "2026-11-22T10:41:00Z" (empty for None), for exports and `<time>`."""
    return "" if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def day(value: date | None) -> str:
    """Return a day as "22 Nov 2026"."""
    return UNKNOWN if value is None else f"{value.day} {value:%b %Y}"
