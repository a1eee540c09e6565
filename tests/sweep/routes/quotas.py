"""Routes of the quotas room. Finance has quota and an open request; so does a foreign tenant, whom nobody sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps.approvals.models import ApprovalRequest, Policy, PolicyVersion, Stage
from apps.core import clock
from apps.core.canonical import digest_of
from apps.quotas.choices import ChangeKind
from apps.quotas.models import ChangeRequest, NamespaceReading, Quota, QuotaRequest, Workspace
from tests.sweep.types import EVERYBODY, Route

_SEE = {"member_finance", "lead_finance", "vp", "compliance", "finance", "admin", "auditor"}
#: May ask somewhere: the form itself is open to whoever may ask for any team.
_ASK = {"lead_finance", "lead_marketing", "vp", "vp_other"}
_CHANGE = {"lead_finance", "vp"}
#: May ask for changes of finance's workspaces.
_CHANGES = {"lead_finance", "vp", "admin"}
_USE = {"member_finance", "lead_finance"}
_BEFORE = {
    "before": {"guaranteed": 8, "borrow_mode": "none", "borrow_limit": 0},
    "at_end": None,
    "leaves": [],
    "creates_workspace": False,
}
_PRESENT = {"estimate": {"amount": "3.85", "currency": "USD", "delta_units": 1}, "change": _BEFORE}


def _holds(world: SimpleNamespace, team: Any, requester: Any, namespace: str) -> tuple[Workspace, QuotaRequest]:
    workspace = Workspace.objects.create(
        team=team, cluster=world.rates_cluster, environment="development", namespace=namespace
    )
    Quota.objects.create(
        workspace=workspace,
        flavour=world.rates_flavour,
        guaranteed=8,
        valid=DateTimeTZRange(clock.now(), None, "[)"),
    )
    request = QuotaRequest.objects.create(
        workspace=workspace,
        flavour=world.rates_flavour,
        guaranteed=9,
        valid_from=clock.now(),
        reason=f"For {namespace}, this month.",
        requester=requester,
        **_PRESENT,
    )
    return workspace, request


def _asks_for_change(workspace: Workspace, requester: Any) -> ChangeRequest:
    """A change of the workspace's limits in review, with an approval of its own: rows only."""
    change = ChangeRequest.objects.create(
        cluster=workspace.cluster,
        workspace=workspace,
        kind=ChangeKind.LIMITS,
        title=f"More pods in {workspace.namespace}",
        reason=f"Sweeps of parameters in {workspace.namespace}.",
        requester=requester,
        change={"settings": [], "objects": [], "leaves": [], "removes": [], "declarations": []},
    )
    body = {"stages": [{"name": "Unit owner", "role": "unit_owner", "scope": "unit", "quorum": 1}]}
    at = clock.now()
    policy, _ = Policy.objects.get_or_create(
        slug="change", defaults={"name": "Changes", "subject_type": "quotas.change"}
    )
    version, _ = PolicyVersion.objects.get_or_create(
        policy=policy, number=1, defaults={"body": body, "digest": digest_of(body), "published_at": at}
    )
    change.approval = ApprovalRequest.objects.create(
        subject_type="quotas.change",
        subject_uid=change.uid,
        subject_digest="0" * 64,
        title=f"Change: {change.title}",
        policy_version=version,
        requester=requester,
        team=workspace.team,
        unit=workspace.team.unit,
        submitted_at=at,
    )
    change.save(update_fields=["approval"])
    return change


def _in_review(request: QuotaRequest, unit: Any) -> ApprovalRequest:
    """The request's approval: in review, the unit owner's stage open."""
    body = {
        "stages": [{"name": "Unit owner", "role": "unit_owner", "scope": "unit", "quorum": 1}],
        "validity_days": 365,
    }
    at = clock.now()
    policy, _ = Policy.objects.get_or_create(slug="quota", defaults={"name": "Quota", "subject_type": "quotas.request"})
    version, _ = PolicyVersion.objects.get_or_create(
        policy=policy, number=1, defaults={"body": body, "digest": digest_of(body), "published_at": at}
    )
    approval = ApprovalRequest.objects.create(
        subject_type="quotas.request",
        subject_uid=request.uid,
        subject_digest="0" * 64,
        title=f"Quota in {request.workspace.namespace}",
        policy_version=version,
        requester=request.requester,
        team=request.workspace.team,
        unit=unit,
        submitted_at=at,
        due_at=at + timedelta(hours=72),
    )
    Stage.objects.create(request=approval, ordinal=0, name="Unit owner", role="unit_owner", unit=unit, opened_at=at)
    request.approval = approval
    request.save(update_fields=["approval"])
    return approval


def build(world: SimpleNamespace) -> None:
    """Finance and a foreign team with quota and an open request each (rows only; actions have tests of their own)."""
    company = world.company
    # What becomes of a request is the actions' business: here the rows are enough to be seen, or not.
    world.workspace, world.quota_request = _holds(world, company.finance_team, company.lead_finance, "sweep-finance")
    world.approval_request = _in_review(world.quota_request, company.finance_team.unit)
    foreign, request = _holds(world, world.foreign_team, world.foreign_lead, "sweep-quagga-development")
    hidden = _in_review(request, world.foreign_team.unit)
    world.change_request = _asks_for_change(world.workspace, company.lead_finance)
    secret = _asks_for_change(foreign, world.foreign_lead)
    world.namespace_reading = NamespaceReading.objects.create(
        cluster=world.rates_cluster,
        namespace="sweep-adopted",
        team=company.finance_team,
        environment="staging",
        requested_by=company.admin,
        asked_at=clock.now(),
    )
    world.keep_secret(world.namespace_reading.uid, world.namespace_reading.namespace, sees=set())
    world.keep_secret(secret.uid, secret.title, secret.reason, sees={"vp_other"})
    world.keep_secret(hidden.uid, hidden.title, sees={"vp_other"})
    world.keep_secret(
        world.approval_request.uid, world.approval_request.title, sees={"member_finance", "lead_finance", "vp"}
    )
    world.keep_secret(foreign.uid, foreign.namespace, request.uid, request.reason, sees={"vp_other"})
    world.keep_secret(
        world.workspace.uid,
        world.workspace.namespace,
        world.quota_request.uid,
        world.quota_request.reason,
        sees={"member_finance", "lead_finance", "vp"},
    )


def _workspace(world: Any) -> Mapping[str, Any]:
    return {"workspace_uid": world.workspace.uid}


def _use(**more: str) -> Callable[[Any], Mapping[str, Any]]:
    return lambda world: {**_workspace(world), "flavour_slug": world.rates_flavour.slug, **more}


def _request(world: Any) -> Mapping[str, Any]:
    return {"request_uid": world.quota_request.uid}


def _change(world: Any) -> Mapping[str, Any]:
    return {"change_uid": world.change_request.uid}


def _reading(world: Any) -> Mapping[str, Any]:
    return {"reading_uid": world.namespace_reading.uid}


def _uid(world: Any) -> Mapping[str, Any]:
    return {"uid": world.quota_request.uid}


def _terms(world: Any) -> Mapping[str, Any]:
    return {
        "workspace": world.workspace.pk,
        "flavour": world.rates_flavour.pk,
        "guaranteed": 10,
        "borrow_mode": "none",
        "reason": "A sentence that says what it is for.",
    }


def _body(world: Any) -> Mapping[str, Any]:
    return {**_terms(world), "workspace": world.workspace.uid, "flavour": world.rates_flavour.slug}


def _any_drift(world: Any) -> Mapping[str, Any]:
    from apps.provisioning.models import Drift

    return {"drift_uid": Drift.objects.get(declaration=world.declaration).uid}


ROUTES: dict[str, Route] = {
    "quotas:workspace-list": Route(allowed=EVERYBODY),
    "quotas:workspace-create": Route(allowed={"admin"}),
    "quotas:workspace-create#POST": Route(allowed={"admin"}, method="POST"),
    "quotas:workspace-detail": Route(allowed=_SEE, kwargs=_workspace),
    "quotas:workspace-live": Route(allowed=_SEE, kwargs=_workspace),
    "quotas:team-live": Route(allowed=_SEE, kwargs=lambda world: {"team_slug": world.workspace.team.slug}),
    "quotas:request-live": Route(allowed=_SEE, kwargs=_request),
    "quotas:workspace-pending": Route(
        allowed=_SEE, kwargs=_workspace, method="POST", note="the cluster does not answer: 200, and says so"
    ),
    "quotas:workspace-idle-policy": Route(allowed=_CHANGE | {"admin"}, kwargs=_workspace),
    "quotas:workspace-idle-policy#POST": Route(allowed=_CHANGE | {"admin"}, kwargs=_workspace, method="POST"),
    "quotas:workspace-expiry-policy": Route(allowed=_CHANGES, kwargs=_workspace),
    "quotas:workspace-expiry-policy#POST": Route(allowed=_CHANGES, kwargs=_workspace, method="POST"),
    "quotas:workspace-archive": Route(allowed=_CHANGES, kwargs=_workspace),
    "quotas:workspace-archive#POST": Route(allowed=_CHANGES, kwargs=_workspace, method="POST"),
    "quotas:workspace-restore": Route(allowed=_CHANGES, kwargs=_workspace, note="it is not archived: 409"),
    "quotas:workspace-restore#POST": Route(allowed=_CHANGES, kwargs=_workspace, method="POST"),
    "quotas:workspace-drain": Route(allowed=_CHANGES, kwargs=_workspace, note="nothing is too much there: 409"),
    "quotas:workspace-drain#POST": Route(allowed=_CHANGES, kwargs=_workspace, method="POST"),
    "quotas:workspace-limits": Route(allowed=_CHANGES, kwargs=_workspace),
    "quotas:workspace-limits#POST": Route(allowed=_CHANGES, kwargs=_workspace, method="POST"),
    "quotas:use": Route(allowed=_USE, kwargs=_use()),
    "quotas:use-kubeconfig": Route(allowed=_USE, kwargs=_use()),
    "quotas:use-manifest": Route(allowed=_USE, kwargs=_use(shape="job")),
    "quotas:use-check": Route(allowed=_USE, kwargs=_use(shape="job"), method="POST"),
    "quotas:request-list": Route(allowed=EVERYBODY),
    "quotas:request-create": Route(allowed=_ASK),
    "quotas:request-create#POST": Route(allowed=_ASK, method="POST", data=_terms),
    "quotas:request-estimate": Route(allowed=_ASK, method="POST", data=_terms),
    "quotas:request-detail": Route(allowed=_SEE, kwargs=_request),
    "quotas:request-withdraw": Route(allowed=_CHANGE, kwargs=_request),
    "quotas:request-withdraw#POST": Route(allowed=_CHANGE, kwargs=_request, method="POST"),
    "quotas:request-correct": Route(allowed=_CHANGE, kwargs=_request),
    "quotas:request-correct#POST": Route(allowed=_CHANGE, kwargs=_request, method="POST"),
    "quotas:request-correct-estimate": Route(allowed=_CHANGE, kwargs=_request, method="POST", data=_terms),
    "quotas:baseline": Route(allowed={"admin"}, kwargs=lambda world: {"cluster_uid": world.rates_cluster.uid}),
    "quotas:baseline#POST": Route(
        allowed={"admin"}, kwargs=lambda world: {"cluster_uid": world.rates_cluster.uid}, method="POST"
    ),
    "quotas:cluster-guard": Route(allowed={"admin"}, kwargs=lambda world: {"cluster_uid": world.rates_cluster.uid}),
    "quotas:cluster-guard#POST": Route(
        allowed={"admin"}, kwargs=lambda world: {"cluster_uid": world.rates_cluster.uid}, method="POST"
    ),
    "quotas:adopt-namespace": Route(allowed={"admin"}, kwargs=lambda world: {"cluster_uid": world.rates_cluster.uid}),
    "quotas:adopt-namespace#POST": Route(
        allowed={"admin"}, kwargs=lambda world: {"cluster_uid": world.rates_cluster.uid}, method="POST"
    ),
    "quotas:adoption": Route(allowed={"admin"}, kwargs=_reading),
    "quotas:adoption-request": Route(allowed={"admin"}, kwargs=_reading, note="it is not read yet: 409"),
    "quotas:adoption-request#POST": Route(allowed={"admin"}, kwargs=_reading, method="POST"),
    "quotas:adoption-again": Route(allowed={"admin"}, kwargs=_reading, note="it is being read: 409"),
    "quotas:adoption-again#POST": Route(allowed={"admin"}, kwargs=_reading, method="POST"),
    "quotas:adopt-drift": Route(allowed={"admin"}, kwargs=_any_drift),
    "quotas:change-list": Route(allowed=EVERYBODY),
    "quotas:change-detail": Route(allowed=_SEE, kwargs=_change),
    "quotas:change-withdraw": Route(allowed=_CHANGE | {"admin"}, kwargs=_change),
    "quotas:change-withdraw#POST": Route(allowed=_CHANGE | {"admin"}, kwargs=_change, method="POST"),
    "quotas:pool-list": Route(allowed=EVERYBODY),
    "quotas:pool-detail": Route(
        allowed=_SEE | {"vp_other"},
        kwargs=lambda world: {"pool_uid": world.rates_pool.uid},
        note="the foreign unit has quota there, too: aggregates only",
    ),
    "api:workspace-list": Route(allowed=EVERYBODY - {"expired"}),
    "api:workspace-kubeconfig": Route(allowed=_USE, kwargs=lambda world: {"uid": world.workspace.uid}),
    "api:workspace-detail": Route(allowed=_SEE, kwargs=lambda world: {"uid": world.workspace.uid}),
    "api:quota-list": Route(allowed=EVERYBODY - {"expired"}),
    "api:quota-detail": Route(
        allowed=_SEE, kwargs=lambda world: {"uid": Quota.objects.get(workspace=world.workspace).uid}
    ),
    "api:quota-request-list": Route(allowed=EVERYBODY - {"expired"}),
    "api:quota-request-list#POST": Route(allowed=_CHANGE, method="POST", data=_body),
    "api:quota-request-feasibility": Route(allowed=_CHANGE, method="POST", data=_body),
    "api:quota-request-detail": Route(allowed=_SEE, kwargs=_uid),
    "api:quota-request-withdraw": Route(
        allowed=_CHANGE, kwargs=_uid, method="POST", ok=frozenset({428}), note="nothing without If-Match"
    ),
    "api:change-request-list": Route(allowed=EVERYBODY - {"expired"}),
    "api:change-request-detail": Route(allowed=_SEE, kwargs=lambda world: {"uid": world.change_request.uid}),
    "api:change-request-withdraw": Route(
        allowed=_CHANGE | {"admin"}, kwargs=lambda world: {"uid": world.change_request.uid}, method="POST"
    ),
    "api:quota-request-correct": Route(
        allowed=_CHANGE, kwargs=_uid, method="POST", data=_body, ok=frozenset({428}), note="nothing without If-Match"
    ),
}
