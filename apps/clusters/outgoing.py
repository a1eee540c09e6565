"""Fills core's hook for outgoing calls with the guard that calls to clusters have."""

from __future__ import annotations

import time
from collections.abc import Mapping
from urllib.parse import urlsplit, urlunsplit

from apps.clusters.addresses import check_address
from apps.clusters.clients.http import BoundedSession
from apps.clusters.errors import AddressRefused, ClusterError
from apps.core import outgoing

#: Seconds to connect, and to wait for the next bytes of the answer.
TIMEOUT = (5.0, 10.0)
#: So much of a refusal is kept for the people who look for its cause.
EXCERPT_BYTES = 2048
#: The longest answer that is read whole, and how long reading it may take in all: somebody waits in front of it.
WHOLE_BYTES = 1024 * 1024
WHOLE_SECONDS = 15.0


def install() -> None:
    """Connect core's hook with the guard."""
    outgoing.install(check=check, post=post, call=call)


def check(url: str) -> None:
    """Raise CallRefused for an address that the portal does not call. Its query is the receiver's business."""
    try:
        parts = urlsplit(url)
        check_address(urlunsplit((parts.scheme, parts.netloc, parts.path, "", parts.fragment)), resolve=False)
    except ValueError as error:
        raise outgoing.CallRefused("an address looks like https://hooks.example.com/commons") from error
    except ClusterError as error:
        raise outgoing.CallRefused(error.message) from error


def post(url: str, body: bytes, headers: Mapping[str, str]) -> outgoing.Answer:
    """Post and return the answer. Raises CallRefused, CallFailed."""
    check(url)
    session = BoundedSession(EXCERPT_BYTES)
    try:
        with session.streamed("POST", url, data=body, headers=dict(headers), timeout=TIMEOUT) as (response, _):
            # One read of what has arrived: an answer that drips would hold the worker for as long as it pleases.
            words = b"" if response.status_code < 300 else response.raw.read1(EXCERPT_BYTES, decode_content=False)
            return outgoing.Answer(response.status_code, words.decode(errors="replace").replace("\x00", ""))
    except AddressRefused as error:
        raise outgoing.CallRefused(error.message) from error
    except ClusterError as error:
        raise outgoing.CallFailed(error.message) from error
    finally:
        session.close()


def call(method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> outgoing.Answer:
    """Send and return the whole answer. Raises CallRefused, CallFailed."""
    check(url)
    session = BoundedSession(WHOLE_BYTES)
    # Unpacked by nobody: an answer is no longer than what came over the wire.
    sent = {**headers, "Accept-Encoding": "identity"}
    ends = time.monotonic() + WHOLE_SECONDS
    try:
        with session.streamed(method, url, data=body, headers=sent, timeout=TIMEOUT) as (response, _):
            whole = bytearray()
            while piece := response.raw.read1(65536, decode_content=False):
                whole += piece
                if len(whole) > WHOLE_BYTES:
                    raise outgoing.CallFailed(f"the answer is larger than {WHOLE_BYTES} bytes")
                if time.monotonic() > ends:
                    raise outgoing.CallFailed(f"the answer took longer than {WHOLE_SECONDS:.0f} seconds")
            kind = str(response.headers.get("Content-Type", ""))
            return outgoing.Answer(response.status_code, body=bytes(whole), content_type=kind)
    except AddressRefused as error:
        raise outgoing.CallRefused(error.message) from error
    except ClusterError as error:
        raise outgoing.CallFailed(error.message) from error
    finally:
        session.close()
