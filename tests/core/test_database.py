"""The test database is what production has: the portal's role owns nothing."""

from __future__ import annotations

import pytest
from django.db import connection

from tests.factories import Company


def _one(sql: str) -> object:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


@pytest.mark.django_db
def test_bodies_run_as_the_portals_role() -> None:
    assert _one("SELECT current_user") == "commons_app"
    assert _one("SELECT count(*) FROM pg_class WHERE relowner = 'commons_app'::regrole") == 0


@pytest.mark.django_db(transaction=True)
def test_transactional_bodies_run_as_the_portals_role() -> None:
    assert _one("SELECT current_user") == "commons_app"


@pytest.mark.django_db
def test_company_has_its_people(company: Company) -> None:
    assert company.vp.pk != company.lead_finance.pk
    assert company.unit.path == [company.root.pk, company.unit.pk]
