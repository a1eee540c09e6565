"""Forms of the quotas room. They check shape only; what a request means is checked by `assess` and the actions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms

from apps.accounts.models import User
from apps.clusters import capabilities
from apps.clusters.models import Cluster, Flavour, Pool
from apps.core.forms import CommonsForm, UtcDateTimeField, WholeNumberField
from apps.quotas import recurrence as weekly
from apps.quotas.assess import MAX_UNITS, MIN_REASON, Extras
from apps.quotas.choices import BorrowMode, DataClass, Environment, LendMode
from apps.quotas.models import Workspace
from apps.teams import scope
from apps.teams.models import Team

_REPEAT = ["recurrence", "repeat_days", "repeat_start", "repeat_hours", "repeat_minutes"]
_LEND = ["lend_mode", "lend_limit", "serving"]
_TERMS = [
    *("flavour", "guaranteed", "borrow_mode", "borrow_limit", "valid_from", "valid_until", "reason"),
    *_REPEAT,
    *_LEND,
]
_REPETITIONS = (
    ("none", "No: without a break"),
    ("nights", "Every weekday night, 18:00–06:00 UTC"),
    ("weekends", "Every weekend, 48 hours from Saturday 00:00 UTC"),
    ("custom", "On days of my own"),
)

if TYPE_CHECKING:
    _WorkspaceField = forms.ModelChoiceField[Workspace]
    _FlavourField = forms.ModelChoiceField[Flavour]
else:
    # Django's field takes no type argument at run time.
    _WorkspaceField = _FlavourField = forms.ModelChoiceField


class _WorkspaceChoice(_WorkspaceField):
    def label_from_instance(self, obj: Any) -> str:
        # Not get_environment_display(): it reads all choices anew for each of hundreds of workspaces.
        archived = " · archived" if obj.archived_at is not None else ""
        return f"{obj.team} · {Environment(obj.environment).label} · {obj.cluster}{archived}"


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
        .filter(scope.of(user).team_filter("quotas.request.create"))
        .select_related("team", "cluster")
        .order_by("team__name", "environment", "pk")
    )


class _ClockInput(forms.TimeInput):
    """The browser's clock; what it sends is read as UTC, and the field says so."""

    input_type = "time"
    addon = "UTC"

    def __init__(self) -> None:
        super().__init__(attrs={"step": "60"}, format="%H:%M")


def repetition_initial(stored: Any) -> dict[str, Any]:
    """Return what the form shows first of a stored repetition."""
    found = weekly.parse(stored)
    if found is None:
        return {}
    preset = next((name for name, one in weekly.PRESETS.items() if one == found), "")
    if preset:
        return {"recurrence": preset}
    return {
        "recurrence": "custom",
        "repeat_days": list(found.days),
        "repeat_start": found.clock,
        "repeat_hours": found.minutes // 60,
        "repeat_minutes": found.minutes % 60,
    }


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
    recurrence = forms.ChoiceField(
        label="Repeats every week",
        choices=_REPETITIONS,
        initial="none",
        required=False,
        help_text="Only in these windows the GPUs are held and cost; between them what is held otherwise shows. "
        "A repetition needs an end.",
    )
    repeat_days = forms.TypedMultipleChoiceField(
        label="Days of my own",
        choices=list(enumerate(weekly.DAY_NAMES)),
        coerce=int,
        required=False,
        widget=forms.CheckboxSelectMultiple,
    )
    repeat_start = forms.TimeField(
        label="Begins at",
        required=False,
        input_formats=["%H:%M"],
        widget=_ClockInput(),
        error_messages={"invalid": "Enter the start as HH:MM, such as 18:00."},
    )
    repeat_hours = WholeNumberField(label="Lasts", unit="hours", min_value=0, max_value=168, required=False)
    repeat_minutes = WholeNumberField(label="and", unit="minutes", min_value=0, max_value=59, required=False)
    lend_mode = forms.ChoiceField(
        label="Lend",
        choices=LendMode.choices,
        initial=LendMode.ALL,
        required=False,
        help_text="How much of the guaranteed GPUs others may use while they idle here; Kueue takes them back.",
    )
    lend_limit = WholeNumberField(
        label="Lend limit", unit="GPUs", min_value=0, max_value=MAX_UNITS, required=False, initial=0
    )
    serving = WholeNumberField(
        label="Kept for serving",
        unit="GPUs",
        min_value=0,
        max_value=MAX_UNITS,
        required=False,
        initial=0,
        help_text="Of the guaranteed GPUs: for models that answer all day. Never lent, never in the queue of jobs.",
    )

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user = user
        self.word_fields()
        self.lend_missing = self.why_nothing_is_lent()
        if self.lend_missing:
            for name in _LEND:
                del self.fields[name]

    def why_nothing_is_lent(self) -> str:
        """Return why lending and serving are not offered: no cluster that the form may be about can; else nothing."""
        reasons = [capabilities.missing(cluster, "kueue") for cluster in Cluster.objects.filter(pk__in=self.clusters())]
        return next((reason for reason in reasons if reason), "") if all(reasons) else ""

    @property
    def main_fields(self) -> list[forms.BoundField]:
        """What every request says."""
        return [self[name] for name in self.fields if name not in {*_REPEAT, *_LEND, "version", "reason"}]

    @property
    def last_fields(self) -> list[forms.BoundField]:
        """What comes after the folded parts."""
        return [self["reason"]]

    @property
    def repeat_fields(self) -> list[forms.BoundField]:
        """The weekly repetition."""
        return [self[name] for name in _REPEAT]

    @property
    def lend_fields(self) -> list[forms.BoundField]:
        """Lending and serving, where a cluster can."""
        return [self[name] for name in _LEND if name in self.fields]

    @property
    def repeats(self) -> bool:
        """Whether the part about repetition is unfolded: it says something, or something is wrong in it."""
        wrong = self.is_bound and any(name in self.errors for name in _REPEAT)
        return bool(wrong or (self["recurrence"].value() or "none") != "none")

    @property
    def lends(self) -> bool:
        """The same of lending and serving."""
        if "lend_mode" not in self.fields:
            return False
        wrong = self.is_bound and any(name in self.errors for name in _LEND)
        return bool(
            wrong or (self["lend_mode"].value() or "all") != "all" or self["serving"].value() not in (0, "0", "", None)
        )

    def extras(self) -> Extras:
        """Return what the valid form says beyond numbers and dates."""
        data = self.cleaned_data
        return Extras(
            recurrence=data.get("repetition"),
            lend_mode=data.get("lend_mode") or LendMode.ALL,
            lend_limit=data.get("lend_limit") or 0,
            serving=data.get("serving") or 0,
        )

    def clean(self) -> dict[str, Any]:
        """Read the repetition as one; what is wrong stands at its part."""
        data = super().clean() or self.cleaned_data
        data["repetition"] = None
        chosen = data.get("recurrence") or "none"
        if chosen in weekly.PRESETS:
            data["repetition"] = weekly.PRESETS[chosen].plain()
        elif chosen == "custom" and not {"repeat_days", "repeat_start"} & set(self.errors):
            start = data.get("repeat_start")
            sent = {
                "days": data.get("repeat_days") or [],
                "start": f"{start:%H:%M}" if start is not None else "",
                "minutes": (data.get("repeat_hours") or 0) * 60 + (data.get("repeat_minutes") or 0),
            }
            try:
                found = weekly.parse(sent)
                data["repetition"] = found.plain() if found is not None else None
            except weekly.Unreadable as wrong:
                names = {"days": "repeat_days", "start": "repeat_start", "minutes": "repeat_hours"}
                for part, message in wrong.errors.items():
                    self.add_error(names[part], message)
        return data

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
        self.fields["cluster"].queryset = Cluster.objects.filter(archived_at=None).order_by("name")  # type: ignore[attr-defined]  # the same
