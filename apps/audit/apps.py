"""App configuration of the audit room."""

from django.apps import AppConfig


class AuditConfig(AppConfig):
    """Append-only, hash-chained audit events."""

    name = "apps.audit"
    label = "audit"
