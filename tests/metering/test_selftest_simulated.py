"""The self-test against the simulated cluster's allocation API: the sample company's source is fit to bill from."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from apps.core import clock
from apps.core.testing import settle
from apps.demo import seed
from apps.metering import actions as metering
from apps.metering import fitness, selftest_run
from apps.metering.choices import SourceKind
from apps.metering.models import HourStatus, SourceCheck
from tests.acceptance.world import NOW, fresh, staged

pytestmark = [pytest.mark.django_db, pytest.mark.cluster]
ONLY = ("metering.",)


@pytest.mark.requirement("metering-sources-1.1", "metering-sources-1.11", "metering-sources-2.1")
def test_the_simulated_source_is_fit_unfit_while_away_and_fit_again(tmp_path: Path, db: None) -> None:
    with staged(tmp_path) as stage, clock.frozen(NOW):
        world = fresh(stage)
        source = metering.register_source(
            world.cluster.pk, SourceKind.ALLOCATION, "", stage.cluster.allocation_url, NOW, actor=seed.SEEDER
        )
        stage.advance(timedelta(hours=3, minutes=15))
        settle(only=ONLY)
        check = SourceCheck.objects.get()
        assert check.verdict != "failed", [item for item in check.findings if item["status"] == "failed"]
        assert not fitness.unfit_sources(NOW, clock.now())
        world.simulated.faults.set("500", match="allocation|assets")
        selftest_run.request_check(source.pk, actor=seed.SEEDER)
        settle(only=ONLY)
        assert [found.codes for found in fitness.unfit_sources(NOW, clock.now())] == [("reachable",)]
        world.simulated.faults.clear()
        stage.advance(timedelta(hours=1))
        settle(only=ONLY)
        assert not fitness.unfit_sources(NOW, clock.now())
        stage.advance(timedelta(hours=7))
        settle(only=ONLY)
        assert {tuple(flags) for flags in HourStatus.objects.values_list("flags", flat=True)} == {()}
