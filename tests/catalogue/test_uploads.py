"""Uploaded bytes: by their digest, once, of a type told from the bytes, looked at by the scanner, in pieces."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.audit.models import AuditEvent
from apps.catalogue import actions, blobs, file_actions, sniffing
from apps.catalogue.choices import ScanStatus
from apps.catalogue.core_tasks import drop_uploads
from apps.catalogue.models import Blob, Model, ModelVersion, Upload
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotVisible
from tests.catalogue import doubles
from tests.catalogue.world import make_blob, make_version
from tests.factories import client_for

SAFETENSORS = (16).to_bytes(8, "little") + b'{"a":{"b":"cd"}}' + bytes(40)


@pytest.fixture
def draft(company: Any, model: Model, blob_dir: Path) -> ModelVersion:
    return make_version(model, company.member_finance, files={})


@pytest.fixture
def actor(company: Any) -> Actor:
    return Actor.of(company.member_finance)


def on_disk(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


# ---------------------------------------------------------------- what a file is


def zipped(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in names or ("data.json",):
            archive.writestr(name, "x")
    return out.getvalue()


@pytest.mark.requirement("catalogue-3.1")
@pytest.mark.parametrize(
    ("head", "found"),
    [
        (SAFETENSORS, sniffing.SAFETENSORS), (b"GGUF\x03\0\0\0", sniffing.GGUF), (pickle.dumps([1]), sniffing.PICKLE),
        (zipped(), sniffing.ZIP), (zipped("model/data.pkl", "model/data/0"), sniffing.PICKLES),
        (zipped("../../etc/passwd"), sniffing.ZIP),
        (b"\x08\x07\x12\x04onnx:\x00", sniffing.ONNX), (b"%PDF-1.7\n%\xe2", sniffing.PDF),
        (b"\x89PNG\r\n\x1a\n\0", sniffing.PNG), (b"\xff\xd8\xff\xe0", sniffing.JPEG),
        (b"\x7fELF\x02", sniffing.PROGRAM),
        (b"MZ\x90\0", sniffing.PROGRAM), (b"#!/bin/sh\n", sniffing.SCRIPT), (b"plain words\n", sniffing.TEXT),
        (b'{"a": [1, 2]}', sniffing.JSON), (b'{"a": ', sniffing.TEXT), (b"\x89HDF\r\n\x1a\n", sniffing.HDF5),
        (b"<!DOCTYPE html><p>", sniffing.HTML), (b"  <svg onload=x>", sniffing.SVG),
        (b"a <script>1</script>", sniffing.HTML),
        (b"<?xml version='1.0'?><a/>", sniffing.XML), (b"\x00\x01\x02", sniffing.UNKNOWN), (b"", sniffing.TEXT),
        ("Zürich".encode("latin-1"), sniffing.UNKNOWN), (bytes(257) + b"ustar", "application/x-tar"),
    ],
)  # fmt: skip
def test_the_type_is_told_from_the_bytes(head: bytes, found: str) -> None:
    assert sniffing.sniff(head) == found


@pytest.mark.requirement("catalogue-3.1")
@given(st.binary(max_size=sniffing.HEAD_BYTES))
def test_any_bytes_have_a_type(head: bytes) -> None:
    assert "/" in sniffing.sniff(head)


@pytest.mark.requirement("catalogue-3.1")
@given(st.text(min_size=1, max_size=4000))
def test_a_character_cut_in_two_is_text_still(text: str) -> None:
    data = (text * 5000).encode("utf-8", "ignore")[: sniffing.HEAD_BYTES]
    clean = text.isprintable() and len(data) == sniffing.HEAD_BYTES
    if clean and not text.lstrip().startswith(("#!", "<", "{", "[")) and "<" not in text and not sniffing_magic(data):
        assert sniffing.sniff(data) == sniffing.TEXT


def sniffing_magic(data: bytes) -> bool:
    return any(data[at : at + len(magic)] == magic for at, magic, _ in sniffing._MAGIC)


# ---------------------------------------------------------------- the store


@pytest.mark.django_db
@pytest.mark.requirement("catalogue-3.1")
def test_the_same_bytes_are_kept_once(blob_dir: Path, actor: Actor) -> None:
    data = os.urandom(3_000_000)
    first = blobs.put((data[at : at + 65_536] for at in range(0, len(data), 65_536)), actor=actor)
    second = blobs.put([data], actor=actor)
    assert first == second
    assert (first.sha256, first.size) == (hashlib.sha256(data).hexdigest(), 3_000_000)
    assert [path.name for path in on_disk(blob_dir)] == [first.sha256]
    with blobs.open_blob(first) as file:
        assert file.read() == data
    # Bytes that got lost are put back by the next upload of the same.
    blobs.path_of(first.sha256).unlink()
    with pytest.raises(Conflict, match="missing"):
        blobs.open_blob(first)
    assert blobs.put([data], actor=actor) == first
    assert blobs.path_of(first.sha256).read_bytes() == data


@pytest.mark.django_db
@pytest.mark.requirement("catalogue-3.1")
def test_what_is_refused_leaves_nothing_behind(blob_dir: Path, actor: Actor, settings: Any) -> None:
    settings.COMMONS_UPLOAD_MAX_BYTES = 100
    sent: list[int] = []

    def endless() -> Any:
        while True:
            sent.append(1)
            yield b"x" * 60

    with pytest.raises(Invalid, match="larger than 100 bytes"):
        blobs.put(endless(), actor=actor)
    assert len(sent) == 2
    with pytest.raises(Invalid, match="empty"):
        blobs.put([], actor=actor)
    with pytest.raises(Invalid, match="text/html"):
        blobs.put([b"<html>"], actor=actor, allowed={sniffing.PDF})

    def broken() -> Any:
        yield b"x"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        blobs.put(broken(), actor=actor)
    assert on_disk(blob_dir) == []
    assert not Blob.objects.exists()


# ---------------------------------------------------------------- the scanner


@pytest.mark.django_db
@pytest.mark.requirement("catalogue-3.3")
def test_an_infected_file_is_refused_and_recorded(
    draft: ModelVersion, actor: Actor, settings: Any, blob_dir: Path
) -> None:
    with doubles.clamd() as (address, scanned):
        settings.COMMONS_SCANNER = address
        clean = blobs.put([b"weights" * 300_000], actor=actor)
        assert (clean.scan, len(scanned[0])) == (ScanStatus.CLEAN, 2_100_000)
        with pytest.raises(Invalid, match="Eicar-Test-Signature"):
            blobs.put([b"EICAR"], actor=actor)
        infected = Blob.objects.get(scan=ScanStatus.INFECTED)
        assert infected.scan_detail == "Eicar-Test-Signature"
        assert AuditEvent.objects.get(action="catalogue.blob.refused").object_id == infected.uid
        assert [path.name for path in on_disk(blob_dir)] == [clean.sha256]
        # Nobody asks twice, and nobody gets it by its row.
        with pytest.raises(Invalid, match="before"):
            blobs.put([b"EICAR"], actor=actor)
        assert len(scanned) == 2
        with pytest.raises(Conflict):
            blobs.open_blob(infected)
        with pytest.raises(Invalid):
            actions.add_file(draft.pk, "x", infected.pk, actor=actor)


@pytest.mark.django_db
@pytest.mark.requirement("catalogue-3.3")
def test_nothing_is_taken_while_the_scanner_is_away(
    draft: ModelVersion, actor: Actor, settings: Any, blob_dir: Path
) -> None:
    settings.COMMONS_SCANNER = "127.0.0.1:1"
    with pytest.raises(Conflict, match="could not be scanned"):
        blobs.put([b"weights"], actor=actor)
    assert on_disk(blob_dir) == []
    with doubles.clamd(limit=10) as (address, _):
        settings.COMMONS_SCANNER = address
        with pytest.raises(Conflict, match="StreamMaxLength"):
            blobs.put([b"weights" * 100], actor=actor)
    with doubles.clamd(reply="stream: broken ERROR") as (address, _):
        settings.COMMONS_SCANNER = address
        with pytest.raises(Conflict, match="broken"):
            blobs.put([b"weights"], actor=actor)
    settings.COMMONS_SCANNER = "nonsense"
    with pytest.raises(Conflict, match="host:port"):
        blobs.put([b"weights"], actor=actor)
    assert not Blob.objects.exists()


@pytest.mark.django_db
@pytest.mark.requirement("catalogue-3.3")
def test_bytes_from_before_the_scanner_are_looked_at_when_they_come_again(
    actor: Actor, settings: Any, blob_dir: Path
) -> None:
    before = blobs.put([b"EICAR"], actor=actor)
    assert before.scan == ScanStatus.OFF
    with doubles.clamd() as (address, _):
        settings.COMMONS_SCANNER = address
        with pytest.raises(Invalid):
            blobs.put([b"EICAR"], actor=actor)
    before.refresh_from_db()
    assert before.scan == ScanStatus.INFECTED
    assert on_disk(blob_dir) == []


# ---------------------------------------------------------------- pieces


def send(draft: ModelVersion, actor: Actor, data: bytes, size: int = 1000, path: str = "w.bin") -> Upload:
    upload = actions.begin_upload(draft.pk, path, len(data), actor=actor)
    at = upload.received
    while at < len(data):
        at = actions.append_piece(upload.uid, at, data[at : at + size], actor=actor).received
    return upload


@pytest.mark.django_db
@pytest.mark.requirement("catalogue-3.2")
def test_a_file_comes_in_pieces_and_goes_on_after_a_break(draft: ModelVersion, actor: Actor, blob_dir: Path) -> None:
    data = os.urandom(5500)
    upload = actions.begin_upload(draft.pk, "weights/w.bin", len(data), actor=actor)
    assert actions.append_piece(upload.uid, 0, data[:1000], actor=actor).received == 1000
    # The answer got lost: the same piece once more is taken once.
    assert actions.append_piece(upload.uid, 0, data[:1000], actor=actor).received == 1000
    with pytest.raises(Conflict) as caught:
        actions.append_piece(upload.uid, 2000, data[2000:3000], actor=actor)
    assert caught.value.current == {"received": 1000}
    with pytest.raises(Conflict, match="missing"):
        actions.finish_upload(upload.uid, actor=actor)
    again = actions.begin_upload(draft.pk, "weights/w.bin", len(data), actor=actor)
    assert (again.uid, again.received) == (upload.uid, 1000)
    send(draft, actor, data, path="weights/w.bin")
    file = actions.finish_upload(upload.uid, actor=actor, sha256=hashlib.sha256(data).hexdigest().upper())
    assert (file.path, file.size, file.sha256) == ("weights/w.bin", 5500, hashlib.sha256(data).hexdigest())
    draft.refresh_from_db()
    assert draft.total_bytes == 5500
    assert not Upload.objects.exists()
    assert [path.name for path in on_disk(blob_dir)] == [file.sha256]


@pytest.mark.django_db
@pytest.mark.requirement("catalogue-3.2")
def test_what_arrives_is_held_against_the_senders_digest(draft: ModelVersion, actor: Actor, blob_dir: Path) -> None:
    upload = send(draft, actor, b"abc")
    with pytest.raises(Invalid, match="another digest"):
        actions.finish_upload(upload.uid, actor=actor, sha256="0" * 64)
    assert not Upload.objects.exists()
    assert on_disk(blob_dir) == []
    assert not draft.files.exists()


@pytest.mark.django_db
@pytest.mark.requirement("catalogue-3.2", "catalogue-3.3")
def test_nobody_sends_again_because_the_scanner_was_away(draft: ModelVersion, actor: Actor, settings: Any) -> None:
    upload = send(draft, actor, b"weights")
    settings.COMMONS_SCANNER = "127.0.0.1:1"
    with pytest.raises(Conflict):
        actions.finish_upload(upload.uid, actor=actor)
    settings.COMMONS_SCANNER = ""
    assert actions.finish_upload(upload.uid, actor=actor).size == 7


@pytest.mark.django_db
@pytest.mark.requirement("catalogue-3.2")
def test_wrong_pieces_are_refused(company: Any, draft: ModelVersion, actor: Actor, settings: Any) -> None:
    settings.COMMONS_UPLOAD_MAX_BYTES = 1000
    for path, size in (("w", 0), ("w", 1001)):
        with pytest.raises(Invalid):
            actions.begin_upload(draft.pk, path, size, actor=actor)
    for path in ("../w", "/etc/passwd", "", "a//b", "a\x00b", "a/../../b"):
        with pytest.raises(Invalid):
            actions.begin_upload(draft.pk, path, 1, actor=actor)
    upload = actions.begin_upload(draft.pk, "w", 3, actor=actor)
    with pytest.raises(Invalid, match="More bytes"):
        actions.append_piece(upload.uid, 0, b"abcd", actor=actor)
    with pytest.raises(Invalid):
        actions.append_piece(upload.uid, 0, b"", actor=actor)
    with pytest.raises(Invalid):
        actions.append_piece(upload.uid, 0, b"x" * (file_actions.MAX_PIECE + 1), actor=actor)
    # Another person's upload is none of mine.
    with pytest.raises(NotVisible):
        actions.append_piece(upload.uid, 0, b"abc", actor=Actor.of(company.lead_finance))
    actions.append_piece(upload.uid, 0, b"ab", actor=actor)
    blobs.incoming(str(upload.uid)).unlink()
    with pytest.raises(Conflict) as caught:
        actions.append_piece(upload.uid, 2, b"c", actor=actor)
    assert caught.value.current == {"received": 0}


@pytest.mark.django_db
@pytest.mark.requirement("catalogue-3.2")
def test_what_nobody_goes_on_with_is_thrown_away(draft: ModelVersion, actor: Actor, blob_dir: Path) -> None:
    upload = actions.begin_upload(draft.pk, "w", 3, actor=actor)
    actions.append_piece(upload.uid, 0, b"ab", actor=actor)
    assert drop_uploads() == 0
    with clock.frozen(clock.now() + timedelta(days=2)):
        assert drop_uploads() == 2
    assert on_disk(blob_dir) == []
    assert not Upload.objects.exists()


@pytest.mark.django_db
@pytest.mark.requirement("catalogue-3.1")
def test_a_file_of_the_same_path_is_replaced(draft: ModelVersion, actor: Actor) -> None:
    actions.add_file(draft.pk, "w", make_blob(b"first").pk, actor=actor)
    file = actions.add_file(draft.pk, "w", make_blob(b"second!").pk, actor=actor)
    assert draft.files.get() == file
    version = actions.remove_file(draft.pk, file.pk, actor=actor)
    assert version.total_bytes == 0
    with pytest.raises(NotVisible):
        actions.remove_file(draft.pk, file.pk, actor=actor)
    elsewhere = make_version(draft.model, draft.author, scheme="s3")
    with pytest.raises(Invalid, match="elsewhere"):
        actions.add_file(elsewhere.pk, "w", make_blob(b"x").pk, actor=actor)


# ---------------------------------------------------------------- a copy


@pytest.mark.django_db
@pytest.mark.requirement("catalogue-3.4")
def test_a_copy_is_an_attachment_and_recorded(company: Any, draft: ModelVersion, actor: Actor) -> None:
    blob = blobs.put([b"<html><script>alert(1)</script>"], actor=actor)
    file = actions.add_file(draft.pk, "docs/page.html", blob.pk, actor=actor)
    response = client_for(company.auditor).get(f"/catalogue/files/{file.uid}/download/")
    assert b"".join(response.streaming_content) == b"<html><script>alert(1)</script>"
    assert response["Content-Disposition"] == 'attachment; filename="page.html"'
    assert response["Content-Type"] == "application/octet-stream"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in response["Content-Security-Policy"]
    event = AuditEvent.objects.get(action="catalogue.file.taken")
    assert event.actor_id == str(company.auditor.uid)
    assert client_for(company.lead_marketing).get(f"/catalogue/files/{file.uid}/download/").status_code == 404
