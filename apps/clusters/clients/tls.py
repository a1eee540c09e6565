"""A look at a server's certificate: is it valid, for this name, from this authority, and until when.

Nothing is sent but the handshake. Where verification fails the certificate is read once more without verification,
only to say what is wrong with it.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.x509.oid import NameOID

from apps.clusters.addresses import checked_addresses
from apps.clusters.clients.guard import no_transaction
from apps.clusters.errors import Unreachable
from apps.core import clock, formats

# OpenSSL's verification results (openssl/x509_vfy.h).
_NOT_YET, _EXPIRED = 9, 10
_OTHER_ISSUER = frozenset({2, 7, 18, 19, 20, 21})
_OTHER_NAME = frozenset({62, 64})


@dataclass(frozen=True, slots=True)
class Certificate:
    """The end of a server certificate and what is wrong with it: `problem` in words, "" where it is trusted."""

    not_after: datetime | None
    names: tuple[str, ...] = ()
    issuer: str = ""
    problem: str = ""
    advice: str = ""


def connect(host: str, port: int, *, seconds: float) -> socket.socket:
    """Open a connection to one of the host's checked addresses. Raises AddressRefused, Unreachable."""
    no_transaction(f"connecting to {host}")
    failure: OSError | None = None
    for address in checked_addresses(host, port):
        try:
            return socket.create_connection((address, port), timeout=seconds)
        except OSError as error:
            failure = error
    raise Unreachable(f"{host}:{port} does not answer ({_reason(failure)})") from failure


def look(host: str, port: int, *, ca_pem: str = "", seconds: float = 3.0) -> Certificate:
    """Return the certificate that `host` shows, and whether it can be trusted with `ca_pem` ("": the system's store).

    Raises AddressRefused, Unreachable where there is no server or none that speaks TLS.
    """
    try:
        context = ssl.create_default_context(cadata=ca_pem or None)
    except (ssl.SSLError, ValueError) as error:
        raise Unreachable(f"the CA certificate cannot be used: {error}") from error
    try:
        return _read(_shake_hands(host, port, context, seconds))
    except ssl.SSLCertVerificationError as error:
        # Reads what the server shows in order to explain it; nothing is sent on this connection.
        blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        blind.check_hostname = False
        blind.verify_mode = ssl.CERT_NONE
        shown = _read(_shake_hands(host, port, blind, seconds))
        problem, advice = _explain(error, shown, host, own_ca=bool(ca_pem))
        return Certificate(shown.not_after, shown.names, shown.issuer, problem, advice)


def _shake_hands(host: str, port: int, context: ssl.SSLContext, seconds: float) -> x509.Certificate:
    with connect(host, port, seconds=seconds) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=host) as secure:
                data = secure.getpeercert(binary_form=True)
        except ssl.SSLCertVerificationError:
            raise
        except OSError as error:  # ssl.SSLError is one, too
            if isinstance(error, ssl.SSLError) and error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
                raise Unreachable(f"{host}:{port} does not speak TLS") from error
            raise Unreachable(f"no secure connection to {host}:{port} ({_reason(error)})") from error
    if not data:
        raise Unreachable(f"{host}:{port} shows no certificate")
    return x509.load_der_x509_certificate(data)


def _read(certificate: x509.Certificate) -> Certificate:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [str(name) for name in extension.get_values_for_type(x509.DNSName)]
        names += [str(address) for address in extension.get_values_for_type(x509.IPAddress)]
    except (x509.ExtensionNotFound, ValueError):
        names = []
    common = certificate.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    issuer = str(common[0].value) if common else certificate.issuer.rfc4514_string()
    return Certificate(certificate.not_valid_after_utc, tuple(names), issuer)


def _explain(error: ssl.SSLCertVerificationError, shown: Certificate, host: str, *, own_ca: bool) -> tuple[str, str]:
    code = error.verify_code
    if code == _EXPIRED:
        if shown.not_after is not None and shown.not_after <= clock.now():
            return (
                f"The certificate expired on {formats.datetime_utc(shown.not_after)}.",
                "Renew the certificate of the API server (kubeadm certs renew apiserver, or your provider's console).",
            )
        return "An authority in the certificate's chain has expired.", "Renew it, then replace the CA certificate here."
    if code == _NOT_YET:
        return "The certificate is not valid yet.", "Compare the clocks of the cluster and of this machine."
    if code in _OTHER_NAME:
        names = ", ".join(shown.names) or "none"
        return (
            f"The certificate is not for {host}; it names {names}.",
            "Use one of these names as the API address, or have the certificate issued for this one.",
        )
    if code in _OTHER_ISSUER:
        if own_ca:
            return (
                f"The certificate was issued by {shown.issuer}, not by the CA certificate given here.",
                "Paste the cluster's CA: certificate-authority-data of a kubeconfig that works.",
            )
        return (
            f"The certificate was issued by {shown.issuer}, which this machine does not know.",
            "Give the cluster's CA certificate with the credentials: certificate-authority-data of its kubeconfig.",
        )
    return f"The certificate cannot be trusted: {error.verify_message}.", "Check certificate and CA of the API server."


def _reason(error: OSError | None) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError) and error.reason:
        return str(error.reason).lower().replace("_", " ")
    return (error.strerror or str(error)) if error is not None else "no address"


__all__ = ["Certificate", "connect", "look"]
