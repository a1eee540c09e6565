"""Signing keys through the API: what the pages show, done by the same actions."""

from __future__ import annotations

from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.catalogue import signing_keys
from apps.catalogue.models import SigningKey
from apps.catalogue.signing_models import VIEW
from apps.core.api import CommonsViewSet
from apps.core.errors import Invalid
from apps.teams.models import Team


class SigningKeySerializer(serializers.ModelSerializer[SigningKey]):
    """A public key for signatures over manifests of some teams' models; `void_from`: what came since counts no more."""

    teams = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True, many=True)

    class Meta:
        model = SigningKey
        fields: ClassVar[list[str]] = [
            "uid", "name", "holder", "public_key", "algorithm", "fingerprint", "teams", "valid_from", "expires_at",
            "revoked_at", "revoked_reason", "void_from", "created_at", "version",
        ]  # fmt: skip


class SigningKeyBody(serializers.Serializer[Any]):
    """A key to register."""

    name = serializers.CharField(max_length=100)
    holder = serializers.CharField(max_length=300, help_text="Who or what holds the private key, and where.")
    public_key = serializers.CharField(max_length=10_000, help_text="PEM: ECDSA P-256, Ed25519 or RSA.")
    rsa_padding = serializers.ChoiceField(choices=["pss", "pkcs1v15"], required=False, default="pss")
    teams = serializers.ListField(child=serializers.SlugField(), allow_empty=False, max_length=100)
    valid_from = serializers.DateTimeField(required=False, allow_null=True, default=None)
    expires_at = serializers.DateTimeField()


class SigningKeyRevocation(serializers.Serializer[Any]):
    """Why, and since when it was in other hands (null: it never was)."""

    reason = serializers.CharField(max_length=2000)
    void_from = serializers.DateTimeField(required=False, allow_null=True, default=None)


class SigningKeyViewSet(CommonsViewSet):
    """Signing keys, for those who watch over evidence; registered and revoked by compliance."""

    queryset = SigningKey.objects.prefetch_related("teams")
    serializer_class = SigningKeySerializer
    permission = VIEW
    permissions: ClassVar[dict[str, str]] = dict.fromkeys(("create", "revoke"), signing_keys.MANAGE)

    @extend_schema(request=SigningKeyBody, responses={201: SigningKeySerializer})
    def create(self, request: Request) -> Response:
        """Register a public key."""
        data = self.read_input(SigningKeyBody)
        teams = dict(Team.objects.filter(slug__in=data["teams"]).values_list("slug", "pk"))
        if unknown := sorted(set(data["teams"]) - teams.keys()):
            raise Invalid({"teams": f"There is no team {', '.join(unknown)}."})
        row = signing_keys.register_key(
            data["name"], data["public_key"], data["holder"], data["expires_at"], list(teams.values()),
            actor=self.actor, valid_from=data["valid_from"], pss=data["rsa_padding"] == "pss",
        )  # fmt: skip
        return self.answer(row, status=201)

    @extend_schema(request=SigningKeyRevocation, responses=SigningKeySerializer)
    @action(detail=True, methods=["post"])
    def revoke(self, request: Request, uid: str) -> Response:
        """Take it out of use for ever; what it signed keeps counting, unless it was in other hands by then."""
        row, data = self.get_object(), self.read_input(SigningKeyRevocation)
        done = signing_keys.revoke_key(
            row.pk, data["reason"], actor=self.actor, void_from=data["void_from"],
            expected_version=self.expected_version,
        )  # fmt: skip
        return self.answer(done)


routes: list[tuple[str, Any, str]] = [("signing-keys", SigningKeyViewSet, "signing-key")]
