"""App configuration of the quotas room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from django.apps import AppConfig

if TYPE_CHECKING:
    from apps.provisioning.models import Declaration


class QuotasConfig(AppConfig):
    """Workspaces, quotas, quota requests, the pool ledger."""

    name = "apps.quotas"
    label = "quotas"

    def ready(self) -> None:
        """Register quota requests as a subject of approval, and what follows an applied declaration."""
        from apps.approvals.ports import register_subject
        from apps.clusters.administering import register_kueue_objection
        from apps.clusters.pool_ports import register_pool_check
        from apps.clusters.removing import register_archive_objection
        from apps.provisioning.choices import DeclarationKind
        from apps.provisioning.ports import register_adoption, register_owner
        from apps.quotas import (  # noqa: F401 (events declare)
            change_events,
            change_granting,
            cluster_objections,
            drift_changes,
            events,
            granting,
            guard,
            pool_layout,
            subjects,
        )
        from apps.quotas.adopting_change import AdoptNamespaceHandler
        from apps.quotas.adopting_change import describe_facts as describe_adoption_facts
        from apps.quotas.baseline import BaselineHandler, contribute
        from apps.quotas.change_subject import ChangeRequestSubject
        from apps.quotas.change_subject import describe_facts as describe_change_facts
        from apps.quotas.changes import register_change
        from apps.quotas.drift_changes import AdoptDriftHandler
        from apps.quotas.expiry_changes import ArchiveChange, ExpiryPolicyChange, RestoreChange
        from apps.quotas.idle_policy_change import IdlePolicyHandler
        from apps.quotas.limits import LimitsChange
        from apps.quotas.starting_policies import register as register_starting_policies
        from apps.quotas.team_objections import workspaces
        from apps.teams.ports import register_team_objection

        register_starting_policies()
        register_team_objection(workspaces)
        register_subject(subjects.QuotaRequestSubject())
        subjects.describe_facts()
        register_subject(ChangeRequestSubject())
        describe_change_facts()
        register_change(BaselineHandler())
        register_change(AdoptDriftHandler())
        register_adoption(drift_changes.refusals)
        register_change(AdoptNamespaceHandler())
        describe_adoption_facts()
        contribute(guard.contribution)
        register_change(IdlePolicyHandler())
        for handler in (ExpiryPolicyChange(), ArchiveChange(), RestoreChange(), LimitsChange()):
            register_change(handler)
        register_owner(DeclarationKind.WORKSPACE, on_applied=_workspace_applied, concerned=_concerned)
        register_owner(DeclarationKind.BASELINE, on_applied=change_granting.on_applied)
        register_pool_check(pool_layout.check_pool)
        register_kueue_objection(cluster_objections.kueue)
        register_archive_objection(cluster_objections.archive)


def _workspace_applied(declaration: Declaration) -> None:
    """A workspace's declaration is on its cluster: quota requests and changes that it carries are applied."""
    from apps.quotas import change_granting, granting

    granting.on_applied(declaration)
    change_granting.on_applied(declaration)


def _concerned(declarations: Sequence[Declaration]) -> set[int]:
    """Return which of many applied declarations carry a quota request or a change that waits to be applied."""
    from apps.quotas.choices import RequestStatus
    from apps.quotas.models import ChangeRequest, QuotaRequest

    waiting = QuotaRequest.objects.filter(
        workspace__uid__in=[row.owner_uid for row in declarations], status=RequestStatus.APPLYING
    )
    owners = set(waiting.values_list("workspace__uid", flat=True))
    changes = ChangeRequest.objects.filter(
        cluster__in={row.cluster_id for row in declarations}, status=RequestStatus.APPLYING
    )
    carried = {uid for generations in changes.values_list("generations", flat=True) for uid in generations}
    return {row.pk for row in declarations if row.owner_uid in owners or str(row.uid) in carried}
