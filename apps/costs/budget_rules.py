"""What a budget's steps are and what may be done at them. Pure: no ORM."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from apps.core.errors import Invalid

#: Per cent of a limit; each is reached at that share, not beyond it.
PERCENTS: Final = (50, 80, 100, 120)
FORECAST: Final = "forecast"
STEPS: Final = (*(str(percent) for percent in PERCENTS), FORECAST)
#: The day of the month from which a forecast beyond the limit counts.
FORECAST_FROM_DAY: Final = 5

NOTIFY, REQUIRE_APPROVAL, STOP_BORROWING, HOLD = "notify", "require_approval", "stop_borrowing", "hold_admissions"
#: What may be done at a step: (name, what it is called, what it does, in a sentence).
ACTIONS: Final = (
    (NOTIFY, "Notify", "The team's leads, the unit's owners and finance get a mail."),
    (
        REQUIRE_APPROVAL,
        "Require approval",
        "Until the month ends no quota request of the team counts as within budget, and policies that ask for "
        "“Budget exhausted” send it to the people they name.",
    ),
    (
        STOP_BORROWING,
        "Stop borrowing",
        "The portal requests that nothing is borrowed until the month ends, and everything is as before afterwards. "
        "People approve it as the policy says. What runs goes on.",
    ),
    (
        HOLD,
        "Hold new work",
        "The portal requests that only what is kept for serving stays guaranteed until the month ends. Once people "
        "approve it nothing new starts; what runs goes on, but cannot start again when it ends by itself.",
    ),
)
ACTION_NAMES: Final = tuple(name for name, _, _ in ACTIONS)
#: Those that become quota requests.
REQUESTING: Final = (STOP_BORROWING, HOLD)
LABELS: Final = {name: label for name, label, _ in ACTIONS}


def step_label(step: str) -> str:
    """Return what a step is called."""
    return "Forecast beyond the limit" if step == FORECAST else f"{step} %"


def actions_at(actions: Mapping[str, Any], step: str) -> tuple[str, ...]:
    """Return what is done at a step, in the order of `ACTIONS`; where nothing was chosen, people are told."""
    chosen = actions.get(step)
    if chosen is None:
        return (NOTIFY,)
    return tuple(name for name in ACTION_NAMES if name in chosen)


def checked_actions(actions: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the choice as it is stored. Raises Invalid for an unknown step or action."""
    errors: dict[str, str] = {}
    found: dict[str, list[str]] = {}
    for step, names in actions.items():
        if step not in STEPS:
            errors["actions"] = f"There is no step “{step}”. Steps are {', '.join(STEPS)}."
        elif not isinstance(names, list | tuple) or any(name not in ACTION_NAMES for name in names):
            errors[f"at_{step}"] = f"Choose from {', '.join(ACTION_NAMES)}."
        else:
            found[step] = [name for name in ACTION_NAMES if name in names]
    if errors:
        raise Invalid(errors)
    return found


def reached(step: str, figure: Decimal, limit: Decimal) -> bool:
    """Whether a figure reaches a step of a limit: at its share of it; a forecast only beyond the limit.

    A limit of zero is reached by anything that is more than nothing.
    """
    if step == FORECAST:
        return figure > limit
    return figure > 0 and figure * 100 >= limit * int(step)


def passed(figure: Decimal, limit: Decimal) -> tuple[str, ...]:
    """Return the steps in per cent that a figure has passed, lowest first."""
    return tuple(str(percent) for percent in PERCENTS if reached(str(percent), figure, limit))
