"""Models of the sample company: registered, carded, evidenced, approved, refused, waiting, and some that serve.

The weights are a few kilobytes of made-up bytes, named as such in each model's purpose: what is shown is the way from
bytes to a bound approval and to a rollout, not a model. They lie on a mounted volume, where nothing fixes what a
cluster loads, but for the fraud model's later versions: those are artifacts by digest in a simulated registry.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from apps.approvals import actions as approvals
from apps.approvals import policies, ports
from apps.approvals.choices import Verdict
from apps.approvals.models import Policy
from apps.approvals.selectors import waiting_for
from apps.catalogue import cards_saving, evidence, hash_jobs, model_actions, sealing, store_actions
from apps.catalogue import requests as asks
from apps.catalogue import version_actions as versions
from apps.catalogue.choices import JobStatus, VersionStatus
from apps.catalogue.models import HashJob, Model, ModelRequest, ModelStore, ModelVersion
from apps.catalogue.reading.pvc import mounts
from apps.catalogue.regimes_loading import load_regimes
from apps.clusters import administering
from apps.clusters.choices import Location
from apps.clusters.models import Cluster
from apps.core.actor import Actor
from apps.core.errors import CommonsError
from apps.demo import company
from apps.demo.cluster import artifacts
from apps.demo.seed import SEEDER, Context
from apps.demo.sharing import wait_for
from apps.demo.story import _actor, _person
from apps.deployments import actions as releases
from apps.deployments import advancing, rollout
from apps.deployments.choices import ObjectiveAction, ObjectiveKind, ReleaseStatus
from apps.deployments.models import Endpoint, Release
from apps.deployments.objectives import set_objective
from apps.deployments.placement_rules import add_starting_rules
from apps.deployments.spec import Guard, Rung, Spec
from apps.provisioning import observing, running
from apps.quotas.models import Workspace
from apps.teams.models import Team

VOLUME = "models"
REGISTRY = "simulated-registry"
IMAGE = "registry.example.com/serving/triton@sha256:" + hashlib.sha256(b"sample serving image").hexdigest()
_SIMULATED = "Sample company: the weights are made-up bytes."


@dataclass(frozen=True)
class ModelPlan:
    """A model of the sample company."""

    slug: str
    name: str
    team: str
    lead: str
    purpose: str
    data_classes: tuple[str, ...]
    labels: tuple[str, ...]
    #: Those of the versions that lie in the simulated registry, under this name; the others are on the volume.
    registry_name: str = ""
    in_registry: tuple[str, ...] = ()


RANKING = ModelPlan(
    "product-ranking", "Product ranking", "marketing", "marketing-lead",
    f"Orders the products of a campaign by how likely they are to interest a visitor. {_SIMULATED}",
    ("internal",), ("1.0.0", "1.1.0", "1.2.0"),
)  # fmt: skip
FRAUD = ModelPlan(
    "payment-fraud", "Payment fraud", "finance", "finance-lead",
    f"Scores card payments before they are settled; a person decides on high scores. {_SIMULATED}",
    ("financial",), ("2.0.0", "2.1.0", "2.2.0"), "models/payment-fraud", ("2.1.0", "2.2.0"),
)  # fmt: skip
PLANS = (RANKING, FRAUD)


def places(context: Context) -> str:
    """Say where the clusters stand, under whose law, and which data may be where."""
    admin = _actor(context, "admin")
    for slug, location, jurisdiction in (
        (company.CLUSTER_SLUG, Location.ON_PREMISES, "EU"),
        (company.BOREALIS_SLUG, Location.CLOUD, "US"),
    ):
        cluster = Cluster.objects.filter(slug=slug).first()
        if cluster is not None and not cluster.location:
            administering.update_cluster(cluster.pk, location=location, jurisdiction=jurisdiction, actor=admin)
    load_regimes()
    rules = add_starting_rules(actor=SEEDER)
    return f"{rules} placement rules" if rules else "as before"


def rules(context: Context) -> str:
    """Publish who approves versions and releases; the ladder in production may be climbed within a visit."""
    admin = _actor(context, "admin")
    made = 0
    for proposed in ports.starting_policies():
        if proposed.slug not in ("model-versions", "releases") or Policy.objects.filter(slug=proposed.slug).exists():
            continue
        body: dict[str, Any] = dict(proposed.body)
        if proposed.slug == "releases":
            # Nobody waits two days in front of a sample: the hours are named in the policy, where everybody reads them.
            body["terms"] = [
                {**term, "value": 0} if term["name"] in ("staging_hours", "canary_hours_min") else term
                for term in body["terms"]
            ]
        policies.publish_policy(proposed.slug, proposed.name, proposed.subject_type, body, actor=admin)
        made += 1
    return f"{made} policies" if made else "as before"


def catalogue(context: Context) -> str:
    """Register the models, write their cards, seal their versions, add what speaks for and against them."""
    folder = mounts().get(VOLUME)
    if folder is None:
        return "no volume of models is mounted (COMMONS_MODEL_MOUNTS)"
    store = ModelStore.objects.filter(slug=VOLUME).first() or store_actions.add_store(
        "Models on a mounted volume", "pvc", slug=VOLUME, endpoint=VOLUME, actor=_actor(context, "admin")
    )
    registry = ModelStore.objects.filter(slug=REGISTRY).first() or store_actions.add_store(
        "Simulated registry of made-up models", "oci", slug=REGISTRY, endpoint=context.allocation_url,
        actor=_actor(context, "admin"),
    )  # fmt: skip
    done = 0
    for plan in PLANS:
        model = Model.objects.filter(slug=plan.slug).first() or _registered(context, plan)
        for label in plan.labels:
            if not ModelVersion.objects.filter(model=model, label=label).exists():
                if label not in plan.in_registry:
                    weights(folder, plan, label)
                begun(context, plan, model, registry if label in plan.in_registry else store, label)
            version = ModelVersion.objects.get(model=model, label=label)
            done += sealed(context, plan, version)
    return f"{done} versions sealed" if done else "as before"


def weights(folder: Path, plan: ModelPlan, label: str) -> None:
    """Write the made-up bytes of a version into the mounted volume."""
    place = folder / plan.slug / label
    place.mkdir(parents=True, exist_ok=True)
    seed = f"{plan.slug} {label}".encode()
    (place / "model.onnx").write_bytes(b"".join(hashlib.sha256(seed + bytes([n])).digest() for n in range(256)))
    (place / "config.pbtxt").write_text(f'name: "{plan.slug}"\nplatform: "onnxruntime_onnx"\n')


def _registered(context: Context, plan: ModelPlan) -> Model:
    lead = _actor(context, plan.lead)
    model = model_actions.register_model(
        Team.objects.get(slug=plan.team).pk, plan.name, slug=plan.slug, purpose=plan.purpose,
        data_classes=plan.data_classes, risk_tier="minimal", act_role="deployer", actor=lead,
    )  # fmt: skip
    cards_saving.save_card(
        model.pk,
        {
            "schema": 1, "name": plan.name, "overview": plan.purpose, "license": "other",
            "uses_direct": "Staff of the owning team read its scores in their own tools.",
            "uses_out_of_scope": "Decisions about people without a person in between.",
            "limitations": "Few examples from new markets; scores there are less certain.",
            "metrics": ["auroc"], "metrics_choice": "Set before training by the owning team.",
            "logic": "Recent behaviour weighs most, then the time of day.",
            "monitoring": "Drift of inputs and scores every day; a breach opens a recertification.",
        },
        note="First card", actor=lead,
    )  # fmt: skip
    return model


def begun(context: Context, plan: ModelPlan, model: Model, store: ModelStore, label: str) -> None:
    """Draft a version in its store, say what it was made from, have it hashed."""
    lead = _actor(context, plan.lead)
    card = cards_saving.newest_card(model.pk)
    location, revision = f"pvc://{VOLUME}/{plan.slug}/{label}", ""
    if label in plan.in_registry:
        location = f"oci://{urlsplit(store.endpoint).netloc}/{plan.registry_name}"
        revision = artifacts.artifact(plan.registry_name, label).digest
    version = versions.create_version(
        model.pk, label, store.scheme, location=location, revision=revision, store_id=store.pk,
        model_format="onnx", runtime="kserve-tritonserver", image=IMAGE, arguments=["--strict-readiness=true"],
        parameters={"epochs": "12", "learning_rate": "0.0004"}, card_id=card.pk if card else None, actor=lead,
    )  # fmt: skip
    source = versions.SourceInput(
        kind="dataset", name=f"{plan.team} events", revision="2026-09", uri="s3://datasets.example.com/events",
        data_classes=plan.data_classes,
    )  # fmt: skip
    versions.set_sources(version.pk, [source], actor=lead)
    hash_jobs.start_hashing(version.pk, actor=lead)


def sealed(context: Context, plan: ModelPlan, version: ModelVersion) -> int:
    """Seal a draft once it is hashed, and add its evidence; returns 1 where it was a draft."""
    if version.status not in (VersionStatus.DRAFT, VersionStatus.HASHING):
        return 0
    jobs = HashJob.objects.filter(model_version=version, status__in=[JobStatus.PENDING, JobStatus.RUNNING])
    # The installation's own worker may be at it by now: then this waits for it.
    wait_for(lambda: not jobs.exists(), lambda: [hash_jobs.work(job.pk) for job in jobs.all()])
    version = sealing.seal(version.pk, actor=_actor(context, plan.lead))
    lead = _actor(context, plan.lead)
    # The newest ranking model is not good enough for one group: its own evidence says so.
    weak = plan is RANKING and version.label == plan.labels[-1]
    rows = [
        {"metric": "auroc", "value": "0.931", "low": "0.924", "high": "0.938", "comparison": "ge", "threshold": "0.9"},
        {"metric": "auroc", "slice": "new visitors", "value": "0.871" if weak else "0.912",
         "low": "0.861" if weak else "0.904", "high": "0.881" if weak else "0.920", "comparison": "ge",
         "threshold": "0.9"},
    ]  # fmt: skip
    drafts = [evidence.Draft(kind="evaluation", title=f"Evaluation of {version.label}", rows=rows)]
    if plan is FRAUD:
        drafts += [
            evidence.Draft(
                kind="model_scan", title="Scan of the model files", payload={"tool": "sample", "findings": 0}
            ),
            evidence.Draft(
                kind="image_scan", title="Scan of the serving image",
                payload={"tool": "sample", "image": IMAGE, "critical": 0, "high": 0},
            ),
        ]  # fmt: skip
    for draft in drafts:
        evidence.add_evidence(version.pk, draft, actor=lead)
    return 1


def approvals_of_versions(context: Context) -> str:
    """Ask for the versions: some approved, one rejected for its own figures, one with open controls, one to decide."""
    said = []
    for label, verdict, reason in (
        ("1.0.0", Verdict.APPROVE, "Card, results and scope are as they should be."),
        ("1.1.0", Verdict.APPROVE, "Better on every slice than what is live."),
    ):
        said.append(ask(context, RANKING, label, verdict, reason))
    said.append(
        ask(
            context, RANKING, "1.2.0", Verdict.REJECT,
            "The results for new visitors are below the threshold that you set yourselves.",
        )
    )  # fmt: skip
    regulated: tuple[tuple[str, str, str], ...] = (
        # On a volume nothing proves what a cluster loads: for financial data that stays an open control.
        ("2.0.0", "", ""),
        ("2.1.0", Verdict.APPROVE, "Bound by its bytes; scans, evaluation and card are as they should be."),
    )
    said += [ask(context, FRAUD, *one) for one in regulated]
    return ", ".join(text for text in said if text) or "as before"


def workspaces_of(plan: ModelPlan) -> list[Workspace]:
    """Return where a plan's models are to run."""
    return list(
        Workspace.objects.select_related("cluster")
        .filter(team__slug=plan.team, cluster__slug=company.CLUSTER_SLUG, archived_at__isnull=True)
        .order_by("pk")
    )


def ask(context: Context, plan: ModelPlan, label: str, verdict: str, reason: str) -> str:
    """Ask for a version's approval and have it decided; an empty verdict lets it wait. Says what became of it."""
    version = ModelVersion.objects.filter(model__slug=plan.slug, label=label).first()
    if version is None or not version.digest or ModelRequest.objects.filter(model_version=version).exists():
        return ""
    asked = asks.Asked(
        workspaces=[one.pk for one in workspaces_of(plan)], max_traffic=100, valid_days=180,
        reason=f"{plan.name} {label} for the coming season.",
    )  # fmt: skip
    try:
        request = asks.submit(version.pk, asked, actor=_actor(context, plan.lead))
    except CommonsError as error:
        return f"{plan.name} {label} not asked for: {error}"
    if not verdict:
        return f"{plan.name} {label} waits"
    request.refresh_from_db()
    for key in ("compliance", "vp"):
        approval = waiting_for(_person(context, key)).filter(pk=request.approval_id or 0).first()
        if approval is not None:
            approvals.decide(
                approval.pk, verdict, reason, actor=_actor(context, key), expected_digest=approval.subject_digest
            )
    request.refresh_from_db()
    return f"{plan.name} {label} {request.get_status_display().lower()}"


def endpoint(context: Context) -> str:
    """Serve the ranking, its next version as a canary of ten per cent; and the fraud model, which is regulated."""
    said = [
        serve(context, RANKING, "product-ranking", "1.0.0"),
        serve(context, RANKING, "product-ranking", "1.1.0", (Rung(10, 0), Rung(50, 0))),
        serve(context, FRAUD, "payment-fraud", "2.1.0"),
    ]
    _objectives(context)
    return ", ".join(text for text in said if text) or "as before"


def serve(context: Context, plan: ModelPlan, name: str, label: str, ladder: tuple[Rung, ...] = ()) -> str:
    """Release a version once, have it decided, and wait until it serves. Says what became of it."""
    version = ModelVersion.objects.filter(model__slug=plan.slug, label=label).first()
    workspace = next(iter(workspaces_of(plan)), None)
    if version is None or workspace is None or Release.objects.filter(model_version=version).exists():
        return ""
    if ladder and not Endpoint.objects.filter(workspace=workspace, name=name, current__isnull=False).exists():
        return f"{plan.name} {label} has nothing to be a canary of"
    spec = Spec(
        min_replicas=1, max_replicas=1, units_per_replica=1, cpu=4, memory_gib=16, ladder=ladder,
        guard=Guard(error_rate=Decimal("0.05"), latency_p95_ms=800), logger=plan is FRAUD,
    )  # fmt: skip
    try:
        release = releases.request_release(
            workspace.pk, name, version.pk, context.flavour.pk, spec, f"Serve {version} to the people of {plan.team}.",
            actor=_actor(context, plan.lead),
        )  # fmt: skip
    except CommonsError as error:
        return f"{plan.name} {label} not released: {error}"
    _decided(context, release)
    _followed(context, plan, release, canary=bool(ladder))
    release.refresh_from_db()
    return f"{plan.name} {label} {release.get_status_display().lower()}"


def _decided(context: Context, release: Release) -> None:
    for key in ("vp", "compliance"):
        release.refresh_from_db()
        approval = waiting_for(_person(context, key)).filter(pk=release.approval_id or 0).first()
        if approval is not None:
            approvals.decide(
                approval.pk, Verdict.APPROVE, "Fits the quota and the budget.", actor=_actor(context, key),
                expected_digest=approval.subject_digest,
            )  # fmt: skip


def _followed(context: Context, plan: ModelPlan, release: Release, *, canary: bool) -> None:
    """Wait until it serves; a canary is held at its first share, where everybody who comes finds it."""
    cluster_id = release.endpoint.workspace.cluster_id

    def arrived() -> bool:
        release.refresh_from_db()
        return release.status in (ReleaseStatus.LIVE, ReleaseStatus.CANARY, ReleaseStatus.FAILED)

    def work() -> None:
        running.apply_cluster(cluster_id)
        observing.observe_cluster(cluster_id)
        advancing.advance_due()

    wait_for(arrived, work)
    if canary and release.status == ReleaseStatus.CANARY:
        reason = "Held for the campaign team: they compare both versions before it takes more."
        rollout.hold(release.endpoint_id, actor=_actor(context, plan.lead), reason=reason)


def _objectives(context: Context) -> None:
    found = Endpoint.objects.filter(name="product-ranking", removed_at__isnull=True).first()
    if found is None or found.objectives.exists():
        return
    lead: Actor = _actor(context, RANKING.lead)
    for kind, target, action in (
        (ObjectiveKind.AVAILABILITY, "0.995", ObjectiveAction.NOTIFY),
        (ObjectiveKind.LATENCY_P95, "800", ObjectiveAction.NOTIFY),
        (ObjectiveKind.ERROR_RATE, "0.02", ObjectiveAction.ROLL_BACK),
    ):
        set_objective(found.pk, kind, target, 24, action, actor=lead)
