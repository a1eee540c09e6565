"""Fills the hooks that core leaves open: refusals and exports become audit rows, histories are drawn from them."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponseBase

from apps.core import hooks
from apps.core.actor import Actor
from apps.core.errors import NotAllowed
from apps.core.events import EventType


def install() -> None:
    """Connect core's hooks with the audit room."""
    hooks.install(refusal=_refusal, export=_export, history=_history)


def _refusal(actor: Actor, error: NotAllowed, method: str, path: str) -> None:
    from apps.audit.actions import record_refusal

    record_refusal(actor=actor, rule=error.rule, method=method, path=path)


def _history(view: Any) -> HttpResponseBase:
    from apps.audit.history import page

    return page(view)


def _export(event: EventType, payload: Any, actor: Actor) -> None:
    import uuid

    from django.db import transaction

    from apps.audit.actions import record

    with transaction.atomic():
        record(event, payload, actor=actor, subject_type="export", subject_uid=uuid.uuid4())
