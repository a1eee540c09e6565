"""Addresses of cards, evidence, controls, exceptions, producers and requests."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from apps.catalogue import (
    cards_views,
    controls_views,
    evidence_views,
    exceptions_views,
    producers_views,
    recertifying_views,
    requests_views,
    signing_views,
)

_CARD, _VERSION = "catalogue/models/<uuid:model_uid>/card", "catalogue/versions/<uuid:version_uid>"
_EVIDENCE, _REQUEST = "catalogue/evidence/<uuid:evidence_uid>", "catalogue/requests/<uuid:request_uid>"
_EXCEPTION, _PRODUCER = "catalogue/exceptions/<uuid:exception_uid>", "catalogue/producers/<uuid:producer_uid>"
_KEY = "catalogue/signing-keys/<uuid:key_uid>"
_RECERTIFICATION = "catalogue/recertifications/<uuid:recertification_uid>"
_CONTROL = "catalogue/controls/<uuid:control_uid>"
urlpatterns: list[URLPattern | URLResolver] = [
    path(f"{_CARD}/", cards_views.CardDetail.as_view(), name="card-detail"),
    path(f"{_CARD}/edit/", cards_views.CardEdit.as_view(), name="card-edit"),
    path(f"{_CARD}/preview/", cards_views.CardPreview.as_view(), name="card-preview"),
    path(f"{_CARD}/import/", cards_views.CardImport.as_view(), name="card-import"),
    path(f"{_CARD}/export/", cards_views.CardExport.as_view(), name="card-export"),
    path(f"{_CARD}/revisions/", cards_views.CardHistory.as_view(), name="card-history"),
    path("catalogue/cards/<uuid:card_uid>/", cards_views.CardCompare.as_view(), name="card-compare"),
    path("catalogue/evidence/", evidence_views.EvidenceList.as_view(), name="evidence-list"),
    path(f"{_EVIDENCE}/", evidence_views.EvidenceDetail.as_view(), name="evidence-detail"),
    path(f"{_EVIDENCE}/withdraw/", evidence_views.EvidenceWithdraw.as_view(), name="evidence-withdraw"),
    path(f"{_EVIDENCE}/file/", evidence_views.EvidenceFile.as_view(), name="evidence-file"),
    path(f"{_VERSION}/evidence/", evidence_views.EvidenceList.as_view(), name="version-evidence"),
    path(f"{_VERSION}/evidence/new/", evidence_views.EvidenceChoose.as_view(), name="evidence-choose"),
    path(f"{_VERSION}/evidence/new/<slug:kind>/", evidence_views.EvidenceAdd.as_view(), name="evidence-add"),
    path(
        f"{_VERSION}/evidence/new/<slug:kind>/preview/",
        evidence_views.EvidencePreview.as_view(),
        name="evidence-preview",
    ),
    path(f"{_VERSION}/controls/", controls_views.VersionControls.as_view(), name="version-controls"),
    path(f"{_VERSION}/controls/<str:code>/answer/", controls_views.ControlAnswerView.as_view(), name="control-answer"),
    path("catalogue/regimes/", controls_views.RegimeList.as_view(), name="regime-list"),
    path("catalogue/regimes/<uuid:regime_uid>/", controls_views.RegimeDetail.as_view(), name="regime-detail"),
    path("catalogue/controls/", controls_views.ControlList.as_view(), name="control-list"),
    path(f"{_CONTROL}/", controls_views.ControlDetail.as_view(), name="control-detail"),
    path(f"{_CONTROL}/confirm/", controls_views.ControlConfirm.as_view(), name="control-confirm"),
    path(f"{_CONTROL}/publish/", controls_views.ControlPublish.as_view(), name="control-publish"),
    path("catalogue/exceptions/", exceptions_views.ExceptionList.as_view(), name="exception-list"),
    path(f"{_EXCEPTION}/", exceptions_views.ExceptionDetail.as_view(), name="exception-detail"),
    path(f"{_EXCEPTION}/decide/", exceptions_views.ExceptionDecide.as_view(), name="exception-decide"),
    path(f"{_VERSION}/exceptions/new/", exceptions_views.ExceptionPropose.as_view(), name="exception-propose"),
    path("catalogue/producers/", producers_views.ProducerList.as_view(), name="producer-list"),
    path("catalogue/producers/new/", producers_views.ProducerCreate.as_view(), name="producer-create"),
    path(f"{_PRODUCER}/", producers_views.ProducerDetail.as_view(), name="producer-detail"),
    path(f"{_PRODUCER}/token/", producers_views.ProducerRotate.as_view(), name="producer-rotate"),
    path(f"{_PRODUCER}/revoke/", producers_views.ProducerRevoke.as_view(), name="producer-revoke"),
    path("catalogue/signing-keys/", signing_views.SigningKeyList.as_view(), name="signing-key-list"),
    path("catalogue/signing-keys/new/", signing_views.SigningKeyCreate.as_view(), name="signing-key-create"),
    path(f"{_KEY}/", signing_views.SigningKeyDetail.as_view(), name="signing-key-detail"),
    path(f"{_KEY}/revoke/", signing_views.SigningKeyRevoke.as_view(), name="signing-key-revoke"),
    path("catalogue/recertifications/", recertifying_views.RecertificationList.as_view(), name="recertification-list"),
    path(f"{_RECERTIFICATION}/", recertifying_views.RecertificationDetail.as_view(), name="recertification-detail"),
    path(
        f"{_RECERTIFICATION}/confirm/",
        recertifying_views.RecertificationConfirm.as_view(),
        name="recertification-confirm",
    ),
    path(
        f"{_RECERTIFICATION}/decline/",
        recertifying_views.RecertificationDecline.as_view(),
        name="recertification-decline",
    ),
    path("catalogue/requests/", requests_views.RequestList.as_view(), name="request-list"),
    path(f"{_REQUEST}/", requests_views.RequestDetail.as_view(), name="request-detail"),
    path(f"{_REQUEST}/withdraw/", requests_views.RequestWithdraw.as_view(), name="request-withdraw"),
    path(f"{_REQUEST}/correct/", requests_views.RequestCorrect.as_view(), name="request-correct"),
    path(f"{_REQUEST}/renew/", requests_views.RequestRenew.as_view(), name="request-renew"),
    path(f"{_VERSION}/requests/new/", requests_views.RequestCreate.as_view(), name="request-create"),
    path(f"{_VERSION}/requests/preview/", requests_views.RequestPreview.as_view(), name="request-preview"),
]
