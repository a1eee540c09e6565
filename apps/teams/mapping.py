"""Which roles groups give, and what has to change for them: pure, so that its properties can be tested alone.

A provider's groups are either known (a set, maybe empty) or unknown (`None`: the provider named none at all). From an
unknown set nothing is concluded: it gives nothing and takes nothing away.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

MEMBER = "member"


@dataclass(frozen=True, slots=True)
class Rule:
    """A mapping in force: whoever is in `group` of the provider holds `role` there.

    `makers` are the accounts of the person who made it: nobody raises their own rights, so it gives them nothing.
    """

    mapping_id: int
    provider_id: int
    group: str
    role: str
    unit_id: int | None = None
    team_id: int | None = None
    makers: frozenset[int] = frozenset()


class Wanted(NamedTuple):
    """A role that a mapping gives to somebody."""

    role: str
    unit_id: int | None
    team_id: int | None
    mapping_id: int


@dataclass(frozen=True, slots=True)
class Held:
    """A role or membership in force. `mapping_id` is None where a person gave it."""

    row_id: int
    role: str
    unit_id: int | None
    team_id: int | None
    mapping_id: int | None

    @property
    def key(self) -> Wanted | None:
        """The role as a mapping would give it; None for one given by hand."""
        return None if self.mapping_id is None else Wanted(self.role, self.unit_id, self.team_id, self.mapping_id)


@dataclass(frozen=True, slots=True)
class Difference:
    """What has to be given and taken so that somebody's roles follow their groups."""

    give: tuple[Wanted, ...] = ()
    take: tuple[Held, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.give or self.take)


Groups = Mapping[int, Collection[str] | None]


def wanted(groups: Groups, rules: Iterable[Rule], *, user_id: int | None = None) -> set[Wanted]:
    """Return the roles that these groups (provider id → names, None for unknown) give to the person `user_id`.

    Names are compared exactly: two groups of a directory may differ in case alone.
    """
    found = set()
    for rule in rules:
        names = groups.get(rule.provider_id)
        if names is not None and rule.group in names and user_id not in rule.makers:
            found.add(Wanted(rule.role, rule.unit_id, rule.team_id, rule.mapping_id))
    return found


def difference(
    groups: Groups,
    rules: Collection[Rule],
    held: Collection[Held],
    *,
    user_id: int | None = None,
    withheld: Collection[Wanted] = (),
    gives: bool = True,
) -> Difference:
    """Return what to give and to take.

    `held` are the roles in force, given by hand or by groups; `withheld` those that somebody took away by hand although
    a group gives them: they stay away. Without `gives` (an account switched off) roles are only taken. A membership is
    there once whatever gives it: given by hand it needs no group, and of several groups the oldest mapping carries it.
    """
    providers = {rule.mapping_id: rule.provider_id for rule in rules}
    due = wanted(groups, rules, user_id=user_id)
    take = tuple(sorted((one for one in held if _goes(one, due, groups, providers)), key=lambda one: one.row_id))
    stays = [one for one in held if one not in take]
    if not gives:
        return Difference(take=take)
    present = {one.key for one in stays}
    teams = {one.team_id for one in stays if one.role == MEMBER}
    give: list[Wanted] = []
    for one in sorted(due - set(withheld), key=lambda one: (one.mapping_id, one.role)):
        if one in present or (one.role == MEMBER and one.team_id in teams):
            continue
        give.append(one)
        if one.role == MEMBER:
            teams.add(one.team_id)
    return Difference(tuple(give), take)


def released(withheld: Iterable[Wanted], groups: Groups, rules: Collection[Rule]) -> set[Wanted]:
    """Return what no group gives any more: joining the group again later gives the role again."""
    providers = {rule.mapping_id: rule.provider_id for rule in rules}
    due = wanted(groups, rules)
    return {one for one in withheld if one not in due and not _unknown(one.mapping_id, groups, providers)}


def _goes(one: Held, due: Collection[Wanted], groups: Groups, providers: Mapping[int, int]) -> bool:
    key = one.key
    return key is not None and key not in due and not _unknown(key.mapping_id, groups, providers)


def _unknown(mapping_id: int, groups: Groups, providers: Mapping[int, int]) -> bool:
    """Whether the mapping counts still and its provider said nothing about groups."""
    provider_id = providers.get(mapping_id)
    return provider_id is not None and provider_id in groups and groups[provider_id] is None


__all__ = ["MEMBER", "Difference", "Groups", "Held", "Rule", "Wanted", "difference", "released", "wanted"]
