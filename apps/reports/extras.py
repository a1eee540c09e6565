"""What stands in the report beside the month's figures, in one statement: period, statements, budgets, proposals,
dearest workloads. The caller has checked that the person may read the unit's report, which takes seeing all of it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.db import connection
from django.urls import reverse

from apps.core import clock
from apps.core.money import MILLISECONDS_PER_HOUR, Money
from apps.costs.choices import PeriodStatus
from apps.costs.forecasting import forecast
from apps.costs.reporting import MonthReport, TeamLine
from apps.insights import advice
from apps.insights.selectors import right_size_url
from apps.insights.workloads import PROPOSED
from apps.metering import billing
from apps.rates.pricing import HOURS_PER_MONTH
from apps.reports.budget_rows import budgets
from apps.reports.extra_rows import Extras, Proposal, Span, TopWorkload
from apps.teams.models import Unit

#: Workloads and proposals on the page; their lists have all of them.
WORKLOADS, PROPOSALS = 15, 10
#: A day counts as whole once its last hour is final (design §7).
FINAL_AFTER = timedelta(hours=2)
WEEK = 7

# Kinds that the proposed policy leaves alone in production (quotas.idle_policy.SERVING), as sources spell them.
_SERVES = "w.environment = 'production' AND lower(w.workload_kind) IN ('deployment', 'replicaset', 'inferenceservice')"
_EXTRAS = f"""
SELECT json_build_object(
  'period', (SELECT status FROM costs_period WHERE month = %(month)s),
  'statements', (SELECT json_agg(json_build_object('number', s.number, 'uid', s.uid, 'kind', s.owner_kind,
      'team', s.team_id, 'own', s.own_amount::text, 'amount', s.amount::text))
    FROM costs_statement s JOIN costs_period p ON p.id = s.period_id
    WHERE p.month = %(month)s AND p.status = 'closed' AND s.superseded_at IS NULL
      AND (s.owner_kind = 'unit' AND s.unit_id = %(unit)s
        OR s.owner_kind = 'team' AND s.unit_path @> ARRAY[%(unit)s]::bigint[])),
  'budgets', (SELECT json_agg(b) FROM (
    SELECT DISTINCT ON (b.team_id, b.unit_id) b.uid, b.team_id AS team, b.unit_id AS unit, b.amount::text AS amount,
      b.currency, b.gpu_hours, (SELECT json_agg(DISTINCT s.step) FROM costs_budgetstep s
        WHERE s.budget_id = b.id AND s.month = %(month)s) AS steps
    FROM costs_budget b WHERE b.month_from <= %(month)s AND (b.unit_id = %(unit)s OR b.team_id = ANY(%(shown)s))
    ORDER BY b.team_id, b.unit_id, b.month_from DESC) b),
  'adjusted', EXISTS (SELECT 1 FROM costs_correction c JOIN costs_period p ON p.id = c.period_id
      WHERE p.month = %(month)s)
    OR EXISTS (SELECT 1 FROM costs_credit c JOIN costs_period p ON p.id = c.period_id
      WHERE p.month = %(month)s AND c.status = 'approved'),
  'idle', (SELECT json_agg(i) FROM (
    SELECT w.team_id AS team, w.workspace_id AS workspace, k.uid AS workspace_uid, k.namespace,
      max(w.currency) AS currency,
      sum(w.product)::text AS product, sum(w.savable_gpu_ms) FILTER (WHERE NOT ({_SERVES})) AS savable_gpu_ms,
      (coalesce(sum(w.product * w.idle_gpu_ms / nullif(w.allocated_gpu_ms, 0)) FILTER (WHERE NOT ({_SERVES})), 0))::text
        AS idle_product,
      (coalesce(sum(w.savable_product) FILTER (WHERE NOT ({_SERVES})), 0))::text AS savable_product,
      sum(w.allocated_gpu_ms) AS allocated_gpu_ms, sum(w.covered_gpu_ms) AS covered_gpu_ms,
      sum(w.idle_gpu_ms) FILTER (WHERE NOT ({_SERVES})) AS idle_gpu_ms,
      json_agg(DISTINCT w.purpose) FILTER (WHERE w.savable_gpu_ms > 0 AND NOT ({_SERVES})) AS purposes,
      bool_or(w.unpriced_ms > 0) AS unpriced,
      (SELECT f.uid FROM insights_finding f WHERE f.workspace_id = w.workspace_id AND f.kind = 'idle_work'
        AND f.status IN ('open', 'snoozed') LIMIT 1) AS finding
    FROM (SELECT w.team_id, w.workspace_id FROM insights_workloadmonth w
        JOIN quotas_workspace k ON k.id = w.workspace_id
      WHERE w.month = %(month)s AND w.unit_id = ANY(%(within)s) AND k.archived_at IS NULL AND NOT ({_SERVES})
      GROUP BY w.team_id, w.workspace_id HAVING sum(w.savable_gpu_ms) >= %(least)s
      ORDER BY sum(w.savable_product) DESC, w.workspace_id LIMIT {PROPOSALS}) most
    JOIN insights_workloadmonth w ON w.workspace_id = most.workspace_id AND w.team_id IS NOT DISTINCT FROM most.team_id
      AND w.month = %(month)s AND w.unit_id = ANY(%(within)s)
    JOIN quotas_workspace k ON k.id = w.workspace_id
    GROUP BY w.team_id, w.workspace_id, k.uid, k.namespace
    ORDER BY sum(w.savable_product) FILTER (WHERE NOT ({_SERVES})) DESC, w.workspace_id) i),
  'findings', (SELECT json_agg(f) FROM (
    SELECT f.uid, f.kind, f.title, f.team_id AS team, f.proposal ->> 'monthly' AS monthly,
      f.proposal ->> 'currency' AS currency, f.proposal ->> 'flavour' AS flavour,
      f.proposal ->> 'change' AS change, f.proposal ->> 'share' AS share, f.proposal ->> 'of_idle' AS of_idle,
      k.uid AS workspace_uid
    FROM insights_finding f JOIN teams_team t ON t.id = f.team_id JOIN teams_unit u ON u.id = t.unit_id
    LEFT JOIN quotas_workspace k ON k.id = f.workspace_id
    WHERE f.status = 'open' AND f.kind <> 'idle_work' AND u.path @> ARRAY[%(unit)s]::bigint[]
    ORDER BY (f.proposal ->> 'monthly')::numeric DESC NULLS LAST, f.amount DESC NULLS LAST LIMIT {PROPOSALS}) f),
  'realised', (SELECT sum(f.realised)::text FROM insights_finding f JOIN teams_team t ON t.id = f.team_id
    JOIN teams_unit u ON u.id = t.unit_id
    WHERE f.realised IS NOT NULL AND u.path @> ARRAY[%(unit)s]::bigint[]),
  'workloads', (SELECT json_agg(w) FROM (
    SELECT w.workload_name AS name, w.workload_kind AS kind, w.namespace, w.team_name, t.slug AS team_slug,
      c.slug AS cluster, w.flavour_name AS flavour, w.allocated_gpu_ms, w.covered_gpu_ms, w.idle_gpu_ms,
      w.product::text AS product, w.currency, w.last_hour, w.made_at
    FROM (SELECT * FROM insights_workloadmonth w WHERE w.month = %(month)s AND w.unit_id = ANY(%(within)s)
      ORDER BY w.amount DESC NULLS LAST, w.id LIMIT {WORKLOADS}) w
    JOIN clusters_cluster c ON c.id = w.cluster_id LEFT JOIN teams_team t ON t.id = w.team_id
    ORDER BY w.amount DESC NULLS LAST, w.id) w),
  'items', ({{items}})
)
"""  # noqa: S608 (constants of this module)


def read(unit: Unit, report: MonthReport, units: Sequence[int], teams: Sequence[TeamLine]) -> Extras:
    """Read what stands beside the figures (one query), freeze the report's lines where the month is closed.

    `units`: ids at or below the unit; `teams`: the lines shown, whose budgets are of interest, and what their changes
    are made of.
    """
    changed = report.unread(teams)
    items, of_items = report.read_items.value(changed) if report.read_items is not None and changed else ("NULL", {})
    wanted: dict[str, Any] = {
        **of_items, "month": report.month, "unit": unit.pk, "within": list(units), "least": advice.MIN_SAVABLE_MS,
        "shown": [line.team_id for line in teams if line.team_id is not None],
    }  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute(_EXTRAS.replace("{items}", items), wanted)
        row = cursor.fetchone()
    found: dict[str, Any] = row[0] if isinstance(row[0], dict) else json.loads(row[0])
    if report.read_items is not None and changed:
        report.items.update(report.read_items.parse(changed, found["items"] or []))
    now = clock.now()
    running = report.start <= now < report.end
    extras = Extras(
        closed=found["period"] == PeriodStatus.CLOSED, status=_status(found["period"], running, report, now)
    )
    _freeze(report, found["statements"] or [])
    adjusted = found["adjusted"] and not extras.closed
    extras.budgets = budgets(unit, report, found["budgets"] or [], adjusted=adjusted)
    extras.proposals = _proposals(report, found, now)
    extras.workloads = [_workload(one) for one in found["workloads"] or []]
    if found["workloads"]:
        extras.workloads_at = datetime.fromisoformat(found["workloads"][0]["made_at"])
    if found["realised"] is not None:
        extras.realised = Money(Decimal(found["realised"]), report.currency).quantized()
    _look_ahead(extras, report, now, running)
    extras.week = _week(report, now)
    extras.so_far = _so_far(report, now) if running else None
    return extras


def _status(period: str | None, running: bool, report: MonthReport, now: datetime) -> str:
    if period == PeriodStatus.CLOSED:
        return "closed"
    if running:
        return "running"
    if now < report.start:
        return "not begun"
    return "closing" if period == PeriodStatus.CLOSING else "not closed yet"


def _freeze(report: MonthReport, statements: list[dict[str, Any]]) -> None:
    """Put what statements say in place of what is metered; the figures of use stay."""

    def money(text: str) -> Money:
        return Money(Decimal(text), report.currency)

    by_team = {one["team"]: one for one in statements if one["kind"] == "team"}
    for line in report.lines:
        one = by_team.get(line.team_id)
        if one is not None and line.team_id is not None:
            line.frozen = money(one["own"])
            line.shared = money(one["amount"]) - line.frozen
            line.statement, line.statement_uid = one["number"], uuid.UUID(one["uid"])
    own_unit = next((one for one in statements if one["kind"] == "unit"), None)
    if own_unit is not None:
        report.frozen_total = money(own_unit["own"])
        report.shared_total = money(own_unit["amount"]) - report.frozen_total
        report.statement, report.statement_uid = own_unit["number"], uuid.UUID(own_unit["uid"])


def _proposals(report: MonthReport, found: dict[str, Any], now: datetime) -> list[Proposal]:
    proposals = []
    rows = found["idle"] or []
    places: dict[int | None, int] = {}
    for row in rows:
        places[row["team"]] = places.get(row["team"], 0) + 1
    elapsed = (min(now, report.end) - report.start) / timedelta(hours=1)
    lines = {line.team_id: line for line in report.lines}
    for row in rows:
        line = lines.get(row["team"])
        work = advice.IdleWork(
            row["workspace"], row["allocated_gpu_ms"], row["covered_gpu_ms"], row["idle_gpu_ms"] or 0,
            row["savable_gpu_ms"], Decimal(row["product"]), Decimal(row["idle_product"]),
            Decimal(row["savable_product"]), row["currency"], row["unpriced"], set(row["purposes"] or []),
        )  # fmt: skip
        saving = work.saving
        if saving is not None and now < report.end:
            saving = Money(saving.amount * HOURS_PER_MONTH / max(Decimal(int(elapsed)), Decimal(1)), saving.currency)
        saving = saving.quantized() if saving is not None else None
        name = line.name if line is not None else "No owner known"
        if places[row["team"]] > 1:
            name = f"{name} ({row['namespace']})"
        text = advice.sentence(name, work, PROPOSED.idle_hours, monthly=saving)
        where = reverse("quotas:workspace-idle-policy", kwargs={"workspace_uid": row["workspace_uid"]})
        query = {"threshold_percent": PROPOSED.threshold_percent, "idle_minutes": PROPOSED.idle_minutes, "reason": text}
        evidence = (
            reverse("insights:finding-detail", kwargs={"finding_uid": row["finding"]})
            if row["finding"]
            else f"{reverse('insights:workload-list')}?"
            + urlencode({"month": f"{report.month:%Y-%m}", "team": name if places[row["team"]] == 1 else ""})
        )
        proposals.append(
            Proposal(
                text,
                saving,
                evidence,
                f"{where}?{urlencode(query)}",
                "Stop it when idle",
                work.coverage_permille,
                stops=f"{row['workspace_uid']} {row['team']}",
            )
        )
    for row in found["findings"] or []:
        proposals.append(_of_finding(row))
    return sorted(proposals, key=lambda one: -(one.monthly.amount if one.monthly else Decimal(-1)))[:PROPOSALS]


def _of_finding(row: dict[str, Any]) -> Proposal:
    monthly = Money(Decimal(row["monthly"]), row["currency"]).quantized() if row["monthly"] else None
    page = reverse("insights:finding-detail", kwargs={"finding_uid": row["uid"]})
    action, label, stops, place, share, of_idle = page, "Look at it", "", "", None, None
    if row["kind"] == "hoarded_quota":
        action, label = reverse("insights:finding-give-back", kwargs={"finding_uid": row["uid"]}), "Give it back"
    elif row["kind"] == "right_size" and row["workspace_uid"]:
        action = right_size_url(row["workspace_uid"], row["flavour"] or "", row["change"], row["title"])
        label = "Request the smaller size"
        place = f"{row['workspace_uid']} {row['team']}"
        share = Decimal(row.get("share") or "0")
        of_idle = Decimal(row["of_idle"]) if row.get("of_idle") else None
    elif row["kind"] == "off_hours" and row["workspace_uid"]:
        where = reverse("quotas:workspace-idle-policy", kwargs={"workspace_uid": row["workspace_uid"]})
        action, label = f"{where}?{urlencode({'reason': row['title']})}", "Stop it when idle"
        stops = f"{row['workspace_uid']} {row['team']}"
    return Proposal(
        row["title"], monthly, page, action, label, stops=stops, place=place, clock=row["kind"] == "off_hours",
        share=share, of_idle=of_idle,
    )  # fmt: skip


def _workload(row: dict[str, Any]) -> TopWorkload:
    url = ""
    if row["team_slug"]:
        day = billing.day_of(datetime.fromisoformat(row["last_hour"]))
        address = reverse("costs:workload-day", kwargs={"team_slug": row["team_slug"], "day": day.isoformat()})
        query = {"cluster": row["cluster"], "namespace": row["namespace"], "name": row["name"]}
        url = f"{address}?{urlencode(query)}"
    known = row["covered_gpu_ms"] * 10 >= row["allocated_gpu_ms"] * 9
    cost = (
        Money(Decimal(row["product"]) / MILLISECONDS_PER_HOUR, row["currency"]).quantized() if row["currency"] else None
    )
    share = Decimal(row["idle_gpu_ms"]) / row["allocated_gpu_ms"] if known and row["allocated_gpu_ms"] else None
    return TopWorkload(
        row["name"], row["kind"], row["namespace"], row["team_name"], row["flavour"], row["allocated_gpu_ms"], cost,
        share, url,
    )  # fmt: skip


def last_whole_day(now: datetime) -> date:
    """Return the last billing day whose last hour is final."""
    return billing.day_of(now - FINAL_AFTER) - timedelta(days=1)


def _look_ahead(extras: Extras, report: MonthReport, now: datetime, running: bool) -> None:
    """Say where the running month will end, by its whole days and those of the two months before."""
    if not running:
        return
    whole = last_whole_day(now)
    known = {one.day: one.amount.amount if one.amount is not None else None for one in report.days}
    days = [report.month + timedelta(days=number) for number in range(max(0, (whole - report.month).days + 1))]
    length = (billing.following(report.month) - report.month).days
    first = min(known, default=report.month)
    history = [first + timedelta(days=number) for number in range(max(0, (report.month - first).days))]
    today = known.get(whole + timedelta(days=1)) if whole + timedelta(days=1) >= report.month else None
    found = forecast(
        [known.get(day) for day in days], length, [known.get(day) for day in history], running=today or Decimal(0),
        month=report.month,
    )  # fmt: skip
    if found is None:
        return
    extras.forecast = found
    extras.forecast_low, extras.forecast_mid, extras.forecast_high = (
        Money(value, report.currency).quantized() for value in (found.low, found.mid, found.high)
    )


def _week(report: MonthReport, now: datetime) -> Span | None:
    """Return the last seven whole days of the month beside the seven before them; None where a day is not known."""
    end = min(last_whole_day(now), billing.following(report.month) - timedelta(days=1))
    if end < report.month:
        return None
    start = end - timedelta(days=WEEK - 1)
    return _span(report, start, start - timedelta(days=WEEK), WEEK)


def _so_far(report: MonthReport, now: datetime) -> Span | None:
    """Return the running month's whole days beside as many of the month before: a part against a whole misleads."""
    earlier = billing.previous(report.month)
    count = min((last_whole_day(now) - report.month).days + 1, (report.month - earlier).days)
    return _span(report, report.month, earlier, count) if count > 0 else None


def _span(report: MonthReport, start: date, before_start: date, count: int) -> Span | None:
    known = {one.day: one.amount for one in report.days}
    sums = []
    for first in (start, before_start):
        amounts = [known.get(first + timedelta(days=number)) for number in range(count)]
        if any(amount is None for amount in amounts):
            return None
        sums.append(sum((amount for amount in amounts if amount), Money.zero(str(settings.COMMONS_CURRENCY))))
    end = start + timedelta(days=count - 1)
    return Span(start, end, sums[0].quantized(), sums[1].quantized(), before_start)
