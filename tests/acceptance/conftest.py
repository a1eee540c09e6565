"""A stage for the whole loop: the sample company on its first day, on a cluster where nothing runs yet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from apps.core import clock
from tests.acceptance.world import NOW, Stage, World, fresh, staged, without_workloads


@pytest.fixture
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A simulated cluster without a past; its clock stands where the portal's stands."""
    with staged(tmp_path_factory.mktemp("stage"), without_workloads) as made, clock.frozen(NOW):
        yield made


@pytest.fixture
def world(db: None, stage: Stage) -> World:
    """The sample company on its first day."""
    return fresh(stage)
