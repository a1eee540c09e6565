"""Pages of proof: signed statements of placement, and the time machine."""

from __future__ import annotations

import base64
import json
from datetime import date
from typing import Any

import django_tables2 as tables
from django import forms
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils.safestring import SafeString

from apps.catalogue.models import Model
from apps.clusters.models import Cluster
from apps.core import clock, signing
from apps.core.forms import CommonsForm, UtcDateTimeField
from apps.core.permissions import INSTALLATION
from apps.core.tables import CommonsTable, QuantityColumn, TimeColumn, UidLinkColumn
from apps.core.views import Crumb, DetailView, ListView, PageView
from apps.deployments import time_machine
from apps.deployments.models import Endpoint, PlacementStatement

VIEW = "deployments.placement.view"


class _MonthColumn(UidLinkColumn):
    """A month by its name; exports keep the date, which sorts."""

    def render(self, value: date, record: PlacementStatement) -> SafeString | str:
        """Draw the link."""
        return super().render(f"{value:%B %Y}", record)


class StatementTable(CommonsTable):
    """Statements by month."""

    month = _MonthColumn("deployments:placement-detail", kwarg="statement_uid", verbose_name="Month")
    revision = QuantityColumn(unit=None, verbose_name="Revision")
    lines = QuantityColumn(unit=None, verbose_name="Lines")
    violations = QuantityColumn(unit=None, verbose_name="Violations")
    made_at = TimeColumn(verbose_name="Made")
    key_id = tables.Column(verbose_name="Key", attrs={"cell": {"class": "d-none d-md-table-cell"}})

    class Meta(CommonsTable.Meta):
        model = PlacementStatement
        fields = ("month", "revision", "lines", "violations", "made_at", "key_id")
        order_by = ("-month", "-revision")
        caption = "Statements of placement"


class StatementList(ListView):
    """All statements; later revisions stand beside earlier ones."""

    title = "Placement statements"
    intro = (
        "Where every model with regulated data ran, month by month, from what was metered; signed, so that it can be"
        " checked without the portal."
    )
    permission = VIEW
    table_class = StatementTable
    queryset = PlacementStatement.objects.defer("body")
    empty_icon = "file-text"

    def scope_object(self) -> Any:
        """They span all teams."""
        return INSTALLATION

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Say what an empty list means."""
        words = (
            "The first is made after the end of a month in which a regulated model served, once its hours are metered."
            if signing.can_sign()
            else "None is made: no signing key is set (COMMONS_SIGNING_KEY)."
        )
        return super().get_context(**{"empty_title": "No statements yet", "empty_text": words, **extra})


class StatementDetail(DetailView):
    """One statement: its lines, and whether its signature holds."""

    queryset = PlacementStatement.objects.all()
    permission = VIEW
    template_name = "deployments/placement_statement.html"

    def scope_object(self) -> Any:
        """They span all teams."""
        return INSTALLATION

    def get_title(self) -> str:
        """Month and revision."""
        return f"Placement in {self.object.month:%B %Y}, revision {self.object.revision}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [Crumb("Placement statements", reverse("deployments:placement-list"))]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the body, verified as it stands."""
        row: PlacementStatement = self.object
        raw = bytes(row.body)
        body = json.loads(raw)
        for line in body["lines"]:
            line["gpu_hours"] = f"{int(line['gpu_ms']) / 3_600_000:,.2f}"
        others = PlacementStatement.objects.filter(month=row.month).exclude(pk=row.pk).defer("body")
        return super().get_context(
            body=body,
            known_key=row.key_id in signing.public_keys(),
            genuine=signing.verifies(raw, row.key_id, row.signature),
            others=list(others.order_by("revision")),
            **extra,
        )


class StatementFile(DetailView):
    """Body, signature and public key in one file that `placement_verify` reads."""

    queryset = PlacementStatement.objects.all()
    permission = VIEW

    def scope_object(self) -> Any:
        """They span all teams."""
        return INSTALLATION

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Give the file."""
        row: PlacementStatement = self.object
        public = signing.public_keys().get(row.key_id)
        content = {
            "body": base64.b64encode(bytes(row.body)).decode(), "signature": row.signature, "key_id": row.key_id,
            "public_key": base64.urlsafe_b64encode(public).decode() if public else "",
        }  # fmt: skip
        name = f"placement-{row.month:%Y-%m}-r{row.revision}.json"
        return HttpResponse(
            json.dumps(content, indent=2), content_type="application/json",
            headers={"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"},
        )  # fmt: skip


class MomentForm(CommonsForm):
    """When, and about what."""

    at = UtcDateTimeField(label="At", help_text="A moment that has passed.")
    endpoint = forms.UUIDField(required=False, widget=forms.HiddenInput())
    model = forms.ModelChoiceField(
        queryset=Model.objects.none(), required=False, to_field_name="slug", empty_label="Any"
    )
    cluster = forms.ModelChoiceField(
        queryset=Cluster.objects.none(), required=False, to_field_name="slug", empty_label="Any"
    )
    name = forms.CharField(label="Endpoint's name", required=False, max_length=40)

    def __init__(self, *args: Any, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field, rows in (("model", Model), ("cluster", Cluster)):
            found = self.fields[field]
            if isinstance(found, forms.ModelChoiceField):
                found.queryset = rows.objects.visible_to(user).order_by("name", "pk")

    def clean_at(self) -> Any:
        """What is still to come is not known."""
        at = self.cleaned_data["at"]
        if at > clock.now():
            raise forms.ValidationError("That is still to come.")
        return at


class TimeMachine(PageView):
    """What was approved, deployed, where and by whom at a time."""

    title = "Time machine"
    permission = "deployments.endpoint.view"
    queryset = Endpoint.objects.all()
    template_name = "deployments/time_machine.html"

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Answer what is asked; without a question, only ask."""
        asked = bool(self.request.GET.get("at"))
        initial = {"at": clock.now().replace(second=0, microsecond=0)}
        form = MomentForm(self.request.GET if asked else None, initial=initial, user=self.request.user)
        found = None
        if asked and form.is_valid():
            data = form.cleaned_data
            found = time_machine.ask(
                self.request.user, data["at"], endpoint=data["endpoint"], name=data["name"],
                model=data["model"].slug if data["model"] else "",
                cluster=data["cluster"].slug if data["cluster"] else "",
            )  # fmt: skip
        return super().get_context(
            form=form, found=found, at=form.cleaned_data.get("at") if found else None, most=time_machine.MOST, **extra
        )
