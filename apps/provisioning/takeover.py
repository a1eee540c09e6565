"""Which conflicts are none: another manager holds a field, yet what lives there is what the portal put there. Pure.

Whoever edited a field once stays its owner, also after the edit was adopted, applied over or set back by hand (server-
side apply, "Conflicts"). Its next approved change would then stop for ever, with no drift left to decide about. Where
the live value of every contested field is the one that the portal last applied, nobody's wish is overwritten, and the
field may be taken over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apps.provisioning import diff, ownership

#: {manager, field, message} as the server tells it (clusters.errors.ConflictError).
Cause = dict[str, str]
_MISSING: Any = object()
#: One step into an object: a map key, a place in a list, or the keys that a list's item has.
_Step = str | int | tuple[tuple[str, Any], ...]
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Last:
    """What the portal last applied of an object, and what the server made of exactly that."""

    body: Mapping[str, Any]
    settled: Mapping[str, Any]


def last_of(applied_body: bytes, settled: bytes) -> Last | None:
    """Return what was last applied, from its stored bytes; None where nothing ever was."""
    if not applied_body or not settled:
        return None
    return Last(json.loads(applied_body), json.loads(settled))


def split(
    causes: Sequence[Mapping[str, str]], last: Last | None, declared: Mapping[str, Any], live: Mapping[str, Any] | None
) -> tuple[list[Cause], list[Cause]]:
    """Return (fields that may be taken over, fields that are contested) of a conflict about applying `declared`.

    A field that the portal never applied, that lives differently than it settled, or whose path cannot be followed is
    contested. As soon as one is, nothing of the object may be taken over: force counts for the whole of it.
    """
    if last is None or live is None:
        return [], [dict(cause) for cause in causes]
    taken: list[Cause] = []
    contested: list[Cause] = []
    for cause in causes:
        (taken if _as_applied(cause.get("field", ""), last, live) else contested).append(dict(cause))
    # The server's list of fields is known to be incomplete at times, and force would take those over as well.
    return taken, contested or list(_unlisted(declared, last, live))


def told(causes: Sequence[Mapping[str, str]]) -> str:
    """Return fields with who holds them, for people and the audit trail."""
    held = ", ".join(sorted({f"{cause['field']} held by {cause['manager'] or 'another'}" for cause in causes}))
    # Anybody may call their tool as they like, and what is audited for ever may not look like a mail address.
    return held.replace("@", " at ")


def _as_applied(field: str, last: Last, live: Mapping[str, Any]) -> bool:
    # A key may hold dots, so a path may be read in more than one way: then all of them have to agree.
    places = list(_places(last.body, field))
    return bool(places) and all(
        diff.alike([step for step in place if isinstance(step, str)], _pick(last.settled, place), _pick(live, place))
        for place in places
    )


def _unlisted(declared: Mapping[str, Any], last: Last, live: Mapping[str, Any]) -> Iterator[Cause]:
    """Yield what others hold, `declared` would change, and the portal did not put there as it lives."""
    away = [change.path for change in diff.declared_changes(last.body, live, last.settled)]
    for change in diff.declared_changes(declared, live):
        owner = ownership.foreign_owner(live, change.path, exact=True)
        if owner is None:
            continue
        if not _reaches(last.body, change.path) or any(_meet(change.path, path) for path in away):
            yield {"manager": owner.manager, "field": f".{change.text_path}", "message": "it lives differently"}


def _reaches(body: Any, path: diff.Path) -> bool:
    """Whether a field was declared in `body`; what is in a list belongs to whoever declares the list."""
    for part in path:
        if not isinstance(body, Mapping):
            return isinstance(body, list)
        if part not in body:
            return False
        body = body[part]
    return True


def _meet(one: diff.Path, other: diff.Path) -> bool:
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def _places(node: Any, text: str) -> Iterator[tuple[_Step, ...]]:
    """Yield every way in which a path as the server writes it leads into `node`.

    Format (structured-merge-diff, fieldpath.PathElement.String): `.key`, `[0]`, `[name="a",protocol="TCP"]`.
    """
    if not text:
        yield ()
    elif text[0] == "." and isinstance(node, Mapping):
        for key, below in node.items():
            if text.startswith(key, 1):
                for rest in _places(below, text[1 + len(key) :]):
                    yield key, *rest
    elif text[0] == "[" and isinstance(node, list):
        step, left = _item_step(text)
        if step is not None and (below := _below(node, step)) is not _MISSING:
            for rest in _places(below, left):
                yield step, *rest


def _item_step(text: str) -> tuple[_Step | None, str]:
    """Return the list item that `[…` at the start of `text` names (None: no such form), and the text behind it."""
    number, closed, left = text[1:].partition("]")
    if closed and number.isdigit():
        return int(number), left
    keys: list[tuple[str, Any]] = []
    at = 1
    while True:
        equals = text.find("=", at)
        if equals <= at:
            return None, ""
        try:
            value, end = _DECODER.raw_decode(text, equals + 1)
        except ValueError:
            return None, ""
        keys.append((text[at:equals], value))
        if text[end : end + 1] == "]":
            return tuple(keys), text[end + 1 :]
        if text[end : end + 1] != ",":
            return None, ""
        at = end + 1


def _below(node: Any, step: _Step) -> Any:
    if isinstance(step, str):
        return node.get(step, _MISSING) if isinstance(node, Mapping) else _MISSING
    if not isinstance(node, list):
        return _MISSING
    if isinstance(step, int):
        return node[step] if step < len(node) else _MISSING
    for item in node:
        # A key that the item leaves out has its default there (a port's protocol), so only what is stated must agree.
        stated = [(name, value) for name, value in step if isinstance(item, Mapping) and name in item]
        if stated and all(item[name] == value for name, value in stated):
            return item
    return _MISSING


def _pick(node: Any, place: tuple[_Step, ...]) -> Any:
    for step in place:
        node = _below(node, step)
    return None if node is _MISSING else node
