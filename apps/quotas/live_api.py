"""Whether a quota is in force or only promised, as the API tells it: worked out once for a whole answer."""

from __future__ import annotations

from typing import Any, cast

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.core import clock
from apps.quotas.live_rows import quota_rows
from apps.quotas.models import Quota, Workspace

_KEY = "quota_standings"
STANDINGS = ("in_force", "promised", "unknown", "scheduled", "ended")


class StandingFields(serializers.Serializer[Any]):
    """`standing`: in_force, promised (others still use its GPUs), unknown (no current figure), scheduled or ended."""

    standing = serializers.SerializerMethodField()
    standing_why = serializers.SerializerMethodField()

    @extend_schema_field(serializers.ChoiceField(choices=[(one, one) for one in STANDINGS]))
    def get_standing(self, quota: Quota) -> str:
        """Whether the GPUs are there for it."""
        return self._stand(quota)[0]

    @extend_schema_field(serializers.CharField(help_text="Why it is not in force; empty where it is."))
    def get_standing_why(self, quota: Quota) -> str:
        """Why not."""
        return self._stand(quota)[1]

    def _stand(self, quota: Quota) -> tuple[str, str]:
        now = clock.now()
        if quota.valid.lower > now:
            return "scheduled", ""
        if quota.valid.upper is not None and quota.valid.upper <= now:
            return "ended", ""
        # The context is the view's own dictionary, made for this answer.
        shared = cast("dict[str, Any]", self.context)
        known: dict[tuple[int, int], tuple[str, str]] | None = shared.get(_KEY)
        if known is None:
            shown = getattr(self.parent, "instance", None) or [quota]
            ids = {one.workspace_id for one in shown}
            workspaces = list(Workspace.objects.filter(pk__in=ids).select_related("cluster"))
            known = {
                (row.workspace.pk, row.flavour.pk): (row.standing, row.standing_why) for row in quota_rows(workspaces)
            }
            shared[_KEY] = known
        return known.get((quota.workspace_id, quota.flavour_id), ("unknown", ""))


__all__ = ["STANDINGS", "StandingFields"]
