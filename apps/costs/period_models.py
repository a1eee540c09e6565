"""Months and what is frozen in them: periods, waivers, distribution, statements with their lines, files."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from apps.clusters.models import Cluster
from apps.core.models import Row, VersionedRow
from apps.core.money import Money
from apps.costs import choices
from apps.costs.period_querysets import (
    DistributionQuerySet,
    FileQuerySet,
    LineQuerySet,
    PeriodQuerySet,
    ReopenQuerySet,
    StatementQuerySet,
)
from apps.rates.models import Rate
from apps.teams.models import Team, Unit


class DistributionPolicy(VersionedRow):
    """Who bears what nobody had allocated, by version; a second person publishes it; used from a month on."""

    number = models.PositiveIntegerField(unique=True, help_text="1, 2, 3 …: named on statements.")
    name = models.CharField(max_length=200)
    month_from = models.DateField()
    rules: models.JSONField = models.JSONField(
        help_text="unsold, reserved_unused, stranded, maintenance, unattributed, resources → keeper."
    )
    status = models.CharField(max_length=20, choices=choices.Verdict.choices, default=choices.Verdict.PROPOSED)
    proposed_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    decided_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    decided_at = models.DateTimeField(null=True)
    reason = models.CharField(max_length=500, blank=True)

    objects = DistributionQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(month_from__day=1), name="distribution_first_of_month"),
            models.UniqueConstraint(
                fields=["month_from"], name="distribution_one_a_month", condition=Q(status="approved")
            ),
            models.CheckConstraint(
                condition=~Q(status="approved") | Q(proposed_by__isnull=True) | ~Q(decided_by=models.F("proposed_by")),
                name="distribution_second_person",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} (version {self.number})"


class Period(VersionedRow):
    """A billing month: open, closing, closed. `start` and `end` are the month's bounds in the billing zone, UTC."""

    month = models.DateField(unique=True)
    start = models.DateTimeField()
    end = models.DateTimeField()
    status = models.CharField(max_length=20, choices=choices.PeriodStatus.choices, default=choices.PeriodStatus.OPEN)
    distribution = models.ForeignKey(DistributionPolicy, models.PROTECT, null=True, related_name="periods")
    currency = models.CharField(max_length=3)
    bill = models.DecimalField(
        max_digits=20, decimal_places=2, null=True, help_text="The pool's bill as closed: Σ of all statements."
    )
    checklist: models.JSONField = models.JSONField(default=list, help_text="As it stood when the month was closed.")
    digest = models.CharField(max_length=64, blank=True, help_text="SHA-256 over the statements' digests.")
    closing_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    closing_at = models.DateTimeField(null=True)
    closed_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    closed_at = models.DateTimeField(null=True)
    freeze_state = models.CharField(max_length=20, choices=choices.FileStatus.choices, blank=True)
    freeze_error = models.TextField(blank=True)
    reopened = models.PositiveIntegerField(default=0, help_text="How often it was opened again.")

    objects = PeriodQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(month__day=1), name="period_first_of_month"),
            models.CheckConstraint(condition=Q(end__gt=models.F("start")), name="period_has_length"),
        ]

    def __str__(self) -> str:
        return f"{self.month:%Y-%m}"


class PeriodWaiver(Row):
    """What the close did not wait for, by name and with the reason."""

    period = models.ForeignKey(Period, models.PROTECT, related_name="waivers")
    kind = models.CharField(max_length=20, choices=choices.WaiverKind.choices)
    cluster = models.ForeignKey(Cluster, models.PROTECT, null=True, related_name="+")
    hours_from = models.DateTimeField(null=True)
    hours_until = models.DateTimeField(null=True)
    subject_uid = models.UUIDField(null=True, help_text="The source, dispute or difference that is waived.")
    reason = models.CharField(max_length=500)
    waived_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")


class ReopenRequest(VersionedRow):
    """A closed month is opened again only when a second person agrees (cost.md E10)."""

    period = models.ForeignKey(Period, models.PROTECT, related_name="reopenings")
    reason = models.CharField(max_length=500)
    status = models.CharField(max_length=20, choices=choices.Verdict.choices, default=choices.Verdict.PROPOSED)
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    decided_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    decided_at = models.DateTimeField(null=True)
    decision_reason = models.CharField(max_length=500, blank=True)

    objects = ReopenQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["period"], name="reopen_one_open", condition=Q(status="proposed")),
            models.CheckConstraint(
                condition=~Q(status="approved") | Q(decided_by__isnull=False) & ~Q(decided_by=models.F("requested_by")),
                name="reopen_second_person",
            ),
        ]


class StatementLike:
    """What a frozen statement and a running one say of themselves alike. The columns are the rows' own."""

    team_id: int | None
    unit_id: int | None
    cost_centre: str
    team_name: str
    unit_name: str
    own_amount: Decimal
    amount: Decimal
    currency: str

    @property
    def scope_team_id(self) -> int | None:
        """Where this row belongs, for the permission gate."""
        return self.team_id

    @property
    def scope_unit_id(self) -> int | None:
        """Where this row belongs, for the permission gate."""
        return self.unit_id

    @property
    def total(self) -> Money:
        """The statement's total."""
        return Money(self.amount, self.currency)

    @property
    def own(self) -> Money:
        """The total without shares of common costs."""
        return Money(self.own_amount, self.currency)

    @property
    def owner_name(self) -> str:
        """Whose statement it is, in words."""
        return self.team_name or self.unit_name or self.cost_centre or "Platform"


class Statement(StatementLike, Row):
    """One owner's month, frozen: number, lines, total, digest. Never changed; a re-opened month supersedes it."""

    period = models.ForeignKey(Period, models.PROTECT, related_name="statements")
    number = models.CharField(max_length=40, unique=True)
    owner_kind = models.CharField(max_length=20, choices=choices.OwnerKind.choices)
    team = models.ForeignKey(Team, models.PROTECT, null=True, related_name="+")
    unit = models.ForeignKey(Unit, models.PROTECT, null=True, related_name="+")
    unit_path: ArrayField[list[int], list[int]] = ArrayField(models.BigIntegerField(), default=list)
    cost_centre = models.CharField(max_length=50, blank=True)
    team_name = models.CharField(max_length=200, blank=True)
    unit_name = models.CharField(max_length=200, blank=True)
    mode = models.CharField(max_length=20, choices=choices.BillingMode.choices, default=choices.BillingMode.SHOWBACK)
    own_amount = models.DecimalField(max_digits=20, decimal_places=2, help_text="Without shares of common costs.")
    amount = models.DecimalField(max_digits=20, decimal_places=2)
    currency = models.CharField(max_length=3)
    gpu_ms = models.BigIntegerField(default=0)
    used_gpu_ms = models.BigIntegerField(null=True, help_text="NULL: nothing was measured.")
    measured_gpu_ms = models.BigIntegerField(default=0)
    unpriced_ms = models.BigIntegerField(default=0)
    coverage_permille = models.PositiveSmallIntegerField(default=1000)
    line_count = models.PositiveIntegerField(default=0)
    digest = models.CharField(max_length=64, help_text="SHA-256 over header and lines, RFC 8785.")
    issued_at = models.DateTimeField()
    superseded_at = models.DateTimeField(null=True)

    objects = StatementQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["period", "owner_kind"], name="statement_period"),
            models.Index(fields=["team", "-issued_at"], name="statement_team"),
        ]

    def __str__(self) -> str:
        return self.number


class StatementLine(models.Model):
    """One line of a statement: quantity × price, or a share, correction or credit. Frozen with it."""

    id = models.BigAutoField(primary_key=True)
    statement = models.ForeignKey(Statement, models.PROTECT, related_name="lines")
    ordinal = models.PositiveIntegerField()
    sort = models.CharField(max_length=20, choices=choices.LineSort.choices)
    kind = models.CharField(max_length=20, choices=choices.ChargeKind.choices, blank=True)
    description = models.CharField(max_length=300)
    cluster_id = models.BigIntegerField(null=True)
    cluster_name = models.CharField(max_length=200, blank=True)
    flavour_id = models.BigIntegerField(null=True)
    flavour_name = models.CharField(max_length=200, blank=True)
    gpu_model = models.CharField(max_length=120, blank=True)
    rate = models.ForeignKey(Rate, models.PROTECT, null=True, related_name="+")
    hourly = models.DecimalField(max_digits=20, decimal_places=8, null=True)
    quantity_ms = models.BigIntegerField(default=0)
    gpu_ms = models.BigIntegerField(default=0)
    exact = models.DecimalField(max_digits=30, decimal_places=12, null=True, help_text="NULL: no price, unknown.")
    amount = models.DecimalField(max_digits=20, decimal_places=2)
    charge_start = models.DateTimeField(help_text="The original time, of a correction too.")
    charge_end = models.DateTimeField()
    method = models.CharField(max_length=80, blank=True, help_text="Of a share: the distribution's id.")
    ratio_ppm = models.PositiveIntegerField(null=True, help_text="Of a share: its part of the whole.")
    reference = models.UUIDField(null=True, help_text="The correction, credit or team's statement behind it.")

    objects = LineQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["statement", "ordinal"], name="statement_line_once")]


class StatementFile(VersionedRow):
    """A frozen period or statement as a file, made by a worker with progress."""

    period = models.ForeignKey(Period, models.PROTECT, related_name="files")
    statement = models.ForeignKey(Statement, models.PROTECT, null=True, related_name="files")
    kind = models.CharField(max_length=20, choices=choices.FileKind.choices)
    status = models.CharField(max_length=20, choices=choices.FileStatus.choices, default=choices.FileStatus.QUEUED)
    done = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    name = models.CharField(max_length=200)
    body = models.BinaryField(null=True)
    size = models.PositiveBigIntegerField(default=0)
    sha256 = models.CharField(max_length=64, blank=True)
    report: models.JSONField = models.JSONField(default=dict, help_text="Of FOCUS: which rules were checked, and how.")
    error = models.TextField(blank=True)
    attempts = models.PositiveIntegerField(default=0, db_default=0)
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    finished_at = models.DateTimeField(null=True)

    objects = FileQuerySet.as_manager()
