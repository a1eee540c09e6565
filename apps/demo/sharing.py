"""The cluster half of the sample company: what its clusters can do, a second cluster of slices and bursts, baselines.

Through the actions that a platform admin uses; what a cluster was not found to have is not switched on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from apps.accounts.models import User
from apps.approvals import actions as approvals
from apps.approvals.choices import Verdict
from apps.approvals.selectors import waiting_for
from apps.clusters import actions as clusters
from apps.clusters import administering, capabilities, checking, crypto, kubeconfigs, probing, proposals
from apps.clusters.capacity import create_flavour, create_pool
from apps.clusters.choices import CheckStatus, KueueMode, PoolKind
from apps.clusters.models import Cluster, ClusterCheck, Flavour, Node, Pool, PoolCapacity
from apps.core import clock
from apps.core.actor import Actor, Channel
from apps.core.errors import CommonsError
from apps.demo import company
from apps.demo.seed import SEEDER, Context, Step
from apps.provisioning import running
from apps.quotas import actions as quotas
from apps.quotas.change_granting import missing_declarations
from apps.quotas.changes import request_change
from apps.quotas.choices import OPEN_STATUSES, BorrowMode, ChangeKind, RequestStatus
from apps.quotas.models import ChangeRequest, QuotaRequest, Workspace
from apps.quotas.terms import Extras
from apps.rates import actions as rates
from apps.rates.models import Rate
from apps.teams.models import Team

#: How long seeding waits for the workers to check a cluster or to apply a baseline.
PATIENCE_SECONDS = 60.0


def _person(context: Context, key: str) -> User:
    return context.users.get(key) or User.objects.get(email=f"{key}@{company.MAIL_DOMAIN}")


def _actor(context: Context, key: str) -> Actor:
    return Actor.of(_person(context, key), Channel.COMMAND)


def wait_for(done: Callable[[], bool], work: Callable[[], object]) -> bool:
    """Do the work here until it is done: where a worker holds the lease, it does the same at this moment."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not done():
        if time.monotonic() > until:
            return False
        work()
        if not done():
            time.sleep(0.2)
    return True


def check(cluster: Cluster) -> bool:
    """Have a cluster checked and its nodes read, once; False where it does not answer in time."""
    if not ClusterCheck.objects.filter(cluster=cluster).exists():
        checking.request_check(cluster.pk, actor=SEEDER)
    checked = wait_for(
        lambda: ClusterCheck.objects.filter(cluster=cluster, status=CheckStatus.DONE).exists(), checking.run_due
    )
    return checked and wait_for(lambda: Node.objects.filter(cluster=cluster).exists(), probing.probe_due)


def use_kueue(cluster: Cluster) -> bool:
    """Apply quotas through Kueue where the check found it; returns whether Kueue is used."""
    cluster.refresh_from_db()
    if cluster.kueue_mode != KueueMode.OFF:
        return True
    found = capabilities.of(cluster)
    mode = KueueMode.PODS if found.kueue.pod_integration else KueueMode.JOBS
    if administering.kueue_mode_refusal(cluster, mode) is not None:
        return False
    administering.set_kueue_mode(cluster.pk, mode, actor=SEEDER)
    cluster.refresh_from_db()
    return True


def atlas(context: Context) -> str:
    """Find out what the first cluster can do, and share its pool in earnest where Kueue takes GPUs back."""
    cluster = context.cluster
    if not check(cluster):
        return "does not answer yet"
    used = use_kueue(cluster)
    if not used:
        # Nothing takes a borrowed GPU back there; the sample company chose to share at best effort.
        return "no Kueue: the pool is shared at best effort"
    return f"Kueue {cluster.get_kueue_mode_display().lower()}"


def borealis(context: Context) -> str:
    """Register the second cluster: MIG slices, time-sliced GPUs, and H100 in the cloud that start when needed."""
    if context.kubeconfig_borealis is None:
        return "there is none"
    text = context.kubeconfig_borealis.read_text("utf-8")
    found = Cluster.objects.filter(slug=company.BOREALIS_SLUG).first()
    if found is None:
        found = clusters.register_cluster(
            "Borealis",
            slug=company.BOREALIS_SLUG,
            kubeconfig=text,
            region="colocation, with a cloud burst",
            identity_provider={"type": "tokens_file", "file": str(context.tokens_file)},
            simulated=True,
            actor=SEEDER,
        )
    else:
        access = kubeconfigs.read_kubeconfig(text)
        if (found.api_url, found.ca_certificate, crypto.decrypt(found.credentials)) != (
            access.api_url, access.ca_certificate, access.token,
        ):  # fmt: skip
            clusters.replace_credentials(found.pk, kubeconfig=text, actor=SEEDER)
    if not check(found):
        return "does not answer yet"
    use_kueue(found)
    _accept(found)
    _burst_pool(found)
    at = clock.now()
    for pool in Pool.objects.filter(cluster=found).prefetch_related("flavours"):
        if not PoolCapacity.objects.filter(pool=pool).exists():
            count = company.BURST_GPUS if pool.kind == PoolKind.ELASTIC else pool.observed_gpus or 0
            clusters.set_committable(pool.pk, count, at, reason="What the nodes carry", actor=SEEDER)
    _prices(found)
    return f"{Flavour.objects.filter(pools__cluster=found).distinct().count()} flavours"


def _accept(cluster: Cluster) -> None:
    """Take every GPU flavour that the nodes propose and the cluster can tell apart."""
    found = proposals.for_cluster(cluster)
    keys = [
        one.proposal.key
        for entry in found.pools
        if entry.clash is None and entry.proposal.device_class == "gpu"
        for one in entry.flavours
        if not one.in_pool
    ]
    if keys:
        proposals.accept_proposals(cluster.pk, keys, actor=SEEDER)


def _burst_pool(cluster: Cluster) -> None:
    """Offer H100 GPUs of the cloud: none at rest, up to 32 a minute after somebody needs them."""
    if Pool.objects.filter(cluster=cluster, gpu_model=company.BURST_MODEL).exists():
        return
    flavour = Flavour.objects.filter(slug=company.BURST_SLUG).first() or create_flavour(
        "H100 80 GB (cloud)",
        slug=company.BURST_SLUG,
        gpu_model=company.BURST_MODEL,
        memory_mib=81_559,
        node_labels={"nvidia.com/gpu.product": company.BURST_MODEL},
        tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        actor=SEEDER,
    )
    create_pool(
        cluster.pk,
        company.BURST_MODEL,
        flavour_ids=[flavour.pk],
        kind=PoolKind.ELASTIC,
        max_gpus=company.BURST_GPUS,
        startup_minutes=1,
        actor=SEEDER,
    )


def _prices(cluster: Cluster) -> None:
    """Price whatever is offered there and has no price yet: by the share of the device that a unit holds."""
    priced = set(Rate.objects.filter(cluster=cluster).values_list("flavour_id", flat=True))
    prices = {
        flavour.pk: (company.MODEL_RATES[flavour.gpu_model] * flavour.numerator / flavour.denominator).quantize(
            company.CENT
        )
        for flavour in Flavour.objects.filter(pools__cluster=cluster).distinct()
        if flavour.pk not in priced and flavour.gpu_model in company.MODEL_RATES
    }
    if prices:
        rates.publish_card(
            "Borealis", cluster.pk, prices, company.CURRENCY, clock.now(), note="By share of the device", actor=SEEDER
        )


def baselines(context: Context) -> str:
    """The platform admin requests each cluster's baseline, the platform operator approves, the worker applies."""
    said = []
    for cluster in Cluster.objects.exclude(kueue_mode=KueueMode.OFF).order_by("pk"):
        known = ChangeRequest.objects.filter(cluster=cluster, kind=ChangeKind.BASELINE).order_by("pk").last()
        if known is None:
            known = request_change(
                ChangeKind.BASELINE,
                cluster_id=cluster.pk,
                values={},
                reason="Queues, flavours and priorities that the quotas of this cluster stand on.",
                actor=_actor(context, "admin"),
            )
        _decide(context, known)
        said.append(f"{cluster}: {'applied' if _applied(known) else 'on its way'}")
    return ", ".join(said) or "no cluster uses Kueue"


def change_baseline(context: Context, cluster: Cluster, reason: str) -> bool:
    """Request a cluster's baseline anew, have it approved, and wait; returns whether it is applied."""
    change = request_change(
        ChangeKind.BASELINE, cluster_id=cluster.pk, values={}, reason=reason, actor=_actor(context, "admin")
    )
    _decide(context, change)
    return _applied(change)


def _decide(context: Context, change: ChangeRequest) -> None:
    if change.status not in OPEN_STATUSES:
        return
    operator = _actor(context, "operator")
    approval = waiting_for(_person(context, "operator")).filter(pk=change.approval_id or 0).first()
    if approval is not None:
        approvals.decide(
            approval.pk,
            Verdict.APPROVE,
            "As planned; nobody else's objects are touched.",
            actor=operator,
            expected_digest=approval.subject_digest,
        )


def _applied(change: ChangeRequest) -> bool:
    change.refresh_from_db()
    if change.status == RequestStatus.ACTIVE:
        return True
    return wait_for(lambda: not missing_declarations(change), lambda: running.apply_cluster(change.cluster_id))


def teams_on_borealis(context: Context) -> str:
    """Research works on slices; Finance asks for 32 GPUs from Saturday to Sunday, every week."""
    cluster = Cluster.objects.filter(slug=company.BOREALIS_SLUG).first()
    if cluster is None:
        return "there is no second cluster"
    made = 0
    for plan in company.BOREALIS_TEAMS:
        team = Team.objects.get(slug=plan.team)
        workspace = Workspace.objects.filter(team=team, cluster=cluster, environment=plan.environment).first()
        if workspace is None:
            workspace = quotas.create_workspace(
                team.pk, cluster.pk, plan.environment, list(plan.data_classes), actor=SEEDER
            )
        flavour = Flavour.objects.filter(pools__cluster=cluster, **plan.flavour).order_by("pk").first()
        if flavour is None or QuotaRequest.objects.filter(workspace=workspace).exists():
            continue
        start = clock.now()
        until = start + timedelta(days=plan.days) if plan.days else None
        try:
            request = quotas.request_quota(
                workspace.pk, flavour.pk, plan.guaranteed, BorrowMode.NONE, 0, None, until, plan.reason,
                actor=_actor(context, plan.lead), extras=Extras(recurrence=plan.recurrence),
            )  # fmt: skip
        except CommonsError as error:
            return f"not made: {error}"
        made += 1
        if plan.decided:
            _approve(context, request)
    return f"{made} requests" if made else "as before"


def _approve(context: Context, request: QuotaRequest) -> None:
    for key in ("vp", "admin"):
        request.refresh_from_db()
        approval = waiting_for(_person(context, key)).filter(pk=request.approval_id or 0).first()
        if approval is not None:
            approvals.decide(
                approval.pk, Verdict.APPROVE, "Within the plan for this quarter.", actor=_actor(context, key),
                expected_digest=approval.subject_digest,
            )  # fmt: skip


#: What the clusters are and can do, before anybody asks for quota there.
CLUSTER_STEPS: tuple[Step, ...] = (
    Step("Second cluster: slices and a cloud burst", borealis),
    Step("Baselines of the clusters, requested and approved", baselines),
)
#: Once the first cluster's quota of today stands.
TEAM_STEPS: tuple[Step, ...] = (Step("Teams on the second cluster", teams_on_borealis),)
