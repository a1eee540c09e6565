"""Keys that signatures over manifests are verified with: compliance registers and revokes them; evidence asks them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction

from apps import audit
from apps.catalogue import checking, evidence_kinds, signatures
from apps.catalogue import signing_events as events
from apps.catalogue.access import person, require_everywhere
from apps.catalogue.choices import KeyAlgorithm
from apps.catalogue.evidence_results import PASS
from apps.catalogue.models import ModelVersion
from apps.catalogue.signing_models import SigningKey
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.core.events import EventType
from apps.teams.models import Membership, Team

MANAGE = "catalogue.signing_key.manage"
LONGEST = timedelta(days=3 * 366)
#: Fields of a signature as it is sent.
FIELDS = frozenset(("signature", "signed_payload", "envelope", "summary"))


@dataclass(frozen=True, slots=True)
class Verified:
    """A signature that a key in force made over exactly a version's manifest."""

    judged: evidence_kinds.Judged
    key: SigningKey
    at: datetime


@transaction.atomic
def register_key(
    name: str,
    public_key: str,
    holder: str,
    expires_at: datetime,
    team_ids: Sequence[int],
    *,
    actor: Actor,
    valid_from: datetime | None = None,
    pss: bool = True,
) -> SigningKey:
    """Register a public key for the models of some teams, by compliance, who is of none of them.

    `pss` tells the padding of an RSA key's signatures. Raises Invalid by field, NotAllowed.
    """
    require_everywhere(actor, MANAGE)
    user, at = person(actor), clock.now()
    name, holder, starts = name.strip(), holder.strip(), valid_from or at
    teams = list(Team.objects.filter(pk__in=team_ids))
    errors, read = judge(
        {
            "name": name, "holder": holder, "valid_from": starts, "expires_at": expires_at, "public_key": public_key,
            "pss": pss,
        },
        at,
    )  # fmt: skip
    if not teams or len(teams) != len(set(team_ids)):
        errors["teams"] = "Choose the teams whose models it signs."
    if errors or read is None:
        raise Invalid(errors)
    if Membership.objects.filter(user=user, team__in=teams).current().exists():
        raise NotAllowed("You are of a team whose models it would sign: somebody else registers it.", rule="own_team")
    row = SigningKey.objects.create(
        name=name, holder=holder, public_key=read.pem, algorithm=read.algorithm, fingerprint=read.fingerprint,
        valid_from=starts, expires_at=expires_at, registered_by=user,
    )  # fmt: skip
    row.teams.set(teams)
    _record(events.KEY_REGISTERED, row, actor)
    return row


def judge(given: Mapping[str, Any], at: datetime) -> tuple[dict[str, Any], signatures.PublicKey | None]:
    """Return what is wrong with each field that is given, by itself, and the key where it can be read.

    What is missing from `given` is not judged: a form says itself that a field is empty, and must not keep the errors
    of the others back for that.
    """
    errors: dict[str, Any] = {}
    name, holder = given.get("name"), given.get("holder")
    if name is not None and not 3 <= len(name) <= 100:
        errors["name"] = "Give it a name of 3 to 100 characters, such as “Fraud models release key 2027”."
    elif name is not None and SigningKey.objects.filter(name=name).exists():
        errors["name"] = "A key of this name exists already."
    if holder is not None and not 10 <= len(holder) <= 300:
        errors["holder"] = "Say in 10 to 300 characters who or what holds the private key, and where it is kept."
    starts, ends = given.get("valid_from"), given.get("expires_at")
    if starts is not None and starts < at - timedelta(minutes=5):
        errors["valid_from"] = "It cannot begin in the past: nobody had checked the key then."
    if starts is not None and ends is not None and not starts < ends <= starts + LONGEST:
        errors["expires_at"] = f"It ends within {LONGEST.days:,} days of its beginning; register its successor then."
    read: signatures.PublicKey | None = None
    if given.get("public_key") is not None:
        try:
            read = signatures.read_public_key(given["public_key"], pss=bool(given.get("pss", True)))
        except Invalid as invalid:
            errors |= invalid.errors
    if read is not None and SigningKey.objects.filter(fingerprint=read.fingerprint).exists():
        errors["public_key"] = "This key was registered before. A key that ended stays out: make a new pair."
    return errors, read


@transaction.atomic
def revoke_key(
    key_id: int,
    reason: str,
    *,
    actor: Actor,
    void_from: datetime | None = None,
    expected_version: int | None = None,
) -> SigningKey:
    """Take a key out of use for ever. `void_from`: what it signed since then counts no more, as after a theft.

    Raises Invalid, NotAllowed, Conflict where it is revoked already (unless to void more of what it signed).
    """
    require_everywhere(actor, MANAGE)
    row = SigningKey.objects.locked(key_id, expected_version=expected_version)
    reason, at = checking.reason(reason), clock.now()
    if void_from is not None and void_from > at:
        raise Invalid({"void_from": "From a moment that has passed on; leave it empty where the key was never stolen."})
    wider = void_from is not None and (row.void_from is None or void_from < row.void_from)
    if row.revoked_at is not None and not wider:
        raise Conflict("It is revoked already. Only an earlier moment of theft can be added.")
    row.revoked_at, row.revoked_by = row.revoked_at or at, person(actor)
    row.revoked_reason, row.void_from = reason, void_from if wider else row.void_from
    row.bump("revoked_at", "revoked_by", "revoked_reason", "void_from")
    _record(events.KEY_REVOKED, row, actor, reason=reason)
    return row


def verify(version: ModelVersion, raw: Mapping[str, Any], at: datetime) -> Verified:
    """Verify a signature over a sealed version's manifest with a key that is in force for its team at `at`.

    Raises Invalid beside the field: what is malformed, names other bytes, or was made with no key, or none in force.
    """
    if unknown := sorted(set(raw) - FIELDS):
        raise Invalid({"payload": f"“{str(unknown[0])[:60]}” is not known for a signature."})
    summary = raw.get("summary") or ""
    if not isinstance(summary, str) or len(summary) > evidence_kinds.SUMMARY_LIMIT:
        raise Invalid({"summary": f"A text of at most {evidence_kinds.SUMMARY_LIMIT:,} characters."})
    signed = signatures.read(raw, bytes(version.manifest), version.digest)
    field = "envelope" if signed.form == signatures.DSSE else "signature"
    rows = list(SigningKey.objects.filter(teams=version.model.team_id).order_by("pk"))
    loaded = {row.fingerprint: row for row in rows}
    keys = [_loaded(row) for row in rows]
    in_force = [key for key in keys if not loaded[key.fingerprint].why_not(at)]
    found = signatures.signer(signed, in_force)
    if found is None:
        ended = signatures.signer(signed, [key for key in keys if key not in in_force])
        raise Invalid({field: _why(loaded[ended.fingerprint] if ended else None, at, bool(in_force))})
    key = loaded[found.fingerprint]
    payload = {
        "format": signed.form, **signed.kept, "key": str(key.uid), "fingerprint": key.fingerprint,
        "algorithm": str(key.algorithm), "verified_at": at.isoformat(),
    }  # fmt: skip
    if summary.strip():
        payload["summary"] = summary.strip()
    return Verified(evidence_kinds.Judged(payload, PASS), key, at)


def _loaded(row: SigningKey) -> signatures.PublicKey:
    return signatures.read_public_key(row.public_key, pss=row.algorithm == KeyAlgorithm.RSA_PSS)


def _why(ended: SigningKey | None, at: datetime, any_in_force: bool) -> str:
    if ended is not None:
        return f"The key “{ended.name}” made it, and {ended.why_not(at)}. Sign with a key that is in force."
    if not any_in_force:
        return "No key is in force for this team's models: compliance registers the public key first."
    return (
        "No key in force for this team's models made this signature over this manifest: it is another key's, or over"
        " other bytes."
    )


def _record(event: EventType, row: SigningKey, actor: Actor, *, reason: str = "") -> None:
    audit.record(
        event,
        events.SigningKeyEvent(
            row.uid, row.fingerprint, str(row.algorithm), row.valid_from.isoformat(), row.expires_at.isoformat(),
            [team.uid for team in row.teams.order_by("pk")], row.void_from.isoformat() if row.void_from else "",
            row.name, reason,
        ),
        actor=actor,
        subject_type="catalogue.signing_key",
        subject_uid=row.uid,
    )  # fmt: skip


__all__ = ["MANAGE", "Verified", "judge", "register_key", "revoke_key", "verify"]
