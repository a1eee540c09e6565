"""Readers against real servers: what is listed, what is read, what is refused; stores as rows, with their secrets."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from apps.audit.models import AuditEvent, AuditNote
from apps.catalogue import actions, stores
from apps.catalogue.models import Model, ModelStore
from apps.catalogue.reading.base import Changed, Place, WrongContent, bounded
from apps.catalogue.reading.base import Entry as Listed
from apps.catalogue.reading.hashing import Meter, hash_file
from apps.catalogue.reading.hf import HfReader
from apps.catalogue.reading.oci import OciReader
from apps.catalogue.reading.pvc import PvcReader
from apps.catalogue.reading.s3 import S3Reader, parse_xml
from apps.clusters.errors import AddressRefused, Forbidden, NotFound, ServerError, Unauthorised
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from tests.catalogue import doubles
from tests.catalogue.world import COMMIT, make_store

KEYS = {"access_key": doubles.ACCESS, "secret_key": doubles.SECRET}
ROBOT = {"username": "robot", "password": "secret"}


def read(reader: Any) -> dict[str, str]:
    """Hash everything that is listed, as a job does."""
    return {entry.path: hash_file(reader, entry, Meter()).sha256 for entry in reader.entries()}


def sums(files: dict[str, bytes]) -> dict[str, str]:
    return {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}


def s3(server: Any, location: str = "s3://models/fraud/v1", **values: Any) -> S3Reader:
    return S3Reader(Place("s3", server.url, location, credentials=values.pop("credentials", KEYS), **values))


# ---------------------------------------------------------------- S3


@pytest.mark.requirement("catalogue-4.1")
def test_s3_lists_in_pages_and_reads_every_object() -> None:
    files = {"a.bin": b"a" * 3_000_000, "b/c d+ü.bin": b"b", "b/e.bin": b"", "z.json": b"{}"}
    objects = {f"fraud/v1/{path}": data for path, data in files.items()}
    others = {"fraud/v10/x": b"x", "fraud/v1/": b"", "other": b"o"}
    with doubles.running(doubles.S3(objects | others, page=2)) as server:
        reader = s3(server)
        assert read(reader) == sums(files)
        assert len([path for _, path in server.seen if "list-type" in path]) == 3
        assert reader.probe().startswith("The bucket answers")
        reader.close()


@pytest.mark.requirement("catalogue-4.1")
def test_s3_signs_for_its_region_and_says_when_it_is_refused() -> None:
    with doubles.running(doubles.S3({"fraud/v1/a": b"a"}, region="eu-central-1")) as server:
        assert read(s3(server, region="eu-central-1")) == sums({"a": b"a"})
        for wrong in (
            s3(server), s3(server, region="eu-central-1", credentials={**KEYS, "secret_key": "other"}),
            s3(server, credentials={}),
        ):  # fmt: skip
            with pytest.raises(Forbidden, match="refuses"):
                wrong.entries()
        with pytest.raises(NotFound):
            s3(server, "s3://elsewhere/x", region="eu-central-1").entries()


@pytest.mark.requirement("catalogue-4.3")
def test_an_object_written_anew_while_it_is_read_is_no_result() -> None:
    with doubles.running(doubles.S3({"fraud/v1/a": b"first"})) as server:
        reader = s3(server)
        entry = reader.entries()[0]
        server.objects["fraud/v1/a"] = b"other"
        with pytest.raises(Changed):
            hash_file(reader, entry, Meter())


@pytest.mark.requirement("catalogue-4.1")
def test_answers_that_are_none_are_refused() -> None:
    with pytest.raises(WrongContent, match="entities"):
        parse_xml(b'<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>')
    with pytest.raises(ServerError, match="no XML"):
        parse_xml(b"{}")
    for path in ("../x", "a//b", "", "a/./b", "x" * 501):
        with pytest.raises(WrongContent):
            bounded([Listed(path, 1)])
    with pytest.raises(WrongContent, match="same path"):
        bounded([Listed("a", 1), Listed("a", 2)])


# ---------------------------------------------------------------- OCI


def oci(server: Any, digest: str = "", **values: Any) -> OciReader:
    place = Place(
        "oci", server.url, f"oci://{server.netloc}/models/fraud", digest or server.digest,
        credentials=values.pop("credentials", ROBOT),
    )  # fmt: skip
    return OciReader(place)


@pytest.mark.requirement("catalogue-4.1")
def test_an_artifacts_layers_are_proven_by_its_digest() -> None:
    files = {"model.onnx": b"weights", "config.json": b"{ }"}
    with doubles.running(doubles.Oci(files)) as server:
        reader = oci(server)
        found = {entry.path: entry.sha256 for entry in reader.entries()}
        assert found.items() >= sums(files).items()
        assert read(reader).items() >= sums(files).items()
        assert "what its digest says" in reader.probe()
        # A layer that the registry lost is told before anybody approves it.
        server.blobs.pop(f"sha256:{doubles.sha(b'weights')}")
        with pytest.raises(NotFound):
            oci(server).entries()


@pytest.mark.requirement("catalogue-4.1")
def test_a_registry_that_gives_other_bytes_is_caught() -> None:
    with doubles.running(doubles.Oci({"model.onnx": b"weights"})) as server:
        server.manifest = server.manifest.replace(b"model.onnx", b"model.evil")
        with pytest.raises(WrongContent, match="other bytes"):
            oci(server).entries()
    with doubles.running(doubles.Oci({"model.onnx": b"weights"})) as server:
        server.blobs[f"sha256:{doubles.sha(b'weights')}"] = b"wEights"
        with pytest.raises(WrongContent, match="not what the store says"):
            read(oci(server))


@pytest.mark.requirement("catalogue-4.5")
def test_a_registrys_credentials_go_nowhere_else_in_the_open() -> None:
    with doubles.running(doubles.Plain({})) as other, doubles.running(doubles.Oci({"m": b"m"})) as server:
        server.realm = f"{other.url}/token"
        with pytest.raises(Unauthorised, match="without TLS"):
            oci(server).entries()
        assert other.seen == []
        server.realm = f"{server.url}/token"
        stranger = oci(server, credentials={"username": "robot", "password": "wrong"})
        with pytest.raises(Unauthorised):
            stranger.entries()


# ---------------------------------------------------------------- Hugging Face


def hub(server: Any) -> HfReader:
    return HfReader(Place("hf", server.url, "hf://example/fraud", COMMIT, credentials={"token": "hub-token"}))


@pytest.mark.requirement("catalogue-4.1", "catalogue-4.5")
def test_a_hub_sends_on_to_its_storage_without_our_token() -> None:
    files = {"README.md": b"# Fraud", "weights/model.safetensors": b"w" * 100_000}
    storage = doubles.Plain(files)
    with doubles.running(storage), doubles.running(doubles.Hub(files, COMMIT, storage)) as server:
        assert read(hub(server)) == sums(files)
        assert storage.authorisations == [""]
        assert set(server.authorisations) == {"Bearer hub-token"}
        server.stated["weights/model.safetensors"] = "0" * 64
        with pytest.raises(WrongContent, match="not what the store says"):
            read(hub(server))


@pytest.mark.requirement("catalogue-4.5")
def test_redirects_into_forbidden_networks_are_not_followed(settings: Any) -> None:
    files = {"model.safetensors": b"w"}
    inside = doubles.Plain(files)
    inside.url = "http://169.254.169.254/latest"
    hubs = doubles.running(doubles.Hub(files, COMMIT, inside))
    with hubs as server, pytest.raises(AddressRefused, match="metadata"):
        read(hub(server))
    inside.server.server_close()


@pytest.mark.requirement("catalogue-4.5")
@pytest.mark.parametrize("url", ["http://169.254.169.254", "http://[fd00:ec2::254]", "http://100.100.100.200:80"])
def test_stores_lead_into_no_metadata_service(url: str) -> None:
    for kind in (S3Reader, OciReader, HfReader):
        with pytest.raises(AddressRefused):
            kind(Place("x", url, "s3://models/x", COMMIT)).probe()


@pytest.mark.requirement("catalogue-4.5")
def test_what_the_installation_denies_is_not_called(settings: Any) -> None:
    with doubles.running(doubles.S3({"fraud/v1/a": b"a"})) as server:
        settings.COMMONS_CLUSTER_DENIED_NETWORKS = ["127.0.0.0/8"]
        with pytest.raises(AddressRefused, match="denies"):
            s3(server).entries()
        assert server.seen == []


# ---------------------------------------------------------------- volumes


@pytest.fixture
def volume(tmp_path: Path, settings: Any) -> Path:
    folder = tmp_path / "volume"
    (folder / "fraud" / "v1").mkdir(parents=True)
    settings.COMMONS_MODEL_MOUNTS = [f"models={folder}"]
    return folder


def pvc(location: str = "pvc://models/fraud/v1") -> PvcReader:
    return PvcReader(Place("pvc", "models", location))


@pytest.mark.requirement("catalogue-4.1")
def test_a_mounted_volume_is_read(volume: Path) -> None:
    files = {"a.bin": b"a" * 2_500_000, "deep/b.bin": b"b"}
    for path, data in files.items():
        target = volume / "fraud" / "v1" / path
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(data)
    (volume / "fraud" / "v1" / "link.bin").symlink_to("a.bin")
    assert read(pvc()) == sums(files | {"link.bin": files["a.bin"]})
    assert read(pvc("pvc://models/fraud/v1/a.bin")) == sums({"a.bin": files["a.bin"]})
    assert "can be read" in pvc().probe()
    with pytest.raises(NotFound, match="no such folder"):
        pvc("pvc://models/else").entries()
    with pytest.raises(NotFound, match="not mounted"):
        pvc("pvc://other/x")


@pytest.mark.requirement("catalogue-4.5")
def test_links_lead_out_of_no_volume(volume: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("root")
    (volume / "fraud" / "v1" / "key").symlink_to(secret)
    with pytest.raises(Forbidden, match="out of the volume"):
        pvc().entries()
    (volume / "out").symlink_to(tmp_path)
    with pytest.raises(Forbidden, match="out of the volume"):
        pvc("pvc://models/out")
    os.mkfifo(volume / "fraud" / "pipe")
    (volume / "fraud" / "v1" / "key").unlink()
    with pytest.raises(WrongContent, match="ordinary"):
        pvc("pvc://models/fraud").entries()


# ---------------------------------------------------------------- rows


@pytest.mark.requirement("catalogue-6.1")
def test_credentials_go_in_and_are_asked_for_again_with_another_address(company: Any) -> None:
    actor = Actor.of(company.admin)
    store = actions.add_store(
        "Models, Frankfurt",
        "s3",
        actor=actor,
        endpoint="https://storage.example.com/",
        prefix="/models/",
        credentials=KEYS,
    )
    assert (store.slug, store.endpoint, store.prefix) == ("models-frankfurt", "https://storage.example.com", "models")
    assert doubles.SECRET.encode() not in bytes(store.credentials)
    assert stores.place_of(store, "s3://models/x", "").credentials == KEYS
    assert "test-secret" not in repr(stores.place_of(store, "s3://models/x", ""))
    kept = actions.edit_store(store.pk, actor=actor, name="Models")
    assert stores.place_of(kept, "", "").credentials == KEYS
    with pytest.raises(Invalid) as caught:
        actions.edit_store(store.pk, actor=actor, endpoint="https://evil.example.com")
    assert "credentials" in caught.value.errors
    moved = actions.edit_store(
        store.pk, actor=actor, endpoint="https://other.example.com", credentials={"access_key": "a", "secret_key": "b"}
    )
    assert stores.place_of(moved, "", "").credentials == {"access_key": "a", "secret_key": "b"}
    for event in AuditEvent.objects.all():
        assert b"secret" not in bytes(event.canonical)
    assert not any(b"test-secret" in bytes(note.body) for note in AuditNote.objects.all())


@pytest.mark.requirement("catalogue-6.1")
@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"endpoint": "ftp://storage.example.com"}, "endpoint"),
        ({"endpoint": "https://user:pw@storage.example.com"}, "endpoint"),
        ({"endpoint": "http://169.254.169.254"}, "endpoint"),
        ({"prefix": "models/../x"}, "prefix"),
        ({"ca_certificate": "nonsense"}, "ca_certificate"),
        ({"credentials": {"access_key": "a"}}, "credentials"),
        ({"credentials": {"token": "a"}}, "credentials"),
        ({"scheme": "upload"}, "scheme"),
        ({"scheme": "pvc", "endpoint": "unknown"}, "endpoint"),
        ({"name": ""}, "name"),
    ],
)
def test_a_store_that_cannot_work_is_refused(company: Any, values: Any, field: str) -> None:
    given = {"name": "Store", "scheme": "s3", "endpoint": "https://storage.example.com"} | values
    with pytest.raises(Invalid) as caught:
        actions.add_store(given.pop("name"), given.pop("scheme"), actor=Actor.of(company.admin), **given)
    assert field in caught.value.errors


@pytest.mark.requirement("catalogue-6.1")
def test_stores_are_kept_by_platform_admins(company: Any) -> None:
    for user in (company.lead_finance, company.compliance, company.auditor, company.vp):
        with pytest.raises(NotAllowed):
            actions.add_store("Mine", "s3", actor=Actor.of(user), endpoint="https://storage.example.com")
    store, actor = make_store(), Actor.of(company.admin)
    actions.archive_store(store.pk, actor=actor)
    with pytest.raises(Conflict):
        actions.archive_store(store.pk, actor=actor)
    assert actions.restore_store(store.pk, actor=actor).archived_at is None


@pytest.mark.requirement("catalogue-6.1")
def test_a_connection_is_tried_and_told_in_words(company: Any) -> None:
    with doubles.running(doubles.S3({"fraud/v1/a": b"a"})) as server:
        actor = Actor.of(company.admin)
        store = actions.add_store("S", "s3", actor=actor, endpoint=server.url, prefix="models", credentials=KEYS)
        assert stores.test_connection(store) == (True, "The bucket answers, and an object lies there.")
        wrong = actions.edit_store(store.pk, actor=actor, credentials={"access_key": "a", "secret_key": "b-secret-b"})
        fine, text = stores.test_connection(wrong)
        assert not fine
        assert text == "The store refuses this with these credentials (HTTP 403)."
    assert stores.test_connection(wrong) == (False, "No answer: NewConnectionError.")
    store.prefix = ""
    assert not stores.test_connection(store)[0]
    store.prefix, store.credentials = "models", b"not ours"
    assert "enter them anew" in stores.test_connection(store)[1]


@pytest.mark.requirement("catalogue-6.2")
def test_a_version_names_only_what_its_team_may_read(company: Any, model: Model) -> None:
    actor = Actor.of(company.member_finance)
    ours, theirs = make_store(prefix="models/fraud"), make_store()
    theirs.teams.set([company.marketing_team])
    archived = make_store(archived_at=model.created_at)
    registry = make_store("oci", prefix="models")

    def make(label: str, scheme: str, store: ModelStore, location: str) -> Any:
        return actions.create_version(model.pk, label, scheme, actor=actor, store_id=store.pk, location=location)

    assert make("1", "s3", ours, "s3://models/fraud/v1").store == ours
    assert make("2", "oci", registry, "oci://registry.example.com/models/fraud").store == registry
    for store, scheme, location, field in (
        (theirs, "s3", "s3://models/x", "store"), (archived, "s3", "s3://models/x", "store"),
        (registry, "s3", "s3://models/x", "store"), (ours, "s3", "s3://models/fraudulent", "location"),
        (ours, "s3", "s3://other/x", "location"), (registry, "oci", "oci://other.example.com/models/x", "location"),
        (registry, "oci", "oci://registry.example.com/private/x", "location"),
    ):  # fmt: skip
        with pytest.raises(Invalid) as caught:
            make("9", scheme, store, location)
        assert list(caught.value.errors) == [field], location
    theirs.teams.add(company.finance_team)
    assert make("3", "s3", theirs, "s3://anything/x").store == theirs
