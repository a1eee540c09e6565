"""The inbox of a compliance officer before whom 500 requests lie: statements, and server time to the last byte."""

from __future__ import annotations

import os
import platform
import uuid
from collections.abc import Collection
from datetime import timedelta
from decimal import Decimal

import pytest

from apps.approvals import actions, ports
from apps.approvals.models import ApprovalRequest, Stage
from apps.approvals.ports import MONTHLY_COST
from apps.core import clock, memory
from apps.core.actor import Actor
from tests.approvals.subjects import Thing, ThingSubject
from tests.bench.test_pages import counted, p95, plain_templates  # noqa: F401 (a fixture)
from tests.factories import client_for, make_company, make_user

pytestmark = pytest.mark.bench
OPEN, TARGET_MS, LIST = 500, 150, 20
STAGE = {"name": "Compliance", "role": "compliance", "scope": "installation", "due_hours": 240}
KINDS = ("production", "staging", "development")
CLASSES = ("internal", "pii", "phi", "financial")


class Sided(ThingSubject):
    """As the rooms' own subjects are: the team is the requester's side, and authors are known by person."""

    team_is_side = True

    def authors(self, uid: uuid.UUID) -> set[int]:
        return set(self.things[uid].authors)

    def evidence_producers(self, uid: uuid.UUID) -> set[int]:
        return set(self.things[uid].producers)

    def written_by(self, user_ids: Collection[int]) -> set[uuid.UUID]:
        return {uid for uid, one in self.things.items() if set(user_ids) & one.authors}

    def proved_by(self, user_ids: Collection[int]) -> set[uuid.UUID]:
        return {uid for uid, one in self.things.items() if set(user_ids) & one.producers}


def _fill(subject: Sided, first: ApprovalRequest) -> None:
    """Copy the first request, made by its action, with its stage: 500 rows in two statements."""
    stage = Stage.objects.get(request=first)
    rows, at = [], clock.now()
    for number in range(OPEN - 1):
        facts = {"environment": KINDS[number % 3], "data_class": CLASSES[number % 4]}
        thing = subject.add(text=f"Model {number} into production", cost=Decimal(number), facts=dict(facts))
        rows.append(
            ApprovalRequest(
                subject_type=first.subject_type, subject_uid=thing.uid, subject_digest=first.subject_digest,
                leaves=first.leaves, title=thing.text, policy_version=first.policy_version, requester=first.requester,
                team=first.team, unit=first.unit, requester_side=first.requester_side,
                facts={**facts, MONTHLY_COST: {"decimal": str(number)}},
                submitted_at=at - timedelta(minutes=number), due_at=at + timedelta(hours=1 + number),
            )
        )  # fmt: skip
    made = ApprovalRequest.objects.bulk_create(rows)
    Stage.objects.bulk_create(
        Stage(
            request=row, ordinal=0, name=stage.name, role=stage.role, unit=stage.unit, rule=stage.rule, quorum=1,
            due_hours=240, due_at=row.due_at, opened_at=row.submitted_at,
        )
        for row in made
    )  # fmt: skip


def test_the_inbox_with_500_open_requests(transactional_db: None, plain_templates: None) -> None:  # noqa: F811 (the fixture)
    company, subject = make_company(), Sided()
    ports.register_subject(subject)
    try:
        author = make_user()
        actions.publish_policy("things", "Things", "tests.thing", {"stages": [STAGE]}, actor=Actor.of(company.admin))
        thing: Thing = subject.add(authors={author.pk})
        first = actions.submit(
            "tests.thing", thing.uid, actor=Actor.of(company.lead_finance), policy_slug="things",
            team_id=company.finance_team.pk, unit_id=company.finance_team.unit_id,
        )  # fmt: skip
        _fill(subject, first)
        client = client_for(company.compliance)
        inbox = "/approvals/inbox/"
        pages = [inbox, f"{inbox}?environment=production&data_class=phi", f"{inbox}?page=10"]
        memory.settle()  # as portal.wsgi does
        load = os.getloadavg()[0]
        slow, many = [], []
        for path in pages:
            statements, took = counted(client, path), p95(client, path)
            print(f"\n  {path:60} p95 {took:6.1f} ms (target {TARGET_MS}), {statements} statements (at most {LIST})")
            if took > TARGET_MS:
                slow.append(f"{path}: {took:.0f} ms")
            if statements > LIST:
                many.append(f"{path}: {statements} statements")
        print(f"  {platform.machine()}, {os.cpu_count()} cores, load before {load:.1f}, after {os.getloadavg()[0]:.1f}")
        assert ApprovalRequest.objects.filter(status="in_review").count() == OPEN
        assert not many, many
        assert not slow, slow
    finally:
        ports.unregister_subject("tests.thing")
