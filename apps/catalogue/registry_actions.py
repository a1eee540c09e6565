"""What platform admins do with registries, and what owners do with findings. Secrets go in and never come out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.utils.text import slugify

from apps import audit
from apps.catalogue import checking, registry_events, registry_import
from apps.catalogue.access import MANAGE, person
from apps.catalogue.choices import RegistryKind
from apps.catalogue.models import Registry, RegistryFinding, RegistryModel, RegistryVersion
from apps.catalogue.registry_record import payload_of
from apps.clusters import crypto
from apps.clusters.addresses import check_address
from apps.clusters.errors import ClusterError
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.events import EventType
from apps.core.permissions import INSTALLATION, may
from apps.core.sweeps import nudge
from apps.teams.models import Team

VIEW = "catalogue.registry.view"
REGISTRY_MANAGE = "catalogue.registry.manage"
EDITABLE = ("name", "base_url", "ca_certificate", "team_tag", "poll_minutes", "default_team_id")
CREDENTIALS = ("token", "username", "password")
#: A shared secret shorter than that is guessed.
MIN_SECRET = 16
MAX_POLL_MINUTES = 24 * 60


@transaction.atomic
def add_registry(
    name: str,
    kind: str,
    *,
    actor: Actor,
    base_url: str,
    slug: str = "",
    ca_certificate: str = "",
    credentials: Mapping[str, str] | None = None,
    webhook_secret: str = "",
    default_team_id: int | None = None,
    team_tag: str = "team",
    poll_minutes: int = 15,
) -> Registry:
    """Add a registry; it is read from now on. The actor becomes its keeper. Raises NotAllowed, Invalid."""
    keeper = _admin(actor)
    if kind not in RegistryKind.values:
        raise Invalid({"kind": "Choose what kind of registry it is."})
    values = _checked(
        {
            "name": name, "base_url": base_url, "ca_certificate": ca_certificate, "team_tag": team_tag,
            "poll_minutes": poll_minutes, "default_team_id": default_team_id,
        }
    )  # fmt: skip
    short = slug or slugify(values["name"])[:60].strip("-")
    if not checking.SLUG.match(short) or len(short) > 60:
        raise Invalid({"slug": "Small letters, digits and single dashes: mlflow-research."})
    sealed, secret = _credentials(credentials or {}), _secret(webhook_secret)
    try:
        with transaction.atomic():
            registry = Registry.objects.create(
                slug=short, kind=kind, keeper=keeper, credentials=sealed, webhook_secret=secret,
                next_poll_at=clock.now(), **values,
            )  # fmt: skip
    except IntegrityError as error:
        raise Invalid({"slug": f"“{short}” is taken by another registry."}) from error
    _record(registry_events.REGISTRY_ADDED, registry, actor)
    _nudge()
    return registry


@transaction.atomic
def edit_registry(
    registry_id: int,
    *,
    actor: Actor,
    expected_version: int | None = None,
    credentials: Mapping[str, str] | None = None,
    webhook_secret: str | None = None,
    **changes: Any,
) -> Registry:
    """Change a registry (`EDITABLE`). `credentials` and `webhook_secret` None: as they are; empty: none any more.

    With another address the credentials have to be given anew: they must not be sent to a place they were not meant
    for. Raises NotVisible, NotAllowed, Conflict, Invalid.
    """
    registry = _locked(registry_id, actor, expected_version)
    checking.known(changes, EDITABLE)
    values = _checked(changes)
    names = checking.changed(registry, values)
    if "base_url" in names and registry.credentials and credentials is None:
        raise Invalid({"credentials": "Enter the credentials anew: they are not sent to another address unasked."})
    for name in names:
        setattr(registry, name, values[name])
    if credentials is not None:
        registry.credentials = _credentials(credentials)
        names.append("credentials")
    if webhook_secret is not None:
        registry.webhook_secret = _secret(webhook_secret)
        names.append("webhook_secret")
    if not names:
        return registry
    registry.next_poll_at = clock.now()
    registry.bump(*(name.removesuffix("_id") for name in names), "next_poll_at")
    _record(registry_events.REGISTRY_EDITED, registry, actor, changed=names)
    _nudge()
    return registry


@transaction.atomic
def enable_registry(registry_id: int, *, actor: Actor, expected_version: int | None = None) -> Registry:
    """Read a registry again. Raises NotVisible, NotAllowed, Conflict."""
    registry = _locked(registry_id, actor, expected_version)
    if registry.enabled:
        raise Conflict("This registry is read already.", current={"enabled": True})
    registry.enabled, registry.next_poll_at = True, clock.now()
    registry.bump("enabled", "next_poll_at")
    _record(registry_events.REGISTRY_ENABLED, registry, actor)
    _nudge()
    return registry


@transaction.atomic
def disable_registry(registry_id: int, *, actor: Actor, expected_version: int | None = None) -> Registry:
    """Stop reading a registry and taking its events; what was imported stays.

    Raises NotVisible, NotAllowed, Conflict.
    """
    registry = _locked(registry_id, actor, expected_version)
    if not registry.enabled:
        raise Conflict("This registry is not read already.", current={"enabled": False})
    registry.enabled, registry.failing_since, registry.last_error = False, None, ""
    registry.bump("enabled", "failing_since", "last_error")
    _record(registry_events.REGISTRY_DISABLED, registry, actor)
    return registry


@transaction.atomic
def poll_now(registry_id: int, *, actor: Actor, expected_version: int | None = None) -> Registry:
    """Have a registry read at once. Raises NotVisible, NotAllowed, Conflict."""
    registry = _locked(registry_id, actor, expected_version)
    if not registry.enabled:
        raise Conflict("This registry is switched off: enable it first.", current={"enabled": False})
    registry.next_poll_at = clock.now()
    registry.save(update_fields=["next_poll_at"])
    _nudge()
    return registry


@transaction.atomic
def assign_model(entry_id: int, team_id: int, *, actor: Actor, expected_version: int | None = None) -> RegistryModel:
    """Give a registered model that nobody owns to a team and import it; its versions follow with the next poll.

    Raises NotVisible, NotAllowed, Conflict, Invalid.
    """
    _admin(actor)
    entry = RegistryModel.objects.select_related("registry").locked(entry_id, expected_version=expected_version)
    if entry.model_id is not None:
        raise Conflict("This model has an owner already.", current={"owned": True})
    if entry.gone_at is not None:
        raise Conflict("This model is not in the registry any more.", current={"gone": True})
    team = Team.objects.filter(pk=team_id, archived_at__isnull=True).first()
    if team is None:
        raise Invalid({"team": "Choose a team."})
    model = registry_import.import_model(entry.pk, team, actor=Actor.system("catalogue.registries"))
    RegistryVersion.objects.filter(registry_model=entry).update(problem="")
    Registry.objects.filter(pk=entry.registry_id, enabled=True).update(next_poll_at=clock.now())
    audit.record(
        registry_events.MODEL_ASSIGNED,
        registry_events.RegistryModelEvent(entry.registry.uid, entry.uid, model.uid, name=entry.name),
        actor=actor, subject_type="catalogue.model", subject_uid=model.uid, team_uid=team.uid,
    )  # fmt: skip
    _nudge()
    return RegistryModel.objects.select_related("registry", "model").get(pk=entry.pk)


def may_acknowledge(user: Any, finding: RegistryFinding) -> bool:
    """Whether a person may take note of a finding: a lead of the owning team, or a platform admin."""
    model = finding.registry_model.model if finding.registry_model is not None else None
    return may(user, REGISTRY_MANAGE, INSTALLATION) or (model is not None and may(user, MANAGE, model))


@transaction.atomic
def acknowledge_finding(
    finding_id: int, note: str, *, actor: Actor, expected_version: int | None = None
) -> RegistryFinding:
    """Take note of what a registry did and say what follows from it.

    Raises NotVisible, NotAllowed, Conflict, Invalid.
    """
    user = person(actor)
    if not RegistryFinding.objects.visible_to(user).filter(pk=finding_id).exists():
        raise NotVisible
    rows = RegistryFinding.objects.select_related("registry", "registry_model__model__team", "registry_version")
    finding = rows.locked(finding_id, expected_version=expected_version)
    if not may_acknowledge(user, finding):
        raise NotAllowed("This is for leads of the owning team and platform admins.", rule=MANAGE)
    if finding.acknowledged_at is not None:
        raise Conflict("Somebody took note of this already.", current={"acknowledged": True})
    words = " ".join(note.split())
    if not 5 <= len(words) <= 500:
        raise Invalid({"note": "Say in a sentence what follows from it (5 to 500 characters)."})
    finding.acknowledged_at, finding.acknowledged_by, finding.note = clock.now(), user, words
    finding.bump("acknowledged_at", "acknowledged_by", "note")
    model = finding.registry_model.model if finding.registry_model is not None else None
    audit.record(
        registry_events.FINDING_ACKNOWLEDGED, payload_of(finding, note=words), actor=actor,
        subject_type="catalogue.finding", subject_uid=finding.uid, team_uid=model.team.uid if model else None,
    )  # fmt: skip
    return finding


def overdue(registry: Registry) -> bool:
    """Whether a registry that should have been read was not for thrice its interval: nobody polls."""
    since = registry.polled_at or registry.created_at
    return registry.enabled and clock.now() - since > 3 * timedelta(minutes=registry.poll_minutes)


def _admin(actor: Actor) -> Any:
    user = person(actor)
    if not may(user, REGISTRY_MANAGE, INSTALLATION):
        raise NotAllowed("Registries are kept by platform admins.", rule=REGISTRY_MANAGE)
    return user


def _locked(registry_id: int, actor: Actor, expected_version: int | None) -> Registry:
    _admin(actor)
    return Registry.objects.locked(registry_id, expected_version=expected_version)


def _checked(values: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(values)
    errors: dict[str, str] = {}
    for name in ("name", "base_url", "ca_certificate", "team_tag"):
        if name in found:
            found[name] = str(found[name]).strip()
    if "name" in found and not 1 <= len(found["name"]) <= 200:
        errors["name"] = "Give it a name of at most 200 characters."
    if "base_url" in found:
        try:
            # Only what can be told without asking the resolver: no network call in a transaction.
            found["base_url"] = check_address(found["base_url"], resolve=False)
            if len(found["base_url"]) > 300:
                errors["base_url"] = "At most 300 characters."
        except ClusterError as error:
            errors["base_url"] = error.message[:1].upper() + error.message[1:] + "."
    pem = found.get("ca_certificate", "")
    if pem and not (pem.startswith("-----BEGIN CERTIFICATE-----") and "-----END CERTIFICATE-----" in pem):
        errors["ca_certificate"] = "Paste the certificate in PEM: it begins with -----BEGIN CERTIFICATE-----."
    if len(found.get("team_tag", "")) > 60:
        errors["team_tag"] = "At most 60 characters."
    if "poll_minutes" in found and not 1 <= int(found["poll_minutes"]) <= MAX_POLL_MINUTES:
        errors["poll_minutes"] = f"Between 1 and {MAX_POLL_MINUTES} minutes."
    team = found.get("default_team_id")
    if team is not None and not Team.objects.filter(pk=team, archived_at__isnull=True).exists():
        errors["default_team"] = "Choose a team."
    if errors:
        raise Invalid(errors)
    return found


def _credentials(given: Mapping[str, str]) -> bytes:
    found = {name: str(value).strip() for name, value in given.items() if str(value).strip()}
    if unknown := sorted(set(found) - set(CREDENTIALS)):
        raise Invalid({"credentials": f"It takes a token, or user name and password; not {', '.join(unknown)}."})
    if "token" in found and len(found) > 1:
        raise Invalid({"credentials": "Either a token, or user name and password."})
    if "password" in found and "username" not in found:
        raise Invalid({"credentials": "The password needs its user name."})
    if any("\n" in value or "\r" in value for value in found.values()):
        raise Invalid({"credentials": "Credentials have one line."})
    return crypto.encrypt(json.dumps(found, sort_keys=True)) if found else b""


def _secret(given: str) -> bytes:
    text = given.strip()
    if text and not MIN_SECRET <= len(text) <= 500:
        raise Invalid({"webhook_secret": f"At least {MIN_SECRET} characters: anybody who guesses it can send events."})
    return crypto.encrypt(text)


def _nudge() -> None:
    from apps.catalogue.registry_tasks import poll_registries

    nudge(poll_registries)


def _record(event: EventType, registry: Registry, actor: Actor, *, changed: Sequence[str] = ()) -> None:
    audit.record(
        event,
        registry_events.RegistryEvent(
            registry.uid, registry.slug, registry.kind, registry.enabled, list(changed), base_url=registry.base_url,
            name=registry.name,
        ),
        actor=actor, subject_type="catalogue.registry", subject_uid=registry.uid,
    )  # fmt: skip
