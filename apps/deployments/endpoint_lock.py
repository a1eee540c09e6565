"""What every act on an endpoint begins with: the endpoint locked, the person's permission asked, a reason given."""

from __future__ import annotations

from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.permissions import may
from apps.deployments.models import Endpoint

OPERATE = "deployments.release.operate"
MIN_REASON = 10
MAX_REASON = 2000
_RELATED = (
    "workspace__team", "workspace__cluster", "model",
    "current__model_version__model", "current__flavour", "candidate__model_version__model", "candidate__flavour",
)  # fmt: skip


def locked(endpoint_id: int, *, actor: Actor, expected_version: int | None = None) -> Endpoint:
    """Return an endpoint locked, the person's permission checked. Raises NotVisible, NotAllowed, Conflict."""
    if not actor.is_system:
        from apps.accounts.models import User

        user = User.objects.filter(pk=actor.user_id or 0, is_active=True).first()
        seen = Endpoint.objects.visible_to(user).select_related("workspace").filter(pk=endpoint_id).first()
        if user is None or seen is None:
            raise NotVisible
        if not may(user, OPERATE, seen):
            raise NotAllowed("Releases are operated by the team's leads and platform admins.", rule=OPERATE)
    endpoint = Endpoint.objects.locked(endpoint_id, expected_version=expected_version)
    whole = Endpoint.objects.select_related(*_RELATED).get(pk=endpoint.pk)
    if whole.removed_at is not None:
        raise Conflict("This endpoint was removed.", current={"version": whole.version})
    return whole


def checked_reason(reason: str, *, required: bool = True) -> str:
    """Return a reason without blanks around it. Raises Invalid where it is missing or too long."""
    text = reason.strip()
    if required and len(text) < MIN_REASON:
        raise Invalid({"reason": f"Say in at least {MIN_REASON} characters why: it stays in the log."})
    if len(text) > MAX_REASON:
        raise Invalid({"reason": f"At most {MAX_REASON:,} characters."})
    return text
