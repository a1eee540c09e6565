#!/usr/bin/env python3
"""Verifies a bundle of audit events without the portal: one file, nothing but Python 3.9 or newer.

    python3 verify.py BUNDLE.zip --public-key KEY [--public-key KEY …] [--json]

Exit codes: 0 intact, 1 tampered, 2 incomplete (no trusted key given, or events that no checkpoint covers yet), 3 error.
KEY is an Ed25519 public key, 32 bytes in URL-safe base64, that reached you another way than this bundle.

Formats: leaf = SHA-256(0x00 ‖ event bytes); link = SHA-256(0x02 ‖ link before ‖ int64 number ‖ leaf ‖ int64 sealed at,
microseconds since 1970); node of the Merkle tree = SHA-256(0x01 ‖ left ‖ right) (RFC 6962); a note is committed to as
SHA-256(salt ‖ note bytes); signatures are Ed25519 (RFC 8032).
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import sys
import zipfile
from typing import Any

INTACT, TAMPERED, INCOMPLETE, ERROR = 0, 1, 2, 3
NAMES = {INTACT: "intact", TAMPERED: "tampered", INCOMPLETE: "incomplete", ERROR: "error"}

# ---- Ed25519 verification, by RFC 8032 §5.1.7 ------------------------------------------------------------------------

P = 2**255 - 19
Q = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
I = pow(2, (P - 1) // 4, P)  # noqa: E741 (its name in the standard)

Point = tuple[int, int, int, int]  # extended coordinates X, Y, Z, T with x = X/Z, y = Y/Z, x·y = T/Z


def _add(a: Point, b: Point) -> Point:
    """Add two points (RFC 8032 §5.1.4)."""
    aa = (a[1] - a[0]) * (b[1] - b[0]) % P
    bb = (a[1] + a[0]) * (b[1] + b[0]) % P
    cc = 2 * a[3] * b[3] * D % P
    dd = 2 * a[2] * b[2] % P
    e, f, g, h = bb - aa, dd - cc, dd + cc, bb + aa
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def _times(scalar: int, point: Point) -> Point:
    """Multiply a point by a number."""
    result: Point = (0, 1, 1, 0)
    while scalar > 0:
        if scalar & 1:
            result = _add(result, point)
        point = _add(point, point)
        scalar >>= 1
    return result


def _same(a: Point, b: Point) -> bool:
    """Whether two points in extended coordinates are one."""
    return (a[0] * b[2] - b[0] * a[2]) % P == 0 and (a[1] * b[2] - b[1] * a[2]) % P == 0


def _decompress(data: bytes) -> Point | None:
    """Return the point of 32 bytes, None where they are none (RFC 8032 §5.1.3)."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    if y >= P:
        return None
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    if x2 == 0:
        return None if sign else (0, y, 1, 0)
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * I % P
    if (x * x - x2) % P:
        return None
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


_GY = 4 * pow(5, P - 2, P) % P
_G = _decompress(_GY.to_bytes(32, "little"))


def signature_holds(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether an Ed25519 signature holds."""
    if len(public) != 32 or len(signature) != 64 or _G is None:
        return False
    a, r = _decompress(public), _decompress(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= Q:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % Q
    return _same(_times(s, _G), _add(r, _times(h, a)))


# ---- The trail -------------------------------------------------------------------------------------------------------


def leaf_of(canonical: bytes) -> bytes:
    """Return the leaf of an event."""
    return hashlib.sha256(b"\x00" + canonical).digest()


def link_of(prev: bytes, seq: int, leaf: bytes, sealed_at_us: int) -> bytes:
    """Return the hash of a link."""
    numbers = seq.to_bytes(8, "big", signed=True), sealed_at_us.to_bytes(8, "big", signed=True)
    return hashlib.sha256(b"\x02" + prev + numbers[0] + leaf + numbers[1]).digest()


def included(leaf: bytes, index: int, size: int, path: list[bytes], root: bytes) -> bool:
    """Whether a path proves that a leaf is number `index` (from 0) of `size` under a root."""
    if not 0 <= index < size:
        return False
    found, at, last, rest = leaf, index, size - 1, list(path)
    while last > 0:
        if at % 2 == 1 or at < last:
            if not rest:
                return False
            sibling = rest.pop(0)
            pair = sibling + found if at % 2 == 1 else found + sibling
            found = hashlib.sha256(b"\x01" + pair).digest()
        at, last = at // 2, last // 2
    return not rest and found == root


class Verdict:
    """What was found: `wrong` is tampering, `missing` makes the result incomplete."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.missing: list[str] = []
        self.events = 0
        self.checkpoints = 0
        self.keys: list[str] = []

    @property
    def code(self) -> int:
        """The exit code."""
        return TAMPERED if self.wrong else INCOMPLETE if self.missing else INTACT

    def data(self) -> dict[str, Any]:
        """The verdict as JSON-ready data."""
        return {
            "outcome": NAMES[self.code],
            "events": self.events,
            "checkpoints": self.checkpoints,
            "signed_by": self.keys,
            "tampered": self.wrong,
            "incomplete": self.missing,
        }


def key_id(public: bytes) -> str:
    """Return a key's short name: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:16]


def check_checkpoints(bundle: zipfile.ZipFile, trusted: list[bytes], verdict: Verdict) -> dict[int, dict[str, Any]]:
    """Return the checkpoints whose signature a trusted key made, by the number of their last link."""
    keys = {key_id(raw): raw for raw in trusted}
    good: dict[int, dict[str, Any]] = {}
    for name in sorted(bundle.namelist()):
        if not name.endswith(".checkpoint.json"):
            continue
        data = json.loads(bundle.read(name))
        body = data["body"].encode()
        public = keys.get(data["key_id"])
        if public is None and trusted:
            verdict.missing.append(f"{name} is signed by the key {data['key_id']}, which you did not say you trust")
            continue
        if public is None:
            public = base64.urlsafe_b64decode(data["public_key"])
        if not signature_holds(public, body, base64.b64decode(data["signature"])):
            verdict.wrong.append(f"the signature of {name} is forged")
            continue
        verdict.checkpoints += 1
        if key_id(public) not in verdict.keys:
            verdict.keys.append(key_id(public))
        parsed = json.loads(body)
        good[int(parsed["seq"])] = parsed
    return good


def check_event(data: dict[str, Any], good: dict[int, dict[str, Any]], verdict: Verdict) -> None:
    """Hold one event against its link, its note and its proof."""
    seq, canonical = int(data["seq"]), data["canonical"].encode()
    leaf, prev = leaf_of(canonical), bytes.fromhex(data["prev"])
    if link_of(prev, seq, leaf, int(data["sealed_at_us"])).hex() != data["hash"]:
        verdict.wrong.append(f"event {seq}: its bytes are not those that were sealed")
        return
    committed = json.loads(canonical).get("note", "")
    note = data.get("note")
    if note is not None:
        said = hashlib.sha256(base64.b64decode(note["salt"]) + base64.b64decode(note["body"])).hexdigest()
        if said != committed:
            verdict.wrong.append(f"event {seq}: its note is not the one that was committed to")
    if seq in good and good[seq]["hash"] != data["hash"]:
        verdict.wrong.append(f"event {seq}: the signed link is another one")
    proof = data.get("proof")
    if proof is None:
        verdict.missing.append(f"event {seq} is newer than the last checkpoint")
        return
    checkpoint = good.get(int(proof["size"]))
    if checkpoint is None:
        verdict.missing.append(f"event {seq}: the checkpoint {proof['size']} that its proof is for is not trusted")
        return
    path = [bytes.fromhex(one) for one in proof["path"]]
    if not included(leaf, seq - 1, int(proof["size"]), path, bytes.fromhex(checkpoint["merkle_root"])):
        verdict.wrong.append(f"event {seq} is not among the events that were signed")


def check(bundle: zipfile.ZipFile, trusted: list[bytes]) -> Verdict:
    """Verify everything in a bundle."""
    verdict = Verdict()
    if not trusted:
        verdict.missing.append("no public key was given: the keys in the bundle prove nothing by themselves")
    good = check_checkpoints(bundle, trusted, verdict)
    previous: tuple[int, str] | None = None
    with bundle.open("events.jsonl") as lines:
        for line in lines:
            data = json.loads(line)
            verdict.events += 1
            seq = int(data["seq"])
            if previous is not None and seq == previous[0] + 1 and data["prev"] != previous[1]:
                verdict.wrong.append(f"event {seq} does not follow from the one before it")
            if previous is not None and seq <= previous[0]:
                verdict.wrong.append(f"event {seq} stands out of order")
            previous = seq, data["hash"]
            check_event(data, good, verdict)
    promised = json.loads(bundle.read("manifest.json"))["events"]
    if promised != verdict.events:
        verdict.wrong.append(f"the bundle promises {promised} events and holds {verdict.events}")
    return verdict


def main(arguments: list[str]) -> int:
    """Verify the bundle named on the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Verify a bundle of audit events.")
    parser.add_argument("bundle")
    parser.add_argument("--public-key", action="append", default=[], metavar="KEY")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        trusted = [base64.urlsafe_b64decode(text) for text in options.public_key]
        with zipfile.ZipFile(options.bundle) as bundle:
            verdict = check(bundle, trusted)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        print(json.dumps({"outcome": "error", "error": str(error)}) if options.json else f"Cannot read it: {error}")
        return ERROR
    if options.json:
        print(json.dumps(verdict.data(), indent=2))
    else:
        for text in verdict.wrong:
            print(f"TAMPERED   {text}")
        for text in verdict.missing:
            print(f"INCOMPLETE {text}")
        signed = ", ".join(verdict.keys) or "nobody"
        print(f"{NAMES[verdict.code]}: {verdict.events} events, {verdict.checkpoints} checkpoints signed by {signed}")
    return verdict.code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
