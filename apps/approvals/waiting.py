"""What waits for a person: one query over open stages for each way in which they may speak."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.db.models import DurationField, ExpressionWrapper, F, Q, Value

from apps.approvals import deciders, delegating, engine, ports
from apps.approvals.choices import RequestStatus
from apps.approvals.delegating import Voice
from apps.approvals.models import ApprovalRequest, Decision, PolicyVersion, Stage
from apps.approvals.querysets import ApprovalRequestQuerySet
from apps.core import clock
from apps.teams import scope


def waiting_for(user: Any) -> ApprovalRequestQuerySet:
    """Return the requests that this person can decide now, for themselves or for who lets them, oldest first.

    The seat holds an open stage's role over its unit (or the one it has escalated to, or falls back on), nobody behind
    the word is on the requester's side or fills another seat, and there is time left: what `engine.why_not` says, as
    one query. Who joined a team since submission is on its side by now; only subjects that do not say so
    (`ports.SidedByTeam`), or whose authors and evidence producers are not known by person
    (`ports.AuthoredByPerson`), are asked one by one.
    """
    return together(ways(user))


def ways(user: Any) -> list[tuple[Voice, ApprovalRequestQuerySet]]:
    """Return every way in which something may wait for a person, their own first, with what they can decide now in it.

    Their own is left out where no open stage asks for a role of theirs: most pages are opened by such people.
    """
    if scope.of(user).user_id is None:
        return []
    standins = delegating.standins_of(user)
    own = (delegating.own_voice(user),) if standins.asked or standins.fallback else ()
    voices = (*own, *standins.voices)
    asked = _Asked(user)
    return [(voice, _decidable(voice, user, asked)) for voice in voices if voice.installation or voice.units]


class _Asked:
    """What is asked once for all ways in which a person may speak, whoever stands behind them."""

    def __init__(self, user: Any) -> None:
        self.user = user
        self._teams: dict[int, set[int]] = {}
        self._falls_back: bool | None = None

    def teams_of(self, person: int) -> set[int]:
        """Return the teams that a person belongs to or leads."""
        if person not in self._teams:
            scopes = scope.of(self.user) if person == self.user.pk else scope.resolve(person)
            self._teams[person] = {team for ids in scopes.teams.values() for team in ids}
        return self._teams[person]

    def falls_back(self) -> bool:
        """Whether any open stage has a fallback at all."""
        if self._falls_back is None:
            open_now = Stage.objects.filter(
                request__status=RequestStatus.IN_REVIEW, opened_at__isnull=False, completed_at__isnull=True
            )
            self._falls_back = open_now.exclude(fallback_role="").exists()
        return self._falls_back


def together(found: list[tuple[Voice, ApprovalRequestQuerySet]]) -> ApprovalRequestQuerySet:
    """Return what can be decided in any of these ways, oldest first."""
    if len(found) == 1:
        [(_, only)] = found
        return only.order_by("submitted_at", "pk")
    any_way = Q(pk__in=[])
    for _, decidable in found:
        any_way |= Q(pk__in=decidable.values("pk"))
    return ApprovalRequest.objects.filter(any_way).order_by("submitted_at", "pk")


def _decidable(voice: Voice, user: Any, asked_of: _Asked) -> ApprovalRequestQuerySet:
    persons = sorted(voice.persons)
    at = clock.now()
    waited = ExpressionWrapper(Value(timedelta(hours=1)) * F("escalate_hours"), output_field=DurationField())
    asked = voice.stages() | (
        Q(escalate_hours__isnull=False, opened_at__lte=at - waited) & voice.stages("escalation_role", "escalation_unit")
    )
    open_now = Stage.objects.filter(
        voice.within("request__unit"),
        request__status=RequestStatus.IN_REVIEW,
        opened_at__isnull=False,
        completed_at__isnull=True,
    )
    ids = Q(pk__in=open_now.filter(asked).values("request_id"))
    may_fall = asked_of.falls_back() if voice.giver_id is not None else delegating.standins_of(user).fallback
    if may_fall:
        ids |= Q(pk__in=_falling_back(open_now.filter(voice.stages("fallback_role", "fallback_unit"))))
    spoke = Decision.objects.filter(Q(actor_id__in=persons) | Q(on_behalf_of_id__in=persons))
    found = (
        ApprovalRequest.objects.filter(ids)
        .filter(Q(due_at__isnull=True) | Q(due_at__gt=at))
        .exclude(requester_id__in=persons)
        .exclude(pk__in=spoke.values("request_id"))
    )
    for person in persons:
        found = found.exclude(requester_side__contains=[person])
        found = _not_of_own_team(person, found, asked_of)
    return _not_by(persons, found)


def _falling_back(stages: Any) -> list[int]:
    """Return the requests (keys) that one of these stages lets its fallback role decide: each is asked, few have it."""
    roster, found = deciders.Roster(), []
    for stage in stages.select_related("request__policy_version"):
        request = stage.request
        steps = list(Stage.objects.filter(request=request).order_by("ordinal"))
        words = Decision.objects.filter(request=request)
        case = deciders.case_of(request, steps, words, deciders.barred(request))
        state = engine.evaluate(case, clock.now())
        panel = deciders.panel_of(stage, roster)
        held = engine.holders(case, state, stage.ordinal, panel, clock.now())
        if any(role == stage.fallback_role for role in held.values()):
            found.append(request.pk)
    return found


def _not_of_own_team(person: int, found: ApprovalRequestQuerySet, asked_of: _Asked) -> ApprovalRequestQuerySet:
    own = asked_of.teams_of(person)
    if not own:
        return found
    sided = ports.sided_by_team()
    found = found.exclude(subject_type__in=sided, team_id__in=own)
    others = [name for name in ports.subject_types() if name not in sided]
    if others:
        asked = found.filter(subject_type__in=others, team_id__in=own)
        joined = [row.pk for row in asked.select_related("policy_version") if person in deciders.excluded(row)]
        found = found.exclude(pk__in=joined) if joined else found
    return found


def _not_by(persons: Sequence[int], found: ApprovalRequestQuerySet) -> ApprovalRequestQuerySet:
    """Leave out what any of these people wrote, or proved where the policy counts that, also since submission."""
    lenient = PolicyVersion.objects.filter(body__separation__evidence_producers=False).values("pk")
    shut = Q(pk__in=[])
    for name in ports.authored():
        subject = ports.get_subject(name)
        if isinstance(subject, ports.AuthoredByPerson):
            wrote = Q(subject_type=name, subject_uid__in=subject.written_by(persons))
            proved = Q(subject_type=name, subject_uid__in=subject.proved_by(persons))
            shut |= wrote | (proved & ~Q(policy_version_id__in=lenient))
        else:
            asked = found.filter(subject_type=name).select_related("policy_version")
            shut |= Q(pk__in=[row.pk for row in asked if deciders.excluded(row) & set(persons)])
    return found.exclude(shut)
