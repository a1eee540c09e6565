"""One hour of 100,000 GPU pods from an allocation API: read row by row, in a process of its own."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.bench

PODS = int(os.environ.get("COMMONS_BENCH_PODS", "100000"))
TARGET_SECONDS, TARGET_MB = 15.0, 400
NODES = PODS // 8 or 1
ROOT = Path(__file__).resolve().parents[2]

#: Serves two files in a process of its own, so that neither its time nor its memory is the reader's.
SERVER = """
import http.server, pathlib, shutil, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = "allocation" if "/allocation" in self.path else "assets"
        file = pathlib.Path(sys.argv[1], name)
        self.send_response(200)
        self.send_header("Content-Length", str(file.stat().st_size))
        self.end_headers()
        with file.open("rb") as body:
            shutil.copyfileobj(body, self.wfile, 1 << 20)
    def log_message(self, *args):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""

#: Reads the hour and says how long it took and how much memory its process ever held.
READER = """
import json, os, resource, sys, time
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
import django
django.setup()
from datetime import UTC, datetime, timedelta
from apps.metering.sources.allocation import AllocationAdapter
start = datetime(2026, 8, 12, 13, tzinfo=UTC)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
adapter = AllocationAdapter(sys.argv[1], options={"resources": sys.argv[2] == "all"})
began, cpu = time.perf_counter(), time.process_time()
reading = adapter.read(start, start + timedelta(hours=1))
body = reading.proof.body()
print(json.dumps({
    "seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu,
    "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, "before": before // 1024,
    "pods": len(reading.holdings), "resources": len(reading.resources), "nodes": len(reading.nodes),
    "bytes": reading.proof.size, "kept": len(body), "window": adapter.max_window.total_seconds(),
    "gpu_ms": sum((s.end - s.start) * s.units for h in reading.holdings for s in h.spans),
}))
"""


def row(index: int) -> tuple[str, dict[str, object]]:
    """One container with every key that OpenCost writes (reference cost C1)."""
    node, namespace = f"gpu-h100-{index % NODES:05d}", f"team-{index % 997:03d}"
    pod = f"train-{index:06d}-worker-0"
    key = f"dc1-prod/{node}/{namespace}/{pod}/trainer"
    zeros = (
        "cpuCostAdjustment cpuCostIdle gpuCostAdjustment gpuCostIdle networkCost networkCrossZoneCost"
        " networkCrossRegionCost networkInternetCost networkCostAdjustment loadBalancerCost loadBalancerCostAdjustment"
        " pvCostAdjustment ramCostAdjustment ramCostIdle externalCost sharedCost"
    )
    return key, {
        "name": key,
        "properties": {
            "cluster": "dc1-prod", "node": node, "container": "trainer", "controller": f"train-{index:06d}",
            "controllerKind": "job", "namespace": namespace, "pod": pod, "services": ["train"], "providerID": node,
            "labels": {"app": "train", "gpu_commons_project": f"p-{index % 50}"}, "annotations": {"owner": "team"},
            "namespaceLabels": {"cost_center": f"CC-{index % 997}"}, "namespaceAnnotations": {"stage": "prod"},
        },
        "window": {"start": "2026-08-12T13:00:00Z", "end": "2026-08-12T14:00:00Z"},
        "start": "2026-08-12T13:00:00Z", "end": "2026-08-12T14:00:00Z", "minutes": 60,
        "cpuCores": 48, "cpuCoreRequestAverage": 48, "cpuCoreLimitAverage": 48,
        "cpuCoreUsageAverage": index % 48 + 0.731,
        "cpuCoreHours": 48, "cpuCost": 1.6, "cpuEfficiency": 0.45208, "gpuCount": 1, "gpuHours": 1, "gpuCost": 3.4,
        "gpuEfficiency": 0.62, "networkTransferBytes": 812345.5 + index, "networkReceiveBytes": 918273.25,
        "pvBytes": 107374182400, "pvByteHours": 107374182400, "pvCost": 0.00548,
        "pvs": {f"cluster=dc1-prod:name=pvc-{index:08x}": {"byteHours": 107374182400, "cost": 0.005479}},
        "ramBytes": 549755813888, "ramByteRequestAverage": 549755813888, "ramByteLimitAverage": 549755813888,
        "ramByteUsageAverage": 219902325555 + index, "ramByteHours": 549755813888, "ramCost": 0.8,
        "ramEfficiency": 0.4, "totalCost": 5.80548, "totalEfficiency": 0.43472, **dict.fromkeys(zeros.split(), 0),
        "rawAllocationOnly": {"cpuCoreUsageMax": 44.1, "ramByteUsageMax": 261993005056, "gpuUsageMax": 0.97},
        "proportionalAssetResourceCosts": {}, "lbAllocations": None, "sharedCostBreakdown": {},
        "gpuAllocation": {
            "gpuDevice": "nvidia0", "gpuModel": "NVIDIA H100 80GB HBM3", "gpuUUID": f"GPU-{index:032x}",
            "isGPUShared": False, "gpuUsageAverage": 0.62, "gpuRequestAverage": 1,
        },
    }  # fmt: skip


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """Write the answers and serve them."""
    with (tmp_path / "allocation").open("w") as file:
        file.write('{"code":200,"status":"success","data":[{')
        for index in range(PODS):
            key, value = row(index)
            file.write(f"{',' if index else ''}{json.dumps(key)}:{json.dumps(value, separators=(',', ':'))}")
        file.write("}]}")
    assets = {
        f"n{index}": {
            "type": "Node", "properties": {"name": f"gpu-h100-{index:05d}", "cluster": "dc1-prod"}, "gpuCount": 8,
            "minutes": 60, "start": "2026-08-12T13:00:00Z",
            "labels": {"label_nvidia_com_gpu_product": "NVIDIA-H100-80GB-HBM3"},
        }
        for index in range(NODES)
    }  # fmt: skip
    (tmp_path / "assets").write_text(json.dumps({"code": 200, "status": "success", "data": assets}))
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
    finally:
        server.terminate()
        server.wait(timeout=20)


@pytest.mark.requirement("metering-sources-4.4")
@pytest.mark.parametrize("what", ["gpus", "all"])
def test_hundred_thousand_pods(served: str, what: str) -> None:
    load = os.getloadavg()[0]
    done = subprocess.run(
        [sys.executable, "-c", READER, served, what], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    print(
        f"\n{found['pods']:,} pods ({what}): {found['seconds']:.1f} s, {found['cpu']:.1f} s of CPU (target"
        f" {TARGET_SECONDS:.0f} s), peak {found['peak']} MiB of {found['before']} before (target {TARGET_MB} MB),"
        f" {found['resources']:,} resource rows, {found['bytes'] / 1e6:.0f} MB of answer kept as"
        f" {found['kept'] / 1e6:.1f} MB; {platform.machine()}, {os.cpu_count()} cores, load before {load:.1f}"
    )
    assert found["pods"] == PODS
    assert found["nodes"] == NODES
    assert found["gpu_ms"] == PODS * 3_600_000
    assert found["seconds"] <= TARGET_SECONDS
    assert found["peak"] * 1.048576 <= TARGET_MB
