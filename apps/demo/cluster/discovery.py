"""Version, API groups, resources and the sliver of OpenAPI that kubectl asks for, of the kinds a cluster serves."""

from __future__ import annotations

import platform

from apps.demo.cluster.errors import Obj
from apps.demo.cluster.kinds import REVIEWS, Kind

GIT_VERSION = "v1.36.0+simulated"
_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


def version() -> Obj:
    """`/version`. The suffix says what this is."""
    return {
        "major": "1",
        "minor": "36",
        "gitVersion": GIT_VERSION,
        "gitCommit": "simulated",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": f"none (Python {platform.python_version()})",
        "compiler": "none",
        "platform": "simulated/gpu-commons",
    }


VISIBILITY = ("visibility.kueue.x-k8s.io", "v1beta2")
"""Kueue's aggregated API of pending workloads; there is nothing to store in it."""


def groups(kinds: tuple[Kind, ...]) -> list[tuple[str, str]]:
    """Served (group, version) pairs other than the core group."""
    pairs = {(kind.group, kind.version) for kind in kinds if kind.group}
    if any(kind.addon == "kueue" for kind in kinds):
        pairs.add(VISIBILITY)
    return sorted(pairs | {(group, version) for group, version, _ in REVIEWS})


def api_versions(address: str) -> Obj:
    """`/api`."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def _group(group: str, version: str) -> Obj:
    served = {"groupVersion": f"{group}/{version}", "version": version}
    return {"name": group, "versions": [served], "preferredVersion": served}


def api_group_list(kinds: tuple[Kind, ...]) -> Obj:
    """`/apis`."""
    return {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [_group(group, version) for group, version in groups(kinds)],
    }


def api_group(kinds: tuple[Kind, ...], name: str) -> Obj | None:
    """`/apis/<group>`."""
    for group, version in groups(kinds):
        if group == name:
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, version)}
    return None


def api_resources(kinds: tuple[Kind, ...], group: str, version: str) -> Obj | None:
    """`/api/v1` and `/apis/<group>/<version>`."""
    resources: list[Obj] = []
    if (group, version) == VISIBILITY and VISIBILITY in groups(kinds):
        resources = [_pending("clusterqueues", namespaced=False), _pending("localqueues", namespaced=True)]
    for kind in kinds:
        if (kind.group, kind.version) == (group, version):
            resources += _resource(kind)
    for (review_group, review_version, plural), name in REVIEWS.items():
        if (review_group, review_version) == (group, version):
            resources.append(
                {"name": plural, "singularName": name.lower(), "namespaced": False, "kind": name, "verbs": ["create"]}
            )
    if not resources:
        return None
    title = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": title, "resources": resources}


def _resource(kind: Kind) -> list[Obj]:
    main: Obj = {
        "name": kind.plural,
        "singularName": kind.kind.lower(),
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": _VERBS,
    }
    if kind.short:
        main["shortNames"] = list(kind.short)
    if kind.categories:
        main["categories"] = list(kind.categories)
    out = [main]
    if kind.has_status:
        out.append(
            {
                "name": f"{kind.plural}/status",
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": kind.kind,
                "verbs": ["get", "patch", "update"],
            }
        )
    return out


def _pending(plural: str, *, namespaced: bool) -> Obj:
    name = f"{plural}/pendingworkloads"
    kind = "PendingWorkloadsSummary"
    return {"name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["get"]}


def openapi_index(kinds: tuple[Kind, ...]) -> Obj:
    """`/openapi/v3`: one document per group version."""
    titles = ["api/v1", *(f"apis/{group}/{version}" for group, version in groups(kinds))]
    return {"paths": {title: {"serverRelativeURL": f"/openapi/v3/{title}?hash=simulated"} for title in titles}}


def openapi_document(kinds: tuple[Kind, ...], title: str) -> Obj | None:
    """`/openapi/v3/<title>`: only that the server validates fields, which lets kubectl do without more."""
    paths: Obj = {}
    parameters = [
        {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
        for name in ("dryRun", "fieldManager", "fieldValidation")
    ]
    for kind in kinds:
        root = f"apis/{kind.group}/{kind.version}" if kind.group else "api/v1"
        if root != title:
            continue
        scope = "namespaces/{namespace}/" if kind.namespaced else ""
        operation = {
            "parameters": parameters,
            "responses": {"200": {"description": "OK"}},
            "x-kubernetes-action": "patch",
            "x-kubernetes-group-version-kind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        }
        paths[f"/{root}/{scope}{kind.plural}/{{name}}"] = {"patch": operation}
    if not paths:
        return None
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes (simulated)", "version": GIT_VERSION},
        "paths": paths,
        "components": {"schemas": {}},
    }
