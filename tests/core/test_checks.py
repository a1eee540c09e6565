"""Production refuses to start unsafely."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError, connection
from django.test import override_settings
from django.urls import path
from rest_framework.views import APIView

from portal import checks

SAFE: dict[str, Any] = {
    "COMMONS_ENVIRONMENT": "production",
    "COMMONS_DEMO": False,
    "DEBUG": False,
    "SECRET_KEY": "k9-Zq3vXw7Lm2Tn8Rb5Yc1Hd6Jf4Gs0Pa" * 2,
    "COMMONS_CREDENTIALS_KEYS": ["MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="],
    "ALLOWED_HOSTS": ["commons.example.com"],
    "CSRF_TRUSTED_ORIGINS": ["https://commons.example.com"],
    "COMMONS_BASE_URL": "https://commons.example.com",
    "SESSION_COOKIE_SECURE": True,
    "CSRF_COOKIE_SECURE": True,
    "SECURE_SSL_REDIRECT": True,
}

UNSAFE: list[tuple[dict[str, Any], str]] = [
    ({"SECRET_KEY": "development-only-secret-key-do-not-use-in-production-0000000000"}, "E101"),
    ({"SECRET_KEY": "short"}, "E102"),
    ({"SECRET_KEY": "a" * 80}, "E102"),
    ({"DEBUG": True}, "E103"),
    ({"COMMONS_CREDENTIALS_KEYS": []}, "E104"),
    ({"COMMONS_CREDENTIALS_KEYS": ["ZGV2ZWxvcG1lbnQtb25seS1rZXktMDAwMDAwMDAwMDA="]}, "E104"),
    ({"COMMONS_CREDENTIALS_KEYS": ["not a key"]}, "E105"),
    ({"ALLOWED_HOSTS": ["*"]}, "E106"),
    ({"ALLOWED_HOSTS": []}, "E106"),
    ({"CSRF_TRUSTED_ORIGINS": ["http://commons.example.com"]}, "E107"),
    ({"COMMONS_BASE_URL": "http://commons.example.com"}, "E108"),
    ({"COMMONS_DEMO": True}, "E109"),
    ({"SESSION_COOKIE_SECURE": False}, "E110"),
    ({"CSRF_COOKIE_SECURE": False}, "E110"),
    ({"SECURE_SSL_REDIRECT": False, "SECURE_PROXY_SSL_HEADER": None}, "E111"),
    ({"COMMONS_CLUSTER_DENIED_NETWORKS": ["10.0.0.0/33"]}, "E114"),
    ({"COMMONS_CLUSTER_ALLOWED_NETWORKS": ["everywhere"]}, "E114"),
    ({"COMMONS_LOCAL_SIGN_IN": "none"}, "E116"),
    ({"COMMONS_SECOND_FACTOR": "requried"}, "E116"),
    ({"COMMONS_SESSION_IDLE_SECONDS": 0}, "E117"),
]


@pytest.fixture(autouse=True)
def _no_logins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("MIGRATE_DATABASE_URL", raising=False)


@pytest.mark.requirement("database-2.1")
@pytest.mark.parametrize(("change", "number"), UNSAFE)
def test_each_unsafe_setting_is_named(change: dict[str, Any], number: str) -> None:
    with override_settings(**{**SAFE, **change}):
        assert [found for found, _, _ in checks.settings_problems()] == [number]
        assert [message.id for message in checks.check_settings(None)] == [f"portal.{number}"]


@pytest.mark.requirement("database-2.1")
def test_safe_settings_and_development_are_left_alone() -> None:
    with override_settings(**SAFE):
        assert checks.check_settings(None) == []
    with override_settings(COMMONS_ENVIRONMENT="development", DEBUG=True):
        assert checks.check_settings(None) == []
        checks.refuse_unsafe_start()


@pytest.mark.requirement("database-2.1")
def test_one_login_for_migrations_and_run_time_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://commons_app:x@db.example/commons")
    monkeypatch.setenv("MIGRATE_DATABASE_URL", "postgres://commons_app:x@db.example/commons")
    with override_settings(**SAFE):
        assert [number for number, _, _ in checks.settings_problems()] == ["E113"]


@pytest.mark.requirement("database-2.1")
def test_misspelt_environment_does_not_turn_protection_off() -> None:
    with override_settings(COMMONS_ENVIRONMENT="prod"):
        assert [message.id for message in checks.check_environment(None)] == ["portal.E100"]
        with pytest.raises(ImproperlyConfigured):
            checks.refuse_unsafe_start()


def _as(role: str) -> list[str]:
    """Ask as if `role` had logged in; the session's user is put back at the end of the test's transaction."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL ROLE NONE")
        cursor.execute(f"SET LOCAL SESSION AUTHORIZATION {role}")
    return [number for number, _, _ in checks.database_problems()]


@pytest.mark.requirement("database-2.2")
@pytest.mark.django_db
def test_plain_role_passes() -> None:
    assert _as("commons_app") == []


@pytest.mark.requirement("database-2.2")
@pytest.mark.django_db
def test_login_as_superuser_is_named_even_under_another_role() -> None:
    assert [number for number, _, _ in checks.database_problems()] == ["E202"], "the tests' own login is a superuser"


@pytest.mark.requirement("database-2.2")
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("role", "numbers"), [("commons_audit", ["E206", "E207", "E208"]), ("commons_owner", ["E209"])]
)
def test_owner_as_run_time_role_is_named(role: str, numbers: list[str]) -> None:
    assert _as(role) == numbers


@pytest.mark.requirement("database-2.2")
@pytest.mark.django_db
def test_role_that_may_write_or_create_in_the_audit_schema_is_named() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL ROLE NONE")
        cursor.execute("GRANT CREATE ON SCHEMA audit TO commons_app")
        cursor.execute("GRANT UPDATE ON audit.event TO commons_app")
    assert _as("commons_app") == ["E207", "E208"]


@pytest.mark.requirement("database-2.3")
@pytest.mark.django_db(transaction=True)
def test_other_isolation_than_read_committed_is_named() -> None:
    from django.db import transaction

    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        assert "E204" in [number for number, _, _ in checks.database_problems()]


@pytest.mark.requirement("database-2.3")
@pytest.mark.parametrize(("level", "numbers"), [(2, []), (3, ["E112"]), (4, ["E112"])])
def test_isolation_level_in_the_settings_is_named(
    monkeypatch: pytest.MonkeyPatch, level: int, numbers: list[str]
) -> None:
    monkeypatch.setitem(settings.DATABASES["default"]["OPTIONS"], "isolation_level", level)
    with override_settings(**SAFE):
        assert [number for number, _, _ in checks.settings_problems()] == numbers


@pytest.mark.requirement("database-2.4")
@pytest.mark.django_db
def test_guard_lists_everything_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.connections, "close_all", lambda: None)
    with override_settings(**{**SAFE, "DEBUG": True}), pytest.raises(ImproperlyConfigured) as refused:
        checks.refuse_unsafe_start()
    assert "DEBUG" in str(refused.value)
    assert "superuser" in str(refused.value)


@pytest.mark.requirement("database-2.4")
def test_guard_lets_a_safe_installation_start_while_the_database_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> list[tuple[str, str, str]]:
        raise OperationalError("connection refused")

    monkeypatch.setattr(checks, "database_problems", away)
    monkeypatch.setattr(checks.connections, "close_all", lambda: None)
    with override_settings(**SAFE):
        checks.refuse_unsafe_start()


@pytest.mark.requirement("tenant-walls-1.5")
def test_a_plain_view_of_the_api_says_why_it_needs_no_scope() -> None:
    class Bare(APIView):
        pass

    class Said(APIView):
        scope_free = "shows a sentence"

    patterns = SimpleNamespace(url_patterns=[path("bare", Bare.as_view()), path("said", Said.as_view())])
    assert checks.unscoped_api_views(patterns) == [Bare]
    assert checks.check_api_views(None) == []
