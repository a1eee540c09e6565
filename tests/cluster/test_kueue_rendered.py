"""What the portal's own rendering brings about where Kueue's controller runs: each belief of docs/kueue.md, tried."""

from __future__ import annotations

import itertools
import os
from typing import Any

import pytest

from apps.clusters import detecting, errors
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.core.copies import copied
from apps.provisioning import levers
from apps.provisioning.diff import declared_changes
from apps.quotas import kueue_rules
from apps.quotas.guard_policy import guard_manifests
from apps.quotas.kueue import Share
from apps.quotas.kueue_baseline import FlavourSpec
from apps.quotas.waiting_reasons import explain, why
from tests.cluster.conftest import await_that, fresh
from tests.cluster.helpers import GPU, Manifest, deployment, job, merge_patch, pod, thing
from tests.cluster.rendered import Company

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("controller")]
if not os.environ.get("COMMONS_TEST_KUBECONFIG"):
    # The simulated cluster has quick tests of the same rules of its own (tests/demo/cluster).
    pytestmark.append(pytest.mark.full)


def _gone(api: KubernetesClient, kind: str, obj: Manifest) -> bool:
    """Whether an object is no longer there."""
    meta = obj["metadata"]
    try:
        return bool(api.get(kind, meta["name"], meta.get("namespace", ""))["metadata"]["uid"] != meta["uid"])
    except errors.NotFound:
        return True


@pytest.fixture
def company(api: KubernetesClient) -> Company:
    """A company of this test's own."""
    return Company(api)


@pytest.fixture
def pods(api: KubernetesClient) -> None:
    """Only where Kueue queues pods, too."""
    if not detecting.detect(api, version="", nodes=None).kueue.pod_integration:
        pytest.skip("Kueue's pod integration is off on this cluster")


@pytest.mark.requirement("kueue-1.2", "simulated-kueue-2.1")
def test_a_job_within_the_guarantee_starts_with_all_it_requests_accounted_for(company: Company) -> None:
    """Nothing that was rendered is rewritten by a webhook; the job holds cores, memory and pods besides its GPUs."""
    name = fresh()
    sent = company.hold(name, "retail", [Share(company.flavour, GPU, 2, 2)])
    for manifest in sent:
        meta = manifest["metadata"]
        live = company.api.get(manifest["kind"], meta["name"], meta.get("namespace", ""))
        assert declared_changes(manifest, live) == []
    company.start(name, "train", 2)
    (given,) = company.workload(name, "train")["status"]["admission"]["podSetAssignments"]
    any_node = dict.fromkeys(("cpu", "memory", "pods"), company.any_node)
    assert given["flavors"] == {GPU: company.flavour} | any_node
    assert given["resourceUsage"] == {"cpu": "10m", "memory": "16Mi", "pods": "1", GPU: "2"}
    await_that(lambda: company.use(name) == (2, 0))
    local = company.api.get("LocalQueue", "default", name)["status"]
    assert (local["admittedWorkloads"], local["pendingWorkloads"]) == (1, 0)


@pytest.mark.requirement("kueue-1.1", "simulated-kueue-3.1")
def test_a_job_without_a_queue_goes_to_the_default_one(company: Company) -> None:
    """That is why the portal's LocalQueue has that name. What the job leaves unsaid counts as its pods will have it."""
    name = company.workspace(1)
    await_that(lambda: company.api.get("LocalQueue", "default", name).get("status"))
    body = job(name, "plain", 1)
    body["spec"]["template"]["spec"]["containers"][0]["resources"] = {"limits": {GPU: "1"}}
    company.api.create(body)
    company.starts(name, "plain")
    found = company.api.get("Job", "plain", name)["metadata"]["labels"]
    assert found["kueue.x-k8s.io/queue-name"] == "default"
    (given,) = company.workload(name, "plain")["status"]["admission"]["podSetAssignments"]
    assert given["resourceUsage"] == {"cpu": "500m", "memory": "1Gi", "pods": "1", GPU: "1"}


@pytest.mark.requirement("kueue-1.3", "simulated-kueue-2.2")
def test_borrowing_ends_at_the_maximum(company: Company) -> None:
    """With borrowing, without it, and never more than others lend; the reasons are ones the portal explains."""
    lender = company.workspace(4, lend=3)
    borrower = company.workspace(2, 4)
    company.start(borrower, "own", 2)
    company.start(borrower, "borrowed", 2)
    await_that(lambda: company.use(borrower) == (4, 2))
    company.submit(borrower, "more", 1)
    reason, message = company.waits(borrower, "more")
    assert why(reason, message).kind == "queue"
    assert explain(message) is not None
    company.submit(borrower, "never", 5)
    reason, message = company.waits(borrower, "never")
    assert why(reason, message).kind == "queue_never"
    assert explain(message) is not None
    within = company.workspace(1)  # and lends nobody anything: it is in use
    company.start(within, "own", 1)
    company.submit(within, "more", 1)
    assert explain(company.waits(within, "more")[1]) is not None
    company.change(borrower, maximum=9)
    company.starts(borrower, "more")
    await_that(lambda: company.use(borrower) == (5, 3))
    company.submit(borrower, "kept", 1)  # the fourth is not lent, though nobody uses it
    company.waits(borrower, "kept")
    company.start(lender, "kept", 1)


@pytest.mark.requirement("kueue-2.2", "simulated-kueue-2.3")
def test_what_is_lent_comes_back_whatever_the_priority(company: Company) -> None:
    """Of the borrower the lowest priority goes first, then what was admitted last; no more than what is wanted."""
    high, low = company.priority(1000), company.priority(10)
    lender = company.workspace(3)
    borrower = company.workspace(1, 4, unit="research")
    for name, priority in (("low", low), ("first", high), ("second", high), ("third", high)):
        company.start(borrower, name, 1, priority=priority)
        company.second_passes(borrower, name)
    company.start(lender, "one", 1, priority=low)
    company.stops(borrower, "low")
    company.start(lender, "two", 1)
    company.stops(borrower, "third")
    assert not company.suspended(borrower, "first")
    assert not company.suspended(borrower, "second")
    assert company.condition(borrower, "third", "Evicted")["reason"] == "Preempted"
    assert company.condition(borrower, "third", "Preempted")["reason"] == "InCohortReclamation"
    company.start(lender, "three", 1)
    await_that(lambda: company.use(borrower) == (1, 0))
    company.submit(lender, "four", 1, priority=high)
    company.waits(lender, "four")
    assert not company.suspended(borrower, "first")


@pytest.mark.requirement("kueue-2.2", "simulated-kueue-2.4")
def test_who_would_borrow_evicts_nobody_within_the_guarantee(company: Company) -> None:
    """Monday, 3 a.m.: a burst of the highest priority takes what idles and evicts lower work of its own queue only."""
    high, low = company.priority(1000), company.priority(10)
    serving, burst = company.workspace(2), company.workspace(1, 4)
    company.start(serving, "one", 1, priority=low)
    company.start(serving, "two", 1, priority=low)
    company.start(burst, "own", 1, priority=low)
    company.submit(burst, "urgent", 2, priority=high)
    company.waits(burst, "urgent")
    company.start(burst, "instead", 1, priority=high)
    company.stops(burst, "own")
    assert company.condition(burst, "own", "Preempted")["reason"] == "InClusterQueue"
    assert not company.suspended(serving, "one")
    assert not company.suspended(serving, "two")


@pytest.mark.requirement("kueue-2.2", "simulated-kueue-2.3")
def test_a_unit_has_its_own_quota_before_other_units_borrowers(company: Company) -> None:
    """A workspace that borrows within its unit takes back what a workspace of another unit borrowed of that unit."""
    company.workspace(2)
    sibling, stranger = company.workspace(0, 2), company.workspace(0, 2, unit="research")
    company.start(stranger, "away", 2)
    company.start(sibling, "home", 2)
    company.stops(stranger, "away")
    assert company.condition(stranger, "away", "Preempted")["reason"] == "InCohortReclamation"


@pytest.mark.requirement("simulated-kueue-2.5", "simulated-kueue-3.7")
def test_a_quota_below_use_evicts_nobody_until_the_owner_of_the_gpus_comes(company: Company) -> None:
    """The excess shows as borrowed, also where nothing may be borrowed; nothing more is admitted."""
    shrunk, grown = company.workspace(3), company.workspace(0)
    company.start(shrunk, "small", 1)
    company.start(shrunk, "large", 2)
    company.change(shrunk, guaranteed=1, maximum=1)
    company.change(grown, guaranteed=2)
    await_that(lambda: company.use(shrunk) == (3, 2))
    company.submit(shrunk, "more", 1)
    company.waits(shrunk, "more")
    assert not company.suspended(shrunk, "large")
    company.start(grown, "mine", 2)
    company.stops(shrunk, "large")
    assert not company.suspended(shrunk, "small")


@pytest.mark.requirement("kueue-1.5", "simulated-kueue-3.5")
def test_the_ladder_holds_then_drains_and_opens_again(company: Company) -> None:
    """As rendered for each rung; what is drained comes back by itself when quota does."""
    name = company.workspace(2)
    company.start(name, "old", 1)
    company.change(name, rung="stopped_admitting")
    await_that(lambda: company.queue(name)["conditions"][0]["reason"] == "Stopped")
    company.submit(name, "new", 1)
    reason, message = company.waits(name, "new")
    assert why(reason, message).kind == "queue"
    assert company.suspended(name, "new")
    assert not company.suspended(name, "old")
    company.change(name, rung="drained")
    company.stops(name, "old")
    assert company.condition(name, "old", "Evicted")["reason"] == "ClusterQueueStopped"
    company.change(name, rung="none")
    company.starts(name, "old")
    company.starts(name, "new")


@pytest.mark.requirement("simulated-kueue-3.6")
def test_an_idle_job_is_stopped_by_its_workload_and_comes_back(company: Company) -> None:
    """By the lever of idle policies: the Workload of the Job, and `active` given back to nobody afterwards."""
    name = company.workspace(1)
    company.start(name, "idle", 1)
    target = levers.prepare(company.api, "Job", name, "idle", {})
    assert target.kind == "Workload"
    levers.pull(company.api, target)
    company.stops(name, "idle")
    await_that(lambda: company.condition(name, "idle", "Evicted").get("reason") == "Deactivated")
    await_that(lambda: company.use(name) == (0, 0))
    company.start(name, "next", 1)
    assert levers.look(company.api, name, target.before)
    assert levers.release(company.api, name, target.before) == ""
    company.waits(name, "idle")
    company.api.delete("Job", "next", name)
    company.starts(name, "idle")
    assert not levers.is_ours(company.workload(name, "idle"))


@pytest.mark.requirement("simulated-kueue-2.2", "simulated-kueue-3.8")
def test_what_a_queue_does_not_admit_at_all(company: Company) -> None:
    """A resource it does not cover; a namespace that is not its own; a flavour that does not exist."""
    name, other = company.workspace(1), company.workspace(1)
    company.submit(name, "scratch", 1, resources={"ephemeral-storage": "1Mi"})
    reason, message = company.waits(name, "scratch")
    assert "ephemeral-storage" in message
    assert why(reason, message).kind == "queue_never"
    company.api.apply(thing("LocalQueue", "foreign", other, spec={"clusterQueue": name}))
    company.submit(other, "guest", 1, queue="foreign")
    assert "namespace" in company.waits(other, "guest")[1].lower()
    broken = fresh()
    company.hold(broken, "retail", [Share("no-such-flavour", GPU, 1, 1)])
    found = await_that(lambda: company.queue(broken).get("conditions"))[0]
    assert (found["status"], found["reason"]) == ("False", "FlavorNotFound")


@pytest.mark.requirement("simulated-kueue-2.1", "kueue-1.8")
def test_one_resource_in_two_flavours_goes_by_the_nodes_that_a_job_asks_for(api: KubernetesClient) -> None:
    """In the order of the queue else; a flavour that is used up leaves the other one."""
    a, h = sorted((fresh(), fresh()))
    company = Company(api, [FlavourSpec(slug, {"example.com/model": slug}) for slug in (a, h)])
    name = company.workspace(2, shares=[Share(h, GPU, 2, 2)])
    company.start(name, "wants", 1, nodeSelector={"example.com/model": h})
    company.start(name, "takes", 2)
    company.start(name, "spills", 1)
    await_that(lambda: (company.use(name, a), company.use(name, h)) == ((2, 0), (2, 0)))
    given = company.api.get("Job", "spills", name)["spec"]["template"]["spec"]["nodeSelector"]
    assert given == {"example.com/model": h}
    company.submit(name, "nowhere", 1, nodeSelector={"example.com/model": "none"})
    assert why(*company.waits(name, "nowhere")).kind == "queue_never"


@pytest.mark.requirement("kueue-3.1", "simulated-kueue-2.1")
def test_nodes_in_racks_take_jobs_that_say_nothing_of_racks(api: KubernetesClient) -> None:
    """A flavour with a topology takes only jobs that ask for one, and beside other flavours not even those."""
    slug = fresh()
    levels = ("topology.kubernetes.io/rack", "kubernetes.io/hostname")
    company = Company(api, [FlavourSpec(slug, {"example.com/model": slug}, levels=levels)])
    name = company.workspace(1)
    company.start(name, "train", 1)
    await_that(lambda: company.use(name) == (1, 0))


@pytest.mark.requirement("simulated-kueue-3.5")
def test_a_deleted_queue_stays_until_its_work_ends(company: Company) -> None:
    """Its finalizer is Kueue's; it admits nothing meanwhile."""
    name = company.workspace(2)
    company.start(name, "work", 1)
    queue = company.api.get("ClusterQueue", name)
    company.api.delete("ClusterQueue", name)
    await_that(lambda: company.queue(name)["conditions"][0]["reason"] == "Terminating")
    company.submit(name, "late", 1)
    company.waits(name, "late")
    assert not company.suspended(name, "work")
    company.api.delete("Job", "work", name)
    await_that(lambda: _gone(company.api, "ClusterQueue", queue))


@pytest.mark.requirement("drift-3.2", "simulated-kueue-3.5")
def test_the_guard_lets_the_controller_work(api: KubernetesClient, served: frozenset[str], company: Company) -> None:
    """Under Deny it admits, counts, and lifts its finalizer; others change no number."""
    if "admissionregistration.k8s.io" not in served:
        pytest.skip("admissionregistration.k8s.io is not served on this cluster")
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    myself = str(api.create(review).object["status"]["userInfo"]["username"])
    name, mark = company.workspace(2), "gpu-commons-test/guarded"
    queue = api.get("ClusterQueue", name)
    labels = {"metadata": {"name": name, "labels": {mark: name}}}
    merge_patch(api, {**thing("ClusterQueue", name), **labels}, "kubectl-label")

    def guard(portal: str) -> None:
        for manifest in guard_manifests("deny", portal, {}):
            manifest["metadata"]["name"] = name
            if manifest["kind"] == "ValidatingAdmissionPolicy":
                manifest["spec"]["matchConstraints"]["objectSelector"]["matchLabels"][mark] = name
            else:
                manifest["spec"]["policyName"] = name
            api.apply(manifest)

    def edit(**spec: Any) -> Exception | None:
        try:
            merge_patch(api, {**thing("ClusterQueue", name), "spec": spec}, "kubectl-edit")
        except errors.ClusterError as error:
            return error
        return None

    try:
        guard("nobody@example.com")
        stops = itertools.cycle(("Hold", "None"))
        await_that(lambda: isinstance(edit(stopPolicy=next(stops)), errors.Forbidden))
        if api.get("ClusterQueue", name)["spec"]["stopPolicy"] == "Hold":  # what the guard came too late for
            guard(myself)
            await_that(lambda: edit(stopPolicy="None") is None)
        company.start(name, "train", 1)
        await_that(lambda: company.use(name) == (1, 0))
        guard(myself)

        def deleted() -> bool:
            try:
                api.delete("ClusterQueue", name)
            except errors.Forbidden:
                return False
            return True

        await_that(deleted)
        api.delete("Job", "train", name)
        await_that(lambda: _gone(api, "ClusterQueue", queue))
    finally:
        api.delete("ValidatingAdmissionPolicyBinding", name)
        api.delete("ValidatingAdmissionPolicy", name)


# -- pods --------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("pods")
@pytest.mark.requirement("simulated-kueue-3.9")
def test_pods_wait_at_a_gate_and_are_never_stopped_by_the_portal(company: Company) -> None:
    """With a queue or without one; draining ends them for good, so the portal's lever does not touch them.

    A pod at its gate counts in the ResourceQuota already: what waits at a gate waits below the maximum.
    """
    name = company.workspace(1, 2)
    await_that(lambda: company.api.get("LocalQueue", "default", name).get("status"))

    def gated(pod_name: str) -> bool:
        return bool(company.api.get("Pod", pod_name, name)["spec"].get("schedulingGates"))

    company.api.create(pod(name, "first", 1))
    await_that(lambda: not gated("first"))
    company.api.create(pod(name, "second", 1))
    company.waits(name, "second")
    assert gated("second")
    found = company.api.get("Pod", "second", name)["metadata"]["labels"]
    assert found["kueue.x-k8s.io/queue-name"] == "default"
    with pytest.raises(errors.Forbidden, match="exceeded quota"):
        company.api.create(pod(name, "third", 1))
    workload = company.workload(name, "first")["metadata"]["name"]
    with pytest.raises(levers.Refusal, match="deletes nothing"):
        levers.prepare(company.api, "Workload", name, workload, {})
    company.change(name, rung="drained")

    def ended() -> bool:
        try:
            found = company.api.get("Pod", "first", name)
        except errors.NotFound:
            return True
        return bool(found["metadata"].get("deletionTimestamp"))

    await_that(ended)
    assert gated("second")


@pytest.mark.usefixtures("pods")
@pytest.mark.requirement("simulated-kueue-3.9", "simulated-kueue-3.6")
def test_replicas_of_a_deployment_queue_one_by_one_and_stop_by_their_number(company: Company) -> None:
    """What the quota holds runs, the rest waits; scaled to nothing it frees the quota, and comes back."""
    name = company.workspace(2, 3)
    await_that(lambda: company.api.get("LocalQueue", "default", name).get("status"))
    body = deployment(name, "serve", 3)
    resources = body["spec"]["template"]["spec"]["containers"][0]["resources"]
    for part in ("requests", "limits"):
        resources[part] |= {GPU: "1", "memory": "16Mi"}
    company.api.create(body)

    def gates() -> list[bool]:
        found = company.api.list("Pod", name).items
        return sorted(
            bool(one["spec"].get("schedulingGates")) for one in found if not one["metadata"].get("deletionTimestamp")
        )

    await_that(lambda: company.use(name) == (2, 0) and gates() == [False, False, True])
    target = levers.prepare(company.api, "Deployment", name, "serve", {})
    levers.pull(company.api, target)
    await_that(lambda: company.use(name) == (0, 0), seconds=60)
    assert levers.release(company.api, name, target.before) == ""
    await_that(lambda: company.use(name) == (2, 0) and gates() == [False, False, True], seconds=60)


# -- what is refused ---------------------------------------------------------------------------------------------------


def _gpus(queue: Manifest) -> Manifest:
    found: Manifest = queue["spec"]["resourceGroups"][1]["flavors"][0]["resources"][0]
    return found


_REFUSED: list[tuple[str, Any]] = [
    ("order", lambda q: q["spec"]["resourceGroups"][0]["flavors"][0]["resources"].reverse()),
    ("twice", lambda q: q["spec"]["resourceGroups"].append(q["spec"]["resourceGroups"][1])),
    ("negative", lambda q: _gpus(q).update(nominalQuota="-1")),
    ("lend", lambda q: _gpus(q).update(lendingLimit="17")),
    ("cohort", lambda q: q["spec"].pop("cohortName")),
    ("reclaim", lambda q: q["spec"].update(preemption={"borrowWithinCohort": {"policy": "LowerPriority"}})),
    ("preference", lambda q: q["spec"]["flavorFungibility"].update(preference="BorrowingOverPreemption")),
    ("weight", lambda q: q["spec"]["fairSharing"].update(weight="1e-10")),
    ("many", lambda q: q["spec"]["resourceGroups"][1].update(
        flavors=[{"name": f"f{n}", "resources": [_gpus(q)]} for n in range(65)])),
    ("stop", lambda q: q["spec"].update(stopPolicy="Drain")),
    ("check", lambda q: q["spec"].update(
        admissionChecksStrategy={"admissionChecks": [{"name": "x", "onFlavors": ["b200"]}]})),
]  # fmt: skip


@pytest.mark.requirement("simulated-kueue-1.4", "kueue-1.2")
def test_what_the_portal_says_beforehand_the_controllers_webhooks_refuse(company: Company) -> None:
    """Nothing that the portal warns of would be taken, and the queue itself is."""
    rendered = company.render(fresh(), "retail", [Share(company.flavour, GPU, 16, 16)])
    queue = company.named(next(one for one in rendered if one["kind"] == "ClusterQueue"))
    company.api.apply(queue, dry_run=True)
    taken = []
    for name, spoil in _REFUSED:
        spoilt = copied(queue)
        spoil(spoilt)
        assert kueue_rules.check([spoilt]), name
        try:
            company.api.apply(spoilt, dry_run=True)
        except (errors.InvalidObject, errors.Forbidden):
            continue
        taken.append(name)
    assert taken == []


_REFUSED_ELSEWHERE: list[tuple[str, Any]] = [
    ("ResourceFlavor", {"tolerations": [{"operator": "Equal"}]}),
    ("ResourceFlavor", {"tolerations": [{"key": "a", "operator": "Exists", "value": "x"}]}),
    ("ResourceFlavor", {"tolerations": [{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 1}]}),
    ("Cohort", {"resourceGroups": [{"coveredResources": [GPU], "flavors": [{"name": "f", "resources": [
        {"name": GPU, "nominalQuota": "1", "borrowingLimit": "1"}]}]}]}),
    ("Topology", {"levels": [{"nodeLabel": "kubernetes.io/hostname"}, {"nodeLabel": "r"}]}),
]  # fmt: skip


@pytest.mark.requirement("simulated-kueue-1.4", "kueue-1.2")
def test_and_of_the_other_kinds(api: KubernetesClient) -> None:
    """Each by the definitions or by a webhook."""
    taken = []
    for kind, spec in _REFUSED_ELSEWHERE:
        body = thing(kind, fresh(), "default", spec=spec)
        assert kueue_rules.check([body]), kind
        try:
            api.apply(body, dry_run=True)
        except (errors.InvalidObject, errors.Forbidden):
            continue
        taken.append((kind, spec))
    assert taken == []
