"""Forms of releases and placement rules. They check shape only; what a release means is `drafting`'s to say."""

from __future__ import annotations

import re
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django import forms

from apps.catalogue import locations
from apps.catalogue.choices import VersionStatus
from apps.catalogue.models import ModelVersion
from apps.clusters import regions
from apps.clusters.choices import DeviceClass, Location
from apps.clusters.models import Flavour
from apps.core.forms import CommonsForm, WholeNumberField
from apps.deployments.choices import ExpiryAction, Tier
from apps.deployments.spec import (
    MAX_CPU,
    MAX_MEMORY_GIB,
    MAX_NAME,
    MAX_QUERY,
    MAX_REPLICAS,
    MAX_UNITS_PER_REPLICA,
    Autoscaling,
    Guard,
    Rung,
    Spec,
    Window,
)
from apps.quotas.choices import DataClass, Environment
from apps.quotas.models import Workspace
from apps.quotas.recurrence import DAY_NAMES
from apps.teams import scope

#: So many versions are offered to choose from, the newest first; others come with the link of their page.
OFFERED = 200
_RUNG = re.compile(r"^\s*(\d{1,3})\s*%?\s*(?:for\s+|,|\s)\s*(\d{1,4})\s*h?\s*$", re.IGNORECASE)

if TYPE_CHECKING:
    _WorkspaceField = forms.ModelChoiceField[Workspace]
    _VersionField = forms.ModelChoiceField[ModelVersion]
    _FlavourField = forms.ModelChoiceField[Flavour]
else:
    # Django's field takes no type argument at run time.
    _WorkspaceField = _VersionField = _FlavourField = forms.ModelChoiceField


class _WorkspaceChoice(_WorkspaceField):
    def label_from_instance(self, obj: Any) -> str:
        return f"{obj.team} · {Environment(obj.environment).label} · {obj.cluster}"


class _VersionChoice(_VersionField):
    def label_from_instance(self, obj: Any) -> str:
        return f"{obj.model} {obj.label}"


class _FlavourChoice(_FlavourField):
    def label_from_instance(self, obj: Any) -> str:
        return f"{obj.name} (CPU)" if obj.device_class == DeviceClass.CPU else str(obj.name)


def may_deploy_to(user: Any) -> Any:
    """Return the workspaces for which a person may request releases."""
    return (
        Workspace.objects.visible_to(user)
        .filter(scope.of(user).team_filter("deployments.release.create"), archived_at__isnull=True)
        .select_related("team", "cluster")
        .order_by("team__name", "environment", "pk")
    )


def _versions(user: Any, chosen: Any) -> Any:
    """Return the sealed versions to choose from: the newest that a cluster can load, and the one that was chosen."""
    sealed = ModelVersion.objects.visible_to(user).filter(status=VersionStatus.SEALED)
    keys = list(locations.loadable(sealed).order_by("-created_at", "-pk").values_list("pk", flat=True)[:OFFERED])
    if str(chosen or "").isdecimal():
        keys.append(int(str(chosen)))
    return sealed.filter(pk__in=keys).select_related("model").order_by("model__name", "-number")


def read_ladder(text: str) -> tuple[Rung, ...]:
    """Return the rungs of lines such as "10 % for 12 h". Raises ValueError naming the line."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        match = _RUNG.match(line)
        if match is None:
            raise ValueError(f"Line {number}: write “10 % for 12 h”.")
        found.append(Rung(int(match.group(1)), int(match.group(2))))
    return tuple(found)


def ladder_text(rungs: Any) -> str:
    """Return rungs as the form shows them."""
    return "\n".join(f"{rung.traffic} % for {rung.hours} h" for rung in rungs)


class ReleaseForm(CommonsForm):
    """Where, which version, how large, how it scales, how it climbs, what rolls it back."""

    workspace = _WorkspaceChoice(label="Workspace", queryset=Workspace.objects.none())
    model_version = _VersionChoice(label="Version", queryset=ModelVersion.objects.none())
    name = forms.CharField(
        label="Endpoint", max_length=MAX_NAME, help_text="Its name in the cluster. A new name makes a new endpoint."
    )
    flavour = _FlavourChoice(
        label="Flavour", queryset=Flavour.objects.none(), help_text="A GPU class, or a CPU class where that is enough."
    )
    units_per_replica = WholeNumberField(
        label="GPUs a replica", unit="units", min_value=1, max_value=MAX_UNITS_PER_REPLICA, initial=1,
        help_text="Units of the flavour; cores of a CPU class.",
    )  # fmt: skip
    cpu = WholeNumberField(label="CPU a replica", unit="cores", min_value=1, max_value=MAX_CPU, initial=4)
    memory_gib = WholeNumberField(
        label="Memory a replica", unit="GiB", min_value=1, max_value=MAX_MEMORY_GIB, initial=16
    )
    tier = forms.ChoiceField(label="Tier", choices=Tier.choices, initial=Tier.HOT)
    min_replicas = WholeNumberField(
        label="At least", unit="replicas", min_value=0, max_value=MAX_REPLICAS, initial=1,
        help_text="0 only where the tier is cold.",
    )  # fmt: skip
    max_replicas = WholeNumberField(label="At most", unit="replicas", min_value=1, max_value=MAX_REPLICAS, initial=1)
    query = forms.CharField(
        label="Grow by this query", required=False, max_length=MAX_QUERY, widget=forms.Textarea(attrs={"rows": 2}),
        help_text="PromQL for one number, such as the requests that wait. Empty: it does not grow by itself.",
    )  # fmt: skip
    metric = forms.CharField(label="Called", required=False, max_length=40, initial="queue_depth")
    threshold = WholeNumberField(
        label="One replica takes", unit="of it", min_value=1, max_value=1_000_000, required=False, initial=4
    )
    up_seconds = WholeNumberField(label="Grows after", unit="s", min_value=0, max_value=3600, required=False, initial=0)
    down_seconds = WholeNumberField(
        label="Shrinks after", unit="s", min_value=0, max_value=3600, required=False, initial=300
    )
    window_days = forms.TypedMultipleChoiceField(
        label="Larger on these days", choices=list(enumerate(DAY_NAMES)), coerce=int, required=False,
        widget=forms.CheckboxSelectMultiple,
    )  # fmt: skip
    window_start = forms.RegexField(
        label="From", regex=r"^([01]\d|2[0-3]):[0-5]\d$", required=False, help_text="HH:MM in UTC.",
        error_messages={"invalid": "Enter the start as HH:MM, such as 08:00."},
    )  # fmt: skip
    window_hours = WholeNumberField(label="For", unit="hours", min_value=1, max_value=168, required=False)
    window_replicas = WholeNumberField(
        label="Then at least", unit="replicas", min_value=1, max_value=MAX_REPLICAS, required=False
    )
    ladder = forms.CharField(
        label="Canary ladder", required=False, widget=forms.Textarea(attrs={"rows": 3}),
        initial="10 % for 12 h\n50 % for 12 h",
        help_text="One step a line, as “10 % for 12 h”; then it takes all traffic. Counts only beside a live release.",
    )  # fmt: skip
    error_percent = forms.DecimalField(
        label="Roll back above errors of", required=False, min_value=Decimal("0.001"), max_value=Decimal(100),
        max_digits=6, decimal_places=3, initial=Decimal("5"),
    )  # fmt: skip
    latency_p95_ms = WholeNumberField(
        label="or a p95 latency above", unit="ms", min_value=1, max_value=3_600_000, required=False
    )
    window_minutes = WholeNumberField(
        label="looked at over", unit="minutes", min_value=1, max_value=1440, required=False, initial=10
    )
    logger = forms.BooleanField(
        label="Keep records of predictions", required=False, help_text="They go to the cluster's sink."
    )
    explainer = forms.BooleanField(label="Run the version's explainer", required=False)
    expiry_action = forms.ChoiceField(
        label="When its approval ends", choices=ExpiryAction.choices, initial=ExpiryAction.BLOCK_NEW,
        help_text="It never stops silently. The policy may say otherwise.",
    )  # fmt: skip
    emergency = forms.BooleanField(
        label="This is an emergency", required=False,
        help_text="Two people, some hours, and a review that blocks the team's next normal request.",
    )  # fmt: skip
    reason = forms.CharField(
        label="Reason", min_length=10, max_length=4000, widget=forms.Textarea(attrs={"rows": 3}),
        help_text="What it is for; approvers read it.",
    )  # fmt: skip

    def __init__(self, *args: Any, user: Any, may_emergency: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        workspaces = may_deploy_to(user)
        self._choice("workspace").queryset = workspaces
        chosen = self.data.get("model_version") if self.is_bound else self.initial.get("model_version")
        self._choice("model_version").queryset = _versions(user, chosen)
        clusters = list(workspaces.order_by().values_list("cluster_id", flat=True).distinct())
        self._choice("flavour").queryset = (
            Flavour.objects.filter(pools__cluster__in=clusters).distinct().order_by("device_class", "name", "pk")
        )
        self._choice("error_percent").widget.addon = "%"
        if not may_emergency:
            del self.fields["emergency"]

    def _choice(self, name: str) -> Any:
        return self.fields[name]

    def clean_ladder(self) -> tuple[Rung, ...]:
        """Read the rungs."""
        try:
            return read_ladder(self.cleaned_data.get("ladder") or "")
        except ValueError as error:
            raise forms.ValidationError(str(error)) from error

    def clean(self) -> dict[str, Any]:
        """Ask for what belongs together."""
        data = super().clean() or self.cleaned_data
        parts = ("window_days", "window_start", "window_hours", "window_replicas")
        given = [name for name in parts if data.get(name)]
        if given:
            for name in parts:
                if not data.get(name) and name not in self.errors:
                    self.add_error(name, "A window needs days, a start, hours and replicas.")
        if data.get("query") and not data.get("threshold"):
            self.add_error("threshold", "How much of it does one replica take?")
        return data

    def spec(self) -> Spec:
        """Return what was typed as a spec."""
        data = self.cleaned_data
        scaling = None
        if data.get("query"):
            scaling = Autoscaling(
                query=data["query"].strip(), threshold=data["threshold"], metric=data.get("metric") or "queue_depth",
                up_seconds=data.get("up_seconds") or 0,
                down_seconds=300 if data.get("down_seconds") is None else data["down_seconds"],
            )  # fmt: skip
        schedule: tuple[Window, ...] = ()
        if data.get("window_days") and data.get("window_start") and data.get("window_hours"):
            schedule = (
                Window(
                    tuple(data["window_days"]), data["window_start"], data["window_hours"] * 60,
                    data.get("window_replicas") or 0,
                ),
            )  # fmt: skip
        percent = data.get("error_percent")
        return Spec(
            min_replicas=data["min_replicas"],
            max_replicas=data["max_replicas"],
            units_per_replica=data["units_per_replica"],
            cpu=data["units_per_replica"] if data["flavour"].device_class == DeviceClass.CPU else data["cpu"],
            memory_gib=data["memory_gib"],
            tier=data["tier"],
            autoscaling=scaling,
            schedule=schedule,
            ladder=data.get("ladder") or (),
            guard=Guard(
                error_rate=None if percent is None else (percent / 100).normalize(),
                latency_p95_ms=data.get("latency_p95_ms"),
                window_minutes=data.get("window_minutes") or 10,
            ),
            logger=bool(data.get("logger")),
            explainer=bool(data.get("explainer")),
            expiry_action=data.get("expiry_action") or str(ExpiryAction.BLOCK_NEW),
        )

    def _bound(self, *names: str) -> list[Any]:
        return [self[name] for name in names if name in self.fields]

    @property
    def main_fields(self) -> list[Any]:
        """What and where."""
        return self._bound("workspace", "model_version", "name", "flavour")

    @property
    def size_fields(self) -> list[Any]:
        """How large."""
        return self._bound("units_per_replica", "cpu", "memory_gib", "tier", "min_replicas", "max_replicas")

    @property
    def scale_fields(self) -> list[Any]:
        """How it grows."""
        return self._bound(
            "query", "metric", "threshold", "up_seconds", "down_seconds", "window_days", "window_start",
            "window_hours", "window_replicas",
        )  # fmt: skip

    @property
    def rollout_fields(self) -> list[Any]:
        """How it climbs and what rolls it back."""
        return self._bound("ladder", "error_percent", "latency_p95_ms", "window_minutes")

    @property
    def duty_fields(self) -> list[Any]:
        """What regulation may ask for."""
        return self._bound("logger", "explainer", "expiry_action", "emergency")

    @property
    def last_fields(self) -> list[Any]:
        """The reason."""
        return self._bound("reason")

    @property
    def scales(self) -> bool:
        """Whether the part about growing is open."""
        names = ("query", "window_days", "window_start", "threshold")
        return bool(self["query"].value() or self["window_days"].value() or any(name in self.errors for name in names))


def initial_of(spec: Spec) -> dict[str, Any]:
    """Return what the form shows first of a stored spec; of several windows the first."""
    scaling, guard = spec.autoscaling, spec.guard
    found: dict[str, Any] = {
        "units_per_replica": spec.units_per_replica, "cpu": spec.cpu, "memory_gib": spec.memory_gib,
        "tier": spec.tier, "min_replicas": spec.min_replicas, "max_replicas": spec.max_replicas,
        "ladder": ladder_text(spec.ladder),
        "error_percent": None if guard.error_rate is None else guard.error_rate * 100,
        "latency_p95_ms": guard.latency_p95_ms, "window_minutes": guard.window_minutes,
        "logger": spec.logger, "explainer": spec.explainer, "expiry_action": spec.expiry_action,
    }  # fmt: skip
    if scaling is not None:
        found |= {
            "query": scaling.query, "metric": scaling.metric, "threshold": scaling.threshold,
            "up_seconds": scaling.up_seconds, "down_seconds": scaling.down_seconds,
        }  # fmt: skip
    if spec.schedule:
        window = spec.schedule[0]
        found |= {
            "window_days": list(window.days), "window_start": window.start, "window_hours": window.minutes // 60,
            "window_replicas": window.replicas,
        }  # fmt: skip
    return found


class ReasonForm(CommonsForm):
    """Why something is done with a running endpoint."""

    reason = forms.CharField(
        label="Reason", min_length=10, max_length=2000, widget=forms.Textarea(attrs={"rows": 3}),
        help_text="It stays in the log of the endpoint.",
    )  # fmt: skip


class OptionalReasonForm(CommonsForm):
    """A remark on something that goes as planned."""

    reason = forms.CharField(label="Remark", required=False, max_length=2000, widget=forms.Textarea(attrs={"rows": 2}))


class RollBackForm(ReasonForm):
    """Why, and where to: offered are the releases that took all traffic once."""

    to = forms.ChoiceField(label="Back to", required=False)

    field_order = ("to", "reason", "version")

    def __init__(self, *args: Any, choices: list[tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if choices:
            self.fields["to"].choices = choices  # type: ignore[attr-defined]  # a ChoiceField, as declared
        else:
            del self.fields["to"]

    def target(self) -> uuid.UUID | None:
        """Return the chosen release, or None where there is none to choose."""
        chosen = self.cleaned_data.get("to")
        return uuid.UUID(chosen) if chosen else None


class WithdrawForm(CommonsForm):
    """Why a request is taken back."""

    reason = forms.CharField(label="Reason", required=False, max_length=1000, widget=forms.Textarea(attrs={"rows": 2}))


class RuleForm(CommonsForm):
    """A placement rule."""

    data_class = forms.ChoiceField(label="Data class", choices=DataClass.choices)
    location = forms.ChoiceField(
        label="Location", choices=[("", "Anywhere"), (str(Location.ON_PREMISES), "On premises"), ("cloud", "Cloud")],
        required=False,
    )  # fmt: skip
    jurisdictions = forms.CharField(
        label="Jurisdictions", required=False, max_length=300,
        help_text=f"Separated by commas; a group covers its members. {regions.HINT} Empty: any.",
    )  # fmt: skip
    text = forms.CharField(
        label="The rule in a sentence", max_length=500, help_text="People read it where it refuses a release."
    )
    citation = forms.CharField(label="Citation", required=False, max_length=300)
    reason = forms.CharField(
        label="Reason", min_length=10, max_length=2000, widget=forms.Textarea(attrs={"rows": 3}),
        help_text="It stays in the audit trail.",
    )  # fmt: skip
