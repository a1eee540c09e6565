"""Withdrawing what ended: the worker that keeps ApprovedModels in step with the grants, and says what is overdue.

CEL has no clock. A new object is compared with its creation time, so it cannot use an ended entry; an object that
exists already is only stopped from changing to another model. The worker takes ended entries out of the list, within
`WINDOW` after the end where the cluster answers; what is not taken in by then stands as a note, and is told.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F, Q

from apps.approvals.choices import RequestKind
from apps.approvals.models import Grant
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.formats import datetime_utc
from apps.deployments import enforcement
from apps.deployments import enforcement_events as events
from apps.deployments.choices import ON_CLUSTER, EnforcementMode
from apps.deployments.models import Endpoint, Enforcement, EnforcementNote, Release
from apps.provisioning.actions import apply_again
from apps.provisioning.choices import DeclarationKind, DeclarationStatus
from apps.provisioning.models import Declaration
from apps.quotas.models import Workspace
from apps.teams import scope
from apps.teams.choices import Role

#: How long after a grant's end the cluster may still list it: one turn of the worker and one apply.
WINDOW = timedelta(minutes=5)
EVERY = timedelta(minutes=1)
#: In the words of a refusal by any of the policies (admission.POLICIES).
_REFUSED = "gpu-commons-approved-"
OVERDUE, SERVING = "overdue_expiry", "serving_expired"


def due(at: datetime) -> list[int]:
    """Return the workspaces whose list may have to change: one ended, one began, or nothing was declared yet."""
    rows = Enforcement.objects.exclude(mode=EnforcementMode.OFF).filter(workspace__archived_at__isnull=True)
    ended = Q(next_expiry_at__lte=at) | Q(declared_at__isnull=True)
    begun = set(
        Grant.objects.filter(
            request__subject_type="catalogue.version", not_before__lte=at, not_before__gt=at - timedelta(days=1)
        ).values_list("pk", flat=True)
    )
    emergencies = Release.objects.filter(
        status__in=ON_CLUSTER, approval__kind=RequestKind.EMERGENCY, granted_at__gt=at - timedelta(days=1)
    )
    fresh = Q(workspace_id__in=emergencies.values("endpoint__workspace_id"))
    if begun:
        fresh |= Q(workspace__uid__in=_named(begun))
    # What serves on without a grant is listed until it leaves the cluster, which no grant tells.
    fresh |= Q(entries__contains=[{"serving": True}])
    return list(rows.filter(ended | fresh).order_by("pk").values_list("workspace_id", flat=True))


def _named(grants: Iterable[int]) -> set[str]:
    scopes = Grant.objects.filter(pk__in=list(grants)).values_list("scope", flat=True)
    return {str(uid) for scope in scopes for uid in scope.get("workspaces", [])}


def withdraw() -> int:
    """Declare every list that is due; returns how many changed."""
    actor = Actor.system("deployments.enforcement")
    return sum(enforcement.refresh(workspace_id, actor=actor) for workspace_id in due(clock.now()))


def resume_refused() -> int:
    """Apply releases again that the cluster refused before it had taken in the list that covers them.

    Both are declared at the same time, and neither waits for the other. Each change of the list is one try.
    """
    stopped = Declaration.objects.filter(
        kind=DeclarationKind.RELEASE, status=DeclarationStatus.STOPPED, last_error__contains=_REFUSED
    )
    resumed = 0
    for declaration_id, owner, at in stopped.order_by("pk").values_list("pk", "owner_uid", "updated_at"):
        endpoint = Endpoint.objects.filter(uid=owner).select_related("workspace").first()
        if endpoint is None:
            continue
        taken_in = Declaration.objects.filter(
            kind=DeclarationKind.ENFORCEMENT, owner_uid=endpoint.workspace.uid, applied_at__gt=at,
            generation=F("observed_generation"),
        )  # fmt: skip
        if taken_in.exists():
            with transaction.atomic():
                apply_again(Declaration.objects.locked(declaration_id))
            resumed += 1
    return resumed


def look() -> int:
    """Note what is overdue and clear what is no longer; returns how many notes began or ended."""
    now = clock.now()
    moved = 0
    rows = Enforcement.objects.exclude(mode=EnforcementMode.OFF).select_related("workspace__team", "workspace__cluster")
    for row in rows.order_by("pk"):
        moved += _settle(row.workspace, [*_unapplied(row, now), *_still_serving(row, now)], now)
    return moved


def _unapplied(row: Enforcement, now: datetime) -> list[tuple[str, str, str]]:
    """Return entries that ended longer than the window ago and that the cluster still lists."""
    if row.declared_at is None:
        return []
    declaration = Declaration.objects.filter(
        kind=DeclarationKind.ENFORCEMENT, owner_uid=row.workspace.uid, generation__gt=F("observed_generation")
    ).first()
    waiting = declaration is not None and declaration.declared_at is not None
    late = waiting and declaration is not None and (declaration.declared_at or now) + WINDOW <= now
    missed = row.next_expiry_at is not None and row.next_expiry_at + WINDOW <= now
    if not late and not missed:
        return []
    since = declaration.declared_at if late and declaration is not None else row.next_expiry_at
    return [(
        OVERDUE, f"ApprovedModels {row.workspace.namespace}/gpu-commons",
        f"The list of what is approved was to change on {datetime_utc(since)}; the cluster has not taken it in.",
    )]  # fmt: skip


def _still_serving(row: Enforcement, now: datetime) -> list[tuple[str, str, str]]:
    """Return releases on the cluster that no usable grant covers any more: they serve on, and nothing new begins."""
    covered = {str(entry["manifest"]) for entry in row.entries if not entry.get("release")}
    releases = Release.objects.filter(endpoint__workspace=row.workspace, status__in=ON_CLUSTER)
    return [
        (
            SERVING, f"Endpoint {release.endpoint.name}, release {release.number}",
            f"{release.model_version} still serves, though no usable approval covers it. Its pods are replaced where"
            " they fail; the cluster refuses whatever would begin anew.",
        )
        for release in releases.select_related("endpoint", "model_version__model").order_by("pk")
        if release.version_digest not in covered
    ]  # fmt: skip


@transaction.atomic
def _settle(workspace: Workspace, found: list[tuple[str, str, str]], now: datetime) -> int:
    Enforcement.objects.select_for_update(no_key=True).get(workspace=workspace)
    open_notes = {
        (note.kind, note.object): note
        for note in EnforcementNote.objects.filter(
            workspace=workspace, gone_at__isnull=True, kind__in=(OVERDUE, SERVING)
        )
    }
    moved = 0
    for kind, name, detail in found:
        if open_notes.pop((kind, name), None) is None:
            EnforcementNote.objects.create(
                workspace=workspace, kind=kind, object=name[:300], detail=detail[:500], found_at=now
            )
            _tell(workspace, f"{name}: {detail}")
            moved += 1
    for note in open_notes.values():
        note.gone_at = now
        note.save(update_fields=["gone_at"])
        moved += 1
    return moved


def _tell(workspace: Workspace, what: str) -> None:
    leads = scope.holders_of_role(Role.TEAM_LEAD, team_id=workspace.team_id)
    payload = events.ExpiryOverdue(workspace.uid, workspace.namespace, workspace.cluster.slug, what)
    outbox.publish(events.EXPIRY_OVERDUE, payload, recipients=leads, subject_uid=workspace.uid)
