"""Routes of models, versions, files and stores: finance's are finance's; stores are the installation's."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from apps.catalogue.models import HashJob, StoredCopy, Upload
from tests.catalogue.world import add_source, make_model, make_sealed, make_store, make_version
from tests.sweep.types import Route

_SEE = {"member_finance", "lead_finance", "vp", "compliance", "finance", "admin", "auditor"}
_LISTS = _SEE | {"lead_marketing", "vp_other"}
#: Hold the permission somewhere, so that a form that names the team itself opens for them.
_ANY_LEAD = {"lead_finance", "lead_marketing"}
_EDIT, _MANAGE = {"member_finance", "lead_finance"}, {"lead_finance"}
_STORES, _STORE_ADMIN = {"compliance", "admin", "auditor"}, {"admin"}


def build(world: SimpleNamespace) -> None:
    """A model of finance with a draft, a sealed version and one that is hashed; one of a foreign team; two stores."""
    author = world.member_finance
    world.model = make_model(world.finance_team, "Sweep fraud scoring", slug="sweep-fraud")
    make_sealed(world.model, author, "1.0.0")
    world.sealed = make_sealed(world.model, author, "7.1.0-zebra")
    world.draft = make_version(world.model, author, "7.2.0-zebra")
    world.source = add_source(world.draft, "Okapi payments")
    world.model_store = make_store("s3", name="Sweep store")
    world.hashing = make_version(
        world.model, author, "7.3.0-zebra", scheme="s3", store=world.model_store, status="hashing"
    )
    HashJob.objects.create(model_version=world.hashing, requested_by=author, status="running", bytes_total=10)
    world.copy = StoredCopy.objects.create(
        model_version=world.sealed, store=make_store(takes_copies=True), requested_by=world.lead_finance,
        location=f"s3://models/sha256/{world.sealed.digest}",
    )  # fmt: skip
    world.upload = Upload.objects.create(model_version=world.draft, path="big.bin", size=10, author=author)
    foreign = make_model(world.foreign_team, "Quagga imaging", slug="quagga-imaging")
    foreign_version = make_sealed(foreign, world.foreign_lead, "9.9.9-quagga")
    world.keep_secret("Quagga imaging", "9.9.9-quagga", foreign_version.digest, sees={"vp_other"})
    world.keep_secret(
        "Sweep fraud scoring", "7.1.0-zebra", world.sealed.digest, "Okapi payments", "big.bin",
        sees={"member_finance", "lead_finance", "vp"},
    )  # fmt: skip
    world.keep_secret("storage.example.com", sees=set())


def _model(world: Any) -> Mapping[str, Any]:
    return {"model_uid": world.model.uid}


def _draft(world: Any) -> Mapping[str, Any]:
    return {"version_uid": world.draft.uid}


def _sealed(world: Any) -> Mapping[str, Any]:
    return {"version_uid": world.sealed.uid}


def _hashing(world: Any) -> Mapping[str, Any]:
    return {"version_uid": world.hashing.uid}


def _file(world: Any) -> Mapping[str, Any]:
    return {"file_uid": world.draft.files.get().uid}


def _source(world: Any) -> Mapping[str, Any]:
    return {"source_uid": world.source.uid}


def _store(world: Any) -> Mapping[str, Any]:
    return {"store_uid": world.model_store.uid}


def _uid(name: str) -> Any:
    return lambda world: {"uid": getattr(world, name).uid}


def _both(name: str, allowed: set[str], kwargs: Any) -> dict[str, Route]:
    """A form: the question and the answer."""
    return {
        name: Route(allowed=allowed, kwargs=kwargs),
        f"{name}#POST": Route(allowed=allowed, kwargs=kwargs, method="POST"),
    }


ROUTES: dict[str, Route] = {
    "catalogue:model-list": Route(allowed=_LISTS),
    "catalogue:version-list": Route(allowed=_LISTS),
    **_both("catalogue:model-create", _ANY_LEAD, lambda world: {}),
    "catalogue:model-detail": Route(allowed=_SEE, kwargs=_model),
    **_both("catalogue:model-edit", _MANAGE, _model),
    **_both("catalogue:model-archive", _MANAGE, _model),
    **_both("catalogue:model-restore", _MANAGE, _model),
    **_both("catalogue:version-create", _EDIT, _model),
    "catalogue:version-detail": Route(allowed=_SEE, kwargs=_sealed),
    **_both("catalogue:version-edit", _EDIT, _draft),
    **_both("catalogue:version-seal", _EDIT, _draft),
    **_both("catalogue:version-discard", _EDIT, _draft),
    **_both("catalogue:version-retire", _MANAGE, _sealed),
    **_both("catalogue:version-reinstate", _MANAGE, _sealed),
    "catalogue:version-manifest": Route(allowed=_SEE, kwargs=_sealed),
    **_both("catalogue:version-hash", _EDIT, _draft),
    **_both("catalogue:version-store", _MANAGE, _sealed),
    **_both("catalogue:copy-cancel", _MANAGE, lambda world: {"copy_uid": world.copy.uid}),
    **_both("catalogue:version-hash-cancel", _EDIT, _hashing),
    **_both("catalogue:source-add", _EDIT, _draft),
    **_both("catalogue:source-remove", _EDIT, _source),
    "catalogue:file-list": Route(allowed=_SEE, kwargs=_sealed),
    **_both("catalogue:version-upload", _EDIT, _draft),
    **_both("catalogue:file-remove", _EDIT, _file),
    "catalogue:file-take": Route(allowed=_SEE, kwargs=_file, note="409: the sweep's world keeps no bytes"),
    "catalogue:compare": Route(allowed=_LISTS, query="?a=sweep-fraud+1.0.0&b=sweep-fraud+7.2.0-zebra"),
    "catalogue:store-list": Route(allowed=_STORES),
    **_both("catalogue:store-create", _STORE_ADMIN, lambda world: {}),
    "catalogue:store-detail": Route(allowed=_STORES, kwargs=_store),
    **_both("catalogue:store-edit", _STORE_ADMIN, _store),
    "catalogue:store-test": Route(allowed=_STORE_ADMIN, kwargs=_store, note="POST calls the store: its own tests do"),
    **_both("catalogue:store-archive", _STORE_ADMIN, _store),
    **_both("catalogue:store-restore", _STORE_ADMIN, _store),
    "api:model-list": Route(allowed=_LISTS),
    "api:model-list#POST": Route(
        allowed=_ANY_LEAD,
        method="POST",
        data=lambda world: {"team": world.marketing_team.slug},
        note="404 for a team out of sight, 400 for what is missing",
        ok=frozenset({201, 400, 404}),
    ),
    "api:model-detail": Route(allowed=_SEE, kwargs=_uid("model")),
    "api:model-detail#PATCH": Route(allowed=_MANAGE, kwargs=_uid("model"), method="PATCH"),
    "api:model-archive": Route(allowed=_MANAGE, kwargs=_uid("model"), method="POST"),
    "api:model-restore": Route(allowed=_MANAGE, kwargs=_uid("model"), method="POST"),
    "api:model-add-version": Route(allowed=_EDIT, kwargs=_uid("model"), method="POST"),
    "api:model-version-list": Route(allowed=_LISTS),
    "api:model-version-detail": Route(allowed=_SEE, kwargs=_uid("draft")),
    "api:model-version-detail#PATCH": Route(allowed=_EDIT, kwargs=_uid("draft"), method="PATCH"),
    "api:model-version-detail#DELETE": Route(allowed=_EDIT, kwargs=_uid("draft"), method="DELETE"),
    "api:model-version-seal": Route(allowed=_EDIT, kwargs=_uid("draft"), method="POST"),
    "api:model-version-retire": Route(allowed=_MANAGE, kwargs=_uid("sealed"), method="POST"),
    "api:model-version-reinstate": Route(allowed=_MANAGE, kwargs=_uid("sealed"), method="POST"),
    "api:model-version-sources": Route(allowed=_SEE, kwargs=_uid("draft")),
    "api:model-version-sources#PUT": Route(
        allowed=_EDIT, kwargs=_uid("draft"), method="PUT", data=lambda world: {"sources": []}
    ),
    "api:model-version-files": Route(allowed=_SEE, kwargs=_uid("draft")),
    "api:model-version-manifest": Route(allowed=_SEE, kwargs=_uid("sealed")),
    "api:model-version-hashing": Route(allowed=_SEE, kwargs=_uid("hashing")),
    "api:model-version-hash": Route(allowed=_EDIT, kwargs=_uid("draft"), method="POST"),
    "api:model-version-cancel-hashing": Route(allowed=_EDIT, kwargs=_uid("hashing"), method="POST"),
    "api:model-version-uploads": Route(allowed=_EDIT, kwargs=_uid("draft"), method="POST"),
    "api:model-upload": Route(allowed={"member_finance"}, kwargs=_uid("upload"), note="one's own only"),
    "api:model-upload#PUT": Route(allowed={"member_finance"}, kwargs=_uid("upload"), method="PUT"),
    "api:model-upload-finish": Route(allowed={"member_finance"}, kwargs=_uid("upload"), method="POST"),
    "api:model-store-list": Route(allowed=_STORES),
    "api:model-store-detail": Route(allowed=_STORES, kwargs=_uid("model_store")),
    "api:model-store-list#POST": Route(allowed=_STORE_ADMIN, method="POST"),
    "api:model-store-detail#PATCH": Route(allowed=_STORE_ADMIN, kwargs=_uid("model_store"), method="PATCH"),
    "api:model-store-test": Route(
        allowed=_STORE_ADMIN, kwargs=_uid("model_store"), method="POST", note="no bucket is named: nothing is called"
    ),
    "api:model-store-archive": Route(allowed=_STORE_ADMIN, kwargs=_uid("model_store"), method="POST"),
    "api:model-store-restore": Route(allowed=_STORE_ADMIN, kwargs=_uid("model_store"), method="POST"),
}
