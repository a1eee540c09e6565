"""Requests as they come and answers as they go: bodies, resource paths, verbs, and the options of a write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import yaml

from apps.demo.cluster.auth import User
from apps.demo.cluster.calls import Call
from apps.demo.cluster.errors import ApiError, Obj, bad_request, invalid, no_such_path
from apps.demo.cluster.kinds import NAMESPACE, Kind


@dataclass
class Request:
    """One HTTP request, read whole."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    user: User

    @classmethod
    def split(cls, target: str) -> tuple[str, dict[str, str]]:
        """Path and query of a request target; of repeated parameters the last counts."""
        path, _, query = target.partition("?")
        return path, dict(parse_qsl(query, keep_blank_values=True))


@dataclass
class Response:
    """Bytes to send, or a stream of them."""

    code: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    stream: Iterator[bytes] | None = None


@dataclass(frozen=True)
class Target:
    """What a resource path names."""

    kind: Kind
    namespace: str
    name: str
    subresource: str
    everywhere: bool

    @property
    def scope(self) -> str | None:
        """Namespace to list, None for all."""
        return None if self.everywhere else self.namespace


def as_json(value: Any, code: int = 200) -> Response:
    """A JSON answer."""
    return Response(code, json.dumps(value, separators=(",", ":")).encode())


def parse_body(raw: bytes, content_type: str) -> Any:
    """Decode JSON, or YAML where the type allows it. Raises 400 or 415."""
    if "protobuf" in content_type:
        raise ApiError(415, "UnsupportedMediaType", "this server speaks JSON and YAML only")
    if not raw:
        return None
    try:
        return json.loads(raw)
    except ValueError as error:
        if "yaml" not in content_type:
            raise bad_request(f"error decoding the request body: {error}") from error
    try:
        return yaml.load(raw, Loader=_Loader)  # noqa: S506  (a SafeLoader with less)
    except yaml.YAMLError as error:
        raise bad_request(f"error decoding YAML: {error}") from error


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it, by way of JSON: there are no dates."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def form_of(request: Request) -> str:
    """The transformation that the first acceptable media type asks for."""
    for choice in request.headers.get("accept", "").split(","):
        parameters = dict(part.strip().partition("=")[::2] for part in choice.split(";")[1:])
        if parameters.get("as"):
            return parameters["as"]
        if choice.split(";")[0].strip() in ("application/json", "*/*"):
            break
    return ""


def target_of(kinds: dict[tuple[str, str, str], Kind], group: str, version: str, rest: list[str]) -> Target:
    """What a path below a group and version names. Raises 404."""
    namespace, everywhere = "", True
    if rest[0] == "namespaces" and len(rest) >= 3:
        kind = kinds.get((group, version, rest[2]))
        if kind is not None and kind.namespaced:
            namespace, rest, everywhere = rest[1], rest[2:], False
    kind = kinds.get((group, version, rest[0]))
    if kind is None or len(rest) > 3:
        raise no_such_path()
    name, sub = (rest[1] if len(rest) > 1 else ""), (rest[2] if len(rest) > 2 else "")
    if kind.namespaced and name and everywhere:
        raise no_such_path()
    if sub and not (sub == "status" and kind.has_status) and not (sub == "finalize" and kind is NAMESPACE):
        raise no_such_path()
    if not kind.namespaced:
        everywhere = True
    return Target(kind, namespace, name, sub, everywhere)


def verb_of(request: Request, target: Target) -> str:
    """The verb that a request is judged by. Raises 405."""
    if request.method == "GET":
        if request.query.get("watch") in ("true", "1"):
            return "watch"
        return "get" if target.name else "list"
    with_name = {"PUT": "update", "PATCH": "patch", "DELETE": "delete"}
    without_name = {"POST": "create", "DELETE": "deletecollection"}
    verb = (with_name if target.name else without_name).get(request.method)
    if verb is None or (verb == "create" and target.kind.namespaced and target.everywhere):
        raise not_allowed(request.method)
    return verb


def not_allowed(method: str) -> ApiError:
    """405 for a method."""
    return ApiError(
        405, "MethodNotAllowed", f"the server does not allow this method on the requested resource: {method}"
    )


def call_of(request: Request, target: Target) -> Call:
    """The circumstances of a write, from its query and headers. Raises 422."""
    query = request.query
    media = request.headers.get("content-type", "")
    applying = request.method == "PATCH" and media.startswith("application/apply-patch")
    manager = query.get("fieldManager", "")
    force = query.get("force") in ("true", "1")
    problems = []
    if applying and not manager:
        problems.append(("FieldValueRequired", "fieldManager", "Required value: is required for apply patch"))
    if force and not applying and request.method == "PATCH":
        problems.append(("FieldValueForbidden", "force", "Forbidden: may not be specified for non-apply patch"))
    if len(manager) > 128:
        problems.append(("FieldValueTooLong", "fieldManager", "Too long: may not be more than 128 bytes"))
    if query.get("dryRun", "All") not in ("All", ""):
        text = f'Unsupported value: "{query["dryRun"]}": supported values: "All"'
        problems.append(("FieldValueNotSupported", "dryRun", text))
    validation = query.get("fieldValidation") or "Warn"
    if validation not in ("Strict", "Warn", "Ignore"):
        text = f'Unsupported value: "{validation}": supported values: "Ignore", "Strict", "Warn"'
        problems.append(("FieldValueNotSupported", "fieldValidation", text))
    if problems:
        options = {"PATCH": "PatchOptions", "POST": "CreateOptions", "PUT": "UpdateOptions"}
        raise invalid(options.get(request.method, "DeleteOptions"), "meta.k8s.io", "", problems)
    manager = manager or request.headers.get("user-agent", "").partition("/")[0][:128] or "unknown"
    return Call(request.user, manager, query.get("dryRun") == "All", validation, force, target.subresource)


def delete_options(request: Request, body: Any, call: Call) -> Obj:
    """The options of a deletion, from its body and query."""
    options: Obj = dict(body) if isinstance(body, dict) else {}
    for name in ("propagationPolicy", "gracePeriodSeconds"):
        if request.query.get(name):
            options[name] = request.query[name]
    if "All" in (options.get("dryRun") or []):
        call.dry_run = True
    return options
