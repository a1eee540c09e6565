"""WATCH: a stream of changes from a resourceVersion on, in the API server's chunked JSON lines."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from apps.demo.cluster.errors import ApiError, Obj, bad_request
from apps.demo.cluster.kinds import Kind
from apps.demo.cluster.selectors import Predicate
from apps.demo.cluster.store import Change, Entry, Store

Render = Callable[[Entry, bool], bytes]
"""Encode an entry for the stream; the flag says whether it is the first one (tables send their head once)."""


@dataclass(frozen=True)
class WatchRequest:
    """What a client asked to watch."""

    kind: Kind
    namespace: str | None
    predicate: Predicate | None
    since: str
    bookmarks: bool
    initial: bool
    timeout: float

    @classmethod
    def parse(
        cls, kind: Kind, namespace: str | None, predicate: Predicate | None, query: dict[str, str]
    ) -> WatchRequest:
        """Read the query parameters. Raises 400 for malformed ones."""
        since = query.get("resourceVersion", "")
        if since and not since.isdigit():
            raise bad_request(f'invalid resource version "{since}"')
        text = query.get("timeoutSeconds", "")
        if text and not text.isdigit():
            raise bad_request(f'invalid timeoutSeconds "{text}"')
        return cls(
            kind,
            namespace,
            predicate,
            since,
            query.get("allowWatchBookmarks") in ("true", "1"),
            query.get("sendInitialEvents") == "true",
            float(text) if text else random.uniform(1800, 3600),
        )

    def sees(self, entry: Entry | None) -> bool:
        """Whether an entry is in the watched set."""
        if entry is None or (self.namespace is not None and entry.namespace != self.namespace):
            return False
        return self.predicate is None or self.predicate(entry.obj)


def stream(
    store: Store,
    request: WatchRequest,
    render: Render,
    *,
    alive: Callable[[], bool],
    bookmark_seconds: float,
    tick: Callable[[], float] = lambda: 1.0,
) -> Iterator[bytes]:
    """Yield encoded events until the time is up or `alive()` says no; b"" when idle, at least every
    `tick()` seconds, for the caller to look around.

    A resourceVersion older than the history window gives one ERROR event with a 410 Status, as the watch cache does.
    """
    deadline = time.monotonic() + request.timeout
    next_bookmark = time.monotonic() + bookmark_seconds
    first = True
    with store.lock:
        position = int(request.since or "0")
        entries: list[Entry] = []
        if request.initial or position == 0:
            entries = [entry for entry in store.entries(request.kind, request.namespace) if request.sees(entry)]
            position = store.rv
    for entry in entries:
        yield event("ADDED", render(entry, first))
        first = False
    if request.initial and request.bookmarks:
        yield event("BOOKMARK", _bookmark(request.kind, position, {"k8s.io/initial-events-end": "true"}))
    while alive():
        now = time.monotonic()
        try:
            with store.changed:
                changes = store.since(position)
                if not changes and now < deadline:
                    store.changed.wait(min(tick(), deadline - now, max(0.01, next_bookmark - now)))
                    changes = store.since(position)
                position = store.rv
        except ApiError as error:
            yield event("ERROR", json.dumps(error.status()).encode())
            return
        sent = False
        for change in changes:
            line = _line(change, request, render, first)
            if line:
                first, sent = False, True
                yield line
        now = time.monotonic()
        if request.bookmarks and (now >= next_bookmark or now >= deadline):
            next_bookmark = now + bookmark_seconds
            yield event("BOOKMARK", _bookmark(request.kind, position, {}))
        elif not sent:
            yield b""
        if now >= deadline:
            return


def _line(change: Change, request: WatchRequest, render: Render, first: bool) -> bytes:
    """The event a change means for this watcher: entering its set is ADDED, leaving it DELETED."""
    if change.entry.kind.key != request.kind.key:
        return b""
    is_in = change.type != "DELETED" and request.sees(change.entry)
    was_in = request.sees(change.previous)
    if is_in:
        return event("MODIFIED" if was_in else "ADDED", render(change.entry, first))
    if was_in:
        return event("DELETED", render(change.entry, first))
    return b""


def event(kind: str, raw: bytes) -> bytes:
    """One line of the stream."""
    return b'{"type":"' + kind.encode() + b'","object":' + raw + b"}\n"


def _bookmark(kind: Kind, rv: int, annotations: Obj) -> bytes:
    meta: Obj = {"resourceVersion": str(rv), "creationTimestamp": None}
    if annotations:
        meta["annotations"] = annotations
    return json.dumps({"kind": kind.kind, "apiVersion": kind.api_version, "metadata": meta}).encode()
