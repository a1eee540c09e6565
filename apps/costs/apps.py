"""App configuration of the costs room."""

from django.apps import AppConfig


class CostsConfig(AppConfig):
    """Charges, distribution, budgets."""

    name = "apps.costs"
    label = "costs"
