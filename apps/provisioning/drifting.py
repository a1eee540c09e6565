"""Findings: which declared field lives differently, who changed it and when. Called by whoever read the objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from apps import audit
from apps.core import outbox
from apps.core.actor import Actor
from apps.provisioning import diff, events, ownership
from apps.provisioning.among import Among
from apps.provisioning.choices import DeclarationStatus, DriftDecision, DriftResolution
from apps.provisioning.models import Declaration, DeclaredObject, Drift
from apps.provisioning.ordering import Key

#: Values longer than this are cut in findings.
SHOWN_CHARACTERS = 2000
#: The field under which it is found that an object is about to vanish.
BEING_DELETED = "metadata.deletionTimestamp"


@dataclass(frozen=True, slots=True)
class Found:
    """One difference of one object."""

    field: str
    declared: str
    live: str
    manager: str = ""
    operation: str = ""
    changed_at: datetime | None = None


#: (declaration, object) → what was found there; an empty list: it lives as declared.
Judged = dict[tuple[int, Key], list[Found]]


def judge(
    judged: Judged, row: DeclaredObject, key: Key, obj: Mapping[str, Any] | None, changes: Sequence[diff.Change]
) -> None:
    """Add what differs, once the newest generation is applied; before that, differences are work to be done."""
    declaration = row.declaration
    if declaration.status != DeclarationStatus.APPLIED or declaration.observed_generation != declaration.generation:
        return
    found = judged.setdefault((declaration.pk, key), [])
    if obj is None:
        found.append(Found("", "present", "missing"))
        return
    if going := (obj.get("metadata") or {}).get("deletionTimestamp"):
        found.append(Found(BEING_DELETED, "absent", f"being deleted since {going}"))
    for change in changes:
        owner = _changer(obj, change)
        found.append(
            Found(
                change.text_path[:500],
                (diff.show(change.before) or "")[:SHOWN_CHARACTERS],
                (diff.show(change.after) or "")[:SHOWN_CHARACTERS],
                owner.manager[:128] if owner else "",
                owner.operation[:20] if owner else "",
                owner.at if owner else None,
            )
        )


def _changer(obj: Mapping[str, Any], change: diff.Change) -> ownership.Owner | None:
    # Nobody holds a field that was taken away, and who holds its neighbours is no evidence.
    return ownership.foreign_owner(obj, change.path, exact=change.after is None)


def open_keys(declaration_ids: Iterable[int]) -> set[tuple[int, Key]]:
    """Return which objects of these declarations have drift that is not resolved."""
    rows = Drift.objects.filter(declaration_id__in=set(declaration_ids), resolved_at__isnull=True)
    return {(pk, Key(*key)) for pk, *key in rows.values_list("declaration_id", "kind", "namespace", "name")}


def record(judged: Judged, at: datetime) -> int:
    """Open, update and resolve findings; returns how many rows moved. Each new drift is told once."""
    if not judged:
        return 0
    declaration_ids = {pk for pk, _ in judged}
    known = {
        (row.declaration_id, Key(row.kind, row.namespace, row.name), row.field): row
        for row in Drift.objects.filter(declaration_id__in=declaration_ids, resolved_at__isnull=True)
    }
    moved = 0
    told: dict[tuple[int, Key], list[Found]] = {}
    fresh: list[Drift] = []
    for (pk, key), founds in judged.items():
        for found in founds:
            row = known.pop((pk, key, found.field), None)
            if row is None:
                fresh.append(_row(pk, key, found, at))
                told.setdefault((pk, key), []).append(found)
            elif (row.declared, row.live, row.manager) != (found.declared, found.live, found.manager):
                if _moved_on(row, found):
                    told.setdefault((pk, key), []).append(found)
                moved += 1
    over = [row.pk for (pk, key, _), row in known.items() if (pk, key) in judged]
    moved += Drift.objects.filter(pk__in=over).update(resolved_at=at, resolution=DriftResolution.GONE)
    Drift.objects.bulk_create(fresh, ignore_conflicts=True)
    for (pk, key), founds in told.items():
        _tell(pk, key, founds)
    return moved + len(fresh)


def _row(pk: int, key: Key, found: Found, at: datetime) -> Drift:
    return Drift(
        declaration_id=pk, kind=key.kind, namespace=key.namespace, name=key.name, field=found.field,
        declared=found.declared, live=found.live, manager=found.manager, operation=found.operation,
        changed_at=found.changed_at, found_at=at,
    )  # fmt: skip


def _moved_on(row: Drift, found: Found) -> bool:
    """Write a finding that changed; True where that opens one again which somebody had decided to leave."""
    reopened = row.ignored_until is not None and row.ignored_live != found.live
    row.declared, row.live, row.manager = found.declared, found.live, found.manager
    row.operation, row.changed_at = found.operation, found.changed_at
    if reopened:
        row.ignored_until, row.ignored_live, row.decision = None, "", DriftDecision.NONE
    row.save(
        update_fields=[
            "declared", "live", "manager", "operation", "changed_at", "ignored_until", "ignored_live", "decision",
        ]
    )  # fmt: skip
    return reopened


def applied(live: Mapping[int, set[Key]], at: datetime) -> None:
    """Resolve the findings of objects that an apply run has just made live as declared (declaration → keys)."""
    rows = Drift.objects.filter(Among("declaration_id", live), resolved_at__isnull=True)
    by_resolution: dict[DriftResolution, list[int]] = {}
    for row in rows:
        if Key(row.kind, row.namespace, row.name) in live[row.declaration_id]:
            adopted = row.decision == DriftDecision.ADOPT and row.change_uid is not None
            resolution = DriftResolution.ADOPTED if adopted else DriftResolution.REAPPLIED
            by_resolution.setdefault(resolution, []).append(row.pk)
    for kind, pks in by_resolution.items():
        Drift.objects.filter(pk__in=pks).update(resolved_at=at, resolution=kind)


def _tell(declaration_id: int, key: Key, founds: Sequence[Found]) -> None:
    from apps.provisioning.actions import team_uid_of
    from apps.teams import scope

    declaration = Declaration.objects.select_related("cluster").get(pk=declaration_id)
    payload = events.DriftEvent(
        str(declaration.uid),
        declaration.cluster.slug,
        declaration.title,
        str(key),
        [found.field or "the object itself" for found in founds][:50],
        sorted({found.manager for found in founds if found.manager}),
    )
    audit.record(
        events.DRIFTED,
        payload,
        actor=Actor.system("provisioning.observe"),
        subject_type="provisioning.declaration",
        subject_uid=declaration.uid,
        team_uid=team_uid_of(declaration.team_id),
    )
    outbox.publish(
        events.DRIFTED, payload, recipients=scope.holders("provisioning.drift.decide"), subject_uid=declaration.uid
    )
