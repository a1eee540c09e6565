"""What pages, panels, the API and other rooms read: who waits for whom, who could decide, what a policy would ask."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db.models import F, Q

from apps.accounts.models import User
from apps.approvals import deciders, engine, ports, staging
from apps.approvals.choices import RequestStatus
from apps.approvals.models import ApprovalRequest, Decision, PolicyVersion, Stage
from apps.approvals.querysets import ApprovalRequestQuerySet
from apps.core import clock
from apps.core.errors import Invalid, NotAllowed
from apps.teams import scope
from apps.teams.models import Team, Unit


@dataclass(frozen=True, slots=True)
class Seat:
    """One person beside a request: whether they may decide it now, else the rule that keeps them from it."""

    user: Any
    role: str
    may: bool
    rule: str


@dataclass(frozen=True, slots=True)
class StagePreview:
    """A stage that a policy would ask for: its name, the role's name, and who could fill it (names, nearest level)."""

    name: str
    role: str
    approvers: list[str]
    quorum: int = 1
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Preview:
    """What a policy would do: `automatic` names the rule that would approve at once, else `stages` are asked."""

    policy: str
    automatic: str | None
    stages: list[StagePreview] = field(default_factory=list)
    missing_facts: list[str] = field(default_factory=list)


def waiting_for(user: Any) -> ApprovalRequestQuerySet:
    """Return the requests that this person can decide now, oldest first.

    They hold the open stage's role over its unit, are not on the requester's side, fill no other seat, and there is
    time left: what `engine.why_not` says, as one query. Who joined a team since submission is on its side by now; only
    subjects that do not say so (`ports.SidedByTeam`) are asked one by one.
    """
    scopes = scope.of(user)
    if scopes.user_id is None:
        return ApprovalRequest.objects.none()
    held = Q(pk__in=[])
    for role in deciders.deciding_roles():
        if role in scopes.installation:
            held |= Q(role=role)
        elif role in scopes.units:
            held |= Q(role=role, unit__path__overlap=list(scopes.units[role]))
    stages = Stage.objects.filter(held, request__status=RequestStatus.IN_REVIEW, ordinal=F("request__current_stage"))
    spoke = Decision.objects.filter(Q(actor_id=user.pk) | Q(on_behalf_of_id=user.pk))
    found = (
        ApprovalRequest.objects.filter(pk__in=stages.values("request_id"))
        .filter(Q(due_at__isnull=True) | Q(due_at__gt=clock.now()))
        .exclude(requester_id=user.pk)
        .exclude(requester_side__contains=[user.pk])
        .exclude(pk__in=spoke.values("request_id"))
        .order_by("submitted_at", "pk")
    )
    own = {team for ids in scopes.teams.values() for team in ids}
    if own:
        sided = ports.sided_by_team()
        found = found.exclude(subject_type__in=sided, team_id__in=own)
        others = [name for name in ports.subject_types() if name not in sided]
        if others:
            asked = found.filter(subject_type__in=others, team_id__in=own)
            joined = [row.pk for row in asked if user.pk in deciders.excluded(row)]
            found = found.exclude(pk__in=joined) if joined else found
    return found


def waiting_rows(user: Any) -> ApprovalRequestQuerySet:
    """Return what the person can decide now with all that a list shows of it."""
    return waiting_for(user).select_related("team", "unit", "requester", "policy_version__policy")


@dataclass(frozen=True, slots=True)
class Sight:
    """A request as the engine sees it now, with its rows: what the pages are drawn from."""

    request: ApprovalRequest
    stages: list[Stage]
    decisions: list[Decision]
    case: engine.Case
    state: engine.State
    at: datetime
    roster: deciders.Roster = field(default_factory=deciders.Roster)

    @property
    def lapsed(self) -> bool:
        """Whether the time is over, also where no sweep has written it down yet."""
        return self.request.status == RequestStatus.IN_REVIEW and self.state.standing is engine.Standing.LAPSED

    @property
    def open_stage(self) -> Stage | None:
        """The stage that can be decided now."""
        if self.request.status != RequestStatus.IN_REVIEW or self.state.standing is not engine.Standing.IN_REVIEW:
            return None
        return self.stages[self.state.stage]


def sight(request: ApprovalRequest) -> Sight:
    """Return the request as it stands at this moment."""
    at = clock.now()
    stages = list(Stage.objects.filter(request=request).select_related("unit").order_by("ordinal"))
    rows = Decision.objects.filter(request=request).select_related("actor", "on_behalf_of", "stage")
    decisions = list(rows.order_by("decided_at", "pk"))
    case = deciders.case_of(request, stages, decisions, deciders.excluded(request))
    return Sight(request, stages, decisions, case, engine.evaluate(case, at), at)


def why_not(seen: Sight, user: Any) -> str:
    """Return the rule that keeps this person from deciding now, "" where none does."""
    if seen.request.status != RequestStatus.IN_REVIEW or not seen.stages:
        return "There is nothing to decide any more."
    stage = seen.stages[min(engine.stage_of(seen.state, user.pk), len(seen.stages) - 1)]
    held = seen.roster.over(stage.role, stage.unit_id)
    rule = engine.why_not(seen.case, actor=user.pk, holders=held.keys(), at=seen.at)
    # Who has approved may still change their mind and reject.
    if rule and user.pk in seen.state.seats:
        return engine.why_not(seen.case, actor=user.pk, holders=held.keys(), at=seen.at, verdict=engine.REJECT)
    return rule


def refuse_unless_may_decide(seen: Sight, user: Any) -> None:
    """Raise NotAllowed with the rule that keeps this person from deciding (a closed request refuses later)."""
    if seen.open_stage is not None and (rule := why_not(seen, user)):
        raise NotAllowed(f"You cannot decide this: {rule}", rule=rule)


def explain(request: ApprovalRequest, seen: Sight | None = None) -> list[Seat]:
    """Return "who could decide this now?": everybody with the open stage's role around the request, and their rule.

    Besides those over the stage's unit it names those over the paying unit where the stage was sent above them. Those
    who may decide come first.
    """
    seen = seen or sight(request)
    stage = seen.open_stage
    if stage is None:
        return []
    over = seen.roster.over(stage.role, stage.unit_id)
    # Who holds the role only below where the stage was sent (the requester's peers) is named with that rule.
    around = {**seen.roster.over(stage.role, request.unit_id), **over}
    people = User.objects.in_bulk(list(around))
    seats = []
    for user_id in around:
        rule = engine.why_not(seen.case, actor=user_id, holders=over.keys(), at=seen.at)
        seats.append(Seat(people[user_id], deciders.role_label(stage.role), rule == "", rule))
    return sorted(seats, key=lambda seat: (not seat.may, str(seat.user), seat.user.pk))


def starving(seen: Sight) -> list[Stage]:
    """Return the stages that too few people can decide, from the open one on."""
    if seen.open_stage is None:
        return []
    return staging.starving_stages(seen.case, seen.state, seen.stages, seen.roster)


def preview(
    policy_slug: str,
    facts: Mapping[str, ports.FactValue],
    *,
    unit_id: int | None = None,
    requester_id: int | None = None,
    excluded: Collection[int] = (),
) -> Preview:
    """Return what the policy's newest version would ask for, given facts; with `unit_id` (who pays) also of whom.

    Raises Invalid where no policy is published under the slug.
    """
    version = newest(policy_slug)
    rules = deciders.rules_of(version)
    return preview_rules(
        rules, facts, policy=str(version), unit_id=unit_id, requester_id=requester_id, excluded=excluded
    )


def preview_rules(
    rules: engine.PolicyRules,
    facts: Mapping[str, ports.FactValue],
    *,
    policy: str = "",
    unit_id: int | None = None,
    requester_id: int | None = None,
    excluded: Collection[int] = (),
) -> Preview:
    """Return what rules (published or not) would ask for."""
    outcome = engine.stages_for(rules, facts)
    missing = [name for name in rules.facts() if name not in facts]
    if outcome.automatic is not None:
        return Preview(policy, outcome.automatic.name, [], missing)
    barred = set(excluded) | ({requester_id} if requester_id is not None else set())
    unit = Unit.objects.get(pk=unit_id) if unit_id is not None else None
    stages = []
    for rule in outcome.stages:
        if unit is None:
            stages.append(StagePreview(rule.name, deciders.role_label(rule.role), [], rule.quorum))
            continue
        goes = deciders.route(rule, unit, requester_id if requester_id is not None else 0)
        near = deciders.nearest(deciders.holders(goes.role, goes.unit_id), barred)
        names = sorted(str(person) for person in User.objects.filter(pk__in=near))
        stages.append(StagePreview(rule.name, deciders.role_label(goes.role), names, rule.quorum, goes.note))
    return Preview(policy, None, stages, missing)


def newest(policy_slug: str) -> PolicyVersion:
    """Return a policy's newest version. Raises Invalid where none is published."""
    found = PolicyVersion.objects.select_related("policy").filter(policy__slug=policy_slug).order_by("-number").first()
    if found is None:
        raise Invalid({"": "No policy is published for this yet. A platform admin has to publish one first."})
    return found


def automatic_requests(subject_type: str, team_id: int, since: datetime) -> ApprovalRequestQuerySet:
    """Return what policies approved for a team since then, waiting ones included: what a rule's limit counts."""
    return ApprovalRequest.objects.filter(
        subject_type=subject_type,
        team_id=team_id,
        automatic=True,
        submitted_at__gte=since,
        status__in=(RequestStatus.APPROVED, RequestStatus.WAITING),
    )


def requests_of(subject_type: str, subject_uids: Sequence[uuid.UUID]) -> ApprovalRequestQuerySet:
    """Return every pass over these subjects, newest first."""
    found = ApprovalRequest.objects.filter(subject_type=subject_type, subject_uid__in=subject_uids)
    return found.order_by("-submitted_at", "-pk")


def visible_teams(user: Any) -> Any:
    """Return the teams among whose requests this person may look, for the list's filter."""
    return Team.objects.filter(
        pk__in=ApprovalRequest.objects.visible_to(user).order_by().values("team_id").distinct()
    ).order_by("name")
