"""Whether calls and answers are what the OpenAPI description says: the contract, checked on both sides."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jsonschema
from drf_spectacular.generators import SchemaGenerator

from portal.openapi import operations

PREFIX = "/api/v1/"


@cache
def description() -> dict[str, Any]:
    """Return the finished OpenAPI description, as it is served."""
    found: dict[str, Any] = json.loads(json.dumps(SchemaGenerator().get_schema(request=None, public=True), default=str))
    return found


@cache
def _patterns() -> list[tuple[re.Pattern[str], str, dict[str, Any]]]:
    """Return every operation by the pattern of its path; fixed paths before those with parameters."""
    found = []
    for path, method, operation in operations(description()):
        pattern = re.compile("^" + re.sub(r"\{[^}]+\}", "[^/]+", path) + "$")
        found.append((pattern, method.upper(), operation, path.count("{")))
    return [(pattern, method, operation) for pattern, method, operation, _ in sorted(found, key=lambda one: one[3])]


def operation_for(method: str, path: str) -> dict[str, Any]:
    """Return the described operation of a call. Raises AssertionError for a call that is not described."""
    for pattern, verb, operation in _patterns():
        if verb == method and pattern.match(path):
            return operation
    raise AssertionError(f"{method} {path} is not in the description")


def resolve(part: Any) -> Any:
    """Follow a reference within the description."""
    while isinstance(part, dict) and "$ref" in part:
        found: Any = description()
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        part = found
    return part


def validate(value: Any, schema: dict[str, Any]) -> None:
    """Raise jsonschema.ValidationError where a value is not what the schema says (2020-12, as OpenAPI 3.1 has it)."""
    whole = {**schema, "components": description()["components"]}
    jsonschema.Draft202012Validator(whole).validate(value)


def check_request(method: str, url: str, body: bytes | str | None) -> None:
    """Assert that a call is described: its path, its query parameters, its body."""
    parts = urlsplit(url)
    operation = operation_for(method, parts.path)
    known = {resolve(one)["name"] for one in operation.get("parameters", []) if resolve(one)["in"] == "query"}
    unknown = {name for name, _ in parse_qsl(parts.query)} - known
    assert not unknown, f"{method} {parts.path} takes no {', '.join(sorted(unknown))}"
    described = operation.get("requestBody")
    if described is None:
        assert not body or json.loads(body) == {}, f"{method} {parts.path} takes no body"
    else:
        validate(json.loads(body or b"{}"), described["content"]["application/json"]["schema"])


def check_response(method: str, url: str, status: int, headers: Any, body: bytes) -> None:
    """Assert that an answer is described: its status and, where it is JSON, its form."""
    path = urlsplit(url).path
    answers = operation_for(method, path)["responses"]
    assert str(status) in answers, f"{method} {path} answered {status}, described are {sorted(answers)}"
    content = resolve(answers[str(status)]).get("content", {})
    kind = str(headers.get("Content-Type", "")).partition(";")[0]
    if kind.endswith("json") and body:
        assert kind in content, f"{method} {path} answered {status} as {kind}, described is {sorted(content)}"
        validate(json.loads(body), content[kind]["schema"])
