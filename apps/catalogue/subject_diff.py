"""What changes against the version that is approved now: manifest, card and placement, line by line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from django.db.models import F, Q

from apps.approvals.ports import Change
from apps.catalogue import cards
from apps.catalogue.choices import AskStatus
from apps.catalogue.models import ModelRequest, ModelVersion
from apps.quotas.models import Workspace

#: A change of thousands of files is shown as far as somebody reads; the digest covers all of it.
MOST_FILES = 200


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
    rows = rows.select_related("model_version__card", "model_version__model")
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


def changes_of(row: ModelRequest) -> list[Change]:
    """Return everything that an approval of the request would change against what was approved last."""
    before = before_of(row)
    earlier = before.model_version if before is not None else None
    return [
        *scope_changes(before.scope if before is not None else None, row.scope),
        Change(
            "", "validity", "days", str(before.valid_days) if before is not None else "", str(row.valid_days),
            "counted from the approval" if row.not_before is None else f"from {row.not_before:%Y-%m-%d %H:%M} UTC",
        ),
        *manifest_changes(earlier, row.model_version),
        *card_changes(earlier, row.model_version),
    ]  # fmt: skip
