"""Import through the API: the same file first for a preview, then with the preview's digest to be done."""

from __future__ import annotations

from typing import Any

from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.step_up import demand_fresh
from apps.core.api import ActorMixin, OnceMixin
from apps.core.errors import NotAllowed
from apps.core.permissions import INSTALLATION, may
from apps.teams import importing
from apps.teams.import_reader import COLUMNS, MAX_BYTES


class ImportInput(serializers.Serializer[Any]):
    """A CSV file. Without `digest`: what would it do? With the digest of that answer: do it."""

    kind = serializers.ChoiceField(choices=list(COLUMNS))
    csv = serializers.CharField(max_length=MAX_BYTES, trim_whitespace=False)
    digest = serializers.CharField(max_length=64, required=False, allow_blank=True, default="")


class OutcomeSerializer(serializers.Serializer[Any]):
    """What one row does: made, changed, unchanged or refused."""

    number = serializers.IntegerField()
    status = serializers.CharField()
    text = serializers.CharField()


class ImportSerializer(serializers.Serializer[Any]):
    """What a file would do, or did."""

    kind = serializers.CharField()
    digest = serializers.CharField()
    done = serializers.BooleanField()
    moves = serializers.IntegerField()
    refused = serializers.IntegerField()
    outcomes = OutcomeSerializer(many=True)


class PeopleImport(OnceMixin, ActorMixin, APIView):
    """Imports people, units, teams, memberships or roles."""

    scope_free = "the file names its rows; each is looked up within the importer's scope"

    @extend_schema(request=ImportInput, responses=ImportSerializer, summary="Import people, units, teams or rights")
    def post(self, request: Request) -> Response:
        """Show what a file would do, or with the digest of that answer do it: all rows or none."""
        serializer = ImportInput(data=request.data)
        serializer.is_valid(raise_exception=True)
        given = serializer.validated_data
        if not may(request.user, needs := importing.PERMISSIONS[given["kind"]], INSTALLATION):
            raise NotAllowed(rule=needs)
        digest = given["digest"]
        if digest:
            if request.auth is None:
                demand_fresh(request._request)
            found = importing.import_file(given["kind"], given["csv"], digest, actor=self.actor)
        else:
            found = importing.preview(given["kind"], given["csv"], actor=self.actor)
        body = {
            "kind": found.kind, "digest": found.digest, "done": bool(digest), "moves": found.moves,
            "refused": found.refused, "outcomes": found.outcomes,
        }  # fmt: skip
        return Response(ImportSerializer(body).data)


paths = [path("people-import", PeopleImport.as_view(), name="people-import")]
