"""The sample company: made through actions, repeated and interrupted without harm, signed in to, called simulated."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client

from apps.accounts.models import IdentityProvider
from apps.audit.models import AuditEvent
from apps.core import clock
from apps.core.testing import settle
from apps.demo import company, seed, story
from apps.demo.management.commands import seed_demo
from apps.metering.models import HourStatus
from apps.quotas.models import Quota, QuotaRequest, Workspace
from apps.teams.models import ReviewItem
from tests.acceptance.world import NOW, Stage, context_of, counts, staged, without_workloads

pytestmark = pytest.mark.django_db


@pytest.fixture
def demo(tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """An installation as `make demo` runs it: the simulated cluster, and the launcher's variables."""
    settings.COMMONS_DEMO = True
    settings.COMMONS_DIR = tmp_path
    # The clock stands ten days into the books, so that reading them takes seconds.
    start = NOW - timedelta(days=1)
    monkeypatch.setattr(seed, "history_start", lambda at: start)
    with staged(tmp_path, without_workloads) as stage, clock.frozen(NOW):
        context = context_of(stage)
        monkeypatch.setenv("COMMONS_DEMO_KUBECONFIG", str(context.kubeconfig))
        monkeypatch.setenv("COMMONS_DEMO_ALLOCATION_URL", context.allocation_url)
        yield stage


def run(*arguments: str) -> str:
    """`manage.py seed_demo`; the room needs not be installed, since it owns no table."""
    said = io.StringIO()
    call_command(seed_demo.Command(stdout=said, stderr=said), *arguments)
    return said.getvalue()


def still() -> dict[str, int]:
    """Rows that a second seeding must not add to; who looked at a source, and when, may be written down."""
    return {table: n for table, n in counts().items() if n and not table.startswith("metering_ingestrun")}


@pytest.mark.requirement("sample-company-1.1", "sample-company-1.2")
def test_seeding_calls_actions_shows_progress_and_does_nothing_twice(demo: Stage) -> None:
    """Every step is named while it runs; every change is in the trail; the second run adds no row."""
    said = run()
    for title in (*(step.title for step in seed.STEPS), "Quota of today", "Requests under way", "Metering the history"):
        assert title in said
    for action in (
        "accounts.user.created", "teams.team.created", "clusters.cluster.registered", "rates.card.published",
        "costs.budget.set", "approvals.policy.published", "quotas.workspace.created", "metering.source.registered",
        "quotas.request.submitted", "approvals.decision.made", "accounts.provider.created",
        "teams.mapping.created", "teams.service.token_created", "accounts.factor.added", "audit.hold.placed",
    ):  # fmt: skip
        assert AuditEvent.objects.filter(action=action).exists(), action
    settle(only=("provisioning.", "quotas."))
    assert sorted(Quota.objects.in_force().values_list("workspace__team__slug", "guaranteed", "borrow_limit")) == [
        (plan.slug, plan.guaranteed, plan.borrow_limit) for plan in sorted(company.TEAMS, key=lambda one: one.slug)
    ]
    assert HourStatus.objects.count() > 0
    assert not IdentityProvider.objects.get().enabled
    # What nobody confirms lapses at the end of the review: none of it is what a sign-in of the sample company needs.
    waiting = ReviewItem.objects.filter(answer="open").values_list("user__email", flat=True)
    assert waiting
    assert not set(waiting) & {person.email for person in company.PEOPLE}
    assert ReviewItem.objects.filter(answer="keep").count() >= len(company.PEOPLE)
    before = still()
    again = run()
    assert "requests approved" not in again
    assert still() == before


class Pulled(Exception):
    """The plug."""


@pytest.mark.requirement("sample-company-1.3")
@pytest.mark.parametrize("stop", [3, 9])
def test_an_interrupted_seeding_is_completed(demo: Stage, monkeypatch: pytest.MonkeyPatch, stop: int) -> None:
    """Stopped in the middle of a step and begun anew, it ends with one of everything, and a third run adds nothing."""
    step = (*seed.STEPS, seed.Step("Quota of today", story.todays_quota))[stop]

    def half(context: seed.Context) -> str:
        step.run(context)
        raise Pulled

    cut = (*seed.STEPS[:stop], seed.Step(step.title, half))
    with monkeypatch.context() as patch:
        patch.setattr(seed, "STEPS", cut)
        with pytest.raises(Pulled):
            run()
    run()
    assert Workspace.objects.count() == len(company.TEAMS)
    assert QuotaRequest.objects.filter(status="applying").count() == len(company.TEAMS)
    before = still()
    run()
    assert still() == before


@pytest.mark.requirement("sample-company-1.4")
def test_there_is_a_sign_in_per_role_and_each_works(demo: Stage) -> None:
    """The address and, for every person, a sign-in whose password opens the portal."""
    run()
    said = run("--print-sign-ins")
    assert "/sign-in/" in said
    listed = json.loads(run("--print-sign-ins", "--json"))
    assert {row["email"] for row in listed} == {person.email for person in company.PEOPLE}
    for row in listed:
        assert row["email"] in said
        client = Client()
        answer = client.post("/sign-in/", {"email": row["email"], "password": row["password"]})
        assert answer.status_code in (302, 303), row["email"]
        assert client.get("/").status_code == 200, row["email"]


@pytest.mark.requirement("sample-company-1.5")
def test_the_simulated_cluster_is_called_simulated(demo: Stage) -> None:
    """Wherever its name stands for somebody who may act on it."""
    run()
    from tests.factories import client_for

    admin = client_for(context_people()["admin"])
    lead = client_for(context_people()["finance-lead"])
    request = QuotaRequest.objects.first()
    assert request is not None
    workspace = Workspace.objects.get(team__slug="finance")
    pages = {
        f"/quotas/requests/{request.uid}/": admin,
        f"/quotas/workspaces/{workspace.uid}/": lead,
        "/quotas/workspaces/": lead,
    }
    for url, client in pages.items():
        text = client.get(url).content.decode()
        assert "simulated" in text.lower(), url


def context_people() -> dict[str, Any]:
    """The sample company's accounts by key."""
    from apps.accounts.models import User

    return {person.key: User.objects.get(email=person.email) for person in company.PEOPLE}


@pytest.mark.requirement("sample-company-1.1")
def test_nothing_is_seeded_where_this_is_no_demo(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither on a real installation, nor without the launcher's variables."""
    settings.COMMONS_DEMO = False
    before = counts()
    with pytest.raises(CommandError, match="no demo"):
        run()
    settings.COMMONS_DEMO = True
    monkeypatch.delenv("COMMONS_DEMO_KUBECONFIG", raising=False)
    with pytest.raises(CommandError, match="COMMONS_DEMO_KUBECONFIG"):
        run()
    assert counts() == before
