"""Policies in sentences: what a rule asks for, for people who read no JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from django.conf import settings

from apps.approvals import deciders, ports
from apps.approvals.models import PolicyVersion
from apps.approvals.policy_rules import (
    OP_WORDS,
    AutomaticRule,
    Condition,
    Emergency,
    FactValue,
    PolicyRules,
    RoleAt,
    Separation,
    StageRule,
    Term,
    number,
)
from apps.core import formats
from apps.core.money import Money

#: The order in which a body is written for people; the database keeps none.
_KEYS = (
    "automatic", "stages", "terms", "emergency", "separation", "validity_days", "reauthenticate_minutes", "name",
    "value", "standard", "role", "scope", "quorum", "group", "when", "unless", "wait_hours", "due_hours",
    "escalate_hours", "escalate_to", "fallback", "counts", "fact", "adds", "limit", "hours", "review_hours",
    "review_role", "authors", "evidence_producers",
)  # fmt: skip

SCOPE_WORDS = {
    "unit": "of the paying unit",
    "parent_unit": "of the unit above the paying one",
    "installation": "of the whole installation",
}


def fact_text(name: str, value: FactValue) -> str:
    """Return a fact's value as people read it: money with currency, numbers with separators, with their unit."""
    meaning = ports.meaning_of(name)
    exact = number(value)
    if meaning.unit == "money" and exact is not None and exact.adjusted() < 18:
        return formats.money(Money(exact, settings.COMMONS_CURRENCY))
    if isinstance(value, str):
        return value
    text = formats.number(Decimal(value) if isinstance(value, Decimal) else value)
    return f"{text} {meaning.unit}".strip()


def condition_text(condition: Condition) -> str:
    """Return "Monthly cost change is at most 500.00 USD"."""
    options = condition.value if isinstance(condition.value, tuple) else (condition.value,)
    values = ", ".join(fact_text(condition.fact, option) for option in options)
    return f"{ports.meaning_of(condition.fact).label} {OP_WORDS[condition.op]} {values}"


def _all(conditions: Iterable[Condition]) -> str:
    return " and ".join(condition_text(c) for c in conditions)


def automatic_text(rule: AutomaticRule) -> str:
    """Return when the rule approves without asking anybody."""
    text = f"approved without asking when {_all(rule.when)}"
    if rule.counts:
        label = ports.meaning_of(rule.counts.fact).label
        more = f" together with {ports.meaning_of(rule.counts.adds).label}" if rule.counts.adds else ""
        text += f", as long as {label}{more} stays at or below {fact_text(rule.counts.fact, rule.counts.limit)}"
    if rule.standard:
        text += "; a pre-approved standard change, which a team loses after a failure until somebody restores it"
    return text


def stage_text(rule: StageRule) -> str:
    """Return who is asked, how many of them, when, and for how long."""
    people = f"{rule.quorum} different people" if rule.quorum > 1 else "one person"
    text = f"{people} with the role {deciders.role_label(rule.role)} {SCOPE_WORDS[rule.scope]}"
    if rule.when:
        text += f", when {_all(rule.when)}"
    if rule.unless:
        text += f", unless {_all(rule.unless)}"
    if rule.group:
        text += f"; at the same time as the other stages of group {rule.group}"
    if rule.wait_hours:
        text += f"; no approval counts in the first {hours_text(rule.wait_hours)}"
    if rule.escalate_hours and rule.escalate_to:
        text += f"; after {hours_text(rule.escalate_hours)} also {_role_text(rule.escalate_to)}"
    if rule.fallback:
        text += f"; where too few of them are free of conflicts also {_role_text(rule.fallback)}"
    if rule.due_hours:
        text += f"; within {hours_text(rule.due_hours)}, or the request lapses"
    return text


def hours_text(hours: int) -> str:
    """Return "1 hour", "48 hours"."""
    return f"{hours} hour{'s' if hours != 1 else ''}"


def _role_text(at: RoleAt) -> str:
    return f"{deciders.role_label(at.role)} {SCOPE_WORDS[at.scope]}"


def emergency_text(section: Emergency) -> str:
    """Return who approves an emergency, for how long it holds, and who reviews it."""
    people = f"{section.quorum} people" if section.quorum > 1 else "one person"
    role = _role_text(RoleAt(section.role, section.scope))
    return (
        f"the requester and {people} with the role {role}, who took no part in it; holds for "
        f"{hours_text(section.hours)} at most; {deciders.role_label(section.review_role)} reviews it within "
        f"{hours_text(section.review_hours)}, and until then the team's next normal request is refused"
    )


def separation_text(section: Separation) -> str:
    """Return who never decides besides the requester's side."""
    more = ", and whoever produced evidence for it" if section.evidence_producers else ""
    return f"never decided by whoever wrote a part of it{more}"


def term_text(subject_type: str, term: Term) -> str:
    """Return "Hours in staging: 48, when Environment is production"."""
    meaning = ports.known_terms(subject_type).get(term.name) or ports.FactMeaning(term.name, "")
    when = f", when {_all(term.when)}" if term.when else ""
    return f"{meaning.label}: {f'{term.value} {meaning.unit}'.strip()}{when}"


def rules_text(rules: PolicyRules, subject_type: str = "") -> list[str]:
    """Return what a policy says besides its automatic rules and stages, one sentence a line."""
    lines = [separation_text(rules.separation)]
    if rules.reauthenticate_minutes:
        lines.append(f"a decision needs the password again, at most {rules.reauthenticate_minutes} minutes before")
    if rules.validity_days:
        lines.append(f"an approval holds for {rules.validity_days} days")
    if rules.emergency:
        lines.append(f"an emergency: {emergency_text(rules.emergency)}")
    return [*lines, *(term_text(subject_type, term) for term in rules.terms)]


def stage_rule_text(version: PolicyVersion, rule: StageRule, note: str) -> str:
    """Return why a stage is asked for, to be kept with it."""
    if rule == deciders.emergency_stage(version):
        return f"{version}: asked because it is an emergency{'; ' + note if note else ''}."
    why = f"because {_all(rule.when)}" if rule.when else "for every request it does not approve by itself"
    return f"{version}, “{rule.name}”: asked {why}{'; ' + note if note else ''}."


def facts_table(facts: dict[str, FactValue]) -> list[dict[str, str]]:
    """Return facts with label, value and meaning, for pages and the API."""
    return [
        {
            "name": name,
            "label": ports.meaning_of(name).label,
            "value": fact_text(name, value),
            "meaning": ports.meaning_of(name).meaning,
        }
        for name, value in sorted(facts.items())
    ]


def body_text(body: Any) -> str:
    """Return a policy body as JSON text for people: keys in the order of reading, each condition on one line."""
    return _written(body, "")


def _written(value: Any, indent: str) -> str:
    inner = indent + "  "
    if isinstance(value, dict) and value:
        keys = sorted(value, key=lambda key: (_KEYS.index(key) if key in _KEYS else len(_KEYS), key))
        rows = [f"{inner}{json.dumps(key)}: {_written(value[key], inner)}" for key in keys]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    # A condition is a list that begins with a fact's name: it stays on one line.
    if isinstance(value, list) and value and not isinstance(value[0], str):
        return "[\n" + ",\n".join(f"{inner}{_written(item, inner)}" for item in value) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False)
