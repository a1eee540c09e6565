"""Pages and API of months, statements and distribution: what they show, to whom, with how many queries."""

from __future__ import annotations

import csv
import io
import re
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.urls import reverse

from apps.core import clock, formats
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.core.models import OutboxMessage
from apps.core.testing import assert_queries, settle
from apps.costs import distribution_actions, periods, preview_views, running
from apps.costs.distribution import DEFAULT
from apps.costs.models import DistributionPolicy, Period, PeriodWaiver, RunningStatement, Statement
from apps.costs.statement_rows import policy_for, preview
from apps.metering.models import HourStatus
from apps.teams.choices import Role
from tests.costs.test_closing import END, FIRST, NOW, begin, close, holdings, ingest, september
from tests.factories import client_for, grant, make_user
from tests.metering.world import World, guarantee, make_world, utc


@pytest.fixture
def world(company: Any) -> Any:
    with clock.frozen(NOW):
        world = make_world(company.teams.values(), gpus=20, since=FIRST)
        guarantee(world, "research", 4, FIRST)
        ingest(world, holdings())
        periods.make_periods()
        yield world


def get(user: Any, name: str, query: str = "", **kwargs: Any) -> Any:
    return client_for(user).get(reverse(name, kwargs=kwargs) + query)


def post(user: Any, name: str, data: Any = None, **kwargs: Any) -> Any:
    return client_for(user).post(reverse(name, kwargs=kwargs), data or {})


def text(response: Any) -> str:
    assert response.status_code == 200, (response.status_code, response.content[:2000])
    return " ".join(response.content.decode().split())


MONTH = {"month": "2026-09"}


@pytest.mark.requirement("periods-2.1", "periods-2.2", "periods-2.3", "periods-2.5", "periods-2.8")
def test_finance_closes_a_month_on_pages(world: World, company: Any) -> None:
    finance = company.finance
    HourStatus.objects.filter(hour=utc(2026, 9, 27)).update(state="missing", reason="no data")
    assert "Start closing" in text(get(finance, "costs:period-detail", **MONTH))
    early = post(finance, "costs:period-start", month="2026-10")
    assert early.status_code == 400
    assert "can be closed from 2026-11-01 02:00 UTC" in early.content.decode()
    assert post(finance, "costs:period-start", **MONTH).status_code == 303
    page = text(get(finance, "costs:period-checklist", **MONTH))
    assert "1 hours are missing, incomplete or not final yet" in page
    assert f"/usage/sources/{world.source.uid}/?month=2026-09" in page
    assert "The difference is 0 in every cluster-hour." in page
    fragment = client_for(finance).get(reverse("costs:period-checklist", kwargs=MONTH), headers={"HX-Request": "true"})
    assert "<html" not in text(fragment)
    refused = post(finance, "costs:period-close", **MONTH)
    assert refused.status_code == 400
    assert "Every hour is metered" in refused.content.decode()
    offered = text(get(finance, "costs:period-waive", f"?kind=hours&cluster={world.cluster.pk}", **MONTH))
    assert '<option value="hours" selected>' in offered
    assert '<option value="dc1" selected>' in offered
    short = post(finance, "costs:period-waive", {"kind": "hours", "reason": "short"}, **MONTH)
    assert "at least 10 characters" in short.content.decode()
    form = {"kind": "hours", "cluster": "dc1", "reason": "The cluster was switched off for the move."}
    assert post(finance, "costs:period-waive", form, **MONTH).status_code == 303
    assert PeriodWaiver.objects.get().waived_by == finance
    assert "A worker takes it up" in text(get(finance, "costs:period-preview", **MONTH))
    running.make_due()
    shown = text(get(finance, "costs:period-preview", **MONTH))
    assert "12,936.00 USD" in shown
    assert "Out of date" not in shown
    assert "2026-09-T-0001" in shown
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preview_views, "PER_PAGE", 2)
        first, second = (get(finance, "costs:period-preview", f"?page={number}", **MONTH) for number in (1, 2))
        assert "1–2 of " in text(first)
        assert set(re.findall(r"2026-09-[PUT]-\d{4}", text(first))).isdisjoint(
            re.findall(r"2026-09-[PUT]-\d{4}", text(second))
        )
        assert get(finance, "costs:period-preview", "?page=99", **MONTH).status_code == 404
        assert get(finance, "costs:period-preview", "?page=x", **MONTH).status_code == 400
    assert post(finance, "costs:period-close", **MONTH).status_code == 303
    page = text(get(finance, "costs:period-detail", **MONTH))
    assert "being frozen" in page
    assert 'hx-trigger="every 2s"' in page
    settle(only=("costs.freeze",))
    page = text(get(finance, "costs:period-detail", **MONTH))
    assert september().digest in page
    assert "The cluster was switched off for the move." in page
    assert "12,936.00 USD" in page
    assert get(finance, "costs:period-preview", **MONTH).status_code == 409
    assert post(finance, "costs:period-back", **MONTH).status_code == 409


@pytest.mark.requirement("periods-4.4", "periods-4.5")
def test_statements_are_seen_by_their_own(world: World, company: Any) -> None:
    close(company)
    rows = {row.owner_name if row.owner_kind == "team" else row.owner_kind: row for row in Statement.objects.all()}
    listed = text(get(company.lead_finance, "costs:statement-list"))
    assert rows["Finance"].number in listed
    assert rows["Marketing"].number not in listed
    assert rows["platform"].number not in listed
    vp = text(get(company.vp, "costs:statement-list", "?month=2026-09"))
    assert rows["Marketing"].number in vp
    assert rows["platform"].number not in vp
    assert rows["cost_centre"].number not in vp
    everything = text(get(company.auditor, "costs:statement-list", "?owner_kind=platform"))
    assert rows["platform"].number in everything
    assert rows["Finance"].number not in everything
    page = text(get(company.lead_finance, "costs:statement-detail", statement_uid=rows["Finance"].uid))
    assert "817.48 USD" in page
    assert "/costs/charges/?month=2026-09&amp;kind=allocated&amp;team=Finance" in page
    assert "/costs/teams/finance/2026-09/" in page
    assert "matches the lines" in page
    for user, name in ((company.lead_marketing, "Finance"), (company.vp, "platform"), (company.vp_other, "Finance")):
        assert get(user, "costs:statement-detail", statement_uid=rows[name].uid).status_code == 404
    unit = text(
        get(company.vp, "costs:statement-detail", statement_uid=Statement.objects.get(unit=company.unit, team=None).uid)
    )
    assert f"/costs/statements/{rows['Finance'].uid}/" in unit
    # Where the team belongs today changes nothing about who reads the past.
    team = company.finance_team
    team.unit = company.other_unit
    team.save()
    assert get(company.vp, "costs:statement-detail", statement_uid=rows["Finance"].uid).status_code == 200
    assert get(company.vp_other, "costs:statement-detail", statement_uid=rows["Finance"].uid).status_code == 404
    with assert_queries(20):
        get(company.vp, "costs:statement-list")
    with assert_queries(20):
        get(company.finance, "costs:period-list")


@pytest.mark.requirement("periods-4.5", "periods-3.2")
def test_a_statement_with_and_without_shares(world: World, company: Any) -> None:
    close(company)
    row = Statement.objects.get(team=company.research_team)
    page = text(get(company.lead_research, "costs:statement-detail", statement_uid=row.uid))
    assert "Own reservation, not used" in page
    assert "v1:reserved_unused:owners" in page
    hidden = text(get(company.lead_research, "costs:statement-detail", "?shares=0", statement_uid=row.uid))
    assert "Own reservation, not used" not in hidden
    response = get(company.lead_research, "costs:statement-detail", "?export=csv", statement_uid=row.uid)
    lines = list(csv.DictReader(io.StringIO(b"".join(response.streaming_content).decode("utf-8-sig"))))
    assert sum(Decimal(line["Amount"]) for line in lines) == row.amount


@pytest.mark.requirement("periods-4.6")
def test_running_statements_are_provisional_and_scoped(
    world: World, company: Any, nudges: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        assert "Not made yet" in text(get(company.lead_finance, "costs:running-list", **MONTH))
    assert nudges == [("costs.make_running", ())]
    assert running.make_due() == 2  # September, and the month that runs
    page = text(get(company.lead_finance, "costs:running-list", **MONTH))
    assert "Provisional" in page
    assert "817.48 USD" in page
    assert "Marketing" not in page
    number = RunningStatement.objects.get(period=september(), team_id=company.finance_team.pk).number
    assert "Allocated GPU time" in text(
        get(company.lead_finance, "costs:running-detail", month="2026-09", number=number)
    )
    assert get(company.lead_marketing, "costs:running-detail", month="2026-09", number=number).status_code == 404
    assert (
        get(company.lead_finance, "costs:running-detail", month="2026-09", number="2026-09-P-0001").status_code == 404
    )
    assert get(company.lead_finance, "costs:running-list", month="2031-01").status_code == 404
    close(company)
    assert get(company.lead_finance, "costs:running-list", **MONTH).status_code == 409
    assert not Statement.objects.filter(period__month=date(2026, 10, 1)).exists()
    running.make_due()
    assert not RunningStatement.objects.filter(period=september()).exists()


@pytest.mark.requirement("periods-4.6")
def test_running_statements_say_how_old_they_are_and_are_made_by_workers(
    world: World, company: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.make_due()
    made = clock.now()
    kept = {
        row.number: (row.amount, row.own_amount, running.lines_of(row))
        for row in RunningStatement.objects.filter(period=september())
    }
    for sheet in preview(september()).sheets:
        amount, own, lines = kept.pop(sheet.statement.number)
        assert (amount, own) == (sheet.statement.amount, sheet.statement.own_amount)
        assert [vars_of(line) for line in lines] == [vars_of(line) for line in sheet.lines]
    assert not kept
    monkeypatch.setattr(running, "preview", lambda period: pytest.fail("a page made statements"))
    with clock.frozen(made + timedelta(minutes=14)):
        assert running.make_due() == 0
        with assert_queries(20):
            page = text(get(company.finance, "costs:running-list", **MONTH))
    assert formats.datetime_utc(made) in page
    monkeypatch.undo()
    with clock.frozen(made + timedelta(minutes=15)):
        assert running.make_due() == 2
        assert running.made_at(date(2026, 9, 1)) == made + timedelta(minutes=15)


def vars_of(line: Any) -> dict[str, Any]:
    """The line's values; what a team's line leads to is a statement that is not there."""
    values = {field.attname: getattr(line, field.attname) for field in line._meta.concrete_fields}
    return {name: value for name, value in values.items() if (name, line.sort) != ("reference", "team")}


@pytest.mark.requirement("periods-4.4")
def test_the_api_gives_months_and_statements(world: World, company: Any) -> None:
    close(company)
    row = Statement.objects.get(team=company.finance_team)
    client = client_for(company.lead_finance)
    found = client.get("/api/v1/statements?month=2026-09").json()["results"]
    assert [item["number"] for item in found if item["owner_kind"] == "team"] == [row.number]
    one = client.get(f"/api/v1/statements/{row.uid}").json()
    assert one["amount"] == "817.48"
    assert one["lines"][0]["exact"] == "817.483333333333"
    assert client_for(company.lead_marketing).get(f"/api/v1/statements/{row.uid}").status_code == 404
    period = next(item for item in client.get("/api/v1/periods").json()["results"] if item["month"] == "2026-09")
    assert (period["status"], period["bill"]) == ("closed", None)
    assert client_for(company.auditor).get(f"/api/v1/periods/{period['uid']}").json()["bill"] == "12936.00"
    with assert_queries(15):
        client.get("/api/v1/statements")


# ---------------------------------------------------------------- distribution policies


RULES = {**DEFAULT, "unsold": "shared"}


def propose(company: Any, month: date = date(2026, 10, 1)) -> DistributionPolicy:
    return distribution_actions.propose("Shared by use", month, RULES, actor=Actor.of(company.finance))


@pytest.mark.requirement("periods-3.3", "periods-3.2")
def test_a_second_person_publishes_from_an_open_month_on(world: World, company: Any) -> None:
    second = make_user("second-finance@example.com")
    grant(second, Role.FINANCE)
    policy = propose(company)
    assert OutboxMessage.objects.get(event="costs.distribution.proposed").recipient_ids == [second.pk]
    with pytest.raises(NotAllowed, match="second person"):
        distribution_actions.approve(policy.pk, actor=Actor.of(company.finance))
    with pytest.raises(NotAllowed):
        distribution_actions.approve(policy.pk, actor=Actor.of(company.auditor))
    assert policy_for(date(2026, 10, 1)).number == 1  # type: ignore[union-attr]  # version 1 is made by the migration
    distribution_actions.approve(policy.pk, actor=Actor.of(second))
    assert policy_for(date(2026, 10, 1)) == policy
    assert policy_for(date(2026, 9, 1)).number == 1  # type: ignore[union-attr]  # version 1 is made by the migration
    with pytest.raises(Conflict):
        distribution_actions.reject(policy.pk, reason="Changed my mind about it.", actor=Actor.of(second))
    with pytest.raises(Invalid, match="counts from 2026-10 already"):
        propose(company)
    begin(company)
    with pytest.raises(Invalid, match="2026-09 is closing"):
        propose(company, date(2026, 9, 1))
    with pytest.raises(Invalid) as caught:
        distribution_actions.propose(
            "x", date(2026, 11, 1), {**RULES, "unsold": "owners"}, actor=Actor.of(company.finance)
        )
    assert list(caught.value.errors) == ["rule_unsold"]


@pytest.mark.requirement("periods-3.4", "periods-3.3", "periods-3.1")
def test_a_version_is_proposed_tried_and_used_on_pages(world: World, company: Any) -> None:
    second = make_user("second-finance@example.com")
    grant(second, Role.FINANCE)
    form = {"name": "Shared by use", "month_from": "2026-09", **{f"rule_{k}": v for k, v in RULES.items()}}
    effect = text(post(company.finance, "costs:distribution-try", form))
    assert "What it would have done to September 2026" in effect
    assert "12,936.00 USD stays the same" in effect
    assert post(company.finance, "costs:distribution-propose", {**form, "rule_unsold": "owners"}).status_code == 400
    assert post(company.finance, "costs:distribution-propose", form).status_code == 303
    policy = DistributionPolicy.objects.get(number=2)
    mine = text(get(company.finance, "costs:distribution-detail", policy_uid=policy.uid))
    assert "A second person decides" in mine
    page = text(get(second, "costs:distribution-detail", policy_uid=policy.uid))
    assert "Publish" in page
    assert "Platform" in page
    assert "Would be" not in text(get(company.lead_finance, "costs:distribution-detail", policy_uid=policy.uid))
    assert post(company.finance, "costs:distribution-approve", policy_uid=policy.uid).status_code == 403
    assert post(second, "costs:distribution-approve", policy_uid=policy.uid).status_code == 303
    period = close(company)
    assert period.distribution == policy
    platform = Statement.objects.get(owner_kind="platform")
    assert set(platform.lines.values_list("kind", flat=True)) == {"unattributed"}
    assert period.bill == 20 * 168 * Decimal("3.85")
    line = Statement.objects.get(team=company.finance_team).lines.get(kind="unsold")
    assert line.method == "v2:unsold:shared-by-allocated-gpu-time"
    assert "version 2" in text(
        get(
            company.lead_finance,
            "costs:statement-detail",
            statement_uid=Statement.objects.get(team=company.finance_team).uid,
        )
    )
    assert Period.objects.get(pk=period.pk).end == END


@pytest.mark.requirement("periods-3.3")
def test_proposals_are_rejected_with_a_reason_and_withdrawn_by_their_own(world: World, company: Any) -> None:
    second = make_user("second-finance@example.com")
    grant(second, Role.FINANCE)
    policy = propose(company)
    assert post(second, "costs:distribution-withdraw", policy_uid=policy.uid).status_code == 403
    assert post(second, "costs:distribution-reject", {"reason": "no"}, policy_uid=policy.uid).status_code == 400
    form = {"reason": "Unsold capacity is ours to sell."}
    assert post(second, "costs:distribution-reject", form, policy_uid=policy.uid).status_code == 303
    again = propose(company)
    assert again.number == policy.number + 1
    assert post(company.finance, "costs:distribution-withdraw", policy_uid=again.uid).status_code == 303
    again.refresh_from_db()
    assert again.status == "withdrawn"
