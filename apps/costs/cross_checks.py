"""Comparing a cluster's days with the cost tool that runs on it: what is due, read, worked out and written down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from apps.clusters import crypto
from apps.clusters.choices import Sharing
from apps.clusters.models import Cluster
from apps.core import clock, leases
from apps.costs import cross_check_causes as causes
from apps.costs import cross_check_reader as reader
from apps.costs.choices import HELD, RESOURCES, CheckKind, CheckState
from apps.costs.models import CheckSetting, CrossCheck
from apps.costs.tally import Tally
from apps.metering import billing
from apps.metering.choices import METERED, SourceKind
from apps.metering.models import HourStatus, Source

#: Days back that are compared, and how long a day is read anew: Kubecost goes on adjusting for two days.
DAYS_BACK = 35
SETTLING = timedelta(hours=72)
AGAIN = timedelta(hours=24)
FINAL_AFTER = timedelta(hours=2)
RETRY = timedelta(hours=1)
LONGEST_RETRY = timedelta(hours=24)
#: Days read of one cluster in a round of the sweep.
BATCH = 10
LEASE_SECONDS = 900
_PLACES = Decimal("0.000001")
_PATHS = {SourceKind.ALLOCATION: "/allocation", SourceKind.KUBECOST: "/model/allocation"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a cluster's cost tool answers."""

    url: str
    path: str
    token: str
    only: tuple[str, ...] = ()


def ledger() -> str:
    """Return the currency that both sides are in."""
    return str(settings.COMMONS_CURRENCY)


def setting_for(cluster: Cluster) -> CheckSetting:
    """Return a cluster's setting; unsaved with the defaults where there is none."""
    found = CheckSetting.objects.filter(cluster=cluster).first()
    return found or CheckSetting(cluster=cluster, currency=ledger(), version=0)


def endpoint_of(setting: CheckSetting, day: date) -> Endpoint | None:
    """Return where to ask for a day: the setting's own address, else the source of record if it is an allocation API.

    Raises CannotRead where a stored token cannot be read.
    """
    try:
        if setting.url:
            return Endpoint(setting.url, setting.path, crypto.decrypt(setting.credentials))
        start, _ = billing.day_bounds(day)
        source = Source.objects.filter(
            cluster_id=setting.cluster_id, kind__in=list(_PATHS), valid__contains=start
        ).first()
        if source is None:
            return None
        path = str(source.options.get("path") or _PATHS[SourceKind(source.kind)])
        only = tuple(str(name) for name in source.options.get("clusters") or ())
        return Endpoint(source.url, path, crypto.decrypt(source.credentials), only)
    except crypto.CannotDecrypt as error:
        raise reader.CannotRead(str(error)) from error


def clusters_to_check() -> list[Cluster]:
    """Return the clusters with an address to compare with (their own or their source's) that are not switched off."""
    own = set(CheckSetting.objects.exclude(url="").values_list("cluster_id", flat=True))
    sources = set(Source.objects.filter(kind__in=list(_PATHS)).values_list("cluster_id", flat=True))
    off = set(CheckSetting.objects.filter(enabled=False).values_list("cluster_id", flat=True))
    return list(Cluster.objects.filter(pk__in=(own | sources) - off).order_by("pk"))


def ours_of(cluster_id: int, first: date, end: date) -> dict[date, tuple[causes.Ours | None, str]]:
    """Return our side of each day in [first, end) with charges; None with the reason where part of it is unknown."""
    sums: dict[date, dict[str, Tally]] = {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT d.day, CASE WHEN d.kind = ANY(%s) THEN 'resources' WHEN coalesce(v.sharing, %s) = %s THEN"
            " 'exclusive' ELSE 'shared' END, r.amount, r.currency, sum(d.quantity_ms), sum(d.gpu_ms)"
            " FROM costs_daycharge d LEFT JOIN rates_rate r ON r.id = d.rate_id"
            " LEFT JOIN clusters_flavour v ON v.id = d.flavour_id"
            " WHERE d.cluster_id = %s AND d.day >= %s AND d.day < %s AND d.kind = ANY(%s) GROUP BY 1, 2, 3, 4",
            [
                [str(kind) for kind in RESOURCES], str(Sharing.EXCLUSIVE), str(Sharing.EXCLUSIVE), cluster_id, first,
                end, [str(kind) for kind in (*HELD, *RESOURCES)],
            ],
        )  # fmt: skip
        for day, part, hourly, code, quantity, gpu_ms in cursor.fetchall():
            tally = sums.setdefault(day, {}).setdefault(part, Tally(ledger()))
            tally.add(int(quantity), int(gpu_ms), hourly, code)
    holes = _holes(cluster_id, first, end)
    return {day: _side(parts, holes.get(day, 0)) for day, parts in sums.items()}


def _side(parts: Mapping[str, Tally], holes: int) -> tuple[causes.Ours | None, str]:
    if holes:
        return None, f"{holes} of our hours {'is' if holes == 1 else 'are'} missing or incomplete."
    if any(tally.unpriced_ms for tally in parts.values()):
        return None, "Part of our quantities has no price."

    def amount(name: str) -> Decimal:
        found = parts[name].amount if name in parts else None
        return found.amount if found is not None else Decimal(0)

    gpu_ms = parts["exclusive"].gpu_ms if "exclusive" in parts else 0
    return causes.Ours(amount("exclusive"), gpu_ms, amount("shared"), amount("resources")), ""


def _holes(cluster_id: int, first: date, end: date) -> dict[date, int]:
    rows = HourStatus.objects.filter(
        cluster_id=cluster_id, hour__gte=billing.day_start(first), hour__lt=billing.day_start(end)
    )
    found: dict[date, int] = {}
    for hour in rows.exclude(state__in=METERED).values_list("hour", flat=True):
        day = billing.day_of(hour)
        found[day] = found.get(day, 0) + 1
    return found


def due_days(cluster: Cluster, at: datetime) -> list[date]:
    """Return the days to compare now, newest first: new, unknown so far, still settling, or moved on our side.

    A day that no address answers for (a source of record of another kind, none of its own) is never due.
    """
    own = CheckSetting.objects.filter(cluster=cluster).exclude(url="").exists()
    times: list[Any] = list(
        Source.objects.filter(cluster=cluster, kind__in=list(_PATHS)).values_list("valid", flat=True)
    )
    last = billing.day_of(at - FINAL_AFTER)
    first = last - timedelta(days=DAYS_BACK)
    known = {
        row.day: row
        for row in CrossCheck.objects.filter(cluster=cluster, kind=CheckKind.ALLOCATION, day__gte=first, day__lt=last)
    }
    due = []
    for day, (ours, _) in sorted(ours_of(cluster.pk, first, last).items(), reverse=True):
        row = known.get(day)
        start, end = billing.day_bounds(day)
        if not own and not any(start in time for time in times):
            continue
        total = None if ours is None else ours.total.quantize(_PLACES)
        if (
            row is None
            or row.ours != total
            or (row.theirs is None and row.checked_at <= at - RETRY)
            or (row.checked_at < end + SETTLING and row.checked_at <= at - AGAIN)
        ):
            due.append(day)
    return due[:BATCH]


def check_due() -> int:
    """Compare what is due; returns how many days were. One worker at a time; the calls lie outside any transaction."""
    token = leases.claim("costs.cross_checks", seconds=LEASE_SECONDS)
    if token is None:
        return 0
    try:
        return sum(_check_cluster(cluster) for cluster in clusters_to_check())
    finally:
        leases.release("costs.cross_checks", token)


def _check_cluster(cluster: Cluster) -> int:
    at = clock.now()
    setting = setting_for(cluster)
    if setting.retry_at is not None and setting.retry_at > at:
        return 0
    done = 0
    for day in due_days(cluster, at):
        error = check_day(setting, day)
        done += 1
        _note_failure(setting, failed=bool(error))
        if error:
            break
    return done


def _note_failure(setting: CheckSetting, *, failed: bool) -> None:
    unwritten = setting._state.adding
    if unwritten and not failed:
        return
    if unwritten:
        setting, _ = CheckSetting.objects.get_or_create(
            cluster_id=setting.cluster_id, defaults={"currency": setting.currency}
        )
    failures = setting.failures + 1 if failed else 0
    pause = min(LONGEST_RETRY, RETRY * (1 << min(failures - 1, 10))) if failed else None
    retry_at = clock.now() + pause if pause is not None else None
    if (failures, retry_at) != (setting.failures, setting.retry_at):
        setting.failures, setting.retry_at = failures, retry_at
        # No person's change: the version stays, so that a form that is open can still be saved.
        CheckSetting.objects.filter(pk=setting.pk).update(failures=failures, retry_at=retry_at)


def check_day(setting: CheckSetting, day: date) -> str:
    """Read their side of a day and write the comparison; returns why it could not be read, "" where it could."""
    start, end = billing.day_bounds(day)
    ours, note = ours_of(setting.cluster_id, day, day + timedelta(days=1)).get(day, (None, "We charged nothing."))
    try:
        endpoint = endpoint_of(setting, day)
        if endpoint is None:
            return ""
        theirs = reader.read_day(endpoint.url, endpoint.path, endpoint.token, start, end, only=endpoint.only)
    except reader.CannotRead as error:
        write(setting, day, ours, None, causes.Slack(), note or f"Their figures cannot be read: {error}")
        return str(error)
    slack = slack_of(setting, start, end, theirs.pods) if ours is not None else causes.Slack()
    write(setting, day, ours, theirs.sums(), slack, note)
    return ""


def slack_of(setting: CheckSetting, start: datetime, end: datetime, pods: Iterable[reader.Pod]) -> causes.Slack:
    """Return how far quantities of exclusive GPUs may differ: start-up per pod that both know, and edges of pods."""
    starts: dict[tuple[str, str], int] = {}
    for pod in pods:
        key = (pod.namespace, pod.pod)
        starts[key] = min(pod.start_ms, starts.get(key, pod.start_ms))
    low, high = int(start.timestamp() * 1000), int(end.timestamp() * 1000)
    start_up = edges = 0
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT f.namespace, f.pod, min((extract(epoch FROM f.hour) * 1000)::bigint + f.spans[1]),"
            " max((extract(epoch FROM f.hour) * 1000)::bigint + f.spans[array_upper(f.spans, 1) - 1]), max(f.spans[3])"
            " FROM metering_hourfact f LEFT JOIN clusters_flavour v ON v.id = f.flavour_id"
            " WHERE f.cluster_id = %s AND f.hour >= %s AND f.hour < %s AND cardinality(f.spans) >= 3"
            " AND coalesce(v.sharing, %s) = %s GROUP BY 1, 2",
            [setting.cluster_id, start, end, str(Sharing.EXCLUSIVE), str(Sharing.EXCLUSIVE)],
        )
        for namespace, pod, first, last, units in cursor.fetchall():
            began, ended = first > low, last < high
            edges += (int(began) + int(ended)) * setting.resolution_seconds * 1000 * units
            ran = starts.get((namespace, pod))
            if began and ran is not None and ran > first:
                start_up += (ran - first) * units
    return causes.Slack(start_up, edges)


def write(
    setting: CheckSetting,
    day: date,
    ours: causes.Ours | None,
    theirs: causes.Theirs | None,
    slack: causes.Slack,
    note: str,
) -> CrossCheck:
    """Write the comparison of a day; what somebody explained stays explained while neither side moves."""
    known: list[dict[str, str]] = []
    remainder: Decimal | None = None
    if ours is not None and theirs is not None:
        found = causes.explain(ours, theirs, slack)
        remainder = found.remainder.quantize(_PLACES)
        known = [{"code": code, "amount": str(amount)} for code, amount in found.causes]
    detail = {
        "remainder": None if remainder is None else str(remainder),
        "ours": _plain(ours, "exclusive", "exclusive_gpu_ms", "shared", "resources"),
        "theirs": _plain(theirs, "exclusive", "exclusive_gpu_ms", "shared", "resources", "idle"),
        "start_up_gpu_ms": slack.start_up_gpu_ms,
        "edges_gpu_ms": slack.edges_gpu_ms,
    }
    our_total = None if ours is None else ours.total.quantize(_PLACES)
    their_total = None if theirs is None else theirs.total.quantize(_PLACES)
    matched = (
        remainder is not None
        and our_total is not None
        and causes.within(remainder, our_total, setting.tolerance_permille, setting.tolerance_amount)
    )
    return store(setting.cluster_id, day, CheckKind.ALLOCATION, our_total, their_total, matched, known, detail, note)


def _plain(side: Any, *names: str) -> dict[str, str]:
    return {} if side is None else {name: str(getattr(side, name)) for name in names}


@transaction.atomic
def store(
    cluster_id: int,
    day: date,
    kind: str,
    ours: Decimal | None,
    theirs: Decimal | None,
    matched: bool,
    known: list[dict[str, str]],
    detail: dict[str, Any],
    note: str,
) -> CrossCheck:
    """Write one comparison, replacing what stood; an explanation goes with the figures that it was given for."""
    now = clock.now()
    row = CrossCheck.objects.select_for_update().filter(cluster_id=cluster_id, day=day, kind=kind).first()
    state = CheckState.MATCHED if matched else CheckState.OPEN
    if row is None:
        return CrossCheck.objects.create(
            cluster_id=cluster_id, day=day, kind=kind, ours=ours, theirs=theirs, currency=ledger(), state=state,
            causes=known, detail=detail, note=note[:300], checked_at=now,
        )  # fmt: skip
    if theirs is None and row.theirs is not None and row.ours == ours:
        # An answer that was not to be had now takes nothing away from the one that is there.
        row.checked_at = now
        row.save(update_fields=["checked_at"])
        return row
    moved = (row.ours, row.theirs) != (ours, theirs)
    keeps = row.state == CheckState.EXPLAINED and not moved
    changed = moved or not (keeps or row.state == state)
    row.ours, row.theirs, row.causes, row.detail = ours, theirs, known, detail
    row.note, row.checked_at = note[:300], now
    fields = ["ours", "theirs", "causes", "detail", "note", "checked_at"]
    if not changed:
        # Looked at again and found the same: an explanation that is being written meanwhile still fits.
        row.save(update_fields=fields)
        return row
    row.state, row.explanation, row.explained_by = state, "", None
    row.bump(*fields, "state", "explanation", "explained_by")
    return row
