"""Endpoints and releases for tests: workspaces with quota, an approved version, the releases policy.

world = make_world(company)          # finance's workspaces, 8 GPUs guaranteed in each, a version with a grant
release = world.release()            # asked for, and approved by policy or by the unit's owner
world.load(release)                  # the cluster says that it has loaded, and the ladder moves
release = world.live("production")   # the same in one call
"""

from __future__ import annotations

import dataclasses
import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps.accounts.models import User
from apps.approvals import actions as approvals
from apps.approvals.models import ApprovalRequest, Grant, Policy, PolicyVersion
from apps.catalogue.models import Model, ModelRequest, ModelVersion
from apps.clusters.capabilities import Capabilities, as_json
from apps.clusters.models import Cluster, Flavour, Pool
from apps.core import clock
from apps.core.actor import Actor
from apps.core.canonical import digest_of
from apps.deployments import actions, advancing
from apps.deployments.choices import LoadState
from apps.deployments.models import Endpoint, Release
from apps.deployments.spec import Guard, Rung, Spec
from apps.quotas.models import Quota, Workspace
from tests.catalogue.world import make_model, make_sealed
from tests.deployments.samples import STANDARD
from tests.factories import Company
from tests.quotas.conftest import make_rate
from tests.rates.factories import make_cluster, make_flavour, make_pool

REASON = "Scores card payments before they are settled."
ENVIRONMENTS = ("development", "staging", "production")
LADDER = (Rung(10, 12), Rung(50, 12))
SPEC = Spec(min_replicas=2, max_replicas=2, units_per_replica=1, cpu=4, memory_gib=16, ladder=LADDER, guard=Guard())
#: Below production nobody is asked; in production the unit's owner is.
POLICY: dict[str, Any] = {
    "validity_days": 365,
    "automatic": [
        {
            "name": "Below production",
            "when": [
                ["environment", "in", ["development", "staging"]], ["covered", "eq", "yes"], ["fits_now", "eq", "yes"],
            ],
        },
        {
            "name": "Same version", "standard": True,
            "when": [["release_kind", "eq", "change"], ["over_budget", "eq", "no"], ["covered", "eq", "yes"]],
        },
    ],
    "stages": [{"name": "Unit owner", "role": "unit_owner", "scope": "unit", "quorum": 1, "due_hours": 72}],
    "terms": [
        {"name": "staging_hours", "value": 0, "when": [["environment", "eq", "production"]]},
        {"name": "canary_hours_min", "value": 24, "when": [["environment", "eq", "production"]]},
        {"name": "canary_hours_max", "value": 48, "when": [["environment", "eq", "production"]]},
    ],
    "emergency": {
        "role": "compliance", "scope": "installation", "quorum": 1, "hours": 8, "review_hours": 72,
        "review_role": "compliance",
    },
}  # fmt: skip


@dataclass
class World:
    """What the tests of deployments start from."""

    company: Company
    cluster: Cluster
    pool: Pool
    flavour: Flavour
    model: Model
    version: ModelVersion
    workspaces: dict[str, Workspace] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.company[name]

    def actor(self, name: str = "lead_finance") -> Actor:
        """Somebody of the company."""
        return Actor.of(self.company[name])

    def approve_version(self, version: ModelVersion | None = None, **changes: Any) -> Grant:
        """Give a version a grant for every workspace here, for a year (`days`, `max_traffic`, `environments` …)."""
        return grant_version(version or self.version, self, **changes)

    def next_version(self, label: str = "", *, approved: bool = True, **values: Any) -> ModelVersion:
        """Make another sealed version of the model, approved unless told otherwise."""
        values.setdefault("scheme", "oci")
        version = make_sealed(self.model, self.company.member_finance, label, **values)
        if approved:
            self.approve_version(version)
        return version

    def ask(
        self,
        environment: str = "development",
        *,
        version: ModelVersion | None = None,
        name: str = "fraud",
        by: User | None = None,
        flavour: Flavour | None = None,
        emergency: bool = False,
        **spec: Any,
    ) -> Release:
        """Request a release as the team's lead; `spec` changes SPEC."""
        return actions.request_release(
            self.workspaces[environment].pk, name, (version or self.version).pk, (flavour or self.flavour).pk,
            dataclasses.replace(SPEC, **spec), REASON, actor=Actor.of(by or self.company.lead_finance),
            emergency=emergency,
        )  # fmt: skip

    def approve(self, release: Release, *, by: User | None = None) -> Release:
        """Approve as the unit's owner."""
        release.refresh_from_db()
        assert release.approval is not None
        approvals.decide(
            release.approval.pk, "approve", "Looked at the change and the plan.",
            actor=Actor.of(by or self.company.vp), expected_digest=release.approval.subject_digest,
        )  # fmt: skip
        release.refresh_from_db()
        return release

    def release(self, environment: str = "development", **changes: Any) -> Release:
        """Request and, where it is asked for, approve."""
        release = self.ask(environment, **changes)
        return self.approve(release) if release.status == "in_review" else release

    def load(self, release: Release, state: str = LoadState.LOADED) -> Release:
        """Let the cluster say what became of the release's model, and the ladder look."""
        Release.objects.filter(pk=release.pk).update(load_state=state)
        advancing.advance_due()
        release.refresh_from_db()
        return release

    def live(self, environment: str = "development", **changes: Any) -> Release:
        """A release that takes all traffic; only for an endpoint where nothing is live."""
        return self.load(self.release(environment, **changes))

    def endpoint(self, release: Release) -> Endpoint:
        """The endpoint as it stands now."""
        return Endpoint.objects.select_related("current", "candidate").get(pk=release.endpoint_id)


def policy_version(slug: str, subject_type: str) -> PolicyVersion:
    """A published policy that nobody reads, for grants that are written directly."""
    policy, _ = Policy.objects.get_or_create(slug=slug, defaults={"name": slug, "subject_type": subject_type})
    body: dict[str, Any] = {"stages": []}
    return PolicyVersion.objects.get_or_create(
        policy=policy, number=1, defaults={"body": body, "digest": digest_of(body), "published_at": clock.now()}
    )[0]


def grant_version(
    version: ModelVersion,
    world: World,
    *,
    days: int | None = 365,
    max_traffic: int = 100,
    environments: tuple[str, ...] = ENVIRONMENTS,
) -> Grant:
    """Write an approved request for a version and its grant, as the catalogue and approvals rooms would."""
    at = clock.now()
    scope: dict[str, Any] = {
        "environments": list(environments),
        "clusters": [world.cluster.slug],
        "workspaces": [str(one.uid) for one in world.workspaces.values()],
        "max_traffic": max_traffic,
    }
    asked = ModelRequest.objects.create(
        model_version=version, scope=scope, reason=REASON, status="approved", requester=world.company.member_finance,
        digest=digest_of(scope), valid_days=days or 365,
    )  # fmt: skip
    request = ApprovalRequest.objects.create(
        subject_type="catalogue.version", subject_uid=asked.uid, subject_digest=asked.digest, title=str(version),
        policy_version=policy_version("model-versions", "catalogue.version"), status="approved",
        requester=world.company.member_finance, team=world.company.finance_team, unit=world.company.unit,
        submitted_at=at, concluded_at=at,
    )  # fmt: skip
    asked.approval = request
    asked.save(update_fields=["approval"])
    return Grant.objects.create(
        request=request, subject_digest=asked.digest, not_before=at,
        expires_at=at + timedelta(days=days) if days else None,
        scope={
            **scope, "subject_type": "catalogue.version", "subject_uid": str(asked.uid), "manifest": version.digest
        },
    )  # fmt: skip


def make_world(
    company: Company,
    *,
    capabilities: Capabilities = STANDARD,
    guaranteed: int = 8,
    classes: tuple[str, ...] = ("internal",),
    policy: dict[str, Any] | None = None,
    **cluster: Any,
) -> World:
    """Make the world of the tests: a cluster that serves with the Gateway API, stated on premises in the EU."""
    cluster = {"location": "on_premises", "jurisdiction": "EU", **cluster}
    place = make_cluster(capabilities=as_json(capabilities), **cluster)
    flavour = make_flavour()
    pool = make_pool(place, flavour)
    make_rate(pool)
    approvals.publish_policy(
        "releases", "Releases", "deployments.release", policy or POLICY, actor=Actor.of(company.admin)
    )
    model = make_model(company.finance_team, "Fraud", data_classes=classes)
    version = make_sealed(model, company.member_finance, "1.0.0", scheme="oci")
    world = World(company, place, pool, flavour, model, version)
    start = clock.now() - timedelta(days=1)
    for environment in ENVIRONMENTS:
        workspace = Workspace.objects.create(
            team=company.finance_team, cluster=place, environment=environment, namespace=f"finance-{environment}",
            data_classes=["internal", "confidential", *classes],
        )  # fmt: skip
        Quota.objects.create(
            workspace=workspace, flavour=flavour, guaranteed=guaranteed, valid=DateTimeTZRange(start, None, "[)")
        )
        world.workspaces[environment] = workspace
    world.approve_version()
    return world


def unknown() -> uuid.UUID:
    """A uid that no row has."""
    return uuid.uuid4()
