"""Typed object model: what fields a kind has, how they merge, and the check of a body against it.

The merge markers (atomic, set, list map with its keys) are those of the Kubernetes API reference; they decide the
granularity of field ownership in server-side apply.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from apps.demo.cluster.quantity import BadQuantity, canonical

SCALARS = ("string", "int", "bool", "flag", "number", "quantity", "intstr", "crdquantity", "time", "any")


@dataclass(eq=False)
class Type:
    """A node of the object model.

    `shape` is `scalar`, `struct`, `map` or `list`; `relation` is `granular`, `atomic`, `set` or `listmap`.
    """

    shape: str
    scalar: str = ""
    relation: str = "granular"
    item: Type | None = None
    keys: tuple[str, ...] = ()
    fields: dict[str, Type] = field(default_factory=dict)

    def child(self, name: str) -> Type | None:
        """Type of the member `name`, or None where there is no such field."""
        if self.shape == "struct":
            return self.fields.get(name)
        return self.item


_SCALAR_TYPES = {name: Type("scalar", scalar=name) for name in SCALARS}
ANY = _SCALAR_TYPES["any"]


class WrongType(ValueError):
    """A value of the wrong JSON type; carries the path and what was expected."""

    def __init__(self, path: str, expected: str, value: object) -> None:
        super().__init__(f"{path}: expected {expected}, got {value!r}")
        self.path = path
        self.expected = expected
        self.value = value


class WrongQuantity(WrongType):
    """A quantity that cannot be parsed."""


def parse_types(text: str) -> dict[str, Type]:
    """Read the compact notation of `schema.py`: a type name, below it indented `field: expression` lines.

    Expressions: a scalar, a type name, `map X`, `list X` (atomic), `set X`, `listmap(a,b) X`, `atomic X`.
    """
    raw: dict[str, list[tuple[str, str]]] = {}
    current = ""
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not line.startswith(" "):
            current = line.strip()
            raw[current] = []
            continue
        for part in line.split(";"):
            names, _, expression = part.partition(":")
            for name in names.split(","):
                raw[current].append((name.strip(), expression.strip()))
    types = {name: Type("struct") for name in raw}
    for name, members in raw.items():
        # In place: an `atomic` copy of a type shares this dictionary.
        types[name].fields.update((member, _expression(expression, types)) for member, expression in members)
    return types


def _expression(text: str, types: dict[str, Type]) -> Type:
    word, _, rest = text.partition(" ")
    if word == "map":
        return Type("map", item=_expression(rest, types))
    if word == "list":
        return Type("list", relation="atomic", item=_expression(rest, types))
    if word == "set":
        return Type("list", relation="set", item=_expression(rest, types))
    if word.startswith("listmap("):
        keys = tuple(word[len("listmap(") : -1].split("|"))
        return Type("list", relation="listmap", keys=keys, item=_expression(rest, types))
    if word == "atomic":
        inner = _expression(rest, types)
        return Type(inner.shape, relation="atomic", item=inner.item, fields=inner.fields)
    if word in _SCALAR_TYPES:
        return _SCALAR_TYPES[word]
    return types[word]


def check(value: Any, kind: Type, path: str, unknown: list[str], *, custom: bool = False) -> Any:
    """Return `value` as the server would store it: nulls, empty maps and lists dropped, quantities canonical.

    Custom resources keep what is empty and quantities as they were sent. Unknown fields are dropped, and their paths
    appended to `unknown`. Raises `WrongType` or `WrongQuantity`.
    """
    if kind.shape == "scalar":
        return _scalar(value, kind.scalar, path)
    if kind.shape == "list":
        if not isinstance(value, list):
            raise WrongType(path, "list", value)
        item = kind.item or ANY
        return [check(each, item, f"{path}[{index}]", unknown, custom=custom) for index, each in enumerate(value)]
    if not isinstance(value, dict):
        raise WrongType(path, "map", value)
    out: dict[str, Any] = {}
    for name, each in value.items():
        where = f"{path}.{name}" if path else name
        member = kind.child(name)
        if member is None:
            unknown.append(where)
        elif each is not None:
            checked = check(each, member, where, unknown, custom=custom)
            # Go's `omitempty`: empty maps and lists are not stored, nor is a flag that is not raised.
            omits = member.shape in ("map", "list") or member.scalar == "flag"
            if custom or checked or not omits:
                out[name] = checked
    return out


def _scalar(value: Any, name: str, path: str) -> Any:
    if name == "any":
        return value
    if name == "quantity":
        try:
            return canonical(value)
        except BadQuantity as error:
            raise WrongQuantity(path, str(error), value) from error
    if name in ("bool", "flag"):
        good = isinstance(value, bool)
    elif name == "int":
        good = isinstance(value, int) and not isinstance(value, bool)
    elif name == "number":
        good = isinstance(value, int | float) and not isinstance(value, bool)
    elif name in ("intstr", "crdquantity"):
        good = isinstance(value, int | str) and not isinstance(value, bool)
    elif name == "time":
        good = isinstance(value, str) and bool(_TIME.match(value))
    else:
        good = isinstance(value, str)
    if not good:
        raise WrongType(path, name, value)
    return value


_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)\Z")
