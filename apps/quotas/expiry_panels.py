"""What the workspace's page says about the end of its quota: where it stands, what comes next, what may be done."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from apps.core.permissions import may
from apps.quotas import expiry, limits
from apps.quotas.choices import Rung
from apps.quotas.models import Workspace
from portal.panels import panel

_TONES = {
    Rung.NONE: "positive",
    Rung.STOPPED_ADMITTING: "caution",
    Rung.DRAINED: "caution",
    Rung.ARCHIVED: "neutral",
}


@panel(page="workspace", order=5, permission="quotas.workspace.view")
def workspace_end(request: HttpRequest, workspace: Workspace) -> dict[str, Any]:
    """The expiry ladder of one workspace."""
    standing = expiry.standing_of(workspace)
    step = standing.next
    return {
        "template": "quotas/workspace_end.html",
        "workspace": workspace,
        "standing": standing,
        "rung": Rung(workspace.rung).label,
        "tone": _TONES[Rung(workspace.rung)],
        "step": step,
        "step_label": Rung(step.rung).label if step is not None else "",
        "may_change": may(request.user, "quotas.change.create", workspace),
        "may_drain": expiry.may_drain(standing.facts),
        "limits": limits.in_use(workspace),
    }
