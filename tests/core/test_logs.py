"""Logs are one JSON object a line, and hold no secret."""

from __future__ import annotations

import json
import logging

import pytest

from apps.core.actor import request_id_var
from apps.core.logs import JsonFormatter, RequestIdFilter


def _line(**extra: object) -> dict[str, object]:
    record = logging.LogRecord("apps.x", logging.WARNING, "x.py", 1, "it went %s", ("wrong",), None)
    record.__dict__.update(extra)
    assert RequestIdFilter().filter(record)
    return json.loads(JsonFormatter().format(record))


@pytest.mark.parametrize(
    "name", ["password", "api_token", "COMMONS_SECRET_KEY", "authorization", "kubeconfig", "cluster_credentials"]
)
def test_what_sounds_secret_is_masked(name: str) -> None:
    assert _line(**{name: "hunter2"})[name] == "***"
    assert "hunter2" not in json.dumps(_line(**{name: "hunter2"}))


def test_a_line_says_when_what_and_in_which_request() -> None:
    token = request_id_var.set("abcdef123456")
    try:
        line = _line(cluster="atlas")
    finally:
        request_id_var.reset(token)
    assert line["message"] == "it went wrong"
    assert line["cluster"] == "atlas"
    assert line["request_id"] == "abcdef123456"
    assert str(line["time"]).endswith("+00:00")
