"""Routes of the insights room: a finding and an idle workload of Finance, and of a foreign tenant whom nobody sees."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps.core import clock
from apps.insights.choices import FindingKind
from apps.insights.models import Finding, IdleCase
from apps.quotas.models import Workspace
from tests.sweep.types import EVERYBODY, Route

_SEE = {"member_finance", "lead_finance", "vp", "compliance", "finance", "admin", "auditor"}
_DECIDE = {"lead_finance", "vp", "admin"}
_ASK = {"lead_finance", "vp"}


def _finding(world: SimpleNamespace, team: Any, namespace: str, gpus: int) -> Finding:
    at = clock.now()
    place = Workspace.objects.get(namespace=namespace)
    return Finding.objects.create(
        kind=FindingKind.HOARDED_QUOTA,
        key=f"{place.uid}:sweep",
        team=team,
        workspace=place,
        cluster=place.cluster,
        flavour=world.rates_flavour,
        title=f"{namespace}: {gpus} never used",
        window=DateTimeTZRange(at - timedelta(days=14), at, "[)"),
        gpu_ms=gpus * 3_600_000,
        amount=Decimal(gpus),
        currency="USD",
        found_at=at,
        evidence={
            "guaranteed": 8, "peak": 1, "p95": 1, "days_used": 1, "unused_gpu_ms": 1, "held_gpu_ms": 2,
            "free_gpu_ms": 1, "unpriced_gpu_ms": 0, "hours_metered": 336, "hours_expected": 336,
            "waiting_requests": 0, "waiting_teams": 0, "days": [],
        },
        proposal={"guaranteed": 2, "give_back": 6, "give_back_gpus": "6", "monthly": None, "currency": "", "basis": ""},
    )  # fmt: skip


def _case(team: Any, namespace: str, name: str) -> IdleCase:
    at = clock.now()
    return IdleCase.objects.create(
        workspace=Workspace.objects.get(namespace=namespace), team=team, workload_kind="Job", workload_name=name,
        gpus=2, idle_since=at - timedelta(hours=5), noticed_at=at, stop_at=at + timedelta(hours=1),
    )  # fmt: skip


def build(world: SimpleNamespace) -> None:
    """One of each for Finance, and for the foreign tenant under a name that must not leak."""
    own = Workspace.objects.filter(team=world.company.finance_team).order_by("pk").first()
    foreign = Workspace.objects.filter(team=world.foreign_team).order_by("pk").first()
    assert own is not None
    assert foreign is not None
    world.finding = _finding(world, world.company.finance_team, own.namespace, 6)
    world.idle_case = _case(world.company.finance_team, own.namespace, "sleepy-notebook")
    secret = _finding(world, world.foreign_team, foreign.namespace, 7)
    case = _case(world.foreign_team, foreign.namespace, "quagga-sleeper")
    world.keep_secret(secret.uid, case.uid, "quagga-sleeper", sees={"vp_other"})
    world.keep_secret(world.finding.uid, world.idle_case.uid, "sleepy-notebook", sees=_SEE)


def _f(world: Any) -> Mapping[str, Any]:
    return {"finding_uid": world.finding.uid}


def _c(world: Any) -> Mapping[str, Any]:
    return {"case_uid": world.idle_case.uid}


def _fu(world: Any) -> Mapping[str, Any]:
    return {"uid": world.finding.uid}


def _cu(world: Any) -> Mapping[str, Any]:
    return {"uid": world.idle_case.uid}


_API = frozenset({200, 400, 409, 428})
ROUTES: dict[str, Route] = {
    "insights:finding-list": Route(allowed=EVERYBODY - {"expired"}),
    "insights:look": Route(allowed={"admin"}),
    "insights:look#POST": Route(allowed={"admin"}, method="POST"),
    "insights:finding-detail": Route(allowed=_SEE, kwargs=_f),
    "insights:finding-give-back": Route(allowed=_ASK, kwargs=_f),
    "insights:finding-give-back#POST": Route(allowed=_ASK, kwargs=_f, method="POST"),
    "insights:finding-snooze": Route(allowed=_DECIDE, kwargs=_f),
    "insights:finding-snooze#POST": Route(allowed=_DECIDE, kwargs=_f, method="POST"),
    "insights:finding-dismiss": Route(allowed=_DECIDE, kwargs=_f),
    "insights:finding-dismiss#POST": Route(allowed=_DECIDE, kwargs=_f, method="POST"),
    "insights:workload-list": Route(allowed=EVERYBODY - {"expired"}),
    "insights:idle-list": Route(allowed=EVERYBODY - {"expired"}),
    "insights:idle-detail": Route(allowed=_SEE, kwargs=_c),
    "insights:idle-keep": Route(allowed=_DECIDE, kwargs=_c),
    "insights:idle-keep#POST": Route(allowed=_DECIDE, kwargs=_c, method="POST"),
    "insights:idle-stop": Route(allowed=_DECIDE, kwargs=_c),
    "insights:idle-stop#POST": Route(allowed=_DECIDE, kwargs=_c, method="POST"),
    "insights:idle-start": Route(allowed=_DECIDE, kwargs=_c),
    "insights:idle-start#POST": Route(allowed=_DECIDE, kwargs=_c, method="POST"),
    "api:finding-list": Route(allowed=EVERYBODY - {"expired"}),
    "api:finding-detail": Route(allowed=_SEE, kwargs=_fu),
    "api:finding-snooze": Route(allowed=_DECIDE, kwargs=_fu, method="POST", ok=_API),
    "api:finding-dismiss": Route(allowed=_DECIDE, kwargs=_fu, method="POST", ok=_API),
    "api:finding-give-back": Route(allowed=_DECIDE, kwargs=_fu, method="POST", ok=_API),
    "api:idle-workload-list": Route(allowed=EVERYBODY - {"expired"}),
    "api:idle-workload-detail": Route(allowed=_SEE, kwargs=_cu),
    "api:idle-workload-keep": Route(allowed=_DECIDE, kwargs=_cu, method="POST", ok=_API),
    "api:idle-workload-stop": Route(allowed=_DECIDE, kwargs=_cu, method="POST", ok=_API),
    "api:idle-workload-start": Route(allowed=_DECIDE, kwargs=_cu, method="POST", ok=_API),
}
