"""Who sees rate cards: everybody signed in may know the prices they are charged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from apps.core.querysets import ScopedQuerySet

if TYPE_CHECKING:
    from apps.rates.models import Rate, RateCard


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
