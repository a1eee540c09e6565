"""Which addresses the portal calls: no way through it into metadata services or places nobody allowed."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from django.conf import settings

from apps.clusters.errors import AddressRefused, Unreachable

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# Metadata services that do not live on link-local addresses (AWS IPv6, Alibaba Cloud, Oracle's classic one).
_METADATA = frozenset(ipaddress.ip_address(text) for text in ("fd00:ec2::254", "100.100.100.200", "192.0.0.192"))


def _allowed_networks() -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    texts: Sequence[str] = getattr(settings, "COMMONS_CLUSTER_ALLOWED_NETWORKS", ())
    return [ipaddress.ip_network(text.strip(), strict=False) for text in texts if text.strip()]


def _refusal(address: _Address) -> str:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address in _METADATA or address.is_link_local:
        return "leads to a link-local or metadata address"
    if address.is_multicast or address.is_unspecified:
        return "leads to an address that no server has"
    networks = _allowed_networks()
    if networks and not any(address in network for network in networks if network.version == address.version):
        return "lies outside the networks this installation allows"
    if address.is_loopback and not networks and settings.COMMONS_ENVIRONMENT == "production":
        return "leads to the portal's own machine"
    return ""


def check_address(url: str, *, resolve: bool = True) -> str:
    """Return `url` without a trailing slash if the portal may call it.

    With `resolve`, every address its host name has is checked too. Raises AddressRefused with the reason, Unreachable
    where the name has no address.
    """
    parts = urlsplit(url.strip())
    try:
        port = parts.port
    except ValueError as error:
        raise AddressRefused("the port is no number between 1 and 65535") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise AddressRefused("an address looks like https://api.cluster.example.com:6443")
    if parts.username or parts.password:
        raise AddressRefused("an address carries no user name or password; credentials have their own field")
    if parts.query or parts.fragment:
        raise AddressRefused("an address carries no query and no fragment")
    try:
        found: list[_Address] = [ipaddress.ip_address(parts.hostname)]
    except ValueError:
        found = _resolve(parts.hostname, port or (443 if parts.scheme == "https" else 80)) if resolve else []
    for address in found:
        if reason := _refusal(address):
            raise AddressRefused(f"{parts.hostname} {reason}")
    return url.strip().rstrip("/")


def _resolve(host: str, port: int) -> list[_Address]:
    try:
        rows = socket.getaddrinfo(host, port, proto=socket.IPPROTO_TCP)
    except OSError as error:
        raise Unreachable(f"the name {host} has no address") from error
    return [ipaddress.ip_address(str(row[4][0]).split("%")[0]) for row in rows]
