"""Clusters, pools and flavours through the API: read access, and the same actions as the pages."""

from __future__ import annotations

from typing import Any

from django.db.models import Prefetch
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.clusters import actions, admin_api, capabilities, capacity, checking
from apps.clusters.admin_api import ClusterAdminMixin, FlavourAdminMixin, PoolAdminMixin
from apps.clusters.models import Cluster, ClusterCheck, Flavour, MaintenanceWindow, Pool, PoolCapacity
from apps.clusters.pool_rules import MOST_GPUS
from apps.core import clock
from apps.core.api import CommonsViewSet


class ClusterSerializer(serializers.ModelSerializer[Cluster]):
    """A cluster; credentials are never part of it."""

    health = serializers.CharField(source="shown_health", read_only=True)
    capabilities = serializers.SerializerMethodField()
    not_offered = serializers.SerializerMethodField()
    last_check = serializers.SerializerMethodField()
    maintenance = serializers.SerializerMethodField()

    class Meta:
        model = Cluster
        fields = [
            "uid", "slug", "name", "region", "api_url", "simulated", "health", "last_seen_at", "unreachable_since",
            "last_error", "retry_at", "probed_at", "kubernetes_version", "capabilities", "not_offered", "last_check",
            "kueue_mode", "kueue_namespace_labels", "guard_mode", "credentials_expire_at", "certificate_expires_at",
            "maintenance", "paused_at", "pause_reason", "archived_at", "group_prefix", "version", "created_at",
            "updated_at",
        ]  # fmt: skip

    def get_capabilities(self, cluster: Cluster) -> dict[str, Any]:
        """What was found there; null is what could not be told, with `reasons`."""
        return capabilities.as_json(capabilities.of(cluster))

    def get_not_offered(self, cluster: Cluster) -> dict[str, str]:
        """Feature → why it is not offered there."""
        whys = {key: capabilities.missing(cluster, key) for key in capabilities.FEATURES}
        return {key: why for key, why in whys.items() if why is not None}

    def get_last_check(self, cluster: Cluster) -> dict[str, Any] | None:
        """The newest check with its steps."""
        checks = list(cluster.newest_checks)  # type: ignore[attr-defined]  # prefetched by the view set
        if not checks:
            return None
        check = checks[0]
        return {
            "uid": str(check.uid),
            "status": check.status,
            "outcome": checking.verdict(check) or None,
            "finished_at": check.finished_at,
            "steps": check.steps,
        }

    def get_maintenance(self, cluster: Cluster) -> list[dict[str, Any]]:
        """Windows that are planned or last."""
        windows = cluster.open_windows  # type: ignore[attr-defined]  # prefetched by the view set
        return [{"uid": str(w.uid), "start": w.valid.lower, "end": w.valid.upper, "reason": w.reason} for w in windows]


class PauseReason(serializers.Serializer[Any]):
    """Why."""

    reason = serializers.CharField(max_length=300)


class ClusterViewSet(ClusterAdminMixin, CommonsViewSet):
    """Clusters with health and age."""

    queryset = Cluster.objects.all()
    serializer_class = ClusterSerializer
    permission = "clusters.cluster.view"
    permissions = {
        "pause": actions.MANAGE, "resume": actions.MANAGE, "check": actions.MANAGE,
        **ClusterAdminMixin.admin_permissions,
    }  # fmt: skip
    filterset_fields = {"slug": ["exact"]}

    def get_queryset(self) -> Any:
        """Add each cluster's newest check and its open windows: two queries for any number of clusters."""
        newest = ClusterCheck.objects.order_by("cluster_id", "-pk").distinct("cluster_id")
        windows = MaintenanceWindow.objects.filter(cancelled_at=None, valid__endswith__gt=clock.now()).order_by("valid")
        return (
            super()
            .get_queryset()
            .prefetch_related(
                Prefetch("checks", newest, to_attr="newest_checks"),
                Prefetch("maintenance_windows", windows, to_attr="open_windows"),
            )
        )

    @extend_schema(request=None, responses={202: ClusterSerializer})
    @action(detail=True, methods=["post"])
    def check(self, request: Request, uid: str) -> Response:
        """Have it checked step by step; `last_check` tells how far it is."""
        cluster = self.get_object()
        actions.request_check(cluster.pk, actor=self.actor, expected_version=self.expected_version)
        return self.accepted(self.get_queryset().get(pk=cluster.pk))

    @extend_schema(request=PauseReason, responses=ClusterSerializer)
    @action(detail=True, methods=["post"])
    def pause(self, request: Request, uid: str) -> Response:
        """Stop applying to and probing it."""
        cluster = self.get_object()
        data = self.read_input(PauseReason)
        actions.pause(cluster.pk, data["reason"], actor=self.actor, expected_version=self.expected_version)
        return self.answer(self.get_queryset().get(pk=cluster.pk))

    @extend_schema(request=None, responses=ClusterSerializer)
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, uid: str) -> Response:
        """Go on with it."""
        cluster = self.get_object()
        actions.resume(cluster.pk, actor=self.actor, expected_version=self.expected_version)
        return self.answer(self.get_queryset().get(pk=cluster.pk))


class CapacitySerializer(serializers.ModelSerializer[PoolCapacity]):
    """One dated step of a pool's committable capacity."""

    valid_from = serializers.DateTimeField(source="valid.lower")
    valid_until = serializers.DateTimeField(source="valid.upper", allow_null=True)

    class Meta:
        model = PoolCapacity
        fields = ["uid", "committable_gpus", "valid_from", "valid_until", "reason"]


class PoolSerializer(serializers.ModelSerializer[Pool]):
    """A pool with its dated capacity."""

    cluster = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    flavours = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True, many=True)
    capacities = CapacitySerializer(many=True, read_only=True)

    class Meta:
        model = Pool
        fields = [
            "uid", "cluster", "gpu_model", "device_class", "kind", "max_gpus", "startup_minutes", "reserved_until",
            "flavours", "commit_factor", "best_effort", "open_names",
            "observed_gpus", "observed_at", "capacities", "version",
        ]  # fmt: skip


class SetCapacitySerializer(serializers.Serializer[Any]):
    """How many GPUs may be promised, from when."""

    gpus = serializers.IntegerField(min_value=0, max_value=MOST_GPUS)
    valid_from = serializers.DateTimeField()
    valid_until = serializers.DateTimeField(required=False, allow_null=True, default=None)
    reason = serializers.CharField(max_length=300, required=False, allow_blank=True, default="")


class PoolViewSet(PoolAdminMixin, CommonsViewSet):
    """Pools."""

    queryset = Pool.objects.select_related("cluster").prefetch_related("flavours", "capacities")
    serializer_class = PoolSerializer
    permission = "clusters.pool.view"
    permissions = {"set_committable": capacity.MANAGE, **PoolAdminMixin.admin_permissions}
    filterset_fields = {"cluster__slug": ["exact"], "gpu_model": ["exact"]}

    @extend_schema(request=SetCapacitySerializer, responses=PoolSerializer)
    @action(detail=True, methods=["post"], url_path="set-committable")
    def set_committable(self, request: Request, uid: str) -> Response:
        """Set committable capacity from a date on."""
        pool = self.get_object()
        data = self.read_input(SetCapacitySerializer)
        actions.set_committable(
            pool.pk, data["gpus"], data["valid_from"], valid_until=data["valid_until"], reason=data["reason"],
            actor=self.actor, expected_version=self.expected_version,
        )  # fmt: skip
        return self.answer(self.get_queryset().get(pk=pool.pk))


class FlavourSerializer(serializers.ModelSerializer[Flavour]):
    """A flavour."""

    class Meta:
        model = Flavour
        fields = [
            "uid", "slug", "name", "gpu_model", "device_class", "resource_name", "sharing", "numerator", "denominator",
            "memory_mib", "node_labels", "tolerations", "version",
        ]  # fmt: skip


class FlavourViewSet(FlavourAdminMixin, CommonsViewSet):
    """Flavours that can be asked for."""

    queryset = Flavour.objects.all()
    serializer_class = FlavourSerializer
    permissions = FlavourAdminMixin.admin_permissions
    filterset_fields = {"slug": ["exact"], "gpu_model": ["exact"], "sharing": ["exact"]}


routes = [
    ("clusters", ClusterViewSet, "cluster"),
    ("pools", PoolViewSet, "pool"),
    ("flavours", FlavourViewSet, "flavour"),
    *admin_api.routes,
]
