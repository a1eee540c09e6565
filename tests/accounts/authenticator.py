"""A security key in software: real keys and signatures, in the shapes that browsers send (WebAuthn level 2)."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fido2.cose import ES256
from fido2.utils import sha256, websafe_encode
from fido2.webauthn import Aaguid, AttestationObject, AttestedCredentialData, AuthenticatorData, CollectedClientData

ORIGIN = "http://localhost:8000"
_PRESENT = AuthenticatorData.FLAG.UP


@dataclass
class Key:
    """One credential of one relying party, with a counter; `counts=False`: a passkey that says 0 for ever."""

    rp_id: str = "localhost"
    origin: str = ORIGIN
    counts: bool = True
    counter: int = 0
    credential_id: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    private: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def create(self, options: dict[str, Any], **changes: Any) -> str:
        """Answer navigator.credentials.create()."""
        given = options["publicKey"]
        cose = ES256.from_cryptography_key(self.private.public_key())
        data = AttestedCredentialData.create(Aaguid.NONE, self.credential_id, cose)
        auth_data = AuthenticatorData.create(
            sha256((changes.get("rp_id") or self.rp_id).encode()),
            _PRESENT | AuthenticatorData.FLAG.AT,
            self._count(),
            data,
        )
        client = CollectedClientData.create(
            CollectedClientData.TYPE.CREATE,
            changes.get("challenge") or given["challenge"],
            changes.get("origin") or self.origin,
        )
        response = {
            "clientDataJSON": websafe_encode(client),
            "attestationObject": websafe_encode(AttestationObject.create("none", auth_data, {})),
        }
        return self._answer(response)

    def get(self, options: dict[str, Any], **changes: Any) -> str:
        """Answer navigator.credentials.get(); `changes` make it lie."""
        given = options["publicKey"]
        auth_data = AuthenticatorData.create(
            sha256((changes.get("rp_id") or self.rp_id).encode()), _PRESENT, changes.get("counter", self._count())
        )
        client = CollectedClientData.create(
            changes.get("type") or CollectedClientData.TYPE.GET,
            changes.get("challenge") or given["challenge"],
            changes.get("origin") or self.origin,
        )
        signer = changes.get("signer") or self.private
        signature = signer.sign(auth_data + client.hash, ec.ECDSA(hashes.SHA256()))
        response = {
            "clientDataJSON": websafe_encode(client),
            "authenticatorData": websafe_encode(auth_data),
            "signature": websafe_encode(signature),
            "userHandle": None,
        }
        return self._answer(response)

    def _count(self) -> int:
        if self.counts:
            self.counter += 1
        return self.counter

    def _answer(self, response: dict[str, Any]) -> str:
        name = websafe_encode(self.credential_id)
        return json.dumps(
            {"id": name, "rawId": name, "type": "public-key", "response": response, "clientExtensionResults": {}}
        )
