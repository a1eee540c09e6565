"""App configuration of the insights room."""

from django.apps import AppConfig


class InsightsConfig(AppConfig):
    """Findings and idle cases."""

    name = "apps.insights"
    label = "insights"

    def ready(self) -> None:
        """Learn what becomes of orders to stop idle workloads."""
        from apps.insights import idle
        from apps.provisioning import stopping
        from apps.provisioning.choices import StopCause

        stopping.register_cause(
            StopCause.IDLE, on_stopped=idle.on_stopped, on_undone=idle.on_undone, on_ended=idle.on_ended
        )
