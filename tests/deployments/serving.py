"""An endpoint with releases as direct rows: what watching starts from, without approvals or a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from apps.catalogue.models import Model, ModelVersion
from apps.clusters.choices import Health
from apps.clusters.models import Cluster, Flavour
from apps.core import clock
from apps.deployments.choices import CanaryMode, LoadState, ReleaseStatus
from apps.deployments.models import Endpoint, Release, ServingSample
from apps.deployments.spec import Guard, Spec
from apps.provisioning.ordering import Key
from apps.quotas.models import Workspace
from tests.factories import Company
from tests.rates.factories import make_cluster, make_flavour

NAMESPACE = "finance-production"


@dataclass
class Serving:
    """Fraud scoring in Finance's production: release 1 serves, release 2 is its canary."""

    company: Company
    cluster: Cluster
    flavour: Flavour
    workspace: Workspace
    model: Model
    endpoint: Endpoint
    current: Release
    candidate: Release | None = None

    def again(self) -> Endpoint:
        """The endpoint as it is stored now."""
        self.endpoint = Endpoint.objects.select_related("workspace__cluster", "workspace__team").get(
            pk=self.endpoint.pk
        )
        self.current.refresh_from_db()
        if self.candidate is not None:
            self.candidate.refresh_from_db()
        return self.endpoint

    def sample(self, release: Release, at: datetime, **figures: Any) -> ServingSample:
        """Keep a sample."""
        values = {"window_seconds": 60, "requests": 100, "errors": 0, "latency_p95_ms": 80, "ready_replicas": 1}
        return ServingSample.objects.create(endpoint=self.endpoint, release=release, at=at, **(values | figures))


def spec(**changes: Any) -> dict[str, Any]:
    """A release's spec as it is stored."""
    return Spec(1, 1, 1, 4, 16, guard=changes.pop("guard", Guard()), **changes).to_json()


def make_version(company: Company, model: Model, number: int, **extra: Any) -> ModelVersion:
    """A sealed version."""
    values: dict[str, Any] = {
        "label": f"1.{number}.0", "scheme": "s3", "status": "sealed", "digest": f"{number:064x}",
        "sealed_at": clock.now(), "author": company.member_finance, "last_editor": company.member_finance,
    }  # fmt: skip
    return ModelVersion.objects.create(model=model, number=number, **(values | extra))


def make_serving(
    company: Company,
    *,
    canary: bool = True,
    guard: Guard | None = None,
    trained_at: datetime | None = None,
    **cluster: Any,
) -> Serving:
    """Make the rows."""
    row = make_cluster(**({"health": Health.HEALTHY, "last_seen_at": clock.now()} | cluster))
    flavour = make_flavour()
    workspace = Workspace.objects.create(
        team=company.finance_team, cluster=row, environment="production", namespace=NAMESPACE
    )
    model = Model.objects.create(slug="fraud", name="Fraud scoring", team=company.finance_team, purpose="Scores cards.")
    endpoint = Endpoint.objects.create(
        workspace=workspace, name="fraud", model=model, canary_mode=CanaryMode.ROUTE if canary else CanaryMode.NONE
    )
    made = Serving(company, row, flavour, workspace, model, endpoint, None)  # type: ignore[arg-type]  # set just below
    made.current = make_release(made, 1, ReleaseStatus.LIVE, guard, trained_at=trained_at)
    endpoint.current = made.current
    if canary:
        made.candidate = make_release(made, 2, ReleaseStatus.CANARY, guard)
        endpoint.candidate, endpoint.traffic = made.candidate, 10
    endpoint.save()
    return made


def make_release(
    serving: Serving, number: int, status: str, guard: Guard | None = None, **version_values: Any
) -> Release:
    """One release of the endpoint, loaded."""
    version = make_version(serving.company, serving.model, number, **version_values)
    return Release.objects.create(
        endpoint=serving.endpoint, number=number, model_version=version, version_digest=version.digest,
        flavour=serving.flavour, spec=spec(guard=guard or Guard()), reason="Better recall.", status=status,
        requester=serving.company.lead_finance, started_at=clock.now(), load_state=LoadState.LOADED,
    )  # fmt: skip


def service(serving: Serving, release: Release, *, name: str = "", **status: Any) -> tuple[Key, dict[str, Any]]:
    """A release's InferenceService as the cluster reports it: loaded, unless told otherwise."""
    named = name or f"{serving.endpoint.name}-r{release.number}"
    labels = {"gpu-commons/endpoint": str(serving.endpoint.uid), "gpu-commons/release": str(release.uid)}
    told: dict[str, Any] = {
        "observedGeneration": 2, "deploymentMode": "Standard", "url": f"http://{named}.example.com",
        "conditions": [{"type": "Ready", "status": "True"}],
        "modelStatus": {
            "transitionStatus": "UpToDate", "copies": {"totalCopies": 1},
            "states": {"activeModelState": "Loaded", "targetModelState": "Loaded"},
        },
    }  # fmt: skip
    meta = {"name": named, "namespace": NAMESPACE, "labels": labels, "generation": 2}
    body = {"kind": "InferenceService", "metadata": meta, "status": told | status}
    return Key("InferenceService", NAMESPACE, named), body


def failing(message: str = "no such format") -> dict[str, Any]:
    """The part of a status that says that a load failed."""
    return {
        "conditions": [{"type": "Ready", "status": "False"}],
        "modelStatus": {
            "transitionStatus": "BlockedByFailedLoad", "copies": {"totalCopies": 0},
            "states": {"activeModelState": "", "targetModelState": "FailedToLoad"},
            "lastFailureInfo": {"reason": "ModelLoadFailed", "message": message},
        },
    }  # fmt: skip


def route(serving: Serving, **weights: int) -> tuple[Key, dict[str, Any]]:
    """The endpoint's HTTPRoute, accepted."""
    labels = {"gpu-commons/endpoint": str(serving.endpoint.uid)}
    backends = [{"name": f"{name.replace('_', '-')}-predictor", "weight": weight} for name, weight in weights.items()]
    spec_ = {"hostnames": ["fraud-finance-production.example.com"], "rules": [{"backendRefs": backends}]}
    rows = [{"type": kind, "status": "True"} for kind in ("Accepted", "ResolvedRefs")]
    status = {"parents": [{"conditions": rows}]}
    meta = {"name": "fraud", "namespace": NAMESPACE, "labels": labels}
    return Key("HTTPRoute", NAMESPACE, "fraud"), {
        "kind": "HTTPRoute",
        "metadata": meta,
        "spec": spec_,
        "status": status,
    }
