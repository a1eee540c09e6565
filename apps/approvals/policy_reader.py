"""Reading policy bodies with precise complaints: which line, which place, what to write instead. Pure: no ORM."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from apps.approvals.policy_rules import (
    OPS,
    ORDER_OPS,
    SCOPES,
    AutomaticRule,
    Condition,
    Count,
    Emergency,
    PolicyRules,
    RoleAt,
    Separation,
    StageRule,
    Term,
)
from apps.approvals.policy_text import Fault, PolicyError, join, load, positions, with_lines

MAX_STAGES: Final = 8
MAX_GROUP: Final = 9
MAX_QUORUM: Final = 10
MAX_HOURS: Final = 24 * 366
#: What is allowed without the usual questions lasts a week at most, and is looked at within a month.
MAX_EMERGENCY_HOURS: Final = 24 * 7
MAX_REVIEW_HOURS: Final = 24 * 31
MAX_TERMS: Final = 40
MAX_TEXT: Final = 200
LARGEST: Final = 10**15
_DECIMAL = re.compile(r"^-?[0-9]{1,15}(\.[0-9]{1,9})?$")
_FACT = re.compile(r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$")
_TERM = re.compile(r"^[a-z][a-z0-9_]{0,59}$")
_TOP = ("automatic", "stages", "validity_days", "terms", "emergency", "separation", "reauthenticate_minutes")
_STAGE = (
    "name", "role", "scope", "quorum", "when", "unless", "due_hours", "group", "wait_hours", "escalate_hours",
    "escalate_to", "fallback",
)  # fmt: skip


def parse_text(
    text: str, *, roles: Sequence[str], reviewers: Sequence[str] | None = None, terms: Sequence[str] | None = None
) -> tuple[dict[str, Any], PolicyRules]:
    """Return body and rules of a JSON text. Raises PolicyError whose faults name the lines."""
    try:
        body = load(text)
        try:
            return body, parse_policy(body, roles=roles, reviewers=reviewers, terms=terms)
        except PolicyError as error:
            raise PolicyError(with_lines(error.faults, text)) from error
    except RecursionError as error:
        raise PolicyError([Fault("", "nested too deeply")]) from error


def parse_policy(
    body: Any, *, roles: Sequence[str], reviewers: Sequence[str] | None = None, terms: Sequence[str] | None = None
) -> PolicyRules:
    """Return the rules of a body. Raises PolicyError with every fault found.

    `roles` are those that may decide, `reviewers` those that may close an emergency's review (None: the same);
    `terms` the names that the subject's room knows (None: it has not said, any name will do).
    """
    reader = _Reader(tuple(roles), tuple(roles if reviewers is None else reviewers), terms)
    rules = reader.policy(body)
    if reader.faults or rules is None:
        raise PolicyError(reader.faults)
    return rules


class _Reader:
    """Reads a body and collects every fault instead of stopping at the first."""

    def __init__(self, roles: tuple[str, ...], reviewers: tuple[str, ...], terms: Sequence[str] | None) -> None:
        self.roles, self.reviewers, self.terms = roles, reviewers, terms
        self.faults: list[Fault] = []

    def wrong(self, path: str, message: str) -> None:
        self.faults.append(Fault(path, message))

    def mapping(self, value: Any, path: str, known: Sequence[str], needed: Sequence[str]) -> dict[str, Any] | None:
        if not isinstance(value, dict):
            self.wrong(path, "must be an object { … }")
            return None
        for key in value:
            if key not in known:
                self.wrong(join(path, key), f"is not known here; known are {', '.join(known)}")
        for key in needed:
            if key not in value:
                self.wrong(join(path, key), "is missing")
        return value

    def items(self, value: Any, path: str) -> list[Any]:
        if isinstance(value, list):
            return value
        self.wrong(path, "must be a list [ … ]")
        return []

    def text(self, value: Any, path: str, limit: int = 120) -> str:
        if isinstance(value, str) and 0 < len(value.strip()) <= limit and value.isprintable():
            return value.strip()
        self.wrong(path, f"must be a text of 1 to {limit} printable characters")
        return ""

    def whole(self, value: Any, path: str, low: int, high: int) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        self.wrong(path, f"must be a whole number from {low} to {high}")
        return low

    def fact(self, value: Any, path: str) -> str:
        if isinstance(value, str) and _FACT.match(value):
            return value
        self.wrong(path, 'must name a fact such as "request.delta_gpus"')
        return ""

    def policy(self, body: Any) -> PolicyRules | None:
        data = self.mapping(body, "", _TOP, ("stages",))
        if data is None:
            return None
        automatic = [
            self.automatic(item, f"automatic[{i}]")
            for i, item in enumerate(self.items(data.get("automatic", []), "automatic"))
        ]
        listed = self.items(data["stages"], "stages") if "stages" in data else []
        stages = [self.stage(item, f"stages[{i}]") for i, item in enumerate(listed)]
        if "stages" in data and not 1 <= len(stages) <= MAX_STAGES:
            self.wrong("stages", f"must hold 1 to {MAX_STAGES} stages")
        elif stages and not _somebody_is_always_asked(stages):
            self.wrong(
                "stages",
                "needs one stage without conditions (or one with `unless` and another whose `when` says the same), "
                "or a missing fact could leave nobody to ask",
            )
        for kind, named in (("stages", stages), ("automatic", automatic)):
            names = [entry.name for entry in named]
            for i, name in enumerate(names):
                if name and name in names[:i]:
                    self.wrong(f"{kind}[{i}].name", f'"{name}" stands twice; names tell them apart in the audit trail')
        self.groups(stages)
        return PolicyRules(
            tuple(automatic),
            tuple(stages),
            self.perhaps(data, "validity_days", "", 1, 3660),
            self.all_terms(data),
            self.emergency(data["emergency"]) if data.get("emergency") is not None else None,
            self.separation(data.get("separation", {})),
            self.perhaps(data, "reauthenticate_minutes", "", 1, 24 * 60),
        )

    def groups(self, stages: Sequence[StageRule]) -> None:
        """Stages of one group stand together, and groups rise: then the list is the order in which they open."""
        last = 0
        for i, stage in enumerate(stages):
            if not stage.group or (i and stages[i - 1].group == stage.group):
                continue
            if stage.group <= last:
                self.wrong(
                    f"stages[{i}].group",
                    f"must be more than {last}, or the same as the stage before: stages of one group stand together",
                )
            last = max(last, stage.group)

    def all_terms(self, data: dict[str, Any]) -> tuple[Term, ...]:
        listed = self.items(data.get("terms", []), "terms")
        if len(listed) > MAX_TERMS:
            self.wrong("terms", f"must hold at most {MAX_TERMS} entries")
        return tuple(self.term(item, f"terms[{i}]") for i, item in enumerate(listed))

    def term(self, value: Any, path: str) -> Term:
        data = self.mapping(value, path, ("name", "value", "when"), ("name", "value")) or {}
        name, set_to = data.get("name"), data.get("value")
        if "name" in data and not (isinstance(name, str) and _TERM.match(name)):
            self.wrong(f"{path}.name", 'must be a name such as "staging_hours"')
        elif "name" in data and self.terms is not None and name not in self.terms:
            self.wrong(f"{path}.name", f"is no term known here; known are {', '.join(self.terms)}")
        if "value" in data:
            if isinstance(set_to, str):
                self.text(set_to, f"{path}.value", MAX_TEXT)
            else:
                self.number(set_to, f"{path}.value")
        return Term(str(name), set_to if isinstance(set_to, str) else self.safe(set_to), self.conditions(
            data.get("when", []), f"{path}.when"
        ))  # fmt: skip

    def safe(self, value: Any) -> int:
        return value if isinstance(value, int) else 0

    def emergency(self, value: Any) -> Emergency:
        known = ("role", "scope", "quorum", "hours", "review_hours", "review_role")
        data = self.mapping(value, "emergency", known, ("role", "hours", "review_hours", "review_role")) or {}
        for key, choices in (("role", self.roles), ("scope", SCOPES), ("review_role", self.reviewers)):
            if key in data and data[key] not in choices:
                self.wrong(f"emergency.{key}", f"must be one of {', '.join(choices)}")
        return Emergency(
            role=str(data.get("role", "")),
            scope=str(data.get("scope", "installation")),
            quorum=self.whole(data.get("quorum", 1), "emergency.quorum", 1, MAX_QUORUM),
            hours=self.whole(data.get("hours", 1), "emergency.hours", 1, MAX_EMERGENCY_HOURS),
            review_hours=self.whole(data.get("review_hours", 1), "emergency.review_hours", 1, MAX_REVIEW_HOURS),
            review_role=str(data.get("review_role", "")),
        )

    def separation(self, value: Any) -> Separation:
        data = self.mapping(value, "separation", ("authors", "evidence_producers"), ()) or {}
        for key, said in data.items():
            if key in ("authors", "evidence_producers") and not isinstance(said, bool):
                self.wrong(f"separation.{key}", "must be true or false")
        if data.get("authors") is False:
            self.wrong("separation.authors", "cannot be switched off: nobody decides on what they wrote")
        return Separation(evidence_producers=data.get("evidence_producers") is not False)

    def perhaps(self, data: dict[str, Any], key: str, path: str, low: int, high: int) -> int | None:
        value = data.get(key)
        return None if value is None else self.whole(value, join(path, key), low, high)

    def role_at(self, data: dict[str, Any], key: str, path: str) -> RoleAt | None:
        if data.get(key) is None:
            return None
        path = f"{path}.{key}"
        inner = self.mapping(data[key], path, ("role", "scope"), ("role", "scope")) or {}
        for name, choices in (("role", self.roles), ("scope", SCOPES)):
            if name in inner and inner[name] not in choices:
                self.wrong(f"{path}.{name}", f"must be one of {', '.join(choices)}")
        return RoleAt(str(inner.get("role", "")), str(inner.get("scope", "")))

    def automatic(self, value: Any, path: str) -> AutomaticRule:
        data = self.mapping(value, path, ("name", "when", "counts", "standard"), ("name", "when")) or {}
        when = self.conditions(data["when"], f"{path}.when") if "when" in data else ()
        if "when" in data and not when:
            self.wrong(f"{path}.when", "needs at least one condition: a rule for everything is no rule")
        count: Count | None = None
        if "counts" in data:
            inner = self.mapping(data["counts"], f"{path}.counts", ("fact", "adds", "limit"), ("fact", "limit")) or {}
            count = Count(
                self.fact(inner.get("fact"), f"{path}.counts.fact") if "fact" in inner else "",
                self.number(inner.get("limit"), f"{path}.counts.limit") if "limit" in inner else 0,
                self.fact(inner["adds"], f"{path}.counts.adds") if "adds" in inner else "",
            )
        standard = data.get("standard", False)
        if not isinstance(standard, bool):
            self.wrong(f"{path}.standard", "must be true or false")
        name = self.text(data["name"], f"{path}.name") if "name" in data else ""
        return AutomaticRule(name, when, count, standard is True)

    def stage(self, value: Any, path: str) -> StageRule:
        data = self.mapping(value, path, _STAGE, ("name", "role", "scope")) or {}
        for key, choices in (("role", self.roles), ("scope", SCOPES)):
            if key in data and data[key] not in choices:
                self.wrong(f"{path}.{key}", f"must be one of {', '.join(choices)}")
        due, wait, escalate = (
            self.perhaps(data, key, path, 1, MAX_HOURS) for key in ("due_hours", "wait_hours", "escalate_hours")
        )
        for key, hours in (("wait_hours", wait), ("escalate_hours", escalate)):
            if hours is not None and due is not None and hours >= due:
                self.wrong(f"{path}.{key}", f"must be less than due_hours ({due}), or it would never matter")
        escalate_to = self.role_at(data, "escalate_to", path)
        if (escalate is None) != (escalate_to is None) and data.get("escalate_hours") is None:
            self.wrong(f"{path}.escalate_hours", "is missing: after how many hours does it escalate?")
        elif escalate_to is None and escalate is not None:
            self.wrong(f"{path}.escalate_to", "is missing: to which role and scope does it escalate?")
        return StageRule(
            name=self.text(data["name"], f"{path}.name") if "name" in data else "",
            role=str(data.get("role", "")),
            scope=str(data.get("scope", "")),
            quorum=self.whole(data.get("quorum", 1), f"{path}.quorum", 1, MAX_QUORUM),
            when=self.conditions(data.get("when", []), f"{path}.when"),
            unless=self.conditions(data.get("unless", []), f"{path}.unless"),
            due_hours=due,
            group=self.whole(data.get("group", 0), f"{path}.group", 0, MAX_GROUP),
            wait_hours=wait,
            escalate_hours=escalate,
            escalate_to=escalate_to,
            fallback=self.role_at(data, "fallback", path),
        )

    def number(self, value: Any, path: str) -> int | str:
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST:
            return value
        if isinstance(value, str) and _DECIMAL.match(value):
            return value
        self.wrong(path, 'must be a number below 10^15: a whole one, or a decimal one as a string ("0.50")')
        return 0

    def conditions(self, value: Any, path: str) -> tuple[Condition, ...]:
        return tuple(c for i, item in enumerate(self.items(value, path)) if (c := self.condition(item, f"{path}[{i}]")))

    def condition(self, value: Any, path: str) -> Condition | None:
        if not isinstance(value, list) or len(value) != 3:
            self.wrong(path, 'must be a list of three: ["fact", "op", value]')
            return None
        before = len(self.faults)
        name, (_, op, wanted) = self.fact(value[0], f"{path}[0]"), value
        if op not in OPS:
            self.wrong(f"{path}[1]", f"must be one of {', '.join(OPS)}")
        elif op in ORDER_OPS:
            self.number(wanted, f"{path}[2]")
        else:
            options = wanted if op == "in" else [wanted]
            if not isinstance(options, list) or not options:
                self.wrong(f"{path}[2]", 'must be a list with at least one value for "in"')
            for option in options if isinstance(options, list) else []:
                if isinstance(option, str):
                    self.text(option, f"{path}[2]", MAX_TEXT)
                else:
                    self.number(option, f"{path}[2]")
        if len(self.faults) > before:
            return None
        return Condition(name, op, tuple(wanted) if op == "in" else wanted)


def _somebody_is_always_asked(stages: Sequence[StageRule]) -> bool:
    """Whether some stage is asked whatever the facts are, also where they are missing.

    A stage without conditions is; so is one of two, where the first is spared only if all of its `unless` hold and
    the second is asked as soon as some of the very same conditions do.
    """
    spared = [set(stage.unless) for stage in stages if not stage.when]
    asked = [set(stage.when) for stage in stages if not stage.unless]
    return any(not unless or any(when <= unless for when in asked) for unless in spared)


__all__ = ["Fault", "PolicyError", "parse_policy", "parse_text", "positions"]
