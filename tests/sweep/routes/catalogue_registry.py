"""Routes of registries: the installation's; findings and entries are the owning team's."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from apps.catalogue.models import Registry, RegistryFinding, RegistryModel
from apps.core import clock
from tests.catalogue.world import make_model
from tests.sweep.types import EVERYBODY, Route

_VIEW, _ADMIN = {"compliance", "admin", "auditor"}, {"admin"}
_LISTS = EVERYBODY - {"expired"}
_SEE = {"member_finance", "lead_finance", "vp", "compliance", "finance", "admin", "auditor"}
_NOTE = {"lead_finance", "admin"}


def build(world: SimpleNamespace) -> None:
    """A registry with an entry of finance, one of a foreign tenant, one of nobody, and findings about each."""
    at = clock.now()
    world.registry = Registry.objects.create(
        slug="sweep-registry", name="Sweep registry", kind="mlflow", base_url="https://mlflow.example.com",
        credentials=b"opened by no key: so the sweep, which runs in one transaction, calls nobody",
        keeper=world.admin, enabled=False,
    )  # fmt: skip
    own = make_model(world.finance_team, "Sweep registered")
    foreign = make_model(world.foreign_team, "Quagga registered")

    def entry(name: str, model: Any) -> RegistryModel:
        return RegistryModel.objects.create(
            registry=world.registry, foreign_id=name, name=name, model=model, seen={"tags": {}}, first_seen_at=at,
            last_seen_at=at,
        )  # fmt: skip

    def finding(of: RegistryModel, before: str) -> RegistryFinding:
        return RegistryFinding.objects.create(
            registry=world.registry, registry_model=of, kind="rewritten_tag", key="sha256", before=before, found_at=at
        )

    world.registered, world.unowned = entry("okapi-scores", own), entry("numbat-scores", None)
    world.registry_finding = finding(world.registered, "okapi-before")
    finding(entry("quagga-scores", foreign), "quagga-before")
    finding(world.unowned, "numbat-before")
    world.keep_secret("okapi-scores", "okapi-before", sees=_SEE)
    world.keep_secret("quagga-scores", "quagga-before", "Quagga registered", sees={"vp_other"})
    world.keep_secret("numbat-scores", "numbat-before", "mlflow.example.com")


def _registry(world: Any) -> Mapping[str, Any]:
    return {"registry_uid": world.registry.uid}


def _entry(world: Any) -> Mapping[str, Any]:
    return {"entry_uid": world.unowned.uid}


def _finding(world: Any) -> Mapping[str, Any]:
    return {"finding_uid": world.registry_finding.uid}


def _uid(name: str) -> Any:
    return lambda world: {"uid": getattr(world, name).uid}


def _both(name: str, allowed: set[str], kwargs: Any, note: str = "") -> dict[str, Route]:
    return {
        name: Route(allowed=allowed, kwargs=kwargs),
        f"{name}#POST": Route(allowed=allowed, kwargs=kwargs, method="POST", note=note),
    }


_API = "api:registry"
ROUTES: dict[str, Route] = {
    "catalogue:registry-list": Route(allowed=_VIEW),
    **_both("catalogue:registry-create", _ADMIN, lambda world: {}),
    "catalogue:registry-detail": Route(allowed=_VIEW, kwargs=_registry),
    **_both("catalogue:registry-edit", _ADMIN, _registry),
    "catalogue:registry-test": Route(allowed=_ADMIN, kwargs=_registry, note="POST calls it: its own tests do"),
    **_both("catalogue:registry-poll", _ADMIN, _registry),
    **_both("catalogue:registry-enable", _ADMIN, _registry),
    **_both("catalogue:registry-disable", _ADMIN, _registry),
    "catalogue:registry-model-list": Route(allowed=_LISTS),
    **_both("catalogue:registry-model-assign", _ADMIN, _entry),
    "catalogue:registry-finding-list": Route(allowed=_LISTS),
    **_both("catalogue:registry-finding-acknowledge", _NOTE, _finding),
    f"{_API}-list": Route(allowed=_VIEW),
    f"{_API}-list#POST": Route(allowed=_ADMIN, method="POST"),
    f"{_API}-detail": Route(allowed=_VIEW, kwargs=_uid("registry")),
    f"{_API}-detail#PATCH": Route(allowed=_ADMIN, kwargs=_uid("registry"), method="PATCH"),
    f"{_API}-test": Route(
        allowed=_ADMIN, kwargs=_uid("registry"), method="POST", note="no key opens its credentials: nobody is called"
    ),
    f"{_API}-poll": Route(allowed=_ADMIN, kwargs=_uid("registry"), method="POST"),
    f"{_API}-enable": Route(allowed=_ADMIN, kwargs=_uid("registry"), method="POST"),
    f"{_API}-disable": Route(allowed=_ADMIN, kwargs=_uid("registry"), method="POST"),
    f"{_API}-events": Route(
        allowed=EVERYBODY, public=True, kwargs=lambda world: {"slug": world.registry.slug}, method="POST",
        ok=frozenset({401}), note="signed by the registry: nobody signs in, and an unsigned event is refused",
    ),
    "api:registered-model-list": Route(allowed=_LISTS),
    "api:registered-model-detail": Route(allowed=_SEE, kwargs=_uid("registered")),
    "api:registered-model-assign": Route(allowed=_ADMIN, kwargs=_uid("unowned"), method="POST"),
    "api:registry-finding-list": Route(allowed=_LISTS),
    "api:registry-finding-detail": Route(allowed=_SEE, kwargs=_uid("registry_finding")),
    "api:registry-finding-acknowledge": Route(allowed=_NOTE, kwargs=_uid("registry_finding"), method="POST"),
}  # fmt: skip
