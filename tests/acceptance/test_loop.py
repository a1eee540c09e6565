"""Once round the loop: request, plan, decide, apply, observe, meter, price, report; by pages and API, as every role."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core import mail
from django.test import Client
from django.urls import reverse

from apps.approvals import actions as approvals
from apps.approvals import selectors as approving
from apps.approvals.models import ApprovalRequest, Grant
from apps.audit.models import AuditEvent, AuditHead
from apps.audit.verification import verify_trail
from apps.core import clock
from apps.core.errors import NotAllowed
from apps.core.money import MILLISECONDS_PER_HOUR, Money
from apps.core.testing import settle
from apps.costs import budget_figures
from apps.costs import selectors as costing
from apps.costs.reporting import month_report
from apps.demo import company, seed
from apps.metering import actions as metering
from apps.metering import billing
from apps.metering.choices import SourceKind
from apps.quotas import actions as quotas
from apps.quotas import selectors
from apps.quotas.choices import RequestStatus
from apps.quotas.models import QuotaRequest
from tests.acceptance.world import GPU, REASON, World, in_order, seal, trail, until

pytestmark = [pytest.mark.django_db, pytest.mark.cluster]


def text(response: Any) -> str:
    return re.sub(r"\s+", " ", response.content.decode())


def submitted_on_the_page(world: World, **changes: Any) -> QuotaRequest:
    """The Finance team lead fills in the form and follows where it leads."""
    lead = world.client("finance-lead")
    estimate = text(lead.post(reverse("quotas:request-estimate"), world.form(**changes)))
    assert "22,484.00 USD" in estimate
    assert "VP Business Lines" in estimate
    response = lead.post(reverse("quotas:request-create"), world.form(**changes))
    assert response.status_code == 303, text(response)
    found: QuotaRequest = QuotaRequest.objects.get(status=RequestStatus.IN_REVIEW)
    assert str(found.uid) in response.headers["Location"]
    return found


def submitted_by_api(world: World, **changes: Any) -> QuotaRequest:
    """The same through the API."""
    body = {
        "workspace": str(world.workspace().uid),
        "flavour": world.flavour.slug,
        "guaranteed": 8,
        "reason": REASON,
        **changes,
    }
    response = world.client("finance-lead").post("/api/v1/quota-requests", body, content_type="application/json")
    assert response.status_code == 201, response.content
    assert response.json()["monthly_cost_change"] == {
        "amount": "22484.00", "currency": "USD", "basis": response.json()["monthly_cost_change"]["basis"],
    }  # fmt: skip
    return QuotaRequest.objects.get(uid=response.json()["uid"])


def decide_url(approval: ApprovalRequest) -> str:
    return reverse("approvals:request-decide", kwargs={"request_uid": approval.uid})


def decided_on_the_page(client: Client, approval: ApprovalRequest, verdict: str = "approve") -> Any:
    shown = text(client.get(decide_url(approval)))
    digest = re.search(r'name="digest" value="([0-9a-f]{64})"', shown)
    version = re.search(r'name="version" value="(\d+)"', shown)
    assert digest
    assert version
    return client.post(
        decide_url(approval),
        {
            "digest": digest[1], "version": version[1], "verdict": verdict, "confirmed": "on",
            "reason": "Within the plan of the quarter.",
        },
    )  # fmt: skip


def run_pod(world: World, gpus: int) -> None:
    """Start something in the team's namespace, as kubectl would, and wait until it runs."""
    namespace = world.workspace().namespace
    amounts = {"nvidia.com/gpu": str(gpus), "cpu": "2", "memory": "4Gi"}
    container = {
        "name": "main", "image": "example/image:1", "resources": {"requests": amounts, "limits": amounts},
        "securityContext": {
            "allowPrivilegeEscalation": False, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }  # fmt: skip
    tolerations = [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    body = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "training", "namespace": namespace},
        "spec": {"restartPolicy": "Never", "tolerations": tolerations, "containers": [container]},
    }  # fmt: skip
    world.live.create(body)
    metered = "SELECT 1 FROM live_pods WHERE json_extract(body, '$.namespace') = ?"
    until(lambda: world.simulated.store.query(metered, (namespace,)), what="the pod runs")


def observed(world: World, team: str = "finance") -> tuple[int | None, int | None]:
    """What the team page knows of limit and use."""
    row = next(iter(selectors.team_quota_rows(world.workspace(team).team)), None)
    return (None, None) if row is None else (row.hard, row.used)


@pytest.mark.requirement(
    "resilience-1.1",
    "provisioning-2.1",
    "provisioning-3.1",
    "provisioning-4.1",
    "approvals-3.7",
    "approvals-5.1",
    "quotas-4.1",
)
@pytest.mark.parametrize("way", ["pages", "api"])
def test_once_round_the_loop(world: World, way: str) -> None:
    """From the lead's form to the VP's report, with nothing but the parts that run in production."""
    seal()
    since = AuditHead.objects.get().seq
    request = submitted_on_the_page(world) if way == "pages" else submitted_by_api(world)
    settle()
    request.refresh_from_db()
    approval = ApprovalRequest.objects.get(pk=request.approval_id)

    # Evidence: the cluster's own dry run, per object, on the page where the VP decides.
    assert request.plan is not None
    assert request.plan.status == "ready"
    assert {entry["kind"] for entry in request.plan.entries} >= {"Namespace", "ResourceQuota", "NetworkPolicy"}
    vp = world.client("vp")
    assert list(approving.waiting_for(world.user("vp"))) == [approval]
    assert [m.to for m in mail.outbox] == [[world.user("vp").email]]
    shown = text(vp.get(decide_url(approval)))
    assert "22,484.00 USD" in shown
    assert "ResourceQuota" in shown
    assert world.hard() is None

    # The decision, and what follows without anybody's help.
    if way == "pages":
        assert decided_on_the_page(vp, approval).status_code == 303
    else:
        answer = vp.post(
            f"/api/v1/approval-requests/{approval.uid}/decide",
            {"verdict": "approve", "reason": "Within the plan.", "subject_digest": approval.subject_digest},
            content_type="application/json",
            headers={"If-Match": f'"{approval.version}"'},
        )
        assert answer.status_code == 200, answer.content
    settle()
    request.refresh_from_db()
    assert request.status == RequestStatus.ACTIVE
    assert world.hard() == "8"

    # Used: seen on the team page, by selector and by eye.
    run_pod(world, 6)
    world.stage.advance(timedelta(minutes=1))
    until(lambda: settle(only=("provisioning.observe",)) >= 0 and observed(world) == (8, 6), what="use is observed")
    page = world.client("finance-lead").get("/teams/finance/")
    assert page.status_code == 200
    assert world.workspace().namespace in text(page) or "production" in text(page)

    # Metered from the cluster's allocation API, priced, reported.
    metering.register_source(
        world.cluster.pk, SourceKind.ALLOCATION, "", world.simulated.allocation_url, clock.now(), actor=seed.SEEDER
    )
    world.stage.advance(timedelta(hours=4))
    settle()
    team = world.workspace().team
    month = billing.month_of(clock.now())
    full_hours = 3  # 10:00 to 13:00; it began at 09:00 and runs on, so the first hour is whole but for a moment
    report = month_report(None, month, world.user("vp"))
    line = next(one for one in report.lines if one.slug == "finance")
    spent = Decimal(line.allocated_gpu_ms) / MILLISECONDS_PER_HOUR
    assert 6 * full_hours <= spent <= 6 * (full_hours + 1)
    assert line.amount == Money(spent * company.HOURLY_RATE, "USD").quantized()
    assert costing.month_to_date(team).quantized() == line.amount
    remaining = budget_figures.remaining(team.pk, clock.now())
    assert remaining == Money(Decimal("26000"), "USD") - line.amount
    assert f"{line.amount.amount:,}" in text(world.client("finance-lead").get("/teams/finance/"))
    shown = text(vp.get(f"/reports/monthly/business-lines/{month:%Y-%m}/"))
    assert f"{line.amount.amount:,}" in shown

    # The trail tells all of it, in this order, and nobody has touched it.
    steps = [
        "quotas.request.submitted", "approvals.request.submitted", "approvals.decision.made",
        "provisioning.declaration.declared", "quotas.request.granted", "approvals.request.approved",
        "provisioning.declaration.applied", "quotas.request.applied", "metering.source.registered",
    ]  # fmt: skip
    actions = trail(since=since)
    assert in_order(steps, actions), actions
    decision = AuditEvent.objects.get(action="approvals.decision.made", object_id=approval.uid)
    assert decision.actor_id == str(world.user("vp").uid)
    assert decision.channel == ("web" if way == "pages" else "api")
    found = verify_trail()
    assert (found.findings_total, found.weaknesses) == (0, [])


@pytest.mark.requirement("resilience-1.1", "approvals-5.2")
def test_each_role_sees_what_is_theirs_and_no_more(world: World) -> None:
    """The same request through every browser: who opens it, who may decide it, who finds nothing."""
    request = world.ask()
    settle()
    request.refresh_from_db()
    assert request.approval is not None
    page = reverse("quotas:request-detail", kwargs={"request_uid": request.uid})
    api = f"/api/v1/quota-requests/{request.uid}"
    team, above = {"finance-lead", "finance-engineer"}, {"vp", "group-owner"}
    may_see = team | above | {
        "compliance", "deputy-compliance", "admin", "operator", "controller", "deputy-controller", "auditor",
    }  # fmt: skip
    for person in company.PEOPLE:
        expected = 200 if person.key in may_see else 404
        client = world.client(person.key)
        assert client.get(page).status_code == expected, person.key
        assert client.get(api).status_code == expected, person.key
        decide = client.get(decide_url(request.approval)).status_code
        if person.key in ("vp", "group-owner"):  # who owns the unit, or one above it
            assert decide == 200
        else:
            assert decide in ((403, 404) if expected == 200 else (404,)), person.key


@pytest.mark.requirement("resilience-1.1", "approvals-3.1", "approvals-3.9", "quotas-4.5")
def test_who_asked_or_will_use_it_does_not_decide(world: World) -> None:
    """The requester, the requester with every power of the installation, and a member who owns the unit: none may."""
    request = world.ask()
    approval = ApprovalRequest.objects.get(pk=request.approval_id)
    lead = world.user("finance-lead")
    lead.is_superuser = True
    lead.save(update_fields=["is_superuser"])
    engineer = world.user("finance-engineer")
    unit = world.workspace().team.unit
    for person in (lead, engineer):
        from apps.teams import actions as teams

        teams.grant_role(person.pk, "unit_owner", unit_id=unit.pk, reason="Stands in", actor=seed.SEEDER)
    for key in ("finance-lead", "finance-engineer"):
        world.clients.pop(key, None)
        user = world.user(key)
        user.__dict__.pop("_commons_scopes", None)
        with pytest.raises(NotAllowed, match="cannot decide"):
            approvals.decide(
                approval.pk, "approve", "It is fine.", actor=world.actor(key), expected_digest=approval.subject_digest
            )
        form = {
            "digest": approval.subject_digest, "version": approval.version, "verdict": "approve", "confirmed": "on",
            "reason": "It is fine.",
        }  # fmt: skip
        assert world.client(key).post(decide_url(approval), form).status_code == 403
        answer = world.client(key).post(
            f"/api/v1/approval-requests/{approval.uid}/decide",
            {"verdict": "approve", "reason": "It is fine.", "subject_digest": approval.subject_digest},
            content_type="application/json",
            headers={"If-Match": f'"{approval.version}"'},
        )
        assert answer.status_code == 403
    approval.refresh_from_db()
    assert approval.status == "in_review"
    assert not Grant.objects.exists()
    assert AuditEvent.objects.filter(action="audit.access.refused").exists()


@pytest.mark.requirement("resilience-1.1", "approvals-2.3")
def test_small_changes_go_by_policy_until_thirty_days_are_used_up(world: World) -> None:
    """Two and two by the named rule, the fifth GPU needs the VP; thirty days later the rule has room again."""
    lead = world.client("finance-lead")
    for wanted in (2, 4):
        answer = lead.post(reverse("quotas:request-create"), world.form(guaranteed=wanted))
        assert answer.status_code == 303
        settle()
        assert world.hard() == str(wanted)
        request = QuotaRequest.objects.latest("pk")
        assert request.status == RequestStatus.ACTIVE
        assert "Small change within budget and room" in text(lead.get(answer.headers["Location"]))
    third = world.ask(guaranteed=5)
    assert third.status == RequestStatus.IN_REVIEW
    quotas.withdraw_request(third.pk, actor=world.actor("finance-lead"))
    world.stage.advance(timedelta(days=30, minutes=1))
    fourth = world.ask(guaranteed=5)
    assert fourth.approval is not None
    assert (fourth.approval.automatic, fourth.approval.automatic_rule) == (True, "Small change within budget and room")
    settle()
    assert world.hard() == "5"


@pytest.mark.requirement("resilience-1.1", "approvals-2.6", "approvals-4.4", "quotas-1.8")
def test_withdrawn_and_corrected_requests_leave_the_cluster_alone(world: World) -> None:
    """A correction voids what was decided on the earlier bytes; only what was decided last reaches the cluster."""
    first = world.ask(guaranteed=40)  # asks the platform, too: two stages
    settle()
    first.refresh_from_db()
    world.approve(first)
    assert first.approval is not None
    assert first.approval.status == "in_review"  # one of two seats
    lead = world.client("finance-lead")
    url = reverse("quotas:request-correct", kwargs={"request_uid": first.uid})
    answer = lead.post(url, world.form(guaranteed=30, version=first.version))
    assert answer.status_code == 303, text(answer)
    second = QuotaRequest.objects.get(supersedes=first)
    assert second.approval is not None
    assert second.approval.decisions.count() == 0
    first.refresh_from_db()
    assert first.status == RequestStatus.SUPERSEDED
    settle()
    assert world.hard() is None
    world.approve(second)
    world.approve(second, by="admin")
    settle()
    second.refresh_from_db()
    assert second.status == RequestStatus.ACTIVE
    assert world.hard() == "30"
    third = world.ask(guaranteed=35)
    withdraw = reverse("quotas:request-withdraw", kwargs={"request_uid": third.uid})
    done = lead.post(withdraw, {"version": third.version, "reason": "The campaign moved to next year."})
    assert done.status_code == 303
    settle()
    third.refresh_from_db()
    assert third.status == RequestStatus.WITHDRAWN
    assert world.hard() == "30"
    assert GPU in str(world.live.list("ResourceQuota", namespace=world.workspace().namespace).items)
