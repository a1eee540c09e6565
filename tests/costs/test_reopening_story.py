"""A closed month is opened again and closed anew, page by page, by two persons of finance."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.urls import reverse

from apps.audit.models import AuditEvent
from apps.core import clock
from apps.core.actor import Actor
from apps.core.testing import settle
from apps.costs import periods, running
from apps.costs.models import ReopenRequest, Statement
from apps.metering import actions as metering
from tests.costs.test_closing import FIRST, NOW, holdings, ingest, september
from tests.costs.test_periods_pages import MONTH, get, post, text
from tests.factories import client_for, grant, make_user
from tests.metering.world import FakeAdapter, guarantee, hold, make_world

WHY = "The meter of a whole rack was read wrongly for three hours"


def version(page: str) -> str:
    """The version in the form that a person has before them."""
    found = re.search(r'name="version" value="(\d+)"', page) or re.search(r'value="(\d+)"[^>]*name="version"', page)
    assert found, page
    return found.group(1)


@pytest.mark.requirement("adjustments-4.1", "adjustments-4.2", "periods-2.6", "periods-2.9")
def test_two_persons_open_a_closed_month_and_it_is_closed_with_other_numbers(company: Any) -> None:
    first, second = company.finance, make_user("second-finance@example.com")
    grant(second, "finance")
    with clock.frozen(NOW):
        world = make_world(company.teams.values(), gpus=20, since=FIRST)
        guarantee(world, "research", 4, FIRST)
        ingest(world, holdings())
        periods.make_periods()
        assert post(first, "costs:period-start", **MONTH).status_code == 303
        assert post(first, "costs:period-close", **MONTH).status_code == 303
        settle(only=("costs.freeze",))
        digest, bill = september().digest, september().bill
        old = {row.number: row.digest for row in Statement.objects.all()}

        # Asking: what it does is said before; the person who asks cannot agree.
        ask = text(get(first, "costs:reopen-ask", **MONTH))
        assert "new statements with new numbers" in ask
        asked = post(first, "costs:reopen-ask", {"reason": WHY, "version": version(ask)}, **MONTH)
        assert asked.status_code == 303
        request = ReopenRequest.objects.get()
        own = text(client_for(first).get(asked["Location"]))
        approve = {"reopen_uid": request.uid}
        assert "A second person decides" in own
        assert reverse("costs:reopen-approve", kwargs=approve) not in own
        assert post(first, "costs:reopen-approve", {"reason": WHY}, **approve).status_code == 403
        assert september().status == "closed"

        # Agreeing: the page names the bill and the statements that will be superseded.
        page = text(client_for(second).get(asked["Location"]))
        assert f"{bill:,.2f} USD" in page
        form = text(get(second, "costs:reopen-approve", **approve))
        assert "Its statements are superseded, the month goes back to closing" in form
        data = {"reason": "Agreed: three hours of a rack are wrong", "version": version(form)}
        assert post(second, "costs:reopen-approve", data, **approve).status_code == 303
        month = text(get(first, "costs:period-detail", **MONTH))
        assert "Opened again" in month
        assert "Back to open" in month
        assert all(row.superseded_at is not None for row in Statement.objects.all())
        statement = Statement.objects.get(number="2026-09-T-0001")
        kept = text(get(company.lead_finance, "costs:statement-detail", statement_uid=statement.uid))
        assert "superseded" in kept.lower()

    with clock.frozen(NOW + timedelta(minutes=5)):
        # What was wrong is read again, and the month is closed with what it really was.
        rows = [*holdings(), hold("late", "marketing-prod", FIRST, FIRST + timedelta(hours=3), 2)]
        metering.ingest_hours(
            world.source.pk, FIRST, FIRST + timedelta(hours=6), actor=Actor.system("test"), adapter=FakeAdapter(rows)
        )
        running.make_due()
        form = text(get(first, "costs:period-close", **MONTH))
        seen = re.search(r'name="preview" value="([0-9a-f]{64})"', form)
        assert seen
        data = {"version": version(form), "preview": seen.group(1)}
        assert post(first, "costs:period-close", data, **MONTH).status_code == 303
        settle(only=("costs.freeze",))
        assert (september().status, september().reopened) == ("closed", 1)
        assert september().digest != digest
        page = text(get(first, "costs:period-detail", **MONTH))
        assert "As in the preview" in page
        assert "2026-09-T-0001-2" in page
        marketing = Statement.objects.filter(superseded_at=None, owner_kind="team", team_name="Marketing").get()
        before = Statement.objects.get(superseded_at__isnull=False, owner_kind="team", team_name="Marketing")
        assert marketing.amount - before.amount == Decimal("23.10")  # 2 GPUs × 3 h × 3.85
        assert {row.number: row.digest for row in Statement.objects.exclude(superseded_at=None)} == old
        assert post(first, "costs:period-back", **MONTH).status_code == 409
    trail = AuditEvent.objects.filter(action__startswith="costs.reopening").values_list("action", flat=True)
    assert sorted(trail) == ["costs.reopening.approved", "costs.reopening.requested"]
