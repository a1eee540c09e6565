"""Moves roles and memberships of an account that is merged into another of the same person."""

from __future__ import annotations

from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from django.db.models import Q

from apps.accounts import merging
from apps.accounts.models import User
from apps.core import clock
from apps.core.actor import Actor
from apps.teams import ending, events
from apps.teams.choices import ReviewAnswer
from apps.teams.models import Membership, ReviewItem, RoleGrant

_WHY = "Two accounts of one person were merged."
_SELF_GIVEN = "Two accounts of one person were merged, of which one gave this role to the other."


def move_rights(user_id: int, into_id: int, *, actor: Actor) -> tuple[int, int]:
    """Give the account that stays what the other holds by hand, then end it there; returns (roles, memberships).

    What the directory gives follows the identities. A role that one account of the person gave to another one does not
    come along, and ends where it is: nobody raises their own rights, with a second account neither.
    """
    stays = User.objects.get(pk=into_id)
    return _roles(user_id, stays, actor), _memberships(user_id, stays, actor)


def _roles(user_id: int, stays: User, actor: Actor) -> int:
    at, moved = clock.now(), 0
    own = merging.accounts_of(user_id) | merging.accounts_of(stays.pk)
    counts = Q(expires_at__isnull=True) | Q(expires_at__gt=at)
    by_hand = RoleGrant.objects.filter(counts, revoked_at__isnull=True, mapping__isnull=True)
    # Before anything moves: what the other account holds by somebody else's hand may take the place of one of these.
    given_to_oneself = by_hand.filter(user=stays, granted_by__in=own).select_for_update(of=("self",))
    for given in given_to_oneself.select_related("user").order_by("pk"):
        ending.end_grant(given, actor=actor, reason=_SELF_GIVEN)
    held = by_hand.filter(user=user_id)
    for given in held.select_for_update(of=("self",)).select_related("user").order_by("pk"):
        if given.granted_by_id not in own:
            same = RoleGrant.objects.filter(
                user=stays, role=given.role, unit=given.unit, team=given.team, mapping__isnull=True,
                revoked_at__isnull=True,
            )  # fmt: skip
            follows = same.filter(counts).first()
            if follows is None:
                same.update(revoked_at=at)
                follows = RoleGrant.objects.create(
                    user=stays, role=given.role, unit=given.unit, team=given.team, granted_by=given.granted_by,
                    reason=_WHY, starts_at=given.starts_at, expires_at=given.expires_at,
                )  # fmt: skip
                ending.role_changed(events.ROLE_GRANTED, follows, stays, actor, _WHY)
                moved += 1
            _hand_over(ReviewItem.objects.filter(grant=given), stays, grant=follows)
        ending.end_grant(given, actor=actor, reason=_WHY)
    return moved


def _memberships(user_id: int, stays: User, actor: Actor) -> int:
    at, moved = clock.now(), 0
    standing = Q(valid__contains=at) | Q(valid__startswith__gt=at)
    held = Membership.objects.filter(standing, user=user_id, mapping__isnull=True)
    for old in held.select_for_update(of=("self",)).select_related("user", "team").order_by("pk"):
        start = max(at, old.valid.lower) if old.valid.lower is not None else at
        valid = DateTimeTZRange(start, old.valid.upper, "[)")
        ending.end_membership(old, actor=actor, reason=_WHY)
        follows = Membership.objects.filter(user=stays, team=old.team, valid__overlap=valid).first()
        if follows is None:
            follows = Membership.objects.create(user=stays, team=old.team, valid=valid)
            ending.member_changed(events.MEMBER_ADDED, old.team, stays, start, actor, reason=_WHY)
            moved += 1
        _hand_over(ReviewItem.objects.filter(membership=old), stays, membership=follows)
    return moved


def _hand_over(items: object, stays: User, **what: RoleGrant | Membership) -> None:
    """Let an open question ask about what took its subject's place, unless that is asked about already."""
    for item in items.filter(answer=ReviewAnswer.OPEN):  # type: ignore[attr-defined]  # a queryset of questions
        if not ReviewItem.objects.filter(review=item.review, **what).exists():
            for name, row in what.items():
                setattr(item, name, row)
            item.user = stays
            item.bump("user", *what)
