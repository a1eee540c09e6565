"""Who does something, and through which door. Every action takes one."""

from __future__ import annotations

import uuid
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

#: Request id of the web request or task under way, for logs, audit rows and error pages.
request_id_var: ContextVar[str] = ContextVar("commons_request_id", default="")


class Channel(StrEnum):
    """The door a change came through."""

    WEB = "web"
    API = "api"
    TASK = "task"
    COMMAND = "command"


class _HasIdentity(Protocol):
    pk: int
    uid: uuid.UUID


@dataclass(frozen=True, slots=True)
class Actor:
    """The person (or the portal itself: `user_id is None`) behind an action.

    `user_uid` is the opaque id that audit rows carry; `on_behalf_of` the user id of a delegator, if any;
    `name` is set for the portal's own actors only ("metering.ingest").
    """

    user_id: int | None
    channel: Channel
    request_id: str
    user_uid: uuid.UUID | None = None
    on_behalf_of: int | None = None
    name: str = ""

    @classmethod
    def of(cls, user: _HasIdentity, channel: Channel = Channel.WEB) -> Actor:
        """Return the actor for a signed-in person; somebody who looks on as that person stays who they are."""
        behind: _HasIdentity | None = getattr(user, "_commons_behind", None)
        if behind is not None:
            return cls(
                user_id=behind.pk,
                user_uid=behind.uid,
                channel=channel,
                request_id=current_request_id(),
                on_behalf_of=user.pk,
            )
        return cls(user_id=user.pk, user_uid=user.uid, channel=channel, request_id=current_request_id())

    @classmethod
    def system(cls, name: str, channel: Channel = Channel.TASK) -> Actor:
        """Return the portal itself as actor; `name` says which part of it (a task or policy name)."""
        return cls(user_id=None, channel=channel, request_id=current_request_id(), name=name)

    @property
    def is_system(self) -> bool:
        """Whether the portal itself acts."""
        return self.user_id is None


def current_request_id() -> str:
    """Return the id of the request under way, or a new one outside any request."""
    return request_id_var.get() or uuid.uuid4().hex
