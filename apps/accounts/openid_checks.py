"""The test of an identity provider, step by step: what works, and what to do about what does not."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from apps import audit
from apps.accounts import openid, openid_metadata
from apps.accounts.models import IdentityProvider
from apps.accounts.openid_events import PROVIDER_TESTED, ProviderTested
from apps.accounts.openid_metadata import Metadata, ProviderFault
from apps.accounts.openid_providers import require_manager
from apps.accounts.openid_refusals import Refused
from apps.accounts.openid_tokens import ALGORITHMS
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, NotVisible

PASSED, NOTED, FAILED, SKIPPED = "passed", "noted", "failed", "skipped"


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the test: how it ended, and what to know or do."""

    name: str
    state: str
    text: str


def run(provider_id: int, *, actor: Actor) -> list[Step]:
    """Test a provider now and note how it went. Nobody is signed in by it. Raises NotAllowed, NotVisible, Conflict.

    Calls the provider, so it runs outside any transaction; the outcome is noted only if the provider was not changed
    meanwhile.
    """
    person = require_manager(actor)
    provider = IdentityProvider.objects.visible_to(person).filter(pk=provider_id).first()
    if provider is None:
        raise NotVisible
    if provider.archived_at is not None:
        raise Conflict("This provider is archived.", current={"status": "archived"})
    steps = steps_of(provider)
    failed = [step for step in steps if step.state == FAILED]
    with transaction.atomic():
        row = IdentityProvider.objects.locked(provider_id, expected_version=provider.version)
        row.checked_at = clock.now()
        row.check_error = f"{failed[0].name}: {failed[0].text}"[:500] if failed else ""
        row.save(update_fields=["checked_at", "check_error", "updated_at"])
        audit.record(
            PROVIDER_TESTED,
            ProviderTested(row.name, [step.name for step in failed]),
            actor=actor,
            subject_type="accounts.provider",
            subject_uid=row.uid,
        )
    return steps


def steps_of(provider: IdentityProvider) -> list[Step]:
    """Ask the provider and return how each step ended."""
    try:
        metadata = openid_metadata.metadata_of(provider, fresh=True)
    except ProviderFault as fault:
        return [Step("Discovery", FAILED, fault.detail), Step("Everything else", SKIPPED, "Not asked.")]
    return [
        Step("Discovery", PASSED, "The discovery document names this issuer and every address the portal needs."),
        _keys(metadata),
        _algorithms(metadata),
        _proof_key(metadata),
        _credentials(provider, metadata),
        _scopes(provider, metadata),
        _groups(provider, metadata),
        _log_out(metadata),
    ]


def _keys(metadata: Metadata) -> Step:
    try:
        keys = openid_metadata.fetch_keys(metadata.jwks_uri)
    except ProviderFault as fault:
        return Step("Signing keys", FAILED, fault.detail)
    return Step("Signing keys", PASSED, f"{len(keys)} that the portal accepts.")


def _algorithms(metadata: Metadata) -> Step:
    usable = [name for name in metadata.algorithms if name in ALGORITHMS]
    if usable:
        return Step("Signatures", PASSED, f"The provider offers {', '.join(usable)}.")
    if not metadata.algorithms:
        return Step("Signatures", NOTED, "The provider does not say how it signs; it has to be RS256 or better.")
    return Step("Signatures", FAILED, f"Have ID tokens signed with one of {', '.join(ALGORITHMS)}.")


def _proof_key(metadata: Metadata) -> Step:
    if "S256" in metadata.challenge_methods:
        return Step("Proof key (PKCE)", PASSED, "S256 is supported; make it required for this client.")
    return Step("Proof key (PKCE)", NOTED, "The provider does not announce S256. The portal sends it all the same.")


def _credentials(provider: IdentityProvider, metadata: Metadata) -> Step:
    """Redeem a code that nobody issued: a provider that refuses the code has accepted the client."""
    name = "Client id and secret"
    fields = {
        "grant_type": "authorization_code",
        "code": secrets.token_urlsafe(24),
        "redirect_uri": openid.callback_url(provider),
        "code_verifier": secrets.token_urlsafe(32),
    }
    try:
        status, body = openid.post_to_token_endpoint(provider, metadata, fields)
    except Refused as refused:
        return Step(name, FAILED, f"{refused.detail}."[:400])
    error = str(body.get("error") or "")
    if error == "invalid_grant":
        return Step(name, PASSED, "The provider knows this client and its secret.")
    if error in ("invalid_client", "unauthorized_client") or status == 401:
        return Step(name, FAILED, "The provider does not accept them: enter both again as it shows them.")
    return Step(name, NOTED, f"The provider answered {status}; only a trial sign-in will show whether they are right.")


def _scopes(provider: IdentityProvider, metadata: Metadata) -> Step:
    wanted = [*openid.SCOPES, *provider.extra_scopes]
    missing = [scope for scope in wanted if metadata.scopes and scope not in metadata.scopes]
    if missing:
        return Step("Scopes", NOTED, f"The provider does not announce {', '.join(missing)}; some still accept them.")
    return Step("Scopes", PASSED, f"{', '.join(wanted)}.")


def _groups(provider: IdentityProvider, metadata: Metadata) -> Step:
    claim: Any = provider.groups_claim
    if not claim:
        return Step("Groups", NOTED, "None are read from tokens. Roles follow groups only where SCIM keeps them.")
    if claim.partition(".")[0] in metadata.claims:
        return Step("Groups", PASSED, f"The provider announces the claim {claim}.")
    return Step(
        "Groups",
        NOTED,
        f"The provider does not announce the claim {claim}. Have it always sent, also when it is empty: without the"
        " claim nobody's roles change.",
    )


def _log_out(metadata: Metadata) -> Step:
    found = [
        *(["signing out there"] if metadata.end_session_endpoint else []),
        *(["notices of log-out (back channel)"] if metadata.back_channel_logout else []),
    ]
    if len(found) == 2:
        return Step("Signing out", PASSED, "The provider has an address for signing out, and sends notices.")
    text = f"The provider announces {found[0]} only." if found else "The provider announces neither way."
    return Step("Signing out", NOTED, f"{text} Sessions here end by themselves.")
