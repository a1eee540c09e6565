"""Pages of change requests: list, follow, withdraw. Each kind's own form belongs to the part that owns the kind."""

from __future__ import annotations

from typing import Any

import django_filters
import django_tables2 as tables
from django.db.models import Q, QuerySet
from django.urls import reverse

from apps.clusters.models import Cluster
from apps.core.errors import Conflict
from apps.core.filters import CommonsFilterSet, DateFromFilter, DateUntilFilter, SearchFilter
from apps.core.tables import AgeColumn, CommonsTable, StatusColumn, UidLinkColumn
from apps.core.views import ActionView, Crumb, DetailView, ListView
from apps.provisioning.views import plan_links
from apps.quotas import change_selectors, changes
from apps.quotas.change_events import CHANGES_EXPORTED
from apps.quotas.choices import ChangeKind, RequestStatus
from apps.quotas.forms import WithdrawForm
from apps.quotas.models import ChangeRequest
from apps.teams.models import Team

_WIDE = {"cell": {"class": "d-none d-md-table-cell"}}
_WIDEST = {"cell": {"class": "text-nowrap d-none d-xxl-table-cell"}}


def _changes() -> Any:
    return ChangeRequest.objects.select_related(
        "workspace__team__unit", "receiver__unit", "cluster", "requester", "approval__policy_version__policy", "plan"
    )


def _url(change: ChangeRequest) -> str:
    return reverse("quotas:change-detail", kwargs={"change_uid": change.uid})


def list_crumb() -> Crumb:
    """Return the way back to the list."""
    return Crumb("Change requests", reverse("quotas:change-list"))


class ChangeTable(CommonsTable):
    """Change requests, newest first."""

    title = UidLinkColumn("quotas:change-detail", kwarg="change_uid", verbose_name="Change")
    status = StatusColumn(verbose_name="Status")
    kind = tables.Column(verbose_name="Kind", attrs=_WIDE)
    team = tables.Column(
        accessor="team__name", order_by=("workspace__team__name", "receiver__name"), verbose_name="Team",
        default="The platform", attrs=_WIDE,
    )  # fmt: skip
    workspace = tables.Column(accessor="workspace__namespace", verbose_name="Workspace", default="–", attrs=_WIDE)
    cluster = tables.Column(accessor="cluster__name", verbose_name="Cluster", attrs=_WIDE)
    created_at = AgeColumn(verbose_name="Requested")
    requester = tables.Column(accessor="requester__display_name", verbose_name="Requested by", attrs=_WIDEST)

    class Meta(CommonsTable.Meta):
        model = ChangeRequest
        fields = ("title", "status", "kind", "team", "workspace", "cluster", "created_at", "requester")
        order_by = ("-created_at",)
        caption = "Change requests"


class ChangeFilter(CommonsFilterSet):
    """Status, kind, cluster, team, day."""

    search = SearchFilter(columns=["title", "workspace__namespace"])
    status = django_filters.ChoiceFilter(choices=RequestStatus.choices, empty_label="All")
    kind = django_filters.ChoiceFilter(choices=ChangeKind.choices, empty_label="All")
    cluster = django_filters.ModelChoiceFilter(queryset=Cluster.objects.none(), empty_label="All")
    team = django_filters.ModelChoiceFilter(
        method="by_team", label="Team", queryset=Team.objects.none(), empty_label="All"
    )
    requested_from = DateFromFilter(field_name="created_at", label="Requested from")
    requested_until = DateUntilFilter(field_name="created_at", label="Requested until")

    class Meta:
        model = ChangeRequest
        fields: list[str] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        mine = ChangeRequest.objects.visible_to(self.request.user).order_by()
        self.filters["cluster"].queryset = Cluster.objects.filter(pk__in=mine.values("cluster")).order_by("name")
        teams = Q(pk__in=mine.values("workspace__team")) | Q(pk__in=mine.values("receiver"))
        self.filters["team"].queryset = Team.objects.filter(teams).order_by("name")

    def by_team(self, queryset: QuerySet[ChangeRequest], name: str, value: Team) -> QuerySet[ChangeRequest]:
        """Changes of a team's workspaces, and adoptions, whose workspace is only made with the grant."""
        return queryset.filter(Q(workspace__team=value) | Q(workspace__isnull=True, receiver=value))


class ChangeList(ListView):
    """The change requests a person may see."""

    title = "Change requests"
    intro = "What is to be declared differently besides the numbers of quotas: limits, policies, a cluster's baseline."
    queryset = ChangeRequest.objects.select_related("workspace__team", "receiver", "cluster", "requester")
    table_class = ChangeTable
    filterset_class = ChangeFilter
    export_event = CHANGES_EXPORTED
    empty_title = "No change requests yet"
    empty_text = "Changes of a workspace are requested on its page, those of a cluster's baseline on the cluster's."
    empty_icon = "adjustments"


class ChangeDetail(DetailView):
    """One change request: what changes exactly, what the cluster says to it, and its way."""

    queryset = staticmethod(_changes)
    permission = "quotas.request.view"
    url_kwarg = "change_uid"
    template_name = "quotas/change_detail.html"

    def scope_object(self) -> Any:
        """A change of a cluster itself is seen by whoever may see clusters: `visible_to` has decided that."""
        return self.object if self.object.scope_team_id is not None else None

    def get_title(self) -> str:
        """The change in one line."""
        return str(self.object.title)

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [list_crumb()]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add evidence, timeline and what the person may do."""
        change: ChangeRequest = self.object
        evidence = change_selectors.evidence(change)
        return super().get_context(
            **evidence,
            plan_links=plan_links(evidence["plans"], self.request.user),
            timeline=change_selectors.timeline_of(change),
            moving=change.status == RequestStatus.APPLYING,
            may_change=change.is_open and changes.may_withdraw(self.request.user, change),
            approval_url=self._approval_url(),
            **extra,
        )

    def _approval_url(self) -> str:
        approval = self.object.approval
        if approval is None or not type(approval).objects.visible_to(self.request.user).filter(pk=approval.pk).exists():
            return ""
        return reverse("approvals:request-detail", kwargs={"request_uid": approval.uid})


class ChangeWithdraw(ActionView):
    """Take a change request back."""

    title = "Withdraw the change"
    intro = "Nothing that is in force changes. What was decided so far is void."
    queryset = staticmethod(_changes)
    permission = "quotas.change.create"
    url_kwarg = "change_uid"
    form_class = WithdrawForm
    submit_label = "Withdraw it"
    danger = True
    success_message = "Withdrawn."
    object: ChangeRequest

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the change."""
        return [list_crumb(), Crumb(self.object.title, _url(self.object))]

    def check_state(self) -> None:
        """Only an open change can be withdrawn."""
        if not self.object.is_open:
            raise Conflict(
                f"This request is {RequestStatus(self.object.status).label.lower()}: it can no longer be withdrawn.",
                current={"status": self.object.status, "version": self.object.version},
            )

    def perform(self, form: Any) -> str:
        """Withdraw it."""
        change = changes.withdraw_change(
            self.object.pk,
            form.cleaned_data.get("reason", ""),
            actor=self.actor,
            expected_version=self.expected_version,
        )
        return _url(change)
