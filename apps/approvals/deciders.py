"""Roles resolved to people, at this moment: who holds a stage's role, where a stage goes, what a request's case is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.db.models import Q

from apps.approvals import ports
from apps.approvals.choices import RequestStatus
from apps.approvals.engine import Case, StageSpec, Word
from apps.approvals.models import ApprovalRequest, Decision, PolicyVersion, Stage
from apps.approvals.policy_reader import parse_policy
from apps.approvals.policy_rules import PolicyRules, StageRule
from apps.teams.choices import SCOPES, Role, roles_with
from apps.teams.models import RoleGrant, Unit

_ENDED_EARLY = (RequestStatus.WITHDRAWN, RequestStatus.LAPSED, RequestStatus.SUPERSEDED)


def deciding_roles() -> list[str]:
    """Return the roles that a policy may ask."""
    return sorted(roles_with("approvals.request.decide"))


def rules_of(version: PolicyVersion) -> PolicyRules:
    """Return the rules of a published version, also where one of its roles may no longer be named in a new one."""
    return parse_policy(version.body, roles=sorted(Role.values))


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
        RoleGrant.objects.in_force().filter(where, role=role).values_list("user_id", "unit_id")
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


def route(rule: StageRule, unit: Unit, requester_id: int) -> Route:
    """Return where a stage of a request that `unit` pays goes.

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


def excluded(request: ApprovalRequest) -> frozenset[int]:
    """Return the requester's side: as of submission and as of now, so that nobody leaves a team for a minute."""
    now = ports.get_subject(request.subject_type).requester_side(request.subject_uid)
    return frozenset(now) | frozenset(request.requester_side) | {request.requester_id}


def case_of(
    request: ApprovalRequest, stages: Sequence[Stage], decisions: Iterable[Decision], side: frozenset[int]
) -> Case:
    """Return the request as the engine sees it: pinned stages, digests, log."""
    ordinals = {stage.pk: stage.ordinal for stage in stages}
    ended = request.concluded_at if request.status in _ENDED_EARLY else None
    return Case(
        stages=tuple(StageSpec(s.name, s.role, s.quorum, s.due_hours) for s in stages),
        digest=request.subject_digest,
        policy_digest=request.policy_version.digest,
        opened_at=request.submitted_at,
        requester=request.requester_id,
        excluded=side,
        words=tuple(
            Word(
                ordinals[d.stage_id], d.actor_id, d.on_behalf_of_id, d.verdict, d.subject_digest, d.policy_digest,
                d.decided_at,
            )
            for d in decisions
        ),
        closed_at=ended,
    )  # fmt: skip


def nearest(held: dict[int, Held], barred: Iterable[int] = ()) -> list[int]:
    """Return the people at the nearest level that has anybody who is not barred: they get the mail."""
    free = [h for h in held.values() if h.user_id not in set(barred)]
    closest = min((h.distance for h in free), default=0)
    return sorted(h.user_id for h in free if h.distance == closest)
