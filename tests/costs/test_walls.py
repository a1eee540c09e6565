"""Walls of the money: finance of one unit, a sibling unit's owner, members of another team, guessed addresses."""

from __future__ import annotations

import uuid
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.urls import reverse

from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import NotAllowed, NotVisible
from apps.costs import billing_modes, bills, bills_file, credits, disputes, distribution_actions, reopening
from apps.costs.distribution import DEFAULT
from apps.costs.models import (
    Bill,
    Correction,
    Credit,
    CrossCheck,
    Dispute,
    JournalAccount,
    Period,
    Statement,
    StatementFile,
)  # fmt: skip
from apps.metering import waivers
from apps.rates import proposals
from apps.rates.publishing import PriceLine
from tests.costs.frozen import Draft, freeze, open_month
from tests.factories import client_for, grant, make_team, make_user
from tests.metering.test_fitness import checked
from tests.metering.world import make_world, utc

AUGUST, SEPTEMBER = date(2026, 8, 1), date(2026, 9, 1)
NOW = utc(2026, 9, 3, 9)
WHY = "The meter of a whole cluster was read wrongly"
FOREIGN = "Wealth Desk"


@pytest.fixture
def books(company: Any) -> Any:
    """August closed: statements of the bank's three teams, of one team of another unit, and of the platform."""
    with clock.frozen(NOW):
        company.foreign = make_team(FOREIGN, company.other_unit)
        company.unit_finance = make_user("unit-finance@example.com")
        grant(company.unit_finance, "finance", unit=company.unit)
        company.second = make_user("second-finance@example.com")
        grant(company.second, "finance")
        company.superuser = make_user("root-user@example.com", is_superuser=True)
        billing_modes.set_account("recovery", "800100", "CC-PLATFORM", actor=Actor.of(company.finance))
        company.period = freeze(
            AUGUST,
            extra=[
                Draft("charge", "Use", Decimal("100.00"), company.finance_team.pk),
                Draft("charge", "Use", Decimal("7654.32"), company.foreign.pk),
                Draft("charge", "Spare", Decimal("7.00"), None),
            ],
        )
        open_month(SEPTEMBER)
        yield company


def statement(company: Any, team: Any) -> Statement:
    return Statement.objects.get(period=company.period, team=team)


# ---------------------------------------------------------------- the installation's own decisions


@pytest.mark.requirement("adjustments-4.1")
@pytest.mark.parametrize("who", ["unit_finance", "superuser", "vp", "admin"])
def test_a_month_is_not_opened_again_by_finance_of_one_unit(books: Any, who: str) -> None:
    actor, client = Actor.of(books[who]), client_for(books[who])
    with pytest.raises(NotAllowed):
        reopening.request_reopening(books.period.pk, WHY, actor=actor)
    asked = client.post(reverse("costs:reopen-ask", kwargs={"month": "2026-08"}), {"reason": WHY})
    assert asked.status_code in (403, 404)
    request = reopening.request_reopening(books.period.pk, WHY, actor=Actor.of(books.finance))
    for decide in (reopening.approve_reopening, reopening.reject_reopening):
        with pytest.raises(NotAllowed):
            decide(request.pk, WHY, actor=actor)
    for name in ("approve", "reject", "withdraw"):
        url = reverse(f"costs:reopen-{name}", kwargs={"reopen_uid": request.uid})
        assert client.post(url, {"reason": WHY}).status_code in (403, 404)
    request.refresh_from_db()
    assert request.status == "proposed"


@pytest.mark.requirement("adjustments-5.2")
def test_the_journal_and_its_accounts_are_for_finance_of_everything(books: Any) -> None:
    client = client_for(books.unit_finance)
    page = client.get(reverse("costs:journal", kwargs={"month": "2026-08"}))
    assert page.status_code == 403
    assert FOREIGN not in page.content.decode()
    assert client.get(reverse("costs:journal-account-list")).status_code == 403
    url = reverse("costs:journal-account-set", kwargs={"purpose": "recovery"})
    assert client.post(url, {"account": "999", "cost_centre": "X", "version": "1"}).status_code == 403
    with pytest.raises(NotAllowed):
        billing_modes.set_account("recovery", "999", "X", actor=Actor.of(books.unit_finance))
    assert JournalAccount.objects.get(purpose="recovery").account == "800100"
    assert client_for(books.finance).get(reverse("costs:journal-account-list")).status_code == 200


@pytest.mark.requirement("metering-sources-3.1")
def test_a_source_is_not_waived_by_finance_of_one_unit(books: Any) -> None:
    world = make_world([books.finance_team])
    checked(world.source, ["retention"])
    until = clock.now() + timedelta(days=3)
    with pytest.raises(NotAllowed):
        waivers.waive(world.source.pk, ["retention"], "Thanos follows soon.", until, actor=Actor.of(books.unit_finance))
    given = waivers.waive(world.source.pk, ["retention"], "Thanos follows soon.", until, actor=Actor.of(books.finance))
    with pytest.raises(NotAllowed):
        waivers.revoke(given.pk, actor=Actor.of(books.unit_finance))


# ---------------------------------------------------------------- other people's rows


@pytest.fixture
def foreign(books: Any) -> dict[str, Any]:
    """One of everything that is about the foreign team, and of whole clusters."""
    row = statement(books, books.foreign)
    world = make_world([books.foreign], slug="far")
    values = {
        "period": Period.objects.get(month=SEPTEMBER), "corrects": books.period, "cluster": world.cluster,
        "kind": "allocated", "hour": books.period.start, "hour_revision": 2, "team_id": books.foreign.pk,
        "unit_id": books.other_unit.pk, "team_name": FOREIGN, "quantity_ms": 3_600_000, "gpu_ms": 3_600_000,
        "reason": "Came late", "rate": world.rate,
    }  # fmt: skip
    correction = Correction.objects.create(**values)
    credit = Credit.objects.create(
        team=books.foreign,
        statement=row,
        amount=Decimal("11.11"),
        currency="USD",
        reason=WHY,
        proposed_by=books.finance,
    )
    dispute = Dispute.objects.create(
        statement=row, team=books.foreign, unit=books.other_unit, text="Never used", opened_by=books.vp_other
    )
    file = StatementFile.objects.create(
        period=books.period,
        statement=row,
        kind="csv",
        name="far.csv",
        status="done",
        body=b"x",
        size=1,
        sha256="0" * 64,
    )
    month_file = StatementFile.objects.create(
        period=books.period, kind="focus", name="focus.csv", status="done", body=b"x", size=1, sha256="0" * 64
    )
    check = CrossCheck.objects.create(
        cluster=world.cluster, day=AUGUST, kind="bill", ours=Decimal(1), theirs=Decimal(2), currency="USD",
        state="open", checked_at=NOW,
    )  # fmt: skip
    bill = Bill.objects.create(
        cluster=world.cluster, month=AUGUST, vendor="Landlord", filename="a.csv", sha256="1" * 64,
        amount=Decimal("5.55"), currency="USD",
    )  # fmt: skip
    return {
        "statement": row, "correction": correction, "credit": credit, "dispute": dispute, "file": file,
        "month_file": month_file, "check": check, "bill": bill, "world": world,
    }  # fmt: skip


def pages(foreign: dict[str, Any] | None) -> dict[str, tuple[str, str]]:
    """Name → (GET or POST, address) of the foreign rows; None: of rows that do not exist."""

    def uid(name: str) -> uuid.UUID:
        return foreign[name].uid if foreign is not None else uuid.UUID(int=77)

    found = {}
    for name, kwarg, row, method in (
        ("statement-detail", "statement_uid", "statement", "GET"),
        ("statement-print", "statement_uid", "statement", "GET"),
        ("statement-file", "statement_uid", "statement", "POST"),
        ("credit-propose", "statement_uid", "statement", "POST"),
        ("dispute-open", "statement_uid", "statement", "POST"),
        ("correction-detail", "correction_uid", "correction", "GET"),
        ("credit-detail", "credit_uid", "credit", "GET"),
        ("credit-approve", "credit_uid", "credit", "POST"),
        ("credit-reject", "credit_uid", "credit", "POST"),
        ("dispute-detail", "dispute_uid", "dispute", "GET"),
        ("dispute-comment", "dispute_uid", "dispute", "POST"),
        ("dispute-settle", "dispute_uid", "dispute", "POST"),
        ("dispute-withdraw", "dispute_uid", "dispute", "POST"),
        ("file-detail", "file_uid", "file", "GET"),
        ("file-take", "file_uid", "file", "GET"),
        ("file-take ", "file_uid", "month_file", "GET"),
    ):
        found[name] = (method, reverse(f"costs:{name.strip()}", kwargs={kwarg: uid(row)}))
    found["api"] = ("GET", f"/api/v1/statements/{uid('statement')}")
    return found


_SECRETS = (FOREIGN, "7,654.32", "7654.32", "11.11", "Never used", "far.csv")


@pytest.mark.requirement("periods-4.4")
@pytest.mark.parametrize("who", ["unit_finance", "vp", "lead_finance", "member_finance", "superuser"])
def test_foreign_rows_are_as_if_they_did_not_exist(books: Any, foreign: dict[str, Any], who: str) -> None:
    client = client_for(books[who])
    data = {"kind": "csv", "amount": "1.00", "reason": WHY, "text": WHY, "accepted": "no", "outcome": WHY}
    absent = pages(None)
    for name, (method, url) in pages(foreign).items():
        answer = client.get(url) if method == "GET" else client.post(url, data)
        other = client.get(absent[name][1]) if method == "GET" else client.post(absent[name][1], data)
        assert answer.status_code in (403, 404), name
        assert answer.status_code == other.status_code, f"{name}: a guessed address tells that the row is there"
        body = answer.content.decode()
        assert not [secret for secret in _SECRETS if secret in body], name
    assert Credit.objects.get(pk=foreign["credit"].pk).status == "proposed"
    assert StatementFile.objects.filter(statement=foreign["statement"]).count() == 1


@pytest.mark.requirement("periods-4.4")
@pytest.mark.parametrize("who", ["unit_finance", "vp", "lead_finance", "member_finance", "superuser"])
def test_lists_exports_and_choices_name_nobody_outside(books: Any, foreign: dict[str, Any], who: str) -> None:
    client = client_for(books[who])
    month = {"month": "2026-08"}
    addresses = [
        reverse(f"costs:{name}", kwargs=kwargs)
        for name, kwargs in (
            ("statement-list", {}), ("correction-list", {}), ("credit-list", {}), ("dispute-list", {}),
            ("period-list", {}), ("period-detail", month), ("file-list", month), ("billing-mode-list", {}),
            ("reopen-list", {}), ("bill-list", {}), ("cross-check-list", {}), ("whatif", {}),
            ("running-list", {"month": "2026-09"}), ("period-preview", {"month": "2026-09"}),
            ("period-checklist", {"month": "2026-09"}), ("journal", month),
        )
    ]  # fmt: skip
    addresses += [f"{url}?export=csv" for url in addresses[:4]]
    addresses += ["/api/v1/statements", "/api/v1/statements?owner_kind=platform", "/api/v1/periods"]
    own = statement(books, books.finance_team)
    addresses.append(reverse("costs:statement-detail", kwargs={"statement_uid": own.uid}))
    if who == "unit_finance":
        addresses.append(reverse("costs:credit-propose", kwargs={"statement_uid": own.uid}))
    for url in addresses:
        answer = client.get(url)
        body = answer.content.decode() if not answer.streaming else b"".join(answer).decode()
        assert answer.status_code in (200, 403, 404), url
        assert not [secret for secret in (*_SECRETS, "7,761.32", "7761.32", "5.55") if secret in body], url


@pytest.mark.requirement("adjustments-2.1")
def test_actions_refuse_what_pages_would_not_offer(books: Any, foreign: dict[str, Any]) -> None:
    """Of finance of one unit: everything that reaches beyond it, past every page."""
    actor = Actor.of(books.unit_finance)
    own = statement(books, books.finance_team)
    refused = (NotAllowed, NotVisible)
    with pytest.raises(refused):
        credits.propose_credit(foreign["statement"].pk, Decimal(1), WHY, actor=actor)
    with pytest.raises(refused):
        credits.propose_credit(own.pk, Decimal(1), WHY, actor=actor, payer_id=books.foreign.pk)
    with pytest.raises(refused):
        credits.approve_credit(foreign["credit"].pk, actor=actor)
    with pytest.raises(refused):
        distribution_actions.propose("Ours pays nothing", SEPTEMBER, DEFAULT, actor=actor)
    with pytest.raises(refused):
        billing_modes.set_mode(books.other_unit.pk, SEPTEMBER, "showback", actor=actor)
    parsed = bills_file.Parsed("2" * 64)
    with pytest.raises(refused):
        bills.import_bill(foreign["world"].cluster.pk, AUGUST, parsed, vendor="Landlord", filename="b.csv", actor=actor)
    with pytest.raises(refused):
        bills.withdraw(foreign["bill"].pk, WHY, actor=actor)
    line = PriceLine(foreign["world"].flavour.pk, "", "", Decimal(1))
    with pytest.raises(refused):
        proposals.propose_card(
            "Cheap", foreign["world"].cluster.pk, [line], "USD", clock.now() + timedelta(days=1), actor=actor
        )
    assert credits.propose_credit(own.pk, Decimal(1), WHY, actor=actor).status == "proposed"


@pytest.mark.requirement("adjustments-2.1")
def test_nobody_decides_on_money_for_their_own_team_or_on_what_they_asked(books: Any) -> None:
    """Finance who leads the team that receives, who proposed, who is deactivated meanwhile: none of them decides."""
    own = statement(books, books.finance_team)
    credit = credits.propose_credit(own.pk, Decimal(1), WHY, actor=Actor.of(books.finance))
    grant(books.lead_finance, "finance")
    gone = make_user("gone-finance@example.com")
    grant(gone, "finance")
    type(gone).objects.filter(pk=gone.pk).update(is_active=False)
    for user in (books.finance, books.lead_finance, gone, books.superuser):
        with pytest.raises((NotAllowed, NotVisible)):
            credits.approve_credit(credit.pk, actor=Actor.of(user))
    assert credits.approve_credit(credit.pk, actor=Actor.of(books.second)).status == "approved"


@pytest.mark.requirement("adjustments-3.3")
def test_the_owner_of_a_unit_does_not_settle_what_their_unit_disputes(books: Any) -> None:
    own = statement(books, books.finance_team)
    dispute = Dispute.objects.create(statement=own, unit=books.unit, text="Too much", opened_by=books.lead_finance)
    grant(books.vp, "finance")
    assert books.vp.pk not in disputes.deciders(dispute)
    with pytest.raises(NotAllowed):
        disputes.settle_dispute(dispute.pk, accepted=False, outcome=WHY, actor=Actor.of(books.vp))
    settled = disputes.settle_dispute(dispute.pk, accepted=False, outcome=WHY, actor=Actor.of(books.second))
    assert settled.status == "rejected"
