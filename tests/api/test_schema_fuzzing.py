"""Schemathesis over every operation of the description: no 5xx, nothing answered that is not described.

Each operation is called in process (WSGI) with generated bodies, queries and headers, on rows that are there (the
sweep's world) as well as on ones that are not; what a call writes is rolled back. The seed is fixed: a failure is the
same failure tomorrow.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import schemathesis
from django.core import signals
from django.core.handlers.wsgi import WSGIHandler
from django.db import close_old_connections, connection, transaction
from django.urls import get_resolver
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.api.support import bearer, everybody_at_once
from tests.sweep import world as worlds

pytestmark = [pytest.mark.full, pytest.mark.requirement("api-3.1", "api-3.2")]
#: Calls of each operation (twice as many where rows to call it on are known); fewer for a quick look.
EXAMPLES = int(os.environ.get("EXAMPLES", "12"))
#: The operations are dealt out over so many tests, so that processes can share them.
SHARES = 4
_CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture
def calls_in_process(db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let calls be part of the test's transaction, as Django's own test client does, and silence what they log."""
    for name in ("django.request", "apps.core.api"):
        monkeypatch.setattr(logging.getLogger(name), "disabled", True)
    ends = (signals.request_started, signals.request_finished)
    for end in ends:
        end.disconnect(close_old_connections)
    yield
    for end in ends:
        end.connect(close_old_connections)


@pytest.mark.parametrize("share", range(SHARES))
def test_every_operation_answers_as_described(calls_in_process: None, share: int) -> None:
    world = worlds.build()
    person = everybody_at_once(world)
    headers = bearer(person)
    schema = schemathesis.openapi.from_wsgi("/api/v1/schema/?format=json", WSGIHandler(), headers=headers)
    known = _places(world)
    failures: list[str] = []
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) > 200
    for operation in operations[share::SHARES]:
        failures += _try(operation, known.get((operation.path, operation.method.upper()), []), headers)
    assert not failures, f"{len(failures)} failures:\n" + "\n\n".join(failures)


def _places(world: SimpleNamespace) -> dict[tuple[str, str], list[dict[str, str]]]:
    """Return (path as described, method) → path parameters of rows that exist, as the sweep names them."""
    paths = {}
    for name, values in get_resolver().namespace_dict["api"][1].reverse_dict.lists():
        if isinstance(name, str):
            for possibilities, *_ in values:
                for template, parameters in possibilities:
                    paths[name] = "/api/v1/" + template.replace("%(", "{").replace(")s", "}")
                    assert all(f"{{{one}}}" in paths[name] for one in parameters)
    found: dict[tuple[str, str], list[dict[str, str]]] = {}
    for name, route in worlds.declared().items():
        if name.startswith("api:"):
            kwargs = {key: str(value) for key, value in route.kwargs(world).items()}
            place = paths[name.removeprefix("api:").partition("#")[0]]
            for method in {route.method, "GET", "PATCH", "PUT", "DELETE"}:
                found.setdefault((place, method), []).append(kwargs)
    return found


@contextmanager
def _undone() -> Iterator[None]:
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def _try(operation: Any, places: list[dict[str, str]], headers: dict[str, str]) -> list[str]:
    modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
    strategies = [operation.as_strategy(generation_mode=mode) for mode in modes]
    if places and "{" in operation.path:
        strategies += [
            operation.as_strategy(generation_mode=mode, path_parameters=place) for mode in modes for place in places[:2]
        ]
    failures: list[str] = []

    @settings(
        max_examples=EXAMPLES * (2 if places else 1), derandomize=True, database=None, deadline=None,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=st.one_of(strategies))
    def call(case: Any) -> None:
        if failures:
            return
        with _undone():
            response = case.call(headers=headers)
            assert not connection.needs_rollback, "the transaction is broken"
        try:
            case.validate_response(response, checks=_CHECKS)
        except BaseException as error:  # whatever a check says is one failure of many
            if not isinstance(error, Exception | BaseExceptionGroup):
                raise
            failures.append(f"{operation.method.upper()} {operation.path}: {error}"[:1500])

    try:
        call()
    except Exception as error:  # noqa: BLE001 (a broken operation is one failure of many, not the end of the run)
        failures.append(f"{operation.method.upper()} {operation.path}: {type(error).__name__}: {error}"[:1500])
    return failures
