"""Who sees approval requests: the requester, those with a view permission on the team, and on the paying unit."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from django.db.models import Q

from apps.approvals.choices import RequestStatus
from apps.core.querysets import ScopedQuerySet

if TYPE_CHECKING:
    from apps.approvals.models import (
        ApprovalRequest,
        Comment,
        Decision,
        Delegation,
        EmergencyReview,
        Grant,
        Policy,
        PolicyVersion,
        Stage,
        StandardLoss,
    )

OPEN_STATUSES = (RequestStatus.IN_REVIEW, RequestStatus.WAITING)


def _signed_in(user: Any) -> bool:
    return bool(getattr(user, "is_authenticated", False) and user.is_active)


class PolicyQuerySet(ScopedQuerySet["Policy"]):
    """Policies: everybody signed in may read the rules they are judged by."""

    def visible_to(self, user: Any) -> Self:
        """Return all policies to any active person."""
        return self.all() if _signed_in(user) else self.none()


class PolicyVersionQuerySet(ScopedQuerySet["PolicyVersion"]):
    """Published policy versions."""

    def visible_to(self, user: Any) -> Self:
        """Return all versions to any active person."""
        return self.all() if _signed_in(user) else self.none()


class ApprovalRequestQuerySet(ScopedQuerySet["ApprovalRequest"]):
    """Approval requests."""

    def visible_to(self, user: Any) -> Self:
        """Return the requests of teams and paying units in scope, and the person's own."""
        from apps.teams import scope

        if not _signed_in(user):
            return self.none()
        scopes = scope.of(user)
        if scopes.everywhere("approvals.request.view"):
            return self.all()
        return self.filter(
            scopes.team_filter("approvals.request.view", field="team")
            | scopes.unit_filter("approvals.request.view", field="unit")
            | Q(requester_id=user.pk)
            | _entrusted(user)
        )

    def open(self) -> Self:
        """Return those not concluded: in review or waiting for capacity."""
        return self.filter(status__in=OPEN_STATUSES)

    def in_line(self, queue: str) -> Self:
        """Return those that wait for capacity in a line, first come first."""
        return self.filter(queue=queue, status=RequestStatus.WAITING).order_by("submitted_at", "pk")


def _entrusted(user: Any) -> Q:
    """Return the condition "has a stage that somebody lets this person decide for them"."""
    from apps.approvals import delegating
    from apps.approvals.models import Stage

    voices = delegating.voices_for(user)
    if not voices:
        return Q(pk__in=[])
    asked = Q(pk__in=[])
    for voice in voices:
        asked |= voice.stages() & voice.within("request__unit")
    return Q(pk__in=Stage.objects.filter(asked).values("request_id"))


def _visible_requests(user: Any) -> Any:
    from apps.approvals.models import ApprovalRequest

    return ApprovalRequest.objects.visible_to(user).values("pk")


class StageQuerySet(ScopedQuerySet["Stage"]):
    """Stages of approval requests."""

    def visible_to(self, user: Any) -> Self:
        """Return those of visible requests."""
        return self.filter(request__in=_visible_requests(user))


class DecisionQuerySet(ScopedQuerySet["Decision"]):
    """Decisions."""

    def visible_to(self, user: Any) -> Self:
        """Return those of visible requests."""
        return self.filter(request__in=_visible_requests(user))


class GrantQuerySet(ScopedQuerySet["Grant"]):
    """Grants."""

    def visible_to(self, user: Any) -> Self:
        """Return those of visible requests."""
        return self.filter(request__in=_visible_requests(user))


class CommentQuerySet(ScopedQuerySet["Comment"]):
    """Comments on requests."""

    def visible_to(self, user: Any) -> Self:
        """Return those of visible requests."""
        return self.filter(request__in=_visible_requests(user))


class EmergencyReviewQuerySet(ScopedQuerySet["EmergencyReview"]):
    """Reviews after emergencies."""

    def for_team(self, team_id: int | None) -> Self:
        """Return those of one receiving team (None: the platform)."""
        return self.filter(Q(request__team__isnull=True) if team_id is None else Q(request__team_id=team_id))

    def open(self) -> Self:
        """Return those not closed yet: each blocks its team's next normal request, of any kind."""
        return self.filter(closed_at__isnull=True)

    def visible_to(self, user: Any) -> Self:
        """Return those of visible requests."""
        return self.filter(request__in=_visible_requests(user))


class StandardLossQuerySet(ScopedQuerySet["StandardLoss"]):
    """Standard changes that lost their status."""

    def for_team(self, team_id: int | None) -> Self:
        """Return those of one team (None: the platform)."""
        return self.filter(Q(team__isnull=True) if team_id is None else Q(team_id=team_id))

    def in_force(self) -> Self:
        """Return those that nobody restored."""
        return self.filter(restored_at__isnull=True)

    def visible_to(self, user: Any) -> Self:
        """Return those whose failed change is visible."""
        return self.filter(request__in=_visible_requests(user))


class DelegationQuerySet(ScopedQuerySet["Delegation"]):
    """Delegations: one's own, given or held; all of them to who reads requests everywhere."""

    def visible_to(self, user: Any) -> Self:
        """Return the person's own delegations, or all to those who see every request."""
        from apps.teams import scope

        if not _signed_in(user):
            return self.none()
        if scope.of(user).everywhere("approvals.request.view"):
            return self.all()
        return self.filter(Q(giver_id=user.pk) | Q(delegate_id=user.pk))

    def in_force(self, at: datetime) -> Self:
        """Return those that count at `at`: within their dates, not revoked, between active persons."""
        return self.filter(
            Q(revoked_at__isnull=True) | Q(revoked_at__gt=at),
            valid__contains=at,
            giver__is_active=True,
            delegate__is_active=True,
        )
