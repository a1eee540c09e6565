"""Connections that go to checked addresses only.

A name that was harmless when a page took it may lead elsewhere by the time it is called (DNS rebinding). So the check
sits where the connection is made: the name is resolved once, every address of it is checked, and the socket goes to
one of exactly these addresses. A kept-alive connection stays with the peer that was checked.
"""

from __future__ import annotations

import socket
import ssl
from typing import Any
from urllib.parse import urlsplit

from requests.adapters import HTTPAdapter
from urllib3 import PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from apps.clusters.addresses import checked_addresses


class _Checked(HTTPConnection):
    """Resolves and checks by itself instead of leaving it to `create_connection`."""

    def _new_conn(self) -> socket.socket:
        """Connect to the first checked address that answers. Raises AddressRefused, Unreachable and urllib3's own."""
        name = self._dns_host
        failure: NewConnectionError | ConnectTimeoutError | None = None
        for address in checked_addresses(name, self.port):
            try:
                # An address in place of the name: nothing is left to resolve. TLS goes on verifying the name.
                self._dns_host = address
                return super()._new_conn()
            except (NewConnectionError, ConnectTimeoutError) as error:
                failure = error
            finally:
                self._dns_host = name
        raise failure or NewConnectionError(self, f"{name} has no address")


class _CheckedTls(_Checked, HTTPSConnection):
    """The same under TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Checked


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _CheckedTls


def checked_pool(url: str, *, ca_pem: str = "", maxsize: int) -> HTTPConnectionPool:
    """Return a pool of checked connections to the host of `url`; TLS is verified with `ca_pem` ("": the system's)."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "http":
        return _Pool(host, parts.port or 80, maxsize=maxsize)
    return _TlsPool(host, parts.port or 443, maxsize=maxsize, cert_reqs=ssl.CERT_REQUIRED, ca_cert_data=ca_pem or None)


def check_connections(manager: PoolManager) -> None:
    """Make every connection of a urllib3 pool manager a checked one."""
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}


class CheckedAdapter(HTTPAdapter):
    """An adapter for requests whose connections are checked ones."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Build the pool manager as requests does, with our connections."""
        super().init_poolmanager(*args, **kwargs)
        check_connections(self.poolmanager)
