"""Addresses of models, versions, files and stores."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from apps.catalogue import (
    compare_views,
    copy_views,
    file_views,
    model_views,
    source_views,
    store_views,
    version_action_views,
    version_views,
)

_MODEL, _VERSION = "catalogue/models/<uuid:model_uid>", "catalogue/versions/<uuid:version_uid>"
_FILE, _STORE = "catalogue/files/<uuid:file_uid>", "catalogue/stores/<uuid:store_uid>"
urlpatterns: list[URLPattern | URLResolver] = [
    path("catalogue/models/", model_views.ModelList.as_view(), name="model-list"),
    path("catalogue/models/new/", model_views.ModelCreate.as_view(), name="model-create"),
    path(f"{_MODEL}/", model_views.ModelDetail.as_view(), name="model-detail"),
    path(f"{_MODEL}/edit/", model_views.ModelEdit.as_view(), name="model-edit"),
    path(f"{_MODEL}/archive/", model_views.ModelArchive.as_view(), name="model-archive"),
    path(f"{_MODEL}/restore/", model_views.ModelRestore.as_view(), name="model-restore"),
    path(f"{_MODEL}/versions/new/", version_views.VersionCreate.as_view(), name="version-create"),
    path("catalogue/versions/", version_views.VersionList.as_view(), name="version-list"),
    path(f"{_VERSION}/", version_views.VersionDetail.as_view(), name="version-detail"),
    path(f"{_VERSION}/edit/", version_action_views.VersionEdit.as_view(), name="version-edit"),
    path(f"{_VERSION}/seal/", version_action_views.VersionSeal.as_view(), name="version-seal"),
    path(f"{_VERSION}/discard/", version_action_views.VersionDiscard.as_view(), name="version-discard"),
    path(f"{_VERSION}/retire/", version_action_views.VersionRetire.as_view(), name="version-retire"),
    path(f"{_VERSION}/reinstate/", version_action_views.VersionReinstate.as_view(), name="version-reinstate"),
    path(f"{_VERSION}/manifest/", version_views.VersionManifest.as_view(), name="version-manifest"),
    path(f"{_VERSION}/hash/", version_action_views.VersionHash.as_view(), name="version-hash"),
    path(f"{_VERSION}/hash/cancel/", version_action_views.VersionHashCancel.as_view(), name="version-hash-cancel"),
    path(f"{_VERSION}/store/", copy_views.VersionStore.as_view(), name="version-store"),
    path("catalogue/copies/<uuid:copy_uid>/cancel/", copy_views.CopyCancel.as_view(), name="copy-cancel"),
    path(f"{_VERSION}/sources/new/", source_views.SourceAdd.as_view(), name="source-add"),
    path("catalogue/sources/<uuid:source_uid>/remove/", source_views.SourceRemove.as_view(), name="source-remove"),
    path(f"{_VERSION}/files/", file_views.FileList.as_view(), name="file-list"),
    path(f"{_VERSION}/files/upload/", file_views.Upload.as_view(), name="version-upload"),
    path(f"{_FILE}/remove/", file_views.FileRemove.as_view(), name="file-remove"),
    path(f"{_FILE}/download/", file_views.FileTake.as_view(), name="file-take"),
    path("catalogue/compare/", compare_views.Compare.as_view(), name="compare"),
    path("catalogue/stores/", store_views.StoreList.as_view(), name="store-list"),
    path("catalogue/stores/new/", store_views.StoreCreate.as_view(), name="store-create"),
    path(f"{_STORE}/", store_views.StoreDetail.as_view(), name="store-detail"),
    path(f"{_STORE}/edit/", store_views.StoreEdit.as_view(), name="store-edit"),
    path(f"{_STORE}/test/", store_views.StoreTest.as_view(), name="store-test"),
    path(f"{_STORE}/archive/", store_views.StoreArchive.as_view(), name="store-archive"),
    path(f"{_STORE}/restore/", store_views.StoreRestore.as_view(), name="store-restore"),
]
