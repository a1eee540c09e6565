"""Checkpoints kept outside the database, and what they catch that a chain alone cannot (governance D3)."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core import mail
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.backends.base.base import NO_DB_ALIAS

from apps.audit import bundle, checkpoint_format, checkpoints, drill, nightly
from apps.audit.canonical import leaf_hash, link_hash
from apps.audit.models import AuditEvent, AuditLink, CheckpointRow, VerificationRun
from apps.audit.verification import Outcome, Report, verify_trail
from apps.core import clock, signing
from apps.core.actor import Actor
from apps.core.models import OutboxMessage
from tests.audit.helpers import seal, write
from tests.audit.test_attacks import as_superuser
from tests.factories import client_for, make_company

KEY = base64.urlsafe_b64encode(bytes(range(32))).decode()
OTHER_KEY = base64.urlsafe_b64encode(bytes(range(1, 33))).decode()


@pytest.fixture
def folder(db: None, settings: Any, tmp_path: Path) -> Path:
    settings.COMMONS_SIGNING_KEYS = [KEY]
    settings.COMMONS_CHECKPOINT_DIRS = [str(tmp_path / "outside")]
    return tmp_path / "outside"


@pytest.fixture
def signed(folder: Path) -> list[AuditEvent]:
    """Four events under a checkpoint that lies outside."""
    events = [write(number, reason=f"reason {number}") for number in range(4)]
    seal()
    assert checkpoints.make_due() is not None
    seal()
    assert checkpoints.publish_due() == 1
    return events


def verdict() -> tuple[Outcome, set[str]]:
    report = verify_trail(checkpoints.outside_copies()[0])
    return report.outcome, {finding.kind for finding in report.findings}


@pytest.mark.requirement("audit-checkpoints-1.1", "audit-checkpoints-2.1")
def test_a_checkpoint_is_made_signed_copied_and_agrees(signed: list[AuditEvent], folder: Path) -> None:
    copies, complaints = checkpoints.outside_copies()
    assert complaints == []
    assert len(copies) == 1
    row = CheckpointRow.objects.get()
    assert copies[0].digest == row.digest
    assert copies[0].signed_by(signing.public_keys())
    assert list(row.places) == [f"folder:{folder}"]
    assert os.access(folder / copies[0].file_name, os.R_OK)
    report = verify_trail(copies)
    assert report.outcome is Outcome.INTACT
    assert (report.checkpoints, report.checkpoint_seq) == (1, copies[0].seq)


@pytest.mark.requirement("audit-checkpoints-1.1")
def test_a_checkpoint_comes_when_the_interval_is_over_and_something_happened(
    signed: list[AuditEvent], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checkpoints.make_due() is None
    later = clock.now() + timedelta(minutes=settings.COMMONS_CHECKPOINT_MINUTES + 1)
    monkeypatch.setattr(clock, "now", lambda: later)
    second = checkpoints.make_due()
    seal()
    assert second is not None, "the making of the first one is an event by itself"
    first = CheckpointRow.objects.order_by("seq")[0]
    assert checkpoints.of_row(second).prev == first.digest
    assert checkpoints.publish_due() == 1
    assert verdict() == (Outcome.INTACT, set())


@pytest.mark.requirement("audit-checkpoints-1.3")
def test_without_a_key_nothing_is_signed_and_verification_is_incomplete(folder: Path, settings: Any) -> None:
    settings.COMMONS_SIGNING_KEYS = []
    write(1)
    seal()
    assert checkpoints.make_due() is None
    report = nightly.verify(source="test", actor=Actor.system("tests"))
    assert report.outcome is Outcome.INCOMPLETE
    with pytest.raises(CommandError, match="COMMONS_SIGNING_KEY"):
        call_command("audit_checkpoint")


@pytest.mark.requirement("audit-checkpoints-2.2")
def test_a_tail_cut_off_together_with_the_head_is_found(signed: list[AuditEvent]) -> None:
    with as_superuser() as cursor:
        end = AuditLink.objects.order_by("-seq")[0].seq
        cursor.execute(
            "DELETE FROM audit.event WHERE id IN (SELECT event_id FROM audit.link WHERE seq > %s)", [end - 3]
        )
        cursor.execute(
            "DELETE FROM audit.note WHERE event_id IN (SELECT event_id FROM audit.link WHERE seq > %s)", [end - 3]
        )
        cursor.execute("DELETE FROM audit.link WHERE seq > %s", [end - 3])
        cursor.execute(
            "UPDATE audit.head SET seq = %s, hash = (SELECT hash FROM audit.link WHERE seq = %s)", [end - 3, end - 3]
        )
        assert verify_trail().outcome is Outcome.INTACT, "the chain alone does not see it"
        assert verdict() == (Outcome.TAMPERED, {"checkpoint"})


def _rechain(cursor: Any, first: int) -> None:
    """Number and hash all links from `first` on anew, as somebody would who knows the formats."""
    cursor.execute("SELECT hash FROM audit.link WHERE seq = %s", [first - 1])
    row = cursor.fetchone()
    prev, seq = (bytes(row[0]) if row else bytes(32)), first
    cursor.execute(
        "SELECT l.event_id, e.canonical, (extract(epoch FROM l.sealed_at) * 1000000)::bigint FROM audit.link l"
        " JOIN audit.event e ON e.id = l.event_id WHERE l.seq >= %s ORDER BY l.seq",
        [first],
    )
    for event_id, canonical, sealed in cursor.fetchall():
        leaf = leaf_hash(bytes(canonical))
        new = link_hash(prev, seq, leaf, sealed)
        cursor.execute(
            "UPDATE audit.link SET seq = %s, leaf = %s, prev = %s, hash = %s WHERE event_id = %s",
            [seq, leaf, prev, new, event_id],
        )
        prev, seq = new, seq + 1
    cursor.execute("UPDATE audit.head SET seq = %s, hash = %s", [seq - 1, prev])


@pytest.mark.requirement("audit-checkpoints-2.2")
def test_one_event_removed_and_the_rest_chained_anew_is_found(signed: list[AuditEvent]) -> None:
    with as_superuser() as cursor:
        victim = AuditLink.objects.get(event_uid=signed[1].uid)
        for table, column in (("event", "id"), ("note", "event_id"), ("link", "event_id")):
            cursor.execute(f"DELETE FROM audit.{table} WHERE {column} = %s", [victim.event_uid])  # noqa: S608 (constants)
        _rechain(cursor, victim.seq)
        assert verify_trail().outcome is Outcome.INTACT, "the chain alone does not see it"
        outcome, kinds = verdict()
        assert (outcome, kinds) == (Outcome.TAMPERED, {"checkpoint"})


@pytest.mark.requirement("audit-checkpoints-1.4")
def test_a_trail_that_does_not_follow_is_not_signed(
    signed: list[AuditEvent], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = clock.now() + timedelta(minutes=settings.COMMONS_CHECKPOINT_MINUTES + 1)
    with as_superuser() as cursor:
        seq = CheckpointRow.objects.get().seq
        cursor.execute("UPDATE audit.link SET hash = decode(repeat('ab', 32), 'hex') WHERE seq = %s", [seq])
        cursor.execute("SET LOCAL session_replication_role = DEFAULT")
        cursor.execute("SET LOCAL ROLE commons_app")
        monkeypatch.setattr(clock, "now", lambda: later)
        assert checkpoints.make_due() is None
        assert CheckpointRow.objects.count() == 1
        assert AuditEvent.objects.filter(action="audit.checkpoint.refused").exists()


@pytest.mark.requirement("audit-checkpoints-2.3")
def test_a_forged_or_foreign_checkpoint_is_told_apart(signed: list[AuditEvent], folder: Path, settings: Any) -> None:
    path = next(folder.iterdir())
    good = json.loads(path.read_text())
    path.chmod(0o600)
    forged = good["body"].replace('"seq":"', '"seq":"9')
    path.write_text(json.dumps({**good, "body": forged}))
    assert verdict() == (Outcome.TAMPERED, {"checkpoint"})
    path.write_text(json.dumps(good))
    settings.COMMONS_SIGNING_KEYS = [OTHER_KEY]
    outcome, kinds = verdict()
    assert (outcome, kinds) == (Outcome.INCOMPLETE, set()), "a key nobody here knows proves nothing"
    path.write_text("{")
    copies, complaints = checkpoints.outside_copies()
    assert copies == []
    assert len(complaints) == 1


@pytest.mark.requirement("audit-checkpoints-1.5")
def test_a_place_that_cannot_be_written_is_tried_again(signed: list[AuditEvent], folder: Path, settings: Any) -> None:
    blocked = folder.parent / "a-file"
    blocked.write_text("in the way")
    settings.COMMONS_CHECKPOINT_DIRS = [str(folder), str(blocked)]
    assert checkpoints.publish_due() == 0
    assert [row.last_error != "" for row in checkpoints.failing()] == [True]
    blocked.unlink()
    assert checkpoints.publish_due() == 1
    assert checkpoints.failing() == []
    assert len(list(blocked.iterdir())) == 1


@pytest.mark.requirement("audit-checkpoints-1.5")
def test_a_copy_is_never_overwritten(signed: list[AuditEvent], folder: Path) -> None:
    checkpoint = checkpoints.outside_copies()[0][0]
    assert checkpoints.write_file(folder, checkpoint).exists()
    path = folder / checkpoint.file_name
    path.chmod(0o600)
    path.write_text("something else")
    with pytest.raises(checkpoint_format.BadCheckpoint, match="something else"):
        checkpoints.write_file(folder, checkpoint)
    assert path.read_text() == "something else"


@pytest.mark.requirement("audit-checkpoints-1.5")
def test_a_mailed_checkpoint_carries_its_file(signed: list[AuditEvent], settings: Any) -> None:
    settings.COMMONS_CHECKPOINT_MAIL = ["compliance@example.com"]
    assert checkpoints.publish_due() == 1
    assert checkpoints.publish_due() == 0
    attached = mail.outbox[0].attachments[0]
    assert checkpoint_format.parse(attached[1]).digest == CheckpointRow.objects.get().digest


@pytest.mark.requirement("audit-checkpoints-2.4")
def test_the_command_compares_with_a_folder_and_trusted_keys(signed: list[AuditEvent], folder: Path) -> None:
    def run(*options: str) -> tuple[int, dict[str, Any]]:
        out = io.StringIO()
        try:
            call_command("audit_verify", "--json", "--no-record", *options, stdout=out)
            code = 0
        except SystemExit as leave:
            code = int(str(leave.code))
        return code, json.loads(out.getvalue())

    public = base64.urlsafe_b64encode(next(iter(signing.public_keys().values()))).decode()
    code, data = run("--checkpoints", str(folder), "--public-key", public)
    assert (code, data["checkpoints"]) == (0, 1)
    code, data = run("--checkpoints", str(folder), "--public-key", OTHER_KEY)
    assert (code, data["outcome"]) == (2, "incomplete")
    code, data = run("--from-checkpoint")
    assert (code, data["links"] < data["head"]["seq"]) == (0, True)
    assert run("--checkpoints", str(folder / "nowhere"))[0] == 3


@pytest.mark.requirement("audit-checkpoints-2.5")
def test_the_night_verifies_once_and_alarms_when_it_did_not(
    signed: list[AuditEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert nightly.alarm_if_overdue() == 0
    assert nightly.verify_due() == 1
    assert nightly.verify_due() == 0
    assert VerificationRun.objects.get().outcome == "intact"
    later = clock.now() + timedelta(hours=27)
    monkeypatch.setattr(clock, "now", lambda: later)
    assert nightly.alarm_if_overdue() == 1
    assert nightly.alarm_if_overdue() == 0, "once a day"
    assert OutboxMessage.objects.filter(event="audit.trail.alarm").count() == 1


@pytest.mark.requirement("audit-checkpoints-2.5")
def test_a_trail_that_no_night_ever_verified_raises_the_alarm(
    signed: list[AuditEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert nightly.overdue() == ""
    later = clock.now() + timedelta(hours=27)
    monkeypatch.setattr(clock, "now", lambda: later)
    assert nightly.alarm_if_overdue() == 1
    assert "never verified" in OutboxMessage.objects.get(event="audit.trail.alarm").payload["text"]


@pytest.mark.requirement("audit-checkpoints-3.1", "audit-checkpoints-3.2")
def test_a_bundle_is_verified_by_python_alone(signed: list[AuditEvent], tmp_path: Path) -> None:
    path = tmp_path / "events.zip"
    with path.open("wb") as file:
        packed = bundle.write(
            file, bundle.Selection(object_uid=signed[2].object_id), actor=Actor.system("tests"), organisation="Example",
            name=path.name,
        )  # fmt: skip
    assert packed.events == 1
    public = base64.urlsafe_b64encode(next(iter(signing.public_keys().values()))).decode()

    def check(*options: str) -> tuple[int, dict[str, Any]]:
        with zipfile.ZipFile(path) as archive:
            archive.extract("verify.py", tmp_path)
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(tmp_path / "verify.py"), str(path), "--json", *options],
            capture_output=True, text=True, check=False, env={},
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout)

    code, data = check("--public-key", public)
    assert (code, data["events"], data["checkpoints"]) == (0, 1, 1)
    assert check()[0] == 2, "keys inside the bundle prove nothing"
    assert check("--public-key", OTHER_KEY)[0] == 2
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    for name, before, after in (
        ("events.jsonl", b'\\"number\\":2', b'\\"number\\":7'),
        ("events.jsonl", b'"size": ', b'"size": 1'),
        ("manifest.json", b'"events": 1', b'"events": 2'),
    ):
        assert before in parts[name]
        with zipfile.ZipFile(path, "w") as archive:
            for each, content in parts.items():
                archive.writestr(each, content.replace(before, after) if each == name else content)
        assert check("--public-key", public)[0] in (1, 2), (name, before)
        if name != "events.jsonl" or b"size" not in before:
            assert check("--public-key", public)[0] == 1


@pytest.mark.requirement("audit-checkpoints-3.2")
def test_events_after_the_checkpoint_are_called_unproven(signed: list[AuditEvent], tmp_path: Path) -> None:
    late = write(11)
    seal()
    path = tmp_path / "late.zip"
    call_command("audit_bundle", str(path), "--object", str(late.object_id), stdout=io.StringIO())
    with zipfile.ZipFile(path) as archive:
        line = json.loads(archive.read("events.jsonl"))
    assert line["proof"] is None
    with pytest.raises(CommandError, match="exists already"):
        call_command("audit_bundle", str(path), stdout=io.StringIO())


def test_the_head_is_that_of_the_trail(signed: list[AuditEvent]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM audit.link")
        assert cursor.fetchone()[0] >= CheckpointRow.objects.get().seq


@pytest.fixture
def people(db: None) -> dict[str, Any]:
    company = make_company()
    return {"auditor": company.auditor, "lead": company.lead_finance}


@pytest.mark.requirement("audit-checkpoints-4.1")
def test_the_page_says_what_is_proven_and_what_could_be_rewritten(
    signed: list[AuditEvent], people: dict[str, Any], settings: Any
) -> None:
    nightly.verify(source="test", actor=Actor.system("tests"))
    client = client_for(people["auditor"])
    text = client.get("/audit/integrity/").content.decode()
    row = CheckpointRow.objects.get()
    assert row.digest[:16] in text
    assert f"link {row.seq:,}" in text
    assert "intact" in text
    assert "1 of 1" in text
    settings.COMMONS_CHECKPOINT_DIRS = []
    assert "No copies outside the database" in client.get("/audit/integrity/").content.decode()
    client = client_for(people["lead"])
    assert client.get("/audit/integrity/").status_code == 403


@pytest.mark.requirement("audit-checkpoints-4.2")
def test_a_bundle_from_the_page_is_recorded_and_holds_the_events(
    signed: list[AuditEvent], people: dict[str, Any]
) -> None:
    client = client_for(people["auditor"])
    today = f"{clock.now():%Y-%m-%d}"
    answer = client.post("/audit/bundle/", {"start": today, "end": today, "object_uid": signed[0].object_id})
    assert answer.status_code == 200
    with zipfile.ZipFile(io.BytesIO(b"".join(answer.streaming_content))) as archive:
        assert json.loads(archive.read("manifest.json"))["events"] == 1
    assert AuditEvent.objects.filter(action="audit.bundle.made", actor_id=str(people["auditor"].uid)).exists()
    none = client.post("/audit/bundle/", {"start": "2020-01-01", "end": "2020-01-02"})
    assert none.status_code == 400
    assert "No event matches" in none.content.decode()
    assert client.post("/audit/bundle/", {"start": today, "end": "2020-01-02"}).status_code == 400
    client = client_for(people["lead"])
    assert client.post("/audit/bundle/", {"start": today, "end": today}).status_code == 403


@pytest.mark.requirement("audit-checkpoints-2.6")
@pytest.mark.django_db(transaction=True)
def test_the_drill_finds_five_attacks_on_a_copy(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.COMMONS_SIGNING_KEYS = [KEY]
    settings.COMMONS_CHECKPOINT_DIRS = [str(tmp_path / "outside")]
    # The one name under which a test may open a database that was not there when it started.
    monkeypatch.setattr(drill, "_ALIAS", NO_DB_ALIAS)
    for number in range(4):
        write(number, reason=f"reason {number}")
    assert checkpoints.make_due() is not None
    assert checkpoints.publish_due() == 1
    before = AuditLink.objects.count()
    out = io.StringIO()
    call_command("audit_drill", stdout=out)
    lines = out.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["found"] * 5, lines
    assert AuditLink.objects.count() == before + 1, "the drill itself is an event"
    # A verification that is blind is shown to be blind.
    monkeypatch.setattr(drill, "verify_trail", lambda *args, **kwargs: Report())
    with pytest.raises(SystemExit):
        call_command("audit_drill", stdout=out)
    assert "NOT FOUND" in out.getvalue()
    with pytest.raises(CommandError, match="no checkpoint"):
        call_command("audit_drill", "--limit", "2")
