"""The world that walks over releases start from."""

from __future__ import annotations

import pytest

from apps.core import clock
from tests.deployments.world import World
from tests.deployments.yard import NOW, make_yard_world
from tests.factories import Company


@pytest.fixture
def yard_world(company: Company) -> World:
    """Two approved versions of a model with health data, on a cluster on premises, at the walks' first instant."""
    with clock.frozen(NOW):
        return make_yard_world(company)
