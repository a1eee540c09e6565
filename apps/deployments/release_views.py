"""Pages of releases: ask, see at once what it means, follow, withdraw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from django.http.response import HttpResponseBase
from django.urls import reverse

from apps.accounts.models import User
from apps.approvals.blocking import open_reviews
from apps.catalogue import copies
from apps.catalogue.models import ModelVersion
from apps.core.errors import Conflict, Invalid
from apps.core.permissions import may
from apps.core.views import ActionView, CreateView, Crumb, DetailView, ListView, LiveView
from apps.deployments import actions, reading, room_reading, selectors
from apps.deployments.choices import ReleaseStatus
from apps.deployments.drafting import Assessment
from apps.deployments.forms import ReleaseForm, WithdrawForm, initial_of, may_deploy_to
from apps.deployments.models import Endpoint, Release
from apps.deployments.tables import RELEASES_EXPORTED, ReleaseFilter, ReleaseTable
from apps.deployments.views import endpoint_url, list_crumb
from apps.provisioning.views import plan_links
from portal.panels import panels_for

_RELATED = (
    "endpoint__workspace__team__unit", "endpoint__workspace__cluster", "endpoint__current__flavour",
    "endpoint__current__model_version__model", "endpoint__model", "model_version__model", "flavour", "plan",
    "requester", "approval__policy_version__policy",
)  # fmt: skip


def _releases() -> Any:
    return Release.objects.select_related(*_RELATED)


def release_url(release: Release) -> str:
    """Return a release's page."""
    return reverse("deployments:release-detail", kwargs={"release_uid": release.uid})


class ReleaseList(ListView):
    """The releases a person may see."""

    title = "Releases"
    intro = "Every version that was to serve somewhere, who asked for it, and what became of it."
    queryset = Release.objects.select_related(
        "endpoint__workspace__team", "endpoint__workspace__cluster", "model_version__model", "flavour"
    ).defer("change", "spec")
    permission = "deployments.endpoint.view"
    table_class = ReleaseTable
    filterset_class = ReleaseFilter
    export_event = RELEASES_EXPORTED
    empty_title = "No releases yet"
    empty_text = "A release puts an approved version on an endpoint."
    empty_icon = "server"


class ReleaseCreate(CreateView):
    """Ask that a version serve."""

    title = "Deploy a version"
    intro = "Nothing changes before it is approved. Cost, room, placement and approvers show while you type."
    permission = "deployments.release.create"
    queryset = Release.objects.all()
    form_class = ReleaseForm
    template_name = "deployments/release_form.html"
    submit_label = "Submit the release"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [list_crumb()]

    def get_form_kwargs(self) -> dict[str, Any]:
        """The form's choices depend on the person."""
        user = self.request.user
        return {"user": user, "may_emergency": may(user, "approvals.emergency.request", None)}

    def get_initial(self) -> dict[str, Any]:
        """Take version, workspace or endpoint from the link that led here; an endpoint brings its live release."""
        asked, user = self.request.GET, self.request.user
        found: dict[str, Any] = {}
        if (endpoint := _named(Endpoint, asked.get("endpoint", ""), user)) is not None:
            found |= {"workspace": endpoint.workspace_id, "name": endpoint.name}
            if endpoint.current is not None:
                found |= initial_of(reading.spec_of(endpoint.current))
                found |= {"flavour": endpoint.current.flavour_id, "model_version": endpoint.current.model_version_id}
        if (earlier := _named(Release, asked.get("release", ""), user)) is not None:
            found |= {"workspace": earlier.endpoint.workspace_id, "name": earlier.endpoint.name}
            found |= initial_of(reading.spec_of(earlier))
            found |= {"flavour": earlier.flavour_id, "model_version": earlier.model_version_id}
        if (version := _named(ModelVersion, asked.get("version", ""), user)) is not None:
            found["model_version"] = version.pk
            found.setdefault("name", version.model.slug[:40].strip("-"))
        mine = {str(uid): pk for uid, pk in may_deploy_to(user).values_list("uid", "pk")}
        if (chosen := mine.get(asked.get("workspace", ""))) is not None:
            found["workspace"] = chosen
        elif "workspace" not in found and len(mine) == 1:
            found["workspace"] = next(iter(mine.values()))
        if asked.get("emergency"):
            found["emergency"] = True
        return found

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add where the live panel comes from."""
        return super().get_context(
            estimate_url=reverse("deployments:release-estimate"),
            reviews=open_reviews(self.request.user),
            unreached=copies.unreached(self.request.user),
            **extra,
        )

    def conflict(self, conflict: Conflict) -> HttpResponseBase:
        """Another release is open: sending this again would not help; say where the other one is."""
        uid = conflict.current.get("release")
        if self._form is None or not uid:
            return super().conflict(conflict)
        self._form.add_error("name", conflict.message)
        return self.page(status=409, open_url=reverse("deployments:release-detail", kwargs={"release_uid": uid}))

    def perform(self, form: Any) -> str:
        """Submit it."""
        data = form.cleaned_data
        release = actions.request_release(
            data["workspace"].pk, data["name"], data["model_version"].pk, data["flavour"].pk, form.spec(),
            data["reason"], actor=self.actor, emergency=bool(data.get("emergency")),
        )  # fmt: skip
        waiting = release.status in (ReleaseStatus.IN_REVIEW, ReleaseStatus.WAITING)
        self.success_message = "Submitted. Follow it here." if waiting else "Approved by policy: it is on its way."
        return release_url(release)


def _named(model: Any, uid: str, user: Any) -> Any:
    """Return the visible row that a link names, or None."""
    from apps.core.errors import NotVisible

    if not uid:
        return None
    try:
        return model.objects.get_visible(user, uid)
    except (NotVisible, ValueError):
        return None


class ReleaseEstimate(LiveView):
    """What a half-filled release would mean."""

    permission = "deployments.release.create"
    queryset = Release.objects.all()
    form_class = ReleaseForm
    template_name = "deployments/estimate.html"

    def get_form_kwargs(self) -> dict[str, Any]:
        """The form's choices depend on the person."""
        user = self.request.user
        return {"user": user, "may_emergency": may(user, "approvals.emergency.request", None)}

    def compute(self, form: Any) -> Mapping[str, Any]:
        """Return cost, room, placement, tiers and approvers, or what is wrong so far."""
        wrong = [
            f"{form.fields[name].label}: {message}"
            for name, messages in form.errors.items()
            if name in form.fields and name != "reason" and form[name].value()
            for message in messages
        ]
        if wrong:
            return {"problems": wrong}
        if set(form.errors) - {"reason"}:
            return {"incomplete": True}
        data = form.cleaned_data
        user = cast("User", self.request.user)
        try:
            draft = actions.drafted(
                data["workspace"].pk, data["name"], data["model_version"].pk, data["flavour"].pk, form.spec(),
                user=user, emergency=bool(data.get("emergency")),
            )  # fmt: skip
            assessment = actions.assessed(draft)
        except Invalid as invalid:
            return {"problems": [text for texts in invalid.errors.values() for text in texts]}
        return {
            "a": assessment,
            "room": room_reading.of_assessment(assessment),
            "refused": list(assessment.problems.values()),
            "approval": selectors.approvers(assessment, user),
            "open_url": _open_url(assessment, user),
            "hours": int(assessment.staging.total_seconds() // 3600),
        }


def _open_url(assessment: Assessment, user: User) -> str:
    endpoint = assessment.draft.endpoint
    if endpoint is None:
        return ""
    other = (
        Release.objects.visible_to(user)
        .filter(endpoint=endpoint, status__in=["in_review", "waiting_for_capacity", "starting", "canary", "held"])
        .first()
    )
    return release_url(other) if other is not None else ""


class ReleaseDetail(DetailView):
    """One release: what it asks for, what it means, and its way."""

    queryset = staticmethod(_releases)
    permission = "deployments.endpoint.view"
    url_kwarg = "release_uid"
    template_name = "deployments/release_detail.html"

    def get_title(self) -> str:
        """The release in short."""
        return f"Release {self.object.number} of {self.object.endpoint.name}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to its endpoint."""
        endpoint = self.object.endpoint
        return [list_crumb(), Crumb(endpoint.name, endpoint_url(endpoint))]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add evidence and what the person may do."""
        release: Release = self.object
        user = self.request.user
        open_now = release.status in (ReleaseStatus.IN_REVIEW, ReleaseStatus.WAITING)
        return super().get_context(
            **selectors.release_evidence(release),
            plan_links=plan_links([release.plan] if release.plan is not None else [], user),
            steps=selectors.steps_of_release(release, user),
            may_withdraw=open_now and may(user, actions.CREATE, release),
            approval_url=self._approval_url(),
            panels=panels_for("release", self.request, release),
            **extra,
        )

    def _approval_url(self) -> str:
        """Where the approval is, for those who may see it."""
        approval = self.object.approval
        if approval is None or not type(approval).objects.visible_to(self.request.user).filter(pk=approval.pk).exists():
            return ""
        return reverse("approvals:request-detail", kwargs={"request_uid": approval.uid})


class ReleaseWithdraw(ActionView):
    """Take a release back before it is on the cluster."""

    title = "Withdraw the release"
    intro = "What serves now does not change. What was decided so far is void."
    queryset = staticmethod(_releases)
    permission = actions.CREATE
    url_kwarg = "release_uid"
    form_class = WithdrawForm
    submit_label = "Withdraw it"
    danger = True
    success_message = "Withdrawn."
    object: Release

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the release."""
        return [list_crumb(), Crumb(f"Release {self.object.number}", release_url(self.object))]

    def check_state(self) -> None:
        """Only what is in review or waits can be withdrawn."""
        if self.object.status not in (ReleaseStatus.IN_REVIEW, ReleaseStatus.WAITING):
            label = ReleaseStatus(self.object.status).label.lower()
            raise Conflict(
                f"This release is {label}: it can no longer be withdrawn.", current={"version": self.object.version}
            )

    def perform(self, form: Any) -> str:
        """Withdraw it."""
        release = actions.withdraw_release(
            self.object.pk, actor=self.actor, expected_version=self.expected_version,
            reason=form.cleaned_data.get("reason", ""),
        )  # fmt: skip
        return release_url(release)
