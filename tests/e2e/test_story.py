"""The loop as people see it: a lead asks, the VP decides, the cluster has it, the month is reported, the auditor reads.

One browser per person against one live server and a simulated cluster; between the clicks `settle()` does what workers
do. Everything is found the way a person finds it: by links, labels and words.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from apps.core.testing import settle
from apps.demo import company, seed
from apps.demo.cluster import SimulatedCluster
from apps.metering import actions as metering
from apps.metering import billing
from apps.metering.models import Source
from apps.quotas.models import Workspace

#: What workers do here. Not metering: the source has a past of thirteen months, of which the story reads one.
WORK = ("approvals.", "costs.", "notifications.", "provisioning.", "quotas.")
REASON = "Nightly fraud training for the quarter end."


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[SimulatedCluster]:
    """A simulated cluster with the history of the sample company."""
    with SimulatedCluster(tmp_path / "cluster", bookmark_seconds=0.5) as running:
        yield running


@pytest.fixture
def context(transactional_db: None, cluster: SimulatedCluster, tmp_path: Path) -> seed.Context:
    """The sample company as the demo seeds it, its latest full month metered and priced."""
    made = seed.Context(
        kubeconfig=cluster.write_kubeconfig(tmp_path / "kubeconfig"),
        allocation_url=cluster.allocation_url,
        tokens_file=tmp_path / "cluster" / "tokens.json",
    )
    for _ in seed.run(made):
        continue
    start, end = billing.month_bounds(last_month())
    run = metering.ingest_hours(Source.objects.get().pk, start, end, actor=seed.SEEDER)
    assert run.error == ""
    settle(only=WORK)
    return made


def last_month() -> Any:
    """The latest billing month that is over."""
    return billing.previous(billing.month_of(datetime.now(UTC)))


def sign_in(browse: Any, key: str) -> Page:
    """Sign in by password, as the demo's list of people says."""
    person = next(one for one in company.PEOPLE if one.key == key)
    page: Page = browse(None, "/sign-in/")
    page.get_by_label("E-mail address").fill(person.email)
    page.get_by_label("Password").fill(seed.password())
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(person.display_name)
    return page


def follow(page: Page, name: str | re.Pattern[str], *, within: str = "main") -> None:
    """Click the first link of that name and wait for its page."""
    page.locator(within).get_by_role("link", name=name).first.click()
    page.wait_for_selector("body[data-ready]")


def until_it_rests(page: Page) -> None:
    """Wait until a request's page has loaded itself again and watches nothing any more.

    A `reload()` of our own would meet the page's own one in the middle, and one of the two is aborted.
    """
    expect(page.locator("main div[data-live][hx-swap=none]")).to_have_count(0)
    page.wait_for_selector("body[data-ready]")


def ask_for_eight(page: Page) -> str:
    """From the team page to a submitted request; returns its address."""
    follow(page, re.compile("^Finance"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Finance")
    follow(page, "Request quota")
    workspace = page.get_by_label("Workspace")
    workspace.select_option(label=workspace.locator("option", has_text="Finance").inner_text())
    flavour = page.get_by_label("Flavour")
    flavour.select_option(label=flavour.locator("option", has_text="A100").inner_text())
    estimate = page.locator("#quota-estimate")
    # What it means shows while typing, and follows every change.
    page.locator("[name=guaranteed]").press_sequentially("2")
    expect(estimate).to_contain_text("5,621.00 USD")  # 2 × 730 h × 3.85
    expect(estimate).to_contain_text("approves it at once")
    page.locator("[name=guaranteed]").fill("90")
    expect(estimate).to_contain_text("more than the pool has")
    page.locator("[name=guaranteed]").fill("8")
    expect(estimate).to_contain_text("22,484.00 USD")
    expect(estimate).to_contain_text("Fits now")
    expect(estimate).to_contain_text("26,000.00 USD")
    expect(estimate).to_contain_text("VP Business Lines")
    # Without a reason it is refused beside the field, and what was typed stays.
    submit = page.locator("main form button[type=submit]").last
    submit.click()
    expect(page.get_by_label("Reason", exact=False)).to_have_attribute("aria-invalid", "true")
    expect(page.locator("[name=guaranteed]")).to_have_value("8")
    page.get_by_label("Reason", exact=False).fill(REASON)
    submit.click()
    timeline = page.locator("#request-story-card")
    expect(timeline).to_contain_text("In review")
    expect(timeline).to_contain_text("Decision: Unit owner")
    return page.url


def decide(page: Page) -> None:
    """From *For you to decide* to the decision, past cost, capacity and the change of each object."""
    waiting = page.locator("section[aria-labelledby=to-decide]")
    expect(waiting).to_contain_text("22,484.00")
    waiting.locator("tbody").get_by_role("link").first.click()
    page.wait_for_selector("body[data-ready]")
    change = page.locator("section[aria-labelledby=exact-change]")
    for kind in ("Namespace", "ResourceQuota", "NetworkPolicy", "RoleBinding", "LimitRange"):
        expect(change).to_contain_text(kind)
    follow(page, "Decide")
    page.get_by_label("Approve").check()
    page.get_by_label("Reason", exact=False).fill("Within the plan of the quarter.")
    page.get_by_label(re.compile("I have read the exact change")).check()
    page.locator("main form button[type=submit]").last.click()
    expect(page.locator("main")).to_contain_text("Within the plan of the quarter.")


def use_it(page: Page) -> None:
    """The lead is handed a kubeconfig and manifests, and asks whether the cluster would take one."""
    with page.expect_download() as kubeconfig:
        page.get_by_role("link", name="kubeconfig").click()
    text = Path(kubeconfig.value.path()).read_text("utf-8")
    assert "apiVersion: v1" in text
    assert Workspace.objects.get(team__slug="finance").namespace in text
    shown = page.locator("#yaml-job").inner_text()
    assert "nvidia.com/gpu" in shown
    assert "kind: Job" in shown
    with page.expect_download() as manifest:
        page.get_by_role("link", name="YAML").first.click()
    assert "kind:" in Path(manifest.value.path()).read_text("utf-8")
    page.locator("form[hx-target='#check-job'] button").click()
    expect(page.locator("#check-job")).to_contain_text("The cluster would take it now")


def read_the_month(page: Page) -> None:
    """From the report's chart and table down to the source's own answer; the file has the same figures."""
    follow(page, "Monthly report", within="nav[aria-label=Main]")
    expect(page.get_by_role("heading", level=1)).to_contain_text(f"{last_month():%B %Y}")
    expect(page.locator("[data-chart=report-days] .bars path").first).to_be_attached()
    teams = page.locator("section[aria-labelledby=report-teams]")
    for team in ("Finance", "Marketing", "Research"):
        expect(teams).to_contain_text(team)
    total = teams.locator(".total-row td").nth(4).inner_text()
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text("utf-8-sig"))))
    lines = [Decimal(row["cost"]) for row in rows if row["line"] == "team"]
    assert f"{sum(lines):,.2f} USD" == total
    follow(page, "Marketing")
    day = f"{last_month():%Y-%m}-12"
    page.locator(f'main a[href*="{day}"]').first.click()
    expect(page.locator("main")).to_contain_text("recommendation")
    follow(page, re.compile("recommendation"))
    page.locator('main a[href^="/costs/facts/"]').first.click()
    fact = page.locator("main")
    expect(fact).to_contain_text("GPU-ms")
    expect(fact).to_contain_text("SHA-256")
    expect(fact).to_contain_text("allocation")


@pytest.mark.requirement("reports-2.8", "shell-4.5")
def test_once_round_the_loop_in_the_browser(
    context: seed.Context, cluster: SimulatedCluster, browse: Any, watch: Any, assert_accessible: Any
) -> None:
    watch.expected = {400}  # the form without a reason
    lead = sign_in(browse, "finance-lead")
    request_url = ask_for_eight(lead)
    settle(only=WORK)

    vp = sign_in(browse, "vp")
    decide(vp)
    settle(only=WORK)

    until_it_rests(lead)
    timeline = lead.locator("#request-story-card")
    for step in ("VP Business Lines", "Within the plan of the quarter.", "Applied on the cluster"):
        expect(timeline).to_contain_text(step)
    assert_accessible(lead)
    lead.goto("/teams/finance/")
    quota = lead.locator("section[aria-labelledby=team-quotas]")
    expect(quota).to_contain_text("A100 80 GB")
    expect(quota.locator("td.figure").first).to_contain_text("8")
    follow(lead, re.compile("^Use"), within="section[aria-labelledby=team-quotas]")
    use_it(lead)

    vp.goto("/")
    expect(vp.locator("section[aria-labelledby=to-decide]")).to_contain_text("No request waits for you")
    read_the_month(vp)

    admin = sign_in(browse, "admin")
    expect(admin.locator("main")).to_contain_text("Platform")
    for entry, shows in (
        ("Clusters", "Atlas"),
        ("Pool capacity", "A100"),
        ("Apply runs", "Succeeded"),
        ("Ingest runs", "Succeeded"),
    ):
        follow(admin, re.compile(f"^{entry}"), within="nav[aria-label=Main]")
        expect(admin.locator("main")).to_contain_text(shows)

    auditor = sign_in(browse, "auditor")
    follow(auditor, re.compile("^Audit"), within="nav[aria-label=Main]")
    trail = auditor.locator("main")
    for event in ("quotas.request.submitted", "approvals.decision.made", "provisioning.declaration.applied"):
        expect(trail).to_contain_text(event)
    assert auditor.get_by_role("link", name="Request quota").count() == 0
    auditor.goto(request_url)
    expect(auditor.locator("main")).to_contain_text(REASON)
    assert auditor.get_by_role("link", name="Withdraw").count() == 0
