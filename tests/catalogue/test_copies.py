"""Copies of uploaded files in a store: written, read back, resumed; and what clusters then load."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from apps.approvals.models import Grant
from apps.audit.selectors import events_for
from apps.catalogue import blobs, copies, copy_jobs, grants, locations, store_actions
from apps.catalogue.choices import JobStatus, Scheme
from apps.catalogue.manifest import model_uris, verifiable
from apps.catalogue.models import Blob, ModelStore, ModelVersion, StoredCopy
from apps.catalogue.reading import s3_writing
from apps.catalogue.reading.base import Place
from apps.clusters.errors import ClusterError
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.models import OutboxMessage
from tests.catalogue.doubles import ACCESS, SECRET, WritableS3, running
from tests.catalogue.evidence_world import World, make_world
from tests.catalogue.world import make_store
from tests.factories import Company, client_for

pytestmark = pytest.mark.django_db
FILES = {"config.json": b'{"layers": 2}', "weights/a.bin": b"a" * 3000, "weights/b.bin": b"b" * 5000}


@pytest.fixture
def server() -> Iterator[WritableS3]:
    with running(WritableS3()) as made:
        yield made


@pytest.fixture
def world(company: Company, blob_dir: Any) -> World:
    """Finance's model with a sealed version of uploaded files whose bytes are really there."""
    made = make_world(company)
    actor = made.actor("member_finance")
    for data in FILES.values():
        blobs.put([data], actor=actor)
    made.version = made.seal(scheme="upload", store=None, files=FILES)
    made.add("evaluation")
    return made


@pytest.fixture
def store(world: World, server: WritableS3) -> ModelStore:
    return store_actions.add_store(
        "Models on premises", Scheme.S3, actor=world.actor("admin"), endpoint=server.url, prefix="models/serving",
        credentials={"access_key": ACCESS, "secret_key": SECRET}, takes_copies=True,
    )  # fmt: skip


def put(world: World, store: ModelStore) -> StoredCopy:
    return copies.start(world.version.pk, store.pk, actor=world.actor("lead_finance"))


def settle(copy: StoredCopy) -> StoredCopy:
    copy_jobs.run_due()
    copy.refresh_from_db()
    return copy


def keys(world: World) -> dict[str, bytes]:
    return {f"serving/sha256/{world.version.digest}/{path}": data for path, data in FILES.items()}


@pytest.mark.requirement("stored-copies-1.1")
def test_only_approved_sealed_uploads_go_to_stores_that_are_opened_for_them(world: World, store: ModelStore) -> None:
    with pytest.raises(Conflict, match="Only approved bytes"):
        put(world, store)
    world.approved()
    lead = world.actor("lead_finance")
    for name, refusal in (("member_finance", NotAllowed), ("lead_marketing", NotVisible), ("compliance", NotAllowed)):
        with pytest.raises(refusal):
            copies.start(world.version.pk, store.pk, actor=world.actor(name))
    plain = make_store(prefix="models/other")
    for closed in (plain, make_store("oci", takes_copies=True)):
        with pytest.raises(Invalid) as refused:
            copies.start(world.version.pk, closed.pk, actor=lead)
        assert "store" in refused.value.errors
    foreign = make_store(prefix="models/x", takes_copies=True)
    foreign.teams.add(world.company.marketing_team)
    with pytest.raises(Invalid):
        copies.start(world.version.pk, foreign.pk, actor=lead)
    copy = put(world, store)
    assert copy.location == f"s3://models/serving/sha256/{world.version.digest}"
    with pytest.raises(Conflict, match="already"):
        put(world, store)
    oci = world.seal()
    with pytest.raises(Conflict, match="in a store already"):
        copies.start(oci.pk, store.pk, actor=lead)
    draft = ModelVersion.objects.filter(pk=world.version.pk)
    Grant.objects.update(revoked_at=clock.now(), revoked_reason="A flaw was found.")
    assert "Only approved" in copies.why_not(draft.get(), clock.now())


@pytest.mark.requirement("stored-copies-1.1")
@pytest.mark.parametrize("shut", ["approval", "store"])
def test_nothing_leaves_once_the_approval_is_revoked_or_the_store_is_shut(
    world: World, store: ModelStore, server: WritableS3, shut: str
) -> None:
    world.approved()
    copy = put(world, store)
    if shut == "approval":
        Grant.objects.update(revoked_at=clock.now(), revoked_reason="A flaw was found.")
    else:
        store_actions.edit_store(store.pk, actor=world.actor("admin"), takes_copies=False)
    assert settle(copy).status == JobStatus.FAILED
    assert {"approval": "Only approved bytes", "store": "takes the portal's copies no more"}[shut] in copy.last_error
    assert server.puts == []


@pytest.mark.requirement("stored-copies-1.1")
def test_only_an_s3_store_with_a_bucket_is_opened(world: World) -> None:
    admin = world.actor("admin")
    with pytest.raises(Invalid) as refused:
        store_actions.add_store("Hub", Scheme.HF, actor=admin, endpoint="https://hub.example.com", takes_copies=True)
    assert "takes_copies" in refused.value.errors
    with pytest.raises(Invalid) as refused:
        store_actions.add_store("S3", Scheme.S3, actor=admin, endpoint="https://s3.example.com", takes_copies=True)
    assert "prefix" in refused.value.errors
    bare = store_actions.add_store("S3", Scheme.S3, actor=admin, endpoint="https://s3.example.com")
    with pytest.raises(Invalid):
        store_actions.edit_store(bare.pk, actor=admin, takes_copies=True)
    assert store_actions.edit_store(bare.pk, actor=admin, takes_copies=True, prefix="models").takes_copies


@pytest.mark.requirement("stored-copies-2.1", "stored-copies-3.1")
def test_the_bytes_lie_there_verified_and_are_what_clusters_load(
    world: World, store: ModelStore, server: WritableS3
) -> None:
    world.approved()
    before = locations.manifest_of(world.version)
    assert before.stored == ()
    assert verifiable(before)
    copy = settle(put(world, store))
    assert (copy.status, copy.files_done, copy.bytes_done) == (JobStatus.DONE, 3, sum(map(len, FILES.values())))
    assert server.objects == keys(world)
    after = locations.manifest_of(world.version)
    assert after.storage_uri == copy.location
    assert model_uris(after) == [copy.location]
    assert after.digest == before.digest == world.version.digest
    entry = grants.usable_entries(world.production.uid, "onprem", "production", clock.now())[0]
    assert entry.uris == (copy.location,)
    assert locations.manifests_of([world.version.uid])[world.version.uid].stored == (copy.location,)
    assert {one.action for one in events_for(world.version.uid)} >= {"catalogue.copy.started", "catalogue.copy.done"}
    told = OutboxMessage.objects.get(event="catalogue.copy.done")
    assert told.recipient_ids == [world["lead_finance"].pk]


@pytest.mark.requirement("stored-copies-2.2")
def test_a_failed_write_is_put_off_and_verified_files_are_not_sent_again(
    frozen_clock: Any, world: World, store: ModelStore, server: WritableS3
) -> None:
    world.approved()
    copy = put(world, store)
    server.refuse = lambda method, key: (503, {}, b"") if key.endswith("b.bin") else None
    settle(copy)
    assert (copy.status, copy.files_done, copy.done_through) == (JobStatus.PENDING, 2, "weights/a.bin")
    assert "asks for patience" in copy.last_error
    assert copy.retry_at == clock.now() + timedelta(seconds=15)
    settle(copy)
    assert copy.attempts == 1  # not due yet
    server.refuse = lambda method, key: None
    clock.advance(timedelta(seconds=16))
    settle(copy)
    assert copy.status == JobStatus.DONE
    assert len(server.puts) == len(set(server.puts)) == 3


@pytest.mark.requirement("stored-copies-2.2")
def test_a_dead_workers_copy_is_taken_over_and_one_without_hope_ends(
    world: World, store: ModelStore, server: WritableS3
) -> None:
    world.approved()
    copy = put(world, store)
    StoredCopy.objects.update(
        status=JobStatus.RUNNING, attempts=1, started_at=clock.now(), files_done=1, done_through="config.json"
    )
    server.objects |= {key: data for key, data in keys(world).items() if key.endswith("config.json")}
    settle(copy)
    assert (copy.status, copy.attempts, copy.files_done) == (JobStatus.DONE, 2, 3)
    assert len(server.puts) == 2
    StoredCopy.objects.update(status=JobStatus.RUNNING, attempts=copy_jobs.MAX_ATTEMPTS)
    settle(copy)
    assert copy.status == JobStatus.FAILED
    assert "tell a platform admin" in copy.last_error


@pytest.mark.requirement("stored-copies-2.2")
def test_a_refusal_for_good_ends_it_at_once_and_it_can_be_started_anew(
    world: World, store: ModelStore, server: WritableS3
) -> None:
    world.approved()
    store_actions.edit_store(store.pk, actor=world.actor("admin"), credentials={})
    copy = settle(put(world, store))
    assert copy.status == JobStatus.FAILED
    assert "with these credentials" in copy.last_error
    assert OutboxMessage.objects.filter(event="catalogue.copy.failed").count() == 1
    given = {"access_key": ACCESS, "secret_key": SECRET}
    store_actions.edit_store(store.pk, actor=world.actor("admin"), credentials=given)
    assert settle(put(world, store)).status == JobStatus.DONE


@pytest.mark.requirement("stored-copies-2.2")
def test_it_stops_when_somebody_cancels(
    world: World, store: ModelStore, server: WritableS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.approved()
    copy = put(world, store)
    monkeypatch.setattr(copy_jobs, "BEAT_SECONDS", 0.0)

    def cancel(method: str, key: str) -> None:
        # In the server's thread, as somebody at another machine would, before the second file is taken.
        if key.endswith("a.bin"):
            cancelled.append(key)

    cancelled: list[str] = []
    server.refuse = cancel
    beat = copy_jobs._Hand.moving

    def moving(hand: Any, count: int) -> None:
        if cancelled and StoredCopy.objects.filter(pk=copy.pk, status=JobStatus.RUNNING).exists():
            copies.cancel(copy.pk, actor=world.actor("lead_finance"))
        beat(hand, count)

    monkeypatch.setattr(copy_jobs._Hand, "moving", moving)
    settle(copy)
    assert copy.status == JobStatus.CANCELLED
    assert not any(key.endswith("b.bin") for key in server.puts)
    assert locations.manifest_of(world.version).stored == ()
    with pytest.raises(Conflict, match="nothing to cancel"):
        copies.cancel(copy.pk, actor=world.actor("lead_finance"))


@pytest.mark.requirement("stored-copies-2.3")
@pytest.mark.parametrize("fault", ["spoiled", "lost", "foreign", "truncated", "no_bytes"])
def test_what_is_not_the_approved_bytes_there_fails_by_name(
    world: World, store: ModelStore, server: WritableS3, fault: str
) -> None:
    world.approved()
    copy = put(world, store)
    here = f"serving/sha256/{world.version.digest}"
    if fault == "spoiled":
        server.spoil = lambda key, body: body[::-1] if key.endswith("config.json") else body
    elif fault == "truncated":
        server.spoil = lambda key, body: body[:-1] if key.endswith("config.json") else body
    elif fault == "foreign":
        server.objects[f"{here}/extra.py"] = b"import os"
    elif fault == "lost":
        StoredCopy.objects.update(files_done=1, done_through="config.json")
    else:
        blobs.path_of(Blob.objects.get(size=len(FILES["config.json"])).sha256).unlink()
    settle(copy)
    named = "extra.py" if fault == "foreign" else "config.json"
    assert copy.status == JobStatus.FAILED
    assert named in copy.last_error
    assert locations.manifest_of(world.version).stored == ()


@pytest.mark.requirement("stored-copies-2.1")
def test_what_lies_there_already_is_read_and_not_sent_again(
    world: World, store: ModelStore, server: WritableS3
) -> None:
    world.approved()
    server.objects |= keys(world)
    server.objects[f"serving/sha256/{world.version.digest}/config.json"] = b'{"layers": 9}'
    assert settle(put(world, store)).status == JobStatus.DONE
    assert [key.rpartition("/")[2] for key in server.puts] == ["config.json"]
    assert server.objects == keys(world)


@pytest.mark.requirement("stored-copies-2.1", "stored-copies-2.2")
def test_large_files_go_in_parts_and_a_broken_one_is_aborted(
    server: WritableS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_writing, "PART", 1000)
    data = bytes(range(256)) * 10
    place = Place("s3", server.url, "s3://models/here", credentials={"access_key": ACCESS, "secret_key": SECRET})
    writer = s3_writing.S3Writer(place)
    sent: list[int] = []
    writer.put("big file.bin", io.BytesIO(data), len(data), "", sent.append)
    assert server.objects == {"here/big file.bin": data}
    assert sum(sent) == len(data)
    server.refuse = lambda method, key: (500, {}, b"") if method == "PUT" else None
    with pytest.raises(ClusterError):
        writer.put("other.bin", io.BytesIO(data), len(data), "", sent.append)
    assert server.parts == {}
    writer.close()


@pytest.mark.requirement("stored-copies-1.2")
def test_pages_say_what_no_cluster_reaches_and_lead_to_the_button(
    world: World, store: ModelStore, server: WritableS3
) -> None:
    lead = client_for(world["lead_finance"])
    page, button = f"/catalogue/versions/{world.version.uid}/", f"/catalogue/versions/{world.version.uid}/store/"
    assert "Only approved bytes leave the portal" in lead.get(page).content.decode()
    assert lead.get(button).status_code == 409
    world.approved()
    assert button in lead.get(page).content.decode()
    assert button in lead.get("/deployments/releases/new/").content.decode()
    assert lead.post(button, {"store": store.pk}).status_code == 303
    text = lead.get(page).content.decode()
    assert "files verified" in text
    assert "Cancel" in text
    copy_jobs.run_due()
    text = lead.get(page).content.decode()
    assert StoredCopy.objects.get().location in text
    assert "Not served from here" not in text
    form = lead.get("/deployments/releases/new/").content.decode()
    assert button not in form
    assert str(world.version) in form
    assert client_for(world["lead_marketing"]).get(button).status_code == 404
    assert client_for(world["member_finance"]).get(button).status_code == 403
    shown = client_for(world["admin"]).get(f"/catalogue/stores/{store.uid}/").content.decode()
    assert "sha256/" in shown
    assert copies.unreached(world["lead_finance"]) == []
    assert Actor.of(world["lead_finance"]).user_id == StoredCopy.objects.get().requested_by_id
