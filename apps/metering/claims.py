"""Namespaces that nobody owns on paper: claim one for a team from an hour on, end the claim, take it back."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import IntegrityError, transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps import audit
from apps.accounts.models import User
from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.events import EventType, declare
from apps.core.permissions import may
from apps.core.sweeps import nudge
from apps.metering import ports
from apps.metering.models import NamespaceOwner
from apps.quotas.choices import Environment
from apps.quotas.models import Workspace
from apps.teams.models import Team

PERMISSION = "metering.namespace.claim"
#: The furthest back that a claim may begin.
REACH = timedelta(days=400)
HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class NamespaceClaimed:
    """A namespace's cost is a team's from an hour on."""

    claim_uid: uuid.UUID
    cluster_uid: uuid.UUID
    team_uid: uuid.UUID
    namespace: str
    valid_from: datetime
    valid_until: datetime | None


CLAIMED = declare("metering.namespace.claimed", NamespaceClaimed, audience="platform admins, finance")
ENDED = declare("metering.namespace.released", NamespaceClaimed, audience="platform admins, finance")
WITHDRAWN = declare("metering.namespace.withdrawn", NamespaceClaimed, audience="platform admins, finance")


def _require(actor: Actor, team: Team) -> None:
    if actor.user_id is None:
        return
    user = User.objects.filter(pk=actor.user_id, is_active=True).first()
    if user is None or not may(user, PERMISSION, team):
        raise NotAllowed(
            "Leads claim for their own team, unit owners for teams of their unit, platform admins and finance for any.",
            rule=PERMISSION,
        )


def first_open_hour(cluster_id: int, start: datetime, end: datetime) -> datetime | None:
    """Return the first hour of [start, end) after all closed ones; None where no hour of it is closed."""
    hours = [start + number * HOUR for number in range(max(0, int((end - start) / HOUR)))]
    closed = ports.frozen(cluster_id, hours)
    return max(closed) + HOUR if closed else None


@transaction.atomic
def claim_namespace(
    cluster_id: int,
    namespace: str,
    team_id: int,
    valid_from: datetime,
    *,
    actor: Actor,
    reason: str = "",
    environment: str = "",
) -> NamespaceOwner:
    """Make a namespace a team's from the full hour of `valid_from` on; hours of open months move to it.

    Raises NotVisible for an unknown cluster or team, NotAllowed, Invalid for a workspace's namespace, one that is
    claimed in that time, a future hour, an hour of a closed month, or a missing reason.
    """
    cluster = Cluster.objects.filter(pk=cluster_id).first()
    team = Team.objects.select_related("unit").filter(pk=team_id).first()
    if cluster is None or team is None:
        raise NotVisible
    _require(actor, team)
    now = clock.now()
    start, namespace = clock.hour_floor(valid_from), namespace.strip()
    errors: dict[str, str] = {}
    if not namespace or len(namespace) > 120:
        errors["namespace"] = "Name the namespace as the cluster does."
    elif Workspace.objects.filter(cluster=cluster, namespace=namespace, archived_at__isnull=True).exists():
        errors["namespace"] = "This is a workspace's namespace: its cost is its team's already."
    if not reason.strip():
        errors["reason"] = "Say why this namespace is the team's: finance and auditors read it."
    if environment and environment not in Environment.values:
        errors["environment"] = "Choose one of the environments, or none."
    if start > now:
        errors["valid_from"] = "A claim begins in an hour that has begun."
    elif start < now - REACH:
        errors["valid_from"] = f"A claim reaches back {REACH.days} days at most."
    elif first := first_open_hour(cluster_id, start, clock.hour_floor(now)):
        errors["valid_from"] = f"A closed month does not change: begin at {first:%Y-%m-%d %H:%M} UTC or later."
    if errors:
        raise Invalid(errors)
    try:
        with transaction.atomic():
            claim = NamespaceOwner.objects.create(
                cluster=cluster,
                namespace=namespace,
                team=team,
                environment=environment,
                reason=reason.strip()[:300],
                claimed_by_id=_person(actor),
                valid=DateTimeTZRange(start, None, "[)"),
                pending_from=start,
            )
    except IntegrityError as error:
        raise Invalid(
            {"namespace": "This namespace is claimed from then on, or later: end that claim first."}
        ) from error
    _record(CLAIMED, claim, start, None, actor, reason)
    _nudge()
    return claim


@transaction.atomic
def end_claim(
    claim_id: int, at: datetime, *, actor: Actor, reason: str = "", expected_version: int | None = None
) -> NamespaceOwner:
    """End a claim at the full hour of `at`; open hours from then on are nobody's again.

    Raises NotVisible, NotAllowed, Conflict, Invalid for a time at or before its beginning, after its end, or in a
    closed month.
    """
    claim = _locked(claim_id, actor, expected_version)
    end = clock.hour_floor(at)
    low, upper = claim.valid.lower, claim.valid.upper
    if end <= low:
        raise Invalid({"at": "The end must lie after the beginning; to undo the claim altogether, withdraw it."})
    if upper is not None and end >= upper:
        raise Invalid({"at": "The claim has ended by then."})
    if first := first_open_hour(claim.cluster_id, end, clock.hour_floor(clock.now())):
        raise Invalid({"at": f"A closed month does not change: end at {first:%Y-%m-%d %H:%M} UTC or later."})
    claim.valid = DateTimeTZRange(low, end, "[)")
    claim.pending_from = min(claim.pending_from, end) if claim.pending_from else end
    claim.bump("valid", "pending_from")
    _record(ENDED, claim, low, end, actor, reason)
    _nudge()
    return claim


@transaction.atomic
def withdraw_claim(
    claim_id: int, *, actor: Actor, reason: str = "", expected_version: int | None = None
) -> NamespaceOwner:
    """Take a claim back as if it had never been made: its hours are nobody's again.

    Raises NotVisible, NotAllowed, Conflict, Invalid where a month with its hours is closed (end it instead).
    """
    claim = _locked(claim_id, actor, expected_version)
    low = claim.valid.lower
    if first_open_hour(claim.cluster_id, low, clock.hour_floor(clock.now())):
        raise Invalid({"": "A month with hours of this claim is closed and does not change: end the claim instead."})
    upper = claim.valid.upper
    claim.valid = DateTimeTZRange(empty=True)
    claim.pending_from = low
    claim.bump("valid", "pending_from")
    _record(WITHDRAWN, claim, low, upper, actor, reason)
    _nudge()
    return claim


def _locked(claim_id: int, actor: Actor, expected_version: int | None) -> NamespaceOwner:
    claim = NamespaceOwner.objects.locked(claim_id, expected_version=expected_version)
    _require(actor, claim.team)
    if claim.valid.isempty:
        raise Conflict("This claim was withdrawn.")
    return claim


def _person(actor: Actor) -> int:
    if actor.user_id is None:
        raise NotAllowed("A person claims a namespace.", rule=PERMISSION)
    return actor.user_id


def _record(
    event: EventType, claim: NamespaceOwner, start: datetime, end: datetime | None, actor: Actor, reason: str
) -> None:
    audit.record(
        event,
        NamespaceClaimed(claim.uid, claim.cluster.uid, claim.team.uid, claim.namespace, start, end),
        actor=actor,
        subject_type="metering.namespace",
        subject_uid=claim.uid,
        reason=reason.strip(),
    )


def _nudge() -> None:
    from apps.metering.tasks import move_claimed

    nudge(move_claimed)
