"""What was approved, deployed, where and by whom at a time: from rows, cross-checked with the audit trail (P15)."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q

from apps.approvals.models import Decision, Grant
from apps.audit.models import AuditEvent
from apps.deployments.models import Endpoint, Release, RolloutStep, ServingInterval
from apps.deployments.time_machine_replay import RANK, Logged, replay

#: Endpoints of one answer; a question that touches more is to be narrowed.
MOST = 100
#: A change is written in several rows within moments: at such a time log and rows may rightly differ.
MOMENT = timedelta(seconds=5)
_ACTIONS = ("deployments.rollout.stepped", "deployments.rollout.rolled_back")


@dataclass(frozen=True, slots=True)
class Approval:
    """A grant as it stood: who approved, until when, whether it was in force."""

    uid: str
    what: str
    in_force: bool
    not_before: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Served:
    """One release that had objects on the cluster."""

    release: Release
    traffic: int
    since: datetime
    approvals: tuple[Approval, ...]


@dataclass(slots=True)
class Answer:
    """One endpoint at the time asked for. `differences`: where the audit trail says otherwise than the rows."""

    endpoint: Endpoint
    served: list[Served] = field(default_factory=list)
    step: RolloutStep | None = None
    differences: list[str] = field(default_factory=list)
    checked: bool = True


@dataclass(frozen=True, slots=True)
class Found:
    """The answers; `more`: there were more endpoints than one answer holds."""

    answers: list[Answer]
    more: bool


def ask(
    user: Any, at: datetime, *, endpoint: uuid.UUID | None = None, model: str = "", cluster: str = "", name: str = ""
) -> Found:
    """Return what stood at `at`, of the endpoints that the person may see. Any of the filters may be left out."""
    rows = Endpoint.objects.visible_to(user).filter(steps__at__lte=at)
    if endpoint is not None:
        rows = rows.filter(uid=endpoint)
    if model:
        rows = rows.filter(model__slug=model)
    if cluster:
        rows = rows.filter(workspace__cluster__slug=cluster)
    if name:
        rows = rows.filter(name=name)
    related = rows.select_related("workspace__team", "workspace__cluster", "model").order_by("name", "pk").distinct()
    endpoints = list(related[: MOST + 1])
    more, endpoints = len(endpoints) > MOST, endpoints[:MOST]
    answers = {one.pk: Answer(one) for one in endpoints}
    _serve(answers, at)
    _last_steps(answers, at)
    _cross_check(answers, at)
    return Found(list(answers.values()), more)


def _serve(answers: dict[int, Answer], at: datetime) -> None:
    rows = ServingInterval.objects.filter(endpoint__in=answers, valid__contains=at).select_related(
        "release__model_version__model", "release__flavour", "release__requester"
    )
    intervals = list(rows.order_by("-traffic", "pk"))
    approvals = _approvals({uid for row in intervals for uid in (row.release_grant_uid, row.model_grant_uid)}, at)
    for row in intervals:
        names = (("version", row.model_grant_uid), ("release", row.release_grant_uid))
        held = tuple(approvals[uid, what] for what, uid in names if uid is not None and (uid, what) in approvals)
        answers[row.endpoint_id].served.append(Served(row.release, row.traffic, row.valid.lower, held))


def _approvals(uids: set[uuid.UUID | None], at: datetime) -> dict[tuple[uuid.UUID, str], Approval]:
    grants = list(Grant.objects.filter(uid__in=[uid for uid in uids if uid]).select_related("request__policy_version"))
    people: dict[int, list[str]] = defaultdict(list)
    decided = Decision.objects.filter(request__in=[one.request_id for one in grants], verdict="approve")
    for row in decided.select_related("actor").order_by("decided_at", "pk"):
        people[row.request_id].append(f"{row.actor} ({row.decided_at:%Y-%m-%d %H:%M} UTC)")
    found = {}
    for one in grants:
        begun = one.not_before <= at and (one.revoked_at is None or at < one.revoked_at)
        approval = Approval(
            str(one.uid), one.request.title, begun and (one.expires_at is None or at < one.expires_at), one.not_before,
            one.expires_at, one.revoked_at, tuple(people[one.request_id]) or ("approved by rule",),
        )  # fmt: skip
        for what in ("version", "release"):
            found[one.uid, what] = approval
    return found


def _last_steps(answers: dict[int, Answer], at: datetime) -> None:
    rows = RolloutStep.objects.filter(endpoint__in=answers, at__lte=at).order_by("endpoint_id", "-at", "-pk")
    for row in rows.distinct("endpoint_id").select_related("actor", "release"):
        answers[row.endpoint_id].step = row


def logged_from_rows(endpoints: Iterable[int], at: datetime) -> dict[int, list[Logged]]:
    """Return the portal's own log of steps by endpoint, in order."""
    found: dict[int, list[Logged]] = defaultdict(list)
    rows = RolloutStep.objects.filter(endpoint__in=endpoints, at__lte=at).order_by("at", "pk")
    for key, kind, release, traffic, evidence in rows.values_list(
        "endpoint_id", "kind", "release__uid", "traffic_after", "evidence"
    ):
        found[key].append(Logged(kind, str(release), traffic, str((evidence or {}).get("back_to", ""))))
    return found


def logged_from_audit(endpoints: dict[uuid.UUID, int], at: datetime) -> dict[int, list[Logged]]:
    """Return what the audit trail says of rollouts by endpoint, in order: from its hashed bytes alone."""
    events = AuditEvent.objects.filter(
        object_type="deployments.endpoint", object_id__in=endpoints, action__in=_ACTIONS, occurred_at__lte=at
    )
    digests = {
        (row[0], row[1]): str(row[2])
        for row in Release.objects.filter(endpoint__in=endpoints.values()).values_list("endpoint_id", "digest", "uid")
    }
    dated: dict[int, list[tuple[datetime, int, str, Logged]]] = defaultdict(list)
    for event in events:
        data = event.data
        said, key = data["changes"], endpoints[event.object_id]
        declared = digests.get((key, str(data.get("after_digest", ""))), "")
        one = Logged(str(said["kind"]), str(said["release_uid"]), int(said["traffic"]), declared)
        dated[key].append((event.occurred_at, RANK.get(one.kind, 1), str(event.uid), one))
    return {key: [row[3] for row in sorted(rows, key=lambda row: row[:3])] for key, rows in dated.items()}


def _cross_check(answers: dict[int, Answer], at: datetime) -> None:
    by_uid = {answer.endpoint.uid: key for key, answer in answers.items()}
    audited, logged = logged_from_audit(by_uid, at), logged_from_rows(answers, at)
    near = set(
        RolloutStep.objects.filter(endpoint__in=answers)
        .filter(Q(at__gt=at - MOMENT) & Q(at__lt=at + MOMENT))
        .values_list("endpoint_id", flat=True)
    )
    for key, answer in answers.items():
        if key in near:
            answer.checked = False
            continue
        rows = {str(one.release.uid): one.traffic for one in answer.served}
        names = {str(one.release.uid): f"release {one.release.number}" for one in answer.served}
        for source, log in (("the audit trail", audited), ("the log of steps", logged)):
            said = replay(log.get(key, []))
            if said != rows:
                answer.differences.append(f"{source} says {_words(said, names)}; the rows say {_words(rows, names)}.")


def _words(shares: dict[str, int], names: dict[str, str]) -> str:
    return ", ".join(f"{names.get(key, key)} {share} %" for key, share in sorted(shares.items())) or "nothing served"


def plain(answer: Answer) -> dict[str, Any]:
    """Return an answer as the API gives it."""
    endpoint, step = answer.endpoint, answer.step
    return {
        "endpoint": str(endpoint.uid),
        "name": endpoint.name,
        "model": endpoint.model.slug,
        "cluster": endpoint.workspace.cluster.slug,
        "namespace": endpoint.workspace.namespace,
        "team": endpoint.workspace.team.slug,
        "serving": [
            {
                "release": str(one.release.uid), "number": one.release.number,
                "version": one.release.model_version.label, "manifest": one.release.version_digest,
                "traffic": one.traffic, "since": one.since,
                "approvals": [
                    {
                        "grant": grant.uid, "what": grant.what, "in_force": grant.in_force,
                        "not_before": grant.not_before, "expires_at": grant.expires_at,
                        "revoked_at": grant.revoked_at, "by": list(grant.by),
                    }
                    for grant in one.approvals
                ],
            }
            for one in answer.served
        ],
        "last_step": None if step is None else {
            "kind": step.kind, "at": step.at, "by": str(step.actor) if step.actor else "the portal",
            "reason": step.reason,
        },
        "cross_checked": answer.checked,
        "differences": answer.differences,
    }  # fmt: skip
