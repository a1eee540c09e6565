"""Pages of clusters, pools and flavours."""

from __future__ import annotations

from typing import Any

from django.db.models import IntegerField, OuterRef, Subquery, Sum
from django.db.models.functions import Coalesce
from django.http import HttpResponseBase
from django.urls import reverse

from apps.clusters import actions, capacity, selectors
from apps.clusters.forms import CapacityForm, ClusterForm, CredentialsForm, FlavourForm, PauseForm, PoolForm
from apps.clusters.models import Cluster, Flavour, Node, Pool, PoolCapacity
from apps.clusters.tables import (
    ClusterFilter,
    ClusterTable,
    FlavourFilter,
    FlavourTable,
    NodeTable,
    PoolFilter,
    PoolTable,
    health_of,
)
from apps.core import clock
from apps.core.errors import Conflict
from apps.core.permissions import may
from apps.core.views import ActionView, CreateView, Crumb, DetailView, ListView
from portal.panels import panels_for

VIEW, VIEW_POOL = "clusters.cluster.view", "clusters.pool.view"


def _clusters_crumb() -> Crumb:
    return Crumb("Clusters", reverse("clusters:cluster-list"))


def _pools_crumb() -> Crumb:
    return Crumb("Pools", reverse("clusters:pool-list"))


def _flavours_crumb() -> Crumb:
    return Crumb("Flavours", reverse("clusters:flavour-list"))


def _cluster_url(cluster: Cluster) -> str:
    return reverse("clusters:cluster-detail", kwargs={"slug": cluster.slug})


class ClusterList(ListView):
    """All clusters with health and age."""

    title = "Clusters"
    permission = VIEW
    intro = "Where the GPUs are. Health is what the last contact told; after three minutes without one it is stale."
    table_class = ClusterTable
    filterset_class = ClusterFilter
    empty_title = "No cluster yet"
    empty_text = "Register one with a kubeconfig, or with its API address, CA and a service account's token."
    empty_icon = "server"

    @staticmethod
    def queryset() -> Any:
        """Clusters with the GPUs observed there."""
        gpus = Node.objects.filter(cluster=OuterRef("pk")).order_by().values("cluster")
        physical = Subquery(gpus.annotate(n=Sum("physical_gpus")).values("n"), output_field=IntegerField())
        return Cluster.objects.annotate(physical=physical)

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Offer registering to those who may."""
        if may(self.request.user, actions.MANAGE, None):
            return [("Register a cluster", reverse("clusters:cluster-create"))]
        return []

    def get_empty_action(self) -> tuple[str, str] | None:
        """The same, in the empty state."""
        return next(iter(self.get_page_actions()), None)


class ClusterDetail(DetailView):
    """One cluster: health, version, pools, nodes, and what other rooms have to say about it."""

    queryset = Cluster.objects.all()
    lookup = "slug"
    permission = VIEW
    template_name = "clusters/cluster_detail.html"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [_clusters_crumb()]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add health, nodes and panels."""
        cluster: Cluster = self.object
        nodes = NodeTable(cluster.nodes.order_by("name", "pk"))
        nodes.request = self.request
        nodes.paginate(page=1, per_page=50)
        total = cluster.nodes.aggregate(gpus=Coalesce(Sum("physical_gpus"), 0))["gpus"]
        return super().get_context(
            health=health_of(cluster),
            nodes=nodes,
            node_count=nodes.page.paginator.count,
            physical_gpus=total,
            may_manage=may(self.request.user, actions.MANAGE, cluster),
            panels=panels_for("cluster", self.request, cluster),
            **extra,
        )


class ClusterCreate(CreateView):
    """Register a cluster."""

    title = "Register a cluster"
    queryset = Cluster.objects.all()
    permission = actions.MANAGE
    form_class = ClusterForm
    submit_label = "Register"
    intro = (
        "The portal needs a service account of its own there. It keeps the token encrypted and calls the cluster only"
        " with it; it reads version and nodes within half a minute."
    )

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [_clusters_crumb()]

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Register and show it."""
        data = form.cleaned_data
        cluster = actions.register_cluster(
            data["name"], slug=data["slug"], region=data["region"], actor=self.actor, **form.access()
        )
        self.success_message = f"{cluster} is registered. Its first contact follows within half a minute."
        return _cluster_url(cluster)


class _ClusterAction(ActionView):
    """An action on one cluster."""

    queryset = Cluster.objects.all()
    lookup = "slug"
    permission = actions.MANAGE

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the cluster."""
        return [_clusters_crumb(), Crumb(str(self.object), _cluster_url(self.object))]


class ClusterCredentials(_ClusterAction):
    """Replace the credentials of a cluster."""

    title = "Replace credentials"
    form_class = CredentialsForm
    submit_label = "Replace"
    intro = "The next call uses the new ones. Address and CA stay as they are where left empty."
    success_message = "The credentials are replaced."

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Replace them."""
        actions.replace_credentials(
            self.object.pk, actor=self.actor, expected_version=self.expected_version, **form.access()
        )
        return _cluster_url(self.object)


class ClusterPause(_ClusterAction):
    """Pause a cluster."""

    title = "Pause"
    form_class = PauseForm
    submit_label = "Pause the cluster"
    danger = True
    intro = (
        "Nothing is applied to it and nothing is read from it until it is resumed. What is approved meanwhile waits and"
        " is applied afterwards; work that runs there is not touched."
    )

    def check_state(self) -> None:
        """Refuse a paused one."""
        if self.object.paused_at is not None:
            raise Conflict("This cluster is paused already.", current={"reason": self.object.pause_reason})

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Pause it."""
        actions.pause(
            self.object.pk, form.cleaned_data["reason"], actor=self.actor, expected_version=self.expected_version
        )
        return _cluster_url(self.object)


class ClusterResume(_ClusterAction):
    """Resume a cluster."""

    title = "Resume"
    submit_label = "Resume the cluster"
    intro = "What waits for it is applied now."

    def check_state(self) -> None:
        """Refuse one that is not paused."""
        if self.object.paused_at is None:
            raise Conflict("This cluster is not paused.")

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Resume it."""
        actions.resume(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        return _cluster_url(self.object)


def _pools() -> Any:
    """Pools with what may be promised now."""
    now = PoolCapacity.objects.filter(pool=OuterRef("pk"), valid__contains=clock.now()).values("committable_gpus")[:1]
    committable = Coalesce(Subquery(now, output_field=IntegerField()), 0)
    return Pool.objects.select_related("cluster").annotate(committable=committable)


class PoolList(ListView):
    """All pools."""

    title = "Pools"
    permission = VIEW_POOL
    intro = (
        "The GPUs of one model on one cluster. Committable is what may be promised; observed is what the nodes carry."
    )
    table_class = PoolTable
    filterset_class = PoolFilter
    empty_title = "No pool yet"
    empty_text = "Create a flavour, then the pool it is offered from."
    empty_icon = "stack-2"
    queryset = staticmethod(_pools)

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Offer creating to those who may."""
        if may(self.request.user, capacity.MANAGE, None):
            return [("Create a pool", reverse("clusters:pool-create"))]
        return []

    def get_empty_action(self) -> tuple[str, str] | None:
        """The same, in the empty state."""
        return next(iter(self.get_page_actions()), None)


class PoolDetail(DetailView):
    """One pool: capacity over time, flavours, and who holds what of it (other rooms' panels)."""

    queryset = staticmethod(_pools)
    permission = VIEW_POOL
    template_name = "clusters/pool_detail.html"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [_pools_crumb()]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the dated steps and panels."""
        pool = self.object
        steps = list(pool.capacities.order_by("valid"))
        now = clock.now()
        return super().get_context(
            health=health_of(pool.cluster),
            steps=[(row, now in row.valid) for row in steps],
            flavours=pool.flavours.order_by("name", "pk"),
            may_manage=may(self.request.user, capacity.MANAGE, pool),
            short=pool.observed_gpus is not None and pool.observed_gpus < pool.committable,
            panels=panels_for("pool", self.request, pool),
            **extra,
        )


class PoolCreate(CreateView):
    """Create a pool."""

    title = "Create a pool"
    queryset = Pool.objects.all()
    permission = capacity.MANAGE
    form_class = PoolForm
    submit_label = "Create the pool"
    intro = "A pool holds the GPUs of one model on one cluster. Say afterwards how many of them may be promised."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [_pools_crumb()]

    def get_form_kwargs(self) -> dict[str, Any]:
        """Clusters to choose from."""
        return {"clusters": Cluster.objects.visible_to(self.request.user)}

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Create it and go on to its capacity."""
        data = form.cleaned_data
        pool = actions.create_pool(
            data["cluster"].pk,
            data["gpu_model"],
            actor=self.actor,
            flavour_ids=[flavour.pk for flavour in data["flavours"]],
            kind=data["kind"],
            commit_factor=data["commit_factor"],
            best_effort=data["best_effort"],
        )
        self.success_message = "The pool is created. Now say how many of its GPUs may be promised."
        return reverse("clusters:pool-capacity", kwargs={"pool_uid": pool.uid})


class PoolCapacitySet(ActionView):
    """Set how many GPUs of a pool may be promised."""

    title = "Set committable capacity"
    queryset = Pool.objects.select_related("cluster")
    permission = capacity.MANAGE
    form_class = CapacityForm
    submit_label = "Set"
    intro = (
        "Promises are checked against this number from the date on. A number lower than what is promised is taken, too:"
        " capacity that is lost is a fact, and what no longer fits is shown as such."
    )
    success_message = "The capacity is set."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the pool."""
        return [
            _pools_crumb(),
            Crumb(str(self.object), reverse("clusters:pool-detail", kwargs={"pool_uid": self.object.uid})),
        ]

    def get_initial(self) -> dict[str, Any]:
        """What is in force, or what was observed."""
        held = selectors.committable_at(self.object.pk) or self.object.observed_gpus
        return {"gpus": held, "valid_from": clock.now().replace(second=0, microsecond=0)}

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Set it."""
        data = form.cleaned_data
        actions.set_committable(
            self.object.pk, data["gpus"], data["valid_from"], valid_until=data["valid_until"], reason=data["reason"],
            actor=self.actor, expected_version=self.expected_version,
        )  # fmt: skip
        return reverse("clusters:pool-detail", kwargs={"pool_uid": self.object.uid})


class FlavourList(ListView):
    """All flavours."""

    title = "Flavours"
    intro = "The GPU and CPU classes a team can ask for."
    table_class = FlavourTable
    filterset_class = FlavourFilter
    queryset = Flavour.objects.prefetch_related("pools__cluster")
    empty_title = "No flavour yet"
    empty_text = "A flavour says which GPU model is asked for, under which resource name, and how it is shared."
    empty_icon = "cpu"

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Offer creating to those who may."""
        if may(self.request.user, capacity.MANAGE, None):
            return [("Create a flavour", reverse("clusters:flavour-create"))]
        return []

    def get_empty_action(self) -> tuple[str, str] | None:
        """The same, in the empty state."""
        return next(iter(self.get_page_actions()), None)


class FlavourCreate(CreateView):
    """Create a flavour."""

    title = "Create a flavour"
    queryset = Flavour.objects.all()
    permission = capacity.MANAGE
    form_class = FlavourForm
    submit_label = "Create the flavour"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [_flavours_crumb()]

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Create it."""
        data = {key: value for key, value in form.cleaned_data.items() if key != "version"}
        flavour = actions.create_flavour(data.pop("name"), actor=self.actor, **data)
        self.success_message = f"{flavour} can be offered from a pool now."
        return reverse("clusters:flavour-list")
