"""Pages of the catalogue: what they show and offer to whom, in how many statements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.forms import ModelChoiceField
from django.urls import reverse

from apps.approvals.models import ApprovalRequest, Grant, Policy, PolicyVersion
from apps.catalogue import actions, compare, stores
from apps.catalogue.choices import JobStatus, VersionStatus
from apps.catalogue.models import HashJob, Model, ModelStore, ModelVersion
from apps.core import clock
from apps.core.actor import Actor
from apps.core.canonical import digest
from apps.core.testing import assert_queries
from apps.deployments.forms import ReleaseForm
from tests.catalogue import doubles
from tests.catalogue.world import add_source, make_card, make_model, make_sealed, make_store, make_version
from tests.factories import client_for

pytestmark = pytest.mark.django_db
MODELS, VERSIONS = "/catalogue/models/", "/catalogue/versions/"


def text(response: Any) -> str:
    return str(response.content.decode())


def page(version: ModelVersion, name: str = "detail") -> str:
    return reverse(f"catalogue:version-{name}", kwargs={"version_uid": version.uid})


def granted(version: ModelVersion, requester: Any, **values: Any) -> Grant:
    """A grant of a version in force, as approvals writes it."""
    policy, _ = Policy.objects.get_or_create(
        slug="model-versions", defaults={"name": "Model versions", "subject_type": "catalogue.version"}
    )
    pinned, _ = PolicyVersion.objects.get_or_create(
        policy=policy, number=1, defaults={"body": {}, "digest": "0" * 64, "published_at": clock.now()}
    )
    request = ApprovalRequest.objects.create(
        policy_version=pinned, subject_type="catalogue.version", subject_uid=version.uid, subject_digest=version.digest,
        requester=requester, status="approved", submitted_at=clock.now(), team=version.model.team,
        unit=version.model.team.unit,
    )  # fmt: skip
    values.setdefault("not_before", clock.now())
    return Grant.objects.create(
        request=request, subject_digest=version.digest, scope={"manifest": version.digest, "clusters": ["a"]}, **values
    )


# ---------------------------------------------------------------- lists


@pytest.mark.requirement("catalogue-7.1")
def test_models_are_found_by_everything_people_know_of_them(company: Any, model: Model) -> None:
    author = company.member_finance
    other = make_model(company.finance_team, "Churn", data_classes=["public"], risk_tier="minimal")
    foreign = make_model(company.marketing_team, "Lookalike")
    sealed = make_sealed(model, author, classes=["cardholder"])
    make_version(other, author)
    granted(sealed, company.lead_finance)
    client = client_for(company.compliance)

    def names(query: str) -> set[str]:
        response = client.get(f"{MODELS}?{query}")
        assert response.status_code == 200
        return {one.name for one in (model, other, foreign) if f">{one.name}<" in text(response)}

    everything = {"Card fraud scoring", "Churn", "Lookalike"}
    assert names("") == everything
    assert names("search=card+fraud+sc") == names("search=card-fraud") == {"Card fraud scoring"}
    assert names("search=settled") == everything
    assert names(f"team={company.marketing_team.pk}") == {"Lookalike"}
    assert names("data_class=cardholder") == {"Card fraud scoring"}
    assert names("data_class=public") == {"Churn"}
    assert names("risk_tier=minimal") == {"Churn"}
    assert names("risk_tier=none") == everything - {"Churn"}
    assert names(f"digest=sha256:{sealed.digest[:10].upper()}") == {"Card fraud scoring"}
    assert names("digest=zz") == set()
    assert names("status=sealed") == {"Card fraud scoring"}
    assert names("approved=true") == {"Card fraud scoring"}
    assert names("approved=false") == everything - {"Card fraud scoring"}
    other.archived_at = clock.now()
    other.save()
    assert names("archived=true") == {"Churn"}
    Grant.objects.update(revoked_at=clock.now())
    assert names("approved=true") == set()
    mine = text(client_for(company.lead_marketing).get(MODELS))
    assert "Lookalike" in mine
    assert "Card fraud scoring" not in mine


@pytest.mark.requirement("catalogue-7.1")
def test_versions_are_found_and_exported(company: Any, model: Model) -> None:
    draft, sealed = make_version(model, company.member_finance), make_sealed(model, company.member_finance)
    client = client_for(company.member_finance)
    assert sealed.digest[:12] in text(client.get(f"{VERSIONS}?status=sealed"))
    found = text(client.get(f"{VERSIONS}?digest={sealed.digest[:8]}"))
    assert f">{sealed.label}<" in found
    assert f">{draft.label}<" not in found
    granted(sealed, company.lead_finance)
    assert f">{draft.label}<" not in text(client.get(f"{VERSIONS}?approved=true"))
    assert f">{draft.label}<" in text(client.get(f"{VERSIONS}?approved=false"))
    exported = b"".join(client.get(f"{VERSIONS}?export=csv").streaming_content).decode()
    assert sealed.digest in exported
    assert len(exported.splitlines()) == 3


@pytest.mark.requirement("catalogue-7.1")
def test_lists_and_pages_take_few_statements(company: Any, model: Model) -> None:
    for index in range(12):
        one = make_model(company.finance_team, f"Many {index}")
        make_sealed(one, company.member_finance)
        make_version(model, company.member_finance)
    store = make_store()
    version = make_version(model, company.member_finance)
    for index in range(12):
        add_source(version, f"Dataset {index}")
    parent = make_sealed(model, company.member_finance)
    add_source(version, parent=parent)
    client = client_for(company.lead_finance)
    admin = client_for(company.admin)
    urls = [
        (client, MODELS), (client, VERSIONS), (client, f"{MODELS}?approved=true&data_class=internal"),
        (client, reverse("catalogue:model-detail", kwargs={"model_uid": model.uid})),
        (client, reverse("catalogue:file-list", kwargs={"version_uid": version.uid})),
        (admin, "/catalogue/stores/"), (admin, reverse("catalogue:store-detail", kwargs={"store_uid": store.uid})),
    ]  # fmt: skip
    for one, url in urls:
        one.get(url)
        with assert_queries(20):
            assert one.get(url).status_code == 200, url
    for url in ("/api/v1/models", "/api/v1/model-versions", f"/api/v1/model-versions/{version.uid}/files"):
        with assert_queries(15):
            assert client.get(url).status_code == 200, url


# ---------------------------------------------------------------- one model, one version


@pytest.mark.requirement("catalogue-1.1")
def test_a_model_is_registered_edited_and_archived_on_pages(company: Any) -> None:
    client = client_for(company.lead_finance)
    data = {"team": "finance", "name": "Card fraud", "purpose": "Scores payments.", "data_classes": ["cardholder"]}
    wrong = client.post("/catalogue/models/new/", {**data, "purpose": "x", "data_classes": []})
    assert wrong.status_code == 400
    assert "Name at least one" in text(wrong)
    assert "Say in a sentence" in text(wrong)
    assert client.post("/catalogue/models/new/", {**data, "team": "marketing"}).status_code == 400
    response = client.post("/catalogue/models/new/", data)
    model = Model.objects.get()
    assert response["Location"] == f"/catalogue/models/{model.uid}/"
    url = f"/catalogue/models/{model.uid}/"
    assert "Add a version" in text(client.get(url))
    edited = {"name": "Fraud", "purpose": "Scores payments.", "data_classes": ["financial"], "version": "1"}
    assert client.post(f"{url}edit/", edited).status_code == 303
    stale = client.post(f"{url}edit/", edited)
    assert stale.status_code == 409
    assert client.post(f"{url}archive/", {"reason": "Nobody asks for it any more."}).status_code == 303
    assert "This model is archived" in text(client.get(url))
    assert client.get(f"{url}edit/").status_code == 409
    assert client.post(f"{url}restore/").status_code == 303


@pytest.mark.requirement("catalogue-7.2")
def test_a_version_goes_from_draft_to_sealed_on_pages(company: Any, model: Model, blob_dir: Path) -> None:
    client = client_for(company.member_finance)
    card = make_card(model, company.member_finance)
    create = f"/catalogue/models/{model.uid}/versions/new/"
    assert "Serving image" in text(client.get(create))
    wrong = client.post(create, {"label": "1.0.0", "image": "registry.example.com/x:latest", "environment": "NOVALUE"})
    assert wrong.status_code == 400
    assert "write NAME=value" in text(wrong)
    values = {
        "label": "1.0.0", "image": f"registry.example.com/x@sha256:{'a' * 64}", "model_format": "onnx", "card": "1",
        "arguments": "--strict\n--threads=4\n", "environment": "OMP_NUM_THREADS=4", "parameters": '{"epochs": 3}',
    }  # fmt: skip
    assert client.post(create, values).status_code == 303
    version = ModelVersion.objects.get()
    assert (version.arguments, version.environment) == (["--strict", "--threads=4"], {"OMP_NUM_THREADS": "4"})
    assert (version.parameters, version.card) == ({"epochs": 3}, card)
    shown = text(client.get(page(version)))
    assert "Still to do before it can be sealed" in shown
    assert "Upload its files." in shown
    files = [SimpleUploadedFile(name, data) for name, data in (("model.onnx", b"w" * 200_000), ("labels.json", b"{}"))]
    assert client.post(page(version, "upload"), {"files": files, "folder": "weights"}).status_code == 303
    assert list(version.files.values_list("path", flat=True)) == ["weights/labels.json", "weights/model.onnx"]
    shown = text(client.get(page(version)))
    assert "Seal this version" in shown
    sealing = text(client.get(page(version, "seal")))
    assert "nothing of it can be changed" in sealing
    version.refresh_from_db()
    assert client.post(page(version, "seal"), {"version": str(version.version)}).status_code == 303
    version.refresh_from_db()
    shown = text(client.get(page(version)))
    assert version.digest in shown
    assert f"gpu-commons://sha256/{version.digest}" in shown
    assert "submit it for approval" in shown
    assert client.get(page(version, "edit")).status_code == 409
    manifest = client.get(page(version, "manifest"))
    assert digest(manifest.content) == version.digest
    assert "attachment" in manifest["Content-Disposition"]
    granted(version, company.lead_finance)
    assert "It is approved" in text(client.get(page(version)))


@pytest.mark.requirement("catalogue-7.2")
def test_an_upload_that_is_refused_says_which_file(company: Any, model: Model, blob_dir: Path) -> None:
    version = make_version(model, company.member_finance, files={})
    client = client_for(company.member_finance)
    files = [SimpleUploadedFile("good.bin", b"x"), SimpleUploadedFile("empty.bin", b"")]
    response = client.post(page(version, "upload"), {"files": files})
    assert response.status_code == 400
    assert "empty" in text(response)
    assert client.post(page(version, "upload"), {}).status_code == 400


@pytest.mark.requirement("catalogue-3.1")
def test_it_is_said_before_and_after_an_upload_that_it_cannot_be_served(company: Any, model: Model) -> None:
    client = client_for(company.member_finance)
    version = make_version(model, company.member_finance, files={})
    create = reverse("catalogue:version-create", kwargs={"model_uid": model.uid})
    for url in (f"{create}?scheme=upload", page(version, "upload"), page(version)):
        assert "no cluster reaches" in text(client.get(url))
    elsewhere = make_sealed(model, company.member_finance, scheme="oci")
    for url in (f"{create}?scheme=oci", page(elsewhere)):
        assert "no cluster reaches" not in text(client.get(url))
    uploaded = make_sealed(model, company.member_finance)
    offered = ReleaseForm(user=company.lead_finance).fields["model_version"]
    assert isinstance(offered, ModelChoiceField)
    assert set(offered.queryset or ()) == {elsewhere}
    assert uploaded.digest


@pytest.mark.requirement("catalogue-7.2", "catalogue-5.2")
def test_sources_are_added_and_removed_and_inherited(company: Any, model: Model) -> None:
    client = client_for(company.member_finance)
    base = make_sealed(make_model(company.finance_team, slug="base", data_classes=["health"]), company.member_finance)
    version = make_version(model, company.member_finance)
    add = f"{page(version)}sources/new/"
    data = {"kind": "base_model", "source_version": f"base {base.label}"}
    assert client.post(add, data).status_code == 303
    assert client.post(add, {"kind": "dataset", "name": "Payments", "data_classes": ["cardholder"]}).status_code == 303
    shown = text(client.get(page(version)))
    assert f"inherited from {base}" in shown
    assert "in Payments" in shown
    assert str(base.uid) in shown
    wrong = client.post(add, {"kind": "base_model", "source_version": "unknown 1"})
    assert wrong.status_code == 400
    assert "There is no such version here" in text(wrong)
    circle = client.post(add, {"kind": "base_model", "source_version": str(version.uid)})
    assert "cannot be made from itself" in text(circle)
    source = version.sources.get(name="Payments")
    assert client.post(f"/catalogue/sources/{source.uid}/remove/").status_code == 303
    assert version.sources.count() == 1


@pytest.mark.requirement("catalogue-7.2")
def test_a_lineage_leads_to_nothing_out_of_sight(company: Any, model: Model) -> None:
    foreign = make_model(company.marketing_team, "Secret segments", data_classes=["personal"])
    deep = make_version(foreign, company.lead_marketing)
    add_source(deep, "Marketing's own list")
    hidden = make_version(foreign, company.lead_marketing)
    add_source(hidden, "Between", parent=deep)
    version = make_version(model, company.member_finance)
    add_source(version, "From marketing", parent=hidden)
    shown = text(client_for(company.member_finance).get(page(version)))
    assert "From marketing" in shown
    for words in (str(hidden.uid), "Marketing&#x27;s own list", "Between", "Secret segments"):
        assert words not in shown
    everything = text(client_for(company.auditor).get(page(version)))
    assert "Between" in everything
    assert str(hidden.uid) in everything


@pytest.mark.requirement("catalogue-4.2")
def test_hashing_is_followed_and_cancelled_on_the_page(company: Any, model: Model) -> None:
    version = make_version(model, company.member_finance, scheme="s3", store=make_store(), files={})
    client = client_for(company.member_finance)
    assert "Hash its files" in text(client.get(page(version)))
    assert client.post(page(version, "hash")).status_code == 303
    HashJob.objects.update(
        status=JobStatus.RUNNING, bytes_total=4 * 1024**3, bytes_done=1024**3, files_total=8, files_done=2,
        started_at=clock.now(),
    )  # fmt: skip
    shown = text(client.get(page(version)))
    assert "1 GiB of 4 GiB, 2 of 8 files" in shown
    assert 'hx-trigger="every 2s, live"' in shown
    poll = {"HTTP_HX_REQUEST": "true", "HTTP_HX_TARGET": "hash-card"}
    assert "HX-Refresh" not in client.get(page(version), **poll)
    assert client.post(page(version, "hash-cancel")).status_code == 303
    version.refresh_from_db()
    assert version.status == VersionStatus.DRAFT
    assert client.get(page(version), **poll)["HX-Refresh"] == "true"
    assert client.post(page(version, "hash-cancel")).status_code == 409


@pytest.mark.requirement("catalogue-1.2")
def test_retiring_on_pages(company: Any, model: Model) -> None:
    version = make_sealed(model, company.member_finance)
    client = client_for(company.lead_finance)
    assert client.post(page(version, "retire"), {"reason": "x"}).status_code == 400
    assert client.post(page(version, "retire"), {"reason": "Replaced by a better one."}).status_code == 303
    assert "offered for nothing new" in text(client.get(page(version)))
    assert client.post(page(version, "reinstate")).status_code == 303
    draft = make_version(model, company.member_finance)
    assert client.post(page(draft, "discard")).status_code == 303
    assert not ModelVersion.objects.filter(pk=draft.pk).exists()


# ---------------------------------------------------------------- comparing


@pytest.mark.requirement("catalogue-7.3")
def test_two_versions_are_compared(company: Any, model: Model) -> None:
    author = company.member_finance
    before = make_sealed(model, author, "1.0.0", files={"same": b"s", "gone": b"g", "moved": b"1"}, arguments=["--a"])
    after = make_version(model, author, "1.1.0", files={"same": b"s", "new": b"n", "moved": b"2"}, arguments=["--b"],
                         parameters={"lr": 1})  # fmt: skip
    add_source(after, "Payments", kind="dataset", revision="7")
    client = client_for(author)
    assert f"?a={before.uid}&amp;b={after.uid}" in text(client.get(f"/catalogue/models/{model.uid}/"))
    shown = text(client.get(f"/catalogue/compare/?a={model.slug}+1.0.0&b={after.uid}"))
    assert "3 differ, 1 are the same" in shown
    for words in ("diff-removed", "diff-added", "diff-changed", "arguments[0]", "parameters.lr", "Dataset.Payments"):
        assert words in shown
    assert f">{before}<" in shown
    assert "Nothing would change" in text(client.get(f"/catalogue/compare/?a={before.digest[:12]}&b={before.uid}"))
    missing = client_for(company.lead_marketing).get(f"/catalogue/compare/?a={before.uid}&b={after.uid}")
    assert "There is no such version" in text(missing)
    assert "1.1.0" not in text(missing)
    assert "Choose two versions" in text(client.get("/catalogue/compare/"))


@pytest.mark.requirement("catalogue-7.3")
def test_differences_are_told_by_path() -> None:
    before, after = {"a": "1", "b": "2"}, {"b": "3", "c": "4"}
    assert [(one.path, one.kind) for one in compare.differences(before, after)] == [
        ("a", "removed"), ("b", "changed"), ("c", "added"),
    ]  # fmt: skip
    assert compare.flat({"a": {"b": ["x", "", {"c": 1}]}, "d": None}) == {"a.b[0]": "x", "a.b[2].c": "1"}


# ---------------------------------------------------------------- stores


@pytest.mark.requirement("catalogue-6.1")
def test_stores_are_kept_on_pages_and_show_no_secret(company: Any) -> None:
    admin = client_for(company.admin)
    with doubles.running(doubles.S3({"fraud/a": b"a"})) as server:
        data = {
            "name": "Frankfurt", "endpoint": server.url, "prefix": "models", "credential_access_key": doubles.ACCESS,
            "credential_secret_key": doubles.SECRET, "teams": ["finance"],
        }  # fmt: skip
        half = admin.post("/catalogue/stores/new/?scheme=s3", {**data, "credential_secret_key": ""})
        assert half.status_code == 400
        assert "Both the access key and the secret key" in text(half)
        assert admin.post("/catalogue/stores/new/?scheme=s3", data).status_code == 303
        store = ModelStore.objects.get()
        url = f"/catalogue/stores/{store.uid}/"
        tested = admin.post(f"{url}test/", follow=True)
        assert "The bucket answers, and an object lies there." in text(tested)
        assert (
            admin.post(
                f"{url}edit/", {**data, "name": "Mainz", "credential_access_key": "", "credential_secret_key": ""}
            ).status_code
            == 303
        )
        store.refresh_from_db()
        assert store.name == "Mainz"
        assert stores.place_of(store, "", "").credentials["secret_key"] == doubles.SECRET
        moved = {
            **data,
            "endpoint": "https://other.example.com",
            "credential_access_key": "",
            "credential_secret_key": "",
        }
        assert "enter the credentials anew" in text(admin.post(f"{url}edit/", moved)).lower()
    for user in (company.admin, company.compliance, company.auditor):
        for path in (url, "/catalogue/stores/", "/api/v1/model-stores", f"/api/v1/model-stores/{store.uid}"):
            shown = text(client_for(user).get(path))
            assert "Mainz" in shown
            assert doubles.SECRET not in shown
            assert doubles.ACCESS not in shown
    assert doubles.SECRET not in text(admin.get(f"{url}edit/"))
    assert client_for(company.lead_finance).get(url).status_code == 404
    assert admin.post(f"{url}archive/").status_code == 303
    assert admin.post(f"{url}restore/").status_code == 303


# ---------------------------------------------------------------- API


def call(client: Any, method: str, url: str, body: Any = None, **headers: Any) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body if body is not None else {})
    kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
    return client.generic(method, f"/api/v1/{url}", content, content_type=kind, **headers)


@pytest.mark.requirement("catalogue-7.4", "catalogue-3.2")
def test_the_whole_way_through_the_api(company: Any, blob_dir: Path) -> None:
    lead, member = client_for(company.lead_finance), client_for(company.member_finance)
    body = {"team": "finance", "name": "Fraud", "purpose": "Scores card payments.", "data_classes": ["cardholder"]}
    assert call(member, "POST", "models", body).status_code == 403
    model = call(lead, "POST", "models", body).json()
    assert call(lead, "PATCH", f"models/{model['uid']}", {"risk_tier": "high"}).json()["risk_tier"] == "high"
    draft = {
        "label": "1.0.0",
        "scheme": "upload",
        "image": f"r.example.com/x@sha256:{'a' * 64}",
        "model_format": "onnx",
    }
    created = call(member, "POST", f"models/{model['uid']}/versions", draft)
    assert created.status_code == 201
    assert created["ETag"] == '"1"'
    version = created.json()["uid"]
    again = call(member, "POST", f"models/{model['uid']}/versions", draft)
    assert again.status_code == 400
    assert "label" in again.json()["errors"]
    # In two pieces; somebody else goes on with nothing.
    upload = call(member, "POST", f"model-versions/{version}/uploads", {"path": "w/m.onnx", "size": 3_000_005}).json()
    piece = upload["url"].removeprefix("/api/v1/")
    assert call(member, "PUT", f"{piece}?offset=0", b"x" * 3_000_000).json()["received"] == 3_000_000
    gap = call(member, "PUT", f"{piece}?offset=7", b"x" * 3_000_000)
    assert (gap.status_code, gap.json()["current"]) == (409, {"received": 3_000_000})
    assert call(lead, "PUT", f"{piece}?offset=3000000", b"yyyyy").status_code == 404
    assert call(member, "PUT", f"{piece}?offset=no", b"y").status_code == 400
    assert call(member, "PUT", f"{piece}?offset=3000000", {"not": "bytes"}).status_code == 415
    assert member.get(f"/api/v1/{piece}").json()["received"] == 3_000_000
    assert call(member, "PUT", f"{piece}?offset=3000000", b"yyyyy").json()["received"] == 3_000_005
    file = call(member, "POST", f"{piece}/finish", {}).json()
    assert file["sha256"] == doubles.sha(b"x" * 3_000_000 + b"yyyyy")
    assert member.get(f"/api/v1/model-versions/{version}/files").json()["results"] == [file]
    given = {"sources": [{"kind": "dataset", "name": "Payments", "revision": "7", "data_classes": ["personal"]}]}
    assert call(member, "PUT", f"model-versions/{version}/sources", given).json()[0]["name"] == "Payments"
    assert member.get(f"/api/v1/model-versions/{version}/manifest").status_code == 404
    stale = call(member, "POST", f"model-versions/{version}/seal", HTTP_IF_MATCH='"1"')
    assert stale.status_code == 412
    sealed = call(member, "POST", f"model-versions/{version}/seal").json()
    assert (sealed["status"], sealed["classification"]) == ("sealed", ["cardholder", "personal"])
    raw = member.get(f"/api/v1/model-versions/{version}/manifest").json()
    assert digest(raw["manifest"].encode()) == sealed["digest"] == raw["digest"]
    assert call(member, "PATCH", f"model-versions/{version}", {"runtime": "x"}).status_code == 409
    assert call(member, "DELETE", f"model-versions/{version}").status_code == 409
    found = member.get(f"/api/v1/model-versions?digest={sealed['digest'][:9]}").json()["results"]
    assert [one["uid"] for one in found] == [version]
    assert client_for(company.lead_marketing).get(f"/api/v1/model-versions/{version}").status_code == 404
    assert call(lead, "POST", f"model-versions/{version}/retire", {"reason": "It is replaced now."}).status_code == 200


@pytest.mark.requirement("catalogue-7.4", "catalogue-6.1")
def test_stores_and_hashing_through_the_api(company: Any, model: Model) -> None:
    admin, member = client_for(company.admin), client_for(company.member_finance)
    body = {"name": "S", "scheme": "s3", "endpoint": "https://storage.example.com", "prefix": "models",
            "credentials": {"access_key": "a", "secret_key": "hidden-one"}, "teams": ["finance"]}  # fmt: skip
    made = call(admin, "POST", "model-stores", body)
    assert made.status_code == 201
    assert made.json()["has_credentials"] is True
    assert "hidden-one" not in text(made)
    assert call(admin, "POST", "model-stores", {**body, "slug": "t", "teams": ["nobody"]}).status_code == 400
    draft = {"label": "1", "scheme": "s3", "store": "s", "location": "s3://models/x"}
    version = call(member, "POST", f"models/{model.uid}/versions", draft).json()["uid"]
    assert member.get(f"/api/v1/model-versions/{version}/hashing").status_code == 404
    assert call(member, "POST", f"model-versions/{version}/hash").status_code == 202
    assert member.get(f"/api/v1/model-versions/{version}/hashing").json()["status"] == "pending"
    assert call(member, "POST", f"model-versions/{version}/cancel-hashing").json()["status"] == "cancelled"
    changed = call(admin, "PATCH", f"model-stores/{made.json()['uid']}", {"endpoint": "https://else.example.com"})
    assert "credentials" in changed.json()["errors"]
    assert (
        call(member, "POST", f"models/{model.uid}/versions", {**draft, "label": "2", "store": "none"}).status_code
        == 400
    )
    actor = Actor.of(company.member_finance)
    assert actions.create_version(model.pk, "3", "upload", actor=actor).number == 2
