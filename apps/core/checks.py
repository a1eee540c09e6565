"""System checks: every tenant model's manager must be scoped; foreign keys point down the house."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Error, register

from apps.core.querysets import ScopedQuerySet

#: The order of the rooms (design §2): a foreign key may point to its own room or to one above it in this list.
ROOM_ORDER = [
    "core", "audit", "accounts", "teams", "notifications", "clusters", "rates", "approvals", "provisioning",
    "quotas", "metering", "catalogue", "deployments", "costs", "insights", "planner", "reports", "demo",
]  # fmt: skip


@register()
def foreign_keys_point_down(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """A room's foreign keys lead only to rooms it may import."""
    found: list[CheckMessage] = []
    for model in apps.get_models():
        room = model._meta.app_label
        if room not in ROOM_ORDER:
            continue
        for field in model._meta.get_fields():
            target = getattr(field, "related_model", None)
            if not getattr(field, "concrete", False) or target is None or isinstance(target, str):
                continue
            other = target._meta.app_label
            if other in ROOM_ORDER and ROOM_ORDER.index(other) > ROOM_ORDER.index(room):
                found.append(Error(f"{model.__name__}.{field.name} points up to {other}", obj=model, id="core.E001"))
    return found


@register()
def tenant_models_are_scoped(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """A model that belongs to a team or unit has a manager with `visible_to` of its own."""
    found: list[CheckMessage] = []
    for model in apps.get_models():
        names = {field.name for field in model._meta.get_fields() if getattr(field, "concrete", False)}
        if model._meta.app_label not in ROOM_ORDER or not names & {
            "team",
            "unit",
            "workspace",
            "team_id_at",
            "unit_id_at",
        }:
            continue
        queryset = model._default_manager.all()
        if not isinstance(queryset, ScopedQuerySet) or type(queryset).visible_to is ScopedQuerySet.visible_to:
            found.append(
                Error(
                    f"{model.__name__} has a tenant column but its manager has no visible_to()",
                    obj=model,
                    id="core.E002",
                )
            )
    return found
