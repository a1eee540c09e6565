"""Change requests: everything that is declared but is no number of a quota. Kinds register; people ask and withdraw.

A kind (`ChangeHandler`) says what a change means; this module freezes it, has it approved and leaves the rest to
`change_granting`. Handlers read and write rows of their own; they never declare anything themselves.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from django.db import IntegrityError, transaction

from apps import audit
from apps.accounts.models import User
from apps.approvals import actions as approvals
from apps.approvals.models import ApprovalRequest, Policy
from apps.approvals.ports import Change
from apps.clusters.models import Cluster
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.permissions import may
from apps.quotas import change_events as events
from apps.quotas.assess import MIN_REASON
from apps.quotas.choices import OPEN_STATUSES, ChangeKind, RequestStatus
from apps.quotas.manifests import Manifest
from apps.quotas.models import ChangeRequest, Workspace
from apps.teams import scope
from apps.teams.models import Team, Unit

if TYPE_CHECKING:
    from apps.quotas.change_records import Frozen

POLICY = "change"
SUBJECT_TYPE = "quotas.change"
MAX_REASON = 4000


@dataclass(frozen=True)
class Proposed:
    """One declaration as it would be after the change: whose it is and all of its objects."""

    declaration_kind: str
    owner_uid: uuid.UUID
    title: str
    team_id: int | None
    manifests: list[Manifest]


class ChangeHandler(Protocol):
    """What a part of the room registers for one kind of change."""

    kind: ChangeKind

    def check(self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any]) -> dict[str, Any]:
        """Return the cleaned values (plain JSON, no floats). Raises Invalid with a message per field."""
        ...

    def title(self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any]) -> str:
        """Return the change in one line."""
        ...

    def settings_diff(self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any]) -> list[Change]:
        """Return what people read besides the diff of objects: settings before and after."""
        ...

    def propose(
        self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any], at: datetime
    ) -> list[Proposed]:
        """Return the declarations as they would be were it granted at `at`. Reads only."""
        ...

    def on_granted(self, change: ChangeRequest, at: datetime) -> None:
        """Write the kind's own rows, in the deciding transaction, before the objects are declared."""
        ...


@runtime_checkable
class Blocking(Protocol):
    """A kind that knows reasons of its own why nobody may approve now."""

    def blockers(self, change: ChangeRequest, at: datetime) -> Sequence[str]:
        """Return the reasons in sentences; empty where there are none."""
        ...


@runtime_checkable
class FollowsQuotas(Protocol):
    """A kind whose objects carry the numbers of approved quotas as they are: they are no part of what it changes."""

    follows_quotas: bool


@runtime_checkable
class Staged(Protocol):
    """A kind that may change a thousand declarations: they are declared in portions after the grant, not at once."""

    def propose_for(
        self, cluster: Cluster, owners: Collection[uuid.UUID], values: dict[str, Any], at: datetime
    ) -> list[Proposed]:
        """Return the declarations of these owners as they would be declared at `at`. Reads only."""
        ...


@runtime_checkable
class Receiving(Protocol):
    """A kind that makes a workspace: its team counts as the one whose workspace is changed."""

    def receiver(self, values: Mapping[str, Any]) -> Team:
        """Return the team whose workspace a grant makes. Raises Invalid where it is gone."""
        ...

    def line(self, change: ChangeRequest) -> str:
        """Return the line of the pool that it takes from, "" where it takes nothing."""
        ...


@runtime_checkable
class Informing(Protocol):
    """A kind that gives policies facts of its own."""

    def facts(self, change: ChangeRequest) -> Mapping[str, int | str]:
        """Return named facts; the general ones of change requests win over equal names."""
        ...


@runtime_checkable
class Concluding(Protocol):
    """A kind that wants to know when a request ended without a grant."""

    def on_concluded(self, change: ChangeRequest, status: str) -> None:
        """Take note, in the concluding transaction."""
        ...


_handlers: dict[str, ChangeHandler] = {}


def register_change(handler: ChangeHandler) -> None:
    """Register a kind. Raises ValueError where another class holds it."""
    held = _handlers.get(str(handler.kind))
    if held is not None and type(held) is not type(handler):
        raise ValueError(f"{handler.kind} is registered twice")
    _handlers[str(handler.kind)] = handler


def unregister_change(kind: str) -> None:
    """Forget a kind (tests register their own)."""
    _handlers.pop(str(kind), None)


def handler_of(kind: str) -> ChangeHandler:
    """Return the handler of a kind. Raises LookupError where nobody registered it."""
    try:
        return _handlers[str(kind)]
    except KeyError:
        raise LookupError(f"nobody registered the kind of change {kind!r}") from None


def acting_user(actor: Actor) -> User:
    """Return the active person behind an actor. Raises NotAllowed."""
    user = User.objects.filter(pk=actor.user_id, is_active=True).first() if actor.user_id is not None else None
    if not isinstance(user, User):
        raise NotAllowed("Only a person can do this.")
    return user


def may_request(user: Any, cluster: Cluster, workspace: Workspace | None) -> bool:
    """Whether the person may ask to change the workspace, or (without one) the cluster itself."""
    # A cluster belongs to the installation: only who holds the permission everywhere may change it.
    return may(user, "quotas.change.create", workspace if workspace is not None else cluster)


def place(cluster_id: int, workspace_id: int | None, user: User) -> tuple[Cluster, Workspace | None]:
    """Return what the change is about. Raises NotVisible, NotAllowed."""
    workspace: Workspace | None = None
    if workspace_id is not None:
        rows = Workspace.objects.visible_to(user).select_related("team__unit", "cluster")
        workspace = rows.filter(pk=workspace_id, cluster_id=cluster_id).first()
        if workspace is None:
            raise NotVisible
        cluster: Cluster | None = workspace.cluster
    else:
        cluster = Cluster.objects.filter(pk=cluster_id).first()
    if cluster is None:
        raise NotVisible
    if not may_request(user, cluster, workspace):
        raise NotAllowed(
            "Changes of a workspace are requested by the team's leads, the unit's owner and platform admins."
            if workspace is not None
            else "Changes of a cluster are requested by platform admins.",
            rule="quotas.change.create",
        )
    if cluster.archived_at is not None:
        raise Invalid({"": f"{cluster} is archived: nothing changes there until it is brought back."})
    return cluster, workspace


def policy_published() -> bool:
    """Whether a policy for changes is published: without one nothing can be asked for. One query."""
    return bool(Policy.objects.filter(slug=POLICY, versions__isnull=False).exists())


def checked_reason(reason: str) -> str:
    """Return the reason as it is stored. Raises Invalid where it is too short or too long."""
    text = reason.strip()
    if len(text) < MIN_REASON:
        raise Invalid(
            {"reason": f"Say in a sentence what it is for (at least {MIN_REASON} characters): approvers read it."}
        )
    if len(text) > MAX_REASON:
        raise Invalid({"reason": f"At most {MAX_REASON:,} characters."})
    return text


def paying_unit(team: Team | None) -> int:
    """Return the id of the unit whose owners stand behind the change; for a cluster itself the top of the tree."""
    if team is not None:
        return team.unit_id
    top = Unit.objects.filter(parent__isnull=True).order_by("pk").values_list("pk", flat=True).first()
    if top is None:
        raise Invalid({"": "There is no unit yet. Make the tree of units first."})
    return top


@transaction.atomic
def request_change(
    kind: str,
    *,
    cluster_id: int,
    workspace_id: int | None = None,
    values: Mapping[str, Any],
    reason: str,
    actor: Actor,
) -> ChangeRequest:
    """Ask for a change of a workspace, or of the cluster itself (`workspace_id` None); it may be granted at once.

    Raises NotVisible, NotAllowed, Invalid per field (also where no policy `change` is published, and where nothing
    would change), Conflict where a request of the same kind is open there (`current["request"]` is its uid).
    """
    from apps.quotas import change_records as records

    user = acting_user(actor)
    cluster, workspace = place(cluster_id, workspace_id, user)
    handler = handler_of(kind)
    text = checked_reason(reason)
    if not policy_published():
        raise Invalid({"": "No policy for changes is published yet. A platform admin has to publish one first."})
    cleaned = handler.check(cluster, workspace, dict(values))
    frozen = records.freeze(handler, cluster, workspace, cleaned, clock.now())
    if frozen.is_empty:
        raise Invalid({"": "Everything is declared like this already: nothing would change."})
    change = _written(handler, cluster, workspace, cleaned, frozen, text, user)
    team = change.team
    audit.record(
        events.CHANGE_SUBMITTED,
        records.event_of(change),
        actor=actor,
        subject_type=SUBJECT_TYPE,
        subject_uid=change.uid,
        team_uid=team.uid if team is not None else None,
        after_digest=change.digest,
        reason=text,
    )
    approval = approvals.submit(
        SUBJECT_TYPE,
        change.uid,
        actor=actor,
        policy_slug=POLICY,
        team_id=team.pk if team is not None else None,
        unit_id=paying_unit(team),
    )
    # A policy may have granted it at once, which has changed the row.
    change.refresh_from_db()
    if change.approval_id is None:
        change.approval = approval
        change.save(update_fields=["approval"])
    if change.status in OPEN_STATUSES:
        records.plan_change(change, frozen.proposed)
        told = set(change_leads(team)) - {user.pk}
        if told:
            outbox.publish(events.CHANGE_SUBMITTED, records.event_of(change), recipients=told, subject_uid=change.uid)
    return change


def change_leads(team: Team | None) -> list[int]:
    """Return whom a change concerns: the team's leads; for a cluster itself the platform admins."""
    if team is None:
        return scope.holders("clusters.cluster.manage")
    return scope.holders_of_role("team_lead", team_id=team.pk)


def _written(
    handler: ChangeHandler,
    cluster: Cluster,
    workspace: Workspace | None,
    values: dict[str, Any],
    frozen: Frozen,
    reason: str,
    user: User,
) -> ChangeRequest:
    from apps.quotas import change_records as records

    change = ChangeRequest(
        cluster=cluster,
        workspace=workspace,
        receiver=handler.receiver(values) if isinstance(handler, Receiving) else None,
        kind=ChangeKind(handler.kind),
        title=handler.title(cluster, workspace, values)[:300],
        reason=reason,
        values=values,
        objects_after=records.objects_bytes(frozen.proposed),
        change=frozen.as_json(),
        requester=user,
    )
    change.digest = records.digest_of_change(change)
    try:
        with transaction.atomic():
            change.save(force_insert=True)
    except IntegrityError as error:
        open_ones = ChangeRequest.objects.filter(kind=change.kind, status__in=OPEN_STATUSES)
        other = (
            open_ones.filter(workspace=workspace).first()
            if workspace is not None
            else open_ones.filter(cluster=cluster, workspace__isnull=True, receiver=change.receiver).first()
        )
        raise Conflict(
            "A request for the same change is already open here. Withdraw that one first, or let it be decided.",
            current={"request": str(other.uid), "status": other.status} if other else {},
        ) from error
    return change


@transaction.atomic
def withdraw_change(change_id: int, reason: str, *, actor: Actor, expected_version: int | None = None) -> ChangeRequest:
    """Take an open change request back. Raises NotVisible, NotAllowed, Conflict (decided meanwhile, a stale form)."""
    user = acting_user(actor)
    seen = ChangeRequest.objects.visible_to(user).select_related("workspace", "cluster").filter(pk=change_id).first()
    if seen is None:
        raise NotVisible
    if not may_withdraw(user, seen):
        raise NotAllowed("Only who may request such a change can withdraw it.", rule="quotas.change.create")
    approval = ApprovalRequest.objects.locked(seen.approval_id) if seen.approval_id is not None else None
    change = ChangeRequest.objects.locked(change_id, expected_version=expected_version)
    if not change.is_open or approval is None:
        raise Conflict(
            f"This request is {RequestStatus(change.status).label.lower()}: it can no longer be withdrawn.",
            current={"version": change.version, "status": change.status},
        )
    # The right to withdraw was checked above, by the rules of changes.
    approvals.withdraw(
        approval.pk,
        reason.strip() or "Withdrawn by those who asked.",
        actor=actor if approvals.may_withdraw(user, approval) else Actor.system("quotas.changes"),
    )
    change.refresh_from_db()
    return change


def may_withdraw(user: Any, change: ChangeRequest) -> bool:
    """Whether the person may take the change back: who asked, and whoever may ask for the same."""
    return bool(user.pk == change.requester_id or may_request(user, change.cluster, change.workspace))


__all__ = [
    "POLICY",
    "SUBJECT_TYPE",
    "Blocking",
    "ChangeHandler",
    "Concluding",
    "FollowsQuotas",
    "Informing",
    "Proposed",
    "Receiving",
    "Staged",
    "handler_of",
    "may_request",
    "may_withdraw",
    "policy_published",
    "register_change",
    "request_change",
    "unregister_change",
    "withdraw_change",
]
