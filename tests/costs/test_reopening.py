"""Opening a closed month again: a second person, statements kept, everything in the trail."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from django.urls import reverse

from apps.audit.models import AuditEvent
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.core.models import OutboxMessage
from apps.costs import reopening
from apps.costs.models import ReopenRequest, Statement
from tests.costs.frozen import Draft, freeze
from tests.factories import client_for, grant, make_user
from tests.metering.world import utc

AUGUST = date(2026, 8, 1)
NOW = utc(2026, 9, 3, 9)
WHY = "The meter of a whole cluster was read wrongly"


@pytest.fixture
def period(company: Any) -> Any:
    with clock.frozen(NOW):
        company.second = make_user("second-finance@example.com")
        grant(company.second, "finance")
        yield freeze(AUGUST, extra=[Draft("charge", "Use", Decimal("100.00"), company.finance_team.pk)])


@pytest.mark.requirement("adjustments-4.1")
def test_it_takes_a_reason_and_a_second_person(company: Any, period: Any) -> None:
    actor = Actor.of(company.finance)
    with pytest.raises(Invalid):
        reopening.request_reopening(period.pk, "why not", actor=actor)
    with pytest.raises(NotAllowed):
        reopening.request_reopening(period.pk, WHY, actor=Actor.of(company.vp))
    request = reopening.request_reopening(period.pk, WHY, actor=actor)
    assert OutboxMessage.objects.get(event="costs.reopening.requested").recipient_ids == [company.second.pk]
    with pytest.raises(Conflict):
        reopening.request_reopening(period.pk, WHY, actor=Actor.of(company.second))
    with pytest.raises(NotAllowed, match="second person"):
        reopening.approve_reopening(request.pk, WHY, actor=actor)
    with pytest.raises(NotAllowed):
        reopening.approve_reopening(request.pk, WHY, actor=Actor.of(company.auditor))
    period.refresh_from_db()
    assert period.status == "closed"
    reopening.reject_reopening(request.pk, "A correction is enough", actor=Actor.of(company.second))
    assert reopening.request_reopening(period.pk, WHY, actor=actor).pk != request.pk


@pytest.mark.requirement("adjustments-4.2")
def test_the_month_goes_back_to_closing_and_its_statements_stay(company: Any, period: Any) -> None:
    before = {row.number: row.digest for row in Statement.objects.filter(period=period)}
    digest = period.digest
    request = reopening.request_reopening(period.pk, WHY, actor=Actor.of(company.finance))
    reopening.approve_reopening(request.pk, "Agreed with the controller", actor=Actor.of(company.second))
    period.refresh_from_db()
    assert (period.status, period.bill, period.reopened) == ("closing", None, 1)
    kept = Statement.objects.filter(period=period)
    assert {row.number: row.digest for row in kept} == before
    assert all(row.superseded_at == NOW for row in kept)
    event = AuditEvent.objects.filter(action="costs.reopening.approved").latest("occurred_at")
    assert b"100.00 USD" in bytes(event.canonical)
    assert digest.encode() in bytes(event.canonical)
    told = OutboxMessage.objects.get(event="costs.reopening.approved").recipient_ids
    assert company.auditor.pk in told
    again = freeze(AUGUST, extra=[Draft("charge", "Use", Decimal("90.00"), company.finance_team.pk)])
    assert (again.bill, again.status) == (Decimal("90.00"), "closed")
    assert Statement.objects.filter(period=period, superseded_at__isnull=True).count() == len(before)
    assert Statement.objects.filter(period=period).count() == 2 * len(before)


@pytest.mark.requirement("adjustments-4.1", "adjustments-4.2")
def test_pages(company: Any, period: Any) -> None:
    client, second = client_for(company.finance), client_for(company.second)
    url = reverse("costs:reopen-ask", kwargs={"month": "2026-08"})
    assert "corrections in the open month" in client.get(url).content.decode()
    assert client_for(company.lead_finance).get(url).status_code == 403
    answer = client.post(url, {"reason": WHY, "version": str(period.version)})
    assert answer.status_code == 303
    request = ReopenRequest.objects.get()
    page = answer["Location"]
    assert "A second person decides" in client.get(page).content.decode()
    approve = reverse("costs:reopen-approve", kwargs={"reopen_uid": request.uid})
    assert approve in second.get(page).content.decode()
    assert client.post(approve, {"reason": WHY}).status_code == 403
    assert second.post(approve, {"reason": WHY, "version": str(request.version)}).status_code == 303
    assert "closing" in client.get(page).content.decode()
    assert client.get(url).status_code == 409
    assert client_for(company.lead_finance).get(page).status_code == 404
    assert "2026-08" in client.get(reverse("costs:reopen-list")).content.decode()
