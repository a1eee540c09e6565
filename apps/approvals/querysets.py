"""Who sees approval requests: the requester, those with a view permission on the team, and those who may decide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from django.db.models import Q

from apps.core.querysets import ScopedQuerySet

if TYPE_CHECKING:
    from apps.approvals.models import ApprovalRequest, Decision, Grant, Policy, PolicyVersion, Stage


class PolicyQuerySet(ScopedQuerySet["Policy"]):
    """Policies: everybody signed in may read the rules they are judged by."""

    def visible_to(self, user: Any) -> Self:
        """Return all policies to any active person."""
        return self.all() if getattr(user, "is_authenticated", False) and user.is_active else self.none()


class PolicyVersionQuerySet(ScopedQuerySet["PolicyVersion"]):
    """Published policy versions."""

    def visible_to(self, user: Any) -> Self:
        """Return all versions to any active person."""
        return self.all() if getattr(user, "is_authenticated", False) and user.is_active else self.none()


class ApprovalRequestQuerySet(ScopedQuerySet["ApprovalRequest"]):
    """Approval requests."""

    def visible_to(self, user: Any) -> Self:
        """Return the requests of teams and units in scope, and the person's own."""
        from apps.teams import scope

        if not getattr(user, "is_authenticated", False) or not user.is_active:
            return self.none()
        scopes = scope.of(user)
        condition = scopes.team_filter("approvals.request.view", field="team")
        return self.filter(condition | Q(requester_id=user.pk))


class StageQuerySet(ScopedQuerySet["Stage"]):
    """Stages of approval requests."""

    def visible_to(self, user: Any) -> Self:
        """Return the stages of visible requests."""
        from apps.approvals.models import ApprovalRequest

        return self.filter(request__in=ApprovalRequest.objects.visible_to(user).values("pk"))


class DecisionQuerySet(ScopedQuerySet["Decision"]):
    """Decisions."""

    def visible_to(self, user: Any) -> Self:
        """Return the decisions on visible requests."""
        from apps.approvals.models import ApprovalRequest

        return self.filter(request__in=ApprovalRequest.objects.visible_to(user).values("pk"))


class GrantQuerySet(ScopedQuerySet["Grant"]):
    """Grants."""

    def visible_to(self, user: Any) -> Self:
        """Return the grants of visible requests."""
        from apps.approvals.models import ApprovalRequest

        return self.filter(request__in=ApprovalRequest.objects.visible_to(user).values("pk"))
