"""Elastic node groups: nodes that come some time after pods need them, and go when nobody has used them for a while."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from apps.demo.cluster.api import Api
from apps.demo.cluster.events import emit
from apps.demo.cluster.history import Rules
from apps.demo.cluster.kinds import NODE, POD
from apps.demo.cluster.nodes import SIMULATED, NodeGroup, node_object
from apps.demo.cluster.scheduler import node_state, obstacles, take, waits
from apps.demo.cluster.store import Change, Entry
from apps.demo.cluster.usage import is_terminal

LABEL = f"{SIMULATED}/node-group"


class ElasticNodes:
    """Control-loop part, in the place of a cluster autoscaler."""

    def __init__(self, api: Api, rules: Rules) -> None:
        self._api = api
        self._store = api.store
        self._rules = rules
        self._coming: dict[str, list[datetime]] = {}
        self._idle: dict[str, datetime] = {}
        self._dirty = True

    def observe(self, change: Change) -> None:
        """Pods and nodes matter."""
        if change.entry.kind in (POD, NODE):
            self._dirty = True

    def work(self) -> float:
        """Order nodes, bring those that are due, take idle ones away. Returns seconds until something is due."""
        if not self._rules.groups or not (self._dirty or self._coming or self._idle):
            return float("inf")
        self._dirty = False
        now = self._api.clock()
        due = float("inf")
        pods = [entry for entry in self._store.entries(POD) if not is_terminal(entry.obj)]
        for group in self._rules.groups:
            members = [each for each in self._store.entries(NODE) if _group_of(each) == group.name]
            self._arrive(group, members, now)
            self._order(group, members, pods, now)
            self._leave(group, members, pods, now)
            times = [*self._coming.get(group.name, []), *(self._idle.get(each.name, now) for each in members)]
            due = min([due, *((moment - now).total_seconds() for moment in times if moment > now)])
        return max(0.05, due)

    def _arrive(self, group: NodeGroup, members: list[Entry], now: datetime) -> None:
        waiting = self._coming.get(group.name, [])
        for moment in [each for each in waiting if each <= now]:
            waiting.remove(moment)
            self._make(group)
        if not waiting:
            self._coming.pop(group.name, None)
        for _ in range(group.least - len(members) - len(waiting)):
            self._make(group)

    def _make(self, group: NodeGroup) -> None:
        with self._store.transaction():
            taken = {each.name for each in self._store.entries(NODE)}
            number = next(n for n in range(1, group.most + 2) if f"{group.name}-{n:02d}" not in taken)
            rule = replace(group.node, name=f"{group.name}-{number:02d}")
            body = node_object(rule, self._rules.gpu, 200 + number, self._api.now(), {LABEL: group.name})
            self._api.system_create(NODE, body)

    def _order(self, group: NodeGroup, members: list[Entry], pods: list[Entry], now: datetime) -> None:
        """As many nodes as the pods that fit nowhere else would fill, at most what the group may have."""
        coming = self._coming.get(group.name, [])
        stuck = [each for each in pods if waits(each.obj) and _unschedulable(each)]
        rule = replace(group.node, name="template")
        fresh = node_object(rule, self._rules.gpu, 0, self._api.now(), {LABEL: group.name})
        rooms = [node_state(fresh) for _ in coming]
        free = group.most - len(members) - len(coming)
        for pod in stuck:
            room = next((each for each in rooms if not obstacles(pod.obj, each)[0]), None)
            if room is None:
                room = node_state(fresh)
                if free <= 0 or obstacles(pod.obj, room)[0]:
                    continue
                free -= 1
                rooms.append(room)
                self._coming.setdefault(group.name, []).append(now + timedelta(seconds=group.start_seconds))
                text = f"pod triggered scale-up: [{{{group.name} {len(members)}->{len(members) + len(rooms)}}}]"
                emit(self._api, pod, "Normal", "TriggeredScaleUp", text, "simulated-autoscaler")
            take(room, pod.obj)

    def _leave(self, group: NodeGroup, members: list[Entry], pods: list[Entry], now: datetime) -> None:
        used = {(each.obj.get("spec") or {}).get("nodeName") for each in pods}
        left = len(members)
        for node in members:
            if node.name in used:
                self._idle.pop(node.name, None)
                continue
            ends = self._idle.setdefault(node.name, now + timedelta(seconds=group.idle_seconds))
            if ends <= now and left > group.least:
                left -= 1
                self._idle.pop(node.name)
                with self._store.transaction():
                    current = self._store.get(NODE, "", node.name)
                    if current is not None:
                        self._store.delete(current)


def _group_of(node: Entry) -> str:
    return str((node.obj["metadata"].get("labels") or {}).get(LABEL, ""))


def _unschedulable(pod: Entry) -> bool:
    conditions = (pod.obj.get("status") or {}).get("conditions") or []
    return any(each["type"] == "PodScheduled" and each.get("reason") == "Unschedulable" for each in conditions)
