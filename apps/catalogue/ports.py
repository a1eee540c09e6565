"""How rooms above plug into the catalogue: who hears of grants, who can check what, and recertification."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from apps.catalogue.controls import CheckResult, FactValue

if TYPE_CHECKING:
    from apps.catalogue.manifest import Manifest
    from apps.catalogue.models import ModelRequest, ModelVersion
    from apps.clusters.models import Cluster
    from apps.core.actor import Actor
    from apps.quotas.models import Workspace

#: Called with the uids of the workspaces whose usable grants changed, in the transaction of the change.
GrantListener: TypeAlias = Callable[[Sequence[uuid.UUID]], None]


@dataclass(frozen=True, slots=True)
class CheckContext:
    """What a named check is told. `scope` None: no clusters and workspaces are named yet (a version's own page)."""

    version: ModelVersion
    manifest: Manifest | None
    facts: Mapping[str, FactValue]
    scope: Mapping[str, Any] | None
    clusters: Sequence[Cluster]
    workspaces: Sequence[Workspace]
    at: datetime


@dataclass(frozen=True, slots=True)
class Live:
    """A version that serves on an endpoint of a workspace at a time, with its share of the traffic in per cent."""

    version_id: int
    workspace: Workspace
    endpoint: str
    release_uid: uuid.UUID
    number: int
    traffic: int
    since: datetime


@dataclass(frozen=True, slots=True)
class ObjectLine:
    """One line of what would change on a cluster; `path` "" where all of an object comes, goes or cannot be."""

    cluster: str
    object: str
    path: str
    before: str
    after: str


class Serving(Protocol):
    """Who knows what serves (the deployments room)."""

    def live(self, model_id: int, workspace_uids: Collection[uuid.UUID], at: datetime) -> Sequence[Live]:
        """Return what of the model serves at `at` in these workspaces, gravest environment and largest share first."""
        ...

    def objects(self, live: Live, version: ModelVersion) -> Sequence[ObjectLine]:
        """Return how the endpoint's objects would change if the version took over at the release's present size."""
        ...


Check: TypeAlias = Callable[[CheckContext], CheckResult]
#: Whether a cluster verifies the bytes it loads (slug → yes or no).
Verifier: TypeAlias = Callable[[str], bool]

_listeners: dict[str, GrantListener] = {}
_checks: dict[str, Check] = {}
_verifiers: dict[str, Verifier] = {}
_serving: dict[str, Serving] = {}


def on_grant_change(name: str, fn: GrantListener) -> None:
    """Register who hears that grants of versions began or ended; registering the name again replaces it."""
    _listeners[name] = fn


def forget_grant_change(name: str) -> None:
    """Forget a listener (tests register their own)."""
    _listeners.pop(name, None)


def tell_grant_change(workspace_uids: Sequence[uuid.UUID]) -> None:
    """Tell everybody who asked; runs in the caller's transaction."""
    found = sorted(set(workspace_uids), key=str)
    if found:
        for name in sorted(_listeners):
            _listeners[name](found)


def register_check(name: str, check: Check) -> None:
    """Register a named check that computed controls ask; a room above may put its own in place of the catalogue's."""
    _checks[name] = check


def checks() -> dict[str, Check]:
    """Return every named check."""
    return dict(sorted(_checks.items()))


def register_verifier(name: str, verifier: Verifier) -> None:
    """Register who knows of a cluster whether it verifies the bytes it loads (deployments does)."""
    _verifiers[name] = verifier


def forget_verifier(name: str) -> None:
    """Forget it (tests register their own)."""
    _verifiers.pop(name, None)


def verifies(cluster_slug: str) -> bool:
    """Whether a cluster verifies the bytes it loads; where nobody knows, it does not."""
    return any(verifier(cluster_slug) for verifier in _verifiers.values())


def register_serving(name: str, serving: Serving) -> None:
    """Register who knows what serves where (deployments does); registering the name again replaces it."""
    _serving[name] = serving


def live_of(model_id: int, workspace_uids: Collection[uuid.UUID], at: datetime) -> list[Live]:
    """Return what of a model serves at `at` in these workspaces; nothing where nobody knows."""
    return [one for serving in _serving.values() for one in serving.live(model_id, workspace_uids, at)]


def objects_with(live: Live, version: ModelVersion) -> list[ObjectLine]:
    """Return how the objects that serve would change with another version of the model."""
    return [line for serving in _serving.values() for line in serving.objects(live, version)]


def recertify(model_version_id: int, reason: str, *, actor: Actor) -> ModelRequest | None:
    """Ask that an approved version be looked at again, for the scope it was approved in; None: it is asked already.

    Raises Conflict where the version was never approved.
    """
    from apps.catalogue.recertify import recertify as open_recertification

    return open_recertification(model_version_id, reason, actor=actor)
