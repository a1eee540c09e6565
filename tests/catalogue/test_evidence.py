"""Evidence, answers, exceptions, cards and CI systems on the database."""

from __future__ import annotations

import base64
import hashlib
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.db import DatabaseError, transaction

from apps.audit.models import AuditEvent
from apps.catalogue import answers, cards_saving, controls_state, evidence, exceptions, producers
from apps.catalogue.choices import ScanStatus
from apps.catalogue.models import (
    CardRevision,
    Control,
    ControlAnswer,
    EvaluationResult,
    Evidence,
    EvidenceProducer,
    Regime,
    VersionException,
)
from apps.catalogue.regimes_loading import load_regimes
from apps.catalogue.regimes_publishing import publish_control
from apps.core import clock
from apps.core.canonical import canonical_bytes
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from tests.catalogue.evidence_world import CARD, World, later, make_world
from tests.catalogue.world import make_blob, make_version
from tests.factories import Company

pytestmark = pytest.mark.django_db
WHY = "Measured on the wrong dataset."


@pytest.fixture
def world(company: Company) -> World:
    """An internal model of finance."""
    return make_world(company)


def _status(world: World, code: str, at: Any = None) -> str:
    states = controls_state.standing(world.version, at=at).states
    return next(one.status for one in states if one.code == code)


def _refused_by_database(query: Any) -> None:
    with pytest.raises(DatabaseError), transaction.atomic():
        query()


@pytest.mark.requirement("evidence-1.1")
def test_a_card_is_saved_as_a_revision_that_never_changes(world: World) -> None:
    model, actor = world.model, world.actor("member_finance")
    newer = cards_saving.save_card(model.pk, CARD | {"contact": "Risk"}, actor=actor, expected_number=1)
    assert newer.number == 2
    assert cards_saving.save_card(model.pk, CARD | {"contact": "Risk"}, actor=actor).pk == newer.pk
    with pytest.raises(Conflict):
        cards_saving.save_card(model.pk, CARD | {"contact": "Office"}, actor=actor, expected_number=1)
    with pytest.raises(NotVisible):
        cards_saving.save_card(model.pk, CARD, actor=world.actor("lead_marketing"))
    rows = CardRevision.objects.filter(pk=newer.pk)
    _refused_by_database(lambda: rows.update(note="x"))
    _refused_by_database(rows.delete)
    event = AuditEvent.objects.get(action="catalogue.card.revised")
    assert b'"fields":["contact"]' in bytes(event.canonical)


@pytest.mark.requirement("evidence-2.1", "evidence-2.2")
def test_evidence_is_bound_judged_withdrawn_and_never_deleted(world: World) -> None:
    assert _status(world, "house-evaluation") == "missing"
    failing = world.add(
        "evaluation", rows=[{"metric": "auroc", "value": "0.95", "low": "0.8", "comparison": "ge", "threshold": "0.9"}]
    )
    assert failing.verdict == "fail"
    assert failing.subject_digest == world.version.digest
    assert _status(world, "house-evaluation") == "failed"
    good = world.add("evaluation")
    assert good.verdict == "pass"
    assert _status(world, "house-evaluation") == "satisfied"
    row = EvaluationResult.objects.get(evidence=good)
    assert row.passed
    assert str(row.value) == "0.930000000"
    with pytest.raises(Invalid):
        evidence.withdraw_evidence(good.pk, "no", actor=world.actor("member_finance"))
    with pytest.raises(NotAllowed):
        evidence.withdraw_evidence(good.pk, WHY, actor=world.actor("compliance"))
    evidence.withdraw_evidence(good.pk, WHY, actor=world.actor("member_finance"))
    assert _status(world, "house-evaluation") == "failed"
    with pytest.raises(Conflict):
        evidence.withdraw_evidence(good.pk, WHY, actor=world.actor("lead_finance"))
    rows = Evidence.objects.filter(pk=good.pk)
    _refused_by_database(rows.delete)
    _refused_by_database(lambda: rows.update(verdict="pass", withdrawn_at=None))
    _refused_by_database(lambda: Evidence.objects.filter(pk=failing.pk).update(verdict="pass"))
    _refused_by_database(lambda: EvaluationResult.objects.filter(evidence=failing).update(passed=True))


@pytest.mark.requirement("evidence-2.2", "evidence-3.2")
def test_evidence_for_another_version_is_stale_and_a_draft_takes_none(world: World) -> None:
    world.add("evaluation")
    first, world.version = world.version, world.seal()
    assert _status(world, "house-evaluation") == "stale"
    world.version = first
    assert _status(world, "house-evaluation", later(days=366)) == "expired"
    draft = make_version(world.model, world["member_finance"])
    with pytest.raises(Conflict):
        world.add("evaluation", version=draft)


@pytest.mark.requirement("evidence-2.2")
@pytest.mark.parametrize(
    ("draft", "field"),
    [
        ({"title": " "}, "title"), ({"rows": []}, "results"), ({"rows": [{"metric": "a", "value": "x"}]}, "results"),
        ({"controls": ["no-such"]}, "controls"), ({"controls": ["house-model-scan"]}, "controls"),
        ({"valid_until": clock.now() - timedelta(days=1)}, "valid_until"),
        ({"produced_at": clock.now() + timedelta(days=1)}, "produced_at"), ({"payload": {"x": 1}}, "payload"),
    ],
)  # fmt: skip
def test_evidence_that_lacks_something_is_refused_beside_the_field(world: World, draft: Any, field: str) -> None:
    values = {"kind": "evaluation", "title": "E", "rows": [{"metric": "auroc", "value": "0.9"}], **draft}
    with pytest.raises(Invalid) as refused:
        evidence.add_evidence(world.version.pk, evidence.Draft(**values), actor=world.actor("member_finance"))
    assert field in refused.value.errors
    assert not Evidence.objects.exists()


@pytest.mark.requirement("evidence-2.2", "evidence-4.8")
def test_only_who_may_adds_evidence(world: World) -> None:
    with pytest.raises(NotVisible):
        world.add("evaluation", by="lead_marketing")
    with pytest.raises(NotAllowed):
        world.add("evaluation", by="auditor")
    assert world.add("security_review", by="compliance").produced_by == world["compliance"]


@pytest.mark.requirement("evidence-2.3")
def test_an_attachment_is_taken_by_its_bytes(world: World, settings: Any, tmp_path: Any) -> None:
    settings.COMMONS_BLOB_DIR, settings.COMMONS_SCANNER = str(tmp_path), ""
    actor = world.actor("member_finance")
    blob = evidence.attach([b"%PDF-1.7 review"], actor=actor)
    assert blob.sha256 == hashlib.sha256(b"%PDF-1.7 review").hexdigest()
    wanted = evidence.Draft(kind="security_review", title="Review", file_name="review.pdf")
    row = evidence.add_evidence(world.version.pk, wanted, actor=actor, blob=blob)
    assert row.blob == blob
    assert row.file_name == "review.pdf"
    with pytest.raises(Invalid):
        evidence.attach([b"MZ\x90\x00 program"], actor=actor)
    infected = make_blob(b"bad", scan=ScanStatus.INFECTED)
    with pytest.raises(Invalid):
        evidence.add_evidence(world.version.pk, wanted, actor=actor, blob=infected)


@pytest.mark.requirement("evidence-3.3")
def test_an_addressable_control_is_answered_in_one_of_three_ways(company: Company) -> None:
    world = make_world(company, data_classes=("health",))
    code, actor = "hipaa-164.312-a-2-iii", world.actor("lead_finance")
    assert _status(world, code) == "missing"
    with pytest.raises(Invalid):
        answers.answer_control(world.version.pk, code, "implemented", "Yes.", actor=actor)
    with pytest.raises(Invalid):
        answers.answer_control(world.version.pk, "hipaa-164.312-d", "implemented", "x" * 40, actor=actor)
    text = "Sessions of the serving console end after ten minutes."
    answers.answer_control(world.version.pk, code, "implemented", text, actor=actor)
    assert _status(world, code) == "satisfied"
    _refused_by_database(lambda: ControlAnswer.objects.update(answer="equivalent"))
    world.version = world.seal()
    assert _status(world, code) == "missing"


@pytest.mark.requirement("evidence-3.4")
def test_loading_again_changes_nothing_and_leaves_what_compliance_published(world: World) -> None:
    assert load_regimes() == 0
    before = Control.objects.get(code="house-evaluation")
    with pytest.raises(NotAllowed):
        publish_control(before.pk, {"max_age_days": 90}, "Quarterly from now on.", actor=world.actor("admin"))
    with pytest.raises(Invalid):
        publish_control(before.pk, {"evidence_kinds": []}, "Nothing at all.", actor=world.actor("compliance"))
    published = publish_control(
        before.pk, {"max_age_days": 90}, "Quarterly from now on.", actor=world.actor("compliance")
    )
    assert (published.revision, published.max_age_days) == (2, 90)
    before.refresh_from_db()
    assert before.superseded_at is not None
    assert before.max_age_days == 365
    assert load_regimes() == 0
    _refused_by_database(lambda: Control.objects.filter(pk=published.pk).update(text="x"))
    with pytest.raises(Conflict):
        publish_control(before.pk, {"max_age_days": 30}, "Monthly from now on.", actor=world.actor("compliance"))


@pytest.mark.requirement("evidence-3.4")
def test_a_shipped_control_that_changed_gets_a_revision(world: World) -> None:
    Regime.objects.filter(code="house").update(name="Older")
    row = Control.objects.get(code="house-card")
    Control.objects.filter(pk=row.pk).update(superseded_at=clock.now())
    Control.objects.create(regime=row.regime, code=row.code, revision=2, title="Older", citation="x", text="x",
                           kind="computed", computed="card_complete")  # fmt: skip
    assert load_regimes() == 3
    assert Control.objects.get(code="house-card", superseded_at__isnull=True).revision == 3
    assert Regime.objects.get(code="house").name == "House rules"


@pytest.mark.requirement("evidence-3.5")
def test_an_exception_takes_two_people_and_ends(world: World) -> None:
    ends = later(days=30)
    row = exceptions.propose_exception(
        world.version.pk, "control", "The test set arrives in December.", ends, actor=world.actor("lead_finance"),
        control_code="house-evaluation",
    )  # fmt: skip
    assert _status(world, "house-evaluation") == "missing"
    for who in ("lead_finance", "vp", "admin"):
        with pytest.raises(NotAllowed):
            exceptions.decide_exception(row.pk, True, "Until the data are there.", actor=world.actor(who))
    exceptions.decide_exception(row.pk, True, "Until the data are there.", actor=world.actor("compliance"))
    assert _status(world, "house-evaluation") == "waived"
    assert _status(world, "house-evaluation", ends) == "missing"
    with pytest.raises(Conflict):
        exceptions.decide_exception(row.pk, False, "On second thoughts, no.", actor=world.actor("compliance"))
    _refused_by_database(lambda: VersionException.objects.update(expires_at=ends + timedelta(days=9)))
    world.version = world.seal()
    assert _status(world, "house-evaluation") == "missing"


@pytest.mark.requirement("evidence-3.5")
@pytest.mark.parametrize(
    "values",
    [{"control_code": "house-digest"}, {"control_code": "nothing"}, {"days": 0}, {"days": 500}, {"reason": "no"},
     {"kind": "classification"}, {"data_classes": ["public"]}],
)  # fmt: skip
def test_an_exception_that_makes_no_sense_is_refused(world: World, values: dict[str, Any]) -> None:
    made = {
        "kind": "control",
        "reason": "The test set arrives in December.",
        "control_code": "house-evaluation",
        "days": 9,
    }
    made |= values
    days = made.pop("days")
    with pytest.raises((Invalid, Conflict)):
        exceptions.propose_exception(
            world.version.pk, made.pop("kind"), made.pop("reason"), later(days=days),
            actor=world.actor("lead_finance"), **made,
        )  # fmt: skip


@pytest.mark.requirement("evidence-3.5")
def test_compliance_cannot_decide_what_compliance_proposed(world: World) -> None:
    row = exceptions.propose_exception(
        world.version.pk, "control", "The test set arrives in December.", later(days=3),
        actor=world.actor("compliance"),
        control_code="house-evaluation",
    )  # fmt: skip
    with pytest.raises(NotAllowed):
        exceptions.decide_exception(row.pk, True, "I find it fine myself.", actor=world.actor("compliance"))


class Ci:
    """A CI system with its key."""

    def __init__(self, world: World, **values: Any) -> None:
        self.key = Ed25519PrivateKey.generate()
        public = base64.b64encode(self.key.public_key().public_bytes_raw()).decode()
        made = producers.add_producer(
            values.pop("name", "Fraud CI"), public, later(days=90), values.pop("kinds", ["evaluation", "image_scan"]),
            [world.company.finance_team.pk], actor=world.actor("admin"), **values,
        )  # fmt: skip
        self.producer, self.token, self.world = made.producer, made.token, world

    def body(self, **changes: Any) -> dict[str, Any]:
        """Return a delivery."""
        return {
            "delivery_id": "run-0001", "timestamp": clock.now().isoformat(), "digest": self.world.version.digest,
            "kind": "evaluation", "title": "Nightly evaluation",
            "results": [{"metric": "auroc", "value": "0.93", "comparison": "ge", "threshold": "0.9"}], **changes,
        }  # fmt: skip

    def sign(self, body: dict[str, Any]) -> str:
        """Return the signature over the body's RFC 8785 bytes."""
        return base64.b64encode(self.key.sign(canonical_bytes(body))).decode()

    def send(self, **changes: Any) -> Evidence:
        """Deliver."""
        body = self.body(**changes)
        return producers.receive(self.producer, body, self.sign(body))


@pytest.mark.requirement("evidence-2.4")
def test_a_ci_system_posts_signed_evidence_once(world: World) -> None:
    ci = Ci(world)
    assert producers.authenticate(ci.token, clock.now()) == ci.producer
    row = ci.send()
    assert row.verdict == "pass"
    assert row.producer == ci.producer
    assert row.produced_by is None
    assert _status(world, "house-evaluation") == "satisfied"
    with pytest.raises(Conflict) as replay:
        ci.send(title="Another")
    assert replay.value.current == {"evidence": str(row.uid)}
    assert Evidence.objects.count() == 1


@pytest.mark.requirement("evidence-2.4")
def test_a_body_that_was_changed_or_is_old_or_out_of_bounds_is_refused(world: World) -> None:
    ci = Ci(world)
    signature = ci.sign(ci.body())
    with pytest.raises(NotAllowed):
        producers.receive(ci.producer, ci.body(title="Changed"), signature)
    with pytest.raises(NotAllowed):
        producers.receive(ci.producer, ci.body(), "not base64")
    assert AuditEvent.objects.filter(action="catalogue.delivery.refused").count() == 2
    for moved in (-11, 11):
        with pytest.raises(Invalid):
            ci.send(timestamp=(clock.now() + timedelta(minutes=moved)).isoformat())
    with pytest.raises(NotAllowed):
        ci.send(kind="dpia")
    with pytest.raises(NotVisible):
        ci.send(digest="0" * 64)
    for wrong in ({"delivery_id": "x"}, {"timestamp": "yesterday"}, {"more": "x"}, {"results": "x"}, {"title": None},
                  {"attachment": {"name": "x"}}):  # fmt: skip
        with pytest.raises(Invalid):
            ci.send(**wrong)
    body = ci.body(results=[{"metric": "auroc", "value": 0.93}])
    with pytest.raises(Invalid):
        producers.receive(ci.producer, body, "x")
    assert not Evidence.objects.exists()


@pytest.mark.requirement("evidence-2.4")
def test_a_ci_system_speaks_only_about_its_models_while_it_may(world: World) -> None:
    from tests.catalogue.world import make_model, make_sealed

    other = make_model(world.company.finance_team)
    foreign = make_sealed(make_model(world.company.marketing_team), world["lead_marketing"])
    ci = Ci(world, model_ids=[other.pk])
    for digest in (world.version.digest, foreign.digest):
        with pytest.raises(NotVisible):
            ci.send(digest=digest)
    made = producers.rotate_token(ci.producer.pk, later(days=30), actor=world.actor("admin"))
    assert producers.authenticate(ci.token, clock.now()) is None
    assert producers.authenticate(made.token, clock.now()) == ci.producer
    assert producers.authenticate(made.token, later(days=30)) is None
    producers.revoke_producer(ci.producer.pk, "The pipeline was retired.", actor=world.actor("admin"))
    assert producers.authenticate(made.token, clock.now()) is None
    with pytest.raises(NotAllowed):
        ci.send(digest=make_sealed(other, world["member_finance"]).digest)


@pytest.mark.requirement("evidence-2.4")
def test_only_a_platform_admin_lets_ci_systems_in(world: World) -> None:
    key = base64.b64encode(b"k" * 32).decode()
    team = [world.company.finance_team.pk]
    with pytest.raises(NotAllowed):
        producers.add_producer("CI one", key, later(days=9), ["evaluation"], team, actor=world.actor("lead_finance"))
    for values in (("", key, later(days=9), ["evaluation"], team), ("CI", "x", later(days=9), ["evaluation"], team),
                   ("CI one", key, later(days=900), ["evaluation"], team), ("CI one", key, later(days=9), [], team),
                   ("CI one", key, later(days=9), ["evaluation"], [])):  # fmt: skip
        with pytest.raises(Invalid):
            producers.add_producer(*values, actor=world.actor("admin"))
    assert not EvidenceProducer.objects.exists()
