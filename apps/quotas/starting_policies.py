"""Rules to start from for what this room lets people ask for; a platform admin reads, changes and publishes them."""

from __future__ import annotations

from typing import Any

from apps.approvals.ports import StartingPolicy, register_starting_policy

_OF_CLUSTER = ["of_cluster", "eq", "yes"]
_UNIT_OWNER: dict[str, Any] = {
    "name": "Unit owner", "role": "unit_owner", "scope": "unit", "quorum": 1, "due_hours": 72,
}  # fmt: skip
_PLATFORM: dict[str, Any] = {
    "name": "Platform", "role": "platform_admin", "scope": "installation", "quorum": 1, "due_hours": 72,
}  # fmt: skip

_FINANCE: dict[str, Any] = {
    "name": "Finance", "role": "finance", "scope": "installation", "quorum": 1, "due_hours": 72,
}  # fmt: skip

#: The unit's owner decides; a large increase is looked at by the platform, too; once a budget says so, by finance.
QUOTA = {
    "validity_days": 365,
    "automatic": [],
    "stages": [
        _UNIT_OWNER,
        _PLATFORM | {"when": [["delta_gpus", "gt", 16]]},
        _FINANCE | {"when": [["team.budget_exhausted", "eq", "yes"]]},
    ],
}
#: A workspace's settings are decided by the unit's owner, a whole cluster's by a second platform admin.
CHANGE = {
    "validity_days": 90,
    "stages": [_UNIT_OWNER | {"unless": [_OF_CLUSTER]}, _PLATFORM | {"when": [_OF_CLUSTER]}],
}


def register() -> None:
    """Propose them on the page of policies while nothing is published under their names."""
    register_starting_policy(StartingPolicy("quota", "Quota requests", "quotas.request", QUOTA))
    register_starting_policy(StartingPolicy("change", "Changes of workspaces and clusters", "quotas.change", CHANGE))
