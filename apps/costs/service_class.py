"""Gives workspaces a service class from an hour on: what runs there is charged at that class's prices from then on."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

from django.db import IntegrityError, transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from django.urls import reverse

from apps import audit
from apps.accounts.models import User
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.events import declare
from apps.core.permissions import may
from apps.metering.models import WorkspaceClass
from apps.quotas.models import Workspace
from apps.rates.choices import ServiceClass
from apps.teams import scope

PERMISSION = "rates.card.manage"
MAX_REASON = 300
STANDARD = "Standard"


@dataclass(frozen=True, slots=True)
class ClassAssigned:
    """A workspace is charged at a service class ("" standard) from an hour on."""

    workspace_uid: uuid.UUID
    team_uid: uuid.UUID
    before: str
    service_class: str
    valid_from: datetime
    path: str
    reason: str = ""


def label_of(name: str) -> str:
    """Return a class in words; "" is the standard."""
    return str(ServiceClass(name).label) if name else STANDARD


ASSIGNED = declare(
    "costs.service_class.assigned",
    ClassAssigned,
    audience="the team's leads",
    mail=True,
    headline=lambda p: f"Service class: {label_of(p.service_class)}",
    body=lambda p: (
        f"The workspace is charged at the prices of this class from {str(p.valid_from)[:16].replace('T', ' ')} UTC on,"
        f" instead of {label_of(p.before).lower()}.\n{p.reason}"
    ),
    path=lambda p: p.path,
)


@transaction.atomic
def assign_class(
    workspace_id: int, service_class: str, valid_from: datetime, reason: str, *, actor: Actor
) -> WorkspaceClass | None:
    """Charge a workspace at a class ("": standard again) from the full hour of `valid_from` on, until the next one.

    Returns the new row; None where the standard applies. What has been metered stays at the class it was sold at: the
    hour may not lie in the past, and hence never in a closed month. Raises NotVisible, NotAllowed (finance only),
    Invalid for a past hour, a missing reason, an unknown class, or the class it has anyway, Conflict where somebody
    else assigned one meanwhile.
    """
    workspace = (
        Workspace.objects.select_for_update(of=("self",)).select_related("team__unit").filter(pk=workspace_id).first()
    )
    if workspace is None:
        raise NotVisible
    if actor.user_id is not None:
        user = User.objects.filter(pk=actor.user_id, is_active=True).first()
        if user is None or not may(user, PERMISSION, workspace):
            raise NotAllowed("Service classes are given by finance.", rule=PERMISSION)
    start, said = clock.hour_floor(valid_from), reason.strip()
    errors: dict[str, str] = {}
    if service_class and service_class not in ServiceClass.values:
        errors["service_class"] = "There is no such service class."
    if start < clock.hour_floor(clock.now()):
        errors["valid_from"] = "The past stays at the class it was sold at: choose this hour or a later one."
    if not said:
        errors["reason"] = "Say why: the team reads it, and auditors do."
    elif len(said) > MAX_REASON:
        errors["reason"] = f"At most {MAX_REASON} characters."
    if errors:
        raise Invalid(errors)
    rows = list(WorkspaceClass.objects.select_for_update().filter(workspace=workspace).order_by("valid"))
    running = next((row for row in rows if _covers(row, start)), None)
    if any(row.valid.lower == start for row in rows):
        raise Invalid({"valid_from": "Another class is assigned from this hour on. Choose another hour."})
    before = running.service_class if running else ""
    if before == service_class:
        raise Invalid({"service_class": f"It is charged at this class then: {label_of(before).lower()}."})
    following = [row.valid.lower for row in rows if row.valid.lower > start]
    made: WorkspaceClass | None = None
    try:
        with transaction.atomic():
            if running:
                running.valid = DateTimeTZRange(running.valid.lower, start, "[)")
                running.save(update_fields=["valid"])
            if service_class:
                made = WorkspaceClass.objects.create(
                    workspace=workspace,
                    service_class=service_class,
                    set_by_id=actor.user_id,
                    reason=said,
                    valid=DateTimeTZRange(start, min(following, default=None), "[)"),
                )
    except IntegrityError as error:
        raise Conflict("Another class was assigned meanwhile. Look at the workspace again.") from error
    payload = ClassAssigned(
        workspace_uid=workspace.uid,
        team_uid=workspace.team.uid,
        before=before,
        service_class=service_class,
        valid_from=start,
        path=reverse("quotas:workspace-detail", kwargs={"workspace_uid": workspace.uid}),
        reason=said,
    )
    audit.record(
        ASSIGNED,
        payload,
        actor=actor,
        subject_type="quotas.workspace",
        subject_uid=workspace.uid,
        team_uid=workspace.team.uid,
    )
    leads = scope.holders_of_role("team_lead", team_id=workspace.team_id)
    outbox.publish(ASSIGNED, payload, recipients=leads, subject_uid=workspace.uid)
    return made


def _covers(row: WorkspaceClass, at: datetime) -> bool:
    low, high = row.valid.lower, row.valid.upper
    return bool(low < at and (high is None or at < high))


def class_at(workspace: Workspace, at: datetime) -> WorkspaceClass | None:
    """Return the class that a workspace is charged at, with who gave it; None: standard."""
    return WorkspaceClass.objects.filter(workspace=workspace, valid__contains=at).select_related("set_by").first()
