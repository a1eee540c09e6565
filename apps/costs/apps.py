"""App configuration of the costs room."""

from django.apps import AppConfig


class CostsConfig(AppConfig):
    """Charges, daily charges, budgets: listens to metering, and answers approvals' question for the budget."""

    name = "apps.costs"
    label = "costs"

    def ready(self) -> None:
        """Register the listener, the fact provider, and where secrets are stored."""
        from apps.core.crypto import register_secrets
        from apps.costs import (
            checks,  # noqa: F401  (registers the system checks)
            corrections_books,
            facts,
            period_calendar,
            pricing,
            whatif_reading,
        )
        from apps.metering import ports
        from apps.rates import ports as rates_ports

        ports.on_hours_written("costs.charges", pricing.price_hours)
        ports.register_freeze("costs.periods", period_calendar.frozen_hours)
        corrections_books.register()
        facts.register()
        rates_ports.on_effect("costs.last_month", whatif_reading.effect_of)
        register_secrets("costs.CheckSetting", "credentials", "cross-checks")
