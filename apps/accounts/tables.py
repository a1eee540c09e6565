"""Tables of the accounts room."""

from __future__ import annotations

import django_tables2 as tables

from apps.accounts.choices import UserKind
from apps.accounts.models import User
from apps.core.tables import AgeColumn, CommonsTable, StatusColumn, UidLinkColumn


class UserTable(CommonsTable):
    """One person a row."""

    display_name = UidLinkColumn("accounts:user-detail", kwarg="user_uid", verbose_name="Name")
    email = tables.Column(verbose_name="E-mail address")
    status = StatusColumn(
        accessor="is_active",
        verbose_name="Account",
        tones={"True": "positive", "False": "neutral"},
        labels={"True": "In use", "False": "Switched off"},
    )
    created_at = AgeColumn(verbose_name="Made", attrs={"cell": {"class": "d-none d-md-table-cell"}})

    class Meta(CommonsTable.Meta):
        model = User
        fields = ("display_name", "email", "status", "created_at")
        order_by = ("display_name",)
        caption = "People with an account"

    def render_email(self, value: str, record: User) -> str:
        """Leave out the address that stands in a program's account: nobody can write to it."""
        return "account of a program" if record.kind == UserKind.SERVICE else value
