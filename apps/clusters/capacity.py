"""Flavours, pools and their dated committable capacity."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import IntegrityError, transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps import audit
from apps.clusters import events
from apps.clusters.access import require
from apps.clusters.choices import DeviceClass, PoolKind, Sharing
from apps.clusters.models import Cluster, Flavour, Pool, PoolCapacity
from apps.clusters.pool_inventory import observe_pools
from apps.clusters.pool_ports import PoolSettings, objections
from apps.clusters.pool_rules import MOST_GPUS, check_settings, refuse_clashes
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


@transaction.atomic
def create_flavour(
    name: str,
    *,
    actor: Actor,
    slug: str,
    gpu_model: str,
    resource_name: str = "nvidia.com/gpu",
    sharing: str = Sharing.EXCLUSIVE,
    device_class: str = DeviceClass.GPU,
    numerator: int = 1,
    denominator: int = 1,
    memory_mib: int = 0,
    node_labels: Mapping[str, Any] | None = None,
    tolerations: Sequence[Any] = (),
) -> Flavour:
    """Create a flavour; one unit of it holds numerator/denominator of a physical device, or is a core of a CPU class
    (`gpu_model` then names the class). Raises Invalid, NotAllowed."""
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
    if device_class not in DeviceClass.values:
        errors["device_class"] = "Choose what is counted: GPUs or cores."
    elif device_class == DeviceClass.CPU:
        errors |= _cpu_errors(resource_name, sharing, labels)
    elif resource_name in _NATIVE:
        errors["resource_name"] = f"{resource_name} is no GPU resource. A class of CPU nodes is counted in cores."
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
        device_class=device_class, numerator=numerator, denominator=denominator, memory_mib=memory_mib,
        node_labels=labels, tolerations=[dict(t) for t in tolerations],
    )  # fmt: skip
    try:
        with transaction.atomic():
            flavour.save(force_insert=True)
    except IntegrityError as error:
        raise Invalid({"slug": f"There is a flavour {slug} already."}) from error
    payload = events.FlavourCreated(slug, resource_name, flavour.gpu_model, str(sharing), numerator, denominator)
    audit.record(events.FLAVOUR_CREATED, payload, actor=actor, subject_type="clusters.flavour", subject_uid=flavour.uid)
    return flavour


def _cpu_errors(resource_name: str, sharing: str, labels: Mapping[str, Any]) -> dict[str, str]:
    """Return what is wrong with a CPU class, by field."""
    errors = {}
    if resource_name != "cpu":
        errors["resource_name"] = "A CPU class is counted in cores: its resource is called cpu."
    if sharing != Sharing.EXCLUSIVE:
        errors["sharing"] = "Cores are not shared: choose exclusive."
    if not labels:
        errors["node_labels"] = "Say which nodes the class is made of, such as node.kubernetes.io/instance-type=m7i."
    return errors


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
    open_names: bool = False,
    max_gpus: int | None = None,
    startup_minutes: int = 0,
    reserved_until: datetime | None = None,
) -> Pool:
    """Create the pool of one GPU model (or CPU class) on a cluster, with the flavours offered from it.

    Raises Invalid, NotAllowed; Invalid on `flavours`, too, where the cluster could not tell them from what it offers.
    """
    require(actor, MANAGE)
    cluster = Cluster.objects.select_for_update(of=("self",)).filter(pk=cluster_id).first()
    if cluster is None:
        raise NotVisible
    flavours = list(Flavour.objects.filter(pk__in=flavour_ids).order_by("slug"))
    pool = Pool(
        cluster=cluster, gpu_model=gpu_model.strip(), kind=kind, commit_factor=commit_factor, best_effort=best_effort,
        open_names=open_names, max_gpus=max_gpus, startup_minutes=startup_minutes, reserved_until=reserved_until,
        device_class=flavours[0].device_class if flavours else DeviceClass.GPU,
    )  # fmt: skip
    errors: dict[str, str] = {}
    if not gpu_model.strip():
        errors["gpu_model"] = "Name the GPU model."
    if not flavours or len(flavours) != len(set(flavour_ids)):
        errors["flavours"] = "Choose at least one flavour that is offered from this pool."
    elif foreign := [flavour.name for flavour in flavours if flavour.gpu_model != pool.gpu_model]:
        errors["flavours"] = f"{', '.join(foreign)}: of another GPU model than the pool."
    elif len({flavour.device_class for flavour in flavours}) > 1:
        errors["flavours"] = "A pool counts either GPUs or cores, not both."
    errors |= check_settings(pool, settings_of(pool), clock.now())
    if Pool.objects.filter(cluster=cluster, gpu_model=pool.gpu_model).exists():
        errors["gpu_model"] = f"{cluster} has a pool of {gpu_model} already."
    if errors:
        raise Invalid(errors)
    refuse_clashes(cluster, pool.gpu_model, flavours)
    pool.save(force_insert=True)
    pool.flavours.set(flavours)
    refresh_observed(cluster.pk)
    payload = events.PoolCreated(cluster.slug, pool.gpu_model, str(kind), [flavour.slug for flavour in flavours])
    audit.record(events.POOL_CREATED, payload, actor=actor, subject_type="clusters.pool", subject_uid=pool.uid)
    pool.refresh_from_db()
    return pool


def settings_of(pool: Pool) -> PoolSettings:
    """Return what an admin may change of a pool, as it stands."""
    return PoolSettings(
        kind=pool.kind, commit_factor=pool.commit_factor, best_effort=pool.best_effort, open_names=pool.open_names,
        max_gpus=pool.max_gpus, startup_minutes=pool.startup_minutes, reserved_until=pool.reserved_until,
    )  # fmt: skip


@transaction.atomic
def edit_pool(
    pool_id: int,
    *,
    actor: Actor,
    flavour_ids: Sequence[int] | None = None,
    expected_version: int | None = None,
    **changes: Any,
) -> Pool:
    """Change a pool's settings (fields of PoolSettings), and offer further flavours from it; what it offers stays.

    Raises Invalid, NotAllowed, NotVisible, Conflict. Rooms above may object (`pool_ports.register_pool_check`).
    """
    pool = Pool.objects.locked(pool_id, expected_version=expected_version)
    require(actor, MANAGE, pool)
    before = settings_of(pool)
    wanted = replace(before, **changes)
    errors = check_settings(pool, wanted, clock.now()) or objections(pool, wanted)
    offered = list(pool.flavours.order_by("slug"))
    added = [
        flavour
        for flavour in Flavour.objects.filter(pk__in=flavour_ids or ()).order_by("slug")
        if flavour not in offered
    ]
    for flavour in added:
        if (flavour.gpu_model, flavour.device_class) != (pool.gpu_model, pool.device_class):
            errors["flavours"] = f"{flavour} is not of {pool.gpu_model}."
    if errors:
        raise Invalid(errors)
    if wanted == before and not added:
        return pool
    if added:
        refuse_clashes(pool.cluster, pool.gpu_model, [*offered, *added], pool)
        pool.flavours.add(*added)
    for name, value in asdict(wanted).items():
        setattr(pool, name, value)
    pool.bump(*asdict(wanted))
    refresh_observed(pool.cluster_id)
    payload = events.PoolChanged(
        pool.cluster.slug, pool.gpu_model, _told(before, wanted), _told(wanted, before), [one.slug for one in added]
    )
    audit.record(events.POOL_CHANGED, payload, actor=actor, subject_type="clusters.pool", subject_uid=pool.uid)
    pool.refresh_from_db()
    return pool


def _told(settings: PoolSettings, other: PoolSettings) -> dict[str, str]:
    """Return the settings that differ from another's, for the audit trail."""
    mine, theirs = asdict(settings), asdict(other)
    return {name: str(value) for name, value in mine.items() if value != theirs[name]}


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
    if pool.elastic and pool.max_gpus is not None and gpus > pool.max_gpus:
        raise Invalid({"gpus": f"This pool can grow to {pool.max_gpus:,} {pool.unit}: no more may be promised."})
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
    """Write down per pool of a cluster what its nodes carry, as last observed (see `pool_inventory.observe_pools`)."""
    observe_pools(cluster_id)
