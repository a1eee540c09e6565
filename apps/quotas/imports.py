"""The one door to the past: quota a team held before the portal was there, so that history can be accounted for."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

from django.db import IntegrityError, transaction
from psycopg.types.range import TimestamptzRange

from apps import audit
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Invalid, NotAllowed, NotVisible
from apps.core.events import declare
from apps.core.permissions import may
from apps.quotas.choices import BorrowMode
from apps.quotas.models import Quota, Workspace


@dataclass(frozen=True, slots=True)
class QuotaImported:
    """A quota of the past was written down; it changes nothing on a cluster."""

    workspace_uid: uuid.UUID
    flavour: str
    guaranteed: int
    borrow_mode: str
    borrow_limit: int
    valid_from: datetime
    valid_until: datetime


QUOTA_IMPORTED = declare("quotas.quota.imported", QuotaImported, audience="auditors")


@transaction.atomic
def import_quota(
    workspace_id: int,
    flavour_id: int,
    guaranteed: int,
    borrow_mode: str,
    borrow_limit: int,
    valid_from: datetime,
    valid_until: datetime,
    reason: str,
    *,
    actor: Actor,
) -> Quota:
    """Write down what a workspace held over a time that is over; nothing reaches a cluster.

    Raises NotVisible for an unknown workspace or flavour, NotAllowed for others than platform admins and the portal
    itself, Invalid where the time is not wholly past or overlaps what is written already.
    """
    from apps.accounts.models import User
    from apps.clusters.models import Flavour

    if actor.user_id is not None:
        user = User.objects.filter(pk=actor.user_id).first()
        if user is None or not may(user, "quotas.workspace.manage"):
            raise NotAllowed("History is imported by platform admins.", rule="quotas.workspace.manage")
    workspace = Workspace.objects.select_for_update(of=("self",)).select_related("team").filter(pk=workspace_id).first()
    flavour = Flavour.objects.filter(pk=flavour_id).first()
    if workspace is None or flavour is None:
        raise NotVisible
    errors: dict[str, str] = {}
    if valid_until <= valid_from:
        errors["valid_until"] = "The end lies after the beginning."
    elif valid_until > clock.now():
        errors["valid_until"] = "Only time that is over can be imported; request quota for the time ahead."
    if guaranteed < 0:
        errors["guaranteed"] = "Give a whole number of 0 or more."
    if borrow_mode not in BorrowMode.values or (borrow_mode == BorrowMode.LIMITED) != (borrow_limit > 0):
        errors["borrow_limit"] = "A limit goes with borrowing up to a limit, and only with it."
    if not reason.strip():
        errors["reason"] = "Say where this comes from."
    if errors:
        raise Invalid(errors)
    try:
        with transaction.atomic():
            quota = Quota.objects.create(
                workspace=workspace,
                flavour=flavour,
                guaranteed=guaranteed,
                borrow_mode=borrow_mode,
                borrow_limit=borrow_limit,
                valid=TimestamptzRange(valid_from, valid_until, "[)"),
            )
    except IntegrityError as error:
        raise Invalid({"valid_from": "The workspace's quota of that time is written already."}) from error
    payload = QuotaImported(workspace.uid, flavour.slug, guaranteed, borrow_mode, borrow_limit, valid_from, valid_until)
    audit.record(
        QUOTA_IMPORTED,
        payload,
        actor=actor,
        subject_type="quotas.quota",
        subject_uid=quota.uid,
        team_uid=workspace.team.uid,
        reason=reason,
    )
    return quota


__all__ = ["QUOTA_IMPORTED", "QuotaImported", "import_quota"]
