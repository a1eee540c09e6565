"""What pages, panels, the API and other rooms read: who waits for whom, who could decide, what a policy would ask."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from apps.accounts.models import User
from apps.approvals import deciders, engine, ports, seats, staging, standing
from apps.approvals.choices import RequestStatus
from apps.approvals.models import ApprovalRequest, Decision, Stage
from apps.approvals.policies import newest
from apps.approvals.querysets import ApprovalRequestQuerySet
from apps.approvals.seats import Voice
from apps.approvals.waiting import waiting_for
from apps.core import clock
from apps.core.errors import NotAllowed
from apps.teams.models import Team, Unit


@dataclass(frozen=True, slots=True)
class Seat:
    """One person beside a request: whether they may decide it now, else the rule that keeps them from it."""

    user: Any
    role: str
    may: bool
    rule: str
    #: Whom they would speak for, where they hold the role only through a delegation.
    for_user: Any = None
    stage: str = ""


@dataclass(frozen=True, slots=True)
class StagePreview:
    """A stage that a policy would ask for: its name, the role's name, and who could fill it (names, nearest level)."""

    name: str
    role: str
    approvers: list[str]
    quorum: int = 1
    rule: str = ""
    group: int = 0
    #: Where nobody is left: who holds the role, each with the rule that keeps them out.
    shut: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Preview:
    """What a policy would do: `automatic` names the rule that would approve at once, else `stages` are asked."""

    policy: str
    automatic: str | None
    stages: list[StagePreview] = field(default_factory=list)
    missing_facts: list[str] = field(default_factory=list)
    terms: dict[str, int | str] = field(default_factory=dict)
    #: Standard changes that would have approved at once, had the team not lost them.
    lost: list[str] = field(default_factory=list)


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
        """The first stage that can be decided now."""
        return next(iter(self.open_stages), None)

    @property
    def open_stages(self) -> list[Stage]:
        """The stages that can be decided now; those of one group at the same time."""
        if self.request.status != RequestStatus.IN_REVIEW:
            return []
        return [self.stages[ordinal] for ordinal in self.state.open]

    def panels(self) -> dict[int, engine.Panel]:
        """Return who holds the roles of every stage, by ordinal (each role and place is asked once)."""
        return deciders.panels_of(self.stages, self.roster)

    def waits_until(self, stage: Stage) -> datetime | None:
        """Return from when on approvals count in an open stage, None where they do now."""
        until = engine.wait_until(self.case, self.state, stage.ordinal)
        return until if until is not None and self.at < until else None


def sight(request: ApprovalRequest) -> Sight:
    """Return the request as it stands at this moment."""
    at = clock.now()
    stages = list(Stage.objects.filter(request=request).select_related("unit").order_by("ordinal"))
    rows = Decision.objects.filter(request=request).select_related("actor", "on_behalf_of", "stage")
    decisions = list(rows.order_by("decided_at", "pk"))
    case = deciders.case_of(request, stages, decisions, deciders.barred(request))
    return Sight(request, stages, decisions, case, engine.evaluate(case, at), at)


def why_not(seen: Sight, user: Any, *, on_behalf_of: int | None = None) -> str:
    """Return the rule that keeps this person from any word now, "" where they may approve or reject."""
    return seats.why_not(
        seen.request, seen.case, seen.state, seen.panels(), seen.at, user.pk, on_behalf_of=on_behalf_of
    )


def voices(seen: Sight, user: Any) -> list[Voice]:
    """Return in whose name this person could decide now: themselves (`for_user` None) first, then givers."""
    return seats.voices(seen.request, seen.case, seen.state, seen.stages, seen.panels(), seen.at, user.pk)


def refuse_unless_may_decide(seen: Sight, user: Any) -> None:
    """Raise NotAllowed with the rule that keeps this person from deciding (a closed request refuses later)."""
    if seen.open_stage is None or voices(seen, user):
        return
    rule = why_not(seen, user)
    raise NotAllowed(f"You cannot decide this: {rule}", rule=rule)


def explain(request: ApprovalRequest, seen: Sight | None = None) -> list[Seat]:
    """Return "who could decide this now?": everybody with an open stage's role around the request, and their rule.

    Besides those over the stage's unit it names those over the paying unit where the stage was sent above them, and
    whoever holds the role through a delegation only. Those who may decide come first.
    """
    seen = seen or sight(request)
    found = []
    for stage in seen.open_stages:
        found += seats.around(request, seen.case, seen.state, stage, seen.roster, seen.at)
    people = User.objects.in_bulk({pk for one in found for pk in (one.user_id, one.giver_id) if pk is not None})
    listed = [
        Seat(
            people[one.user_id],
            deciders.role_label(one.role),
            one.rule == "",
            one.rule,
            people[one.giver_id] if one.giver_id is not None else None,
            seen.stages[one.stage].name,
        )
        for one in found
    ]
    return sorted(listed, key=lambda seat: (not seat.may, str(seat.user), seat.user.pk, seat.stage))


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
    team_id: int | None = None,
) -> Preview:
    """Return what the policy's newest version would ask for, given facts; with `unit_id` (who pays) also of whom.

    With `team_id` standard changes that the team has lost do not fire. Raises Invalid where no policy is published.
    """
    version = newest(policy_slug)
    return preview_rules(
        deciders.rules_of(version),
        facts,
        policy=str(version),
        unit_id=unit_id,
        requester_id=requester_id,
        excluded=excluded,
        lost=standing.lost_rules(version.policy_id, team_id) if team_id is not None else (),
    )


def preview_rules(
    rules: engine.PolicyRules,
    facts: Mapping[str, ports.FactValue],
    *,
    policy: str = "",
    unit_id: int | None = None,
    requester_id: int | None = None,
    excluded: Collection[int] = (),
    lost: Collection[str] = (),
) -> Preview:
    """Return what rules (published or not) would ask for; `lost` are the standard changes that do not fire."""
    outcome = engine.stages_for(rules, facts, lost)
    missing = [name for name in rules.facts() if name not in facts]
    terms, gone = engine.terms_under(rules, facts), [rule.name for rule in outcome.lost]
    if outcome.automatic is not None:
        return Preview(policy, outcome.automatic.name, [], missing, terms, gone)
    barred = set(excluded) | ({requester_id} if requester_id is not None else set())
    unit = Unit.objects.get(pk=unit_id) if unit_id is not None else None
    stages = []
    for rule in outcome.stages:
        if unit is None:
            stages.append(StagePreview(rule.name, deciders.role_label(rule.role), [], rule.quorum, "", rule.group))
            continue
        goes = deciders.route(rule, unit, requester_id if requester_id is not None else 0)
        held = deciders.holders(goes.role, goes.unit_id)
        near = deciders.nearest(held, barred)
        names = sorted(str(person) for person in User.objects.filter(pk__in=near))
        shut = _shut(held, excluded, requester_id) if not names else []
        stages.append(
            StagePreview(rule.name, deciders.role_label(goes.role), names, rule.quorum, goes.note, rule.group, shut)
        )
    return Preview(policy, None, stages, missing, terms, gone)


def _shut(held: Collection[int], excluded: Collection[int], requester_id: int | None) -> list[str]:
    """Return who holds a role that nobody may use here, each with the rule that keeps them out, where it is known."""
    rules = dict(excluded) if isinstance(excluded, Mapping) else dict.fromkeys(excluded, engine.SIDE_RULE)
    if requester_id is not None:
        rules[requester_id] = engine.SIDE_RULE
    people = User.objects.filter(pk__in=[one for one in held if one in rules]).order_by("display_name", "pk")
    return [f"{person}: {rules[person.pk]}" for person in people]


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


__all__ = [
    "Preview", "Seat", "Sight", "StagePreview", "Voice", "automatic_requests", "explain", "newest", "preview",
    "preview_rules", "refuse_unless_may_decide", "requests_of", "sight", "starving", "visible_teams", "voices",
    "waiting_for", "waiting_rows", "why_not",
]  # fmt: skip
