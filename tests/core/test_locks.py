"""Row locks of actions do not stop the foreign key checks of others, which happen while the audit head is held."""

from __future__ import annotations

import threading

import pytest
from django.db import connection, transaction

from apps.audit.models import AuditHead
from apps.teams.models import Team
from tests.audit.helpers import write
from tests.factories import make_member, make_team, make_unit, make_user


@pytest.mark.requirement("database-1.4")
@pytest.mark.django_db(transaction=True)
def test_two_committers_do_not_deadlock_over_a_locked_parent_and_the_audit_head() -> None:
    """A holds the team and commits after B; B's membership refers to that team and is checked after B took the head."""
    team, person = make_team("Locked", make_unit("Unit")), make_user()
    before = AuditHead.objects.get().seq
    locked, failures = threading.Event(), []
    b_commits = threading.Event()

    def hold() -> None:
        try:
            with transaction.atomic():
                Team.objects.select_for_update().get(pk=team.pk)
                write(1)
                locked.set()
                assert b_commits.wait(timeout=20), "B could not commit while A held its lock"
        except BaseException as error:  # noqa: BLE001 (whatever the thread meets must fail the test)
            failures.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert locked.wait(timeout=20)
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL lock_timeout = '5s'")
            write(2)  # sealed first …
            make_member(person, team)  # … then this reference is checked
        b_commits.set()
    finally:
        thread.join(timeout=30)
    assert not failures
    assert AuditHead.objects.get().seq == before + 2
