"""P1–P12, P15 and P16 on the database, through the actions: a state machine, and walks, against the oracle."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from django.db import transaction

from apps.core import clock
from tests.approvals.floor import Floor, roam
from tests.approvals.subjects import DeepSubject, deep_registered
from tests.factories import Company

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 18, 9, tzinfo=UTC)


class Undo(Exception):
    """Ends a walk: nothing of it stays."""


@pytest.fixture
def deep() -> Iterator[DeepSubject]:
    with deep_registered() as subject:
        yield subject


def walk(company: Company, seed: int, steps: int = 60) -> Floor:
    """Take one walk and undo it; raises Violation where the room and the oracle part ways."""
    with deep_registered() as subject, clock.frozen(NOW):
        try:
            with transaction.atomic():
                floor = Floor(company, subject)
                roam(floor, random.Random(seed), steps)
                raise Undo
        except Undo:
            return floor


def test_tmp(company: Company) -> None:
    import collections, time
    t=time.time()
    c = collections.Counter()
    for seed in range(12):
        f = walk(company, seed)
        c.update(p.ended or "open" for p in f.passes); c.update("em" for p in f.passes if p.emergency and p.promise)
    print(c, time.time()-t)
