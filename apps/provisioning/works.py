"""Declarations as work for the applier, which knows no rows."""

from __future__ import annotations

from collections.abc import Sequence

from apps.provisioning.applier import Target, Work
from apps.provisioning.choices import Handling, Removal
from apps.provisioning.models import Declaration, DeclaredObject
from apps.provisioning.ordering import Key


def works_of(declarations: Sequence[Declaration]) -> dict[int, Work]:
    """Return the newest generations of declarations as work for the applier, by declaration id, in one query."""
    targets: dict[int, list[Target]] = {row.pk: [] for row in declarations}
    remove: dict[int, list[Key]] = {row.pk: [] for row in declarations}
    unplanned: dict[int, list[Key]] = {row.pk: [] for row in declarations}
    for row in DeclaredObject.objects.filter(declaration__in=list(targets)).order_by("ordinal", "pk"):
        key = Key(row.kind, row.namespace, row.name)
        if row.removal == Removal.NONE:
            targets[row.declaration_id].append(target_of(row))
        elif row.removal == Removal.PLANNED:
            remove[row.declaration_id].append(key)
        elif row.removal == Removal.UNPLANNED:
            unplanned[row.declaration_id].append(key)
    return {
        row.pk: Work(targets[row.pk], remove[row.pk], unplanned[row.pk], take_over=row.take_over)
        for row in declarations
    }


def target_of(row: DeclaredObject) -> Target:
    """Return a declared object as the applier takes it."""
    return Target(
        Key(row.kind, row.namespace, row.name),
        bytes(row.body),
        bytes(row.applied_body),
        row.settled_object,
        take_over=row.handling == Handling.TAKE_OVER,
        leave=row.handling == Handling.LEAVE,
        last=row.last_applied,
    )
