"""Forms of the quotas room. They check shape only; what a request means is checked by `assess` and the actions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms

from apps.accounts.models import User
from apps.clusters.models import Cluster, Flavour, Pool
from apps.core.forms import CommonsForm, UtcDateTimeField, WholeNumberField
from apps.quotas.assess import MAX_UNITS, MIN_REASON
from apps.quotas.choices import BorrowMode, DataClass, Environment
from apps.quotas.models import Workspace
from apps.teams import scope
from apps.teams.models import Team

_TERMS = ["flavour", "guaranteed", "borrow_mode", "borrow_limit", "valid_from", "valid_until", "reason"]


if TYPE_CHECKING:
    _WorkspaceField = forms.ModelChoiceField[Workspace]
    _FlavourField = forms.ModelChoiceField[Flavour]
else:
    # Django's field takes no type argument at run time.
    _WorkspaceField = _FlavourField = forms.ModelChoiceField


class _WorkspaceChoice(_WorkspaceField):
    def label_from_instance(self, obj: Any) -> str:
        # Not get_environment_display(): it reads all choices anew for each of hundreds of workspaces.
        return f"{obj.team} · {Environment(obj.environment).label} · {obj.cluster}"


class _FlavourChoice(_FlavourField):
    #: Only these clusters are named: others are none of the person's business.
    cluster_ids: tuple[int, ...] = ()

    def offer(self, cluster_ids: list[int]) -> None:
        """Offer the flavours of these clusters."""
        self.cluster_ids = tuple(cluster_ids)
        flavours = Flavour.objects.filter(pools__cluster__in=cluster_ids).prefetch_related("pools__cluster")
        self.queryset = flavours.distinct().order_by("name", "pk")

    def label_from_instance(self, obj: Any) -> str:
        names = {pool.cluster.name for pool in obj.pools.all() if pool.cluster_id in self.cluster_ids}
        return f"{obj.name} ({', '.join(sorted(names))})" if names else str(obj.name)


def may_ask_for(user: Any) -> Any:
    """Return the workspaces for which a person may request quota."""
    return (
        Workspace.objects.visible_to(user)
        .filter(scope.of(user).team_filter("quotas.request.create"), archived_at__isnull=True)
        .select_related("team", "cluster")
        .order_by("team__name", "environment", "pk")
    )


class _Terms(CommonsForm):
    """How much, how far beyond, from when, until when, what for."""

    guaranteed = WholeNumberField(
        label="GPUs", unit="GPUs", min_value=0, max_value=MAX_UNITS, help_text="0 gives everything back."
    )
    borrow_mode = forms.ChoiceField(
        label="Borrow", choices=BorrowMode.choices, initial=BorrowMode.NONE, help_text="How far beyond these GPUs."
    )
    borrow_limit = WholeNumberField(
        label="Borrow limit", unit="GPUs", min_value=0, max_value=MAX_UNITS, required=False, initial=0
    )
    valid_from = UtcDateTimeField(label="From", required=False, help_text="Empty: as soon as it is granted.")
    valid_until = UtcDateTimeField(label="Until", required=False, help_text="Empty: for good.")
    reason = forms.CharField(
        label="Reason",
        min_length=MIN_REASON,
        max_length=4000,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="What it is for; approvers read it.",
    )

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user = user
        self.word_fields()

    def clusters(self) -> list[int]:
        """Ids of the clusters that the form may be about."""
        return []

    def word_fields(self) -> None:
        """Name the promise as the pools have it: where they are best-effort, nothing is called guaranteed."""
        kinds = set(Pool.objects.filter(cluster_id__in=self.clusters()).values_list("best_effort", flat=True))
        label = {frozenset({True}): "Share (best effort)", frozenset({False}): "Guaranteed"}.get(
            frozenset(kinds), "Guaranteed, or share where the pool is best-effort"
        )
        self.fields["guaranteed"].label = label

    def clean_borrow_limit(self) -> int:
        """Empty means none."""
        return self.cleaned_data.get("borrow_limit") or 0


class RequestForm(_Terms):
    """Request quota for one of the person's workspaces."""

    workspace = _WorkspaceChoice(queryset=Workspace.objects.none(), label="Workspace", empty_label="Choose …")
    flavour = _FlavourChoice(queryset=Flavour.objects.none(), label="Flavour", empty_label="Choose …")
    field_order = ["workspace", *_TERMS]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["workspace"].queryset = may_ask_for(self.user)  # type: ignore[attr-defined]  # a ModelChoiceField
        self.fields["flavour"].offer(self.clusters())  # type: ignore[attr-defined]  # the same

    def clusters(self) -> list[int]:
        """The clusters of the person's workspaces."""
        return list(may_ask_for(self.user).order_by().values_list("cluster_id", flat=True).distinct())


class CorrectionForm(_Terms):
    """Correct an open request: another flavour, number, time or reason in the same workspace."""

    flavour = _FlavourChoice(queryset=Flavour.objects.none(), label="Flavour", empty_label=None)
    field_order = _TERMS

    def __init__(self, *args: Any, workspace: Workspace, **kwargs: Any) -> None:
        self.workspace = workspace
        super().__init__(*args, **kwargs)
        self.fields["flavour"].offer(self.clusters())  # type: ignore[attr-defined]  # a ModelChoiceField

    def clusters(self) -> list[int]:
        """The workspace's cluster."""
        return [self.workspace.cluster_id]


class WithdrawForm(CommonsForm):
    """Why a request is withdrawn."""

    reason = forms.CharField(label="Reason", required=False, max_length=1000, help_text="Approvers read it.")


class WorkspaceForm(CommonsForm):
    """A new workspace: team × cluster × environment, with the data allowed there."""

    team = forms.ModelChoiceField(queryset=Team.objects.none(), empty_label="Choose …")
    cluster = forms.ModelChoiceField(queryset=Cluster.objects.none(), empty_label="Choose …")
    environment = forms.ChoiceField(choices=Environment.choices)
    data_classes = forms.MultipleChoiceField(
        label="Data allowed there", choices=DataClass.choices, required=False, widget=forms.CheckboxSelectMultiple
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        teams = Team.objects.filter(archived_at__isnull=True).order_by("name", "pk")
        self.fields["team"].queryset = teams  # type: ignore[attr-defined]  # a ModelChoiceField
        self.fields["cluster"].queryset = Cluster.objects.order_by("name", "pk")  # type: ignore[attr-defined]  # the same
