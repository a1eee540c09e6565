"""What a file is, from its first bytes: never from its name, nor from what a browser claims. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable

#: So many bytes of a file's beginning are enough for every rule below.
HEAD_BYTES = 4096
UNKNOWN = "application/octet-stream"
SAFETENSORS, GGUF, ONNX = "application/x-safetensors", "application/x-gguf", "application/x-onnx"
PICKLE, ZIP, HDF5 = "application/x-python-pickle", "application/zip", "application/x-hdf5"
#: An archive with a pickle in it, as PyTorch saves models.
PICKLES = "application/x-zip-of-pickles"
PROGRAM, SCRIPT = "application/x-executable", "text/x-script"
HTML, SVG, XML, JSON, TEXT = "text/html", "image/svg+xml", "application/xml", "application/json", "text/plain"
PDF, PNG, JPEG, CSV = "application/pdf", "image/png", "image/jpeg", "text/csv"

#: Reading such a file may run code that it contains.
CODE = frozenset({PICKLE, PICKLES, PROGRAM, SCRIPT})

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"GGUF", GGUF),
    (0, b"\x89HDF\r\n\x1a\n", HDF5),
    (0, b"PK\x03\x04", ZIP),
    (0, b"PK\x05\x06", ZIP),
    (0, b"%PDF-", PDF),
    (0, b"\x89PNG\r\n\x1a\n", PNG),
    (0, b"\xff\xd8\xff", JPEG),
    (0, b"GIF8", "image/gif"),
    (0, b"PAR1", "application/x-parquet"),
    (0, b"\x1f\x8b", "application/gzip"),
    (0, b"\x28\xb5\x2f\xfd", "application/zstd"),
    (0, b"BZh", "application/x-bzip2"),
    (0, b"\xfd7zXZ\x00", "application/x-xz"),
    (0, b"\x7fELF", PROGRAM),
    (0, b"MZ", PROGRAM),
    (0, b"\xca\xfe\xba\xbe", PROGRAM),
    (0, b"\xcf\xfa\xed\xfe", PROGRAM),
    (0, b"\xfe\xed\xfa\xcf", PROGRAM),
    (0, b"\x93NUMPY", "application/x-npy"),
    (0, b"TFL3", "application/x-tflite"),
    (4, b"TFL3", "application/x-tflite"),
    (257, b"ustar", "application/x-tar"),
)


def sniff(head: bytes) -> str:
    """Return the content type that the first `HEAD_BYTES` bytes speak of; octet-stream where nothing is certain."""
    if not head:
        return TEXT
    for offset, magic, found in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return PICKLES if found == ZIP and _of_pickles(head) else found
    rules: tuple[Callable[[bytes], str], ...] = (_safetensors, _pickle, _onnx, _text)
    return next((found for rule in rules if (found := rule(head))), UNKNOWN)


def _safetensors(head: bytes) -> str:
    """Little-endian length of the JSON header in 8 bytes, then the header itself (safetensors format, README)."""
    if len(head) < 10:
        return ""
    length = int.from_bytes(head[:8], "little")
    return SAFETENSORS if 2 <= length <= 100_000_000 and head[8:10] in (b'{"', b"{}") else ""


def _of_pickles(head: bytes) -> bool:
    """Whether an archive that begins so holds a pickle: PyTorch writes `…/data.pkl` first. Nothing is unpacked."""
    return any(name in head for name in (b".pkl", b".pickle"))


def _pickle(head: bytes) -> str:
    """Opcode PROTO with protocol 2 to 5, then no text (pickletools)."""
    return PICKLE if len(head) >= 3 and head[0] == 0x80 and 2 <= head[1] <= 5 else ""


def _onnx(head: bytes) -> str:
    """Field 1 (ir_version, a small varint), then field 2 (producer_name) or 7 (graph) of onnx.ModelProto."""
    fine = len(head) > 4 and head[0] == 0x08 and head[1] < 0x20 and head[2] in (0x12, 0x3A)
    return ONNX if fine and b"\x00" in head else ""


def _text(head: bytes) -> str:
    cut = head[:HEAD_BYTES]
    try:
        text = cut.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(cut) - 3 or len(cut) < HEAD_BYTES:  # not merely a character cut in two
            return ""
        text = cut[: error.start].decode("utf-8")
    if any(character < " " and character not in "\t\n\r\f\x1b" for character in text):
        return ""
    begin = text.lstrip("\ufeff \t\r\n")
    lowered = begin[:512].lower()
    if begin.startswith("#!"):
        return SCRIPT
    if lowered.startswith(("<!doctype html", "<html", "<head", "<body", "<script")) or "<script" in lowered:
        return HTML
    if lowered.startswith("<svg") or (lowered.startswith("<?xml") and "<svg" in lowered):
        return SVG
    if lowered.startswith("<?xml"):
        return XML
    if begin[:1] in ("{", "["):
        return JSON if len(head) >= HEAD_BYTES or _parses(begin) else TEXT
    return TEXT


def _parses(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
