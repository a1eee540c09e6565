"""Which addresses the portal calls: no way through it into metadata services or places nobody allowed."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from django.conf import settings

from apps.clusters.errors import AddressRefused, Unreachable

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# Metadata services that do not live on link-local addresses: AWS and Google over IPv6, Alibaba Cloud, Oracle's classic
# one, Azure's wire server.
_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "192.0.0.192", "168.63.129.16")
)
# IPv4 in IPv6 by translation (RFC 6052, RFC 8215): the last 32 bits are where it leads.
_TRANSLATED = tuple(ipaddress.IPv6Network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48"))


def _networks(setting: str) -> list[_Network]:
    texts: Sequence[str] = getattr(settings, setting, ())
    return [ipaddress.ip_network(text.strip(), strict=False) for text in texts if text.strip()]


def _within(address: _Address, networks: Sequence[_Network]) -> bool:
    return any(address in network for network in networks if network.version == address.version)


def _leads_to(address: _Address) -> list[_Address]:
    """Return the address itself and every IPv4 address that it stands for."""
    found: list[_Address] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return [address.ipv4_mapped]
        if address.sixtofour is not None:
            found.append(address.sixtofour)
        if address.teredo is not None:
            found.append(address.teredo[1])
        low = int(address) & 0xFFFFFFFF
        if _within(address, _TRANSLATED) or (0xFFFF < int(address) <= 0xFFFFFFFF):
            found.append(ipaddress.IPv4Address(low))
    return found


def _refusal(address: _Address) -> str:
    return next((reason for one in _leads_to(address) if (reason := _refusal_of(one))), "")


def _refusal_of(address: _Address) -> str:
    if address in _METADATA or address.is_link_local:
        return "leads to a link-local or metadata address"
    if address.is_multicast or address.is_unspecified or address == ipaddress.IPv4Address("255.255.255.255"):
        return "leads to an address that no server has"
    if _within(address, _networks("COMMONS_CLUSTER_DENIED_NETWORKS")):
        return "lies in a network that this installation denies"
    networks = _networks("COMMONS_CLUSTER_ALLOWED_NETWORKS")
    if networks and not _within(address, networks):
        return "lies outside the networks this installation allows"
    if address.is_loopback and not networks and settings.COMMONS_ENVIRONMENT == "production":
        return "leads to the portal's own machine"
    return ""


def checked_addresses(host: str, port: int) -> list[str]:
    """Return the addresses that a connection to `host` may go to, as text, in the order of the resolver.

    Raises AddressRefused if any one of them is refused (a name with a harmless and a harmful address is an attack, not
    a choice), Unreachable where the name has no address.
    """
    try:
        found: list[_Address] = [ipaddress.ip_address(host.strip("[]"))]
    except ValueError:
        found = _resolve(host, port)
    for address in found:
        if reason := _refusal(address):
            raise AddressRefused(f"{host} {reason}")
    return list(dict.fromkeys(str(address) for address in found))


def check_address(url: str, *, resolve: bool = True) -> str:
    """Return `url` without a trailing slash if the portal may call it.

    With `resolve`, every address its host name has is checked too. Raises AddressRefused with the reason, Unreachable
    where the name has no address.
    """
    try:
        parts = urlsplit(url.strip())
    except ValueError as error:  # an unclosed bracket
        raise AddressRefused("an address looks like https://api.cluster.example.com:6443") from error
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
        ipaddress.ip_address(parts.hostname)
    except ValueError:
        if not resolve:
            return url.strip().rstrip("/")
    checked_addresses(parts.hostname, port or (443 if parts.scheme == "https" else 80))
    return url.strip().rstrip("/")


def _resolve(host: str, port: int) -> list[_Address]:
    try:
        rows = socket.getaddrinfo(host, port, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError) as error:  # UnicodeError: a part of the name is empty or longer than 63 letters
        raise Unreachable(f"the name {host} has no address") from error
    return [ipaddress.ip_address(str(row[4][0]).split("%")[0]) for row in rows]
