"""Models, versions, files and stores through the API: what the pages show, done by the same actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import django_filters
from django.urls import path
from django_filters.rest_framework import FilterSet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.decorators import action
from rest_framework.exceptions import UnsupportedMediaType
from rest_framework.parsers import BaseParser, JSONParser
from rest_framework.request import Request
from rest_framework.response import Response

from apps.catalogue import (
    file_actions,
    hash_jobs,
    model_actions,
    sealing,
    selectors,
    store_api,
    version_actions,
)
from apps.catalogue.access import EDIT, MANAGE, VIEW
from apps.catalogue.choices import RiskTier, VersionStatus
from apps.catalogue.core_serializers import (
    FileSerializer,
    FinishInput,
    JobSerializer,
    LineageSerializer,
    ManifestSerializer,
    ModelChanges,
    ModelInput,
    ModelSerializer,
    ReasonInput,
    SourceListInput,
    UploadInput,
    UploadSerializer,
    VersionChanges,
    VersionInput,
    VersionSerializer,
)
from apps.catalogue.models import Model, ModelVersion, Upload
from apps.catalogue.version_actions import SourceInput
from apps.core.api import CommonsViewSet
from apps.core.errors import Invalid, NotVisible
from apps.quotas.choices import DataClass
from apps.teams.models import Team


class ModelFilterSet(FilterSet):
    """Filter models."""

    team = django_filters.CharFilter(field_name="team__slug")
    slug = django_filters.CharFilter()
    risk_tier = django_filters.ChoiceFilter(choices=[choice for choice in RiskTier.choices if choice[0]])
    data_class = django_filters.ChoiceFilter(choices=DataClass.choices, method="by_class")

    class Meta:
        model = Model
        fields: ClassVar[list[str]] = []

    def by_class(self, rows: Any, name: str, value: str) -> Any:
        """Models that state the class."""
        return rows.filter(data_classes__contains=[value])


class ModelViewSet(CommonsViewSet):
    """Models in scope, newest first."""

    queryset = Model.objects.select_related("team")
    serializer_class = ModelSerializer
    filterset_class = ModelFilterSet
    permission = VIEW
    permissions: ClassVar[Mapping[str, str]] = {
        "create": MANAGE, "partial_update": MANAGE, "archive": MANAGE, "restore": MANAGE, "add_version": EDIT,
    }  # fmt: skip

    @extend_schema(request=ModelInput, responses={201: ModelSerializer})
    def create(self, request: Request) -> Response:
        """Register a model."""
        data = self.read_input(ModelInput)
        team = Team.objects.visible_to(request.user).filter(slug=data.pop("team")).first()
        if team is None:
            raise NotVisible
        row = model_actions.register_model(team.pk, data.pop("name"), actor=self.actor, **data)
        return self.answer(row, status=201)

    @extend_schema(request=ModelChanges, responses=ModelSerializer)
    def partial_update(self, request: Request, uid: Any = None) -> Response:
        """Change what is said of a model."""
        row = self.get_object()
        data = self.read_input(ModelChanges)
        return self.answer(
            model_actions.edit_model(row.pk, actor=self.actor, expected_version=self.expected_version, **data)
        )

    @extend_schema(request=ReasonInput, responses=ModelSerializer)
    @action(detail=True, methods=["post"])
    def archive(self, request: Request, uid: Any = None) -> Response:
        """Offer it for nothing new."""
        row = self.get_object()
        why = self.read_input(ReasonInput)["reason"]
        return self.answer(
            model_actions.archive_model(row.pk, why, actor=self.actor, expected_version=self.expected_version)
        )

    @extend_schema(request=None, responses=ModelSerializer)
    @action(detail=True, methods=["post"])
    def restore(self, request: Request, uid: Any = None) -> Response:
        """Bring it back."""
        row = self.get_object()
        return self.answer(
            model_actions.restore_model(row.pk, actor=self.actor, expected_version=self.expected_version)
        )

    @extend_schema(request=VersionInput, responses={201: VersionSerializer})
    @action(detail=True, methods=["post"], url_path="versions")
    def add_version(self, request: Request, uid: Any = None) -> Response:
        """Begin a version as a draft."""
        row = self.get_object()
        data = _places(self.read_input(VersionInput), row)
        version = version_actions.create_version(
            row.pk, data.pop("label"), data.pop("scheme"), actor=self.actor, **data
        )
        return self.answer(version, status=201, serializer_class=VersionSerializer)


class VersionFilterSet(FilterSet):
    """Filter versions."""

    model = django_filters.UUIDFilter(field_name="model__uid")
    model_slug = django_filters.CharFilter(field_name="model__slug")
    team = django_filters.CharFilter(field_name="model__team__slug")
    status = django_filters.ChoiceFilter(choices=VersionStatus.choices)
    label = django_filters.CharFilter()
    digest = django_filters.CharFilter(method="by_digest", help_text="Its beginning.")

    class Meta:
        model = ModelVersion
        fields: ClassVar[list[str]] = []

    def by_digest(self, rows: Any, name: str, value: str) -> Any:
        """Versions whose digest begins so."""
        return rows.filter(selectors.digest_begins(value))


class VersionViewSet(CommonsViewSet):
    """Versions in scope, newest first."""

    queryset = ModelVersion.objects.select_related("model__team", "store", "author", "last_editor", "card").defer(
        "manifest"
    )
    serializer_class = VersionSerializer
    filterset_class = VersionFilterSet
    permission = VIEW
    permissions: ClassVar[Mapping[str, str]] = {
        "partial_update": EDIT, "destroy": EDIT, "seal": EDIT, "hash": EDIT, "cancel_hashing": EDIT, "uploads": EDIT,
        "retire": MANAGE, "reinstate": MANAGE,
    }  # fmt: skip

    @extend_schema(request=VersionChanges, responses=VersionSerializer)
    def partial_update(self, request: Request, uid: Any = None) -> Response:
        """Change a draft."""
        row = self.get_object()
        data = _places(self.read_input(VersionChanges), row.model)
        return self.answer(
            version_actions.edit_version(row.pk, actor=self.actor, expected_version=self.expected_version, **data)
        )

    @extend_schema(request=None, responses={204: None})
    def destroy(self, request: Request, uid: Any = None) -> Response:
        """Discard a draft."""
        row = self.get_object()
        version_actions.discard_version(row.pk, actor=self.actor, expected_version=self.expected_version)
        return Response(status=204)

    @extend_schema(request=None, responses=VersionSerializer)
    @action(detail=True, methods=["post"])
    def seal(self, request: Request, uid: Any = None) -> Response:
        """Fix it for ever."""
        row = self.get_object()
        return self.answer(sealing.seal(row.pk, actor=self.actor, expected_version=self.expected_version))

    @extend_schema(request=ReasonInput, responses=VersionSerializer)
    @action(detail=True, methods=["post"])
    def retire(self, request: Request, uid: Any = None) -> Response:
        """Take it out of use."""
        row = self.get_object()
        why = self.read_input(ReasonInput)["reason"]
        return self.answer(
            version_actions.retire_version(row.pk, why, actor=self.actor, expected_version=self.expected_version)
        )

    @extend_schema(request=None, responses=VersionSerializer)
    @action(detail=True, methods=["post"])
    def reinstate(self, request: Request, uid: Any = None) -> Response:
        """Take it back into use."""
        row = self.get_object()
        return self.answer(
            version_actions.reinstate_version(row.pk, actor=self.actor, expected_version=self.expected_version)
        )

    @extend_schema(methods=["get"], responses=LineageSerializer(many=True))
    @extend_schema(methods=["put"], request=SourceListInput, responses=LineageSerializer(many=True))
    @action(detail=True, methods=["get", "put"], pagination_class=None, filterset_class=None)
    def sources(self, request: Request, uid: Any = None) -> Response:
        """Read what it was made from; PUT writes a draft's whole list."""
        row = self.get_object()
        if request.method == "PUT":
            given = self.read_input(SourceListInput)["sources"]
            version_actions.set_sources(
                row.pk, [_source(request.user, one) for one in given], actor=self.actor,
                expected_version=self.expected_version,
            )  # fmt: skip
        rows = row.sources.select_related("source_version").order_by("kind", "name", "pk")
        return Response(LineageSerializer(rows, many=True).data)

    @extend_schema(responses=FileSerializer(many=True))
    @action(detail=True, methods=["get"], filterset_class=None)
    def files(self, request: Request, uid: Any = None) -> Response:
        """Read its files, by age; in pages."""
        row = self.get_object()
        page = self.paginate_queryset(row.files.select_related("blob").order_by("-pk"))
        return self.get_paginated_response(FileSerializer(page, many=True).data)

    @extend_schema(responses=ManifestSerializer)
    @action(detail=True, methods=["get"])
    def manifest(self, request: Request, uid: Any = None) -> Response:
        """Read the manifest's bytes."""
        row = self.get_object()
        if not row.digest:
            raise NotVisible("A draft has no manifest.")
        return Response({"digest": row.digest, "manifest": bytes(row.manifest).decode()})

    @extend_schema(methods=["get"], responses=JobSerializer)
    @extend_schema(methods=["post"], request=None, responses={202: JobSerializer})
    @action(detail=True, methods=["get"])
    def hashing(self, request: Request, uid: Any = None) -> Response:
        """Read how far the last hashing is."""
        job = selectors.last_job(self.get_object())
        if job is None:
            raise NotVisible
        return Response(JobSerializer(job).data)

    @extend_schema(request=None, responses={202: JobSerializer})
    @action(detail=True, methods=["post"])
    def hash(self, request: Request, uid: Any = None) -> Response:
        """Have its files hashed where they are."""
        row = self.get_object()
        job = hash_jobs.start_hashing(row.pk, actor=self.actor, expected_version=self.expected_version)
        return Response(JobSerializer(job).data, status=202)

    @extend_schema(request=None, responses=JobSerializer)
    @action(detail=True, methods=["post"], url_path="cancel-hashing")
    def cancel_hashing(self, request: Request, uid: Any = None) -> Response:
        """Stop hashing; what is done stays."""
        row = self.get_object()
        job = selectors.last_job(row)
        return Response(JobSerializer(hash_jobs.cancel_hashing(job.pk if job else 0, actor=self.actor)).data)

    @extend_schema(request=UploadInput, responses={201: UploadSerializer})
    @action(detail=True, methods=["post"])
    def uploads(self, request: Request, uid: Any = None) -> Response:
        """Announce a file that comes in pieces; one begun before goes on at `received`."""
        row = self.get_object()
        data = self.read_input(UploadInput)
        upload = file_actions.begin_upload(row.pk, data["path"], data["size"], actor=self.actor)
        return Response(UploadSerializer(upload).data, status=201)


class PieceParser(BaseParser):
    """The raw bytes of one piece, read up to the limit of a piece."""

    media_type = "application/octet-stream"

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        """Return the bytes; one more than a piece may have is enough to refuse them."""
        found: bytes = stream.read(file_actions.MAX_PIECE + 1)
        return found


class UploadViewSet(CommonsViewSet):
    """One's own files on their way."""

    queryset = Upload.objects.all()
    serializer_class = UploadSerializer
    permission = EDIT
    parser_classes = (PieceParser, JSONParser)

    def get_base_queryset(self) -> Any:
        """Return the caller's own: nobody goes on with somebody else's upload."""
        return Upload.objects.filter(author_id=self.request.user.pk)

    def scope(self) -> Upload:
        """Return the upload. Raises NotVisible, NotAllowed."""
        row = self.get_queryset().select_related("model_version__model").filter(uid=self.kwargs["uid"]).first()
        if row is None:
            raise NotVisible
        upload: Upload = row
        return upload

    def state(self, request: Request, uid: Any = None) -> Response:
        """Read how many bytes have arrived."""
        return Response(UploadSerializer(self.scope()).data)

    @extend_schema(
        request={"application/octet-stream": OpenApiTypes.BINARY}, responses=UploadSerializer,
        parameters=[OpenApiParameter("offset", int, required=True)],
    )  # fmt: skip
    def piece(self, request: Request, uid: Any = None) -> Response:
        """Send a piece at `offset`, which is where the last one ended (409 tells where that is)."""
        upload = self.scope()
        offset = request.query_params.get("offset", "")
        if not offset.isdecimal():
            raise Invalid({"offset": "Say where the piece begins: a whole number of bytes."})
        piece: Any = request.data
        if not isinstance(piece, bytes):
            raise UnsupportedMediaType(request.content_type)
        done = file_actions.append_piece(upload.uid, int(offset), piece, actor=self.actor)
        return Response(UploadSerializer(done).data)

    @extend_schema(request=FinishInput, responses={201: FileSerializer})
    def finish(self, request: Request, uid: Any = None) -> Response:
        """Take the whole file: hashed, scanned, and part of the draft."""
        upload = self.scope()
        data = self.read_input(FinishInput)
        file = file_actions.finish_upload(upload.uid, actor=self.actor, sha256=data.get("sha256", ""))
        return Response(FileSerializer(file).data, status=201)


def _places(data: dict[str, Any], model: Model) -> dict[str, Any]:
    """Return a version's input with the keys of what it names. Raises Invalid."""
    found = dict(data)
    if "store" in found:
        slug = found.pop("store")
        store = version_actions.usable_stores(model.team).filter(slug=slug).first() if slug else None
        if slug and store is None:
            raise Invalid({"store": "There is no such store open to this team."})
        found["store_id"] = store.pk if store else None
    if "card" in found:
        number = found.pop("card")
        card = model.cards.filter(number=number).first() if number is not None else None
        if number is not None and card is None:
            raise Invalid({"card": "That is no revision of this model's card."})
        found["card_id"] = card.pk if card else None
    return found


def _source(user: Any, data: Mapping[str, Any]) -> SourceInput:
    parent = None
    if data.get("source_version"):
        parent = ModelVersion.objects.visible_to(user).filter(uid=data["source_version"]).first()
        if parent is None:
            raise Invalid({"sources": "There is no such version, or you may not see it."})
    return SourceInput(
        data["kind"], data.get("name", ""), parent.pk if parent else None, data.get("revision", ""),
        data.get("uri", ""), data.get("digest", "").lower(), tuple(data.get("data_classes", ())),
    )  # fmt: skip


routes: list[tuple[str, Any, str]] = [
    ("models", ModelViewSet, "model"),
    ("model-versions", VersionViewSet, "model-version"),
    *store_api.routes,
]
paths: list[Any] = [
    path(
        "model-uploads/<uuid:uid>",
        UploadViewSet.as_view({"get": "state", "put": "piece"}, detail=True),
        name="model-upload",
    ),
    path(
        "model-uploads/<uuid:uid>/finish",
        UploadViewSet.as_view({"post": "finish"}, detail=True),
        name="model-upload-finish",
    ),
]
