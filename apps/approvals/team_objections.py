"""What keeps a team from being archived here: requests that are not decided."""

from __future__ import annotations

from apps.approvals.choices import RequestStatus
from apps.approvals.models import ApprovalRequest
from apps.teams.models import Team


def open_requests(team: Team) -> list[str]:
    """Return a sentence where requests of the team wait for decisions or capacity."""
    waiting = ApprovalRequest.objects.filter(team=team, status__in=[RequestStatus.IN_REVIEW, RequestStatus.WAITING])
    count = waiting.count()
    return [f"{count} approval request{'s' * (count != 1)} open: withdraw or decide first."] if count else []
