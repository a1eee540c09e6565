"""Detached signatures over a version's manifest, read and verified: pure.

Three forms are taken, each of which names exactly one manifest:

- *raw*: a signature over the manifest's bytes, as `cosign sign-blob` and `openssl dgst -sha256 -sign` make it, or over
  the text `sha256:<digest>`;
- *cosign*: a signature over a simple signing payload (containers/image, containers-signature(5)) whose
  `critical.image.docker-manifest-digest` is `sha256:<digest>` and whose `critical.type` is cosign's;
- *dsse*: a DSSE envelope (secure-systems-lab/dsse, protocol.md 1.0): signatures over
  `PAE(type, body) = "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body`, LEN in bytes. Its payload is an in-toto
  statement (in-toto/attestation, v0.1 or v1) one of whose subjects has that sha256, or a simple signing payload.

The bytes that are verified are the bytes that are read: nothing is encoded anew in between. A `keyid` is a hint that no
signature covers, so it decides nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from apps.catalogue.choices import KeyAlgorithm
from apps.core.errors import Invalid

RAW, COSIGN, DSSE = "raw", "cosign", "dsse"
FORMATS = {
    RAW: "Over the manifest's bytes, or over “sha256:” and its digest",
    COSIGN: "Over a cosign (simple signing) payload",
    DSSE: "DSSE envelope with an in-toto statement",
}
INTOTO = "application/vnd.in-toto+json"
SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
COSIGN_TYPE = "cosign container image signature"
STATEMENTS = ("https://in-toto.io/Statement/v0.1", "https://in-toto.io/Statement/v1")
MAX_SIGNATURE, MAX_PAYLOAD, MAX_SIGNATURES, MAX_SUBJECTS = 4096, 128 * 1024, 20, 2000
MIN_RSA_BITS = 2048
_SHA256 = re.compile(r"^[0-9a-f]{64}$")
_PEM = "-----BEGIN PUBLIC KEY-----"

_Public = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key with how its signatures are made; `fingerprint` is sha256 over its SubjectPublicKeyInfo (DER)."""

    algorithm: str
    fingerprint: str
    pem: str
    loaded: _Public


@dataclass(frozen=True, slots=True)
class Signed:
    """A signature as it was given: what may have been signed, and every signature over it (base64 as text)."""

    form: str
    messages: tuple[bytes, ...]
    signatures: tuple[bytes, ...]
    #: What is kept, so that anybody can verify it again.
    kept: Mapping[str, str]


#: Said of what must not have come here.
PRIVATE = "This is a private key. Keep it secret, make a new pair, and paste the public key."


def is_private(text: str) -> bool:
    """Whether a text holds a private key, of whatever kind."""
    return "PRIVATE KEY" in text.upper()


def read_public_key(pem: str, *, pss: bool = True) -> PublicKey:
    """Return a key from PEM (SubjectPublicKeyInfo). `pss` tells the padding of an RSA key.

    Raises Invalid beside `public_key` for anything but ECDSA on P-256, Ed25519, or RSA of at least 2,048 bits.
    """
    text = pem.strip()
    if is_private(text):
        raise Invalid({"public_key": PRIVATE})
    if not text.startswith(_PEM):
        raise Invalid({"public_key": f"Paste the public key as PEM: it begins with {_PEM}."})
    try:
        found = serialization.load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise Invalid({"public_key": "This PEM holds no public key that can be read."}) from None
    if isinstance(found, ec.EllipticCurvePublicKey) and isinstance(found.curve, ec.SECP256R1):
        algorithm = KeyAlgorithm.ECDSA_P256
    elif isinstance(found, ed25519.Ed25519PublicKey):
        algorithm = KeyAlgorithm.ED25519
    elif isinstance(found, rsa.RSAPublicKey):
        if found.key_size < MIN_RSA_BITS:
            raise Invalid(
                {"public_key": f"An RSA key has at least {MIN_RSA_BITS:,} bits; this one {found.key_size:,}."}
            )
        algorithm = KeyAlgorithm.RSA_PSS if pss else KeyAlgorithm.RSA_PKCS1
    else:
        raise Invalid({"public_key": "Take ECDSA on the curve P-256, Ed25519, or RSA of at least 2,048 bits."})
    der = found.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    clean = found.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    return PublicKey(algorithm.value, hashlib.sha256(der).hexdigest(), clean, found)


def pae(payload_type: str, body: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding; lengths count bytes."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(body), body)


def verifies(key: PublicKey, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is the key's over `message`."""
    public = key.loaded
    try:
        if isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(signature, message)
        elif isinstance(public, rsa.RSAPublicKey):
            pad: Any = padding.PKCS1v15()
            if key.algorithm == KeyAlgorithm.RSA_PSS:
                # Signers differ in the salt's length (openssl: as long as possible; others: the digest's).
                pad = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO)
            public.verify(signature, message, pad, hashes.SHA256())
        else:
            return _ecdsa(public, message, signature)
    except (InvalidSignature, ValueError):
        return False
    return True


def _ecdsa(public: ec.EllipticCurvePublicKey, message: bytes, signature: bytes) -> bool:
    tries = [signature]
    if len(signature) == 64:  # r and s one after the other (IEEE P1363), as DSSE's own example has it
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        tries.append(encode_dss_signature(r, s))
    for one in tries:
        try:
            public.verify(one, message, ec.ECDSA(hashes.SHA256()))
        except (InvalidSignature, ValueError):
            continue
        return True
    return False


def read(raw: Mapping[str, Any], manifest: bytes, digest: str) -> Signed:
    """Return what was given as a signature over the manifest of `digest`.

    `raw` holds `signature` (base64; alone: over the manifest), with `signed_payload` (base64 or the text itself: over a
    cosign payload), or `envelope` (JSON or its object: DSSE). Raises Invalid beside the field for what cannot be read
    or names other bytes.
    """
    given = [name for name in ("signature", "envelope") if raw.get(name)]
    if len(given) != 1:
        raise Invalid({"signature": "Give either the signature, or a DSSE envelope that holds it."})
    if raw.get("envelope"):
        if raw.get("signed_payload"):
            raise Invalid({"signed_payload": "A DSSE envelope holds its own payload: leave this empty."})
        return _envelope(raw["envelope"], digest)
    signature = _base64(raw["signature"], "signature", "The signature", MAX_SIGNATURE)
    kept = {"signature": base64.b64encode(signature).decode()}
    if not raw.get("signed_payload"):
        return Signed(RAW, (manifest, f"sha256:{digest}".encode()), (signature,), kept)
    payload = _payload(raw["signed_payload"])
    _names_simple(payload, digest, "signed_payload")
    kept["signed_payload"] = base64.b64encode(payload).decode()
    return Signed(COSIGN, (payload,), (signature,), kept)


def signer(signed: Signed, keys: Iterable[PublicKey]) -> PublicKey | None:
    """Return the first of `keys` that made one of the signatures, or None."""
    for key in keys:
        for message in signed.messages:
            if any(verifies(key, message, one) for one in signed.signatures):
                return key
    return None


def _envelope(given: Any, digest: str) -> Signed:
    name = "envelope"
    if isinstance(given, str) and len(given) > 2 * MAX_PAYLOAD:
        raise Invalid({name: f"At most {2 * MAX_PAYLOAD // 1024} KiB."})
    body = _json(given, name, "The envelope") if isinstance(given, str) else given
    entries = body.get("signatures") if isinstance(body, Mapping) else None
    if (
        not isinstance(body, Mapping)
        or not isinstance(body.get("payloadType"), str)
        or not isinstance(body.get("payload"), str)
        or not isinstance(entries, list)
        or not all(isinstance(one, Mapping) and isinstance(one.get("sig"), str) for one in entries)
    ):
        raise Invalid({name: "A DSSE envelope is an object with payloadType, payload and signatures [{sig}]."})
    if not 1 <= len(entries) <= MAX_SIGNATURES:
        raise Invalid({name: f"The envelope holds one to {MAX_SIGNATURES} signatures."})
    payload = _base64(body["payload"], name, "The envelope's payload", MAX_PAYLOAD)
    signatures = tuple(_base64(one["sig"], name, "A signature in the envelope", MAX_SIGNATURE) for one in entries)
    kind = body["payloadType"]
    if kind == INTOTO:
        _names_statement(payload, digest)
    elif kind == SIMPLE_SIGNING:
        _names_simple(payload, digest, name)
    else:
        raise Invalid({name: f"Its payloadType is “{kind[:80]}”. Taken are {INTOTO} and {SIMPLE_SIGNING}."})
    kept = {
        "signature": ",".join(base64.b64encode(one).decode() for one in signatures),
        "signed_payload": base64.b64encode(payload).decode(),
        "payload_type": kind,
    }
    return Signed(DSSE, (pae(kind, payload),), signatures, kept)


def _names_statement(payload: bytes, digest: str) -> None:
    body = _json(payload, "envelope", "The envelope's payload")
    subjects = body.get("subject") if isinstance(body, dict) else None
    if not isinstance(body, dict) or body.get("_type") not in STATEMENTS or not isinstance(subjects, list):
        raise Invalid({"envelope": "The envelope's payload is no in-toto statement (v0.1 or v1) with subjects."})
    if not 1 <= len(subjects) <= MAX_SUBJECTS:
        raise Invalid({"envelope": f"The statement names one to {MAX_SUBJECTS:,} subjects."})
    named = [
        str(one["digest"].get("sha256", ""))
        for one in subjects
        if isinstance(one, dict) and isinstance(one.get("digest"), dict)
    ]
    _same(named, digest, "envelope", "The statement")


def _names_simple(payload: bytes, digest: str, name: str) -> None:
    body = _json(payload, name, "The signed payload")
    critical = body.get("critical") if isinstance(body, dict) else None
    image = critical.get("image") if isinstance(critical, dict) else None
    if not isinstance(critical, dict) or not isinstance(image, dict) or critical.get("type") != COSIGN_TYPE:
        raise Invalid({name: f"It is no simple signing payload: critical.image, and critical.type “{COSIGN_TYPE}”."})
    # Older versions of cosign wrote the member with a capital letter (its documentation still does).
    value = image.get("docker-manifest-digest", image.get("Docker-manifest-digest"))
    if not isinstance(value, str) or not value.startswith("sha256:"):
        raise Invalid({name: "critical.image.docker-manifest-digest is missing, or no sha256."})
    _same([value.removeprefix("sha256:")], digest, name, "The signed payload")


def _same(named: Sequence[str], digest: str, name: str, what: str) -> None:
    if digest in named:
        return
    first = next((one for one in named if _SHA256.match(one)), "")
    about = f"names sha256:{first[:12]}…" if first else "names no sha256"
    raise Invalid({name: f"{what} {about}, and this version's manifest is sha256:{digest[:12]}…: sign this manifest."})


def _payload(given: Any) -> bytes:
    if not isinstance(given, str):
        raise Invalid({"signed_payload": "Send the payload's bytes as base64, or its text as it was signed."})
    if given.lstrip().startswith("{"):  # no base64 begins so: the text itself
        data = given.encode()
        if len(data) > MAX_PAYLOAD:
            raise Invalid({"signed_payload": f"At most {MAX_PAYLOAD // 1024} KiB."})
        return data
    return _base64(given, "signed_payload", "The payload", MAX_PAYLOAD)


def _base64(given: Any, name: str, what: str, limit: int) -> bytes:
    if not isinstance(given, str) or len(given) > limit * 2:
        raise Invalid({name: f"{what} is base64 of at most {limit:,} bytes."})
    text = "".join(given.split())
    try:
        # DSSE allows either alphabet (protocol.md, "standard or URL-safe").
        data = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (ValueError, binascii.Error):
        raise Invalid({name: f"{what} is no base64."}) from None
    if not 1 <= len(data) <= limit:
        raise Invalid({name: f"{what} is base64 of at most {limit:,} bytes."})
    return data


def _json(data: bytes | str, name: str, what: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise Invalid({name: f"{what} is no JSON."}) from None


__all__ = [
    "COSIGN", "DSSE", "FORMATS", "RAW", "PublicKey", "Signed", "pae", "read", "read_public_key", "signer", "verifies",
]  # fmt: skip
