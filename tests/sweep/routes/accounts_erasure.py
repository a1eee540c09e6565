"""The route of erasing a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.sweep.types import Route


def build(world: Any) -> None:
    """The person is one of the sample company."""


def _person(world: Any) -> Mapping[str, Any]:
    return {"user_uid": world.member_finance.uid}


ROUTES: dict[str, Route] = {
    "accounts:user-erase": Route(allowed={"admin"}, kwargs=_person),
    "accounts:user-erase#POST": Route(allowed={"admin"}, kwargs=_person, method="POST"),
}
