"""Pages of pools."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.db.models import IntegerField, OuterRef, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpResponseBase
from django.urls import reverse
from django.utils.functional import cached_property

from apps.clusters import actions, capacity, pool_inventory, proposals, selectors
from apps.clusters.models import Cluster, Node, Pool, PoolCapacity
from apps.clusters.pool_forms import CapacityForm, PoolEditForm, PoolForm, ProposalsForm
from apps.clusters.pool_tables import NodeFilter, NodeListTable, PoolFilter, PoolTable
from apps.clusters.tables import health_of
from apps.core import clock
from apps.core.permissions import may
from apps.core.views import ActionView, CreateView, Crumb, DetailView, ListView
from portal.panels import panels_for

VIEW_POOL = "clusters.pool.view"


def _pools_crumb() -> Crumb:
    return Crumb("Pools", reverse("clusters:pool-list"))


def _pool_url(pool: Pool) -> str:
    return reverse("clusters:pool-detail", kwargs={"pool_uid": pool.uid})


def pools_now() -> Any:
    """Pools with what may be promised now."""
    now = PoolCapacity.objects.filter(pool=OuterRef("pk"), valid__contains=clock.now()).values("committable_gpus")[:1]
    committable = Coalesce(Subquery(now, output_field=IntegerField()), 0)
    return Pool.objects.select_related("cluster").annotate(committable=committable)


def pools_of(cluster: Cluster, user: Any) -> list[Pool]:
    """Return the pools of a cluster that a person may view, with what may be promised now.

    Read once for all that shows this very instance of a cluster (a page loads one, for one person).
    """
    held: list[Pool] | None = cluster.__dict__.get("_pools_read")
    if held is None:
        rows = pools_now().visible_to(user).filter(cluster=cluster).order_by("gpu_model", "pk")
        held = cluster.__dict__["_pools_read"] = list(rows)
    return held


class PoolList(ListView):
    """All pools."""

    title = "Pools"
    permission = VIEW_POOL
    intro = (
        "The GPUs of one model (or the cores of one CPU class) on one cluster. Committable is what may be promised;"
        " observed is what the nodes carry."
    )
    table_class = PoolTable
    filterset_class = PoolFilter
    empty_title = "No pool yet"
    empty_text = "Create a flavour, then the pool it is offered from."
    empty_icon = "stack-2"
    queryset = staticmethod(pools_now)

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Offer creating to those who may."""
        if may(self.request.user, capacity.MANAGE, None):
            return [("Create a pool", reverse("clusters:pool-create"))]
        return []

    def get_empty_action(self) -> tuple[str, str] | None:
        """The same, in the empty state."""
        return next(iter(self.get_page_actions()), None)


class PoolDetail(DetailView):
    """One pool: what is there, capacity over time, flavours, and who holds what of it (other rooms' panels)."""

    queryset = staticmethod(pools_now)
    permission = VIEW_POOL
    template_name = "clusters/pool_detail.html"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [_pools_crumb()]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add what the nodes carry, the dated steps and panels."""
        pool = self.object
        steps = list(pool.capacities.order_by("valid"))
        now = clock.now()
        inventory = pool_inventory.of_page(pool)
        made = inventory.composition
        return super().get_context(
            health=health_of(pool.cluster),
            steps=[(row, now in row.valid) for row in steps],
            inventory=inventory,
            composition=made,
            segments=[part.segment for part in made.parts],
            may_manage=may(self.request.user, capacity.MANAGE, pool),
            may_view_nodes=may(self.request.user, "clusters.cluster.view", None),
            short=not pool.elastic and pool.observed_gpus is not None and pool.observed_gpus < pool.committable,
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
    intro = (
        "A pool holds the GPUs of one model (or the cores of one CPU class) on one cluster. Say afterwards how many of"
        " them may be promised. The cluster's page proposes pools from what its nodes carry."
    )

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
            **form.pool_settings(),
        )
        self.success_message = "The pool is created. Now say how much of it may be promised."
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
            Crumb(str(self.object), _pool_url(self.object)),
        ]

    def get_form_kwargs(self) -> dict[str, Any]:
        """The pool: its unit, and how far it can grow."""
        return {"pool": self.object}

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
        return _pool_url(self.object)


class PoolEdit(ActionView):
    """Change a pool's settings."""

    title = "Edit the pool"
    queryset = Pool.objects.select_related("cluster")
    permission = capacity.MANAGE
    form_class = PoolEditForm
    submit_label = "Save"
    success_message = "The pool is changed."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the pool."""
        return [_pools_crumb(), Crumb(str(self.object), _pool_url(self.object))]

    def get_form_kwargs(self) -> dict[str, Any]:
        """The pool: which flavours it could offer, too."""
        return {"pool": self.object}

    def get_initial(self) -> dict[str, Any]:
        """As it stands."""
        return asdict(capacity.settings_of(self.object))

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Change it."""
        capacity.edit_pool(
            self.object.pk, actor=self.actor, expected_version=self.expected_version,
            flavour_ids=[flavour.pk for flavour in form.cleaned_data.get("flavours") or ()], **form.pool_settings(),
        )  # fmt: skip
        return _pool_url(self.object)


class Proposals(ActionView):
    """Flavours and pools proposed from what a cluster's nodes carry."""

    title = "Proposed from its nodes"
    queryset = Cluster.objects.all()
    lookup = "slug"
    permission = capacity.MANAGE
    form_class = ProposalsForm
    template_name = "clusters/pool_proposals.html"
    submit_label = "Create what is chosen"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the cluster."""
        url = reverse("clusters:cluster-detail", kwargs={"slug": self.object.slug})
        return [Crumb("Clusters", reverse("clusters:cluster-list")), Crumb(str(self.object), url)]

    @cached_property
    def found(self) -> proposals.ClusterProposals:
        """What the nodes propose."""
        return proposals.for_cluster(self.object)

    def _open(self) -> list[str]:
        return [one.proposal.key for entry in self.found.pools if entry.clash is None for one in entry.flavours]

    def get_form_kwargs(self) -> dict[str, Any]:
        """What can be chosen; what exists may be sent again, it is not made twice."""
        return {"keys": self._open()}

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the proposals; everything that is new is chosen, unless models cannot be told apart."""
        rivals = proposals.rivals(self.found, self.object)
        form = extra.get("form")
        sent = form.data.getlist("keys") if form is not None and form.is_bound else None
        new = {
            one.proposal.key
            for entry in self.found.pools
            for one in entry.flavours
            if entry.clash is None and not one.in_pool and (rivals is None or entry.pool is not None)
        }
        return super().get_context(
            found=self.found,
            rivals=rivals,
            chosen=set(sent) if sent is not None else new,
            anything=any(entry.open for entry in self.found.pools),
            **extra,
        )

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Create them and show the pools."""
        made = proposals.accept_proposals(self.object.pk, form.cleaned_data["keys"], actor=self.actor)
        if len(made) == 1:
            self.success_message = f"{made[0]} is offered. Now say how much of it may be promised."
            return reverse("clusters:pool-capacity", kwargs={"pool_uid": made[0].uid})
        self.success_message = f"{len(made)} pools are offered. Now say how much of each may be promised."
        return reverse("clusters:cluster-detail", kwargs={"slug": self.object.slug})


class NodeList(ListView):
    """The nodes of all clusters."""

    title = "Nodes"
    permission = "clusters.cluster.view"
    intro = "As last observed. A node whose labels contradict its resources is counted nowhere until that is put right."
    table_class = NodeListTable
    filterset_class = NodeFilter
    queryset = Node.objects.select_related("cluster")
    empty_title = "No node observed yet"
    empty_text = "Nodes are read every half minute while a cluster answers."
    empty_icon = "server"
