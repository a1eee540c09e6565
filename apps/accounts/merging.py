"""Two accounts of one person: which account stands for whom. Separation of duties asks here."""

from __future__ import annotations

from collections.abc import Mapping

from apps.accounts.models import User


def persons() -> dict[int, int]:
    """Return, for every account that was merged away, the one that stands for its person (one query)."""
    found = dict(User.objects.filter(merged_into__isnull=False).values_list("pk", "merged_into_id"))
    return {old: _last(old, found) for old in found}


def _last(user_id: int, merged: Mapping[int, int | None]) -> int:
    seen = {user_id}
    while (following := merged.get(user_id)) is not None and following not in seen:
        user_id = following
        seen.add(user_id)
    return user_id


def accounts_of(user_id: int) -> set[int]:
    """Return the accounts of the person behind an account: itself and those merged with it."""
    merged = persons()
    own = merged.get(user_id, user_id)
    return {user_id, own} | {old for old, into in merged.items() if into == own}
