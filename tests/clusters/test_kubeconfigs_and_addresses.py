"""What of a kubeconfig is taken, which addresses are called."""

from __future__ import annotations

import base64
import socket
from typing import Any

import pytest
import yaml

from apps.clusters.addresses import check_address
from apps.clusters.errors import AddressRefused, Unreachable
from apps.clusters.kubeconfigs import Refused, read_kubeconfig

PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def _config(user: dict[str, Any], **cluster: Any) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "main",
            "contexts": [{"name": "main", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": "https://api.example.com:6443", **cluster}}],
            "users": [{"name": "u", "user": user}],
        }
    )


@pytest.mark.requirement("clusters-1.1")
def test_a_kubeconfig_gives_address_ca_and_token() -> None:
    """Of its current context."""
    access = read_kubeconfig(
        _config({"token": "secret"}, **{"certificate-authority-data": base64.b64encode(PEM.encode()).decode()})
    )
    assert (access.api_url, access.ca_certificate, access.token) == ("https://api.example.com:6443", PEM, "secret")


@pytest.mark.requirement("clusters-1.2")
@pytest.mark.parametrize(
    ("user", "cluster", "says"),
    [
        ({"exec": {"command": "aws"}}, {}, "exec plugin"),
        ({"token": "t", "exec": {"command": "sh"}}, {}, "exec plugin"),
        ({"auth-provider": {"name": "gcp"}}, {}, "auth-provider"),
        ({"tokenFile": "/etc/passwd"}, {}, "tokenFile"),
        ({"client-certificate": "/etc/x", "token": "t"}, {}, "client-certificate"),
        ({"client-certificate-data": "aaaa", "token": "t"}, {}, "Client certificates"),
        ({"username": "admin", "password": "x"}, {}, "User name and password"),
        ({"token": "t", "as": "root"}, {}, "Impersonation"),
        ({}, {}, "no token"),
        ({"token": "t"}, {"insecure-skip-tls-verify": True}, "insecure-skip-tls-verify"),
        ({"token": "t"}, {"certificate-authority": "/etc/ca.pem"}, "file on your machine"),
        ({"token": "t"}, {"proxy-url": "http://proxy.example.com"}, "proxy-url"),
        ({"token": "t"}, {"certificate-authority-data": "%%%"}, "base64"),
    ],
)
def test_a_kubeconfig_that_runs_programs_or_reads_files_is_refused(
    user: dict[str, Any], cluster: dict[str, Any], says: str
) -> None:
    """With the reason."""
    with pytest.raises(Refused, match=says):
        read_kubeconfig(_config(user, **cluster))


@pytest.mark.requirement("clusters-1.2")
@pytest.mark.parametrize(
    "text", ["", "just text", "[1, 2]", "a: [", "kind: Pod", "x" * 300_000, "!!python/object:os.x {}",
     "[" * 20_000, "since: 2026-99-99", "current-context: &a [x]\ncontexts: [{name: *a}]"],
)  # fmt: skip
def test_what_is_no_kubeconfig_is_refused(text: str) -> None:
    """Garbage too."""
    with pytest.raises(Refused):
        read_kubeconfig(text)


@pytest.mark.requirement("clusters-1.3")
@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest", "https://[fe80::1]:6443", "http://[fd00:ec2::254]", "http://100.100.100.200",
        "http://[::ffff:169.254.169.254]", "http://0.0.0.0", "http://224.0.0.1", "ftp://api.example.com",
        "file:///etc/passwd", "https://", "https://user:pw@api.example.com", "https://api.example.com/?x=1",
        "https://api.example.com:99999", "api.example.com", "https://[::1",
    ],
)  # fmt: skip
def test_an_address_that_leads_astray_is_refused(url: str) -> None:
    """Before any call."""
    with pytest.raises(AddressRefused):
        check_address(url, resolve=False)


@pytest.mark.requirement("clusters-1.3")
@pytest.mark.parametrize("name", ["a..b", f"{'a' * 70}.example.com"])
def test_a_name_that_no_resolver_takes_has_no_address(name: str) -> None:
    """Said as such, not as an error of the portal."""
    with pytest.raises(Unreachable, match="has no address"):
        check_address(f"https://{name}")


@pytest.mark.requirement("clusters-1.3")
def test_a_name_that_resolves_to_a_metadata_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every address of the name counts."""

    def resolve(host: str, port: int, **kwargs: Any) -> list[Any]:
        return [(socket.AF_INET, 0, 0, "", ("192.0.2.1", port)), (socket.AF_INET, 0, 0, "", ("169.254.169.254", port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(AddressRefused, match="metadata"):
        check_address("https://innocent.example.com")


@pytest.mark.requirement("clusters-1.3")
def test_allowed_networks_narrow_and_production_does_not_call_itself(settings: Any) -> None:
    """Loopback is for development; a list of networks is the last word."""
    assert check_address("http://127.0.0.1:8001/") == "http://127.0.0.1:8001"
    settings.COMMONS_ENVIRONMENT = "production"
    with pytest.raises(AddressRefused, match="own machine"):
        check_address("http://127.0.0.1:8001")
    settings.COMMONS_CLUSTER_ALLOWED_NETWORKS = ["192.0.2.0/24", "127.0.0.0/8"]
    assert check_address("http://127.0.0.1:8001")
    assert check_address("https://192.0.2.7:6443")
    with pytest.raises(AddressRefused, match="outside the networks"):
        check_address("https://198.51.100.7:6443")
