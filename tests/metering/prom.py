"""A real Prometheus (Debian's package) over blocks made from OpenMetrics text, and a writer of such text."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="prometheus and promtool are not installed (Debian: apt-get install prometheus)",
)


class Text:
    """Collects samples by metric and writes OpenMetrics text."""

    def __init__(self) -> None:
        self._families: dict[str, list[str]] = {}

    def add(self, metric: str, labels: dict[str, str], samples: list[tuple[int, float]]) -> None:
        """Add (unix seconds, value) samples of one series."""
        inner = ",".join(f'{key}="{value}"' for key, value in labels.items())
        lines = self._families.setdefault(metric, [])
        lines.extend(f"{metric}{{{inner}}} {value!r} {at}" for at, value in samples)

    def write(self, path: Path) -> Path:
        """Write the file that promtool reads."""
        parts = []
        for metric in sorted(self._families):
            parts.append(f"# TYPE {metric} gauge")
            parts.extend(self._families[metric])
        path.write_text("\n".join([*parts, "# EOF", ""]))
        return path


def blocks(texts: list[Path], directory: Path) -> None:
    """Turn OpenMetrics files into TSDB blocks."""
    directory.mkdir(exist_ok=True)
    for text in texts:
        command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "-q", "--max-block-duration=54h"]
        done = subprocess.run([*command, str(text), str(directory)], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def prometheus(directory: Path, *, lookback: str = "60s") -> Iterator[str]:
    """Serve the blocks in `directory`; yields the base URL. Backfilled text holds no staleness: lookback = step."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = directory.parent / f"prometheus-{port}.yml"
    config.write_text("global: {}\n")
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={directory}",
            "--storage.tsdb.retention.time=100y",
            f"--query.lookback-delta={lookback}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(f"{url}/-/ready", timeout=1) as answer:
                    if answer.status == 200:
                        break
            except OSError:
                assert process.poll() is None, "prometheus ended"
                assert time.monotonic() < deadline, "prometheus did not become ready"
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=20)
