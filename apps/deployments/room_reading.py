"""Room as the cluster tells it: what is in use of a workspace's quotas, how old that is, and who holds it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from apps.clusters.choices import DeviceClass
from apps.clusters.models import Flavour
from apps.core.formats import age
from apps.core.row_security import lifted
from apps.deployments import reading, room_now
from apps.deployments.drafting import Assessment
from apps.deployments.feasibility import Size
from apps.deployments.models import Release
from apps.metering.choices import METERED
from apps.metering.models import HourFact, HourStatus
from apps.provisioning.models import Observation
from apps.provisioning.selectors import current_at, quota_status, vouched
from apps.quotas import live, priorities
from apps.quotas.live_rows import FRESH, quota_rows
from apps.quotas.live_standing import Standing
from apps.quotas.models import Workspace

_GIB = Decimal(1 << 30)
_WHY = "what is in use where a release is asked for decides whether it starts, whoever reads that"
#: Metered hours older than this say nothing of who holds GPUs now.
_METERED_WITHIN = timedelta(hours=6)
#: How far back the beginning of a workload is looked for.
_LOOK_BACK = timedelta(days=7)
_HOUR_MS = 3_600_000
#: A workload whose last span ends later than this in the hour ran on at its end.
_RUNNING_MS = _HOUR_MS - 60_000


def of_assessment(found: Assessment) -> room_now.Room:
    """Return whether there is room now for a draft, on top of what serves on its endpoint."""
    draft = found.draft
    wanted = reading.size_of(draft.flavour, draft.spec)
    serving = draft.serving
    current = reading.size_of(serving.flavour, reading.spec_of(serving)) if serving is not None else None
    return _room(
        draft.workspace, draft.flavour, wanted, current, found.canary, draft.spec.min_replicas, found.at
    )  # fmt: skip


def of_release(release: Release, at: datetime) -> room_now.Room:
    """Return the same of a release that is not on its cluster yet."""
    endpoint, spec = release.endpoint, reading.spec_of(release)
    serving = endpoint.current if endpoint.stopped_at is None else None
    current = reading.size_of(serving.flavour, reading.spec_of(serving)) if serving is not None else None
    canary = bool(release.change.get("canary"))
    wanted = reading.size_of(release.flavour, spec)
    return _room(endpoint.workspace, release.flavour, wanted, current, canary, spec.min_replicas, at)


def _room(
    workspace: Workspace,
    flavour: Flavour,
    wanted: Size,
    current: Size | None,
    canary: bool,
    least_replicas: int,
    at: datetime,
) -> room_now.Room:
    asked = room_now.needs(wanted, current, canary=canary, least_replicas=least_replicas)
    with lifted(_WHY):
        return room_now.judge(_seen(workspace, flavour, at), asked, at)


def _seen(workspace: Workspace, flavour: Flavour, at: datetime) -> tuple[room_now.Seen, ...]:
    """Return GPUs (or a class's cores), cores and GiB of a workspace as last observed."""
    status = quota_status(workspace.cluster_id, workspace.namespace)
    unsure = _unsure(workspace, status.observed_at, at)
    name = flavour.resource_name
    allowed, used = _pair(status.resources, f"requests.{name}")
    held = quota_rows([workspace], at)
    row = next((one for one in held if one.flavour.pk == flavour.pk), None)
    # The cluster counts a resource's name, whatever flavour a pod runs on.
    among = any(one.flavour.resource_name == name and one.flavour.pk != flavour.pk for one in held)
    counted = f"{name} (all flavours of it)" if among else flavour.name
    promised, missing = "", 0
    if row is not None and row.standing == Standing.PROMISED:
        promised = row.standing_why
        devices = row.standing_missing
        units = Decimal(devices.numerator * flavour.denominator) / (devices.denominator * flavour.numerator)
        missing = int(units.to_integral_value(ROUND_CEILING))
    holders = _holders(workspace, name, at) if flavour.device_class == DeviceClass.GPU and used else None
    limit, seen_at = f"Quota of {counted} in {workspace.namespace}", status.observed_at
    if reading.share_decides(workspace, flavour):
        limit = f"Share of {counted} kept for serving in {workspace.namespace}"
        allowed, used, seen_at = _serving(workspace, name)
        unsure, holders = _unsure(workspace, seen_at, at), None
    cores = _pair(status.resources, "requests.cpu")
    memory = _pair(status.resources, "requests.memory", _GIB)
    return (
        room_now.Seen(
            limit, flavour.unit, _floor(allowed), _ceil(used), seen_at, unsure, promised, missing, holders
        ),
        room_now.Seen(
            f"CPU of {workspace.namespace}", "cores", _floor(cores[0]), _ceil(cores[1]), status.observed_at, unsure
        ),
        room_now.Seen(
            f"Memory of {workspace.namespace}", "GiB", _floor(memory[0]), _ceil(memory[1]), status.observed_at, unsure
        ),
    )  # fmt: skip


def _pair(
    resources: Mapping[str, tuple[Decimal, Decimal]], name: str, unit: Decimal = Decimal(1)
) -> tuple[Decimal | None, Decimal | None]:
    found = resources.get(name)
    return (found[0] / unit, found[1] / unit) if found is not None else (None, None)


def _floor(value: Decimal | None) -> int | None:
    return int(value.to_integral_value(ROUND_FLOOR)) if value is not None else None


def _ceil(value: Decimal | None) -> int | None:
    return int(value.to_integral_value(ROUND_CEILING)) if value is not None else None


def _unsure(workspace: Workspace, seen_at: datetime | None, at: datetime) -> str:
    """Return why nothing may be claimed of a workspace's figures; "": they are current."""
    for away in live.away([workspace.cluster]):
        since = f", since {age(away.since, now=at)}" if away.since is not None else ""
        return f"{workspace.cluster} {away.words}{since}."
    if seen_at is None:
        return f"{workspace.cluster} has not told what is in use there yet."
    if at - seen_at > FRESH:
        return f"The figures are from {age(seen_at, now=at)}."
    return ""


def _serving(workspace: Workspace, resource: str) -> tuple[Decimal | None, Decimal | None, datetime | None]:
    """Return what pods of production priority may have and use of a resource: the quota that counts them alone."""
    row = (
        Observation.objects.filter(
            cluster_id=workspace.cluster_id, kind="ResourceQuota", namespace=workspace.namespace,
            name=priorities.SCOPED_QUOTA, missing=False,
        )
        .annotate(vouched=vouched())
        .first()
    )  # fmt: skip
    if row is None:
        return None, None, None
    hard, used = row.status.get("hard") or {}, row.status.get("used") or {}
    key = f"requests.{resource}"
    if not str(hard.get(key, "")).isdigit():
        return None, None, current_at(row)
    count = str(used.get(key, "0"))
    return Decimal(hard[key]), Decimal(count) if count.isdigit() else None, current_at(row)


def _holders(workspace: Workspace, resource: str, at: datetime) -> room_now.Holders | None:
    """Return who held units of a resource at the end of the last metered hour; None: no hour is that young.

    At most three queries: by (cluster, hour), then by (team, hour).
    """
    hour = (
        HourStatus.objects.filter(
            cluster_id=workspace.cluster_id, hour__gte=at - _METERED_WITHIN, hour__lt=at, state__in=METERED
        )
        .order_by("-hour")
        .values_list("hour", flat=True)
        .first()
    )
    if hour is None:
        return None
    rows = HourFact.objects.filter(
        cluster_id=workspace.cluster_id, hour=hour, namespace=workspace.namespace, resource=resource
    ).values_list("workload_key", "workload_kind", "workload_name", "spans")
    running = {key: (kind, name) for key, kind, name, spans in rows if spans and spans[-2] >= _RUNNING_MS}
    if not running:
        return None
    earliest = hour - _LOOK_BACK
    first = (
        HourFact.objects.filter(
            team_id=workspace.team_id, hour__gte=earliest, hour__lte=hour, cluster_id=workspace.cluster_id,
            workload_key__in=list(running),
        )
        .order_by("workload_key", "hour")
        .distinct("workload_key")
        .values_list("hour", "spans")
    )  # fmt: skip
    began = [start + timedelta(milliseconds=spans[0] if spans else 0) for start, spans in first]
    newest = max(began, default=hour)
    return room_now.Holders(len(set(running.values())), newest, hour, exact=newest > earliest)
