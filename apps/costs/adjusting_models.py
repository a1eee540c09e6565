"""What moves money after the fact: corrections, credits, disputes; where it is posted; what it is compared with."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from apps.clusters.models import Cluster
from apps.core.models import Row, VersionedRow
from apps.costs import choices
from apps.costs.period_models import Period, Statement
from apps.costs.period_querysets import (
    BillQuerySet,
    CorrectionQuerySet,
    CreditQuerySet,
    CrossCheckQuerySet,
    DisputeQuerySet,
    UnitBillingQuerySet,
)
from apps.rates.models import Rate
from apps.teams.models import Team, Unit


class Correction(Row):
    """A signed row in an open period for a closed one: what late facts change, at the original time and price."""

    period = models.ForeignKey(Period, models.PROTECT, related_name="corrections", help_text="Where it is billed.")
    corrects = models.ForeignKey(Period, models.PROTECT, related_name="+", help_text="The closed month it is about.")
    cluster = models.ForeignKey(Cluster, models.PROTECT, related_name="+")
    hour = models.DateTimeField()
    hour_revision = models.PositiveIntegerField(help_text="The late revision of the hour that made it.")
    kind = models.CharField(max_length=20, choices=choices.ChargeKind.choices)
    team_id = models.BigIntegerField(null=True)
    unit_id = models.BigIntegerField(null=True)
    unit_path: ArrayField[list[int], list[int]] = ArrayField(models.BigIntegerField(), default=list)
    cost_centre = models.CharField(max_length=50, blank=True)
    team_name = models.CharField(max_length=200, blank=True)
    unit_name = models.CharField(max_length=200, blank=True)
    flavour_id = models.BigIntegerField(null=True)
    gpu_model = models.CharField(max_length=120, blank=True)
    rate = models.ForeignKey(Rate, models.PROTECT, null=True, related_name="+")
    quantity_ms = models.BigIntegerField(help_text="Signed difference.")
    gpu_ms = models.BigIntegerField(help_text="Signed difference.")
    reason = models.CharField(max_length=300)

    objects = CorrectionQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [models.Index(fields=["cluster", "hour"], name="correction_hour")]

    @property
    def scope_team_id(self) -> int | None:
        """Where this row belongs, for the permission gate."""
        return self.team_id

    @property
    def scope_unit_id(self) -> int | None:
        """Where this row belongs, for the permission gate."""
        return self.unit_id


class Credit(VersionedRow):
    """Money given back to a team (or between teams: two rows) with reason and second approver, billed when open.

    Between teams it is two rows of one `pair`: the payer's is negative, and both are decided as one.
    """

    period = models.ForeignKey(
        Period, models.PROTECT, null=True, related_name="credits", help_text="Where it is billed."
    )
    team = models.ForeignKey(Team, models.PROTECT, related_name="+")
    statement = models.ForeignKey(Statement, models.PROTECT, null=True, related_name="credits")
    amount = models.DecimalField(
        max_digits=20, decimal_places=2, help_text="Positive: lowers the team's statement; negative: raises it."
    )
    currency = models.CharField(max_length=3)
    reason = models.CharField(max_length=500)
    status = models.CharField(max_length=20, choices=choices.Verdict.choices, default=choices.Verdict.PROPOSED)
    proposed_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    decided_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    decided_at = models.DateTimeField(null=True)
    decision_reason = models.CharField(max_length=500, blank=True)
    pair = models.UUIDField(null=True, help_text="The same on both rows of a transfer between teams.")

    objects = CreditQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(amount__gt=0) | Q(amount__lt=0, pair__isnull=False), name="credit_sign"),
            models.UniqueConstraint(fields=["pair", "team"], name="credit_pair_once"),
            models.CheckConstraint(
                condition=~Q(status="approved") | Q(decided_by__isnull=False) & ~Q(decided_by=models.F("proposed_by")),
                name="credit_second_person",
            ),
        ]

    @property
    def scope_team_id(self) -> int:
        """Where this row belongs, for the permission gate."""
        return self.team_id


class Dispute(VersionedRow):
    """A team's objection to a statement: with comments, settled by finance with an outcome."""

    statement = models.ForeignKey(Statement, models.PROTECT, related_name="disputes")
    line_ordinal = models.PositiveIntegerField(null=True, help_text="The line it is about; NULL: the whole.")
    team = models.ForeignKey(Team, models.PROTECT, null=True, related_name="+")
    unit = models.ForeignKey(Unit, models.PROTECT, null=True, related_name="+")
    text = models.TextField()
    status = models.CharField(max_length=20, choices=choices.DisputeStatus.choices, default=choices.DisputeStatus.OPEN)
    opened_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    settled_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    settled_at = models.DateTimeField(null=True)
    outcome = models.TextField(blank=True)
    credit = models.ForeignKey(Credit, models.PROTECT, null=True, related_name="+")

    objects = DisputeQuerySet.as_manager()

    @property
    def scope_team_id(self) -> int | None:
        """Where this row belongs, for the permission gate."""
        return self.team_id

    @property
    def scope_unit_id(self) -> int | None:
        """Where this row belongs, for the permission gate."""
        return self.unit_id


class DisputeComment(Row):
    """One comment on a dispute."""

    dispute = models.ForeignKey(Dispute, models.PROTECT, related_name="comments")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    text = models.TextField()


class UnitBilling(Row):
    """From which month a unit is charged back, and to which account."""

    unit = models.ForeignKey(Unit, models.PROTECT, related_name="billing_modes")
    month_from = models.DateField()
    mode = models.CharField(max_length=20, choices=choices.BillingMode.choices)
    account = models.CharField(max_length=50, blank=True, help_text="Expense account in the general ledger.")
    set_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")

    objects = UnitBillingQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["unit", "month_from"], name="unit_billing_once"),
            models.CheckConstraint(condition=Q(month_from__day=1), name="unit_billing_first_of_month"),
        ]


class JournalAccount(VersionedRow):
    """The platform's side of the journal: which account and cost centre a purpose is posted to."""

    purpose = models.CharField(max_length=20, unique=True, help_text="recovery, platform, correction, credit.")
    account = models.CharField(max_length=50)
    cost_centre = models.CharField(max_length=50, blank=True)


class Bill(VersionedRow):
    """A real invoice, as imported from a file of its lines."""

    cluster = models.ForeignKey(Cluster, models.PROTECT, related_name="bills")
    month = models.DateField()
    vendor = models.CharField(max_length=200)
    filename = models.CharField(max_length=200)
    sha256 = models.CharField(max_length=64)
    amount = models.DecimalField(max_digits=20, decimal_places=2)
    currency = models.CharField(max_length=3)
    imported_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    withdrawn_at = models.DateTimeField(null=True)

    objects = BillQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["cluster", "sha256"], name="bill_once", condition=Q(withdrawn_at__isnull=True)
            )
        ]


class BillLine(models.Model):
    """One line of an invoice; without a day it is spread over the month's days."""

    id = models.BigAutoField(primary_key=True)
    bill = models.ForeignKey(Bill, models.PROTECT, related_name="lines")
    ordinal = models.PositiveIntegerField()
    day = models.DateField(null=True)
    description = models.CharField(max_length=300, blank=True)
    amount = models.DecimalField(max_digits=20, decimal_places=6)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["bill", "ordinal"], name="bill_line_once")]


class CrossCheck(VersionedRow):
    """Our dollars of a cluster's day against another system's; a difference is explained by somebody, or open."""

    cluster = models.ForeignKey(Cluster, models.PROTECT, related_name="+")
    day = models.DateField()
    kind = models.CharField(max_length=20, choices=choices.CheckKind.choices)
    ours = models.DecimalField(max_digits=24, decimal_places=6, null=True, help_text="NULL: unknown.")
    theirs = models.DecimalField(max_digits=24, decimal_places=6, null=True, help_text="NULL: unknown.")
    currency = models.CharField(max_length=3)
    state = models.CharField(max_length=20, choices=choices.CheckState.choices)
    causes: models.JSONField = models.JSONField(
        default=list, help_text="What of the difference is known: name, amount."
    )
    detail: models.JSONField = models.JSONField(
        default=dict, blank=True, help_text="Of both sides: what the causes were worked out from."
    )
    note = models.CharField(max_length=300, blank=True, help_text="Why a side is unknown.")
    explanation = models.CharField(max_length=500, blank=True)
    explained_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    checked_at = models.DateTimeField()

    objects = CrossCheckQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["cluster", "day", "kind"], name="cross_check_once")]
