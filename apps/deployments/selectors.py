"""What pages and the API show of endpoints and releases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db.models import Case, Q, Value, When
from django.urls import reverse

from apps.approvals import deciders, standing
from apps.approvals.engine import SIDE_RULE
from apps.approvals.ports import Change, known_terms
from apps.approvals.selectors import newest, preview_rules
from apps.catalogue import people
from apps.core import clock
from apps.core.errors import Invalid
from apps.core.money import Money
from apps.core.permissions import may
from apps.deployments import granting, grants, ladder, money, placement, reading, records, rollout, room_reading
from apps.deployments.choices import CanaryMode, ExpiryAction, ReleaseStatus, StepKind
from apps.deployments.drafting import POLICY, SUBJECT_TYPE, Assessment
from apps.deployments.models import Endpoint, Release, RolloutStep
from apps.deployments.querysets import EndpointQuerySet, RolloutStepQuerySet
from apps.provisioning.models import Plan
from apps.quotas.selectors import PlanRow, created_yaml, plan_rows
from apps.rates.selectors import rate_at
from apps.teams import scope

#: So many steps stand on the endpoint's page; the log has more in the time machine.
STEPS = 30
#: And so many earlier releases are offered to go back to.
TARGETS = 10
_TONES = {
    StepKind.PROMOTED: "positive", StepKind.STARTED: "info", StepKind.CANARY: "info", StepKind.RESUMED: "info",
    StepKind.STARTED_AGAIN: "info", StepKind.HELD: "caution", StepKind.ROLLED_BACK: "critical",
    StepKind.FAILED: "critical", StepKind.SCALED_BACK: "caution", StepKind.APPROVAL_ENDED: "caution",
}  # fmt: skip


def with_state(rows: EndpointQuerySet) -> EndpointQuerySet:
    """Add what each endpoint does now, as `state` (tables.STATES)."""
    return rows.annotate(
        state=Case(
            When(current__isnull=True, then=Value("empty")),
            When(stopped_at__isnull=False, then=Value("stopped")),
            When(candidate__isnull=False, then=Value("canary")),
            When(current__status=ReleaseStatus.STARTING, then=Value("starting")),
            default=Value("serving"),
        )
    )


@dataclass(frozen=True, slots=True)
class RungRow:
    """One rung of a ladder on the page."""

    traffic: int
    hours: int
    state: str
    at: datetime | None


def ladder_rows(release: Release, endpoint: Endpoint) -> list[RungRow]:
    """Return the rungs of a candidate: passed, where it stands, and when the next are due at the earliest."""
    rungs = reading.spec_of(release).ladder
    standing = endpoint.traffic > 0
    found = []
    when = release.step_since
    for index, rung in enumerate(rungs):
        if standing and index < release.ladder_step:
            found.append(RungRow(rung.traffic, rung.hours, "passed", None))
        elif standing and index == release.ladder_step:
            found.append(RungRow(rung.traffic, rung.hours, "now", release.step_since))
        else:
            found.append(RungRow(rung.traffic, rung.hours, "to come", None))
    if standing and when is not None:
        end = ladder.earliest_promotion(rungs, release.ladder_step, when)
        found.append(RungRow(ladder.ALL, 0, "to come", end))
    else:
        found.append(RungRow(ladder.ALL, 0, "to come", None))
    return found


def steps_of(endpoint: Endpoint, user: Any) -> list[dict[str, Any]]:
    """Return the newest steps of an endpoint as a timeline, the latest first."""
    return _timeline(RolloutStep.objects.visible_to(user).filter(endpoint=endpoint))


def steps_of_release(release: Release, user: Any) -> list[dict[str, Any]]:
    """Return the newest steps of one release, the latest first."""
    return _timeline(RolloutStep.objects.visible_to(user).filter(release=release))


def _timeline(steps: RolloutStepQuerySet) -> list[dict[str, Any]]:
    rows = steps.select_related("release__model_version__model", "actor").order_by("-at", "-id")[:STEPS]
    return [
        {
            "title": f"{row.get_kind_display()}: release {row.release.number}, {row.release.model_version}"
            + (f" ({row.traffic_before} → {row.traffic_after} %)" if row.traffic_before != row.traffic_after else ""),
            "at": row.at,
            "by": str(row.actor) if row.actor is not None else "by itself",
            "text": row.reason,
            "tone": _TONES.get(StepKind(row.kind), "neutral"),
            "url": reverse("deployments:release-detail", kwargs={"release_uid": row.release.uid}),
        }
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class SideRow:
    """One of an endpoint's two releases on its page."""

    role: str
    release: Release
    traffic: int
    standing: grants.Standing
    cost: money.Cost
    spec_items: list[tuple[str, str]]


def sides_of(endpoint: Endpoint, at: datetime) -> list[SideRow]:
    """Return the current release and the candidate, each with what it stands on and costs."""
    found = []
    for role, release, traffic in (
        ("Takes the rest" if endpoint.candidate_id else "Takes all traffic", endpoint.current, 100 - endpoint.traffic),
        ("Canary", endpoint.candidate, endpoint.traffic),
    ):
        if release is None:
            continue
        release.endpoint = endpoint
        spec = reading.spec_of(release)
        rate = rate_at(endpoint.workspace.cluster_id, release.flavour_id, at)
        cost = money.cost(spec, rate.hourly if rate is not None else None)
        words = records.spec_lines(release.model_version, release.flavour, spec)
        share = 0 if endpoint.stopped_at is not None else traffic
        standing = grants.standing(release, at, traffic=max(share, 1))
        found.append(SideRow(role, release, share, standing, cost, [(k, v) for k, v in words.items() if v]))
    return found


def endpoint_context(endpoint: Endpoint, user: Any) -> dict[str, Any]:
    """Return what the endpoint's page shows besides the row."""
    at = clock.now()
    candidate = endpoint.candidate
    if candidate is not None:
        candidate.endpoint = endpoint
    waiting = (
        Release.objects.filter(endpoint=endpoint, status__in=[ReleaseStatus.IN_REVIEW, ReleaseStatus.WAITING])
        .select_related("model_version__model")
        .first()
    )
    serving = endpoint.current_id is not None and endpoint.stopped_at is None
    promotion = rollout.promotion(candidate) if candidate is not None and endpoint.traffic > 0 else None
    binds = candidate is not None and rollout.binding(endpoint, candidate)
    held_until = promotion.not_before if promotion is not None and binds and promotion.not_before > at else None
    return {
        "sides": sides_of(endpoint, at),
        "ladder": ladder_rows(candidate, endpoint) if candidate is not None else [],
        "next_move": rollout.next_move(candidate) if candidate is not None else None,
        "held_until": held_until,
        "steps": steps_of(endpoint, user),
        "waiting": waiting,
        "mode": CanaryMode(endpoint.canary_mode).label,
        "may_operate": may(user, rollout.OPERATE, endpoint),
        "may_release": may(user, "deployments.release.create", endpoint),
        "serving": serving,
        "can_go_back": serving and candidate is None and bool(rollout.earlier_releases(endpoint)),
        "placement": _placed(endpoint),
    }


@dataclass(frozen=True, slots=True)
class Target:
    """An earlier release that one may want to go back to, and what it stands on now."""

    release: Release
    standing: grants.Standing


def targets_of(endpoint: Endpoint) -> list[Target]:
    """Return the earlier releases of an endpoint, the latest first, each with whether its approvals are usable."""
    at = clock.now()
    found = []
    for release in rollout.earlier_releases(endpoint)[:TARGETS]:
        release.endpoint = endpoint
        found.append(Target(release, grants.standing(release, at, traffic=ladder.ALL)))
    return found


def _placed(endpoint: Endpoint) -> placement.Verdict | None:
    if endpoint.current is None:
        return None
    endpoint.current.endpoint = endpoint
    return granting.placed_now(endpoint.current)


def term_words(name: str, value: object) -> tuple[str, str]:
    """Return a term of the policy as its label and its value in words."""
    meaning = known_terms(SUBJECT_TYPE).get(name)
    if meaning is None:
        return name.replace("_", " "), str(value)
    text = str(dict(ExpiryAction.choices).get(str(value), value)) if name == "expiry_action" else str(value)
    return meaning.label, f"{text} {meaning.unit}".strip()


def release_evidence(release: Release) -> dict[str, Any]:
    """Return what approver and requester see beside a release: cost, room, placement, ladder, states, plan."""
    plan: Plan | None = release.plan
    estimate = release.estimate
    open_now = release.status in (ReleaseStatus.IN_REVIEW, ReleaseStatus.WAITING)
    currency = estimate.get("currency") or ""
    return {
        "release": release,
        "cost_change": release.cost,
        "cost_before": _amounts(estimate.get("before"), currency),
        "cost_after": _amounts(estimate.get("after"), currency),
        "canary_cost": _money(estimate.get("canary"), currency),
        "fit": granting.fit_now(release) if open_now else None,
        "room": room_reading.of_release(release, clock.now()) if open_now else None,
        "frozen_fit": release.change["feasibility"]["lines"],
        "placement": placement.read(release.change["placement"]),
        "placement_now": granting.placed_now(release) if open_now else None,
        "mode": CanaryMode(release.change["mode"]).label,
        "mode_reason": release.change["mode_reason"],
        "canary": release.change["canary"],
        "rungs": reading.spec_of(release).ladder,
        "terms": [term_words(name, value) for name, value in release.change["terms"].items()],
        "emergency": release.change["emergency"],
        "start_seconds": release.change["start_seconds"],
        "object_lines": plan_lines(plan),
        "plan": plan,
        "plan_created": created_yaml(plan),
        "wish": wish_lines(release),
    }


def wish_lines(release: Release) -> list[Change]:
    """Return the wish against what was live, without the objects."""
    return [line for line in records.diff_of(release) if line.object.startswith("Endpoint ")]


def plan_lines(plan: Plan | None) -> list[PlanRow]:
    """Return the plan line by line."""
    return plan_rows(plan)


def _amounts(part: Any, currency: str) -> tuple[Money | None, Money | None] | None:
    if not isinstance(part, dict):
        return None
    return _money(part.get("minimum"), currency), _money(part.get("maximum"), currency)


def _money(amount: Any, currency: str) -> Money | None:
    return Money(Decimal(str(amount)), currency) if amount is not None and currency else None


def approvers(assessment: Assessment, requester: Any) -> Any:
    """Return who would be asked: an automatic rule or stages; None where no policy is published."""
    team, version = assessment.draft.workspace.team, assessment.draft.version
    try:
        version_now = newest(POLICY)
        rules = deciders.rules_of(version_now)
        # In the order in which the request itself names the rules: who is on the side hears of that first.
        shut = dict.fromkeys(people.writers(version), deciders.AUTHOR_RULE)
        if rules.separation.evidence_producers:
            shut = dict.fromkeys(people.producers(version, ever=True), deciders.PRODUCER_RULE) | shut
        shut |= dict.fromkeys(scope.members(team.pk) | {requester.pk}, SIDE_RULE)
        return preview_rules(
            rules, assessment.facts, policy=str(version_now), unit_id=team.unit_id, requester_id=requester.pk,
            excluded=shut, lost=standing.lost_rules(version_now.policy_id, team.pk),
        )  # fmt: skip
    except Invalid:
        return None


def endpoints_of(team_id: int, user: Any, *, limit: int) -> Sequence[Endpoint]:
    """Return a team's endpoints for a panel, one more than the limit where there are more."""
    rows = with_state(Endpoint.objects.visible_to(user).filter(workspace__team_id=team_id, removed_at__isnull=True))
    return list(_whole(rows).order_by("workspace__namespace", "name", "pk")[: limit + 1])


def endpoints_in(workspace_id: int, user: Any) -> Sequence[Endpoint]:
    """Return a workspace's endpoints for a panel."""
    rows = with_state(Endpoint.objects.visible_to(user).filter(Q(workspace_id=workspace_id), removed_at__isnull=True))
    return list(_whole(rows).order_by("name", "pk"))


def _whole(rows: EndpointQuerySet) -> EndpointQuerySet:
    return rows.select_related("workspace__cluster", "current__model_version__model", "candidate")
