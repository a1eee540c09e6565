"""Namespaces without an owner: claimed, moved in open months, given back; closed months stay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db.models import Sum
from django.urls import reverse

from apps.audit.models import AuditEvent
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.costs.models import Charge
from apps.metering import actions, claims, ports, reattribution, selectors
from apps.metering.models import CapacityLine, DayUsage, HourFact, HourStatus, NamespaceOwner, ResourceFact
from apps.metering.sources.base import ResourceHold, ms
from tests.metering.world import FakeAdapter, World, hold, utc

HOUR = timedelta(hours=1)
START = utc(2026, 10, 31, 20)
CLOSED = utc(2026, 11, 1)
END = START + 30 * HOUR
NOW = utc(2026, 11, 18, 9)
SYSTEM = Actor.system("test")


@pytest.fixture(autouse=True)
def _now() -> Iterator[None]:
    with clock.frozen(NOW):
        yield


class Resourceful(FakeAdapter):
    """Tells CPU of the stray pod, too."""

    def read(self, start: datetime, end: datetime) -> Any:
        reading = super().read(start, end)
        reading.resources = [
            ResourceHold(hour, "cpu", "stray", "strays", "stray", 4 * 3_600_000, requested_ms=4 * 3_600_000)
            for hour in range(ms(start), ms(end), 3_600_000)
        ]
        return reading


def ingest(world: World) -> Any:
    adapter = Resourceful([hold("stray", "strays", START, END, 2), hold("train", "finance-prod", START, END, 4)])
    return actions.ingest_hours(world.source.pk, START, END, actor=SYSTEM, adapter=adapter)


def lead(company: Any) -> Actor:
    return Actor.of(company.lead_finance)


def claim(world: World, company: Any, **extra: Any) -> NamespaceOwner:
    values: dict[str, Any] = {"valid_from": CLOSED, "actor": lead(company), "reason": "our notebooks", **extra}
    return claims.claim_namespace(world.cluster.pk, "strays", company.finance_team.pk, **values)


def settle() -> None:
    while reattribution.move_claimed():
        pass


def books(**filters: Any) -> list[Any]:
    return [
        list(model.objects.filter(**filters).order_by("hour", "uid").values_list())
        for model in (HourFact, CapacityLine, ResourceFact)
    ]


def freeze(monkeypatch: pytest.MonkeyPatch) -> None:
    def frozen(cluster_id: int, hours: Sequence[datetime]) -> set[datetime]:
        return {hour for hour in hours if hour < CLOSED}

    monkeypatch.setattr(ports, "_freezes", {"test": frozen})


def lines(world: World, start: datetime, end: datetime) -> dict[str, int]:
    return selectors.capacity_lines(world.cluster.pk, world.pool.gpu_model, start, end)


@pytest.mark.requirement("metering-facts-5.2")
def test_stored_rows_hash_as_they_were_read(world: World) -> None:
    ingest(world)
    hours = [START + number * HOUR for number in range(30)]
    for hour, one in reattribution.stored(world.cluster.pk, hours).items():
        assert all((one.facts, one.lines, one.resources))
        assert one.rows(hour).content_hash() == HourStatus.objects.get(hour=hour).inputs_hash


@pytest.mark.requirement("metering-facts-5.2")
def test_a_claim_moves_open_hours_with_everything_that_hangs_on_them(
    world: World, company: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(world)
    freeze(monkeypatch)
    closed = books(hour__lt=CLOSED)
    before = lines(world, CLOSED, END)
    team = company.finance_team
    assert before["unattributed"] == 26 * 2 * 3_600_000
    claim(world, company)
    settle()
    assert books(hour__lt=CLOSED) == closed
    after = lines(world, CLOSED, END)
    assert "unattributed" not in {kind for kind, value in after.items() if value}
    assert after["attributed"] == before["attributed"] + before["unattributed"]
    assert after["physical"] == before["physical"] == sum(v for k, v in after.items() if k != "physical")
    moved = HourFact.objects.filter(namespace="strays", hour__gte=CLOSED)
    assert set(moved.values_list("team_id", "team_name", "revision")) == {(team.pk, team.name, 2)}
    assert set(ResourceFact.objects.filter(hour__gte=CLOSED).values_list("team_id", flat=True)) == {team.pk}
    rolled = DayUsage.objects.filter(day=CLOSED.date(), team_id=team.pk).aggregate(total=Sum("allocated_gpu_ms"))
    assert rolled["total"] == 24 * 6 * 3_600_000
    charged = Charge.objects.filter(hour__gte=CLOSED, kind="unattributed", flavour_id__isnull=False)
    assert not charged.exists()
    total = Charge.objects.filter(hour__gte=CLOSED, kind="allocated", team_id=team.pk).aggregate(total=Sum("gpu_ms"))
    assert total["total"] == 26 * 6 * 3_600_000
    # Reading the hours again changes nothing: the books are as a reading would write them.
    assert ingest(world).hours_written == 0
    assert AuditEvent.objects.filter(action="metering.namespace.claimed").exists()
    assert NamespaceOwner.objects.get().pending_from is None
    assert reattribution.move_claimed() == 0


@pytest.mark.requirement("metering-facts-5.4")
def test_ending_gives_back_what_comes_after(world: World, company: Any) -> None:
    ingest(world)
    made = claim(world, company, valid_from=START)
    settle()
    middle = CLOSED + 5 * HOUR
    claims.end_claim(made.pk, middle, actor=lead(company), expected_version=made.version)
    settle()
    facts = HourFact.objects.filter(namespace="strays")
    assert set(facts.filter(hour__lt=middle).values_list("team_id", flat=True)) == {company.finance_team.pk}
    assert set(facts.filter(hour__gte=middle).values_list("team_id", "cost_centre")) == {(None, "")}
    assert lines(world, middle, END)["unattributed"] == 2 * 21 * 3_600_000
    with pytest.raises(Conflict):
        claims.end_claim(made.pk, middle - HOUR, actor=lead(company), expected_version=made.version)


@pytest.mark.requirement("metering-facts-5.4")
def test_withdrawing_restores_the_books(world: World, company: Any) -> None:
    ingest(world)
    original = books()
    made = claim(world, company, valid_from=START)
    settle()
    assert books() != original
    claims.withdraw_claim(made.pk, actor=lead(company))
    settle()

    assert [len(part) for part in books()] == [len(part) for part in original]
    assert not HourFact.objects.filter(namespace="strays", team_id__isnull=False).exists()
    assert ingest(world).hours_written == 0
    with pytest.raises(Conflict):
        claims.withdraw_claim(made.pk, actor=lead(company))
    # Withdrawn, it stands in nobody's way.
    claim(world, company, valid_from=START)
    actions_seen = set(
        AuditEvent.objects.filter(action__startswith="metering.namespace").values_list("action", flat=True)
    )
    assert actions_seen == {"metering.namespace.claimed", "metering.namespace.withdrawn"}


@pytest.mark.requirement("metering-facts-5.3")
def test_refusals_name_the_rule(world: World, company: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest(world)
    freeze(monkeypatch)
    with pytest.raises(NotAllowed):
        claim(world, company, actor=Actor.of(company.lead_marketing))
    with pytest.raises(NotAllowed):
        claim(world, company, actor=Actor.of(company.member_finance))
    with pytest.raises(NotAllowed):
        claim(world, company, actor=SYSTEM)
    with pytest.raises(Invalid) as closed:
        claim(world, company, valid_from=START)
    assert "2026-11-01 00:00" in str(closed.value.errors["valid_from"])
    with pytest.raises(Invalid) as workspace:
        claims.claim_namespace(
            world.cluster.pk, "research-prod", company.finance_team.pk, CLOSED, actor=lead(company), reason="mine"
        )
    assert "namespace" in workspace.value.errors
    for wrong, field in (({"reason": " "}, "reason"), ({"valid_from": NOW + HOUR}, "valid_from"),
                         ({"environment": "moon"}, "environment")):  # fmt: skip
        with pytest.raises(Invalid) as refused:
            claim(world, company, **wrong)
        assert field in refused.value.errors
    made = claim(world, company)
    with pytest.raises(Invalid) as twice:
        claim(world, company, valid_from=CLOSED + HOUR)
    assert "namespace" in twice.value.errors
    with pytest.raises(Invalid):
        claims.end_claim(made.pk, CLOSED, actor=lead(company))
    for person in (company.admin, company.finance):
        claims.end_claim(made.pk, clock.now(), actor=Actor.of(person))
        made = claims.claim_namespace(
            world.cluster.pk, f"strays-{person.pk}", company.finance_team.pk, CLOSED, actor=Actor.of(person), reason="x"
        )


@pytest.mark.requirement("metering-facts-5.2")
def test_hours_that_come_after_a_claim_are_the_teams(world: World, company: Any) -> None:
    claim(world, company, environment="development")
    ingest(world)
    facts = HourFact.objects.filter(namespace="strays")
    assert set(facts.filter(hour__gte=CLOSED).values_list("team_id", "environment")) == {
        (company.finance_team.pk, "development")
    }
    assert set(facts.filter(hour__lt=CLOSED).values_list("team_id", flat=True)) == {None}


@pytest.mark.requirement("metering-facts-5.2")
def test_a_claim_made_while_a_source_is_read_counts(world: World, company: Any) -> None:
    made: list[NamespaceOwner] = []
    load = actions.books.load

    def late(*args: Any) -> Any:
        context = load(*args)
        if not made:
            made.append(claim(world, company, valid_from=START))
        return context

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(actions.books, "load", late)
        actions.ingest_hours(
            world.source.pk, START, END, actor=SYSTEM, adapter=Resourceful([hold("stray", "strays", START, END, 2)])
        )
    assert set(HourFact.objects.values_list("team_id", flat=True)) == {company.finance_team.pk}


@pytest.mark.requirement("metering-facts-5.2")
def test_the_list_names_cluster_and_team_apart(world: World, company: Any, client_for: Any) -> None:
    made = claim(world, company)
    body = client_for(company.admin).get(reverse("metering:claim-list") + "?export=csv")
    header, row = b"".join(body.streaming_content).decode("utf-8-sig").splitlines()[:2]
    columns = dict(zip(header.split(","), row.split(","), strict=False))
    assert (columns["Cluster"], columns["Team"]) == (made.cluster.name, made.team.name)
