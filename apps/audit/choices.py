"""Statuses of the audit room."""

from __future__ import annotations

from django.db import models


class ProposalStatus(models.TextChoices):
    """Where a proposal to purge a month stands."""

    OPEN = "open", "Waits for a second person"
    APPROVED = "approved", "Approved, about to be purged"
    REJECTED = "rejected", "Rejected"
    WITHDRAWN = "withdrawn", "Withdrawn"
    DONE = "done", "Purged"


#: status → what may come next.
NEXT: dict[str, frozenset[str]] = {
    ProposalStatus.OPEN: frozenset({ProposalStatus.APPROVED, ProposalStatus.REJECTED, ProposalStatus.WITHDRAWN}),
    ProposalStatus.APPROVED: frozenset({ProposalStatus.DONE, ProposalStatus.WITHDRAWN}),
    ProposalStatus.REJECTED: frozenset(),
    ProposalStatus.WITHDRAWN: frozenset(),
    ProposalStatus.DONE: frozenset(),
}
