"""Just enough protobuf to understand `kubectl auth can-i` and `whoami`, which speak nothing else.

Wire format: a magic prefix, `runtime.Unknown` (field 2 holds the object), fields numbered as in `generated.proto` of
authorization/v1. Everything else that arrives as protobuf is refused with 415.
"""

from __future__ import annotations

from apps.demo.cluster.errors import Obj, bad_request

MAGIC = b"k8s\x00"
_ATTRIBUTES = {1: "namespace", 2: "verb", 3: "group", 4: "version", 5: "resource", 6: "subresource", 7: "name"}


def decode_access_review(raw: bytes) -> Obj:
    """The `spec` of a SelfSubjectAccessReview. Raises 400 for bytes that are none."""
    if not raw.startswith(MAGIC):
        raise bad_request("provided data does not appear to be a protobuf message")
    body = _field(_message(raw[len(MAGIC) :]), 2)
    spec = _message(_field(_message(body), 2))
    out: Obj = {}
    if 1 in spec:
        values = _message(spec[1])
        out["resourceAttributes"] = _texts(values, _ATTRIBUTES)
    if 2 in spec:
        values = _message(spec[2])
        out["nonResourceAttributes"] = {
            name: values[number].decode("utf-8", "replace")
            for number, name in {1: "path", 2: "verb"}.items()
            if number in values
        }
    return {"spec": out}


def _texts(values: dict[int, bytes], names: dict[int, str]) -> Obj:
    return {name: values[number].decode("utf-8", "replace") for number, name in names.items() if number in values}


def _field(message: dict[int, bytes], number: int) -> bytes:
    return message.get(number, b"")


def _message(raw: bytes) -> dict[int, bytes]:
    """Length-delimited fields of a message, the last of each number; scalars are skipped."""
    out: dict[int, bytes] = {}
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        wire = tag & 7
        if wire == 0:
            _, at = _varint(raw, at)
        elif wire == 2:
            length, at = _varint(raw, at)
            if at + length > len(raw):
                raise bad_request("truncated protobuf message")
            out[tag >> 3] = raw[at : at + length]
            at += length
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise bad_request("malformed protobuf message")
    return out


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(raw) or shift > 63:
            raise bad_request("malformed protobuf message")
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
