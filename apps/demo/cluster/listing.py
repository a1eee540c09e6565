"""LIST with selectors and paging. Pages of one list come from one snapshot, as etcd gives them."""

from __future__ import annotations

import base64
import binascii
import json
import threading
from collections import OrderedDict

from apps.demo.cluster.errors import bad_request, expired
from apps.demo.cluster.kinds import Kind
from apps.demo.cluster.selectors import Predicate
from apps.demo.cluster.store import Entry, Store

_KEPT_SNAPSHOTS = 64


class Page:
    """Entries of one page and how to go on."""

    def __init__(self, entries: list[Entry], rv: int, token: str, remaining: int) -> None:
        self.entries = entries
        self.rv = rv
        self.token = token
        self.remaining = remaining


class Lister:
    """Serves LIST. Remembers the newest unfinished snapshots; a continue token of an older one gets 410."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._snapshots: OrderedDict[int, tuple[int, list[Entry]]] = OrderedDict()
        self._next = 0
        self._lock = threading.Lock()

    def page(self, kind: Kind, namespace: str | None, predicate: Predicate | None, query: dict[str, str]) -> Page:
        """One page. Raises 400 for malformed parameters, 410 for an expired continue token."""
        text = query.get("limit", "") or "0"
        if not text.isdigit():
            raise bad_request(f'invalid limit "{text}"')
        limit = int(text)
        if query.get("continue"):
            number, start = _decode(query["continue"])
            with self._lock:
                known = self._snapshots.get(number)
            if known is None:
                raise expired(
                    "The provided continue parameter is too old to display a consistent list result. You can start a "
                    "new list without the continue parameter, or use the continue token in this response to retrieve "
                    "the remainder of the results."
                )
            rv, entries = known
        else:
            number, start = -1, 0
            with self.store.lock:
                rv, entries = self.store.rv, self.store.entries(kind, namespace)
            if predicate is not None:
                entries = [entry for entry in entries if predicate(entry.obj)]
        if not limit or start + limit >= len(entries):
            with self._lock:
                self._snapshots.pop(number, None)
            return Page(entries[start:], rv, "", 0)
        if number < 0:
            with self._lock:
                self._next += 1
                number = self._next
                self._snapshots[number] = (rv, entries)
                while len(self._snapshots) > _KEPT_SNAPSHOTS:
                    self._snapshots.popitem(last=False)
        token = base64.urlsafe_b64encode(json.dumps([number, start + limit]).encode()).decode()
        return Page(entries[start : start + limit], rv, token, len(entries) - start - limit)

    def expire_tokens(self) -> None:
        """Make every continue token handed out so far expire (410)."""
        with self._lock:
            self._snapshots.clear()


def _decode(token: str) -> tuple[int, int]:
    try:
        number, start = json.loads(base64.urlsafe_b64decode(token))
        return int(number), int(start)
    except (ValueError, TypeError, binascii.Error) as error:
        raise bad_request("continue key is not valid") from error


def encode_list(kind: Kind, page: Page, *, selective: bool) -> bytes:
    """The list document. Items of built-in lists carry neither kind nor apiVersion, those of custom ones do."""
    meta: dict[str, object] = {"resourceVersion": str(page.rv)}
    if page.token:
        meta["continue"] = page.token
        if not selective:
            meta["remainingItemCount"] = page.remaining
    head = json.dumps({"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": meta})
    cut = len(kind.raw_prefix)
    items = b",".join(entry.raw if kind.custom else b"{" + entry.raw[cut:] for entry in page.entries)
    return head[:-1].encode() + b',"items":[' + items + b"]}"
