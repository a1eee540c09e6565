"""The text of a policy body: JSON read strictly, and on which line each place of it stands. Pure: no ORM."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from json.decoder import scanstring  # type: ignore[attr-defined]  # public in CPython since 2.6, unknown to typeshed
from typing import Any

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


def load(text: str) -> Any:
    """Return what a JSON text holds. Raises PolicyError (with the line) for anything that is not exact JSON."""
    try:
        return json.loads(text, object_pairs_hook=_no_twice, parse_constant=_no_constant, parse_float=_no_float)
    except json.JSONDecodeError as error:
        message = f"not valid JSON: {error.msg} (column {error.colno})"
        raise PolicyError([Fault("", message, error.lineno)]) from error
    except _Refused as error:
        line = next((n for n, row in enumerate(text.splitlines(), 1) if error.token in row), None)
        raise PolicyError([Fault("", str(error), line)]) from error
    except ValueError as error:
        # Python refuses to read integers of thousands of digits.
        raise PolicyError([Fault("", "holds a number with too many digits")]) from error


def with_lines(faults: Sequence[Fault], text: str) -> list[Fault]:
    """Return the faults with the line of each place in the text."""
    lines = positions(text)
    return [Fault(fault.path, fault.message, _line(lines, fault.path)) for fault in faults]


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


def join(path: str, key: str | int) -> str:
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
                at = space(value(at, join(path, key)))
                at, index = (space(at + 1) if text[at] == "," else at), index + 1
            return at + 1
        match = _SCALAR.match(text, at)
        return match.end() if match else at

    value(0, "")
    return found
