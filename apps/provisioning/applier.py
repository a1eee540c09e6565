"""Bringing one generation onto its cluster: compare, apply in order, prune. Network only, no database.

Idempotent by nature of server-side apply: run it again after any failure and it goes on where it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from apps.clusters import kinds
from apps.clusters.clients.kubernetes import Answer
from apps.clusters.errors import ClusterError, ConflictError, NotFound, StaleRead, Terminating
from apps.core import clock
from apps.provisioning import diff, ownership, takeover
from apps.provisioning.ordering import Key, removal_order
from apps.provisioning.planner import Client

#: Live objects read beforehand by LIST: key → object, or None where a listing shows that there is none.
Snapshot = Mapping[Key, dict[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Target:
    """One object to be applied: its key, the bytes to send, the bytes last applied (empty: never).

    `settled` is what the server made of `body` when it was last applied, None where it was not.
    """

    key: Key
    body: bytes
    applied_body: bytes = b""
    settled: Mapping[str, Any] | None = None
    #: A person decided: take its fields over from other managers, or leave it as it lives.
    take_over: bool = False
    leave: bool = False
    #: What was last applied, of these bytes or of earlier ones: tells who merely shares a field from who contests it.
    last: takeover.Last | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """One generation of one declaration. `remove` are planned removals, `unplanned` those that no plan named."""

    targets: Sequence[Target]
    remove: Sequence[Key] = ()
    unplanned: Sequence[Key] = ()
    take_over: bool = False


@dataclass(slots=True)
class Outcome:
    """How it went. `stop` is why a person is needed (class and sentence); `error` what to retry."""

    results: list[dict[str, Any]] = field(default_factory=list)
    applied: list[Key] = field(default_factory=list)
    removed: list[Key] = field(default_factory=list)
    live: dict[Key, dict[str, Any]] = field(default_factory=dict)
    #: Objects that live at the very version at which the observation says so already: nothing to write of them.
    as_seen: list[Key] = field(default_factory=list)
    #: By the lists everything lives as declared, and there was nothing to remove and nothing decided for once.
    reconciled: bool = False
    #: Then: an earlier run had applied this very generation already, so nothing has come to pass but another look.
    confirmed: bool = False
    settled: dict[Key, dict[str, Any]] = field(default_factory=dict)
    #: What was taken over from other managers because it lived as the portal had applied it, in words.
    taken: list[str] = field(default_factory=list)
    stop_class: str = ""
    stop: str = ""
    error: ClusterError | None = None
    began: datetime | None = None
    ended: datetime | None = None

    @property
    def succeeded(self) -> bool:
        """Whether everything declared is live now."""
        return not self.stop and self.error is None

    def note(
        self,
        verb: str,
        key: Key,
        started: float,
        *,
        status: int = 0,
        warnings: Sequence[str] = (),
        error: str = "",
        taken: Sequence[Mapping[str, str]] = (),
    ) -> None:
        """Keep one request for the run's record."""
        row: dict[str, Any] = {
            "verb": verb, "path": path_of(key), "kind": key.kind, "namespace": key.namespace, "name": key.name,
            "status": status, "ms": round((time.monotonic() - started) * 1000), "warnings": list(warnings),
        }  # fmt: skip
        if error:
            row["error"] = error[:2000]
        if taken:
            row["taken_over"] = [{"manager": cause["manager"], "field": cause["field"]} for cause in taken]
            self.taken.append(f"{key}: {takeover.told(taken)}")
        self.results.append(row)


def path_of(key: Key) -> str:
    """Return the path that a request about an object goes to."""
    kind = kinds.KINDS[key.kind]
    return f"{kind.in_namespace.replace('{namespace}', key.namespace)}/{key.name}"


class _Stop(Exception):
    """A person is needed."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Held(Exception):
    """Another manager holds fields; whether that is a conflict depends on what lives there."""

    def __init__(self, causes: Sequence[Mapping[str, str]]) -> None:
        super().__init__("held")
        self.causes = causes


def run(client: Client, work: Work, snapshot: Snapshot | None = None) -> Outcome:
    """Bring `work` onto the cluster; never raises clusters.errors: the outcome tells."""
    outcome = Outcome(began=clock.now())
    try:
        if still_there := [key for key in work.unplanned if _live(client, key, outcome, snapshot or {}) is not None]:
            raise _Stop("unplanned_removal", _unplanned(still_there))
        outcome.removed.extend(work.unplanned)
        due = _compare(client, work, outcome, snapshot or {})
        for target, declared in due:
            _apply(client, work, target, declared, outcome)
        for key in removal_order(work.remove):
            _remove(client, key, outcome)
    except _Stop as stop:
        outcome.stop_class, outcome.stop = stop.code, str(stop)
    except ClusterError as error:
        if error.retryable:
            outcome.error = error
        else:
            outcome.stop_class, outcome.stop = error.code, error.message
    outcome.ended = clock.now()
    return outcome


def unchanged(work: Work, snapshot: Snapshot) -> Outcome | None:
    """Return the outcome where everything declared lives as declared by `snapshot`; None where there is work to do.

    No call is made: this is how a reconcile of what nobody touched costs no more than reading it.
    """
    if work.remove or work.unplanned:
        return None
    outcome = Outcome(began=(at := clock.now()), ended=at)
    for target in work.targets:
        live = snapshot.get(target.key)
        if live is None or target.leave or (live.get("metadata") or {}).get("deletionTimestamp"):
            return None
        if target.settled is None or diff.strip(live) != target.settled:
            declared: dict[str, Any] = json.loads(target.body)
            if not _lives(declared, live, target.settled):
                return None
            if target.settled is None:
                outcome.settled[target.key] = diff.strip(live)
        outcome.applied.append(target.key)
        outcome.live[target.key] = live
    return outcome


def unmoved(version: str, live: Mapping[str, Any] | None) -> bool:
    """Whether an object still has the resource version at which it lived as declared, and is not about to vanish."""
    meta = (live or {}).get("metadata") or {}
    return bool(version) and meta.get("resourceVersion") == version and not meta.get("deletionTimestamp")


def _lives(declared: Mapping[str, Any], live: Mapping[str, Any], settled: Mapping[str, Any] | None) -> bool:
    """Whether an object lives as declared, applied by the portal, and holds nothing that is declared no more."""
    return (
        not diff.declared_changes(declared, live, settled)
        and ownership.holds_anything(live)
        and not ownership.held_beyond(live, declared)
    )


def _unplanned(keys: Sequence[Key]) -> str:
    named = ", ".join(str(key) for key in keys)
    return f"{named}: no longer declared, but the approved plan does not name the removal"


def _compare(client: Client, work: Work, outcome: Outcome, snapshot: Snapshot) -> list[tuple[Target, dict[str, Any]]]:
    """Return what has to be applied. What moved since it was last applied must pass a dry run before any write."""
    due: list[tuple[Target, dict[str, Any]]] = []
    moved: list[tuple[Target, dict[str, Any]]] = []
    absent: set[str] = set()
    for target in work.targets:
        if target.leave:
            continue
        declared: dict[str, Any] = json.loads(target.body)
        live = None if target.key.namespace in absent else _live(client, target.key, outcome, snapshot)
        if live is None:
            if target.key.kind == "Namespace":
                absent.add(target.key.name)
            due.append((target, declared))
            continue
        if (live.get("metadata") or {}).get("deletionTimestamp"):
            # Applying to it answers 200 although it is about to vanish (reference F).
            raise Terminating(f"{target.key} is being deleted; it is made anew once it is gone")
        if _lives(declared, live, target.settled):
            outcome.applied.append(target.key)
            outcome.live[target.key] = live
            if target.settled is None:  # applied by a run that could not record it
                outcome.settled[target.key] = diff.strip(live)
            continue
        due.append((target, declared))
        before = json.loads(target.applied_body) if target.applied_body else None
        if before is None or diff.declared_changes(before, live):
            moved.append((target, declared))
    if not work.take_over:
        for target, declared in moved:
            if not target.take_over:
                try:
                    _call_apply(client, target, declared, outcome, dry_run=True, force=False)
                except _Held as held:
                    _shared(client, target, declared, held, outcome)
    return due


def _live(client: Client, key: Key, outcome: Outcome, snapshot: Snapshot) -> dict[str, Any] | None:
    if key in snapshot:
        return snapshot[key]
    started = time.monotonic()
    try:
        found = client.get(key.kind, key.name, key.namespace)
    except NotFound as error:
        outcome.note("get", key, started, status=error.status)
        return None
    except ClusterError as error:
        outcome.note("get", key, started, status=error.status, warnings=error.warnings, error=error.message)
        raise
    outcome.note("get", key, started, status=200)
    return found


def _apply(client: Client, work: Work, target: Target, declared: dict[str, Any], outcome: Outcome) -> None:
    try:
        answer = _call_apply(client, target, declared, outcome, dry_run=False, force=work.take_over or target.take_over)
    except _Held as held:
        answer = _take_over(client, target, declared, held, outcome)
    rewritten = diff.declared_changes(declared, answer.object)
    if rewritten:
        first = rewritten[0]
        raise _Stop(
            "rewritten",
            f"{target.key}: the cluster rewrote {first.text_path} from {diff.show(first.before)} to"
            f" {diff.show(first.after)}; what lives there is not what was approved",
        )
    outcome.applied.append(target.key)
    outcome.live[target.key] = answer.object
    outcome.settled[target.key] = diff.strip(answer.object)


def _shared(
    client: Client, target: Target, declared: dict[str, Any], held: _Held, outcome: Outcome
) -> tuple[list[takeover.Cause], str]:
    """Return the fields that may be taken over, and the version at which they lived as the portal last applied them.

    Raises _Stop where one of them lives differently, or was never the portal's; StaleRead where the object is gone.
    """
    live = _live(client, target.key, outcome, {})
    if live is None:
        raise StaleRead(f"{target.key} was removed while it was being applied")
    taken, contested = takeover.split(held.causes, target.last, declared, live)
    if contested:
        raise _Stop("conflict", f"{target.key}: {takeover.told(contested)}")
    return taken, str((live.get("metadata") or {}).get("resourceVersion", ""))


def _take_over(client: Client, target: Target, declared: dict[str, Any], held: _Held, outcome: Outcome) -> Answer:
    """Apply with force what others hold as the portal had applied it; never what somebody changes meanwhile."""
    taken, version = _shared(client, target, declared, held, outcome)
    # The approved bytes and the version just looked at: the server refuses it (409) once the object has moved on.
    guarded = {**declared, "metadata": {**declared["metadata"], "resourceVersion": version}}
    return _call_apply(client, target, guarded, outcome, dry_run=False, force=True, taken=taken)


def _call_apply(
    client: Client,
    target: Target,
    declared: dict[str, Any],
    outcome: Outcome,
    *,
    dry_run: bool,
    force: bool,
    taken: Sequence[takeover.Cause] = (),
) -> Answer:
    verb = "dry run" if dry_run else "apply"
    started = time.monotonic()
    try:
        body: Mapping[str, Any] | bytes = declared if taken else target.body
        answer = client.apply(body, dry_run=dry_run, force=force, target=declared)
    except ConflictError as error:
        outcome.note(verb, target.key, started, status=409, warnings=error.warnings, error=error.message)
        if isinstance(error, StaleRead):
            raise
        raise _Held(error.causes) from error
    except ClusterError as error:
        outcome.note(verb, target.key, started, status=error.status, warnings=error.warnings, error=error.message)
        if not error.retryable:
            raise _Stop(error.code, f"{target.key}: {error.message}") from error
        raise
    outcome.note(verb, target.key, started, status=answer.status, warnings=answer.warnings, taken=taken)
    return answer


def _remove(client: Client, key: Key, outcome: Outcome) -> None:
    if key.kind in kinds.NEVER_PRUNED:  # belt and braces: such a removal is never planned
        raise _Stop("unplanned_removal", f"{key}: the portal never deletes a {key.kind}")
    live = _live(client, key, outcome, {})
    if live is None:
        outcome.removed.append(key)
        return
    meta = live.get("metadata") or {}
    if (meta.get("labels") or {}).get(kinds.MANAGED_LABEL) != "true":
        raise _Stop("unplanned_removal", f"{key}: no longer carries the portal's label, so it is not ours to delete")
    started = time.monotonic()
    try:
        answer = client.delete(
            key.kind, key.name, key.namespace, uid=str(meta.get("uid", "")),
            resource_version=str(meta.get("resourceVersion", "")),
        )  # fmt: skip
    except NotFound as error:
        outcome.note("delete", key, started, status=error.status)
    except ClusterError as error:
        outcome.note("delete", key, started, status=error.status, warnings=error.warnings, error=error.message)
        raise
    else:
        outcome.note("delete", key, started, status=answer.status, warnings=answer.warnings)
    outcome.removed.append(key)
