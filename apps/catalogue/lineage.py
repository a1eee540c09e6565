"""A version's lineage as rows: what it was made from, what was made from it, and the classification it comes to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from apps.catalogue import classification
from apps.catalogue.choices import ExceptionKind, VersionStatus
from apps.catalogue.classification import Classification, Node
from apps.catalogue.models import ModelVersion, VersionException, VersionSource
from apps.core import clock
from apps.core.row_security import lifted

#: Beyond so many versions a lineage is no longer read for a page.
MAX_NODES = 5000
SEALED = (VersionStatus.SEALED, VersionStatus.RETIRED)


@dataclass(frozen=True, slots=True)
class Step:
    """One source in the table of a lineage: how far away it is, and through which version."""

    depth: int
    source: VersionSource
    child: ModelVersion


@lifted("a classification covers the whole lineage, whoever owns it")
def nodes_for(version: ModelVersion, *, at: datetime | None = None) -> dict[int, Node]:
    """Return the nodes that the classification of a draft depends on: itself and its ancestors up to sealed ones."""
    found: dict[int, Node] = {}
    frontier: set[int] = {version.pk}
    while frontier:
        versions = list(ModelVersion.objects.select_related("model").filter(pk__in=frontier))
        open_ids = [one.pk for one in versions if one.status not in SEALED or one.pk == version.pk]
        sources: dict[int, list[tuple[str, Sequence[str], int | None]]] = {pk: [] for pk in open_ids}
        for row in VersionSource.objects.filter(model_version_id__in=open_ids).order_by("pk"):
            sources[row.model_version_id].append((row.name, tuple(row.data_classes), row.source_version_id))
        lowered = _lowered(open_ids, at or clock.now())
        for one in versions:
            sealed = one.status in SEALED and one.pk != version.pk
            found[one.pk] = Node(
                str(one),
                tuple(one.model.data_classes),
                tuple(one.data_classes),
                tuple(sources.get(one.pk, ())),
                tuple(one.classification) if sealed else None,
                lowered.get(one.pk),
            )
        parents = {parent for pk in open_ids for _, _, parent in sources[pk] if parent is not None}
        frontier = parents - found.keys()
        if len(found) + len(frontier) > MAX_NODES:
            raise classification.Cycle([])
    return found


def _lowered(version_ids: Iterable[int], at: datetime) -> dict[int, tuple[str, ...]]:
    """Return the classes that the newest exception in force puts in place of the inherited ones, by version."""
    rows = VersionException.objects.filter(
        model_version_id__in=list(version_ids), kind=ExceptionKind.CLASSIFICATION, approved=True, expires_at__gt=at
    ).order_by("pk")
    return {row.model_version_id: tuple(row.data_classes) for row in rows}


def classification_of(version: ModelVersion, *, at: datetime | None = None) -> Classification:
    """Return the classification as it would be sealed now. Raises classification.Cycle."""
    return classification.effective(version.pk, nodes_for(version, at=at))


def steps(version: ModelVersion, *, most: int = 200) -> tuple[list[Step], bool]:
    """Return the lineage of a version as a table, nearest first, and whether there is more than `most`."""
    found: list[Step] = []
    seen: set[int] = {version.pk}
    children: dict[int, ModelVersion] = {version.pk: version}
    depth = 1
    while children and len(found) <= most:
        rows = (
            VersionSource.objects.filter(model_version_id__in=children)
            .select_related("source_version__model__team")
            .order_by("model_version_id", "kind", "name", "pk")
        )
        following: dict[int, ModelVersion] = {}
        for row in rows[: most + 1]:
            found.append(Step(depth, row, children[row.model_version_id]))
            parent = row.source_version
            if parent is not None and parent.pk not in seen:
                seen.add(parent.pk)
                following[parent.pk] = parent
        children, depth = following, depth + 1
    return found[:most], len(found) > most
