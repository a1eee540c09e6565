"""What holds up a team's next request: emergencies to be reviewed, standard changes it has lost."""

from __future__ import annotations

from typing import Any

from apps.approvals.models import ApprovalRequest, EmergencyReview, StandardLoss
from apps.teams.models import Team


def open_reviews(user: Any) -> list[EmergencyReview]:
    """Return the open reviews that block requests of teams whose requests this person sees, oldest due first."""
    rows = EmergencyReview.objects.visible_to(user).open().select_related("request__team")
    return list(rows.order_by("due_at", "pk")[:10])


def blocking_of_team(user: Any, team: Team) -> dict[str, Any] | None:
    """Return what a team's page says: open reviews that block it, standard changes it has lost; None for neither."""
    seen = ApprovalRequest.objects.visible_to(user).values("pk")
    reviews = EmergencyReview.objects.open().for_team(team.pk).filter(request__in=seen).select_related("request")
    losses = StandardLoss.objects.in_force().for_team(team.pk).filter(request__in=seen).select_related("policy")
    # Almost always there is neither: that is asked in one go.
    if not reviews.order_by().values("pk").union(losses.order_by().values("pk"), all=True)[:1]:
        return None
    found = {"reviews": list(reviews.order_by("due_at", "pk")), "losses": list(losses.order_by("lost_at", "pk"))}
    return found if found["reviews"] or found["losses"] else None
