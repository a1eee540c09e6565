"""What changes against what serves where a version is asked for, else against what was approved last, line by line.

Manifest, files, card, placement, and the objects on the clusters. After a roll-back, what serves is not what was
approved last; and several workspaces may serve several versions: each is a base of its own.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db.models import F, Q

from apps.approvals.ports import Change
from apps.catalogue import cards
from apps.catalogue.choices import AskStatus
from apps.catalogue.models import ModelRequest, ModelVersion
from apps.catalogue.ports import Live, live_of, objects_with
from apps.core import clock
from apps.core.formats import datetime_utc
from apps.core.row_security import lifted
from apps.quotas.choices import Environment
from apps.quotas.models import Workspace

#: A change of thousands of files is shown as far as somebody reads; the digest covers all of it.
MOST_FILES = 200
#: Of so many endpoints of one version the objects are shown: they differ by name and size.
MOST_ENDPOINTS = 5
_WHY = "what serves of a model where it is asked for is a fact of the request, not of who reads it"


@dataclass(frozen=True, slots=True)
class Base:
    """What a request is laid against: a version with where it serves, or (`live` empty) the one approved last.

    `asked`: the approved request behind it, if any; `version` None: nothing of the model serves, or was ever approved.
    """

    version: ModelVersion | None
    asked: ModelRequest | None
    live: tuple[Live, ...] = ()

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        if self.version is None:
            return "Nothing before it"
        if not self.live:
            return f"{self.version}, approved last"
        places = ", ".join(dict.fromkeys(f"{one.workspace.namespace} ({_where(one)})" for one in self.live))
        return f"{self.version}, which serves in {places}"

    @property
    def words(self) -> list[str]:
        """Where it serves and since when, endpoint by endpoint; else when it was approved."""
        if self.live:
            return [
                f"Endpoint {one.endpoint} in {one.workspace.namespace} on {one.workspace.cluster.name}: release"
                f" {one.number}, {one.traffic} % of the traffic since {datetime_utc(one.since)}."
                for one in self.live
            ]
        ended = self.asked.approval.concluded_at if self.asked is not None and self.asked.approval is not None else None
        return [f"Approved on {datetime_utc(ended)}."] if ended is not None else []


@dataclass(frozen=True, slots=True)
class Bases:
    """Everything a request is laid against as of `at`, what counts first in front.

    `nowhere`: the workspaces asked for in which nothing of the model serves.
    """

    at: datetime
    ended: bool
    all: tuple[Base, ...]
    nowhere: tuple[str, ...]

    @property
    def served(self) -> bool:
        """Whether anything of the model serves where it is asked for."""
        return bool(self.all and self.all[0].live)


def _where(one: Live) -> str:
    return str(Environment(one.workspace.environment).label).lower()


def bases_of(row: ModelRequest) -> Bases:
    """Return what a request is laid against: what serves where it is asked for, and what was approved last.

    Of an ended request it is what served when it ended.
    """
    ended = row.approval.concluded_at if row.approval is not None else None
    at = ended or clock.now()
    last = before_of(row)
    uids = [uuid.UUID(one) for one in row.scope["workspaces"]]
    with lifted(_WHY):
        found: dict[int, list[Live]] = {}
        for one in live_of(row.model_version.model_id, uids, at):
            found.setdefault(one.version_id, []).append(one)
        versions = ModelVersion.objects.select_related("card", "model").in_bulk(list(found))
        names = dict(Workspace.objects.filter(uid__in=uids).order_by("namespace").values_list("uid", "namespace"))
        bases = [Base(versions[key], _approved(versions[key], row, at) or last, tuple(rows))
                 for key, rows in found.items()]  # fmt: skip
    if last is not None and last.model_version_id not in found:
        bases.append(Base(last.model_version, last))
    busy = {one.workspace.uid for rows in found.values() for one in rows}
    idle = tuple(name for uid, name in names.items() if uid not in busy)
    return Bases(at, ended is not None, tuple(bases) or (Base(None, None),), idle)


def _approved(version: ModelVersion, row: ModelRequest, at: datetime) -> ModelRequest | None:
    """Return the request by which a version that serves was approved, for its placement."""
    rows = ModelRequest.objects.filter(
        model_version=version, status=AskStatus.APPROVED, approval__concluded_at__lte=at
    ).exclude(pk=row.pk)
    return rows.select_related("approval").order_by("-approval__concluded_at", "-pk").first()


def before_of(row: ModelRequest) -> ModelRequest | None:
    """Return the request that was approved last for the same model, whatever its version.

    While this one is open that is the last one to this day, also where it was asked for later; once it has ended, the
    last one before that.
    """
    rows = ModelRequest.objects.filter(
        model_version__model=row.model_version.model_id, status=AskStatus.APPROVED, approval__isnull=False
    ).exclude(pk=row.pk)
    ended = row.approval.concluded_at if row.approval is not None else None
    if ended is not None:
        rows = rows.filter(
            Q(approval__concluded_at__lt=ended) | Q(approval__concluded_at=ended, pk__lt=row.pk or 2**62)
        )
    rows = rows.select_related("model_version__card", "model_version__model", "approval")
    return rows.order_by(F("approval__concluded_at").desc(nulls_last=True), "-pk").first()


def flat(value: Any, path: str = "") -> dict[str, str]:
    """Return a manifest's leaves by path; files by their own path, so that their order means nothing."""
    found: dict[str, str] = {}
    if isinstance(value, Mapping):
        for key, inner in value.items():
            found |= flat(inner, f"{path}.{key}" if path else str(key))
        return found
    if isinstance(value, list):
        for position, inner in enumerate(value):
            name = inner.get("path") or inner.get("name") if isinstance(inner, Mapping) else None
            found |= flat(inner, f"{path}[{name if name is not None else position}]")
        return found
    found[path] = "" if value is None else str(value)
    return found


def manifest_leaves(version: ModelVersion) -> dict[str, str]:
    """Return the leaves of a sealed version's manifest; empty for a draft."""
    return flat(json.loads(bytes(version.manifest))) if version.digest else {}


def _object(path: str) -> str:
    return "file" if path.startswith("files[") else "manifest"


def manifest_changes(before: ModelVersion | None, after: ModelVersion) -> list[Change]:
    """Return the manifest's leaves that differ."""
    old, new = manifest_leaves(before) if before is not None else {}, manifest_leaves(after)
    changes = [
        Change("", _object(path), path, old.get(path, ""), new.get(path, ""))
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
    ]
    files = [change for change in changes if change.object == "file"]
    rest = [change for change in changes if change.object != "file"]
    if len(files) > MOST_FILES:
        left = len(files) - MOST_FILES
        files = [*files[:MOST_FILES], Change("", "file", "…", "", f"{left:,} more lines of files differ")]
    return rest + files


def card_changes(before: ModelVersion | None, after: ModelVersion) -> list[Change]:
    """Return the fields of the card that differ."""
    old = before.card.body if before is not None and before.card is not None else {}
    new = after.card.body if after.card is not None else {}
    return [
        Change("", "model card", one.label, one.before or "", one.after or "") for one in cards.differences(old, new)
    ]


def scope_changes(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[Change]:
    """Return where it may run and how much traffic it may take, before and after."""
    old: Mapping[str, Any] = before or {}
    names = {
        str(uid): f"{namespace} on {cluster}"
        for uid, namespace, cluster in Workspace.objects.filter(
            uid__in=[*old.get("workspaces", []), *after["workspaces"]]
        ).values_list("uid", "namespace", "cluster__slug")
    }
    found = []
    for key, label in (("environments", "environments"), ("clusters", "clusters"), ("workspaces", "workspaces")):
        was = sorted(names.get(one, one) for one in old.get(key, []))
        will = sorted(names.get(one, one) for one in after[key])
        if was != will:
            found.append(Change("", "placement", label, ", ".join(was), ", ".join(will)))
    if old.get("max_traffic") != after["max_traffic"]:
        was_traffic = f"{old['max_traffic']} %" if "max_traffic" in old else ""
        found.append(Change("", "placement", "largest share of traffic", was_traffic, f"{after['max_traffic']} %"))
    return found


def object_changes(live: Sequence[Live], after: ModelVersion) -> list[Change]:
    """Return how the objects of the endpoints that serve would change at their present size."""
    with lifted(_WHY):
        return [
            Change(line.cluster, line.object, line.path, line.before, line.after, f"endpoint {one.endpoint}")
            for one in live[:MOST_ENDPOINTS]
            if one.version_id != after.pk
            for line in objects_with(one, after)
        ]


def changes_against(row: ModelRequest, base: Base) -> list[Change]:
    """Return everything that an approval of the request would change against one base."""
    before = base.asked
    return [
        *scope_changes(before.scope if before is not None else None, row.scope),
        Change(
            "", "validity", "days", str(before.valid_days) if before is not None else "", str(row.valid_days),
            "counted from the approval" if row.not_before is None else f"from {row.not_before:%Y-%m-%d %H:%M} UTC",
        ),
        *manifest_changes(base.version, row.model_version),
        *card_changes(base.version, row.model_version),
        *object_changes(base.live, row.model_version),
    ]  # fmt: skip


def changes_of(row: ModelRequest) -> list[Change]:
    """Return everything that an approval would change, against each version that serves there, else the last one."""
    found = bases_of(row)
    told = [base for base in found.all if base.live] or found.all[:1]
    if len(told) == 1:
        return changes_against(row, told[0])
    return [
        replace(line, note=f"{line.note}, against {base.title}".removeprefix(", "))
        for base in told
        for line in changes_against(row, base)
    ]
