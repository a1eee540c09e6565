"""Reading a namespace that is there already: what lives in it, and what the server says to what we would add.

Network only, no database. Everything is bounded: lists are read page by page and refused past a ceiling.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Protocol

from apps.clusters import kinds
from apps.clusters.clients.kubernetes import Page
from apps.clusters.errors import ClusterError, Forbidden, NotFound
from apps.clusters.quantities import parse
from apps.provisioning import diff, ownership, planner
from apps.quotas.manifests import Manifest

#: Steps of a reading in order: key and what is being looked at.
STEPS = (
    ("namespace", "The namespace"),
    ("quotas", "Its quotas"),
    ("limit_ranges", "Its limit ranges"),
    ("role_bindings", "Who may do what in it"),
    ("network_policies", "Its network policies"),
    ("pods", "What runs in it"),
    ("plan", "What the portal would add, by the server's dry run"),
)
#: More objects than these are not read: such a namespace is to be tidied up, or divided, first.
MOST_OBJECTS, MOST_PODS = 500, 20_000
_PAGE = 500
_TEXT = 500
_MARKS = re.compile(r'[.\[\]"]+')

JSON = dict[str, Any]


class Refused(Exception):
    """The namespace cannot be adopted as it is; `code` as stored, the message says what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Client(planner.Client, Protocol):
    """What reading needs of a cluster."""

    def pages(self, kind: str, namespace: str = "", *, limit: int = 500) -> Iterator[Page]:
        """Yield all objects of a kind page by page."""


def read(client: Client, namespace: str, done: Callable[[str], None]) -> JSON:
    """Return what lives in a namespace as plain data; `done` is called with the key of each step that is through.

    Raises Refused where it is missing, being deleted, too large or not to be read by the portal; clusters.errors else.
    """
    found: JSON = {"namespace": _namespace(client, namespace)}
    done("namespace")
    for key, kind, shown in (
        ("quotas", "ResourceQuota", _quota),
        ("limit_ranges", "LimitRange", _limit_range),
        ("role_bindings", "RoleBinding", _role_binding),
        ("network_policies", "NetworkPolicy", _network_policy),
    ):
        found[key] = [shown(item) for page in _listed(client, kind, namespace, MOST_OBJECTS) for item in page]
        found[key].sort(key=lambda one: str(one["name"]))
        done(key)
    found["pods"] = _pods(client, namespace)
    done("pods")
    return found


def dry_run(client: planner.Client, manifests: Sequence[Manifest]) -> list[JSON]:
    """Return one plan entry per object; one that the server refuses has the refusal as `error`. Nothing is written.

    Raises clusters.errors for what concerns the cluster as a whole.
    """
    entries: list[JSON] = []
    for manifest in manifests:
        try:
            entries += planner.make(client, [manifest])
        except ClusterError as error:
            if error.retryable and not isinstance(error, NotFound):
                raise
            meta = manifest["metadata"]
            entries.append(
                {
                    "api_version": manifest["apiVersion"], "kind": manifest["kind"], "name": meta["name"],
                    "namespace": meta.get("namespace", ""), "operation": "refused", "server_checked": True,
                    "changes": _differences(client, manifest), "conflicts": [], "warnings": error.warnings,
                    "error": error.message[:_TEXT],
                }
            )  # fmt: skip
    return entries


def _differences(client: planner.Client, manifest: Manifest) -> list[JSON]:
    """Return where an object lives with other values than ours, for one whose dry run the server refuses."""
    meta = manifest["metadata"]
    try:
        live = client.get(manifest["kind"], meta["name"], meta.get("namespace", ""))
    except (NotFound, Forbidden):
        return []
    found = diff.declared_changes(manifest, live)
    return [{"path": c.text_path, "before": diff.show(c.after), "after": diff.show(c.before)} for c in found]


def clashes(entries: Sequence[Mapping[str, Any]]) -> list[JSON]:
    """Return, field by field, where what would be applied differs from what somebody else has set there.

    Each: {object, field, live, wanted, manager}. Server-side apply speaks up only for fields that a manager holds;
    a live value that nobody holds would be overwritten in silence, so every value that would change counts.
    """
    found: list[JSON] = []
    for entry in entries:
        name = f"{entry['kind']} {entry['name']}"
        if entry.get("error"):
            changed = [one for one in entry["changes"] if one["before"] is not None] or [{}]
            for one in changed:
                clash = _clash(name, str(one.get("path", "")), one.get("before"), one.get("after"), "")
                found.append(clash | {"why": entry["error"]})
            continue
        holders = {_plain(one["field"]): str(one["manager"]) for one in entry.get("conflicts", [])}
        seen = set()
        if entry["operation"] in ("update", "remove"):
            for change in entry["changes"]:
                if change["before"] is None:
                    continue
                seen.add(_plain(change["path"]))
                manager = holders.get(_plain(change["path"]), "")
                found.append(_clash(name, change["path"], change["before"], change["after"], manager))
        for one in entry.get("conflicts", []):
            held = _plain(one["field"])
            if not any(path.startswith(held) or held.startswith(path) for path in seen):
                found.append(_clash(name, str(one["field"]).lstrip("."), "", "", str(one["manager"])))
    return found


def _clash(name: str, field: str, live: str | None, wanted: str | None, manager: str) -> JSON:
    return {
        "object": name, "field": field, "live": _short(live), "wanted": _short(wanted), "manager": manager, "why": "",
    }  # fmt: skip


def _plain(path: object) -> str:
    """Return a field path in one spelling, however conflict and diff write it."""
    return _MARKS.sub(".", str(path)).strip(".")


def _short(value: object) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= _TEXT else f"{text[:_TEXT]} …"


def _namespace(client: Client, name: str) -> JSON:
    try:
        found = client.get("Namespace", name)
    except NotFound as error:
        raise Refused("missing", f"There is no namespace “{name}” on this cluster. Check the spelling.") from error
    except Forbidden as error:
        raise _may_not("get", "Namespace", name, error) from error
    meta = found.get("metadata") or {}
    if meta.get("deletionTimestamp") or (found.get("status") or {}).get("phase") == "Terminating":
        raise Refused("terminating", f"“{name}” is being deleted on the cluster. There is nothing to adopt any more.")
    labels = {}
    for key, value in sorted((meta.get("labels") or {}).items())[:200]:
        owner = ownership.foreign_owner(found, ("metadata", "labels", key), exact=True)
        labels[str(key)] = {"value": str(value), "manager": owner.manager if owner is not None else ""}
    return {
        "uid": str(meta.get("uid", "")),
        "created": str(meta.get("creationTimestamp", "")),
        "labels": labels,
    }


def _listed(client: Client, kind: str, namespace: str, most: int) -> list[list[JSON]]:
    """Return the objects of a kind. Raises Refused past `most`, or where the portal may not list them."""
    pages: list[list[JSON]] = []
    for page in _pages(client, kind, namespace, most):
        if page.restarted:
            pages.clear()
        pages.append(page.items)
    return pages


def _pages(client: Client, kind: str, namespace: str, most: int) -> Iterator[Page]:
    count = 0
    try:
        for page in client.pages(kind, namespace, limit=_PAGE):
            count = len(page.items) if page.restarted else count + len(page.items)
            if count > most:
                raise Refused(
                    "too_many",
                    f"“{namespace}” holds more than {most:,} {kinds.KINDS[kind].plural}: too many to be adopted in one "
                    "step. Remove what is finished, or divide it, and read it again.",
                )
            yield page
    except Forbidden as error:
        raise _may_not("list", kind, namespace, error) from error


def _may_not(verb: str, kind: str, namespace: str, error: Forbidden) -> Refused:
    entry = kinds.KINDS[kind]
    group = entry.api_version.partition("/")[0] if "/" in entry.api_version else "the core API"
    return Refused(
        "forbidden",
        f"The portal may not {verb} {entry.plural} ({group}) in “{namespace}”. Give its service account that right "
        f"(the cluster's page says how), then read it again. The cluster said: {error.message[:_TEXT]}",
    )


def _name(item: Mapping[str, Any]) -> str:
    return str((item.get("metadata") or {}).get("name", ""))


def _quota(item: Mapping[str, Any]) -> JSON:
    spec, status = item.get("spec") or {}, item.get("status") or {}
    selector = spec.get("scopeSelector") or {}
    scopes = [str(one) for one in spec.get("scopes") or []]
    scopes += [
        " ".join([str(one.get("scopeName")), str(one.get("operator")), ", ".join(map(str, one.get("values") or []))])
        for one in selector.get("matchExpressions") or []
    ]
    return {
        "name": _name(item),
        "hard": {str(k): str(v) for k, v in sorted((spec.get("hard") or {}).items())[:100]},
        "used": {str(k): str(v) for k, v in sorted((status.get("used") or {}).items())[:100]},
        "scopes": [one.strip() for one in scopes][:20],
    }


def _limit_range(item: Mapping[str, Any]) -> JSON:
    parts = []
    for limit in ((item.get("spec") or {}).get("limits") or [])[:20]:
        rules = [f"{key} {_pairs(value)}" for key, value in sorted(limit.items()) if isinstance(value, Mapping)]
        parts.append(f"{limit.get('type', '')}: {', '.join(rules)}")
    return {"name": _name(item), "what": _short("; ".join(parts))}


def _pairs(values: Mapping[str, Any]) -> str:
    return " ".join(f"{key} {value}" for key, value in sorted(values.items()))


def _role_binding(item: Mapping[str, Any]) -> JSON:
    role = item.get("roleRef") or {}
    subjects = [f"{one.get('kind', '')} {one.get('name', '')}" for one in (item.get("subjects") or [])[:50]]
    return {
        "name": _name(item),
        "role": f"{role.get('kind', '')} {role.get('name', '')}".strip(),
        "subjects": _short(", ".join(subjects) or "nobody"),
    }


def _network_policy(item: Mapping[str, Any]) -> JSON:
    spec = item.get("spec") or {}
    selector = spec.get("podSelector") or {}
    types = spec.get("policyTypes") or ["Ingress"]
    rules = [f"{kind.lower()}: {_rules(spec.get(kind.lower()))}" for kind in types]
    who = "some pods" if selector else "all pods"
    return {"name": _name(item), "what": _short(f"{who}; {', '.join(rules)}")}


def _rules(rules: Any) -> str:
    if not rules:
        return "nothing"
    if any(not rule for rule in rules):
        return "everything"
    return f"{len(rules)} rule{'s' if len(rules) > 1 else ''}"


def _pods(client: Client, namespace: str) -> JSON:
    """Return what pods that are not over ask for, summed up: they are looked at page by page and not kept."""
    count, cpu, memory = 0, Decimal(0), Decimal(0)
    gpus: dict[str, dict[str, int]] = {}
    for page in _pages(client, "Pod", namespace, MOST_PODS):
        if page.restarted:
            count, cpu, memory, gpus = 0, Decimal(0), Decimal(0), {}
        for pod in page.items:
            if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
                continue
            count += 1
            asked = asked_by(pod)
            cpu, memory = cpu + asked.pop("cpu", Decimal(0)), memory + asked.pop("memory", Decimal(0))
            node = str((pod.get("spec") or {}).get("nodeName") or "")
            for resource, units in asked.items():
                if "/" in resource and units:
                    place = gpus.setdefault(resource, {})
                    place[node] = place.get(node, 0) + int(units)
    return {"count": count, "cpu_cores": -int(-cpu // 1), "memory_gib": -int(-memory // (1 << 30)), "gpus": gpus}


def asked_by(pod: Mapping[str, Any]) -> dict[str, Decimal]:
    """Return what a pod requests by resource: its containers together, or its largest init container if that is more.

    A limit stands for a request that is not given (Kubernetes, "Resource Management for Pods and Containers"). What is
    no quantity counts as nothing.
    """
    spec = pod.get("spec") or {}
    total: dict[str, Decimal] = {}
    for container in spec.get("containers") or []:
        for name, value in _asks(container).items():
            total[name] = total.get(name, Decimal(0)) + value
    for container in spec.get("initContainers") or []:
        for name, value in _asks(container).items():
            total[name] = max(total.get(name, Decimal(0)), value)
    return total


def _asks(container: Mapping[str, Any]) -> dict[str, Decimal]:
    resources = container.get("resources") or {}
    found = {}
    for name, value in {**(resources.get("limits") or {}), **(resources.get("requests") or {})}.items():
        try:
            found[str(name)] = parse(value)
        except ValueError:
            continue
    return found


__all__ = ["STEPS", "Refused", "asked_by", "clashes", "dry_run", "read"]
