"""Sign-in at OpenID providers: where to send people, and what to make of the answer they come back with.

Authorization code flow with proof key (OpenID Connect Core 1.0 §3.1, RFC 7636, RFC 9700). Everything here talks to the
network and therefore runs outside any transaction; what is written is in `openid_people` and `openid_sessions`.
"""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from authlib.common.urls import add_params_to_uri
from django.conf import settings
from django.urls import reverse

from apps.accounts import openid_claims, openid_flow, openid_metadata, openid_tokens
from apps.accounts.models import IdentityProvider, SignInSession
from apps.accounts.openid_claims import Person
from apps.accounts.openid_flow import Flow
from apps.accounts.openid_metadata import Metadata, ProviderFault
from apps.accounts.openid_refusals import Refused
from apps.accounts.openid_tokens import BadToken, Expected, UnknownKey
from apps.core import clock, crypto, outgoing

_log = logging.getLogger(__name__)
SCOPES = ("openid", "profile", "email")
#: Sent with every request, so that a provider has to say when the person proved who they are (`auth_time` is a must
#: with max_age, OpenID Connect Core §3.1.2.1); long enough to sign nobody out there.
MAX_AGE_SECONDS = 30 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Answered:
    """A checked answer: who signed in, the ID token for signing out later, and all claims for the admin's trial."""

    person: Person
    id_token: str
    claims: Mapping[str, Any]


def offered() -> list[IdentityProvider]:
    """Return the providers for the sign-in page, by name."""
    return list(IdentityProvider.objects.offered().order_by("name", "pk"))


def start_url(provider: IdentityProvider, next_path: str = "/") -> str:
    """Return the portal's address that begins a sign-in at `provider`."""
    return f"{reverse('accounts:openid-start', kwargs={'slug': provider.slug})}?{urlencode({'next': next_path})}"


def reauthenticate_url(session: SignInSession, next_path: str) -> str:
    """Return where the person of an OpenID session proves anew who they are, coming back to `next_path`.

    "" for a session that was opened with a password: there the password is asked again. Afterwards
    `sessions.proved_at` says when.
    """
    if session.provider is None:
        return ""
    prove = reverse("accounts:openid-prove", kwargs={"slug": session.provider.slug})
    return f"{prove}?{urlencode({'next': next_path})}"


def callback_url(provider: IdentityProvider) -> str:
    """Return the redirect URI to register at the provider: one for each, so that answers cannot be mixed up."""
    return settings.COMMONS_BASE_URL + reverse("accounts:openid-callback", kwargs={"slug": provider.slug})


def back_channel_url(provider: IdentityProvider) -> str:
    """Return the back-channel log-out address to register at the provider."""
    return settings.COMMONS_BASE_URL + reverse("accounts:openid-back-channel", kwargs={"slug": provider.slug})


def front_channel_url(provider: IdentityProvider) -> str:
    """Return the front-channel log-out address to register at the provider."""
    return settings.COMMONS_BASE_URL + reverse("accounts:openid-front-channel", kwargs={"slug": provider.slug})


def signed_out_url() -> str:
    """Return the address to register for coming back after signing out at the provider."""
    return settings.COMMONS_BASE_URL + reverse("accounts:sign-in")


def authorization_url(provider: IdentityProvider, flow: Flow) -> str:
    """Return where to send the browser. Raises Refused while the provider cannot be used."""
    metadata = _metadata(provider)
    wanted = {
        "response_type": "code",
        "client_id": provider.client_id,
        "redirect_uri": callback_url(provider),
        "scope": " ".join(dict.fromkeys((*SCOPES, *provider.extra_scopes))),
        "state": flow.state,
        "nonce": flow.nonce,
        "code_challenge": flow.challenge,
        "code_challenge_method": "S256",
        "max_age": str(MAX_AGE_SECONDS),
    }
    if flow.purpose == openid_flow.PROVE:
        wanted |= {"prompt": "login", "max_age": "0"}
    return str(add_params_to_uri(metadata.authorization_endpoint, list(wanted.items())))


def answer(provider: IdentityProvider, flow: Flow, given: Mapping[str, str]) -> Answered:
    """Check what the browser brought back and return who signed in. Raises Refused.

    `given` are the parameters; that they belong to `flow`, and that it was not used before, is checked already.
    """
    issuer = given.get("iss", "")
    if issuer and issuer != provider.issuer:
        raise Refused("issuer", "iss names another issuer")
    if not issuer and _metadata(provider).names_issuer:
        raise Refused("issuer", "iss is missing (RFC 9207)")
    if error := given.get("error", ""):
        raise Refused("denied" if error in _DENIALS else "answered", f"error {_word(error)}")
    if not given.get("code"):
        raise Refused("answered", "neither code nor error")
    tokens = _redeem(provider, flow, given["code"])
    access_token = str(tokens.get("access_token") or "")
    claims = _claims(provider, str(tokens["id_token"]), flow, access_token)
    claims = _completed(provider, claims, access_token)
    if provider.groups_claim and openid_claims.overage(claims, provider.groups_claim):
        # Who it is stays out of the log; the trial sign-in shows it to the person.
        _log.warning("a provider left the groups out of a token: too many", extra={"provider": provider.slug})
    return Answered(openid_claims.person(claims, provider.groups_claim), str(tokens["id_token"]), claims)


def end_session_url(provider: IdentityProvider, id_token: str) -> str:
    """Return where signing out goes on at the provider (RP-Initiated Logout 1.0); "" where it has no such place.

    Never fails: whoever wants out is out here in any case.
    """
    try:
        endpoint = openid_metadata.metadata_of(provider).end_session_endpoint
    except ProviderFault:
        return ""
    if not endpoint:
        return ""
    wanted = {"client_id": provider.client_id, "post_logout_redirect_uri": signed_out_url()}
    if id_token:
        wanted["id_token_hint"] = id_token
    return str(add_params_to_uri(endpoint, list(wanted.items())))


#: Errors by which a provider says that the person, not the set-up, is why (RFC 6749 §4.1.2.1, Core §3.1.2.6).
_DENIALS = frozenset(
    {"access_denied", "login_required", "interaction_required", "account_selection_required", "consent_required"}
)


def _metadata(provider: IdentityProvider) -> Metadata:
    try:
        return openid_metadata.metadata_of(provider)
    except ProviderFault as fault:
        raise Refused(fault.cause, fault.detail) from fault


def _redeem(provider: IdentityProvider, flow: Flow, code: str) -> Mapping[str, Any]:
    """Exchange the code for tokens."""
    fields = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": callback_url(provider),
        "code_verifier": flow.verifier,
    }
    status, body = post_to_token_endpoint(provider, _metadata(provider), fields)
    error = _word(str(body.get("error") or ""))
    if status != 200 or error:
        if error == "invalid_grant":
            raise Refused("expired", "the provider refused the code")
        cause = "unavailable" if status >= 500 or status == 429 else "misconfigured"
        raise Refused(cause, f"token endpoint answered {status} {error}".strip())
    if not isinstance(body.get("id_token"), str) or str(body.get("token_type", "")).lower() != "bearer":
        raise Refused("token", "the token endpoint gave no ID token")
    return body


def post_to_token_endpoint(
    provider: IdentityProvider, metadata: Metadata, fields: Mapping[str, str]
) -> tuple[int, Mapping[str, Any]]:
    """Post to the token endpoint with the client's secret (RFC 6749 §2.3.1); returns status and JSON.

    Raises Refused where there is no usable answer.
    """
    headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
    sent = dict(fields)
    try:
        secret = crypto.decrypt(provider.client_secret)
    except crypto.CannotDecrypt as error:
        raise Refused("misconfigured", "the client secret cannot be opened with the keys in force") from error
    if secret and "client_secret_basic" in metadata.token_auth_methods:
        pair = f"{quote(provider.client_id, safe='')}:{quote(secret, safe='')}"
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    else:
        sent["client_id"] = provider.client_id
        if secret:
            sent["client_secret"] = secret
    try:
        got = outgoing.exchange(metadata.token_endpoint, urlencode(sent).encode(), headers)
    except outgoing.CallRefused as error:
        raise Refused("misconfigured", f"token endpoint: {error}") from error
    except outgoing.CallFailed as error:
        raise Refused("unavailable", f"token endpoint: {error}") from error
    try:
        return got.status, openid_metadata.object_of(got.body, "the tokens")
    except ProviderFault as fault:
        if got.status >= 500:
            raise Refused("unavailable", f"token endpoint answered {got.status}") from fault
        raise Refused("misconfigured", fault.detail) from fault


def _claims(provider: IdentityProvider, token: str, flow: Flow, access_token: str) -> dict[str, Any]:
    expected = Expected(provider.issuer, provider.client_id)
    now = clock.now()

    def read(*, again: bool) -> dict[str, Any]:
        keys = openid_metadata.keys_of(provider, again=again)
        return openid_tokens.read_id_token(
            token, keys, expected, now=now, nonce=flow.nonce, access_token=access_token
        )  # fmt: skip

    try:
        try:
            return read(again=False)
        except UnknownKey:
            return read(again=True)
    except ProviderFault as fault:
        raise Refused(fault.cause, fault.detail) from fault
    except BadToken as error:
        raise Refused("token", str(error)) from error


def _completed(provider: IdentityProvider, claims: dict[str, Any], access_token: str) -> dict[str, Any]:
    """Add address, name and groups from the userinfo endpoint where the ID token has none."""
    wants_groups = bool(provider.groups_claim) and openid_claims.groups(claims, provider.groups_claim) is None
    if not access_token or ("email" in claims and "name" in claims and not wants_groups):
        return claims
    endpoint = _metadata(provider).userinfo_endpoint
    if not endpoint:
        return claims
    try:
        told = openid_metadata.get_json(endpoint, "the person's claims", token=access_token)
    except ProviderFault:
        # The subject is known without it. Groups stay unknown, so nothing is taken away; no address makes no account.
        return claims
    if told.get("sub") != claims["sub"]:
        raise Refused("token", "userinfo speaks of somebody else")
    found = dict(claims)
    if "email" not in claims:
        # Address and the word that it is verified come from one place, never one from each.
        for name in ("email", "email_verified", "xms_edov"):
            found.pop(name, None)
            if name in told:
                found[name] = told[name]
    for name in ("name", "given_name", "family_name", "preferred_username"):
        if name not in found and name in told:
            found[name] = told[name]
    if wants_groups and (groups := openid_claims.groups(told, provider.groups_claim)) is not None:
        for name in ("_claim_names", "hasgroups"):
            found.pop(name, None)
        found[provider.groups_claim] = list(groups)
    return found


def _word(error: str) -> str:
    """Return an error code where it looks like one: what a stranger wrote goes no further."""
    return error if re.fullmatch(r"[A-Za-z0-9_]{0,60}", error) else "?"


__all__ = [
    "Answered",
    "answer",
    "authorization_url",
    "back_channel_url",
    "callback_url",
    "end_session_url",
    "front_channel_url",
    "offered",
    "post_to_token_endpoint",
    "reauthenticate_url",
    "signed_out_url",
    "start_url",
]
