"""Model cards, regimes, controls and producers of evidence through the API."""

from __future__ import annotations

from typing import Any, ClassVar

from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.catalogue import cards_saving, producers, regimes_publishing
from apps.catalogue.access import EDIT, VIEW
from apps.catalogue.choices import EvidenceKind
from apps.catalogue.models import CardRevision, Control, EvidenceProducer, Model, Regime
from apps.core.api import CommonsViewSet
from apps.core.errors import Invalid, NotVisible
from apps.teams.models import Team


class CardSerializer(serializers.ModelSerializer[CardRevision]):
    """One revision of a model's card."""

    model = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    author = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)

    class Meta:
        model = CardRevision
        fields = ["uid", "model", "number", "body", "digest", "author", "note", "created_at"]


class CardBody(serializers.Serializer[Any]):
    """A card to save. `expected_number`: the revision that it was written upon (409 where there is a newer one)."""

    body = serializers.DictField()
    note = serializers.CharField(max_length=300, required=False, allow_blank=True, default="")
    expected_number = serializers.IntegerField(required=False, allow_null=True, default=None, min_value=0)


class CardViewSet(CommonsViewSet):
    """Revisions of model cards."""

    queryset = CardRevision.objects.select_related("model__team", "author")
    serializer_class = CardSerializer
    filterset_fields = ["model__uid", "model__slug"]
    permission = VIEW
    permissions: ClassVar[dict[str, str]] = {"retrieve": ""}


class ModelCardViewSet(CommonsViewSet):
    """A model's card, by the model's uid."""

    queryset = Model.objects.select_related("team")
    serializer_class = CardSerializer
    permission = VIEW
    permissions: ClassVar[dict[str, str]] = {"save": EDIT}
    filter_backends = []

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return the newest revision; 404 where there is none."""
        row = self.get_object().cards.select_related("model", "author").order_by("-number").first()
        if row is None:
            raise NotVisible
        return self.answer(row)

    @extend_schema(request=CardBody, responses=CardSerializer)
    def save(self, request: Request, uid: str) -> Response:
        """Add a revision; the same content again gives the one that is there."""
        model, data = self.get_object(), self.read_input(CardBody)
        row = cards_saving.save_card(
            model.pk, data["body"], actor=self.actor, note=data["note"], expected_number=data["expected_number"]
        )
        return self.answer(row)


class RegimeSerializer(serializers.ModelSerializer[Regime]):
    """A legal act or standard as dated data: which cards it wants, when it applies."""

    class Meta:
        model = Regime
        fields = ["uid", "code", "name", "source", "note", "when", "card_fields", "as_of", "version"]


class RegimeViewSet(CommonsViewSet):
    """Regimes; everybody signed in reads the rules."""

    queryset = Regime.objects.all()
    serializer_class = RegimeSerializer
    filterset_fields = ["code"]


class ControlChangesBody(serializers.Serializer[Any]):
    """The columns that change, and why; from now on, for open requests as well."""

    changes = serializers.DictField()
    reason = serializers.CharField(max_length=1000)


class ControlPublishingMixin(CommonsViewSet):
    """Publishing the next revision, added to the controls' viewset."""

    admin_permissions: ClassVar[dict[str, str]] = {"publish": regimes_publishing.PUBLISH}

    @extend_schema(request=ControlChangesBody)
    @action(detail=True, methods=["post"])
    def publish(self, request: Request, uid: str) -> Response:
        """Publish the next revision of a control."""
        row, data = self.get_object(), self.read_input(ControlChangesBody)
        made = regimes_publishing.publish_control(row.pk, data["changes"], data["reason"], actor=self.actor)
        return self.answer(Control.objects.select_related("regime").get(pk=made.pk))


class ProducerSerializer(serializers.ModelSerializer[EvidenceProducer]):
    """A CI system that posts evidence; its token is never told again."""

    teams = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True, many=True)
    models_allowed = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True, many=True)

    class Meta:
        model = EvidenceProducer
        fields: ClassVar[list[str]] = [
            "uid", "name", "kinds", "teams", "models_allowed", "public_key", "token_prefix", "expires_at",
            "revoked_at", "last_used_at", "created_at", "version",
        ]  # fmt: skip


class NewProducerSerializer(ProducerSerializer):
    """A producer with its token, which is told this once."""

    token = serializers.SerializerMethodField()

    class Meta(ProducerSerializer.Meta):
        fields: ClassVar[list[str]] = [*ProducerSerializer.Meta.fields, "token"]

    def get_token(self, row: EvidenceProducer) -> str:
        """Return the token that was just made, given in the context."""
        return str(self.context["token"])


class ProducerBody(serializers.Serializer[Any]):
    """A producer to add: which kinds it may post, about the models of which teams."""

    name = serializers.CharField(max_length=100)
    public_key = serializers.CharField(max_length=100, help_text="Ed25519, base64 of the 32 raw bytes.")
    expires_at = serializers.DateTimeField()
    kinds = serializers.ListField(child=serializers.ChoiceField(choices=EvidenceKind.choices), allow_empty=False)
    teams = serializers.ListField(child=serializers.SlugField(), allow_empty=False, max_length=100)
    models_allowed = serializers.ListField(
        child=serializers.UUIDField(), required=False, default=list, max_length=100, help_text="Empty: all of these."
    )


class RotationBody(serializers.Serializer[Any]):
    """Until when the new token is good, and a new key where there is one."""

    expires_at = serializers.DateTimeField()
    public_key = serializers.CharField(max_length=100, required=False, allow_blank=True, default="")


class ProducerReasonBody(serializers.Serializer[Any]):
    """Why."""

    reason = serializers.CharField(max_length=500)


class ProducerViewSet(CommonsViewSet):
    """Producers of evidence, for those who watch over them; kept by platform admins."""

    queryset = EvidenceProducer.objects.prefetch_related("teams", "models_allowed")
    serializer_class = ProducerSerializer
    permission = "catalogue.producer.view"
    permissions: ClassVar[dict[str, str]] = dict.fromkeys(("create", "rotate", "revoke"), producers.MANAGE)
    secret_answers = frozenset({"create", "rotate"})

    @extend_schema(request=ProducerBody, responses={201: NewProducerSerializer})
    def create(self, request: Request) -> Response:
        """Add a producer. The answer holds its token, once."""
        data = self.read_input(ProducerBody)
        teams = dict(Team.objects.filter(slug__in=data["teams"]).values_list("slug", "pk"))
        models = dict(Model.objects.filter(uid__in=data["models_allowed"]).values_list("uid", "pk"))
        if unknown := sorted(set(data["teams"]) - teams.keys()):
            raise Invalid({"teams": f"There is no team {', '.join(unknown)}."})
        if len(models) != len(set(data["models_allowed"])):
            raise Invalid({"models_allowed": "Choose models of these teams."})
        made = producers.add_producer(
            data["name"], data["public_key"], data["expires_at"], data["kinds"], list(teams.values()),
            actor=self.actor, model_ids=list(models.values()),
        )  # fmt: skip
        return self._with_token(made, status=201)

    @extend_schema(request=RotationBody, responses=NewProducerSerializer)
    @action(detail=True, methods=["post"])
    def rotate(self, request: Request, uid: str) -> Response:
        """Give it a new token; what it had is void at once. The answer holds it, once."""
        row, data = self.get_object(), self.read_input(RotationBody)
        made = producers.rotate_token(
            row.pk, data["expires_at"], actor=self.actor, public_key=data["public_key"],
            expected_version=self.expected_version,
        )  # fmt: skip
        return self._with_token(made)

    @extend_schema(request=ProducerReasonBody, responses=ProducerSerializer)
    @action(detail=True, methods=["post"])
    def revoke(self, request: Request, uid: str) -> Response:
        """Shut it out for ever; what it posted stays."""
        return self.perform(producers.revoke_producer, ProducerReasonBody)

    def _with_token(self, made: producers.NewProducer, *, status: int = 200) -> Response:
        context = {**self.get_serializer_context(), "token": made.token}
        data = NewProducerSerializer(made.producer, context=context).data
        return Response(data, status=status, headers={"ETag": f'"{made.producer.version}"'})


routes: list[tuple[str, Any, str]] = [
    ("card-revisions", CardViewSet, "card-revision"),
    ("regimes", RegimeViewSet, "regime"),
    ("evidence-producers", ProducerViewSet, "evidence-producer"),
]
paths: list[Any] = [
    path("models/<uuid:uid>/card", ModelCardViewSet.as_view({"get": "retrieve", "put": "save"}, detail=True),
         name="model-card"),
]  # fmt: skip
