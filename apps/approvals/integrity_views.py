"""What can be said honestly about how people decide: how many, which way, how long a stage had been open.

The portal does not record what somebody read before deciding, so no figure here pretends to know it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import django_tables2 as tables
from django import forms
from django.db.models import Aggregate, Count, DurationField, ExpressionWrapper, F, Max, Q
from django.urls import reverse

from apps.approvals.choices import Verdict
from apps.approvals.events import REQUESTS_EXPORTED
from apps.approvals.models import Decision
from apps.core import clock, formats
from apps.core.errors import NotAllowed
from apps.core.permissions import INSTALLATION, may
from apps.core.tables import CommonsTable, PercentColumn, QuantityColumn, TimeColumn
from apps.core.views import Crumb, ListView

#: A decision within so much time after its stage opened; whoever was told by mail could hardly have read much.
QUICK = timedelta(seconds=60)
WINDOWS = {"30": "30 days", "90": "90 days", "365": "a year"}
READERS = ("audit.event.view", "approvals.review.close")


class Median(Aggregate):
    """The median of a column (PostgreSQL's percentile_cont)."""

    function = "percentile_cont"
    template = "%(function)s(0.5) WITHIN GROUP (ORDER BY %(expressions)s)"
    output_field = DurationField()


def figures(days: int, user: Any) -> Any:
    """Return one row a person that decided in the last `days` days, whoever decided most first. One query."""
    took = ExpressionWrapper(F("decided_at") - F("stage__opened_at"), output_field=DurationField())
    return (
        Decision.objects.visible_to(user)
        .filter(decided_at__gte=clock.now() - timedelta(days=days))
        .order_by()
        .annotate(took=took)
        .values("actor__display_name", "actor__uid")
        .annotate(
            decisions=Count("pk"),
            approvals=Count("pk", filter=Q(verdict=Verdict.APPROVE)),
            rejections=Count("pk", filter=Q(verdict=Verdict.REJECT)),
            for_others=Count("pk", filter=Q(on_behalf_of__isnull=False)),
            quick=Count("pk", filter=Q(took__lt=QUICK)),
            median=Median("took"),
            last=Max("decided_at"),
        )
        .order_by("-decisions", "actor__uid")
    )


class IntegrityTable(CommonsTable):
    """Who decided how much, and how long the stages had been open."""

    person = tables.Column(accessor="actor__display_name", verbose_name="Who")
    decisions = QuantityColumn(unit=None, verbose_name="Decisions")
    approvals = QuantityColumn(unit=None, verbose_name="Approved")
    rejections = QuantityColumn(unit=None, verbose_name="Rejected")
    for_others = QuantityColumn(unit=None, verbose_name="For others")
    median = tables.Column(verbose_name="Median time to decide", attrs={"cell": {"class": "figure"}})
    share = PercentColumn(accessor="quick", verbose_name="Within a minute of opening")
    last = TimeColumn(verbose_name="Last decision")

    class Meta(CommonsTable.Meta):
        fields = ("person", "decisions", "approvals", "rejections", "for_others", "median", "share", "last")
        caption = "Who decided how much, and how quickly"

    def render_median(self, value: timedelta) -> str:
        """Write the duration."""
        return formats.duration(value)

    def value_median(self, value: timedelta) -> int:
        """Export whole seconds."""
        return int(value.total_seconds())

    def render_share(self, value: int, record: dict[str, Any]) -> str:
        """Write the share of all decisions of the person."""
        return formats.percent(value / record["decisions"])

    def value_share(self, value: int, record: dict[str, Any]) -> float:
        """Export the ratio."""
        return float(value / record["decisions"])


class WindowForm(forms.Form):
    """How far back."""

    days = forms.ChoiceField(label="The last", choices=list(WINDOWS.items()), required=False)


class Integrity(ListView):
    """How people decide, for compliance and auditors."""

    title = "How people decide"
    intro = (
        "Time runs from the opening of a stage to the decision in it. The portal does not record what somebody read "
        "before deciding: a quick decision is a question to ask, not a finding."
    )
    queryset = Decision.objects
    table_class = IntegrityTable
    template_name = "approvals/integrity.html"
    export_event = REQUESTS_EXPORTED
    empty_title = "Nothing was decided in this time"
    empty_text = "Choose a longer time."
    empty_icon = "clipboard-check"

    def breadcrumbs(self) -> list[Crumb]:
        """Lead back to the list of requests."""
        return [Crumb("Approvals", reverse("approvals:request-list"))]

    def check_permission(self) -> None:
        """Let compliance and auditors of the whole installation."""
        super().check_permission()
        if not any(may(self.request.user, permission, INSTALLATION) for permission in READERS):
            raise NotAllowed("These figures are for compliance and auditors.", rule=READERS[0])

    @property
    def days(self) -> int:
        """How far back."""
        asked = self.request.GET.get("days", "")
        return int(asked) if asked in WINDOWS else 90

    def get_queryset(self) -> Any:
        """Group the decisions the person sees."""
        return figures(self.days, self.request.user)

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the choice of time."""
        return super().get_context(window=WindowForm(initial={"days": str(self.days)}), **extra)
