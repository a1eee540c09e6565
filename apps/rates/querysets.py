"""Who sees rate cards: everybody signed in may know the prices they are charged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from apps.core.permissions import INSTALLATION, may
from apps.core.querysets import ScopedQuerySet

if TYPE_CHECKING:
    from apps.rates.models import CapexSchedule, Rate, RateCard, RateProposal


class RateCardQuerySet(ScopedQuerySet["RateCard"]):
    """Rate cards."""

    def visible_to(self, user: Any) -> Self:
        """Return all rate cards to any active person."""
        return self.all() if getattr(user, "is_authenticated", False) and user.is_active else self.none()


class RateQuerySet(ScopedQuerySet["Rate"]):
    """Single prices."""

    def visible_to(self, user: Any) -> Self:
        """Return all prices to any active person."""
        return self.all() if getattr(user, "is_authenticated", False) and user.is_active else self.none()


class ProposalQuerySet(ScopedQuerySet["RateProposal"]):
    """Proposed rate cards: prices that are not public yet."""

    def visible_to(self, user: Any) -> Self:
        """Return all proposals to persons who may see rate cards as their work (finance, platform, audit)."""
        return self.all() if may(user, "rates.card.view", INSTALLATION) else self.none()


class CapexQuerySet(ScopedQuerySet["CapexSchedule"]):
    """What owned GPUs cost."""

    def visible_to(self, user: Any) -> Self:
        """Return all schedules to persons who may see rate cards as their work (finance, platform, audit)."""
        return self.all() if may(user, "rates.card.view", INSTALLATION) else self.none()
