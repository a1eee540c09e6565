"""How long the trail is kept: floors, holds, and purging a month by two persons' decision."""

from __future__ import annotations

import base64
import json
import uuid
import zipfile
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import DatabaseError, connection, transaction

from apps.audit import bundle, checkpoints, keeping, reconciliation
from apps.audit.choices import ProposalStatus
from apps.audit.models import AuditEvent, AuditNote, CheckpointRow, Purge, RetentionProposal
from apps.audit.verification import Outcome, Report, verify_trail
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from tests.audit.helpers import seal, write
from tests.audit.test_attacks import Connect, as_superuser
from tests.factories import Company

MONTH = date(2005, 3, 1)
THEN = datetime(2005, 3, 14, 9, tzinfo=UTC)


@pytest.fixture
def folder(settings: Any, tmp_path: Path) -> Path:
    settings.COMMONS_CHECKPOINT_DIRS = [str(tmp_path / "outside")]
    settings.COMMONS_SIGNING_KEYS = [base64.urlsafe_b64encode(bytes(range(32))).decode()]
    settings.COMMONS_CHECKPOINT_MAIL = []
    return tmp_path / "outside"


@pytest.fixture
def old(company: Company, folder: Path) -> list[AuditEvent]:
    """Four events of March 2005, one of April, all signed and copied."""
    with clock.frozen(THEN):
        events = [write(number, reason=f"reason {number}") for number in range(4)]
    with clock.frozen(datetime(2005, 4, 2, tzinfo=UTC)):
        events.append(write(9, reason="kept"))
    _sign()
    return events


def _sign() -> None:
    seal()
    assert checkpoints.make_due(force=True) is not None
    seal()
    checkpoints.publish_due()


def _of(company: Company, who: str) -> Actor:
    return Actor.of(company[who])


def _verdict() -> Report:
    seal()
    return verify_trail(checkpoints.outside_copies()[0])


def _approved(company: Company) -> RetentionProposal:
    row = keeping.propose_purge(MONTH, "older than ten years", actor=_of(company, "admin"))
    return keeping.approve_purge(row.pk, actor=_of(company, "compliance"))


@pytest.mark.requirement("audit-keeping-2.1", "audit-keeping-2.4")
def test_two_persons_purge_a_month_and_the_trail_stays_intact(company: Company, old: list[AuditEvent]) -> None:
    row = _approved(company)
    seal()
    assert keeping.purge_due() == 1
    assert keeping.purge_due() == 0, "done once"
    row.refresh_from_db()
    assert row.status == ProposalStatus.DONE
    assert set(AuditEvent.objects.filter(uid__in=[one.uid for one in old])) == {old[4]}
    assert not AuditNote.objects.filter(event_uid__in=[one.uid for one in old[:4]]).exists()
    report = _verdict()
    assert (report.outcome, report.purged) == (Outcome.INTACT, ["2005-03"])
    said = AuditEvent.objects.get(action="audit.retention.purged", object_id=row.uid).data["changes"]
    assert (said["month"], said["events"]) == ("2005-03", 4)
    assert said["merkle_root"] == checkpoints.outside_copies()[0][0].merkle_root.hex()
    _sign()
    assert _verdict().outcome is Outcome.INTACT, "the next checkpoint follows from the one before"


@pytest.mark.requirement("audit-keeping-2.1")
def test_the_log_of_changed_rows_goes_with_its_month(company: Company, old: list[AuditEvent]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL ROLE NONE")
        for day in ("2005-03-14", "2005-04-02"):
            cursor.execute(
                "INSERT INTO audit.change (at, tbl, row_id, row_uid, op, xid, login, program)"
                " VALUES (%s, 'teams_rolegrant', '1', '', 'UPDATE', 1, 'somebody', 'psql')",
                [f"{day} 09:00+00"],
            )
        cursor.execute("SET LOCAL ROLE commons_app")
    _approved(company)
    seal()
    assert keeping.purge_due() == 1
    assert _logged() == ["2005-03-14", "2005-04-02"], "nobody has looked at them yet"
    reconciliation.reconcile()
    keeping.purge_due()
    assert _logged() == ["2005-04-02"]
    said = AuditEvent.objects.get(action="audit.change.purged").data["changes"]
    assert said == {"month": "2005-03", "rows": 1}
    # The portal's role cannot, whatever it sets; the owner cannot without the function.
    for role, why in (("commons_app", "permission denied"), ("commons_audit", "never changed")):
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL ROLE NONE")
            cursor.execute(f"SET LOCAL ROLE {role}")
            setting = "on" if role == "commons_app" else ""
            cursor.execute("SELECT set_config('commons.purging_changes', %s, true)", [setting])
            with pytest.raises(DatabaseError, match=why), transaction.atomic():
                cursor.execute("DELETE FROM audit.change")
            cursor.execute("SET LOCAL ROLE NONE")
            cursor.execute("SET LOCAL ROLE commons_app")


def _logged() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT at::date::text FROM audit.change WHERE at < '2006-01-01' ORDER BY 1")
        return [row[0] for row in cursor.fetchall()]


@pytest.mark.requirement("audit-keeping-2.4")
def test_proofs_of_what_stays_are_as_before(company: Company, old: list[AuditEvent], tmp_path: Path) -> None:
    from apps.audit.bundle_verifier import main
    from apps.core import signing

    _approved(company)
    seal()
    keeping.purge_due()
    seal()
    path = tmp_path / "bundle.zip"
    with path.open("wb") as file:
        packed = bundle.write(
            file,
            bundle.Selection(object_uid=old[4].object_id),
            actor=Actor.system("tests"),
            organisation="Example",
            name=path.name,
        )
    assert packed.events == 1
    with zipfile.ZipFile(path) as archive:
        manifest = json.loads(archive.read("manifest.json"))
    assert [(one["month"], one["events"]) for one in manifest["purged"]] == [("2005-03", 4)]

    keys = [base64.urlsafe_b64encode(raw).decode() for raw in signing.public_keys().values()]
    assert main([str(path), *[part for key in keys for part in ("--public-key", key)]]) == 0


@pytest.mark.requirement("audit-keeping-2.2")
def test_one_person_alone_purges_nothing(company: Company, old: list[AuditEvent]) -> None:
    from apps.teams.choices import Role
    from tests.factories import forget_scopes, grant

    row = keeping.propose_purge(MONTH, "old", actor=_of(company, "admin"))
    for who in ("compliance", "lead_finance", "auditor", "finance"):
        with pytest.raises(NotAllowed):
            keeping.propose_purge(MONTH, "old", actor=_of(company, who))
    for who in ("finance", "vp", "auditor"):
        with pytest.raises(NotAllowed):
            keeping.approve_purge(row.pk, actor=_of(company, who))
    grant(company.admin, Role.COMPLIANCE)
    forget_scopes(company.admin)
    with pytest.raises(NotAllowed, match="proposed it"):
        keeping.approve_purge(row.pk, actor=_of(company, "admin"))
    with pytest.raises(NotAllowed):
        keeping.approve_purge(row.pk, actor=Actor.system("anything"))
    seal()
    assert keeping.purge_due() == 0
    # Whoever writes the row directly still fails: the database asks the trail for two persons' events.
    RetentionProposal.objects.filter(pk=row.pk).update(status=ProposalStatus.APPROVED)
    assert keeping.purge_due() == 0
    row.refresh_from_db()
    assert "two persons" in row.problem
    assert AuditEvent.objects.filter(uid=old[0].uid).exists()


@pytest.mark.requirement("audit-keeping-2.2")
def test_a_proposal_goes_its_way_once(company: Company, old: list[AuditEvent]) -> None:
    admin, compliance = _of(company, "admin"), _of(company, "compliance")
    with pytest.raises(Invalid):
        keeping.propose_purge(MONTH, " ", actor=admin)
    row = keeping.propose_purge(MONTH, "old", actor=admin)
    with pytest.raises(Invalid, match="proposed already"):
        keeping.propose_purge(MONTH, "old", actor=admin)
    with pytest.raises(Conflict):
        keeping.approve_purge(row.pk, actor=compliance, expected_version=row.version + 1)
    with pytest.raises(Invalid):
        keeping.reject_purge(row.pk, "", actor=compliance)
    keeping.reject_purge(row.pk, "a case is coming", actor=compliance)
    with pytest.raises(Conflict):
        keeping.approve_purge(row.pk, actor=compliance)
    again = keeping.propose_purge(MONTH, "old", actor=admin)
    keeping.withdraw_purge(again.pk, "", actor=admin)
    seal()
    assert keeping.purge_due() == 0


@pytest.mark.requirement("audit-keeping-2.3")
def test_the_floor_is_the_longest_of_what_applies(company: Company, old: list[AuditEvent]) -> None:
    assert keeping.floor_months() == 120, "ten years for documentation under the AI Act, not seven"
    with clock.frozen(datetime(2018, 1, 5, tzinfo=UTC)):
        write(1)
    _sign()
    assert "younger than 120 months" in keeping.obstacle(date(2018, 1, 1))
    with pytest.raises(Invalid, match="younger"):
        keeping.propose_purge(date(2018, 1, 1), "too early", actor=_of(company, "admin"))
    assert [one.month for one in keeping.months_of_age() if one.month.year == 2005] == [MONTH, date(2005, 4, 1)]
    with as_superuser() as cursor:
        cursor.execute(
            "INSERT INTO audit.floor (regime, citation, months, revised) VALUES ('A new law', 'x', 600, now())"
        )
        assert "younger than 600 months" in keeping.obstacle(MONTH)


@pytest.mark.requirement("audit-keeping-2.5")
@pytest.mark.parametrize("by", ["date", "actor", "object", "everything"])
def test_a_hold_keeps_the_month_it_touches(company: Company, old: list[AuditEvent], by: str) -> None:
    compliance = _of(company, "compliance")
    with clock.frozen(THEN), transaction.atomic():
        from apps.audit.actions import record
        from tests.audit.helpers import TRIED, Tried

        event = record(TRIED, Tried(1), actor=_of(company, "vp"), subject_type="tests.thing", subject_uid=uuid.uuid4())
    _sign()
    row = _approved(company)
    touching: dict[str, Any] = {
        "date": {"since": datetime(2005, 3, 1, tzinfo=UTC), "until": datetime(2005, 3, 15, tzinfo=UTC)},
        "actor": {"person_uid": company.vp.uid},
        "object": {"object_uid": event.object_id},
        "everything": {},
    }
    beside: dict[str, Any] = {"since": datetime(2005, 5, 1, tzinfo=UTC), "person_uid": company.vp.uid}
    keeping.place_hold("Case 2", actor=compliance, **beside)
    seal()
    assert keeping.obstacle(MONTH, row.uid) == ""
    hold = keeping.place_hold("Case 1", actor=compliance, reason="letter of the court", **touching[by])
    seal()
    assert keeping.purge_due() == 0
    row.refresh_from_db()
    assert row.status == ProposalStatus.APPROVED
    assert "under legal hold: Case 1" in row.problem
    keeping.release_hold(hold.uid, "settled", actor=compliance)
    seal()
    assert keeping.purge_due() == 1
    assert _verdict().outcome is Outcome.INTACT


@pytest.mark.requirement("audit-keeping-2.5")
@pytest.mark.django_db
def test_holds_are_placed_and_released_by_compliance(company: Company) -> None:
    compliance = _of(company, "compliance")
    for who in ("admin", "auditor", "vp"):
        with pytest.raises(NotAllowed):
            keeping.place_hold("Case", actor=_of(company, who))
    with pytest.raises(Invalid):
        keeping.place_hold(" ", actor=compliance)
    with pytest.raises(Invalid, match="names and addresses"):
        keeping.place_hold("somebody@example.com", actor=compliance)
    with pytest.raises(Invalid, match="after the first"):
        keeping.place_hold("Case", actor=compliance, since=THEN, until=THEN)
    hold = keeping.place_hold("Case", actor=compliance)
    with pytest.raises(Invalid):
        keeping.release_hold(hold.uid, "", actor=compliance)
    with pytest.raises(NotVisible):
        keeping.release_hold(uuid.uuid4(), "x", actor=compliance)
    keeping.release_hold(hold.uid, "over", actor=compliance)
    with pytest.raises(Conflict):
        keeping.release_hold(hold.uid, "over", actor=compliance)


@pytest.mark.requirement("audit-keeping-2.1")
def test_nothing_is_purged_that_no_copied_checkpoint_covers(
    company: Company, old: list[AuditEvent], settings: Any
) -> None:
    row = _approved(company)
    seal()
    CheckpointRow.objects.update(places={})
    assert keeping.purge_due() == 0
    row.refresh_from_db()
    assert "copied to every place" in row.problem
    settings.COMMONS_CHECKPOINT_DIRS = []
    assert keeping.purge_due() == 0
    row.refresh_from_db()
    assert "no place outside" in row.problem
    CheckpointRow.objects.all().delete()
    assert "no checkpoint covers" in keeping.obstacle(MONTH)


@pytest.mark.requirement("audit-keeping-2.6")
def test_a_deletion_is_not_excused_by_a_purge(company: Company, old: list[AuditEvent]) -> None:
    """Only exactly the purged leaves may be missing, and only where two persons wanted it."""
    _approved(company)
    seal()
    keeping.purge_due()
    seal()
    with as_superuser() as cursor:
        cursor.execute("DELETE FROM audit.note WHERE event_id = %s", [old[4].uid])
        cursor.execute("DELETE FROM audit.event WHERE id = %s", [old[4].uid])
        assert {finding.kind for finding in verify_trail().findings} == {"event"}
    with as_superuser() as cursor:
        # A month deleted by hand, with a row that claims a purge: the trail says nothing of it.
        cursor.execute(
            "INSERT INTO audit.purge SELECT '2005-04-01', proposal, 1, 1, 1, leaves, end_hash, now() FROM audit.purge"
        )
        cursor.execute("DELETE FROM audit.note WHERE event_id = %s", [old[4].uid])
        cursor.execute("DELETE FROM audit.event WHERE id = %s", [old[4].uid])
        assert verify_trail().outcome is Outcome.TAMPERED
    with as_superuser() as cursor:
        # One more than was purged.
        cursor.execute("UPDATE audit.link SET occurred_at = '2005-03-31' WHERE event_id = %s", [old[4].uid])
        assert len(verify_trail().findings) >= 5
    assert verify_trail().outcome is Outcome.INTACT


LOOSENING = (
    "SELECT * FROM audit.purge_month('2005-03-01', gen_random_uuid())",
    "SELECT * FROM audit.purge_month('2005-03-01', NULL)",
    "SELECT audit.purge_changes('2005-03-01')",
    "SELECT audit.erase_notes(gen_random_uuid(), ARRAY['\"x\"'], '{}')",
    "INSERT INTO audit.purge VALUES ('2005-03-01', gen_random_uuid(), 1, 1, 1, 'x', 'x', now())",
    "INSERT INTO audit.floor (regime, citation, months, revised) VALUES ('Company policy', '', 0, now())",
    "UPDATE audit.floor SET months = 0",
    "DELETE FROM audit.hold",
    "TRUNCATE audit.hold CASCADE",
    "UPDATE audit.hold SET until = '2000-01-01'",
    "INSERT INTO audit.hold_release (hold_id) SELECT id FROM audit.hold",
    "DELETE FROM audit.change",
    "INSERT INTO audit.change (tbl, row_id, row_uid, op, xid, login, program) VALUES ('', '', '', '', 1, '', '')",
    "SELECT audit.note_change()",
    "SELECT audit.allow_release()",
    "SELECT set_config('commons.erasing_notes', 'on', false); DELETE FROM audit.note",
    "SELECT set_config('pgtrigger.ignore', '{all}', false); DELETE FROM audit.event",
    "DROP FUNCTION audit.purge_obstacle(date, uuid)",
    "CREATE OR REPLACE FUNCTION audit.floor_months() RETURNS integer LANGUAGE sql AS 'SELECT 0'",
    "ALTER TABLE teams_rolegrant DISABLE TRIGGER audit_change_update",
)


@pytest.mark.requirement("audit-keeping-2.6")
def test_the_portals_role_cannot_loosen_what_keeps_the_trail(connect: Connect, company: Company) -> None:
    with clock.frozen(THEN):
        write(1, reason="words")
    keeping.place_hold("Case 7", actor=_of(company, "compliance"))
    session = connect()
    let_through = []
    for attack in LOOSENING:
        try:
            session.execute(attack.encode())
            let_through.append(attack)
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.FeatureNotSupported):
            session.rollback()
    assert let_through == []


@pytest.mark.requirement("audit-keeping-2.6")
@pytest.mark.django_db
def test_guards_of_what_was_added_are_looked_for() -> None:
    assert verify_trail().weaknesses == []
    with as_superuser() as cursor:
        cursor.execute("DROP TRIGGER deny_change ON audit.hold")
        cursor.execute("ALTER TABLE teams_rolegrant DISABLE TRIGGER audit_change_update")
        assert verify_trail().weaknesses == [
            "audit.hold has lost its trigger deny_change",
            "changes of teams_rolegrant are not noted any more",
        ]


@pytest.mark.requirement("audit-keeping-2.1")
@pytest.mark.django_db
def test_a_purge_twice_or_of_nothing_is_refused(company: Company, old: list[AuditEvent]) -> None:
    row = _approved(company)
    seal()
    assert keeping.purge_due() == 1
    seal()
    assert Purge.objects.get(month=MONTH).events == 4
    assert "purged already" in keeping.obstacle(MONTH)
    assert "no events" in keeping.obstacle(date(2003, 3, 1))
    with pytest.raises(DatabaseError, match="purged already"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT audit.purge_month(%s, %s)", [MONTH, row.uid])
    with clock.frozen(THEN):
        late = write(5)
    assert _verdict().outcome is Outcome.INTACT
    assert AuditEvent.objects.filter(uid=late.uid).exists(), "what is told late finds its partition"
