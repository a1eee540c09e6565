"""What evidence, controls and requests register with others when the room loads."""

from __future__ import annotations

from django.apps import apps
from django.db.models.signals import post_migrate


def register() -> None:
    """Register events, checks, the subject of approval with its starting policy, and the loading of regimes."""
    from apps.approvals.ports import on_grant_ended, register_subject
    from apps.catalogue import (  # noqa: F401 (events declare)
        controls_checks,
        evidence_events,
        regimes_loading,
        signing_events,
        subject,
    )
    from apps.catalogue.requests import SUBJECT_TYPE

    controls_checks.register()
    register_subject(subject.VersionRequestSubject())
    subject.describe_facts()
    subject.propose_policy()
    on_grant_ended(SUBJECT_TYPE, subject.on_grant_ended)
    post_migrate.connect(
        regimes_loading.after_migrate,
        sender=apps.get_app_config("catalogue"),
        dispatch_uid="catalogue.regimes",
    )
