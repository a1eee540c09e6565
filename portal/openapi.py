"""What every operation of the API shares, written into its OpenAPI description once: refusals, headers, examples.

drf-spectacular describes what a view says of itself. That a call may be refused, repeated under a key or sent with the
version that was read holds for all of them; so it is added to the finished description (its POSTPROCESSING_HOOKS).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from apps.core.api import CODES, PROBLEM_TYPE
from portal.openapi_events import webhooks
from portal.openapi_examples import EXAMPLES

_METHODS = ("get", "put", "post", "patch", "delete")
#: What every call may be answered with; further ones by what it carries.
_ALWAYS = (401, 403, 404, 406, 429, 503)
PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "A refusal as RFC 9457 writes it. Programs branch on `code`; people read `detail`.",
    "required": ["type", "title", "status", "code", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "enum": sorted({code for code, _ in CODES.values()} | {"error"})},
        "detail": {"type": "string"},
        "instance": {"type": "string", "description": "The path that was called."},
        "request_id": {"type": "string", "description": "What the log lines of this call carry."},
        "errors": {
            "type": "object",
            "description": "Field (lines.0.amount) to messages; `form` is about the whole.",
            "additionalProperties": {"type": "array", "items": {"type": "string"}},
        },
        "current": {
            "type": "object",
            "additionalProperties": True,
            "description": "What stands there now, where something else was expected.",
        },
        "rule": {"type": "string", "description": "The permission or rule that refuses."},
    },
}
_HEADERS: dict[str, Any] = {
    "ETag": {"description": "The row's version. Send it back as If-Match.", "schema": {"type": "string"}},
    "RateLimit-Limit": {"description": "Calls a minute.", "schema": {"type": "string"}},
    "RateLimit-Remaining": {"description": "Calls left in this minute.", "schema": {"type": "string"}},
    "RateLimit-Reset": {"description": "Seconds until they are counted anew.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds after which to ask again.", "schema": {"type": "string"}},
    "Location": {
        "description": "Where to read how far it is.",
        "schema": {"type": "string", "format": "uri-reference"},
    },
    "Idempotency-Replayed": {
        "description": "`true`: this is the answer to an earlier call of the same key.",
        "schema": {"type": "string"},
    },
}
IF_MATCH: dict[str, Any] = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "description": "The ETag that you read: refused (412) where the row has changed since. `*` acts on whatever is "
    "there. Optional, unless the operation says that it requires it (428 without).",
    "schema": {"type": "string", "pattern": r'^(\*|"[0-9]{1,10}")$'},
}
IDEMPOTENCY_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A key of your choice, a UUID say: the call is done once, however often it is sent within a day.",
    "schema": {"type": "string", "pattern": "^[!-~]{8,200}$"},
}


def operations(result: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (path, method, operation) of a description."""
    for path, item in result["paths"].items():
        for method in _METHODS:
            if method in item:
                yield path, method, item[method]


def describe(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """Add refusals, headers and examples to a finished description (a POSTPROCESSING_HOOK of drf-spectacular)."""
    components = result.setdefault("components", {})
    components.setdefault("schemas", {})["Problem"] = PROBLEM
    components["responses"] = {str(status): _refusal(status) for status in CODES}
    components["headers"] = _HEADERS
    components["parameters"] = {"IfMatch": IF_MATCH, "IdempotencyKey": IDEMPOTENCY_KEY}
    for path, method, operation in operations(result):
        _complete(path, method, operation)
    result["webhooks"] = webhooks()
    _modernise(result)
    return result


def _modernise(part: Any) -> None:
    """Turn OpenAPI 3.0's `nullable` into 3.1's type `null`, wherever a schema was written by hand or by a library."""
    if isinstance(part, list):
        for one in part:
            _modernise(one)
    elif isinstance(part, dict):
        if part.pop("nullable", False) is True and (kind := part.get("type")) is not None:
            kinds = [kind] if isinstance(kind, str) else list(kind)
            part["type"] = [*dict.fromkeys([*kinds, "null"])]
        for one in part.values():
            _modernise(one)


def _refusal(status: int) -> dict[str, Any]:
    content = {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    refusal: dict[str, Any] = {"description": CODES[status][1], "content": content}
    if status in (429, 503):
        refusal["headers"] = {"Retry-After": {"$ref": "#/components/headers/Retry-After"}}
    return refusal


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    writes, about_one = method != "get", "{" in path
    open_to_all = operation.get("security") in ([], [{}])
    possible = {status for status in _ALWAYS if not (open_to_all and status in (403, 406))}
    if operation.get("parameters") or writes:
        possible.add(400)
    if writes:
        possible |= {409, 413, 415}
    parameters = operation.setdefault("parameters", [])
    if writes and not open_to_all:
        possible.add(422)
        parameters.append({"$ref": "#/components/parameters/IdempotencyKey"})
        if about_one:
            possible |= {412, 428}
            parameters.append({"$ref": "#/components/parameters/IfMatch"})
    elif about_one and not open_to_all:
        # A GET with a foreign If-Match is refused, too: whoever sends it wants that version.
        possible |= {400, 412}
        parameters.append({"$ref": "#/components/parameters/IfMatch"})
    if not parameters:
        del operation["parameters"]
    responses = operation["responses"]
    for status, response in responses.items():
        response["description"] = response.get("description") or _WORDS.get(status, "Done")
        names = ["RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"]
        if about_one or writes:
            names.append("ETag")
        if writes:
            names.append("Idempotency-Replayed")
        if status == "202":
            names += ["Location", "Retry-After"]
        response["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
    for status in sorted(possible):
        responses.setdefault(str(status), {"$ref": f"#/components/responses/{status}"})
    example = EXAMPLES.get(operation["operationId"])
    if example is not None:
        for media in operation["requestBody"]["content"].values():
            media["examples"] = {"example": {"value": example}}


_WORDS = {"200": "As it is now", "201": "Made", "202": "Under way: ask the address in Location", "204": "Done"}
