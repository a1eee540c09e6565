"""Filters and PATCH paths of SCIM (RFC 7644 §3.4.2.2 and §3.5.2): a parser, and matching against plain values. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from apps.accounts.scim_errors import invalid_filter, invalid_path

CORE_USER = "urn:ietf:params:scim:schemas:core:2.0:User"
CORE_GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"

#: Longest text and deepest nesting that is read: directories send a comparison or two.
MAX_LENGTH = 2000
MAX_DEPTH = 20

_TOKEN = re.compile(
    r"""\s*(?:(?P<punctuation>[()\[\]])
        |(?P<text>"(?:[^"\\]|\\.)*")
        |(?P<number>-?\d+(?:\.\d+)?(?![\w:.-]))
        |(?P<word>\$?[A-Za-z][\w:.$-]*)
        |(?P<rest>\.[A-Za-z$][\w$-]*))""",
    re.VERBOSE,
)
_COMPARISONS = frozenset({"eq", "ne", "co", "sw", "ew", "gt", "ge", "lt", "le"})


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute's path: schema (empty: the core one), name, sub-attribute. Compared without regard to case."""

    urn: str
    name: str
    sub: str = ""

    @property
    def key(self) -> str:
        """The path in small letters, without the schema."""
        return f"{self.name}.{self.sub}".rstrip(".").lower()


@dataclass(frozen=True, slots=True)
class Comparison:
    """`attribute op value`; `pr` (is present) has no value."""

    attribute: Attribute
    op: str
    value: Any = None


@dataclass(frozen=True, slots=True)
class Negation:
    """`not (…)`."""

    inner: Filter


@dataclass(frozen=True, slots=True)
class Junction:
    """`… and …`, `… or …`."""

    op: str
    left: Filter
    right: Filter


@dataclass(frozen=True, slots=True)
class Within:
    """`attribute[…]`: one element of a multi-valued attribute meets all of it."""

    attribute: Attribute
    inner: Filter


Filter: TypeAlias = Comparison | Negation | Junction | Within


@dataclass(frozen=True, slots=True)
class Path:
    """What a PATCH operation is about: an attribute, maybe some of its elements, maybe a part of those."""

    attribute: Attribute
    where: Filter | None = None
    sub: str = ""


def attribute(text: str) -> Attribute:
    """Return the attribute that a word names, with or without its schema."""
    urn, name = "", text
    if text.lower().startswith("urn:"):
        for known in (ENTERPRISE, CORE_USER, CORE_GROUP):
            if text.lower() == known.lower():
                return Attribute(known, "")
        urn, _, name = text.rpartition(":")
        # Some directories write a dot where the colon belongs.
        for known in (ENTERPRISE, CORE_USER, CORE_GROUP):
            if text.lower().startswith((known.lower() + ":", known.lower() + ".")):
                urn, name = known, text[len(known) + 1 :]
    name, _, sub = name.partition(".")
    return Attribute("" if urn.lower() in (CORE_USER.lower(), CORE_GROUP.lower()) else urn, name, sub)


def parse_filter(text: str) -> Filter:
    """Return a filter. Raises ScimError (invalidFilter)."""
    reader = _Reader(text, invalid_filter)
    found = reader.disjunction(0)
    reader.end()
    return found


def parse_path(text: str) -> Path:
    """Return a PATCH path: `name`, `name.sub`, `name[filter]`, `name[filter].sub`. Raises ScimError (invalidPath)."""
    reader = _Reader(text, invalid_path)
    found = attribute(reader.word())
    if reader.peek() != "[":
        reader.end()
        return Path(Attribute(found.urn, found.name), sub=found.sub)
    reader.take("[")
    where = reader.disjunction(0)
    reader.take("]")
    sub = reader.rest()
    reader.end()
    return Path(found, where, sub)


def matches(condition: Filter, element: Any) -> bool:
    """Whether an element of a multi-valued attribute (a mapping, or a plain value as `value`) meets a condition."""
    if isinstance(condition, Junction):
        left, right = matches(condition.left, element), matches(condition.right, element)
        return (left and right) if condition.op == "and" else (left or right)
    if isinstance(condition, Negation):
        return not matches(condition.inner, element)
    if isinstance(condition, Within):
        return False
    value = _part(element, condition.attribute)
    if condition.op == "pr":
        return value not in (None, "", [], {})
    return compare(value, condition.op, condition.value)


def compare(value: Any, op: str, wanted: Any) -> bool:
    """Compare two values; texts without regard to case, truth values also where a directory sends them as texts."""
    if isinstance(value, bool) or isinstance(wanted, bool):
        same = str(value).lower() == str(wanted).lower()
        return same if op == "eq" else not same if op == "ne" else False
    if value is None or wanted is None:
        same = value is None and wanted is None
        return same if op == "eq" else not same if op == "ne" else False
    left, right = str(value).lower(), str(wanted).lower()
    if isinstance(value, int | float) and isinstance(wanted, int | float):
        numbers = {"gt": value > wanted, "ge": value >= wanted, "lt": value < wanted, "le": value <= wanted}
        if op in numbers:
            return numbers[op]
    return {
        "eq": left == right,
        "ne": left != right,
        "co": right in left,
        "sw": left.startswith(right),
        "ew": left.endswith(right),
        "gt": left > right,
        "ge": left >= right,
        "lt": left < right,
        "le": left <= right,
    }[op]


def equalities(condition: Filter) -> dict[str, Any] | None:
    """Return what an element has to say to meet `a eq x and b eq y`; None for any other kind of condition."""
    if isinstance(condition, Comparison):
        simple = condition.op == "eq" and not condition.attribute.sub
        return {condition.attribute.name: condition.value} if simple else None
    if isinstance(condition, Junction) and condition.op == "and":
        left, right = equalities(condition.left), equalities(condition.right)
        return None if left is None or right is None else {**left, **right}
    return None


def _part(element: Any, name: Attribute) -> Any:
    if not isinstance(element, Mapping):
        return element if name.key == "value" else None
    found = next((value for key, value in element.items() if str(key).lower() == name.name.lower()), None)
    if name.sub and isinstance(found, Mapping):
        return next((value for key, value in found.items() if str(key).lower() == name.sub.lower()), None)
    return found


class _Reader:
    """Reads tokens one after the other (recursive descent, depth limited)."""

    def __init__(self, text: str, refuse: Any) -> None:
        self.refuse = refuse
        if len(text) > MAX_LENGTH:
            raise refuse(f"Use at most {MAX_LENGTH} characters.")
        self.tokens: list[tuple[str, str]] = []
        at = 0
        while at < len(text.rstrip()):
            found = _TOKEN.match(text, at)
            if found is None:
                raise refuse(f"This cannot be read from character {at + 1} on.")
            kind = str(found.lastgroup)
            self.tokens.append((kind, found[kind]))
            at = found.end()
        self.next = 0

    def peek(self) -> str:
        return self.tokens[self.next][1] if self.next < len(self.tokens) else ""

    def pop(self) -> tuple[str, str]:
        if self.next >= len(self.tokens):
            raise self.refuse("It ends too early.")
        self.next += 1
        return self.tokens[self.next - 1]

    def word(self) -> str:
        kind, text = self.pop()
        if kind != "word":
            raise self.refuse(f"An attribute was expected, not {text[:50]}.")
        return text

    def take(self, text: str) -> None:
        if self.pop()[1] != text:
            raise self.refuse(f"{text} was expected.")

    def rest(self) -> str:
        if self.next < len(self.tokens) and self.tokens[self.next][0] == "rest":
            return self.pop()[1][1:]
        return ""

    def end(self) -> None:
        if self.next < len(self.tokens):
            raise self.refuse(f"Nothing was expected after {self.tokens[self.next - 1][1][:50]}.")

    def disjunction(self, depth: int) -> Filter:
        if depth > MAX_DEPTH:
            raise self.refuse("It is nested too deep.")
        left = self.conjunction(depth)
        while self.peek().lower() == "or":
            self.pop()
            left = Junction("or", left, self.conjunction(depth))
        return left

    def conjunction(self, depth: int) -> Filter:
        left = self.term(depth)
        while self.peek().lower() == "and":
            self.pop()
            left = Junction("and", left, self.term(depth))
        return left

    def term(self, depth: int) -> Filter:
        if self.peek().lower() == "not":
            self.pop()
            self.take("(")
            inner = self.disjunction(depth + 1)
            self.take(")")
            return Negation(inner)
        if self.peek() == "(":
            self.pop()
            inner = self.disjunction(depth + 1)
            self.take(")")
            return inner
        found = attribute(self.word())
        if self.peek() == "[":
            self.pop()
            inner = self.disjunction(depth + 1)
            self.take("]")
            if not (part := self.rest()):
                return Within(found, inner)
            # Some directories search `emails[type eq "work"].value eq "…"`: the element meets both.
            op, value = self.comparison()
            return Within(found, Junction("and", inner, Comparison(Attribute("", part), op, value)))
        op, value = self.comparison()
        return Comparison(found, op, value)

    def comparison(self) -> tuple[str, Any]:
        op = self.word().lower()
        if op == "pr":
            return op, None
        if op not in _COMPARISONS:
            raise self.refuse(f"{op[:50]} is no comparison.")
        return op, self.value()

    def value(self) -> Any:
        kind, text = self.pop()
        if kind == "text":
            try:
                found: str = json.loads(text)
                # Neither half characters nor NUL can be stored, so nothing is called so.
                found.encode()
            except ValueError as error:
                raise self.refuse(f"{text[:50]} is no JSON string.") from error
            if "\x00" in found:
                raise self.refuse("Texts hold no NUL character.")
            return found
        if kind == "number":
            return float(text) if "." in text else int(text)
        if kind == "word" and text.lower() in ("true", "false", "null"):
            return {"true": True, "false": False, "null": None}[text.lower()]
        raise self.refuse(f"A value was expected, not {text[:50]}; texts stand in double quotes.")


__all__ = [
    "CORE_GROUP",
    "CORE_USER",
    "ENTERPRISE",
    "Attribute",
    "Comparison",
    "Filter",
    "Junction",
    "Negation",
    "Path",
    "Within",
    "attribute",
    "compare",
    "equalities",
    "matches",
    "parse_filter",
    "parse_path",
]
