"""Pages of enforcement: what each workspace's cluster takes, what is overdue, what it would refuse now."""

from __future__ import annotations

from typing import Any

import django_filters
import django_tables2 as tables
from django import forms
from django.db.models import Count, F, Q, Value
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from django.urls import reverse
from django.utils.dateparse import parse_datetime

from apps.catalogue.choices import REGULATED
from apps.catalogue.models import ModelVersion
from apps.catalogue.tables import class_words
from apps.clusters.models import Cluster
from apps.core.errors import Conflict
from apps.core.events import declare
from apps.core.exports import Exported
from apps.core.filters import CommonsFilterSet, SearchFilter
from apps.core.forms import CommonsForm
from apps.core.permissions import may
from apps.core.tables import CommonsTable, QuantityColumn, StatusColumn, TimeColumn, UidLinkColumn
from apps.core.views import ActionView, Crumb, DetailView, ListView
from apps.deployments import admission, enforcement
from apps.deployments.choices import EnforcementMode
from apps.deployments.enforcement_worker import WINDOW
from apps.deployments.models import Enforcement, EnforcementNote
from apps.quotas.models import Workspace
from portal.panels import nav, panel

nav(
    "Enforcement", "deployments:enforcement-list", icon="shield-check", order=70,
    permission="approvals.policy.view", group="Models",
)  # fmt: skip
EXPORTED = declare("deployments.enforcement.exported", Exported, audience="auditors")
MODE_TONES = {"off": "neutral", "audit": "caution", "deny": "positive"}
KIND_WORDS = {
    "overdue_expiry": "Not taken in", "serving_expired": "Serves without approval", "uncovered": "Would be refused",
}  # fmt: skip
_WIDE = {"cell": {"class": "d-none d-md-table-cell"}}
#: Notes shown on the page; the newest first.
_SHOWN = 50


class EnforcementTable(CommonsTable):
    """Workspaces with what is decided for them."""

    namespace = UidLinkColumn("deployments:enforcement-detail", kwarg="workspace_uid", verbose_name="Workspace")
    mode = StatusColumn(tones=MODE_TONES, verbose_name="Decided")
    team = tables.Column(accessor="team__name", verbose_name="Team")
    cluster = tables.Column(accessor="cluster__name", verbose_name="Cluster")
    environment = tables.Column(verbose_name="Environment", attrs=_WIDE)
    data_classes = tables.Column(verbose_name="Data allowed", orderable=False, attrs=_WIDE)
    notes = QuantityColumn(unit=None, verbose_name="Open notes")
    next_expiry = TimeColumn(verbose_name="Next approval ends", attrs=_WIDE)

    class Meta(CommonsTable.Meta):
        model = Workspace
        fields = ("namespace", "mode", "team", "cluster", "environment", "data_classes", "notes", "next_expiry")
        order_by = ("namespace",)
        caption = "Enforcement by workspace"

    def render_mode(self, value: str) -> str:
        """The mode in words."""
        return EnforcementMode(value).label

    def value_mode(self, value: str) -> str:
        """Export the same."""
        return EnforcementMode(value).label

    def render_data_classes(self, value: list[str]) -> str:
        """Write the classes as people read them."""
        return class_words(value)

    def value_data_classes(self, value: list[str]) -> str:
        """Export the same."""
        return class_words(value)


class EnforcementFilter(CommonsFilterSet):
    """Name, cluster, mode."""

    search = SearchFilter(columns=["namespace", "team__name"])
    cluster = django_filters.ModelChoiceFilter(queryset=Cluster.objects.none(), empty_label="All")
    mode = django_filters.ChoiceFilter(label="Decided", choices=EnforcementMode.choices, empty_label="All")

    class Meta:
        model = Workspace
        fields: list[str] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Offer the clusters that the person sees."""
        super().__init__(*args, **kwargs)
        self.filters["cluster"].queryset = Cluster.objects.visible_to(self.request.user).order_by("name")


class EnforcementList(ListView):
    """Workspaces in which regulated data may be processed, or for which something is decided."""

    title = "Enforcement"
    intro = (
        "What each cluster does with models that no usable approval covers. Listed are workspaces that may process"
        " regulated data, and those for which something is decided."
    )
    permission = "deployments.endpoint.view"
    table_class = EnforcementTable
    filterset_class = EnforcementFilter
    export_event = EXPORTED
    empty_title = "No regulated workspaces"
    empty_text = (
        "A workspace appears here once regulated data (personal, health, cardholder, financial) may be used in it."
    )
    empty_icon = "shield-check"

    @staticmethod
    def queryset() -> Any:
        """Workspaces with their mode and open notes."""
        rows = Workspace.objects.select_related("team", "cluster").filter(archived_at__isnull=True)
        open_notes = Count("enforcement_notes", filter=Q(enforcement_notes__gone_at__isnull=True))
        rows = rows.annotate(
            mode=Coalesce(F("enforcement__mode"), Value(str(EnforcementMode.OFF))),
            next_expiry=F("enforcement__next_expiry_at"),
            notes=open_notes,
        )
        return rows.filter(Q(data_classes__overlap=sorted(REGULATED)) | ~Q(mode=EnforcementMode.OFF))


class EnforcementDetail(DetailView):
    """One workspace: what is decided, what lives, what the cluster takes, what is overdue or would be refused."""

    queryset = Workspace.objects.select_related("team", "cluster")
    permission = "deployments.endpoint.view"
    template_name = "deployments/enforcement_detail.html"

    def get_title(self) -> str:
        """The workspace's name."""
        return f"Enforcement in {self.object.namespace}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [Crumb("Enforcement", reverse("deployments:enforcement-list"))]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add how it stands, the entries and the notes."""
        workspace: Workspace = self.object
        row = Enforcement.objects.select_related("changed_by").filter(workspace=workspace).first()
        notes = EnforcementNote.objects.filter(workspace=workspace, gone_at__isnull=True).order_by("-found_at", "-pk")
        shown = list(notes[: _SHOWN + 1])
        return super().get_context(
            row=row,
            data_classes=class_words(workspace.data_classes),
            standing=enforcement.standing(workspace),
            entries=entry_lines(row.entries if row is not None else []),
            notes=[(note, KIND_WORDS.get(note.kind, note.kind)) for note in shown[:_SHOWN]],
            more_notes=len(shown) > _SHOWN,
            window_minutes=round(WINDOW.total_seconds() / 60),
            may_set=may(self.request.user, enforcement.SET, workspace) and workspace.archived_at is None,
            **extra,
        )


def entry_lines(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the declared entries with the names of their versions and their times, the first to end first."""
    names = {
        str(version.uid): version
        for version in ModelVersion.objects.filter(uid__in={e["version"] for e in entries}).select_related("model")
    }
    lines = [
        {
            "version": names.get(str(entry["version"])),
            "digest": entry["manifest"],
            "uris": entry["uris"],
            "images": entry["images"],
            "bound": entry["bound"],
            "not_before": parse_datetime(entry["notBefore"]),
            "expires": None if entry["expires"] == admission.NEVER else parse_datetime(entry["expires"]),
            "ends": entry["expires"],
            "serving": bool(entry.get("serving")),
        }
        for entry in entries
    ]
    return sorted(lines, key=lambda line: (line["ends"], line["digest"]))


class EnforcementForm(CommonsForm):
    """What the cluster is to do, and why."""

    mode = forms.ChoiceField(choices=EnforcementMode.choices, label="With models that no usable approval covers")
    confirmed = forms.BooleanField(
        required=False, label="I have read what this refuses, or no longer refuses",
        help_text="Needed to deny, and to stop denying.",
    )  # fmt: skip
    reason = forms.CharField(
        max_length=500, widget=forms.Textarea(attrs={"rows": 2}), help_text="Kept in the audit trail."
    )
    before = forms.CharField(required=False, widget=forms.HiddenInput)


class EnforcementSet(ActionView):
    """Decide what the cluster does in a workspace."""

    title = "Set enforcement"
    queryset = Workspace.objects.select_related("team", "cluster")
    permission = enforcement.SET
    form_class = EnforcementForm
    submit_label = "Decide"
    intro = (
        "The list of what is approved goes to the cluster at once. The label of the namespace and the team's roles come"
        " with the cluster's next approved baseline: request it afterwards."
    )
    success_message = "It is decided. Request the cluster's baseline to bring it into force."
    summary_template = "deployments/enforcement_summary.html"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the workspace's enforcement."""
        back = reverse("deployments:enforcement-detail", kwargs={"workspace_uid": self.object.uid})
        return [Crumb("Enforcement", reverse("deployments:enforcement-list")), Crumb(self.object.namespace, back)]

    def _decided(self) -> str:
        row = Enforcement.objects.filter(workspace=self.object).first()
        return str(row.mode) if row is not None else str(EnforcementMode.OFF)

    def get_initial(self) -> dict[str, Any]:
        """Start from what is decided."""
        decided = self._decided()
        return {"mode": decided, "before": decided}

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add how it stands and what would be refused."""
        notes = EnforcementNote.objects.filter(workspace=self.object, gone_at__isnull=True).order_by("-found_at", "-pk")
        return super().get_context(
            standing=enforcement.standing(self.object) if self.object is not None else None,
            notes=[(note, KIND_WORDS.get(note.kind, note.kind)) for note in notes[:_SHOWN]],
            **extra,
        )

    def perform(self, form: Any) -> str:
        """Decide."""
        data = form.cleaned_data
        if data["before"] and data["before"] != self._decided():
            raise Conflict("Somebody decided otherwise while this form was open. Look at it again.")
        enforcement.set_mode(
            self.object.pk, data["mode"], data["reason"], actor=self.actor, confirmed=data["confirmed"]
        )
        return reverse("deployments:enforcement-detail", kwargs={"workspace_uid": self.object.uid})


@panel(page="workspace", order=35, permission="deployments.endpoint.view")
def workspace_enforcement(request: HttpRequest, workspace: Workspace) -> dict[str, Any] | None:
    """What the cluster does there with models that nobody approved; nothing where it does not matter."""
    if not enforcement.is_regulated(workspace) and not enforcement.decided_modes([workspace.pk]):
        return None
    standing = enforcement.standing(workspace)
    return {"template": "deployments/panels/enforcement.html", "workspace": workspace, "standing": standing}
