"""What was read of a registry becomes rows and findings, in one transaction. Nothing imported changes because of it."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.urls import reverse

from apps import audit
from apps.catalogue import registry_diff as diff
from apps.catalogue import registry_events as events
from apps.catalogue.choices import RegistryFindingKind as Kind
from apps.catalogue.models import Registry, RegistryFinding, RegistryModel, RegistryVersion
from apps.catalogue.registry_clients import Reading
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.teams import scope

SYSTEM = "catalogue.registries"
#: Findings of which people are told one by one; a poll that finds more is told as findings on the page.
TOLD = 20
_TEXT = 4_000


@dataclass(frozen=True, slots=True)
class Recorded:
    """How many rows moved."""

    models: int = 0
    versions: int = 0
    findings: int = 0


def known_models(registry: Registry) -> list[diff.KnownModel]:
    """Return the rows of a registry's models as `registry_diff` matches them."""
    prints: dict[int, set[tuple[str, str, str, str]]] = {}
    fields = ("registry_model_id", "foreign_version", "seen__born", "run_id", "source")
    for pk, number, born, run, source in RegistryVersion.objects.filter(
        registry_model__registry=registry, gone_at__isnull=True
    ).values_list(*fields):
        prints.setdefault(pk, set()).add((number, born or "", run, source))
    rows = RegistryModel.objects.filter(registry=registry).order_by("pk")
    return [
        diff.KnownModel(
            row.pk, row.foreign_id, row.name, str(row.seen.get("born", "")), row.gone_at is not None,
            frozenset(prints.get(row.pk, ())),
        )
        for row in rows
    ]  # fmt: skip


def missing_versions(registry: Registry, matched: diff.Matched, reading: Reading) -> dict[int, tuple[str, str]]:
    """Return the versions that were there and were not seen, of models that were: row → (model key, number)."""
    keys = {pk: key for key, pk in matched.rows.items()}
    rows = RegistryVersion.objects.filter(registry_model__in=keys, gone_at__isnull=True).values_list(
        "pk", "registry_model_id", "foreign_version"
    )
    return {pk: (keys[model], number) for pk, model, number in rows if (keys[model], number) not in reading.versions}


class Recorder:
    """Writes one reading. Call inside the transaction that holds the registry's row and lease."""

    def __init__(self, registry: Registry, reading: Reading, matched: diff.Matched) -> None:
        self.registry, self.reading, self.matched = registry, reading, matched
        self.at = clock.now()
        self.findings: list[RegistryFinding] = []
        self.moved = {"models": 0, "versions": 0}

    def record(self, gone_models: Collection[int], gone_versions: Collection[int]) -> Recorded:
        """Write models, versions, what is gone, and what changed."""
        rows = self._models()
        versions = self._versions(rows)
        self._gone(gone_models, gone_versions)
        RegistryModel.objects.filter(pk__in=[row.pk for row in rows.values()]).update(last_seen_at=self.at)
        RegistryVersion.objects.filter(pk__in=versions).update(last_seen_at=self.at)
        self._tell()
        return Recorded(self.moved["models"], self.moved["versions"], len(self.findings))

    def _models(self) -> dict[str, RegistryModel]:
        known = {row.pk: row for row in RegistryModel.objects.filter(registry=self.registry).select_related("model")}
        taken = {row.foreign_id for row in known.values()}
        found: dict[str, RegistryModel] = {}
        for key, model in self.reading.models.items():
            seen = diff.seen_of_model(model)
            if (pk := self.matched.rows.get(key)) is None:
                foreign = model.stable_id or model.name
                if foreign in taken:
                    # The name was another model's: the time of creation tells them apart.
                    foreign = f"{foreign[:240]}@{model.born[:40] or uuid.uuid4().hex}"
                taken.add(foreign)
                found[key] = RegistryModel.objects.create(
                    registry=self.registry, foreign_id=foreign, name=model.name, seen=seen, first_seen_at=self.at,
                    last_seen_at=self.at,
                )  # fmt: skip
                self.moved["models"] += 1
                continue
            row = found[key] = known[pk]
            if row.name == model.name and row.seen == seen and row.gone_at is None:
                continue
            for change in diff.model_changes(row.name, row.seen, model):
                self._found(change, row)
            row.name, row.seen, row.gone_at, row.problem = model.name, seen, None, ""
            row.bump("name", "seen", "gone_at", "problem")
            self.moved["models"] += 1
        return found

    def _versions(self, models: dict[str, RegistryModel]) -> list[int]:
        by_pk = {row.pk: row for row in models.values()}
        known = {
            (row.registry_model_id, row.foreign_version): row
            for row in RegistryVersion.objects.filter(registry_model__in=by_pk).select_related("model_version")
        }
        present, added = [], []
        for (key, number), version in self.reading.versions.items():
            model = models[key]
            seen = diff.seen_of_version(version)
            row = known.get((model.pk, number))
            if row is None:
                added.append(
                    RegistryVersion(
                        registry_model=model, foreign_version=number, source=version.source, run_id=version.run_id,
                        seen=seen, first_seen_at=self.at, last_seen_at=self.at,
                    )
                )  # fmt: skip
                continue
            present.append(row.pk)
            same = (row.source, row.run_id, row.seen) == (version.source, version.run_id, seen)
            if same and row.gone_at is None:
                continue
            for change in diff.version_changes(row.seen, row.source, row.run_id, version):
                self._found(change, model, row)
            row.source, row.run_id, row.seen = version.source, version.run_id, seen
            row.gone_at, row.problem = None, ""
            row.bump("source", "run_id", "seen", "gone_at", "problem")
            self.moved["versions"] += 1
        RegistryVersion.objects.bulk_create(added, batch_size=1000)
        self.moved["versions"] += len(added)
        return present

    def _gone(self, models: Collection[int], versions: Collection[int]) -> None:
        for row in RegistryVersion.objects.filter(pk__in=versions, gone_at__isnull=True).select_related(
            "registry_model__model"
        ):
            row.gone_at = self.at
            row.bump("gone_at")
            self._found(
                diff.Change(Kind.DELETED_VERSION, "", row.foreign_version, ""), row.registry_model, row
            )  # fmt: skip
            self.moved["versions"] += 1
        for model in RegistryModel.objects.filter(pk__in=models, gone_at__isnull=True).select_related("model"):
            model.gone_at = self.at
            model.bump("gone_at")
            self._found(diff.Change(Kind.DELETED_MODEL, "", model.name, ""), model)
            # One finding says it; its versions went with it.
            RegistryVersion.objects.filter(registry_model=model, gone_at__isnull=True).update(gone_at=self.at)
            self.moved["models"] += 1

    def _found(self, change: diff.Change, model: RegistryModel, version: RegistryVersion | None = None) -> None:
        self.findings.append(write_finding(self.registry, change, model, version, at=self.at))

    def _tell(self) -> None:
        for finding in self.findings[:TOLD]:
            tell(finding)


def write_finding(
    registry: Registry,
    change: diff.Change,
    model: RegistryModel,
    version: RegistryVersion | None = None,
    *,
    at: datetime | None = None,
) -> RegistryFinding:
    """Write a finding with its audit event. One that is open about the same thing is carried on: its *before* stays."""
    when = at or clock.now()
    key, before, after = change.key[:200], change.before[:_TEXT], change.after[:_TEXT]
    row = RegistryFinding.objects.filter(
        registry=registry, registry_model=model, registry_version=version, kind=change.kind, key=key,
        acknowledged_at__isnull=True,
    ).first()  # fmt: skip
    if row is None:
        row = RegistryFinding.objects.create(
            registry=registry, registry_model=model, registry_version=version, kind=change.kind, key=key,
            before=before, after=after, found_at=when,
        )  # fmt: skip
    else:
        row.after, row.found_at = after, when
        row.bump("after", "found_at")
    team = model.model.team.uid if model.model is not None else None
    audit.record(
        events.REGISTRY_FINDING, payload_of(row), actor=Actor.system(SYSTEM), subject_type="catalogue.finding",
        subject_uid=row.uid, team_uid=team,
    )  # fmt: skip
    return row


def payload_of(row: RegistryFinding, *, note: str = "") -> events.RegistryFindingEvent:
    """Return what an event says of a finding."""
    name = row.registry_model.name if row.registry_model is not None else row.registry.name
    if row.registry_version is not None:
        name = f"{name} {row.registry_version.seen.get('tags', {}).get('name') or row.registry_version.foreign_version}"
    return events.RegistryFindingEvent(
        row.registry.uid, row.uid, row.kind, words=row.get_kind_display(), model_name=name, before=row.before[:500],
        after=row.after[:500], note=note,
        path=reverse("catalogue:registry-finding-acknowledge", kwargs={"finding_uid": row.uid}),
    )  # fmt: skip


def tell(row: RegistryFinding) -> None:
    """Queue a message: to the leads of the owning team, to platform admins where nobody owns the model."""
    model: Any = row.registry_model.model if row.registry_model is not None else None
    people: Iterable[int] = (
        scope.holders("catalogue.model.manage", team_id=model.team_id)
        if model is not None
        else scope.holders("catalogue.registry.manage")
    )
    outbox.publish(events.REGISTRY_FINDING, payload_of(row), recipients=people, subject_uid=row.uid)
