"""Pages and API of change requests."""

from __future__ import annotations

from datetime import timedelta

import pytest

from apps.core import clock
from apps.provisioning.choices import PlanStatus
from apps.provisioning.models import Plan
from apps.quotas import change_granting
from apps.quotas.models import ChangeRequest
from tests.factories import client_for
from tests.quotas.conftest import World
from tests.quotas.test_changes import ask, changing, handler  # noqa: F401 (fixtures)


@pytest.mark.requirement("change-requests-1.8")
def test_the_page_shows_settings_objects_and_plan(changing: World) -> None:  # noqa: F811 (fixture)
    change = ask(changing, drop=["NetworkPolicy"])
    entry = {"kind": "ResourceQuota", "name": "gpu-commons", "namespace": "finance-development", "operation": "update",
             "server_checked": True, "changes": [{"path": "spec.hard.pods", "before": "200", "after": "300"}],
             "conflicts": [], "warnings": ["a warning of the cluster"],
             "taken_over": [{"manager": "kubectl-edit", "field": ".spec.hard.pods", "message": ""}]}  # fmt: skip
    Plan.objects.filter(subject_uid=change.uid).update(status=PlanStatus.READY, entries=[entry], made_at=clock.now())
    client = client_for(changing["lead_finance"])
    page = client.get(f"/quotas/changes/{change.uid}/").content.decode()
    assert "/spec/hard/pods" in page
    assert "NetworkPolicy gpu-commons-default-deny" in page
    assert "a warning of the cluster" in page
    assert "Taken over from others when it is applied" in page
    assert "kubectl-edit: .spec.hard.pods" in page
    assert "Somebody else manages these fields" not in page
    assert "Decision: Unit owner" in page
    client = client_for(changing.company.vp)
    assert change.approval is not None
    decide = client.get(f"/approvals/requests/{change.approval.uid}/").content.decode()
    assert "spec.hard.pods" in decide


@pytest.mark.requirement("change-requests-1.7")
def test_lists_show_what_is_in_scope(changing: World) -> None:  # noqa: F811 (fixture)
    change = ask(changing)
    cluster_change = ChangeRequest.objects.create(
        cluster=changing.cluster, kind="baseline", title="Baseline of it", reason="x", change=change.change,
        requester=changing.company.admin,
    )  # fmt: skip
    client = client_for(changing["lead_finance"])
    page = client.get("/quotas/changes/").content.decode()
    assert change.title in page
    assert "Baseline of it" not in page
    assert client.get(f"/quotas/changes/{cluster_change.uid}/").status_code == 404
    assert client.get(f"/api/v1/change-requests/{cluster_change.uid}").status_code == 404
    client = client_for(changing["lead_marketing"])
    assert change.title not in client.get("/quotas/changes/").content.decode()
    client = client_for(changing.company.admin)
    assert "Baseline of it" in client.get("/quotas/changes/").content.decode()
    assert client.get(f"/quotas/changes/{cluster_change.uid}/").status_code == 200


@pytest.mark.requirement("change-requests-1.6")
def test_withdraw_through_page_and_api(changing: World) -> None:  # noqa: F811 (fixture)
    change = ask(changing)
    client = client_for(changing["lead_finance"])
    answer = client.post(f"/quotas/changes/{change.uid}/withdraw/", {"reason": "", "version": change.version})
    assert answer.status_code == 303
    change.refresh_from_db()
    assert change.status == "withdrawn"
    second = ask(changing)
    answer = client.post(
        f"/api/v1/change-requests/{second.uid}/withdraw", {}, content_type="application/json",
        headers={"If-Match": '"99"'},
    )  # fmt: skip
    assert answer.status_code == 412
    answer = client.post(f"/api/v1/change-requests/{second.uid}/withdraw", {}, content_type="application/json")
    assert (answer.status_code, answer.json()["status"]) == (200, "withdrawn")
    assert answer.json()["change"]["leaves"]


@pytest.mark.requirement("change-requests-3.3")
def test_a_cluster_change_is_planned_anew_when_something_lands(changing: World) -> None:  # noqa: F811 (fixture)
    change = ask(changing)
    # The same change, asked for the whole cluster.
    ChangeRequest.objects.filter(pk=change.pk).update(workspace=None)
    assert change_granting.changes_to_replan() == [change.pk]
    assert change_granting.replan_moved(change.pk) is False
    with clock.frozen(clock.now() + timedelta(minutes=1)):
        changing.granted("finance", 11)
        assert change_granting.replan_moved(change.pk) is True
    change.refresh_from_db()
    assert change.change["outdated"] is True  # the test's kind proposes nothing without a workspace
