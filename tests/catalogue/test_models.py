"""Models and versions: registered, edited, sealed for ever, retired; what only SQL could do is refused, too."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction

from apps.accounts.models import User
from apps.audit.models import AuditEvent
from apps.catalogue import actions, lineage, manifest
from apps.catalogue.actions import SourceInput
from apps.catalogue.choices import JobStatus, VersionStatus
from apps.catalogue.models import ClassificationRecord, HashJob, Model, ModelVersion, VersionException, VersionFile
from apps.core import clock
from apps.core.actor import Actor
from apps.core.canonical import digest
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from tests.catalogue.world import add_source, make_blob, make_card, make_model, make_sealed, make_version

pytestmark = pytest.mark.django_db
PURPOSE = "Scores card payments for fraud before they are settled."


def of(user: User) -> Actor:
    return Actor.of(user)


def register(company: Any, **values: Any) -> Model:
    base: dict[str, Any] = {"purpose": PURPOSE, "data_classes": ["cardholder"], "actor": of(company.lead_finance)}
    return actions.register_model(company.finance_team.pk, values.pop("name", "Card fraud"), **(base | values))


# ---------------------------------------------------------------- models


@pytest.mark.requirement("catalogue-1.1")
def test_a_lead_registers_a_model_and_it_is_recorded(company: Any) -> None:
    model = register(
        company, data_classes=["internal", "cardholder", "internal"], risk_tier="high", act_role="deployer"
    )
    assert model.slug == "card-fraud"
    assert model.data_classes == ["cardholder", "internal"]
    event = AuditEvent.objects.filter(action="catalogue.model.registered").get()
    assert event.object_id == model.uid
    assert PURPOSE.encode() not in bytes(event.canonical)


@pytest.mark.requirement("catalogue-1.1")
@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"purpose": "Fraud"}, "purpose"),
        ({"data_classes": []}, "data_classes"),
        ({"data_classes": ["secret"]}, "data_classes"),
        ({"slug": "Card_Fraud"}, "slug"),
        ({"risk_tier": "unbelievable"}, "risk_tier"),
        ({"act_annex": "annex_ix"}, "act_annex"),
        ({"name": " "}, "name"),
    ],
)
def test_what_is_malformed_is_refused_beside_its_field(company: Any, values: Any, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        register(company, **values)
    assert field in caught.value.errors
    assert not Model.objects.exists()


@pytest.mark.requirement("catalogue-1.1")
def test_a_short_name_is_taken_once(company: Any) -> None:
    register(company)
    with pytest.raises(Invalid, match="taken"):
        register(company, name="Card-Fraud")


@pytest.mark.requirement("catalogue-1.1")
def test_editing_takes_the_version_that_was_seen(company: Any, model: Model) -> None:
    actor = of(company.lead_finance)
    edited = actions.edit_model(model.pk, actor=actor, expected_version=1, name="Fraud", data_classes=["financial"])
    assert (edited.name, edited.data_classes, edited.version) == ("Fraud", ["financial"], 2)
    with pytest.raises(Conflict):
        actions.edit_model(model.pk, actor=actor, expected_version=1, name="Late")
    with pytest.raises(Invalid):
        actions.edit_model(model.pk, actor=actor, team_id=company.marketing_team.pk)
    same = actions.edit_model(model.pk, actor=actor, name="Fraud")
    assert same.version == 2


@pytest.mark.requirement("catalogue-1.3")
def test_members_edit_drafts_and_leads_manage_models(company: Any, model: Model) -> None:
    with pytest.raises(NotAllowed):
        register(company, actor=of(company.member_finance))
    with pytest.raises(NotAllowed):
        actions.edit_model(model.pk, actor=of(company.member_finance), name="Mine")
    version = actions.create_version(model.pk, "1.0.0", "upload", actor=of(company.member_finance))
    assert (version.author, version.last_editor) == (company.member_finance, company.member_finance)
    for user in (company.lead_marketing, company.vp_other):
        with pytest.raises(NotVisible):
            actions.edit_version(version.pk, actor=of(user), runtime="mine")
    for user in (company.compliance, company.auditor, company.admin):
        with pytest.raises(NotAllowed):
            actions.edit_version(version.pk, actor=of(user), runtime="mine")
    assert not ModelVersion.objects.visible_to(company.lead_marketing).exists()
    assert ModelVersion.objects.visible_to(company.compliance).get() == version


@pytest.mark.requirement("catalogue-1.2")
def test_an_archived_model_takes_nothing_new(company: Any, model: Model) -> None:
    actor = of(company.lead_finance)
    version = make_version(model, company.member_finance)
    with pytest.raises(Invalid):
        actions.archive_model(model.pk, "old", actor=actor)
    actions.archive_model(model.pk, "Replaced by the new scoring model.", actor=actor)
    with pytest.raises(Conflict, match="archived"):
        actions.create_version(model.pk, "2.0.0", "upload", actor=actor)
    with pytest.raises(Conflict, match="archived"):
        actions.edit_model(model.pk, actor=actor, name="Else")
    with pytest.raises(Invalid, match="archived"):
        actions.seal(version.pk, actor=actor)
    with pytest.raises(Conflict):
        actions.archive_model(model.pk, "Once more, for good measure.", actor=actor)
    actions.restore_model(model.pk, actor=actor)
    assert actions.seal(version.pk, actor=actor).digest


# ---------------------------------------------------------------- drafts


@pytest.mark.requirement("catalogue-2.4")
def test_labels_and_numbers_are_never_used_twice(company: Any, model: Model) -> None:
    actor = of(company.member_finance)
    first = actions.create_version(model.pk, "1.0.0-RC1", "upload", actor=actor)
    with pytest.raises(Invalid, match="never used twice"):
        actions.create_version(model.pk, "1.0.0-rc1", "upload", actor=actor)
    second = actions.create_version(model.pk, "1.0.1", "upload", actor=actor)
    actions.discard_version(second.pk, actor=actor)
    third = actions.create_version(model.pk, "1.0.1", "upload", actor=actor)
    assert (first.number, third.number) == (1, 3)
    with pytest.raises(Invalid):
        actions.edit_version(third.pk, actor=actor, label="1.0.0-rc1")
    for label in ("", " ", "-1", "a b", "x" * 61, "1/2", "../1"):
        with pytest.raises(Invalid) as caught:
            actions.create_version(model.pk, label, "upload", actor=actor)
        assert "label" in caught.value.errors


@pytest.mark.requirement("catalogue-2.2")
@pytest.mark.parametrize(
    ("scheme", "values", "field"),
    [
        ("s3", {"location": "s3://Bucket/x"}, "location"),
        ("s3", {"location": "s3://models/../other"}, "location"),
        ("s3", {"location": "https://models"}, "location"),
        ("s3", {"location": ""}, "location"),
        ("s3", {"location": "s3://models/x", "revision": "abc"}, "revision"),
        ("oci", {"location": "oci://registry.example.com/name:latest"}, "location"),
        ("oci", {"location": "oci://registry.example.com/name", "revision": "latest"}, "revision"),
        ("hf", {"location": "hf://example/fraud", "revision": "main"}, "revision"),
        ("hf", {"location": "hf://example/fraud/extra"}, "location"),
        ("pvc", {"location": "pvc://claim/a/../b"}, "location"),
        ("upload", {"location": "s3://models/x"}, "location"),
        ("upload", {"image": "registry.example.com/triton:latest"}, "image"),
        ("upload", {"arguments": "--x"}, "arguments"),
        ("upload", {"environment": {"1A": "x"}}, "environment"),
        ("upload", {"environment": {"A": 1}}, "environment"),
        ("upload", {"explainer": {"image": "registry.example.com/e:1"}}, "explainer"),
        ("upload", {"explainer": {"storage_uri": "oci://registry.example.com/e:1"}}, "explainer"),
        ("upload", {"explainer": {"command": "x"}}, "explainer"),
        ("upload", {"data_classes": ["secret"]}, "data_classes"),
    ],
)  # fmt: skip
def test_names_that_can_be_moved_are_refused(company: Any, model: Model, scheme: str, values: Any, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        actions.create_version(model.pk, "1.0.0", scheme, actor=of(company.member_finance), **values)
    assert list(caught.value.errors) == [field]


@pytest.mark.requirement("catalogue-2.2")
def test_another_place_voids_what_was_hashed(company: Any, model: Model) -> None:
    version = make_version(model, company.member_finance, scheme="s3")
    other = actions.edit_version(version.pk, actor=of(company.lead_finance), runtime="vllm")
    assert other.files.count() == 1
    assert other.last_editor == company.lead_finance
    moved = actions.edit_version(version.pk, actor=of(company.lead_finance), location="s3://models/fraud/v2")
    assert moved.files.count() == 0
    assert moved.total_bytes == 0


# ---------------------------------------------------------------- sealing


@pytest.mark.requirement("catalogue-2.1")
def test_sealing_makes_the_manifest_and_the_digest(company: Any, model: Model) -> None:
    card = make_card(model, company.member_finance)
    version = make_version(
        model, company.member_finance, files={"b.bin": b"b", "a.bin": b"aa"}, card=card, data_classes=["personal"]
    )
    parent = make_sealed(make_model(company.finance_team, data_classes=["health"]), company.member_finance)
    actions.set_sources(
        version.pk,
        [
            SourceInput("base_model", source_version_id=parent.pk),
            SourceInput("adapter", "lora", uri=f"oci://r.example.com/l@sha256:{'f' * 64}"),
        ],
        actor=of(company.member_finance),
    )
    sealed = actions.seal(version.pk, actor=of(company.member_finance))
    found = manifest.parse(sealed.manifest)
    assert sealed.digest == found.digest == digest(bytes(sealed.manifest))
    assert [file.path for file in found.files] == ["a.bin", "b.bin"]
    assert found.card_digest == card.digest
    assert found.classification == tuple(sealed.classification) == ("health", "personal", "internal")
    assert [source.digest for source in found.sources] == [parent.digest]
    assert [adapter.name for adapter in found.adapters] == ["lora"]
    origins = ClassificationRecord.objects.filter(model_version=sealed).values_list("data_class", "origin", "detail")
    assert set(origins) == {
        ("health", "inherited", str(parent)), ("personal", "version", ""), ("internal", "model", ""),
    }  # fmt: skip
    event = AuditEvent.objects.get(action="catalogue.version.sealed")
    assert sealed.digest in bytes(event.canonical).decode()


@pytest.mark.requirement("catalogue-2.2")
def test_everything_that_is_missing_is_named_at_once(company: Any, model: Model) -> None:
    actor = of(company.member_finance)
    draft = make_version(make_model(company.finance_team), company.member_finance)
    version = actions.create_version(model.pk, "1.0.0", "s3", actor=actor, location="s3://models/x")
    actions.set_sources(version.pk, [SourceInput("base_model", source_version_id=draft.pk)], actor=actor)
    with pytest.raises(Invalid) as caught:
        actions.seal(version.pk, actor=actor)
    told = " ".join(caught.value.errors[""])
    for words in ("store", "hashed", "image", "format", "not sealed"):
        assert words in told
    version.refresh_from_db()
    assert version.status == VersionStatus.DRAFT
    unhashed = make_version(model, company.member_finance, "2.0.0")
    unhashed.files.update(sha256="")
    with pytest.raises(Invalid):
        actions.seal(unhashed.pk, actor=actor)


@pytest.mark.requirement("catalogue-2.3")
def test_no_action_changes_a_sealed_version(company: Any, model: Model) -> None:
    actor = of(company.lead_finance)
    version = make_sealed(model, company.member_finance)
    blob = make_blob(b"other")
    for change in (
        lambda: actions.edit_version(version.pk, actor=actor, runtime="vllm"),
        lambda: actions.set_sources(version.pk, [], actor=actor),
        lambda: actions.add_file(version.pk, "x.bin", blob.pk, actor=actor),
        lambda: actions.remove_file(version.pk, version.files.get().pk, actor=actor),
        lambda: actions.begin_upload(version.pk, "x.bin", 3, actor=actor),
        lambda: actions.start_hashing(version.pk, actor=actor),
        lambda: actions.discard_version(version.pk, actor=actor),
        lambda: actions.seal(version.pk, actor=actor),
    ):
        with pytest.raises(Conflict):
            change()


def refused(statement: str, *values: Any) -> None:
    with pytest.raises(DatabaseError, match="sealed"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement, values)


@pytest.mark.requirement("catalogue-2.3")
def test_no_statement_changes_a_sealed_version(company: Any, model: Model) -> None:
    version = make_version(model, company.member_finance)
    add_source(version)
    other = make_version(model, company.member_finance)
    file = version.files.get()
    actions.seal(version.pk, actor=of(company.member_finance))
    pk, table = version.pk, "catalogue_modelversion"
    for column, value in (
        ("manifest", b"x"), ("digest", "0" * 64), ("label", "else"), ("location", "s3://x"), ("runtime", "else"),
        ("image", ""), ("author_id", company.lead_finance.pk), ("number", 99), ("sealed_at", clock.now()),
        ("total_bytes", 1), ("status", "draft"), ("status", "hashing"), ("classification", []),
    ):  # fmt: skip
        refused(f"UPDATE {table} SET {column} = %s WHERE id = %s", value, pk)  # noqa: S608 (columns named above)
    refused(f"UPDATE {table} SET arguments = '[\"--x\"]' WHERE id = %s", pk)  # noqa: S608 (a table of this test)
    refused(f"DELETE FROM {table} WHERE id = %s", pk)  # noqa: S608 (a table of this test)
    refused("UPDATE catalogue_versionfile SET sha256 = %s WHERE id = %s", "0" * 64, file.pk)
    refused("UPDATE catalogue_versionfile SET model_version_id = %s WHERE id = %s", other.pk, file.pk)
    refused(
        "UPDATE catalogue_versionfile SET model_version_id = %s, path = 'z' WHERE model_version_id = %s", pk, other.pk
    )
    refused("DELETE FROM catalogue_versionfile WHERE id = %s", file.pk)
    refused("DELETE FROM catalogue_versionsource WHERE model_version_id = %s", pk)
    refused("DELETE FROM catalogue_classificationrecord WHERE model_version_id = %s", pk)
    with pytest.raises(DatabaseError, match="sealed"), transaction.atomic():
        VersionFile.objects.create(model_version=version, path="new", size=1, sha256="0" * 64)
    # A draft is free.
    other.files.update(sha256="0" * 64)
    other.delete()


@pytest.mark.requirement("catalogue-1.2")
def test_retiring_changes_nothing_but_the_state(company: Any, model: Model) -> None:
    actor = of(company.lead_finance)
    version = make_sealed(model, company.member_finance)
    with pytest.raises(NotAllowed):
        actions.retire_version(version.pk, "It drifts too much.", actor=of(company.member_finance))
    retired = actions.retire_version(version.pk, "It drifts too much.", actor=actor)
    assert (retired.status, retired.digest) == (VersionStatus.RETIRED, version.digest)
    with pytest.raises(Conflict):
        actions.retire_version(version.pk, "It drifts too much.", actor=actor)
    back = actions.reinstate_version(version.pk, actor=actor)
    assert (back.status, back.retired_at, back.digest) == (VersionStatus.SEALED, None, version.digest)


# ---------------------------------------------------------------- lineage


@pytest.mark.requirement("catalogue-5.2")
def test_a_version_cannot_be_made_from_itself(company: Any, model: Model) -> None:
    actor = of(company.member_finance)
    a, b, c = (make_version(model, company.member_finance, label) for label in ("a", "b", "c"))
    with pytest.raises(Invalid, match="itself"):
        actions.set_sources(a.pk, [SourceInput("base_model", source_version_id=a.pk)], actor=actor)
    actions.set_sources(b.pk, [SourceInput("base_model", source_version_id=a.pk)], actor=actor)
    actions.set_sources(c.pk, [SourceInput("base_model", source_version_id=b.pk)], actor=actor)
    with pytest.raises(Invalid, match="a → c → b → a"):
        actions.set_sources(a.pk, [SourceInput("base_model", source_version_id=c.pk)], actor=actor)


@pytest.mark.requirement("catalogue-5.1")
def test_a_class_of_a_sealed_version_leaves_the_model_by_exception_only(company: Any) -> None:
    model = make_model(company.finance_team, data_classes=["health", "internal"])
    version = make_sealed(model, company.member_finance)
    lead = of(company.lead_finance)
    with pytest.raises(Invalid) as refused:
        actions.edit_model(model.pk, actor=lead, data_classes=["internal"])
    assert "exception" in refused.value.errors["data_classes"][0]
    # More is always possible, and what no sealed version carries goes without asking.
    actions.edit_model(model.pk, actor=lead, data_classes=["health", "internal", "financial"])
    actions.edit_model(model.pk, actor=lead, data_classes=["health", "internal"])
    exception = VersionException.objects.create(
        model_version=version, kind="classification", data_classes=["internal"], reason="De-identified by an expert.",
        proposed_by=company.lead_finance, expires_at=clock.now() + timedelta(days=1),
    )  # fmt: skip
    with pytest.raises(Invalid):
        actions.edit_model(model.pk, actor=lead, data_classes=["internal"])
    exception.decided_by, exception.decided_at, exception.approved = company.compliance, clock.now(), True
    exception.save()
    with clock.frozen(clock.now() + timedelta(days=2)), pytest.raises(Invalid):
        actions.edit_model(model.pk, actor=lead, data_classes=["internal"])
    edited = actions.edit_model(model.pk, actor=lead, data_classes=["internal"])
    assert edited.data_classes == ["internal"]


@pytest.mark.requirement("catalogue-5.1")
def test_a_drafts_classification_follows_its_lineage_and_an_exception_in_force(company: Any, model: Model) -> None:
    health = make_model(company.finance_team, data_classes=["health"])
    base = make_version(health, company.member_finance)
    middle, last = make_version(model, company.member_finance), make_version(model, company.member_finance)
    add_source(middle, parent=base)
    add_source(last, parent=middle)
    assert lineage.classification_of(last).classes == ("health", "internal")
    exception = VersionException.objects.create(
        model_version=middle, kind="classification", data_classes=["internal"], reason="De-identified by an expert.",
        proposed_by=company.lead_finance, expires_at=clock.now() + timedelta(days=1),
    )  # fmt: skip
    # Proposed is not decided.
    assert lineage.classification_of(last).classes == ("health", "internal")
    exception.decided_by, exception.decided_at, exception.approved = company.compliance, clock.now(), True
    exception.save()
    assert lineage.classification_of(middle).classes == ("internal",)
    assert lineage.classification_of(last).classes == ("internal",)
    with clock.frozen(clock.now() + timedelta(days=2)):
        assert lineage.classification_of(last).classes == ("health", "internal")


@pytest.mark.requirement("catalogue-5.1")
def test_foreign_versions_are_no_sources(company: Any, model: Model) -> None:
    foreign = make_sealed(make_model(company.marketing_team), company.lead_marketing)
    version = make_version(model, company.member_finance)
    with pytest.raises(Invalid, match="may not see"):
        actions.set_sources(
            version.pk, [SourceInput("base_model", source_version_id=foreign.pk)], actor=of(company.member_finance)
        )
    for wrong in (
        SourceInput("base_model"), SourceInput("else", "x"), SourceInput("dataset", "x", digest="abc"),
        SourceInput("adapter", "x"), SourceInput("dataset", "x", data_classes=["secret"]),
    ):  # fmt: skip
        with pytest.raises(Invalid):
            actions.set_sources(version.pk, [wrong], actor=of(company.member_finance))


@pytest.mark.requirement("catalogue-5.1")
def test_steps_of_a_lineage_are_read_nearest_first(company: Any, model: Model) -> None:
    base = make_sealed(model, company.member_finance)
    middle = make_version(model, company.member_finance)
    add_source(middle, parent=base)
    add_source(middle, "Payments 2026", kind="dataset")
    last = make_version(model, company.member_finance)
    add_source(last, parent=middle)
    found, more = lineage.steps(last)
    assert [(step.depth, step.source.name, step.child) for step in found] == [
        (1, str(middle), last), (2, str(base), middle), (2, "Payments 2026", middle),
    ]  # fmt: skip
    assert not more


@pytest.mark.requirement("catalogue-2.2")
def test_a_version_that_is_being_hashed_is_left_alone(company: Any, model: Model) -> None:
    version = make_version(model, company.member_finance, scheme="s3", status="hashing")
    HashJob.objects.create(model_version=version, requested_by=company.member_finance, status=JobStatus.RUNNING)
    actor = of(company.member_finance)
    with pytest.raises(Conflict, match="hashed"):
        actions.edit_version(version.pk, actor=actor, runtime="x")
    with pytest.raises(Conflict, match="hashed"):
        actions.seal(version.pk, actor=actor)
