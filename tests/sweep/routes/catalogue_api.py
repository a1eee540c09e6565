"""Cards, regimes, controls and producers through the API."""

from __future__ import annotations

from typing import Any

from apps.catalogue.models import Control, Regime
from tests.sweep.routes.catalogue_evidence import ROUTES as PAGES
from tests.sweep.twins import post, twin
from tests.sweep.types import Route


def _control(world: Any) -> dict[str, Any]:
    return {"uid": Control.objects.filter(superseded_at__isnull=True).earliest("pk").uid}


def _regime(world: Any) -> dict[str, Any]:
    return {"uid": Regime.objects.earliest("pk").uid}


ROUTES: dict[str, Route] = {
    "api:card-revision-list": twin(PAGES["catalogue:producer-list"], allowed=PAGES["catalogue:evidence-list"].allowed),
    "api:card-revision-detail": twin(PAGES["catalogue:card-compare"], "card"),
    "api:model-card": twin(PAGES["catalogue:card-detail"], "model"),
    "api:model-card#PUT": twin(PAGES["catalogue:card-edit"], "model", "PUT"),
    "api:regime-list": twin(PAGES["catalogue:regime-list"]),
    "api:regime-detail": twin(PAGES["catalogue:regime-detail"], kwargs=_regime),
    "api:control-publish": post(PAGES["catalogue:control-publish"], kwargs=_control),
    "api:evidence-producer-list": twin(PAGES["catalogue:producer-list"]),
    "api:evidence-producer-list#POST": post(PAGES["catalogue:producer-create"]),
    "api:evidence-producer-detail": twin(PAGES["catalogue:producer-detail"], "producer"),
    "api:evidence-producer-rotate": post(PAGES["catalogue:producer-rotate"], "producer"),
    "api:signing-key-list": twin(PAGES["catalogue:signing-key-list"]),
    "api:signing-key-list#POST": post(PAGES["catalogue:signing-key-create"]),
    "api:signing-key-detail": twin(PAGES["catalogue:signing-key-detail"], "signing_key"),
    "api:signing-key-revoke": post(PAGES["catalogue:signing-key-revoke"], "signing_key"),
    "api:evidence-producer-revoke": post(PAGES["catalogue:producer-revoke"], "producer"),
}
