"""Stores through the API. Credentials go in and never come out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.catalogue import store_actions, stores
from apps.catalogue.access import STORE_MANAGE, STORE_VIEW
from apps.catalogue.core_serializers import StoreChanges, StoreInput, StoreSerializer, TestResult
from apps.catalogue.models import ModelStore
from apps.core.api import CommonsViewSet
from apps.core.errors import Invalid
from apps.teams.models import Team


class StoreViewSet(CommonsViewSet):
    """Stores, for those who hold the permission for the installation."""

    queryset = ModelStore.objects.prefetch_related("teams")
    serializer_class = StoreSerializer
    permission = STORE_VIEW
    permissions: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("create", "partial_update", "archive", "restore", "test"), STORE_MANAGE
    )

    @extend_schema(request=StoreInput, responses={201: StoreSerializer})
    def create(self, request: Request) -> Response:
        """Add a store."""
        data = self.read_input(StoreInput)
        teams = _team_ids(data.pop("teams", []))
        row = store_actions.add_store(data.pop("name"), data.pop("scheme"), actor=self.actor, team_ids=teams, **data)
        return self.answer(row, status=201)

    @extend_schema(request=StoreChanges, responses=StoreSerializer)
    def partial_update(self, request: Request, uid: Any = None) -> Response:
        """Change a store."""
        row = self.get_object()
        data = self.read_input(StoreChanges)
        teams = _team_ids(data.pop("teams")) if "teams" in data else None
        return self.answer(
            store_actions.edit_store(
                row.pk, actor=self.actor, expected_version=self.expected_version, team_ids=teams, **data
            )
        )

    @extend_schema(request=None, responses=TestResult)
    @action(detail=True, methods=["post"])
    def test(self, request: Request, uid: Any = None) -> Response:
        """Call the store once and say what it answered."""
        fine, text = stores.test_connection(self.get_object())
        return Response({"ok": fine, "detail": text})

    @extend_schema(request=None, responses=StoreSerializer)
    @action(detail=True, methods=["post"])
    def archive(self, request: Request, uid: Any = None) -> Response:
        """Offer it for nothing new."""
        row = self.get_object()
        return self.answer(
            store_actions.archive_store(row.pk, actor=self.actor, expected_version=self.expected_version)
        )

    @extend_schema(request=None, responses=StoreSerializer)
    @action(detail=True, methods=["post"])
    def restore(self, request: Request, uid: Any = None) -> Response:
        """Offer it again."""
        row = self.get_object()
        return self.answer(
            store_actions.restore_store(row.pk, actor=self.actor, expected_version=self.expected_version)
        )


def _team_ids(slugs: list[str]) -> list[int]:
    found = dict(Team.objects.filter(slug__in=slugs).values_list("slug", "pk"))
    if missing := sorted(set(slugs) - found.keys()):
        raise Invalid({"teams": f"There is no team {', '.join(missing)}."})
    return list(found.values())


routes: list[tuple[str, Any, str]] = [("model-stores", StoreViewSet, "model-store")]
