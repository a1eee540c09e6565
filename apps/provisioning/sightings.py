"""What was seen to live as declared and has not moved: known without another look at it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from django.db import connection

from apps.provisioning.choices import Handling, Removal
from apps.provisioning.ordering import Key


@dataclass(frozen=True, slots=True)
class Known:
    """What is declared, and at which resource version it was last seen to live so ("": that is not known).

    `barred` are declarations with something to remove, or about which a person has decided something for once: they
    always need an attempt of their own.
    """

    objects: dict[int, dict[Key, str]] = field(default_factory=dict)
    barred: set[int] = field(default_factory=set)


def known_of(declaration_ids: Sequence[int]) -> Known:
    """Return by declaration, for each object that it holds, the resource version last seen to live as declared.

    An object that the portal applied as it is declared now, and that still has this version, needs no other look.
    """
    known = Known()
    with connection.cursor() as cursor:
        # One row of JSON per declaration: thousands of rows of eight columns cost more to read than all of the rest.
        cursor.execute(
            "SELECT object.declaration_id, bool_or(object.removal <> '' OR object.handling <> %s), json_agg("
            "json_build_array(object.kind, object.namespace, object.name, CASE WHEN object.settled <> ''"
            " AND object.applied_body = object.body THEN seen.resource_version END)) FILTER (WHERE object.removal = '')"
            " FROM provisioning_declaredobject object LEFT JOIN provisioning_observation seen"
            " ON seen.cluster_id = object.cluster_id AND seen.kind = object.kind AND seen.namespace = object.namespace"
            " AND seen.name = object.name AND seen.declaration_id = object.declaration_id"
            " AND seen.declared_digest = object.digest AND NOT seen.missing"
            " WHERE object.declaration_id = ANY(%s) AND object.removal <> %s GROUP BY object.declaration_id",
            [Handling.NORMAL, list(declaration_ids), Removal.RETAINED],
        )
        for pk, barred, objects in cursor.fetchall():
            rows = json.loads(objects) if isinstance(objects, str) else objects or ()
            known.objects[pk] = {Key(kind, namespace, name): version or "" for kind, namespace, name, version in rows}
            if barred:
                known.barred.add(pk)
    return known
