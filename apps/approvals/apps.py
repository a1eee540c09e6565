"""App configuration of the approvals room."""

from django.apps import AppConfig


class ApprovalsConfig(AppConfig):
    """Policy versions, approval requests, stages, decisions, grants."""

    name = "apps.approvals"
    label = "approvals"
