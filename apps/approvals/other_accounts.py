"""Accounts of one person count as one: whoever is kept from deciding is so with every account."""

from __future__ import annotations

from django.db.models import Q

from apps.accounts import merging
from apps.approvals.models import ApprovalRequest

OTHER_ACCOUNT_RULE = "One person fills one seat: already decided with an account that was merged into this one."


def with_other_accounts(request: ApprovalRequest, found: dict[int, str]) -> dict[int, str]:
    """Return who may not decide with every other account of the same persons, and who spoke here with another one."""
    persons = merging.persons()
    if not persons:
        return found
    accounts: dict[int, set[int]] = {}
    for old, stays in persons.items():
        accounts.setdefault(stays, {stays}).add(old)
    for user_id, rule in list(found.items()):
        for other in accounts.get(persons.get(user_id, user_id), ()):
            found.setdefault(other, rule)
    # Who spoke with another account, and for whom somebody spoke as it: both stand behind that word.
    words = request.decisions.filter(Q(actor__in=persons) | Q(on_behalf_of__in=persons))
    for pair in words.values_list("actor_id", "on_behalf_of_id"):
        for account in pair:
            if account in persons:
                found.setdefault(persons[account], OTHER_ACCOUNT_RULE)
    return found
