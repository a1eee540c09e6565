"""Routes of merging accounts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.sweep.types import Route


def _person(world: Any) -> Mapping[str, Any]:
    return {"user_uid": world.member_finance.uid}


ROUTES: dict[str, Route] = {
    "accounts:user-merge": Route(allowed={"admin"}, kwargs=_person),
    "accounts:user-merge#POST": Route(allowed={"admin"}, kwargs=_person, method="POST"),
    "api:user-merge": Route(allowed={"admin"}, kwargs=lambda world: {"uid": world.member_finance.uid}, method="POST"),
}
