"""Routes of the audit room. `world.audit_event`: written by the sample company's making."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import transaction

from apps.audit.actions import record_refusal
from apps.core.actor import Actor
from tests.sweep.types import Route

_READ = {"auditor"}


def build(world: Any) -> None:
    """Write an event."""
    with transaction.atomic():
        world.audit_event = record_refusal(
            actor=Actor.of(world.vp_other), method="POST", path="/audited-quagga/", rule="audit.event.view"
        )
    world.keep_secret(world.audit_event.uid, "/audited-quagga/")
    for name in ("compliance", "finance", "admin"):
        world.secrets[name].append("/audited-quagga/")


def _event(world: Any) -> Mapping[str, Any]:
    return {"event_uid": world.audit_event.uid}


def _uid(world: Any) -> Mapping[str, Any]:
    return {"uid": world.audit_event.uid}


ROUTES: dict[str, Route] = {
    "audit:event-list": Route(allowed=_READ),
    "audit:event-list#export": Route(allowed=_READ, query="?export=csv"),
    "audit:event-list#filtered": Route(allowed=_READ, query="?who=vp&since=2026-01-01&object=portal"),
    "audit:event-detail": Route(allowed=_READ, kwargs=_event),
    "audit:integrity": Route(allowed=_READ),
    "audit:bundle": Route(allowed=_READ),
    "api:audit-event-list": Route(allowed=_READ),
    "api:audit-event-detail": Route(allowed=_READ, kwargs=_uid),
}
