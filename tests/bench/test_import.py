"""Import of the whole Philly trace: 82,247 jobs, 978,078 GPU-hours, from the file to priced facts and roll-ups."""

from __future__ import annotations

import os
import platform
import resource
import time
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command

from apps.costs.models import Charge
from apps.metering.models import HourFact
from tests.metering.test_philly import DATA, SINCE, needs_data
from tests.metering.world import make_world

pytestmark = pytest.mark.bench
TARGET_SECONDS = 60


@needs_data
def test_import_of_the_whole_trace(db: Any) -> None:
    make_world([], gpus=1300, rate="1.20", since=SINCE).source.delete()
    load = os.getloadavg()[0]
    began = time.perf_counter()
    call_command(
        "import_usage",
        str(DATA / "philly_2017_jobs.csv.gz"),
        cluster="dc1",
        epoch="2017-09-01",
        stdout=StringIO(),
    )
    took = time.perf_counter() - began
    facts, charges = HourFact.objects.count(), Charge.objects.count()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"\n82,247 jobs: {took:.1f} s (target {TARGET_SECONDS} s), {facts:,} facts, {charges:,} charges,"
        f" peak {peak} MiB; {platform.machine()}, {os.cpu_count()} cores, load before {load:.1f}"
    )
    assert took <= TARGET_SECONDS
