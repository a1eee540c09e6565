"""A request for a version as a subject of approval: what is approved, by whom not, and what policies ask about."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.urls import reverse

from apps.approvals.ports import (
    Change,
    FactValue,
    Leaf,
    Renewal,
    StartingPolicy,
    describe_fact,
    register_starting_policy,
)
from apps.catalogue import controls, controls_state, people, recertifying, subject_diff
from apps.catalogue import evidence_events as events
from apps.catalogue import manifest as manifests
from apps.catalogue import requests as asks
from apps.catalogue.choices import AskStatus, ExceptionKind, VersionStatus
from apps.catalogue.models import Evidence, ModelRequest, ModelVersion, VersionException
from apps.catalogue.ports import tell_grant_change, verifies
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.canonical import digest_of
from apps.core.errors import Conflict, NotVisible
from apps.core.row_security import lifted
from apps.teams import scope as teams

if TYPE_CHECKING:
    from apps.approvals.models import Grant

SYSTEM = Actor.system("catalogue.requests")
_STATUS = {
    "rejected": AskStatus.REJECTED,
    "withdrawn": AskStatus.WITHDRAWN,
    "lapsed": AskStatus.LAPSED,
    "superseded": AskStatus.SUPERSEDED,
}
YES, NO = "yes", "no"


def describe_facts() -> None:
    """Say what the facts of these requests mean; the policy pages show it."""
    for name, label, meaning, unit in (
        ("data_class", "Data class", "The most sensitive data class of the version, its lineage included.", ""),
        ("regulated", "Regulated", "yes where personal, financial, cardholder or health data are involved.", ""),
        ("risk_tier", "Risk tier", "prohibited, high, transparency, minimal, or unknown.", ""),
        ("act_role", "Role under the AI Act", "provider, deployer …, or unknown.", ""),
        ("act_annex", "Annex of the AI Act", "The annex that makes it a high risk, or none.", ""),
        ("solely_automated", "Decides alone", "yes where it decides about people without one of them.", ""),
        ("serves_image", "Serving image", "yes where the version brings its own serving image.", ""),
        ("high_risk", "High risk", "yes for the high tier, health data and solely automated decisions.", ""),
        ("controls_open", "Open controls", "How many required controls are not met.", "controls"),
        ("bound", "Bound by", "bytes where everything loaded is fixed by digest or verified, else name.", ""),
        ("max_traffic", "Largest share of traffic", "How much of an endpoint's traffic it may take.", "%"),
        ("renewal", "Renewal", "yes where an approval of the same bytes is looked at again.", ""),
        ("same_bytes", "Same bytes as approved before", "yes where this very manifest was approved before.", ""),
        ("cross_border", "Across the border of the EEA", "yes where a cluster asked for stands outside it.", ""),
        ("clusters", "Clusters", "How many clusters are asked for.", "clusters"),
        ("workspaces", "Workspaces", "How many workspaces are asked for.", "workspaces"),
        ("valid_days", "Days of validity", "For how many days it is asked.", "days"),
    ):
        describe_fact(name, label=label, meaning=meaning, unit=unit)


_COMPLIANCE: dict[str, Any] = {
    "name": "Compliance", "role": "compliance", "scope": "installation", "quorum": 1, "due_hours": 120,
    "escalate_hours": 72, "escalate_to": {"role": "platform_admin", "scope": "installation"},
}  # fmt: skip
#: Compliance decides; what may harm people, or holds health data, is looked at by the unit's owner as well.
MODEL_VERSIONS: dict[str, Any] = {
    "validity_days": 365,
    "automatic": [],
    "separation": {"evidence_producers": True},
    "stages": [
        _COMPLIANCE,
        {"name": "Unit owner, for high risk", "role": "unit_owner", "scope": "unit", "quorum": 1, "due_hours": 120,
         "when": [["high_risk", "eq", "yes"]]},
    ],
}  # fmt: skip


def propose_policy() -> None:
    """Propose rules to start from; nothing is in force before a platform admin publishes them."""
    register_starting_policy(
        StartingPolicy("model-versions", "Approval of model versions", asks.SUBJECT_TYPE, MODEL_VERSIONS)
    )


def load(uid: uuid.UUID) -> ModelRequest:
    """Return a request with what its descriptions need. Raises NotVisible where it is gone."""
    row = (
        ModelRequest.objects.select_related(
            "model_version__model__team__unit", "model_version__card", "requester", "approval", "renews"
        )
        .filter(uid=uid)
        .first()
    )
    if row is None:
        raise NotVisible
    return row


def bound_of(version: ModelVersion, clusters: Sequence[str]) -> str:
    """Return how the version's bytes are bound on these clusters: bytes | name."""
    manifest = manifests.parse(version.manifest)
    return manifests.bound_where(manifest, verified=all(verifies(slug) for slug in clusters))


def lowered_until(version: ModelVersion, at: datetime) -> tuple[bool, datetime | None]:
    """Return whether the version's classification was lowered, and until when an exception for that is in force."""
    if not version.classification_records.filter(origin="lowered").exists():
        return False, None
    rows = VersionException.objects.filter(
        model_version=version, kind=ExceptionKind.CLASSIFICATION, approved=True, expires_at__gt=at
    )
    return True, rows.order_by("-expires_at").values_list("expires_at", flat=True).first()


class VersionRequestSubject:
    """Registered with the approvals room when the catalogue loads."""

    subject_type = asks.SUBJECT_TYPE
    team_is_side = True
    label = "Model version"

    def canonical(self, uid: uuid.UUID) -> bytes:
        """Return the exact bytes: the manifest's digest, scope, validity and checklist."""
        return asks.canonical(load(uid))

    def leaves(self, uid: uuid.UUID) -> Sequence[Leaf]:
        """Return one leaf per cluster for the manifest, and one for the scope."""
        row = load(uid)
        found = [Leaf(slug, "manifest", row.model_version.digest) for slug in row.scope["clusters"]]
        return [*found, *(Leaf(slug, "scope", digest_of(row.scope)) for slug in row.scope["clusters"])]

    def title(self, uid: uuid.UUID) -> str:
        """Return the request in one line."""
        row = load(uid)
        where = ", ".join(one.lower() for one in asks.environments_of(row.scope))
        again = "again " if row.renews_id is not None else ""
        return f"Approve {row.model_version.model.name} {row.model_version.label} {again}for {where}"

    def diff(self, uid: uuid.UUID) -> Sequence[Change]:
        """Return what differs from what was approved last: placement, manifest, card."""
        return subject_diff.changes_of(load(uid))

    def requester_side(self, uid: uuid.UUID) -> set[int]:
        """Return the requester, who wrote the version, and everybody of the owning team."""
        row = load(uid)
        return {row.requester_id} | people.writers(row.model_version) | teams.members(row.model_version.model.team_id)

    def authors(self, uid: uuid.UUID) -> set[int]:
        """Return who wrote the version and its card: every editor, not only the last."""
        return people.writers(load(uid).model_version)

    def evidence_producers(self, uid: uuid.UUID) -> set[int]:
        """Return who added evidence about these bytes, and who keeps the CI systems that did."""
        return people.producers(load(uid).model_version)

    def written_by(self, user_ids: Collection[int]) -> Iterable[uuid.UUID]:
        """Return the requests for versions that any of these people wrote, or whose card they wrote."""
        return ModelRequest.objects.filter(people.wrote(user_ids)).values_list("uid", flat=True)

    def proved_by(self, user_ids: Collection[int]) -> Iterable[uuid.UUID]:
        """Return the requests for which any of these people gave evidence or answers, or keeps a system that did."""
        return ModelRequest.objects.filter(people.proved(user_ids)).values_list("uid", flat=True)

    def facts(self, uid: uuid.UUID) -> Mapping[str, FactValue]:
        """Return the facts that policies may ask about."""
        row = load(uid)
        state = controls_state.standing(row.model_version, row.scope)
        facts: dict[str, FactValue] = dict(controls.gravest(state.facts))
        approved = ModelRequest.objects.filter(
            model_version__digest=row.model_version.digest, status=AskStatus.APPROVED
        ).exclude(pk=row.pk)
        with lifted("whether these bytes were approved before is a fact of the bytes, not of their owner"):
            same_bytes = approved.exists()
        return facts | {
            "controls_open": len(state.open),
            "bound": bound_of(row.model_version, row.scope["clusters"]),
            "max_traffic": int(row.scope["max_traffic"]),
            "renewal": YES if row.renews_id is not None else NO,
            "same_bytes": YES if same_bytes else NO,
            "clusters": len(row.scope["clusters"]),
            "workspaces": len(row.scope["workspaces"]),
            "valid_days": row.valid_days,
        }

    def blockers(self, uid: uuid.UUID, at: datetime) -> Sequence[str]:
        """Return why nobody may approve it at `at`: open controls, a retired version, an exception that ended."""
        row = load(uid)
        version = row.model_version
        found: list[str] = []
        if version.status != VersionStatus.SEALED:
            found.append("The version is retired.")
        lowered, until = lowered_until(version, at)
        if lowered and until is None:
            found.append("The exception that lowered its classification has ended: propose another version.")
        return found + controls.blocker_lines(controls_state.standing(version, row.scope, at).states)

    def anchors(self, uid: uuid.UUID) -> Sequence[tuple[str, str]]:
        """Return what can be commented on besides the change: each applicable control, each piece of evidence."""
        row = load(uid)
        states = controls_state.standing(row.model_version, row.scope).applying
        found = [(f"control:{one.code}"[:200], f"Control {one.code}: {one.title}".rstrip(": ")) for one in states]
        rows = Evidence.objects.filter(subject_digest=row.model_version.digest, withdrawn_at__isnull=True)
        return found + [(f"evidence:{one.uid}", f"Evidence: {one.title}") for one in rows.order_by("produced_at", "pk")]

    def checklist_digest(self, uid: uuid.UUID) -> str:
        """Return the digest of what the checklist answers now, with the evidence behind it."""
        row = load(uid)
        return controls_state.standing(row.model_version, row.scope).digest

    def grant_scope(self, uid: uuid.UUID) -> Mapping[str, Any]:
        """Return what a grant covers: exactly this manifest, in exactly this scope."""
        row = load(uid)
        return {**row.scope, "manifest": row.model_version.digest}

    def validity(self, uid: uuid.UUID) -> tuple[datetime | None, datetime | None]:
        """Return from when until when it is asked for; an exception that lowered its classification ends it sooner."""
        row, at = load(uid), clock.now()
        start = max(row.not_before, at) if row.not_before is not None else at
        end = start + timedelta(days=row.valid_days)
        lowered, until = lowered_until(row.model_version, at)
        return row.not_before, min(end, until) if lowered and until is not None else end

    def renewed(self, uid: uuid.UUID, at: datetime) -> bool:
        """Return whether a later grant covers the same bytes and scope beyond this one's end."""
        from apps.catalogue.grants import grants_of
        from apps.catalogue.grants import holds as grant_holds

        row = load(uid)
        mine = [one for one in grants_of(row.model_version.digest) if one.request_id == row.approval_id]
        ends = mine[0].expires_at if mine else None
        if ends is None:
            return False
        return any(
            grant_holds(one, row.model_version.digest, row.scope, max(at, ends))
            for one in grants_of(row.model_version.digest)
            if one.request_id != row.approval_id
        )

    def url(self, uid: uuid.UUID) -> str:
        """Return the request's page."""
        return reverse("catalogue:request-detail", kwargs={"request_uid": uid})

    def summary_template(self, uid: uuid.UUID) -> str:
        """Return the template that shows version, checklist and evidence to the approver."""
        return "catalogue/request_summary.html"

    def summary_context(self, uid: uuid.UUID) -> Mapping[str, object]:
        """Return what that template needs."""
        from apps.catalogue.requests_selectors import evidence_of

        return evidence_of(load(uid))

    def on_granted(self, uid: uuid.UUID, grant: Grant) -> None:
        """Note the approval and tell who listens. Raises Conflict where the request is not what was approved."""
        row = _locked(uid)
        if not grant.subject_digest == row.digest == asks.digest_of_request(row):
            raise Conflict("The request is no longer what was approved: ask again.")
        if row.model_version.status != VersionStatus.SEALED:
            raise Conflict("The version was retired in the meantime.")
        row.status, row.approval = AskStatus.APPROVED, grant.request
        row.bump("status", "approval")
        until = f"until {grant.expires_at:%Y-%m-%d %H:%M} UTC" if grant.expires_at is not None else "without an end"
        detail = f"It can be released in the workspaces asked for, {until}."
        asks.record(events.REQUEST_GRANTED, row, SYSTEM, detail=detail)
        leads = set(teams.holders(asks.SUBMIT, team_id=row.model_version.model.team_id)) - {row.requester_id}
        if leads:
            payload = asks.event_of(row, detail=detail)
            outbox.publish(events.REQUEST_GRANTED, payload, recipients=leads, subject_uid=row.uid)
        recertifying.granted(row, grant)
        tell_grant_change([uuid.UUID(one) for one in row.scope["workspaces"]])

    def on_ending(self, uid: uuid.UUID, grant: Grant, at: datetime) -> Renewal | None:
        """Open the draft of its recertification, once."""
        return recertifying.on_ending(grant, at)

    def on_escalated(self, uid: uuid.UUID, grant: Grant, at: datetime) -> None:
        """Note that those above the team were told."""
        recertifying.note_escalation(grant, at)

    def on_concluded(self, uid: uuid.UUID, status: str, reason: str) -> None:
        """Take note of an end without a grant; a request that waits stays in review."""
        row = _locked(uid)
        if status not in _STATUS or row.status != AskStatus.IN_REVIEW:
            return
        row.status = _STATUS[status]
        row.bump("status")
        recertifying.not_granted(row)
        asks.record(events.REQUEST_ENDED, row, SYSTEM, detail=status, reason=reason)


def _locked(uid: uuid.UUID) -> ModelRequest:
    row = (
        ModelRequest.objects.select_related("model_version__model__team", "model_version__card", "renews")
        .select_for_update(of=("self",))
        .filter(uid=uid)
        .first()
    )
    if row is None:
        raise Conflict("The request is gone.")
    return row


def on_grant_ended(grant: Grant) -> None:
    """A grant expired or was revoked: write it down and tell who listens; it is unusable by itself since then."""
    row = ModelRequest.objects.select_related("model_version__model__team").filter(approval=grant.request_id).first()
    if row is None:
        return
    recertifying.ended(grant)
    revoked = grant.revoked_at is not None
    asks.record(
        events.GRANT_ENDED, row, SYSTEM, detail="revoked" if revoked else "expired", reason=grant.revoked_reason
    )
    tell_grant_change([uuid.UUID(one) for one in row.scope["workspaces"]])
