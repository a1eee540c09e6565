"""A small company as the portal renders it for a cluster with Kueue: its baseline, its workspaces, and work in them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from apps.clusters.clients.kubernetes import KubernetesClient
from apps.core import clock
from apps.core.copies import copied
from apps.quotas.kueue import ANY_NODE, PODS, QueueSpec, Share, cohort_name
from apps.quotas.kueue_baseline import CohortSpec, FlavourSpec, kueue_manifests, topology_name
from apps.quotas.manifests import WorkspaceSpec, workspace_manifests
from tests.cluster.conftest import await_that, fresh
from tests.cluster.fixtures import LABELS
from tests.cluster.helpers import GPU, Manifest, job, run_apply, thing

UNITS = ("group", "retail", "research")


class Company:
    """Units `retail` and `research` below `group`, and the flavours of one cluster.

    Every name is one of this suite's own, so that a cluster in use keeps what it has: the renderer's are exchanged.
    """

    def __init__(self, api: KubernetesClient, flavours: Sequence[FlavourSpec] = ()) -> None:
        self.api = api
        self.flavours = [flavour.slug for flavour in flavours] or [fresh()]
        self._names = {cohort_name(unit): fresh() for unit in UNITS} | {ANY_NODE: fresh()}
        self._held: dict[str, tuple[str, list[Share], dict[str, Any]]] = {}
        self._names |= {topology_name(flavour.levels): fresh() for flavour in flavours if flavour.levels}
        specs = list(flavours) or [FlavourSpec(self.flavours[0])]
        tree = [CohortSpec("group"), CohortSpec("retail", "group"), CohortSpec("research", "group")]
        self.apply(kueue_manifests(specs, tree, LABELS))

    @property
    def flavour(self) -> str:
        """The first flavour."""
        return self.flavours[0]

    @property
    def any_node(self) -> str:
        """The flavour of cores, memory and pods."""
        return self._names[ANY_NODE]

    def cohort(self, unit: str) -> str:
        """The name of a unit's cohort."""
        return self._names[cohort_name(unit)]

    def named(self, value: Any) -> Any:
        """The same with this company's names."""
        if isinstance(value, dict):
            return {key: self.named(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self.named(each) for each in value]
        return self._names.get(value, value) if isinstance(value, str) else value

    def apply(self, manifests: Sequence[Manifest]) -> list[Manifest]:
        """Apply as an apply run does, and return what was sent."""
        sent = [self.named(copied(manifest)) for manifest in manifests]
        outcome = run_apply(self.api, sent)
        assert outcome.succeeded, outcome
        return sent

    def render(
        self, name: str, unit: str, shares: Sequence[Share], *, rung: str = "none", **spec: Any
    ) -> list[Manifest]:
        """A workspace of a team, as rendered."""
        gpus: dict[str, int] = {}
        for share in shares:
            gpus[share.resource] = gpus.get(share.resource, 0) + share.maximum
        mode = spec.pop("mode", PODS)
        managed = {"kueue.x-k8s.io/managed-namespace": "true"}
        fields = {"environment": "development", "cpu_cores": 64, "memory_gib": 256, "storage_gib": 10, "pods": 100}
        queue = QueueSpec(unit, mode, rung=rung, namespace_labels=managed)
        return workspace_manifests(
            WorkspaceSpec(
                namespace=name, workspace_uid=str(uuid.uuid4()), team_slug="test", group_prefix="gpu-commons:",
                gpus=gpus, shares=shares, queue=queue, **{**fields, **spec},
            )
        )  # fmt: skip

    def workspace(self, guaranteed: int, maximum: int | None = None, unit: str = "retail", **more: Any) -> str:
        """Apply a workspace with GPUs of the first flavour; returns its namespace, which names its queue, too."""
        name = fresh()
        lend = more.pop("lend", None)
        share = Share(self.flavour, GPU, guaranteed, guaranteed if maximum is None else maximum, lend=lend)
        self.hold(name, unit, [share, *more.pop("shares", ())], **more)
        return name

    def hold(self, name: str, unit: str, shares: list[Share], **more: Any) -> list[Manifest]:
        """Apply a workspace with these shares."""
        self._held[name] = (unit, shares, more)
        return self.apply(self.render(name, unit, shares, **more))

    def change(self, name: str, *, guaranteed: int | None = None, maximum: int | None = None, rung: str = "") -> None:
        """Apply a workspace again with other numbers, or on another rung."""
        unit, (share, *rest), more = self._held[name]
        least = share.guaranteed if guaranteed is None else guaranteed
        most = max(least, share.maximum if maximum is None else maximum)
        moved = Share(share.flavour, share.resource, least, most, lend=share.lend)
        self.hold(name, unit, [moved, *rest], **({**more, "rung": rung} if rung else more))

    # ---- work

    def submit(
        self, space: str, name: str, gpus: int, *, priority: str = "", labels: Mapping[str, str] | None = None,
        resources: Mapping[str, str] | None = None, queue: str = "default", parallelism: int = 1, **pod: Any,
    ) -> None:  # fmt: skip
        """Create a Job of one or more pods with so many GPUs each."""
        body = job(space, name, gpus)
        body["spec"] |= {"parallelism": parallelism, "completions": parallelism}
        wanted = {"kueue.x-k8s.io/queue-name": queue} if queue else {}
        if priority:
            wanted["kueue.x-k8s.io/priority-class"] = priority
        body["metadata"]["labels"] = {**wanted, **(labels or {})}
        template = body["spec"]["template"]
        template["spec"] |= pod
        amounts = template["spec"]["containers"][0]["resources"]
        for part in ("requests", "limits"):
            amounts[part] |= {"memory": "16Mi", **(resources or {})}
        self.api.create(body)

    def start(self, space: str, name: str, gpus: int, **more: Any) -> None:
        """Create a Job and wait until it is admitted."""
        self.submit(space, name, gpus, **more)
        self.starts(space, name)

    def second_passes(self, space: str, name: str) -> None:
        """Wait until a Job was admitted in a second of its own: of what was admitted in one, any may go first."""
        stamp = datetime.fromisoformat(self.condition(space, name, "QuotaReserved")["lastTransitionTime"])
        await_that(lambda: clock.now() >= stamp + timedelta(seconds=1))

    def starts(self, *names: str) -> None:
        """Wait until a Job (space, name) is admitted."""
        await_that(lambda: not self.suspended(*names))

    def stops(self, *names: str) -> None:
        """Wait until a Job (space, name) is suspended."""
        await_that(lambda: self.suspended(*names))

    def suspended(self, space: str, name: str) -> bool:
        """Whether a Job does not run."""
        return bool(self.api.get("Job", name, space)["spec"].get("suspend"))

    def workload(self, space: str, name: str) -> Manifest:
        """The Workload of a Job, Pod or another owner of that name; {} where there is none yet."""
        for item in self.api.list("Workload", space).items:
            if any(owner["name"] == name for owner in item["metadata"].get("ownerReferences") or []):
                return dict(item)
        return {}

    def condition(self, space: str, name: str, kind: str) -> dict[str, Any]:
        """A condition of a Job's Workload; {} where it has none."""
        found = (self.workload(space, name).get("status") or {}).get("conditions") or []
        return next((each for each in found if each["type"] == kind), {})

    def waits(self, space: str, name: str) -> tuple[str, str]:
        """Wait until the Workload of a Job says why it waits: reason and message."""
        found = await_that(lambda: self._waiting(space, name))
        return found["reason"], found["message"]

    def _waiting(self, space: str, name: str) -> dict[str, Any]:
        found = self.condition(space, name, "QuotaReserved")
        return found if found.get("status") == "False" and found["reason"] != "PendingEvaluation" else {}

    def queue(self, name: str) -> dict[str, Any]:
        """The status of a ClusterQueue."""
        return dict(self.api.get("ClusterQueue", name).get("status") or {})

    def use(self, name: str, flavour: str = "") -> tuple[int, int]:
        """GPUs in use and of them borrowed, as the ClusterQueue says."""
        for row in self.queue(name).get("flavorsUsage") or []:
            for each in row["resources"]:
                if row["name"] == (flavour or self.flavour) and each["name"] == GPU:
                    return int(each.get("total", "0")), int(each.get("borrowed", "0"))
        return 0, 0

    def priority(self, value: int) -> str:
        """A WorkloadPriorityClass of that value."""
        name = fresh()
        self.api.apply(thing("WorkloadPriorityClass", name, value=value))
        return name
