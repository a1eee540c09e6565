"""Events of the clusters room. No payload ever holds credentials."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from apps.core import formats
from apps.core.events import declare


class _OnCluster:
    """What is told of a cluster leads to its page."""

    __slots__ = ()
    cluster: str

    @property
    def path(self) -> str:
        """Where to look."""
        return f"/clusters/{self.cluster}/"


@dataclass(frozen=True, slots=True)
class ClusterChanged(_OnCluster):
    """A cluster was registered or changed by a person."""

    cluster: str
    name: str
    api_url: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ClusterHealth(_OnCluster):
    """The portal lost a cluster, or has it back."""

    cluster: str
    name: str
    error: str
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Maintenance(_OnCluster):
    """A time in which nothing is applied to a cluster."""

    cluster: str
    name: str
    start: datetime
    end: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class CapabilitiesChanged(_OnCluster):
    """What a cluster can do is not what it was: `changes` in words, such as `kueue.installed: yes → no`."""

    cluster: str
    name: str
    changes: list[str]


@dataclass(frozen=True, slots=True)
class ClusterUpdated:
    """A person changed how the portal treats a cluster: field → [before, after]."""

    cluster: str
    name: str
    changes: dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Expiring(_OnCluster):
    """A certificate or token ends soon, or has ended: `what` in words, `left` how long it still lasts."""

    cluster: str
    name: str
    what: str
    end: datetime
    left: str


@dataclass(frozen=True, slots=True)
class KeysRotated:
    """Credentials were encrypted anew under the newest key: how many now, and how many there are."""

    rotated: int
    total: int


@dataclass(frozen=True, slots=True)
class FlavourCreated:
    """A flavour can be asked for."""

    flavour: str
    resource_name: str
    gpu_model: str
    sharing: str
    numerator: int
    denominator: int


@dataclass(frozen=True, slots=True)
class PoolCreated:
    """A pool was made."""

    cluster: str
    gpu_model: str
    kind: str
    flavours: list[str]


@dataclass(frozen=True, slots=True)
class PoolChanged:
    """A pool's settings changed: what differs, before and after; flavours now offered besides."""

    cluster: str
    gpu_model: str
    before: dict[str, str]
    after: dict[str, str]
    flavours_added: list[str]


@dataclass(frozen=True, slots=True)
class ProposalsAccepted:
    """Flavours and pools were made from what a cluster's nodes carry."""

    cluster: str
    flavours: list[str]
    pools: list[str]


@dataclass(frozen=True, slots=True)
class CapacitySet:
    """Committable GPUs of a pool from a time on (until the next step, or `valid_until`)."""

    cluster: str
    gpu_model: str
    committable_gpus: int
    valid_from: datetime
    valid_until: datetime | None
    reason: str


_ADMINS = "platform admins"


def _moment(at: datetime | str) -> str:
    """Write a time of a payload, which comes back from the outbox as text."""
    return formats.datetime_utc(datetime.fromisoformat(at) if isinstance(at, str) else at)


CLUSTER_REGISTERED = declare("clusters.cluster.registered", ClusterChanged, audience=_ADMINS)
CREDENTIALS_REPLACED = declare("clusters.cluster.credentials_replaced", ClusterChanged, audience=_ADMINS)
CLUSTER_PAUSED = declare("clusters.cluster.paused", ClusterChanged, audience=_ADMINS)
CLUSTER_RESUMED = declare("clusters.cluster.resumed", ClusterChanged, audience=_ADMINS)
CLUSTER_REMOVED = declare("clusters.cluster.removed", ClusterChanged, audience=_ADMINS)
CLUSTER_ARCHIVED = declare("clusters.cluster.archived", ClusterChanged, audience=_ADMINS)
CLUSTER_RESTORED = declare("clusters.cluster.restored", ClusterChanged, audience=_ADMINS)
CLUSTER_UNREACHABLE = declare(
    "clusters.cluster.unreachable",
    ClusterHealth,
    audience=_ADMINS,
    headline=lambda p: f"{p.name} does not answer",
    body=lambda p: f"{p.error}. What is approved for it is applied as soon as it is back.",
    path=lambda p: p.path,
)
CLUSTER_RECOVERED = declare(
    "clusters.cluster.recovered",
    ClusterHealth,
    audience=_ADMINS,
    headline=lambda p: f"{p.name} answers again",
    path=lambda p: p.path,
)
FLAVOUR_CREATED = declare("clusters.flavour.created", FlavourCreated, audience=_ADMINS)
POOL_CREATED = declare("clusters.pool.created", PoolCreated, audience=_ADMINS)
POOL_CHANGED = declare("clusters.pool.changed", PoolChanged, audience=_ADMINS)
PROPOSALS_ACCEPTED = declare("clusters.proposals.accepted", ProposalsAccepted, audience=_ADMINS)
CAPACITY_SET = declare("clusters.pool.capacity_set", CapacitySet, audience=_ADMINS)
CLUSTER_UPDATED = declare("clusters.cluster.updated", ClusterUpdated, audience=_ADMINS)
KUEUE_MODE_SET = declare("clusters.cluster.kueue_mode_set", ClusterUpdated, audience=_ADMINS)
KEYS_ROTATED = declare("clusters.credentials.rotated", KeysRotated, audience=_ADMINS)
CAPABILITIES_CHANGED = declare(
    "clusters.cluster.capabilities_changed",
    CapabilitiesChanged,
    audience=_ADMINS,
    headline=lambda p: f"{p.name} can do other things than before",
    body=lambda p: "; ".join(p.changes),
    path=lambda p: p.path,
)
MAINTENANCE_SCHEDULED = declare(
    "clusters.maintenance.scheduled",
    Maintenance,
    audience=_ADMINS,
    headline=lambda p: f"{p.name}: maintenance from {_moment(p.start)} to {_moment(p.end)}",
    body=lambda p: f"{p.reason}. Nothing is applied to it meanwhile; what is approved waits and is applied afterwards.",
    path=lambda p: p.path,
)
MAINTENANCE_CANCELLED = declare(
    "clusters.maintenance.cancelled",
    Maintenance,
    audience=_ADMINS,
    headline=lambda p: f"{p.name}: the maintenance from {_moment(p.start)} is cancelled",
    path=lambda p: p.path,
)
CLUSTER_EXPIRING = declare(
    "clusters.cluster.expiring",
    Expiring,
    audience=_ADMINS,
    mail=True,
    headline=lambda p: f"{p.name}: {p.what} {p.left}",
    body=lambda p: f"It ends on {_moment(p.end)}. Afterwards nothing reaches the cluster until it is renewed.",
    path=lambda p: p.path,
)
