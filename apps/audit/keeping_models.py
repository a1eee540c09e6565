"""What keeps the trail and what left it: floors, holds, purges, the log of changed rows (schema `audit`, never altered
by Django); and, as rows of the portal, proposals to purge and runs of the reconciliation."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from apps.audit.choices import ProposalStatus
from apps.audit.querysets import HoldQuerySet, ReconciliationQuerySet, RetentionProposalQuerySet
from apps.core.models import Row, VersionedRow


class Floor(models.Model):
    """How long one regime wants events kept; a later row for it replaces the earlier one, 0 months end it."""

    id = models.BigAutoField(primary_key=True)
    regime = models.TextField()
    citation = models.TextField()
    months = models.IntegerField()
    revised = models.DateField()
    added_at = models.DateTimeField()

    class Meta:
        managed = False
        db_table = '"audit"."floor"'


class Hold(models.Model):
    """A legal hold: what matches it is neither purged nor erased. Empty columns match everything."""

    uid = models.UUIDField(primary_key=True, db_column="id")
    placed_at = models.DateTimeField()
    matter = models.TextField()
    actor_id = models.TextField()
    object_id = models.UUIDField(null=True)
    since = models.DateTimeField(null=True)
    until = models.DateTimeField(null=True)

    objects = HoldQuerySet.as_manager()

    class Meta:
        managed = False
        db_table = '"audit"."hold"'

    def __str__(self) -> str:
        return self.matter


class HoldRelease(models.Model):
    """That a hold holds no more."""

    hold_uid = models.UUIDField(primary_key=True, db_column="hold_id")
    released_at = models.DateTimeField()

    class Meta:
        managed = False
        db_table = '"audit"."hold_release"'


class Purge(models.Model):
    """A month whose events and notes were removed; the links stay."""

    month = models.DateField(primary_key=True)
    proposal = models.UUIDField()
    events = models.BigIntegerField()
    first_seq = models.BigIntegerField()
    last_seq = models.BigIntegerField()
    leaves = models.BinaryField(help_text="SHA-256 over the leaves in the order of the links.")
    end_hash = models.BinaryField()
    purged_at = models.DateTimeField()

    class Meta:
        managed = False
        db_table = '"audit"."purge"'


class RetentionProposal(VersionedRow):
    """That somebody wants a month purged; a second person decides, then the portal does it."""

    month = models.DateField(help_text="The first day of the month.")
    status = models.CharField(max_length=12, choices=ProposalStatus.choices, default=ProposalStatus.OPEN)
    events = models.BigIntegerField(help_text="How many events the month held when it was proposed.")
    proposed_by = models.UUIDField(help_text="Uid of the person: this room is below that of the accounts.")
    decided_by = models.UUIDField(null=True)
    decided_at = models.DateTimeField(null=True)
    purged_at = models.DateTimeField(null=True)
    problem = models.CharField(max_length=500, blank=True, help_text="Why the purge was refused at the last try.")

    objects = RetentionProposalQuerySet.as_manager()

    class Meta:
        db_table = "audit_retention_proposal"
        ordering: ClassVar = ["-id"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["month"],
                name="retention_once",
                condition=models.Q(status__in=["open", "approved", "done"]),
            ),
        ]

    def __str__(self) -> str:
        return f"Events of {self.month:%B %Y}"


class ReconciliationRun(Row):
    """That changed rows were held against the trail: how many, and which came without an event."""

    finished_at = models.DateTimeField()
    upto_xid = models.BigIntegerField(help_text="Number of the first transaction that had not begun then.")
    snapshot = models.TextField(default="", help_text="What was visible: the next run looks at everything else.")
    changes = models.BigIntegerField(help_text="Changed rows looked at.")
    unexplained = models.BigIntegerField(default=0)
    findings: models.JSONField = models.JSONField(default=list, help_text="The first unexplained ones.")
    unwatched: models.JSONField = models.JSONField(default=list, help_text="Tables that have lost their trigger.")

    objects = ReconciliationQuerySet.as_manager()

    class Meta:
        db_table = "audit_reconciliation_run"
        ordering: ClassVar = ["-finished_at", "-id"]
