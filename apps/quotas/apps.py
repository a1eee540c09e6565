"""App configuration of the quotas room."""

from django.apps import AppConfig


class QuotasConfig(AppConfig):
    """Workspaces, quotas, quota requests, the pool ledger."""

    name = "apps.quotas"
    label = "quotas"

    def ready(self) -> None:
        """Register quota requests as a subject of approval, and what follows an applied declaration."""
        from apps.approvals.ports import register_subject
        from apps.provisioning.choices import DeclarationKind
        from apps.provisioning.ports import register_owner
        from apps.quotas import events, granting, subjects  # noqa: F401 (events declare themselves on import)

        register_subject(subjects.QuotaRequestSubject())
        subjects.describe_facts()
        register_owner(DeclarationKind.WORKSPACE, on_applied=granting.on_applied)
