"""System checks of the installation (settings, database), and the guard that refuses an unsafe start in production.

`manage.py check` lists everything, `check --database default` the database, too. A web server or worker never runs
checks by itself, so `refuse_unsafe_start()` is called where they start. Development and the demo may run unsafely.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import logging
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.db import InterfaceError, OperationalError, connections
from psycopg import IsolationLevel

from apps.core import signing

logger = logging.getLogger(__name__)

ENVIRONMENTS = ("development", "demo", "production")
LOCAL_SIGN_IN = ("all", "admins", "off")
SECOND_FACTOR = ("optional", "required")
SECRET_KEY_MIN = 50
OLDEST_POSTGRESQL = 150000

_ROLE_QUERY = """
SELECT session_user, current_user,
       (SELECT rolsuper FROM pg_roles WHERE rolname = session_user),
       (SELECT bool_or(rolsuper OR rolbypassrls OR rolcreaterole) FROM pg_roles
         WHERE rolname IN (session_user, current_user)),
       current_setting('transaction_isolation'), current_setting('server_version_num')::int,
       to_regnamespace('audit') IS NOT NULL
"""
_AUDIT_QUERY = """
SELECT pg_has_role(r, n.nspowner, 'MEMBER'), has_schema_privilege(r, n.oid, 'CREATE'),
       (SELECT count(*) FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p')
           AND (has_table_privilege(r, c.oid, 'UPDATE') OR has_table_privilege(r, c.oid, 'DELETE')
             OR has_table_privilege(r, c.oid, 'TRUNCATE'))),
       (SELECT count(*) FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
           AND pg_has_role(r, c.relowner, 'MEMBER')),
       (SELECT string_agg(DISTINCT c.relname, ', ') FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
         WHERE p.polname = 'tenant_wall' AND NOT c.relrowsecurity)
  FROM pg_namespace n, (SELECT session_user::name AS r) s WHERE n.nspname = 'audit'
"""


def settings_problems() -> Iterator[tuple[str, str, str]]:
    """Yield (id, what is wrong, what to do) for settings that production must not run with."""
    if settings.SECRET_KEY.startswith("development-only"):
        yield (
            "E101",
            "The secret key is the one everybody knows.",
            "Set COMMONS_SECRET_KEY to 50 or more random characters.",
        )
    elif len(settings.SECRET_KEY) < SECRET_KEY_MIN or len(set(settings.SECRET_KEY)) < 10:
        yield (
            "E102",
            "The secret key is too short or too regular.",
            f"Set COMMONS_SECRET_KEY to {SECRET_KEY_MIN} or more random characters.",
        )
    if settings.DEBUG:
        yield "E103", "DEBUG shows settings and code to visitors.", "Unset COMMONS_DEBUG."
    yield from _credential_key_problems()
    yield from _signing_key_problems()
    yield from _network_problems()
    yield from _sign_in_problems()
    if not settings.ALLOWED_HOSTS or "*" in settings.ALLOWED_HOSTS:
        yield "E106", "Any host name is taken for ours.", "Name the portal's host names in COMMONS_ALLOWED_HOSTS."
    plain = [origin for origin in settings.CSRF_TRUSTED_ORIGINS if not origin.startswith("https://")]
    if plain:
        yield "E107", f"Trusted without encryption: {', '.join(plain)}.", "Use https:// in COMMONS_TRUSTED_ORIGINS."
    if urlsplit(settings.COMMONS_BASE_URL).scheme != "https":
        yield (
            "E108",
            "Links in mails would lead to an unencrypted page.",
            "Set COMMONS_BASE_URL to the portal's https:// address.",
        )
    if settings.COMMONS_DEMO:
        yield "E109", "The demo's sample company has well-known passwords.", "Unset COMMONS_DEMO."
    for name in ("SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SESSION_COOKIE_HTTPONLY"):
        if not getattr(settings, name):
            yield "E110", f"{name} is off.", "Leave cookies to encrypted connections."
    if not settings.SECURE_SSL_REDIRECT and settings.SECURE_PROXY_SSL_HEADER is None:
        yield (
            "E111",
            "Nothing leads visitors to an encrypted connection.",
            "Set COMMONS_SSL_REDIRECT, or COMMONS_BEHIND_PROXY where a proxy does it.",
        )
    level = settings.DATABASES["default"].get("OPTIONS", {}).get("isolation_level")
    if level is not None and IsolationLevel(level) is not IsolationLevel.READ_COMMITTED:
        yield (
            "E112",
            f"The database isolation level is {IsolationLevel(level).name}.",
            "The audit chain is sealed at commit and needs READ COMMITTED.",
        )
    runtime, migrate = _login("DATABASE_URL"), _login("MIGRATE_DATABASE_URL")
    if runtime and migrate and runtime == migrate:
        yield (
            "E113",
            "Migrations and the running portal use the same database login.",
            "Give MIGRATE_DATABASE_URL a login of its own.",
        )


def _credential_key_problems() -> Iterator[tuple[str, str, str]]:
    how = "Set COMMONS_CREDENTIALS_KEY to Fernet keys, newest first (32 random bytes each, URL-safe base64)."
    if not settings.COMMONS_CREDENTIALS_KEYS:
        yield "E104", "There is no key to encrypt cluster credentials with.", how
    for key in settings.COMMONS_CREDENTIALS_KEYS:
        try:
            raw = base64.urlsafe_b64decode(key)
        except (binascii.Error, ValueError):
            raw = b""
        if len(raw) != 32:
            yield "E105", "A key for cluster credentials is malformed.", how
        elif raw.startswith(b"development-only"):
            yield "E104", "Cluster credentials are encrypted with the key everybody knows.", how


def _signing_key_problems() -> Iterator[tuple[str, str, str]]:
    """A malformed key would make every checkpoint fail, one by one and at night."""
    how = "Set it to Ed25519 seeds or public keys (32 bytes each, URL-safe base64), separated by commas."
    for variable, texts in (
        ("COMMONS_SIGNING_KEY", settings.COMMONS_SIGNING_KEYS),
        ("COMMONS_SIGNING_PUBLIC_KEYS", settings.COMMONS_SIGNING_PUBLIC_KEYS),
    ):
        for text in texts:
            try:
                signing.decode_key(text)
            except ValueError:
                yield "E115", f"A key in {variable} is malformed.", how


def _network_problems() -> Iterator[tuple[str, str, str]]:
    """A malformed network would fail every call to a cluster, or worse, allow what was meant to be denied."""
    for name in ("COMMONS_CLUSTER_ALLOWED_NETWORKS", "COMMONS_CLUSTER_DENIED_NETWORKS"):
        for text in getattr(settings, name):
            try:
                ipaddress.ip_network(text.strip(), strict=False)
            except ValueError:
                yield "E114", f"{text!r} in {name} is no network.", "Write networks as 10.0.0.0/8 or fd00::/8."


def _sign_in_problems() -> Iterator[tuple[str, str, str]]:
    """A misspelt rule must not pass for a lax one; sessions must end."""
    for name, known in (
        ("COMMONS_LOCAL_SIGN_IN", LOCAL_SIGN_IN),
        ("COMMONS_SECOND_FACTOR", SECOND_FACTOR),
        ("COMMONS_ACCESS_REVIEWS", ("quarterly", "by_hand")),
    ):
        if getattr(settings, name) not in known:
            yield "E116", f"{name} is {getattr(settings, name)!r}.", f"Use {', '.join(known)}."
    for name in ("SESSION_COOKIE_AGE", "COMMONS_SESSION_IDLE_SECONDS"):
        if getattr(settings, name) <= 0:
            yield "E117", f"{name} is not positive.", "Give the seconds after which a session ends."


def _login(variable: str) -> str:
    return urlsplit(os.environ.get(variable, "")).username or ""


def database_problems(alias: str = "default") -> Iterator[tuple[str, str, str]]:
    """Yield what is wrong with the role the portal runs as. Raises django.db.OperationalError where nobody answers."""
    bootstrap = (
        "Run manage.py bootstrap_database, and name the login commons_app (or a plain member of it) in DATABASE_URL."
    )
    with connections[alias].cursor() as cursor:
        cursor.execute(_ROLE_QUERY)
        session_user, current_user, superuser, powerful, isolation, version, has_audit = cursor.fetchone()
        if version < OLDEST_POSTGRESQL:
            yield "E201", f"PostgreSQL {version // 10000} is too old.", "Use PostgreSQL 15 or newer."
        if superuser:
            yield (
                "E202",
                f"The portal logs in as the superuser {session_user}: every guard of the audit trail is void.",
                bootstrap,
            )
        elif powerful:
            yield "E203", f"{current_user} may make roles or get round row security.", bootstrap
        if isolation != "read committed":
            yield (
                "E204",
                f"Transactions run as {isolation}.",
                "The audit chain is sealed at commit: set default_transaction_isolation to read committed.",
            )
        if not has_audit:
            yield "E205", "There is no audit schema.", "Run manage.py bootstrap_database, then manage.py migrate."
            return
        if superuser:
            return
        cursor.execute(_AUDIT_QUERY)
        owns, may_create, writable, owned, unwalled = cursor.fetchone()
        if owns:
            yield "E206", f"{session_user} owns the audit schema, or may act as its owner.", bootstrap
        if may_create:
            yield "E207", f"{session_user} may create objects in the audit schema.", bootstrap
        if writable:
            yield "E208", f"{session_user} may change or remove rows of {writable} audit tables.", bootstrap
        if owned:
            yield "E209", f"{session_user} owns {owned} tables of the portal, or may act as their owner.", bootstrap
        if unwalled:
            yield (
                "E210",
                f"Row security is off on {unwalled}: a mistake in the portal could show rows of other tenants.",
                "As the owner, run ALTER TABLE … ENABLE ROW LEVEL SECURITY on them, and find out who switched it off.",
            )


@register(Tags.security)
def check_environment(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """A misspelt environment must not turn the protections off."""
    if settings.COMMONS_ENVIRONMENT in ENVIRONMENTS:
        return []
    text = f"COMMONS_ENVIRONMENT is {settings.COMMONS_ENVIRONMENT!r}."
    return [Error(text, hint=f"Use {', '.join(ENVIRONMENTS)}.", id="portal.E100")]


@register(Tags.security)
def check_settings(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Production refuses settings that are only safe on a developer's machine."""
    if settings.COMMONS_ENVIRONMENT != "production":
        return []
    return [Error(text, hint=hint, id=f"portal.{number}") for number, text, hint in settings_problems()]


@register(Tags.urls)
def check_api_views(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Every view of the API is scoped by its queryset (`CommonsViewSet` sees to that) or says why it needs no scope."""
    return [
        Error(
            f"{view.__module__}.{view.__qualname__} says nothing of its scope.",
            hint="Derive it from CommonsViewSet, or state in scope_free why it shows no foreign rows.",
            id="portal.E118",
        )
        for view in unscoped_api_views()
    ]


def unscoped_api_views(resolver: Any = None) -> list[type]:
    """Return the plain views of the API without `scope_free`, all addresses of the portal looked through."""
    from django.urls import get_resolver
    from rest_framework.views import APIView

    from apps.core.api import CommonsViewSet

    found: dict[type, None] = {}
    todo = list((resolver or get_resolver()).url_patterns)
    while todo:
        one = todo.pop()
        if hasattr(one, "url_patterns"):
            todo += one.url_patterns
            continue
        view = getattr(one.callback, "cls", None) or getattr(one.callback, "view_class", None)
        if view is None or not issubclass(view, APIView) or issubclass(view, CommonsViewSet):
            continue
        if not getattr(view, "scope_free", ""):
            found[view] = None
    return list(found)


@register(Tags.database)
def check_database(app_configs: Any, databases: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """The role of the running portal must not be able to undo the audit trail (a warning outside production)."""
    if not databases or "default" not in databases or settings.RUNS_AS_OWNER:
        return []
    kind = Error if settings.COMMONS_ENVIRONMENT == "production" else Warning
    try:
        return [kind(text, hint=hint, id=f"portal.{number}") for number, text, hint in database_problems()]
    except (OperationalError, InterfaceError) as error:
        return [
            Error(f"The database does not answer: {str(error).strip()}", hint="See DATABASE_URL.", id="portal.E200")
        ]


def refuse_unsafe_start() -> None:
    """Refuse to serve or work with unsafe settings or a database role that could rewrite the audit trail.

    Called where web server, worker, beat and observer start. A database that does not answer yet is no reason to
    refuse: every query will fail until it does, and readiness says so. Raises ImproperlyConfigured.
    """
    if settings.COMMONS_ENVIRONMENT not in ENVIRONMENTS:
        raise ImproperlyConfigured(f"COMMONS_ENVIRONMENT must be one of {', '.join(ENVIRONMENTS)}")
    if settings.COMMONS_ENVIRONMENT != "production":
        return
    problems = list(settings_problems())
    try:
        problems += database_problems()
    except (OperationalError, InterfaceError) as error:
        logger.warning(
            "the database does not answer yet; its roles are not checked", extra={"error": str(error).strip()}
        )
    finally:
        connections.close_all()
    if problems:
        listing = "\n".join(f"- {text} {hint}" for _, text, hint in problems)
        raise ImproperlyConfigured(f"This installation is not safe to run in production:\n{listing}")
