"""The database, the clock, the broker that is not there, and the sample company of all tests."""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import cache
from typing import Any

import environ
import pytest
from celery.app.task import Task
from django.conf import settings
from django.http.response import HttpResponseBase
from django.test import Client, TestCase, TransactionTestCase
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from pytest_django.plugin import blocking_manager_key
from whitenoise.middleware import WhiteNoiseMiddleware

from apps.audit import partitions
from apps.core import clock, row_security
from apps.core.testing import assert_queries, database
from tests import kept
from tests.factories import Company, make_company


def _suffix(config: pytest.Config) -> str:
    """Name the run's database after COMMONS_TEST_DB_SUFFIX or the first path given, so that runs do not meet."""
    if given := os.environ.get("COMMONS_TEST_DB_SUFFIX"):
        return re.sub(r"\W+", "_", given.lower())[:30]
    paths = [arg for arg in config.args if arg]
    first = os.path.relpath(paths[0].split("::")[0], str(config.rootpath)) if paths else "all"
    return re.sub(r"\W+", "_", first.lower()).strip("_")[:30] or "all"


def pytest_configure(config: pytest.Config) -> None:
    """Hash passwords quickly, count no API calls, and say nothing of static files that only production collects."""
    # Several processes share the machine: how long an example takes says nothing of the property (no timed unit tests).
    hypothesis_settings.register_profile("commons", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    hypothesis_settings.load_profile("commons")
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    # A test whose clock crosses a quarter would begin a review and let every role lapse; its own tests switch it on.
    settings.COMMONS_ACCESS_REVIEWS = "by_hand"
    # Counting calls would look for a Redis; the tests of the limits switch it on.
    settings.COMMONS_API_LIMITED = False
    # A test that moves its clock by hours has left no browser alone; the tests of idle sessions set it back.
    settings.COMMONS_SESSION_IDLE_SECONDS = settings.SESSION_COOKIE_AGE
    config.addinivalue_line("filterwarnings", "ignore:No directory at:UserWarning")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Side by side, tests go to whichever process is free; a module with an installation of its own goes as a whole."""
    from tests.scheduling import Together

    return Together(config, log)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Look for garbage rarely, and never among what the imports made: it was a tenth of the run."""
    if (validating := sys.modules.get("kubernetes_validate.utils")) is not None:
        # It reads a megabyte of schemas again for every object.
        validating.schema_contents = cache(validating.schema_contents)  # type: ignore[attr-defined]  # a module of its own
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(scope="session")
def django_db_setup(
    request: pytest.FixtureRequest, django_test_environment: None, django_db_blocker: Any
) -> Iterator[None]:
    """Make the run's database: created and migrated as owner, used as `commons_app` (design §6)."""
    from launcher.testing import ensure_postgres

    url = environ.Env.db_url_config(ensure_postgres()["DATABASE_URL"])
    made = database.TestDatabase(url, _suffix(request.config), keep=False)
    with django_db_blocker.unblock():
        made.setup()
    yield
    with django_db_blocker.unblock():
        kept.keeper.drop()
        made.teardown()


@pytest.fixture(scope="session", autouse=True)
def _flush_as_owner() -> Iterator[None]:
    """Let transactional tests empty the tables as their owner: the portal's role may not TRUNCATE."""

    def teardown(self: TransactionTestCase) -> None:
        database.empty_as_owner()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", teardown)
        # TestCase has its own teardown (a rollback) that falls back to the one above.
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note which kept world the test asks for; whoever asks for none, or commits, finds a database without one."""
    kept.keeper.wanted = kept.wanted(item)
    if kept.keeper.name and not kept.keeper.wanted:
        with item.config.stash[blocking_manager_key].unblock():
            kept.keeper.drop()


@pytest.fixture(scope="session", autouse=True)
def _kept_worlds() -> Iterator[None]:
    """Let a test's transaction begin within that of the world it asks for."""
    enter = TestCase._enter_atomics.__func__  # type: ignore[attr-defined]  # the stubs do not know it

    def enter_atomics(cls: type[TestCase]) -> Any:
        kept.keeper.prepare()
        return enter(cls)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TestCase, "_enter_atomics", classmethod(enter_atomics))
        yield


@pytest.fixture(scope="session", autouse=True)
def _process_of_tests() -> Iterator[None]:
    """Keep this process the portal itself: a live server in it loads what turns a process into a web server's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_security, "close_by_default", lambda: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _static_files() -> Iterator[None]:
    """Look for static files once: every test client has middleware of its own, which would look through all of them."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    look = WhiteNoiseMiddleware.add_files_from_finders

    def add(self: WhiteNoiseMiddleware) -> None:
        key = (self.static_prefix, self.max_age, self.allow_all_origins)
        if key not in found:
            look(self)
            found[key] = dict(self.files)
        self.files.update(found[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WhiteNoiseMiddleware, "add_files_from_finders", add)
        yield


@pytest.fixture(scope="session")
def _streamed() -> Iterator[list[HttpResponseBase]]:
    """What test clients were sent in pieces and may not have read to its end, where the file behind it is closed."""
    found: list[HttpResponseBase] = []
    request = Client.request

    def noted(self: Client, **environ: Any) -> Any:
        response: Any = request(self, **environ)
        if response.streaming:
            found.append(response)
        return response

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Client, "request", noted)
        yield found


@pytest.fixture(autouse=True)
def _close_streamed(_streamed: list[HttpResponseBase]) -> Iterator[None]:
    """Close files of exports that a test looked at from outside only, as servers do when a browser goes away."""
    yield
    while _streamed:
        for close in _streamed.pop()._resource_closers:  # type: ignore[attr-defined]  # close() would end connections, too
            close()


@pytest.fixture(autouse=True)
def _forget_partitions() -> Iterator[None]:
    """Forget which audit months exist: settle() runs commit callbacks of a transaction that is then rolled back."""
    yield
    partitions._known.clear()
    partitions._made.clear()


@pytest.fixture
def nudges() -> list[tuple[str, tuple[Any, ...]]]:
    """What the test's code asked workers to do: (task name, arguments), in order."""
    return []


@pytest.fixture(autouse=True)
def _no_broker(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, nudges: list[tuple[str, tuple[Any, ...]]]
) -> None:
    """Keep nudges in the process unless the test is marked `broker`: `core.testing.settle()` does the work."""
    if request.node.get_closest_marker("broker") is not None:
        return

    def apply_async(self: Task[Any, Any], args: Any = None, kwargs: Any = None, **options: Any) -> None:
        nudges.append((str(self.name), tuple(args or ())))

    monkeypatch.setattr(Task, "apply_async", apply_async)


@pytest.fixture
def company(db: None) -> Company:
    """A bank with three teams and one person per role (tests.factories.make_company)."""
    return make_company()


@pytest.fixture
def query_limit() -> Callable[[int], AbstractContextManager[Any]]:
    """`with query_limit(20): …` fails beyond that many statements."""
    return assert_queries


@pytest.fixture
def frozen_clock() -> Iterator[datetime]:
    """Freeze `core.clock` at 2026-11-18 09:00 UTC, a Wednesday; move it with `clock.advance()`."""
    at = datetime(2026, 11, 18, 9, tzinfo=UTC)
    with clock.frozen(at):
        yield at


@pytest.fixture
def client_for() -> Callable[[Any], Any]:
    """`client_for(user)` is a test client in which the person is signed in."""
    from tests.factories import client_for as make

    return make
