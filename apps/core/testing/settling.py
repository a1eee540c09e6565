"""Run what workers would run, in the test's own process and transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils.module_loading import autodiscover_modules

from apps.core.sweeps import registered


def deliver_on_commit() -> int:
    """Run the callbacks waiting for the commit of the test's transaction, which never comes; returns how many.

    Callbacks that register further ones are followed. Outside a transaction Django has run them already.
    """
    delivered = 0
    while connection.run_on_commit:
        waiting, connection.run_on_commit = connection.run_on_commit, []
        for _, callback, robust in waiting:  # type: ignore[misc]  # the stubs still have the pairs of Django 4.1
            delivered += 1
            try:
                callback()
            except Exception:
                if not robust:
                    raise
    return delivered


def settle(max_rounds: int = 20, *, only: tuple[str, ...] = ()) -> int:
    """Run every registered sweep until none has anything left to do; returns how many rows moved in all.

    This is what a worker and beat do between them, without a broker. `only` limits it to sweeps whose names start
    so ("provisioning."). Raises AssertionError naming the sweeps that still move rows after `max_rounds` rounds.
    """
    autodiscover_modules("tasks")
    sweeps = [one for one in registered() if not only or one.name.startswith(only)]
    total = 0
    moving: dict[str, int] = {}
    for _ in range(max_rounds):
        deliver_on_commit()
        moving = {one.name: moved for one in sweeps if (moved := int(one.run() or 0))}
        total += sum(moving.values())
        if not moving:
            deliver_on_commit()
            return total
    raise AssertionError(f"not settled after {max_rounds} rounds; still moving: {moving}")


@contextmanager
def assert_queries(maximum: int) -> Iterator[CaptureQueriesContext]:
    """Fail when the block sends more than `maximum` statements; savepoints and SET do not count."""
    with CaptureQueriesContext(connection) as captured:
        yield captured
    counted = [
        query["sql"]
        for query in captured.captured_queries
        if not query["sql"].startswith(("SAVEPOINT", "RELEASE SAVEPOINT", "ROLLBACK TO", "SET ", "BEGIN", "COMMIT"))
        and "set_config(" not in query["sql"]
    ]
    if len(counted) > maximum:
        listing = "\n".join(f"{number}. {sql}" for number, sql in enumerate(counted, 1))
        raise AssertionError(f"{len(counted)} statements, at most {maximum} allowed:\n{listing}")
