"""Who sees the audit trail."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Self

from apps.core.permissions import reach
from apps.core.querysets import ScopedQuerySet

if TYPE_CHECKING:
    from apps.audit.keeping_models import Hold, ReconciliationRun, RetentionProposal
    from apps.audit.models import AuditEvent, CheckpointRow, VerificationRun


class AuditEventQuerySet(ScopedQuerySet["AuditEvent"]):
    """Events: those who may view the trail for the whole installation see all, a unit's auditor its teams' events."""

    def visible_to(self, user: Any) -> Self:
        """Return the events the person may read."""
        scope = reach(user, "audit.event.view")
        return self.all() if scope.everywhere else self.filter(team_uid__in=scope.team_uids)

    def about(self, subject_uid: uuid.UUID) -> Self:
        """Return the events of one object, oldest first."""
        return self.filter(object_id=subject_uid).order_by("occurred_at", "uid")


class CheckpointRowQuerySet(ScopedQuerySet["CheckpointRow"]):
    """Checkpoints: for those who view the whole trail."""

    def visible_to(self, user: Any) -> Self:
        """Return all to those who read the trail everywhere."""
        return self.all() if reach(user, "audit.event.view").everywhere else self.none()


class VerificationRunQuerySet(ScopedQuerySet["VerificationRun"]):
    """Verifications: for those who view the whole trail."""

    def visible_to(self, user: Any) -> Self:
        """Return all to those who read the trail everywhere."""
        return self.all() if reach(user, "audit.event.view").everywhere else self.none()


class HoldQuerySet(ScopedQuerySet["Hold"]):
    """Legal holds: for those who view them for the whole installation."""

    def visible_to(self, user: Any) -> Self:
        """Return all to those who may see holds."""
        return self.all() if reach(user, "audit.hold.view").everywhere else self.none()

    def in_force(self) -> Self:
        """Return the holds that were not released."""
        from apps.audit.keeping_models import HoldRelease

        return self.exclude(uid__in=HoldRelease.objects.values("hold_uid"))


class RetentionProposalQuerySet(ScopedQuerySet["RetentionProposal"]):
    """Proposals to purge: for those who see holds, and so decide with open eyes."""

    def visible_to(self, user: Any) -> Self:
        """Return all to those who may see holds."""
        return self.all() if reach(user, "audit.hold.view").everywhere else self.none()


class ReconciliationQuerySet(ScopedQuerySet["ReconciliationRun"]):
    """Reconciliations: for those who view the whole trail."""

    def visible_to(self, user: Any) -> Self:
        """Return all to those who read the trail everywhere."""
        return self.all() if reach(user, "audit.event.view").everywhere else self.none()
