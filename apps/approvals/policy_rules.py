"""Policy bodies as rules, and what they ask for given facts. Pure: no ORM; reading is policy_reader's.

    {"automatic": [{"name": "Small change",
                    "when": [["request.delta_gpus", "le", 2], ["team.budget_remaining", "ge", "0"]],
                    "counts": {"fact": "team.auto_approved_30d", "adds": "request.delta_gpus", "limit": 4}}],
     "stages": [{"name": "Unit owner", "role": "unit_owner", "scope": "unit", "quorum": 1, "due_hours": 72},
                {"name": "Compliance", "role": "compliance", "scope": "installation", "quorum": 1,
                 "when": [["workspace.environment", "eq", "production"]], "due_hours": 72}],
     "validity_days": 365}

Everything further may be left out (`policy_reader` says what each may hold):

    stage: "group": 2 (consecutive stages of one group are open together), "wait_hours": 24 (no approval counts before),
           "escalate_hours": 48 with "escalate_to": {"role", "scope"}, "fallback": {"role", "scope"}
    automatic rule: "standard": true (a pre-approved standard change; lost for a team after a failure)
    "terms": [{"name": "staging_hours", "value": 48, "when": [...]}], the last that holds wins
    "emergency": {"role": "compliance", "scope": "installation", "quorum": 1, "hours": 4, "review_hours": 72,
                  "review_role": "compliance"}
    "separation": {"authors": true, "evidence_producers": true}, "reauthenticate_minutes": 15

Numbers are integers, or strings holding a decimal number ("0.50"): a binary fraction never decides. `counts` is about
everything so approved before: value(fact) + value(adds) ≤ limit; without `adds` the fact already includes this request.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final, TypeAlias

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
    #: A pre-approved standard change: after a failure it counts no more for that team until somebody restores it.
    standard: bool = False

    def holds(self, facts: Mapping[str, FactValue]) -> bool:
        """Whether all conditions and the count hold."""
        return all(c.holds(facts) for c in self.when) and (self.counts is None or self.counts.holds(facts))


@dataclass(frozen=True, slots=True)
class RoleAt:
    """A role and where it must be held (one of `SCOPES`)."""

    role: str
    scope: str


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
    group: int = 0
    wait_hours: int | None = None
    escalate_hours: int | None = None
    escalate_to: RoleAt | None = None
    fallback: RoleAt | None = None

    def asked(self, facts: Mapping[str, FactValue]) -> bool:
        """Whether these facts ask for the stage."""
        spared = bool(self.unless) and all(c.holds(facts) for c in self.unless)
        return all(c.holds(facts) for c in self.when) and not spared


@dataclass(frozen=True, slots=True)
class Term:
    """A named number or word that the policy sets for subjects where all of `when` hold."""

    name: str
    value: int | str
    when: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Emergency:
    """The break-glass path: who approves it, for how long it holds, and who reviews it within how long."""

    role: str
    quorum: int
    hours: int
    review_hours: int
    review_role: str
    scope: str = "installation"

    def stage(self) -> StageRule:
        """Return the one stage of an emergency request; after the hours it would have lasted it lapses."""
        return StageRule("Emergency", self.role, self.scope, self.quorum, due_hours=self.hours)


@dataclass(frozen=True, slots=True)
class Separation:
    """Whom the policy keeps from deciding besides the requester's side. Who wrote it is always kept from it."""

    evidence_producers: bool = True


@dataclass(frozen=True, slots=True)
class PolicyRules:
    """A readable policy body."""

    automatic: tuple[AutomaticRule, ...]
    stages: tuple[StageRule, ...]
    validity_days: int | None = None
    terms: tuple[Term, ...] = ()
    emergency: Emergency | None = None
    separation: Separation = Separation()
    #: A decision needs the password asked again within so many minutes; None: signing in suffices.
    reauthenticate_minutes: int | None = None

    @property
    def counts_anything(self) -> bool:
        """Whether an automatic rule has a limit, so that submissions of a team must be taken one after another."""
        return any(rule.counts for rule in self.automatic)

    def facts(self) -> list[str]:
        """Return every fact the policy asks about."""
        named = {c.fact for rule in self.automatic for c in rule.when}
        named |= {c.fact for stage in self.stages for c in (*stage.when, *stage.unless)}
        named |= {c.fact for term in self.terms for c in term.when}
        for rule in self.automatic:
            if rule.counts:
                named |= {rule.counts.fact} | ({rule.counts.adds} if rule.counts.adds else set())
        return sorted(named)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a policy asks for: an automatic rule that fired, or the stages (and those these facts spared).

    `lost` are the standard changes that would have fired and that the team has lost.
    """

    automatic: AutomaticRule | None
    stages: tuple[StageRule, ...]
    spared: tuple[StageRule, ...] = ()
    lost: tuple[AutomaticRule, ...] = ()


def stages_for(
    rules: PolicyRules, facts: Mapping[str, FactValue], lost_names: Collection[str] = frozenset()
) -> Outcome:
    """Return the first automatic rule that holds, or else the stages that `facts` ask for, in order.

    `lost_names` are the standard changes that count no more for the team. There is always at least one stage:
    `parse_policy` demands one without conditions, or two that complete each other.
    """
    lost = []
    for rule in rules.automatic:
        if not rule.holds(facts):
            continue
        if rule.standard and rule.name in lost_names:
            lost.append(rule)
            continue
        return Outcome(rule, (), (), tuple(lost))
    asked = tuple(stage for stage in rules.stages if stage.asked(facts))
    return Outcome(None, asked, tuple(stage for stage in rules.stages if stage not in asked), tuple(lost))


def terms_under(rules: PolicyRules, facts: Mapping[str, FactValue]) -> dict[str, int | str]:
    """Return the policy's terms given facts: of entries with one name the last whose conditions all hold."""
    found: dict[str, int | str] = {}
    for term in rules.terms:
        if all(c.holds(facts) for c in term.when):
            found[term.name] = term.value
    return found


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


def dump_facts(facts: Mapping[str, FactValue]) -> dict[str, Any]:
    """Return facts as JSON: integers and strings as they are, Decimals as {"decimal": "12.50"}."""
    return {
        name: {"decimal": str(value)} if isinstance(value, Decimal) else value for name, value in sorted(facts.items())
    }


def load_facts(stored: Mapping[str, Any]) -> dict[str, FactValue]:
    """Return facts from what `dump_facts` made."""
    return {name: Decimal(v["decimal"]) if isinstance(v, dict) else v for name, v in stored.items()}
