"""Switching the guard of a cluster: an admin decides the mode; the baseline that carries it is approved as any other.

Deny comes after a day of audit, so that whoever works on these objects is known before being refused; an explicit
confirmation shortens that.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from django.conf import settings
from django.db import transaction
from django.db.models import OuterRef, Subquery

from apps import audit
from apps.clusters import capabilities
from apps.clusters.access import require
from apps.clusters.choices import GuardMode
from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid
from apps.provisioning.models import Declaration
from apps.quotas import baseline, guard_events, kueue_state
from apps.quotas.guard_policy import NAME, guard_manifests
from apps.quotas.manifests import Manifest

MANAGE = "clusters.cluster.manage"


def audit_time() -> timedelta:
    """Return how long the guard has to have noted before it may refuse."""
    return timedelta(hours=settings.COMMONS_GUARD_AUDIT_HOURS)


def contribution(cluster: Cluster) -> Sequence[Manifest]:
    """Return the guard's objects for a cluster's baseline. Raises Invalid where the portal's name there is unknown."""
    try:
        return guard_manifests(cluster.guard_mode, capabilities.of(cluster).username, baseline.labels())
    except ValueError as error:
        raise Invalid({"": f"The guard cannot be rendered: {error}."}) from error


@dataclass(frozen=True, slots=True)
class GuardState:
    """The guard as decided and as it lives: `live` is the mode that the applied baseline carries."""

    decided: GuardMode
    live: GuardMode
    live_since: datetime | None
    missing: str | None

    @property
    def deny_from(self) -> datetime | None:
        """From when on it may deny without further confirmation; None where it does not note yet."""
        if self.live == GuardMode.OFF or self.live_since is None:
            return None
        return self.live_since + audit_time()


def state_of(cluster: Cluster, declaration: Declaration | Literal[False] | None = False) -> GuardState:
    """Return how the guard of a cluster stands. `declaration`: its baseline's, where a page has read it already."""
    if declaration is False:
        declaration = kueue_state.baseline_of(cluster)
    live, since = GuardMode.OFF, None
    if declaration is not None and declaration.observed_generation:
        live, since = _applied(declaration)
    return GuardState(GuardMode(cluster.guard_mode), live, since, capabilities.missing(cluster, "guard"))


def _applied(declaration: Declaration) -> tuple[GuardMode, datetime | None]:
    mode, since = GuardMode.OFF, None
    runs = declaration.runs.filter(outcome="succeeded", finished_at__isnull=False, generation=OuterRef("generation"))
    first = Subquery(runs.order_by("pk").values("finished_at")[:1])
    revisions = declaration.revisions.annotate(first=first).filter(first__isnull=False).order_by("-generation")
    for manifest, finished in revisions.values_list("manifest", "first")[:200].iterator(chunk_size=5):
        found = _mode_in(json.loads(bytes(manifest)))
        if since is not None and found != mode:
            break
        mode, since = found, finished
    return mode, since if mode != GuardMode.OFF else None


def _mode_in(manifests: Sequence[dict[str, Any]]) -> GuardMode:
    for manifest in manifests:
        if manifest["kind"] == "ValidatingAdmissionPolicyBinding" and manifest["metadata"]["name"] == NAME:
            return GuardMode.DENY if "Deny" in manifest["spec"]["validationActions"] else GuardMode.AUDIT
    return GuardMode.OFF


@transaction.atomic
def set_guard_mode(
    cluster_id: int,
    mode: str,
    reason: str,
    *,
    actor: Actor,
    confirmed: bool = False,
    expected_version: int | None = None,
) -> Cluster:
    """Decide what the guard of a cluster does; the next approved baseline carries it there.

    Raises NotVisible, NotAllowed, Invalid (no such mode, not offered there, no reason, deny too early and not
    `confirmed`), Conflict (it is decided like this already, a stale form).
    """
    cluster = Cluster.objects.locked(cluster_id, expected_version=expected_version)
    require(actor, MANAGE, cluster)
    if mode not in GuardMode.values:
        raise Invalid({"mode": "Choose off, audit or deny."})
    if len(reason.strip()) < 5:
        raise Invalid({"reason": "Say in a few words why: it is kept in the audit trail."})
    if cluster.guard_mode == mode:
        raise Conflict(f"The guard is decided as {GuardMode(mode).label.lower()} already.")
    if mode != GuardMode.OFF and (why := capabilities.missing(cluster, "guard")):
        raise Invalid({"mode": why})
    if mode != GuardMode.OFF and not capabilities.of(cluster).username:
        raise Invalid({"mode": "It is not known whom the cluster takes the portal for. Check the cluster first."})
    if mode == GuardMode.DENY and not confirmed:
        from_when = state_of(cluster).deny_from
        if from_when is None or from_when > clock.now():
            hours = round(audit_time().total_seconds() / 3600)
            raise Invalid(
                {"mode": f"Let it note for {hours} hours first and read the cluster's audit log, or confirm that nobody"
                 " else works on these objects."}
            )  # fmt: skip
    before, cluster.guard_mode = cluster.guard_mode, mode
    cluster.bump("guard_mode")
    audit.record(
        guard_events.GUARD_DECIDED,
        guard_events.GuardDecided(cluster.slug, str(before), mode, confirmed),
        actor=actor,
        subject_type="clusters.cluster",
        subject_uid=cluster.uid,
        reason=reason.strip(),
    )
    return cluster
