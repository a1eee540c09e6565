"""Pages of pools."""

from __future__ import annotations

from typing import Any

from django.db.models import IntegerField, OuterRef, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpResponseBase
from django.urls import reverse

from apps.clusters import actions, capacity, selectors
from apps.clusters.models import Cluster, Pool, PoolCapacity
from apps.clusters.pool_forms import CapacityForm, PoolForm
from apps.clusters.pool_tables import PoolFilter, PoolTable
from apps.clusters.tables import health_of
from apps.core import clock
from apps.core.permissions import may
from apps.core.views import ActionView, CreateView, Crumb, DetailView, ListView
from portal.panels import panels_for

VIEW_POOL = "clusters.pool.view"


def _pools_crumb() -> Crumb:
    return Crumb("Pools", reverse("clusters:pool-list"))


def pools_now() -> Any:
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
    """One pool: capacity over time, flavours, and who holds what of it (other rooms' panels)."""

    queryset = staticmethod(pools_now)
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
