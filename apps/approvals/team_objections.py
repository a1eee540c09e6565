"""What keeps a team from being archived, or two accounts from being merged: requests that are not decided."""

from __future__ import annotations

from django.db.models import Q

from apps.approvals.choices import RequestStatus
from apps.approvals.models import ApprovalRequest, Decision
from apps.teams.models import Team


def open_requests(team: Team) -> list[str]:
    """Return a sentence where requests of the team wait for decisions or capacity."""
    waiting = ApprovalRequest.objects.filter(team=team, status__in=[RequestStatus.IN_REVIEW, RequestStatus.WAITING])
    count = waiting.count()
    return [f"{count} approval request{'s' * (count != 1)} open: withdraw or decide first."] if count else []


def both_sides(user_id: int, into_id: int) -> list[str]:
    """Return a sentence where both accounts speak in one open request: one person would have two voices in it."""
    standing = [RequestStatus.IN_REVIEW, RequestStatus.WAITING]
    requests = ApprovalRequest.objects.filter(status__in=standing)

    def voices(pk: int) -> set[int]:
        asked = requests.filter(requester_id=pk).values_list("pk", flat=True)
        said = Decision.objects.filter(request__in=requests).filter(Q(actor_id=pk) | Q(on_behalf_of_id=pk))
        return {*asked, *said.values_list("request_id", flat=True)}

    count = len(voices(user_id) & voices(into_id))
    if not count:
        return []
    return [f"Both accounts speak in {count} open approval request{'s' * (count != 1)}: have them decided first."]
