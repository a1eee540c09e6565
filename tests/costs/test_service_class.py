"""Service classes: given by finance from an hour on, never into the past, seen by the team, charged by metering."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from apps.audit.models import AuditEvent
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Invalid, NotAllowed, NotVisible
from apps.core.models import OutboxMessage
from apps.costs.models import Charge
from apps.costs.service_class import assign_class, class_at
from apps.metering import actions as metering
from apps.metering.models import WorkspaceClass
from tests.costs.test_pricing_resources import rate
from tests.factories import client_for
from tests.metering.world import FakeAdapter, World, hold, make_world, utc

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)
NOW = utc(2026, 11, 18, 9, 20)


@pytest.fixture
def world(company: Any) -> Any:
    with clock.frozen(NOW):
        yield make_world(company.teams.values())


def assign(world: World, company: Any, name: str = "compliance", at: datetime = NOW, **changes: Any) -> Any:
    values = {"reason": "Regulated data", "actor": Actor.of(company.finance)} | changes
    return assign_class(world.workspaces["finance"].pk, name, at, **values)


@pytest.mark.requirement("rate-proposals-4.1")
def test_what_runs_is_charged_at_the_class_from_its_hour_on(world: World, company: Any) -> None:
    special = rate(world, "0", cls="compliance", factor="1.2")
    start = utc(2026, 11, 18, 11)
    assign(world, company, at=start + timedelta(minutes=40))
    row = WorkspaceClass.objects.get()
    assert (row.valid.lower, row.valid.upper, row.set_by) == (start, None, company.finance)
    told = OutboxMessage.objects.get(event="costs.service_class.assigned")
    assert company.lead_finance.pk in told.recipient_ids
    assert AuditEvent.objects.filter(action="costs.service_class.assigned").count() == 1
    with clock.frozen(utc(2026, 11, 19)):
        held = hold("a", "finance-prod", start - 2 * HOUR, start + 2 * HOUR, 2)
        metering.ingest_hours(
            world.source.pk, start - 2 * HOUR, start + 2 * HOUR, actor=Actor.system("test"),
            adapter=FakeAdapter([held]),
        )  # fmt: skip
    assert world.rate is not None
    assert special.amount == Decimal("4.62")
    charges = Charge.objects.filter(kind="allocated").order_by("hour").values_list("rate_id", "service_class")
    assert list(charges) == [(world.rate.pk, "")] * 2 + [(special.pk, "compliance")] * 2


@pytest.mark.requirement("rate-proposals-4.1")
def test_a_later_class_ends_the_earlier_one_and_standard_ends_both(world: World, company: Any) -> None:
    workspace = world.workspaces["finance"]
    later = NOW.replace(minute=0) + 5 * HOUR
    assign(world, company, at=later)
    assign(world, company, "high_availability")
    spans = WorkspaceClass.objects.order_by("valid").values_list("service_class", "valid")
    first = NOW.replace(minute=0)
    assert [(name, valid.lower, valid.upper) for name, valid in spans] == [
        ("high_availability", first, later),
        ("compliance", later, None),
    ]
    assert assign(world, company, "", at=later + HOUR) is None
    assert class_at(workspace, later + 2 * HOUR) is None
    current = class_at(workspace, first)
    assert current is not None
    assert current.service_class == "high_availability"


@pytest.mark.requirement("rate-proposals-4.2")
def test_the_past_a_missing_reason_and_other_people_are_refused(world: World, company: Any) -> None:
    assign(world, company)
    for field, changes in (
        ("valid_from", {"at": NOW - HOUR}),
        ("valid_from", {"name": "high_availability"}),
        ("reason", {"at": NOW + HOUR, "name": "high_availability", "reason": " "}),
        ("service_class", {"at": NOW + HOUR}),
        ("service_class", {"at": NOW + HOUR, "name": "gold"}),
    ):
        with pytest.raises(Invalid) as refused:
            assign(world, company, **changes)
        assert list(refused.value.errors) == [field]
    for person in ("lead_finance", "vp", "admin", "auditor"):
        with pytest.raises(NotAllowed):
            assign(world, company, "", at=NOW + HOUR, actor=Actor.of(company[person]))
    with pytest.raises(NotVisible):
        assign_class(987654321, "compliance", NOW, "Why", actor=Actor.of(company.finance))
    assert WorkspaceClass.objects.count() == 1


@pytest.mark.requirement("rate-proposals-4.1", "rate-proposals-4.2")
def test_pages_and_panel(world: World, company: Any) -> None:
    workspace = world.workspaces["finance"]
    finance, lead = client_for(company.finance), client_for(company.lead_finance)
    url = f"/costs/service-classes/{workspace.uid}/"
    page = f"/workspaces/{workspace.uid}/"
    from django.urls import reverse

    page = reverse("quotas:workspace-detail", kwargs={"workspace_uid": workspace.uid})
    assert "Service class" not in lead.get(page).content.decode()
    assert "Standard so far" in finance.get(url).content.decode()
    assert lead.get(url).status_code == 403
    values = {"service_class": "compliance", "valid_from": "2026-11-18T09:00", "reason": ""}
    refused = finance.post(url, values)
    assert refused.status_code == 400
    assert "This field is required" in refused.content.decode()
    half = finance.post(url, values | {"reason": "Regulated data", "valid_from": "2026-11-18T09:30"})
    assert half.status_code == 400
    assert "Choose a full hour" in half.content.decode()
    assert finance.post(url, values | {"reason": "Regulated data"}).status_code == 303
    assert "Regulated data" in finance.get(url).content.decode()
    assert "Service class: Compliance" in lead.get(page).content.decode()
    listed = finance.get("/costs/service-classes/", {"current": "compliance"}).content.decode()
    assert "finance-prod" in listed
    assert "marketing-prod" not in listed
    export = b"".join(finance.get("/costs/service-classes/?export=csv").streaming_content).decode()
    assert "finance-prod,Finance,DC1,production,compliance" in export.replace("Compliance", "compliance").replace(
        "Production", "production"
    )
