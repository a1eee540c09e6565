"""Reading policy bodies with precise complaints: which line, which place, what to write instead. Pure: no ORM."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from json.decoder import scanstring  # type: ignore[attr-defined]  # public in CPython since 2.6, unknown to typeshed
from typing import Any, Final

from apps.approvals.policy_rules import (
    OPS,
    ORDER_OPS,
    SCOPES,
    AutomaticRule,
    Condition,
    Count,
    PolicyRules,
    StageRule,
)

MAX_STAGES: Final = 8
MAX_QUORUM: Final = 10
MAX_HOURS: Final = 24 * 366
MAX_TEXT: Final = 200
LARGEST: Final = 10**15
_DECIMAL = re.compile(r"^-?[0-9]{1,15}(\.[0-9]{1,9})?$")
_FACT = re.compile(r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$")
_SPACE = re.compile(r"[ \t\r\n]*")
_SCALAR = re.compile(r"[^\s,\]\}]+")


@dataclass(frozen=True, slots=True)
class Fault:
    """One complaint about a body: where (path, and line where the text is known) and what to do."""

    path: str
    message: str
    line: int | None = None

    def __str__(self) -> str:
        where = f"Line {self.line}, " if self.line else ""
        return f"{where}{self.path or 'policy'}: {self.message}"


class PolicyError(ValueError):
    """The body is no policy; `faults` holds every complaint."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(str(fault) for fault in faults))
        self.faults = list(faults)


def parse_text(text: str, *, roles: Sequence[str]) -> tuple[dict[str, Any], PolicyRules]:
    """Return body and rules of a JSON text. Raises PolicyError whose faults name the lines."""
    try:
        return _parsed(text, roles)
    except RecursionError as error:
        raise PolicyError([Fault("", "nested too deeply")]) from error


def _parsed(text: str, roles: Sequence[str]) -> tuple[dict[str, Any], PolicyRules]:
    try:
        body = json.loads(text, object_pairs_hook=_no_twice, parse_constant=_no_constant, parse_float=_no_float)
    except json.JSONDecodeError as error:
        message = f"not valid JSON: {error.msg} (column {error.colno})"
        raise PolicyError([Fault("", message, error.lineno)]) from error
    except _Refused as error:
        line = next((n for n, row in enumerate(text.splitlines(), 1) if error.token in row), None)
        raise PolicyError([Fault("", str(error), line)]) from error
    except ValueError as error:
        # Python refuses to read integers of thousands of digits.
        raise PolicyError([Fault("", "holds a number with too many digits")]) from error
    try:
        return body, parse_policy(body, roles=roles)
    except PolicyError as error:
        lines = positions(text)
        raise PolicyError([Fault(f.path, f.message, _line(lines, f.path)) for f in error.faults]) from error


def parse_policy(body: Any, *, roles: Sequence[str]) -> PolicyRules:
    """Return the rules of a body; `roles` are those that may decide. Raises PolicyError with every fault found."""
    reader = _Reader(tuple(roles))
    rules = reader.policy(body)
    if reader.faults or rules is None:
        raise PolicyError(reader.faults)
    return rules


class _Refused(ValueError):
    def __init__(self, message: str, token: str) -> None:
        super().__init__(message)
        self.token = token


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            raise _Refused(f'"{key}" stands twice in the same object; keep one', f'"{key}"')
        seen[key] = value
    return seen


def _no_constant(token: str) -> Any:
    raise _Refused(f"{token} is no number a policy can compare with", token)


def _no_float(token: str) -> Any:
    raise _Refused(f'write {token} as a string, "{token}", so that it is compared exactly', token)


def _join(path: str, key: str | int) -> str:
    return f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}" if path else key


def _line(lines: Mapping[str, int], path: str) -> int | None:
    """Return the line of `path`, or of the nearest thing around it (for what is missing)."""
    while path and path not in lines:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return lines.get(path)


def positions(text: str) -> dict[str, int]:
    """Return path → line (from 1) of every value in a JSON text that `json.loads` accepts."""
    found: dict[str, int] = {}

    def space(at: int) -> int:
        match = _SPACE.match(text, at)
        return match.end() if match else at

    def value(at: int, path: str) -> int:
        at = space(at)
        found.setdefault(path, text.count("\n", 0, at) + 1)
        if text[at] == '"':
            return int(scanstring(text, at + 1)[1])
        if text[at] in "{[":
            closing, is_object, index = "}" if text[at] == "{" else "]", text[at] == "{", 0
            at = space(at + 1)
            while text[at] != closing:
                key: str | int = index
                if is_object:
                    key, at = scanstring(text, at + 1)
                    at = space(at) + 1
                at = space(value(at, _join(path, key)))
                at, index = (space(at + 1) if text[at] == "," else at), index + 1
            return at + 1
        match = _SCALAR.match(text, at)
        return match.end() if match else at

    value(0, "")
    return found


class _Reader:
    """Reads a body and collects every fault instead of stopping at the first."""

    def __init__(self, roles: tuple[str, ...]) -> None:
        self.roles = roles
        self.faults: list[Fault] = []

    def wrong(self, path: str, message: str) -> None:
        self.faults.append(Fault(path, message))

    def mapping(self, value: Any, path: str, known: Sequence[str], needed: Sequence[str]) -> dict[str, Any] | None:
        if not isinstance(value, dict):
            self.wrong(path, "must be an object { … }")
            return None
        for key in value:
            if key not in known:
                self.wrong(_join(path, key), f"is not known here; known are {', '.join(known)}")
        for key in needed:
            if key not in value:
                self.wrong(_join(path, key), "is missing")
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
        data = self.mapping(body, "", ("automatic", "stages", "validity_days"), ("stages",))
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
        validity = data.get("validity_days")
        days = None if validity is None else self.whole(validity, "validity_days", 1, 3660)
        return PolicyRules(tuple(automatic), tuple(stages), days)

    def automatic(self, value: Any, path: str) -> AutomaticRule:
        data = self.mapping(value, path, ("name", "when", "counts"), ("name", "when")) or {}
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
        return AutomaticRule(self.text(data["name"], f"{path}.name") if "name" in data else "", when, count)

    def stage(self, value: Any, path: str) -> StageRule:
        known = ("name", "role", "scope", "quorum", "when", "unless", "due_hours")
        data = self.mapping(value, path, known, ("name", "role", "scope")) or {}
        for key, choices in (("role", self.roles), ("scope", SCOPES)):
            if key in data and data[key] not in choices:
                self.wrong(f"{path}.{key}", f"must be one of {', '.join(choices)}")
        due = data.get("due_hours")
        return StageRule(
            name=self.text(data["name"], f"{path}.name") if "name" in data else "",
            role=str(data.get("role", "")),
            scope=str(data.get("scope", "")),
            quorum=self.whole(data.get("quorum", 1), f"{path}.quorum", 1, MAX_QUORUM),
            when=self.conditions(data.get("when", []), f"{path}.when"),
            unless=self.conditions(data.get("unless", []), f"{path}.unless"),
            due_hours=None if due is None else self.whole(due, f"{path}.due_hours", 1, MAX_HOURS),
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
