"""Workspaces, change requests and pool aggregates through the API: the pages' own actions and figures."""

from __future__ import annotations

from typing import Any, ClassVar

from django.urls import path
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.clusters.models import Cluster
from apps.core.api import CommonsViewSet
from apps.core.api_fields import ReasonBody, key_of
from apps.core.errors import NotAllowed
from apps.core.permissions import may
from apps.quotas import actions, changes, expiry, guard, pools
from apps.quotas.choices import ChangeKind, DataClass, Environment
from apps.quotas.models import Workspace
from apps.teams.models import Team


class WorkspaceBody(serializers.Serializer[Any]):
    """A workspace to make: a team on a cluster in an environment, with the data classes allowed there."""

    team = serializers.SlugField()
    cluster = serializers.SlugField()
    environment = serializers.ChoiceField(choices=Environment.choices)
    data_classes = serializers.ListField(child=serializers.ChoiceField(choices=DataClass.choices), max_length=20)


class WorkspaceAdminMixin(CommonsViewSet):
    """Making and draining workspaces, added to their viewset."""

    admin_permissions: ClassVar[dict[str, str]] = {"create": "quotas.workspace.manage", "drain": expiry.DRAIN}

    @extend_schema(request=WorkspaceBody)
    def create(self, request: Request) -> Response:
        """Make a workspace: the row only; its objects reach the cluster with its first granted quota."""
        data = self.read_input(WorkspaceBody)
        team = key_of(Team.objects.visible_to(request.user), "team", slug=data["team"])
        cluster = key_of(Cluster.objects.all(), "cluster", slug=data["cluster"])
        return self.made(
            actions.create_workspace(team, cluster, data["environment"], data["data_classes"], actor=self.actor)
        )

    @extend_schema(request=ReasonBody)
    @action(detail=True, methods=["post"])
    def drain(self, request: Request, uid: str) -> Response:
        """Have everything stopped that holds GPUs where it uses more than it may; a worker does it."""
        return self.perform(expiry.ask_drain, ReasonBody)


#: What is asked for here; namespaces, drift and baselines have steps of their own before them.
_KINDS = [
    (str(one), one.label)
    for one in (
        ChangeKind.LIMITS, ChangeKind.IDLE_POLICY, ChangeKind.EXPIRY_POLICY, ChangeKind.ARCHIVE, ChangeKind.RESTORE,
    )
]  # fmt: skip


class ChangeBody(serializers.Serializer[Any]):
    """A change of a workspace to ask for. `values`: what the kind takes, as the change shows it afterwards."""

    kind = serializers.ChoiceField(choices=_KINDS)
    workspace = serializers.UUIDField()
    values = serializers.DictField(required=False, default=dict)
    reason = serializers.CharField(max_length=2000)


class ChangeAdminMixin(CommonsViewSet):
    """Asking for changes, added to their viewset."""

    admin_permissions: ClassVar[dict[str, str]] = {"create": "quotas.change.create"}

    @extend_schema(request=ChangeBody)
    def create(self, request: Request) -> Response:
        """Ask for a change of a workspace; the policy may grant it at once."""
        data = self.read_input(ChangeBody)
        workspace = Workspace.objects.get_visible(request.user, data["workspace"])
        if not may(request.user, "quotas.change.create", workspace):
            raise NotAllowed(rule="quotas.change.create")
        row = changes.request_change(
            data["kind"], cluster_id=workspace.cluster_id, workspace_id=workspace.pk, values=data["values"],
            reason=data["reason"], actor=self.actor,
        )  # fmt: skip
        return self.made(row)


_FIGURE = {"type": "string", "description": "Whole devices, or a fraction of one; null: not observed."}


@extend_schema_field(_FIGURE)
class FigureField(serializers.Field[Any, Any, Any, Any]):
    """A number of devices, exact: "12", or "7/2"."""

    def to_representation(self, value: Any) -> str:
        """Return the fraction as text."""
        return str(value)


class PoolFiguresSerializer(serializers.Serializer[Any]):
    """A pool's aggregates: no row tells one team from another."""

    uid = serializers.UUIDField()
    cluster = serializers.CharField(source="pool.cluster.slug")
    gpu_model = serializers.CharField(source="pool.gpu_model")
    unit = serializers.CharField()
    committable = FigureField()
    observed = FigureField(allow_null=True)
    observed_at = serializers.DateTimeField(allow_null=True)
    guaranteed = FigureField()
    borrowable = FigureField()
    borrowed = FigureField(allow_null=True)
    used = FigureField(allow_null=True)
    used_at = serializers.DateTimeField(allow_null=True)
    unpromised = FigureField()
    free = FigureField(allow_null=True)
    workspaces = serializers.IntegerField()


class PoolFigures(APIView):
    """How full the pools are in which one's teams hold or ask for quota."""

    scope_free = "pools.pool_rows takes the user: the declared aggregates"
    permission_classes = [IsAuthenticated]

    @extend_schema(responses=PoolFiguresSerializer(many=True), operation_id="pool_figures_list")
    def get(self, request: Request) -> Response:
        """Return the aggregates of every pool that one may see, as they are now."""
        return Response(PoolFiguresSerializer(pools.pool_rows(request.user), many=True).data)


class GuardBody(serializers.Serializer[Any]):
    """What the guard of a cluster does; `confirmed`: one knows what it refuses."""

    mode = serializers.CharField(max_length=20)
    reason = serializers.CharField(max_length=500)
    confirmed = serializers.BooleanField(required=False, default=False)


class GuardViewSet(CommonsViewSet):
    """The guard of a cluster, by the cluster's uid."""

    queryset = Cluster.objects.all()
    serializer_class = serializers.Serializer
    permission = guard.MANAGE

    @extend_schema(request=GuardBody, responses={204: None}, operation_id="clusters_guard_create")
    def decide(self, request: Request, uid: str) -> Response:
        """Decide what the guard does; the next approved baseline carries it there."""
        row, data = self.get_object(), self.read_input(GuardBody)
        guard.set_guard_mode(row.pk, **data, actor=self.actor, expected_version=self.expected_version)
        return Response(status=204)


paths: list[Any] = [
    path("pool-figures", PoolFigures.as_view(), name="pool-figures"),
    path("clusters/<uuid:uid>/guard", GuardViewSet.as_view({"post": "decide"}, detail=True), name="cluster-guard"),
]

__all__ = ["ChangeAdminMixin", "WorkspaceAdminMixin", "paths"]
