"""The expiry ladder: what becomes of a workspace whose quota has ended, rung by rung. Pure: no ORM, no clock.

Stop admitting → drain → archive, as far as the workspace's approved policy goes. Nothing on the ladder deletes
anything; a rung is never skipped, and quota that is held again leads back to the ground by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from apps.core.canonical import canonical_bytes
from apps.core.errors import Invalid
from apps.quotas.choices import Rung

ANNOTATION = "gpu-commons/expiry-policy"
DRAIN_HOURS, ARCHIVE_DAYS = (0, 90 * 24), (1, 366)
#: Rungs from the ground up.
ORDER = (Rung.NONE, Rung.STOPPED_ADMITTING, Rung.DRAINED, Rung.ARCHIVED)


@dataclass(frozen=True, slots=True)
class ExpiryPolicy:
    """What is approved for a workspace: how far down it is taken once it holds nothing, and after how long."""

    last_rung: str = Rung.STOPPED_ADMITTING
    drain_after_hours: int = 24
    archive_after_days: int = 30

    def plain(self) -> dict[str, Any]:
        """Return it as it is stored and approved; {} is the policy that only stops admitting."""
        if self.last_rung == Rung.STOPPED_ADMITTING:
            return {}
        found: dict[str, Any] = {"last_rung": str(self.last_rung), "drain_after_hours": self.drain_after_hours}
        if self.last_rung == Rung.ARCHIVED:
            found["archive_after_days"] = self.archive_after_days
        return found


@dataclass(frozen=True, slots=True)
class Facts:
    """How a workspace stands. `used` None: never observed, which is unknown and not zero.

    `holds`: some quota is in force; `over`: more runs than that allows; `coming`: a quota begins later; `since`: since
    when it stands where it stands (the last rung was reached, and the last quota ended); `kept_until`: an open renewal
    keeps its GPUs until then at the latest, and until then nothing of it is stopped.
    """

    rung: str
    since: datetime
    holds: bool
    over: bool
    coming: bool
    used: int | None
    kept_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A rung that comes, and when."""

    rung: str
    at: datetime


def of(stored: Mapping[str, Any]) -> ExpiryPolicy:
    """Return a stored policy; {} stops admitting only, unknown keys of a later version are dropped."""
    known = {field.name for field in fields(ExpiryPolicy)}
    return ExpiryPolicy(**{key: value for key, value in stored.items() if key in known})


def annotations_of(stored: Mapping[str, Any]) -> dict[str, str]:
    """Return the namespace's annotation of a stored policy; none for the one that only stops admitting."""
    plain = of(stored).plain()
    return {ANNOTATION: canonical_bytes(plain).decode()} if plain else {}


def check(values: Mapping[str, Any]) -> ExpiryPolicy:
    """Return the policy that is asked for. Raises Invalid per field."""
    known = {field.name for field in fields(ExpiryPolicy)}
    errors: dict[str, str] = dict.fromkeys(sorted(set(values) - known), "There is no such setting.")
    last = values.get("last_rung", Rung.STOPPED_ADMITTING)
    if last not in (Rung.STOPPED_ADMITTING, Rung.DRAINED, Rung.ARCHIVED):
        errors["last_rung"] = "Choose how far the workspace is taken down."
    default = ExpiryPolicy()
    numbers: dict[str, int] = {}
    for name, (low, high), unit in (
        ("drain_after_hours", DRAIN_HOURS, "hours"),
        ("archive_after_days", ARCHIVE_DAYS, "days"),
    ):
        value = values.get(name)
        value = getattr(default, name) if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            errors[name] = f"Enter a whole number of {unit} from {low:,} to {high:,}."
        else:
            numbers[name] = value
    if not errors and last == Rung.ARCHIVED and numbers["archive_after_days"] * 24 <= numbers["drain_after_hours"]:
        errors["archive_after_days"] = "Archiving comes after draining: enter more days."
    if errors:
        raise Invalid(errors)
    return ExpiryPolicy(str(last), **numbers)


def upcoming(policy: ExpiryPolicy, facts: Facts) -> Step | None:
    """Return the next rung down and when it is due; None: it stays where it is."""
    if facts.holds or facts.rung == Rung.ARCHIVED:
        return None
    if facts.rung == Rung.NONE:
        return Step(Rung.STOPPED_ADMITTING, facts.since)
    drain = timedelta(hours=policy.drain_after_hours)
    if facts.rung == Rung.STOPPED_ADMITTING and policy.last_rung in (Rung.DRAINED, Rung.ARCHIVED):
        return Step(Rung.DRAINED, _not_before(facts.since + drain, facts))
    if facts.rung == Rung.DRAINED and policy.last_rung == Rung.ARCHIVED and not facts.coming:
        # So many days after admitting stopped, which was `drain` before this rung.
        due = facts.since + timedelta(days=policy.archive_after_days) - drain
        return Step(Rung.ARCHIVED, _not_before(due, facts))
    return None


def _not_before(due: datetime, facts: Facts) -> datetime:
    """Return when a rung is due: what an open renewal keeps is neither stopped nor archived before it is decided."""
    return due if facts.kept_until is None else max(due, facts.kept_until)


def decide(policy: ExpiryPolicy, facts: Facts, at: datetime) -> str:
    """Return the rung on which the workspace belongs at `at`: at most one further down than it stands.

    Where something is held but more runs, nothing new is admitted and nothing is stopped: its leads decide. Drained
    and archived is only what holds nothing; archived only what is known to run nothing.
    """
    if facts.holds:
        return Rung.STOPPED_ADMITTING if facts.over else Rung.NONE
    step = upcoming(policy, facts)
    if step is None or at < step.at:
        return facts.rung
    if step.rung == Rung.ARCHIVED and facts.used != 0:
        return facts.rung
    return step.rung


def sentence(policy: ExpiryPolicy) -> str:
    """Return the policy in words."""
    text = "When its quota has ended the workspace admits nothing new; what runs goes on."
    if policy.last_rung == Rung.STOPPED_ADMITTING:
        return text
    hours = policy.drain_after_hours
    text = "When its quota has ended the workspace admits nothing new; "
    text += "what holds GPUs is stopped at once" if hours == 0 else f"{hours:,} h later what holds GPUs is stopped"
    if policy.last_rung == Rung.ARCHIVED:
        days = policy.archive_after_days
        text += f", and after {days:,} day{'s' if days != 1 else ''} without quota it is archived"
    return text + ". Nothing is deleted."


__all__ = [
    "ANNOTATION",
    "ORDER",
    "ExpiryPolicy",
    "Facts",
    "Step",
    "annotations_of",
    "check",
    "decide",
    "of",
    "sentence",
    "upcoming",
]
