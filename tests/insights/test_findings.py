"""Findings from metered hours: found once, updated, closed by themselves, and acted upon."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps.approvals import actions as approvals
from apps.audit.models import AuditEvent
from apps.clusters.capabilities import Capabilities, Kueue, as_json
from apps.clusters.models import PoolCapacity
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.models import OutboxMessage
from apps.insights import actions, findings, tasks
from apps.insights.choices import FindingKind, FindingStatus
from apps.insights.models import Finding
from apps.metering.selectors import capacity_lines
from apps.quotas.choices import RequestStatus
from apps.quotas.models import Quota, QuotaRequest
from tests.factories import Company
from tests.insights.conftest import END, HOUR, NOW, START, ingest
from tests.metering.world import World, guarantee, hold, make_world

WHY = "They train again in December."


@pytest.fixture
def hoarded(world: World) -> Finding:
    """Finance holds 16 and never used more than 4 at once; Marketing uses its 2."""
    guarantee(world, "finance", 16)
    guarantee(world, "marketing", 2)
    ingest(
        world,
        [
            hold("a", "finance-prod", START, START + 30 * HOUR, 3, used=0.5),
            # Two after each other within one hour, beside the three: four at once, never five.
            hold("b", "finance-prod", START, START + timedelta(minutes=20), 1, used=0.5),
            hold("c", "finance-prod", START + timedelta(minutes=20), START + timedelta(minutes=50), 1, used=0.5),
            hold("m", "marketing-prod", START, END, 2, used=0.9),
        ],
    )
    assert findings.find_all() == 1
    return Finding.objects.get()


def audited(action: str) -> int:
    """How often something is on record."""
    return AuditEvent.objects.filter(action=action).count()


@pytest.mark.requirement("insights-2.1", "insights-2.3")
def test_what_was_found(hoarded: Finding, world: World, company: Company) -> None:
    """The exact peak of overlapping spans, GPU time, and the money that the books charged for it."""
    assert (hoarded.kind, hoarded.team, hoarded.status) == (
        FindingKind.HOARDED_QUOTA, company.finance_team, FindingStatus.OPEN,
    )  # fmt: skip
    seen, proposal = hoarded.evidence, hoarded.proposal
    assert (seen["guaranteed"], seen["peak"], seen["hours_metered"]) == (16, 4, 336)
    assert (proposal["guaranteed"], proposal["give_back"]) == (5, 11)
    held_ms = 30 * 3 * 3_600_000 + 50 * 60_000
    assert hoarded.gpu_ms == 16 * 336 * 3_600_000 - held_ms
    lines = capacity_lines(world.cluster.pk, world.flavour.gpu_model, START, END)
    assert seen["free_gpu_ms"] == hoarded.gpu_ms
    assert lines["reserved_unused"] in (0, hoarded.gpu_ms)
    assert hoarded.amount == (Decimal(hoarded.gpu_ms) / 3_600_000 * Decimal("3.85")).quantize(Decimal("0.000001"))
    assert Decimal(proposal["monthly"]) == 11 * 730 * Decimal("3.85")
    assert len(seen["days"]) == 15  # from nine in the morning: the first and the last day are parts
    assert sum(day["unused_gpu_ms"] for day in seen["days"]) == hoarded.gpu_ms
    told = OutboxMessage.objects.get(event="insights.finding.found")
    assert told.recipient_ids == [company.lead_finance.pk]
    assert audited("insights.finding.found") == 1


@pytest.mark.requirement("insights-2.4")
def test_looking_again_changes_nothing(hoarded: Finding) -> None:
    """The same rows, the same finding, no second message."""
    assert findings.find_all() == 0
    assert Finding.objects.count() == 1
    assert OutboxMessage.objects.filter(event="insights.finding.found").count() == 1


@pytest.mark.requirement("insights-2.4")
def test_it_follows_what_happens(hoarded: Finding, world: World) -> None:
    """Updated where the use rose, closed where it rose enough, opened anew if it falls again."""
    later = END + timedelta(hours=3)
    with clock.frozen(later + timedelta(minutes=10)):
        ingest(world, [hold("d", "finance-prod", END, END + HOUR, 8)], END, later)
        assert findings.find_all() == 1
        hoarded.refresh_from_db()
        assert (hoarded.evidence["peak"], hoarded.proposal["give_back"], hoarded.status) == (8, 7, FindingStatus.OPEN)
        Quota.objects.filter(workspace=world.workspaces["finance"]).update(guaranteed=10)
        assert findings.find_all() == 1
        hoarded.refresh_from_db()
        assert (hoarded.status, hoarded.closed_at) == (FindingStatus.GONE, clock.now())
        assert audited("insights.finding.gone") == 1
        Quota.objects.filter(workspace=world.workspaces["finance"]).update(guaranteed=16)
        assert findings.find_all() == 1
    assert Finding.objects.filter(status=FindingStatus.OPEN).count() == 1


@pytest.mark.requirement("insights-2.2")
def test_unmetered_hours_and_missing_prices_are_unknown(world: World, company: Company) -> None:
    """With a third of the hours missing nothing is said; without a rate the cost is unknown, never zero."""
    unpriced = make_world(company.teams.values(), rate="", slug="dc2")
    guarantee(unpriced, "finance", 16)
    absent = {START + i * HOUR for i in range(112)}
    ingest(unpriced, [], absent=absent)
    assert findings.find_all() == 0
    ingest(unpriced, [], START, START + timedelta(days=5))
    assert findings.find_all() == 1
    row = Finding.objects.get()
    assert (row.amount, row.proposal["monthly"]) == (None, None)
    assert row.gpu_ms > 0


@pytest.mark.requirement("insights-2.1")
def test_what_goes_by_itself_is_no_finding(world: World, company: Company) -> None:
    """Quota that ends within the window's length, that recurs, or whose workspace is archived."""
    soon = Quota.objects.create(
        workspace=world.workspaces["finance"], flavour=world.flavour, guaranteed=16,
        valid=DateTimeTZRange(START - timedelta(days=60), NOW + timedelta(days=13), "[)"),
    )  # fmt: skip
    weekly = guarantee(world, "marketing", 8)
    weekly.request = QuotaRequest.objects.create(
        workspace=weekly.workspace, flavour=world.flavour, guaranteed=8, valid_from=START, reason=WHY,
        requester=company.lead_marketing, recurrence={"days": [5], "start": "00:00", "minutes": 2880},
        valid_until=NOW + timedelta(days=90), status=RequestStatus.ACTIVE,
    )  # fmt: skip
    weekly.save()
    guarantee(world, "research", 8)
    place = world.workspaces["research"]
    place.archived_at = NOW
    place.save()
    ingest(world, [])
    assert findings.find_all() == 0
    soon.valid = DateTimeTZRange(soon.valid.lower, NOW + timedelta(days=15), "[)")
    soon.save()
    assert findings.find_all() == 1


@pytest.mark.requirement("insights-2.2")
def test_data_that_stopped_coming_claims_nothing_and_closes_nothing(hoarded: Finding) -> None:
    """A day without any metered hour: nobody knows, so what was found stays as it was."""
    with clock.frozen(NOW + timedelta(days=1)):
        assert findings.find_all() == 0
    hoarded.refresh_from_db()
    assert hoarded.status == FindingStatus.OPEN


@pytest.mark.requirement("insights-2.5")
def test_giving_back_is_a_quota_request_for_less(hoarded: Finding, world: World, company: Company) -> None:
    """As the person, through the quota policy; the finding follows the request."""
    request = actions.give_back(hoarded.pk, actor=Actor.of(company.lead_finance), expected_version=hoarded.version)
    assert (request.guaranteed, request.requester) == (5, company.lead_finance)
    assert request.status in (RequestStatus.APPLYING, RequestStatus.ACTIVE)  # the policy approves what takes less
    hoarded.refresh_from_db()
    assert (hoarded.status, hoarded.request) == (FindingStatus.ACTED, request)
    held = Quota.objects.filter(workspace=world.workspaces["finance"]).in_force().get()
    assert held.guaranteed == 5
    assert findings.find_all() == 0
    with pytest.raises(Conflict):
        actions.give_back(hoarded.pk, actor=Actor.of(company.lead_finance))


@pytest.mark.requirement("insights-2.5")
def test_a_rejected_return_opens_a_finding_anew(hoarded: Finding, world: World, company: Company) -> None:
    """While the request is open nothing is found; once it is over, what is still so is said again."""
    approvals.publish_policy(
        "quota", "Quota", "quotas.request",
        {"validity_days": 365, "stages": [{"name": "Owner", "role": "unit_owner", "scope": "unit", "quorum": 1}]},
        actor=Actor.of(company.admin),
    )  # fmt: skip
    request = actions.give_back(hoarded.pk, actor=Actor.of(company.lead_finance))
    assert request.status == RequestStatus.IN_REVIEW
    assert findings.find_all() == 0
    assert request.approval is not None
    approvals.decide(
        request.approval.pk, "reject", "Keep it for the audit.", actor=Actor.of(company.vp),
        expected_digest=request.approval.subject_digest,
    )  # fmt: skip
    assert findings.find_all() == 1


@pytest.mark.requirement("insights-2.5")
def test_what_is_kept_for_serving_stays(hoarded: Finding, world: World, company: Company) -> None:
    """Nothing below it is requested, and a lending limit follows."""
    there = Capabilities(kueue=Kueue(installed=True, api_versions=("v1beta2",)), checked_at=NOW)
    world.cluster.capabilities, world.cluster.kueue_mode = as_json(there), "jobs"
    world.cluster.save()
    Quota.objects.filter(workspace=world.workspaces["finance"]).update(serving=4, lend_mode="limited", lend_limit=9)
    request = actions.give_back(hoarded.pk, actor=Actor.of(company.lead_finance))
    assert (request.guaranteed, request.serving, request.lend_limit) == (5, 4, 1)


@pytest.mark.requirement("insights-2.6")
def test_snoozing_and_dismissing(hoarded: Finding, world: World, company: Company) -> None:
    """With a reason and an end; a dismissed one comes back once it has grown."""
    lead = Actor.of(company.lead_finance)
    for until in (NOW - HOUR, NOW + timedelta(days=91)):
        with pytest.raises(Invalid):
            actions.snooze(hoarded.pk, until, WHY, actor=lead)
    with pytest.raises(Invalid):
        actions.snooze(hoarded.pk, NOW + HOUR, "later", actor=lead)
    actions.snooze(hoarded.pk, NOW + HOUR, WHY, actor=lead, expected_version=hoarded.version)
    assert findings.find_all() == 0
    with clock.frozen(NOW + 2 * HOUR):
        assert findings.wake_snoozed(clock.now()) == 1
    hoarded.refresh_from_db()
    assert hoarded.status == FindingStatus.OPEN
    with pytest.raises(Conflict):
        actions.dismiss(hoarded.pk, WHY, actor=lead, expected_version=1)
    actions.dismiss(hoarded.pk, WHY, actor=lead)
    assert findings.find_all() == 0
    Quota.objects.filter(workspace=world.workspaces["finance"]).update(guaranteed=20)
    assert findings.find_all() == 1
    assert audited("insights.finding.dismissed") == 1


@pytest.mark.requirement("insights-2.7")
def test_who_may_decide(hoarded: Finding, company: Company) -> None:
    """Members look, strangers do not even see it."""
    for name in ("member_finance", "compliance", "auditor"):
        with pytest.raises(NotAllowed):
            actions.dismiss(hoarded.pk, WHY, actor=Actor.of(company[name]))
    for name in ("lead_marketing", "vp_other"):
        with pytest.raises(NotVisible):
            actions.dismiss(hoarded.pk, WHY, actor=Actor.of(company[name]))
    with pytest.raises(NotAllowed):  # quota is requested by the team's own people and its unit's owner
        actions.give_back(hoarded.pk, actor=Actor.of(company.admin))
    assert actions.dismiss(hoarded.pk, WHY, actor=Actor.of(company.vp)).decided_by == company.vp


@pytest.mark.requirement("insights-2.8")
def test_capacity_lost_is_told_to_the_platform(world: World, company: Company) -> None:
    """By how much and from when on; it closes once there is room again."""
    guarantee(world, "finance", 40)
    soon = NOW + timedelta(days=10)
    row = PoolCapacity.objects.get(pool=world.pool)
    row.valid = DateTimeTZRange(row.valid.lower, soon, "[)")
    row.save()
    less = PoolCapacity.objects.create(
        pool=world.pool, committable_gpus=32, valid=DateTimeTZRange(soon, None, "[)"), reason="A rack leaves."
    )
    assert findings.find_all() == 1
    found = Finding.objects.get()
    assert (found.kind, found.team, found.evidence["most"]) == (FindingKind.CAPACITY_LOST, None, "8")
    assert found.evidence["steps"] == [{"at": soon.isoformat(), "too_many": "8"}]
    assert list(Finding.objects.visible_to(company.lead_finance)) == []
    assert list(Finding.objects.visible_to(company.admin)) == [found]
    told = OutboxMessage.objects.get(event="insights.capacity.lost")
    assert told.recipient_ids == [company.admin.pk]
    less.committable_gpus = 64
    less.save()
    assert findings.find_all() == 1
    found.refresh_from_db()
    assert found.status == FindingStatus.GONE


@pytest.mark.requirement("insights-2.4")
def test_the_sweep_looks_once_a_day(hoarded: Finding, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it runs, and again after a failure."""
    looks: list[Any] = []

    def look() -> int:
        looks.append(clock.now())
        if len(looks) == 2:
            raise ValueError("down")
        return 0

    monkeypatch.setattr(findings, "find_all", look)
    tasks.look()
    tasks.look()
    assert len(looks) == 1
    with clock.frozen(NOW + timedelta(hours=23, minutes=1)):
        with pytest.raises(ValueError, match="down"):
            tasks.look()
        tasks.look()
    assert len(looks) == 3
