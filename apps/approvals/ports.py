"""How other rooms plug in: subjects (what is approved) and facts (what policies ask). Approvals know no domain."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from apps.approvals.subject_ports import (
    Anchored,
    Authored,
    AuthoredByPerson,
    Checked,
    Dated,
    Matter,
    Queued,
    Recertified,
    Renewable,
    Renewal,
    Scoped,
    SidedByTeam,
    Span,
    Summarised,
    Timed,
    meet,
)

if TYPE_CHECKING:
    from apps.approvals.models import ApprovalRequest, Grant

#: What a policy can compare. Money is its Decimal amount in the ledger currency; never a float.
FactValue: TypeAlias = int | Decimal | str

#: The one fact with a fixed name: the change of the monthly cost, a signed Decimal in the ledger currency
#: (`COMMONS_CURRENCY`). Lists, mails and *For you to decide* show it. Leave it out where the cost is unknown.
MONTHLY_COST = "request.monthly_cost"


class CannotTake(Exception):
    """Raised by `Subject.on_granted` where the room cannot take the grant now (pool full).

    The decisions stand, no grant exists, and the request waits for capacity. `reason` is shown to people.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Leaf:
    """One part of the approved change with a digest of its own: a field path on a cluster."""

    cluster: str
    path: str
    digest: str


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the exact change, for the reader: what it was, what it will be."""

    cluster: str
    object: str
    path: str
    before: str
    after: str
    note: str = ""


class Subject(Protocol):
    """What a room registers for a kind of thing that needs approval. All methods take the subject's uid."""

    subject_type: str

    def canonical(self, uid: uuid.UUID) -> bytes:
        """Return the exact bytes that are approved (`core.canonical.canonical_bytes`); one byte changed, all void."""
        ...

    def leaves(self, uid: uuid.UUID) -> Sequence[Leaf]:
        """Return one leaf per cluster and field path that the change sets."""
        ...

    def title(self, uid: uuid.UUID) -> str:
        """Return the change in one line."""
        ...

    def diff(self, uid: uuid.UUID) -> Sequence[Change]:
        """Return the exact change, line by line."""
        ...

    def requester_side(self, uid: uuid.UUID) -> set[int]:
        """Return the user ids that may not decide: who requested or wrote it, and who will use it."""
        ...

    def facts(self, uid: uuid.UUID) -> Mapping[str, FactValue]:
        """Return the named facts that policies may ask about; leave out what is unknown."""
        ...

    def blockers(self, uid: uuid.UUID, at: datetime) -> Sequence[str]:
        """Return why nobody may approve this at `at` (plan missing, dates passed …); empty when nothing does."""
        ...

    def url(self, uid: uuid.UUID) -> str:
        """Return the path of the subject's own page."""
        ...

    def summary_template(self, uid: uuid.UUID) -> str:
        """Return the template that shows the change on the approval page, or "" for the plain table of `diff`."""
        ...

    def on_granted(self, uid: uuid.UUID, grant: Grant) -> None:
        """Put the change into force, in the deciding transaction. Raises CannotTake where that is impossible now."""
        ...

    def on_concluded(self, uid: uuid.UUID, status: str, reason: str) -> None:
        """Take note that the request ended as rejected, withdrawn, lapsed or superseded, or waits for capacity."""
        ...


@dataclass(frozen=True, slots=True)
class FactContext:
    """What a fact provider is told about the request under way."""

    subject_type: str
    subject_uid: uuid.UUID
    team_id: int | None
    unit_id: int
    at: datetime


#: Returns the fact's value, or None where it is unknown (which makes conditions on it false).
FactProvider: TypeAlias = Callable[[FactContext], "FactValue | None"]


@dataclass(frozen=True, slots=True)
class FactMeaning:
    """What a fact is called on pages, what it means, and in what unit it is ("money": the ledger currency)."""

    label: str
    meaning: str
    unit: str = ""


_subjects: dict[str, Subject] = {}
_providers: dict[str, FactProvider] = {}
_meanings: dict[str, FactMeaning] = {
    MONTHLY_COST: FactMeaning("Monthly cost change", "What the change adds to the team's cost in a month.", "money")
}


def register_subject(subject: Subject) -> None:
    """Register a subject under its type. Raises ValueError where another class holds the type."""
    held = _subjects.get(subject.subject_type)
    if held is not None and type(held) is not type(subject):
        raise ValueError(f"{subject.subject_type} is registered twice")
    _subjects[subject.subject_type] = subject


def unregister_subject(subject_type: str) -> None:
    """Forget a subject (tests register their own)."""
    _subjects.pop(subject_type, None)


def get_subject(subject_type: str) -> Subject:
    """Return the subject of a type. Raises LookupError for a type that no room registered."""
    try:
        return _subjects[subject_type]
    except KeyError:
        raise LookupError(f"no room registered the subject {subject_type!r}") from None


def label_of(subject_type: str) -> str:
    """Return what a kind of subject is called: its own `label`, else its type in words."""
    own = getattr(_subjects.get(subject_type), "label", "")
    words = str(own) or subject_type.replace(".", " ").replace("_", " ")
    return words[:1].upper() + words[1:]


def sided_by_team() -> list[str]:
    """Return the subject types whose requester's side holds everybody in the request's team."""
    return sorted(name for name, one in _subjects.items() if isinstance(one, SidedByTeam) and one.team_is_side)


def authored() -> list[str]:
    """Return the subject types that know their authors and evidence producers."""
    return sorted(name for name, one in _subjects.items() if isinstance(one, Authored))


def subject_types() -> list[str]:
    """Return every registered subject type."""
    return sorted(_subjects)


def register_fact_provider(
    name: str, provider: FactProvider, *, label: str = "", meaning: str = "", unit: str = ""
) -> None:
    """Register a fact of another room, e.g. `team.budget_remaining`; read at submission and at each decision."""
    _providers[name] = provider
    if label or meaning:
        describe_fact(name, label=label or name, meaning=meaning, unit=unit)


def read_fact(name: str, context: FactContext) -> FactValue | None:
    """Return what another room's provider says of one fact; None where nobody provides it or it is unknown.

    For subjects whose own facts build on it (is the cost within what is left of the budget?).
    """
    provider = _providers.get(name)
    return provider(context) if provider is not None else None


def describe_fact(name: str, *, label: str, meaning: str, unit: str = "") -> None:
    """Say what a fact of a subject is called and means; pages and the policy editor show it."""
    _meanings[name] = FactMeaning(label, meaning, unit)


def meaning_of(name: str) -> FactMeaning:
    """Return what a fact means; one that nobody described goes by its own name."""
    return _meanings.get(name) or FactMeaning(name, "")


def known_facts() -> dict[str, FactMeaning]:
    """Return the described facts by name."""
    return dict(sorted(_meanings.items()))


def gather_facts(context: FactContext) -> dict[str, FactValue]:
    """Return the subject's facts and every provider's; the subject's own word wins. Raises TypeError for a float."""
    found: dict[str, FactValue] = {}
    for name, provider in sorted(_providers.items()):
        value = provider(context)
        if value is not None:
            found[name] = value
    found.update(get_subject(context.subject_type).facts(context.subject_uid))
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
            raise TypeError(f"the fact {name} is {type(value).__name__}; facts are integers, Decimals or strings")
    return found


#: Called with a grant that has ended (expired or revoked), in the transaction that notes it.
GrantEnded: TypeAlias = "Callable[[Grant], None]"

_ended: dict[str, GrantEnded] = {}


def on_grant_ended(subject_type: str, fn: GrantEnded) -> None:
    """Register what a room does once a grant of its subjects has ended: called once for each, in the transaction.

    Registering also asks for notices 30 and 7 days before a grant of this kind ends, and when it has. Nothing hangs on
    the call: a grant past its end is unusable by itself. Raises ValueError where another function is registered.
    """
    held = _ended.get(subject_type)
    if held is not None and getattr(held, "__qualname__", "") != getattr(fn, "__qualname__", ""):
        raise ValueError(f"{subject_type} already hears of ended grants")
    _ended[subject_type] = fn


def forget_grant_ended(subject_type: str) -> None:
    """Forget who hears of ended grants (tests register their own)."""
    _ended.pop(subject_type, None)


def hears_of_ends() -> list[str]:
    """Return the subject types whose rooms hear of ended grants."""
    return sorted(_ended)


def tell_ended(grant: Grant) -> None:
    """Tell the subject's room that the grant has ended, where it asked to hear of it."""
    fn = _ended.get(grant.request.subject_type)
    if fn is not None:
        fn(grant)


_terms: dict[str, dict[str, FactMeaning]] = {}


def describe_term(subject_type: str, name: str, *, label: str, meaning: str, unit: str = "") -> None:
    """Say which named number or word a policy may set for a subject; others are refused for it from then on."""
    _terms.setdefault(subject_type, {})[name] = FactMeaning(label, meaning, unit)


def known_terms(subject_type: str) -> dict[str, FactMeaning]:
    """Return the described terms of a subject by name; empty where its room described none (any name will do)."""
    return dict(sorted(_terms.get(subject_type, {}).items()))


def terms(request: ApprovalRequest) -> dict[str, int | str]:
    """Return the terms that the request's pinned policy version sets for it, on the facts of its submission."""
    from apps.approvals import terms as policy_terms

    return policy_terms.of_request(request)


def terms_for(policy_slug: str, facts: Mapping[str, FactValue]) -> dict[str, int | str]:
    """Return the terms that the policy's newest version would set, given facts.

    Raises Invalid where no policy is published under the slug.
    """
    from apps.approvals import terms as policy_terms

    return policy_terms.of_policy(policy_slug, facts)


@dataclass(frozen=True, slots=True)
class StartingPolicy:
    """Rules that a room proposes for one of its subjects, to be read, changed and published by a platform admin."""

    slug: str
    name: str
    subject_type: str
    body: Mapping[str, Any]


_starting: dict[str, StartingPolicy] = {}


def register_starting_policy(policy: StartingPolicy) -> None:
    """Propose rules under a short name; nothing is in force before somebody publishes it."""
    _starting[policy.slug] = policy


def starting_policies() -> list[StartingPolicy]:
    """Return what rooms propose, by short name."""
    return [_starting[slug] for slug in sorted(_starting)]


__all__ = [
    "MONTHLY_COST", "Anchored", "Authored", "AuthoredByPerson", "CannotTake", "Change", "Checked", "Dated",
    "FactContext", "FactMeaning", "FactProvider", "FactValue", "GrantEnded", "Leaf", "Matter", "Queued", "Recertified",
    "Renewable", "Renewal",
    "Scoped", "SidedByTeam", "Span", "StartingPolicy", "Subject", "Summarised", "Timed", "authored", "describe_fact",
    "describe_term", "forget_grant_ended", "gather_facts", "get_subject", "hears_of_ends", "known_facts",
    "known_terms", "label_of", "meaning_of", "meet", "on_grant_ended", "read_fact", "register_fact_provider",
    "register_starting_policy", "register_subject", "sided_by_team", "starting_policies", "subject_types",
    "tell_ended", "terms", "terms_for", "unregister_subject",
]  # fmt: skip
