"""Which sources may be billed from: derived from the newest self-test and the waivers that stand, never stored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps.core import clock
from apps.metering.choices import CheckVerdict
from apps.metering.models import Source, SourceCheck, SourceWaiver
from apps.metering.selftest import NEVER_WAIVED, TITLES, failed_codes

#: The flag of hours that were read while their source was unfit.
SOURCE_UNFIT = "source_unfit"
#: How a source's state in one word reads, and its tone.
TONES = {
    "passed": "positive",
    "warned": "caution",
    "waived": "caution",
    "unfit": "critical",
    "unknown": "critical",
    "untested": "neutral",
}
WORDS = {
    "passed": "Fit",
    "warned": "Fit, with remarks",
    "waived": "Fit by waiver",
    "unfit": "Not fit to bill from",
    "unknown": "Unknown since it was changed",
    "untested": "Not tested yet",
}


#: Verdicts that must not be billed on without a waiver: it fails, or nothing is known of it since it was changed.
_FAILING = (CheckVerdict.FAILED, CheckVerdict.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Unfit:
    """A source that must not be billed from: the checks that fail and that nobody waived."""

    source: Source
    check: SourceCheck
    codes: tuple[str, ...]

    @property
    def reasons(self) -> list[str]:
        """The failing checks as people read them."""
        by_code = {str(item.get("code")): str(item.get("detail", "")) for item in self.check.findings}
        return [f"{TITLES.get(code, code)}: {by_code.get(code, '')}" for code in self.codes]


@dataclass(frozen=True, slots=True)
class Health:
    """How a source stands now: its newest test, what fails, what of it is waived and until when."""

    check: SourceCheck | None
    failing: tuple[str, ...] = ()
    waived: tuple[str, ...] = ()
    waived_until: datetime | None = None

    @property
    def unfit(self) -> tuple[str, ...]:
        """The failing checks that nobody waived."""
        return tuple(code for code in self.failing if code not in self.waived)

    @property
    def word(self) -> str:
        """The source in one word: untested, unknown, unfit, waived, warned or passed."""
        if self.check is None:
            return "untested"
        if self.unfit:
            return "unknown" if self.check.verdict == CheckVerdict.UNKNOWN else "unfit"
        if self.failing:
            return "waived"
        return "warned" if self.check.verdict == CheckVerdict.WARNED else "passed"


def newest_checks(source_ids: Iterable[int], at: datetime | None = None) -> dict[int, SourceCheck]:
    """Return the newest self-test of each source, made by `at` (default: ever): one query."""
    checks = SourceCheck.objects.filter(source_id__in=list(source_ids))
    if at is not None:
        checks = checks.filter(checked_at__lte=at)
    found = checks.order_by("source_id", "-checked_at", "-pk").distinct("source_id").select_related("started_by")
    return {check.source_id: check for check in found}


def health_of(sources: Iterable[Source], at: datetime | None = None) -> dict[int, Health]:
    """Return how each source stands at `at` (default: now), by key: two queries."""
    moment = at or clock.now()
    ids = [source.pk for source in sources]
    checks = newest_checks(ids, at)
    failing = {pk: failed_codes(check.findings) for pk, check in checks.items() if check.verdict in _FAILING}
    waivers: dict[int, dict[str, datetime]] = {}
    if failing:
        for waiver in SourceWaiver.objects.standing(moment).filter(source_id__in=failing):
            held = waivers.setdefault(waiver.source_id, {})
            for code in waiver.codes:
                held[code] = max(held.get(code, waiver.valid.upper), waiver.valid.upper)
    result = {}
    for pk in ids:
        codes = failing.get(pk, [])
        given = waivers.get(pk, {})
        waived = tuple(code for code in codes if code in given and code not in NEVER_WAIVED)
        until = min((given[code] for code in waived), default=None)
        result[pk] = Health(checks.get(pk), tuple(codes), waived, until)
    return result


def unfit(source: Source, at: datetime | None = None) -> Unfit | None:
    """Return what makes `source` unfit to bill from at `at` (default: now); None: it is fit, or was never tested."""
    health = health_of([source], at)[source.pk]
    if health.check is None or not health.unfit:
        return None
    return Unfit(source, health.check, health.unfit)


def unfit_sources(start: datetime, end: datetime) -> list[Unfit]:
    """Return the sources of record of any part of [start, end) that are unfit now: what keeps a month from closing."""
    sources = list(
        Source.objects.filter(valid__overlap=DateTimeTZRange(start, end, "[)"))
        .select_related("cluster")
        .order_by("cluster__name", "pk")
    )
    found = health_of(sources)
    return [
        Unfit(source, health.check, health.unfit)
        for source in sources
        if (health := found[source.pk]).check is not None and health.unfit
    ]


def untested_sources(start: datetime, end: datetime, *, older_than: timedelta | None = None) -> list[Source]:
    """Return the sources of record of [start, end) without a self-test, or (older_than) without one so recent."""
    sources = list(Source.objects.filter(valid__overlap=DateTimeTZRange(start, end, "[)")).select_related("cluster"))
    checks = newest_checks(source.pk for source in sources)
    limit = clock.now() - older_than if older_than else None
    return [
        source
        for source in sources
        if (check := checks.get(source.pk)) is None or (limit is not None and check.checked_at < limit)
    ]
