"""What releases and rollouts register with other rooms."""

from __future__ import annotations


def register() -> None:
    """Register releases as a subject of approval, its terms and policy, and who hears of ended grants."""
    from apps.approvals.ports import on_grant_ended, register_subject
    from apps.catalogue.ports import on_grant_change, register_serving
    from apps.deployments import ending, starting_policies, subject
    from apps.deployments.drafting import SUBJECT_TYPE
    from apps.deployments.live_versions import LiveVersions

    register_subject(subject.ReleaseSubject())
    subject.describe()
    starting_policies.register()
    on_grant_ended(SUBJECT_TYPE, ending.on_release_grant_ended)
    on_grant_change("deployments.rollout", ending.on_version_grants_changed)
    register_serving("deployments", LiveVersions())
