"""Requests that a version be approved: from submission to the grant and its end, and what a grant covers."""

from __future__ import annotations

import uuid
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.approvals import engine, granting, ports
from apps.approvals.models import ApprovalRequest, Grant
from apps.catalogue import evidence, exceptions, grants, recertify, subject, subject_diff
from apps.catalogue import ports as catalogue_ports
from apps.catalogue import requests as asks
from apps.catalogue.choices import AskStatus
from apps.catalogue.models import ModelRequest, ModelVersion
from apps.catalogue.version_actions import retire_version
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.quotas.models import Workspace
from tests.catalogue.evidence_world import CARD, World, later, make_world
from tests.catalogue.world import (
    add_source,
    make_card,
    make_model,
    make_sealed,
    make_store,
    make_version,
    seal_directly,
)
from tests.factories import Company, grant, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def world(company: Company) -> World:
    """An internal model of finance with an evaluation that passes."""
    made = make_world(company)
    made.add("evaluation")
    return made


@pytest.fixture
def heard() -> Any:
    """What a listener was told of changed grants."""
    told: list[list[uuid.UUID]] = []
    catalogue_ports.on_grant_change("tests", lambda uids: told.append(list(uids)))
    yield told
    catalogue_ports.forget_grant_change("tests")


def _scope(workspace: Workspace, traffic: int = 1) -> dict[str, Any]:
    return {
        "environments": [str(workspace.environment)], "clusters": [workspace.cluster.slug],
        "workspaces": [workspace.uid], "max_traffic": traffic,
    }  # fmt: skip


@pytest.mark.requirement("evidence-4.1", "evidence-4.4", "evidence-4.5")
def test_from_request_to_grant(world: World, heard: list[list[uuid.UUID]]) -> None:
    row = world.ask(max_traffic=50)
    assert row.status == AskStatus.IN_REVIEW
    assert row.approval is not None
    assert row.scope["environments"] == ["production"]
    assert row.scope["clusters"] == ["onprem"]
    assert {one["code"]: one["status"] for one in row.checklist}["house-evaluation"] == "satisfied"
    world.decide(row)
    row.refresh_from_db()
    held = Grant.objects.get(request=row.approval)
    assert row.status == AskStatus.APPROVED
    assert held.scope == {
        "subject_type": "catalogue.version", "subject_uid": str(row.uid), "manifest": world.version.digest, **row.scope,
    }  # fmt: skip
    assert abs(held.expires_at - held.not_before - timedelta(days=90)) < timedelta(seconds=5)
    assert heard == [[world.production.uid]]
    digest, at = world.version.digest, clock.now()
    assert grants.usable_grant(digest, _scope(world.production, 50), at) == held
    assert grants.why_not_usable(digest, _scope(world.production, 50), at) == ""
    for scope, says in (
        (_scope(world.production, 51), "at most 50 %"),
        (_scope(world.staging), "other environments only: production"),
        (_scope(world.production) | {"clusters": ["cloud"]}, "other clusters only: onprem"),
        (_scope(world.production) | {"workspaces": [uuid.uuid4()]}, "other workspaces only"),
    ):
        assert grants.usable_grant(digest, scope, at) is None
        assert says in grants.why_not_usable(digest, scope, at)
    assert "never approved" in grants.why_not_usable("0" * 64, _scope(world.production), at)
    assert "expired on" in grants.why_not_usable(digest, _scope(world.production), held.expires_at)
    assert "begins on" in grants.why_not_usable(digest, _scope(world.production), held.not_before - timedelta(hours=1))
    entry = grants.usable_entries(world.production.uid, "onprem", "production", at)[0]
    assert entry.bound == "bytes"
    assert entry.uris == (f"{world.version.location}@{world.version.revision}",)
    assert (entry.manifest_digest, entry.max_traffic, entry.grant_uid) == (digest, 50, held.uid)
    assert grants.usable_entries(world.staging.uid, "onprem", "staging", at) == []
    assert grants.usable_entries(world.production.uid, "onprem", "production", held.expires_at) == []


@pytest.mark.requirement("evidence-4.4", "evidence-4.5")
def test_a_revoked_or_retired_version_is_unusable_at_once(world: World, heard: list[list[uuid.UUID]]) -> None:
    row = world.approved([world.production, world.staging])
    digest, scope = world.version.digest, _scope(world.staging)
    retire_version(world.version.pk, "Replaced by the next one.", actor=world.actor("lead_finance"))
    assert grants.usable_grant(digest, scope, clock.now()) is None
    assert "retired" in grants.why_not_usable(digest, scope, clock.now())
    ModelVersion.objects.filter(pk=world.version.pk).update(status="sealed", retired_at=None)
    assert grants.usable_grant(digest, scope, clock.now()) is not None
    held = Grant.objects.get(request=row.approval)
    granting.revoke(held.uid, "A flaw was found in the labels.", actor=world.actor("compliance"))
    assert grants.usable_grant(digest, scope, clock.now()) is None
    assert "A flaw was found in the labels." in grants.why_not_usable(digest, scope, clock.now())
    assert heard[-1] == sorted([world.production.uid, world.staging.uid], key=str)
    assert len(heard) == 2


_texts = st.lists(st.sampled_from("abc"), max_size=3).map(sorted)
_AT = clock.now()
_moments = st.integers(-3, 3).map(lambda hours: _AT + timedelta(hours=hours))


@pytest.mark.requirement("evidence-4.5")
@given(
    status=st.sampled_from(["sealed", "retired"]), digest=st.sampled_from(["1" * 64, "2" * 64]), held=_texts,
    asked=_texts,
    most=st.integers(1, 100), wants=st.integers(1, 100), start=_moments, end=st.none() | _moments,
    revoked=st.none() | _moments,
)  # fmt: skip
def test_a_grant_holds_exactly_where_digest_scope_and_time_do(
    status: str,
    digest: str,
    held: list[str],
    asked: list[str],
    most: int,
    wants: int,
    start: Any,
    end: Any,
    revoked: Any,
) -> None:
    version = SimpleNamespace(status=status, digest="1" * 64)
    made: Any = SimpleNamespace(
        subject_digest="s", scope={"manifest": "1" * 64, "workspaces": held, "max_traffic": most}, not_before=start,
        expires_at=end, revoked_at=revoked,
        request=SimpleNamespace(model_request=SimpleNamespace(model_version=version)),
    )  # fmt: skip
    expected = (
        status == "sealed" and digest == "1" * 64 and set(asked) <= set(held) and wants <= most and start <= _AT
        and (end is None or end > _AT) and (revoked is None or revoked > _AT)
    )  # fmt: skip
    assert grants.holds(made, digest, {"workspaces": asked, "max_traffic": wants}, _AT) is expected


@pytest.mark.requirement("evidence-4.2")
def test_nobody_approves_while_a_control_is_open(company: Company) -> None:
    world = make_world(company)
    row = world.ask()
    with pytest.raises(Conflict, match="Evaluated against thresholds"):
        world.decide(row)
    piece = world.add("evaluation", valid_until=later(days=2))
    with clock.frozen(later(days=2)), pytest.raises(Conflict):
        world.decide(row)
    world.decide(row)
    assert piece.valid_until is not None
    decision = ApprovalRequest.objects.get(pk=row.approval_id).decisions.get()
    assert decision.checklist_digest
    assert decision.facts["controls_open"] == 0


@pytest.mark.requirement("evidence-4.3")
def test_nobody_decides_who_wrote_or_showed_it(world: World) -> None:
    people = {name: make_user(f"{name}@example.com") for name in ("author", "card_author", "producer", "free")}
    for one in people.values():
        grant(one, "compliance")
    card = make_card(world.model, people["card_author"], CARD | {"contact": "Risk"})
    made = make_version(world.model, people["author"], scheme="oci", card=card, store=world.version.store)
    world.version = version = seal_directly(made)
    evidence.add_evidence(
        version.pk,
        evidence.Draft("evaluation", "E", rows=[{"metric": "a", "value": "1", "comparison": "ge", "threshold": "0"}]),
        actor=Actor.of(people["producer"]),
    )
    row = world.ask()
    uid = row.uid
    side = subject.VersionRequestSubject()
    assert people["author"].pk in side.authors(uid)
    assert people["card_author"].pk in side.authors(uid)
    assert people["producer"].pk in side.evidence_producers(uid)
    assert world["member_finance"].pk in side.requester_side(uid)
    for name in ("author", "card_author", "producer"):
        with pytest.raises(NotAllowed):
            world.decide(row, by=people[name])
        assert uid in {*side.written_by({people[name].pk}), *side.proved_by({people[name].pk})}
    assert uid not in {*side.written_by({people["free"].pk}), *side.proved_by({people["free"].pk})}
    world.decide(row, by=people["free"])
    row.refresh_from_db()
    assert row.status == AskStatus.APPROVED


@pytest.mark.requirement("evidence-4.1")
def test_what_cannot_be_asked_for_is_refused(world: World) -> None:
    foreign = Workspace.objects.create(
        team=world.company.marketing_team, cluster=world.cluster, environment="production", namespace="marketing-prod"
    )
    for values, field in (
        ({"workspaces": [foreign]}, "workspaces"), ({"max_traffic": 0}, "max_traffic"),
        ({"valid_days": 0}, "valid_days"),
        ({"reason": "so"}, "reason"), ({"not_before": later(days=-1)}, "not_before"),
    ):  # fmt: skip
        with pytest.raises(Invalid) as refused:
            world.ask(**values)
        assert field in refused.value.errors
    with pytest.raises(NotAllowed):
        world.ask(by="member_finance")
    with pytest.raises(NotVisible):
        world.ask(by="lead_marketing")
    with pytest.raises(Conflict):
        world.ask(version=make_version(world.model, world["member_finance"]))
    world.ask()
    with pytest.raises(Conflict) as twice:
        world.ask()
    assert "request" in twice.value.current
    assert ModelRequest.objects.count() == 1


@pytest.mark.requirement("evidence-4.1")
def test_a_regulated_version_is_asked_for_only_where_its_data_are_allowed(company: Company) -> None:
    world = make_world(company, data_classes=("health",))
    Workspace.objects.filter(pk=world.staging.pk).update(data_classes=["internal"])
    with pytest.raises(Invalid, match="does not allow health data"):
        world.ask([world.staging])
    row = world.ask()
    states = {one["code"]: one["status"] for one in row.checklist}
    assert states["house-placement"] == "satisfied"
    assert states["hipaa-164.312-b"] == "missing"
    assert states["house-bytes"] == "satisfied"
    facts = subject.VersionRequestSubject().facts(row.uid)
    assert (facts["data_class"], facts["regulated"], facts["environment"], facts["bound"]) == (
        "health", "yes", "production", "bytes",
    )  # fmt: skip
    waiting = [one for one in row.checklist if one["status"] not in ("satisfied", "not_applicable")]
    assert facts["controls_open"] == sum(one["kind"] != "advisory" for one in waiting)
    assert row.approval is not None
    assert row.approval.stages.count() == 2


@pytest.mark.requirement("evidence-4.2")
def test_health_data_never_go_to_the_cloud(company: Company) -> None:
    world = make_world(company, data_classes=("health",))
    type(world.cluster).objects.filter(pk=world.other_cluster.pk).update(location="cloud", jurisdiction="US")
    abroad = Workspace.objects.create(
        team=company.finance_team, cluster=world.other_cluster, environment="production", namespace="finance-cloud",
        data_classes=["health"],
    )  # fmt: skip
    row = world.ask([abroad])
    lines = " ".join(subject.VersionRequestSubject().blockers(row.uid, clock.now()))
    assert "Health data stay on premises" in lines
    assert subject.VersionRequestSubject().facts(row.uid)["cross_border"] == "yes"
    codes = {one["code"]: one["status"] for one in row.checklist}
    assert codes["house-placement"] == "failed"
    assert codes["gdpr-44-49"] == "missing"


@pytest.mark.requirement("evidence-4.6")
def test_a_correction_voids_what_was_decided_and_a_withdrawal_ends_it(world: World) -> None:
    row = world.ask()
    corrected = asks.correct(
        row.pk, asks.Asked([world.staging.pk], 10, 30, "Only staging, for now."), actor=world.actor("lead_finance")
    )
    row.refresh_from_db()
    assert row.status == AskStatus.SUPERSEDED
    assert corrected.supersedes == row
    assert corrected.approval is not None
    assert corrected.approval.supersedes_id == row.approval_id
    with pytest.raises(Conflict):
        world.decide(row)
    with pytest.raises(NotVisible):
        asks.withdraw(corrected.pk, "Not needed any more.", actor=world.actor("lead_marketing"))
    asks.withdraw(corrected.pk, "Not needed any more.", actor=world.actor("lead_finance"))
    corrected.refresh_from_db()
    assert corrected.status == AskStatus.WITHDRAWN
    with pytest.raises(Conflict):
        asks.withdraw(corrected.pk, "Not needed any more.", actor=world.actor("lead_finance"))
    again = world.ask()
    world.decide(again, "reject")
    again.refresh_from_db()
    assert again.status == AskStatus.REJECTED
    assert not Grant.objects.exists()


@pytest.mark.requirement("evidence-4.6")
def test_recertification_asks_once_for_the_same_scope(world: World) -> None:
    system = Actor.system("tests")
    with pytest.raises(Conflict):
        recertify.recertify(world.version.pk, "Drift above the limit.", actor=system)
    first = world.approved(max_traffic=40)
    row = catalogue_ports.recertify(world.version.pk, "Drift above the limit.", actor=system)
    assert row is not None
    assert row.renews == first
    assert row.scope == first.scope
    assert row.recertify_reason == "Drift above the limit."
    assert row.requester == world["lead_finance"]
    assert catalogue_ports.recertify(world.version.pk, "Again.", actor=system) is None
    held = Grant.objects.get(request=first.approval)
    assert grants.usable_grant(world.version.digest, _scope(world.production), clock.now()) == held
    side = subject.VersionRequestSubject()
    assert side.facts(row.uid)["renewal"] == "yes"
    assert not side.renewed(first.uid, clock.now())
    with clock.frozen(later(days=1)):
        world.decide(row)
    assert side.renewed(first.uid, later(days=1))
    assert grants.usable_grant(world.version.digest, _scope(world.production), later(days=2)) != held
    with pytest.raises(Conflict):
        asks.renew(ModelRequest.objects.create(
            model_version=world.version, scope=row.scope, reason="x", requester=world["lead_finance"],
            status="withdrawn",
        ).pk, "Once more, please.", actor=world.actor("lead_finance"))  # fmt: skip
    renewed = asks.renew(row.pk, "Another quarter, please.", actor=world.actor("lead_finance"), valid_days=30)
    assert renewed.valid_days == 30
    assert renewed.renews == row


@pytest.mark.requirement("evidence-4.7")
def test_what_is_approved_is_shown_against_what_was_approved_last(world: World) -> None:
    world.approved([world.staging])
    card = make_card(world.model, world["member_finance"], CARD | {"overview": "Scores payments and refunds."})
    world.version = world.seal(card=card, files={"model.onnx": b"new", "tokens.json": b"{}"}, arguments=["--max=8"])
    world.add("evaluation")
    row = world.ask(max_traffic=60)
    lines = {(one.object, one.path): (one.before, one.after) for one in subject.VersionRequestSubject().diff(row.uid)}
    assert lines["placement", "environments"] == ("staging", "production")
    assert lines["placement", "largest share of traffic"] == ("100 %", "60 %")
    assert lines["file", "files[tokens.json].path"] == ("", "tokens.json")
    assert lines["model card", "Description"] == ("Scores payments.", "Scores payments and refunds.")
    assert lines["manifest", "arguments[0]"] == ("", "--max=8")
    assert ("manifest", "image") not in lines
    # What was asked for later and approved meanwhile is what an open request is laid against; an ended one is not.
    earlier, world.version = row, world.seal(card=card, files={"model.onnx": b"newest"})
    world.add("evaluation")
    later = world.approved([world.staging])
    earlier.refresh_from_db()
    assert subject_diff.before_of(earlier) == later
    lines = {(one.object, one.path): (one.before, one.after) for one in subject_diff.changes_of(earlier)}
    assert lines["file", "files[tokens.json].path"] == ("", "tokens.json")
    assert subject_diff.before_of(later) != earlier


@pytest.mark.requirement("evidence-4.4")
def test_a_lowered_classification_ends_with_its_exception(company: Company) -> None:
    world = make_world(company)
    base = make_sealed(make_model(company.finance_team, data_classes=["health"]), company.member_finance)
    draft = make_version(
        world.model, company.member_finance, scheme="oci", card=world.version.card, store=make_store("oci")
    )
    add_source(draft, parent=base)
    row = exceptions.propose_exception(
        draft.pk, "classification", "Trained on aggregates only, see the review.", later(days=20),
        actor=world.actor("lead_finance"), data_classes=["internal"],
    )  # fmt: skip
    exceptions.decide_exception(row.pk, True, "The review shows no persons.", actor=world.actor("compliance"))
    world.version = seal_directly(draft)
    assert world.version.classification == ["internal"]
    world.add("evaluation")
    asked = world.ask()
    side = subject.VersionRequestSubject()
    assert side.blockers(asked.uid, clock.now()) == []
    assert any("has ended" in line for line in side.blockers(asked.uid, later(days=20)))
    world.decide(asked)
    held = Grant.objects.get(request__model_request=asked)
    assert held.expires_at == row.expires_at


@pytest.mark.requirement("evidence-4.4")
def test_a_policy_may_approve_the_same_bytes_again_by_itself_but_not_with_open_controls(company: Company) -> None:
    rule = {"name": "Same bytes", "when": [["same_bytes", "eq", "yes"], ["controls_open", "eq", 0]]}
    world = make_world(company, policy=subject.MODEL_VERSIONS | {"automatic": [rule]})
    world.add("evaluation")
    world.approved()
    again = world.ask([world.staging])
    assert again.status == AskStatus.APPROVED
    assert again.approval is not None
    assert again.approval.automatic
    assert engine.usable(
        Grant.objects.get(request=again.approval), again.digest, {"manifest": world.version.digest}, clock.now()
    )
    assert ports.get_subject("catalogue.version").url(again.uid) == f"/catalogue/requests/{again.uid}/"
