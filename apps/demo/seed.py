"""Makes the sample company, step by step, through the actions a person uses. Every step may be repeated safely."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from django.conf import settings

from apps.accounts import actions as accounts
from apps.accounts.models import User
from apps.approvals import policies
from apps.approvals.models import Policy
from apps.clusters import actions as clusters
from apps.clusters import crypto, kubeconfigs
from apps.clusters.choices import KueueMode
from apps.clusters.models import Cluster, Flavour, Pool, PoolCapacity
from apps.core import clock
from apps.core.actor import Actor, Channel
from apps.costs import actions as costs
from apps.costs.models import Budget
from apps.demo import company
from apps.demo.cluster.auth import Tokens
from apps.metering import actions as metering
from apps.metering import billing
from apps.metering.choices import SourceKind
from apps.metering.models import Source
from apps.metering.moving import move_source
from apps.quotas import actions as quotas
from apps.quotas.choices import BorrowMode
from apps.quotas.imports import import_quota
from apps.quotas.models import Quota, Workspace
from apps.rates import actions as rates
from apps.rates.models import RateCard
from apps.teams import actions as teams
from apps.teams.models import Membership, RoleGrant, Team, Unit

SEEDER = Actor.system("demo.seed", Channel.COMMAND)


@dataclass
class Context:
    """Where the demo runs, and what earlier steps made."""

    kubeconfig: Path
    allocation_url: str
    tokens_file: Path
    kubeconfig_borealis: Path | None = None
    users: dict[str, User] = field(default_factory=dict)

    @classmethod
    def from_environment(cls) -> Context:
        """Read what the launcher passes. Raises KeyError naming the variable that is missing."""
        return cls(
            kubeconfig=Path(os.environ["COMMONS_DEMO_KUBECONFIG"]),
            allocation_url=os.environ["COMMONS_DEMO_ALLOCATION_URL"],
            tokens_file=settings.COMMONS_DIR / "cluster" / "tokens.json",
            kubeconfig_borealis=Path(second)
            if (second := os.environ.get("COMMONS_DEMO_KUBECONFIG_BOREALIS"))
            else None,
        )

    @property
    def cluster(self) -> Cluster:
        """The simulated cluster's row."""
        return Cluster.objects.get(slug=company.CLUSTER_SLUG)

    @property
    def flavour(self) -> Flavour:
        """The one GPU class of the sample company."""
        return Flavour.objects.get(slug=company.FLAVOUR_SLUG)


def password() -> str:
    """Return the demo's password: derived from the installation's own key, so that no two demos share one."""
    mark = hmac.new(settings.SECRET_KEY.encode(), b"sample company", hashlib.sha256).hexdigest()
    return f"demo-{mark[:4]}-{mark[4:8]}-{mark[8:12]}"


def history_start(at: datetime) -> datetime:
    """Return the first moment of the sample company's books: whole billing months before the one under way."""
    month = billing.month_of(at)
    for _ in range(company.HISTORY_MONTHS):
        month = billing.previous(month)
    return billing.day_start(month)


def people(context: Context) -> str:
    """Make the accounts."""
    secret = password()
    for person in company.PEOPLE:
        user = User.objects.filter(email__iexact=person.email).first()
        if user is None:
            user, _ = accounts.create_user(person.email, person.display_name, actor=SEEDER, password=secret)
        context.users[person.key] = user
    return f"{len(company.PEOPLE)} people"


def organisation(context: Context) -> str:
    """Make units, teams, memberships and roles."""
    for slug, name, parent, cost_centre in company.UNITS:
        if not Unit.objects.filter(slug=slug).exists():
            above = Unit.objects.get(slug=parent) if parent else None
            teams.create_unit(name, slug, above.pk if above else None, cost_centre=cost_centre, actor=SEEDER)
    unit = Unit.objects.get(slug=company.TEAM_UNIT)
    for plan in company.TEAMS:
        if not Team.objects.filter(slug=plan.slug).exists():
            teams.create_team(plan.name, plan.slug, unit.pk, plan.cost_centre, actor=SEEDER)
    for person in company.PEOPLE:
        user = context.users[person.key]
        if person.member_of:
            team = Team.objects.get(slug=person.member_of)
            if not Membership.objects.current().filter(user=user, team=team).exists():
                teams.add_member(team.pk, user.pk, actor=SEEDER)
        for role, kind, slug in person.grants:
            unit_id = Unit.objects.get(slug=slug).pk if kind == "unit" else None
            team_id = Team.objects.get(slug=slug).pk if kind == "team" else None
            held = RoleGrant.objects.in_force().filter(user=user, role=role).values_list("unit_id", "team_id")
            if (unit_id, team_id) not in set(held):
                teams.grant_role(user.pk, role, unit_id=unit_id, team_id=team_id, reason="Sample company", actor=SEEDER)
    return f"{len(company.UNITS)} units, {len(company.TEAMS)} teams"


def _reached_by(found: Cluster, kubeconfig: str) -> bool:
    """Whether the stored address, CA and token are those of the kubeconfig: then a start changes and audits nothing."""
    access = kubeconfigs.read_kubeconfig(kubeconfig)
    stored = (found.api_url, found.ca_certificate, crypto.decrypt(found.credentials))
    return stored == (access.api_url, access.ca_certificate, access.token)


def cluster(context: Context) -> str:
    """Register the simulated cluster, its flavour and pool; follow it when its address has moved."""
    text = context.kubeconfig.read_text("utf-8")
    found = Cluster.objects.filter(slug=company.CLUSTER_SLUG).first()
    if found is None:
        found = clusters.register_cluster(
            "Atlas",
            slug=company.CLUSTER_SLUG,
            kubeconfig=text,
            region="on premises",
            identity_provider={"type": "tokens_file", "file": str(context.tokens_file)},
            simulated=True,
            actor=SEEDER,
        )
    elif not _reached_by(found, text):
        clusters.replace_credentials(found.pk, kubeconfig=text, actor=SEEDER)
    if not Flavour.objects.filter(slug=company.FLAVOUR_SLUG).exists():
        clusters.create_flavour(
            "A100 80 GB",
            slug=company.FLAVOUR_SLUG,
            gpu_model=company.GPU_MODEL,
            memory_mib=81_920,
            node_labels={"nvidia.com/gpu.product": company.GPU_MODEL},
            tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            actor=SEEDER,
        )
    from apps.demo import sharing

    said = sharing.atlas(context)
    pool = Pool.objects.filter(cluster=found, gpu_model=company.GPU_MODEL).first()
    if pool is None:
        # Without Kueue nothing takes a borrowed GPU back; there the sample company shares at best effort.
        found.refresh_from_db()
        pool = clusters.create_pool(
            found.pk,
            company.GPU_MODEL,
            flavour_ids=[context.flavour.pk],
            best_effort=found.kueue_mode == KueueMode.OFF,
            actor=SEEDER,
        )
    if not PoolCapacity.objects.filter(pool=pool).exists():
        clusters.set_committable(
            pool.pk,
            company.POOL_GPUS,
            history_start(clock.now()),
            imported=True,
            reason="As bought",
            actor=SEEDER,
        )
    return f"{company.POOL_GPUS} × {context.flavour}; {said}"


def prices(context: Context) -> str:
    """Publish the rate card."""
    if not RateCard.objects.filter(cluster=context.cluster).exists():
        rates.publish_card(
            "On-premises A100",
            context.cluster.pk,
            {context.flavour.pk: company.HOURLY_RATE},
            company.CURRENCY,
            history_start(clock.now()),
            imported=True,
            note="Purchase over four years, power and operations",
            actor=SEEDER,
        )
    return f"{company.HOURLY_RATE} {company.CURRENCY} per GPU-hour"


def budgets(context: Context) -> str:
    """Give each team its monthly amount."""
    first = billing.month_of(history_start(clock.now()))
    for plan in company.TEAMS:
        team = Team.objects.get(slug=plan.slug)
        if not Budget.objects.filter(team=team).exists():
            costs.set_budget(team.pk, plan.budget, first, actor=SEEDER)
    return "one amount a month per team"


def policy(context: Context) -> str:
    """Publish the quota policy, as the platform admin."""
    admin = Actor.of(context.users["admin"], Channel.COMMAND)
    for slug, name, subject, body in (
        ("quota", "Quota requests", "quotas.request", company.QUOTA_POLICY),
        ("change", "Changes of workspaces and clusters", "quotas.change", company.CHANGE_POLICY),
    ):
        if not Policy.objects.filter(slug=slug).exists():
            policies.publish_policy(slug, name, subject, body, actor=admin)
    return "small changes by policy, the rest by the unit owner"


def workspaces(context: Context) -> str:
    """Make a workspace per team, and write down what it held in the past."""
    at = clock.now()
    for plan in company.TEAMS:
        team = Team.objects.get(slug=plan.slug)
        workspace = Workspace.objects.filter(team=team, cluster=context.cluster).first()
        if workspace is None:
            workspace = quotas.create_workspace(
                team.pk, context.cluster.pk, plan.environment, plan.data_classes, actor=SEEDER
            )
        if not Quota.objects.filter(workspace=workspace).exists():
            import_quota(
                workspace.pk,
                context.flavour.pk,
                plan.guaranteed,
                BorrowMode.LIMITED if plan.borrow_limit else BorrowMode.NONE,
                plan.borrow_limit,
                history_start(at),
                clock.hour_floor(at),
                "What the team held before the portal",
                actor=SEEDER,
            )
    return f"{len(company.TEAMS)} workspaces"


def identities(context: Context) -> str:
    """Give each person a token of their own on the simulated cluster, as an identity provider would."""
    tokens = Tokens(context.tokens_file)
    prefix = context.cluster.group_prefix
    for person in company.PEOPLE:
        groups = []
        if person.member_of:
            groups.append(f"{prefix}{person.member_of}-members")
        if any(role == "team_lead" for role, _, _ in person.grants):
            groups.append(f"{prefix}{person.member_of}-leads")
        if groups:
            tokens.issue(person.email, groups)
    return "tokens on the simulated cluster"


def source(context: Context) -> str:
    """Register the allocation API as the source of record."""
    found = Source.objects.filter(cluster=context.cluster).first()
    if found is None:
        metering.register_source(
            context.cluster.pk,
            SourceKind.ALLOCATION,
            "Allocation API of the simulated cluster",
            context.allocation_url,
            history_start(clock.now()),
            # Its address answers Prometheus' questions about what serves, too.
            options={"prometheus": True},
            actor=SEEDER,
        )
    elif found.url != context.allocation_url:
        move_source(found.pk, context.allocation_url, actor=SEEDER)
    return "allocation API"


@dataclass(frozen=True)
class Step:
    """A step of seeding: what it is called while it runs, and what it does."""

    title: str
    run: Callable[[Context], str]


STEPS: tuple[Step, ...] = (
    Step("People", people),
    Step("Units, teams, roles", organisation),
    Step("Cluster, flavour, pool", cluster),
    Step("Rate card", prices),
    Step("Budgets", budgets),
    Step("Policy", policy),
    Step("Workspaces", workspaces),
    Step("Identities on the cluster", identities),
    Step("Source of usage", source),
)


def run(context: Context, steps: tuple[Step, ...] = STEPS) -> Iterator[tuple[Step, str]]:
    """Run the steps in order, yielding each with what it made."""
    for step in steps:
        yield step, step.run(context)


def hours_to_meter(at: datetime) -> tuple[datetime, datetime]:
    """Return the span of history to meter: from the beginning to the last hour that is over."""
    return history_start(at), clock.hour_floor(at) - timedelta(hours=1)
