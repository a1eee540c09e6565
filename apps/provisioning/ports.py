"""How rooms above learn what became of what they declared. They register; this room knows no domain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    from apps.provisioning.models import Declaration, Drift
    from apps.provisioning.ordering import Key

_Hook = Callable[["Declaration"], None]
#: Of many declarations just applied, the ids of those whose owner has something to do: asked once for all.
_Concerned = Callable[[Sequence["Declaration"]], set[int]]


@dataclass(frozen=True, slots=True)
class Owner:
    """Hooks of one kind of declaration."""

    on_applied: _Hook | None = None
    on_stopped: _Hook | None = None
    lock: _Hook | None = None
    concerned: _Concerned | None = None


_owners: dict[str, Owner] = {}


def register_owner(
    kind: str,
    on_applied: _Hook | None = None,
    on_stopped: _Hook | None = None,
    *,
    lock: _Hook | None = None,
    concerned: _Concerned | None = None,
) -> None:
    """Register hooks for declarations of `kind` (a DeclarationKind value).

    `on_applied` runs in the transaction that records a generation as applied, `on_stopped` in the one that records
    that it needs a person; both get the declaration as written. The declaration is locked by then: a hook that must
    lock rows above it in the lock order (approval request, pool, workspace) does so in `lock`, which runs before.
    `concerned`, where given, is asked once about all that are recorded together: `on_applied` runs for those it names.
    """
    _owners[str(kind)] = Owner(on_applied, on_stopped, lock, concerned)


#: A cluster's id, objects as they live there (None: gone), and when they were read.
_Watch = Callable[[int, "Sequence[tuple[Key, Mapping[str, Any] | None]]", "datetime"], None]
_watches: list[tuple[frozenset[str], _Watch]] = []


def register_watch(kinds: Iterable[str], watch: _Watch) -> None:
    """Register who is told of every look at objects of these kinds, in the transaction that writes it down.

    For rooms that read a status themselves. What they write has to wait for the commit: observers hold many rows.
    """
    if (frozenset(kinds), watch) not in _watches:
        _watches.append((frozenset(kinds), watch))


def tell_watches(cluster_id: int, objects: Sequence[tuple[Key, Mapping[str, Any] | None]], at: datetime) -> None:
    """Tell those who registered about the objects of their kinds."""
    for kinds, watch in _watches:
        rows = [(key, obj) for key, obj in objects if key.kind in kinds]
        if rows:
            watch(cluster_id, rows, at)


#: Of drifts, by id, why each cannot be adopted; those that can are not in it.
_Refusals = Callable[[Sequence["Drift"]], dict[int, str]]
_adoption: list[_Refusals] = []


def register_adoption(refusals: _Refusals) -> None:
    """Register who takes drift over into what is declared. The last one that registers counts."""
    _adoption[:] = [refusals]


def adoption_refusals(drifts: Sequence[Drift]) -> dict[int, str]:
    """Return why drifts cannot be adopted, by id, in one pass over all of them."""
    if not drifts:
        return {}
    return _adoption[0](drifts) if _adoption else {drift.pk: "Nothing here takes drift over." for drift in drifts}


def owner_of(kind: str) -> Owner:
    """Return the hooks of a kind (empty where nobody registered)."""
    return _owners.get(str(kind), Owner())
