"""What Kubernetes adds to CEL's own functions, as far as admission expressions use it: of strings and lists.

Semantics: Kubernetes' `strings`, `lists` and `regex` libraries (`k8s.io/apiserver/pkg/cel/library`, cel-go `ext`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any


def functions(celtypes: Any, error: type[Exception]) -> dict[str, Callable[..., Any]]:
    """The functions, made with the types of the library that evaluates."""
    text, number, truth, listed = celtypes.StringType, celtypes.IntType, celtypes.BoolType, celtypes.ListType

    def split(value: Any, separator: Any, limit: Any = None) -> Any:
        if limit is not None and int(limit) == 0:
            return listed([])
        most = -1 if limit is None or int(limit) < 0 else int(limit) - 1
        parts = list(str(value)) if not str(separator) else str(value).split(str(separator), most)
        return listed([text(part) for part in parts])

    def join(value: Any, separator: Any = "") -> Any:
        return text(str(separator).join(str(each) for each in value))

    def index_of(value: Any, wanted: Any, start: Any = 0) -> Any:
        if isinstance(value, str):
            return number(value.find(str(wanted), int(start)))
        return number(next((index for index, each in enumerate(value) if each == wanted), -1))

    def last_index_of(value: Any, wanted: Any) -> Any:
        if isinstance(value, str):
            return number(value.rfind(str(wanted)))
        return number(max((index for index, each in enumerate(value) if each == wanted), default=-1))

    def substring(value: Any, start: Any, end: Any = None) -> Any:
        size = len(str(value))
        stop = size if end is None else int(end)
        if not 0 <= int(start) <= stop <= size:
            raise error(f"index out of range: {int(start)}")
        return text(str(value)[int(start) : stop])

    def char_at(value: Any, index: Any) -> Any:
        if not 0 <= int(index) <= len(str(value)):
            raise error(f"index out of range: {int(index)}")
        return text(str(value)[int(index) : int(index) + 1])

    def find(value: Any, pattern: Any) -> Any:
        found = re.search(str(pattern), str(value))
        return text(found.group(0) if found else "")

    def find_all(value: Any, pattern: Any, limit: Any = -1) -> Any:
        found = [text(each.group(0)) for each in re.finditer(str(pattern), str(value))]
        return listed(found if int(limit) < 0 else found[: int(limit)])

    def replace(value: Any, old: Any, new: Any, count: Any = -1) -> Any:
        return text(str(value).replace(str(old), str(new), int(count)))

    def total(value: Any) -> Any:
        out = number(0)
        for each in value:
            out = out + each
        return out

    def smallest(value: Any) -> Any:
        if not len(value):
            raise error("min called on empty list")
        return min(value)

    def largest(value: Any) -> Any:
        if not len(value):
            raise error("max called on empty list")
        return max(value)

    def is_sorted(value: Any) -> Any:
        return truth(all(not later < earlier for earlier, later in zip(value, list(value)[1:], strict=False)))

    def lower(value: Any) -> Any:
        return text("".join(each.lower() if each.isascii() else each for each in str(value)))

    def upper(value: Any) -> Any:
        return text("".join(each.upper() if each.isascii() else each for each in str(value)))

    return {
        # The library adds two strings to a plain one, for which it then knows no function.
        "contains": lambda value, part: truth(str(part) in str(value)),
        "startsWith": lambda value, part: truth(str(value).startswith(str(part))),
        "endsWith": lambda value, part: truth(str(value).endswith(str(part))),
        "lowerAscii": lower,
        "upperAscii": upper,
        "trim": lambda value: text(str(value).strip()),
        "replace": replace,
        "split": split,
        "join": join,
        "indexOf": index_of,
        "lastIndexOf": last_index_of,
        "substring": substring,
        "charAt": char_at,
        "find": find,
        "findAll": find_all,
        "sum": total,
        "min": smallest,
        "max": largest,
        "isSorted": is_sorted,
    }
