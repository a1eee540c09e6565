"""What rooms above tell the rates room: what proposed prices would have cost. Rates knows no charges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

from apps.core.money import Money
from apps.rates.models import RateProposal


@dataclass(frozen=True, slots=True)
class Effect:
    """What a stored month cost, and would have cost at proposed prices, within a person's scope; `url`: in detail.

    None: nothing of it has a price. `unknown`: something of it has no price, now or then.
    """

    month: date
    now: Money | None
    then: Money | None
    unknown: bool
    url: str

    @property
    def change(self) -> Money | None:
        """Then less now."""
        return None if self.now is None or self.then is None else self.then - self.now


EffectOf = Callable[[RateProposal, Any], Effect | None]
_effects: dict[str, EffectOf] = {}


def on_effect(name: str, function: EffectOf) -> None:
    """Register what works out the effect of a proposal for a person."""
    _effects[name] = function


def effects_of(proposal: RateProposal, user: Any) -> list[Effect]:
    """Return what is known of a proposal's effect, in order of the names it was registered under."""
    found = [_effects[name](proposal, user) for name in sorted(_effects)]
    return [effect for effect in found if effect is not None]
