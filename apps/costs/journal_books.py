"""Reads what the journal of a closed month is written from."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from django.db.models import Sum

from apps.costs import journal
from apps.costs.billing_modes import Modes
from apps.costs.choices import BillingMode, OwnerKind
from apps.costs.models import JournalAccount, Period, Statement, StatementLine
from apps.metering import billing


def statements_of(period: Period) -> list[journal.Posted]:
    """Return the team statements of chargeback units, as frozen, with their amounts by sort of line.

    The mode is the one frozen on the statement; the account is that of the unit in this month.
    """
    modes = Modes(period.month)
    found = list(
        Statement.objects.filter(
            period=period, owner_kind=OwnerKind.TEAM, mode=BillingMode.CHARGEBACK, superseded_at__isnull=True
        ).order_by("number")
    )
    sums: dict[int, dict[str, Decimal]] = {}
    lines = StatementLine.objects.filter(statement__in=found).values("statement_id", "sort").annotate(sum=Sum("amount"))
    for line in lines.order_by("statement_id", "sort"):
        sums.setdefault(line["statement_id"], {})[line["sort"]] = line["sum"]
    return [
        journal.Posted(
            number=statement.number,
            owner=statement.team_name,
            account=modes.of(statement.unit_path).account,
            cost_centre=statement.cost_centre,
            currency=statement.currency,
            by_sort=sums.get(statement.pk, {}),
        )
        for statement in found
    ]


def entries_of(period: Period) -> list[journal.Entry]:
    """Return the journal of a closed month. Raises journal.Incomplete with what is missing."""
    accounts = {row.purpose: (row.account, row.cost_centre) for row in JournalAccount.objects.all()}
    return journal.entries(period.month, statements_of(period), accounts)


def rows_of(period: Period) -> list[list[object]]:
    """Return the rows of the journal's file, posted on the month's last day. Raises journal.Incomplete."""
    last = billing.following(period.month) - timedelta(days=1)
    return list(journal.rows(period.month, last, entries_of(period)))
