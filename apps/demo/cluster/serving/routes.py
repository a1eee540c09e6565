"""HTTPRoutes: accepted where their gateway is there; their weights are what shares of requests follow."""

from __future__ import annotations

from collections.abc import Iterator

from apps.demo.cluster.api import Api
from apps.demo.cluster.apply import clone
from apps.demo.cluster.errors import Obj
from apps.demo.cluster.kinds import GATEWAY, HTTP_ROUTE, SERVICE
from apps.demo.cluster.serving import status
from apps.demo.cluster.store import Change, Entry, Store

CONTROLLER = "gpu-commons.internal/simulated-gateway"


def weights(route: Obj) -> dict[tuple[str, str], float]:
    """(namespace, Service) → share of the route's requests, by its first rule for the whole path."""
    namespace = route["metadata"]["namespace"]
    rules = (route.get("spec") or {}).get("rules") or []
    rule = next((each for each in rules if _everything(each)), rules[-1] if rules else {})
    found: dict[tuple[str, str], float] = {}
    total = sum(int(each.get("weight", 1)) for each in rule.get("backendRefs") or [])
    for each in rule.get("backendRefs") or []:
        key = (str(each.get("namespace") or namespace), str(each["name"]))
        found[key] = found.get(key, 0.0) + (int(each.get("weight", 1)) / total if total else 0.0)
    return found


def _everything(rule: Obj) -> bool:
    return any((each.get("path") or {}).get("value", "/") == "/" for each in rule.get("matches") or [{}])


class Routes:
    """Control-loop part for HTTPRoutes and Gateways."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._store = api.store
        self._dirty = False

    def observe(self, change: Change) -> None:
        """A route, a gateway or a service that one may point to."""
        self._dirty = self._dirty or change.entry.kind in (HTTP_ROUTE, GATEWAY, SERVICE)

    def work(self) -> float:
        """Write what moved."""
        if self._dirty:
            self._dirty = False
            with self._store.transaction():
                for entry in self._store.entries(GATEWAY):
                    rows = [(each, True, each, "simulated") for each in ("Accepted", "Programmed")]
                    known = (entry.obj.get("status") or {}).get("conditions") or []
                    self._save(entry, {"conditions": status.conditions(rows, known, self._api.now())})
                for entry in self._store.entries(HTTP_ROUTE):
                    self._save(entry, self._status(entry))
        return float("inf")

    def _save(self, entry: Entry, wanted: Obj) -> None:
        if wanted != (entry.obj.get("status") or {}):
            obj = clone(entry.obj)
            obj["status"] = wanted
            self._store.put(entry.kind, obj)

    def _status(self, entry: Entry) -> Obj:
        missing = sorted(missing_backends(self._store, entry.obj))
        before = {str(each.get("parentRef")): each for each in (entry.obj.get("status") or {}).get("parents") or []}
        parents = []
        for ref in (entry.obj.get("spec") or {}).get("parentRefs") or []:
            there = self._store.get(GATEWAY, ref.get("namespace") or entry.namespace, ref.get("name", "")) is not None
            rows: list[tuple[str, bool | None, str, str]] = [
                ("Accepted", there, "Accepted" if there else "NoMatchingParent", "" if there else "no such Gateway"),
                (
                    "ResolvedRefs",
                    not missing,
                    "BackendNotFound" if missing else "ResolvedRefs",
                    f"backends not found: {', '.join(missing)}" if missing else "",
                ),
            ]
            known = before.get(str(ref), {}).get("conditions") or []
            found = status.conditions(rows, known, self._api.now())
            for each in found:
                each["observedGeneration"] = entry.obj["metadata"].get("generation", 1)
            parents.append({"parentRef": ref, "controllerName": CONTROLLER, "conditions": found})
        return {"parents": parents}


def missing_backends(store: Store, route: Obj) -> Iterator[str]:
    """Services that a route points to and that are not there."""
    namespace = route["metadata"]["namespace"]
    for rule in (route.get("spec") or {}).get("rules") or []:
        for each in rule.get("backendRefs") or []:
            place = str(each.get("namespace") or namespace)
            if store.get(SERVICE, place, str(each["name"])) is None:
                yield f"{place}/{each['name']}"
