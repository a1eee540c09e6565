"""The helpers that every room's tests lean on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.db import transaction

from apps.audit.models import AuditHead
from apps.core import sweeps
from apps.core.testing import assert_queries, deliver_on_commit, settle
from apps.teams.models import Unit
from tests.audit.helpers import write
from tests.factories import make_unit

_numbers = itertools.count()


@pytest.fixture
def left() -> Iterator[list[int]]:
    """A sweep that works off a list, one entry a round."""
    rows: list[int] = []
    # Celery keeps every task it was ever told of, so each test's has a name of its own.
    name = f"tests.work_off_{next(_numbers)}"

    @sweeps.sweep(name, every=timedelta(minutes=1))
    def work_off() -> int:
        return len([rows.pop()]) if rows else 0

    yield rows
    del sweeps._registry[name]


@pytest.mark.requirement("database-4.2")
@pytest.mark.django_db
def test_settle_runs_sweeps_until_nothing_is_due(left: list[int]) -> None:
    left.extend([1, 2, 3])
    assert settle(only=("tests.",)) == 3
    assert left == []
    left.extend(range(50))
    with pytest.raises(AssertionError, match=r"tests\.work_off"):
        settle(max_rounds=5, only=("tests.",))


@pytest.mark.requirement("database-4.2")
@pytest.mark.django_db
def test_settle_delivers_what_waits_for_the_commit(
    left: list[int], nudges: list[tuple[str, tuple[object, ...]]]
) -> None:
    task = next(one for one in sweeps.registered() if one.name.startswith("tests.work_off")).task
    with transaction.atomic():
        sweeps.nudge(task, 7)
    assert nudges == []
    assert deliver_on_commit() == 1
    assert nudges == [(task.name, (7,))], "recorded, and no broker asked"


@pytest.mark.requirement("database-4.3")
@pytest.mark.django_db
def test_assert_queries_names_what_was_too_much() -> None:
    with pytest.raises(AssertionError, match="2 statements, at most 1"), assert_queries(1):  # noqa: PT012 (the block counts)
        list(Unit.objects.all())
        Unit.objects.count()
    with assert_queries(1), transaction.atomic():
        list(Unit.objects.all())


@pytest.mark.requirement("database-4.1")
@pytest.mark.django_db(transaction=True)
def test_first_of_two_leaves_rows_behind() -> None:
    make_unit("Left behind")
    write(1)
    _seen.append(AuditHead.objects.get().seq)


@pytest.mark.requirement("database-4.1")
@pytest.mark.django_db(transaction=True)
def test_second_of_two_finds_tables_empty_and_the_trail_kept() -> None:
    assert not Unit.objects.exists()
    if _seen:
        assert AuditHead.objects.get().seq == _seen[-1]


_seen: list[int] = []
