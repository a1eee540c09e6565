"""The inbox: what waits for the person who looks, what is due first on top. Keys are static/js/shortcuts.js."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import django_filters
import django_tables2 as tables
from django.db.models import Q
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from apps.approvals import inbox, ports
from apps.approvals.choices import RequestKind
from apps.approvals.events import REQUESTS_EXPORTED
from apps.approvals.models import ApprovalRequest
from apps.approvals.tables import WIDE, CostColumn
from apps.core import clock
from apps.core.filters import CommonsFilterSet, SearchFilter
from apps.core.tables import AgeColumn, CommonsTable, TimeColumn
from apps.core.templatetags.commons import moment, status_badge
from apps.core.views import ListView
from portal.panels import panels_for

SOON = timedelta(hours=24)
FROM_INBOX = "?from=inbox"


class DueColumn(TimeColumn):
    """Until when the open stages can be decided; marked when that is within a day."""

    def render(self, value: Any) -> SafeString:
        """Write the moment, with a badge where it is near."""
        if value - clock.now() > SOON:
            return moment(value)
        return format_html("{} {}", moment(value), status_badge("due", "within a day", "caution"))


class InboxTable(CommonsTable):
    """Requests that wait for a person. `why` is filled by the page for the rows it shows."""

    title = tables.Column(verbose_name="Request")
    why = tables.Column(verbose_name="Why you", empty_values=(), orderable=False)
    environment = tables.Column(accessor="facts__environment", verbose_name="Environment")
    data_class = tables.Column(accessor="facts__data_class", verbose_name="Data class")
    cost = CostColumn(accessor="facts", verbose_name="Monthly cost change", orderable=False)
    waits_since = AgeColumn(verbose_name="Waits since")
    due_at = DueColumn(verbose_name="Decide until", default="no limit")
    requester = tables.Column(accessor="requester__display_name", verbose_name="Requester", attrs=WIDE)

    class Meta(CommonsTable.Meta):
        model = ApprovalRequest
        fields = ("title", "why", "environment", "data_class", "cost", "waits_since", "due_at", "requester")
        caption = "Requests that wait for you"

    def __init__(self, *args: Any, ways: list[inbox.Way], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ways = ways
        self._why: dict[int, list[inbox.Reason]] = {}

    def explain(self, rows: list[ApprovalRequest]) -> None:
        """Find out why these rows wait for the person, in a handful of queries for all of them."""
        self._why.update(inbox.reasons(self.ways, rows))

    def _reasons(self, record: ApprovalRequest) -> list[inbox.Reason]:
        if record.pk not in self._why:
            self.explain([record])
        return self._why.get(record.pk, [])

    def render_title(self, value: str, record: ApprovalRequest) -> SafeString:
        """Link to the request; kind and team below."""
        url = reverse("approvals:request-detail", kwargs={"request_uid": record.uid}) + FROM_INBOX
        emergency = status_badge("emergency", "Emergency", "critical") if record.kind == RequestKind.EMERGENCY else ""
        return format_html(
            '<a href="{}" data-row-link>{}</a> {}<div class="text-secondary">{}, {}</div>',
            url, value, emergency, ports.label_of(record.subject_type), record.team or "the platform",
        )  # fmt: skip

    def value_title(self, value: str) -> str:
        """Export the title."""
        return value

    def render_why(self, record: ApprovalRequest) -> SafeString:
        """Say by which stage and role, on whose behalf, and from when on approvals count."""
        lines = []
        for one in self._reasons(record):
            from_when = format_html("; approvals count from {}", moment(one.approve_from)) if one.approve_from else ""
            lines.append((one.text, from_when))
        return format_html_join("", "<div>{}{}</div>", lines)

    def value_why(self, record: ApprovalRequest) -> str:
        """Export the same words."""
        return "; ".join(one.text for one in self._reasons(record))


class InboxFilter(CommonsFilterSet):
    """Text, kind, team, what is at stake, how soon, and for whom."""

    search = SearchFilter(columns=["title"])
    kind = django_filters.ChoiceFilter(label="Kind", field_name="subject_type", empty_label="All")
    team = django_filters.ChoiceFilter(label="Team", field_name="team__slug", empty_label="All")
    environment = django_filters.ChoiceFilter(
        label="Environment", field_name=f"facts__{inbox.ENVIRONMENT}", empty_label="All"
    )
    data_class = django_filters.ChoiceFilter(
        label="Data class", field_name=f"facts__{inbox.DATA_CLASS}", empty_label="All"
    )
    due = django_filters.ChoiceFilter(
        label="Due", method="by_due", empty_label="Any time",
        choices=[("24", "Within a day"), ("72", "Within three days"), ("168", "Within a week"), ("none", "No limit")],
    )  # fmt: skip
    whose = django_filters.ChoiceFilter(
        label="Decide for", method="by_whose", empty_label="Anybody",
        choices=[("me", "Myself"), ("others", "Others, by delegation"), ("emergency", "An emergency")],
    )  # fmt: skip

    class Meta:
        model = ApprovalRequest
        fields: tuple[str, ...] = ()

    def __init__(self, *args: Any, ways: list[inbox.Way], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ways = ways
        known = inbox.known_values(self.queryset)
        for name, choices in (
            ("kind", [(kind, ports.label_of(kind)) for kind in ports.subject_types()]),
            ("team", known.teams),
            ("environment", [(one, one.capitalize()) for one in known.environments]),
            ("data_class", [(one, one) for one in known.data_classes]),
        ):
            self.filters[name].extra["choices"] = choices

    def by_due(self, queryset: Any, name: str, value: str) -> Any:
        """Keep what ends soon, or what has no end."""
        if value == "none":
            return queryset.filter(due_at__isnull=True)
        return queryset.filter(due_at__lte=clock.now() + timedelta(hours=int(value)))

    def by_whose(self, queryset: Any, name: str, value: str) -> Any:
        """Keep what waits for the person's own word, for one on behalf of somebody, or what is urgent."""
        if value == "emergency":
            return queryset.filter(kind=RequestKind.EMERGENCY)
        found = Q(pk__in=[])
        for voice, decidable in self.ways:
            if (voice.giver_id is None) == (value == "me"):
                found |= Q(pk__in=decidable.values("pk"))
        return queryset.filter(found)


class Inbox(ListView):
    """What the person can decide now."""

    title = "Inbox"
    intro = "What waits for your decision; what is due first comes first. Nothing is decided by opening it."
    queryset = ApprovalRequest.objects
    table_class = InboxTable
    filterset_class = InboxFilter
    template_name = "approvals/inbox.html"
    export_event = REQUESTS_EXPORTED
    empty_title = "No request waits for you"
    empty_text = "Requests that need your decision appear here, and you get a mail."
    empty_icon = "circle-check"

    @property
    def ways(self) -> list[inbox.Way]:
        """How the person may speak: asked once a request."""
        return inbox.ways_of(self.request)

    def get_queryset(self) -> Any:
        """Keep, of what the person may see, what waits for them."""
        return inbox.ordered(self.ways).visible_to(self.request.user)

    def get_table_kwargs(self) -> dict[str, Any]:
        """The table says why each row waits."""
        return {"ways": self.ways}

    def get_filterset(self, queryset: Any) -> Any:
        """Filter by what occurs in the inbox."""
        return InboxFilter(self.request.GET or None, queryset=queryset, request=self.request, ways=self.ways)

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Explain all rows of the page at once."""
        table = extra.get("table")
        if table is not None and getattr(table, "page", None):
            table.explain([row.record for row in table.page.object_list])
        return super().get_context(panels=panels_for("inbox", self.request, None), **extra)
