"""The list of open sessions."""

from __future__ import annotations

from typing import Any

import django_filters
import django_tables2 as tables
from django.urls import reverse
from django.utils.html import format_html

from apps.accounts.choices import SignInMethod
from apps.accounts.models import SignInSession
from apps.core.filters import CommonsFilterSet, SearchFilter
from apps.core.tables import AgeColumn, CommonsTable, UidLinkColumn

_WIDE = {"cell": {"class": "d-none d-md-table-cell"}}


class SessionTable(CommonsTable):
    """One open session a row."""

    user = UidLinkColumn(
        "accounts:user-detail", kwarg="user_uid", target="user", accessor="user__display_name", verbose_name="Person"
    )
    device = tables.Column(verbose_name="Browser")
    method = tables.Column(verbose_name="Signed in by")
    second_factor = tables.BooleanColumn(verbose_name="Second factor", yesno="Yes,No", attrs=_WIDE)
    network = tables.Column(verbose_name="Network", attrs=_WIDE)
    opened_at = AgeColumn(verbose_name="Since", attrs=_WIDE)
    last_seen_at = AgeColumn(verbose_name="Last used")
    end = tables.Column(empty_values=(), orderable=False, verbose_name="", exclude_from_export=True)

    class Meta(CommonsTable.Meta):
        model = SignInSession
        fields = ("user", "device", "method", "second_factor", "network", "opened_at", "last_seen_at", "end")
        order_by = ("-last_seen_at",)
        caption = "Open sessions"

    def render_end(self, record: Any) -> str:
        """Draw the link that ends it."""
        url = reverse("accounts:session-end", kwargs={"session_uid": record.uid})
        return format_html(
            '<a class="btn btn-sm" href="{}">End<span class="visually-hidden"> the session of {}</span></a>',
            url,
            record.user.display_name,
        )

    def render_method(self, record: Any) -> str:
        """Name the identity provider."""
        return str(record.provider.name if record.provider is not None else record.get_method_display())


class SessionFilter(CommonsFilterSet):
    """By person, and by how they signed in."""

    q = SearchFilter(columns=["user__display_name", "user__email"])
    method = django_filters.ChoiceFilter(label="Signed in by", choices=SignInMethod.choices)
    second_factor = django_filters.TypedChoiceFilter(
        label="Second factor",
        choices=[("", "All"), ("true", "Given"), ("false", "Not given")],
        coerce=lambda value: value == "true",
    )

    class Meta:
        model = SignInSession
        fields: list[str] = []
