"""Pages of endpoints, releases and rules: what people see, do, and are kept from."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse

from apps.approvals.models import ApprovalRequest, Grant
from apps.core import clock
from apps.deployments import rollout
from apps.deployments.choices import ReleaseStatus
from apps.deployments.forms import ladder_text, read_ladder
from apps.deployments.models import Endpoint, PlacementRule, Release
from apps.deployments.spec import Rung
from tests.deployments.world import LADDER, World, make_world
from tests.factories import Company, client_for

pytestmark = pytest.mark.django_db
Limit = Callable[[int], AbstractContextManager[Any]]


@pytest.fixture
def world(company: Company, frozen_clock: Any) -> World:
    return make_world(company)


def form(world: World, environment: str = "development", **changes: Any) -> dict[str, Any]:
    """What the browser sends for a release."""
    return {
        "workspace": world.workspaces[environment].pk, "model_version": world.version.pk, "name": "fraud",
        "flavour": world.flavour.pk, "units_per_replica": 1, "cpu": 4, "memory_gib": 16, "tier": "hot",
        "min_replicas": 2, "max_replicas": 2, "ladder": ladder_text(LADDER), "error_percent": "5",
        "window_minutes": 10, "expiry_action": "block_new", "reason": "Scores payments before they are settled.",
        **changes,
    }  # fmt: skip


def text_of(response: Any) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", response.content.decode()))


@pytest.mark.requirement("releases-4.1")
def test_the_panel_shows_cost_room_placement_tiers_and_approvers_while_typing(world: World, query_limit: Limit) -> None:
    client = client_for(world["lead_finance"])
    url = reverse("deployments:release-estimate")
    with query_limit(44):
        response = client.post(url, form(world, "production"))
    shown = text_of(response)
    # 2 × 3.85 × 730 at both sizes: hot is always at full size.
    assert "5,621.00 USD" in shown
    for part in (
        "whether there is room now is not known",
        "Guaranteed quota of A100",
        "on premises, EU",
        "Unit owner",
        "Cold",
    ):
        assert part in shown
    tight = text_of(client.post(url, form(world, "production", min_replicas=9, max_replicas=9)))
    assert "It would be refused" in tight
    assert "1 too many" in tight
    assert "At least: " in text_of(client.post(url, form(world, min_replicas=-1)))
    assert "Choose workspace, version" in text_of(client.post(url, {}))
    assert "never approved" in text_of(
        client.post(url, form(world, model_version=world.next_version(approved=False).pk))
    )
    assert Endpoint.objects.count() == 0


@pytest.mark.requirement("releases-4.2")
def test_a_release_is_asked_for_followed_and_withdrawn(world: World, query_limit: Limit) -> None:
    client = client_for(world["lead_finance"])
    page = client.get(reverse("deployments:release-create") + f"?version={world.version.uid}")
    assert page.status_code == 200
    assert page.context["form"].initial["model_version"] == world.version.pk
    response = client.post(reverse("deployments:release-create"), form(world, "production"))
    release = Release.objects.get()
    assert response.status_code == 303
    assert response["Location"] == reverse("deployments:release-detail", kwargs={"release_uid": release.uid})
    assert release.spec["guard"]["error_rate"] == "0.05"
    with query_limit(40):
        shown = text_of(client.get(response["Location"]))
    assert "In review" in shown
    assert release.version_digest in shown
    again = client.post(reverse("deployments:release-create"), form(world, "production"))
    assert again.status_code == 409
    assert "one release at a time" in text_of(again)
    withdraw = reverse("deployments:release-withdraw", kwargs={"release_uid": release.uid})
    assert client.get(withdraw).status_code == 200
    assert client.post(withdraw, {"version": release.version}).status_code == 303
    release.refresh_from_db()
    assert release.status == ReleaseStatus.WITHDRAWN
    assert client.get(withdraw).status_code == 409


@pytest.mark.requirement("releases-4.2")
def test_what_is_wrong_stands_beside_its_field(world: World) -> None:
    client = client_for(world["lead_finance"])
    url = reverse("deployments:release-create")
    for changes, message in (
        ({"ladder": "ten per cent"}, "write “10 % for 12 h”"),
        ({"tier": "cold"}, "Cold keeps no replica"),
        ({"name": "Fraud!"}, "Begin with a letter"),
        ({"window_start": "08:00"}, "A window needs days"),
        ({"query": "up", "threshold": ""}, "How much of it"),
        ({"max_replicas": 99, "min_replicas": 99}, "too many"),
    ):
        response = client.post(url, form(world, **changes))
        assert response.status_code == 400
        assert message in text_of(response)
    assert Release.objects.count() == 0


def test_ladders_are_read_as_people_write_them() -> None:
    assert read_ladder("10 % for 12 h\n\n50 24") == (Rung(10, 12), Rung(50, 24))
    assert read_ladder(ladder_text(LADDER)) == LADDER
    with pytest.raises(ValueError, match="Line 2"):
        read_ladder("10 % for 12 h\nall of it")


@pytest.mark.requirement("releases-4.3")
def test_the_approver_sees_the_change_against_what_is_live(world: World) -> None:
    world.live("production")
    second = world.ask("production", version=world.next_version(), max_replicas=3, min_replicas=3)
    approval = ApprovalRequest.objects.get(pk=second.approval_id)
    page = client_for(world["vp"]).get(reverse("approvals:request-detail", kwargs={"request_uid": approval.uid}))
    shown = text_of(page)
    assert page.status_code == 200
    for part in ("against what is live now", "2 to 2", "3 to 3", "10 % for 12 h", "Does it fit?", "fraud-r2"):
        assert part in shown
    compare = f"{reverse('catalogue:compare')}?a={second.change['before']['version']}&amp;b={second.model_version.uid}"
    assert compare in page.content.decode()
    against = client_for(world["vp"]).get(compare.replace("&amp;", "&"))
    assert "1.0.0" in text_of(against)
    assert "or you may not see it" not in text_of(against)


@pytest.mark.requirement("releases-4.4")
def test_the_endpoint_page_shows_both_releases_ladder_grants_and_log(world: World, query_limit: Limit) -> None:
    first = world.live()
    second = world.load(world.release(version=world.next_version()))
    url = reverse("deployments:endpoint-detail", kwargs={"endpoint_uid": first.endpoint.uid})
    lead = client_for(world["lead_finance"])
    with query_limit(40):
        page = lead.get(url)
    shown = text_of(page)
    for part in ("Canary: Fraud 2.0.0", "Takes the rest: Fraud 1.0.0", "50 % for 12 h", "Promote", "Roll back", "Hold"):
        assert part in shown
    assert b"/promote/" not in client_for(world["member_finance"]).get(url).content
    Grant.objects.filter(scope__manifest=second.version_digest, request__subject_type="catalogue.version").update(
        expires_at=clock.now()
    )
    assert "Nothing new may begin with it" in text_of(lead.get(url))
    assert client_for(world["lead_marketing"]).get(url).status_code == 404


@pytest.mark.requirement("releases-4.5")
def test_every_step_is_asked_before_it_is_done(world: World) -> None:
    first = world.live()
    second = world.load(world.release(version=world.next_version()))
    client = client_for(world["lead_finance"])

    def do(name: str, **data: Any) -> int:
        endpoint = Endpoint.objects.get(pk=first.endpoint_id)
        url = reverse(f"deployments:endpoint-{name}", kwargs={"endpoint_uid": endpoint.uid})
        assert client.get(url).status_code == 200
        assert Endpoint.objects.get(pk=endpoint.pk).version == endpoint.version
        return int(client.post(url, {"version": endpoint.version, **data}).status_code)

    reason = "As we agreed in the morning."
    assert do("hold") == 400
    assert do("hold", reason=reason) == 303
    assert do("resume") == 303
    assert do("step") == 303
    assert world.endpoint(second).traffic == 50
    assert do("promote", reason=reason) == 303
    assert do("roll-back", reason=reason, to=str(first.uid)) == 303
    assert world.endpoint(first).current_id == first.pk
    assert do("stop", reason=reason) == 303
    assert do("start", reason=reason) == 303
    assert do("stop", reason=reason) == 303
    assert do("remove", reason=reason) == 303
    stale = reverse("deployments:endpoint-stop", kwargs={"endpoint_uid": first.endpoint.uid})
    assert client.get(stale).status_code == 409


@pytest.mark.requirement("releases-4.6")
def test_lists_stay_within_their_queries_and_can_be_taken_away(world: World, query_limit: Limit) -> None:
    client = client_for(world["lead_finance"])
    assert "Nothing is deployed yet" in text_of(client.get(reverse("deployments:endpoint-list")))
    for number in range(4):
        world.live(name=f"fraud-{number}", max_replicas=1, min_replicas=1)
    for name in ("endpoint-list", "release-list"):
        url = reverse(f"deployments:{name}")
        with query_limit(20):
            shown = text_of(client.get(url))
        assert "fraud-3" in shown
        export = client.get(url + "?export=csv")
        assert b"fraud-3" in b"".join(export.streaming_content)
    assert "fraud-1" in text_of(client.get(reverse("deployments:endpoint-list") + "?state=serving&search=fraud-1"))
    assert "fraud-1" not in text_of(client.get(reverse("deployments:endpoint-list") + "?state=stopped"))


@pytest.mark.requirement("releases-4.7")
def test_panels_of_team_workspace_and_version(world: World) -> None:
    release = world.live()
    client = client_for(world["lead_finance"])
    workspace = world.workspaces["development"]
    shown = text_of(client.get(reverse("quotas:workspace-detail", kwargs={"workspace_uid": workspace.uid})))
    assert "fraud" in shown
    assert "Deploy a version" in shown
    version = client.get(reverse("catalogue:version-detail", kwargs={"version_uid": release.model_version.uid}))
    assert f"?version={release.model_version.uid}" in version.content.decode()
    assert "finance-development" in text_of(version)


@pytest.mark.requirement("releases-2.6")
def test_compliance_adds_and_ends_rules_and_everybody_reads_them(world: World) -> None:
    client = client_for(world["compliance"])
    data = {
        "data_class": "health", "location": "on_premises", "jurisdictions": "", "text": "Health data stays.",
        "citation": "45 CFR 164.310", "reason": "The company's policy says so.",
    }  # fmt: skip
    assert client.post(reverse("deployments:rule-add"), data).status_code == 303
    rule = PlacementRule.objects.get()
    assert "Health data stays." in text_of(client_for(world["lead_marketing"]).get(reverse("deployments:rule-list")))
    assert client.post(reverse("deployments:rule-add"), {**data, "location": ""}).status_code == 400
    clock.advance(timedelta(minutes=1))
    end = reverse("deployments:rule-end", kwargs={"rule_uid": rule.uid})
    assert client_for(world["lead_finance"]).get(end).status_code == 403
    assert client.post(end, {"version": rule.version, "reason": "Another rule takes its place."}).status_code == 303
    rule.refresh_from_db()
    assert rule.valid.upper is not None
    assert client.get(end).status_code == 409


@pytest.mark.requirement("releases-4.5")
def test_a_stale_page_is_refused(world: World) -> None:
    release = world.live()
    endpoint = world.endpoint(release)
    client = client_for(world["lead_finance"])
    rollout.stop(endpoint.pk, actor=world.actor("admin"), reason="Stopped by the platform.")
    rollout.start_again(endpoint.pk, actor=world.actor("admin"), reason="Started by the platform.")
    url = reverse("deployments:endpoint-stop", kwargs={"endpoint_uid": endpoint.uid})
    assert client.post(url, {"version": endpoint.version, "reason": "Nobody uses it any more."}).status_code == 409


@pytest.mark.requirement("rollouts-3.3")
def test_going_back_offers_what_is_approved_and_the_emergency_for_the_rest(world: World) -> None:
    first = world.live()
    second = world.load(world.release(version=world.next_version()))
    rollout.promote(second.endpoint_id, actor=world.actor(), reason="It looks good to us.")
    client = client_for(world["lead_finance"])
    url = reverse("deployments:endpoint-roll-back", kwargs={"endpoint_uid": first.endpoint.uid})
    assert f"Release {first.number}: Fraud 1.0.0" in text_of(client.get(url))
    Grant.objects.filter(request__subject_uid=first.uid).update(expires_at=clock.now())
    page = client.get(url)
    assert "to" not in page.context["form"].fields
    assert f"?release={first.uid}&amp;emergency=1" in page.content.decode()
    endpoint = world.endpoint(second)
    refused = client.post(url, {"version": endpoint.version, "reason": "Customers complain about it."})
    assert refused.status_code == 409
    assert "expired on" in text_of(refused)
    form_page = client.get(reverse("deployments:release-create") + f"?release={first.uid}&emergency=1")
    assert form_page.context["form"].initial["emergency"] is True
    assert form_page.context["form"].initial["model_version"] == first.model_version_id


@pytest.mark.requirement("catalogue-7.2")
def test_only_versions_that_an_approval_covers_are_offered_for_deployment(world: World) -> None:
    client = client_for(world["lead_finance"])
    url = reverse("catalogue:version-detail", kwargs={"version_uid": world.version.uid})
    create = f"{reverse('deployments:release-create')}?version={world.version.uid}"
    assert create in client.get(url).content.decode()
    Grant.objects.update(revoked_at=clock.now(), revoked_reason="Withdrawn for a test of what is offered.")
    shown = client.get(url).content.decode()
    assert create not in shown
    assert "No approval lets it be deployed now." in shown
