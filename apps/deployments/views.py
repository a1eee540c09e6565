"""Pages of endpoints: the list, one endpoint, and what is done with it."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.urls import reverse

from apps.core.errors import Conflict, NotAllowed
from apps.core.forms import CommonsForm
from apps.core.permissions import may
from apps.core.views import ActionView, Crumb, DetailView, ListView
from apps.deployments import grants, rollout, selectors
from apps.deployments.forms import OptionalReasonForm, ReasonForm, RollBackForm
from apps.deployments.models import Endpoint
from apps.deployments.tables import ENDPOINTS_EXPORTED, EndpointFilter, EndpointTable
from portal.panels import panels_for

_RELATED = (
    "workspace__team__unit", "workspace__cluster", "model",
    "current__model_version__model", "current__flavour", "current__approval", "current__requester",
    "candidate__model_version__model", "candidate__flavour", "candidate__approval", "candidate__requester",
)  # fmt: skip


def _endpoints() -> Any:
    return Endpoint.objects.select_related(*_RELATED)


def _listed() -> Any:
    rows = Endpoint.objects.filter(removed_at__isnull=True)
    return selectors.with_state(rows).select_related(
        "workspace__team", "workspace__cluster", "current__model_version__model"
    )


def list_crumb() -> Crumb:
    """The way back to the list."""
    return Crumb("Endpoints", reverse("deployments:endpoint-list"))


def endpoint_url(endpoint: Endpoint) -> str:
    """Return an endpoint's page."""
    return reverse("deployments:endpoint-detail", kwargs={"endpoint_uid": endpoint.uid})


class EndpointList(ListView):
    """The endpoints a person may see."""

    title = "Endpoints"
    intro = "Which version serves where, and what is on its way."
    queryset = staticmethod(_listed)
    permission = "deployments.endpoint.view"
    table_class = EndpointTable
    filterset_class = EndpointFilter
    export_event = ENDPOINTS_EXPORTED
    empty_title = "Nothing is deployed yet"
    empty_text = "A team lead deploys an approved version: size, cost and placement show while typing."
    empty_icon = "server"

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Deploying, to those who may."""
        if may(self.request.user, "deployments.release.create", None):
            return [("Deploy a version", reverse("deployments:release-create"))]
        return []

    def get_empty_action(self) -> tuple[str, str] | None:
        """The same, in the empty state."""
        found = self.get_page_actions()
        return found[0] if found else None


class EndpointDetail(DetailView):
    """One endpoint: what serves, what climbs, what happened, what it costs."""

    queryset = staticmethod(_endpoints)
    permission = "deployments.endpoint.view"
    url_kwarg = "endpoint_uid"
    template_name = "deployments/endpoint_detail.html"

    def get_title(self) -> str:
        """Its name."""
        return str(self.object.name)

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [list_crumb()]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add both releases, ladder, log and what the person may do."""
        return super().get_context(
            **selectors.endpoint_context(self.object, self.request.user),
            panels=panels_for("endpoint", self.request, self.object),
            **extra,
        )


class _EndpointAction(ActionView):
    """Something that is done with an endpoint."""

    queryset = staticmethod(_endpoints)
    permission = rollout.OPERATE
    url_kwarg = "endpoint_uid"
    form_class: type[CommonsForm] = ReasonForm
    object: Endpoint
    needs_candidate = False
    needs_serving = False

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the endpoint."""
        return [list_crumb(), Crumb(self.object.name, endpoint_url(self.object))]

    def check_state(self) -> None:
        """Say at once where the endpoint's state does not take this."""
        endpoint = self.object
        current = {"version": endpoint.version}
        if endpoint.removed_at is not None:
            raise Conflict("This endpoint was removed.", current=current)
        if self.needs_candidate and endpoint.candidate_id is None:
            raise Conflict("No canary is under way.", current=current)
        if self.needs_serving and (endpoint.current_id is None or endpoint.stopped_at is not None):
            raise Conflict("Nothing serves there now.", current=current)

    def act(self, form: Any) -> None:
        """Call the action."""
        raise ImproperlyConfigured(f"{type(self).__qualname__} has no act()")

    def perform(self, form: Any) -> str:
        """Run it and go back to the endpoint; what an ended approval refuses is said on the page."""
        try:
            self.act(form)
        except NotAllowed as refusal:
            if refusal.rule != grants.RULE:
                raise
            raise Conflict(refusal.message, current={"version": self.object.version}) from refusal
        return endpoint_url(self.object)

    def arguments(self, form: Any) -> dict[str, Any]:
        """What every action takes."""
        return {
            "actor": self.actor,
            "reason": form.cleaned_data.get("reason", ""),
            "expected_version": self.expected_version,
        }


class EndpointStep(_EndpointAction):
    """Take the next rung of the ladder now."""

    title = "Next step of the canary"
    form_class = OptionalReasonForm
    submit_label = "Take the next step"
    success_message = "Done: the traffic moves as soon as the cluster has it."
    needs_candidate = True
    intro = "The canary takes the share of its next rung. Both approvals are checked again."

    def act(self, form: Any) -> None:
        """Step."""
        rollout.step(self.object.pk, **self.arguments(form))


class EndpointPromote(_EndpointAction):
    """Give the canary all traffic."""

    title = "Promote the canary"
    submit_label = "Promote it"
    success_message = "Promoted: it takes all traffic."
    needs_candidate = True
    intro = (
        "The canary takes all traffic, and the release that is live now leaves the cluster. One can go back to it as"
        " long as its approvals are usable."
    )

    def act(self, form: Any) -> None:
        """Promote."""
        rollout.promote(self.object.pk, **self.arguments(form))


class EndpointHold(_EndpointAction):
    """Keep the canary where it is."""

    title = "Hold the canary"
    submit_label = "Hold it"
    success_message = "Held: it keeps its share until somebody resumes."
    needs_candidate = True
    intro = "The canary keeps its share of the traffic; the ladder waits until somebody resumes."

    def act(self, form: Any) -> None:
        """Hold."""
        rollout.hold(self.object.pk, **self.arguments(form))


class EndpointResume(_EndpointAction):
    """Let the canary climb on."""

    title = "Resume the canary"
    form_class = OptionalReasonForm
    submit_label = "Resume"
    success_message = "Resumed."
    needs_candidate = True
    intro = "The ladder goes on from where it stands; the hours it stood there count."

    def act(self, form: Any) -> None:
        """Resume."""
        rollout.resume(self.object.pk, **self.arguments(form))


class EndpointRollBack(_EndpointAction):
    """Take the canary off, or go back to an earlier release."""

    title = "Roll back"
    form_class = RollBackForm
    submit_label = "Roll back"
    danger = True
    success_message = "Rolled back."
    needs_serving = True
    summary_template = "deployments/roll_back_targets.html"

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Say which of both it would be."""
        if self.object.candidate_id is not None:
            intro = "The canary leaves the cluster at once; the live release takes all traffic again."
        else:
            intro = (
                "The live release leaves the cluster, and the chosen one is put there exactly as it was approved. Only"
                " a release whose approvals are usable comes back; otherwise request it as an emergency."
            )
        targets = selectors.targets_of(self.object) if self.object.candidate_id is None else []
        urgent = may(self.request.user, "approvals.emergency.request", self.object)
        return super().get_context(**{"intro": intro, "targets": targets, "may_emergency": urgent, **extra})

    def get_form_kwargs(self) -> dict[str, Any]:
        """Offer the releases that one can go back to."""
        if self.object.candidate_id is not None:
            return {"choices": []}
        rows = [target.release for target in selectors.targets_of(self.object) if target.standing.ok]
        return {"choices": [(str(row.uid), f"Release {row.number}: {row.model_version}") for row in rows]}

    def act(self, form: Any) -> None:
        """Roll back."""
        rollout.roll_back(self.object.pk, to=form.target(), **self.arguments(form))


class EndpointStop(_EndpointAction):
    """Stop serving."""

    title = "Stop the endpoint"
    submit_label = "Stop it"
    danger = True
    success_message = "Stopped: nobody is answered any more."
    needs_serving = True
    intro = (
        "Nobody is answered any more until it is started again; a canary under way is rolled back. Its place in the"
        " quota stays, so that it can come back."
    )

    def act(self, form: Any) -> None:
        """Stop."""
        rollout.stop(self.object.pk, **self.arguments(form))


class EndpointStart(_EndpointAction):
    """Serve again."""

    title = "Start the endpoint again"
    submit_label = "Start it"
    success_message = "Started: it answers once it has loaded."
    intro = "The live release is put back exactly as it was approved, where its approvals are usable."

    def check_state(self) -> None:
        """Only what is stopped is started."""
        super().check_state()
        if self.object.stopped_at is None:
            raise Conflict("It is not stopped.", current={"version": self.object.version})

    def act(self, form: Any) -> None:
        """Start."""
        rollout.start_again(self.object.pk, **self.arguments(form))


class EndpointRemove(_EndpointAction):
    """Take the endpoint and its objects off the cluster."""

    title = "Remove the endpoint"
    submit_label = "Remove it for good"
    danger = True
    success_message = "Removed. Its log stays."
    intro = "Its objects leave the cluster and its place in the quota is free. Its releases and its log stay on record."

    def check_state(self) -> None:
        """What serves is stopped first."""
        super().check_state()
        if self.object.current_id is not None and self.object.stopped_at is None:
            raise Conflict("It serves: stop it first.", current={"version": self.object.version})

    def act(self, form: Any) -> None:
        """Remove."""
        rollout.remove(self.object.pk, **self.arguments(form))

    def perform(self, form: Any) -> str:
        """Go to the list: the endpoint is no longer on it."""
        self.act(form)
        return reverse("deployments:endpoint-list")
