"""Worlds that take seconds to make: made once by a process, found by every test as they were made.

The rows lie in a transaction around those of the tests, which is the pattern of Django's `setUpTestData`, for fixtures:
a test's own transaction is then a savepoint within it. One world at a time; a test that does not ask for it finds the
database without it. Only for tests that are rolled back.

    kept.world("books", make_books)  # in the room's conftest

    @pytest.fixture
    def books(db: None) -> Books:
        return kept.copy("books")

The fixture's name is the world's, and it stands in the module of what makes it, or the test is not known to want it.
"""

from __future__ import annotations

import copy as copying
from collections.abc import Callable
from typing import Any

from django.db import connection, transaction

_makers: dict[str, Callable[[], Any]] = {}


class _Keeper:
    """The world that the process holds now, in a transaction that is never committed."""

    def __init__(self) -> None:
        self.wanted = self.name = ""
        self.value: Any = None
        self._around: transaction.Atomic | None = None
        self._on_commit: list[Any] = []

    @property
    def _whole(self) -> bool:
        """Whether the transaction is still the one that it was: no test closed the connection."""
        return connection.in_atomic_block and not connection.closed_in_transaction and not connection.needs_rollback

    def prepare(self) -> None:
        """Have the wanted world in place, and no other; called before a test's own transaction begins."""
        if self.name and (self.name != self.wanted or not self._whole):
            self.drop()
        if self.wanted and not self.name:
            self._make()
        if self.name:
            # What waits for the commit of the world's making waits in every test.
            connection.run_on_commit = list(self._on_commit)

    def _make(self) -> None:
        around = transaction.atomic()
        around._from_testcase = True  # type: ignore[attr-defined]  # as Django's own: durable blocks may be in it
        around.__enter__()
        self._around, self.name = around, self.wanted
        try:
            self.value = _makers[self.name]()
        except BaseException:
            self.drop()
            raise
        self._on_commit = list(connection.run_on_commit)

    def drop(self) -> None:
        """Roll the world back."""
        around, self._around, self.name, self.value = self._around, None, "", None
        if around is not None:
            if connection.in_atomic_block:
                transaction.set_rollback(True)
            around.__exit__(None, None, None)


keeper = _Keeper()


def world(name: str, make: Callable[[], Any]) -> None:
    """Declare what makes the world of the fixture `name`."""
    _makers[name] = make


def wanted(item: Any) -> str:
    """Return the kept world that a test asks for; "" for none. Another room's fixture of the same name is no world."""
    info = getattr(item, "_fixtureinfo", None)
    for name, make in _makers.items():
        found = info.name2fixturedefs.get(name) if info is not None else None
        if found and found[-1].func.__module__ == make.__module__:
            return name
    return ""


def copy(name: str) -> Any:
    """Return the world for this test: rows of its own, which it may change. Raises LookupError where none was made."""
    if keeper.name != name:
        raise LookupError(f"{name} is not there: is the fixture called so, and is the test rolled back?")
    return copying.deepcopy(keeper.value)
