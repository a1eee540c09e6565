"""Policies in sentences: what a rule asks for, for people who read no JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from django.conf import settings

from apps.approvals import deciders, ports
from apps.approvals.models import PolicyVersion
from apps.approvals.policy_rules import OP_WORDS, AutomaticRule, Condition, FactValue, StageRule, number
from apps.core import formats
from apps.core.money import Money

#: The order in which a body is written for people; the database keeps none.
_KEYS = (
    "automatic", "stages", "validity_days", "name", "role", "scope", "quorum", "when", "unless", "due_hours", "counts",
    "fact", "adds", "limit",
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
    return text


def stage_text(rule: StageRule) -> str:
    """Return who is asked, how many of them, when, and for how long."""
    people = f"{rule.quorum} different people" if rule.quorum > 1 else "one person"
    text = f"{people} with the role {deciders.role_label(rule.role)} {SCOPE_WORDS[rule.scope]}"
    if rule.when:
        text += f", when {_all(rule.when)}"
    if rule.unless:
        text += f", unless {_all(rule.unless)}"
    if rule.due_hours:
        text += f"; within {rule.due_hours} hours, or the request lapses"
    return text


def stage_rule_text(version: PolicyVersion, rule: StageRule, note: str) -> str:
    """Return why a stage is asked for, to be kept with it."""
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
