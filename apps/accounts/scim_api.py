"""Identity providers through the API: their settings, what their directories keep, tokens, and what is held back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from django.conf import settings
from django.db.models import Count, Q
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts import openid_providers, scim_activity, scim_tokens, step_up
from apps.accounts.models import IdentityProvider, ScimToken
from apps.accounts.querysets import IdentityProviderQuerySet
from apps.core.api import CommonsViewSet
from apps.core.errors import NotVisible

MANAGE = "accounts.provider.manage"


class IdentityProviderSerializer(serializers.ModelSerializer[IdentityProvider]):
    """An identity provider; `kept` people are provisioned by its directory, `held` of them wait to be switched off."""

    scim_address = serializers.SerializerMethodField()
    kept = serializers.IntegerField(read_only=True)
    held = serializers.IntegerField(read_only=True)

    class Meta:
        model = IdentityProvider
        fields = (
            "uid", "slug", "name", "issuer", "client_id", "extra_scopes", "groups_claim", "mail_domains",
            "just_in_time", "links_by_mail", "second_factor_there", "enabled", "checked_at", "check_error",
            "archived_at", "scim_address", "kept", "held", "held_since", "hold_lifted_until", "version",
        )  # fmt: skip
        read_only_fields = fields

    def get_scim_address(self, provider: IdentityProvider) -> str:
        """Return what the directory is given as address."""
        return f"{settings.COMMONS_BASE_URL}/api/scim/v2/{provider.slug}"


class ProviderSettingsInput(serializers.Serializer[Any]):
    """Settings of a provider; what is left out stays as it is. The client secret goes in and is never shown."""

    name = serializers.CharField(max_length=100, required=False)
    issuer = serializers.CharField(max_length=300, required=False)
    client_id = serializers.CharField(max_length=300, required=False)
    client_secret = serializers.CharField(max_length=1000, required=False, allow_blank=True, write_only=True)
    extra_scopes = serializers.ListField(child=serializers.CharField(max_length=60), required=False, max_length=20)
    groups_claim = serializers.CharField(max_length=60, required=False, allow_blank=True)
    mail_domains = serializers.ListField(child=serializers.CharField(max_length=253), required=False, max_length=100)
    just_in_time = serializers.BooleanField(required=False)
    links_by_mail = serializers.BooleanField(required=False)
    second_factor_there = serializers.BooleanField(required=False)


class ProviderInput(ProviderSettingsInput):
    """A new provider. It stays off until it was tested (on its page) and enabled."""

    name = serializers.CharField(max_length=100)
    issuer = serializers.CharField(max_length=300)
    client_id = serializers.CharField(max_length=300)
    client_secret = serializers.CharField(max_length=1000, required=False, allow_blank=True, default="")
    slug = serializers.CharField(max_length=40, required=False, allow_blank=True, default="")


class ScimTokenSerializer(serializers.ModelSerializer[ScimToken]):
    """A directory's token, without its secret."""

    class Meta:
        model = ScimToken
        fields: tuple[str, ...] = (
            "uid", "name", "prefix", "expires_at", "revoked_at", "last_used_at", "last_used_network", "created_at",
        )  # fmt: skip
        read_only_fields = fields


class CreatedScimTokenSerializer(ScimTokenSerializer):
    """A new token with its secret, shown this once."""

    secret = serializers.CharField(read_only=True)

    class Meta(ScimTokenSerializer.Meta):
        fields = (*ScimTokenSerializer.Meta.fields, "secret")
        read_only_fields = fields


class ScimTokenInput(serializers.Serializer[Any]):
    """A new token."""

    name = serializers.CharField(max_length=100)
    expires_at = serializers.DateTimeField()


class ScimTokenRotateInput(serializers.Serializer[Any]):
    """Which token gets a successor, and until when that lasts."""

    token_uid = serializers.UUIDField()
    expires_at = serializers.DateTimeField()


class ScimTokenRevokeInput(serializers.Serializer[Any]):
    """Which token."""

    token_uid = serializers.UUIDField()


class HeldDecisionInput(serializers.Serializer[Any]):
    """Why."""

    reason = serializers.CharField(max_length=500)


class IdentityProviderViewSet(step_up.FreshActions, CommonsViewSet):
    """Identity providers."""

    fresh_actions = frozenset({"create", "change", "enable", "disable", "archive"})
    serializer_class = IdentityProviderSerializer
    permission = "accounts.provider.view"
    permissions: ClassVar[Mapping[str, str]] = {
        "create": MANAGE,
        "change": MANAGE,
        "enable": MANAGE,
        "disable": MANAGE,
        "archive": MANAGE,
        "make_scim_token": MANAGE,
        "rotate_scim_token": MANAGE,
        "revoke_scim_token": MANAGE,
        "release_held": MANAGE,
        "keep_held": MANAGE,
    }
    secret_answers = frozenset({"make_scim_token", "rotate_scim_token"})
    queryset = IdentityProvider.objects.all()

    def get_base_queryset(self) -> IdentityProviderQuerySet:
        """Return all with what their directories keep."""
        provisioned = Q(identities__provisioned=True)
        return IdentityProvider.objects.annotate(
            kept=Count("identities", filter=provisioned),
            held=Count("identities", filter=provisioned & Q(identities__held_at__isnull=False)),
        ).order_by("-pk")

    @extend_schema(request=ProviderInput, responses={201: IdentityProviderSerializer})
    def create(self, request: Request, **kwargs: Any) -> Response:
        """Connect a provider; it stays off until it was tested, on its page, and enabled."""
        given = self.read_input(ProviderInput)
        return self.made(openid_providers.create_provider(**given, actor=self.actor))

    @extend_schema(request=ProviderSettingsInput, responses=IdentityProviderSerializer)
    @action(detail=True, methods=["post"])
    def change(self, request: Request, **kwargs: Any) -> Response:
        """Change settings; some switch it off, or have it tested anew."""
        return self.perform(openid_providers.edit_provider, ProviderSettingsInput)

    @extend_schema(request=None, responses=IdentityProviderSerializer)
    @action(detail=True, methods=["post"])
    def enable(self, request: Request, **kwargs: Any) -> Response:
        """Open a provider whose test passed for sign-in."""
        return self.perform(openid_providers.enable_provider)

    @extend_schema(request=None, responses=IdentityProviderSerializer)
    @action(detail=True, methods=["post"])
    def disable(self, request: Request, **kwargs: Any) -> Response:
        """Close a provider: nobody signs in there, and what it opened ends."""
        return self.perform(openid_providers.disable_provider)

    @extend_schema(request=None, responses=IdentityProviderSerializer)
    @action(detail=True, methods=["post"])
    def archive(self, request: Request, **kwargs: Any) -> Response:
        """Put a provider away for good."""
        return self.perform(openid_providers.archive_provider)

    @extend_schema(responses=ScimTokenSerializer(many=True), filters=False)
    @action(detail=True, methods=["get"], url_path="scim-tokens", pagination_class=None)
    def scim_tokens(self, request: Request, **kwargs: Any) -> Response:
        """List the directory's tokens, newest first."""
        rows = ScimToken.objects.filter(provider=self.get_object()).order_by("-pk")
        return Response(ScimTokenSerializer(rows[:200], many=True).data)

    @extend_schema(request=ScimTokenInput, responses={201: CreatedScimTokenSerializer})
    @action(detail=True, methods=["post"], url_path="make-scim-token")
    def make_scim_token(self, request: Request, **kwargs: Any) -> Response:
        """Make a token for the directory; the answer holds its secret, once."""
        provider, given = self.get_object(), self._fresh(request).read_input(ScimTokenInput)
        token, secret = scim_tokens.create_token(provider.pk, given["name"], given["expires_at"], actor=self.actor)
        return Response({**ScimTokenSerializer(token).data, "secret": secret}, status=201)

    @extend_schema(request=ScimTokenRotateInput, responses={201: CreatedScimTokenSerializer})
    @action(detail=True, methods=["post"], url_path="rotate-scim-token")
    def rotate_scim_token(self, request: Request, **kwargs: Any) -> Response:
        """Make a successor of a token; the old one stays valid for seven days at most."""
        provider, given = self.get_object(), self._fresh(request).read_input(ScimTokenRotateInput)
        old = _token(provider, given["token_uid"])
        token, secret = scim_tokens.rotate_token(old.pk, given["expires_at"], actor=self.actor)
        return Response({**ScimTokenSerializer(token).data, "secret": secret}, status=201)

    @extend_schema(request=ScimTokenRevokeInput, responses=ScimTokenSerializer)
    @action(detail=True, methods=["post"], url_path="revoke-scim-token")
    def revoke_scim_token(self, request: Request, **kwargs: Any) -> Response:
        """Revoke a token at once."""
        token = _token(self.get_object(), self.read_input(ScimTokenRevokeInput)["token_uid"])
        return Response(ScimTokenSerializer(scim_tokens.revoke_token(token.pk, actor=self.actor)).data)

    @extend_schema(request=HeldDecisionInput, responses=IdentityProviderSerializer)
    @action(detail=True, methods=["post"], url_path="release-held")
    def release_held(self, request: Request, **kwargs: Any) -> Response:
        """Switch off the accounts that were held back."""
        provider, given = self.get_object(), self._fresh(request).read_input(HeldDecisionInput)
        scim_activity.release_held(provider.pk, actor=self.actor, reason=given["reason"])
        return self.answer(self.get_base_queryset().get(pk=provider.pk))

    @extend_schema(request=HeldDecisionInput, responses=IdentityProviderSerializer)
    @action(detail=True, methods=["post"], url_path="keep-held")
    def keep_held(self, request: Request, **kwargs: Any) -> Response:
        """Keep the accounts that were held back in use."""
        provider, given = self.get_object(), self.read_input(HeldDecisionInput)
        scim_activity.dismiss_held(provider.pk, actor=self.actor, reason=given["reason"])
        return self.answer(self.get_base_queryset().get(pk=provider.pk))

    def _fresh(self, request: Request) -> IdentityProviderViewSet:
        """Want a fresh proof of a browser's session. Raises NotAllowed."""
        if request.auth is None:
            step_up.demand_fresh(request._request)
        return self


def _token(provider: IdentityProvider, uid: Any) -> ScimToken:
    found = ScimToken.objects.filter(provider=provider, uid=uid).first()
    if found is None:
        raise NotVisible
    return found


routes = [("identity-providers", IdentityProviderViewSet, "identity-provider")]
