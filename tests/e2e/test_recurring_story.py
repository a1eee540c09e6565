"""The cluster half as people see it: a lead asks for GPUs in weekly windows, the VP approves, Kueue's queue has them.

One browser per person against one live server and a simulated cluster with Kueue; `settle()` does what workers do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from apps.core.testing import settle
from apps.demo import seed, sharing
from apps.demo.cluster import SimulatedCluster
from apps.quotas.models import QuotaRequest, Workspace
from tests.cluster.fixtures import client_of
from tests.e2e.test_story import WORK, follow, sign_in, until_it_rests

REASON = "Training every week at this hour."


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[SimulatedCluster]:
    """A simulated cluster with Kueue and the history of the sample company."""
    with SimulatedCluster(tmp_path / "cluster", bookmark_seconds=0.5, kueue=True) as running:
        yield running


@pytest.fixture
def context(transactional_db: None, cluster: SimulatedCluster, tmp_path: Path) -> seed.Context:
    """The sample company without a past, its cluster checked, its baseline approved and applied."""
    made = seed.Context(
        kubeconfig=cluster.write_kubeconfig(tmp_path / "kubeconfig"),
        allocation_url=cluster.allocation_url,
        tokens_file=tmp_path / "cluster" / "tokens.json",
    )
    for _ in seed.run(made, (*seed.STEPS, *sharing.CLUSTER_STEPS)):
        continue
    settle(only=WORK)
    return made


def ask_for_a_weekly_window(page: Page, begins: datetime) -> None:
    """From home to a submitted request for eight GPUs, three hours a week, of which one is now."""
    follow(page, "Request quota")
    workspace = page.get_by_label("Workspace")
    workspace.select_option(label=workspace.locator("option", has_text="Finance").inner_text())
    flavour = page.get_by_label("Flavour")
    flavour.select_option(label=flavour.locator("option", has_text="A100").inner_text())
    page.locator("[name=guaranteed]").fill("8")
    page.get_by_text("Only at certain hours of the week").click()
    page.get_by_label("Repeats every week").select_option(label="On days of my own")
    estimate = page.locator("#quota-estimate")
    # What is missing is named while typing, not only after sending.
    expect(estimate).to_contain_text("Begins at")
    page.get_by_label(f"{begins:%A}").check()
    page.get_by_label("Begins at").fill(f"{begins:%H:%M}")
    page.get_by_label("Lasts").fill("3")
    expect(estimate).to_contain_text("A repetition needs an end")
    page.get_by_label("Until").fill(f"{begins + timedelta(days=20):%Y-%m-%dT%H:%M}")
    expect(estimate).to_contain_text("Fits now")
    expect(estimate).to_contain_text("3 windows")
    expect(estimate).to_contain_text("VP Business Lines")
    page.get_by_label("Reason", exact=False).fill(REASON)
    page.locator("main form button[type=submit]").last.click()
    expect(page.locator("#request-story-card")).to_contain_text("In review")


def decide(page: Page) -> None:
    """From *For you to decide* past the exact change to the approval."""
    page.locator("section[aria-labelledby=to-decide] tbody").get_by_role("link").first.click()
    page.wait_for_selector("body[data-ready]")
    expect(page.locator("section[aria-labelledby=exact-change]")).to_contain_text("ClusterQueue")
    follow(page, "Decide")
    page.get_by_label("Approve").check()
    page.get_by_label("Reason", exact=False).fill("Within the plan of the quarter.")
    page.get_by_label(re.compile("I have read the exact change")).check()
    page.locator("main form button[type=submit]").last.click()
    expect(page.locator("main")).to_contain_text("Within the plan of the quarter.")


@pytest.mark.full
@pytest.mark.requirement("quota-time-1.1")
def test_a_weekly_window_is_asked_for_approved_and_in_force(
    context: seed.Context, cluster: SimulatedCluster, browse: Any, assert_accessible: Any, assert_fits: Any
) -> None:
    begins = (datetime.now(UTC) - timedelta(hours=1)).replace(minute=0, second=0, microsecond=0)
    lead = sign_in(browse, "finance-lead")
    ask_for_a_weekly_window(lead, begins)
    settle(only=WORK)
    decide(sign_in(browse, "vp"))
    settle(only=WORK)

    workspace = Workspace.objects.get(team__slug="finance", cluster=context.cluster)
    queue = client_of(cluster).get("ClusterQueue", workspace.namespace)
    resources = [
        resource["nominalQuota"]
        for group in queue["spec"]["resourceGroups"]
        for flavour in group["flavors"]
        for resource in flavour["resources"]
        if resource["name"] == "nvidia.com/gpu"
    ]
    assert resources == ["8"]
    assert QuotaRequest.objects.get(workspace=workspace).quotas.count() == 3

    until_it_rests(lead)
    expect(lead.locator("#request-story-card")).to_contain_text("Applied on the cluster")
    follow(lead, workspace.namespace)
    now = lead.locator("section[aria-labelledby=workspace-now]")
    expect(now.locator("td.figure").first).to_have_text("8")
    expect(lead.locator("section[aria-labelledby=workspace-queue]")).to_contain_text("A100")
    expect(lead.locator("section[aria-labelledby=workspace-dated]")).to_contain_text("2 more like it")
    assert_accessible(lead)
    assert_fits(lead)
