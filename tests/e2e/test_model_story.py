"""A model into production as people see it: registered, hashed, sealed, rejected for its figures, mended, approved,
released, tried on a tenth of the traffic, promoted and rolled back; and what the time machine says of each moment.

One browser per person against one live server and a simulated cluster that serves; `settle()` does what workers do.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from apps.approvals.choices import Verdict
from apps.catalogue import store_actions
from apps.catalogue.models import Model, ModelStore, ModelVersion
from apps.core.testing import settle
from apps.demo import seed, serving_story, sharing, story
from apps.demo.cluster import SimulatedCluster
from apps.deployments.models import Endpoint, Release
from tests.e2e.test_story import WORK, follow, sign_in

#: What workers do here besides; not the signed statements, which are of months.
LABOUR = (*WORK, "catalogue.hash", "deployments.advance", "deployments.guard", "deployments.sample")
SERVING_SECONDS = 90.0
PLAN = serving_story.ModelPlan(
    "campaign-ranking", "Campaign ranking", "marketing", "marketing-lead", "", ("internal",), ("1.0.0", "1.1.0")
)
PURPOSE = "Orders the offers of a campaign by how likely they are to interest a visitor."
RESULTS = (
    "metric\tvalue\tlow\thigh\tcomparison\tthreshold\tslice\n"
    "auroc\t0.93\t0.92\t0.94\tat least\t0.9\t\n"
    "auroc\t{0}\t{1}\t0.93\tat least\t0.9\tnew visitors\n"
)
WEAK, STRONG = RESULTS.format("0.88", "0.87"), RESULTS.format("0.92", "0.91")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[SimulatedCluster]:
    """A simulated cluster with Kueue, KServe and the Gateway API."""
    options = {"kueue": True, "kserve": True, "gateway": True}
    with SimulatedCluster(tmp_path / "cluster", bookmark_seconds=0.5, **options) as running:
        yield running


@pytest.fixture
def context(transactional_db: None, cluster: SimulatedCluster, tmp_path: Path, settings: Any) -> seed.Context:
    """The sample company without a past: quotas approved, rules published, a volume of models mounted."""
    volume = tmp_path / "models"
    volume.mkdir()
    settings.COMMONS_MODEL_MOUNTS = [f"{serving_story.VOLUME}={volume}"]
    made = seed.Context(
        kubeconfig=cluster.write_kubeconfig(tmp_path / "kubeconfig"),
        allocation_url=cluster.allocation_url,
        tokens_file=tmp_path / "cluster" / "tokens.json",
    )
    later = (story.todays_quota, serving_story.places, serving_story.rules)
    for _ in seed.run(made, (*seed.STEPS, *sharing.CLUSTER_STEPS, *(seed.Step("", one) for one in later))):
        continue
    store_actions.add_store(
        "Models on a mounted volume", "pvc", slug=serving_story.VOLUME, endpoint=serving_story.VOLUME,
        actor=seed.Actor.of(made.users["admin"]),
    )  # fmt: skip
    for label in PLAN.labels:
        serving_story.weights(volume, PLAN, label)
    settle(only=LABOUR)
    return made


def send(page: Page) -> None:
    """Send the page's form."""
    page.locator("main form[method=post] button[type=submit]").last.click()
    page.wait_for_selector("body[data-ready]")


def until(done: Callable[[], bool]) -> None:
    """Let the workers work until the cluster is where it should be."""
    end = time.monotonic() + SERVING_SECONDS
    while not done():
        assert time.monotonic() < end, [str(one.status) for one in Release.objects.order_by("pk")]
        settle(only=LABOUR)


def register(page: Page) -> None:
    """From the list of models to a model with a card; what is missing is said beside its field."""
    follow(page, "Models", within="nav[aria-label=Main]")
    follow(page, "Register a model")
    page.get_by_label("Name", exact=False).first.fill(PLAN.name)
    page.get_by_label("Purpose").fill(PURPOSE)
    page.get_by_label("Team").select_option(label="Marketing")
    page.get_by_label("Internal", exact=True).check()
    page.get_by_label("Risk tier").select_option(label="Minimal")
    page.get_by_label("Our role under the Act").select_option(label="Deployer")
    page.get_by_label("Short name").fill("Not A Name!")
    send(page)
    expect(page.get_by_label("Short name")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("Purpose")).to_have_value(PURPOSE)
    page.get_by_label("Short name").fill(PLAN.slug)
    send(page)
    expect(page.get_by_role("heading", level=1)).to_have_text(PLAN.name)
    follow(page, "Write it")
    for label, text in (
        ("Name", PLAN.name),
        ("Description", PURPOSE),
        ("Intended use", "Campaign staff read its order and may change it."),
        ("Out of scope", "Decisions about people without a person in between."),
        ("Bias, risks and limitations", "Few examples of new visitors; scores there are less certain."),
        ("How it decides, in plain words", "Recent behaviour weighs most."),
        ("Monitoring after release", "Drift every day; a breach opens a recertification."),
    ):
        page.get_by_label(label, exact=False).first.fill(text)
    send(page)
    expect(page.locator("main")).to_contain_text("Revision 1")


def seal_first(page: Page) -> str:
    """From the model to a sealed version on the mounted volume; returns its address."""
    page.goto(f"/catalogue/models/{Model.objects.get(slug=PLAN.slug).uid}/")
    follow(page, "Add a version")
    follow(page, re.compile("Volume"))
    page.get_by_label("Label").fill("1.0.0")
    page.get_by_label("Store").select_option(label="Models on a mounted volume")
    page.get_by_label("Location").fill(f"pvc://{serving_story.VOLUME}/{PLAN.slug}/1.0.0")
    page.get_by_label("Format").first.fill("onnx")
    page.get_by_label("Runtime").fill("kserve-tritonserver")
    page.get_by_label("Serving image").fill(serving_story.IMAGE)
    send(page)
    expect(page.locator("main")).to_contain_text("Have its files hashed.")
    follow(page, "Hash its files")
    send(page)
    settle(only=LABOUR)
    # The page has followed the hashing and loads itself again; a reload of ours would meet its own.
    expect(page.locator("#hash-card[data-live]")).to_have_count(0)
    page.wait_for_selector("body[data-ready]")
    follow(page, "Seal this version")
    send(page)
    expect(page.locator("#version-digest")).to_have_text(ModelVersion.objects.get(label="1.0.0").digest)
    return page.url


def show(page: Page, version_url: str, title: str, results: str) -> None:
    """Add an evaluation to a version."""
    page.goto(version_url)
    follow(page, "Add evidence")
    follow(page, re.compile("^Evaluation"))
    page.get_by_label("Title").fill(title)
    page.get_by_label("Results").fill(results)
    send(page)
    expect(page.locator("main")).to_contain_text(title)


def ask(page: Page, version_url: str) -> None:
    """Ask for a version's approval in production."""
    page.goto(version_url)
    follow(page, "Ask for approval")
    page.get_by_label(re.compile("marketing-production")).check()
    page.get_by_label("Reason").fill("For the campaigns of the coming season.")
    send(page)
    expect(page.locator("main")).to_contain_text("In review")


def decide(page: Page, verdict: str, reason: str) -> None:
    """Decide what waits first in the inbox of a person."""
    page.goto("/approvals/inbox/")
    page.locator("main table tbody a").first.click()
    page.wait_for_selector("body[data-ready]")
    follow(page, re.compile("^Decide"))
    page.get_by_role("radio", name=verdict).check()
    page.get_by_label("Reason").fill(reason)
    page.get_by_label(re.compile("I have read the exact change")).check()
    send(page)
    # Back to what waits next.
    expect(page.get_by_role("heading", level=1)).to_have_text("Inbox")
    expect(page.locator("main")).to_contain_text("No request waits for you")


def release(page: Page, version_url: str, *, ladder: str) -> None:
    """Ask that a version serve, past cost and room, from its own page."""
    page.goto(version_url)
    follow(page, "Deploy")
    workspace = page.get_by_label("Workspace")
    workspace.select_option(label=workspace.locator("option", has_text="Production").inner_text())
    flavour = page.get_by_label("Flavour")
    flavour.select_option(label=flavour.locator("option", has_text="A100").inner_text())
    page.get_by_label("Endpoint").fill("campaigns")
    page.get_by_label("Canary ladder").fill(ladder)
    estimate = page.locator("#release-estimate")
    expect(estimate).to_contain_text("2,810.50 USD")  # 1 × 730 h × 3.85
    page.get_by_label("Reason").fill("Serve it to the campaign pages.")
    send(page)
    expect(page.locator("main")).to_contain_text("In review")


def serves(*, current: str, candidate: str = "") -> Callable[[], bool]:
    """Whether the endpoint serves these versions, the canary with a tenth."""

    def holds() -> bool:
        row = Endpoint.objects.select_related("current__model_version", "candidate__model_version").get()
        live = row.current.model_version.label if row.current is not None and row.current.live_at else ""
        canary = row.candidate.model_version.label if row.candidate is not None and row.traffic == 10 else ""
        return (live, canary) == (current, candidate) and (bool(candidate) or row.candidate_id is None)

    return holds


def second_version(context: seed.Context) -> str:
    """A second version goes the same way, by the same actions; returns its address."""
    store = ModelStore.objects.get()
    serving_story.begun(context, PLAN, Model.objects.get(), store, "1.1.0")
    version = ModelVersion.objects.get(label="1.1.0")
    serving_story.sealed(context, PLAN, version)
    said = serving_story.ask(context, PLAN, "1.1.0", Verdict.APPROVE, "Better on every slice than what is live.")
    assert said.endswith("approved")
    return f"/catalogue/versions/{version.uid}/"


def operate(page: Page, button: str, reason: str) -> None:
    """Do something with the endpoint, with its reason."""
    page.goto(f"/deployments/endpoints/{Endpoint.objects.get().uid}/")
    follow(page, button)
    page.get_by_label("Reason").fill(reason)
    send(page)
    expect(page.locator("main")).to_contain_text(reason)


@pytest.mark.full
@pytest.mark.requirement("catalogue-7.2", "evidence-4.2", "evidence-4.8", "releases-4.4", "rollouts-3.2")
@pytest.mark.requirement("placement-2.1", "compliance-inbox-1.1")
def test_a_model_into_production_and_back_in_the_browser(
    context: seed.Context, browse: Any, watch: Any, assert_accessible: Any, assert_fits: Any
) -> None:
    watch.expected = {400}  # the form with a wrong name, and the approval that the controls keep from being given
    moments: dict[str, datetime] = {"before": datetime.now(UTC)}
    lead = sign_in(browse, "marketing-lead")
    register(lead)
    first = seal_first(lead)
    show(lead, first, "Evaluation of September", WEAK)
    ask(lead, first)

    compliance = sign_in(browse, "compliance")
    decide(compliance, "Reject", "New visitors are below the threshold that you set.")
    lead.goto(first)
    expect(lead.locator("main")).to_contain_text("It was rejected")
    show(lead, first, "Evaluation of October", STRONG)
    ask(lead, first)
    decide(compliance, "Approve", "Card, results and scope are as they should be.")
    assert_accessible(compliance)

    release(lead, first, ladder="")
    vp = sign_in(browse, "vp")
    decide(vp, "Approve", "Within the plan of the quarter.")
    until(serves(current="1.0.0"))
    moments["first"] = datetime.now(UTC)

    second = second_version(context)
    release(lead, second, ladder="10 % for 0 h")
    decide(vp, "Approve", "A tenth of the traffic first.")
    until(serves(current="1.0.0", candidate="1.1.0"))
    moments["canary"] = datetime.now(UTC)
    lead.goto(f"/deployments/endpoints/{Endpoint.objects.get().uid}/")
    main = lead.locator("main")
    for text in ("Canary: Campaign ranking 1.1.0", "10 %", "90 %", "What the cluster says"):
        expect(main).to_contain_text(text)
    assert_accessible(lead)
    assert_fits(lead)

    operate(lead, "Promote", "It does better with new visitors.")
    until(serves(current="1.1.0"))
    moments["promoted"] = datetime.now(UTC)
    operate(lead, "Roll back", "Complaints about its order came in.")
    until(serves(current="1.0.0"))
    moments["back"] = datetime.now(UTC)

    auditor = sign_in(browse, "auditor")
    for moment, shown, hidden in (
        ("before", ["Nothing was deployed"], ["release 1"]),
        ("first", ["Campaign ranking 1.0.0, release 1", "100 %"], ["release 2"]),
        ("canary", ["1.0.0, release 1", "90 %", "1.1.0, release 2", "10 %"], []),
        ("promoted", ["1.1.0, release 2", "100 %", "VP Business Lines"], ["1.0.0, release 1"]),
        ("back", ["1.0.0, release 1", "100 %", "Compliance officer"], ["1.1.0, release 2"]),
    ):
        auditor.goto(f"/deployments/time-machine/?at={moments[moment]:%Y-%m-%dT%H:%M:%S.%f}")
        answer = auditor.locator("main")
        for text in shown:
            expect(answer).to_contain_text(text)
        for text in hidden:
            expect(answer).not_to_contain_text(text)
        expect(answer).not_to_contain_text("Log and rows differ")
    assert_accessible(auditor)
