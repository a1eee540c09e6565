"""An enterprise's year in the database, written by the database itself: 200 teams, 5 clusters, 13 months."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, models
from django.db.models.fields import NOT_PROVIDED

from apps.accounts.models import User
from apps.approvals import actions as approvals
from apps.approvals.models import ApprovalRequest, PolicyVersion, Stage
from apps.clusters.models import Cluster, Flavour, Pool, PoolCapacity
from apps.core import clock
from apps.core.actor import Actor
from apps.core.bootstrap import OWNER_ROLE
from apps.core.partitions import ensure_month, months_between
from apps.costs import rollups
from apps.costs.models import Budget, Charge, DayCharge, PricedHour
from apps.demo.company import QUOTA_POLICY
from apps.metering import billing
from apps.metering.models import DayUsage, HourFact, HourStatus, IngestRun, Source
from apps.notifications.models import Notification
from apps.quotas.models import Quota, QuotaRequest, Workspace
from apps.rates.models import Rate, RateCard
from apps.teams.models import Membership, RoleGrant, Team
from tests.factories import grant, make_member, make_unit, make_user

TEAMS, CLUSTERS, MONTHS = 200, 5, 13
MODEL = "NVIDIA-H100-SXM5-80GB"


@dataclass
class Enterprise:
    """Who looks, and how much there is to look at."""

    admin: User
    owner: User
    lead: User
    rows: dict[str, int] = field(default_factory=dict)


def fill(model: type[models.Model], source: str, /, **columns: str) -> int:
    """INSERT … SELECT: each column a SQL expression over `source`; the others take their field's default."""
    names, values, parameters = [], [], []
    for one in model._meta.concrete_fields:
        given = columns.pop(one.column, None)
        if given is not None:
            value = given
        elif one.column == "uid":
            value = "gen_random_uuid()"
        elif one.primary_key or one.db_default is not NOT_PROVIDED or isinstance(one, models.CompositePrimaryKey):
            continue
        elif getattr(one, "auto_now", False):
            value = "now()"
        else:
            default = one.get_default()
            value = "%s"
            if isinstance(one, models.JSONField):
                value, default = "%s::jsonb", json.dumps(default)
            elif isinstance(default, list):
                value = f"%s::{one.db_type(connection)}"
            parameters.append(default)
        names.append(f'"{one.column}"')
        values.append(value)
    assert not columns, f"{model.__name__} has no {sorted(columns)}"
    with connection.cursor() as cursor:
        cursor.execute(
            f'INSERT INTO "{model._meta.db_table}" ({", ".join(names)}) SELECT {", ".join(values)} FROM {source}',  # noqa: S608 (names from the models, expressions from this file)
            parameters,
        )
        return int(cursor.rowcount)


@contextmanager
def unchecked() -> Iterator[None]:
    """Write without a look-up per foreign key and row, as the server's superuser may: sources hold what they name."""
    _triggers("replica")
    try:
        yield
    finally:
        _triggers("origin")


def _triggers(role: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET ROLE NONE")
        cursor.execute(f"SET session_replication_role = {role}")
        cursor.execute(f"SET ROLE {connection.settings_dict['OPTIONS'].get('assume_role') or 'NONE'}")


def analyze() -> None:
    """Tell the planner, as the owner: autovacuum would have, long ago."""
    with connection.cursor() as cursor:
        cursor.execute(f"SET ROLE {OWNER_ROLE}")
        cursor.execute("ANALYZE")
        cursor.execute(f"SET ROLE {connection.settings_dict['OPTIONS'].get('assume_role') or 'NONE'}")


def build(now: datetime) -> Enterprise:
    """Write the year up to `now`; every team runs on two clusters and holds quota there."""
    start = billing.day_start(_months_before(billing.month_of(now), MONTHS - 1))
    made = Enterprise(
        make_user("platform-admin@example.com"), make_user("group-owner@example.com"), make_user("lead@example.com")
    )
    _people(made)
    _supply(made, start)
    _workspaces(made, start)
    _usage(made, start, now)
    _requests(made, now)
    analyze()
    return made


def _months_before(month: Any, count: int) -> Any:
    for _ in range(count):
        month = billing.previous(month)
    return month


def _people(made: Enterprise) -> None:
    """Ten units under one root, twenty teams each, with a lead and five members."""
    root = make_unit("Enterprise")
    units = [make_unit(f"Division {number}", root) for number in range(10)]
    Team.objects.bulk_create(
        Team(
            name=f"Team {number:03}", slug=f"team-{number:03}", unit=units[number % 10], colour=number % 12,
            cost_centre=f"CC-{number:04}",
        )
        for number in range(TEAMS)
    )  # fmt: skip
    grant(made.admin, "platform_admin")
    grant(made.owner, "unit_owner", unit=root)
    first = Team.objects.get(slug="team-000")
    grant(made.lead, "team_lead", team=first)
    make_member(made.lead, first)
    people = "generate_series(1, 1000) i"
    made.rows["people"] = fill(
        User, people, email="'person-' || i || '@example.com'", display_name="'Person ' || i", password="''"
    )
    team = "(SELECT id, row_number() OVER (ORDER BY id) AS n FROM teams_team) t"
    who = (
        "JOIN (SELECT id, row_number() OVER (ORDER BY id) AS n FROM accounts_user"
        " WHERE display_name LIKE 'Person %%') u"
    )
    fill(
        Membership, f"{team} {who} ON u.n %% {TEAMS} = t.n %% {TEAMS}", team_id="t.id", user_id="u.id",
        valid="tstzrange(now() - interval '400 days', NULL)",
    )  # fmt: skip
    fill(RoleGrant, f"{team} {who} ON u.n = t.n", role="'team_lead'", user_id="u.id", team_id="t.id")


def _supply(made: Enterprise, start: datetime) -> None:
    valid = (start, None)
    flavour = Flavour.objects.create(name="H100 80 GB", slug="h100", gpu_model=MODEL)
    for number in range(CLUSTERS):
        cluster = Cluster.objects.create(
            name=f"Cluster {number}", slug=f"cluster-{number}", api_url=f"https://cluster-{number}.example.com",
            health="healthy", last_seen_at=clock.now(),
        )  # fmt: skip
        pool = Pool.objects.create(cluster=cluster, gpu_model=MODEL, observed_gpus=2000, observed_at=clock.now())
        pool.flavours.add(flavour)
        PoolCapacity.objects.create(pool=pool, committable_gpus=2000, valid=valid)
        card = RateCard.objects.create(name="Standard", cluster=cluster)
        Rate.objects.create(card=card, cluster=cluster, flavour=flavour, amount="3.85", currency="USD", valid=valid)
        Source.objects.create(cluster=cluster, kind="allocation", name="Source", url="https://x.example", valid=valid)


def _workspaces(made: Enterprise, start: datetime) -> None:
    place = (
        "(SELECT t.id AS team, t.n, c.id AS cluster, s FROM (SELECT id, row_number() OVER (ORDER BY id) AS n"  # noqa: S608 (constants of this file)
        f" FROM teams_team) t CROSS JOIN generate_series(0, 1) s JOIN (SELECT id, row_number() OVER (ORDER BY id) AS n"
        f" FROM clusters_cluster) c ON c.n = 1 + (t.n + s * 2) %% {CLUSTERS}) p"
    )
    made.rows["workspaces"] = fill(
        Workspace, place, team_id="team", cluster_id="cluster", environment="'production'",
        namespace="'team-' || n || '-production'",
    )  # fmt: skip
    fill(
        Quota, "quotas_workspace w, clusters_flavour f", workspace_id="w.id", flavour_id="f.id",
        guaranteed="4 + w.id %% 8", valid=f"tstzrange('{start.isoformat()}', NULL)",
    )  # fmt: skip
    fill(
        Budget, "teams_team t", team_id="t.id", month_from=f"DATE '{start.date()}'", amount="20000 + t.id * 10",
        currency="'USD'",
    )  # fmt: skip


#: Workspace with all that facts copy of it.
_OWNER = (
    "(SELECT w.id AS workspace_id, w.cluster_id, w.namespace, t.id AS team_id, t.name AS team_name, t.cost_centre,"
    " u.id AS unit_id, u.name AS unit_name, u.path, f.id AS flavour_id, f.name AS flavour, r.id AS rate_id"
    " FROM quotas_workspace w JOIN teams_team t ON t.id = w.team_id JOIN teams_unit u ON u.id = t.unit_id"
    " CROSS JOIN clusters_flavour f JOIN rates_rate r ON r.cluster_id = w.cluster_id) o"
)


def _usage(made: Enterprise, start: datetime, now: datetime) -> None:
    end = clock.hour_floor(now) - timedelta(hours=1)
    for month in months_between(start, now):
        ensure_month("metering_hourfact", month)
        ensure_month("costs_charge", month)
    hours = f"generate_series('{start.isoformat()}'::timestamptz, '{end.isoformat()}', interval '1 hour') h"
    days = f"generate_series(DATE '{start.date()}', DATE '{end.date()}', interval '1 day') d"
    owner = {
        "team_id": "o.team_id", "unit_id": "o.unit_id", "workspace_id": "o.workspace_id", "team_name": "o.team_name",
        "unit_name": "o.unit_name", "cost_centre": "o.cost_centre", "cluster_id": "o.cluster_id",
        "flavour_id": "o.flavour_id", "gpu_model": f"'{MODEL}'",
    }  # fmt: skip
    gpus = "(1 + o.workspace_id %% 6)"
    # Each team's workspaces take turns: one workload a team and hour.
    turn = "WHERE (o.workspace_id + extract(hour FROM h)::int) %% 2 = 0"
    made.rows["facts"] = fill(
        HourFact, f"{_OWNER} CROSS JOIN {hours} {turn}", **owner, hour="h", unit_path="o.path",
        environment="'production'", namespace="o.namespace", workload_key="'pod-' || o.workspace_id",
        workload_name="'training'", workload_kind="'Job'", flavour_name="o.flavour",
        spans=f"ARRAY[0, 3600000, {gpus}::int]", allocated_unit_ms=f"{gpus} * 3600000",
        allocated_gpu_ms=f"{gpus} * 3600000", used_gpu_ms=f"{gpus} * 2000000", used_source="'engine_active'",
        coverage_permille="1000", source_id="o.cluster_id",
    )  # fmt: skip
    made.rows["charges"] = fill(
        Charge,
        "(SELECT f.*, r.id AS rate_id FROM metering_hourfact f JOIN rates_rate r ON r.cluster_id = f.cluster_id) o",
        **owner, hour="o.hour", uid="o.uid", kind="'allocated'", unit_path="o.unit_path", rate_id="o.rate_id",
        quantity_ms="o.allocated_unit_ms", gpu_ms="o.allocated_gpu_ms", fact_uid="o.uid",
    )  # fmt: skip
    share = f"{gpus} * 43200000"
    made.rows["day usage"] = fill(
        DayUsage, f"{_OWNER} CROSS JOIN {days}", **owner, day="d", allocated_gpu_ms=share,
        used_gpu_ms=f"{gpus} * 24000000", measured_gpu_ms=share, idle_gpu_ms=f"{gpus} * 1000000", workloads="1",
    )  # fmt: skip
    for kind in ("allocated", "reserved_unused"):
        made.rows["day charges"] = made.rows.get("day charges", 0) + fill(
            DayCharge, f"{_OWNER} CROSS JOIN {days}",
            **{name: sql for name, sql in owner.items() if name != "workspace_id"},
            day="d", kind=f"'{kind}'", rate_id="o.rate_id", quantity_ms=share, gpu_ms=share,
        )  # fmt: skip
    cluster = "rates_rate r CROSS JOIN "
    made.rows["day charges"] += fill(
        DayCharge, cluster + days, day="d", cluster_id="r.cluster_id", kind="'unsold'", rate_id="r.id",
        gpu_model=f"'{MODEL}'", flavour_id="r.flavour_id", quantity_ms="172800000000", gpu_ms="172800000000",
    )  # fmt: skip
    made.rows["cluster-hours"] = fill(
        HourStatus, cluster + hours, cluster_id="r.cluster_id", hour="h", state="'final'", coverage_permille="1000",
        revision="1", facts="40",
    )  # fmt: skip
    fill(PricedHour, cluster + hours, cluster_id="r.cluster_id", hour="h", revision="1", priced_at="h")
    made.rows["ingest runs"] = fill(
        IngestRun, f"metering_source s CROSS JOIN {hours}", source_id="s.id", window_start="h",
        window_end="h + interval '1 hour'", status="'succeeded'", finished_at="h + interval '62 minutes'",
        hours_written="1", facts="40", requests="7", created_at="h + interval '61 minutes'",
    )  # fmt: skip
    every = [start.date() + timedelta(days=number) for number in range((end - start).days + 1)]
    for pk in Cluster.objects.values_list("pk", flat=True):
        rollups.roll_up(pk, every)


def _requests(made: Enterprise, now: datetime) -> None:
    """Ten closed requests a workspace and an open one in every fourth; each with its approval; news for everybody."""
    approvals.publish_policy("quota", "Quota requests", "quotas.request", QUOTA_POLICY, actor=Actor.of(made.admin))
    version = PolicyVersion.objects.get().pk
    digest = "repeat('0', 64)"
    estimate = '\'{"amount": "11242.00", "currency": "USD", "delta_units": 4}\'::jsonb'
    change = '\'{"before": {"guaranteed": 4, "borrow_mode": "none", "borrow_limit": 0}, "at_end": null, "leaves": []}\''
    lead = "(SELECT min(g.user_id) FROM teams_rolegrant g WHERE g.team_id = w.team_id AND g.role = 'team_lead')"
    facts = '\'{"request.monthly_cost": {"decimal": "11242.00"}, "delta_gpus": 4}\'::jsonb'
    many = "(SELECT w.*, k, k > 10 AS open FROM quotas_workspace w CROSS JOIN generate_series(1, 11) k"
    many += " WHERE k <= 10 OR w.id %% 4 = 0) w JOIN teams_team t ON t.id = w.team_id CROSS JOIN clusters_flavour f"
    at = f"('{now.isoformat()}'::timestamptz - w.k * interval '20 days' - w.id * interval '1 minute')"
    at = f"CASE WHEN w.open THEN '{now.isoformat()}'::timestamptz - w.id * interval '1 minute' ELSE {at} END"
    made.rows["requests"] = fill(
        QuotaRequest, many, workspace_id="w.id", flavour_id="f.id", guaranteed="8", valid_from=at,
        reason="'More training runs for the quarter.'", requester_id=lead, estimate=estimate,
        change=f"{change}::jsonb", digest=digest, created_at=at,
        status="CASE WHEN w.open THEN 'in_review' ELSE 'ended' END",
    )  # fmt: skip
    fill(
        ApprovalRequest,
        "quotas_quotarequest q JOIN quotas_workspace w ON w.id = q.workspace_id JOIN teams_team t ON t.id = w.team_id",
        subject_type="'quotas.request'", subject_uid="q.uid", subject_digest=digest,
        title="'8 × H100 for ' || w.namespace", policy_version_id=str(version), requester_id="q.requester_id",
        team_id="t.id", unit_id="t.unit_id", facts=facts,
        requester_side="jsonb_build_array(q.requester_id)", submitted_at="q.created_at",
        due_at="q.created_at + interval '30 days'", created_at="q.created_at",
        status="CASE WHEN q.status = 'in_review' THEN 'in_review' ELSE 'approved' END",
    )  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE quotas_quotarequest q SET approval_id = a.id FROM approvals_approvalrequest a"
            " WHERE a.subject_uid = q.uid"
        )
    fill(
        Stage, "approvals_approvalrequest a", request_id="a.id", ordinal="0", name="'Unit owner'",
        role="'unit_owner'", unit_id="a.unit_id", rule="'always'", opened_at="a.submitted_at",
    )  # fmt: skip
    made.rows["notifications"] = fill(
        Notification, "accounts_user u CROSS JOIN generate_series(1, 100) k", user_id="u.id",
        message_uid="gen_random_uuid()", event="'quotas.request.submitted'", title="'A request'", body="'It waits.'",
        path="'/'", happened_at=f"'{now.isoformat()}'::timestamptz - k * interval '1 day'",
        read_at="CASE WHEN k > 5 THEN now() END",
    )  # fmt: skip
