"""Releases as a subject of approval: what is approved, by whom not, which facts and terms policies know."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.db.models import Q
from django.urls import reverse

from apps.approvals.ports import Change, FactValue, Leaf, describe_fact, describe_term
from apps.catalogue import people
from apps.core import clock
from apps.core.errors import Invalid, NotVisible
from apps.deployments import granting, grants, ladder, reading, records
from apps.deployments.choices import ON_CLUSTER
from apps.deployments.drafting import SUBJECT_TYPE, Draft, assess
from apps.deployments.models import Endpoint, Release
from apps.provisioning.choices import PlanStatus
from apps.quotas.choices import Environment
from apps.teams import scope

if TYPE_CHECKING:
    from apps.approvals.models import Grant


def describe() -> None:
    """Say what the facts and terms of releases mean; the policy pages show it."""
    for name, label, meaning, unit in (
        ("release_kind", "Kind of release", "deploy, change, roll_back.", ""),
        ("data_class", "Data class", "The most sensitive class of the version and its lineage.", ""),
        ("regulated", "Regulated data", "yes where any of its data classes is a regulated one.", ""),
        ("risk_tier", "Risk tier", "The model's tier under the EU AI Act.", ""),
        ("covered", "Version approved", "yes where a usable grant covers the version there.", ""),
        ("placement_ok", "Placement", "yes where every placement rule holds on the cluster.", ""),
        ("on_premises", "On premises", "yes where the cluster stands on premises.", ""),
        ("staging_hours", "Hours in staging", "How long these bytes took all traffic in staging.", "hours"),
        ("canary", "Canary", "yes where it starts beside the live release.", ""),
        ("canary_hours", "Hours of the canary", "Sum of the ladder's hours.", "hours"),
        ("granted_traffic", "Traffic granted", "How much of the traffic the version's grant covers.", "per cent"),
        ("first_release", "First release", "yes where nothing is live on the endpoint.", ""),
        ("device_class", "Device class", "gpu or cpu.", ""),
        ("flavour_changes", "Another flavour", "yes where the live release has another flavour.", ""),
        ("max_replicas", "Replicas", "At the largest.", "replicas"),
        ("max_units", "Units", "GPUs (or cores) at the largest.", "units"),
        ("bound_by", "Bound by", "bytes, or name where nothing verifies them on the cluster.", ""),
        ("over_budget", "Over the budget", "yes where the cost change is more than is left of the budget.", ""),
        ("emergency", "Emergency", "yes on the emergency path.", ""),
    ):
        describe_fact(name, label=label, meaning=meaning, unit=unit)
    for name, label, meaning, unit in (
        ("staging_hours", "Hours in staging", "A production release needs so many hours in staging first.", "hours"),
        ("canary_hours_min", "Shortest canary", "The ladder lasts at least so long.", "hours"),
        ("canary_hours_max", "Longest canary", "The ladder lasts at most so long.", "hours"),
        ("max_traffic", "Most traffic", "No release takes more than so much of the traffic.", "per cent"),
        ("expiry_action", "When approval ends", "block_new, scale_back or alert_only.", ""),
        ("logger", "Prediction records", '"required": predictions go to the cluster\'s sink.', ""),
        ("explainer", "Explainer", '"required": the release has an explainer.', ""),
    ):
        describe_term(SUBJECT_TYPE, name, label=label, meaning=meaning, unit=unit)


def load(uid: uuid.UUID) -> Release:
    """Return a release with what its descriptions need. Raises NotVisible where it is gone."""
    release = (
        Release.objects.select_related(
            "endpoint__workspace__team__unit", "endpoint__workspace__cluster", "endpoint__current__flavour",
            "endpoint__current__model_version", "model_version__model", "flavour", "plan",
        )
        .filter(uid=uid)
        .first()
    )  # fmt: skip
    if release is None:
        raise NotVisible
    return release


def _row(uid: uuid.UUID, *names: str) -> tuple[Any, ...]:
    """Return single columns of a release: a decision asks often, and needs no whole rows. Raises NotVisible."""
    found = Release.objects.filter(uid=uid).values_list(*names).first()
    if found is None:
        raise NotVisible
    return tuple(found)


def draft_of(release: Release) -> Draft:
    """Return a stored release as a draft."""
    endpoint: Endpoint = release.endpoint
    return Draft(
        endpoint.workspace, endpoint.name, endpoint, release.model_version, release.flavour,
        reading.spec_of(release), bool(release.change.get("emergency")),
    )  # fmt: skip


class ReleaseSubject:
    """Registered with the approvals room when the deployments room loads."""

    subject_type = SUBJECT_TYPE
    team_is_side = True
    label = "Release"

    def canonical(self, uid: uuid.UUID) -> bytes:
        """Return the exact bytes: version digest, wish, estimate, verdicts, leaves."""
        release = Release.objects.select_related("endpoint__workspace__cluster", "flavour").filter(uid=uid).first()
        if release is None:
            raise NotVisible
        return records.canonical(release)

    def leaves(self, uid: uuid.UUID) -> Sequence[Leaf]:
        """Return one leaf per object and state of the rollout."""
        leaves = _row(uid, "change__leaves")[0]
        return [Leaf(leaf["cluster"], leaf["path"], leaf["digest"]) for leaf in leaves]

    def matter(self, uid: uuid.UUID) -> str:
        """Return what an emergency is about: the model in its workspace."""
        return ":".join(map(str, _row(uid, "model_version__model_id", "endpoint__workspace_id")))

    def title(self, uid: uuid.UUID) -> str:
        """Return the release in one line."""
        release = load(uid)
        word = "Emergency release" if release.change.get("emergency") else "Release"
        return f"{word}: {records.describe(release)}"

    def diff(self, uid: uuid.UUID) -> Sequence[Change]:
        """Return the wish against what is live, then every object that changes."""
        return records.diff_of(load(uid))

    def requester_side(self, uid: uuid.UUID) -> set[int]:
        """Return the requester and everybody who will use it as a member of the receiving team."""
        requester_id, team_id = _row(uid, "requester_id", "endpoint__workspace__team_id")
        return {requester_id} | scope.members(team_id)

    def authors(self, uid: uuid.UUID) -> set[int]:
        """Return who asked for it, and who wrote the version and its card."""
        release = Release.objects.select_related("model_version__card").only(
            "requester", "model_version__author", "model_version__last_editor", "model_version__editors",
            "model_version__model", "model_version__card__number",
        ).filter(uid=uid).first()  # fmt: skip
        if release is None:
            raise NotVisible
        return {release.requester_id} | people.writers(release.model_version)

    def evidence_producers(self, uid: uuid.UUID) -> set[int]:
        """Return who produced evidence about the bytes that it releases, answered their controls, or keeps such a CI.

        Evidence that was withdrawn since counts: the version may have been approved on it. A release has none besides:
        what it is judged by (room, placement, hours, plan) the portal computes.
        """
        release = Release.objects.select_related("model_version").filter(uid=uid).first()
        if release is None:
            raise NotVisible
        return people.producers(release.model_version, ever=True)

    def written_by(self, user_ids: Collection[int]) -> Iterable[uuid.UUID]:
        """Return the releases that any of these people asked for, or whose version they wrote."""
        return Release.objects.filter(Q(requester__in=user_ids) | people.wrote(user_ids)).values_list("uid", flat=True)

    def proved_by(self, user_ids: Collection[int]) -> Iterable[uuid.UUID]:
        """Return the releases of versions about which any of these people produced evidence or answers."""
        return Release.objects.filter(people.proved(user_ids, ever=True)).values_list("uid", flat=True)

    def facts(self, uid: uuid.UUID) -> Mapping[str, FactValue]:
        """Return the facts; the cost is the frozen estimate's, whether it fits is as of now."""
        release = load(uid)
        try:
            facts = dict(assess(draft_of(release), clock.now()).facts)
        except Invalid:
            return {}
        frozen = release.cost
        for name in ("request.monthly_cost", "monthly_cost_change"):
            if frozen is not None:
                facts[name] = frozen.amount
            else:
                facts.pop(name, None)
        facts["release_kind"] = str(release.kind)
        return facts

    def grant_scope(self, uid: uuid.UUID) -> Mapping[str, object]:
        """Return what the grant is good for: this release in this workspace."""
        workspace = "endpoint__workspace"
        digest, environment, cluster, workspace_uid, endpoint_uid = _row(
            uid, "version_digest", f"{workspace}__environment", f"{workspace}__cluster__slug", f"{workspace}__uid",
            "endpoint__uid",
        )  # fmt: skip
        return {
            "manifest": digest,
            "environments": [environment],
            "clusters": [cluster],
            "workspaces": [str(workspace_uid)],
            "endpoint": str(endpoint_uid),
        }

    def renewed(self, uid: uuid.UUID, at: datetime) -> bool:
        """Whether nobody needs to hear that its grant ends: it is on no cluster any more."""
        return _row(uid, "status")[0] not in ON_CLUSTER

    def blockers(self, uid: uuid.UUID, at: datetime) -> Sequence[str]:
        """Return why nobody may approve it now: no usable version grant, no room ever, placement, staging, plan."""
        release = load(uid)
        found: list[str] = []
        if granting.moved_on(release):
            found.append(granting.MOVED_ON)
        if release.endpoint.removed_at is not None or release.endpoint.workspace.archived_at is not None:
            found.append("The endpoint or its workspace is gone.")
        emergency = bool(release.change.get("emergency"))
        workspace = release.endpoint.workspace
        traffic = 1 if release.change.get("canary") else ladder.ALL
        if not emergency and grants.version_grant(release.version_digest, workspace, at, traffic) is None:
            found.append(grants.why_not(release.version_digest, workspace, at, traffic))
        found += granting.unfit_now(release)
        found += [line.words for line in granting.fit_now(release).lines if max(line.during, line.after) > line.have]
        if not emergency:
            found += _staging(release, at)
        return [*found, *_plan(release)]

    def url(self, uid: uuid.UUID) -> str:
        """Return the release's page."""
        return reverse("deployments:release-detail", kwargs={"release_uid": uid})

    def summary_template(self, uid: uuid.UUID) -> str:
        """Return the template that shows cost, room, placement, ladder and plan to the approver."""
        return "deployments/approval_summary.html"

    def summary_context(self, uid: uuid.UUID) -> Mapping[str, object]:
        """Return what that template needs."""
        from apps.deployments.selectors import release_evidence

        return release_evidence(load(uid))

    def on_granted(self, uid: uuid.UUID, grant: Grant) -> None:
        """Declare the release's first state; raises CannotTake where other endpoints hold the room."""
        granting.on_granted(uid, grant)

    def on_concluded(self, uid: uuid.UUID, status: str, reason: str) -> None:
        """Take note of an end without a grant, or of waiting."""
        granting.on_concluded(uid, status, reason)


def _staging(release: Release, at: datetime) -> list[str]:
    """Return how much time in staging is missing; the terms frozen with the release count, and those of now."""
    workspace = release.endpoint.workspace
    if workspace.environment != Environment.PRODUCTION:
        return []
    needed = timedelta(hours=int(release.change.get("terms", {}).get("staging_hours", 0)))
    passed = reading.staging_time(release.version_digest, at)
    if passed >= needed:
        return []
    hours = -(-(needed - passed) // timedelta(hours=1))
    return [f"It needs {needed // timedelta(hours=1)} h in staging with exactly these bytes; {hours} h are missing."]


def _plan(release: Release) -> list[str]:
    plan = release.plan
    if plan is None or plan.status != PlanStatus.READY:
        return []
    fought = sorted({c["manager"] for entry in plan.entries for c in entry.get("conflicts", [])})
    if not fought:
        return []
    return [f"Somebody else manages fields that it sets: {', '.join(fought)}. Let a platform admin undo that there."]
