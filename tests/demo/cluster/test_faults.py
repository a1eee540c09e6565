"""Faults on demand, and the process as a whole: starting, being killed, a taken port."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
import urllib3

from apps.demo.cluster import SimulatedCluster
from tests.demo.cluster.conftest import Client, namespace, quota, until
from tests.demo.cluster.test_api import Watcher

FAULTS = "/simulated/faults"
ROOT = Path(__file__).parents[3]


@pytest.mark.requirement("simulated-cluster-6.2")
def test_down_cuts_connections_and_watches_and_ends(client: Client, space: str) -> None:
    watcher = Watcher(client, "/api/v1/namespaces", resourceVersion=str(client.cluster.store.rv), timeoutSeconds="20")
    assert client.post(FAULTS, {"mode": "down", "match": "^/api/"})[0] == 200
    with pytest.raises(urllib3.exceptions.HTTPError):
        client.get("/api/v1/namespaces")
    assert watcher.ended.wait(10)
    watcher.close()
    assert client.get("/apis")[0] == 200
    assert client.get(FAULTS)[1]["faults"][0]["mode"] == "down"
    assert client.request("DELETE", FAULTS)[1] == {"faults": []}
    assert client.get("/api/v1/namespaces")[0] == 200


@pytest.mark.requirement("simulated-cluster-6.2")
def test_429_500_and_409_for_a_number_of_requests(client: Client, space: str) -> None:
    client.post(FAULTS, {"mode": "429", "count": 1})
    code, answer = client.get("/api/v1/namespaces")
    assert (code, answer["reason"], answer["details"]["retryAfterSeconds"]) == (429, "TooManyRequests", 1)
    assert client.last.headers["Retry-After"] == "1"
    assert client.get("/api/v1/namespaces")[0] == 200
    client.post(FAULTS, {"mode": "500", "count": 1, "methods": ["patch"]})
    assert client.get("/api/v1/namespaces")[0] == 200
    assert client.apply(space, namespace("team"))[0] == 500
    client.post(FAULTS, {"mode": "409", "count": 1})
    assert client.get("/api/v1/namespaces")[0] == 200
    assert client.apply(space, namespace("team"))[0] == 409
    assert client.apply(space, namespace("team"))[0] == 200


@pytest.mark.requirement("simulated-cluster-6.2")
def test_slow_and_for_a_time(client: Client) -> None:
    client.post(FAULTS, {"mode": "slow", "delay_ms": 300, "match": "nodes"})
    begun = time.monotonic()
    client.get("/api/v1/nodes")
    assert time.monotonic() - begun >= 0.3
    client.post(FAULTS, {"mode": "none"})
    client.post(FAULTS, {"mode": "500", "seconds": 0.3})
    assert client.get("/api/v1/nodes")[0] == 500
    until(lambda: client.get("/api/v1/nodes")[0] == 200)


@pytest.mark.requirement("simulated-cluster-6.2")
@pytest.mark.parametrize(
    "body",
    [
        {"mode": "explode"},
        {"mode": "down", "match": "("},
        {"mode": "down", "speed": 1},
        {"mode": "slow", "delay_ms": "x"},
    ],
)
def test_nonsense_is_refused(client: Client, body: dict[str, Any]) -> None:
    assert client.post(FAULTS, body)[0] == 400
    assert client.get(FAULTS)[1] == {"faults": []}


@pytest.mark.requirement("simulated-cluster-6.2")
def test_the_allocation_api_can_fail_too(cluster: SimulatedCluster) -> None:
    cluster.faults.set("500", match="^/allocation", count=1)
    url = f"{cluster.allocation_url}/allocation?window=today"
    assert urllib3.request("GET", url, retries=False).status == 500
    assert urllib3.request("GET", url, retries=False).status == 200


@pytest.mark.requirement("simulated-cluster-6.2")
def test_stopped_and_started_again_on_the_same_port(cluster: SimulatedCluster, client: Client, space: str) -> None:
    url = cluster.url
    cluster.stop()
    with pytest.raises(urllib3.exceptions.HTTPError):
        client.get("/version")
    cluster.start()
    assert cluster.url == url
    assert client.get(space)[0] == 200


def launch(state: Path, *more: str, port: int = 0) -> subprocess.Popen[str]:
    arguments = ["--port", str(port), "--state", str(state), "--kubeconfig", str(state.parent / "config"), *more]
    return subprocess.Popen(
        [sys.executable, "-m", "apps.demo.cluster", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def address(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("simulated cluster atlas: https://127.0.0.1:"), line
    return int(line.split("127.0.0.1:")[1].split(",")[0])


@pytest.mark.requirement("simulated-cluster-6.1")
def test_a_killed_process_has_lost_nothing_it_acknowledged(tmp_path: Path) -> None:
    state = tmp_path / "state"
    process = launch(state, "--token", "secret=ops@example.com:system:masters")
    pool = None
    try:
        port = address(process)
        pool = urllib3.PoolManager(ca_certs=str(state / "ca.crt"), retries=False)
        headers = {"Authorization": "Bearer secret", "Content-Type": "application/json"}
        base = f"https://127.0.0.1:{port}/api/v1/namespaces"
        for number in range(50):
            answer = pool.request("POST", base, json={"metadata": {"name": f"n{number}"}}, headers=headers)
            assert answer.status == 201
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        with SimulatedCluster(state) as again:
            client = Client(again)
            names = {each["metadata"]["name"] for each in client.get("/api/v1/namespaces")[1]["items"]}
            assert {f"n{number}" for number in range(50)} <= names
            client.close()
    finally:
        process.kill()
        process.communicate(timeout=60)
        if pool is not None:
            pool.clear()


@pytest.mark.requirement("simulated-cluster-6.1")
def test_the_process_ends_cleanly_and_refuses_a_taken_port(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = launch(tmp_path / "one", port=taken.getsockname()[1])
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "cannot listen on port" in errors
    (tmp_path / "bad.json").write_text("{}")
    process = launch(tmp_path / "two", "--history", str(tmp_path / "bad.json"))
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (2, "history: bad.json: gpu: must be an object\n")
    process = launch(tmp_path / "three")
    address(process)
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.requirement("simulated-operations-3.1")
def test_watches_are_cut_every_so_often(client: Client, space: str) -> None:
    client.cluster.faults.set("watch-cut", delay_ms=150)
    version = client.get("/api/v1/namespaces")[1]["metadata"]["resourceVersion"]
    begin = time.monotonic()
    with pytest.raises(urllib3.exceptions.HTTPError):
        client.get("/api/v1/namespaces", watch="true", resourceVersion=version, timeoutSeconds="30")
    assert 0.1 < time.monotonic() - begin < 25
    assert client.get("/api/v1/namespaces")[0] == 200
    client.cluster.faults.clear()


@pytest.mark.requirement("simulated-operations-3.2")
def test_an_expired_certificate_is_served_on_demand(client: Client, space: str) -> None:
    client.cluster.faults.set("expired-cert")
    client.pool.clear()
    with pytest.raises(urllib3.exceptions.SSLError, match="expired"):
        client.get("/api/v1/namespaces")
    client.cluster.faults.clear()
    client.pool.clear()
    assert client.get("/api/v1/namespaces")[0] == 200


@pytest.mark.requirement("simulated-operations-3.3")
def test_a_wrong_clock_shows_in_date_and_time_stamps(client: Client, space: str) -> None:
    fault = {"mode": "clock-skew", "skew_seconds": -7200}
    assert client.post("/simulated/faults", fault)[0] == 200
    made = client.post("/api/v1/namespaces", namespace("early"))[1]["metadata"]["creationTimestamp"]
    behind = datetime.now(UTC) - datetime.fromisoformat(made)
    assert timedelta(minutes=119) < behind < timedelta(minutes=121)
    sent = parsedate_to_datetime(client.last.headers["Date"])
    assert timedelta(minutes=119) < datetime.now(UTC) - sent < timedelta(minutes=121)


@pytest.mark.requirement("simulated-operations-3.4")
def test_half_of_the_writes_arrive(client: Client, space: str) -> None:
    client.cluster.faults.set("half", after=2, match="resourcequotas")
    codes = [client.post(f"{space}/resourcequotas", quota(f"q{n}", pods="1"))[0] for n in range(5)]
    assert codes == [201, 201, 500, 201, 201]


@pytest.mark.requirement("simulated-operations-3.4")
def test_tokens_are_refused_while_401_is_on(client: Client, space: str) -> None:
    client.cluster.faults.set("401", count=1)
    code, answer = client.get("/api/v1/namespaces")
    assert (code, answer["reason"]) == (401, "Unauthorized")
    assert client.get("/api/v1/namespaces")[0] == 200


@pytest.mark.requirement("simulated-operations-3.5")
def test_many_namespaces_are_made_and_listed_fast(client: Client) -> None:
    assert client.cluster.seed_namespaces(3000, labels={"team": "x"}) == 3000
    assert client.cluster.seed_namespaces(3000) == 0
    seen: set[str] = set()
    begin = time.monotonic()
    more = {"limit": "500", "labelSelector": "team=x"}
    while True:
        _, page = client.get("/api/v1/resourcequotas", **more)
        seen |= {each["metadata"]["namespace"] for each in page["items"]}
        if "continue" not in page["metadata"]:
            break
        more["continue"] = page["metadata"]["continue"]
    took = time.monotonic() - begin
    assert len(seen) == 3000
    assert took < 30  # seven pages; a cluster that walked all objects for each would take minutes
    quota_of = client.get("/api/v1/namespaces/bulk-02999/resourcequotas/gpu-quota")[1]
    assert quota_of["status"]["used"] == {"pods": "0", "requests.nvidia.com/gpu": "0"}
