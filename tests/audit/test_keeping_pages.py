"""Pages about retention, holds and reconciliation; the filters that came with them; the command for floors."""

from __future__ import annotations

import io
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from apps.audit import actions, keeping
from apps.audit.models import AuditEvent, Hold, ReconciliationRun, RetentionProposal
from apps.core import clock
from apps.core.actor import Actor, Channel
from apps.core.testing import assert_queries
from tests.audit.helpers import TRIED, Tried
from tests.audit.test_keeping import MONTH, folder, old
from tests.factories import Company, client_for

pytestmark = pytest.mark.django_db
__all__ = ["folder", "old"]


def _text(answer: Any) -> str:
    return str(answer.content.decode())


@pytest.mark.requirement("audit-keeping-2.7")
def test_two_persons_purge_by_page(company: Company, old: list[AuditEvent]) -> None:
    admin, compliance = client_for(company.admin), client_for(company.compliance)
    page = _text(admin.get("/audit/retention/"))
    for part in ("March 2005", "it may be proposed", "EU AI Act", "120 months"):
        assert part in page
    assert admin.post("/audit/retention/propose/", {"month": "2018-01-01", "reason": "x"}).status_code == 400
    assert admin.post("/audit/retention/propose/", {"month": f"{MONTH}", "reason": "old"}).status_code == 303
    row = RetentionProposal.objects.get()
    assert admin.get(f"/audit/retention/{row.uid}/approve/").status_code == 403
    approve = f"/audit/retention/{row.uid}/approve/"
    assert approve in _text(compliance.get("/audit/retention/"))
    stale = compliance.post(approve, {"reason": "yes", "version": row.version + 5})
    assert stale.status_code == 409
    assert compliance.post(approve, {"reason": "yes", "version": row.version}).status_code == 303
    assert compliance.get(f"/audit/retention/{row.uid}/reject/").status_code == 409
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    assert keeping.purge_due() == 1
    with assert_queries(20):
        assert "Months purged" in _text(compliance.get("/audit/retention/"))


@pytest.mark.requirement("audit-keeping-2.7")
def test_holds_by_page(company: Company) -> None:
    client = client_for(company.compliance)
    refused = client.post("/audit/holds/new/", {"matter": "Case 9", "person": "nobody-here@example.com"})
    assert refused.status_code == 400
    assert "Nobody has an account" in _text(refused)
    data = {"matter": "Case 9", "person": company.vp.email, "since": "2026-01-01T00:00", "reason": "letter"}
    assert client.post("/audit/holds/new/", data).status_code == 303
    hold = Hold.objects.get(matter="Case 9")
    assert (hold.actor_id, hold.since) == (str(company.vp.uid), datetime(2026, 1, 1, tzinfo=UTC))
    page = _text(client_for(company.auditor).get("/audit/retention/"))
    assert company.vp.display_name in page
    assert "Case 9" in page
    assert f"/audit/holds/{hold.uid}/release/" not in page, "auditors look and change nothing"
    assert client.post(f"/audit/holds/{hold.uid}/release/", {"reason": ""}).status_code == 400
    assert client.post(f"/audit/holds/{hold.uid}/release/", {"reason": "settled"}).status_code == 303
    assert not Hold.objects.in_force().filter(uid=hold.uid).exists()
    for who in ("vp", "finance", "lead_finance"):
        assert client_for(company[who]).get("/audit/retention/").status_code == 403


@pytest.mark.requirement("audit-keeping-3.4")
def test_reconciliations_are_for_those_who_read_the_trail(company: Company) -> None:
    ReconciliationRun.objects.create(
        finished_at=clock.now(), upto_xid=9, changes=12, unexplained=1,
        findings=[{"table": "teams_rolegrant", "row": "r1", "change": "UPDATE", "login": "dba", "program": "psql",
                   "at": "2026-11-22", "transaction": "8"}],
    )  # fmt: skip
    client = client_for(company.auditor)
    with assert_queries(20):
        page = _text(client.get("/audit/reconciliation/"))
    for part in ("teams_rolegrant", "psql", "1 change without an event"):
        assert part in page
    for who in ("admin", "compliance", "vp"):
        assert client_for(company[who]).get("/audit/reconciliation/").status_code == 403


@pytest.mark.requirement("audit-keeping-5.3")
def test_the_trail_is_filtered_by_room_door_and_team(company: Company) -> None:
    mark = f"tests.m{uuid.uuid4().hex[:8]}"

    def write(channel: Channel, team: uuid.UUID | None = None) -> uuid.UUID:
        with transaction.atomic():
            event = actions.record(
                TRIED, Tried(1), actor=Actor.of(company.vp, channel), subject_type=mark, subject_uid=uuid.uuid4(),
                team_uid=team,
            )  # fmt: skip
        return event.uid

    web, api = write(Channel.WEB, company.finance_team.uid), write(Channel.API)
    client = client_for(company.auditor)

    def shown(**query: str) -> set[uuid.UUID]:
        answer = client.get("/audit/", {"object": mark, **query})
        assert answer.status_code == 200
        return {row.record.uid for row in answer.context["table"].page.object_list}

    assert shown(room="tests") == {web, api}
    assert shown(room="audit") == set()
    assert shown(channel="api") == {api}
    assert shown(team=str(company.finance_team.uid)) == {web}


@pytest.mark.requirement("audit-keeping-2.3")
def test_a_period_is_set_with_the_login_of_migrations() -> None:
    out = io.StringIO()
    call_command("audit_floor", stdout=out)
    assert "Events are kept for 120 months at least." in out.getvalue()
    with pytest.raises(CommandError, match="--months"):
        call_command("audit_floor", regime="A new law")
    out = io.StringIO()
    call_command("audit_floor", regime="A new law", months=144, citation="Art. 1", stdout=out)
    assert "144 months" in out.getvalue()
    assert keeping.floor_months() == 144
    call_command("audit_floor", regime="A new law", months=0, stdout=io.StringIO())
    assert keeping.floor_months() == 120
