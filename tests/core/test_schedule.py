"""The schedule of a fresh process: every sweep of every room, whatever order things are imported in."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# As `celery beat` does it: import what tasks there are, then look at the schedule.
_PROGRAM = """
import json, logging
logging.disable(logging.CRITICAL)
from portal.celery import app
app.loader.import_default_modules()
app.finalize()
from apps.core.sweeps import registered
print(json.dumps([sorted(app.conf.beat_schedule), [sweep.name for sweep in registered()]]))
"""


@pytest.mark.requirement("resilience-1.3")
def test_beat_knows_every_sweep() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)
    scheduled, known = json.loads(done.stdout.splitlines()[-1])
    assert scheduled == known
    rooms = {name.partition(".")[0] for name in known}
    assert rooms >= {"approvals", "catalogue", "costs", "deployments", "metering", "provisioning", "quotas"}
