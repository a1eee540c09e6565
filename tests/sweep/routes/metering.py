"""Routes of the metering room. `world.metered`: a cluster with an hour of Finance, Marketing and a foreign tenant."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps.core import clock
from apps.core.actor import Actor
from apps.metering import actions, claims, rules
from apps.metering.models import HourFact, ResourceFact, SourceCheck, SourceWaiver
from apps.metering.sources.base import ResourceHold, ms
from apps.rates.models import Rate
from tests.metering.world import FakeAdapter, guarantee, hold, make_world
from tests.sweep.types import EVERYBODY, Route

#: The finding of the sweep's self-test: one that can be waived.
FAILING = {"code": "retention", "status": "failed", "title": "How long it remembers", "detail": "1d", "todo": "40d"}
_WAIVE = {"admin", "finance"}
_RUNS = {"admin", "auditor", "finance"}
#: Everybody who may see facts somewhere.
FACTS = {
    "member_finance", "lead_finance", "lead_marketing", "vp", "vp_other", "compliance", "finance", "admin", "auditor",
}  # fmt: skip


def build(world: SimpleNamespace) -> None:
    """Meter six hours of yesterday on a cluster of its own."""
    company = world.company
    world.metered = make_world([company.finance_team, company.marketing_team, world.foreign_team], slug="metered")
    end = clock.hour_floor(clock.now()) - timedelta(hours=12)
    start = end - timedelta(hours=6)
    names = {
        "finance-prod": "fraud-model",
        "marketing-prod": "ad-ranking",
        f"{world.foreign_team.slug}-prod": "quagga-sim",
    }
    holdings = [hold(name, namespace, start, end, 2, used=0.4) for namespace, name in names.items()]
    holdings.append(hold("nightly", "finance-prod", start, end, 1))
    guarantee(world.metered, "finance", 4)
    guarantee(world.metered, world.foreign_team.slug, 5)
    Rate.objects.create(
        card=world.metered.card, cluster=world.metered.cluster, flavour=None, resource="cpu", amount=Decimal("0.037"),
        currency="USD", valid=DateTimeTZRange(start - timedelta(days=90), None, "[)"),
    )  # fmt: skip
    cores = [
        ResourceHold(ms(start), "cpu", f"uid-{name}", namespace, name, 7_200_000, kind="Job")
        for namespace, name in names.items()
    ]
    run = actions.ingest_hours(
        world.metered.source.pk, start, end, actor=Actor.system("sweep"), adapter=FakeAdapter(holdings, resources=cores)
    )
    world.ingest_run = run
    world.rule = rules.set_rule("nvidia.com/sweep", 1, 2, actor=Actor.system("sweep"))
    lead = Actor.of(company.lead_finance)
    world.claim = claims.claim_namespace(
        world.metered.cluster.pk, "sweep-notebooks", company.finance_team.pk, start, actor=lead, reason="for the sweep"
    )
    world.source_check = SourceCheck.objects.create(
        source=world.metered.source, verdict="failed", findings=[FAILING], checked_at=clock.now()
    )
    world.source_waiver = SourceWaiver.objects.create(
        source=world.metered.source,
        codes=["clock"],
        reason="The clocks are set right tonight.",
        waived_by=company.admin,
        valid=DateTimeTZRange(clock.now(), clock.now() + timedelta(days=2), "[)"),
    )
    world.fact = HourFact.objects.filter(workload_name="fraud-model").latest("hour")
    world.resource_fact = ResourceFact.objects.get(workload_name="fraud-model")
    world.keep_secret("fraud-model", sees={"member_finance", "lead_finance", "vp"})
    world.keep_secret("ad-ranking", sees={"lead_marketing", "vp"})
    world.keep_secret("quagga-sim", sees={"vp_other"})


#: Who may claim a namespace for some team; for the one of `world.claim`.
CLAIMERS = {"lead_finance", "lead_marketing", "vp", "vp_other", "finance", "admin"}
_OWN_CLAIMERS = {"lead_finance", "vp", "finance", "admin"}


def _rule(world: Any) -> Mapping[str, Any]:
    return {"rule_uid": world.rule.uid}


def _claim(world: Any) -> Mapping[str, Any]:
    return {"claim_uid": world.claim.uid}


def _source(world: Any) -> Mapping[str, Any]:
    return {"source_uid": world.metered.source.uid}


def _waiver(world: Any) -> Mapping[str, Any]:
    return {"waiver_uid": world.source_waiver.uid}


def _run(world: Any) -> Mapping[str, Any]:
    return {"run_uid": world.ingest_run.uid}


ROUTES: dict[str, Route] = {
    "metering:source-list": Route(allowed=_RUNS),
    "metering:source-create": Route(allowed={"admin"}),
    "metering:source-create#POST": Route(allowed={"admin"}, method="POST"),
    "metering:source-detail": Route(allowed=_RUNS, kwargs=_source),
    "metering:source-retry": Route(allowed={"admin"}, kwargs=_source),
    "metering:source-retry#POST": Route(allowed={"admin"}, kwargs=_source, method="POST"),
    "metering:source-end": Route(allowed={"admin"}, kwargs=_source),
    "metering:source-end#POST": Route(allowed={"admin"}, kwargs=_source, method="POST"),
    "metering:source-change": Route(allowed={"admin"}, kwargs=_source),
    "metering:source-change#POST": Route(allowed={"admin"}, kwargs=_source, method="POST"),
    "metering:source-test": Route(allowed={"admin"}, kwargs=_source),
    "metering:source-test#POST": Route(allowed={"admin"}, kwargs=_source, method="POST"),
    "metering:source-check-list": Route(allowed=_RUNS, kwargs=_source),
    "metering:source-check": Route(allowed=_RUNS, kwargs=lambda world: {"check_uid": world.source_check.uid}),
    "metering:source-waive": Route(allowed=_WAIVE, kwargs=_source),
    "metering:source-waive#POST": Route(allowed=_WAIVE, kwargs=_source, method="POST"),
    "metering:waiver-revoke": Route(allowed=_WAIVE, kwargs=_waiver),
    "metering:waiver-revoke#POST": Route(allowed=_WAIVE, kwargs=_waiver, method="POST"),
    "api:usage-source-list": Route(allowed=_RUNS),
    "api:usage-source-detail": Route(allowed=_RUNS, kwargs=lambda world: {"uid": world.metered.source.uid}),
    "metering:run-list": Route(allowed=_RUNS),
    "metering:run-detail": Route(allowed=_RUNS, kwargs=_run),
    "metering:rule-list": Route(allowed=EVERYBODY),
    "metering:rule-create": Route(allowed={"admin"}),
    "metering:rule-create#POST": Route(allowed={"admin"}, method="POST"),
    "metering:rule-end": Route(allowed={"admin"}, kwargs=_rule),
    "metering:rule-end#POST": Route(allowed={"admin"}, kwargs=_rule, method="POST"),
    "metering:namespace-list": Route(allowed=CLAIMERS | _RUNS),
    "metering:claim-list": Route(allowed=FACTS),
    "metering:claim-create": Route(allowed=CLAIMERS),
    "metering:claim-create#POST": Route(allowed=CLAIMERS, method="POST"),
    "metering:claim-end": Route(allowed=_OWN_CLAIMERS, kwargs=_claim),
    "metering:claim-end#POST": Route(allowed=_OWN_CLAIMERS, kwargs=_claim, method="POST"),
    "metering:claim-withdraw": Route(allowed=_OWN_CLAIMERS, kwargs=_claim),
    "metering:claim-withdraw#POST": Route(allowed=_OWN_CLAIMERS, kwargs=_claim, method="POST"),
    "metering:capacity-list": Route(allowed=_RUNS),
    "metering:import-create": Route(allowed={"admin"}),
    "metering:import-create#POST": Route(allowed={"admin"}, method="POST"),
    "api:usage-list": Route(allowed=FACTS),
    "api:usage-detail": Route(
        allowed={"member_finance", "lead_finance", "vp", "compliance", "finance", "admin", "auditor"},
        kwargs=lambda world: {"uid": world.fact.uid},
    ),
    "api:ingest-run-list": Route(allowed=_RUNS),
    "api:ingest-run-detail": Route(allowed=_RUNS, kwargs=lambda world: {"uid": world.ingest_run.uid}),
}
