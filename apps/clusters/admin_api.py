"""Administering clusters, pools and flavours through the API: register, change, plan maintenance, put away."""

from __future__ import annotations

from typing import Any, ClassVar

import django_filters
from django_filters.rest_framework import FilterSet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.clusters import actions, capacity, maintenance, removing
from apps.clusters.administering import set_kueue_mode, update_cluster
from apps.clusters.choices import DeviceClass, KueueMode, PoolKind, Sharing
from apps.clusters.models import Cluster, Flavour, MaintenanceWindow, Node
from apps.clusters.pool_rules import MOST_GPUS
from apps.core.api import CommonsViewSet
from apps.core.api_fields import ReasonBody, key_of
from apps.core.errors import Invalid


class ClusterBody(serializers.Serializer[Any]):
    """A cluster to register: a kubeconfig, or address, CA and token. Credentials are never told again."""

    name = serializers.CharField(max_length=100)
    slug = serializers.SlugField(required=False, allow_blank=True, default="")
    kubeconfig = serializers.CharField(required=False, allow_blank=True, default="", write_only=True)
    api_url = serializers.CharField(max_length=300, required=False, allow_blank=True, default="")
    ca_certificate = serializers.CharField(required=False, allow_blank=True, default="")
    token = serializers.CharField(required=False, allow_blank=True, default="", write_only=True)
    region = serializers.CharField(max_length=100, required=False, allow_blank=True, default="")


class ClusterChangesBody(serializers.Serializer[Any]):
    """What is said of a cluster; what is left out stays."""

    name = serializers.CharField(max_length=100, required=False)
    region = serializers.CharField(max_length=100, required=False, allow_blank=True)
    location = serializers.CharField(max_length=100, required=False, allow_blank=True)
    jurisdiction = serializers.CharField(max_length=100, required=False, allow_blank=True)
    group_prefix = serializers.CharField(max_length=100, required=False, allow_blank=True)


class CredentialsBody(serializers.Serializer[Any]):
    """A kubeconfig, or a token with address and CA where they change, too."""

    kubeconfig = serializers.CharField(required=False, allow_blank=True, default="", write_only=True)
    api_url = serializers.CharField(max_length=300, required=False, allow_blank=True, default="")
    ca_certificate = serializers.CharField(required=False, allow_blank=True, default="")
    token = serializers.CharField(required=False, allow_blank=True, default="", write_only=True)


class KueueBody(serializers.Serializer[Any]):
    """How quotas are applied there, and which labels make Kueue manage a namespace."""

    mode = serializers.ChoiceField(choices=KueueMode.choices)
    namespace_labels = serializers.DictField(
        child=serializers.CharField(max_length=63, allow_blank=True), required=False, allow_null=True, default=None
    )


class RemovalBody(serializers.Serializer[Any]):
    """The cluster's slug, typed, for what cannot be taken back."""

    confirm = serializers.CharField(max_length=100)


class ClusterAdminMixin(CommonsViewSet):
    """What platform admins do with a cluster, added to the clusters' viewset."""

    admin_permissions: ClassVar[dict[str, str]] = dict.fromkeys(
        ("create", "partial_update", "credentials", "kueue", "archive", "restore", "remove"), actions.MANAGE
    )

    def _shown(self, cluster: Cluster, *, status: int = 200) -> Response:
        return self.answer(self.get_queryset().get(pk=cluster.pk), status=status)

    @extend_schema(request=ClusterBody)
    def create(self, request: Request) -> Response:
        """Register a cluster. No call is made: `check` and the probe follow."""
        data = self.read_input(ClusterBody)
        return self._shown(actions.register_cluster(data.pop("name"), actor=self.actor, **data), status=201)

    @extend_schema(request=ClusterChangesBody)
    def partial_update(self, request: Request, uid: str) -> Response:
        """Change what is said of a cluster."""
        return self.perform(update_cluster, ClusterChangesBody)

    @extend_schema(request=CredentialsBody)
    @action(detail=True, methods=["post"])
    def credentials(self, request: Request, uid: str) -> Response:
        """Replace its credentials; the next call of every process uses them."""
        return self.perform(actions.replace_credentials, CredentialsBody)

    @extend_schema(request=KueueBody)
    @action(detail=True, methods=["post"])
    def kueue(self, request: Request, uid: str) -> Response:
        """Decide how quotas are applied through Kueue."""
        return self.perform(set_kueue_mode, KueueBody)

    @extend_schema(request=ReasonBody)
    @action(detail=True, methods=["post"])
    def archive(self, request: Request, uid: str) -> Response:
        """Put it away: nothing new is offered there, and all it ever was stays readable."""
        return self.perform(removing.archive, ReasonBody)

    @extend_schema(request=None)
    @action(detail=True, methods=["post"])
    def restore(self, request: Request, uid: str) -> Response:
        """Bring it back; it stays paused."""
        return self.perform(removing.restore)

    @extend_schema(request=RemovalBody, responses={204: None})
    @action(detail=True, methods=["post"])
    def remove(self, request: Request, uid: str) -> Response:
        """Remove a cluster that was registered by mistake, for good."""
        row, data = self.get_object(), self.read_input(RemovalBody)
        removing.remove(row.pk, data["confirm"], actor=self.actor, expected_version=self.expected_version)
        return Response(status=204)


class MaintenanceSerializer(serializers.ModelSerializer[MaintenanceWindow]):
    """A time in which nothing is applied to a cluster."""

    cluster = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    start = serializers.DateTimeField(source="valid.lower", read_only=True)
    end = serializers.DateTimeField(source="valid.upper", read_only=True)

    class Meta:
        model = MaintenanceWindow
        fields = ["uid", "cluster", "start", "end", "reason", "cancelled_at", "created_at", "version"]


class MaintenanceBody(serializers.Serializer[Any]):
    """A window to plan."""

    cluster = serializers.SlugField()
    start = serializers.DateTimeField()
    end = serializers.DateTimeField()
    reason = serializers.CharField(max_length=300)


class MaintenanceViewSet(CommonsViewSet):
    """Maintenance windows."""

    queryset = MaintenanceWindow.objects.select_related("cluster")
    serializer_class = MaintenanceSerializer
    filterset_fields = ["cluster__slug"]
    permission = "clusters.cluster.view"
    permissions: ClassVar[dict[str, str]] = {"create": actions.MANAGE, "cancel": actions.MANAGE}

    @extend_schema(request=MaintenanceBody, responses={201: MaintenanceSerializer})
    def create(self, request: Request) -> Response:
        """Plan a window."""
        data = self.read_input(MaintenanceBody)
        cluster = key_of(Cluster.objects.visible_to(request.user), "cluster", slug=data.pop("cluster"))
        return self.made(maintenance.schedule_maintenance(cluster, **data, actor=self.actor))

    @extend_schema(request=None, responses=MaintenanceSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, uid: str) -> Response:
        """Take it back, before or while it lasts; what waits is applied at once."""
        return self.perform(maintenance.cancel_maintenance)


class NodeSerializer(serializers.ModelSerializer[Node]):
    """A node as it was last seen."""

    cluster = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)

    class Meta:
        model = Node
        fields = [
            "uid", "cluster", "name", "gpu_model", "sharing", "physical_gpus", "schedulable", "ready", "allocatable",
            "capacity", "taints", "problem", "mig_strategy", "replicas", "gpu_memory_mib", "slices", "observed_at",
        ]  # fmt: skip


class NodeApiFilter(FilterSet):
    """Filters of the collection."""

    cluster = django_filters.CharFilter(field_name="cluster__slug")
    name = django_filters.CharFilter()

    class Meta:
        model = Node
        fields: ClassVar[list[str]] = []


class NodeViewSet(CommonsViewSet):
    """Nodes of the clusters."""

    queryset = Node.objects.select_related("cluster")
    serializer_class = NodeSerializer
    filterset_class = NodeApiFilter
    permission = "clusters.cluster.view"


class PoolBody(serializers.Serializer[Any]):
    """A pool: one GPU model (or CPU class) on a cluster, with the flavours offered from it."""

    cluster = serializers.SlugField()
    gpu_model = serializers.CharField(max_length=100)
    flavours = serializers.ListField(child=serializers.SlugField(), max_length=50)
    kind = serializers.ChoiceField(choices=PoolKind.choices, default=PoolKind.FIXED)
    commit_factor = serializers.DecimalField(max_digits=4, decimal_places=2, required=False)
    best_effort = serializers.BooleanField(required=False)
    open_names = serializers.BooleanField(required=False)
    max_gpus = serializers.IntegerField(required=False, allow_null=True, min_value=0, max_value=MOST_GPUS)
    startup_minutes = serializers.IntegerField(required=False, min_value=0, max_value=10_080)
    reserved_until = serializers.DateTimeField(required=False, allow_null=True)


class PoolChangesBody(PoolBody):
    """What changes of a pool; what is left out stays, and what it offers stays offered."""

    cluster = None  # type: ignore[assignment]  # taken out, as REST framework does it
    gpu_model = None  # type: ignore[assignment]  # as above
    flavours = serializers.ListField(child=serializers.SlugField(), max_length=50, required=False)
    kind = serializers.ChoiceField(choices=PoolKind.choices, required=False)


class PoolAdminMixin(CommonsViewSet):
    """Making and changing pools, added to the pools' viewset."""

    admin_permissions: ClassVar[dict[str, str]] = dict.fromkeys(("create", "partial_update"), capacity.MANAGE)

    @extend_schema(request=PoolBody)
    def create(self, request: Request) -> Response:
        """Make a pool."""
        data = self.read_input(PoolBody)
        cluster = key_of(Cluster.objects.visible_to(request.user), "cluster", slug=data.pop("cluster"))
        flavours = _flavours(data.pop("flavours"))
        pool = capacity.create_pool(cluster, data.pop("gpu_model"), flavour_ids=flavours, actor=self.actor, **data)
        return self.made(pool)

    @extend_schema(request=PoolChangesBody)
    def partial_update(self, request: Request, uid: str) -> Response:
        """Change a pool's settings, and offer further flavours from it."""
        row, data = self.get_object(), self.read_input(PoolChangesBody)
        more = {"flavour_ids": _flavours(data.pop("flavours"))} if "flavours" in data else {}
        capacity.edit_pool(row.pk, actor=self.actor, expected_version=self.expected_version, **more, **data)
        return self.answer(self.get_queryset().get(pk=row.pk))


class FlavourBody(serializers.Serializer[Any]):
    """A flavour: one unit holds numerator/denominator of a device."""

    name = serializers.CharField(max_length=100)
    slug = serializers.SlugField()
    gpu_model = serializers.CharField(max_length=100)
    resource_name = serializers.CharField(max_length=100, required=False)
    sharing = serializers.ChoiceField(choices=Sharing.choices, required=False)
    device_class = serializers.ChoiceField(choices=DeviceClass.choices, required=False)
    numerator = serializers.IntegerField(min_value=1, max_value=1000, required=False)
    denominator = serializers.IntegerField(min_value=1, max_value=1000, required=False)
    memory_mib = serializers.IntegerField(min_value=0, max_value=10_000_000, required=False)
    node_labels = serializers.DictField(child=serializers.CharField(max_length=63, allow_blank=True), required=False)


class FlavourAdminMixin(CommonsViewSet):
    """Making flavours, added to the flavours' viewset."""

    admin_permissions: ClassVar[dict[str, str]] = {"create": capacity.MANAGE}

    @extend_schema(request=FlavourBody)
    def create(self, request: Request) -> Response:
        """Make a flavour."""
        data = self.read_input(FlavourBody)
        return self.made(capacity.create_flavour(data.pop("name"), actor=self.actor, **data))


def _flavours(slugs: list[str]) -> list[int]:
    found = dict(Flavour.objects.filter(slug__in=slugs).values_list("slug", "pk"))
    if missing := sorted(set(slugs) - found.keys()):
        raise Invalid({"flavours": f"There is no flavour {', '.join(missing)}."})
    return list(found.values())


routes: list[tuple[str, Any, str]] = [
    ("maintenance-windows", MaintenanceViewSet, "maintenance-window"),
    ("nodes", NodeViewSet, "node"),
]
