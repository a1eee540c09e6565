"""OpenID providers for the tests: a real one (npm oidc-provider, driven over HTTP) and a double that can lie."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import pytest
import requests
from django.test import Client
from joserfc import jwk, jws

from apps.accounts import openid
from apps.accounts.models import IdentityProvider
from apps.core import clock, crypto, outgoing

BASE = "http://testserver"
CLIENT_ID, CLIENT_SECRET = "gpu-commons", "correct-horse:battery/staple+0123456789"
ROOT = Path(__file__).resolve().parents[2]
RSA = jwk.RSAKey.generate_key(2048, {"kid": "first", "use": "sig", "alg": "RS256"})
OTHER_RSA = jwk.RSAKey.generate_key(2048, {"kid": "second", "use": "sig", "alg": "RS256"})


def make_provider(issuer: str, slug: str = "example", **values: Any) -> IdentityProvider:
    """Make a row for a provider that is open for sign-in."""
    return IdentityProvider.objects.create(
        **{
            "name": "Example Identity", "slug": slug, "issuer": issuer, "client_id": CLIENT_ID,
            "client_secret": crypto.encrypt(CLIENT_SECRET), "enabled": True, "checked_at": clock.now(), **values,
        }
    )  # fmt: skip


@dataclass
class RealProvider:
    """oidc-provider in a process of its own, and what it posted as log-out notices."""

    issuer: str
    notices: list[str]

    def knows(self, subject: str, **claims: Any) -> None:
        """Make a person there."""
        requests.put(f"{self.issuer}/people/{subject}", json=claims, timeout=10).raise_for_status()


class Browser:
    """One browser: the portal's cookies in a test client, the provider's in a requests session."""

    def __init__(self, person: str = "") -> None:
        self.portal = Client()
        self.there = requests.Session()
        self.become(person)

    def become(self, person: str) -> None:
        """Choose who signs in at the provider when it asks next; "" refuses."""
        self.there.headers.pop("X-Person", None)
        if person:
            self.there.headers["X-Person"] = person

    def go(self, url: str) -> str:
        """Follow the provider's redirects from `url`; returns the portal's address that it leads back to."""
        for _ in range(10):
            answer = self.there.get(url, allow_redirects=False, timeout=10)
            assert answer.status_code in (302, 303), f"{answer.status_code} {answer.text[:500]}"
            url = urljoin(url, answer.headers["Location"])
            if url.startswith(BASE):
                return url.removeprefix(BASE)
        raise AssertionError("too many redirects")

    def sign_in(self, provider: IdentityProvider, next_path: str = "/account/") -> Any:
        """Sign in at the provider and return the portal's answer to the callback."""
        begun = self.portal.get(openid.start_url(provider, next_path))
        assert begun.status_code == 302, begun.content.decode()
        return self.portal.get(self.go(begun["Location"]))


@contextmanager
def running(redirects: list[str]) -> Iterator[RealProvider]:
    """Start oidc-provider and a receiver for its log-out notices."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node.js is not installed")
    if not (ROOT / "node_modules" / "oidc-provider").is_dir():
        pytest.skip("node_modules/oidc-provider is not installed (npm ci)")
    notices: list[str] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            notices.append(parse_qs(body)["logout_token"][0])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            return

    receiver = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    settings = {
        "redirect_uris": redirects,
        "post_logout_redirect_uris": [f"{BASE}/sign-in/"],
        "backchannel_logout_uri": f"http://127.0.0.1:{receiver.server_address[1]}/",
    }
    process = subprocess.Popen(
        [node, str(Path(__file__).with_name("provider.mjs")), json.dumps(settings)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        issuer = process.stdout.readline().strip()
        assert issuer.startswith("http://127.0.0.1:"), "oidc-provider did not start"
        yield RealProvider(issuer, notices)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        process.wait(timeout=10)
        receiver.shutdown()
        receiver.server_close()


@dataclass
class Double:
    """A provider that says whatever a test wants: it stands in for the guard's calls, so nothing leaves the process."""

    issuer: str = "https://id.example.com"
    keys: list[Any] = field(default_factory=lambda: [RSA])
    discovery: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)
    userinfo: dict[str, Any] | None = None
    #: Makes the ID token from its claims; tests put forgers here.
    sign: Callable[[dict[str, Any]], str] | None = None
    #: Answers the token endpoint instead, as (status, body).
    token_answer: tuple[int, dict[str, Any]] | None = None
    down: bool = False
    calls: list[tuple[str, str]] = field(default_factory=list)
    redeemed: list[dict[str, str]] = field(default_factory=list)
    nonce: str = ""

    def __call__(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> outgoing.Answer:
        """Answer as the provider."""
        self.calls.append((method, url))
        if self.down:
            raise outgoing.CallFailed("no answer: ConnectTimeout")
        path = urlsplit(url).path
        if path.endswith("/.well-known/openid-configuration"):
            return self._json(self.document())
        if path == "/jwks":
            return self._json({"keys": [key.as_dict(private=False) for key in self.keys]})
        if path == "/me":
            return self._json(self.userinfo or {}, 200 if self.userinfo is not None else 404)
        if path == "/token":
            self.redeemed.append({name: values[0] for name, values in parse_qs((body or b"").decode()).items()})
            if self.token_answer is not None:
                return self._json(self.token_answer[1], self.token_answer[0])
            token = (self.sign or self.signed)(self.id_claims())
            return self._json({"access_token": "an-access-token", "token_type": "Bearer", "id_token": token})
        return self._json({}, 404)

    def document(self) -> dict[str, Any]:
        """Return the discovery document."""
        names = {
            "authorization_endpoint": "/auth", "token_endpoint": "/token", "jwks_uri": "/jwks",
            "userinfo_endpoint": "/me", "end_session_endpoint": "/out",
        }  # fmt: skip
        found = {"issuer": self.issuer, **{name: self.issuer + path for name, path in names.items()}}
        return {
            **found,
            "id_token_signing_alg_values_supported": ["RS256"],
            "authorization_response_iss_parameter_supported": True,
            **self.discovery,
        }

    def id_claims(self) -> dict[str, Any]:
        """Return the claims of a right ID token, with those of the test over them; None takes one away."""
        now = int(clock.now().timestamp())
        found = {
            "iss": self.issuer, "aud": CLIENT_ID, "sub": "subject-1", "iat": now, "exp": now + 300, "auth_time": now,
            "nonce": self.nonce, "email": "newcomer@example.com", "email_verified": True, "name": "Newcomer",
            "sid": "session-1", "at_hash": at_hash("an-access-token"), **self.claims,
        }  # fmt: skip
        return {name: value for name, value in found.items() if value is not None}

    def signed(
        self, claims: Mapping[str, Any], key: Any = RSA, alg: str = "RS256", algorithms: Any = None, **header: Any
    ) -> str:
        """Return a signed token."""
        head = {"alg": alg, "kid": getattr(key, "kid", "first"), "typ": "JWT", **header}
        head = {name: value for name, value in head.items() if value is not None}
        return jws.serialize_compact(head, json.dumps(claims), key, algorithms=algorithms or [alg])

    def sign_in(self, browser: Client, provider: IdentityProvider, next_path: str = "/account/", **given: Any) -> Any:
        """Go through a sign-in with this double; `given` changes the answer's parameters (None takes one away)."""
        return self.answer(browser, provider, self.begin(browser, provider, next_path), **given)

    def begin(self, browser: Client, provider: IdentityProvider, next_path: str = "/account/") -> dict[str, str]:
        """Begin a sign-in; returns what the portal sent to the provider."""
        begun = browser.get(openid.start_url(provider, next_path))
        assert begun.status_code == 302, begun.content.decode()
        return self.sent(begun["Location"])

    def sent(self, location: str) -> dict[str, str]:
        """Read the request out of an authorization address, and remember its nonce."""
        assert location.startswith(f"{self.issuer}/auth?"), location
        sent = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
        self.nonce = sent["nonce"]
        return sent

    def answer(self, browser: Client, provider: IdentityProvider, sent: Mapping[str, str], **given: Any) -> Any:
        """Come back from the provider."""
        found = {"state": sent["state"], "code": "a-code", "iss": self.issuer, **given}
        query = urlencode({name: value for name, value in found.items() if value is not None}, doseq=True)
        return browser.get(f"{openid.callback_url(provider).removeprefix(BASE)}?{query}")

    def _json(self, data: Any, status: int = 200) -> outgoing.Answer:
        return outgoing.Answer(status, body=json.dumps(data).encode(), content_type="application/json")


def at_hash(access_token: str) -> str:
    """Return the at_hash claim for RS256."""
    digest = hashlib.sha256(access_token.encode()).digest()[:16]
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def unsigned(claims: Mapping[str, Any], header: Mapping[str, Any]) -> str:
    """Return a token with no signature at all."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, claims)]
    return ".".join([*parts, ""])
