"""What rules would have asked for of past requests: evaluated on the facts that were stored, beside what happened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from apps.approvals import deciders, engine, ports
from apps.approvals.choices import RequestKind
from apps.approvals.models import ApprovalRequest
from apps.approvals.policy_rules import PolicyRules, StageRule, stages_for

#: So many requests back.
REQUESTS = 50


@dataclass(frozen=True, slots=True)
class Asked:
    """A stage as it was, or would be: name, role, quorum; `mark` is "" | added | removed | changed."""

    name: str
    role: str
    quorum: int
    group: int = 0
    mark: str = ""

    @property
    def text(self) -> str:
        """Return "Compliance: 2 × Compliance"."""
        return f"{self.name}: {self.quorum} × {self.role}"


@dataclass(frozen=True, slots=True)
class Line:
    """One past request: what was asked then, what would be asked now."""

    request: ApprovalRequest
    then_rule: str
    then: list[Asked]
    now_rule: str
    now: list[Asked]
    differs: bool
    #: Facts that the rules ask about and the request did not carry: conditions on them are not met.
    missing: list[str]


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """All lines, and how many of them differ; `emergencies` took no stage of the policy and are left out."""

    lines: list[Line]
    differing: int
    emergencies: int


def rehearse(rules: PolicyRules, subject_type: str, user: Any) -> Rehearsal:
    """Return what `rules` would have asked of the newest requests of a kind that the person sees.

    Standard changes count as not lost: whether a team had lost one then is no fact of the request. Emergencies are left
    out before the newest are taken; those asked for in the same time are counted. At most three queries.
    """
    seen = ApprovalRequest.objects.visible_to(user).filter(subject_type=subject_type)
    normal = list(
        seen.exclude(kind=RequestKind.EMERGENCY)
        .select_related("policy_version__policy", "team")
        .prefetch_related("stages")
        .order_by("-submitted_at", "-pk")[:REQUESTS]
    )
    emergencies = seen.filter(kind=RequestKind.EMERGENCY)
    if len(normal) == REQUESTS:
        emergencies = emergencies.filter(submitted_at__gte=normal[-1].submitted_at)
    left_out = emergencies.count()
    pinned: dict[int, PolicyRules] = {}
    for row in normal:
        if row.policy_version_id not in pinned:
            pinned[row.policy_version_id] = deciders.rules_of(row.policy_version)
    lines = [_line(row, rules, pinned[row.policy_version_id]) for row in normal]
    return Rehearsal(lines, sum(line.differs for line in lines), left_out)


def _line(request: ApprovalRequest, rules: PolicyRules, pinned: PolicyRules) -> Line:
    facts = engine.load_facts(request.facts)
    outcome = stages_for(rules, facts)
    roles = {stage.name: stage.role for stage in pinned.stages}
    # The role as the policy named it: where it was sent (a level up) is the requester's affair, not the rules'.
    then = [
        Asked(row.name, deciders.role_label(roles.get(row.name, row.role)), row.quorum, row.group)
        for row in request.stages.all()
    ]
    now = [] if outcome.automatic is not None else [_asked(stage) for stage in outcome.stages]
    now_rule = outcome.automatic.name if outcome.automatic is not None else ""
    before, after = {one.name: one for one in then}, {one.name: one for one in now}
    differs = bool(request.automatic) != bool(now_rule) or then != now
    return Line(
        request=request,
        then_rule=request.automatic_rule if request.automatic else "",
        then=[_marked(one, after.get(one.name), "removed") for one in then],
        now_rule=now_rule,
        now=[_marked(one, before.get(one.name), "added") for one in now],
        differs=differs,
        missing=[ports.meaning_of(name).label for name in rules.facts() if name not in facts],
    )


def _asked(stage: StageRule) -> Asked:
    return Asked(stage.name, deciders.role_label(stage.role), stage.quorum, stage.group)


def _marked(one: Asked, other: Asked | None, alone: str) -> Asked:
    mark = alone if other is None else "" if one == other else "changed"
    return Asked(one.name, one.role, one.quorum, one.group, mark)
