"""Routes of seeing the portal as somebody else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.sweep.types import EVERYBODY, Route


def _person(world: Any) -> Mapping[str, Any]:
    return {"user_uid": world.member_finance.uid}


ROUTES: dict[str, Route] = {
    "accounts:impersonation-start": Route(allowed={"admin"}, kwargs=_person),
    "accounts:impersonation-start#POST": Route(allowed={"admin"}, kwargs=_person, method="POST", note="400: no reason"),
    "accounts:impersonation-end": Route(allowed=EVERYBODY, method="POST", note="nothing is under way: says so"),
}
