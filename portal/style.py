"""Sample values for the style page: every component in every state, without a row of the database."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import django_tables2 as tables
from django import forms
from django.http import HttpRequest

from apps.core import charts, clock, palette, statuses
from apps.core.errors import Conflict
from apps.core.forms import AmountField, CommonsForm, UtcDateTimeField, WholeNumberField
from apps.core.money import MILLISECONDS_PER_HOUR, Money
from apps.core.tables import (
    AgeColumn,
    CommonsTable,
    MoneyColumn,
    PercentColumn,
    QuantityColumn,
    StatusColumn,
    TimeColumn,
)


class SampleForm(CommonsForm):
    """One field of each kind."""

    name = forms.CharField(max_length=40, label="Name", help_text="Shown on every page of the workspace.")
    flavour = forms.ChoiceField(
        choices=[("", "Choose a flavour"), ("a100", "A100 80 GB"), ("t4", "T4")], label="Flavour"
    )
    guaranteed = WholeNumberField(unit="GPUs", min_value=0, max_value=64, label="Guaranteed")
    budget = AmountField(currency="USD", required=False, min_value=0, label="Monthly budget")
    until = UtcDateTimeField(label="Until", required=False)
    borrow = forms.ChoiceField(
        choices=[("none", "None"), ("limited", "Up to a limit")],
        widget=forms.RadioSelect,
        label="Borrow",
        help_text="Borrowed GPUs go back as soon as their owner needs them.",
    )
    notify = forms.BooleanField(required=False, label="Tell me by mail when it is applied")
    reason = forms.CharField(widget=forms.Textarea(attrs={"rows": 3}), label="Reason", max_length=500)


class SampleTable(CommonsTable):
    """One column of each kind."""

    team = tables.Column(verbose_name="Team")
    status = StatusColumn(verbose_name="Status")
    quantity = QuantityColumn(verbose_name="GPU-hours")
    cost = MoneyColumn(verbose_name="Cost")
    share = PercentColumn(verbose_name="Share")
    seen = AgeColumn(verbose_name="Metered")
    until = TimeColumn(verbose_name="Until")

    class Meta(CommonsTable.Meta):
        caption = "Sample figures by team"


def samples(request: HttpRequest) -> dict[str, Any]:
    """Return everything that the style page shows."""
    now = clock.now()
    days = [date(2026, 1, 1) + timedelta(days=offset) for offset in range(30)]
    series = [
        charts.Series(
            f"Team {index + 1}",
            [((index + 2) * (3 + (offset * (index + 3)) % 7)) for offset in range(30)],
            colour=index,
        )
        for index in range(12)
    ]
    rows = [
        {
            "team": f"Team {index + 1}",
            "status": status,
            "quantity": (index + 1) * 1_234 * MILLISECONDS_PER_HOUR + 1_800_000,
            "cost": Money(Decimal("1234.5") * (index + 1), "USD"),
            "share": Decimal(index + 1) / 15,
            "seen": now - timedelta(minutes=7 * (index + 1)),
            "until": None if index == 2 else now + timedelta(days=30 * index),
        }
        for index, status in enumerate(["active", "in_review", "waiting_for_capacity", "failed", "expired"])
    ]
    refused = SampleForm(
        {
            "refused-name": "x" * 50,
            "refused-guaranteed": "-1",
            "refused-until": "soon",
            "refused-borrow": "limited",
            "refused-notify": "on",
            "refused-reason": "",
        },
        prefix="refused",
    )
    refused.is_valid()
    return {
        "tones": [
            (tone, word)
            for tone, word in (
                (statuses.POSITIVE, "applied"),
                (statuses.INFO, "in_review"),
                (statuses.CAUTION, "waiting_for_capacity"),
                (statuses.CRITICAL, "unreachable"),
                (statuses.NEUTRAL, "superseded"),
            )
        ],
        "colours": range(len(palette.LIGHT)),
        "table": SampleTable(rows),
        "empty_table": SampleTable([]),
        "form": SampleForm(),
        "refused": refused,
        "conflict": Conflict("Somebody approved it while you were typing.", current={"status": "approved"}),
        "stacked": charts.stacked_bars(days, series, unit="GPU-hours", title="GPU-hours by day and team"),
        "stepped": charts.lines(
            days,
            [
                charts.Series("Committable", [50] * 20 + [42] * 10, "neutral"),
                charts.Series("Guaranteed", [30 + offset // 3 for offset in range(30)], "accent"),
            ],
            unit="GPUs",
            title="Promised against what may be promised",
            step=True,
        ),
        "bars": charts.horizontal_bars(
            ["Team 1", "Team 2", "Team 3"],
            [charts.Series("Used", [70, 40, 65], "accent"), charts.Series("Idle", [10, 35, 5], "idle")],
            unit="GPU-hours",
            title="Used and idle",
        ),
        "no_figures": {"data": [], "layout": {}},
        "parts": [
            {"label": "Finance", "value": 20, "colour": 0},
            {"label": "Marketing", "value": 15, "colour": 1},
            {"label": "Research", "value": 10, "colour": 2},
            {"label": "Free", "value": 5, "tone": "idle"},
        ],
        "events": [
            {"title": "Requested", "at": now - timedelta(hours=5), "by": "Finance team lead", "tone": "positive"},
            {"title": "Approved", "at": now - timedelta(hours=1), "by": "Unit owner", "tone": "positive",
             "text": "Fits the quarter's plan."},
            {"title": "Applying to the cluster", "at": now - timedelta(minutes=2), "tone": "info"},
            {"title": "Applied", "pending": True},
        ],
        "definitions": [("Cluster", "demo-east"), ("Environment", "production"), ("Cost centre", "47"), ("End", None)],
        "changes": [
            {"kind": "changed", "path": "spec.hard.requests.nvidia.com/gpu", "before": "20", "after": "24"},
            {"kind": "added", "path": "metadata.labels.gpu-commons/team", "before": None, "after": "finance"},
            {"kind": "removed", "path": "spec.hard.pods", "before": "100", "after": None},
        ],
        "now": now,
        "long_ago": now - timedelta(hours=9),
        "reasons": ["A hyphen or a letter comes first.", "40 characters at most."],
    }  # fmt: skip
