"""The idle policy of a workspace: what may be asked for, and that only what was approved is in force and declared."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.urls import reverse

from apps.approvals import actions as approvals
from apps.core.actor import Actor
from apps.core.errors import Invalid, NotAllowed
from apps.provisioning.models import DeclaredObject
from apps.quotas import idle_policy
from apps.quotas.changes import request_change
from apps.quotas.choices import ChangeKind, RequestStatus
from apps.quotas.idle_policy import ANNOTATION, IdlePolicy, check, of
from apps.quotas.models import ChangeRequest, Workspace
from tests.factories import client_for
from tests.quotas.change_kinds import CHANGE_POLICY
from tests.quotas.conftest import World

REASON = "Notebooks hold GPUs over night."
VALUES: dict[str, Any] = {"enabled": True, "threshold_percent": 5, "idle_minutes": 120, "notice_minutes": 60}


@pytest.fixture
def changing(world: World) -> World:
    """The policy for changes is published."""
    approvals.publish_policy("change", "Changes", "quotas.change", CHANGE_POLICY, actor=Actor.of(world.company.admin))
    return world


def ask(world: World, values: dict[str, Any], *, by: Any = None) -> ChangeRequest:
    """Request a policy for the finance team's workspace."""
    return request_change(
        ChangeKind.IDLE_POLICY,
        cluster_id=world.cluster.pk,
        workspace_id=world.workspaces["finance"].pk,
        values=values,
        reason=REASON,
        actor=Actor.of(by or world["lead_finance"]),
    )


def approve(world: World, change: ChangeRequest) -> None:
    """Approve as the unit's owner."""
    change.refresh_from_db()
    assert change.approval is not None
    approvals.decide(
        change.approval.pk,
        "approve",
        "As agreed with the team.",
        actor=Actor.of(world.company.vp),
        expected_digest=change.approval.subject_digest,
    )


def in_force(world: World) -> IdlePolicy:
    """The policy of the finance team's workspace now."""
    return of(Workspace.objects.get(pk=world.workspaces["finance"].pk).idle_policy)


def annotation(world: World) -> str | None:
    """What is declared on its namespace."""
    row = DeclaredObject.objects.get(declaration__owner_uid=world.workspaces["finance"].uid, kind="Namespace")
    meta = json.loads(bytes(row.body))["metadata"]
    found: str | None = meta.get("annotations", {}).get(ANNOTATION)
    return found


@pytest.mark.requirement("insights-3.1")
@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"enabled": True, "threshold_percent": 0}, "threshold_percent"),
        ({"enabled": True, "threshold_percent": 51}, "threshold_percent"),
        ({"enabled": True, "threshold_percent": True}, "threshold_percent"),
        ({"enabled": True, "idle_minutes": 30}, "idle_minutes"),
        ({"enabled": True, "notice_minutes": 1}, "notice_minutes"),
        ({"enabled": True, "spared_kinds": ["Notebook"]}, "spared_kinds"),
        ({"enabled": True, "spared_priorities": "high"}, "spared_priorities"),
        ({"enabled": True, "action": "delete"}, "action"),
        ({"enabled": "yes"}, "enabled"),
        ({"enabled": True, "grace": 1}, "grace"),
    ],
)
def test_what_cannot_be_a_policy_is_said_at_its_field(values: dict[str, Any], field: str) -> None:
    """Each with what to do."""
    with pytest.raises(Invalid) as caught:
        check(values)
    assert list(caught.value.errors) == [field]


@pytest.mark.requirement("insights-3.1")
def test_a_policy_survives_being_stored() -> None:
    """What is approved is what is read back; off is nothing at all."""
    policy = check({**VALUES, "spared_kinds": ["Job"], "spared_priorities": ["b", "a"]})
    assert of(json.loads(json.dumps(policy.plain()))) == policy
    assert policy.spared_priorities == ("a", "b")
    assert check({"enabled": False, "threshold_percent": 3}).plain() == {}
    assert not of({}).enabled
    assert idle_policy.annotations_of({}) == {}


@pytest.mark.requirement("insights-3.2")
def test_what_serves_in_production_is_spared_unless_stated() -> None:
    """Jobs are not; elsewhere nothing is."""
    policy = IdlePolicy(enabled=True)
    assert policy.spares("Deployment", "production")
    assert policy.spares("InferenceService", "production")
    assert not policy.spares("Job", "production")
    assert not policy.spares("Deployment", "development")
    assert not IdlePolicy(enabled=True, production_serving=True).spares("Deployment", "production")
    assert IdlePolicy(enabled=True, spared_kinds=("Job",)).spares("Job", "development")


@pytest.mark.requirement("insights-3.3")
def test_only_an_approved_policy_is_in_force_and_declared(changing: World) -> None:
    """Requested is not in force; approved it stands on the namespace, and so it does after the next quota change."""
    changing.granted("finance", 10)
    change = ask(changing, VALUES)
    assert change.status == RequestStatus.IN_REVIEW
    assert not in_force(changing).enabled
    assert annotation(changing) is None
    assert {line["path"] for line in change.change["settings"]} >= {"Idle work is stopped", "Idle for, minutes"}
    approve(changing, change)
    assert in_force(changing) == check(VALUES)
    declared = annotation(changing)
    assert declared is not None
    assert of(json.loads(declared)) == check(VALUES)
    changing.granted("finance", 12)
    assert annotation(changing) == declared

    off = ask(changing, {"enabled": False})
    approve(changing, off)
    assert not in_force(changing).enabled
    assert annotation(changing) is None


@pytest.mark.requirement("insights-3.3")
def test_a_workspace_that_is_not_on_its_cluster_yet_has_a_policy_too(changing: World) -> None:
    """It is declared with the first quota."""
    change = ask(changing, VALUES)
    approve(changing, change)
    assert in_force(changing).enabled
    changing.granted("finance", 4)
    assert annotation(changing) is not None


@pytest.mark.requirement("insights-3.3")
def test_who_may_ask(changing: World) -> None:
    """Leads, the unit's owner and platform admins; members may not."""
    with pytest.raises(NotAllowed):
        ask(changing, VALUES, by=changing["member_finance"])
    assert ask(changing, VALUES, by=changing["vp"]).workspace == changing.workspaces["finance"]


@pytest.mark.requirement("insights-3.1")
def test_the_page_asks_and_says_what_is_wrong(changing: World) -> None:
    """A refusal stands beside its field; a good request leads to the change."""
    place = changing.workspaces["finance"]
    url = reverse("quotas:workspace-idle-policy", kwargs={"workspace_uid": place.uid})
    client = client_for(changing["lead_finance"])
    page = client.get(url)
    assert page.status_code == 200
    assert "Idle work is left alone." in page.content.decode()
    data = {**VALUES, "enabled": "on", "spared_priorities": "gpu-commons-production, vip", "reason": REASON}
    refused = client.post(url, {**data, "threshold_percent": "90"})
    assert refused.status_code == 400
    assert "from 1 to 50" in refused.content.decode()
    done = client.post(url, data)
    change = ChangeRequest.objects.get()
    assert done["Location"] == reverse("quotas:change-detail", kwargs={"change_uid": change.uid})
    assert change.values["spared_priorities"] == ["gpu-commons-production", "vip"]
