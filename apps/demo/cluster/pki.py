"""A certificate authority for the loopback address: kubectl sends bearer tokens over TLS only."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAYS = 3650
_EXPIRED = "tls-expired.crt"


def ensure(folder: Path) -> tuple[Path, Path, str]:
    """Return (certificate chain file, key file, CA in PEM), made at the first start and kept with the state."""
    chain, key, authority = folder / "tls.crt", folder / "tls.key", folder / "ca.crt"
    if not (chain.exists() and key.exists() and authority.exists()):
        ca_key = ec.generate_private_key(ec.SECP256R1())
        ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "GPU Commons simulated cluster CA")])
        ca = _builder(ca_name, ca_name, ca_key.public_key())
        ca = ca.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        ca_certificate = ca.add_extension(usage, critical=True).sign(ca_key, hashes.SHA256())
        server_key = ec.generate_private_key(ec.SECP256R1())
        server_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "simulated-kube-apiserver")])
        server = _builder(server_name, ca_name, server_key.public_key())
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        server = server.add_extension(x509.SubjectAlternativeName(names), critical=False)
        server = server.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        server = server.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        server = server.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        certificate = server.sign(ca_key, hashes.SHA256())
        _write(key, _pem_key(server_key), 0o600)
        _write(chain, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        old = _builder(server_name, ca_name, server_key.public_key(), days=-2)
        old = old.add_extension(x509.SubjectAlternativeName(names), critical=False)
        over = old.sign(ca_key, hashes.SHA256())
        _write(folder / _EXPIRED, over.public_bytes(serialization.Encoding.PEM), 0o644)
        _write(authority, ca_certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return chain, key, authority.read_text("ascii")


def expired_chain(folder: Path) -> Path | None:
    """The server's certificate as it would be had it run out yesterday; the same key."""
    chain = folder / _EXPIRED
    return chain if chain.exists() else None


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int = _DAYS
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + dt.timedelta(days=min(days, 0) - 1))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
