"""What a subject may say beyond `ports.Subject`: each a protocol of its own, found by its methods. In `ports`, too."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from apps.approvals.models import Grant


@runtime_checkable
class Queued(Protocol):
    """A subject whose grants stand in a line: nobody in the same line is granted before an earlier waiting request."""

    def queue(self, uid: uuid.UUID) -> str:
        """Return the name of the line (a pool's uid), or "" for a change that takes nothing from it."""
        ...


#: A stretch of time `[start, end)`; `end` None: no end.
Span: TypeAlias = tuple[datetime, datetime | None]


@runtime_checkable
class Timed(Protocol):
    """A queued subject that takes from its line only at certain times.

    What takes at another time takes nothing that somebody before it could use, so it need not stand behind them.
    """

    def spans(self, uid: uuid.UUID, at: datetime) -> Sequence[Span]:
        """Return when the change, granted at `at` or later, could take anything from its line."""
        ...


def meet(one: Sequence[Span] | None, other: Sequence[Span] | None) -> bool:
    """Whether an instant lies in spans of both; None: at any time, so it meets everything."""
    if one is None or other is None:
        return True
    return any(
        (end is None or other_start < end) and (other_end is None or start < other_end)
        for start, end in one
        for other_start, other_end in other
    )


@runtime_checkable
class SidedByTeam(Protocol):
    """A subject that counts everybody who belongs to the request's team now to the requester's side.

    Then whose side a person is on follows from their own teams: a list asks no request by itself.
    """

    team_is_side: bool


@runtime_checkable
class Summarised(Protocol):
    """A subject whose `summary_template` needs more than `approval_request` and `changes`."""

    def summary_context(self, uid: uuid.UUID) -> Mapping[str, object]:
        """Return the template's further context."""
        ...


@runtime_checkable
class Scoped(Protocol):
    """A subject whose grant is good for something else than "this subject on these clusters"."""

    def grant_scope(self, uid: uuid.UUID) -> Mapping[str, Any]:
        """Return JSON-ready keys of `Grant.scope`, laid over the usual ones (`engine.covers` reads them)."""
        ...


@runtime_checkable
class Dated(Protocol):
    """A subject that asks for its grant from or until a date."""

    def validity(self, uid: uuid.UUID) -> tuple[datetime | None, datetime | None]:
        """Return (not before, expires at), None: not asked for. The earlier end of this and the policy's counts."""
        ...


@runtime_checkable
class Checked(Protocol):
    """A subject with a checklist whose answers belong to a decision."""

    def checklist_digest(self, uid: uuid.UUID) -> str:
        """Return the SHA-256 (lower-case hexadecimal) of what the checklist answers now; kept with each decision."""
        ...


@runtime_checkable
class Anchored(Protocol):
    """A subject that has parts, besides its leaves, that people comment on."""

    def anchors(self, uid: uuid.UUID) -> Sequence[tuple[str, str]]:
        """Return each part's anchor ("control:CODE", "evidence:UID"; at most 200 characters) and what it is called."""
        ...


@runtime_checkable
class Authored(Protocol):
    """A subject that knows who wrote it and who produced its evidence, besides `requester_side`."""

    def authors(self, uid: uuid.UUID) -> set[int]:
        """Return the user ids of everybody who wrote any part of it, the last editor included: they never decide."""
        ...

    def evidence_producers(self, uid: uuid.UUID) -> set[int]:
        """Return the user ids of who produced its evidence: they decide only where the policy says so."""
        ...


@runtime_checkable
class AuthoredByPerson(Protocol):
    """An authored subject that can be asked the other way round, so that lists ask no request by itself."""

    def written_by(self, user_ids: Collection[int]) -> Iterable[uuid.UUID]:
        """Return the uids of the subjects that `authors` names any of these people for: a query, not asked yet."""
        ...

    def proved_by(self, user_ids: Collection[int]) -> Iterable[uuid.UUID]:
        """Return the uids of the subjects that `evidence_producers` names any of these people for: a query, too."""
        ...


@runtime_checkable
class Matter(Protocol):
    """A subject that knows what an emergency of it is about, beyond the one request."""

    def matter(self, uid: uuid.UUID) -> str:
        """Return the same text for all that is about the same (a model in a workspace, say)."""
        ...


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a room has prepared for a grant that ends: its page, what to say of it, whether nobody has taken it up."""

    path: str
    note: str
    waiting: bool


@runtime_checkable
class Recertified(Protocol):
    """A subject whose room prepares, in good time, that an ending grant is looked at again."""

    def on_ending(self, uid: uuid.UUID, grant: Grant, at: datetime) -> Renewal | None:
        """Prepare it once, in the transaction of the notice and under the grant's lock; None: nothing to renew."""
        ...

    def on_escalated(self, uid: uuid.UUID, grant: Grant, at: datetime) -> None:
        """Take note that those above were told, because nobody has taken it up."""
        ...


@runtime_checkable
class Renewable(Protocol):
    """A subject whose grant may be taken over by a later one before it ends."""

    def renewed(self, uid: uuid.UUID, at: datetime) -> bool:
        """Return whether something else takes over, so that nobody needs to hear that this grant ends."""
        ...
