"""Settings of the portal, read from the environment only (every variable is described in `.env.example`)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import environ

from portal.openapi_names import ENUM_NAMES

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()

VERSION = "0.1.0"

# -- What kind of installation this is ------------------------------------------------------------------------------
# development and demo are allowed to run without secrets of their own; production refuses to start (portal.checks).
COMMONS_ENVIRONMENT: str = env.str("COMMONS_ENVIRONMENT", default="development")
COMMONS_DEMO: bool = env.bool("COMMONS_DEMO", default=False)
COMMONS_DIR: Path = Path(env.str("COMMONS_DIR", default=str(BASE_DIR / ".commons"))).resolve()
DEBUG = env.bool("COMMONS_DEBUG", default=False)

_DEVELOPMENT_SECRET = "development-only-secret-key-do-not-use-in-production-0000000000"  # noqa: S105 (refused by portal.checks)
SECRET_KEY = env.str("COMMONS_SECRET_KEY", default=_DEVELOPMENT_SECRET)
# Fernet keys, newest first, separated by commas: encrypt cluster credentials at rest.
COMMONS_CREDENTIALS_KEYS: list[str] = env.list(
    "COMMONS_CREDENTIALS_KEY", default=["ZGV2ZWxvcG1lbnQtb25seS1rZXktMDAwMDAwMDAwMDA="]
)
# Ed25519 seeds, newest first: sign checkpoints of the audit trail and statements of placement. Only processes that sign
# (worker, beat) need them; others may know the public keys alone.
COMMONS_SIGNING_KEYS: list[str] = env.list("COMMONS_SIGNING_KEY", default=[])
COMMONS_SIGNING_PUBLIC_KEYS: list[str] = env.list("COMMONS_SIGNING_PUBLIC_KEYS", default=[])
# Where signed checkpoints of the audit trail go: folders that the database's administrators cannot write to, and mail
# addresses. How often, in minutes: that long, an administrator of the database could still rewrite the newest events.
COMMONS_CHECKPOINT_DIRS: list[str] = env.list("COMMONS_CHECKPOINT_DIRS", default=[])
COMMONS_CHECKPOINT_MAIL: list[str] = env.list("COMMONS_CHECKPOINT_MAIL", default=[])
COMMONS_CHECKPOINT_MINUTES: int = env.int("COMMONS_CHECKPOINT_MINUTES", default=60)
# Networks (CIDR) in which clusters and metrics servers may live; empty: any that is not link-local or metadata.
COMMONS_CLUSTER_ALLOWED_NETWORKS: list[str] = env.list("COMMONS_CLUSTER_ALLOWED_NETWORKS", default=[])
# Image (name@sha256:…) of the verifying storage container (deploy/verifier); empty: no cluster verifies what it loads.
COMMONS_VERIFIER_IMAGE: str = env.str("COMMONS_VERIFIER_IMAGE", default="")
# Images that the platform itself puts into pods of regulated workspaces, exactly as pods name them.
COMMONS_PLATFORM_IMAGES: list[str] = env.list("COMMONS_PLATFORM_IMAGES", default=[])
# How long the guard notes who changes the portal's objects before it may refuse them without a confirmation.
COMMONS_GUARD_AUDIT_HOURS: int = env.int("COMMONS_GUARD_AUDIT_HOURS", default=24)
# Networks (CIDR) in which the portal calls nothing, even where they are allowed above.
COMMONS_CLUSTER_DENIED_NETWORKS: list[str] = env.list("COMMONS_CLUSTER_DENIED_NETWORKS", default=[])
ALLOWED_HOSTS: list[str] = env.list("COMMONS_ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS: list[str] = env.list("COMMONS_TRUSTED_ORIGINS", default=[])
COMMONS_BASE_URL: str = env.str("COMMONS_BASE_URL", default=f"http://localhost:{env.int('PORT', default=8000)}").rstrip(
    "/"
)

# -- Business settings ----------------------------------------------------------------------------------------------
COMMONS_ORGANISATION: str = env.str("COMMONS_ORGANISATION", default="GPU Commons")
COMMONS_CURRENCY: str = env.str("COMMONS_CURRENCY", default="USD")
# Whole hours from UTC, e.g. "+00:00", "+05:00"; months are cut there (design §7).
COMMONS_BILLING_TIMEZONE: str = env.str("COMMONS_BILLING_TIMEZONE", default="+00:00")
COMMONS_IMPORT_MAX_BYTES: int = env.int("COMMONS_IMPORT_MAX_BYTES", default=64 * 1024 * 1024)
# Where uploaded bytes are kept, by their digest; every web and worker process must see the same folder.
COMMONS_BLOB_DIR: Path = Path(env.str("COMMONS_BLOB_DIR", default="") or COMMONS_DIR / "blobs").resolve()
COMMONS_UPLOAD_MAX_BYTES: int = env.int("COMMONS_UPLOAD_MAX_BYTES", default=5 * 1024 * 1024 * 1024)
# Where KServe's loggers send records of predictions, as clusters reach it; empty: no release can keep them.
COMMONS_PREDICTION_SINK_URL: str = env.str("COMMONS_PREDICTION_SINK_URL", default="")
# "host:port" of clamd, which looks at every uploaded file; empty: nothing does, and pages say so.
COMMONS_SCANNER: str = env.str("COMMONS_SCANNER", default="")
# Volumes of models that are mounted here, as name=path: what pvc:// stores are hashed from.
COMMONS_MODEL_MOUNTS: list[str] = env.list("COMMONS_MODEL_MOUNTS", default=[])
# Allocated GPU time of workload-hours used below this share (per mille) counts as idle.
COMMONS_IDLE_PERMILLE: int = env.int("COMMONS_IDLE_PERMILLE", default=20)
# Guaranteed but unused: days looked at; days that a quota must have been held; spare over the peak that stays, per
# cent; the least that is worth returning, in units and per cent of the guaranteed; hours that may be unknown, per
# mille.
COMMONS_HOARDING_DAYS: int = env.int("COMMONS_HOARDING_DAYS", default=14)
COMMONS_HOARDING_MIN_HELD_DAYS: int = env.int("COMMONS_HOARDING_MIN_HELD_DAYS", default=7)
COMMONS_HOARDING_MARGIN_PERCENT: int = env.int("COMMONS_HOARDING_MARGIN_PERCENT", default=10)
COMMONS_HOARDING_MIN_UNITS: int = env.int("COMMONS_HOARDING_MIN_UNITS", default=1)
COMMONS_HOARDING_MIN_PERCENT: int = env.int("COMMONS_HOARDING_MIN_PERCENT", default=20)
COMMONS_HOARDING_MAX_GAP_PERMILLE: int = env.int("COMMONS_HOARDING_MAX_GAP_PERMILLE", default=50)

# -- Rooms ----------------------------------------------------------------------------------------------------------
ROOMS = [
    "apps.core",
    "apps.audit",
    "apps.accounts",
    "apps.teams",
    "apps.notifications",
    "apps.clusters",
    "apps.rates",
    "apps.approvals",
    "apps.provisioning",
    "apps.quotas",
    "apps.catalogue",
    "apps.metering",
    "apps.deployments",
    "apps.costs",
    "apps.insights",
    "apps.reports",
]
if COMMONS_DEMO or env.bool("COMMONS_WITH_DEMO_ROOM", default=False):
    ROOMS.append("apps.demo")

INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "django.contrib.humanize",
    "django_htmx",
    "django_filters",
    "django_tables2",
    "template_partials",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "portal",
    *ROOMS,
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "apps.core.middleware.RequestIdMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "apps.accounts.middleware.AuthenticationMiddleware",
    "portal.acting.ActingMiddleware",
    "apps.accounts.api_limits.ApiLimitMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "portal.middleware.ErrorMiddleware",
    "apps.core.middleware.ReadTransactionMiddleware",
]

ROOT_URLCONF = "portal.urls"
WSGI_APPLICATION = "portal.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "apps.accounts.context.user",
                "django.contrib.messages.context_processors.messages",
                "portal.context.shell",
            ],
            "builtins": ["apps.core.templatetags.commons"],
        },
    }
]
FORM_RENDERER = "portal.forms.CommonsFormRenderer"
DJANGO_TABLES2_TEMPLATE = "components/table.html"
#: A filter that is not set says so, rather than with a row of dashes.
FILTERS_EMPTY_CHOICE_LABEL = "All"

# -- Database: run time under commons_app, migrations under MIGRATE_DATABASE_URL (design §6) -------------------------
# The commands that create or alter objects run as their owner; nothing else may.
_OWNER_COMMANDS = {"migrate", "bootstrap_database", "makemigrations", "sqlmigrate", "showmigrations", "audit_floor"}
RUNS_AS_OWNER = len(sys.argv) > 1 and sys.argv[1] in _OWNER_COMMANDS
_default_database = "postgres://commons_app@127.0.0.1:5432/commons"
_database_url = env.str("DATABASE_URL", default=_default_database)
if RUNS_AS_OWNER:
    _database_url = env.str("MIGRATE_DATABASE_URL", default=_database_url)
_database: dict[str, Any] = dict(env.db_url_config(_database_url))
_database.update(CONN_MAX_AGE=0, CONN_HEALTH_CHECKS=True, ATOMIC_REQUESTS=False)
_options: dict[str, Any] = dict(_database.get("OPTIONS") or {})
if RUNS_AS_OWNER:
    _options["assume_role"] = "commons_owner"
else:
    # Waiting for ever on a lock helps nobody; a refused statement is retried by its caller or by the sweep. Compiling a
    # statement takes PostgreSQL longer than any of ours runs, and policies of row security make it believe otherwise.
    _options.setdefault(
        "options", "-c lock_timeout=15s -c idle_in_transaction_session_timeout=60s -c TimeZone=UTC -c jit=off"
    )
    if env.bool("COMMONS_DATABASE_POOL", default=False):
        _options["pool"] = {"min_size": 1, "max_size": env.int("COMMONS_DATABASE_POOL_SIZE", default=8), "timeout": 5}
_options.setdefault("connect_timeout", 5)
_database["OPTIONS"] = _options
DATABASES = {"default": _database}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# -- Broker ---------------------------------------------------------------------------------------------------------
REDIS_URL: str = env.str("REDIS_URL", default="redis://127.0.0.1:6379/0")
CELERY_BROKER_URL = REDIS_URL
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = True
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_TIME_LIMIT = 900
CELERY_TASK_SOFT_TIME_LIMIT = 840
CELERY_TIMEZONE = "UTC"
# A nudge must never hang or fail a request because Redis is away: the sweep over rows is the guarantee.
CELERY_TASK_PUBLISH_RETRY = False
# `retry=False` covers the message only; kombu would still spend six seconds on reaching the broker without max_retries.
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "socket_connect_timeout": 0.5,
    # A connection that hangs may be tried twice, so a page waits a second. Workers have more patience (portal.celery):
    # nobody waits in front of them.
    "socket_timeout": 0.5,
    "visibility_timeout": 1200,
    "max_retries": 0,
}
# A worker whose broker is away for an afternoon waits; after Celery's hundred tries it would leave.
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_TASK_ROUTES = {
    "provisioning.*": {"queue": "apply"},
    "metering.*": {"queue": "ingest"},
    "costs.*": {"queue": "ingest"},
    "notifications.*": {"queue": "mail"},
}
CELERY_TASK_DEFAULT_QUEUE = "default"

# -- Identity -------------------------------------------------------------------------------------------------------
AUTH_USER_MODEL = "accounts.User"
LOGIN_URL = "/sign-in/"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "/sign-in/"
AUTHENTICATION_BACKENDS = ["apps.accounts.backends.PasswordBackend"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.PBKDF2PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "apps.accounts.local_sign_in.NotAboutThePerson"},
]
SESSION_ENGINE = "django.contrib.sessions.backends.db"
SESSION_COOKIE_AGE = env.int("COMMONS_SESSION_SECONDS", default=8 * 3600)
# A session opened at an identity provider: after so long the provider is asked again whether it still knows the person.
COMMONS_OPENID_SESSION_SECONDS: int = env.int("COMMONS_OPENID_SESSION_SECONDS", default=SESSION_COOKIE_AGE)
# A session in which nobody did anything for so long ends; what pages ask for by themselves does not count.
COMMONS_SESSION_IDLE_SECONDS: int = env.int("COMMONS_SESSION_IDLE_SECONDS", default=3600)
# Who may sign in with a password here: all, admins (platform admins) or off (nobody).
COMMONS_LOCAL_SIGN_IN: str = env.str("COMMONS_LOCAL_SIGN_IN", default="all")
# Who still needs what is asked every quarter ("quarterly"), or only when somebody begins a review ("by_hand").
# In a sample company nobody answers, and everybody's roles would lapse.
COMMONS_ACCESS_REVIEWS: str = env.str("COMMONS_ACCESS_REVIEWS", default="by_hand" if COMMONS_DEMO else "quarterly")
# Whether a session opened with a password needs a second factor: optional or required.
COMMONS_SECOND_FACTOR: str = env.str("COMMONS_SECOND_FACTOR", default="optional")
# Days after which a password has to be changed; 0: never.
COMMONS_PASSWORD_MAX_AGE_DAYS: int = env.int("COMMONS_PASSWORD_MAX_AGE_DAYS", default=0)
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_FAILURE_VIEW = "portal.errors.csrf_failure"

# -- Transport security ---------------------------------------------------------------------------------------------
_secure = COMMONS_ENVIRONMENT == "production"
SESSION_COOKIE_SECURE = _secure
CSRF_COOKIE_SECURE = _secure
SECURE_SSL_REDIRECT = env.bool("COMMONS_SSL_REDIRECT", default=_secure)
SECURE_REDIRECT_EXEMPT = [r"^health$", r"^ready$"]
SECURE_HSTS_SECONDS = env.int("COMMONS_HSTS_SECONDS", default=31536000 if _secure else 0)
SECURE_HSTS_INCLUDE_SUBDOMAINS = _secure
SECURE_HSTS_PRELOAD = _secure
SECURE_PROXY_SSL_HEADER = (
    ("HTTP_X_FORWARDED_PROTO", "https") if env.bool("COMMONS_BEHIND_PROXY", default=False) else None
)
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "script-src": ["'self'"],
        # Plotly writes style elements; nothing of ours does (design §8).
        "style-src": ["'self'", "'unsafe-inline'"],
        "img-src": ["'self'", "data:", "blob:"],
        "font-src": ["'self'", "data:"],
        "connect-src": ["'self'"],
        "object-src": ["'none'"],
        "base-uri": ["'self'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
    }
}
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024
FILE_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024

# -- Mail -----------------------------------------------------------------------------------------------------------
EMAIL_CONFIG = env.email_url("COMMONS_EMAIL_URL", default="consolemail://")
if EMAIL_CONFIG.get("EMAIL_FILE_PATH"):
    # django-environ drops the slash that makes filemail:///folder an absolute path.
    EMAIL_CONFIG["EMAIL_FILE_PATH"] = "/" + EMAIL_CONFIG["EMAIL_FILE_PATH"].lstrip("/")
vars().update(EMAIL_CONFIG)
DEFAULT_FROM_EMAIL = env.str("COMMONS_MAIL_FROM", default="GPU Commons <gpu-commons@example.com>")
EMAIL_TIMEOUT = 10

# -- Language, time, static files -----------------------------------------------------------------------------------
LANGUAGE_CODE = "en-gb"
USE_I18N = True
USE_TZ = True
TIME_ZONE = "UTC"
STATIC_URL = "/static/"
STATIC_ROOT = Path(env.str("COMMONS_STATIC_ROOT", default=str(COMMONS_DIR / "static")))
STATICFILES_DIRS = [path for path in (BASE_DIR / "static", BASE_DIR / "static_vendor") if path.is_dir()]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"
        if _secure
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}
WHITENOISE_KEEP_ONLY_HASHED_FILES = True
# Outside production WhiteNoise serves straight from the source folders: no collectstatic step in the demo.
WHITENOISE_USE_FINDERS = not _secure
WHITENOISE_AUTOREFRESH = False

# -- API ------------------------------------------------------------------------------------------------------------
# Calls a minute per token or person, and per address for calls without a valid one; counted in Redis.
COMMONS_API_LIMITED: bool = env.bool("COMMONS_API_LIMITED", default=True)
COMMONS_API_PER_MINUTE: int = env.int("COMMONS_API_PER_MINUTE", default=600)
COMMONS_API_ANONYMOUS_PER_MINUTE: int = env.int("COMMONS_API_ANONYMOUS_PER_MINUTE", default=60)
# Calls a minute of one directory's token: a first run over everybody sends many.
COMMONS_SCIM_PER_MINUTE: int = env.int("COMMONS_SCIM_PER_MINUTE", default=3000)
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "apps.accounts.api_auth.TokenAuthentication",
        "apps.accounts.api_auth.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["apps.core.parsers.JSONParser"],
    "DEFAULT_PAGINATION_CLASS": "apps.core.paging.CursorPagination",
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "DEFAULT_SCHEMA_CLASS": "portal.openapi_fields.CommonsAutoSchema",
    "DEFAULT_THROTTLE_CLASSES": ["apps.accounts.api_limits.CallerThrottle"],
    "EXCEPTION_HANDLER": "apps.core.api.problem_handler",
    "UNAUTHENTICATED_USER": None,
    "COERCE_DECIMAL_TO_STRING": True,
    "PAGE_SIZE": 50,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "GPU Commons API",
    "DESCRIPTION": "Quota, approvals, models, releases, clusters, usage, costs and audit of the shared GPU pool."
    " Refusals are RFC 9457 problems. Rows carry their version as ETag; send it back as If-Match."
    " A changing call that carries an Idempotency-Key is done once, however often it is sent within a day."
    " RateLimit-Limit, RateLimit-Remaining and RateLimit-Reset (seconds) say how many calls are left in this minute;"
    " beyond them the answer is 429 with Retry-After.",
    "VERSION": VERSION,
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "COMPONENT_SPLIT_REQUEST": True,
    "POSTPROCESSING_HOOKS": ["drf_spectacular.hooks.postprocess_schema_enums", "portal.openapi.describe"],
    "ENUM_NAME_OVERRIDES": ENUM_NAMES,
}

# -- Logs: one JSON object a line, with the request id; never a secret -----------------------------------------------
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"request_id": {"()": "apps.core.logs.RequestIdFilter"}},
    "formatters": {"json": {"()": "apps.core.logs.JsonFormatter"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "json", "filters": ["request_id"]}},
    "root": {"handlers": ["console"], "level": env.str("COMMONS_LOG_LEVEL", default="INFO")},
    "loggers": {"django.server": {"level": "WARNING"}},
}
SILENCED_SYSTEM_CHECKS = ["security.W021"] if not _secure else []
