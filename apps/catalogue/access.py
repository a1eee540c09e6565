"""Who may do what with the catalogue's rows: asked by every action, under its lock."""

from __future__ import annotations

from apps.accounts.models import User
from apps.catalogue.models import Model, ModelVersion
from apps.core.actor import Actor
from apps.core.errors import NotAllowed, NotVisible
from apps.core.permissions import INSTALLATION, may

VIEW = "catalogue.model.view"
EDIT = "catalogue.model.edit"
MANAGE = "catalogue.model.manage"
STORE_VIEW = "catalogue.store.view"
STORE_MANAGE = "catalogue.store.manage"

_WORDS = {
    EDIT: "Versions are edited by members of the team that owns the model.",
    MANAGE: "This is for leads of the team that owns the model.",
    STORE_MANAGE: "Stores are kept by platform admins.",
}


def person(actor: Actor) -> User:
    """Return who acts. Raises NotAllowed where it is nobody who may sign in."""
    found = User.objects.filter(pk=actor.user_id, is_active=True).first() if actor.user_id is not None else None
    if found is None:
        raise NotAllowed("Only a person can do this.")
    return found


def require(actor: Actor, permission: str, obj: object) -> None:
    """Raise NotAllowed unless the actor holds `permission` for `obj`; the portal itself may do what its code does."""
    if not actor.is_system and not may(person(actor), permission, obj):
        raise NotAllowed(_WORDS.get(permission, ""), rule=permission)


def require_everywhere(actor: Actor, permission: str) -> None:
    """The same for what belongs to the installation."""
    require(actor, permission, INSTALLATION)


def locked_model(model_id: int, permission: str, *, actor: Actor, expected_version: int | None = None) -> Model:
    """Return a model locked for this transaction. Raises NotVisible, NotAllowed, Conflict."""
    if not actor.is_system and not Model.objects.visible_to(person(actor)).filter(pk=model_id).exists():
        raise NotVisible
    model = Model.objects.select_related("team").locked(model_id, expected_version=expected_version)
    require(actor, permission, model)
    return model


def locked_version(
    version_id: int, permission: str, *, actor: Actor, expected_version: int | None = None
) -> ModelVersion:
    """Return a version locked for this transaction. Raises NotVisible, NotAllowed, Conflict."""
    if not actor.is_system and not ModelVersion.objects.visible_to(person(actor)).filter(pk=version_id).exists():
        raise NotVisible
    rows = ModelVersion.objects.select_related("model__team", "store")
    version = rows.locked(version_id, expected_version=expected_version)
    require(actor, permission, version)
    return version
