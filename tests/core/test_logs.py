"""Logs are one JSON object a line, and hold no secret."""

from __future__ import annotations

import json
import logging
import sys

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


@pytest.mark.parametrize(
    ("text", "secret", "stays"),
    [
        ("token gpuc_AbCdEf0123456789-_x was refused", "AbCdEf0123456789", "was refused"),
        ("directory sent gpus_0123456789abcdef", "0123456789abcdef", "directory sent"),
        ("Authorization: Bearer abc.DEF-123/456+789==", "abc.DEF-123", "Bearer ***"),
        ("got eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl back", "eyJzdWIiOiJ4In0", "back"),
        ("could not reach postgres://commons:hunter22@db.example.com/portal", "hunter22", "db.example.com/portal"),
        ("refused: client_secret=s3cr3tvalue&grant_type=authorization_code", "s3cr3tvalue", "grant_type"),
        ('{"password": "correct horse", "user": "x"}', "horse", '"user"'),
        ("token: abcd1234efgh\n    server: https://atlas.example.com", "abcd1234efgh", "atlas.example.com"),
        ("-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIJ\n-----END EC PRIVATE KEY----- broken", "MHcCAQEEIJ", "broken"),
        ("-----BEGIN PRIVATE KEY-----\nMHcCAQEEIJcut off", "MHcCAQEEIJ", "***"),
    ],
)
def test_what_looks_secret_is_masked_wherever_it_stands(text: str, secret: str, stays: str) -> None:
    record = logging.LogRecord("apps.x", logging.ERROR, "x.py", 1, "it said %s", (text,), None)
    record.__dict__["detail"] = text
    try:
        raise RuntimeError(text)
    except RuntimeError:
        record.exc_info = sys.exc_info()
    line = JsonFormatter().format(record)
    assert secret not in line
    said = json.loads(line)
    assert stays in said["message"]
    assert stays in said["detail"]
    assert stays in said["exception"]


@pytest.mark.parametrize(
    "text",
    [
        "the token was refused",
        "secret: none given",
        "no password",
        "http://127.0.0.1:8080/a?b=c",
        "https://atlas.example.com:6443/apis",
        "tokens are not counted: Redis does not answer",
        "basic auth is off",
    ],
)
def test_what_only_speaks_of_secrets_stays(text: str) -> None:
    assert json.loads(JsonFormatter().format(logging.LogRecord("a", 20, "x", 1, text, (), None)))["message"] in (
        text, "secret: *** given",
    )  # fmt: skip
