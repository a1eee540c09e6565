"""Adopting drift: what lives on the cluster becomes what is declared, by an approved change like any other.

The declared object takes the live value of the drifted fields over, as the observer wrote it down, and nothing else of
what lives there. GPUs are promised by the pool's ledger alone: a live GPU limit above the declared one is refused here.
"""

from __future__ import annotations

import copy
import json
import re
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db import transaction
from django.urls import reverse

from apps.approvals.ports import Change
from apps.clusters.models import Cluster
from apps.clusters.quantities import parse
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotVisible
from apps.provisioning import drift_actions
from apps.provisioning.choices import DeclarationKind, DriftDecision
from apps.provisioning.drifting import BEING_DELETED, SHOWN_CHARACTERS
from apps.provisioning.models import Declaration, Drift
from apps.quotas.change import object_path
from apps.quotas.changes import Proposed, policy_published, request_change
from apps.quotas.choices import OPEN_STATUSES, ChangeKind
from apps.quotas.manifests import LABEL, Manifest
from apps.quotas.models import ChangeRequest, Workspace

_PART = re.compile(r'\.?([A-Za-z_][A-Za-z0-9_]*)|\[("(?:[^"\\]|\\.)*")\]|\[(\d+)\]|\[name=([^\]]+)\]')
_GPU_KEY = re.compile(r"^requests\..+/.+$")
#: Objects whose numbers come from approved quotas.
_QUEUES = frozenset({"ClusterQueue", "LocalQueue", "Cohort"})


def path_of(text: str) -> list[str | int]:
    """Return a field path as `provisioning.diff.render_path` wrote it, in parts. Raises ValueError."""
    parts: list[str | int] = []
    at = 0
    while at < len(text):
        match = _PART.match(text, at)
        if match is None:
            raise ValueError(f"no path: {text!r}")
        plain, quoted, index, name = match.groups()
        parts.append(plain or (json.loads(quoted) if quoted else int(index) if index is not None else f"name={name}"))
        at = match.end()
    return parts


def live_value(declared: Any, shown: str) -> Any:
    """Return a live value from how it was written down; text stays text where the declared value is text."""
    if isinstance(declared, str):
        return shown
    try:
        return json.loads(shown)
    except ValueError:
        return shown


def with_field(manifest: Manifest, path: Sequence[str | int], shown: str) -> Manifest:
    """Return an object with one field as it lives ("" : without it). Raises Invalid where it has no such place."""
    result = copy.deepcopy(manifest)
    place: Any = result
    for part in path[:-1]:
        place = _below(place, part)
    last = path[-1]
    if isinstance(place, dict) and isinstance(last, str):
        if shown:
            place[last] = live_value(place.get(last, shown), shown)
        else:
            place.pop(last, None)
        return result
    if isinstance(place, list):
        return _with_item(result, place, last, shown)
    raise Invalid({"": "The object has no such field any more: look at the drift again."})


def _below(place: Any, part: str | int) -> Any:
    if isinstance(place, dict) and part in place:
        return place[part]
    if isinstance(place, list):
        index = _index(place, part)
        if index is not None:
            return place[index]
    raise Invalid({"": "The object has no such field any more: look at the drift again."})


def _index(items: list[Any], part: str | int) -> int | None:
    if isinstance(part, int):
        return part if part < len(items) else None
    name = part.removeprefix("name=")
    return next((n for n, item in enumerate(items) if isinstance(item, dict) and item.get("name") == name), None)


def _with_item(result: Manifest, items: list[Any], part: str | int, shown: str) -> Manifest:
    index = _index(items, part)
    if not shown:
        if index is not None:
            del items[index]
        return result
    value = live_value(items[index] if index is not None else None, shown)
    if index is None:
        items.append(value)
    else:
        items[index] = value
    return result


def refusal(drift: Drift) -> str | None:
    """Return why a drift cannot be adopted; None where it can."""
    if drift.declaration.kind != DeclarationKind.WORKSPACE:
        return "Only what a workspace declares can be adopted; a cluster's baseline is rendered by the portal."
    if not drift.field or drift.field == BEING_DELETED:
        return "An object that was deleted cannot be adopted: apply it again, or ask for its removal."
    if drift.kind in _QUEUES:
        return "Its numbers follow the approved quotas: request quota instead."
    if len(drift.live) >= SHOWN_CHARACTERS:
        return "The value is too long to be kept whole: apply what was approved again."
    try:
        path = path_of(drift.field)
    except ValueError:
        return "This field cannot be adopted: apply what was approved again."
    if path[:2] == ["metadata", "labels"] and str(path[-1]).startswith(f"{LABEL}/"):
        return "The portal finds its objects by this label: apply it again."
    if drift.kind == "ResourceQuota" and path[:2] == ["spec", "hard"] and _GPU_KEY.match(str(path[-1])):
        return _gpu_refusal(drift)
    return None


def refusals(drifts: Sequence[Drift]) -> dict[int, str]:
    """Return why drifts cannot be adopted now, by id: by what they are, or because of what is asked for already.

    Three queries, however many drifts. What it leaves out is taken by `request_adoption`.
    """
    found = {drift.pk: why for drift in drifts if (why := refusal(drift)) is not None}
    left = [drift for drift in drifts if drift.pk not in found]
    if not left:
        return found
    if not policy_published():
        return found | {drift.pk: "No policy for changes is published yet." for drift in left}
    owners = {drift.declaration.owner_uid for drift in left}
    asked = set(
        ChangeRequest.objects.filter(
            kind=ChangeKind.ADOPT_DRIFT, status__in=OPEN_STATUSES, workspace__uid__in=owners
        ).values_list("workspace__uid", flat=True)
    )
    known = set(Workspace.objects.filter(uid__in=owners).values_list("uid", flat=True))
    for drift in left:
        owner = drift.declaration.owner_uid
        if owner not in known:
            found[drift.pk] = "Only what a workspace declares can be adopted."
        elif drift.decision == DriftDecision.ADOPT and owner in asked:
            found[drift.pk] = "It is asked for already: the change request waits for its decision."
        elif owner in asked:
            found[drift.pk] = "Another adoption in this workspace waits for its decision: let that be decided first."
    return found


def _gpu_refusal(drift: Drift) -> str | None:
    if not drift.live:
        return "Without this key the namespace would have no limit at all: apply what was approved again."
    try:
        more = parse(drift.live) != parse(drift.declared)
    except ValueError:
        more = True
    # Fewer, too: the ledger would go on promising what the cluster no longer gives.
    return "GPUs are promised by the pool's ledger: request quota instead of adopting the number." if more else None


def _drifts(values: dict[str, Any], *, unresolved: bool = False) -> list[Drift]:
    uids = [uuid.UUID(str(uid)) for uid in values["drifts"]]
    rows = Drift.objects.select_related("declaration").filter(uid__in=uids).order_by("pk")
    found = list(rows.filter(resolved_at__isnull=True) if unresolved else rows)
    if len(found) != len(set(uids)):
        raise Invalid({"": "Some of it lives as declared again meanwhile: look at the drift again."})
    return found


class AdoptDriftHandler:
    """Drift of one workspace taken over into what is declared. Values: {"drifts": uids, "fields": as seen}."""

    kind = ChangeKind.ADOPT_DRIFT

    def check(self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any]) -> dict[str, Any]:
        """Return which fields are adopted with the values seen. Raises Invalid where one cannot be."""
        if workspace is None:
            raise Invalid({"": "Only what a workspace declares can be adopted."})
        try:
            drifts = _drifts(values, unresolved=True)
        except (KeyError, ValueError) as error:
            raise Invalid({"": "Say which drift is to be adopted."}) from error
        if not drifts:
            raise Invalid({"": "Say which drift is to be adopted."})
        for drift in drifts:
            if drift.declaration.owner_uid != workspace.uid or drift.declaration.cluster_id != cluster.pk:
                raise Invalid({"": "This drift is of another workspace."})
            if why := refusal(drift):
                raise Invalid({"": f"{drift.field}: {why}" if drift.field else why})
        fields = [
            {"kind": d.kind, "namespace": d.namespace, "name": d.name, "field": d.field, "declared": d.declared,
             "live": d.live, "manager": d.manager}
            for d in drifts
        ]  # fmt: skip
        return {"drifts": [str(drift.uid) for drift in drifts], "fields": fields}

    def title(self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any]) -> str:
        """Return the change in one line."""
        count = len(values["fields"])
        return f"Adopt {count} field{'' if count == 1 else 's'} of {workspace} as they live"

    def settings_diff(self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any]) -> list[Change]:
        """Return who set each field, and from what to what."""
        return [
            Change(
                cluster.slug, f"{one['kind']} {one['name']}",
                f"{one['field']}, set by {one['manager'] or 'somebody unknown'}", one["declared"] or "absent",
                one["live"] or "absent",
            )
            for one in values["fields"]
        ]  # fmt: skip

    def propose(
        self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any], at: datetime
    ) -> list[Proposed]:
        """Return the workspace's declared objects with the adopted fields as they live."""
        if workspace is None:
            raise Invalid({"": "Only what a workspace declares can be adopted."})
        declaration = Declaration.objects.filter(
            kind=DeclarationKind.WORKSPACE, owner_uid=workspace.uid, cluster=cluster
        ).first()
        if declaration is None:
            raise Invalid({"": "Nothing is declared for this workspace."})
        rows = declaration.declared_objects.filter(removal="").order_by("ordinal", "id")
        manifests: list[Manifest] = [json.loads(bytes(row.body)) for row in rows]
        places = {object_path(manifest): index for index, manifest in enumerate(manifests)}
        for one in values["fields"]:
            stub = {"kind": one["kind"], "metadata": {"name": one["name"], "namespace": one["namespace"]}}
            index = places.get(object_path(_typed(stub, manifests)))
            if index is None:
                raise Invalid({"": f"{one['kind']} {one['name']} is no longer declared."})
            manifests[index] = with_field(manifests[index], path_of(one["field"]), one["live"])
        return [Proposed(DeclarationKind.WORKSPACE, workspace.uid, declaration.title, workspace.team_id, manifests)]

    def blockers(self, change: ChangeRequest, at: datetime) -> Sequence[str]:
        """Return why it cannot be approved now: what lives there is no longer what was asked about."""
        seen = {(one["kind"], one["name"], one["field"]): one["live"] for one in change.values["fields"]}
        live = {(d.kind, d.name, d.field): d.live for d in _rows(change) if d.resolved_at is None}
        if live != seen:
            return ["What lives on the cluster has changed since: withdraw this and look at the drift again."]
        return []

    def on_granted(self, change: ChangeRequest, at: datetime) -> None:
        """What is applied next resolves these drifts as adopted."""
        drift_actions.adopted([row.pk for row in _rows(change)], change.uid)

    def on_concluded(self, change: ChangeRequest, status: str) -> None:
        """Nobody granted it: the drift is to be decided again."""
        drift_actions.not_adopted([row.pk for row in _rows(change)])


def _rows(change: ChangeRequest) -> list[Drift]:
    return list(Drift.objects.filter(uid__in=change.values["drifts"]).order_by("pk"))


def _typed(stub: dict[str, Any], manifests: Sequence[Manifest]) -> Manifest:
    """Return the declared object that a finding names; the stub itself where there is none."""
    for manifest in manifests:
        meta = manifest["metadata"]
        same = (manifest["kind"], meta["name"]) == (stub["kind"], stub["metadata"]["name"])
        if same and (meta.get("namespace") or "") == stub["metadata"]["namespace"]:
            return manifest
    return {"apiVersion": "v1", **stub}


@transaction.atomic
def request_adoption(drift_ids: Sequence[int], reason: str, *, actor: Actor) -> ChangeRequest:
    """Ask to adopt drift of one workspace. Raises NotVisible, NotAllowed, Invalid, Conflict (one is asked already)."""
    drifts = list(Drift.objects.select_related("declaration").filter(pk__in=list(drift_ids)).order_by("pk"))
    if not drifts:
        raise NotVisible
    declaration = drifts[0].declaration
    workspace = Workspace.objects.filter(uid=declaration.owner_uid).first()
    if workspace is None or declaration.kind != DeclarationKind.WORKSPACE:
        raise Conflict("Only what a workspace declares can be adopted.")
    change = request_change(
        ChangeKind.ADOPT_DRIFT,
        cluster_id=declaration.cluster_id,
        workspace_id=workspace.pk,
        values={"drifts": [str(drift.uid) for drift in drifts]},
        reason=reason,
        actor=actor,
    )
    if change.is_open:  # a policy may have granted it at once
        drift_actions.adoption_requested([drift.pk for drift in drifts], change.uid, actor=actor)
    return change


def url_of(change: ChangeRequest) -> str:
    """Return the page of a change request."""
    return reverse("quotas:change-detail", kwargs={"change_uid": change.uid})
