"""The static check that every action records an event."""

from __future__ import annotations

import pytest

from tools import audited

ACTIONS = """
from apps import audit
from apps.audit.actions import record_many as many
from apps.core.actor import Actor
from apps.rooms import helpers

def direct(row_id: int, *, actor: Actor) -> None:
    audit.record(1)

def by_helper(row_id: int, *, actor: Actor) -> None:
    _told(actor)

def by_module(row_id: int, *, actor: Actor | None) -> None:
    helpers.tell(actor)

def by_class(row_id: int, *, actor: Actor) -> None:
    Work().run()

def silent(row_id: int, *, actor: Actor) -> None:
    helpers.nothing(actor)

def reads(user: object) -> None:
    pass

def _private(*, actor: Actor) -> None:
    pass

def _told(actor: Actor) -> None:
    many(actor)

class Work:
    def run(self) -> None:
        self.inner()

    def inner(self) -> None:
        audit.record(1)
"""
HELPERS = """
def tell(actor):
    from apps.audit.actions import record
    record(actor)

def nothing(actor):
    recorded = actor.record
"""


@pytest.fixture
def functions() -> dict[str, audited.Function]:
    found = audited.functions_of(ACTIONS, "apps.rooms.actions")
    return found | audited.functions_of(HELPERS, "apps.rooms.helpers")


@pytest.mark.requirement("audit-keeping-5.1")
def test_an_action_that_records_nothing_is_named(functions: dict[str, audited.Function]) -> None:
    assert [one.name for one in audited.silent(functions)] == ["apps.rooms.actions.silent"]
    assert audited.problems(functions, {}) == [
        "apps.rooms.actions.silent (line 19) takes an actor and records no event"
    ]


@pytest.mark.requirement("audit-keeping-5.1")
def test_an_exemption_has_to_be_needed(functions: dict[str, audited.Function]) -> None:
    exempt = {"apps.rooms.actions.silent": "a reason", "apps.rooms.actions.direct": "none"}
    assert audited.problems(functions, exempt) == ["apps.rooms.actions.direct stands in EXEMPT and needs not to"]


@pytest.mark.requirement("audit-keeping-5.1")
def test_every_action_of_the_portal_records_an_event() -> None:
    found = audited.read()
    assert sum(one.action for one in found.values()) > 150
    assert audited.problems(found, audited.EXEMPT) == []
