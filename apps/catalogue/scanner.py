"""The virus scanner: clamd over TCP, by its INSTREAM command (clamd(8): 4-byte big-endian lengths, 0 ends)."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass

from django.conf import settings

from apps.clusters.clients.guard import no_transaction

SECONDS = 120.0
#: clamd answers one line; more is no answer of clamd's.
_MOST = 4096
PIECE = 1024 * 1024


class ScannerAway(Exception):
    """The scanner does not answer, or answers that it could not look at everything."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What the scanner said: the name of what it found, "" for a clean file."""

    signature: str = ""

    @property
    def infected(self) -> bool:
        """Whether anything was found."""
        return bool(self.signature)


def configured() -> bool:
    """Whether this installation has a scanner."""
    return bool(settings.COMMONS_SCANNER)


def address() -> tuple[str, int]:
    """Return the scanner's host and port. Raises ScannerAway for a setting that is none."""
    text = settings.COMMONS_SCANNER.removeprefix("clamd://").strip("/")
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise ScannerAway("COMMONS_SCANNER is host:port of clamd")
    return host.strip("[]"), int(port)


def scan(pieces: Iterable[bytes], *, seconds: float = SECONDS) -> Finding:
    """Send the bytes to clamd and return what it says. Raises ScannerAway; never called inside a transaction."""
    no_transaction("scanning a file")
    host, port = address()
    try:
        with socket.create_connection((host, port), timeout=seconds) as link:
            link.sendall(b"zINSTREAM\0")
            try:
                for piece in pieces:
                    for start in range(0, len(piece), PIECE):
                        part = piece[start : start + PIECE]
                        link.sendall(len(part).to_bytes(4, "big") + part)
                link.sendall(bytes(4))
            except (BrokenPipeError, ConnectionResetError):
                # clamd hangs up once it has seen enough (its limit, say) and has said so before.
                return _verdict(_answer(link, cut=True))
            return _verdict(_answer(link))
    except OSError as error:
        raise ScannerAway(f"the scanner does not answer ({type(error).__name__})") from error


def _answer(link: socket.socket, *, cut: bool = False) -> str:
    found = b""
    while len(found) < _MOST and b"\0" not in found:
        try:
            piece = link.recv(_MOST - len(found))
        except ConnectionResetError:
            if not cut:
                raise
            break
        if not piece:
            break
        found += piece
    return found.partition(b"\0")[0].decode("utf-8", "replace").strip()


def _verdict(answer: str) -> Finding:
    text = answer.removeprefix("stream:").strip()
    if text == "OK":
        return Finding()
    if text.endswith(" FOUND"):
        return Finding(text.removesuffix(" FOUND").strip()[:300] or "unnamed")
    if "size limit exceeded" in text:
        raise ScannerAway("the file is larger than the scanner takes: raise clamd's StreamMaxLength")
    raise ScannerAway(f"the scanner answered “{text[:200] or 'nothing'}”")
