"""Evidence, controls, exceptions and requests through the API: what the pages show, done by the same actions."""

from __future__ import annotations

from typing import Any

from django.urls import path
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import extend_schema
from rest_framework import authentication, exceptions, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts.api_auth import SessionAuthentication, TokenAuthentication
from apps.catalogue import answers, controls_state, evidence, producers, requests_api
from apps.catalogue import exceptions as exception_actions
from apps.catalogue.access import VIEW
from apps.catalogue.choices import Answer, EvidenceKind, ExceptionKind
from apps.catalogue.file_reading import record_evidence
from apps.catalogue.models import (
    Control,
    EvaluationResult,
    Evidence,
    EvidenceProducer,
    ModelVersion,
    VersionException,
)
from apps.catalogue.requests_api import EvidenceReason, visible_version
from apps.catalogue.rules_api import ControlPublishingMixin
from apps.core import clock
from apps.core.api import CommonsViewSet
from apps.core.errors import Invalid
from apps.core.middleware import after_read
from apps.core.row_security import lifted
from apps.quotas.choices import DataClass


class ProducerPrincipal:
    """A CI system as the API's caller: signed in, and holding no person's permission."""

    is_authenticated = True
    is_active = True
    pk = None

    def __init__(self, producer: EvidenceProducer) -> None:
        self.producer = producer
        self.uid = producer.uid


class ProducerAuthentication(authentication.BaseAuthentication):
    """`Authorization: Bearer gpuce_…` of a CI system that may post evidence."""

    def authenticate(self, request: Request) -> tuple[ProducerPrincipal, EvidenceProducer] | None:
        """Return the producer; None for another kind of token. Raises AuthenticationFailed (401)."""
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secret.strip().startswith(producers.TOKEN_PREFIX):
            return None
        found = producers.authenticate(secret.strip(), clock.now())
        if found is None:
            raise exceptions.AuthenticationFailed("This token is unknown, shut out or expired.")
        return ProducerPrincipal(found), found

    def authenticate_header(self, request: Request) -> str:
        """Return the challenge that makes an answer 401 rather than 403."""
        return 'Bearer realm="GPU Commons"'


class ProducerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]  # the library is untyped
    """How the API's description names it."""

    target_class = "apps.catalogue.evidence_api.ProducerAuthentication"
    name = "producer"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        """Return the OpenAPI scheme."""
        return {"type": "http", "scheme": "bearer", "description": "Token of an evidence producer."}


class ResultSerializer(serializers.ModelSerializer[EvaluationResult]):
    """One measured metric; `passed` null: no threshold was set."""

    class Meta:
        model = EvaluationResult
        fields = [
            "metric", "slice", "dataset", "dataset_revision", "value", "low", "high", "samples", "comparison",
            "threshold", "passed",
        ]  # fmt: skip


class EvidenceSerializer(serializers.ModelSerializer[Evidence]):
    """A piece of evidence about exactly the bytes of `subject_digest`."""

    model = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    model_version = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    produced_by = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True, allow_null=True)
    producer = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True, allow_null=True)
    signing_key = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True, allow_null=True)
    file_sha256 = serializers.CharField(source="blob.sha256", read_only=True, default=None, allow_null=True)

    class Meta:
        model = Evidence
        fields = [
            "uid", "model", "model_version", "subject_digest", "kind", "title", "verdict", "payload", "controls",
            "produced_at", "valid_until", "produced_by", "producer", "file_name", "file_sha256", "digest",
            "delivery_id", "signing_key", "verified_at", "withdrawn_at", "withdrawn_reason", "created_at", "version",
        ]  # fmt: skip


class EvidenceDetailSerializer(EvidenceSerializer):
    """With its results."""

    results = ResultSerializer(many=True, read_only=True)

    class Meta(EvidenceSerializer.Meta):
        fields = [*EvidenceSerializer.Meta.fields, "results"]


class EvidenceInput(serializers.Serializer[Any]):
    """A piece of evidence without a file. Numbers with a fraction travel as text."""

    digest = serializers.CharField(max_length=64, help_text="The manifest it is about.")
    kind = serializers.ChoiceField(choices=EvidenceKind.choices)
    title = serializers.CharField(max_length=300)
    results = serializers.ListField(child=serializers.DictField(), required=False, default=list)
    payload = serializers.DictField(required=False, default=dict)
    controls = serializers.ListField(child=serializers.CharField(max_length=80), required=False, default=list)
    produced_at = serializers.DateTimeField(required=False, allow_null=True, default=None)
    valid_until = serializers.DateTimeField(required=False, allow_null=True, default=None)


class EvidenceViewSet(CommonsViewSet):
    """Evidence in scope. POST: people with `evidence.add`, and CI systems with token and signed body."""

    queryset = Evidence.objects.select_related(
        "model__team", "model_version", "blob", "produced_by", "producer", "signing_key"
    ).prefetch_related("results")
    serializer_class = EvidenceDetailSerializer
    permission = VIEW
    permissions = {"create": evidence.ADD, "withdraw": evidence.ADD}
    filterset_fields = ["kind", "verdict", "subject_digest", "model__slug", "model_version__uid"]

    def get_authenticators(self) -> list[Any]:
        """CI systems may only post."""
        if self.request is not None and self.request.method == "POST":
            return [ProducerAuthentication(), TokenAuthentication(), SessionAuthentication()]
        return super().get_authenticators()

    def _permission(self) -> str | None:
        """A CI system holds no person's permission: what it may post about is its own row's to say."""
        if isinstance(getattr(self.request, "auth", None), EvidenceProducer):
            return None if self.action == "create" else "catalogue.model.manage"
        return super()._permission()

    def get_serializer_class(self) -> Any:
        """Results only with one piece."""
        return EvidenceDetailSerializer if self.detail or self.action == "create" else EvidenceSerializer

    def get_queryset(self) -> Any:
        """Leave results of many pieces in the database."""
        rows = super().get_queryset()
        return rows if self.detail else rows.prefetch_related(None)

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return one piece, with its results; that it was read is recorded."""
        row, actor = self.get_object(), self.actor
        after_read(request._request, lambda: record_evidence(row.pk, actor=actor))
        return self.answer(row)

    @extend_schema(request=EvidenceInput, responses={201: EvidenceDetailSerializer})
    def create(self, request: Request) -> Response:
        """Add a piece of evidence."""
        if isinstance(request.auth, EvidenceProducer):
            body = request.data
            if not isinstance(body, dict):
                raise Invalid({"": "A delivery is a JSON object."})
            with lifted("a producer is no person: it speaks for the teams and models that it was made for"):
                return self._made(producers.receive(request.auth, body, request.headers.get("X-Commons-Signature", "")))
        data = self.read_input(EvidenceInput)
        version = ModelVersion.objects.visible_to(request.user).filter(digest=data["digest"]).exclude(digest="").first()
        if version is None:
            raise Invalid({"digest": "You see no version of this digest."})
        draft = evidence.Draft(
            kind=data["kind"], title=data["title"], rows=data["results"], payload=data["payload"],
            controls=data["controls"], produced_at=data["produced_at"], valid_until=data["valid_until"],
        )  # fmt: skip
        return self._made(evidence.add_evidence(version.pk, draft, actor=self.actor))

    def _made(self, row: Evidence) -> Response:
        return self.answer(self.get_base_queryset().get(pk=row.pk), status=201)

    @extend_schema(request=EvidenceReason, responses={200: EvidenceDetailSerializer})
    @action(detail=True, methods=["post"])
    def withdraw(self, request: Request, uid: str) -> Response:
        """Take a piece back; it stays."""
        row = self.get_object()
        data = self.read_input(EvidenceReason)
        done = evidence.withdraw_evidence(
            row.pk, data["reason"], actor=self.actor, expected_version=self.expected_version
        )
        return self.answer(self.get_base_queryset().get(pk=done.pk))


class ControlSerializer(serializers.ModelSerializer[Control]):
    """One revision of a control."""

    regime = serializers.SlugRelatedField[Any](slug_field="code", read_only=True)

    class Meta:
        model = Control
        fields = [
            "uid", "regime", "code", "citation", "title", "text", "kind", "when", "evidence_kinds", "computed",
            "max_age_days", "applies_from", "applies_until", "dated_by", "confirmed", "unconfirmed", "revision",
            "superseded_at",
        ]  # fmt: skip


class ControlViewSet(ControlPublishingMixin, CommonsViewSet):
    """Controls; everybody signed in reads the rules. `superseded_at` null: in force."""

    queryset = Control.objects.select_related("regime")
    serializer_class = ControlSerializer
    permissions = ControlPublishingMixin.admin_permissions
    filterset_fields = {
        "regime__code": ["exact"], "kind": ["exact"], "code": ["exact"], "superseded_at": ["isnull"],
    }  # fmt: skip


class StateSerializer(serializers.Serializer[Any]):
    """Where one control stands for a version."""

    code = serializers.CharField()
    revision = serializers.IntegerField()
    regime = serializers.CharField()
    title = serializers.CharField()
    citation = serializers.CharField()
    kind = serializers.CharField()
    status = serializers.CharField()
    why = serializers.CharField()
    todo = serializers.CharField()
    blocks = serializers.BooleanField()
    evidence = serializers.ListField(child=serializers.CharField())
    valid_until = serializers.DateTimeField(allow_null=True)


class ControlAnswerInput(serializers.Serializer[Any]):
    """The documented answer to an addressable control."""

    control = serializers.CharField(max_length=80)
    answer = serializers.ChoiceField(choices=Answer.choices)
    rationale = serializers.CharField(max_length=5000)


class ChecklistViewSet(CommonsViewSet):
    """Where the controls stand for a version, as for production (by the version's uid)."""

    queryset = ModelVersion.objects.select_related("model__team__unit", "card")
    serializer_class = StateSerializer
    permission = VIEW
    permissions = {"answer_control": "catalogue.evidence.add"}
    # All the controls of one version: a list that has no pages.
    pagination_class = None

    @extend_schema(responses={200: StateSerializer(many=True)})
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return the controls that apply."""
        version = self.get_object()
        return Response(StateSerializer(controls_state.standing(version).applying, many=True).data)

    @extend_schema(request=ControlAnswerInput, responses={200: StateSerializer(many=True)})
    def answer_control(self, request: Request, uid: str) -> Response:
        """Answer an addressable control."""
        version = self.get_object()
        data = self.read_input(ControlAnswerInput)
        answers.answer_control(version.pk, data["control"], data["answer"], data["rationale"], actor=self.actor)
        return Response(StateSerializer(controls_state.standing(version).applying, many=True).data)


class ExceptionSerializer(serializers.ModelSerializer[VersionException]):
    """An exception; `approved` null: it waits for a second person."""

    model_version = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    proposed_by = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    decided_by = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True, allow_null=True)

    class Meta:
        model = VersionException
        fields = [
            "uid", "model_version", "kind", "control_code", "data_classes", "reason", "proposed_by", "approved",
            "decided_by", "decided_at", "decision_reason", "expires_at", "subject_digest", "created_at", "version",
        ]  # fmt: skip


class ExceptionInput(serializers.Serializer[Any]):
    """Propose an exception for a version."""

    model_version = serializers.UUIDField()
    kind = serializers.ChoiceField(choices=ExceptionKind.choices)
    control_code = serializers.CharField(max_length=80, required=False, allow_blank=True, default="")
    data_classes = serializers.ListField(
        child=serializers.ChoiceField(choices=DataClass.choices), required=False, default=list
    )
    expires_at = serializers.DateTimeField()
    reason = serializers.CharField(max_length=2000)


class DecisionInput(serializers.Serializer[Any]):
    """Decide an exception."""

    approve = serializers.BooleanField()
    reason = serializers.CharField(max_length=2000)


class ExceptionViewSet(CommonsViewSet):
    """Exceptions in scope."""

    queryset = VersionException.objects.select_related("model_version__model__team__unit", "proposed_by", "decided_by")
    serializer_class = ExceptionSerializer
    permission = VIEW
    permissions = {"create": exception_actions.PROPOSE, "decide": exception_actions.DECIDE}
    filterset_fields = ["kind", "approved", "control_code", "model_version__uid"]

    @extend_schema(request=ExceptionInput, responses={201: ExceptionSerializer})
    def create(self, request: Request) -> Response:
        """Propose an exception."""
        data = self.read_input(ExceptionInput)
        version = visible_version(request, data["model_version"])
        row = exception_actions.propose_exception(
            version.pk, data["kind"], data["reason"], data["expires_at"], actor=self.actor,
            control_code=data["control_code"], data_classes=data["data_classes"],
        )  # fmt: skip
        return self.answer(row, status=201)

    @extend_schema(request=DecisionInput, responses={200: ExceptionSerializer})
    @action(detail=True, methods=["post"])
    def decide(self, request: Request, uid: str) -> Response:
        """Decide it, as a second person."""
        row = self.get_object()
        data = self.read_input(DecisionInput)
        done = exception_actions.decide_exception(
            row.pk, data["approve"], data["reason"], actor=self.actor, expected_version=self.expected_version
        )
        return self.answer(self.get_base_queryset().get(pk=done.pk))


routes: list[tuple[str, Any, str]] = [
    ("evidence", EvidenceViewSet, "evidence"),
    ("controls", ControlViewSet, "control"),
    ("version-exceptions", ExceptionViewSet, "version-exception"),
    *requests_api.routes,
]
paths: list[Any] = [
    path("checklists/<uuid:uid>", ChecklistViewSet.as_view({"get": "retrieve"}, detail=True), name="checklist-detail"),
    path(
        "checklists/<uuid:uid>/answer",
        ChecklistViewSet.as_view({"post": "answer_control"}, detail=True),
        name="checklist-answer",
    ),
]
