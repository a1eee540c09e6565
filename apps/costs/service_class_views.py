"""Service classes of workspaces: finance's list, assigning one, and the panel on the workspace's page."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import django_filters
import django_tables2 as tables
from django import forms
from django.db.models import OuterRef, Subquery
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from apps.core import clock
from apps.core.filters import CommonsFilterSet, SearchFilter
from apps.core.forms import CommonsForm, UtcDateTimeField
from apps.core.permissions import may
from apps.core.tables import CommonsTable, TimeColumn
from apps.core.views import ActionView, Crumb, ListView
from apps.costs import service_class as classes
from apps.metering.models import WorkspaceClass
from apps.quotas.models import Workspace
from apps.rates.choices import ServiceClass
from portal.panels import panel


class ClassForm(CommonsForm):
    """Which class, from which hour, and why."""

    service_class = forms.ChoiceField(
        label="Service class", required=False, choices=[("", classes.STANDARD), *ServiceClass.choices]
    )
    valid_from = UtcDateTimeField(label="From", help_text="A full hour; what was metered before stays as it was sold.")
    reason = forms.CharField(
        max_length=classes.MAX_REASON,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text="The team's leads read it in the mail.",
    )

    def clean_valid_from(self) -> datetime:
        """Refuse half an hour: it would be charged from the hour before on, which nobody asked for."""
        found: datetime = self.cleaned_data["valid_from"]
        if found != clock.hour_floor(found):
            raise forms.ValidationError("Choose a full hour, such as 09:00.")
        return found


class ClassTable(CommonsTable):
    """Workspaces with the class that they are charged at."""

    namespace = tables.Column(verbose_name="Workspace")
    team = tables.Column(accessor="team__name", verbose_name="Team")
    cluster = tables.Column(accessor="cluster__name", verbose_name="Cluster")
    environment = tables.Column(verbose_name="Environment", attrs={"cell": {"class": "d-none d-md-table-cell"}})
    current = tables.Column(verbose_name="Service class", empty_values=())
    since = TimeColumn(verbose_name="Since")

    class Meta(CommonsTable.Meta):
        model = Workspace
        fields = ("namespace", "team", "cluster", "environment", "current", "since")
        order_by = ("team", "cluster", "environment")
        caption = "Service classes of workspaces"

    def render_namespace(self, value: str, record: Workspace) -> str:
        """Lead to the assigning, or to the workspace for those who may only look."""
        name = "costs:class-assign" if self._may_assign(record) else "quotas:workspace-detail"
        return format_html('<a href="{}">{}</a>', reverse(name, kwargs={"workspace_uid": record.uid}), value)

    def _may_assign(self, record: Workspace) -> bool:
        return may(self.request.user, classes.PERMISSION, record)

    def value_namespace(self, value: str) -> str:
        """Export the name."""
        return value

    def render_current(self, value: str | None) -> str:
        """Write the class in words."""
        return classes.label_of(value or "")


class ClassFilter(CommonsFilterSet):
    """Search and class."""

    search = SearchFilter(columns=["namespace", "team__name", "cluster__name"])
    current = django_filters.ChoiceFilter(choices=ServiceClass.choices, label="Service class", empty_label="All")

    class Meta:
        model = Workspace
        fields: list[str] = []


class ClassList(ListView):
    """Service classes of all workspaces in scope."""

    title = "Service classes"
    permission = "rates.card.view"
    intro = "At which class each workspace is charged now. A class's price is the base price times the card's factor."
    table_class = ClassTable
    filterset_class = ClassFilter
    empty_title = "No workspaces yet"
    empty_text = "A class is given to a workspace."
    empty_icon = "receipt"

    @staticmethod
    def queryset() -> Any:
        """Workspaces with their class now."""
        now = WorkspaceClass.objects.filter(workspace=OuterRef("pk"), valid__contains=clock.now())
        rows = Workspace.objects.filter(archived_at__isnull=True).select_related("team", "cluster")
        return rows.annotate(
            current=Subquery(now.values("service_class")[:1]), since=Subquery(now.values("valid__startswith")[:1])
        )


class ClassAssign(ActionView):
    """Give a workspace a class from an hour on."""

    permission = classes.PERMISSION
    queryset = Workspace.objects.select_related("team__unit", "cluster")
    form_class = ClassForm
    template_name = "costs/service_class_assign.html"
    submit_label = "Assign"
    success_message = "Assigned. The team's leads got a mail."

    def get_title(self) -> str:
        """Return whose class."""
        return f"Service class of {self.object.namespace}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [Crumb("Service classes", reverse("costs:class-list"))]

    def get_initial(self) -> dict[str, Any]:
        """Propose the next hour."""
        return {"valid_from": clock.hour_floor(clock.now()) + timedelta(hours=1)}

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the classes so far."""
        rows = self.object.service_classes.select_related("set_by").order_by("-valid")[:50]
        return super().get_context(rows=list(rows), **extra)

    def perform(self, form: Any) -> str:
        """Assign it."""
        data = form.cleaned_data
        classes.assign_class(
            self.object.pk, data["service_class"], data["valid_from"], data["reason"], actor=self.actor
        )
        return reverse("costs:class-assign", kwargs={"workspace_uid": self.object.uid})


@panel(page="workspace", order=45, permission="quotas.workspace.view")
def workspace_class(request: HttpRequest, workspace: Workspace) -> dict[str, Any] | None:
    """The class that the workspace is charged at; nothing for a standard one that the person cannot change."""
    now = clock.now()
    rows = list(
        WorkspaceClass.objects.filter(workspace=workspace, valid__endswith__gt=now)
        | WorkspaceClass.objects.filter(workspace=workspace, valid__upper_inf=True)
    )
    may_assign = may(request.user, classes.PERMISSION, workspace)
    if not rows and not may_assign:
        return None
    current = next((row for row in rows if row.valid.lower <= now), None)
    return {
        "template": "costs/panels/service_class.html",
        "workspace": workspace,
        "label": classes.label_of(current.service_class if current else ""),
        "current": current,
        "upcoming": sorted((row for row in rows if row.valid.lower > now), key=lambda row: row.valid.lower),
        "may_assign": may_assign,
    }
