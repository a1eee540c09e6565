"""Sessions that end because something happened at their provider: notices of log-out, and providers switched off.

OpenID Connect Back-Channel Logout 1.0 and Front-Channel Logout 1.0.
"""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction
from django.db.models import QuerySet

from apps import audit
from apps.accounts import openid_flow, openid_metadata, openid_tokens, sessions
from apps.accounts.models import ExternalIdentity, IdentityProvider, SignInSession, User
from apps.accounts.openid_claims import Person
from apps.accounts.openid_events import PROVED_AGAIN, PROVIDER_SESSION_ENDED, ProvedAgain, ProviderSessionEnded
from apps.accounts.openid_metadata import ProviderFault
from apps.accounts.openid_people import known
from apps.accounts.openid_refusals import Refused
from apps.accounts.openid_tokens import BadToken, Expected, LogoutNotice, UnknownKey
from apps.core import clock
from apps.core.actor import Actor, Channel, current_request_id

#: A log-out token comes once; longer than this it is too old to be believed anyway.
_REMEMBERED = openid_tokens.OLDEST + openid_tokens.SKEW + timedelta(minutes=1)


def ended_there(provider: IdentityProvider, token: str) -> int:
    """End the sessions that a back-channel log-out token names; returns how many.

    A repeated token ends nothing again. Raises Refused for one that is not believed or cannot be checked now.
    """
    expected = Expected(provider.issuer, provider.client_id)

    def read(*, again: bool) -> LogoutNotice:
        keys = openid_metadata.keys_of(provider, again=again)
        return openid_tokens.read_logout_token(token, keys, expected, now=clock.now())

    try:
        try:
            notice = read(again=False)
        except UnknownKey:
            notice = read(again=True)
    except ProviderFault as fault:
        raise Refused(fault.cause, fault.detail) from fault
    except BadToken as error:
        raise Refused("token", str(error)) from error
    if not openid_flow.once(f"logout:{provider.pk}", notice.token_id, seconds=_REMEMBERED.total_seconds()):
        return 0
    found = SignInSession.objects.filter(provider=provider)
    if notice.session:
        found = found.filter(provider_session=notice.session)
    if notice.subject:
        people = ExternalIdentity.objects.filter(provider=provider, subject=notice.subject)
        user_ids = {user.pk for identity in people.select_related("user") if (user := identity.user.merged_into)}
        user_ids |= set(people.values_list("user_id", flat=True))
        found = found.filter(user_id__in=user_ids)
    return _end(provider, found, "back_channel")


def ended_in_front(provider: IdentityProvider, issuer: str, session: str) -> int:
    """End the sessions with this session id of the provider, which nobody can guess; returns how many.

    Without both parameters nothing is ended: any page could otherwise sign people out.
    """
    if issuer != provider.issuer or not session:
        return 0
    return _end(provider, SignInSession.objects.filter(provider=provider, provider_session=session), "front_channel")


def end_all(provider: IdentityProvider, user: User | None = None) -> int:
    """End every session that this provider opened (of one person), in the caller's transaction; returns how many."""
    found = SignInSession.objects.filter(provider=provider)
    return _close(found if user is None else found.filter(user=user))


def proved(session: SignInSession, provider: IdentityProvider, person: Person, began: int) -> None:
    """Note that the person of an open session proved at their provider who they are, after being asked to.

    Raises Refused for another person, another provider, or a proof that is older than the demand.
    """
    user = known(provider, person)
    if session.provider_id != provider.pk or user is None or user.pk != session.user_id:
        raise Refused("other_person")
    # No allowance for an old proof beyond the clocks' difference: the demand was to sign in anew.
    if person.proved_at is None or person.proved_at.timestamp() < began - openid_tokens.SKEW.total_seconds():
        raise Refused("not_fresh", "auth_time is missing or lies before the demand")
    if provider.second_factor_there and not person.second_factor:
        raise Refused("second_factor")
    with transaction.atomic():
        sessions.prove(session, second_factor=person.second_factor, at=person.proved_at)
        audit.record(
            PROVED_AGAIN,
            ProvedAgain(provider.uid, person.second_factor),
            actor=Actor.of(session.user),
            subject_type="accounts.session",
            subject_uid=session.uid,
        )


def forget_tokens() -> int:
    """Forget the ID tokens of sessions that are over: nobody signs out with them any more; returns how many."""
    over = SignInSession.objects.exclude(id_token=b"").exclude(pk__in=SignInSession.objects.open().values("pk"))
    return over.update(id_token=b"")


def _end(provider: IdentityProvider, found: QuerySet[SignInSession], how: str) -> int:
    with transaction.atomic():
        closed = _close(found)
        if closed:
            audit.record(
                PROVIDER_SESSION_ENDED,
                ProviderSessionEnded(provider.uid, how, closed),
                actor=Actor(None, Channel.WEB, current_request_id(), name="accounts.openid"),
                subject_type="accounts.provider",
                subject_uid=provider.uid,
            )
    return closed


def _close(found: QuerySet[SignInSession]) -> int:
    at = clock.now()
    return found.filter(closed_at__isnull=True, expires_at__gt=at).update(closed_at=at, id_token=b"")
