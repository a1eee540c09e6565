"""CI systems that post evidence: each has a token of its own and signs every body with its Ed25519 key.

A delivery is a JSON body with `delivery_id`, `timestamp` (RFC 3339, UTC), `digest` (the manifest it is about), `kind`,
`title`, and by kind `results`, `payload`, `controls`, `produced_at`, `valid_until`, `attachment` {name, sha256,
content_base64}. Header `X-Commons-Signature` holds base64 of the Ed25519 signature over the body's RFC 8785 bytes. A
delivery counts within ten minutes of its timestamp, and once by its id.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.db import IntegrityError, transaction

from apps import audit
from apps.catalogue import evidence
from apps.catalogue import evidence_events as events
from apps.catalogue.access import person, require_everywhere
from apps.catalogue.choices import EvidenceKind
from apps.catalogue.models import Blob, Evidence, EvidenceProducer, Model, ModelVersion
from apps.core import clock
from apps.core.actor import Actor, Channel
from apps.core.canonical import canonical_bytes
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.events import EventType
from apps.teams.models import Team

MANAGE = "catalogue.producer.manage"
TOKEN_PREFIX = "gpuce_"  # noqa: S105 (the mark by which a token is recognised, no secret)
WINDOW = timedelta(minutes=10)
LONGEST = timedelta(days=366)
BODY_KEYS = frozenset(
    ("delivery_id", "timestamp", "digest", "kind", "title", "results", "payload", "controls", "produced_at",
     "valid_until", "attachment")
)  # fmt: skip
#: In a body; larger documents are added on the page.
MAX_ATTACHMENT = 1024 * 1024


@dataclass(frozen=True, slots=True)
class NewProducer:
    """A producer with its token, which is shown once."""

    producer: EvidenceProducer
    token: str


def token_digest(token: str) -> bytes:
    """Return what is stored of a token: it is random and long, so a plain SHA-256 suffices."""
    return hashlib.sha256(token.encode()).digest()


@transaction.atomic
def add_producer(
    name: str,
    public_key: str,
    expires_at: datetime,
    kinds: Sequence[str],
    team_ids: Sequence[int],
    *,
    actor: Actor,
    model_ids: Sequence[int] = (),
) -> NewProducer:
    """Let a CI system post evidence of some kinds about the models of some teams. Raises Invalid, NotAllowed."""
    require_everywhere(actor, MANAGE)
    errors = _faults(name, public_key, expires_at, kinds)
    teams = list(Team.objects.filter(pk__in=team_ids))
    models = list(Model.objects.filter(pk__in=model_ids, team__in=teams))
    if not teams or len(teams) != len(set(team_ids)):
        errors["teams"] = "Choose the teams whose models it may speak about."
    if len(models) != len(set(model_ids)):
        errors["models_allowed"] = "Choose models of these teams."
    if not errors and EvidenceProducer.objects.filter(name=name.strip()).exists():
        errors["name"] = "A producer of this name exists already."
    if errors:
        raise Invalid(errors)
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    row = EvidenceProducer.objects.create(
        name=name.strip(), kinds=sorted(set(kinds)), public_key=public_key.strip(), token_digest=token_digest(token),
        token_prefix=token[:12], expires_at=expires_at, created_by=person(actor), keepers=[person(actor).pk],
    )  # fmt: skip
    row.teams.set(teams)
    row.models_allowed.set(models)
    _record(events.PRODUCER_ADDED, row, actor)
    return NewProducer(row, token)


def _faults(name: str, public_key: str, expires_at: datetime, kinds: Sequence[str]) -> dict[str, str]:
    errors: dict[str, str] = {}
    if not 3 <= len(name.strip()) <= 100:
        errors["name"] = "Give it a name of 3 to 100 characters, such as “Fraud models CI”."
    try:
        read_key(public_key)
    except ValueError:
        errors["public_key"] = "Paste the Ed25519 public key: base64 of its 32 raw bytes."
    at = clock.now()
    if not at < expires_at <= at + LONGEST:
        errors["expires_at"] = f"It ends within {LONGEST.days} days from now; then it gets a new token."
    if not kinds or any(kind not in EvidenceKind.values for kind in kinds):
        errors["kinds"] = "Choose what it may post."
    return errors


def read_key(text: str) -> Ed25519PublicKey:
    """Return an Ed25519 public key from base64 of its 32 raw bytes. Raises ValueError."""
    raw = base64.b64decode(text.strip(), validate=True)
    if len(raw) != 32:
        raise ValueError("an Ed25519 public key has 32 bytes")
    return Ed25519PublicKey.from_public_bytes(raw)


@transaction.atomic
def rotate_token(
    producer_id: int, expires_at: datetime, *, actor: Actor, public_key: str = "", expected_version: int | None = None
) -> NewProducer:
    """Give a producer a new token, and a new key where one is given; what it had is void at once."""
    require_everywhere(actor, MANAGE)
    row = EvidenceProducer.objects.locked(producer_id, expected_version=expected_version)
    if row.revoked_at is not None:
        raise Conflict("It was shut out: add a new producer.")
    errors = _faults(row.name, public_key or row.public_key, expires_at, row.kinds)
    if errors:
        raise Invalid(errors)
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    row.token_digest, row.token_prefix, row.expires_at = token_digest(token), token[:12], expires_at
    row.public_key = public_key.strip() or row.public_key
    # Whoever saw its token, or put a key of their own, can speak in its name.
    row.keepers = sorted({*row.keepers, person(actor).pk})
    row.bump("token_digest", "token_prefix", "expires_at", "public_key", "keepers")
    _record(events.PRODUCER_ROTATED, row, actor)
    return NewProducer(row, token)


@transaction.atomic
def revoke_producer(
    producer_id: int, reason: str, *, actor: Actor, expected_version: int | None = None
) -> EvidenceProducer:
    """Shut a producer out for ever; what it posted stays. Raises Invalid, NotAllowed, Conflict."""
    from apps.catalogue.checking import reason as checked_reason

    require_everywhere(actor, MANAGE)
    row = EvidenceProducer.objects.locked(producer_id, expected_version=expected_version)
    if row.revoked_at is not None:
        raise Conflict("It is shut out already.")
    reason = checked_reason(reason)
    row.revoked_at = clock.now()
    row.bump("revoked_at")
    _record(events.PRODUCER_REVOKED, row, actor, reason=reason)
    return row


def authenticate(token: str, at: datetime) -> EvidenceProducer | None:
    """Return the producer a token belongs to, where it is neither shut out nor expired."""
    if not token.startswith(TOKEN_PREFIX) or not token.isascii():
        return None
    return EvidenceProducer.objects.filter(
        token_digest=token_digest(token), revoked_at__isnull=True, expires_at__gt=at
    ).first()


def actor_of(producer: EvidenceProducer) -> Actor:
    """Return the producer as actor: the portal acts, in its name."""
    return Actor.system(f"catalogue.producer:{producer.uid}", Channel.API)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a body says, checked for shape, time and signature."""

    delivery_id: str
    digest: str
    draft: evidence.Draft
    signature: str
    file: bytes | None


def read_delivery(producer: EvidenceProducer, body: Mapping[str, Any], signature: str, at: datetime) -> Delivery:
    """Return a delivery. Raises Invalid by field; NotAllowed for a signature or a kind that is not the producer's."""
    unknown = sorted(set(body) - BODY_KEYS)
    if unknown:
        raise Invalid({str(unknown[0])[:60]: "This is no field of a delivery."})
    try:
        signed = canonical_bytes(dict(body))
    except (TypeError, ValueError, RecursionError) as error:
        raise Invalid({"": 'Send numbers with a fraction as text, such as "0.93": their digits are signed.'}) from error
    if not verify(producer.public_key, signed, signature):
        raise NotAllowed("The signature does not fit this body and the key that is on record.", rule="signature")
    delivery_id = body.get("delivery_id")
    if not isinstance(delivery_id, str) or not 8 <= len(delivery_id) <= 100 or not delivery_id.isprintable():
        raise Invalid({"delivery_id": "Send an id of your own, 8 to 100 characters, new for each delivery."})
    sent = _moment(body, "timestamp")
    if sent is None or abs(at - sent) > WINDOW:
        raise Invalid({"timestamp": f"It counts within {WINDOW.seconds // 60} minutes of being sent; sign it anew."})
    kind = body.get("kind")
    if kind not in producer.kinds:
        raise NotAllowed("This producer may not post evidence of this kind.", rule="kind")
    return Delivery(delivery_id, str(body.get("digest") or ""), _draft(body, str(kind)), signature, _file(body))


def verify(public_key: str, data: bytes, signature: str) -> bool:
    """Whether base64 `signature` is the key's Ed25519 signature over `data`."""
    try:
        read_key(public_key).verify(base64.b64decode(signature, validate=True), data)
    except (InvalidSignature, ValueError, binascii.Error):
        return False
    return True


def _draft(body: Mapping[str, Any], kind: str) -> evidence.Draft:
    errors: dict[str, str] = {}
    rows, payload, codes = body.get("results") or [], body.get("payload") or {}, body.get("controls") or []
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        errors["results"] = "Results are a list of objects."
    if not isinstance(payload, Mapping):
        errors["payload"] = "The payload is an object."
    if not isinstance(codes, list) or not all(isinstance(code, str) for code in codes):
        errors["controls"] = "Controls are a list of codes."
    if not isinstance(body.get("title"), str):
        errors["title"] = "Give it a title."
    if errors:
        raise Invalid(errors)
    attachment = body.get("attachment")
    name = str(attachment.get("name") or "evidence") if isinstance(attachment, Mapping) else ""
    return evidence.Draft(
        kind=kind, title=str(body["title"]), rows=rows, payload=payload, controls=codes,
        produced_at=_moment(body, "produced_at"), valid_until=_moment(body, "valid_until"), file_name=name,
    )  # fmt: skip


def _moment(body: Mapping[str, Any], name: str) -> datetime | None:
    raw = body.get(name)
    if raw is None:
        return None
    try:
        found = datetime.fromisoformat(raw)
    except (TypeError, ValueError):
        found = None
    if found is None or found.tzinfo is None:
        raise Invalid({name: "Send a moment with its zone, such as 2026-11-22T14:00:00Z."})
    return found.astimezone(UTC)


def _file(body: Mapping[str, Any]) -> bytes | None:
    attachment = body.get("attachment")
    if attachment is None:
        return None
    if not isinstance(attachment, Mapping) or set(attachment) != {"name", "sha256", "content_base64"}:
        raise Invalid({"attachment": "An attachment has name, sha256 and content_base64."})
    try:
        data = base64.b64decode(str(attachment["content_base64"]), validate=True)
    except (ValueError, binascii.Error):
        raise Invalid({"attachment": "The content is not base64."}) from None
    if len(data) > MAX_ATTACHMENT:
        raise Invalid({"attachment": f"At most {MAX_ATTACHMENT // 1024} KiB in a delivery."})
    if hashlib.sha256(data).hexdigest() != attachment["sha256"]:
        raise Invalid({"attachment": "The content does not have the digest it was sent with."})
    return data


def receive(producer: EvidenceProducer, body: Mapping[str, Any], signature: str) -> Evidence:
    """Take a delivery. Call it outside transactions.

    Raises Invalid, NotAllowed, NotVisible for an unknown digest, and Conflict for a delivery id that was used before,
    naming what it made then, so that a sender whose answer was lost knows.
    """
    at = clock.now()
    try:
        delivery = read_delivery(producer, body, signature, at)
    except NotAllowed as refusal:
        _refused(producer, refusal.message, str(body.get("delivery_id") or "")[:100])
        raise
    _refuse_replay(producer, delivery)
    version = _version(producer, delivery.digest)
    blob: Blob | None = None
    if delivery.file is not None:
        blob = evidence.attach([delivery.file], actor=actor_of(producer), field="attachment")
    try:
        return _take(producer.pk, version.pk, delivery, blob)
    except IntegrityError as error:
        _refuse_replay(producer, delivery)
        raise Conflict("This delivery could not be taken. Send it again.") from error


def _refuse_replay(producer: EvidenceProducer, delivery: Delivery) -> None:
    uid = Evidence.objects.filter(producer=producer, delivery_id=delivery.delivery_id).values_list("uid", flat=True)
    if (before := uid.first()) is not None:
        raise Conflict("This delivery was taken before.", current={"evidence": str(before)})


def _version(producer: EvidenceProducer, digest: str) -> ModelVersion:
    """Return the version a digest names, within what the producer may speak about. Raises NotVisible."""
    found = ModelVersion.objects.select_related("model").filter(digest=digest).exclude(digest="").first()
    if found is None or not producer.teams.filter(pk=found.model.team_id).exists():
        raise NotVisible("No version of this digest.")
    if producer.models_allowed.exists() and not producer.models_allowed.filter(pk=found.model_id).exists():
        raise NotVisible("No version of this digest.")
    return found


@transaction.atomic
def _take(producer_id: int, version_id: int, delivery: Delivery, blob: Blob | None) -> Evidence:
    # Locked before it is asked again: a producer that is being shut out delivers nothing more.
    producer = EvidenceProducer.objects.locked(producer_id)
    at = clock.now()
    if producer.revoked_at is not None or at >= producer.expires_at:
        raise NotAllowed("This producer is shut out.", rule="revoked")
    version = ModelVersion.objects.select_related("model__team").locked(version_id)
    checked = evidence.check(version, delivery.draft, blob)
    row = evidence.write(
        version, delivery.draft, checked, blob, actor=actor_of(producer), producer=producer,
        signature=delivery.signature, delivery_id=delivery.delivery_id,
    )  # fmt: skip
    producer.last_used_at = at
    producer.save(update_fields=["last_used_at"])
    return row


@transaction.atomic
def _refused(producer: EvidenceProducer, why: str, delivery_id: str) -> None:
    audit.record(
        events.DELIVERY_REFUSED,
        events.DeliveryRefused(producer.uid, why[:200], delivery_id),
        actor=actor_of(producer),
        subject_type="catalogue.producer",
        subject_uid=producer.uid,
    )


def _record(event: EventType, row: EvidenceProducer, actor: Actor, *, reason: str = "") -> None:
    teams = [team.uid for team in row.teams.order_by("pk")]
    audit.record(
        event,
        events.ProducerEvent(row.uid, list(row.kinds), teams, row.name, reason),
        actor=actor,
        subject_type="catalogue.producer",
        subject_uid=row.uid,
    )
