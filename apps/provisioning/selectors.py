"""What pages and other rooms ask: is it applied, since when, why not yet; what lives there, how old is the figure."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from django.db.models import Count, Exists, F, Max, Min, OuterRef, Q, Subquery

from apps.clusters.choices import Health
from apps.clusters.models import Cluster, MaintenanceWindow
from apps.clusters.quantities import parse
from apps.clusters.selectors import maintenance_of
from apps.core import clock, formats
from apps.provisioning.choices import DeclarationStatus, RunOutcome
from apps.provisioning.models import ApplyRun, Declaration, Drift, Observation, Plan, WatchCursor
from apps.provisioning.querysets import ApplyRunQuerySet, DeclarationQuerySet


class QuotaStatus(NamedTuple):
    """Resource → (hard, used) of a namespace's ResourceQuotas, and how old these figures are at most."""

    resources: dict[str, tuple[Decimal, Decimal]]
    observed_at: datetime | None


def declaration_of(kind: str, owner_uid: uuid.UUID, cluster_id: int) -> Declaration | None:
    """Return what an owner declared on a cluster, None where nothing yet."""
    return Declaration.objects.filter(kind=kind, owner_uid=owner_uid, cluster_id=cluster_id).first()


def runs_for(declaration: Declaration) -> ApplyRunQuerySet:
    """Return the attempts of a declaration, newest first."""
    runs: ApplyRunQuerySet = ApplyRun.objects.filter(declaration=declaration).order_by("-started_at", "-pk")
    return runs


def quota_status(cluster_id: int, namespace: str) -> QuotaStatus:
    """Return what the cluster last told about a namespace's quotas (several: the tightest hard, the highest used)."""
    return quota_statuses([(cluster_id, namespace)])[(cluster_id, namespace)]


def quota_statuses(places: Iterable[tuple[int, str]]) -> dict[tuple[int, str], QuotaStatus]:
    """Return `quota_status` of many (cluster id, namespace) places, in one query."""
    wanted = set(places)
    rows = Observation.objects.filter(
        kind="ResourceQuota", missing=False, cluster_id__in={c for c, _ in wanted}, namespace__in={n for _, n in wanted}
    ).exclude(status__has_key="scoped")
    rows = rows.annotate(vouched=vouched())
    resources: dict[tuple[int, str], dict[str, tuple[Decimal, Decimal]]] = {place: {} for place in wanted}
    seen: dict[tuple[int, str], datetime] = {}
    for row in rows:
        place = (row.cluster_id, row.namespace)
        if place not in wanted:
            continue
        at = current_at(row)
        seen[place] = min(seen.get(place, at), at)
        for resource, (hard, used) in _pairs(row.status).items():
            before = resources[place].get(resource)
            resources[place][resource] = (
                (hard, used) if before is None else (min(before[0], hard), max(before[1], used))
            )
    return {place: QuotaStatus(resources[place], seen.get(place)) for place in wanted}


def vouched() -> Subquery:
    """Return, for observations, until when a watch has vouched for what it has not reported changed."""
    cursors = WatchCursor.objects.filter(cluster_id=OuterRef("cluster_id"), kind=OuterRef("kind"))
    return Subquery(cursors.values("seen_at")[:1])


def current_at(row: Observation) -> datetime:
    """Return how current an observation is that was read with `vouched`."""
    seen: datetime | None = getattr(row, "vouched", None)
    return max(row.observed_at, seen) if seen is not None else row.observed_at


def _pairs(status: dict[str, Any]) -> dict[str, tuple[Decimal, Decimal]]:
    pairs: dict[str, tuple[Decimal, Decimal]] = {}
    used = status.get("used") or {}
    for resource, hard in (status.get("hard") or {}).items():
        try:
            pairs[resource] = (parse(hard), parse(used.get(resource, "0")))
        except ValueError:
            continue  # a quantity that is none: the page shows nothing rather than something wrong
    return pairs


@dataclass(frozen=True, slots=True)
class Standing:
    """How a declaration stands: `state` is applied, applying, waiting, failing or stopped, and why.

    `drift`, of what is applied and was read with `drift_flags`: "open" where something lives differently by now, "left"
    where people decided to leave all of that until a date, "" where it lives as declared.
    """

    declaration: Declaration
    state: str
    since: datetime | None
    why: str
    retry_at: datetime | None
    run: ApplyRun | None = None
    drift: str = ""

    @property
    def badge(self) -> tuple[str, str]:
        """The status and the words for it on a badge."""
        if self.state == "applied":
            return APPLIED_BADGES[self.drift]
        return {"stopped": ("stopped", "Needs a person"), "failing": ("retrying", "Failing, is retried")}.get(
            self.state, (self.state, "")
        )


#: What is applied, by what became of it since.
APPLIED_BADGES = {
    "": ("applied", "Applied"), "open": ("drifted", "Applied, drifted"), "left": ("drifted", "Applied, drift left"),
}  # fmt: skip


def drift_flags() -> dict[str, Exists]:
    """Return annotations of declarations: whether they drifted, and whether only so that it is left until a date.

    What was left until a date that has passed counts as left until the sweep opens it again, which takes minutes.
    """
    found = Drift.objects.filter(declaration=OuterRef("pk"), resolved_at__isnull=True)
    return {"drifted_open": Exists(found.filter(ignored_until__isnull=True)), "drifted": Exists(found)}


def drift_of(declaration: Declaration) -> str:
    """Return "open", "left" or "" for a declaration that was read with `drift_flags`; "" where it was not."""
    if getattr(declaration, "drifted_open", False):
        return "open"
    return "left" if getattr(declaration, "drifted", False) else ""


def standing(
    declaration: Declaration,
    run: ApplyRun | None = None,
    *,
    maintenance: Mapping[int, MaintenanceWindow] | None = None,
) -> Standing:
    """Say whether a declaration is applied, since when, and if not, why not yet.

    `run`: the attempt under way; a declaration that was read with `running_since` needs none.

    `maintenance`: cluster id → the window it is in; None: looked up, one query.
    """
    cluster = declaration.cluster
    if declaration.status == DeclarationStatus.STOPPED:
        return Standing(declaration, "stopped", declaration.failing_since, declaration.last_error, None, run)
    if declaration.observed_generation == declaration.generation:
        return Standing(declaration, "applied", declaration.applied_at, "", None, run, drift_of(declaration))
    since = declaration.declared_at
    if cluster.paused_at is not None:
        return Standing(declaration, "waiting", since, f"{cluster} is paused: {cluster.pause_reason}", None, run)
    if maintenance is None:
        maintenance = maintenance_of([declaration.cluster_id])
    if (window := maintenance.get(declaration.cluster_id)) is not None:
        end = window.valid.upper
        why = f"maintenance of {cluster} until {formats.datetime_utc(end)}: {window.reason}"
        return Standing(declaration, "waiting", since, why, end, run)
    if cluster.health in (Health.UNREACHABLE, Health.REFUSED):
        said = "does not answer" if cluster.health == Health.UNREACHABLE else "refuses the portal's credentials"
        return Standing(declaration, "waiting", since, f"{cluster} {said}: {cluster.last_error}", cluster.retry_at, run)
    if declaration.failing_since is not None:
        return Standing(declaration, "failing", since, declaration.last_error, declaration.retry_at, run)
    if cluster.retry_at is not None and cluster.retry_at > clock.now():
        return Standing(declaration, "waiting", since, f"{cluster} asked for a pause", cluster.retry_at, run)
    started: datetime | None = run.started_at if run is not None else getattr(declaration, "running_since", None)
    if started is not None:
        return Standing(declaration, "applying", started, "", None, run)
    return Standing(declaration, "waiting", since, "waits for its turn on the cluster", None, run)


def running_since() -> Subquery:
    """Return, for declarations, since when an attempt is under way."""
    runs = ApplyRun.objects.filter(declaration=OuterRef("pk"), outcome=RunOutcome.RUNNING)
    return Subquery(runs.order_by("-started_at", "-pk").values("started_at")[:1])


def unapplied(
    rows: DeclarationQuerySet, *, limit: int = 20, maintenance: Mapping[int, MaintenanceWindow] | None = None
) -> list[Standing]:
    """Return how the declarations among `rows` stand that are not applied or need a person, oldest first."""
    waiting = list(
        rows.filter(generation__gt=F("observed_generation"))
        .select_related("cluster", "team")
        .annotate(running_since=running_since())
        .order_by("declared_at", "pk")[:limit]
    )
    if not waiting:
        return []
    windows = maintenance if maintenance is not None else maintenance_of({one.cluster_id for one in waiting})
    return [standing(declaration, maintenance=windows) for declaration in waiting]


def drift_in_plans(plans: Iterable[Plan]) -> list[Drift]:
    """Return the drift that keeps plans from being approved: of objects in which they meet others' fields.

    An object is applied whole, so somebody else's value of any declared field is a conflict of every plan for it, also
    where people decided to leave it as it lives. At most one query, none where no plan meets any.
    """
    places: dict[tuple[int, str, str, str], set[str]] = {}
    for plan in plans:
        for entry in plan.entries if plan.closed_at is None else []:
            if entry.get("conflicts"):
                place = (plan.cluster_id, entry["kind"], entry["namespace"], entry["name"])
                places.setdefault(place, set()).update(_letters(one["field"]) for one in entry["conflicts"])
    if not places:
        return []
    rows = Drift.objects.filter(
        resolved_at__isnull=True,
        declaration__cluster__in={place[0] for place in places},
        namespace__in={place[2] for place in places},
        name__in={place[3] for place in places},
    )
    found = rows.select_related("declaration").order_by("declaration_id", "kind", "name", "field", "pk")
    drifts: list[Drift] = []
    for place, fields in places.items():
        here = [row for row in found if (row.declaration.cluster_id, row.kind, row.namespace, row.name) == place]
        # What a change takes over is no conflict any more: only the fields that are one count, where they can be told.
        drifts += [row for row in here if _letters(row.field) in fields] or here
    return drifts


def _letters(path: str) -> str:
    """Return a field path so that the server's way of writing it equals ours."""
    return re.sub(r"[^A-Za-z0-9]", "", path)


def drift_context(plans: Iterable[Plan]) -> dict[str, Any]:
    """Return what `provisioning/drift_in_plan.html` needs, on pages of plans and of what they are for."""
    drifts = drift_in_plans(plans)
    return {"drifts": drifts, "drifts_left": any(row.ignored_until is not None for row in drifts)}


@dataclass(frozen=True, slots=True)
class Ages:
    """How current the portal's view of a cluster is."""

    observed_at: datetime | None
    waiting_since: datetime | None
    waiting: int
    last_applied_at: datetime | None
    drifted: int
    total: int


def ages(cluster: Cluster) -> Ages:
    """Return when a cluster was last observed, since when the oldest unapplied declaration waits, the last apply.

    One query.
    """
    behind = Q(generation__gt=F("observed_generation"))
    open_drift = Drift.objects.open().filter(declaration=OuterRef("pk"))
    seen = WatchCursor.objects.filter(cluster=cluster)
    newest = seen.order_by("-seen_at").values("seen_at")[:1]
    found = Declaration.objects.filter(cluster=cluster).aggregate(
        since=Min("declared_at", filter=behind),
        waiting=Count("pk", filter=behind),
        applied=Max("applied_at"),
        drifted=Count("pk", filter=Exists(open_drift)),
        total=Count("pk"),
        seen=Max(Subquery(newest)),
    )
    if not found["total"]:
        found["seen"] = seen.aggregate(at=Max("seen_at"))["at"]  # where nothing is declared there is no row to ask with
    return Ages(found["seen"], found["since"], found["waiting"], found["applied"], found["drifted"], found["total"])
