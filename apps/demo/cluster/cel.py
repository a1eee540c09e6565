"""CEL expressions of admission policies, by celpy, with the comparisons that Kubernetes makes between any two types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from apps.demo.cluster import celext

NAMES = frozenset({"object", "oldObject", "request", "params", "namespaceObject", "variables"})
"""What an admission expression may speak of. `authorizer` is not simulated."""


class BadExpression(ValueError):
    """The text is no expression, or speaks of something unknown; the message is for the API's answer."""


class EvaluationError(ValueError):
    """The expression has no value for this request, such as `no such key: x`."""


@lru_cache(maxsize=512)
def compiled(text: str, names: frozenset[str] = NAMES) -> Callable[[Mapping[str, Any]], Any]:
    """A function of the variables, which may be called `names`. Raises `BadExpression`.

    The library is loaded at the first policy: a cluster without one starts without it.
    """
    import celpy
    from celpy import adapter, celparser, celtypes
    from celpy.evaluation import CELEvalError, base_functions

    def equal(left: Any, right: Any) -> Any:
        for side in (left, right):
            if isinstance(side, CELEvalError):
                return side  # an operand without a value leaves the comparison without one
        try:
            return celtypes.BoolType(bool(left == right))
        except TypeError:
            return celtypes.BoolType(False)  # two types never equal each other

    def unequal(left: Any, right: Any) -> Any:
        same = equal(left, right)
        return same if isinstance(same, CELEvalError) else celtypes.BoolType(not same)

    functions: dict[str, Any] = {"_==_": equal, "_!=_": unequal, **celext.functions(celtypes, CELEvalError)}
    environment = celpy.Environment()
    try:
        tree = environment.compile(text)
    except celparser.CELParseError as error:
        raise BadExpression(f"compilation failed: ERROR: <input>:{error.line}:{error.column}: Syntax error") from error
    known = set(functions) | set(base_functions) | _MACROS | _TYPES | _BUILT_IN
    for name in sorted((_free_names(tree) - names) | (_called(tree) - known)):
        raise BadExpression(f"compilation failed: ERROR: <input>:1:1: undeclared reference to '{name}'")
    program = environment.program(tree, functions=functions)

    def evaluate(values: Mapping[str, Any]) -> Any:
        context = {name: adapter.json_to_cel(value) for name, value in values.items()}
        try:
            return program.evaluate(context)
        except CELEvalError as error:
            raise EvaluationError(_wording(error)) from error

    return evaluate


def _wording(error: Exception) -> str:
    """The library's message in the server's words."""
    text = str(error.args[0]) if error.args else str(error)
    prefix = "no such member in mapping: "
    return "no such key: " + text[len(prefix) :].strip("'") if text.startswith(prefix) else text


_TYPES = frozenset(
    {"bool", "bytes", "double", "duration", "int", "list", "map", "null_type", "string", "timestamp", "type", "uint"}
)


def _free_names(tree: Any) -> set[str]:
    """Identifiers that no macro binds."""
    bound: set[str] = set()
    used: set[str] = set()
    for node in tree.iter_subtrees():
        if node.data == "ident":
            used.add(str(node.children[0]))
        if node.data == "member_dot_arg" and str(node.children[1]) in _MACROS and len(node.children) > 2:
            # The first argument of a macro is the name it binds and nothing else.
            bound |= {str(each.children[0]) for each in node.children[2].children[0].find_data("ident")}
    return used - bound - _TYPES


def _called(tree: Any) -> set[str]:
    """Names of functions and methods that are called."""
    methods = {str(node.children[1]) for node in tree.find_data("member_dot_arg")}
    return methods | {str(node.children[0]) for node in tree.find_data("ident_arg")}


_BUILT_IN = frozenset({"dyn", "has"})
_MACROS = frozenset({"all", "exists", "exists_one", "filter", "map"})
