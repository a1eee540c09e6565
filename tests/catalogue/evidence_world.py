"""What the tests of evidence and requests start from: a company, two clusters, workspaces, a published policy."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from apps.accounts.models import User
from apps.approvals import actions as approvals
from apps.approvals.models import ApprovalRequest
from apps.catalogue import evidence, subject
from apps.catalogue import requests as asks
from apps.catalogue.models import Evidence, Model, ModelRequest, ModelVersion
from apps.catalogue.regimes_loading import load_regimes
from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.actor import Actor
from apps.quotas.models import Workspace
from tests.catalogue.world import make_card, make_model, make_sealed, make_store
from tests.factories import Company
from tests.rates.factories import make_cluster

REASON = "Needed for the quarter's fraud rules."
CARD = {
    "schema": 1, "name": "Fraud", "overview": "Scores payments.", "uses_direct": "Handlers look at high scores.",
    "uses_out_of_scope": "No decision without a person.", "limitations": "Few payments above a million.",
    "logic": "The amount weighs most.", "monitoring": "Drift every day.",
}  # fmt: skip


@dataclass
class World:
    """The company with a model of finance, sealed, and its workspaces."""

    company: Company
    cluster: Cluster
    other_cluster: Cluster
    production: Workspace
    staging: Workspace
    model: Model
    version: ModelVersion

    def __getitem__(self, name: str) -> Any:
        return getattr(self.company, name)

    def actor(self, name: str) -> Actor:
        """Return a person of the company as actor."""
        return Actor.of(self.company[name])

    def seal(self, **values: Any) -> ModelVersion:
        """Seal another version of the model."""
        values.setdefault("scheme", "oci")
        values.setdefault("card", self.version.card)
        values.setdefault("store", self.version.store)
        return make_sealed(self.model, self.company.member_finance, **values)

    def add(
        self, kind: str, *, by: str = "member_finance", version: ModelVersion | None = None, **draft: Any
    ) -> Evidence:
        """Add a piece of evidence that passes."""
        made: dict[str, dict[str, Any]] = {
            "evaluation": {"rows": [{"metric": "auroc", "value": "0.93", "comparison": "ge", "threshold": "0.9"}]},
            "model_scan": {"payload": {"tool": "scanner 1", "findings": 0}},
        }
        values = made.get(
            kind, {"payload": {"summary": "Reviewed by the security team in November, without findings."}}
        )
        wanted = evidence.Draft(kind=kind, title=f"The {kind}", **(values | draft))
        return evidence.add_evidence((version or self.version).pk, wanted, actor=self.actor(by))

    def ask(
        self, workspaces: list[Workspace] | None = None, *, by: str = "lead_finance", **values: Any
    ) -> ModelRequest:
        """Ask for the version's approval."""
        version = values.pop("version", self.version)
        more = {name: values.pop(name) for name in ("supersedes", "renews") if name in values}
        asked = asks.Asked(
            **{
                "workspaces": [one.pk for one in workspaces or [self.production]], "max_traffic": 100,
                "valid_days": 90, "reason": REASON, **values,
            }
        )  # fmt: skip
        return asks.submit(version.pk, asked, actor=self.actor(by), **more)

    def decide(self, row: ModelRequest, verdict: str = "approve", *, by: User | None = None) -> ApprovalRequest:
        """Decide as compliance."""
        row.refresh_from_db()
        assert row.approval is not None
        return approvals.decide(
            row.approval.pk, verdict, "Looked at card, results and scope.",
            actor=Actor.of(by or self.company.compliance), expected_digest=row.approval.subject_digest,
        )  # fmt: skip

    def approved(self, workspaces: list[Workspace] | None = None, **values: Any) -> ModelRequest:
        """Ask and approve."""
        row = self.ask(workspaces, **values)
        self.decide(row)
        row.refresh_from_db()
        return row


def make_world(
    company: Company, *, data_classes: tuple[str, ...] = ("internal",), policy: dict[str, Any] | None = None
) -> World:
    """Make it: an internal model by default, whose production use asks for a card and an evaluation."""
    load_regimes()
    cluster, other = make_cluster("onprem", location="on_premises", jurisdiction="EU"), make_cluster("cloud")
    workspaces = {
        name: Workspace.objects.create(
            team=company.finance_team, cluster=cluster, environment=name, namespace=f"finance-{name}",
            data_classes=list(data_classes),
        )
        for name in ("production", "staging")
    }  # fmt: skip
    model = make_model(
        company.finance_team, "Fraud", data_classes=data_classes, risk_tier="minimal", act_role="deployer"
    )
    card = make_card(model, company.member_finance, CARD)
    version = make_sealed(model, company.member_finance, "1.0.0", scheme="oci", card=card, store=make_store("oci"))
    approvals.publish_policy(
        "model-versions", "Versions", asks.SUBJECT_TYPE, policy or subject.MODEL_VERSIONS,
        actor=Actor.of(company.admin),
    )  # fmt: skip
    return World(company, cluster, other, workspaces["production"], workspaces["staging"], model, version)


def later(days: int = 0, **values: float) -> Any:
    """Return a moment from now."""
    return clock.now() + timedelta(days=days, **values)
