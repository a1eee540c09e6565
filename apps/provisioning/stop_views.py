"""Pages of stop orders: what the portal stopped, why, and starting it again."""

from __future__ import annotations

from typing import Any

import django_filters
import django_tables2 as tables
from django.urls import reverse

from apps.core.errors import Conflict
from apps.core.filters import CommonsFilterSet, SearchFilter
from apps.core.tables import AgeColumn, CommonsTable, StatusColumn, TimeColumn, UidLinkColumn
from apps.core.views import ActionView, Crumb, DetailView, ListView
from apps.provisioning import stopping
from apps.provisioning.choices import StopCause, StopStatus
from apps.provisioning.models import StopOrder

TONES = {
    "pending": "info", "stopped": "caution", "undoing": "info", "undone": "positive", "gone": "neutral",
    "refused": "critical",
}  # fmt: skip
_WIDE = {"cell": {"class": "d-none d-md-table-cell"}}
_PERMISSION = "provisioning.declaration.view"


def _all() -> Any:
    return StopOrder.objects.select_related("cluster", "team")


def list_crumb() -> Crumb:
    """Return the way back to the list."""
    return Crumb("Stopped workloads", reverse("provisioning:stop-list"))


def stop_url(order: StopOrder) -> str:
    """Return the address of an order."""
    return reverse("provisioning:stop-detail", kwargs={"stop_uid": order.uid})


class StopTable(CommonsTable):
    """Orders, newest first."""

    name = UidLinkColumn("provisioning:stop-detail", kwarg="stop_uid", verbose_name="Workload")
    kind = tables.Column(attrs=_WIDE)
    namespace = tables.Column(verbose_name="Namespace")
    cluster = tables.Column(accessor="cluster__name", verbose_name="Cluster", attrs=_WIDE)
    team = tables.Column(accessor="team__name", verbose_name="Team", default="–", attrs=_WIDE)
    cause = tables.Column(verbose_name="Why")
    status = StatusColumn(tones=TONES)
    requested_at = AgeColumn(verbose_name="Ordered")
    stopped_at = TimeColumn(verbose_name="Stopped", attrs=_WIDE)

    class Meta(CommonsTable.Meta):
        model = StopOrder
        fields = ("name", "kind", "namespace", "cluster", "team", "cause", "status", "requested_at", "stopped_at")
        order_by = ("-requested_at",)
        caption = "Stopped workloads"


class StopFilter(CommonsFilterSet):
    """Status, cause, name."""

    search = SearchFilter(columns=["name", "namespace"])
    status = django_filters.ChoiceFilter(choices=StopStatus.choices, empty_label="All")
    cause = django_filters.ChoiceFilter(choices=StopCause.choices, empty_label="All")

    class Meta:
        model = StopOrder
        fields: list[str] = []


class StopList(ListView):
    """What the portal stopped, or could not stop, in the teams of a person."""

    title = "Stopped workloads"
    intro = (
        "What the portal stopped by an approved policy: idle work, or work whose quota has ended. It deletes nothing."
    )
    permission = _PERMISSION
    queryset = StopOrder.objects.select_related("cluster", "team")
    table_class = StopTable
    filterset_class = StopFilter
    empty_title = "Nothing was stopped"
    empty_text = "Workloads are stopped only by approved policies of their workspace."
    empty_icon = "player-pause"


class StopDetail(DetailView):
    """One order: what was set on the cluster, and how it stands."""

    permission = _PERMISSION
    queryset = staticmethod(_all)
    url_kwarg = "stop_uid"
    template_name = "provisioning/stop_detail.html"
    object: StopOrder

    def get_title(self) -> str:
        """The workload."""
        return f"{self.object.kind} {self.object.name}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [list_crumb()]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add what the person may do."""
        order = self.object
        open_one = order.status in (StopStatus.PENDING, StopStatus.STOPPED)
        lever = order.before.get("kind", "")
        same = lever == order.kind and order.before.get("name") == order.name
        return super().get_context(
            order=order,
            tones=TONES,
            lever="" if same or not lever else f"{lever} {order.before.get('name', '')}",
            replicas=order.before.get("replicas"),
            may_undo=open_one and stopping.may_undo(self.actor, order),
            **extra,
        )


class StopUndo(ActionView):
    """Start a stopped workload again."""

    title = "Start it again"
    intro = "It is started as it was before; whether there is room for it at once is for the cluster to say."
    permission = _PERMISSION
    queryset = staticmethod(_all)
    url_kwarg = "stop_uid"
    submit_label = "Start it again"
    success_message = "It is being started again."
    object: StopOrder

    def check_permission(self) -> None:
        """Those who may start it: leads where it was idle, platform admins always."""
        super().check_permission()
        stopping.require_undo(self.actor, self.object)

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the order."""
        return [list_crumb(), Crumb(self.object.name, stop_url(self.object))]

    def check_state(self) -> None:
        """Only what is stopped, or about to be."""
        if self.object.status not in (StopStatus.PENDING, StopStatus.STOPPED):
            raise Conflict(
                f"This is {StopStatus(self.object.status).label.lower()}: there is nothing to start.",
                current={"status": self.object.status, "version": self.object.version},
            )

    def perform(self, form: Any) -> str:
        """Start it."""
        stopping.undo(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        return stop_url(self.object)


__all__ = ["StopDetail", "StopList", "StopUndo"]
