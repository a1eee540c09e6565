"""Use it: kubeconfig, ready-made manifests, a server dry run; and why something does not start.

What calls a cluster is a POST: it runs outside the read transaction of safe requests (no transaction across a network
call), and changes nothing.
"""

from __future__ import annotations

import uuid
from typing import Any, cast

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import reverse

from apps.accounts.models import User
from apps.clusters.choices import KueueMode
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.clusters.errors import ClusterError
from apps.clusters.models import Flavour
from apps.clusters.selectors import callable_now
from apps.core import clock
from apps.core.errors import NotVisible
from apps.core.views import Crumb, ObjectMixin
from apps.quotas import kueue_state, selectors, use_it
from apps.quotas.kueue import LOCAL_QUEUE
from apps.quotas.models import Quota, Workspace
from apps.quotas.use_it import Place
from apps.quotas.why_pending import explain, held_up


class _WorkspacePage(ObjectMixin):
    """A page about one workspace for those who use it."""

    queryset = Workspace.objects.select_related("team", "cluster").filter(archived_at__isnull=True)
    permission = "quotas.workspace.use"
    url_kwarg = "workspace_uid"
    object: Workspace

    @property
    def person(self) -> User:
        """Who asks; the page's gate let only signed-in people through."""
        return cast("User", self.request.user)

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the workspace."""
        url = reverse("quotas:workspace-detail", kwargs={"workspace_uid": self.object.uid})
        return [Crumb("Workspaces", reverse("quotas:workspace-list")), Crumb(str(self.object), url)]


class _FlavourPage(_WorkspacePage):
    """A page about one flavour in a workspace."""

    flavour: Flavour

    def prepare(self) -> None:
        """Load workspace and flavour. Raises NotVisible where the workspace never held the flavour."""
        super().prepare()
        held = Quota.objects.filter(workspace=self.object).values("flavour_id")
        found = Flavour.objects.filter(slug=self.kwargs["flavour_slug"], pk__in=held).first()
        if found is None:
            raise NotVisible("This workspace holds no quota of such a flavour.")
        self.flavour = found

    def place(self) -> Place:
        """Return where things run."""
        cluster = self.object.cluster
        queued = kueue_state.queued(self.object)
        return Place(
            cluster=cluster.slug,
            api_url=cluster.api_url,
            ca_pem=cluster.ca_certificate,
            namespace=self.object.namespace,
            environment=self.object.environment,
            resource=self.flavour.resource_name,
            gpus=1,
            node_labels=self.flavour.node_labels,
            tolerations=self.flavour.tolerations,
            simulated=cluster.simulated,
            queue=LOCAL_QUEUE if queued else "",
            queues_pods=cluster.kueue_mode == KueueMode.PODS,
            priorities=kueue_state.state_of(cluster).priorities,
        )


class UseIt(_FlavourPage):
    """What a person needs to run something with a flavour of a workspace."""

    template_name = "quotas/use_it.html"

    def get_title(self) -> str:
        """What is used where."""
        return f"Use {self.flavour} in {self.object}"

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the kubeconfig's to-do and the manifests."""
        place = self.place()
        kwargs = {"workspace_uid": self.object.uid, "flavour_slug": self.flavour.slug}
        _, todo = use_it.kubeconfig(place, self.person.email, self.object.cluster.identity_provider)
        titles = {"job": "Job: training, batch", "pod": "Pod: try something", "deployment": "Deployment: inference"}
        shapes = [
            {
                "shape": shape,
                "title": titles[shape],
                "text": use_it.to_yaml(use_it.ready_made(place, shape)),
                "url": reverse("quotas:use-manifest", kwargs={**kwargs, "shape": shape}),
                "check_url": reverse("quotas:use-check", kwargs={**kwargs, "shape": shape}),
            }
            for shape in use_it.SHAPES
        ]
        rows = [row for row in selectors.quota_rows([self.object]) if row.flavour == self.flavour]
        return super().get_context(
            flavour=self.flavour,
            todo=todo,
            shapes=shapes,
            row=rows[0] if rows else None,
            group=selectors.holders_of_use(self.person, self.object),
            kubeconfig_url=reverse("quotas:use-kubeconfig", kwargs=kwargs),
            **extra,
        )


def _away(workspace: Workspace) -> str:
    return f"{workspace.cluster} is paused or does not answer just now."


def _file(text: str, name: str) -> HttpResponse:
    response = HttpResponse(text, content_type="application/yaml; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


class Kubeconfig(_FlavourPage):
    """The kubeconfig as a file."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Give the person's own kubeconfig."""
        place = self.place()
        config, _ = use_it.kubeconfig(place, self.person.email, self.object.cluster.identity_provider)
        return _file(use_it.to_yaml(config), f"kubeconfig-{place.namespace}.yaml")


class ReadyMade(_FlavourPage):
    """A ready-made manifest as a file."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Give the manifest. Raises NotVisible for a shape that does not exist."""
        if self.kwargs["shape"] not in use_it.SHAPES:
            raise NotVisible
        manifest = use_it.ready_made(self.place(), self.kwargs["shape"])
        return _file(use_it.to_yaml(manifest), f"{self.object.namespace}-{self.kwargs['shape']}.yaml")


class Check(_FlavourPage):
    """Ask the cluster whether it would take a ready-made manifest now: server dry run, nothing is created."""

    template_name = "quotas/check.html"
    http_method_names = ["post", "options"]

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Dry-run the manifest and a pod of it (quotas count pods, not what makes them)."""
        shape = self.kwargs["shape"]
        if shape not in use_it.SHAPES:
            raise NotVisible
        manifest = use_it.ready_made(self.place(), shape)
        # A name of its own: what somebody already runs from the same manifest must not count as a refusal.
        manifest["metadata"]["name"] = f"check-{uuid.uuid4().hex[:10]}"
        if not callable_now(self.object.cluster):
            return self.page(
                unreachable=f"{self.object.cluster} is paused or does not answer just now.", at=clock.now()
            )
        try:
            client = KubernetesClient.for_cluster(self.object.cluster)
            warnings = client.create(manifest, dry_run=True).warnings
            if shape != "pod":
                warnings += client.create(use_it.pod_of(manifest), dry_run=True).warnings
        except ClusterError as error:
            if error.cluster_wide:
                return self.page(unreachable=error.message, at=clock.now())
            return self.page(refused=explain(error.message), at=clock.now())
        return self.page(accepted=True, warnings=warnings, at=clock.now())


class WhyPending(_WorkspacePage):
    """Why something in the workspace does not start, read from the cluster just now."""

    template_name = "quotas/why_pending.html"
    http_method_names = ["post", "options"]
    permission = "quotas.workspace.view"

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """List what waits, in plain words."""
        workspace = self.object
        if not callable_now(workspace.cluster):
            return self.page(unreachable=_away(workspace), at=clock.now())
        try:
            client = KubernetesClient.for_cluster(workspace.cluster)
            namespace = workspace.namespace
            pods = client.list("Pod", namespace, field_selector="status.phase=Pending").items
            jobs = client.list("Job", namespace).items
            deployments = client.list("Deployment", namespace).items
            events = client.list("Event", namespace).items
            queued = workspace.cluster.kueue_mode != KueueMode.OFF
            workloads = client.list("Workload", namespace).items if queued else []
        except ClusterError as error:
            return self.page(unreachable=error.message, at=clock.now())
        return self.page(held=held_up(pods, jobs, deployments, events, workloads), at=clock.now())


__all__ = ["Check", "Kubeconfig", "ReadyMade", "UseIt", "WhyPending"]
