"""Pages of requests for versions: list, ask with the checklist while choosing, follow, withdraw, renew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import django_filters
import django_tables2 as tables
from django.http.response import HttpResponseBase
from django.urls import reverse

from apps.catalogue import controls_state, recertifying, requests_selectors
from apps.catalogue import requests as asks
from apps.catalogue.access import VIEW
from apps.catalogue.choices import AskStatus, VersionStatus
from apps.catalogue.evidence_events import REQUESTS_EXPORTED
from apps.catalogue.evidence_forms import ReasonForm, RenewForm, RequestForm
from apps.catalogue.evidence_views import version_crumbs
from apps.catalogue.models import Model, ModelRequest, ModelVersion
from apps.core.errors import Conflict, NotAllowed, NotVisible
from apps.core.filters import CommonsFilterSet, DateFromFilter, DateUntilFilter, SearchFilter
from apps.core.permissions import may
from apps.core.tables import AgeColumn, CommonsTable, StatusColumn, UidLinkColumn
from apps.core.views import ActionView, Crumb, DetailView, ListView, LiveView
from apps.quotas.models import Workspace

_VERSIONS = ModelVersion.objects.select_related("model__team__unit", "card")
_WIDE = {"cell": {"class": "d-none d-md-table-cell"}}


def _rows() -> Any:
    return ModelRequest.objects.select_related(
        "model_version__model__team__unit", "model_version__card", "requester", "approval", "renews", "supersedes"
    )


def url_of(row: ModelRequest) -> str:
    """Return a request's page."""
    return reverse("catalogue:request-detail", kwargs={"request_uid": row.uid})


def list_crumb() -> Crumb:
    """Return the way back to the list."""
    return Crumb("Requests", reverse("catalogue:request-list"))


class RequestTable(CommonsTable):
    """Requests, newest first."""

    model_version = UidLinkColumn(
        "catalogue:request-detail", kwarg="request_uid", verbose_name="Version",
        order_by=("model_version__model__name", "model_version__number"),
    )  # fmt: skip
    status = StatusColumn(verbose_name="Status", labels=requests_selectors.status_words)
    team = tables.Column(accessor="model_version__model__team__name", verbose_name="Team", attrs=_WIDE)
    where = tables.Column(accessor="scope", verbose_name="Where", orderable=False, attrs=_WIDE)
    created_at = AgeColumn(verbose_name="Asked")
    requester = tables.Column(accessor="requester__display_name", verbose_name="By", attrs=_WIDE)

    class Meta(CommonsTable.Meta):
        model = ModelRequest
        fields = ("model_version", "status", "team", "where", "created_at", "requester")
        order_by = ("-created_at",)
        caption = "Requests for versions"

    def render_where(self, record: ModelRequest) -> str:
        """Write the scope in a line."""
        return requests_selectors.submitted_scope(record)

    def value_where(self, record: ModelRequest) -> str:
        """Export the same."""
        return requests_selectors.submitted_scope(record)


class RequestFilter(CommonsFilterSet):
    """Status, model, day."""

    search = SearchFilter(columns=["model_version__model__name", "model_version__label", "reason"])
    status = django_filters.ChoiceFilter(choices=AskStatus.choices, empty_label="All")
    model = django_filters.ModelChoiceFilter(
        field_name="model_version__model", queryset=Model.objects.none(), empty_label="All"
    )
    asked_from = DateFromFilter(field_name="created_at", label="Asked from")
    asked_until = DateUntilFilter(field_name="created_at", label="Asked until")

    class Meta:
        model = ModelRequest
        fields: list[str] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.filters["model"].queryset = Model.objects.visible_to(self.request.user).order_by("name")


class RequestList(ListView):
    """The requests a person may see."""

    title = "Approval of versions"
    intro = "Who asked that which bytes may run where, and where that stands."
    permission = VIEW
    queryset = staticmethod(_rows)
    table_class = RequestTable
    filterset_class = RequestFilter
    export_event = REQUESTS_EXPORTED
    empty_title = "No requests yet"
    empty_text = "A team lead asks for the approval of a sealed version on the version's page."
    empty_icon = "clipboard-check"


class RequestDetail(DetailView):
    """One request: what is asked for, the checklist, what changes, and its way."""

    queryset = staticmethod(_rows)
    permission = VIEW
    url_kwarg = "request_uid"
    template_name = "catalogue/request_detail.html"

    def get_title(self) -> str:
        """Which version."""
        return f"Approval of {self.object.model_version}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the version."""
        return [*version_crumbs(self.object.model_version), list_crumb()]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add checklist, differences, timeline and what the person may do."""
        row: ModelRequest = self.object
        user = self.request.user
        may_submit = asks.may_submit(user, row.model_version)
        is_open = row.status == AskStatus.IN_REVIEW
        return super().get_context(
            **requests_selectors.evidence_of(row),
            status_words=requests_selectors.status_words(row),
            timeline=requests_selectors.timeline_of(row),
            grant=requests_selectors.grant_of(row),
            ending=row.recertifications.filter(status__in=recertifying.UNFINISHED).first(),
            environments=", ".join(asks.environments_of(row.scope)),
            may_withdraw=asks.may_withdraw(user, row),
            may_correct=is_open and may_submit,
            may_renew=row.status == AskStatus.APPROVED
            and may_submit
            and row.model_version.status == VersionStatus.SEALED,
            approval_url=self._approval_url(),
            **extra,
        )

    def _approval_url(self) -> str:
        approval = self.object.approval
        if approval is None or not type(approval).objects.visible_to(self.request.user).filter(pk=approval.pk).exists():
            return ""
        return reverse("approvals:request-detail", kwargs={"request_uid": approval.uid})


class RequestCreate(ActionView):
    """Ask that a version be approved."""

    queryset = _VERSIONS
    permission = asks.SUBMIT
    url_kwarg = "version_uid"
    form_class = RequestForm
    template_name = "catalogue/request_form.html"
    intro = "What is approved is exactly this manifest in exactly this scope. Nothing runs before that."
    submit_label = "Ask for approval"

    def get_title(self) -> str:
        """Which version."""
        return f"Ask for approval of {self.object}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the version."""
        return version_crumbs(self.object)

    def check_state(self) -> None:
        """Only a sealed version has bytes to approve, once at a time."""
        if self.object.status != VersionStatus.SEALED:
            raise Conflict("Only a sealed version can be asked for: seal it first.")
        if ModelRequest.objects.filter(model_version=self.object, status=AskStatus.IN_REVIEW).exists():
            raise Conflict("A request for this version is open already. Withdraw or correct that one.")

    def get_form_kwargs(self) -> dict[str, Any]:
        """The choices depend on the person."""
        return {"user": self.request.user, "model_version": self.object}

    def get_initial(self) -> dict[str, Any]:
        """With one workspace, choose it."""
        mine = list(asks.usable_workspaces(self.request.user, self.object).values_list("pk", flat=True)[:2])
        return {"workspaces": mine if len(mine) == 1 else []}

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add where the checklist comes from while choosing."""
        url = reverse("catalogue:request-preview", kwargs={"version_uid": self.object.uid})
        return super().get_context(preview_url=url, **extra)

    def perform(self, form: Any) -> str:
        """Submit it."""
        row = asks.submit(self.object.pk, form.asked(), actor=self.actor)
        approved = row.status == AskStatus.APPROVED
        self.success_message = "Approved by policy." if approved else "Submitted. Follow it here."
        return url_of(row)


class RequestPreview(LiveView):
    """The checklist for the scope chosen so far."""

    queryset = _VERSIONS
    permission = asks.SUBMIT
    form_class = RequestForm
    template_name = "catalogue/request_preview.html"
    object: Any = None

    def prepare(self) -> None:
        """Load the version."""
        self.object = _VERSIONS.get_visible(self.request.user, self.kwargs["version_uid"])

    def scope_object(self) -> Any:
        """Ask permissions for it."""
        return self.object

    def get_form_kwargs(self) -> dict[str, Any]:
        """The choices depend on the person."""
        return {"user": self.request.user, "model_version": self.object}

    def compute(self, form: Any) -> Mapping[str, Any]:
        """Return what is open in that scope."""
        chosen = form.cleaned_data.get("workspaces")
        if not chosen or not self.object.digest:
            return {"incomplete": True}
        standing = controls_state.standing(
            self.object, asks.scope_of(list(chosen), form.cleaned_data.get("max_traffic") or 100)
        )
        return {"open": standing.open, "applying": len(standing.applying)}


class RequestCorrect(RequestCreate):
    """Put another scope or validity in place of an open request's."""

    intro = "What was decided so far is void, and it is looked at from the beginning."
    submit_label = "Submit the correction"
    row: ModelRequest

    def prepare(self) -> None:
        """Load the request and its version."""
        self.row = _rows().get_visible(self.request.user, self.kwargs["request_uid"])
        self.object = self.row.model_version

    def get_title(self) -> str:
        """Which version."""
        return f"Correct the request for {self.object}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the request."""
        return [list_crumb(), Crumb(str(self.object), url_of(self.row))]

    def check_state(self) -> None:
        """Only an open request can be corrected."""
        if self.row.status != AskStatus.IN_REVIEW:
            raise Conflict("Only an open request can be corrected.", current={"status": self.row.status})

    def get_initial(self) -> dict[str, Any]:
        """What was asked for."""
        rows = Workspace.objects.filter(uid__in=self.row.scope["workspaces"])
        return {
            "version": self.row.version, "workspaces": list(rows.values_list("pk", flat=True)),
            "max_traffic": self.row.scope["max_traffic"], "valid_days": self.row.valid_days,
            "not_before": self.row.not_before, "reason": self.row.reason,
        }  # fmt: skip

    def conflict(self, conflict: Conflict) -> HttpResponseBase:
        """Show how the request stands now."""
        self.prepare()
        return self.page(status=409, conflict=conflict)

    def perform(self, form: Any) -> str:
        """Correct it."""
        return url_of(asks.correct(self.row.pk, form.asked(), actor=self.actor, expected_version=self.expected_version))


class RequestWithdraw(ActionView):
    """Take an open request back."""

    title = "Withdraw the request"
    intro = "What was decided so far is void. It can be asked for again."
    queryset = staticmethod(_rows)
    permission = VIEW
    url_kwarg = "request_uid"
    form_class = ReasonForm
    submit_label = "Withdraw it"
    danger = True
    success_message = "Withdrawn."

    def check_permission(self) -> None:
        """The requester, or who may withdraw for the team (asked again by the action)."""
        super().check_permission()
        approval = self.object.approval
        own = self.object.requester_id == self.request.user.pk
        if not own and (approval is None or not may(self.request.user, "approvals.request.withdraw", approval)):
            raise NotAllowed(rule="approvals.request.withdraw")

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the request."""
        return [list_crumb(), Crumb(str(self.object), url_of(self.object))]

    def check_state(self) -> None:
        """Only an open request."""
        if self.object.status != AskStatus.IN_REVIEW:
            raise Conflict("Only an open request can be withdrawn.", current={"status": self.object.status})

    def perform(self, form: Any) -> str:
        """Withdraw it."""
        asks.withdraw(
            self.object.pk, form.cleaned_data["reason"], actor=self.actor, expected_version=self.expected_version
        )
        return url_of(self.object)


class RequestRenew(ActionView):
    """Ask for an approved scope again."""

    title = "Ask again for the same scope"
    intro = "The checklist is computed anew. The approval that is in force stays so until it ends."
    queryset = staticmethod(_rows)
    permission = asks.SUBMIT
    url_kwarg = "request_uid"
    form_class = RenewForm
    submit_label = "Ask again"
    success_message = "Submitted. Follow it here."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the request."""
        return [list_crumb(), Crumb(str(self.object), url_of(self.object))]

    def check_state(self) -> None:
        """Only what was approved."""
        if self.object.status != AskStatus.APPROVED:
            raise Conflict("Only an approved request is asked for again.", current={"status": self.object.status})

    def get_initial(self) -> dict[str, Any]:
        """For as long as before."""
        return {"valid_days": self.object.valid_days}

    def perform(self, form: Any) -> str:
        """Renew it."""
        if not asks.may_submit(self.request.user, self.object.model_version):
            raise NotVisible
        data = form.cleaned_data
        row = asks.renew(self.object.pk, data["reason"], actor=self.actor, valid_days=data["valid_days"])
        return url_of(row)
