"""What enforcement registers with other rooms."""

from __future__ import annotations

import uuid
from collections.abc import Sequence


def register() -> None:
    """Register with baselines, workspaces and the catalogue."""
    from apps.catalogue import ports
    from apps.deployments import enforcement, enforcement_events, verifying  # noqa: F401  (events declare)
    from apps.quotas.baseline import contribute
    from apps.quotas.enforcing import register_enforcement

    contribute(enforcement.contribution)
    register_enforcement("deployments", enforcement.decided_modes)
    ports.on_grant_change("deployments.enforcement", _grants_changed)
    ports.register_verifier("deployments", verifying.verifies_slug)


def _grants_changed(workspace_uids: Sequence[uuid.UUID]) -> None:
    """Declare anew what clusters take, in the transaction in which a grant was given, revoked or ended."""
    from apps.core.actor import Actor
    from apps.deployments import enforcement
    from apps.deployments.models import Enforcement

    rows = Enforcement.objects.filter(workspace__uid__in=list(workspace_uids)).order_by("workspace_id")
    for workspace_id in rows.values_list("workspace_id", flat=True):
        enforcement.refresh(workspace_id, actor=Actor.system("deployments.enforcement"))
