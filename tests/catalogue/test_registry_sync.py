"""Reading registries over HTTP: what is imported, what is found, and every trap that their APIs hold."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from apps.audit.models import AuditEvent
from apps.catalogue import registry_actions, registry_sync, version_actions
from apps.catalogue.choices import VersionStatus
from apps.catalogue.mlflow_client import MlflowClient
from apps.catalogue.models import Model, ModelVersion, Registry, RegistryFinding, RegistryModel, RegistryVersion
from apps.catalogue.registry_clients import RegistrySession, read_all, tags_of, text
from apps.clusters.errors import AddressRefused, ServerError
from apps.core import clock, leases
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.models import OutboxMessage
from tests.catalogue.registry_double import Double, kubeflow_double, mlflow_double
from tests.factories import Company

pytestmark = pytest.mark.django_db
TEAM = [{"key": "team", "value": "finance"}]


@pytest.fixture
def double() -> Iterator[Double]:
    """A small MLflow."""
    with mlflow_double() as found:
        yield found


def add(company: Company, double: Double, kind: str = "mlflow", **values: Any) -> Registry:
    return registry_actions.add_registry(
        "Research registry", kind, actor=Actor.of(company.admin), base_url=double.url, **values
    )


def poll(registry: Registry) -> Registry:
    Registry.objects.filter(pk=registry.pk).update(next_poll_at=None)
    assert registry_sync.poll_due() == 1
    registry.refresh_from_db()
    assert registry.last_error == ""
    return registry


def found(registry: Registry) -> list[tuple[str, str, str, str]]:
    rows = RegistryFinding.objects.filter(registry=registry).order_by("pk")
    return [(row.kind, row.key, row.before, row.after) for row in rows]


@pytest.mark.requirement("registry-sync-3.1")
def test_models_go_to_the_team_that_the_tag_names_with_their_versions_as_drafts(
    company: Company, double: Double
) -> None:
    double.add_model("fraud", tags=TEAM, description="Scores card payments.")
    image = "oci://registry.example.com/fraud@sha256:" + "a" * 64
    for place in ("s3://models/fraud/1", "mlflow-artifacts:/1/a", image):
        double.add_version("fraud", source=place)
    double.add_model("churn", tags=[{"key": "team", "value": "no-such-team"}])
    double.add_version("churn")
    registry = poll(add(company, double))
    model = Model.objects.get()
    assert (model.name, model.team, model.data_classes) == ("fraud", company.finance_team, ["confidential"])
    assert "Scores card payments." in model.purpose
    drafts = list(ModelVersion.objects.order_by("number"))
    assert [(one.label, one.scheme, one.location) for one in drafts] == [
        ("1", "s3", "s3://models/fraud/1"), ("2", "upload", ""), ("3", "oci", "oci://registry.example.com/fraud"),
    ]  # fmt: skip
    assert {one.status for one in drafts} == {VersionStatus.DRAFT}
    assert drafts[1].sources.get().uri == "mlflow-artifacts:/1/a"
    entry = RegistryModel.objects.get(name="churn")
    assert entry.model is None
    registry_actions.assign_model(entry.pk, company.marketing_team.pk, actor=Actor.of(company.admin))
    poll(registry)
    assert Model.objects.get(name="churn").versions.count() == 1
    with pytest.raises(Conflict):
        registry_actions.assign_model(entry.pk, company.finance_team.pk, actor=Actor.of(company.admin))


@pytest.mark.requirement("registry-sync-3.2")
def test_an_import_is_made_once_and_never_writes_over_people(company: Company, double: Double) -> None:
    double.add_model("fraud", tags=[*TEAM, {"key": "data_classes", "value": "health, public"}], description="First.")
    double.add_version("fraud")
    registry = poll(add(company, double))
    model, version = Model.objects.get(), ModelVersion.objects.get()
    assert sorted(model.data_classes) == ["confidential", "health"]
    version_actions.edit_version(version.pk, actor=Actor.of(company.member_finance), label="2026-11", image="")
    Model.objects.filter(pk=model.pk).update(purpose="Written by people.")
    double.models["fraud"]["description"] = "Second."
    double.models["fraud"]["tags"] = [{"key": "team", "value": "marketing"}]
    double.versions[0]["description"] = "Other"
    poll(registry)
    poll(registry)
    model.refresh_from_db()
    version.refresh_from_db()
    assert (model.purpose, model.team, version.label) == ("Written by people.", company.finance_team, "2026-11")
    assert sorted(model.data_classes) == ["confidential", "health"]
    assert ModelVersion.objects.count() == 1
    assert RegistryModel.objects.get().seen["description"] == "Second."


@pytest.mark.requirement("registry-sync-3.2")
def test_the_author_is_whom_the_registry_names_if_of_the_team_else_its_keeper(company: Company, double: Double) -> None:
    double.add_model("fraud", tags=TEAM)
    for who in (company.member_finance.email, company.lead_marketing.email, "root"):
        double.add_version("fraud", user_id=who)
    poll(add(company, double))
    authors = [one.author for one in ModelVersion.objects.order_by("number")]
    assert authors == [company.member_finance, company.admin, company.admin]


@pytest.mark.requirement("registry-sync-3.3")
def test_one_version_that_cannot_be_taken_holds_up_no_other(
    company: Company, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    double.add_model("fraud", tags=TEAM)
    double.add_version("fraud", source="s3://UPPER CASE/..")
    double.add_version("fraud", current_stage="Archived")
    double.add_version("fraud")
    real = version_actions.create_version

    def failing(*args: Any, **values: Any) -> ModelVersion:
        if args[1] == "3":
            raise Invalid({"label": "Not this one."})
        return real(*args, **values)

    monkeypatch.setattr(version_actions, "create_version", failing)
    registry = poll(add(company, double))
    rows = {row.foreign_version: row for row in RegistryVersion.objects.all()}
    assert rows["1"].model_version is not None
    assert rows["1"].model_version.scheme == "upload"  # no place that a cluster could load
    assert rows["2"].model_version is None  # archived there
    assert (rows["3"].model_version, rows["3"].problem) == (None, "Not this one.")
    monkeypatch.undo()
    double.versions[2]["description"] = "Corrected"
    poll(registry)
    rows["3"].refresh_from_db()
    assert rows["3"].model_version is not None


@pytest.mark.requirement("registry-sync-4.1")
def test_rewritten_tags_moved_aliases_and_changed_sources_are_found_once(company: Company, double: Double) -> None:
    double.add_model("fraud", tags=[*TEAM, {"key": "approved", "value": "yes"}], aliases=[
        {"alias": "champion", "version": "1"}, {"alias": "old", "version": "1"},
    ])  # fmt: skip
    double.add_version("fraud", tags=[{"key": "sha256", "value": "aaaa"}])
    registry = poll(add(company, double))
    assert found(registry) == []
    digest = ModelVersion.objects.get().location
    double.versions[0]["tags"] = [{"key": "sha256", "value": "EVIL"}, {"key": "new", "value": "fine"}]
    double.versions[0]["source"] = "s3://elsewhere/model"
    double.models["fraud"]["tags"] = TEAM
    double.models["fraud"]["aliases"] = [{"alias": "champion", "version": "7"}]
    poll(registry)
    expected = [
        ("rewritten_tag", "approved", "yes", ""), ("moved_alias", "champion", "1", "7"),
        ("moved_alias", "old", "1", ""),
        ("rewritten_tag", "sha256", "aaaa", "EVIL"),
        ("changed_source", "source", "s3://models/fraud/v", "s3://elsewhere/model"),
    ]  # fmt: skip
    assert found(registry) == expected
    poll(registry)
    assert found(registry) == expected
    assert ModelVersion.objects.get().location == digest  # nothing here followed it
    double.models["fraud"]["aliases"] = [{"alias": "champion", "version": "8"}]
    poll(registry)
    assert ("moved_alias", "champion", "1", "8") in found(registry)  # carried on while it is open
    assert len(found(registry)) == len(expected)
    assert AuditEvent.objects.filter(action="catalogue.registry.changed").count() == len(expected) + 1
    told = OutboxMessage.objects.filter(event="catalogue.registry.changed").first()
    assert told is not None
    assert company.lead_finance.pk in told.recipient_ids


@pytest.mark.requirement("registry-sync-4.1", "registry-sync-2.2")
def test_deletion_is_found_only_on_a_plain_no(company: Company, double: Double) -> None:
    double.add_model("fraud", tags=TEAM)
    double.add_version("fraud")
    double.add_version("fraud")
    double.add_model("gone", tags=TEAM)
    double.add_version("gone")
    registry = poll(add(company, double))
    hidden = double.versions.pop(1)
    double.answer = _says_there(double, hidden)
    poll(registry)
    assert found(registry) == []  # the listing lacks it, but it is there when asked for
    double.versions = [one for one in double.versions if one["name"] != "gone"]
    del double.models["gone"]
    double.answer = _plain(double)
    poll(registry)
    assert found(registry) == [("deleted_version", "", "2", ""), ("deleted_model", "", "gone", "")]
    poll(registry)
    assert len(found(registry)) == 2
    assert ModelVersion.objects.count() == 3  # what was imported stays
    double.versions.append(hidden)
    poll(registry)
    assert RegistryVersion.objects.get(registry_model__name="fraud", foreign_version="2").gone_at is None


def _plain(double: Double) -> Any:
    from tests.catalogue.registry_double import _mlflow

    return lambda path, query: _mlflow(double, path, query)


def _says_there(double: Double, row: dict[str, Any]) -> Any:
    from tests.catalogue.registry_double import _mlflow

    def answer(path: str, query: dict[str, str]) -> tuple[int, Any]:
        if path.endswith("model-versions/get") and query["version"] == row["version"]:
            return 200, {"model_version": row}
        return _mlflow(double, path, query)

    return answer


@pytest.mark.requirement("registry-sync-4.2")
def test_a_rename_keeps_the_row_and_a_reused_name_is_another_model(company: Company, double: Double) -> None:
    double.add_model("fraud", tags=TEAM)
    double.add_version("fraud")
    registry = poll(add(company, double))
    before = RegistryModel.objects.get()
    double.rename("fraud", "fraud-v2")
    double.add_model("fraud", tags=TEAM)  # somebody else takes the name at once
    double.add_version("fraud", source="s3://models/other/v")
    poll(registry)
    assert found(registry) == [("renamed", "", "fraud", "fraud-v2")]
    before.refresh_from_db()
    assert (before.name, before.foreign_id, before.gone_at) == ("fraud-v2", "fraud", None)
    other = RegistryModel.objects.exclude(pk=before.pk).get()
    assert (other.name, other.model != before.model) == ("fraud", True)
    assert other.foreign_id.startswith("fraud@")
    assert sorted(Model.objects.values_list("slug", flat=True)) == ["fraud", "fraud-2"]
    del double.models["fraud"]
    double.versions = [one for one in double.versions if one["name"] != "fraud"]
    double.add_model("fraud", tags=TEAM)  # deleted and made anew
    poll(registry)
    assert ("deleted_model", "", "fraud", "") in found(registry)
    assert RegistryModel.objects.filter(name="fraud", gone_at__isnull=True).count() == 1


@pytest.mark.requirement("registry-sync-2.1")
def test_a_listing_that_shifts_is_read_again_until_two_passes_agree(company: Company, double: Double) -> None:
    for name in ("a", "b", "c", "d", "e"):
        double.add_model(name, tags=TEAM)
    moved: list[int] = []

    def shift(count: int) -> None:
        # Between the first page and the second, a row goes and another comes: one is shown twice or not at all.
        if not moved:
            moved.append(count)
            double.add_model("0", tags=TEAM)

    double.after_page = shift
    registry = poll(add(company, double))
    assert moved
    assert RegistryModel.objects.count() == 6
    assert double.searches() == 3 * 3  # three passes of three pages: the first did not agree with the second
    assert found(registry) == []


@pytest.mark.requirement("registry-sync-2.1")
def test_what_never_settles_deletes_nothing(company: Company, double: Double) -> None:
    for name in ("a", "b", "c"):
        double.add_model(name, tags=TEAM)
    registry = poll(add(company, double))
    del double.models["b"]
    flips = iter(range(1000))

    def restless(count: int) -> None:
        double.models["a"]["description"] = str(next(flips))

    double.after_page = restless
    poll(registry)
    assert found(registry) == []
    assert not RegistryModel.objects.filter(gone_at__isnull=False).exists()
    double.after_page = lambda count: None
    poll(registry)
    assert found(registry) == [("deleted_model", "", "b", "")]


@pytest.mark.requirement("registry-sync-2.3")
def test_aliases_are_the_models_and_pages_that_circle_are_an_error(company: Company, double: Double) -> None:
    double.add_model("fraud", tags=TEAM, aliases=[{"alias": "champion", "version": "1"}])
    double.add_version("fraud", aliases=[])  # as MLflow's search shows versions
    poll(add(company, double))
    assert RegistryModel.objects.get().seen["aliases"] == {"champion": "1"}
    double.answer = lambda path, query: (200, {"registered_models": [], "next_page_token": "same"})
    client = MlflowClient(RegistrySession(double.url, {}))
    with pytest.raises(ServerError, match="circle"):
        read_all(client)
    client.close()


@pytest.mark.requirement("registry-sync-2.4")
def test_two_workers_never_read_one_registry_and_a_slow_one_records_nothing(
    company: Company, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    double.add_model("fraud", tags=TEAM)
    registry = add(company, double)
    name = f"catalogue.registry.{registry.uid}"
    token = leases.claim(name, seconds=60)
    assert token is not None
    assert registry_sync.poll(registry.pk) == 0
    assert not double.asked
    leases.release(name, token)

    def taken_over(count: int) -> None:
        from apps.core.models import Lease

        double.after_page = lambda count: None
        stolen.append(count)
        Lease.objects.filter(name=name).update(holder=uuid.uuid4())

    # The double answers in a thread of its own, which sees no row of this test: the lease moves between two passes.
    stolen: list[int] = []
    real = read_all

    def reading(client: Any, on_pass: Any = None) -> Any:
        result = real(client)
        taken_over(1)
        if on_pass is not None:
            on_pass()
        return result

    monkeypatch.setattr(registry_sync, "read_all", reading)
    assert registry_sync.poll(registry.pk) == 0
    assert stolen
    assert not RegistryModel.objects.exists()


@pytest.mark.requirement("registry-sync-2.5")
def test_kubeflow_is_read_through_the_same_port(company: Company) -> None:
    with kubeflow_double() as double:
        for number in ("1", "2", "3"):
            double.models[number] = {
                "id": number, "name": f"model-{number}", "state": "LIVE", "createTimeSinceEpoch": "1700000000000",
                "customProperties": {"team": {"metadataType": "MetadataStringValue", "string_value": "finance"}},
            }  # fmt: skip
        double.models["3"]["state"] = "ARCHIVED"
        double.versions.append(
            {"id": "11", "registeredModelId": "1", "name": "1.4.0", "state": "LIVE", "createTimeSinceEpoch": "17"}
        )
        double.artifacts["11"] = [
            {"id": "a1", "uri": "s3://models/old", "state": "ARCHIVED", "createTimeSinceEpoch": "9"},
            {"id": "a2", "uri": "s3://models/new", "state": "LIVE", "createTimeSinceEpoch": "8",
             "modelFormatName": "onnx"},
        ]  # fmt: skip
        registry = poll(add(company, double, "kubeflow"))
        assert sorted(Model.objects.values_list("name", flat=True)) == ["model-1", "model-2"]
        version = ModelVersion.objects.get()
        assert (version.label, version.location, version.model_format) == ("1.4.0", "s3://models/new", "onnx")
        double.models["1"]["name"] = "model-one"
        double.models["2"]["state"] = "ARCHIVED"
        double.versions[0]["state"] = "ARCHIVED"
        poll(registry)
        assert found(registry) == [
            ("renamed", "", "model-1", "model-one"), ("archived", "state", "LIVE", "ARCHIVED"),
            ("archived", "state", "LIVE", "ARCHIVED"),
        ]  # fmt: skip
        assert RegistryModel.objects.filter(gone_at__isnull=False).count() == 0


@pytest.mark.requirement("registry-sync-2.6")
def test_foreign_text_is_kept_so_that_every_change_shows(company: Company, double: Double) -> None:
    long = "x" * 5000
    assert len(text(long + "a")) == 2000
    assert text(long + "a") != text(long + "b")
    assert text("nul\x00") == "nul�"
    assert text("\ud800") == "?"
    many = tags_of((f"k{n:04}", "v") for n in range(500))
    other = tags_of((f"k{n:04}", "v" if n != 499 else "w") for n in range(500))
    assert len(many) == 201
    assert many != other
    double.add_model("fraud", tags=[*TEAM, {"key": "note", "value": "nul\x00"}])
    double.add_model("bad\x00name")
    double.add_model("n" * 301)
    poll(add(company, double))
    assert [row.name for row in RegistryModel.objects.all()] == ["fraud"]
    assert RegistryModel.objects.get().seen["tags"]["note"] == "nul�"


@pytest.mark.requirement("registry-sync-1.2")
@pytest.mark.parametrize(
    ("status", "words"),
    [(500, "failed"), (401, "does not accept the credentials"), (429, "patience"), (302, "sends elsewhere")],
)
def test_a_failure_is_shown_since_when_told_once_and_heals(
    company: Company, double: Double, status: int, words: str
) -> None:
    double.add_model("fraud", tags=TEAM)
    registry = poll(add(company, double))
    double.status = status
    at = clock.now() + timedelta(hours=1)
    with clock.frozen(at):
        assert registry_sync.poll_due() == 1
        registry.refresh_from_db()
        assert registry.failing_since == at
        assert words in registry.last_error
        assert registry_sync.poll_due() == 0  # not at once again
        clock.advance(timedelta(hours=2))
        assert registry_sync.poll_due() == 1
        registry.refresh_from_db()
        assert registry.failing_since == at
        told = OutboxMessage.objects.filter(event="catalogue.registry.failing")
        assert [company.admin.pk in one.recipient_ids for one in told] == [True]
        assert RegistryModel.objects.get().gone_at is None
        double.status = 200
        clock.advance(timedelta(hours=2))
        assert registry_sync.poll_due() == 1
    registry.refresh_from_db()
    assert (registry.failing_since, registry.last_error) == (None, "")


@pytest.mark.requirement("registry-sync-1.2")
@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"registered_models": 3}', b'{"registered_models": [{}]}'])
def test_an_answer_that_is_no_registrys_is_a_failure_not_an_empty_registry(
    company: Company, double: Double, body: bytes
) -> None:
    double.add_model("fraud", tags=TEAM)
    registry = poll(add(company, double))
    double.answer = lambda path, query: (200, body)
    Registry.objects.update(next_poll_at=None)
    assert registry_sync.poll_due() == 1
    registry.refresh_from_db()
    assert registry.failing_since is not None
    assert RegistryModel.objects.get().gone_at is None


@pytest.mark.requirement("registry-sync-1.1")
def test_credentials_are_kept_encrypted_and_sent_nowhere_else(company: Company, double: Double, settings: Any) -> None:
    registry = add(company, double, credentials={"username": "reader", "password": "s3cret pass"})
    assert b"s3cret" not in bytes(registry.credentials)
    assert registry_sync.test_connection(registry) == (True, "The registry answers; it is empty.")
    assert double.asked[-1][2]["Authorization"].startswith("Basic ")
    admin = Actor.of(company.admin)
    with pytest.raises(Invalid) as refused:
        registry_actions.edit_registry(registry.pk, actor=admin, base_url="https://evil.example.com")
    assert "credentials" in refused.value.errors
    moved = registry_actions.edit_registry(
        registry.pk, actor=admin, base_url="https://mlflow.example.com/x/", credentials={"token": "t"}
    )
    assert moved.base_url == "https://mlflow.example.com/x"
    for url in ("http://169.254.169.254/", "https://user:pw@mlflow.example.com", "ftp://mlflow.example.com"):
        with pytest.raises(Invalid):
            registry_actions.edit_registry(registry.pk, actor=admin, base_url=url, credentials={})
    for wrong in ({"token": "a", "username": "b"}, {"password": "x"}, {"token": "a\nHost: b"}, {"key": "x"}):
        with pytest.raises(Invalid):
            registry_actions.edit_registry(registry.pk, actor=admin, credentials=wrong)
    settings.COMMONS_CLUSTER_DENIED_NETWORKS = ["127.0.0.0/8"]
    with pytest.raises(AddressRefused):
        RegistrySession(double.url, {})
    registry.base_url = double.url
    assert registry_sync.test_connection(registry)[0] is False


@pytest.mark.requirement("registry-sync-1.3", "registry-sync-4.4")
def test_who_may_change_registries_and_take_note_of_findings(company: Company, double: Double) -> None:
    with pytest.raises(NotAllowed):
        registry_actions.add_registry("X", "mlflow", actor=Actor.of(company.lead_finance), base_url=double.url)
    double.add_model("fraud", tags=[*TEAM, {"key": "a", "value": "1"}])
    registry = poll(add(company, double))
    with pytest.raises(NotAllowed):
        registry_actions.disable_registry(registry.pk, actor=Actor.of(company.compliance))
    double.models["fraud"]["tags"] = TEAM
    poll(registry)
    finding = RegistryFinding.objects.get()
    with pytest.raises(NotVisible):
        registry_actions.acknowledge_finding(finding.pk, "Not mine.", actor=Actor.of(company.lead_marketing))
    for other in (company.member_finance, company.compliance):
        with pytest.raises(NotAllowed):
            registry_actions.acknowledge_finding(finding.pk, "Not me.", actor=Actor.of(other))
    lead = Actor.of(company.lead_finance)
    with pytest.raises(Invalid):
        registry_actions.acknowledge_finding(finding.pk, " ok ", actor=lead)
    with pytest.raises(Conflict):
        registry_actions.acknowledge_finding(finding.pk, "Expected.", actor=lead, expected_version=99)
    noted = registry_actions.acknowledge_finding(finding.pk, "Expected: it was a draft.", actor=lead)
    assert (noted.acknowledged_by, noted.note) == (company.lead_finance, "Expected: it was a draft.")
    with pytest.raises(Conflict):
        registry_actions.acknowledge_finding(finding.pk, "Once more.", actor=lead)
    double.models["fraud"]["tags"] = [*TEAM, {"key": "a", "value": "2"}]
    poll(registry)  # a tag that comes back is new, not rewritten
    assert RegistryFinding.objects.count() == 1
    registry_actions.disable_registry(registry.pk, actor=Actor.of(company.admin))
    Registry.objects.update(next_poll_at=None)
    assert registry_sync.poll_due() == 0
