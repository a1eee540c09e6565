"""App configuration of the provisioning room."""

from django.apps import AppConfig


class ProvisioningConfig(AppConfig):
    """Declarations, plans, apply runs, observation, drift."""

    name = "apps.provisioning"
    label = "provisioning"
