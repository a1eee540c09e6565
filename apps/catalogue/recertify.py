"""Recertification: something happened, so an approved version has to be looked at again, for the scope it holds."""

from __future__ import annotations

import uuid

from django.db import transaction

from apps.accounts.models import User
from apps.catalogue import evidence_events as events
from apps.catalogue import requests as asks
from apps.catalogue.choices import AskStatus
from apps.catalogue.models import ModelRequest, ModelVersion
from apps.core import outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, NotVisible
from apps.quotas.models import Workspace
from apps.teams import scope


@transaction.atomic
def recertify(model_version_id: int, reason: str, *, actor: Actor) -> ModelRequest | None:
    """Ask that the version be looked at again; None: a request is open already.

    The portal itself may ask (a breached objective); the requester is then who asked last, or a lead of the team, so
    that somebody answers for it. The grant stays usable until it ends or compliance revokes it. Raises NotVisible,
    Conflict where the version was never approved or nothing of its scope is left.
    """
    version = ModelVersion.objects.select_related("model").filter(pk=model_version_id).first()
    if version is None:
        raise NotVisible
    if ModelRequest.objects.filter(model_version=version, status=AskStatus.IN_REVIEW).exists():
        return None
    last = (
        ModelRequest.objects.select_related("requester", "model_version")
        .filter(model_version=version, status=AskStatus.APPROVED)
        .order_by("-pk")
        .first()
    )
    if last is None:
        raise Conflict("This version was never approved: there is nothing to look at again.")
    uids = [uuid.UUID(one) for one in last.scope["workspaces"]]
    workspaces = Workspace.objects.filter(uid__in=uids, archived_at__isnull=True)
    leads = scope.holders(asks.SUBMIT, team_id=version.model.team_id)
    if not leads:
        raise Conflict("Nobody leads the owning team, so nobody can answer for the request.")
    asker = next((one for one in (actor.user_id, last.requester_id) if one in leads), leads[0])
    words = " ".join(reason.split())[:300]
    row = asks.submit(
        version.pk,
        asks.Asked(
            list(workspaces.values_list("pk", flat=True)), int(last.scope["max_traffic"]), last.valid_days,
            f"To be looked at again: {words}",
        ),
        actor=Actor.of(User.objects.get(pk=asker), actor.channel),
        renews=last.pk,
        recertify_reason=words,
    )  # fmt: skip
    asks.record(events.RECERTIFICATION_DUE, row, actor, reason=words)
    payload = asks.event_of(row, reason=words)
    outbox.publish(events.RECERTIFICATION_DUE, payload, recipients=leads, subject_uid=row.uid)
    return row
