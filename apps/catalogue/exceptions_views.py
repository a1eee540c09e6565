"""Pages of exceptions: list, propose, read, decide."""

from __future__ import annotations

from typing import Any

import django_filters
import django_tables2 as tables
from django.urls import reverse

from apps.catalogue import exceptions
from apps.catalogue.access import VIEW
from apps.catalogue.choices import ExceptionKind
from apps.catalogue.evidence_events import EXCEPTIONS_EXPORTED
from apps.catalogue.evidence_forms import DecisionForm, ExceptionForm
from apps.catalogue.evidence_views import version_crumbs
from apps.catalogue.models import ModelVersion, VersionException
from apps.core import clock
from apps.core.errors import Conflict
from apps.core.filters import CommonsFilterSet, SearchFilter
from apps.core.tables import CommonsTable, StatusColumn, TimeColumn, UidLinkColumn
from apps.core.views import ActionView, Crumb, DetailView, ListView

_WIDE = {"cell": {"class": "d-none d-md-table-cell"}}


def _rows() -> Any:
    return VersionException.objects.select_related("model_version__model__team__unit", "proposed_by", "decided_by")


def status_of(row: VersionException) -> str:
    """Return where an exception stands now."""
    if row.approved is None:
        return "waiting"
    if not row.approved:
        return "refused"
    return "in_force" if clock.now() < row.expires_at else "expired"


class _StatusColumn(StatusColumn):
    def render(self, value: Any, record: Any, bound_column: Any) -> Any:
        """Draw where it stands."""
        from apps.core.templatetags import commons

        return commons.status_badge(status_of(record))

    def value(self, value: Any, record: Any, bound_column: Any, **_: Any) -> str:
        """Export the word."""
        return status_of(record).replace("_", " ")


class ExceptionTable(CommonsTable):
    """Exceptions, newest first."""

    model_version = UidLinkColumn("catalogue:exception-detail", kwarg="exception_uid", verbose_name="Version")
    kind = tables.Column(verbose_name="From")
    control_code = tables.Column(verbose_name="Control", default="–", attrs=_WIDE)
    approved = _StatusColumn(verbose_name="Status", empty_values=())
    expires_at = TimeColumn(verbose_name="Ends")
    proposed_by = tables.Column(accessor="proposed_by__display_name", verbose_name="Proposed by", attrs=_WIDE)

    class Meta(CommonsTable.Meta):
        model = VersionException
        fields = ("model_version", "kind", "control_code", "approved", "expires_at", "proposed_by")
        order_by = ("-expires_at",)
        caption = "Exceptions"


class ExceptionFilter(CommonsFilterSet):
    """Kind, decided or not."""

    search = SearchFilter(columns=["model_version__model__name", "control_code"])
    kind = django_filters.ChoiceFilter(choices=ExceptionKind.choices, empty_label="All")
    waiting = django_filters.BooleanFilter(field_name="approved", lookup_expr="isnull", label="Waits for a decision")

    class Meta:
        model = VersionException
        fields: list[str] = []


class ExceptionList(ListView):
    """The exceptions a person may see."""

    title = "Exceptions"
    intro = "Named, decided by a second person, and with an end. After that the rule holds again by itself."
    permission = VIEW
    queryset = staticmethod(_rows)
    table_class = ExceptionTable
    filterset_class = ExceptionFilter
    export_event = EXCEPTIONS_EXPORTED
    empty_title = "No exceptions"
    empty_text = "They are proposed on a version's page of controls."
    empty_icon = "scale"


class ExceptionDetail(DetailView):
    """One exception."""

    queryset = staticmethod(_rows)
    permission = VIEW
    url_kwarg = "exception_uid"
    template_name = "catalogue/exception_detail.html"

    def get_title(self) -> str:
        """What it is from."""
        return f"Exception: {exceptions.subject_of(self.object)}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [Crumb("Exceptions", reverse("catalogue:exception-list"))]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add status and who may decide."""
        row: VersionException = self.object
        rule = exceptions.why_not_decide(self.request.user, row)
        return super().get_context(
            status=status_of(row), what=exceptions.subject_of(row), may_decide=row.approved is None and not rule,
            rule=rule if row.approved is None else "", **extra,
        )  # fmt: skip


class ExceptionPropose(ActionView):
    """Propose an exception for a version."""

    title = "Propose an exception"
    intro = "Somebody else decides: compliance, who neither wrote the version nor belongs to its team."
    queryset = ModelVersion.objects.select_related("model__team__unit", "card")
    permission = exceptions.PROPOSE
    url_kwarg = "version_uid"
    form_class = ExceptionForm
    submit_label = "Propose it"
    success_message = "Proposed. Compliance was told."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the version."""
        return version_crumbs(self.object)

    def get_form_kwargs(self) -> dict[str, Any]:
        """The version decides what can be chosen."""
        return {"version": self.object}

    def get_initial(self) -> dict[str, Any]:
        """The control that led here."""
        code = self.request.GET.get("control", "")[:80]
        return {"kind": "control" if code or self.object.digest else "classification", "control_code": code}

    def perform(self, form: Any) -> str:
        """Propose it."""
        data = form.cleaned_data
        row = exceptions.propose_exception(
            self.object.pk, data["kind"], data["reason"], data["expires_at"], actor=self.actor,
            control_code=data["control_code"], data_classes=data["data_classes"],
        )  # fmt: skip
        return reverse("catalogue:exception-detail", kwargs={"exception_uid": row.uid})


class ExceptionDecide(ActionView):
    """Decide an exception."""

    title = "Decide the exception"
    queryset = staticmethod(_rows)
    permission = exceptions.DECIDE
    url_kwarg = "exception_uid"
    form_class = DecisionForm
    summary_template = "catalogue/exception_summary.html"
    submit_label = "Decide"
    success_message = "Decided."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the exception."""
        url = reverse("catalogue:exception-detail", kwargs={"exception_uid": self.object.uid})
        return [Crumb("Exceptions", reverse("catalogue:exception-list")), Crumb(str(self.object.model_version), url)]

    def check_state(self) -> None:
        """Once."""
        if self.object.approved is not None:
            raise Conflict("It is decided already.")

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add what it is from."""
        return super().get_context(what=exceptions.subject_of(self.object), **extra)

    def perform(self, form: Any) -> str:
        """Decide it."""
        data = form.cleaned_data
        exceptions.decide_exception(
            self.object.pk, data["verdict"] == "approve", data["reason"], actor=self.actor,
            expected_version=self.expected_version,
        )  # fmt: skip
        return reverse("catalogue:exception-detail", kwargs={"exception_uid": self.object.uid})
