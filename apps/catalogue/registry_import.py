"""Registered models and versions become models and drafts of the team that owns them: once, and never sealed.

What people edit afterwards stays theirs: nothing here writes to a model or version that exists. A registry is
believed in nothing that would lower a demand: data classes are added by a tag, never taken away.
"""

from __future__ import annotations

import re
import uuid
from typing import Any

from django.db import transaction
from django.utils.text import slugify

from apps.accounts.models import User
from apps.catalogue import model_actions, version_actions
from apps.catalogue.checking import LABEL
from apps.catalogue.choices import RegistryKind, Scheme, SourceKind
from apps.catalogue.models import Model, ModelVersion, Registry, RegistryModel, RegistryVersion
from apps.catalogue.registry_diff import ARCHIVED
from apps.core import leases
from apps.core.actor import Actor
from apps.core.errors import CommonsError, Invalid
from apps.core.row_security import lifted
from apps.quotas.choices import DataClass
from apps.teams import scope
from apps.teams.models import Team

#: Imports of one poll; the next one goes on where it stopped.
BATCH = 200
#: What is assumed of the data until a person of the team has said it.
ASSUMED = DataClass.CONFIDENTIAL
CLASSES_TAG = "data_classes"
_OCI = re.compile(r"^(oci://[^\s@]+)@(sha256:[0-9a-f]{64})$")
_HF = re.compile(r"^(hf://[^\s@:]+)[@:]([0-9a-f]{40})$")


def place_of(location: str) -> tuple[str, str, str]:
    """Return scheme, location and revision of where a registry says the files are.

    Only what clusters can load by itself is taken over; for everything else (the registry's own artifact store, a
    path on somebody's disk) the files have to be uploaded or named by a person.
    """
    if found := _OCI.match(location):
        return Scheme.OCI, found[1], found[2]
    if found := _HF.match(location):
        return Scheme.HF, found[1], found[2]
    if location.startswith("s3://"):
        return Scheme.S3, location.rstrip("/"), ""
    if location.startswith("pvc://"):
        return Scheme.PVC, location.rstrip("/"), ""
    return Scheme.UPLOAD, "", ""


def waiting_models(registry: Registry) -> list[tuple[int, Team]]:
    """Return entries that are not imported and have an owner, with that team, oldest first.

    The owner is the team that the entry's tag names by its slug, else the registry's default. Entries without one stay
    listed for platform admins.
    """
    entries = RegistryModel.objects.filter(registry=registry, model__isnull=True, gone_at__isnull=True, problem="")
    rows = list(entries.exclude(seen__state=ARCHIVED).order_by("pk").values_list("pk", "seen__tags"))
    teams = {team.slug: team for team in Team.objects.filter(archived_at__isnull=True)} if rows else {}
    default = next((team for team in teams.values() if team.pk == registry.default_team_id), None)
    found = [(pk, teams.get((tags or {}).get(registry.team_tag, ""), default)) for pk, tags in rows]
    return [(pk, team) for pk, team in found if team is not None]


def waiting_versions(registry: Registry) -> list[RegistryVersion]:
    """Return versions of imported models that are not imported yet, oldest first, at most one more than a batch."""
    rows = RegistryVersion.objects.filter(
        registry_model__registry=registry, registry_model__model__archived_at__isnull=True,
        registry_model__model__isnull=False, model_version__isnull=True, gone_at__isnull=True,
        registry_model__gone_at__isnull=True, problem="",
    ).exclude(seen__state=ARCHIVED).exclude(registry_model__seen__state=ARCHIVED)  # fmt: skip
    return list(rows.select_related("registry_model").order_by("pk")[: BATCH + 1])


@transaction.atomic
def import_model(entry_id: int, team: Team, *, actor: Actor) -> Model:
    """Register an entry as a model of a team. Raises Invalid, Conflict (archived team)."""
    entry = RegistryModel.objects.select_related("registry").locked(entry_id)
    if entry.model is not None:
        return entry.model
    tags = entry.seen.get("tags", {})
    named = [one.strip().lower() for one in re.split(r"[,; ]+", tags.get(CLASSES_TAG, "")) if one.strip()]
    known = {one for one in named if one in DataClass.values and one not in (DataClass.PUBLIC, DataClass.INTERNAL)}
    said = " ".join(str(entry.seen.get("description", "")).split())[:3000]
    purpose = f"Imported from {entry.registry.name}. Say here what it is for."
    purpose += f" There it says: {said}" if said else ""
    model = model_actions.register_model(
        team.pk, entry.name[:200], actor=actor, purpose=purpose, data_classes=sorted({ASSUMED, *known}),
        slug=_free_slug(entry.name),
    )  # fmt: skip
    entry.model, entry.problem = model, ""
    entry.bump("model", "problem")
    return model


@transaction.atomic
def import_version(row_id: int, location: str, *, actor: Actor) -> ModelVersion | None:
    """Begin a draft from a registered version; None where there is one already. Raises Invalid, Conflict."""
    rows = RegistryVersion.objects.select_related("registry_model__registry", "registry_model__model__team")
    row = rows.locked(row_id)
    entry = row.registry_model
    if row.model_version_id is not None or entry.model is None or entry.model.archived_at is not None:
        return None
    scheme, place, revision = place_of(location)
    values: dict[str, Any] = {"model_format": str(row.seen.get("format", ""))[:60]}
    if scheme != Scheme.UPLOAD:
        values |= {"location": place, "revision": revision}
    label = _free_label(entry.model, row)
    author = _author(entry.registry, entry.model, str(row.seen.get("author", "")))
    try:
        with transaction.atomic():
            version = version_actions.create_version(
                entry.model.pk, label, scheme, actor=actor, author_id=author, **values
            )
    except Invalid:
        # A place that our rules do not take (a space in it, say) is no reason not to list the version.
        version = version_actions.create_version(entry.model.pk, label, Scheme.UPLOAD, actor=actor, author_id=author)
    name = row.run_id or f"{entry.name} {row.foreign_version}"
    source = version_actions.SourceInput(
        SourceKind.TRAINING_RUN, name=f"{entry.registry.name}: {name}"[:300], revision=row.run_id[:200],
        uri=(location or row.source)[:1000],
    )  # fmt: skip
    version_actions.set_sources(version.pk, [source], actor=actor)
    version.refresh_from_db()
    row.model_version, row.problem = version, ""
    row.bump("model_version", "problem")
    return version


def import_models(found: list[tuple[int, Team]], *, lease: tuple[str, uuid.UUID], actor: Actor) -> int:
    """Import entries, each in a transaction of its own. Returns how many were imported."""
    count = 0
    for pk, team in found:
        with transaction.atomic():
            leases.require(*lease)
            try:
                with transaction.atomic():
                    import_model(pk, team, actor=actor)
                count += 1
            except CommonsError as error:
                _problem(RegistryModel.objects.filter(pk=pk), error)
    return count


def import_versions(located: dict[int, str], *, lease: tuple[str, uuid.UUID], actor: Actor) -> int:
    """Import versions, each in a transaction of its own: one that cannot be taken holds up no other."""
    count = 0
    for pk, location in located.items():
        with transaction.atomic():
            leases.require(*lease)
            try:
                with transaction.atomic():
                    count += import_version(pk, location, actor=actor) is not None
            except CommonsError as error:
                _problem(RegistryVersion.objects.filter(pk=pk), error)
    return count


def _problem(rows: Any, error: CommonsError) -> None:
    words = " ".join(m for texts in error.errors.values() for m in texts) if isinstance(error, Invalid) else ""
    rows.update(problem=(words or error.message or "It cannot be taken.")[:500])


@lifted("slugs are unique across all teams")
def _free_slug(name: str) -> str:
    base = slugify(name)[:50].strip("-") or "model"
    taken = set(Model.objects.filter(slug__startswith=base).values_list("slug", flat=True))
    return next(one for one in (base, *(f"{base}-{number}" for number in range(2, len(taken) + 3))) if one not in taken)


def _free_label(model: Model, row: RegistryVersion) -> str:
    kubeflow = row.registry_model.registry.kind == RegistryKind.KUBEFLOW
    said = str(row.seen.get("tags", {}).get("name", "")) if kubeflow else ""
    wanted = next((one for one in (said, row.foreign_version) if LABEL.match(one)), f"v{row.pk}")[:45]
    taken = {one.lower() for one in ModelVersion.objects.filter(model=model).values_list("label", flat=True)}
    more = (f"{wanted}-imported{number or ''}" for number in range(len(taken) + 1))
    return next(one for one in (wanted, *more) if one.lower() not in taken)


def _author(registry: Registry, model: Model, said: str) -> int | None:
    """Return who counts as the author: the person whom the registry names, if of the owning team; else its keeper.

    A registry may say what it likes: naming somebody only ever excludes people from deciding, who would be anyway.
    """
    person = User.objects.filter(email__iexact=said, is_active=True).first() if "@" in said else None
    if person is not None and person.pk in scope.members(model.team_id):
        return person.pk
    return registry.keeper_id
