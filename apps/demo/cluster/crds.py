"""CustomResourceDefinitions: a stored definition brings its kind, with its schema, defaults and rules.

Of the schema: types, properties, list and map types, required, enum, pattern, bounds, defaults, CEL rules over `self`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from apps.demo.cluster.cel import BadExpression, EvaluationError, compiled
from apps.demo.cluster.errors import UNCHECKED, Obj, invalid
from apps.demo.cluster.fields import ANY, Type
from apps.demo.cluster.kinds import BY_PATH, CRD, Kind

_SCALARS = {"string": "string", "integer": "int", "boolean": "bool", "number": "number"}
_RULE_NAMES = frozenset({"self", "oldSelf"})
Problem = tuple[str, str, str]


@dataclass(eq=False)
class Schema:
    """The OpenAPI schema of one version, and what is made of it once."""

    body: Obj
    made: Type | None = None


def kinds_of(definition: Obj) -> list[Kind]:
    """The kinds of a definition's served versions."""
    spec = definition["spec"]
    names = spec["names"]
    out = []
    for version in spec.get("versions") or []:
        if version.get("served"):
            body = (version.get("schema") or {}).get("openAPIV3Schema") or {}
            out.append(
                Kind(
                    spec["group"],
                    version["name"],
                    names["kind"],
                    names["plural"],
                    spec.get("scope") == "Namespaced",
                    tuple(names.get("shortNames") or ()),
                    "status" in (version.get("subresources") or {}),
                    True,
                    tuple(names.get("categories") or ()),
                    "custom",
                    Schema(body),
                )
            )
    return out


def custom_type(schema: object, meta: Type) -> Type:
    """The object model of a kind's schema; `meta` is that of `metadata`."""
    if not isinstance(schema, Schema):
        raise TypeError("a kind without a definition has no schema of its own")
    if schema.made is None:
        made = _type(schema.body)
        fields = dict(made.fields) if made.shape == "struct" else {}
        scalar = Type("scalar", scalar="string")
        fields |= {"apiVersion": scalar, "kind": scalar, "metadata": meta}
        schema.made = Type("struct", fields=fields)
    return schema.made


def _type(schema: Obj) -> Type:
    if schema.get("x-kubernetes-int-or-string"):
        return Type("scalar", scalar="intstr")
    kind = schema.get("type", "")
    if kind == "array":
        relation = schema.get("x-kubernetes-list-type", "atomic")
        shape = {"map": "listmap", "set": "set"}.get(relation, "atomic")
        keys = tuple(schema.get("x-kubernetes-list-map-keys") or ())
        return Type("list", relation=shape, item=_type(schema.get("items") or {}), keys=keys)
    if kind == "object" or "properties" in schema:
        relation = "atomic" if schema.get("x-kubernetes-map-type") == "atomic" else "granular"
        if schema.get("properties") and not schema.get("x-kubernetes-preserve-unknown-fields"):
            fields = {name: _type(each) for name, each in schema["properties"].items()}
            return Type("struct", relation=relation, fields=fields)
        if isinstance(schema.get("additionalProperties"), dict):
            return Type("map", relation=relation, item=_type(schema["additionalProperties"]))
        if schema.get("x-kubernetes-preserve-unknown-fields"):
            return Type("map", relation=relation, item=ANY)
        return Type("struct", relation=relation)
    return Type("scalar", scalar=_SCALARS[kind]) if kind in _SCALARS else ANY


def complete(obj: Obj) -> None:
    """Defaults of a definition, and the status that a real server writes a moment later."""
    spec = obj.setdefault("spec", {})
    names = spec.setdefault("names", {})
    if names.get("kind"):
        names.setdefault("singular", names["kind"].lower())
        names.setdefault("listKind", f"{names['kind']}List")
    spec.setdefault("conversion", {"strategy": "None"})
    since = obj["metadata"].get("creationTimestamp", "")
    reasons = (("NamesAccepted", "NoConflicts"), ("Established", "InitialNamesAccepted"))
    obj["status"] = {
        "acceptedNames": dict(names),
        "conditions": [
            {"type": kind, "status": "True", "reason": why, "message": "", "lastTransitionTime": since}
            for kind, why in reasons
        ],
        "storedVersions": [each["name"] for each in spec.get("versions") or [] if each.get("storage")],
    }


def validate(obj: Obj) -> None:
    """Raise the 422 for a definition that cannot be served."""
    spec, problems = obj["spec"], []
    names, versions = spec.get("names") or {}, spec.get("versions") or []
    wanted = f"{names.get('plural', '')}.{spec.get('group', '')}"
    if obj["metadata"]["name"] != wanted:
        problems.append(("FieldValueInvalid", "metadata.name", 'must be spec.names.plural+"."+spec.group'))
    if spec.get("scope") not in ("Namespaced", "Cluster"):
        text = 'Unsupported value: supported values: "Cluster", "Namespaced"'
        problems.append(("FieldValueNotSupported", "spec.scope", text))
    problems += [
        ("FieldValueRequired", f"spec.names.{each}", "Required value")
        for each in ("kind", "plural")
        if not names.get(each)
    ]
    if sum(1 for each in versions if each.get("storage")) != 1:
        text = "must have exactly one version marked as storage version"
        problems.append(("FieldValueInvalid", "spec.versions", text))
    for index, version in enumerate(versions):
        place = f"spec.versions[{index}].schema.openAPIV3Schema"
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if not isinstance(schema, dict):
            problems.append(("FieldValueRequired", place, "Required value: schemas are required"))
            continue
        problems += _rule_problems(schema, place)
        if (spec.get("group"), version.get("name"), names.get("plural")) in BY_PATH:
            text = "Forbidden: the simulated cluster serves this kind itself"
            problems.append(("FieldValueForbidden", "spec.names.plural", text))
    if problems:
        raise invalid(CRD.kind, CRD.group, obj["metadata"].get("name", ""), problems)


def _rule_problems(schema: Obj, place: str) -> Iterator[Problem]:
    for index, rule in enumerate(schema.get("x-kubernetes-validations") or []):
        try:
            compiled(str(rule.get("rule", "")), _RULE_NAMES)
        except BadExpression as error:
            where = f"{place}.x-kubernetes-validations[{index}].rule"
            yield ("FieldValueInvalid", where, f'Invalid value: "{rule.get("rule")}": {error}')
    for name, each in (schema.get("properties") or {}).items():
        yield from _rule_problems(each, f"{place}.properties[{name}]")
    for part in ("items", "additionalProperties"):
        if isinstance(schema.get(part), dict):
            yield from _rule_problems(schema[part], f"{place}.{part}")


def defaults(schema: object, obj: Obj) -> None:
    """Fill in the schema's defaults."""
    if isinstance(schema, Schema):
        _fill(schema.body, obj)


def _fill(schema: Obj, value: Any) -> None:
    if isinstance(value, dict):
        for name, each in (schema.get("properties") or {}).items():
            if name not in value and "default" in each:
                value[name] = each["default"]
            if name in value:
                _fill(each, value[name])
        more = schema.get("additionalProperties")
        if isinstance(more, dict):
            for name in value:
                _fill(more, value[name])
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for each in value:
            _fill(schema["items"], each)


def check(kind: Kind, obj: Obj, old: Obj | None) -> None:
    """Raise the 422 for an object that its schema refuses; CEL rules run where everything else holds."""
    if not isinstance(kind.schema, Schema):
        return
    body = kind.schema.body
    problems = list(_schema(body, {name: each for name, each in obj.items() if name != "metadata"}, ""))
    if problems:
        problems.append(UNCHECKED)
    else:
        problems = list(_rules(body, obj, old, ""))
    if problems:
        raise invalid(kind.kind, kind.group, obj["metadata"].get("name", ""), problems)


def _schema(schema: Obj, value: Any, place: str) -> Iterator[Problem]:
    def bad(why: str, reason: str = "FieldValueInvalid") -> Problem:
        shown = f'"{value}"' if isinstance(value, str) else value
        return (reason, place, f"Invalid value: {shown}: {place} in body should {why}")

    if "enum" in schema and value not in schema["enum"]:
        listed = ", ".join(f'"{each}"' for each in schema["enum"])
        yield ("FieldValueNotSupported", place, f'Unsupported value: "{value}": supported values: {listed}')
    if isinstance(value, str):
        if "pattern" in schema and not re.search(schema["pattern"], value):
            yield bad(f"match '{schema['pattern']}'")
        if len(value) < schema.get("minLength", 0):
            yield bad(f"be at least {schema['minLength']} chars long")
        if len(value) > schema.get("maxLength", len(value)):
            yield ("FieldValueTooLong", place, f"Too long: may not be more than {schema['maxLength']} bytes")
        if schema.get("format") == "date-time" and not _DATE_TIME.match(value):
            yield bad("be of type datetime")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if value < schema.get("minimum", value):
            yield bad(f"be greater than or equal to {schema['minimum']}")
        if value > schema.get("maximum", value):
            yield bad(f"be less than or equal to {schema['maximum']}")
    elif isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            yield bad(f"have at least {schema['minItems']} items")
        if len(value) > schema.get("maxItems", len(value)):
            yield ("FieldValueTooMany", place, f"Too many: {len(value)}: must have at most {schema['maxItems']} items")
        for index, each in enumerate(value):
            yield from _schema(schema.get("items") or {}, each, f"{place}[{index}]")
    elif isinstance(value, dict):
        for name in schema.get("required") or []:
            if name not in value and name != "metadata":
                yield ("FieldValueRequired", f"{place}.{name}".lstrip("."), "Required value")
        properties, more = schema.get("properties") or {}, schema.get("additionalProperties")
        for name, each in value.items():
            inner = properties.get(name, more if isinstance(more, dict) else None)
            if inner is not None:
                yield from _schema(inner, each, f"{place}.{name}".lstrip("."))


def _rules(schema: Obj, value: Any, old: Any, place: str) -> Iterator[Problem]:
    for rule in schema.get("x-kubernetes-validations") or []:
        text = str(rule["rule"])
        if "oldSelf" in text and old is None:
            continue  # a transition rule: there is nothing to compare with
        try:
            if bool(compiled(text, _RULE_NAMES)({"self": value, "oldSelf": old})):
                continue
            why = rule.get("message") or f"failed rule: {text}"
        except EvaluationError as error:
            why = f"rule '{text}' resulted in error: {error}"
        yield ("FieldValueInvalid", place or "<nil>", f"Invalid value: {_kind_word(value)}: {why}")
    if isinstance(value, Mapping):
        for name, each in (schema.get("properties") or {}).items():
            if name in value and name != "metadata":
                before = old.get(name) if isinstance(old, Mapping) else None
                yield from _rules(each, value[name], before, f"{place}.{name}".lstrip("."))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _rules(schema.get("items") or {}, each, None, f"{place}[{index}]")


def _kind_word(value: Any) -> str:
    if isinstance(value, Mapping):
        return '"object"'
    return '"array"' if isinstance(value, list) else f'"{value}"'


_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)\Z")
