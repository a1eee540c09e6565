"""Events of the keys that signatures over manifests are verified with."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from apps.core.events import declare, private


@dataclass(frozen=True, slots=True)
class SigningKeyEvent:
    """A public key was registered or revoked; `void_from`: signatures from then on count no more."""

    key_uid: uuid.UUID
    fingerprint: str
    algorithm: str
    valid_from: str
    expires_at: str
    teams: list[uuid.UUID] = field(default_factory=list)
    void_from: str = ""
    name: str = private(default="")
    reason: str = private(default="")


KEY_REGISTERED = declare("catalogue.signing_key.registered", SigningKeyEvent, audience="auditors")
KEY_REVOKED = declare("catalogue.signing_key.revoked", SigningKeyEvent, audience="auditors")
