"""What adopting a namespace would come to: the workspace, its objects, GPUs per flavour, what stays. Reads rows only.

Their values win wherever that is safe: limits and pod security levels are taken over into the proposal; whatever else
differs is a clash that a person resolves on the cluster first. Nothing of theirs is ever rendered.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from typing import Any

from apps.clusters.models import Cluster, Flavour, Node, Pool
from apps.clusters.quantities import parse
from apps.core.canonical import digest_of
from apps.core.formats import datetime_utc
from apps.quotas import adopting_reader, book, kueue_state, limits
from apps.quotas.assess import number
from apps.quotas.choices import Rung
from apps.quotas.ladder_manifests import at_rung
from apps.quotas.ledger import Holding
from apps.quotas.manifests import QUOTA_NAME, Manifest, workspace_manifests
from apps.quotas.models import NamespaceReading, Workspace
from apps.rates.selectors import monthly_estimate
from apps.teams.models import Team

#: Labels whose live value is taken over: stricter or looser, it is what runs there today, and approvers see it.
SECURITY = "pod-security.kubernetes.io/"
#: A reading, and what was asked for by it, is good for so long.
GOOD_FOR_HOURS = 24
_GIB = 1 << 30
_PLAIN_KEYS = {"requests.cpu": "cpu", "requests.memory": "memory"}


@dataclass(frozen=True, slots=True)
class GpuRow:
    """A flavour that the cluster's pools offer, with what of it is proposed and why."""

    flavour: Flavour
    pool: Pool
    proposed: int
    source: str
    fits: bool
    room: str
    cost: str

    @property
    def field(self) -> str:
        """The form's field for it."""
        return f"gpus_{self.flavour.slug}"


@dataclass(frozen=True, slots=True)
class Proposal:
    """Everything that a person reads before asking for the adoption."""

    gpus: list[GpuRow]
    notes: list[str]
    manifests: list[Manifest]
    limits: dict[str, int]
    labels: dict[str, str]
    kept: list[dict[str, str]]
    clashes: list[dict[str, str]]
    warnings: list[str]
    blockers: list[str] = field(default_factory=list)


def proposal_of(reading: NamespaceReading, at: datetime) -> Proposal:
    """Return what a finished reading comes to now."""
    rows, notes = gpu_rows(reading, at)
    state = kueue_state.state_of(reading.cluster)
    numbers = limits_of(reading.found)
    units = {row.flavour.pk: row.proposed for row in rows}
    plain = future_manifests(future_workspace(reading, numbers), units, {}, at, state=state)
    labels = taken_over(plain, reading.found)
    said = [text for entry in reading.plan for text in entry.get("warnings", [])]
    return Proposal(
        gpus=rows,
        notes=notes,
        manifests=with_labels(plain, labels),
        limits=numbers,
        labels=labels,
        kept=kept(reading.found),
        clashes=adopting_reader.clashes(reading.plan),
        warnings=[*_effects(reading, state), *dict.fromkeys(said)],
        blockers=standing_against(reading.cluster, reading.team, reading.environment, reading.namespace),
    )


def standing_against(cluster: Cluster, team: Team, environment: str, namespace: str) -> list[str]:
    """Return why no workspace of this place can be made now."""
    found = []
    rows = Workspace.objects.filter(cluster=cluster)
    if rows.filter(namespace=namespace).exists():
        found.append(f"“{namespace}” belongs to a workspace already.")
    elif rows.filter(team=team, environment=environment).exists():
        found.append(f"{team} has a {environment} workspace on {cluster} already: a team has one for each environment.")
    if team.archived_at is not None:
        found.append(f"{team} is archived.")
    return found


# -- the workspace and its objects -----------------------------------------------------------------------------------


def future_workspace(reading: NamespaceReading, numbers: Mapping[str, int]) -> Workspace:
    """Return the workspace as a granted adoption makes it; not saved."""
    return Workspace(
        uid=reading.workspace_uid,
        team=reading.team,
        cluster=reading.cluster,
        environment=reading.environment,
        namespace=reading.namespace,
        data_classes=sorted(reading.data_classes),
        **numbers,
    )


def future_manifests(
    workspace: Workspace,
    units: Mapping[int, int],
    labels: Mapping[str, str],
    at: datetime,
    *,
    state: kueue_state.State | None = None,
) -> list[Manifest]:
    """Return the objects that the portal would declare: `units` by flavour id, `labels` as they live already."""
    state = state or kueue_state.state_of(workspace.cluster)
    held = {pk: [Holding(at, None, count)] for pk, count in units.items() if count}
    found = book.numbers_anew(workspace, held, at, queued=state.queues)
    manifests = workspace_manifests(book.spec_of(workspace, found.limits, found.shares, state))
    return with_labels(at_rung(manifests, Rung.NONE, holds=True), labels)


def with_labels(manifests: Sequence[Manifest], labels: Mapping[str, str]) -> list[Manifest]:
    """Return the objects with labels of the Namespace as they live already."""
    result = list(manifests)
    for index, manifest in enumerate(result):
        if manifest["kind"] == "Namespace":
            result[index] = copy.deepcopy(manifest)
            result[index]["metadata"]["labels"].update(labels)
    return result


def taken_over(manifests: Sequence[Manifest], found: Mapping[str, Any]) -> dict[str, str]:
    """Return the pod security labels that live with other values than the portal would set: as they live."""
    live = found["namespace"]["labels"]
    for manifest in manifests:
        if manifest["kind"] == "Namespace":
            wanted = manifest["metadata"]["labels"]
            return {
                key: live[key]["value"]
                for key in sorted(wanted)
                if key.startswith(SECURITY) and key in live and live[key]["value"] != wanted[key]
            }
    return {}


def limits_of(found: Mapping[str, Any]) -> dict[str, int]:
    """Return the limits beside GPUs: theirs where they have one, else the usual ones, never below what runs there."""
    pods = found["pods"]
    used = {"cpu_cores": pods["cpu_cores"], "memory_gib": pods["memory_gib"], "pods": pods["count"]}
    usual = limits.current(Workspace())
    result = {}
    for one in limits.LIMITS:
        theirs = _hard(found, (one.key, _PLAIN_KEYS.get(one.key, one.key)))
        if theirs is None:
            result[one.name] = min(one.most, max(usual[one.name], used.get(one.name, 0)))
        else:
            result[one.name] = min(one.most, -int(-theirs // (_GIB if one.gib else 1)))
    return result


def _hard(found: Mapping[str, Any], keys: Sequence[str]) -> Any:
    """Return the lowest limit of any of `keys` in quotas that count everything; None where there is none."""
    values = []
    for quota in found["quotas"]:
        if quota["scopes"] or quota["name"] == QUOTA_NAME:
            continue
        for key in keys:
            try:
                values.append(parse(quota["hard"][key]))
            except (KeyError, ValueError):
                continue
    return min(values, default=None)


# -- GPUs ------------------------------------------------------------------------------------------------------------


def gpu_rows(reading: NamespaceReading, at: datetime) -> tuple[list[GpuRow], list[str]]:
    """Return every GPU flavour that the cluster offers with the units proposed, and notes on what needs a decision."""
    found = reading.found
    pools = list(Pool.objects.filter(cluster=reading.cluster).prefetch_related("flavours").order_by("pk"))
    offered: dict[str, list[tuple[Pool, Flavour]]] = {}
    for pool in pools:
        for flavour in pool.flavours.all():
            if "/" in flavour.resource_name:
                offered.setdefault(flavour.resource_name, []).append((pool, flavour))
    used: dict[str, dict[str, int]] = found["pods"]["gpus"]
    held = {key.removeprefix("requests.") for q in found["quotas"] for key in q["hard"] if _is_gpu_key(key)}
    notes: list[str] = []
    rows: list[GpuRow] = []
    models = _models(reading.cluster, used)
    books: dict[int, book.PoolBook] = {}
    for resource, places in sorted(offered.items()):
        hard = _hard(found, [f"requests.{resource}"])
        by_model = models.get(resource, {})
        wanted = _spread(resource, places, None if hard is None else int(hard), by_model, notes)
        limit = "no limit of theirs" if hard is None else f"their limit is {int(hard):,}"
        source = f"{limit}, {sum(by_model.values()):,} in use"
        for pool, flavour in places:
            units = wanted[flavour.pk]
            if not units:
                rows.append(GpuRow(flavour, pool, 0, source, True, "nothing is taken", "–"))
                continue
            if pool.pk not in books:
                books[pool.pk] = book.load(pool, at)
            rows.append(_row(reading, books[pool.pk], flavour, units, source, at))
    for resource in sorted((held | set(used)) - set(offered)):
        count = sum(used.get(resource, {}).values())
        notes.append(
            f"{resource} is offered by no pool of this cluster ({count:,} in use): the portal will not count or limit "
            "it. Offer it in a pool first, if it should."
        )
    return sorted(rows, key=lambda row: (row.flavour.name, row.flavour.pk)), notes


def _is_gpu_key(key: str) -> bool:
    return key.startswith("requests.") and "/" in key


def _models(cluster: Cluster, used: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """Return use by resource and GPU model, from the nodes on which the pods are; "" where that is not known."""
    names = {node for places in used.values() for node in places}
    by_node = dict(Node.objects.filter(cluster=cluster, name__in=names).values_list("name", "gpu_model"))
    result: dict[str, dict[str, int]] = {}
    for resource, places in used.items():
        for node, units in places.items():
            models = result.setdefault(resource, {})
            model = by_node.get(node, "")
            models[model] = models.get(model, 0) + units
    return result


def _spread(
    resource: str, places: Sequence[tuple[Pool, Flavour]], hard: int | None, by_model: dict[str, int], notes: list[str]
) -> dict[int, int]:
    """Return units by flavour id: all to the only flavour, else where the pods run."""
    in_use = sum(by_model.values())
    total = in_use if hard is None else hard
    wanted = {flavour.pk: 0 for _, flavour in places}
    if len(places) == 1:
        wanted[places[0][1].pk] = total
        return wanted
    running = [flavour for _, flavour in places if by_model.get(flavour.gpu_model)]
    if len(running) == 1:
        wanted[running[0].pk] = total
        return wanted
    names = ", ".join(sorted(flavour.name for _, flavour in places))
    if total:
        notes.append(
            f"{total:,} × {resource} cannot be told apart by what runs there: {names} all carry this name. Say below "
            "which flavours they are."
        )
    return wanted


def _row(
    reading: NamespaceReading, view: book.PoolBook, flavour: Flavour, units: int, source: str, at: datetime
) -> GpuRow:
    room = view.room(0, flavour, units, at, None)
    words = "it fits"
    if not room.fits:
        free = number(max(room.free_at_worst, Fraction(0)))
        when = f", and would fit from {datetime_utc(room.first_fit_from)}" if room.first_fit_from else ""
        words = f"the pool has {free} GPUs left at its tightest moment{when}: once approved it waits for capacity"
    estimate = monthly_estimate(reading.cluster_id, flavour.pk, units, at)
    cost = str(estimate.amount.quantized()) if estimate.amount is not None else "unknown: no rate is published"
    return GpuRow(flavour, view.pool, units, source, room.fits, words, cost)


# -- what stays ------------------------------------------------------------------------------------------------------


def kept(found: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return what of theirs stays as it is and counts besides: {object, what, means}."""
    result = []
    for quota in found["quotas"]:
        numbers = ", ".join(
            f"{key} {value}" + (f" (used {quota['used'][key]})" if key in quota["used"] else "")
            for key, value in quota["hard"].items()
        )
        scope = f" only for {'; '.join(quota['scopes'])}:" if quota["scopes"] else ""
        means = "limits, too: the lower of two limits holds, so more quota granted here needs more there, too"
        result.append(_kept("ResourceQuota", quota["name"], f"{scope} {numbers}".strip() or "no limits", means))
    for one in found["limit_ranges"]:
        result.append(_kept("LimitRange", one["name"], one["what"], "its defaults and bounds go on counting"))
    for one in found["role_bindings"]:
        result.append(
            _kept("RoleBinding", one["name"], f"{one['role']} to {one['subjects']}", "goes on granting, besides")
        )
    for one in found["network_policies"]:
        means = "goes on allowing, besides: policies add up"
        result.append(_kept("NetworkPolicy", one["name"], one["what"], means))
    return result


def _kept(kind: str, name: str, what: str, means: str) -> dict[str, str]:
    return {"object": f"{kind} {name}", "what": what, "means": means}


def _effects(reading: NamespaceReading, state: kueue_state.State) -> list[str]:
    """Return what adding the portal's objects means for what runs there."""
    pods = reading.found["pods"]["count"]
    found = []
    if pods:
        found.append(
            f"{pods:,} pod{'s run' if pods > 1 else ' runs'} there. The portal's network policy lets pods "
            "of the namespace talk to each other and to DNS only: traffic from or to other namespaces goes on where "
            "a policy of theirs allows it, and is cut elsewhere."
        )
    if state.queues and any(sum(places.values()) for places in reading.found["pods"]["gpus"].values()):
        found.append(
            "What runs there already was not admitted by Kueue, so Kueue does not count its GPUs and may hand them out "
            "once more: restart that work through the queue after the adoption."
        )
    if not reading.found["quotas"]:
        found.append(
            "No quota limits this namespace today. With the portal's, containers that state no requests get defaults, "
            "and what asks for more than the limits is refused."
        )
    return found


def fingerprint(found: Mapping[str, Any]) -> str:
    """Return a digest of what a proposal stands on: the namespace itself, its labels, and the limits of its quotas."""
    return digest_of(
        {
            "uid": found["namespace"]["uid"],
            "labels": {key: one["value"] for key, one in found["namespace"]["labels"].items()},
            "quotas": [{"name": q["name"], "hard": q["hard"], "scopes": q["scopes"]} for q in found["quotas"]],
        }
    )


__all__ = [
    "GOOD_FOR_HOURS",
    "GpuRow",
    "Proposal",
    "fingerprint",
    "future_manifests",
    "future_workspace",
    "gpu_rows",
    "kept",
    "limits_of",
    "proposal_of",
    "standing_against",
    "taken_over",
]
