"""Flavours, pools and their dated committable capacity."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import IntegrityError, transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps import audit
from apps.clusters import events
from apps.clusters.access import require
from apps.clusters.choices import PoolKind, Sharing
from apps.clusters.models import Cluster, Flavour, Node, Pool, PoolCapacity
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Invalid, NotVisible

MANAGE = "clusters.pool.manage"
#: A date this little in the past is "now": people fill in forms slowly.
_GRACE = timedelta(minutes=5)
_RESOURCE = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_NATIVE = frozenset({"cpu", "memory"})
#: The most GPUs one number may name; more is a typing mistake.
MOST_GPUS = 1_000_000


@transaction.atomic
def create_flavour(
    name: str,
    *,
    actor: Actor,
    slug: str,
    gpu_model: str,
    resource_name: str = "nvidia.com/gpu",
    sharing: str = Sharing.EXCLUSIVE,
    numerator: int = 1,
    denominator: int = 1,
    memory_mib: int = 0,
    node_labels: Mapping[str, Any] | None = None,
    tolerations: Sequence[Any] = (),
) -> Flavour:
    """Create a flavour; one unit of it holds numerator/denominator of a physical device. Raises Invalid, NotAllowed."""
    require(actor, MANAGE)
    labels = dict(node_labels or {})
    errors: dict[str, str] = {}
    if not name.strip():
        errors["name"] = "Give the flavour a name."
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?", slug):
        errors["slug"] = "Use up to 40 lower-case letters, digits and hyphens."
    if not gpu_model.strip():
        errors["gpu_model"] = "Name the model as the nodes' label nvidia.com/gpu.product has it."
    if resource_name not in _NATIVE and not _RESOURCE.fullmatch(resource_name):
        errors["resource_name"] = "A resource is called like nvidia.com/gpu or nvidia.com/mig-1g.10gb."
    if resource_name.startswith(("requests.", "limits.")):
        errors["resource_name"] = "Name the resource itself; the quota key is made from it."
    if sharing not in Sharing.values:
        errors["sharing"] = "Choose how it shares a GPU."
    if numerator < 1 or denominator < 1 or numerator > denominator:
        errors["numerator"] = "The share of a device is a fraction up to 1, such as 1/7."
    elif sharing == Sharing.EXCLUSIVE and numerator != denominator:
        errors["numerator"] = "An exclusive flavour holds the whole device: 1/1."
    if memory_mib < 0:
        errors["memory_mib"] = "Memory cannot be negative."
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key) or not isinstance(value, str) or not _LABEL_VALUE.fullmatch(value):
            errors["node_labels"] = f"{key}={value} is no node label."
    for toleration in tolerations:
        if not isinstance(toleration, Mapping) or not set(toleration) <= {"key", "operator", "value", "effect"}:
            errors["tolerations"] = "A toleration has key, operator, value and effect."
        elif toleration.get("operator", "Equal") not in ("Equal", "Exists"):
            errors["tolerations"] = "The operator of a toleration is Equal or Exists."
    if errors:
        raise Invalid(errors)
    flavour = Flavour(
        name=name.strip(), slug=slug, gpu_model=gpu_model.strip(), resource_name=resource_name, sharing=sharing,
        numerator=numerator, denominator=denominator, memory_mib=memory_mib, node_labels=labels,
        tolerations=[dict(t) for t in tolerations],
    )  # fmt: skip
    try:
        with transaction.atomic():
            flavour.save(force_insert=True)
    except IntegrityError as error:
        raise Invalid({"slug": f"There is a flavour {slug} already."}) from error
    payload = events.FlavourCreated(slug, resource_name, flavour.gpu_model, str(sharing), numerator, denominator)
    audit.record(events.FLAVOUR_CREATED, payload, actor=actor, subject_type="clusters.flavour", subject_uid=flavour.uid)
    return flavour


@transaction.atomic
def create_pool(
    cluster_id: int,
    gpu_model: str,
    *,
    actor: Actor,
    flavour_ids: Sequence[int],
    kind: str = PoolKind.FIXED,
    commit_factor: Decimal = Decimal("1.00"),
    best_effort: bool = False,
) -> Pool:
    """Create the pool of one GPU model on a cluster, with the flavours offered from it. Raises Invalid, NotAllowed."""
    require(actor, MANAGE)
    cluster = Cluster.objects.filter(pk=cluster_id).first()
    if cluster is None:
        raise NotVisible
    flavours = list(Flavour.objects.filter(pk__in=flavour_ids).order_by("slug"))
    errors: dict[str, str] = {}
    if not gpu_model.strip():
        errors["gpu_model"] = "Name the GPU model."
    if not flavours or len(flavours) != len(set(flavour_ids)):
        errors["flavours"] = "Choose at least one flavour that is offered from this pool."
    elif foreign := [flavour.name for flavour in flavours if flavour.gpu_model != gpu_model.strip()]:
        errors["flavours"] = f"{', '.join(foreign)}: of another GPU model than the pool."
    if kind not in PoolKind.values:
        errors["kind"] = "Choose where the capacity comes from."
    if not Decimal("0") < commit_factor <= Decimal("10"):
        errors["commit_factor"] = "The factor lies above 0 and at most at 10; 1 promises what is there."
    if errors:
        raise Invalid(errors)
    pool = Pool(
        cluster=cluster, gpu_model=gpu_model.strip(), kind=kind, commit_factor=commit_factor, best_effort=best_effort
    )
    try:
        with transaction.atomic():
            pool.save(force_insert=True)
    except IntegrityError as error:
        raise Invalid({"gpu_model": f"{cluster} has a pool of {gpu_model} already."}) from error
    pool.flavours.set(flavours)
    refresh_observed(cluster.pk)
    payload = events.PoolCreated(cluster.slug, pool.gpu_model, str(kind), [flavour.slug for flavour in flavours])
    audit.record(events.POOL_CREATED, payload, actor=actor, subject_type="clusters.pool", subject_uid=pool.uid)
    pool.refresh_from_db()
    return pool


@transaction.atomic
def set_committable(
    pool_id: int,
    gpus: int,
    valid_from: datetime,
    *,
    actor: Actor,
    valid_until: datetime | None = None,
    reason: str = "",
    expected_version: int | None = None,
    imported: bool = False,
) -> PoolCapacity:
    """Set how many GPUs may be promised from `valid_from` on: until the next planned step, or until `valid_until`.

    With an end, what was in force at that end resumes. A number lower than what is promised is taken: capacity that
    is lost is a fact, and what no longer fits becomes a finding. `imported` (history, by the portal itself) may lie
    in the past. Raises Invalid, NotAllowed, NotVisible, Conflict.
    """
    pool = Pool.objects.locked(pool_id, expected_version=expected_version)
    require(actor, MANAGE, pool)
    now = clock.now()
    if not 0 <= gpus <= MOST_GPUS:
        raise Invalid({"gpus": f"A number of GPUs from 0 to {MOST_GPUS:,}."})
    if valid_until is not None and valid_until <= valid_from:
        raise Invalid({"valid_until": "The end must lie after the start."})
    if not (imported and actor.is_system) and valid_from < now - _GRACE:
        raise Invalid({"valid_from": "The start lies in the past. Choose now or a later time."})
    rows = list(PoolCapacity.objects.select_for_update().filter(pool=pool).order_by("valid"))
    end = valid_until or min(
        (row.valid.lower for row in rows if row.valid.lower is not None and row.valid.lower > valid_from), default=None
    )
    made = _overlay(pool, rows, gpus, valid_from, end, reason.strip()[:300])
    pool.bump()
    payload = events.CapacitySet(pool.cluster.slug, pool.gpu_model, gpus, valid_from, end, made.reason)
    audit.record(events.CAPACITY_SET, payload, actor=actor, subject_type="clusters.pool", subject_uid=pool.uid)
    return made


def _overlay(
    pool: Pool, rows: list[PoolCapacity], gpus: int, start: datetime, end: datetime | None, reason: str
) -> PoolCapacity:
    """Lay one step over the existing ones; what it covers gives way, what sticks out before and after stays."""
    after: list[tuple[PoolCapacity, datetime | None]] = []
    for row in rows:
        lower, upper = row.valid.lower, row.valid.upper
        if (upper is not None and upper <= start) or (end is not None and lower is not None and lower >= end):
            continue
        if end is not None and (upper is None or upper > end):
            after.append((row, upper))
        if lower is None or lower < start:
            PoolCapacity.objects.filter(pk=row.pk).update(valid=DateTimeTZRange(lower, start, "[)"))
        else:
            row.delete()
    made = PoolCapacity.objects.create(
        pool=pool, committable_gpus=gpus, valid=DateTimeTZRange(start, end, "[)"), reason=reason
    )
    for row, upper in after:
        PoolCapacity.objects.create(
            pool=pool, committable_gpus=row.committable_gpus, valid=DateTimeTZRange(end, upper, "[)"), reason=row.reason
        )
    return made


def physical_reach(pool: Pool, at: datetime | None = None) -> int:
    """Return how many whole devices of a pool can physically be there: what an unlimited borrow renders.

    Elastic pools reach to what they can grow to (or to what is there, should that be more); the others to what was
    observed, and where nothing was observed yet to what may be promised at `at` (default: now).
    """
    if pool.kind == PoolKind.ELASTIC and pool.max_gpus is not None:
        return max(pool.max_gpus, pool.observed_gpus or 0)
    if pool.observed_gpus is not None:
        return pool.observed_gpus
    row = PoolCapacity.objects.filter(pool_id=pool.pk, valid__contains=at or clock.now()).first()
    return row.committable_gpus if row is not None else 0


def refresh_observed(cluster_id: int) -> None:
    """Write down per pool of a cluster how many physical GPUs of its model the nodes carry, as last observed."""
    physical: dict[str, int] = {}
    observed_at: datetime | None = None
    for model, gpus, at in Node.objects.filter(cluster_id=cluster_id).values_list(
        "gpu_model", "physical_gpus", "observed_at"
    ):
        physical[model] = physical.get(model, 0) + gpus
        observed_at = at if observed_at is None else min(observed_at, at)
    if observed_at is None:
        return
    for pk, model in Pool.objects.filter(cluster_id=cluster_id).values_list("pk", "gpu_model"):
        Pool.objects.filter(pk=pk).update(observed_gpus=physical.get(model, 0), observed_at=observed_at)
