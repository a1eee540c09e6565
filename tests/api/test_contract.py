"""The description is valid, offers what it says, and webhooks send what it declares."""

from __future__ import annotations

import dataclasses
import json
import typing
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import jsonschema
import pytest
from django.urls import reverse
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator

from apps.core import events
from apps.notifications import webhook_body
from portal.openapi import operations
from portal.openapi_events import of_event, of_type
from portal.openapi_examples import EXAMPLES
from tests.api import contract
from tests.api.support import bearer


@pytest.mark.requirement("api-1.1")
def test_the_description_is_openapi_31_and_every_schema_in_it_is_one() -> None:
    found = contract.description()
    assert found["openapi"].startswith("3.1.")
    for name, schema in found["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert "nullable" not in schema, name
    text = json.dumps(found)
    for reference in {part.split('"')[0] for part in text.split('"$ref": "')[1:]}:
        assert contract.resolve({"$ref": reference}), reference
    names = [operation["operationId"] for _, _, operation in operations(found)]
    assert len(names) == len(set(names))


@pytest.mark.requirement("api-1.1")
def test_no_two_forms_share_a_name() -> None:
    GENERATOR_STATS.reset()
    with GENERATOR_STATS.silence():
        SchemaGenerator().get_schema(request=None, public=True)
    said = [*GENERATOR_STATS._warn_cache, *GENERATOR_STATS._error_cache]
    assert not said, "\n".join(said)


@pytest.mark.requirement("api-1.1")
def test_every_operation_describes_its_refusals_and_every_write_its_key() -> None:
    for path, method, operation in operations(contract.description()):
        where = f"{method} {path}"
        answers = operation["responses"]
        assert {"401", "404", "429", "503"} <= set(answers), where
        for status, answer in answers.items():
            if int(status) >= 400 and answer.get("$ref"):
                assert "application/problem+json" in contract.resolve(answer)["content"], where
        if method != "get" and operation.get("security"):
            named = {contract.resolve(one)["name"] for one in operation["parameters"]}
            assert "Idempotency-Key" in named, where
            assert "{" not in path or "If-Match" in named, where


@pytest.mark.requirement("api-1.2")
@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_examples_are_bodies_that_the_operation_takes(name: str) -> None:
    found = {operation["operationId"]: operation for _, _, operation in operations(contract.description())}
    contract.validate(EXAMPLES[name], found[name]["requestBody"]["content"]["application/json"]["schema"])


@pytest.mark.requirement("api-1.3")
def test_the_reader_of_the_description_needs_no_other_host(company: Any, client_for: Any) -> None:
    page = client_for(company.member_finance).get(reverse("api:docs")).content.decode()
    assert "swagger" in page.lower()
    assert "//cdn" not in page
    assert 'src="http' not in page
    assert 'href="http' not in page


@pytest.mark.requirement("api-2.3")
def test_text_that_no_database_keeps_is_refused_as_input(company: Any, client: Any) -> None:
    headers = bearer(company.lead_finance)
    for body in (b'{"name": "\\ud874]", "expires_at": "2027-01-01T00:00:00Z"}', b'{"name": ["a\\u0000"]}'):
        answer = client.generic("POST", "/api/v1/api-tokens", body, content_type="application/json", headers=headers)
        assert answer.status_code == 400
        assert answer["Content-Type"] == "application/problem+json"


def _sample(kind: Any) -> Any:
    """Return some value of a type that payloads use."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if (
        inner
        and origin not in (list, tuple, set, frozenset)
        and not (isinstance(origin, type) and issubclass(origin, typing.Collection))
    ):
        return _sample(inner[0])
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"some": _sample(inner[1])}
    if origin is not None:
        return [_sample(one) for one in inner if one is not Ellipsis]
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        return kind(**{field.name: _sample(hints[field.name]) for field in dataclasses.fields(kind)})
    known: dict[Any, Any] = {
        int: 7, bool: True, str: "words", bytes: b"\x01", Decimal: Decimal("1.50"), uuid.UUID: uuid.UUID(int=7),
        datetime: datetime(2026, 11, 22, tzinfo=UTC), dict: {"a": 1}, list: ["a"], tuple: ("a",),
    }  # fmt: skip
    return known.get(kind, "words")


@pytest.mark.requirement("api-4.2")
def test_webhooks_send_what_the_description_declares() -> None:
    # Tests declare events of their own in this process.
    described = {name: one for name, one in contract.description()["webhooks"].items() if not name.startswith("tests.")}
    declared = [event for event in events.all_events() if event.payload.__module__.startswith("apps.")]
    assert set(described) == {event.name for event in declared}
    assert len(declared) > 100
    for event in declared:
        stored = event.dump(_sample(event.payload))
        for data in (stored, events.without_texts(event, stored)):
            body = webhook_body.build(
                message_uid=uuid.uuid4(), source="https://commons.example.com", event=event.name,
                at=datetime(2026, 11, 22, tzinfo=UTC), subject_uid=uuid.uuid4(), data=data,
            )  # fmt: skip
            schema = described[event.name]["post"]["requestBody"]["content"]["application/cloudevents+json"]["schema"]
            contract.validate(json.loads(body), schema)


@pytest.mark.requirement("api-4.2")
def test_a_webhook_of_another_form_breaks_the_contract() -> None:
    event = events.all_events()[0]
    schema = of_event(event)
    with pytest.raises(jsonschema.ValidationError):
        contract.validate({"specversion": "1.0", "type": "another.event.happened"}, schema)
    assert of_type(int | None) == {"anyOf": [{"type": ["integer", "string"]}, {"type": "null"}]}
