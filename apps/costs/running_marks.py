"""What a month's preview was made from, whether that still stands, and whether the frozen month says the same."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from django.db import connection
from django.db.models import Count, Max

from apps.clusters.models import Cluster, Flavour
from apps.core import formats
from apps.core.canonical import digest_of
from apps.core.money import Money
from apps.costs.checklist import CheckItem
from apps.costs.choices import Verdict
from apps.costs.models import Bill, Correction, Credit, Period, RunningMonth, RunningStatement, UnitBilling
from apps.costs.statement_rows import Preview, Sheet, policy_for
from apps.teams.models import Team, Unit

# Per cluster by its index: whatever is priced anew, or for the first time, moves one of the three.
_PRICED = """
SELECT c.id, p.hours, p.revisions, p.priced_at FROM clusters_cluster c CROSS JOIN LATERAL (
  SELECT count(*) AS hours, sum(revision) AS revisions, max(priced_at)::text AS priced_at FROM costs_pricedhour
  WHERE cluster_id = c.id AND hour >= %s AND hour < %s) p
WHERE p.hours > 0 ORDER BY c.id"""


def marker(period: Period) -> str:
    """Return a digest that is another one as soon as a month's statements may be (nine queries, whatever its size)."""
    with connection.cursor() as cursor:
        cursor.execute(_PRICED, [period.start, period.end])
        priced = [[pk, hours, str(revisions), at] for pk, hours, revisions, at in cursor.fetchall()]
    policy = policy_for(period.month)
    credits = Credit.objects.filter(period=period, status=Verdict.APPROVED)
    modes = UnitBilling.objects.filter(month_from__lte=period.month)
    return digest_of(
        [
            priced,
            _moved(Correction.objects.filter(period=period), "pk"),
            _moved(credits, "pk", "updated_at"),
            _moved(Bill.objects.filter(month=period.month, withdrawn_at=None), "pk", "updated_at"),
            list(modes.order_by("pk").values_list("pk", "mode", "account")),
            [policy.pk, policy.version] if policy else [],
            list(Unit.objects.order_by("pk").values_list("pk", "name", "path")),
            list(Cluster.objects.order_by("pk").values_list("pk", "name")),
            list(Flavour.objects.order_by("pk").values_list("pk", "name")),
            list(Team.objects.filter(pk__in=credits.values("team_id")).order_by("pk").values_list("pk", "name")),
            period.reopened,
        ]
    )


def _moved(rows: Any, *fields: str) -> list[str]:
    found = rows.aggregate(count=Count("pk"), **{f"last_{name}": Max(name) for name in fields})
    return [str(found[name]) for name in sorted(found)]


def digest_of_sheets(sheets: Iterable[Sheet]) -> str:
    """Return the SHA-256 over numbers, owners and amounts of a month's statements."""
    rows = [
        [
            one.number, one.team_name, one.unit_name, one.cost_centre, f"{one.amount:.2f}", f"{one.own_amount:.2f}",
            str(one.unpriced_ms), one.line_count,
        ]
        for one in (sheet.statement for sheet in sheets)
    ]  # fmt: skip
    return digest_of(sorted(rows))


def confirm(period: Period, digest: str) -> None:
    """Keep which preview stood before the person who confirms a close. In the caller's transaction."""
    mark = RunningMonth.objects.select_for_update().filter(period=period).first()
    if mark is None:
        return
    same = bool(digest) and mark.digest == digest and mark.made_at is not None
    mark.confirmed = None
    if same and mark.made_at is not None:
        mark.confirmed = {"digest": digest, "bill": str(mark.bill), "made_at": formats.datetime_utc(mark.made_at)}
    elif digest:
        mark.confirmed = {"digest": digest, "bill": "", "made_at": ""}
    mark.save(update_fields=["confirmed"])


def compared(period: Period, found: Preview) -> list[CheckItem]:
    """Return a remark on how the statements to be frozen differ from the preview that the close was confirmed on.

    None where nobody had looked at one. The freeze never takes anything from a preview: it only says so.
    """
    mark = RunningMonth.objects.filter(period=period).exclude(confirmed=None).first()
    if mark is None or mark.confirmed is None:
        return []
    title, bill = "As in the preview", formats.money(found.bill)
    if mark.confirmed["digest"] == digest_of_sheets(found.sheets):
        detail = f"All {len(found.sheets)} statements are those of the preview of {mark.confirmed['made_at']}: {bill}."
        return [CheckItem("preview", title, ok=True, detail=detail, blocking=False)]
    seen = "an earlier preview"
    if mark.confirmed["made_at"]:
        before = formats.money(Money(Decimal(mark.confirmed["bill"]), period.currency))
        seen = f"the preview of {mark.confirmed['made_at']} ({before})"
    other = ""
    count = 0
    if mark.digest == mark.confirmed["digest"]:
        rows = RunningStatement.objects.filter(period=period).values_list("number", "team_name", "unit_name", "amount")
        before_rows = set(rows)
        now_rows = {
            (one.number, one.team_name, one.unit_name, one.amount)
            for one in (sheet.statement for sheet in found.sheets)
        }
        count = len(now_rows - before_rows) + len({row[0] for row in before_rows} - {row[0] for row in now_rows})
        other = f" {count} of {len(now_rows)} statements are others."
    detail = f"The close was confirmed on {seen}; what was frozen is {bill}.{other}"
    return [CheckItem("preview", title, ok=False, detail=detail, blocking=False, count=count)]


__all__ = ["compared", "confirm", "digest_of_sheets", "marker"]
