"""ScaledObjects: the target gets as many replicas as its triggers ask for, between minimum and maximum.

Simulated: one step a second at most, up at once, down after the cool-down (at most a few seconds here); prometheus
triggers ask the simulated figures, cron triggers read the clock; other triggers make the object not ready.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from apps.demo.cluster.api import Api
from apps.demo.cluster.apply import clone
from apps.demo.cluster.errors import Obj
from apps.demo.cluster.kinds import DEPLOYMENT, SCALED_OBJECT
from apps.demo.cluster.serving import status
from apps.demo.cluster.serving.promql import BadQuery, evaluate
from apps.demo.cluster.serving.recorder import Recorder
from apps.demo.cluster.store import Change, Entry

PAUSED, PAUSED_AT = "autoscaling.keda.sh/paused", "autoscaling.keda.sh/paused-replicas"
_LONGEST_WAIT = 5.0


class Failed(ValueError):
    """A trigger that gives no number."""


class Scaling:
    """Control-loop part for ScaledObjects."""

    def __init__(self, api: Api, recorder: Recorder) -> None:
        self._api = api
        self._store = api.store
        self._recorder = recorder
        self._calm: dict[str, float] = {}

    def observe(self, change: Change) -> None:
        """Nothing: each is looked at once a second."""

    def work(self) -> float:
        """Scale what is due."""
        entries = self._store.entries(SCALED_OBJECT)
        for each in entries:
            with self._store.transaction():
                entry = self._store.get(SCALED_OBJECT, each.namespace, each.name)
                if entry is not None:
                    self._scale(entry)
        return 1.0 if entries else float("inf")

    def _scale(self, entry: Entry) -> None:
        spec = entry.obj["spec"]
        notes = entry.obj["metadata"].get("annotations") or {}
        low, high = int(spec.get("minReplicaCount", 0)), int(spec.get("maxReplicaCount", 100))
        paused = PAUSED_AT in notes or notes.get(PAUSED) == "true"
        target = self._store.get(DEPLOYMENT, entry.namespace, str((spec.get("scaleTargetRef") or {}).get("name")))
        wanted, active, trouble = None, False, ""
        if target is None:
            trouble = "ScaleTarget not found"
        elif paused:
            wanted = int(notes[PAUSED_AT]) if str(notes.get(PAUSED_AT, "")).isdigit() else None
        else:
            now = int(target.obj["spec"].get("replicas", 0))
            try:
                asked = max((self._asked(each, now) for each in spec.get("triggers") or []), default=0)
                active = asked > 0
                wanted = min(high, max(low, asked))
            except Failed as error:
                trouble = str(error)
                fallback = spec.get("fallback") or {}
                least = int(fallback.get("replicas", now))
                higher = fallback.get("behavior") == "currentReplicasIfHigher"
                wanted = max(now, least) if higher and fallback else (least if fallback else None)
        if target is not None and wanted is not None:
            self._set(entry, target, wanted, paused)
        self._status(entry, paused=paused, active=active, trouble=trouble, missing=target is None)

    def _set(self, entry: Entry, target: Entry, wanted: int, paused: bool) -> None:
        now = int(target.obj["spec"].get("replicas", 0))
        uid, moment = entry.obj["metadata"]["uid"], self._api.clock().timestamp()
        if wanted >= now or paused:
            self._calm.pop(uid, None)
        else:
            since = self._calm.setdefault(uid, moment)
            if moment - since < min(_LONGEST_WAIT, float(entry.obj["spec"].get("cooldownPeriod", 300))):
                return
        if wanted != now:
            obj = clone(target.obj)
            obj["spec"]["replicas"] = wanted
            obj["metadata"]["generation"] = int(obj["metadata"].get("generation", 1)) + 1
            self._store.put(DEPLOYMENT, obj)

    def _asked(self, trigger: Obj, now: int) -> int:
        data = trigger.get("metadata") or {}
        if trigger.get("type") == "prometheus":
            return self._by_query(data, now)
        if trigger.get("type") == "cron":
            clock = self._api.clock().astimezone(UTC)
            return int(data.get("desiredReplicas", "0")) if in_window(data, clock) else 0
        raise Failed(f"triggers of type {trigger.get('type')!r} are not simulated")

    def _by_query(self, data: Obj, now: int) -> int:
        try:
            moment = self._api.clock().timestamp()
            value = evaluate(str(data.get("query", "")), moment, self._recorder.tracks())
        except BadQuery as error:
            raise Failed(f"error executing the query: {error}") from error
        rows: list[Any] = [value] if isinstance(value, float) else [each for _, each in value]
        if not rows or any(math.isnan(each) for each in rows):
            if data.get("ignoreNullValues", "true") == "true":
                return 0
            raise Failed("the query gave no result")
        if rows[0] <= float(data.get("activationThreshold", "0")):
            return 0
        threshold = float(data.get("threshold", "1"))
        return math.ceil(rows[0] / threshold) if threshold > 0 else now

    def _status(self, entry: Entry, *, paused: bool, active: bool, trouble: str, missing: bool) -> None:
        rows: list[tuple[str, bool | None, str, str]] = [
            (
                "Ready",
                not missing,
                "ScaleTargetCheckFailed" if missing else "ScaledObjectReady",
                trouble if missing else "",
            ),
            ("Active", active, "ScalerActive" if active else "ScalerNotActive", ""),
            ("Fallback", bool(trouble) and not missing, "FallbackExists" if trouble else "NoFallbackFound", trouble),
            ("Paused", paused, "ScaledObjectPaused" if paused else "", ""),
        ]
        known = (entry.obj.get("status") or {}).get("conditions") or []
        wanted: Obj = {
            "conditions": status.conditions(rows, known, self._api.now()),
            "hpaName": f"keda-hpa-{entry.name}",
            "scaleTargetKind": "apps/v1.Deployment",
        }
        if paused and PAUSED_AT in (entry.obj["metadata"].get("annotations") or {}):
            wanted["pausedReplicaCount"] = int(entry.obj["metadata"]["annotations"][PAUSED_AT] or 0)
        if wanted != entry.obj.get("status"):
            obj = clone(entry.obj)
            obj["status"] = wanted
            self._store.put(SCALED_OBJECT, obj)


def in_window(data: Obj, now: datetime) -> bool:
    """Whether a cron trigger's window is open: its next end comes before its next start, as KEDA sees it."""
    if data.get("timezone", "Etc/UTC") not in ("Etc/UTC", "UTC"):
        raise Failed("cron triggers are simulated in UTC only")
    return _next(str(data.get("end", "")), now) < _next(str(data.get("start", "")), now)


def _next(text: str, now: datetime) -> datetime:
    """The next moment of `minute hour * * weekdays`. Raises `Failed` for anything else."""
    parts = text.split()
    if len(parts) != 5 or parts[2:4] != ["*", "*"] or not (parts[0].isdigit() and parts[1].isdigit()):
        raise Failed(f"the schedule {text!r} is not simulated: minute hour * * weekdays")
    days = set(range(7)) if parts[4] == "*" else {int(day) % 7 for day in parts[4].split(",") if day.isdigit()}
    if not days or int(parts[0]) > 59 or int(parts[1]) > 23:
        raise Failed(f"the schedule {text!r} names no time")
    moment = now.replace(hour=int(parts[1]), minute=int(parts[0]), second=0, microsecond=0)
    while moment <= now or moment.isoweekday() % 7 not in days:
        moment += timedelta(days=1)
    return moment
