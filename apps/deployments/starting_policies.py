"""Rules to start from for releases; a platform admin reads, changes and publishes them."""

from __future__ import annotations

from typing import Any

from apps.approvals.ports import StartingPolicy, register_starting_policy

_PRODUCTION = ["environment", "eq", "production"]
_COVERED: list[list[str]] = [["covered", "eq", "yes"], ["fits_now", "eq", "yes"], ["placement_ok", "eq", "yes"]]

#: Below production nobody is asked where an approved version fits. In production the owner decides what it costs; a
#: change of size within the budget is a standard change, until one fails.
RELEASES: dict[str, Any] = {
    "validity_days": 365,
    "automatic": [
        {
            "name": "Approved version below production",
            "when": [["environment", "in", ["development", "staging"]], *_COVERED, ["over_budget", "eq", "no"]],
        },
        {
            "name": "Same version, within the budget",
            "standard": True,
            "when": [
                _PRODUCTION, *_COVERED, ["release_kind", "eq", "change"], ["flavour_changes", "eq", "no"],
                ["over_budget", "eq", "no"],
            ],
        },
    ],
    "stages": [
        {
            "name": "Unit owner", "role": "unit_owner", "scope": "unit", "quorum": 1, "due_hours": 72, "group": 1,
        },
        {
            "name": "Compliance", "role": "compliance", "scope": "installation", "quorum": 1, "due_hours": 72,
            "group": 1, "when": [["regulated", "eq", "yes"]],
        },
    ],
    "terms": [
        {"name": "staging_hours", "value": 24, "when": [_PRODUCTION]},
        {"name": "canary_hours_min", "value": 24, "when": [_PRODUCTION]},
        {"name": "canary_hours_max", "value": 48, "when": [_PRODUCTION]},
        {"name": "expiry_action", "value": "block_new", "when": []},
        {"name": "logger", "value": "required", "when": [_PRODUCTION, ["regulated", "eq", "yes"]]},
    ],
    "emergency": {
        "role": "compliance", "scope": "installation", "quorum": 1, "hours": 8, "review_hours": 72,
        "review_role": "compliance",
    },
}  # fmt: skip


def register() -> None:
    """Propose them on the page of policies while nothing is published under the name."""
    register_starting_policy(StartingPolicy("releases", "Releases", "deployments.release", RELEASES))
