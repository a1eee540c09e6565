"""Statuses of approval requests and verdicts."""

from __future__ import annotations

from django.db import models

from apps.core.transitions import Transitions


class RequestStatus(models.TextChoices):
    """One pass of a published policy version over one subject digest."""

    IN_REVIEW = "in_review", "In review"
    WAITING = "waiting_for_capacity", "Waiting for capacity"
    APPROVED = "approved", "Approved"
    REJECTED = "rejected", "Rejected"
    WITHDRAWN = "withdrawn", "Withdrawn"
    LAPSED = "lapsed", "Lapsed"
    SUPERSEDED = "superseded", "Superseded"


#: `approve` is the last needed decision; `hold` is what follows when the subject's room cannot take the grant yet
#: (pool full): the decisions stand, no grant exists, and `grant` completes it later.
REQUEST_TRANSITIONS = Transitions(
    {
        RequestStatus.IN_REVIEW: {
            "approve": RequestStatus.APPROVED,
            "hold": RequestStatus.WAITING,
            "reject": RequestStatus.REJECTED,
            "withdraw": RequestStatus.WITHDRAWN,
            "lapse": RequestStatus.LAPSED,
            "supersede": RequestStatus.SUPERSEDED,
        },
        RequestStatus.WAITING: {
            "approve": RequestStatus.APPROVED,
            "withdraw": RequestStatus.WITHDRAWN,
            "lapse": RequestStatus.LAPSED,
            "supersede": RequestStatus.SUPERSEDED,
        },
        RequestStatus.APPROVED: {},
        RequestStatus.REJECTED: {},
        RequestStatus.WITHDRAWN: {},
        RequestStatus.LAPSED: {},
        RequestStatus.SUPERSEDED: {},
    }
)


class Verdict(models.TextChoices):
    """One person's word on one digest."""

    APPROVE = "approve", "Approve"
    REJECT = "reject", "Reject"


class RequestKind(models.TextChoices):
    """How a request came: the usual way, by a pre-approved standard change, or as an emergency (break-glass)."""

    NORMAL = "normal", "Normal"
    STANDARD = "standard", "Standard change"
    EMERGENCY = "emergency", "Emergency"


class ReviewOutcome(models.TextChoices):
    """What the review after an emergency found."""

    OPEN = "", "To be reviewed"
    JUSTIFIED = "justified", "Justified"
    NOT_JUSTIFIED = "not_justified", "Not justified"
