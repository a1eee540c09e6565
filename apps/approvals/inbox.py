"""What the inbox shows of each request that waits for a person: which stage, by which role or for whom, since when."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import F, OuterRef, Subquery, Value
from django.http import HttpRequest

from apps.approvals import deciders, engine, waiting
from apps.approvals.choices import RequestStatus
from apps.approvals.delegating import Voice
from apps.approvals.models import ApprovalRequest, Delegation, Stage
from apps.approvals.querysets import ApprovalRequestQuerySet
from apps.core import clock, formats
from apps.teams.models import Unit

#: The facts that say how much is at stake, by the names under which rooms give them; the cost has a column of its own.
ENVIRONMENT, DATA_CLASS, RISK_TIER = "environment", "data_class", "risk_tier"
Way = tuple[Voice, ApprovalRequestQuerySet]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a request waits for a person: an open stage, and the role (of whom) that lets them fill it."""

    stage: str
    role: str
    where: str
    opened_at: datetime | None
    #: Before this moment only a rejection counts; None: approvals count now.
    approve_from: datetime | None = None
    giver: str = ""
    until: datetime | None = None
    #: "" for the stage's own role, else "escalated" or "fallback".
    how: str = ""

    @property
    def text(self) -> str:
        """Return the reason in one line."""
        text = f"{self.stage}: {self.role} of {self.where}"
        if self.giver:
            text += f", for {self.giver}"
            text += f" (until {formats.datetime_utc(self.until)})" if self.until else ""
        if self.how == "escalated":
            text += "; it was not decided in time by those asked first"
        elif self.how == "fallback":
            text += "; too few of those asked first are free of conflicts"
        return text


def ordered(found: list[Way]) -> ApprovalRequestQuerySet:
    """Return what waits in any of these ways: what is due first comes first, without a limit last, then the oldest."""
    opened = Stage.objects.filter(request=OuterRef("pk"), opened_at__isnull=False, completed_at__isnull=True)
    return (
        waiting.together(found)
        .select_related("team", "requester")
        # Long, and nothing that a list shows.
        .defer("leaves", "requester_side", "reason", "conclusion")
        .annotate(waits_since=Subquery(opened.order_by("opened_at").values("opened_at")[:1]))
        .order_by(F("due_at").asc(nulls_last=True), "submitted_at", "pk")
    )


def reasons(found: list[Way], requests: Collection[ApprovalRequest]) -> dict[int, list[Reason]]:
    """Return by request (key) why it waits for the person whose ways these are.

    One query for the stages; where somebody lets the person speak, one more for the ways and one for the names.
    """
    keys = [one.pk for one in requests]
    stages = Stage.objects.filter(
        request_id__in=keys,
        request__status=RequestStatus.IN_REVIEW,
        opened_at__isnull=False,
        completed_at__isnull=True,
    )
    by_request: dict[int, list[Stage]] = {}
    for stage in stages.select_related("unit", "escalation_unit", "fallback_unit").order_by("ordinal"):
        by_request.setdefault(stage.request_id, []).append(stage)
    givers = _givers(found)
    at = clock.now()
    result: dict[int, list[Reason]] = {}
    for (voice, _), mine in zip(found, _each(found, keys), strict=True):
        for key in mine:
            each = (reason_for(stage, voice, at, givers) for stage in by_request.get(key, ()))
            result.setdefault(key, []).extend(one for one in each if one is not None)
    return result


def _each(found: list[Way], keys: list[int]) -> list[set[int]]:
    """Return for each way which of these requests wait in it, in one statement for all ways."""
    if len(found) <= 1:
        # With one way only, everything that waits does so in it.
        return [set(keys) for _ in found]
    parts = [
        decidable.filter(pk__in=keys).order_by().annotate(_way=Value(number)).values_list("_way", "pk")
        for number, (_, decidable) in enumerate(found)
    ]
    rows: list[tuple[int, int]] = list(parts[0].union(*parts[1:], all=True))
    return [{key for way, key in rows if way == number} for number in range(len(found))]


def ways_of(request: HttpRequest) -> list[Way]:
    """Return how the person behind a request may speak, with what waits: found once, for page and sidebar."""
    kept: tuple[int | None, list[Way]] | None = getattr(request, "_commons_ways", None)
    if kept is None or kept[0] != request.user.pk:
        kept = (request.user.pk, waiting.ways(request.user))
        request._commons_ways = kept  # type: ignore[attr-defined]  # HttpRequest takes attributes; stubs do not know ours
    return kept[1]


def reason_for(
    stage: Stage, voice: Voice, at: datetime, givers: dict[tuple[int, str], tuple[str, datetime | None]]
) -> Reason | None:
    """Return by which role a voice may fill a stage, None where by none."""
    late = (
        stage.escalate_hours is not None
        and stage.opened_at is not None
        and at >= stage.opened_at + timedelta(hours=stage.escalate_hours)
    )
    options: list[tuple[str, Unit | None, str]] = [(stage.role, stage.unit, "")]
    if late and stage.escalation_role:
        options.append((stage.escalation_role, stage.escalation_unit, "escalated"))
    if stage.fallback_role:
        options.append((stage.fallback_role, stage.fallback_unit, "fallback"))
    for role, unit, how in options:
        if not _holds(voice, role, unit):
            continue
        until = None
        if stage.wait_hours is not None and stage.opened_at is not None:
            until = stage.opened_at + timedelta(hours=stage.wait_hours)
        name, ends = givers.get((voice.giver_id, role), ("", None)) if voice.giver_id is not None else ("", None)
        return Reason(
            stage=stage.name,
            role=deciders.role_label(role),
            where=unit.name if unit is not None else "the whole installation",
            opened_at=stage.opened_at,
            approve_from=until if until is not None and at < until else None,
            giver=name,
            until=ends,
            how=how,
        )
    return None


def _holds(voice: Voice, role: str, unit: Unit | None) -> bool:
    if role in voice.installation:
        return True
    return unit is not None and bool(voice.units.get(role, frozenset()) & set(unit.path))


def _givers(found: Iterable[Way]) -> dict[tuple[int, str], tuple[str, datetime | None]]:
    """Return by giver and role whom a person speaks for, and until when at the latest."""
    pairs = {(voice.user_id, voice.giver_id) for voice, _ in found if voice.giver_id is not None}
    if not pairs:
        return {}
    rows = Delegation.objects.in_force(clock.now()).filter(
        delegate_id__in={to for to, _ in pairs}, giver_id__in={giver for _, giver in pairs}
    )
    rows = rows.select_related("giver")
    known: dict[tuple[int, str], tuple[str, datetime | None]] = {}
    for row in rows:
        key, ends = (row.giver_id, row.role), row.valid.upper
        earlier = known.get(key)
        if earlier is None or (earlier[1] is not None and ends > earlier[1]):
            known[key] = (str(row.giver), ends)
    return known


def risk_facts(request: ApprovalRequest) -> dict[str, str]:
    """Return environment, data class and risk tier as of submission, "" for what is unknown."""
    facts = engine.load_facts(request.facts)
    return {name: str(facts.get(name, "")) for name in (ENVIRONMENT, DATA_CLASS, RISK_TIER)}


@dataclass(frozen=True, slots=True)
class Known:
    """What occurs in an inbox, for its filters."""

    environments: list[str]
    data_classes: list[str]
    #: (slug, name)
    teams: list[tuple[str, str]]


def known_values(found: ApprovalRequestQuerySet) -> Known:
    """Return what occurs among requests (one query)."""
    names = (f"facts__{ENVIRONMENT}", f"facts__{DATA_CLASS}", "team__slug", "team__name")
    rows = list(found.order_by().values_list(*names).distinct())
    return Known(
        sorted({str(row[0]) for row in rows if row[0]}),
        sorted({str(row[1]) for row in rows if row[1]}),
        sorted({(row[2], row[3]) for row in rows if row[2]}, key=lambda team: team[1]),
    )
