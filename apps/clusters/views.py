"""Pages of clusters."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any
from urllib.parse import urlencode

from django.db.models import IntegerField, OuterRef, Subquery, Sum
from django.http import HttpResponse, HttpResponseBase
from django.urls import reverse

from apps.clusters import actions, capabilities, overview, pool_inventory, rbac, selectors
from apps.clusters.forms import ClusterForm, CredentialsForm, PauseForm
from apps.clusters.models import Cluster, Node
from apps.clusters.pool_tables import NodeTable, counted
from apps.clusters.tables import ClusterFilter, ClusterTable, health_of
from apps.core.errors import Conflict
from apps.core.permissions import may
from apps.core.views import ActionView, CreateView, Crumb, DetailView, ListView
from portal.panels import panels_for

VIEW = "clusters.cluster.view"


def clusters_crumb() -> Crumb:
    return Crumb("Clusters", reverse("clusters:cluster-list"))


def cluster_url(cluster: Cluster) -> str:
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
            return [
                ("Register a cluster", reverse("clusters:cluster-create")),
                ("What the portal needs", reverse("clusters:cluster-needs")),
            ]
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
        return [clusters_crumb()]

    def get(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Show it; when the check that a page follows is over, that page is loaded anew: all of it tells more then."""
        response = super().get(request, *args, **kwargs)
        check: overview.ShownCheck | None = getattr(self, "check", None)
        if request.headers.get("HX-Target") == "cluster-check" and (check is None or not check.moving):
            return HttpResponse(headers={"HX-Refresh": "true"})
        return response

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add health, check, abilities, maintenance, nodes and panels."""
        cluster: Cluster = self.object
        self.check = overview.last_check(cluster)
        found = capabilities.of(cluster)
        nodes = NodeTable(cluster.nodes.order_by("name", "pk"))
        nodes.request = self.request
        inventory = pool_inventory.of_cluster(cluster)
        nodes.paginate(page=1, per_page=50, paginator_class=counted(inventory.nodes))
        windows = overview.windows(cluster)
        return super().get_context(
            health=health_of(cluster),
            nodes=nodes,
            node_count=nodes.page.paginator.count,
            physical_gpus=inventory.physical_gpus,
            may_manage=may(self.request.user, actions.MANAGE, cluster),
            check=self.check,
            abilities=overview.abilities(cluster),
            installed=overview.installed(cluster),
            checked_at=found.checked_at,
            expiries=overview.expiries(cluster),
            maintenance=selectors.maintenance_on_page(cluster).get(cluster.pk),
            windows=windows,
            needs_query=_needs_query(cluster),
            panels=panels_for("cluster", self.request, cluster),
            **extra,
        )


def _needs_query(cluster: Cluster) -> str:
    """Return the options of *What the portal needs* that fit a cluster, as a query."""
    options = asdict(rbac.options_for(cluster))
    return urlencode({"chosen": "1"} | {k: "on" if v is True else v for k, v in options.items() if v is not False})


class ClusterCreate(CreateView):
    """Register a cluster."""

    template_name = "clusters/cluster_create.html"

    title = "Register a cluster"
    queryset = Cluster.objects.all()
    permission = actions.MANAGE
    form_class = ClusterForm
    submit_label = "Register"
    intro = (
        "The portal needs a service account of its own there. It keeps the token encrypted, calls the cluster only with"
        " it, and checks step by step what works."
    )

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [clusters_crumb()]

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Register and show it."""
        data = form.cleaned_data
        cluster = actions.register_cluster(
            data["name"], slug=data["slug"], region=data["region"], actor=self.actor, **form.access()
        )
        self.success_message = f"{cluster} is registered. The check below shows what works there."
        return cluster_url(cluster)


class ClusterAction(ActionView):
    """An action on one cluster."""

    queryset = Cluster.objects.all()
    lookup = "slug"
    permission = actions.MANAGE

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the cluster."""
        return [clusters_crumb(), Crumb(str(self.object), cluster_url(self.object))]


class ClusterCredentials(ClusterAction):
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
        return cluster_url(self.object)


class ClusterPause(ClusterAction):
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
        return cluster_url(self.object)


class ClusterResume(ClusterAction):
    """Resume a cluster."""

    title = "Resume"
    submit_label = "Resume the cluster"
    intro = "What waits for it is applied now."

    def check_state(self) -> None:
        """Refuse one that is not paused."""
        if self.object.paused_at is None:
            raise Conflict("This cluster is not paused.")
        if self.object.archived_at is not None:
            raise Conflict("This cluster is archived: bring it back first.")

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Resume it."""
        actions.resume(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        return cluster_url(self.object)
