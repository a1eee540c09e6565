"""Cross-checks with the dollars of OpenCost and Kubecost: read exactly, explained by known causes, the rest open."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.clusters.errors import Unreachable
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.costs import cross_check_actions, cross_check_causes, cross_check_reader, cross_checks
from apps.costs.cross_check_causes import Ours, Slack, Theirs, explain
from apps.costs.models import CheckSetting, CrossCheck
from apps.metering import actions as metering
from apps.metering.models import HourStatus
from tests.metering.world import FakeAdapter, World, hold, make_world, utc

NOW = utc(2026, 11, 12, 9)
DAY = utc(2026, 11, 10)
HOUR = timedelta(hours=1)
TENTH = date(2026, 11, 10)

money = st.decimals(min_value=-(10**9), max_value=10**9, places=5)
quantities = st.integers(0, 10**12)


@pytest.mark.requirement("cross-checks-1.3")
@given(
    ours=st.builds(Ours, exclusive=money, exclusive_gpu_ms=quantities, shared=money, resources=money),
    theirs=st.builds(
        Theirs, total=money, exclusive=money, exclusive_gpu_ms=quantities.map(Decimal), shared=money, idle=money
    ),
    slack=st.builds(Slack, start_up_gpu_ms=quantities, edges_gpu_ms=quantities),
)
def test_causes_and_remainder_are_the_difference(ours: Ours, theirs: Theirs, slack: Slack) -> None:
    found = explain(ours, theirs, slack)
    assert sum((amount for _, amount in found.causes), found.remainder) == ours.total - theirs.total


@pytest.mark.requirement("cross-checks-1.3")
def test_each_cause_is_told_apart() -> None:
    """100 h at 3.85 against 98 h at 3.40, 27 on shared GPUs, CPU that only they price, two hours of start-up."""
    ours = Ours(Decimal("385.00"), 100 * 3_600_000, Decimal("27.00"), Decimal(0))
    theirs = Theirs(Decimal("350.20"), Decimal("333.20"), Decimal(98 * 3_600_000), Decimal(0), Decimal("5.00"))
    found = dict(explain(ours, theirs, Slack(start_up_gpu_ms=5_400_000, edges_gpu_ms=900_000)).causes)
    assert found == {
        "shared_gpus": Decimal("27.00"),
        "price": Decimal("44.10"),
        "start_up": Decimal("5.775"),  # of the two hours, one and a half were start-up,
        "resolution": Decimal("0.9625"),  # a quarter is within what the edges may be off,
        "resources": Decimal("-12.00"),
        "idle": Decimal("-5.00"),
    }
    left = explain(ours, theirs, Slack(start_up_gpu_ms=5_400_000, edges_gpu_ms=900_000)).remainder
    assert left == Decimal("0.9625")  # and a quarter is open


# ---------------------------------------------------------------- reading


def answer(*rows: dict[str, Any], text: str = "") -> bytes:
    """Their answer; a row's numbers are written as given."""
    return (text or json.dumps({"code": 200, "data": [{row["name"]: row for row in rows}]})).encode()


class Server:
    """Stands for their endpoint: gives the bytes of each day, or fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bodies: dict[datetime, bytes] = {}
        self.error = ""
        self.asked: list[datetime] = []
        server = self

        class Client:
            def __init__(self, url: str, *, path: str, token: str) -> None:
                self.url, self.path, self.token = url, path, token

            def close(self) -> None:
                """Nothing to close."""

            @contextmanager
            def pieces(self, what: str, start: datetime, end: datetime, **params: str) -> Iterator[Any]:
                assert what == "allocation"
                assert params["accumulate"] == "true"
                server.asked.append(start)
                if server.error:
                    raise Unreachable(server.error)
                body = server.bodies.get(start, answer())
                yield params, iter([body[:7], body[7:]])

        monkeypatch.setattr(cross_check_reader, "AllocationClient", Client)


def pod(name: str = "train-0", **changes: Any) -> dict[str, Any]:
    return {
        "name": f"finance-prod/{name}",
        "properties": {"namespace": "finance-prod", "pod": name, "cluster": "dc1"},
        "start": "2026-11-10T00:00:00Z",
        "gpuHours": 40,
        "gpuCost": 136.0,
        "totalCost": 136.0,
        **changes,
    }


@pytest.mark.requirement("cross-checks-1.2")
def test_amounts_are_exact_decimals_from_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand times 0.1 is a hundred, and seventeen digits stay what they are."""
    server = Server(monkeypatch)
    rows = ",".join(f'"a/p{n}": {{"totalCost": 0.1, "gpuCost": 0.1, "gpuHours": 1.00001}}' for n in range(1000))
    server.bodies[DAY] = answer(
        text=f'{{"code":200,"data":[{{{rows},"__idle__":{{"totalCost":12345678901.00001}},"b/c":{{"totalCost":null}}}}]}}'
    )
    day = cross_check_reader.read_day("http://cost.example", "/allocation", "", DAY, DAY + 24 * HOUR)
    assert (day.exclusive, day.idle) == (Decimal(100), Decimal("12345678901.00001"))
    assert day.exclusive_gpu_ms == Decimal("1000.01") * 3_600_000
    assert day.total == Decimal("12345679001.00001")
    server.bodies[DAY] = answer(text='{"code":200,"data":[{"a":{"totalCost":"12"}}]}')
    with pytest.raises(cross_check_reader.CannotRead, match="is no number"):
        cross_check_reader.read_day("http://cost.example", "/allocation", "", DAY, DAY + 24 * HOUR)
    server.bodies[DAY] = answer(text='{"code":500,"message":"not ready"}')
    with pytest.raises(cross_check_reader.CannotRead, match="not ready"):
        cross_check_reader.read_day("http://cost.example", "/allocation", "", DAY, DAY + 24 * HOUR)


# ---------------------------------------------------------------- the sweep


@pytest.fixture
def world(company: Any) -> Any:
    with clock.frozen(NOW):
        world = make_world(company.teams.values())
        holdings = [hold("train", "finance-prod", DAY, DAY + 10 * HOUR, 4, pod="train-0")]
        metering.ingest_hours(
            world.source.pk, DAY, DAY + 24 * HOUR, actor=Actor.system("test"), adapter=FakeAdapter(holdings)
        )
        yield world


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(monkeypatch)


@pytest.mark.requirement("cross-checks-1.1", "cross-checks-1.4")
def test_an_ended_day_is_compared_once_and_the_price_explained(world: World, server: Server) -> None:
    server.bodies[DAY] = answer(pod())
    assert cross_checks.check_due() == 1
    row = CrossCheck.objects.get()
    assert (row.day, row.ours, row.theirs) == (TENTH, Decimal("154.00"), Decimal("136.00"))
    assert row.causes == [{"code": "price", "amount": "18.000000"}]
    assert (row.state, row.detail["remainder"]) == ("matched", "0.000000")
    assert cross_checks.check_due() == 0
    assert server.asked == [DAY]
    # Kubecost goes on adjusting: read anew a day later, and left alone once the day has settled.
    with clock.frozen(NOW + 25 * HOUR):
        server.bodies[DAY] = answer(pod(gpuCost=130.5, totalCost=130.5))
        assert cross_checks.check_due() == 1
    assert CrossCheck.objects.get().theirs == Decimal("130.5")
    with clock.frozen(NOW + 100 * HOUR):
        assert cross_checks.check_due() == 1
        assert cross_checks.check_due() == 0
    with clock.frozen(NOW + 200 * HOUR):
        assert cross_checks.check_due() == 0


@pytest.mark.requirement("cross-checks-1.3", "cross-checks-1.4")
def test_what_no_cause_explains_is_open(world: World, server: Server) -> None:
    server.bodies[DAY] = answer(pod(gpuHours=30, gpuCost=102.0, totalCost=102.0))
    cross_checks.check_due()
    row = CrossCheck.objects.get()
    # Ten hours of 3.85 too few; one edge of four GPUs and five minutes is within their resolution.
    assert row.state == "open"
    assert row.detail["remainder"] == "37.216667"


@pytest.mark.requirement("cross-checks-1.3")
def test_start_up_is_what_was_held_before_their_first_sample(world: World, server: Server, company: Any) -> None:
    start = DAY + 12 * HOUR
    holdings = [hold("late", "finance-prod", start, start + 2 * HOUR, 2, pod="late-0")]
    metering.ingest_hours(
        world.source.pk, DAY, DAY + 24 * HOUR, actor=Actor.system("test"), adapter=FakeAdapter(holdings)
    )
    late = pod("late-0", start="2026-11-10T12:30:00Z", gpuHours=3, gpuCost=11.55, totalCost=11.55)
    server.bodies[DAY] = answer(late)
    cross_checks.check_due()
    row = CrossCheck.objects.get()
    assert row.causes == [{"code": "start_up", "amount": "3.850000"}]
    assert row.state == "matched"


@pytest.mark.requirement("cross-checks-1.5")
def test_an_unreachable_endpoint_is_unknown_and_tried_again_later(world: World, server: Server) -> None:
    server.error = "no answer: ConnectTimeout"
    assert cross_checks.check_due() == 1
    row = CrossCheck.objects.get()
    assert (row.theirs, row.state) == (None, "open")
    assert "ConnectTimeout" in row.note
    server.error = ""
    server.bodies[DAY] = answer(pod())
    assert cross_checks.check_due() == 0
    with clock.frozen(NOW + 2 * HOUR):
        assert cross_checks.check_due() == 1
    assert CrossCheck.objects.get().theirs == Decimal(136)
    # An outage later takes nothing away from what was read.
    server.error = "no answer"
    with clock.frozen(NOW + 30 * HOUR):
        cross_checks.check_due()
    assert CrossCheck.objects.get().theirs == Decimal(136)


@pytest.mark.requirement("cross-checks-1.5", "cross-checks-1.3")
def test_our_own_unknown_is_unknown_too(world: World, server: Server) -> None:
    HourStatus.objects.filter(hour=DAY + 3 * HOUR).update(state="missing")
    server.bodies[DAY] = answer(pod())
    cross_checks.check_due()
    row = CrossCheck.objects.get()
    assert (row.ours, row.theirs, row.state) == (None, Decimal(136), "open")
    assert row.note == "1 of our hours is missing or incomplete."


# ---------------------------------------------------------------- people


def _endpoint(world: World, actor: Actor, **changes: Any) -> CheckSetting:
    values: dict[str, Any] = {
        "enabled": True, "url": "https://cost.example", "path": "/allocation", "token": None, "currency": "USD",
        "resolution_seconds": 300, "tolerance_permille": 5, "tolerance_amount": Decimal(1),
    }  # fmt: skip
    return cross_check_actions.set_endpoint(world.cluster.pk, **(values | changes), actor=actor)


@pytest.mark.requirement("cross-checks-1.6", "cross-checks-1.4")
def test_an_explanation_lasts_while_neither_side_moves(world: World, server: Server, company: Any) -> None:
    server.bodies[DAY] = answer(pod(gpuHours=30, gpuCost=102.0, totalCost=102.0))
    cross_checks.check_due()
    row = CrossCheck.objects.get()
    reason = "Their exporter was restarted between 02:00 and 04:30."
    for person in (company.vp, company.lead_finance, company.admin):
        with pytest.raises(NotAllowed):
            cross_check_actions.explain(row.pk, reason, actor=Actor.of(person))
    actor = Actor.of(company.finance)
    with pytest.raises(Invalid):
        cross_check_actions.explain(row.pk, "so", actor=actor)
    with pytest.raises(Conflict):
        cross_check_actions.explain(row.pk, reason, actor=actor, expected_version=row.version - 1)
    row = cross_check_actions.explain(row.pk, reason, actor=actor, expected_version=row.version)
    assert (row.state, row.explained_by) == ("explained", company.finance)
    with clock.frozen(NOW + 25 * HOUR):
        assert cross_checks.check_due() == 1
        assert CrossCheck.objects.get().state == "explained"
    server.bodies[DAY] = answer(pod(gpuHours=31, gpuCost=105.4, totalCost=105.4))
    with clock.frozen(NOW + 50 * HOUR):
        cross_checks.check_due()
    row = CrossCheck.objects.get()
    assert (row.state, row.explanation, row.explained_by) == ("open", "", None)


@pytest.mark.requirement("cross-checks-1.8", "cross-checks-1.4")
def test_endpoint_and_tolerance(world: World, server: Server, company: Any) -> None:
    actor = Actor.of(company.finance)
    for changes, name in (
        ({"url": "ftp://cost.example"}, "url"),
        ({"currency": "EUR"}, "currency"),
        ({"tolerance_permille": -1}, "tolerance_permille"),
        ({"tolerance_amount": Decimal(-1)}, "tolerance_amount"),
        ({"path": "allocation"}, "path"),
    ):
        with pytest.raises(Invalid) as refused:
            _endpoint(world, actor, **changes)
        assert set(refused.value.errors) == {name}
    with pytest.raises(NotAllowed):
        _endpoint(world, Actor.of(company.admin))
    server.bodies[DAY] = answer(pod(gpuHours=30, gpuCost=102.0, totalCost=102.0))
    cross_checks.check_due()
    assert CrossCheck.objects.get().state == "open"
    setting = _endpoint(world, actor, tolerance_amount=Decimal(50), token="secret", expected_version=0)
    assert CrossCheck.objects.get().state == "matched"
    assert bytes(setting.credentials) != b"secret"
    with pytest.raises(Conflict):
        _endpoint(world, actor, expected_version=0)
    _endpoint(world, actor, enabled=False)
    with clock.frozen(NOW + 25 * HOUR):
        assert cross_checks.check_due() == 0


@pytest.mark.requirement("cross-checks-1.4")
def test_tolerance_is_the_larger_of_amount_and_share() -> None:
    assert cross_check_causes.within(Decimal(-5), Decimal(1000), 5, Decimal(1))
    assert not cross_check_causes.within(Decimal("5.01"), Decimal(1000), 5, Decimal(1))
    assert cross_check_causes.within(Decimal(1), Decimal(0), 5, Decimal(1))
