"""The same against a real MLflow server: COMMONS_MLFLOW names its executable, or it is installed; else skipped."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import requests

from apps.catalogue import registry_actions, registry_sync, registry_webhooks
from apps.catalogue.mlflow_client import MlflowClient
from apps.catalogue.models import Model, ModelVersion, Registry, RegistryFinding, RegistryModel
from apps.catalogue.registry_clients import RegistrySession, read_all
from apps.core.actor import Actor
from tests.factories import Company

_NAMED = os.environ.get("COMMONS_MLFLOW") or (shutil.which("mlflow") if find_spec("mlflow") else None)
pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(not _NAMED, reason="no MLflow: install it or name its executable in COMMONS_MLFLOW"),
]
START_SECONDS = 120.0


class Server:
    """A running MLflow, driven over its own REST API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def call(self, method: str, path: str, **body: Any) -> Any:
        answer = requests.request(method, f"{self.url}/api/2.0/mlflow/{path}", json=body, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start MLflow on a free port with a database of its own."""
    home = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        str(_NAMED), "server", "--backend-store-uri", f"sqlite:///{home}/mlflow.db", "--host", "127.0.0.1",
        "--port", str(port), "--default-artifact-root", str(home / "artifacts"), "--workers", "1",
    ]  # fmt: skip
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=home, start_new_session=True)
    try:
        found = Server(f"http://127.0.0.1:{port}")
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                if requests.get(f"{found.url}/health", timeout=2).ok:
                    break
            except requests.ConnectionError:
                pass
            assert process.poll() is None, (home / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, (home / "log").read_text()[-2000:]
            time.sleep(0.2)
        yield found
    finally:
        os.killpg(process.pid, 15)
        process.wait(20)


def poll(registry: Registry) -> None:
    Registry.objects.filter(pk=registry.pk).update(next_poll_at=None)
    assert registry_sync.poll_due() == 1
    registry.refresh_from_db()
    assert registry.last_error == ""


@pytest.mark.requirement("registry-sync-3.1", "registry-sync-4.1", "registry-sync-4.2")
def test_a_real_server_is_read_and_what_it_changes_is_found(company: Company, server: Server) -> None:
    for name in ("fraud", "churn"):
        server.call("POST", "registered-models/create", name=name, tags=[{"key": "team", "value": "finance"}])
        for number in (1, 2):
            server.call("POST", "model-versions/create", name=name, source=f"s3://models/{name}/{number}")
    server.call("POST", "registered-models/alias", name="fraud", alias="champion", version="1")
    server.call("POST", "model-versions/set-tag", name="fraud", version="1", key="sha256", value="aaaa")
    registry = registry_actions.add_registry("Real", "mlflow", actor=Actor.of(company.admin), base_url=server.url)
    poll(registry)
    assert sorted(Model.objects.values_list("name", flat=True)) == ["churn", "fraud"]
    locations = ModelVersion.objects.order_by("location").values_list("location", flat=True)
    assert list(locations) == [f"s3://models/{name}/{number}" for name in ("churn", "fraud") for number in (1, 2)]
    assert RegistryModel.objects.get(name="fraud").seen["aliases"] == {"champion": "1"}
    server.call("POST", "registered-models/alias", name="fraud", alias="champion", version="2")
    server.call("POST", "model-versions/set-tag", name="fraud", version="1", key="sha256", value="EVIL")
    server.call("DELETE", "model-versions/delete", name="churn", version="2")
    server.call("POST", "registered-models/rename", name="fraud", new_name="fraud-v2")
    server.call("POST", "registered-models/create", name="fraud")
    poll(registry)
    rows = RegistryFinding.objects.order_by("kind", "pk").values_list("kind", "key", "before", "after")
    assert list(rows) == [
        ("deleted_version", "", "2", ""), ("moved_alias", "champion", "1", "2"), ("renamed", "", "fraud", "fraud-v2"),
        ("rewritten_tag", "sha256", "aaaa", "EVIL"),
    ]  # fmt: skip
    assert ModelVersion.objects.count() == 4


@pytest.mark.requirement("registry-sync-2.1")
def test_its_pages_add_up_at_any_size(server: Server) -> None:
    before = read_all(MlflowClient(RegistrySession(server.url, {})))
    for number in range(7):
        server.call("POST", "registered-models/create", name=f"many-{number}")
        server.call("POST", "model-versions/create", name=f"many-{number}", source="s3://models/x")
    small = read_all(MlflowClient(RegistrySession(server.url, {}), page_size=2))
    large = read_all(MlflowClient(RegistrySession(server.url, {})))
    assert (small.models, small.versions) == (large.models, large.versions)
    assert small.settled
    assert small.passes == 2
    assert len(small.models) == len(before.models) + 7


@pytest.mark.requirement("registry-sync-5.1")
def test_its_own_signature_is_ours() -> None:
    python = Path(str(_NAMED)).resolve().parent / "python"
    if not python.exists():
        python = Path(str(_NAMED)).parent / "python"
    code = (
        "from mlflow.webhooks.delivery import _generate_hmac_signature as s;"
        "print(s('a secret of some length', 'd-1', '1700000000', '{\"entity\": \"x\"}'))"
    )
    said = subprocess.run([str(python), "-c", code], capture_output=True, text=True, timeout=120, check=True).stdout
    ours = registry_webhooks.signature("a secret of some length", "d-1", "1700000000", b'{"entity": "x"}')
    assert said.strip().splitlines()[-1] == ours
