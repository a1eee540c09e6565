"""A team's model, and where bytes are kept in tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from apps.catalogue.models import Model
from tests.catalogue.world import make_model


@pytest.fixture
def model(company: Any) -> Model:
    """A model of the finance team."""
    return make_model(company.finance_team, "Card fraud scoring", slug="card-fraud")


@pytest.fixture
def blob_dir(tmp_path: Path, settings: Any) -> Path:
    """A folder of its own for stored bytes."""
    settings.COMMONS_BLOB_DIR = tmp_path / "blobs"
    return tmp_path / "blobs"
