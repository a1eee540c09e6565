"""Roles resolved to people, at this moment: who holds a stage's role, where a stage goes, what a request's case is."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q

from apps.accounts.choices import UserKind
from apps.approvals import engine, ports
from apps.approvals.choices import RequestStatus
from apps.approvals.engine import SIDE_RULE, Case, Panel, StageSpec, Word
from apps.approvals.models import ApprovalRequest, Decision, Delegation, PolicyVersion, Stage
from apps.approvals.other_accounts import with_other_accounts
from apps.approvals.policy_reader import parse_policy
from apps.approvals.policy_rules import PolicyRules, RoleAt, StageRule
from apps.teams import service_selectors
from apps.teams.choices import SCOPES, Role, roles_with
from apps.teams.models import RoleGrant, Unit

AUTHOR_RULE = "Wrote a part of it: nobody decides on their own work."
PRODUCER_RULE = "Produced evidence for it: nobody decides on their own evidence."
SERVICE_RULE = "Made the program's account that asks, or a token of it: that is asking oneself."
_ENDED_EARLY = (RequestStatus.WITHDRAWN, RequestStatus.LAPSED, RequestStatus.SUPERSEDED)


def deciding_roles() -> list[str]:
    """Return the roles that a policy may ask."""
    return sorted(roles_with("approvals.request.decide"))


def reviewing_roles() -> list[str]:
    """Return the roles that a policy may name for the review after an emergency."""
    return sorted(roles_with("approvals.review.close"))


def rules_of(version: PolicyVersion) -> PolicyRules:
    """Return the rules of a published version, also where one of its roles may no longer be named in a new one."""
    return parse_policy(version.body, roles=sorted(Role.values))


def emergency_stage(version: PolicyVersion) -> StageRule | None:
    """Return the one stage of an emergency under a version, None where it knows none."""
    section = rules_of(version).emergency
    return section.stage() if section is not None else None


def role_label(role: str) -> str:
    """Return a role's name as people read it."""
    return str(Role(role).label) if role in Role.values else role


@dataclass(frozen=True, slots=True)
class Held:
    """That a person holds a role: at which unit (None: the whole installation); `distance` 0 is the unit itself."""

    user_id: int
    unit_id: int | None
    distance: int


def holders(role: str, unit_id: int | None) -> dict[int, Held]:
    """Return who holds `role` over the unit now, each at the nearest level: there, above, or installation-wide.

    `unit_id` None asks for the installation-wide holders. At most two queries.
    """
    where = Q(unit__isnull=True, team__isnull=True)
    path: list[int] = []
    if unit_id is not None:
        path = Unit.objects.values_list("path", flat=True).get(pk=unit_id)
        where |= Q(unit_id__in=path)
    depth = {ancestor: len(path) - 1 - index for index, ancestor in enumerate(path)}
    found: dict[int, Held] = {}
    rows: Iterable[tuple[int, int | None]] = (
        RoleGrant.objects.in_force()
        .filter(where, role=role, user__kind=UserKind.PERSON)
        .values_list("user_id", "unit_id")
    )
    for user_id, at in rows:
        held = Held(user_id, at, depth.get(at, len(path)) if at is not None else len(path))
        if user_id not in found or held.distance < found[user_id].distance:
            found[user_id] = held
    return found


class Roster:
    """Who holds which role, asked at most once each while one page is drawn."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int | None], dict[int, Held]] = {}

    def over(self, role: str, unit_id: int | None) -> dict[int, Held]:
        """Return the holders of `role` over the unit (None: installation-wide)."""
        key = (role, unit_id)
        if key not in self._known:
            self._known[key] = holders(role, unit_id)
        return self._known[key]


@dataclass(frozen=True, slots=True)
class Route:
    """Where a stage goes: role and unit, and a sentence where that is not what the policy names at first."""

    role: str
    unit_id: int | None
    note: str = ""


def route(rule: StageRule | RoleAt, unit: Unit, requester_id: int) -> Route:
    """Return where a stage (or its escalation, or its fallback) of a request that `unit` pays goes.

    What an owner requests goes above them: if the requester holds the role at or above the unit that is asked, the
    stage goes to the parent of the highest such unit (neither peers nor subordinates decide). Above the top, and with
    no unit at all, is the installation: the role itself where it can be held there, else the platform admins, the one
    role that always exists there and answers for no team's budget.
    """
    if rule.scope == "installation":
        return _at_installation(rule.role, "")
    asked = unit.pk
    if rule.scope == "parent_unit":
        if unit.parent_id is None:
            return _at_installation(rule.role, f"{unit} has no parent unit")
        asked = unit.parent_id
    path = list(Unit.objects.values_list("path", flat=True).get(pk=asked))
    own = RoleGrant.objects.in_force().filter(user_id=requester_id, role=rule.role, team__isnull=True)
    held_at: set[int | None] = set(own.values_list("unit_id", flat=True))
    if None in held_at:
        return _at_installation(rule.role, f"the requester is {role_label(rule.role)} of the whole installation")
    index = min((i for i, ancestor in enumerate(path) if ancestor in held_at), default=None)
    if index is None:
        return Route(rule.role, asked)
    names = dict(Unit.objects.filter(pk__in=path).values_list("pk", "name"))
    note = f"the requester is {role_label(rule.role)} of {names[path[index]]}, so it goes one level up"
    if index == 0:
        return _at_installation(rule.role, note)
    return Route(rule.role, path[index - 1], note)


def _at_installation(role: str, note: str) -> Route:
    if "installation" in SCOPES.get(role, ()):
        return Route(role, None, note)
    admins = f"{role_label(role)} cannot be held for the whole installation, so it goes to the platform admins"
    return Route(Role.PLATFORM_ADMIN, None, f"{note}; {admins}" if note else admins)


def barred(request: ApprovalRequest) -> dict[int, str]:
    """Return who may not decide and why: as of submission and as of now, so that nobody leaves a team for a minute."""
    subject = ports.get_subject(request.subject_type)
    found = dict.fromkeys(request.requester_side, SIDE_RULE)
    found.update(dict.fromkeys(subject.requester_side(request.subject_uid), SIDE_RULE))
    if isinstance(subject, ports.Authored):
        found.update(separated(subject, request.subject_uid, rules_of(request.policy_version)))
    found.setdefault(request.requester_id, SIDE_RULE)
    # Whoever saw the secret of a program's token may have asked through it, or written what is asked.
    behind = service_selectors.people_behind(
        user_id for user_id, rule in found.items() if _asked(request, user_id, rule)
    )
    for user_id in behind:
        found.setdefault(user_id, SERVICE_RULE)
    return with_other_accounts(request, found)


def _asked(request: ApprovalRequest, user_id: int, rule: str) -> bool:
    return user_id == request.requester_id or rule in (AUTHOR_RULE, PRODUCER_RULE)


def separated(subject: ports.Authored, subject_uid: uuid.UUID, rules: PolicyRules) -> dict[int, str]:
    """Return whom the rules keep from deciding for what they wrote or proved, and why."""
    found: dict[int, str] = {}
    if rules.separation.evidence_producers:
        found.update(dict.fromkeys(subject.evidence_producers(subject_uid), PRODUCER_RULE))
    found.update(dict.fromkeys(subject.authors(subject_uid), AUTHOR_RULE))
    return found


def excluded(request: ApprovalRequest) -> frozenset[int]:
    """Return who may not decide (`barred`, without the reasons)."""
    return frozenset(barred(request))


def spec_of(stage: Stage) -> StageSpec:
    """Return a stage's row as the engine sees it."""
    return StageSpec(
        stage.name, stage.role, stage.quorum, stage.due_hours, stage.group, stage.wait_hours, stage.escalate_hours,
        stage.escalation_role, stage.fallback_role,
    )  # fmt: skip


def case_of(
    request: ApprovalRequest, stages: Sequence[Stage], decisions: Iterable[Decision], side: Mapping[int, str]
) -> Case:
    """Return the request as the engine sees it: pinned stages, digests, log, and who is kept from deciding."""
    ordinals = {stage.pk: stage.ordinal for stage in stages}
    ended = request.concluded_at if request.status in _ENDED_EARLY else None
    return Case(
        stages=tuple(spec_of(stage) for stage in stages),
        digest=request.subject_digest,
        policy_digest=request.policy_version.digest,
        opened_at=request.submitted_at,
        requester=request.requester_id,
        excluded=frozenset(side),
        words=tuple(
            Word(
                ordinals[d.stage_id], d.actor_id, d.on_behalf_of_id, d.verdict, d.subject_digest, d.policy_digest,
                d.decided_at,
            )
            for d in decisions
        ),
        closed_at=ended,
        reasons=dict(side),
    )  # fmt: skip


def panel_of(stage: Stage, roster: Roster) -> Panel:
    """Return who holds the roles by which a stage may be filled, now."""
    return Panel(
        frozenset(roster.over(stage.role, stage.unit_id)),
        frozenset(roster.over(stage.escalation_role, stage.escalation_unit_id) if stage.escalation_role else ()),
        frozenset(roster.over(stage.fallback_role, stage.fallback_unit_id) if stage.fallback_role else ()),
    )


def panels_of(stages: Iterable[Stage], roster: Roster) -> dict[int, Panel]:
    """Return the panels by ordinal."""
    return {stage.ordinal: panel_of(stage, roster) for stage in stages}


def held_through(stage: Stage, role: str, user_id: int, roster: Roster) -> Held:
    """Return where a person holds the role by which they fill a seat of the stage (`engine.holders` named it)."""
    if role == stage.role and user_id in (over := roster.over(stage.role, stage.unit_id)):
        return over[user_id]
    if role == stage.escalation_role and user_id in (over := roster.over(role, stage.escalation_unit_id)):
        return over[user_id]
    return roster.over(role, stage.fallback_unit_id)[user_id]


def delegations(request: ApprovalRequest, at: datetime, *, to: int | None = None) -> list[engine.Delegation]:
    """Return the delegations in force that reach this request, of everybody or to one person."""
    path = Unit.objects.values_list("path", flat=True).get(pk=request.unit_id)
    rows = Delegation.objects.in_force(at).filter(Q(unit__isnull=True) | Q(unit_id__in=path))
    if to is not None:
        rows = rows.filter(delegate_id=to)
    return [
        engine.Delegation(row.giver_id, row.delegate_id, row.role, row.valid.lower, row.valid.upper) for row in rows
    ]


def nearest(held: dict[int, Held], barred: Iterable[int] = ()) -> list[int]:
    """Return the people at the nearest level that has anybody who is not barred: they get the mail."""
    free = [h for h in held.values() if h.user_id not in set(barred)]
    closest = min((h.distance for h in free), default=0)
    return sorted(h.user_id for h in free if h.distance == closest)
