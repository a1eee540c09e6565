"""Polling: claim by lease → read until two passes agree → record → import. A failure is kept and heals by itself."""

from __future__ import annotations

import json
import logging
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F, Q
from django.urls import reverse

from apps import audit
from apps.catalogue import registry_diff, registry_events, registry_import, registry_record
from apps.catalogue.choices import RegistryKind
from apps.catalogue.kubeflow_client import KubeflowClient
from apps.catalogue.mlflow_client import MlflowClient
from apps.catalogue.models import Registry, RegistryModel, RegistryVersion
from apps.catalogue.registry_clients import Reading, RegistryClient, RegistrySession, SeenVersion, read_all
from apps.clusters import crypto
from apps.clusters.errors import ClusterError, Throttled, Unauthorised, Unreachable
from apps.core import clock, leases, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict
from apps.core.events import EventType
from apps.teams import scope

logger = logging.getLogger(__name__)

#: A worker that is silent for so long has died; every pass and batch extends the lease.
LEASE_SECONDS = 300.0
#: Deletions that one poll asks the registry to confirm; the others are asked for by the next one.
MAX_CONFIRMED = 200
#: The longest wait after failures in a row.
MAX_WAIT = timedelta(hours=1)
SYSTEM = registry_record.SYSTEM


def client_for(kind: str, session: RegistrySession) -> RegistryClient:
    """Return the adapter of a kind of registry."""
    return MlflowClient(session) if kind == RegistryKind.MLFLOW else KubeflowClient(session)


def secret_of(registry: Registry) -> dict[str, str]:
    """Return a registry's credentials. Raises Unauthorised where no key in force opens them."""
    try:
        stored = crypto.decrypt(registry.credentials)
    except crypto.CannotDecrypt as error:
        raise Unauthorised(
            f"the credentials of {registry} cannot be read with the keys in force: enter them anew"
        ) from error
    return dict(json.loads(stored)) if stored else {}


@contextmanager
def opened(registry: Registry) -> Iterator[RegistryClient]:
    """Open a registry, and close it afterwards. Raises ClusterError. Never inside a transaction."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as authority:
        if registry.ca_certificate:
            authority.write(registry.ca_certificate)
            authority.flush()
        session = RegistrySession(
            registry.base_url, secret_of(registry), authority.name if registry.ca_certificate else ""
        )
        client: RegistryClient = client_for(registry.kind, session)
        try:
            yield client
        finally:
            client.close()


def test_connection(registry: Registry) -> tuple[bool, str]:
    """Try a registry and say in words what was found. A network call: never inside a transaction."""
    try:
        with opened(registry) as client:
            return True, client.probe()
    except ClusterError as error:
        return False, _sentence(error)


def poll_due() -> int:
    """Poll every registry that is due and in nobody's hands; returns how many were."""
    due = Registry.objects.filter(enabled=True).filter(Q(next_poll_at=None) | Q(next_poll_at__lte=clock.now()))
    pks = list(due.order_by(F("next_poll_at").asc(nulls_first=True), "pk").values_list("pk", flat=True)[:20])
    return sum(poll(pk) for pk in pks)


def poll(registry_id: int) -> int:
    """Read one registry and record what it shows; 0 where somebody else does it just now."""
    uid = Registry.objects.filter(pk=registry_id).values_list("uid", flat=True).first()
    name = f"catalogue.registry.{uid}"
    token = leases.claim(name, seconds=LEASE_SECONDS)
    if token is None:
        return 0
    try:
        registry = Registry.objects.select_related("default_team").get(pk=registry_id)
        if not registry.enabled:
            return 0
        began = clock.now()
        try:
            more = _read_and_record(registry, name, token)
        except ClusterError as error:
            _failed(registry_id, name, token, error)
        else:
            _done(registry_id, name, token, began, at_once=more)
        return 1
    except Conflict as conflict:
        # Another worker took over because this one was too slow: its results count.
        logger.info("a poll was given up", extra={"registry": str(uid), "why": conflict.message})
        return 0
    finally:
        leases.release(name, token)


def _read_and_record(registry: Registry, name: str, token: uuid.UUID) -> bool:
    """Return whether imports are left for another round. Raises ClusterError, Conflict."""

    def extend() -> None:
        if not leases.extend(name, token, seconds=LEASE_SECONDS):
            raise Conflict(f"the lease {name} has moved on")

    actor = Actor.system(SYSTEM)
    with opened(registry) as client:
        reading = read_all(client, on_pass=extend)
        matched = registry_diff.match(registry_record.known_models(registry), reading.models, reading.versions)
        gone_models: list[int] = []
        gone_versions: list[int] = []
        if reading.settled:
            gone_models, gone_versions = _confirmed(registry, client, matched, reading)
        extend()
        with transaction.atomic():
            leases.require(name, token)
            registry_record.Recorder(registry, reading, matched).record(gone_models, gone_versions)
        models = registry_import.waiting_models(registry)
        batch = registry_import.BATCH
        registry_import.import_models(models[:batch], lease=(name, token), actor=actor)
        extend()
        versions = registry_import.waiting_versions(registry)
        located = {row.pk: _locate(client, row) for row in versions[:batch]}
        extend()
        registry_import.import_versions(located, lease=(name, token), actor=actor)
    return len(models) > batch or len(versions) > batch


def _confirmed(
    registry: Registry, client: RegistryClient, matched: registry_diff.Matched, reading: Reading
) -> tuple[list[int], list[int]]:
    """Ask for each missing model and version by itself: only a plain no takes it for gone."""
    keys: Mapping[int, str] = {
        pk: str(key) for pk, key in RegistryModel.objects.filter(pk__in=matched.missing).values_list("pk", "seen__key")
    }
    models = [
        pk for pk in matched.missing[:MAX_CONFIRMED]
        # Its name may be another model's by now: then this one cannot be there any more.
        if keys[pk] in reading.models or not client.has_model(keys[pk])
    ]  # fmt: skip
    missing = registry_record.missing_versions(registry, matched, reading)
    asked = list(missing.items())[:MAX_CONFIRMED]
    versions = [pk for pk, (key, number) in asked if not client.has_version(key, number)]
    return models, versions


def _locate(client: RegistryClient, row: RegistryVersion) -> str:
    if registry_import.place_of(row.source)[0] != "upload":
        return row.source
    key = str(row.registry_model.seen.get("key", row.registry_model.name))
    return client.location(SeenVersion(key, row.foreign_version, source=row.source))


@transaction.atomic
def _done(registry_id: int, name: str, token: uuid.UUID, began: datetime, *, at_once: bool) -> None:
    leases.require(name, token)
    registry = Registry.objects.locked(registry_id)
    at = clock.now()
    if registry.failing_since is not None:
        _record(registry_events.REGISTRY_HEALED, registry)
    # An event that came in while we read asks for one more poll.
    asked = registry.next_poll_at is not None and registry.next_poll_at > began
    if at_once:
        registry.next_poll_at = at
    elif not asked:
        registry.next_poll_at = at + timedelta(minutes=registry.poll_minutes)
    registry.polled_at, registry.failing_since, registry.last_error = at, None, ""
    registry.save(update_fields=["next_poll_at", "polled_at", "failing_since", "last_error"])


@transaction.atomic
def _failed(registry_id: int, name: str, token: uuid.UUID, error: ClusterError) -> None:
    leases.require(name, token)
    registry = Registry.objects.locked(registry_id)
    at = clock.now()
    first = registry.failing_since is None
    registry.failing_since = registry.failing_since or at
    registry.last_error = _sentence(error)
    wait = timedelta(minutes=1) if first else min(MAX_WAIT, max(timedelta(minutes=1), at - registry.failing_since))
    if isinstance(error, Throttled):
        wait = max(wait, timedelta(seconds=min(error.retry_after, 3600.0)))
    registry.next_poll_at = at + wait
    registry.save(update_fields=["failing_since", "last_error", "next_poll_at"])
    if first:
        payload = _record(registry_events.REGISTRY_FAILING, registry, why=registry.last_error)
        people = scope.holders("catalogue.registry.manage")
        outbox.publish(registry_events.REGISTRY_FAILING, payload, recipients=people, subject_uid=registry.uid)


def _record(event: EventType, registry: Registry, *, why: str = "") -> registry_events.RegistryEvent:
    payload = registry_events.RegistryEvent(
        registry.uid, registry.slug, registry.kind, registry.enabled, base_url=registry.base_url, name=registry.name,
        why=why, path=reverse("catalogue:registry-detail", kwargs={"registry_uid": registry.uid}),
    )  # fmt: skip
    audit.record(
        event, payload, actor=Actor.system(SYSTEM), subject_type="catalogue.registry", subject_uid=registry.uid
    )
    return payload


def _sentence(error: ClusterError) -> str:
    words = error.message if not isinstance(error, Unreachable) else f"the registry does not answer ({error.message})"
    return words[:1].upper() + words[1:].rstrip(".") + "."
