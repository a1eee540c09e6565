"""A month of the Philly trace, replayed on a real Prometheus: per-team GPU-hours to the trace's own truth.

Making the month's blocks takes some seven minutes and needs numpy for a Python beside ours, so COMMONS_PHILLY_TSDB may
name a folder where `to_openmetrics.py` has put them already (the README of the data has the command).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from apps.metering import engine
from apps.metering.engine import HOUR_MS
from apps.metering.sources.prometheus import PrometheusAdapter
from tests.metering.prom import needs_prometheus, prometheus

SHARED = Path(__file__).resolve().parents[3] / "shared"
CONVERTER, DATA = SHARED / "tools" / "to_openmetrics.py", SHARED / "data" / "philly"
TRUTH = DATA / "truth_2017-10_as_2026-03_step300.json"
HOUR = timedelta(hours=1)
STEP = 300
#: What a scrape every 300 s may miss of a team's month: jobs that no scrape saw, and those whose end none saw.
BOUND, ALIASED = 0.005, 0.038
#: Starts a job of about 70 s every 600 s, which aliases with the scrape (README of the data, trap 1).
ALIASING_TEAM = "vc-11cb48"

pytestmark = [
    needs_prometheus,
    pytest.mark.prometheus,
    pytest.mark.full,
    pytest.mark.skipif(not TRUTH.is_file(), reason="the Philly trace lies outside the repository and is not here"),
]


def blocks_of_the_month(folder: Path) -> Path:
    """Return the folder of the month's blocks, made where it is not given. Skips without numpy."""
    given = os.environ.get("COMMONS_PHILLY_TSDB")
    if given:
        return Path(given)
    python = shutil.which("python3") or "python3"
    if subprocess.run([python, "-c", "import numpy"], capture_output=True).returncode:
        pytest.skip("the converter of the trace needs numpy for python3 (Debian: apt-get install python3-numpy)")
    command = [
        python, str(CONVERTER), "--trace", "philly", "--data", str(DATA), "--from", "2017-10-01", "--to", "2017-11-01",
        "--map-to", "2026-03-01", "--step", str(STEP), "--text-dir", str(folder / "om"), "--truth",
        str(folder / "truth.json"), "--import-to", str(folder / "tsdb"),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=3600)
    return folder / "tsdb"


@pytest.mark.requirement("metering-3.1", "metering-1.2", "metering-1.4")
def test_a_month_per_team_within_the_bound_of_its_scrapes(tmp_path: Path) -> None:
    truth = json.loads(TRUTH.read_text())
    start = datetime.fromtimestamp(truth["window_unix"][0], UTC)
    end = datetime.fromtimestamp(truth["window_unix"][1], UTC)
    found: dict[str, int] = {}
    hours = 0
    with prometheus(blocks_of_the_month(tmp_path), lookback=f"{STEP}s") as url:
        adapter = PrometheusAdapter(url, options={"step_seconds": STEP})
        try:
            at = start
            while at < end:
                reading = adapter.read(at, at + HOUR)
                hours += len(reading.hours)
                for facts in engine.hour_quantities(reading.holdings, {}).values():
                    for fact in facts:
                        found[fact.holding.namespace] = found.get(fact.holding.namespace, 0) + fact.gpu_ms
                at += HOUR
        finally:
            adapter.close()
    assert hours == (end - start) // HOUR
    assert found.keys() == truth["gpu_hours"].keys()
    report = {name: (found[name] / HOUR_MS, exact) for name, exact in sorted(truth["gpu_hours"].items())}
    for name, (ours, exact) in report.items():
        print(f"{name} {ours:12.2f} {exact:12.2f} {100 * (ours / exact - 1):+.3f} %")
    for name, (ours, exact) in report.items():
        assert abs(ours / exact - 1) <= (ALIASED if name == ALIASING_TEAM else BOUND), (name, ours, exact)
    total = sum(ours for ours, _ in report.values())
    assert abs(total / truth["gpu_hours_total"] - 1) <= 0.001
