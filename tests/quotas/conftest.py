"""A pool of 50 A100 with a price, a policy, and a workspace per team."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps.accounts.models import User
from apps.approvals import actions as approvals
from apps.approvals.models import ApprovalRequest
from apps.clusters.models import Cluster, Flavour, Pool
from apps.core import clock
from apps.core.actor import Actor
from apps.quotas import actions
from apps.quotas.models import Quota, QuotaRequest, Workspace
from apps.rates.models import Rate, RateCard
from tests.factories import Company
from tests.rates.factories import make_cluster, make_flavour, make_pool

POLICY = {
    "validity_days": 365,
    "automatic": [
        {
            "name": "Small change within room",
            "when": [["delta_gpus", "le", 2], ["fits_now", "eq", "yes"], ["borrow_mode", "ne", "unlimited"]],
            "counts": {"fact": "auto_approved_30d_gpus", "adds": "delta_gpus", "limit": 4},
        }
    ],
    "stages": [{"name": "Unit owner", "role": "unit_owner", "scope": "unit", "quorum": 1, "due_hours": 72}],
}
REASON = "Nightly fraud training for the quarter end."


@dataclass
class World:
    """What the tests of quotas start from."""

    company: Company
    cluster: Cluster
    pool: Pool
    flavour: Flavour
    workspaces: dict[str, Workspace] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.company[name]

    def ask(
        self, team: str = "finance", guaranteed: int = 10, *, by: User | None = None, **changes: Any
    ) -> QuotaRequest:
        """Request quota for a team's workspace as its lead."""
        values: dict[str, Any] = {
            "workspace_id": self.workspaces[team].pk,
            "flavour_id": self.flavour.pk,
            "guaranteed": guaranteed,
            "borrow_mode": "none",
            "borrow_limit": 0,
            "valid_from": None,
            "valid_until": None,
            "reason": REASON,
        }
        person = by or self.company[f"lead_{team}"]
        return actions.request_quota(**(values | changes), actor=Actor.of(person))

    def approve(self, request: QuotaRequest, *, by: User | None = None) -> ApprovalRequest:
        """Approve as the unit's owner."""
        request.refresh_from_db()
        assert request.approval is not None
        approvals.decide(
            request.approval.pk,
            "approve",
            "Within the plan of the quarter.",
            actor=Actor.of(by or self.company.vp),
            expected_digest=request.approval.subject_digest,
        )
        request.refresh_from_db()
        return request.approval

    def granted(self, team: str = "finance", guaranteed: int = 10, **changes: Any) -> QuotaRequest:
        """Request and have it approved."""
        request = self.ask(team, guaranteed, **changes)
        if request.status == "in_review":
            self.approve(request)
        return request

    def held(self, team: str = "finance", at: datetime | None = None) -> int | None:
        """What a team's workspace holds at a time; None: nothing."""
        row = Quota.objects.filter(workspace=self.workspaces[team], flavour=self.flavour).in_force(at).first()
        return None if row is None else row.guaranteed


def make_rate(pool: Pool, amount: str = "3.85", since: datetime | None = None) -> Rate:
    """Publish a price of the pool's flavours, from a year ago."""
    card = RateCard.objects.create(name="Prices", cluster=pool.cluster)
    begin = since or clock.now() - timedelta(days=365)
    rates = [
        Rate.objects.create(
            card=card,
            cluster=pool.cluster,
            flavour=flavour,
            amount=Decimal(amount),
            currency="USD",
            valid=DateTimeTZRange(begin, None, "[)"),
        )
        for flavour in pool.flavours.all()
    ]
    return rates[0]


def make_world(company: Company, cluster: Cluster | None = None, **pool: Any) -> World:
    """Make the world of the tests."""
    cluster = cluster or make_cluster()
    flavour = make_flavour()
    made = World(company, cluster, make_pool(cluster, flavour, **pool), flavour)
    make_rate(made.pool)
    approvals.publish_policy("quota", "Quota", "quotas.request", POLICY, actor=Actor.of(company.admin))
    for slug, team in company.teams.items():
        made.workspaces[slug] = actions.create_workspace(
            team.pk, cluster.pk, "development", ["internal"], actor=Actor.of(company.admin)
        )
    return made


@pytest.fixture
def world(company: Company) -> World:
    """The pool, the policy and the workspaces."""
    return make_world(company)
