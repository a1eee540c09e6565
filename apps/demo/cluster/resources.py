"""Requests on `/api` and `/apis`: from path, query and headers to an operation of `api.Api`, and back to bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from apps.demo.cluster import discovery, tables
from apps.demo.cluster.api import Api
from apps.demo.cluster.auth import Attempt, Rbac, User, kind_attempt
from apps.demo.cluster.calls import Answer, Call
from apps.demo.cluster.errors import ApiError, Obj, no_such_path
from apps.demo.cluster.kinds import REVIEWS, Kind, served
from apps.demo.cluster.listing import Lister, encode_list
from apps.demo.cluster.protobuf import decode_access_review
from apps.demo.cluster.requests import (
    Request,
    Response,
    Target,
    as_json,
    call_of,
    delete_options,
    form_of,
    not_allowed,
    parse_body,
    target_of,
    verb_of,
)
from apps.demo.cluster.selectors import Predicate, both, field_predicate, label_predicate
from apps.demo.cluster.store import Entry
from apps.demo.cluster.watch import WatchRequest, stream

Visibility = Callable[[str, str, dict[str, str]], Obj]
"""Pending workloads of a queue: namespace (empty for a ClusterQueue), name, query → summary. Raises 400, 404."""
_MERGES = ("application/merge-patch+json", "application/strategic-merge-patch+json", "application/json-patch+json")


class Resources:
    """Routes resource requests. `alive` ends open watches when it turns false."""

    def __init__(
        self,
        api: Api,
        rbac: Rbac,
        bookmark_seconds: float,
        addons: frozenset[str],
        visibility: Visibility | None = None,
    ) -> None:
        self.api = api
        self._fixed = served(addons)
        self._known: tuple[tuple[Kind, ...], dict[tuple[str, str, str], Kind]] = ((), {})
        self._visibility = visibility
        self.tick: Callable[[], float] = lambda: 1.0
        self.rbac = rbac
        self.lister = Lister(api.store)
        self.bookmark_seconds = bookmark_seconds

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What is served now: the fixed table and what definitions bring."""
        return (*self._fixed, *self.api.store.custom_kinds())

    @property
    def _paths(self) -> dict[tuple[str, str, str], Kind]:
        custom = self.api.store.custom_kinds()
        if not self._known[1] or self._known[0] != custom:
            paths = {(kind.group, kind.version, kind.plural): kind for kind in (*self._fixed, *custom)}
            self._known = (custom, paths)
        return self._known[1]

    def handle(self, request: Request, alive: Callable[[], bool], address: str) -> Response:
        """Answer a request under `/api`, `/apis` or `/openapi`. Raises `ApiError`."""
        parts = [unquote(part) for part in request.path.strip("/").split("/")]
        if parts[0] == "openapi":
            return self._openapi("/".join(parts[1:]))
        if parts == ["api"]:
            return as_json(discovery.api_versions(address))
        if parts == ["apis"]:
            return as_json(discovery.api_group_list(self.kinds))
        if parts[0] == "apis" and len(parts) == 2:
            found = discovery.api_group(self.kinds, parts[1])
            if found is None:
                raise no_such_path()
            return as_json(found)
        group, version, rest = ("", parts[1], parts[2:]) if parts[0] == "api" else (parts[1], parts[2], parts[3:])
        if not rest:
            resources = discovery.api_resources(self.kinds, group, version)
            if resources is None:
                raise no_such_path()
            return as_json(resources)
        if len(rest) == 1 and (group, version, rest[0]) in REVIEWS:
            return self._review(request, REVIEWS[(group, version, rest[0])], group, version)
        if (group, version) == discovery.VISIBILITY:
            return self._pending(request, rest)
        return self._resource(request, target_of(self._paths, group, version, rest), alive)

    def _pending(self, request: Request, rest: list[str]) -> Response:
        """Kueue's pending workloads: `clusterqueues/NAME/pendingworkloads` or the same of a namespace's queue."""
        namespace, path = (rest[1], rest[2:]) if rest[0] == "namespaces" and len(rest) > 2 else ("", rest)
        plural = "localqueues" if namespace else "clusterqueues"
        if self._visibility is None or len(path) != 3 or path[0] != plural or path[2] != "pendingworkloads":
            raise no_such_path()
        if request.method != "GET":
            raise not_allowed(request.method)
        group, _ = discovery.VISIBILITY
        self.rbac.check(request.user, Attempt("get", group, plural, namespace, path[1], "pendingworkloads"))
        return as_json(self._visibility(namespace, path[1], request.query))

    def _openapi(self, rest: str) -> Response:
        title = rest.removeprefix("v3/")
        document = (
            discovery.openapi_index(self.kinds) if rest == "v3" else discovery.openapi_document(self.kinds, title)
        )
        if document is None:
            raise no_such_path()
        return as_json(document)

    def _review(self, request: Request, name: str, group: str, version: str) -> Response:
        if request.method != "POST":
            raise not_allowed(request.method)
        out: Obj = {"kind": name, "apiVersion": f"{group}/{version}", "metadata": {"creationTimestamp": None}}
        if name == "SelfSubjectReview":
            groups = [*request.user.groups, "system:authenticated"]
            out["status"] = {"userInfo": {"username": request.user.name, "groups": groups}}
            return as_json(out, 201)
        content_type = request.headers.get("content-type", "")
        protobuf = "protobuf" in content_type
        body: Any = decode_access_review(request.body) if protobuf else parse_body(request.body, content_type)
        spec = (body.get("spec") or {}) if isinstance(body, dict) else {}
        wanted = spec.get("resourceAttributes")
        if isinstance(wanted, dict):
            attempt = Attempt(
                str(wanted.get("verb", "")),
                str(wanted.get("group", "")),
                str(wanted.get("resource", "")),
                str(wanted.get("namespace", "")),
                str(wanted.get("name", "")),
                str(wanted.get("subresource", "")),
            )
            allowed = self.rbac.allows(request.user, attempt)
        else:
            # system:discovery: everybody signed in may look at what is served.
            path = spec.get("nonResourceAttributes") or {}
            served = str(path.get("path", "")).startswith(("/version", "/api", "/openapi", "/healthz"))
            allowed = request.user.is_master or (served and path.get("verb") == "get")
        out["spec"] = spec
        out["status"] = {"allowed": allowed}
        return as_json(out, 201)

    def _resource(self, request: Request, target: Target, alive: Callable[[], bool]) -> Response:
        verb = verb_of(request, target)
        self.rbac.check(
            request.user, kind_attempt(verb, target.kind, target.namespace, target.name, target.subresource)
        )
        if verb == "get":
            return self._get(request, target)
        if verb in ("list", "watch"):
            return self._list(request, target, verb, alive)
        call = call_of(request, target)
        content_type = request.headers.get("content-type", "").partition(";")[0].strip()
        body = parse_body(request.body, content_type)
        if verb == "delete":
            return self._delete(request, target, body, call)
        if verb == "deletecollection":
            return self._delete_collection(request, target, body, call)
        if verb == "create":
            if target.subresource:
                raise not_allowed("POST")
            answer = self.api.create(target.kind, target.namespace, body, call)
        elif verb == "update":
            answer = self.api.update(target.kind, target.namespace, target.name, body, call)
        else:
            if content_type == "application/apply-patch+yaml":
                self._may_create(request.user, target)
            elif content_type not in _MERGES or (target.kind.custom and "strategic" in content_type):
                merges = [each for each in _MERGES if not (target.kind.custom and "strategic" in each)]
                raise ApiError(
                    415,
                    "UnsupportedMediaType",
                    "the body of the request was in an unknown format - accepted media types include: "
                    f"{', '.join(merges)}, application/apply-patch+yaml",
                )
            answer = self.api.patch(target.kind, target.namespace, target.name, content_type, body, call)
        return self._object(request, target.kind, answer, call)

    def _may_create(self, user: User, target: Target) -> None:
        """An apply that creates needs `create`, too."""
        if self.api.store.get(target.kind, target.namespace, target.name) is None:
            self.rbac.check(user, kind_attempt("create", target.kind, target.namespace, target.name))

    def _get(self, request: Request, target: Target) -> Response:
        entry = self.api.get(target.kind, target.namespace, target.name)
        form = form_of(request)
        if form == "Table":
            meta = {"resourceVersion": entry.obj["metadata"]["resourceVersion"]}
            include = request.query.get("includeObject", "Metadata")
            return as_json(tables.table(target.kind, [entry], self.api.clock(), include, meta))
        if form == "PartialObjectMetadata":
            return as_json(tables.partial(entry))
        return Response(body=entry.raw)

    def _list(self, request: Request, target: Target, verb: str, alive: Callable[[], bool]) -> Response:
        kind, query = target.kind, request.query
        predicate = self._predicate(target, query)
        form, include = form_of(request), query.get("includeObject", "Metadata")

        def render(entry: Entry, first: bool) -> bytes:
            if form == "Table":
                meta = {"resourceVersion": entry.obj["metadata"]["resourceVersion"]}
                shown = tables.table(kind, [entry], self.api.clock(), include, meta, head=first)
                return json.dumps(shown).encode()
            return json.dumps(tables.partial(entry)).encode() if form.startswith("Partial") else entry.raw

        if verb == "watch":
            wanted = WatchRequest.parse(kind, target.scope, predicate, query)
            events = stream(
                self.api.store, wanted, render, alive=alive, bookmark_seconds=self.bookmark_seconds, tick=self.tick
            )
            return Response(stream=events)
        page = self.lister.page(kind, target.scope, predicate, query)
        meta: Obj = {"resourceVersion": str(page.rv)}
        if page.token:
            meta |= {"continue": page.token, "remainingItemCount": page.remaining}
        if form == "Table":
            return as_json(tables.table(kind, page.entries, self.api.clock(), include, meta))
        if form.startswith("Partial"):
            items = [tables.partial(entry) for entry in page.entries]
            head = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
            return as_json({**head, "metadata": meta, "items": items})
        return Response(body=encode_list(kind, page, selective=predicate is not None))

    def _predicate(self, target: Target, query: dict[str, str]) -> Predicate | None:
        fields = query.get("fieldSelector", "")
        if target.name:
            fields = ",".join(filter(None, [fields, f"metadata.name={target.name}"]))
        return both(label_predicate(query.get("labelSelector", "")), field_predicate(fields, target.kind))

    def _delete(self, request: Request, target: Target, body: Any, call: Call) -> Response:
        options = delete_options(request, body, call)
        answer = self.api.delete(target.kind, target.namespace, target.name, options, call)
        return self._object(request, target.kind, answer, call)

    def _delete_collection(self, request: Request, target: Target, body: Any, call: Call) -> Response:
        options = delete_options(request, body, call)
        page = self.lister.page(target.kind, target.scope, self._predicate(target, request.query), {})
        for entry in page.entries:
            try:
                self.api.delete(entry.kind, entry.namespace, entry.name, options, call)
            except ApiError as error:
                if error.code != 404:  # gone meanwhile is what was asked for
                    raise
        return Response(body=encode_list(target.kind, page, selective=True), warnings=call.warnings)

    def _object(self, request: Request, kind: Kind, answer: Answer, call: Call) -> Response:
        if form_of(request) == "Table" and answer.obj.get("kind") == kind.kind:
            meta = answer.obj["metadata"]
            entry = Entry(kind, meta.get("namespace", ""), meta["name"], answer.obj, answer.raw, 0)
            shown = tables.table(kind, [entry], self.api.clock(), "Metadata", {})
            return Response(answer.code, json.dumps(shown).encode(), warnings=call.warnings)
        return Response(answer.code, answer.raw, warnings=call.warnings)
