"""Policy bodies (version 1) as rules, and what they ask for given facts. Pure: no ORM; reading is policy_reader's.

    {"automatic": [{"name": "Small change",
                    "when": [["request.delta_gpus", "le", 2], ["team.budget_remaining", "ge", "0"]],
                    "counts": {"fact": "team.auto_approved_30d", "adds": "request.delta_gpus", "limit": 4}}],
     "stages": [{"name": "Unit owner", "role": "unit_owner", "scope": "unit", "quorum": 1, "due_hours": 72},
                {"name": "Compliance", "role": "compliance", "scope": "installation", "quorum": 1,
                 "when": [["workspace.environment", "eq", "production"]], "due_hours": 72}],
     "validity_days": 365}

Numbers are integers, or strings holding a decimal number ("0.50"): a binary fraction never decides. `counts` is about
everything so approved before: value(fact) + value(adds) ≤ limit; without `adds` the fact already includes this request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final, TypeAlias

FactValue: TypeAlias = int | Decimal | str

ORDER_OPS: Final = ("lt", "le", "gt", "ge")
OPS: Final = ("eq", "ne", *ORDER_OPS, "in")
SCOPES: Final = ("unit", "parent_unit", "installation")
OP_WORDS: Final = {
    "eq": "is",
    "ne": "is not",
    "lt": "is less than",
    "le": "is at most",
    "gt": "is more than",
    "ge": "is at least",
    "in": "is one of",
}


@dataclass(frozen=True, slots=True)
class Condition:
    """`fact op value`; false where the fact is missing or of another kind than the value."""

    fact: str
    op: str
    value: int | str | tuple[int | str, ...]

    def holds(self, facts: Mapping[str, FactValue]) -> bool:
        """Whether the condition is met by `facts`."""
        found = facts.get(self.fact)
        if found is None:
            return False
        options = self.value if isinstance(self.value, tuple) else (self.value,)
        if self.op in ("eq", "in"):
            return any(_same(found, option) for option in options)
        if self.op == "ne":
            return not _same(found, options[0])
        left, right = number(found), number(options[0])
        if left is None or right is None or isinstance(found, str):
            return False
        return {"lt": left < right, "le": left <= right, "gt": left > right, "ge": left >= right}[self.op]


@dataclass(frozen=True, slots=True)
class Count:
    """The limit on everything so approved: value(fact) + value(adds) ≤ limit."""

    fact: str
    limit: int | str
    adds: str = ""

    def holds(self, facts: Mapping[str, FactValue]) -> bool:
        """Whether the limit is kept; false where a fact is missing or no number."""
        used = number(facts.get(self.fact, ""))
        more = number(facts.get(self.adds, "")) if self.adds else Decimal(0)
        limit = number(self.limit)
        # Only what is taken counts against the limit: a giving-back cannot make room for the next one.
        return used is not None and more is not None and limit is not None and used + max(more, Decimal(0)) <= limit


@dataclass(frozen=True, slots=True)
class AutomaticRule:
    """A rule under which nobody needs to be asked."""

    name: str
    when: tuple[Condition, ...]
    counts: Count | None = None

    def holds(self, facts: Mapping[str, FactValue]) -> bool:
        """Whether all conditions and the count hold."""
        return all(c.holds(facts) for c in self.when) and (self.counts is None or self.counts.holds(facts))


@dataclass(frozen=True, slots=True)
class StageRule:
    """A stage: asked where all of `when` hold and not all of `unless` (an empty `unless` keeps the stage)."""

    name: str
    role: str
    scope: str
    quorum: int
    when: tuple[Condition, ...] = ()
    unless: tuple[Condition, ...] = ()
    due_hours: int | None = None

    def asked(self, facts: Mapping[str, FactValue]) -> bool:
        """Whether these facts ask for the stage."""
        spared = bool(self.unless) and all(c.holds(facts) for c in self.unless)
        return all(c.holds(facts) for c in self.when) and not spared


@dataclass(frozen=True, slots=True)
class PolicyRules:
    """A readable policy body."""

    automatic: tuple[AutomaticRule, ...]
    stages: tuple[StageRule, ...]
    validity_days: int | None = None

    @property
    def counts_anything(self) -> bool:
        """Whether an automatic rule has a limit, so that submissions of a team must be taken one after another."""
        return any(rule.counts for rule in self.automatic)

    def facts(self) -> list[str]:
        """Return every fact the policy asks about."""
        named = {c.fact for rule in self.automatic for c in rule.when}
        named |= {c.fact for stage in self.stages for c in (*stage.when, *stage.unless)}
        for rule in self.automatic:
            if rule.counts:
                named |= {rule.counts.fact} | ({rule.counts.adds} if rule.counts.adds else set())
        return sorted(named)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a policy asks for: an automatic rule that fired, or the stages (and those these facts spared)."""

    automatic: AutomaticRule | None
    stages: tuple[StageRule, ...]
    spared: tuple[StageRule, ...] = ()


def stages_for(rules: PolicyRules, facts: Mapping[str, FactValue]) -> Outcome:
    """Return the first automatic rule that holds, or else the stages that `facts` ask for, in order.

    There is always at least one stage: `parse_policy` demands one without conditions, or two that complete each other.
    """
    for rule in rules.automatic:
        if rule.holds(facts):
            return Outcome(rule, ())
    asked = tuple(stage for stage in rules.stages if stage.asked(facts))
    return Outcome(None, asked, tuple(stage for stage in rules.stages if stage not in asked))


def number(value: FactValue) -> Decimal | None:
    """Return an exact number, or None where `value` is not one (NaN and infinities are none)."""
    try:
        exact = Decimal(value)
    except (InvalidOperation, ValueError):
        return None
    return exact if exact.is_finite() else None


def _same(found: FactValue, wanted: int | str) -> bool:
    """Equality of a fact and a policy's value: numbers as numbers, words as words."""
    if isinstance(found, str):
        return isinstance(wanted, str) and found == wanted
    exact = number(wanted)
    return exact is not None and Decimal(found) == exact
