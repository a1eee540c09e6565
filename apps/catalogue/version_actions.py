"""What people do with versions before they are sealed, and when they are no longer to be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection, transaction
from django.db.models import Max

from apps import audit
from apps.accounts.models import User
from apps.catalogue import checking, classification, events
from apps.catalogue.access import EDIT, MANAGE, locked_model, locked_version
from apps.catalogue.choices import VERSION_TRANSITIONS, Scheme, SourceKind, VersionStatus
from apps.catalogue.manifest import SHA256
from apps.catalogue.models import CardRevision, ModelStore, ModelVersion, VersionSource
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.core.events import EventType
from apps.teams.models import Team

EDITABLE = (
    "label", "location", "store_id", "revision", "model_format", "runtime", "image", "arguments", "environment",
    "parameters", "explainer", "data_classes", "card_id", "trained_at",
)  # fmt: skip
#: Fields that say where the bytes are: with another place, what was hashed is void.
_PLACE = frozenset({"location", "store_id", "revision"})
#: Guards lineage against two people closing a circle at once.
_LINEAGE_LOCK = 0x6C696E65616765  # "lineage"
MAX_SOURCES = 200


@dataclass(frozen=True, slots=True)
class SourceInput:
    """One thing a version was made from: `source_version_id` where it is a version here, else by name and revision."""

    kind: str
    name: str = ""
    source_version_id: int | None = None
    revision: str = ""
    uri: str = ""
    digest: str = ""
    data_classes: Sequence[str] = ()


@transaction.atomic
def create_version(
    model_id: int,
    label: str,
    scheme: str,
    *,
    actor: Actor,
    author_id: int | None = None,
    location: str = "",
    store_id: int | None = None,
    revision: str = "",
    model_format: str = "",
    runtime: str = "",
    image: str = "",
    arguments: Sequence[str] = (),
    environment: dict[str, str] | None = None,
    parameters: dict[str, Any] | None = None,
    explainer: dict[str, str] | None = None,
    data_classes: Sequence[str] = (),
    card_id: int | None = None,
    trained_at: datetime | None = None,
) -> ModelVersion:
    """Begin a version as a draft. The actor is its author; the portal itself names one (`author_id`).

    Without a card the model's newest one is taken. Raises NotVisible, NotAllowed, Conflict, Invalid.
    """
    model = locked_model(model_id, EDIT, actor=actor)
    if model.archived_at is not None:
        raise Conflict("This model is archived: nothing new is added to it.", current={"archived": True})
    author = author_id if actor.is_system else actor.user_id
    if author is None or not User.objects.filter(pk=author).exists():
        raise NotAllowed("A version has an author: a person.")
    if scheme not in Scheme.values:
        raise Invalid({"scheme": "Choose where the files are."})
    # A text is a sequence, too, but no list of arguments.
    given = arguments if isinstance(arguments, str) else list(arguments)
    values = checking.version_fields(
        {
            "label": label, "location": location, "revision": revision, "model_format": model_format,
            "runtime": runtime, "image": image, "arguments": given, "environment": environment or {},
            "parameters": parameters or {}, "explainer": explainer or {}, "data_classes": list(data_classes),
        },
        scheme=scheme,
    )  # fmt: skip
    _check_label(model.pk, values["label"])
    _check_store(scheme, store_id, model.team, values["location"])
    newest = CardRevision.objects.filter(model=model).order_by("-number").first()
    _check_card(model.pk, card_id)
    if trained_at is not None and trained_at > clock.now():
        raise Invalid({"trained_at": "That is still to come."})
    number = (ModelVersion.objects.filter(model=model).aggregate(last=Max("number"))["last"] or 0) + 1
    version = ModelVersion.objects.create(
        model=model, number=max(number, model.last_number + 1), scheme=scheme, store_id=store_id,
        card_id=card_id or (newest.pk if newest else None),
        author_id=author, last_editor_id=author, trained_at=trained_at, **values,
    )  # fmt: skip
    model.last_number = version.number
    model.save(update_fields=["last_number"])
    record(events.VERSION_CREATED, version, actor)
    return version


@transaction.atomic
def edit_version(version_id: int, *, actor: Actor, expected_version: int | None = None, **changes: Any) -> ModelVersion:
    """Change a draft (`EDITABLE`). With another location or revision, the digests computed so far are void.

    Raises NotVisible, NotAllowed, Conflict (it is hashed just now, or sealed), Invalid.
    """
    version = locked_draft(version_id, actor=actor, expected_version=expected_version)
    checking.known(changes, EDITABLE)
    values = checking.version_fields(changes, scheme=version.scheme)
    if "label" in values and values["label"] != version.label:
        _check_label(version.model_id, values["label"], but=version.pk)
    store_id = values.get("store_id", version.store_id)
    if "store_id" in values or "location" in values:
        _check_store(version.scheme, store_id, version.model.team, values.get("location", version.location))
    if "card_id" in values:
        _check_card(version.model_id, values["card_id"])
    if (trained := values.get("trained_at")) is not None and trained > clock.now():
        raise Invalid({"trained_at": "That is still to come."})
    names = checking.changed(version, values)
    if not names:
        return version
    for name in names:
        setattr(version, name, values[name])
    if _PLACE & set(names) and version.scheme != Scheme.UPLOAD:
        version.files.all().delete()
        version.total_bytes = 0
    touch(version, actor, *(name.removesuffix("_id") for name in names), "total_bytes")
    record(events.VERSION_EDITED, version, actor, changed=names)
    return version


@transaction.atomic
def set_sources(
    version_id: int, sources: Sequence[SourceInput], *, actor: Actor, expected_version: int | None = None
) -> ModelVersion:
    """Say what a draft was made from: the whole list anew. Raises NotVisible, NotAllowed, Conflict, Invalid."""
    version = locked_draft(version_id, actor=actor, expected_version=expected_version)
    if len(sources) > MAX_SOURCES:
        raise Invalid({"sources": f"At most {MAX_SOURCES} sources."})
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LINEAGE_LOCK])
    rows = [_source(version, one, actor) for one in sources]
    parents = [row.source_version_id for row in rows if row.source_version_id is not None]
    if circle := _circle(version.pk, parents):
        names = dict(ModelVersion.objects.filter(pk__in=circle).values_list("pk", "label"))
        way = " → ".join(names.get(pk, "?") for pk in circle)
        raise Invalid({"sources": f"A version cannot be made from itself, not even in a roundabout way: {way}."})
    version.sources.all().delete()
    VersionSource.objects.bulk_create(rows)
    touch(version, actor)
    record(events.VERSION_EDITED, version, actor, changed=["sources"])
    return version


def _source(version: ModelVersion, one: SourceInput, actor: Actor) -> VersionSource:
    from apps.catalogue.access import person

    if one.kind not in SourceKind.values:
        raise Invalid({"sources": "Choose what kind of source it is."})
    if one.digest and not SHA256.match(one.digest):
        raise Invalid({"sources": f"“{one.name}”: a digest is 64 hexadecimal digits (SHA-256)."})
    classes = checking.version_fields({"data_classes": list(one.data_classes)}, scheme=version.scheme)["data_classes"]
    name, uri, found = one.name.strip(), one.uri.strip(), one.digest
    if one.source_version_id is not None:
        rows = ModelVersion.objects.all() if actor.is_system else ModelVersion.objects.visible_to(person(actor))
        parent = rows.select_related("model").filter(pk=one.source_version_id).first()
        if parent is None:
            raise Invalid({"sources": "There is no such version, or you may not see it."})
        name, found = name or str(parent), parent.digest
        if one.kind == SourceKind.ADAPTER and not uri and parent.digest:
            from apps.catalogue.manifest import parse

            uri = parse(parent.manifest).storage_uri
    if not name or len(name) > 300 or len(one.revision) > 200 or len(uri) > 1000:
        raise Invalid({"sources": "Each source has a name, and a revision where it has one."})
    if one.kind == SourceKind.ADAPTER and not uri and one.source_version_id is None:
        raise Invalid({"sources": f"“{name}”: an adapter is loaded by a URI: s3://…, oci://…@sha256:…"})
    return VersionSource(
        model_version=version, kind=one.kind, source_version_id=one.source_version_id, name=name,
        revision=one.revision.strip(), uri=uri, digest=found, data_classes=classes,
    )  # fmt: skip


def _circle(version_id: int, parents: Sequence[int]) -> list[int]:
    """Return the way round that new parents would close; empty: none."""
    edges: dict[int, list[int]] = {version_id: list(parents)}
    frontier = set(parents)
    while frontier := frontier - edges.keys():
        rows = VersionSource.objects.filter(model_version_id__in=frontier, source_version__isnull=False)
        found = list(rows.values_list("model_version_id", "source_version_id"))
        edges.update({pk: [] for pk in frontier})
        for child, parent in found:
            if parent is not None:
                edges[child].append(parent)
        frontier = {parent for _, parent in found if parent}
    try:
        classification.post_order(version_id, lambda at: edges.get(at, ()))
    except classification.Cycle as cycle:
        return cycle.path
    return []


@transaction.atomic
def discard_version(version_id: int, *, actor: Actor, expected_version: int | None = None) -> None:
    """Throw a draft away; its number is not used again. Raises NotVisible, NotAllowed, Conflict."""
    version = locked_draft(version_id, actor=actor, expected_version=expected_version)
    if version.derived.exists():
        raise Conflict("Another version names this one as its source. Change its sources first.")
    if version.exceptions.exists() or version.evidence.exists():
        raise Conflict("Evidence or an exception hangs on this version: it is kept as a draft.")
    record(events.VERSION_DISCARDED, version, actor)
    version.delete()


@transaction.atomic
def retire_version(version_id: int, reason: str, *, actor: Actor, expected_version: int | None = None) -> ModelVersion:
    """Take a sealed version out of use: it is offered for nothing new. What runs is not touched.

    Raises NotVisible, NotAllowed, Conflict, Invalid.
    """
    version = locked_version(version_id, MANAGE, actor=actor, expected_version=expected_version)
    version.status = VERSION_TRANSITIONS.next(version.status, "retire")
    why = checking.reason(reason)
    version.retired_at = clock.now()
    version.bump("status", "retired_at")
    record(events.VERSION_RETIRED, version, actor, reason=why)
    return version


@transaction.atomic
def reinstate_version(version_id: int, *, actor: Actor, expected_version: int | None = None) -> ModelVersion:
    """Take a retired version back into use. Raises NotVisible, NotAllowed, Conflict."""
    version = locked_version(version_id, MANAGE, actor=actor, expected_version=expected_version)
    version.status = VERSION_TRANSITIONS.next(version.status, "restore")
    version.retired_at = None
    version.bump("status", "retired_at")
    record(events.VERSION_REINSTATED, version, actor)
    return version


def locked_draft(version_id: int, *, actor: Actor, expected_version: int | None = None) -> ModelVersion:
    """Return a draft, locked, that this actor may edit. Raises NotVisible, NotAllowed, Conflict."""
    version = locked_version(version_id, EDIT, actor=actor, expected_version=expected_version)
    if version.status == VersionStatus.HASHING:
        raise Conflict("Its files are being hashed. Wait until that is done, or cancel it.", current=_now(version))
    if version.status != VersionStatus.DRAFT:
        raise Conflict("A sealed version never changes. Make a new one for what is different.", current=_now(version))
    return version


def touch(version: ModelVersion, actor: Actor, *fields: str) -> None:
    """Save the named fields with a new version number; a person becomes the last editor."""
    if actor.user_id is not None:
        version.last_editor_id = actor.user_id
        version.editors = sorted({*version.editors, actor.user_id})
    version.bump(*fields, "last_editor", "editors")


def _now(version: ModelVersion) -> dict[str, Any]:
    return {"status": version.status, "version": version.version}


def _check_label(model_id: int, label: str, *, but: int = 0) -> None:
    if ModelVersion.objects.filter(model_id=model_id, label__iexact=label).exclude(pk=but).exists():
        raise Invalid({"label": f"This model has a version “{label}” already. A label is never used twice."})


def _check_card(model_id: int, card_id: int | None) -> None:
    if card_id is not None and not CardRevision.objects.filter(pk=card_id, model_id=model_id).exists():
        raise Invalid({"card": "That is no revision of this model's card."})


def usable_stores(team: Team) -> Any:
    """Return the stores from which a team's versions may be read."""
    from django.db.models import Q

    rows = ModelStore.objects.filter(archived_at__isnull=True)
    return rows.filter(Q(teams__isnull=True) | Q(teams=team)).distinct().order_by("name", "pk")


def _check_store(scheme: str, store_id: int | None, team: Team, location: str) -> None:
    if store_id is None:
        return
    store = usable_stores(team).filter(pk=store_id).first()
    if store is None:
        raise Invalid({"store": "Choose one of the stores open to this team."})
    if store.scheme != scheme:
        raise Invalid({"store": f"{store} keeps {store.get_scheme_display()}, not what was chosen as place."})
    from apps.catalogue.stores import outside

    if words := outside(store, location):
        raise Invalid({"location": words})


def record(
    event: EventType, version: ModelVersion, actor: Actor, *, changed: Sequence[str] = (), reason: str = ""
) -> None:
    """Write an audit event about a version."""
    model = version.model
    audit.record(
        event,
        events.VersionEvent(
            version.uid, model.uid, version.label, version.status, version.digest, list(changed),
            list(version.classification),
        ),
        actor=actor, subject_type="catalogue.version", subject_uid=version.uid, team_uid=model.team.uid,
        after_digest=version.digest, reason=reason,
    )  # fmt: skip
