"""The stages of a request: copied from the pinned version, opened step by step, and whether anybody can fill them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from apps.approvals import deciders, engine, events, notices
from apps.approvals.models import ApprovalRequest, Decision, Stage
from apps.approvals.wording import stage_rule_text
from apps.core import clock
from apps.core.actor import Actor
from apps.teams.choices import Role


def open_stages(request: ApprovalRequest, outcome: engine.Outcome) -> None:
    """Copy the asked stages to the request, each with where it goes and the rule that asks for it."""
    for ordinal, rule in enumerate(outcome.stages):
        goes, up, spare = (
            deciders.route(one, request.unit, request.requester_id) if one is not None else None
            for one in (rule, rule.escalate_to, rule.fallback)
        )
        assert goes is not None  # noqa: S101 (for the type checker: the rule itself is never None)
        Stage.objects.create(
            request=request,
            ordinal=ordinal,
            name=rule.name,
            role=goes.role,
            unit_id=goes.unit_id,
            rule=stage_rule_text(request.policy_version, rule, goes.note)[:1000],
            quorum=rule.quorum,
            due_hours=rule.due_hours,
            group=rule.group,
            wait_hours=rule.wait_hours,
            escalate_hours=rule.escalate_hours,
            escalation_role=up.role if up else "",
            escalation_unit_id=up.unit_id if up else None,
            fallback_role=spare.role if spare else "",
            fallback_unit_id=spare.unit_id if spare else None,
        )


def stages(request: ApprovalRequest) -> list[Stage]:
    """Return the request's stages in order."""
    return list(Stage.objects.filter(request=request).order_by("ordinal"))


def open_ones(steps: Iterable[Stage]) -> list[Stage]:
    """Return the stages that are open: they wait for words at the same time."""
    return [stage for stage in steps if stage.opened_at is not None and stage.completed_at is None]


def follow(request: ApprovalRequest, steps: list[Stage], state: engine.State, actor: Actor) -> list[Stage]:
    """Write down what the fold says of the stages; those who can decide the newly opened ones are told.

    The request's row moves with every word: whoever has an older page open must look again.
    """
    opened = []
    for stage in steps:
        since, done = state.opened[stage.ordinal], state.completed[stage.ordinal]
        if since is not None and stage.opened_at is None:
            opened.append(stage)
        # Both ways: a word stops counting where its person has come to the requester's side since.
        if (stage.opened_at, stage.completed_at) != (since, done):
            stage.opened_at, stage.completed_at = since, done
            stage.due_at = since + timedelta(hours=stage.due_hours) if since and stage.due_hours else None
            stage.save(update_fields=["opened_at", "due_at", "completed_at"])
    if state.standing is engine.Standing.IN_REVIEW:
        request.current_stage, request.due_at = state.stage, state.due_at
    request.bump("current_stage", "due_at")
    for stage in opened:
        notices.tell(events.REQUEST_SUBMITTED, request, mail_for(request, stage), actor=actor, stage=stage)
    return opened


def mail_for(request: ApprovalRequest, stage: Stage) -> list[int]:
    """Return who is told: the nearest level over the stage's unit that has somebody free, and who stands in for them.

    Where the stage's own role has nobody free, those it falls back on are told.
    """
    shut = deciders.excluded(request) | _spoke(request)
    near = deciders.nearest(deciders.holders(stage.role, stage.unit_id), shut)
    role = stage.role
    if not near and stage.fallback_role:
        near = deciders.nearest(deciders.holders(stage.fallback_role, stage.fallback_unit_id), shut)
        role = stage.fallback_role
    return with_delegates(request, near, role, shut)


def mail_for_escalation(request: ApprovalRequest, stage: Stage) -> list[int]:
    """Return who is told that they may now decide as well."""
    shut = deciders.excluded(request) | _spoke(request)
    near = deciders.nearest(deciders.holders(stage.escalation_role, stage.escalation_unit_id), shut)
    return with_delegates(request, near, stage.escalation_role, shut)


def with_delegates(request: ApprovalRequest, people: list[int], role: str, shut: frozenset[int]) -> list[int]:
    """Return the people together with whoever may speak for one of them in that role now."""
    standing_in = deciders.delegations(request, clock.now())
    return sorted({*people, *(d.to for d in standing_in if d.giver in people and d.role == role and d.to not in shut)})


def _spoke(request: ApprovalRequest) -> frozenset[int]:
    pairs: Iterable[tuple[int, int | None]] = Decision.objects.filter(request=request).values_list(
        "actor_id", "on_behalf_of_id"
    )
    return frozenset(person for pair in pairs for person in pair if person is not None)


def warn_if_undecidable(request: ApprovalRequest, actor: Actor) -> None:
    """Tell the platform admins where a stage cannot get its quorum: the request stands, an appointment heals it."""
    steps = stages(request)
    case = deciders.case_of(request, steps, [], deciders.barred(request))
    starving = starving_stages(case, engine.evaluate(case, clock.now()), steps, deciders.Roster())
    if not starving:
        return
    admins = deciders.holders(Role.PLATFORM_ADMIN, None)
    names = ", ".join(f"“{stage.name}”" for stage in starving)
    note = f"Too few people can decide in {names}: everybody with the role is excluded, or nobody holds it."
    notices.tell(events.REQUEST_UNDECIDABLE, request, admins, actor=actor, stage=starving[0], note=note)


def starving_stages(case: engine.Case, state: engine.State, steps: list[Stage], roster: deciders.Roster) -> list[Stage]:
    """Return the stages that lack approvals and cannot get their quorum from those who may decide now, or will.

    Those a stage escalates to count: it does so by itself.
    """
    seated = {person for _, _, persons in state.seats.values() for person in persons}
    lacking = [step for step in steps if state.completed[step.ordinal] is None]
    needs = []
    for step in lacking:
        panel = deciders.panel_of(step, roster)
        may = set(engine.holders(case, state, step.ordinal, panel, clock.now())) | panel.escalation
        free = may - case.excluded - {case.requester} - seated
        needs.append((step.quorum - len(state.approvals(step.ordinal)), free))
    return [lacking[index] for index in engine.unfillable(needs)]
