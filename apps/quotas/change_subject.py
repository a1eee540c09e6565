"""Change requests as a subject of approval: what is approved, by whom not, and which facts policies may ask about."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from django.urls import reverse

from apps.approvals.ports import Change, FactValue, Leaf, describe_fact
from apps.core.errors import NotVisible
from apps.provisioning.choices import PlanStatus
from apps.quotas import change_granting
from apps.quotas import change_records as records
from apps.quotas.changes import SUBJECT_TYPE, Blocking, Informing, Receiving, handler_of
from apps.quotas.choices import ChangeKind
from apps.quotas.models import ChangeRequest
from apps.teams import scope

if TYPE_CHECKING:
    from apps.approvals.models import Grant

_WORDS = {
    "create": "created",
    "remove": "removed",
    "retain": "left on the cluster, no longer declared",
    "drop": "no longer set",
}
YES, NO = "yes", "no"


def describe_facts() -> None:
    """Say what the facts of change requests mean; the policy pages show it."""
    kinds = ", ".join(str(value) for value in ChangeKind.values)
    for name, label, meaning, unit in (
        ("change_kind", "Kind of change", f"One of {kinds}.", ""),
        ("of_cluster", "Changes the cluster itself", "yes for a change of no team's workspace, else no.", ""),
        ("objects_changed", "Objects changed", "How many objects on the cluster change.", "objects"),
        ("removes_objects", "Objects removed", "How many objects on the cluster are removed.", "objects"),
        ("workspaces_changed", "Workspaces changed", "How many workspaces' objects change.", "workspaces"),
    ):
        describe_fact(name, label=label, meaning=meaning, unit=unit)


def load(uid: uuid.UUID) -> ChangeRequest:
    """Return a change with what its descriptions need. Raises NotVisible where it is gone."""
    change = (
        ChangeRequest.objects.select_related(
            "workspace__team__unit", "receiver__unit", "cluster", "plan", "requester", "approval"
        )
        .filter(uid=uid)
        .first()
    )
    if change is None:
        raise NotVisible
    return change


def diff_of(change: ChangeRequest) -> list[Change]:
    """Return the settings and objects that change; the same change in many workspaces is one line."""
    cluster = change.cluster.slug
    lines = [
        Change(s["cluster"], s["object"], s["path"], s["before"], s["after"], s["note"])
        for s in change.change["settings"]
        if s["before"] != s["after"]
    ]
    for line in change.change["objects"]:
        before = line["before"]
        after = _WORDS.get(line["operation"], line["after"])
        lines.append(Change(cluster, line["object"], line["path"], before, after, where_words(line)))
    return lines


def where_words(line: Mapping[str, object]) -> str:
    """Return in how many workspaces a line holds, with names of a few."""
    names = [str(name) for name in line["names"]] if isinstance(line["names"], list) else []
    count = int(str(line["count"]))
    if count <= 1:
        return f"in {names[0]}" if names else ""
    more = f" and {count - len(names):,} more" if count > len(names) else ""
    return f"the same change in {count:,} workspaces: {', '.join(names)}{more}"


def plan_blockers(change: ChangeRequest) -> list[str]:
    """Return why the plans keep it from being approved: somebody else's fields, a removal that no plan names yet."""
    plans = records.plans_of(change)
    found: list[str] = []
    ready = [plan for plan in plans if plan.status == PlanStatus.READY]
    fought = sorted({c["manager"] or "another manager" for plan in ready for entry in plan.entries
                     for c in entry.get("conflicts", [])})  # fmt: skip
    if fought:
        found.append(
            f"Somebody else manages fields that it sets: {', '.join(fought)}. Let a platform admin undo that on the"
            " cluster, or apply again what was approved; then the cluster is asked anew."
        )
    if change.change.get("removes") and len(ready) < len(change.change.get("declarations", [])):
        found.append("It removes objects, and the cluster's plan, which has to name them, is not ready yet.")
    return found


class ChangeRequestSubject:
    """Registered with the approvals room when the quotas room loads."""

    subject_type = SUBJECT_TYPE
    team_is_side = True
    label = "Change request"

    def canonical(self, uid: uuid.UUID) -> bytes:
        """Return the exact bytes: request, values, settings, leaves."""
        return records.canonical(load(uid))

    def leaves(self, uid: uuid.UUID) -> Sequence[Leaf]:
        """Return one leaf per changed field, created or removed object."""
        return [Leaf(leaf["cluster"], leaf["path"], leaf["digest"]) for leaf in load(uid).change["leaves"]]

    def title(self, uid: uuid.UUID) -> str:
        """Return the change in one line."""
        return f"Change: {load(uid).title}"

    def diff(self, uid: uuid.UUID) -> Sequence[Change]:
        """Return settings and objects, before and after."""
        return diff_of(load(uid))

    def requester_side(self, uid: uuid.UUID) -> set[int]:
        """Return the requester and, for a workspace, everybody who uses it as a member of its team."""
        change = load(uid)
        side = {change.requester_id}
        return side if change.team is None else side | scope.members(change.team.pk)

    def facts(self, uid: uuid.UUID) -> Mapping[str, FactValue]:
        """Return the facts that policies may ask about."""
        change = load(uid)
        declarations = change.change.get("declarations", [])
        facts: dict[str, FactValue] = {}
        handler = handler_of(change.kind)
        if isinstance(handler, Informing):
            facts.update(handler.facts(change))
        facts.update(
            {
                "change_kind": str(change.kind),
                "of_cluster": YES if change.team is None else NO,
                "objects_changed": int(change.change.get("objects_changed", 0)),
                "removes_objects": len(change.change.get("removes", [])),
                "workspaces_changed": sum(1 for item in declarations if item["kind"] == "workspace"),
            }
        )
        if change.workspace is not None:
            facts["environment"] = str(change.workspace.environment)
        return facts

    def blockers(self, uid: uuid.UUID, at: datetime) -> Sequence[str]:
        """Return why nobody may approve it now: it is outdated, the workspace is archived, the plans say no."""
        change = load(uid)
        found: list[str] = []
        if change.change.get("outdated"):
            found.append(change_granting.MOVED)
        archived = change.workspace is not None and change.workspace.archived_at is not None
        if archived and change.kind != ChangeKind.RESTORE:
            found.append("The workspace is archived.")
        found += plan_blockers(change)
        handler = handler_of(change.kind)
        if isinstance(handler, Blocking):
            found += handler.blockers(change, at)
        return found

    def url(self, uid: uuid.UUID) -> str:
        """Return the change's page."""
        return reverse("quotas:change-detail", kwargs={"change_uid": uid})

    def summary_template(self, uid: uuid.UUID) -> str:
        """Return the template that shows settings, objects and plans to the approver."""
        return "quotas/change_summary.html"

    def summary_context(self, uid: uuid.UUID) -> Mapping[str, object]:
        """Return what that template needs."""
        from apps.quotas.change_selectors import evidence

        return evidence(load(uid))

    def queue(self, uid: uuid.UUID) -> str:
        """Return the line of the pool from which a change takes, "" for all that take from none."""
        change = load(uid)
        handler = handler_of(change.kind)
        return handler.line(change) if isinstance(handler, Receiving) else ""

    def on_granted(self, uid: uuid.UUID, grant: Grant) -> None:
        """Write the kind's rows and declare the objects."""
        change_granting.on_granted(uid, grant)

    def on_concluded(self, uid: uuid.UUID, status: str, reason: str) -> None:
        """Take note of an end without a grant, or of waiting."""
        change_granting.on_concluded(uid, status, reason)
