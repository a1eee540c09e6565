"""Bringing a cluster in, as a platform admin sees it: the check moves without a reload, and the pages hold up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from apps.clusters import checking
from apps.demo.cluster import SimulatedCluster
from tests.cluster.fixtures import register, simulated, simulator
from tests.e2e.conftest import PHONE
from tests.factories import make_company

__all__ = ["simulated", "simulator"]

Check = Callable[[Any], None]


@pytest.mark.full
@pytest.mark.requirement("cluster-onboarding-2.1", "cluster-onboarding-1.1")
def test_the_check_moves_and_its_pages_hold_up(
    browse: Callable[..., Any], simulated: SimulatedCluster, assert_accessible: Check, assert_fits: Check
) -> None:
    """From waiting to done by itself; wide and narrow, light and dark."""
    company = make_company()
    register(simulated, slug="frankfurt")
    page = browse(company.admin, "/clusters/frankfurt/")
    page.get_by_text("Waiting for a worker").first.wait_for()
    assert checking.run_due() == 1
    page.get_by_text("Token is taken").wait_for()
    page.get_by_role("button", name="Check again").wait_for()
    assert_accessible(page)
    assert_fits(page)
    for path in ("/clusters/frankfurt/", "/clusters/needs/", "/clusters/new/", "/clusters/frankfurt/kueue/"):
        narrow = browse(company.admin, path, width=PHONE, theme="dark")
        assert_accessible(narrow)
        assert_fits(narrow)
    page.get_by_role("button", name="Check again").click()
    page.get_by_text("Waiting for a worker").first.wait_for()
