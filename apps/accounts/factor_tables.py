"""The table of proposals to remove second factors."""

from __future__ import annotations

import django_tables2 as tables

from apps.accounts.choices import ResetStatus
from apps.accounts.models import FactorReset
from apps.core.tables import ActionsColumn, AgeColumn, CommonsTable, StatusColumn

_TONES = {
    "waiting": "caution",
    "done": "positive",
    "refused": "critical",
    "withdrawn": "neutral",
    "lapsed": "neutral",
}


class FactorResetTable(CommonsTable):
    """One proposal a row."""

    user = tables.Column(accessor="user__display_name", verbose_name="Person")
    proposed_by = tables.Column(accessor="proposed_by__display_name", verbose_name="Proposed by")
    proposed_at = AgeColumn(verbose_name="Proposed")
    status = StatusColumn(
        accessor="shown_status", order_by="status", verbose_name="State", tones=_TONES, labels=dict(ResetStatus.choices)
    )
    decided_by = tables.Column(accessor="decided_by__display_name", verbose_name="Decided by", default="")
    decide = ActionsColumn(template_name="accounts/factor_reset_actions.html")

    class Meta(CommonsTable.Meta):
        model = FactorReset
        fields = ("user", "proposed_by", "proposed_at", "status", "decided_by", "decide")
        order_by = ("-proposed_at",)
        caption = "Proposals to remove second factors"
