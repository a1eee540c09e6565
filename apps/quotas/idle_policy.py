"""A workspace's idle policy: when a workload counts as idle, how long its owner is asked, and what is left alone.

Pure: values in, checked values out. The policy is part of what is approved and declared (an annotation
of the namespace); the insights room acts on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from apps.core.canonical import canonical_bytes
from apps.core.errors import Invalid

ANNOTATION = "gpu-commons/idle-policy"
#: Kinds that serve requests: an idle one may still have to answer the next.
SERVING = ("Deployment", "InferenceService")
#: Kinds that can be stopped without deleting anything (provisioning.levers.STOPPABLE).
KINDS = ("Job", "Deployment", "InferenceService", "Workload")
#: Use is metered by the hour: less than one cannot be told.
IDLE_MINUTES, NOTICE_MINUTES = (60, 14 * 24 * 60), (15, 14 * 24 * 60)
THRESHOLD_PERCENT = (1, 50)


@dataclass(frozen=True, slots=True)
class IdlePolicy:
    """What is approved. A workload is idle whose GPU use stays below `threshold_percent` for `idle_minutes` on end.

    Its owner is asked and has `notice_minutes` to answer; without an answer it is stopped. In production nothing that
    serves is ever stopped unless `production_serving` says so. `spared_kinds` and `spared_priorities` (names of
    priority classes) are left alone altogether.
    """

    enabled: bool = False
    threshold_percent: int = 5
    idle_minutes: int = 240
    notice_minutes: int = 60
    production_serving: bool = False
    spared_kinds: tuple[str, ...] = ()
    spared_priorities: tuple[str, ...] = ("gpu-commons-production",)
    action: str = "stop"

    def plain(self) -> dict[str, Any]:
        """Return it as it is stored and approved; a policy that does nothing is {}."""
        if not self.enabled:
            return {}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def spares(self, kind: str, environment: str) -> str:
        """Return why a kind of workload is left alone in an environment, empty where it is not."""
        if kind in self.spared_kinds:
            return f"The policy leaves every {kind} alone."
        if environment == "production" and kind in SERVING and not self.production_serving:
            return "The policy never stops what serves in production."
        return ""

    @property
    def idle_hours(self) -> int:
        """Whole metered hours on end that make a workload idle."""
        return -(-self.idle_minutes // 60)


def of(stored: Mapping[str, Any]) -> IdlePolicy:
    """Return a stored policy; {} is the one that does nothing, unknown keys of a later version are dropped."""
    known = {f.name for f in fields(IdlePolicy)}
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in stored.items() if key in known
    }
    return IdlePolicy(**values)


def annotations_of(stored: Mapping[str, Any]) -> dict[str, str]:
    """Return the namespace's annotation of a stored policy; none without one."""
    policy = of(stored)
    return {ANNOTATION: canonical_bytes(policy.plain()).decode()} if policy.enabled else {}


def check(values: Mapping[str, Any]) -> IdlePolicy:
    """Return the policy that is asked for. Raises Invalid per field."""
    known = {f.name for f in fields(IdlePolicy)}
    errors = dict.fromkeys(sorted(set(values) - known), "There is no such setting.")
    enabled = values.get("enabled", False)
    if not isinstance(enabled, bool):
        errors["enabled"] = "Say yes or no."
    if not enabled and not errors:
        return IdlePolicy()
    default = IdlePolicy()
    numbers = {
        "threshold_percent": (THRESHOLD_PERCENT, "%"),
        "idle_minutes": (IDLE_MINUTES, "minutes"),
        "notice_minutes": (NOTICE_MINUTES, "minutes"),
    }
    found: dict[str, Any] = {"enabled": enabled is True}
    for name, ((low, high), unit) in numbers.items():
        value = values.get(name, getattr(default, name))
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            errors[name] = f"Enter a whole number from {low:,} to {high:,} ({unit})."
        found[name] = value
    found["production_serving"] = values.get("production_serving", False)
    if not isinstance(found["production_serving"], bool):
        errors["production_serving"] = "Say yes or no."
    kinds = _names(values.get("spared_kinds", ()), "spared_kinds", errors)
    if unknown := sorted(set(kinds) - set(KINDS)):
        errors["spared_kinds"] = f"Unknown kind: {', '.join(unknown)}. Choose of {', '.join(KINDS)}."
    priorities = _names(values.get("spared_priorities", default.spared_priorities), "spared_priorities", errors)
    if values.get("action", "stop") != "stop":
        errors["action"] = "The one action is to stop: the portal deletes nothing."
    if errors:
        raise Invalid(errors)
    return IdlePolicy(**found, spared_kinds=kinds, spared_priorities=priorities)


def _names(value: Any, name: str, errors: dict[str, str]) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) and 0 < len(one) <= 253 for one in value):
        errors[name] = "Give a list of names."
        return ()
    if len(value) > 20:
        errors[name] = "At most 20 names."
        return ()
    return tuple(sorted(set(value)))


def sentence(policy: IdlePolicy) -> str:
    """Return the policy in words."""
    if not policy.enabled:
        return "Idle work is left alone."
    return (
        f"GPU use below {policy.threshold_percent} % for {_span(policy.idle_minutes)} counts as idle; the owner is "
        f"asked and has {_span(policy.notice_minutes)} to answer, then it is stopped. Nothing is deleted."
    )


def _span(minutes: int) -> str:
    hours, rest = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{count} {unit}" for count, unit in ((days, "d"), (hours, "h"), (rest, "min")) if count]
    return " ".join(parts) or "0 min"


__all__ = ["ANNOTATION", "KINDS", "SERVING", "IdlePolicy", "annotations_of", "check", "of", "sentence"]
