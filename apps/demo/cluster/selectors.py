"""Label and field selectors of LIST and WATCH."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from apps.demo.cluster.errors import Obj, bad_request
from apps.demo.cluster.kinds import EVENT, JOB, NAMESPACE, NODE, POD, Kind

Predicate = Callable[[Obj], bool]

_FIELDS: dict[Kind, tuple[str, ...]] = {
    POD: (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ),
    NODE: ("spec.unschedulable",),
    NAMESPACE: ("status.phase",),
    JOB: ("status.successful",),
    EVENT: (
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
}
_SET = re.compile(r"\s*([^\s!=,()]+)\s+(in|notin)\s*\(([^)]*)\)\s*\Z")
_EQUAL = re.compile(r"\s*([^\s!=,()]+)\s*(==|=|!=)\s*([^\s!=,()]*)\s*\Z")
_EXISTS = re.compile(r"\s*(!?)\s*([^\s!=,()]+)\s*\Z")


def _parts(text: str) -> list[str]:
    return [part for part in re.split(r",(?![^(]*\))", text) if part.strip()]


def label_predicate(text: str) -> Predicate | None:
    """Compile a label selector (`a=b`, `a!=b`, `a in (x,y)`, `a notin (x)`, `a`, `!a`). Raises 400."""
    tests: list[Callable[[Obj], bool]] = [_label_test(part) for part in _parts(text)]
    if not tests:
        return None
    return lambda obj: _all(tests, obj.get("metadata", {}).get("labels") or {})


def _all(tests: list[Callable[[Obj], bool]], labels: Obj) -> bool:
    return all(test(labels) for test in tests)


def _label_test(part: str) -> Callable[[Obj], bool]:
    if match := _SET.match(part):
        key, operator, listed = match.groups()
        values = {value.strip() for value in listed.split(",")}
        if operator == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: key not in labels or labels[key] not in values
    if match := _EQUAL.match(part):
        key, operator, value = match.groups()
        if operator == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if match := _EXISTS.match(part):
        absent, key = match.groups()
        if absent:
            return lambda labels: key not in labels
        return lambda labels: key in labels
    raise bad_request(f"unable to parse requirement: found {part!r}, expected a label requirement")


def selector_matches(selector: Obj | None, labels: Obj) -> bool:
    """Evaluate a `LabelSelector` object; None selects nothing, `{}` everything."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_expression(each, labels) for each in selector.get("matchExpressions") or [])


def _expression(requirement: Obj, labels: Obj) -> bool:
    key, operator, values = str(requirement.get("key")), requirement.get("operator"), requirement.get("values") or []
    if operator == "In":
        return labels.get(key) in values
    if operator == "NotIn":
        return key not in labels or labels[key] not in values
    if operator == "Exists":
        return key in labels
    return key not in labels


def field_predicate(text: str, kind: Kind) -> Predicate | None:
    """Compile a field selector (`a.b=c`, `a.b!=c`). Raises 400 for a field this kind does not index."""
    tests: list[tuple[list[str], bool, str]] = []
    for part in _parts(text):
        match = _EQUAL.match(part)
        if match is None:
            raise bad_request(f"invalid selector: {part!r}; can't understand {part!r}")
        field, operator, value = match.groups()
        if field not in ("metadata.name", "metadata.namespace", *_FIELDS.get(kind, ())):
            raise bad_request(
                f'Unable to find "{kind.api_version}, Resource={kind.plural}" that match label selector '
                f'"", field selector "{text}": field label not supported: {field}'
            )
        tests.append((field.split("."), operator != "!=", value))
    if not tests:
        return None
    return lambda obj: all((_value(obj, path) == value) is wanted for path, wanted, value in tests)


def _value(obj: Obj, path: list[str]) -> str:
    node: Any = obj
    for part in path:
        node = node.get(part) if isinstance(node, dict) else None
    if node is None:
        return "false" if path == ["spec", "unschedulable"] else ""
    return str(node).lower() if isinstance(node, bool) else str(node)


def both(first: Predicate | None, second: Predicate | None) -> Predicate | None:
    """Conjunction, None meaning everything."""
    if first is None or second is None:
        return first or second
    left, right = first, second
    return lambda obj: left(obj) and right(obj)
