"""Attacks need a second pair of hands: connections of their own, as the portal's role or as superuser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from django.db import connection


@pytest.fixture
def connect(transactional_db: None) -> Iterator[Callable[..., psycopg.Connection[Any]]]:
    """`connect()` opens a session of the portal's role, `connect(role=None)` one of the superuser."""
    with ExitStack() as stack:

        def open_session(role: str | None = "commons_app") -> psycopg.Connection[Any]:
            parameters = connection.get_connection_params()
            login = {key: parameters[key] for key in ("host", "port", "user", "password", "dbname")}
            # Set as the session's default: RESET ROLE leads back to it.
            options = f"-c role={role}" if role else ""
            session = psycopg.connect(**login, options=options)
            stack.callback(session.close)
            return session

        yield open_session
