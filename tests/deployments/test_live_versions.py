"""A request for a version is laid against what serves where it is asked for, place by place, at its own time."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse

from apps.approvals.models import ApprovalRequest
from apps.catalogue import subject, subject_diff
from apps.catalogue.models import ModelRequest, ModelVersion
from apps.core import clock
from apps.core.canonical import digest_of
from apps.core.row_security import walled
from apps.deployments import rollout
from apps.deployments.models import Endpoint
from tests.deployments.world import REASON, World, make_world, policy_version
from tests.factories import Company, client_for

pytestmark = pytest.mark.django_db
Limit = Callable[[int], AbstractContextManager[Any]]
WHY = "It answers too slowly since this morning."


@pytest.fixture
def world(company: Company, frozen_clock: Any) -> World:
    return make_world(company)


def ask(world: World, version: ModelVersion, *environments: str) -> ModelRequest:
    """A request in review for these environments' workspaces, as the catalogue would write it."""
    scope: dict[str, Any] = {
        "environments": list(environments), "clusters": [world.cluster.slug], "max_traffic": 100,
        "workspaces": [str(world.workspaces[one].uid) for one in environments],
    }  # fmt: skip
    row = ModelRequest.objects.create(
        model_version=version, scope=scope, reason=REASON, status="in_review",
        requester=world.company.member_finance, digest=digest_of(scope), valid_days=90,
    )  # fmt: skip
    row.approval = ApprovalRequest.objects.create(
        subject_type="catalogue.version", subject_uid=row.uid, subject_digest=row.digest, title=str(version),
        policy_version=policy_version("model-versions", "catalogue.version"), status="in_review",
        requester=world.company.member_finance, team=world.company.finance_team, unit=world.company.unit,
        submitted_at=clock.now(),
    )  # fmt: skip
    row.save(update_fields=["approval"])
    return row


def end(row: ModelRequest) -> None:
    assert row.approval is not None
    ApprovalRequest.objects.filter(pk=row.approval_id).update(status="approved", concluded_at=clock.now())
    ModelRequest.objects.filter(pk=row.pk).update(status="approved")
    row.refresh_from_db()


def later() -> None:
    clock.advance(timedelta(hours=1))


def titles(row: ModelRequest) -> list[str]:
    return [base.title for base in subject_diff.bases_of(row).all]


@pytest.mark.requirement("release-review-1.1")
def test_after_a_roll_back_it_is_laid_against_what_serves_not_what_was_approved_last(world: World) -> None:
    first = world.live("development", ladder=())
    second = world.next_version("2.0.0", files={"model.onnx": b"second"})
    later()
    world.load(world.release("development", version=second, ladder=()))
    later()
    third = world.next_version("3.0.0", approved=False, files={"model.onnx": b"third"})
    row = ask(world, third, "development")
    assert titles(row) == ["Fraud 2.0.0, which serves in finance-development (development)"]
    rollout.roll_back(first.endpoint_id, actor=world.actor(), reason=WHY)
    back = clock.now()
    later()
    assert titles(row) == [
        "Fraud 1.0.0, which serves in finance-development (development)", "Fraud 2.0.0, approved last",
    ]  # fmt: skip
    live = subject_diff.bases_of(row).all[0]
    assert live.words[0].startswith("Endpoint fraud in finance-development on ")
    assert f"release 1, 100 % of the traffic since {back:%Y-%m-%d %H:%M} UTC" in live.words[0]
    lines = subject.VersionRequestSubject().diff(row.uid)
    old = {line.before for line in lines if line.object == "file"}
    assert {one.sha256 for one in _files(world.version)} <= old
    assert not {one.sha256 for one in _files(second)} & old


def _files(version: ModelVersion) -> list[Any]:
    return list(version.files.all())


@pytest.mark.requirement("release-review-1.1")
def test_several_workspaces_with_several_versions_are_named_each_the_gravest_first(
    world: World, query_limit: Limit
) -> None:
    world.live("development", ladder=())
    second = world.next_version("2.0.0")
    world.live("production", version=second, ladder=())
    third = world.next_version("3.0.0", approved=False, arguments=["--max=8"])
    row = ask(world, third, "development", "staging", "production")
    found = subject_diff.bases_of(row)
    assert [base.title for base in found.all] == [
        "Fraud 2.0.0, which serves in finance-production (production)",
        "Fraud 1.0.0, which serves in finance-development (development)",
    ]
    assert found.nowhere == ("finance-staging",)
    notes = {line.note.rpartition("against ")[2] for line in subject_diff.changes_of(row)}
    assert notes == {base.title for base in found.all}
    # Whoever reads it sees the same: it is a fact of the request.
    with walled(world["compliance"].pk):
        assert titles(row) == [base.title for base in found.all]
    client = client_for(world["compliance"])
    with query_limit(60):
        page = client.get(reverse("catalogue:request-detail", kwargs={"request_uid": row.uid}))
    shown = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.content.decode()))
    assert "Against what serves now where it is asked for. Open the comparison that you want to see." in shown
    assert "Nothing of this model serves in finance-staging." in shown
    assert shown.index("Against Fraud 2.0.0, which serves") < shown.index("Against Fraud 1.0.0, which serves")
    body = page.content.decode()
    assert body.count("<details open>") == 1


@pytest.mark.requirement("release-review-1.2")
def test_where_nothing_serves_it_is_laid_against_what_was_approved_last_and_says_so(world: World) -> None:
    world.live("staging", ladder=())
    third = world.next_version("3.0.0", approved=False)
    row = ask(world, third, "production")
    assert titles(row) == ["Fraud 1.0.0, approved last"]
    page = client_for(world["compliance"]).get(reverse("catalogue:request-detail", kwargs={"request_uid": row.uid}))
    shown = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.content.decode()))
    assert "Nothing of this model serves where it is asked for: against Fraud 1.0.0, approved last." in shown
    assert f"Approved on {clock.now():%Y-%m-%d %H:%M} UTC." in shown
    # What is stopped serves nothing.
    staged = ask(world, world.next_version("4.0.0", approved=False), "staging")
    assert subject_diff.bases_of(staged).served
    endpoint = Endpoint.objects.get(workspace=world.workspaces["staging"])
    rollout.stop(endpoint.pk, actor=world.actor(), reason=WHY)
    later()
    assert not subject_diff.bases_of(staged).served


@pytest.mark.requirement("release-review-1.3")
def test_an_ended_request_stays_laid_against_what_served_then(world: World) -> None:
    world.live("development", ladder=())
    second = world.next_version("2.0.0", approved=False)
    row = ask(world, second, "development")
    later()
    end(row)
    world.approve_version(second)
    later()
    world.load(world.release("development", version=second, ladder=()))
    later()
    assert titles(row) == ["Fraud 1.0.0, which serves in finance-development (development)"]
    assert subject_diff.bases_of(row).ended
    again = ask(world, second, "development")
    assert titles(again)[0] == "Fraud 2.0.0, which serves in finance-development (development)"


@pytest.mark.requirement("release-review-1.4")
def test_the_objects_that_would_change_are_shown_at_the_present_size(world: World) -> None:
    world.live("development", ladder=())
    second = world.next_version("2.0.0", approved=False, arguments=["--max=8"])
    row = ask(world, second, "development")
    lines = [line for line in subject_diff.changes_of(row) if line.note.startswith("endpoint fraud")]
    assert {line.cluster for line in lines} == {world.cluster.slug}
    assert any("--max=8" in line.after and "InferenceService" in line.object for line in lines), lines
    assert not any("replica" in line.path.lower() for line in lines)
    same = ask(world, world.version, "development")
    assert not [line for line in subject_diff.changes_of(same) if "InferenceService" in line.object]
    assert uuid.UUID(same.scope["workspaces"][0]) == world.workspaces["development"].uid
