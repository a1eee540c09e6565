"""The stages of a request: copied from the pinned version, opened one by one, and whether anybody can fill them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from apps.approvals import deciders, engine, events, notices
from apps.approvals.models import ApprovalRequest, Decision, Stage
from apps.approvals.wording import stage_rule_text
from apps.core import clock
from apps.core.actor import Actor
from apps.teams.choices import Role


def open_stages(request: ApprovalRequest, outcome: engine.Outcome) -> None:
    """Copy the asked stages to the request, each with where it goes and the rule that asks for it."""
    for ordinal, rule in enumerate(outcome.stages):
        goes = deciders.route(rule, request.unit, request.requester_id)
        Stage.objects.create(
            request=request,
            ordinal=ordinal,
            name=rule.name,
            role=goes.role,
            unit_id=goes.unit_id,
            rule=stage_rule_text(request.policy_version, rule, goes.note)[:1000],
            quorum=rule.quorum,
            due_hours=rule.due_hours,
        )


def stages(request: ApprovalRequest) -> list[Stage]:
    """Return the request's stages in order."""
    return list(Stage.objects.filter(request=request).order_by("ordinal"))


def open_stage(request: ApprovalRequest, ordinal: int, at: datetime, actor: Actor) -> None:
    """Open a stage: its time starts to run, and those who can decide it are told."""
    stage = Stage.objects.get(request=request, ordinal=ordinal)
    stage.opened_at = at
    stage.due_at = at + timedelta(hours=stage.due_hours) if stage.due_hours else None
    stage.save(update_fields=["opened_at", "due_at"])
    request.current_stage, request.due_at = ordinal, stage.due_at
    request.bump("current_stage", "due_at")
    notices.tell(events.REQUEST_SUBMITTED, request, mail_for(request, stage), actor=actor, stage=stage)


def mail_for(request: ApprovalRequest, stage: Stage) -> list[int]:
    """Return who is told: the nearest level over the stage's unit that has somebody who is not excluded."""
    pairs: Iterable[tuple[int, int | None]] = Decision.objects.filter(request=request).values_list(
        "actor_id", "on_behalf_of_id"
    )
    spoke = {person for pair in pairs for person in pair if person is not None}
    return deciders.nearest(deciders.holders(stage.role, stage.unit_id), deciders.excluded(request) | spoke)


def warn_if_undecidable(request: ApprovalRequest, actor: Actor) -> None:
    """Tell the platform admins where a stage cannot get its quorum: the request stands, an appointment heals it."""
    steps = stages(request)
    case = deciders.case_of(request, steps, [], deciders.excluded(request))
    starving = starving_stages(case, engine.evaluate(case, clock.now()), steps, deciders.Roster())
    if not starving:
        return
    admins = deciders.holders(Role.PLATFORM_ADMIN, None)
    names = ", ".join(f"“{stage.name}”" for stage in starving)
    note = f"Too few people can decide in {names}: everybody with the role is excluded, or nobody holds it."
    notices.tell(events.REQUEST_UNDECIDABLE, request, admins, actor=actor, stage=starving[0], note=note)


def starving_stages(case: engine.Case, state: engine.State, steps: list[Stage], roster: deciders.Roster) -> list[Stage]:
    """Return the stages, from the open one on, that cannot get their quorum from those who may decide now."""
    seated = {person for _, _, persons in state.seats.values() for person in persons}
    open_ones = [step for step in steps if step.ordinal >= state.stage]
    needs = []
    for step in open_ones:
        free = set(roster.over(step.role, step.unit_id)) - case.excluded - {case.requester} - seated
        needs.append((step.quorum - len(state.approvals(step.ordinal)), free))
    return [open_ones[index] for index in engine.unfillable(needs)]
