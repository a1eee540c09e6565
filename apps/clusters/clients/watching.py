"""A watch as a stream of events: one JSON document a line, bookmarks included, closable from another thread."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import urllib3

from apps.clusters.clients.answers import error_of
from apps.clusters.errors import ServerError, TooLarge, Unreachable

#: One event larger than this is refused (an object is at most 1.5 MiB in etcd).
MAX_LINE_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """ADDED, MODIFIED, DELETED or BOOKMARK, with the object (of a bookmark: only its resource version)."""

    type: str
    object: dict[str, Any]

    @property
    def resource_version(self) -> str:
        """The version to resume from after this event."""
        return str((self.object.get("metadata") or {}).get("resourceVersion", ""))


class WatchStream:
    """Iterate for events; ends when the server ends the watch or `close()` is called.

    Raises Gone where the version watched from has expired, Unreachable where the connection breaks.
    """

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response
        self._closed = False

    def __iter__(self) -> Iterator[WatchEvent]:
        buffer = b""
        try:
            # read1-like: urllib3 hands on each chunk as it arrives.
            for part in self._response.stream(None, decode_content=True):
                buffer += part
                *lines, buffer = buffer.split(b"\n")
                if len(buffer) > MAX_LINE_BYTES:
                    raise TooLarge(f"a watch event is larger than {MAX_LINE_BYTES} bytes")
                for line in lines:
                    if line.strip():
                        yield self._event(line)
        except (urllib3.exceptions.HTTPError, OSError, AttributeError) as error:
            # AttributeError: http.client lets its file go when another thread closes the response.
            if not self._closed:
                raise Unreachable(f"the watch broke off: {type(error).__name__}") from error
        finally:
            self._response.close()

    def close(self) -> None:
        """End the watch; a thread blocked in reading it wakes up."""
        self._closed = True
        connection = getattr(self._response, "_connection", None)
        sock = getattr(connection, "sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _event(line: bytes) -> WatchEvent:
        try:
            parsed = json.loads(line)
            event_type, obj = parsed["type"], parsed["object"]
        except (ValueError, KeyError, TypeError) as error:
            raise ServerError("the watch sent something that is no event") from error
        if event_type == "ERROR":
            raise error_of(int(obj.get("code") or 500), obj, warnings=[])
        return WatchEvent(str(event_type), obj)
