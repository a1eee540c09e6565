"""App configuration of the quotas room."""

from django.apps import AppConfig


class QuotasConfig(AppConfig):
    """Workspaces, quotas, quota requests, the pool ledger."""

    name = "apps.quotas"
    label = "quotas"
