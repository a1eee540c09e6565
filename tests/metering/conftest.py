"""Fixtures of the metering tests."""

from __future__ import annotations

from typing import Any

import pytest

from tests.metering.world import World, make_world


@pytest.fixture
def world(company: Any) -> World:
    """One cluster with a pool of 50 A100, a workspace per team, a rate and a source of record."""
    return make_world(company.teams.values())
