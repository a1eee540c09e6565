"""What was seen to live as declared and has not moved: known, and seen once more, without another look at it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from django.db import connection

from apps.provisioning.choices import Handling, Removal
from apps.provisioning.ordering import Key


class Known(NamedTuple):
    """A declared object with the observation that last saw it live as declared, and at which resource version."""

    pk: int
    seen: int
    version: str


def versions_as_declared(declaration_ids: Sequence[int]) -> dict[int, dict[Key, Known]]:
    """Return by declaration, for each of its objects, the resource version last seen to live as declared.

    An object that the portal applied as it is declared now, and that still has this version, needs no other look; ""
    where there is none. Declarations with something to remove or to leave are not among them.
    """
    found: dict[int, dict[Key, Known]] = {}
    barred: set[int] = set()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT object.declaration_id, object.id, object.kind, object.namespace, object.name, object.removal <> ''"
            " OR object.handling = %s, seen.id, CASE WHEN object.settled <> '' AND object.applied_body = object.body"
            " THEN seen.resource_version END FROM provisioning_declaredobject object LEFT JOIN provisioning_observation"
            " seen ON seen.cluster_id = object.cluster_id AND seen.kind = object.kind AND seen.namespace ="
            " object.namespace AND seen.name = object.name AND seen.declaration_id = object.declaration_id"
            " AND seen.declared_digest = object.digest AND NOT seen.missing"
            " WHERE object.declaration_id = ANY(%s) AND object.removal <> %s ORDER BY object.ordinal, object.id",
            [Handling.LEAVE, list(declaration_ids), Removal.RETAINED],
        )
        for declaration_id, pk, kind, namespace, name, special, seen, version in cursor.fetchall():
            found.setdefault(declaration_id, {})[Key(kind, namespace, name)] = Known(pk, seen or 0, version or "")
            if special:
                barred.add(declaration_id)
    return {pk: objects for pk, objects in found.items() if pk not in barred}


def seen_again(observations: Sequence[tuple[int, str]], at: datetime) -> None:
    """Mark observations (id, resource version) as current at `at`; one that has been written anew says more already."""
    if not observations:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE provisioning_observation AS seen SET observed_at = %s FROM (SELECT one.id FROM"
            " provisioning_observation one JOIN unnest(%s::bigint[], %s::text[]) AS read(id, version) ON one.id ="
            " read.id AND one.resource_version = read.version WHERE NOT one.missing AND one.observed_at < %s"
            " ORDER BY one.id FOR NO KEY UPDATE OF one) AS held WHERE seen.id = held.id",
            [at, [pk for pk, _ in observations], [version for _, version in observations], at],
        )
