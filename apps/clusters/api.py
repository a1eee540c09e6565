"""Clusters, pools and flavours through the API: read access, and the same actions as the pages."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.clusters import actions, capacity
from apps.clusters.models import Cluster, Flavour, Pool, PoolCapacity
from apps.core.api import CommonsViewSet


class ClusterSerializer(serializers.ModelSerializer[Cluster]):
    """A cluster; credentials are never part of it."""

    health = serializers.CharField(source="shown_health", read_only=True)

    class Meta:
        model = Cluster
        fields = [
            "uid", "slug", "name", "region", "api_url", "simulated", "health", "last_seen_at", "unreachable_since",
            "last_error", "retry_at", "probed_at", "kubernetes_version", "capabilities", "paused_at", "pause_reason",
            "version", "created_at", "updated_at",
        ]  # fmt: skip


class ReasonSerializer(serializers.Serializer[Any]):
    """Why."""

    reason = serializers.CharField(max_length=300)


class ClusterViewSet(CommonsViewSet):
    """Clusters with health and age."""

    queryset = Cluster.objects.all()
    serializer_class = ClusterSerializer
    permission = "clusters.cluster.view"
    permissions = {"pause": actions.MANAGE, "resume": actions.MANAGE}
    filterset_fields = {"slug": ["exact"]}

    @action(detail=True, methods=["post"])
    def pause(self, request: Request, uid: str) -> Response:
        """Stop applying to and probing it."""
        cluster = self.get_object()
        data = self.read_input(ReasonSerializer)
        return self.answer(
            actions.pause(cluster.pk, data["reason"], actor=self.actor, expected_version=self.expected_version)
        )

    @action(detail=True, methods=["post"])
    def resume(self, request: Request, uid: str) -> Response:
        """Go on with it."""
        cluster = self.get_object()
        return self.answer(actions.resume(cluster.pk, actor=self.actor, expected_version=self.expected_version))


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
            "uid", "cluster", "gpu_model", "kind", "flavours", "commit_factor", "best_effort", "open_names",
            "observed_gpus", "observed_at", "capacities", "version",
        ]  # fmt: skip


class SetCapacitySerializer(serializers.Serializer[Any]):
    """How many GPUs may be promised, from when."""

    gpus = serializers.IntegerField(min_value=0, max_value=capacity.MOST_GPUS)
    valid_from = serializers.DateTimeField()
    valid_until = serializers.DateTimeField(required=False, allow_null=True, default=None)
    reason = serializers.CharField(max_length=300, required=False, allow_blank=True, default="")


class PoolViewSet(CommonsViewSet):
    """Pools."""

    queryset = Pool.objects.select_related("cluster").prefetch_related("flavours", "capacities")
    serializer_class = PoolSerializer
    permission = "clusters.pool.view"
    permissions = {"set_committable": capacity.MANAGE}
    filterset_fields = {"cluster__slug": ["exact"], "gpu_model": ["exact"]}

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
            "uid", "slug", "name", "gpu_model", "resource_name", "sharing", "numerator", "denominator", "memory_mib",
            "node_labels", "tolerations", "version",
        ]  # fmt: skip


class FlavourViewSet(CommonsViewSet):
    """Flavours that can be asked for."""

    queryset = Flavour.objects.all()
    serializer_class = FlavourSerializer
    filterset_fields = {"slug": ["exact"], "gpu_model": ["exact"], "sharing": ["exact"]}


routes = [
    ("clusters", ClusterViewSet, "cluster"),
    ("pools", PoolViewSet, "pool"),
    ("flavours", FlavourViewSet, "flavour"),
]
