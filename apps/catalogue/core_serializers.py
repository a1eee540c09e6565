"""What models, versions, files and stores look like through the API, and what it takes."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.reverse import reverse

from apps.catalogue.choices import ActAnnex, ActRole, RiskTier, Scheme, SourceKind
from apps.catalogue.models import HashJob, Model, ModelStore, ModelVersion, Upload, VersionFile, VersionSource
from apps.quotas.choices import DataClass


def _classes(**options: Any) -> serializers.ListField:
    return serializers.ListField(child=serializers.ChoiceField(choices=DataClass.choices), **options)


class ModelSerializer(serializers.ModelSerializer[Model]):
    """A model that a team owns."""

    team = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)

    class Meta:
        model = Model
        fields = [
            "uid", "slug", "name", "team", "purpose", "data_classes", "risk_tier", "act_annex", "act_role",
            "solely_automated", "extra_regimes", "archived_at", "created_at", "version",
        ]  # fmt: skip


class ModelChanges(serializers.Serializer[Any]):
    """What can be changed of a model."""

    name = serializers.CharField(max_length=200, required=False)
    purpose = serializers.CharField(max_length=4000, required=False)
    data_classes = _classes(required=False)
    risk_tier = serializers.ChoiceField(choices=RiskTier.choices, required=False)
    act_annex = serializers.ChoiceField(choices=ActAnnex.choices, required=False)
    act_role = serializers.ChoiceField(choices=ActRole.choices, required=False)
    solely_automated = serializers.BooleanField(required=False)
    extra_regimes = serializers.ListField(child=serializers.SlugField(max_length=40), required=False, max_length=40)


class ModelInput(ModelChanges):
    """A new model."""

    team = serializers.SlugField()
    slug = serializers.SlugField(max_length=60, required=False)
    name = serializers.CharField(max_length=200)
    purpose = serializers.CharField(max_length=4000)
    data_classes = _classes()


class ReasonInput(serializers.Serializer[Any]):
    """Why."""

    reason = serializers.CharField(max_length=2000)


class LineageSerializer(serializers.ModelSerializer[VersionSource]):
    """What a version was made from; `source_version` where it is a version here."""

    source_version = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True, allow_null=True)

    class Meta:
        model = VersionSource
        fields = ["kind", "name", "source_version", "revision", "uri", "digest", "data_classes"]


class VersionSerializer(serializers.ModelSerializer[ModelVersion]):
    """A version. `digest`: over its manifest, once it is sealed."""

    model = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    model_slug = serializers.CharField(source="model.slug", read_only=True)
    team = serializers.CharField(source="model.team.slug", read_only=True)
    store = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True, allow_null=True)
    author = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    last_editor = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    card = serializers.SlugRelatedField[Any](slug_field="number", read_only=True, allow_null=True)

    class Meta:
        model = ModelVersion
        fields = [
            "uid", "model", "model_slug", "team", "number", "label", "status", "scheme", "store", "location",
            "revision", "model_format", "runtime", "image", "arguments", "environment", "parameters", "explainer",
            "data_classes", "classification", "card", "author", "last_editor", "digest", "total_bytes", "trained_at",
            "sealed_at", "retired_at", "created_at", "version",
        ]  # fmt: skip


class VersionChanges(serializers.Serializer[Any]):
    """What can be changed of a draft."""

    label = serializers.CharField(max_length=60, required=False)  # type: ignore[assignment]  # a field of ours
    store = serializers.SlugField(required=False, allow_null=True)
    location = serializers.CharField(max_length=1000, required=False, allow_blank=True)
    revision = serializers.CharField(max_length=128, required=False, allow_blank=True)
    model_format = serializers.CharField(max_length=60, required=False, allow_blank=True)
    runtime = serializers.CharField(max_length=120, required=False, allow_blank=True)
    image = serializers.CharField(max_length=500, required=False, allow_blank=True)
    arguments = serializers.ListField(
        child=serializers.CharField(max_length=4000, allow_blank=True, trim_whitespace=False), required=False
    )
    environment = serializers.DictField(
        child=serializers.CharField(allow_blank=True, trim_whitespace=False), required=False
    )
    parameters = serializers.DictField(required=False)
    explainer = serializers.DictField(child=serializers.CharField(allow_blank=True), required=False)
    data_classes = _classes(required=False)
    card = serializers.IntegerField(required=False, allow_null=True, help_text="Revision of the model's card.")
    trained_at = serializers.DateTimeField(required=False, allow_null=True)


class VersionInput(VersionChanges):
    """A new draft."""

    label = serializers.CharField(max_length=60)
    scheme = serializers.ChoiceField(choices=Scheme.choices)


class SourcesInput(serializers.Serializer[Any]):
    """One source."""

    kind = serializers.ChoiceField(choices=SourceKind.choices)
    source_version = serializers.UUIDField(required=False, allow_null=True)
    name = serializers.CharField(max_length=300, required=False, allow_blank=True)
    revision = serializers.CharField(max_length=200, required=False, allow_blank=True)
    uri = serializers.CharField(max_length=1000, required=False, allow_blank=True)
    digest = serializers.CharField(max_length=64, required=False, allow_blank=True)
    data_classes = _classes(required=False)


class SourceListInput(serializers.Serializer[Any]):
    """All sources of a draft: the whole list."""

    sources = SourcesInput(many=True)


class FileSerializer(serializers.ModelSerializer[VersionFile]):
    """One file of a version."""

    content_type = serializers.CharField(source="blob.content_type", read_only=True, allow_null=True, default=None)
    scan = serializers.CharField(source="blob.scan", read_only=True, allow_null=True, default=None)

    class Meta:
        model = VersionFile
        fields = ["uid", "path", "size", "sha256", "content_type", "scan"]


class JobSerializer(serializers.ModelSerializer[HashJob]):
    """Hashing of a version's files."""

    class Meta:
        model = HashJob
        fields = [
            "uid", "status", "files_total", "files_done", "bytes_total", "bytes_done", "started_at", "finished_at",
            "attempts", "retry_at", "last_error",
        ]  # fmt: skip


class UploadSerializer(serializers.ModelSerializer[Upload]):
    """A file on its way. Send the next piece at offset `received` to `url`."""

    url = serializers.SerializerMethodField()

    class Meta:
        model = Upload
        fields = ["uid", "path", "size", "received", "url"]

    def get_url(self, upload: Upload) -> str:
        """Where its pieces go."""
        return reverse("api:model-upload", kwargs={"uid": upload.uid})


class UploadInput(serializers.Serializer[Any]):
    """Announce a file."""

    path = serializers.CharField(max_length=500)
    size = serializers.IntegerField(min_value=1)


class FinishInput(serializers.Serializer[Any]):
    """Take the whole file. `sha256`: as the sender computed it, held against what arrived."""

    sha256 = serializers.RegexField(r"^[0-9a-fA-F]{64}$", required=False)


class ManifestSerializer(serializers.Serializer[Any]):
    """The manifest's bytes as text: hashed as UTF-8 they give the digest."""

    digest = serializers.CharField()
    manifest = serializers.CharField()


class StoreSerializer(serializers.ModelSerializer[ModelStore]):
    """A store. `has_credentials` is all that is ever told of its credentials."""

    teams = serializers.SlugRelatedField[Any](slug_field="slug", many=True, read_only=True)
    has_credentials = serializers.SerializerMethodField()

    class Meta:
        model = ModelStore
        fields = [
            "uid", "slug", "name", "scheme", "endpoint", "prefix", "region", "teams", "has_credentials", "takes_copies",
            "archived_at", "created_at", "version",
        ]  # fmt: skip

    def get_has_credentials(self, store: ModelStore) -> bool:
        """Whether any are stored."""
        return bool(store.credentials)


class StoreChanges(serializers.Serializer[Any]):
    """What can be changed of a store."""

    name = serializers.CharField(max_length=200, required=False)
    endpoint = serializers.CharField(max_length=300, required=False)
    prefix = serializers.CharField(max_length=300, required=False, allow_blank=True)
    region = serializers.CharField(max_length=60, required=False, allow_blank=True)
    ca_certificate = serializers.CharField(required=False, allow_blank=True, trim_whitespace=False)
    credentials = serializers.DictField(child=serializers.CharField(), required=False, write_only=True)
    teams = serializers.ListField(child=serializers.SlugField(), required=False)
    takes_copies = serializers.BooleanField(required=False)


class StoreInput(StoreChanges):
    """A new store."""

    name = serializers.CharField(max_length=200)
    scheme = serializers.ChoiceField(choices=[choice for choice in Scheme.choices if choice[0] != Scheme.UPLOAD])
    endpoint = serializers.CharField(max_length=300)


class TestResult(serializers.Serializer[Any]):
    """What a call of the store found."""

    ok = serializers.BooleanField()
    detail = serializers.CharField()
