"""Rows changed past the portal are found; what an action did is not."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest

from apps.accounts import actions as accounts
from apps.audit import reconciliation, watching
from apps.audit.models import AuditEvent, ReconciliationRun
from apps.core import clock
from apps.core.actor import Actor
from apps.core.models import OutboxMessage
from apps.teams import actions as teams
from apps.teams.choices import Role
from apps.teams.models import RoleGrant
from tests.audit.test_attacks import Connect, as_superuser
from tests.factories import make_company


@pytest.mark.requirement("audit-keeping-3.1", "audit-keeping-3.2")
def test_what_came_past_the_portal_is_found_and_nothing_else(connect: Connect) -> None:
    company = make_company()
    reconciliation.reconcile()  # the factory writes rows without events: behind us now
    admin = Actor.of(company.admin)
    person, _ = accounts.create_user(f"{uuid.uuid4().hex}@example.com", "New person", actor=admin)
    until = clock.now() + timedelta(days=30)
    given = teams.grant_role(person.pk, Role.AUDITOR, reason="For the audit", expires_at=until, actor=admin)
    accounts.create_token(person.pk, "script", until, True, actor=Actor.of(person))
    accounts.deactivate_user(person.pk, "left", actor=admin)
    run = reconciliation.reconcile()
    assert (run.unexplained, run.findings) == (0, [])
    assert run.changes >= 4
    # The portal's own role may write such rows: here is what shows that somebody did, past the portal.
    by_hand = connect()
    by_hand.execute("UPDATE teams_rolegrant SET expires_at = NULL WHERE id = %s", [given.pk])
    by_hand.execute("UPDATE teams_rolegrant SET noticed_days = 3 WHERE id = %s", [given.pk])
    by_hand.commit()
    rolled_back = connect(role=None)
    rolled_back.execute("DELETE FROM teams_rolegrant WHERE id = %s", [given.pk])
    rolled_back.rollback()
    run = reconciliation.reconcile()
    assert run.unexplained == 1, "the counter of notices is not watched, and what rolled back did not happen"
    assert {key: run.findings[0][key] for key in ("table", "row", "change")} == {
        "table": "teams_rolegrant", "row": str(given.uid), "change": "UPDATE",
    }  # fmt: skip
    assert run.findings[0]["login"]
    said = AuditEvent.objects.get(action="audit.change.unexplained", object_id=run.uid).data["changes"]
    assert (said["changes"], said["first"][0]["row"]) == (1, str(given.uid))
    alarm = OutboxMessage.objects.filter(event="audit.trail.alarm").latest("id")
    assert "teams_rolegrant" in alarm.payload["text"]
    assert company.auditor.pk in alarm.recipient_ids
    assert reconciliation.reconcile().unexplained == 0, "told once"
    by_hand.execute("UPDATE teams_rolegrant SET starts_at = now() WHERE id = %s", [given.pk])
    by_hand.commit()
    assert reconciliation.reconcile().unexplained == 1, "a right to come that counts at once"
    # Who signs in as whom: an identity that leads to another account, a factor that somebody knows.
    by_hand.execute(
        "INSERT INTO accounts_secondfactor (uid, user_id, kind, name, secret, public_key, sign_count, last_step, codes)"
        " VALUES (gen_random_uuid(), %s, 'totp', 'x', '', '', 0, 0, '{}') RETURNING id",
        [person.pk],
    )
    by_hand.commit()
    assert reconciliation.reconcile().findings[0]["table"] == "accounts_secondfactor"
    by_hand.execute("UPDATE accounts_secondfactor SET last_step = 5, sign_count = 5 WHERE user_id = %s", [person.pk])
    by_hand.commit()
    assert reconciliation.reconcile().unexplained == 0, "counters move with every use"


@pytest.mark.requirement("audit-keeping-3.1")
def test_a_change_is_judged_when_its_transaction_is_over(connect: Connect) -> None:
    company = make_company()
    reconciliation.reconcile()
    open_one = connect()
    grant = RoleGrant.objects.get(user=company.auditor)
    open_one.execute("UPDATE teams_rolegrant SET role = 'platform_admin' WHERE id = %s", [grant.pk])
    assert reconciliation.reconcile().unexplained == 0
    open_one.commit()
    assert reconciliation.reconcile().unexplained == 1


@pytest.mark.requirement("audit-keeping-3.1")
@pytest.mark.django_db
def test_the_sweep_does_it_once_a_day(frozen_clock: object) -> None:
    assert reconciliation.reconcile_due() == 1
    assert reconciliation.reconcile_due() == 0
    clock.advance(timedelta(hours=25))
    assert reconciliation.reconcile_due() == 1
    assert ReconciliationRun.objects.count() == 2


@pytest.mark.requirement("audit-keeping-3.3")
@pytest.mark.django_db
def test_a_table_that_is_watched_no_more_raises_the_alarm() -> None:
    assert watching.unwatched() == []
    with as_superuser() as cursor:
        cursor.execute("DROP TRIGGER audit_change ON accounts_user")
        cursor.execute("SET LOCAL ROLE commons_app")
        run = reconciliation.reconcile()
        assert run.unwatched == ["accounts_user"]
        assert OutboxMessage.objects.filter(event="audit.trail.alarm").exists()


def test_names_in_the_trigger_are_plain() -> None:
    with pytest.raises(ValueError, match="plain"):
        watching.watch("teams_rolegrant; DROP TABLE x")
