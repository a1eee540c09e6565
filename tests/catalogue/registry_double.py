"""A small registry over HTTP that behaves like MLflow or Kubeflow where it matters: offset pages, raw JSON, no ids.

with mlflow_double() as double:
    double.add_model("fraud"); double.add_version("fraud", source="s3://models/fraud/1")
    double.after_page = lambda n: …   # change it while somebody pages through it
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Double:
    """What the server holds, and what was asked of it."""

    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: list[dict[str, Any]] = field(default_factory=list)
    artifacts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    page: int = 2
    status: int = 200
    url: str = ""
    asked: list[tuple[str, dict[str, str], dict[str, str]]] = field(default_factory=list)
    after_page: Callable[[int], None] = lambda count: None
    answer: Callable[[str, dict[str, str]], tuple[int, Any]] = lambda path, query: (404, {})
    _clock: int = 1_700_000_000_000

    def tick(self) -> int:
        """Return another moment, in milliseconds."""
        self._clock += 1000
        return self._clock

    def add_model(self, name: str, **values: Any) -> dict[str, Any]:
        """Register a model."""
        row = {"name": name, "creation_timestamp": self.tick(), "tags": [], "aliases": [], **values}
        self.models[name] = row
        return row

    def add_version(self, name: str, number: str = "", **values: Any) -> dict[str, Any]:
        """Register a version; numbers count up for ever."""
        row = {
            "name": name, "version": number or str(1 + sum(one["name"] == name for one in self.versions)),
            "creation_timestamp": self.tick(), "source": f"s3://models/{name}/v", "run_id": "r1", "status": "READY",
            "tags": [], **values,
        }  # fmt: skip
        self.versions.append(row)
        return row

    def rename(self, old: str, new: str) -> None:
        """Rename as MLflow does: times of creation stay."""
        row = self.models.pop(old)
        row["name"] = new
        self.models[new] = row
        for one in self.versions:
            if one["name"] == old:
                one["name"] = new

    def searches(self) -> int:
        """Return how many pages of models were asked for."""
        return sum(path.endswith("registered-models/search") for path, _, _ in self.asked)


def _mlflow(double: Double, path: str, query: dict[str, str]) -> tuple[int, Any]:
    tail = path.removeprefix("/api/2.0/mlflow/")
    if tail in ("registered-models/search", "model-versions/search"):
        models = tail.startswith("registered")
        rows = [double.models[name] for name in sorted(double.models)] if models else list(double.versions)
        offset = json.loads(base64.b64decode(query["page_token"]))["offset"] if "page_token" in query else 0
        shown = json.loads(json.dumps(rows[offset : offset + double.page]))
        body: dict[str, Any] = {"registered_models" if models else "model_versions": shown} if shown else {}
        if offset + double.page < len(rows):
            body["next_page_token"] = base64.b64encode(json.dumps({"offset": offset + double.page}).encode()).decode()
        return 200, body
    if tail == "registered-models/get" and query["name"] in double.models:
        return 200, {"registered_model": double.models[query["name"]]}
    if tail in ("model-versions/get", "model-versions/get-download-uri"):
        for row in double.versions:
            if (row["name"], row["version"]) == (query["name"], query["version"]):
                uri = {"artifact_uri": row.get("artifact_uri", row["source"])}
                return 200, uri if tail.endswith("uri") else {"model_version": row}
    return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "none"}


def _kubeflow(double: Double, path: str, query: dict[str, str]) -> tuple[int, Any]:
    parts = path.removeprefix("/api/model_registry/v1alpha3/").split("/")
    rows: list[dict[str, Any]] | None = None
    if parts == ["registered_models"]:
        rows = list(double.models.values())
    elif parts == ["model_versions"]:
        rows = double.versions
    elif len(parts) == 3 and parts[2] == "artifacts":
        rows = double.artifacts.get(parts[1], [])
    if rows is not None:
        offset = int(query.get("nextPageToken") or 0)
        token = str(offset + double.page) if offset + double.page < len(rows) else ""
        shown = rows[offset : offset + double.page]
        return 200, {"items": shown, "nextPageToken": token, "pageSize": double.page, "size": len(shown)}
    known = [row["id"] for row in (*double.models.values(), *double.versions)]
    return (200, {"id": parts[1]}) if len(parts) == 2 and parts[1] in known else (404, {"code": "404"})


@contextmanager
def _serving(answer: Callable[[Double, str, dict[str, str]], tuple[int, Any]]) -> Iterator[Double]:
    double = Double()
    double.answer = lambda path, query: answer(double, path, query)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            double.asked.append((parts.path, query, dict(self.headers)))
            status, body = double.answer(parts.path, query) if double.status == 200 else (double.status, {})
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            if parts.path.endswith(("search", "registered_models", "model_versions")):
                double.after_page(len(double.asked))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            if status in (301, 302):
                self.send_header("Location", "http://169.254.169.254/latest/meta-data")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    double.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield double
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def mlflow_double() -> Any:
    """Serve an MLflow-like registry."""
    return _serving(_mlflow)


def kubeflow_double() -> Any:
    """Serve a Kubeflow-like registry."""
    return _serving(_kubeflow)
