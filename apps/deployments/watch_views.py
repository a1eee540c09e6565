"""The live part of an endpoint's page, and the pages of its objectives."""

from __future__ import annotations

from typing import Any

from django.urls import reverse

from apps.core.errors import Conflict
from apps.core.permissions import may
from apps.core.views import ActionView, Crumb, DetailView
from apps.deployments import objectives, watch_selectors
from apps.deployments.models import Endpoint, Objective
from apps.deployments.watch_forms import ObjectiveChangeForm, ObjectiveForm, values_of

_RELATED = (
    "workspace__team", "workspace__cluster", "model", "current__model_version", "candidate__model_version",
)  # fmt: skip


def _endpoints() -> Any:
    return Endpoint.objects.select_related(*_RELATED)


def _objectives() -> Any:
    return Objective.objects.select_related("endpoint__workspace__team")


def crumbs(endpoint: Endpoint) -> list[Crumb]:
    """The way back to an endpoint."""
    page = reverse("deployments:endpoint-detail", kwargs={"endpoint_uid": endpoint.uid})
    return [Crumb("Endpoints", reverse("deployments:endpoint-list")), Crumb(endpoint.name, page)]


def objectives_url(endpoint: Endpoint) -> str:
    """Return the page of an endpoint's objectives."""
    return reverse("deployments:objective-list", kwargs={"endpoint_uid": endpoint.uid})


class EndpointLive(DetailView):
    """The fragment that refreshes itself."""

    queryset = staticmethod(_endpoints)
    permission = "deployments.endpoint.view"
    url_kwarg = "endpoint_uid"
    template_name = "deployments/live.html"

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add what is known now."""
        return super().get_context(**watch_selectors.live_context(self.object), **extra)


class ObjectiveList(DetailView):
    """What one endpoint is held to, how it stands, and its drift."""

    queryset = staticmethod(_endpoints)
    permission = "deployments.endpoint.view"
    url_kwarg = "endpoint_uid"
    template_name = "deployments/objectives.html"
    title = "Objectives"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the endpoint."""
        return crumbs(self.object)

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add objectives with readings."""
        return super().get_context(
            may_set=self.object.removed_at is None and may(self.request.user, objectives.SET, self.object),
            **watch_selectors.objectives_context(self.object),
            **extra,
        )


class ObjectiveAdd(ActionView):
    """Hold an endpoint to something."""

    title = "Set an objective"
    intro = "It is read every five minutes. What is unknown is no breach."
    queryset = staticmethod(_endpoints)
    permission = objectives.SET
    url_kwarg = "endpoint_uid"
    form_class = ObjectiveForm
    submit_label = "Set it"
    success_message = "The objective is set."
    object: Endpoint

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the objectives."""
        return [*crumbs(self.object), Crumb("Objectives", objectives_url(self.object))]

    def check_state(self) -> None:
        """Only for endpoints that are there."""
        if self.object.removed_at is not None:
            raise Conflict("This endpoint was removed.", current={"version": self.object.version})

    def perform(self, form: Any) -> str:
        """Set it."""
        kind, feature = form.cleaned_data["kind"], form.cleaned_data["feature"]
        objectives.set_objective(self.object.pk, kind, feature=feature, actor=self.actor, **values_of(form))
        return objectives_url(self.object)


class _ObjectiveAction(ActionView):
    """Something that is done with an objective."""

    queryset = staticmethod(_objectives)
    permission = objectives.SET
    url_kwarg = "objective_uid"
    object: Objective

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the objectives."""
        endpoint = self.object.endpoint
        return [*crumbs(endpoint), Crumb("Objectives", objectives_url(endpoint))]

    def check_state(self) -> None:
        """What was archived stays as it was."""
        if self.object.archived_at is not None:
            raise Conflict("This objective was archived.", current={"version": self.object.version})


class ObjectiveEdit(_ObjectiveAction):
    """Change what an objective asks."""

    form_class = ObjectiveChangeForm
    submit_label = "Save"
    success_message = "The objective is changed."

    def get_title(self) -> str:
        """What it is about."""
        return f"Change: {objectives.title(self.object)}"

    def get_initial(self) -> dict[str, Any]:
        """As it stands."""
        row = self.object
        return {"target": row.target.normalize(), "window_hours": row.window_hours, "action": row.action}

    def perform(self, form: Any) -> str:
        """Save it."""
        objectives.change_objective(
            self.object.pk, actor=self.actor, expected_version=self.expected_version, **values_of(form)
        )
        return objectives_url(self.object.endpoint)


class ObjectiveArchive(_ObjectiveAction):
    """Hold the endpoint to it no longer."""

    intro = "From now on it is not read any more, and a breach does nothing. Its readings stay on record."
    submit_label = "Archive it"
    danger = True
    success_message = "The objective is archived."

    def get_title(self) -> str:
        """What it is about."""
        return f"Archive: {objectives.title(self.object)}"

    def perform(self, form: Any) -> str:
        """Archive it."""
        objectives.archive_objective(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        return objectives_url(self.object.endpoint)
