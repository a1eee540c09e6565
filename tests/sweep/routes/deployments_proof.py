"""Routes of proof: statements of placement are the installation's; the time machine shows what one may see."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from types import SimpleNamespace
from typing import Any

from apps.core import clock
from apps.core.canonical import digest
from apps.deployments import placement_statement
from apps.deployments.models import PlacementStatement
from tests.sweep.types import EVERYBODY, Route

_VIEW = {"compliance", "admin", "auditor"}
_ANYBODY = EVERYBODY - {"expired"}


def build(world: SimpleNamespace) -> None:
    """A statement without lines."""
    raw = placement_statement.body_of("2026-09", "UTC", [], made_at=clock.now(), revision=1)
    world.placement = PlacementStatement.objects.create(
        month=date(2026, 9, 1), body=raw, digest=digest(raw), signature="numbat", key_id="k", made_at=clock.now()
    )
    world.keep_secret(world.placement.uid, world.placement.digest)


def _uid(world: Any) -> Mapping[str, Any]:
    return {"statement_uid": world.placement.uid}


ROUTES: dict[str, Route] = {
    "deployments:placement-list": Route(allowed=_VIEW),
    "deployments:placement-detail": Route(allowed=_VIEW, kwargs=_uid),
    "deployments:placement-file": Route(allowed=_VIEW, kwargs=_uid),
    "deployments:time-machine": Route(allowed=_ANYBODY, query="?at=2026-01-01T00:00"),
    "api:placement-statement-list": Route(allowed=_VIEW),
    "api:placement-statement-detail": Route(allowed=_VIEW, kwargs=lambda world: {"uid": world.placement.uid}),
    "api:time-machine": Route(allowed=_ANYBODY, query="?at=2026-01-01T00:00:00Z"),
}
