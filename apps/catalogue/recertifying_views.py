"""Pages of approvals that end soon: list, what will be missing, confirm, or say that it shall end."""

from __future__ import annotations

from typing import Any

import django_filters
import django_tables2 as tables
from django.urls import reverse

from apps.approvals.models import ApprovalRequest
from apps.catalogue import recertifying
from apps.catalogue import requests as asks
from apps.catalogue.access import VIEW
from apps.catalogue.choices import RecertificationStatus
from apps.catalogue.evidence_events import RECERTIFICATIONS_EXPORTED
from apps.catalogue.evidence_forms import ReasonForm, RenewForm
from apps.catalogue.evidence_views import version_crumbs
from apps.catalogue.models import Recertification
from apps.catalogue.requests_selectors import places_of, submitted_scope
from apps.core import clock
from apps.core.errors import Conflict
from apps.core.filters import CommonsFilterSet, DateUntilFilter, SearchFilter
from apps.core.permissions import may
from apps.core.tables import CommonsTable, StatusColumn, TimeColumn, UidLinkColumn
from apps.core.views import ActionView, Crumb, DetailView, ListView

_WIDE = {"cell": {"class": "d-none d-md-table-cell"}}


def rows() -> Any:
    """Return the rows with what every page of them shows."""
    return Recertification.objects.select_related(
        "model_version__model__team__unit", "model_version__card", "request__requester", "request__approval",
        "renewal", "confirmed_by", "grant",
    )  # fmt: skip


def list_crumb() -> Crumb:
    """Return the way back to the list."""
    return Crumb("Recertifications", reverse("catalogue:recertification-list"))


class RecertificationTable(CommonsTable):
    """What ends first comes first."""

    model_version = UidLinkColumn(
        "catalogue:recertification-detail", kwarg="recertification_uid", verbose_name="Version",
        order_by=("model_version__model__name", "model_version__number"),
    )  # fmt: skip
    status = StatusColumn(
        verbose_name="Status",
        tones={"open": "caution", "submitted": "info", "renewed": "positive", "ended": "critical"},
    )
    team = tables.Column(accessor="model_version__model__team__name", verbose_name="Team", attrs=_WIDE)
    where = tables.Column(accessor="request__scope", verbose_name="Where", orderable=False, attrs=_WIDE)
    due_at = TimeColumn(verbose_name="Approval ends")
    confirmed_by = tables.Column(
        accessor="confirmed_by__display_name", verbose_name="Confirmed by", default="–", attrs=_WIDE
    )

    class Meta(CommonsTable.Meta):
        model = Recertification
        fields = ("model_version", "status", "team", "where", "due_at", "confirmed_by")
        order_by = ("due_at",)
        caption = "Approvals that end soon"

    def render_where(self, record: Recertification) -> str:
        """Write the scope in a line."""
        return submitted_scope(record.request)

    def value_where(self, record: Recertification) -> str:
        """Export the same."""
        return submitted_scope(record.request)


class RecertificationFilter(CommonsFilterSet):
    """Status, words, day."""

    search = SearchFilter(columns=["model_version__model__name", "model_version__label"])
    status = django_filters.ChoiceFilter(choices=RecertificationStatus.choices, empty_label="All")
    ends_until = DateUntilFilter(field_name="due_at", label="Ends until")

    class Meta:
        model = Recertification
        fields: list[str] = []


class RecertificationList(ListView):
    """The approvals that end soon, or have ended, of models that a person may see."""

    title = "Recertifications"
    intro = (
        "Approvals of versions that end: opened 30 days before, confirmed by the owning team, then decided like any."
    )
    permission = VIEW
    queryset = staticmethod(rows)
    table_class = RecertificationTable
    filterset_class = RecertificationFilter
    export_event = RECERTIFICATIONS_EXPORTED
    empty_title = "No approval ends soon"
    empty_text = "Thirty days before an approval of a version ends it appears here, ready to be asked for again."
    empty_icon = "calendar"


class RecertificationDetail(DetailView):
    """One approval that ends: its scope, what will be missing, and what became of it."""

    queryset = staticmethod(rows)
    permission = VIEW
    url_kwarg = "recertification_uid"
    template_name = "catalogue/recertification_detail.html"

    def get_title(self) -> str:
        """Which version."""
        return f"Recertification of {self.object.model_version}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the version."""
        return [*version_crumbs(self.object.model_version), list_crumb()]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add what will have expired, and what the person may do."""
        row: Recertification = self.object
        user, alive = self.request.user, row.due_at > clock.now()
        mine = alive and recertifying.may_confirm(user, row)
        unfinished = row.status in recertifying.UNFINISHED
        approval = row.request.approval
        approval_url = ""
        if approval is not None and ApprovalRequest.objects.visible_to(user).filter(pk=approval.pk).exists():
            approval_url = reverse("approvals:request-detail", kwargs={"request_uid": approval.uid})
        return super().get_context(
            outlook=recertifying.outlook(row) if unfinished else None,
            unfinished=unfinished,
            places=places_of(row.request.scope),
            may_confirm=mine and row.status in recertifying.CONFIRMABLE,
            may_decline=mine and row.status == RecertificationStatus.OPEN,
            approval_url=approval_url,
            may_add=may(user, "catalogue.evidence.add", row.model_version),
            **extra,
        )


class _Answer(ActionView):
    """One of the two answers to a draft."""

    queryset = staticmethod(rows)
    permission = asks.SUBMIT
    url_kwarg = "recertification_uid"

    def scope_object(self) -> Any:
        """Ask permissions for the version."""
        return self.object.model_version

    def breadcrumbs(self) -> list[Crumb]:
        """Back to it."""
        return [list_crumb(), Crumb(str(self.object), recertifying.url_of(self.object))]


class RecertificationConfirm(_Answer):
    """Make the draft a request, as its requester."""

    title = "Confirm the recertification"
    intro = (
        "You become the requester: the checklist is computed anew, and others decide. What is approved now stays so"
        " until it ends."
    )
    form_class = RenewForm
    submit_label = "Ask for approval again"
    success_message = "Submitted. Follow it here."

    def check_state(self) -> None:
        """Only what nobody has taken up."""
        if self.object.status not in recertifying.CONFIRMABLE:
            raise Conflict("It is taken up or closed already.", current={"status": self.object.status})

    def get_initial(self) -> dict[str, Any]:
        """For as long as before."""
        return {"valid_days": self.object.request.valid_days}

    def perform(self, form: Any) -> str:
        """Confirm it."""
        data = form.cleaned_data
        made = recertifying.confirm(
            self.object.pk, data["reason"], actor=self.actor, valid_days=data["valid_days"],
            expected_version=self.expected_version,
        )  # fmt: skip
        return reverse("catalogue:request-detail", kwargs={"request_uid": made.uid})


class RecertificationDecline(_Answer):
    """Say that the approval shall end."""

    title = "Let the approval end"
    intro = "What runs stays until the policy scales it back; nothing new can be rolled out after the end."
    form_class = ReasonForm
    submit_label = "It shall end"
    danger = True
    success_message = "Noted. It can still be confirmed until the approval ends."

    def check_state(self) -> None:
        """Only what nobody has answered."""
        if self.object.status != RecertificationStatus.OPEN:
            raise Conflict("It is taken up or closed already.", current={"status": self.object.status})

    def perform(self, form: Any) -> str:
        """Note it."""
        recertifying.decline(
            self.object.pk, form.cleaned_data["reason"], actor=self.actor, expected_version=self.expected_version
        )
        return recertifying.url_of(self.object)
