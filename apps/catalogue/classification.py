"""The classification of a version: everything its model, itself and its lineage touch. Pure.

A version has every data class of its model, of its own, of each thing it was made from, and of each version here that
it was made from, as that one is classified. So it is never below an ancestor. Only an approved exception (a second
person's decision) puts other classes in place of the inherited ones; what the team itself states is never lowered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from apps.catalogue.choices import REGULATED, SENSITIVITY

MODEL, OWN, SOURCE, INHERITED, LOWERED = "model", "version", "source", "inherited", "lowered"


class Cycle(ValueError):
    """Something would be made from itself. `path` names the keys on the way round."""

    def __init__(self, path: Sequence[int]) -> None:
        super().__init__("the lineage runs in a circle")
        self.path = list(path)


@dataclass(frozen=True, slots=True)
class Origin:
    """One data class and where it comes from: model | version | source | inherited | lowered (not in force)."""

    data_class: str
    origin: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Classification:
    """The data classes in force, from the most to the least sensitive, and where each comes from."""

    classes: tuple[str, ...]
    origins: tuple[Origin, ...]

    @property
    def highest(self) -> str:
        """The most sensitive class; "" where nothing was stated."""
        return self.classes[0] if self.classes else ""

    @property
    def regulated(self) -> bool:
        """Whether any class makes a release a regulated one."""
        return any(one in REGULATED for one in self.classes)


@dataclass(frozen=True, slots=True)
class Ancestor:
    """One thing a version was made from: its own classes; `inherited`: those of the version here that it is."""

    name: str
    classes: Sequence[str] = ()
    inherited: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Node:
    """A version in the lineage, for `effective`. `sealed`: its classification as sealed, which no longer changes."""

    name: str
    model: Sequence[str] = ()
    own: Sequence[str] = ()
    #: (name, classes of the thing itself, key of the version here or None)
    sources: Sequence[tuple[str, Sequence[str], int | None]] = ()
    sealed: Sequence[str] | None = None
    #: The classes that an approved exception puts in place of the inherited ones; None: no exception.
    lowered: Sequence[str] | None = field(default=None)


def rank(data_class: str) -> int:
    """Return how sensitive a class is; one that is not known ranks highest: unknown is never harmless."""
    try:
        return SENSITIVITY.index(data_class)
    except ValueError:
        return len(SENSITIVITY)


def ordered(classes: Iterable[str]) -> tuple[str, ...]:
    """Return classes without repetition, the most sensitive first."""
    return tuple(sorted(set(classes), key=lambda one: (-rank(one), one)))


def classify(
    model: Sequence[str], own: Sequence[str], ancestors: Sequence[Ancestor], lowered: Sequence[str] | None = None
) -> Classification:
    """Return the classification of one version. `lowered`: by an approved exception, instead of the inherited ones."""
    stated = [Origin(one, MODEL) for one in ordered(model)] + [Origin(one, OWN) for one in ordered(own)]
    inherited = [Origin(one, SOURCE, ancestor.name) for ancestor in ancestors for one in ordered(ancestor.classes)]
    inherited += [
        Origin(one, INHERITED, ancestor.name) for ancestor in ancestors for one in ordered(ancestor.inherited)
    ]
    if lowered is not None:
        kept = {*lowered, *(one.data_class for one in stated)}
        inherited = [
            one if one.data_class in kept else Origin(one.data_class, LOWERED, one.detail) for one in inherited
        ]
        known = {one.data_class for one in (*stated, *inherited)}
        inherited += [Origin(one, OWN, "by exception") for one in ordered(lowered) if one not in known]
    origins = list(dict.fromkeys([*stated, *inherited]))
    in_force = ordered(one.data_class for one in origins if one.origin != LOWERED)
    # The same order for the same content, whichever way the sources were read.
    origins.sort(key=lambda one: (-rank(one.data_class), one.data_class, one.origin, one.detail))
    return Classification(in_force, tuple(origins))


def effective(key: int, nodes: Mapping[int, Node]) -> Classification:
    """Return the classification of version `key` over its whole lineage. Raises Cycle, KeyError for a missing node."""
    done: dict[int, Classification] = {}
    for one in post_order(key, lambda at: _parents(nodes[at])):
        node = nodes[one]
        if node.sealed is not None:
            done[one] = Classification(ordered(node.sealed), ())
            continue
        ancestors = [
            Ancestor(name, classes, done[parent].classes if parent is not None else ())
            for name, classes, parent in node.sources
        ]
        done[one] = classify(node.model, node.own, ancestors, node.lowered)
    return done[key]


def _parents(node: Node) -> list[int]:
    if node.sealed is not None:
        return []
    return [parent for _, _, parent in node.sources if parent is not None]


def post_order(start: int, parents: Callable[[int], Iterable[int]]) -> list[int]:
    """Return `start` and all it was made from, ancestors first, each once. Raises Cycle with the way round.

    Works without recursion: a chain of ten thousand fine-tunings is read like a short one.
    """
    found: dict[int, None] = {}
    trail: list[int] = []
    on_trail: set[int] = set()
    stack: list[tuple[int, bool]] = [(start, False)]
    while stack:
        at, left = stack.pop()
        if left:
            trail.pop()
            on_trail.discard(at)
            found[at] = None
            continue
        if at in on_trail:
            raise Cycle([*trail[trail.index(at) :], at])
        if at in found:
            continue
        trail.append(at)
        on_trail.add(at)
        stack.append((at, True))
        stack.extend((parent, False) for parent in parents(at))
    return list(found)


__all__ = [
    "Ancestor", "Classification", "Cycle", "Node", "Origin", "classify", "effective", "ordered", "post_order", "rank",
]  # fmt: skip
