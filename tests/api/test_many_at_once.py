"""Fifty clients at a real server process: nothing is lost, nothing is doubled, one of those who race wins."""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import requests
from django.db import connection

from apps.clusters import actions
from apps.clusters.models import Cluster, Flavour
from apps.core.actor import Actor
from apps.core.models import IdempotentCall
from launcher.processes import end_session, free_port, spawn
from tests.api.support import bearer
from tests.factories import make_company

pytestmark = [pytest.mark.full, pytest.mark.django_db(transaction=True), pytest.mark.requirement("api-5.1")]
CLIENTS = 50
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def server(transactional_db: None, tmp_path: Path) -> Iterator[str]:
    """The address of a web process of its own, on this run's database."""
    at = connection.settings_dict
    port = free_port()
    env = {
        **os.environ,
        "DATABASE_URL": f"postgres://{at['USER']}:{at['PASSWORD']}@{at['HOST']}:{at['PORT']}/{at['NAME']}",
        "COMMONS_API_LIMITED": "0",
        "COMMONS_ENVIRONMENT": "development",
        "COMMONS_DIR": str(tmp_path),
        "PORT": str(port),
    }
    command = [
        *(sys.executable, "-m", "gunicorn", "portal.wsgi:application", "--bind", f"127.0.0.1:{port}"),
        *("--worker-class", "gthread", "--threads", "8", "--no-control-socket"),
    ]
    with (tmp_path / "web.log").open("wb") as log:
        process = spawn(command, log=log, env=env, cwd=ROOT)
    address = f"http://127.0.0.1:{port}"
    try:
        _until_it_answers(address, tmp_path / "web.log")
        yield address
    finally:
        end_session(process.pid, seconds=5)
        process.wait()


def _until_it_answers(address: str, log: Path) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            requests.get(f"{address}/health", timeout=5)
        except requests.RequestException:
            assert time.monotonic() < end, log.read_text(errors="replace")[-2000:]
            time.sleep(0.2)
        else:
            return


def _all_at_once(work: Callable[[int], list[requests.Response]]) -> list[requests.Response]:
    ready = Barrier(CLIENTS)

    def run(number: int) -> list[requests.Response]:
        ready.wait(timeout=60)
        return work(number)

    with ThreadPoolExecutor(CLIENTS) as pool:
        return [answer for answers in pool.map(run, range(CLIENTS)) for answer in answers]


def test_fifty_clients_lose_and_double_nothing(server: str) -> None:
    company = make_company()
    headers = bearer(company.admin)
    cluster = actions.register_cluster(
        "Raced atlas", actor=Actor.system("tests"), api_url="https://atlas.example.com", token="t", simulated=True
    )
    keys = [str(uuid.uuid4()) for _ in range(CLIENTS)]

    def make(number: int) -> list[requests.Response]:
        """Send the same call twice under one key, as somebody does whose answer was lost."""
        body = {"name": f"Raced {number}", "slug": f"raced-{number}", "gpu_model": "H100"}
        keyed = {**headers, "Idempotency-Key": keys[number]}
        url = f"{server}/api/v1/flavours"
        return [_kept(requests.post(url, headers=keyed, json=body, timeout=120)) for _ in range(2)]

    answers = _all_at_once(make)
    assert Counter(answer.status_code for answer in answers) == {201: 2 * CLIENTS}
    assert Flavour.objects.filter(slug__startswith="raced-").count() == CLIENTS
    assert sum(answer.headers.get("Idempotency-Replayed") == "true" for answer in answers) == CLIENTS
    assert len({answer.json()["uid"] for answer in answers}) == CLIENTS
    assert IdempotentCall.objects.count() == CLIENTS

    def race(number: int) -> list[requests.Response]:
        """Change what everybody has read, under the version that they read."""
        sent = {**headers, "If-Match": f'"{cluster.version}"'}
        url = f"{server}/api/v1/clusters/{cluster.uid}"
        return [_kept(requests.patch(url, headers=sent, json={"region": f"eu-{number}"}, timeout=120))]

    raced = Counter(answer.status_code for answer in _all_at_once(race))
    assert raced[200] == 1
    assert raced[409] + raced[412] == CLIENTS - 1
    assert Cluster.objects.get(pk=cluster.pk).version == cluster.version + 1


def _kept(answer: requests.Response) -> Any:
    assert answer.status_code < 500, answer.text
    return answer
