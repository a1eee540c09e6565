"""Attacks on the catalogue: forged evidence, laundered authors, lowered classes, rows of others. Each must fail."""

from __future__ import annotations

import threading
import uuid
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.db import Error, connections, transaction
from django.test import Client

from apps.approvals.models import Grant
from apps.catalogue import actions, cards_saving, evidence, exceptions, grants, model_actions, producers, subject
from apps.catalogue import requests as asks
from apps.catalogue.choices import ActRole, RiskTier, Scheme
from apps.catalogue.models import CardRevision, Evidence, ModelRequest, ModelVersion
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.teams.choices import Role
from apps.teams.models import Membership, RoleGrant
from tests.catalogue.evidence_world import CARD, World, later, make_world
from tests.catalogue.test_evidence import Ci
from tests.catalogue.world import add_source, make_card, make_model, make_sealed, make_version, seal_directly
from tests.factories import Company, client_for, forget_scopes, grant, make_company, make_member, make_user

pytestmark = pytest.mark.django_db
EMERGENCY = {"role": "platform_admin", "hours": 4, "review_hours": 72, "review_role": "compliance"}


@pytest.fixture
def world(company: Company) -> World:
    """An internal model of finance with an evaluation that passes."""
    made = make_world(company)
    made.add("evaluation")
    return made


def turncoat(world: World) -> Any:
    """Somebody of the team that owns the model, who will be compliance later."""
    person = make_user("turncoat")
    make_member(person, world.company.finance_team)
    return person


def changes_sides(world: World, person: Any) -> None:
    Membership.objects.filter(user=person).delete()
    RoleGrant.objects.filter(user=person).update(revoked_at=clock.now())
    grant(person, Role.COMPLIANCE)
    forget_scopes(person)


# ---- who decides


@pytest.mark.requirement("evidence-4.9")
def test_who_edited_the_draft_between_two_others_does_not_decide(world: World) -> None:
    person = turncoat(world)
    draft = make_version(world.model, world["member_finance"], scheme=Scheme.OCI, card=world.version.card,
                         store=world.version.store)  # fmt: skip
    actions.edit_version(draft.pk, actor=Actor.of(person), runtime="vllm")
    actions.edit_version(draft.pk, actor=world.actor("member_finance"), runtime="triton")
    version = actions.seal(draft.pk, actor=world.actor("member_finance"))
    changes_sides(world, person)
    world.add("evaluation", version=version)
    row = world.ask(version=version)
    with pytest.raises(NotAllowed, match=r"Wrote a part of it|requester's side"):
        world.decide(row, by=person)
    assert row.uid in set(subject.VersionRequestSubject().written_by([person.pk]))


@pytest.mark.requirement("evidence-4.9")
def test_who_wrote_the_card_before_it_was_saved_again_does_not_decide(world: World) -> None:
    person = make_user("card writer")
    model = make_model(world.company.finance_team, "Cards", risk_tier="minimal", act_role="deployer")
    make_card(model, person, CARD)
    again = make_card(model, world["member_finance"], {**CARD, "monitoring": "Drift every week."})
    version = make_sealed(model, world["member_finance"], scheme="oci", card=again)
    world.add("evaluation", version=version)
    grant(person, Role.COMPLIANCE)
    row = world.ask(version=version)
    with pytest.raises(NotAllowed, match=r"Wrote a part of it|requester's side"):
        world.decide(row, by=person)
    assert row.uid in set(subject.VersionRequestSubject().written_by([person.pk]))
    assert set(subject.VersionRequestSubject().written_by([world["compliance"].pk])) == set()


@pytest.mark.requirement("evidence-4.9")
def test_who_gave_a_ci_system_its_latest_key_does_not_decide_on_its_evidence(world: World) -> None:
    keeper = make_user("keeper")
    grant(keeper, Role.PLATFORM_ADMIN)
    ci = Ci(world)
    made = producers.rotate_token(ci.producer.pk, later(days=30), actor=Actor.of(keeper))
    ci.producer = made.producer
    ci.send()
    grant(keeper, Role.COMPLIANCE)
    forget_scopes(keeper)
    row = world.ask()
    with pytest.raises(NotAllowed, match=r"own evidence|requester's side"):
        world.decide(row, by=keeper)
    assert row.uid in set(subject.VersionRequestSubject().proved_by([keeper.pk]))


def test_evidence_added_after_submission_shuts_its_producer_out(world: World) -> None:
    row = world.ask()
    person = turncoat(world)
    draft = evidence.Draft(kind="model_scan", title="Scan", payload={"tool": "scanner 1", "findings": 0})
    evidence.add_evidence(world.version.pk, draft, actor=Actor.of(person))
    changes_sides(world, person)
    with pytest.raises(NotAllowed):
        world.decide(row, by=person)


def test_who_wrote_a_version_makes_no_exception_for_it(world: World) -> None:
    person = turncoat(world)
    draft = make_version(world.model, world["member_finance"], data_classes=[])
    actions.edit_version(draft.pk, actor=Actor.of(person), runtime="vllm")
    actions.edit_version(draft.pk, actor=world.actor("member_finance"), runtime="triton")
    row = exceptions.propose_exception(
        draft.pk, "classification", "The source is synthetic by now.", later(days=30),
        actor=world.actor("lead_finance"), data_classes=["internal"],
    )  # fmt: skip
    changes_sides(world, person)
    with pytest.raises(NotAllowed, match="You wrote this version"):
        exceptions.decide_exception(row.pk, True, "It is fine to me.", actor=Actor.of(person))


# ---- what is decided on


@pytest.mark.requirement("evidence-4.10")
def test_what_is_said_of_a_model_stays_while_a_version_is_in_review(world: World) -> None:
    row = world.ask()
    lead = world.actor("lead_finance")
    for change in (
        {"risk_tier": RiskTier.HIGH}, {"act_role": ActRole.PROVIDER}, {"data_classes": ["public"]},
        {"solely_automated": True}, {"extra_regimes": ["sox"]},
    ):  # fmt: skip
        with pytest.raises(Conflict, match="in review"):
            model_actions.edit_model(world.model.pk, actor=lead, **change)
    model_actions.edit_model(world.model.pk, actor=lead, name="Fraud scores")
    asks.withdraw(row.pk, "Its tier was wrong.", actor=lead)
    model_actions.edit_model(world.model.pk, actor=lead, risk_tier=RiskTier.HIGH)


def test_a_request_changed_behind_the_portal_is_not_approved(world: World) -> None:
    row = world.ask()
    ModelRequest.objects.filter(pk=row.pk).update(scope={**row.scope, "clusters": ["cloud"]})
    with pytest.raises(Conflict, match="edited"):
        world.decide(row)
    assert not Grant.objects.exists()


def test_evidence_that_expired_or_was_withdrawn_since_submission_blocks_the_decision(world: World) -> None:
    Evidence.objects.get()
    version = world.seal(label="2.0.0")
    piece = world.add("evaluation", version=version, valid_until=later(days=1))
    row = world.ask(version=version)
    with clock.frozen(clock.now() + timedelta(days=1)), pytest.raises(Conflict, match="cannot be approved now"):
        world.decide(row)
    evidence.withdraw_evidence(piece.pk, "Measured on the training set.", actor=world.actor("member_finance"))
    with pytest.raises(Conflict, match="cannot be approved now"):
        world.decide(row)


def test_evidence_for_other_bytes_is_none(world: World) -> None:
    row = world.ask(version=world.seal(label="2.0.0"))
    with pytest.raises(Conflict, match="cannot be approved now"):
        world.decide(row)


def test_an_emergency_opens_one_workspace_and_no_more(company: Company) -> None:
    world = make_world(company, policy={**subject.MODEL_VERSIONS, "emergency": EMERGENCY})
    world.add("evaluation")
    asked = asks.Asked([world.production.pk, world.staging.pk], 100, 90, "The old version answers nothing at all.")
    with pytest.raises(Invalid) as refused:
        asks.submit(world.version.pk, asked, actor=world.actor("lead_finance"), kind="emergency")
    assert list(refused.value.errors) == ["workspaces"]


# ---- grants and sealed rows, by statement


@pytest.mark.requirement("evidence-4.11")
def test_no_statement_makes_a_grant_more_than_it_was(world: World) -> None:
    row = world.approved()
    given = Grant.objects.filter(request=row.approval)
    before = given.get()
    for change in (
        {"scope": {**before.scope, "max_traffic": 100, "clusters": ["onprem", "cloud"]}},
        {"expires_at": before.expires_at + timedelta(days=1)}, {"expires_at": None},
        {"not_before": before.not_before - timedelta(days=9)}, {"subject_digest": "0" * 64}, {"kind": "emergency"},
    ):  # fmt: skip
        with pytest.raises(Error, match="never becomes more"), transaction.atomic():
            given.update(**change)
    with pytest.raises(Error, match="never deleted"), transaction.atomic():
        given.delete()
    given.update(revoked_at=clock.now(), revoked_reason="A defect was found.")
    with pytest.raises(Error), transaction.atomic():
        given.update(revoked_at=None)


def test_a_grant_of_the_widest_row_covers_no_mixture_of_two(world: World) -> None:
    """Production at 10 % and staging at 100 % are not production at 100 %."""
    world.approved([world.production], max_traffic=10)
    version = world.version
    world.approved([world.staging], max_traffic=100)
    at = clock.now()
    wanted = {
        "environments": ["production"], "clusters": ["onprem"], "workspaces": [str(world.production.uid)],
        "max_traffic": 100,
    }  # fmt: skip
    assert grants.usable_grant(version.digest, wanted, at) is None
    assert "together" in grants.why_not_usable(version.digest, wanted, at)
    assert grants.usable_grant(version.digest, {**wanted, "max_traffic": 10}, at) is not None


# ---- classification


def test_a_source_of_health_data_is_not_washed_by_a_fine_tuning_in_between(company: Company) -> None:
    world = make_world(company, data_classes=("health",))
    plain = make_model(company.finance_team, "Plain", data_classes=["public"])
    middle = make_version(plain, company.member_finance)
    add_source(middle, parent=world.version)
    seal_directly(middle)
    last = make_version(plain, company.member_finance)
    add_source(last, parent=middle, data_classes=["public"])
    assert "health" in seal_directly(last).classification


# ---- CI systems


def test_a_delivery_is_taken_once_also_for_another_version_or_by_another_system(
    world: World,
) -> None:
    ci = Ci(world)
    ci.send()
    other = world.seal(label="2.0.0")
    with pytest.raises(Conflict, match="taken before"):
        ci.send(digest=other.digest)
    second = Ci(world, name="Other CI")
    body = ci.body(delivery_id="run-0002")
    with pytest.raises(NotAllowed):
        producers.receive(second.producer, body, ci.sign(body))
    assert Evidence.objects.filter(producer__isnull=False).count() == 1


def test_deeply_nested_bodies_are_refused_and_not_a_fault_of_ours(world: World) -> None:
    machine = Client(headers={"Authorization": f"Bearer {Ci(world).token}"}, raise_request_exception=False)
    for text in ("[" * 50_000, '{"results":' * 20_000 + "1" + "}" * 20_000, '{"digest": 1e400}', '"x"', "[1]"):
        answer = machine.post("/api/v1/evidence", data=text, content_type="application/json")
        assert answer.status_code == 400, (text[:20], answer.status_code)


# ---- rows of others


PAGES = (
    "/catalogue/models/{model}/", "/catalogue/models/{model}/card/", "/catalogue/versions/{version}/",
    "/catalogue/versions/{version}/manifest/", "/catalogue/versions/{version}/files/",
    "/catalogue/versions/{version}/evidence/", "/catalogue/versions/{version}/controls/",
    "/catalogue/evidence/{evidence}/", "/catalogue/evidence/{evidence}/file/", "/catalogue/requests/{request}/",
    "/catalogue/cards/{card}/", "/api/v1/models/{model}", "/api/v1/model-versions/{version}",
    "/api/v1/model-versions/{version}/manifest", "/api/v1/evidence/{evidence}", "/api/v1/model-requests/{request}",
)  # fmt: skip


def test_rows_of_another_team_are_answered_like_none(world: World) -> None:
    row = world.ask()
    uids = {
        "model": world.model.uid, "version": world.version.uid, "evidence": Evidence.objects.get().uid,
        "request": row.uid, "card": CardRevision.objects.get().uid,
    }  # fmt: skip
    client = client_for(world["lead_marketing"])
    for page in PAGES:
        found = client.get(page.format(**uids))
        never = client.get(page.format(**{name: uuid.uuid4() for name in uids}))
        assert found.status_code == never.status_code == 404, page
        assert b"Fraud" not in found.content, page
    compared = client.get("/catalogue/compare/", {"a": str(world.version.uid), "b": str(world.version.uid)})
    assert b"Fraud" not in compared.content
    stranger = Actor.of(world["lead_marketing"])
    for attack in (
        lambda: asks.renew(row.pk, "We need it, too.", actor=stranger),
        lambda: asks.correct(row.pk, asks.Asked([world.production.pk], 1, 1, "We need it, too."), actor=stranger),
        lambda: asks.withdraw(row.pk, "We do not want it.", actor=stranger),
        lambda: cards_saving.save_card(world.model.pk, CARD, actor=stranger),
    ):
        with pytest.raises(NotVisible):
            attack()


def test_a_search_and_an_export_hold_no_rows_of_others(world: World) -> None:
    client = client_for(world["lead_marketing"])
    for page in ("/catalogue/models/", "/catalogue/versions/", "/catalogue/evidence/", "/catalogue/requests/"):
        for query in ({"q": "Fraud"}, {"export": "csv"}):
            answer = client.get(page, query)
            body = b"".join(answer.streaming_content) if answer.streaming else answer.content
            assert b"Fraud" not in body.replace(b'value="Fraud"', b"").replace("“Fraud”".encode(), b""), (page, query)


def test_names_of_models_are_no_formulas_in_exports(world: World) -> None:
    make_model(world.company.finance_team, '=HYPERLINK("https://evil.example","x")')
    client = client_for(world["lead_finance"])
    answer = client.get("/catalogue/models/", {"export": "csv"})
    body = b"".join(answer.streaming_content) if answer.streaming else answer.content
    assert answer["Content-Type"].startswith("text/csv")
    assert b"HYPERLINK" in body
    assert b"\n=HYPERLINK" not in body
    assert b'"=HYPERLINK' not in body
    assert b",=HYPERLINK" not in body


def test_markup_in_a_card_is_shown_and_not_run(world: World) -> None:
    attack = "<script>alert(1)</script><img src=x onerror=alert(1)>[x](javascript:alert(1))"
    cards_saving.save_card(world.model.pk, {**CARD, "overview": attack}, actor=world.actor("member_finance"))
    client = client_for(world["lead_finance"])
    page = client.get(f"/catalogue/models/{world.model.uid}/card/")
    assert page.status_code == 200
    assert b"<script>alert" not in page.content
    assert b"<img src=x" not in page.content
    assert b'href="javascript' not in page.content


# ---- races


@pytest.mark.django_db(transaction=True)
def test_sealing_and_editing_at_once_leave_a_manifest_of_what_is_there() -> None:
    world = make_world(make_company())
    for _ in range(3):
        draft = make_version(world.model, world["member_finance"], scheme=Scheme.OCI, store=world.version.store)
        gate, found = threading.Barrier(2, timeout=20), []

        def run(work: Any, gate: threading.Barrier = gate, found: list[Any] = found) -> None:
            try:
                gate.wait()
                found.append(work())
            except Exception as error:  # noqa: BLE001 (handed to the test, which looks at its class)
                found.append(error)
            finally:
                connections.close_all()

        seal = partial(actions.seal, draft.pk, actor=world.actor("member_finance"))
        edit = partial(actions.edit_version, draft.pk, actor=world.actor("member_finance"), runtime="other")
        threads = [threading.Thread(target=run, args=(work,)) for work in (seal, edit)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        row = ModelVersion.objects.get(pk=draft.pk)
        assert row.status == "sealed"
        assert f'"runtime":"{row.runtime}"'.encode() in bytes(row.manifest)
        assert all(isinstance(one, ModelVersion | Conflict) for one in found)
