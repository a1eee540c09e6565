"""What platform admins do with stores. Credentials go in and never come out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from django.db import IntegrityError, transaction
from django.utils.text import slugify

from apps import audit
from apps.catalogue import checking, events
from apps.catalogue.access import STORE_MANAGE, require_everywhere
from apps.catalogue.choices import Scheme
from apps.catalogue.models import ModelStore
from apps.catalogue.reading.pvc import mounts
from apps.catalogue.stores import CREDENTIALS
from apps.clusters import crypto
from apps.clusters.addresses import check_address
from apps.clusters.errors import ClusterError
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid
from apps.core.events import EventType
from apps.teams.models import Team

EDITABLE = ("name", "endpoint", "prefix", "region", "ca_certificate", "takes_copies")


@transaction.atomic
def add_store(
    name: str,
    scheme: str,
    *,
    actor: Actor,
    endpoint: str,
    slug: str = "",
    prefix: str = "",
    region: str = "",
    ca_certificate: str = "",
    credentials: Mapping[str, str] | None = None,
    team_ids: Sequence[int] = (),
    takes_copies: bool = False,
) -> ModelStore:
    """Add a store. No teams: open to every team. `takes_copies`: the portal may write approved files there.

    Raises NotAllowed, Invalid.
    """
    require_everywhere(actor, STORE_MANAGE)
    if scheme not in CREDENTIALS:
        raise Invalid({"scheme": "Choose what kind of store it is."})
    values = _checked(
        {
            "name": name,
            "endpoint": endpoint,
            "prefix": prefix,
            "region": region,
            "ca_certificate": ca_certificate,
            "takes_copies": takes_copies,
        },
        scheme,
    )
    _takes(takes_copies, scheme, values["prefix"])
    short = slug or slugify(values["name"])[:60].strip("-")
    if not checking.SLUG.match(short):
        raise Invalid({"slug": "Small letters, digits and single dashes: models-frankfurt."})
    try:
        with transaction.atomic():
            store = ModelStore.objects.create(
                slug=short, scheme=scheme, credentials=_sealed(scheme, credentials or {}), **values
            )
    except IntegrityError as error:
        raise Invalid({"slug": f"“{short}” is taken by another store."}) from error
    _teams(store, team_ids)
    _record(events.STORE_ADDED, store, actor)
    return store


@transaction.atomic
def edit_store(
    store_id: int,
    *,
    actor: Actor,
    expected_version: int | None = None,
    credentials: Mapping[str, str] | None = None,
    team_ids: Sequence[int] | None = None,
    **changes: Any,
) -> ModelStore:
    """Change a store (`EDITABLE`). `credentials` None: as they are; empty: none any more.

    With another address the credentials have to be given anew: they must not be sent to a place they were not meant
    for. Raises NotVisible, NotAllowed, Conflict, Invalid.
    """
    store = _locked(store_id, actor, expected_version)
    checking.known(changes, EDITABLE)
    values = _checked(changes, store.scheme)
    _takes(values.get("takes_copies", store.takes_copies), store.scheme, values.get("prefix", store.prefix))
    names = checking.changed(store, values)
    if "endpoint" in names and store.credentials and credentials is None:
        raise Invalid({"credentials": "Enter the credentials anew: they are not sent to another address unasked."})
    for name in names:
        setattr(store, name, values[name])
    if credentials is not None:
        store.credentials = _sealed(store.scheme, credentials)
        names = [*names, "credentials"]
    if team_ids is not None and set(team_ids) != set(store.teams.values_list("pk", flat=True)):
        _teams(store, team_ids)
        names = [*names, "teams"]
    if not names:
        return store
    store.bump(*(name for name in names if name != "teams"))
    _record(events.STORE_EDITED, store, actor, changed=names)
    return store


@transaction.atomic
def archive_store(store_id: int, *, actor: Actor, expected_version: int | None = None) -> ModelStore:
    """Offer a store for nothing new; what was hashed from it stays. Raises NotVisible, NotAllowed, Conflict."""
    store = _locked(store_id, actor, expected_version)
    if store.archived_at is not None:
        raise Conflict("This store is archived already.", current={"archived": True})
    store.archived_at = clock.now()
    store.bump("archived_at")
    _record(events.STORE_ARCHIVED, store, actor)
    return store


@transaction.atomic
def restore_store(store_id: int, *, actor: Actor, expected_version: int | None = None) -> ModelStore:
    """Offer an archived store again. Raises NotVisible, NotAllowed, Conflict."""
    store = _locked(store_id, actor, expected_version)
    if store.archived_at is None:
        raise Conflict("This store is not archived.", current={"archived": False})
    store.archived_at = None
    store.bump("archived_at")
    _record(events.STORE_RESTORED, store, actor)
    return store


def _locked(store_id: int, actor: Actor, expected_version: int | None) -> ModelStore:
    require_everywhere(actor, STORE_MANAGE)
    return ModelStore.objects.locked(store_id, expected_version=expected_version)


def _takes(wanted: bool, scheme: str, prefix: str) -> None:
    """Refuse what nothing can be written to: another kind of store, or no bucket."""
    if wanted and scheme != Scheme.S3:
        raise Invalid({"takes_copies": "The portal writes to S3-compatible storage only."})
    if wanted and not prefix:
        raise Invalid({"prefix": "Name the bucket (and folder) that the portal writes to."})


def _checked(values: Mapping[str, Any], scheme: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: value if name == "takes_copies" else str(value).strip() for name, value in values.items()
    }
    errors: dict[str, str] = {}
    if "name" in found and not 1 <= len(found["name"]) <= 200:
        errors["name"] = "Give it a name of at most 200 characters."
    if "endpoint" in found:
        if scheme == Scheme.PVC:
            if found["endpoint"] not in mounts():
                known = ", ".join(sorted(mounts())) or "none"
                errors["endpoint"] = f"The name of a volume that is mounted here (COMMONS_MODEL_MOUNTS): {known}."
        else:
            try:
                # Only what can be told without asking the resolver: no network call in a transaction.
                found["endpoint"] = check_address(found["endpoint"], resolve=False)
            except ClusterError as error:
                errors["endpoint"] = error.message[:1].upper() + error.message[1:] + "."
    if "prefix" in found:
        found["prefix"] = found["prefix"].strip("/")
        if any(part in ("", ".", "..") for part in found["prefix"].split("/")) and found["prefix"]:
            errors["prefix"] = "A bucket and folders: models/production, without “..”."
    pem = found.get("ca_certificate", "")
    if pem and not (pem.startswith("-----BEGIN CERTIFICATE-----") and "-----END CERTIFICATE-----" in pem):
        errors["ca_certificate"] = "Paste the certificate in PEM: it begins with -----BEGIN CERTIFICATE-----."
    for name, limit in (("endpoint", 300), ("prefix", 300), ("region", 60)):
        if len(found.get(name, "")) > limit:
            errors[name] = f"At most {limit} characters."
    if errors:
        raise Invalid(errors)
    return found


def _sealed(scheme: str, credentials: Mapping[str, str]) -> bytes:
    given = {name: str(value).strip() for name, value in credentials.items() if str(value).strip()}
    if unknown := sorted(set(given) - set(CREDENTIALS[scheme])):
        raise Invalid({"credentials": f"This kind of store has no {', '.join(unknown)}."})
    if scheme == Scheme.S3 and given and not {"access_key", "secret_key"} <= given.keys():
        raise Invalid({"credentials": "Both the access key and the secret key are needed, or neither."})
    return crypto.encrypt(json.dumps(given, sort_keys=True)) if given else b""


def _teams(store: ModelStore, team_ids: Sequence[int]) -> None:
    teams = list(Team.objects.filter(pk__in=team_ids))
    if len(teams) != len(set(team_ids)):
        raise Invalid({"teams": "There is no such team."})
    store.teams.set(teams)


def _record(event: EventType, store: ModelStore, actor: Actor, *, changed: Sequence[str] = ()) -> None:
    uids = sorted(store.teams.values_list("uid", flat=True))
    audit.record(
        event,
        events.StoreEvent(store.uid, store.slug, store.scheme, list(changed), uids, endpoint=store.endpoint),
        actor=actor, subject_type="catalogue.store", subject_uid=store.uid,
    )  # fmt: skip
