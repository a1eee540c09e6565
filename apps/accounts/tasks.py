"""The accounts room's sweeps."""

from __future__ import annotations

from datetime import timedelta

from apps.accounts import impersonation, openid_flow, openid_sessions, scim_tokens, sessions, sign_in
from apps.core.sweeps import sweep


@sweep("accounts.forget_attempts", every=timedelta(hours=1))
def forget_attempts() -> int:
    """Delete sign-in attempts nobody counts any more."""
    return sign_in.forget_old_attempts()


@sweep("accounts.clear_sessions", every=timedelta(hours=6))
def clear_sessions() -> int:
    """Delete the browser state of sessions that ended."""
    return sessions.clear_expired()


@sweep("accounts.end_impersonations", every=timedelta(minutes=1))
def end_impersonations() -> int:
    """End what support still sees as somebody else after its time or its session."""
    return impersonation.end_due()


@sweep("accounts.forget_openid", every=timedelta(hours=1))
def forget_openid() -> int:
    """Delete marks of used sign-in answers that cannot come again, and ID tokens of sessions that are over."""
    return openid_flow.forget_used() + openid_sessions.forget_tokens()


@sweep("accounts.tell_of_expiring_tokens", every=timedelta(hours=6))
def tell_of_expiring_tokens() -> int:
    """Tell of directories' tokens that expire soon."""
    return scim_tokens.tell_of_expiry()
